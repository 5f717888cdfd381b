"""What SL owes to what, on stores written by hand: every share worked out in powers of two."""

from pathlib import Path
from typing import Any

import pytest

from bslbench.errors import ConfigError
from bslbench.report.claims.factorial import factorial_table
from bslbench.report.render import render
from bslbench.report.table import Table
from tests.stores import cell, popularity
from tests.test_claims import column, store

DOUBLINGS = {
    ("bpr", "inner", 1): 0,
    ("bpr", "cosine", 1): 1,
    ("bpr", "inner", 800): 0,
    ("bpr", "cosine", 800): 2,
    ("sl", "inner", 1): 0,
    ("sl", "cosine", 1): 1,
    ("sl", "inner", 800): 1,
    ("sl", "cosine", 800): 3,
}
"""How often each arm doubles what `bpr` has at its own score and M.

One factor alone, after one of the others and after both brings: score 1, after M 2, after the loss
1, after both 2; M 0, 1, 1, 2; loss 0, after score 0, after M 1, 1. With weights 1/3, 1/6, 1/6, 1/3
these are 3/2, 1 and 1/2.
"""


def arm(loss: str, score: str, m: int, seed: int = 0, **fields: Any) -> dict[str, Any]:
    scores = {"score_train": score, "score_test": score}
    made: dict[str, Any] = cell(loss, seed, **scores, n_negatives=m, **fields)
    return made


def crossed(doublings: dict[Any, int], seed: int = 0) -> list[tuple[dict[str, Any], float]]:
    return [(arm(*form, seed), 0.01 * (1 + seed) * 2**n) for form, n in doublings.items()]


def as_on_valid(results: Path, recalls: list[tuple[dict[str, Any], float]]) -> Table:
    """Return the table of a store whose values on valid are those on test."""
    store(results, recalls, valid={c["id"]: recall for c, recall in recalls})
    return factorial_table(results, "trial")


def shares(table: Table) -> dict[str, list[Any]]:
    """Return gain, share and range of each factor of the only decomposition."""
    columns = [column(table, name) for name in ("gain by", "gain", "share", "by order")]
    return {name: values for name, *values in zip(*columns, strict=True) if name}


def test_a_gain_is_shared_out_over_all_orders(tmp_path: Path) -> None:
    made = [*crossed(DOUBLINGS), *crossed(DOUBLINGS, seed=1), (popularity(), 0.005)]
    table = as_on_valid(tmp_path, made)
    arms = [column(table, name)[:8] for name in ("loss", "score", "M")]
    assert list(zip(*arms, strict=True)) == [(a, b, str(c)) for a, b, c in DOUBLINGS]
    assert column(table, "Recall@20")[:8] == pytest.approx(
        [0.015 * 2**n for n in DOUBLINGS.values()]
    )
    assert set(column(table, "loss")[8:]) == {"sl over bpr"}
    assert column(table, "score")[8:] == ["inner to cosine", "", "", "inner to cosine"]
    assert column(table, "M")[8:] == ["", "1 to 800", "", "1 to 800"]
    assert set(column(table, "seeds")) == {"2"}
    assert shares(table) == {
        "score": [pytest.approx(2**1.5 - 1), pytest.approx(1 / 2), "+100.0% to +300.0%"],
        "M": [pytest.approx(1), pytest.approx(1 / 3), "+0.0% to +300.0%"],
        "loss": [pytest.approx(2**0.5 - 1), pytest.approx(1 / 6), "+0.0% to +100.0%"],
        "all": [pytest.approx(7), pytest.approx(1), ""],
    }


def test_shares_have_intervals_over_the_seeds_that_every_step_has(tmp_path: Path) -> None:
    more = crossed(DOUBLINGS | {("sl", "cosine", 800): 4}, seed=1)
    alone = arm("bpr", "inner", 1, seed=2), 0.1
    table = as_on_valid(tmp_path, [*crossed(DOUBLINGS), *more, alone])
    # The end of seed 1 is one doubling higher, of which each factor brings a third there.
    half = 12.7062 / 2 / 3  # t of one degree of freedom, two values a third apart
    gains = [row[table.column("gain")] for row in table.rows[-4:]]
    for gain, doublings in zip(gains, (5 / 3, 7 / 6, 2 / 3), strict=False):
        assert gain.value == pytest.approx(2**doublings - 1)
        low, high = 2 ** (doublings - half) - 1, 2 ** (doublings + half) - 1
        assert gain.interval == pytest.approx((low, high), rel=1e-4)
    assert gains[3].value == pytest.approx(2**3.5 - 1)
    assert column(table, "share")[-4:] == ["-"] * 4  # the whole has zero in its interval


