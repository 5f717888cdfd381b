"""Where losses and iALS cross over the size of the embeddings, on stores written by hand."""

from pathlib import Path
from typing import Any

import pytest

from bslbench.errors import ConfigError
from bslbench.report.claims.dimension import dimension_table
from bslbench.report.render import render
from bslbench.report.table import Table
from tests.stores import cell, popularity
from tests.test_claims import amend, column, store


def sized(means: dict[str, dict[int, float]], **fields: Any) -> list[tuple[dict[str, Any], float]]:
    """Return two seeds of each loss and dim, one above the mean and one below; iALS on none."""
    place = {"ials": {"backbone": "reference"}}
    return [
        (cell(loss, seed, dim=dim, **(fields | place.get(loss, {}))), mean + (seed - 0.5) / 100)
        for loss, own in means.items()
        for dim, mean in own.items()
        for seed in (0, 1)
    ]


def crossings(table: Table) -> list[list[Any]]:
    """Return what stands beneath the measured rows."""
    names = ("backbone", "loss", "dim", "cross at", "ahead")
    rows = zip(*(column(table, name) for name in names), strict=True)
    return [list(row) for row in rows if row[-1]]


def test_losses_cross_on_the_logarithm_of_dim(tmp_path: Path) -> None:
    means = {
        "bpr": {32: 0.2, 64: 0.22, 128: 0.24},
        "sl": {32: 0.18, 64: 0.21, 128: 0.25},
        "ials": {32: 0.1, 64: 0.22, 128: 0.23, 256: 0.3},
    }
    store(tmp_path, [*sized(means), (popularity(), 0.05)])
    table = dimension_table(tmp_path, "trial")
    assert column(table, "loss")[:10] == ["ials"] * 4 + ["bpr", "sl"] * 3
    assert column(table, "dim")[:10] == [
        "32",
        "64",
        "128",
        "256",
        *("32", "32", "64", "64"),
        *["128"] * 2,
    ]
    recalls = [row[table.column("Recall@20")] for row in table.rows]
    assert [e.value for e in recalls[:6]] == pytest.approx([0.1, 0.22, 0.23, 0.3, 0.2, 0.18])
    assert [e.place for e in recalls[:6]] == [0, 1, 0, 1, 1, 2]  # within a dim, iALS too
    assert crossings(table) == [
        # From .01 ahead at 64 to .01 behind at 128: halfway between their logarithms.
        ["mf", "bpr, sl", "64 to 128", pytest.approx(64 * 2**0.5), "bpr, then sl"],
        ["mf", "bpr, ials", "32 to 64", pytest.approx(64), "bpr, then neither"],
        ["mf", "bpr, ials", "64 to 128", pytest.approx(64), "neither, then bpr"],
        # From .08 ahead to .01 behind: eight ninths of the way; then to .02 ahead: a third.
        ["mf", "sl, ials", "32 to 64", pytest.approx(32 * 2 ** (8 / 9)), "sl, then ials"],
        ["mf", "sl, ials", "64 to 128", pytest.approx(64 * 2 ** (1 / 3)), "ials, then sl"],
    ]


def test_what_never_crosses_is_said_backbone_by_backbone(tmp_path: Path) -> None:
    made = sized({"sl": {32: 0.2, 64: 0.3}, "bpr": {32: 0.1, 64: 0.1}})
    made += sized({"sl": {32: 0.2, 128: 0.3}, "bpr": {32: 0.3}}, backbone="lightgcn")
    made += [(cell("sl", seed, dim=64, lr=0.1), 0.9) for seed in (0, 1)]
    store(tmp_path, made, valid={c["id"]: 0.5 - c["lr"] for c, _ in made})
    assert crossings(dimension_table(tmp_path, "trial")) == [
        ["mf", "sl, bpr", "32 to 64", "nowhere", "sl"]
    ]


def test_settings_that_were_tuned_are_tuned_at_one_dim(tmp_path: Path) -> None:
    made = sized({"sl": {32: 0.2, 64: 0.3}})
    store(tmp_path, made)
    amend(tmp_path, "runs.csv", {c["id"]: {"settings_from": "tuned (s, trial 3)"} for c, _ in made})
    notes = dimension_table(tmp_path, "trial").notes
    assert "not tuned at each dim: tuned (s, trial 3)" in notes


def test_one_dim_is_no_curve(tmp_path: Path) -> None:
    store(tmp_path, [*sized({"sl": {64: 0.2}, "ials": {64: 0.1}}), (popularity(), 0.05)])
    with pytest.raises(ConfigError, match="nothing with finished runs at two values of dim"):
        dimension_table(tmp_path, "trial")


@pytest.mark.parametrize("fmt", ["console", "markdown", "latex", "csv", "html"])
def test_it_is_written_in_every_format(tmp_path: Path, fmt: Any) -> None:
    store(tmp_path, sized({"sl": {32: 0.2, 64: 0.3}, "ials": {32: 0.1, 64: 0.4}}))
    assert "sl, then ials" in render(dimension_table(tmp_path, "trial"), fmt)