def test_an_arm_that_was_only_looked_at_is_not_taken_apart(tmp_path: Path) -> None:
    looked_at = [(arm("sl", "cosine", 1600), 0.9), (arm("mse", "inner", 800), 0.9)]
    made = [*crossed(DOUBLINGS), *crossed(DOUBLINGS, seed=1), *looked_at]
    table = as_on_valid(tmp_path, made)
    assert set(column(table, "loss")[-4:]) == {"sl over bpr"}
    assert column(table, "M")[-4:] == ["", "1 to 800", "", "1 to 800"]
    assert set(column(table, "seeds")[-4:]) == {"2"}
    aside = "left aside for fewer seeds: sl, cosine, M = 1600; mse, inner, M = 800"
    assert f"yelp2018, mf, clean: {aside}" in table.notes


def test_the_best_opponent_is_taken_apart_too_or_what_lacks_is_said(tmp_path: Path) -> None:
    mse = [(arm("mse", "inner", 800), 0.04), (arm("mse", "cosine", 800), 0.02)]
    made = [*crossed(DOUBLINGS), *mse]
    table = as_on_valid(tmp_path / "whole", made)
    assert column(table, "loss")[-3:] == ["sl over mse"] * 3  # both have the same M
    assert column(table, "gain by")[-3:] == ["score", "loss", "all"]
    # From .04: cosine .02, the loss .02, both .08: cosine first halves, then it brings fourfold.
    assert column(table, "gain")[-3:] == pytest.approx([2**0.5 - 1, 2**0.5 - 1, 1])
    assert [row[table.column("gain")].interval for row in table.rows[-3:]] == [None] * 3
    assert column(table, "share")[-3:] == ["-"] * 3  # one seed tells of no gain
    table = as_on_valid(tmp_path / "partly", made[:-1])
    assert table.notes[-2:] == (
        "yelp2018, mf, clean: no bce, inner, M = 800: the best is of the others",
        "yelp2018, mf, clean: sl over mse: no mse, cosine, M = 800",
    )
    assert "sl over bpr" in column(table, "loss") and "sl over mse" not in column(table, "loss")
    unpaired = [(arm(*form, seed=int(form[0] == "sl")), 0.1) for form in DOUBLINGS]
    table = as_on_valid(tmp_path / "unpaired", unpaired)
    assert "yelp2018, mf, clean: sl over bpr: no seed in common" in table.notes


def test_the_settings_of_an_arm_are_chosen_on_valid(tmp_path: Path) -> None:
    made = [(arm("bpr", "inner", m, lr=lr), m * lr) for m in (1, 800) for lr in (0.1, 0.2)]
    made += [(arm("bpr", "inner", 1, seed, lr=0.3), 0.9) for seed in (0, 1)]
    made += [(arm("sl", "cosine", 800), 0.5)]
    store(tmp_path, made, valid={c["id"]: 1 - c["lr"] for c, _ in made})
    table = factorial_table(tmp_path, "trial")
    assert column(table, "Recall@20") == [0.9, 80, 0.5]  # two seeds; then the better on valid
    assert "lr=0.3" in column(table, "settings")[0]


def test_no_factorial_without_several_scores_or_m(tmp_path: Path) -> None:
    own = [(arm("bpr", "inner", 1), 0.1), (arm("sl", "cosine", 800), 0.2), (cell("bsl"), 0.2)]
    store(tmp_path, own)
    with pytest.raises(ConfigError, match="no finished sl beside bpr, mse, bce at several scores"):
        factorial_table(tmp_path, "trial")


@pytest.mark.parametrize("fmt", ["console", "markdown", "latex", "csv", "html"])
def test_it_is_written_in_every_format(tmp_path: Path, fmt: Any) -> None:
    assert "sl over bpr" in render(as_on_valid(tmp_path, crossed(DOUBLINGS)), fmt)
