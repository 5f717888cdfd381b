"""The tables of the claims: every number from a store written by hand."""

import csv
import itertools
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from bslbench.engine.grid_files import OTHERWISE
from bslbench.errors import ConfigError
from bslbench.evaluation.statistics import holm
from bslbench.report.claims.ablation import ablation_table
from bslbench.report.claims.fairness import fairness_table
from bslbench.report.claims.identities import theory_table
from bslbench.report.claims.published_pairs import pairs_table
from bslbench.report.claims.robustness import robustness_table
from bslbench.report.claims.temperature import temperature_table
from bslbench.report.claims.variance import variance_table
from bslbench.report.figures.catalogue import chart
from bslbench.report.ranking_table import ranking_table
from bslbench.report.render import render
from bslbench.report.results import Results
from bslbench.report.table import Table
from bslbench.report.tables import builder
from tests.stores import cell, popularity, write
from tests.test_significance import keep, ranked

CLEAN = {"noise_pos": 0.0, "noise_neg": 1.0, "noise_fneg": 0.0}


def noisy(loss: str, seed: int = 0, **fields: Any) -> dict[str, Any]:
    made: dict[str, Any] = cell(loss, seed, **(CLEAN | fields))
    return made


def store(results: Path, recalls: list[tuple[dict[str, Any], float]], **more: Any) -> None:
    write(results, [(c, {"Recall@20": value}) for c, value in recalls], **more)


def amend(results: Path, name: str, rows: dict[str, dict[str, Any]]) -> None:
    """Add columns to the rows of runs.csv, by run id."""
    path = results / "trial" / name
    with path.open(newline="") as file:
        old = list(csv.DictReader(file))
    columns = list(dict.fromkeys([*old[0], *(k for row in rows.values() for k in row)]))
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, columns, restval="")
        writer.writeheader()
        writer.writerows(row | rows.get(row["run_id"], {}) for row in old)


def append(results: Path, rows: list[tuple[dict[str, Any], str, str, int, Any, float]]) -> None:
    """Append (cell, split, metric, k, group, value) to metrics.csv."""
    with (results / "trial" / "metrics.csv").open("a") as file:
        for c, *values in rows:
            file.write(",".join(map(str, [c["id"], c["dataset"], *values])) + "\n")


def column(table: Table, name: str, group: str = "") -> list[Any]:
    index = table.column(name, group)
    entries = [row[index] for row in table.rows]
    return [e.text if e.value is None else e.value for e in entries]


# Robustness


def line(value: float, loss: str, seed: int, **noise: Any) -> tuple[dict[str, Any], float]:
    return noisy(loss, seed, **noise), value


def test_relative_loss_and_slope_are_paired_by_seed(tmp_path: Path) -> None:
    recalls = [
        *(line(0.2 * (1 + seed), "sl", seed) for seed in (0, 1)),
        *(line(0.1 * (1 + seed), "sl", seed, noise_pos=0.2) for seed in (0, 1)),
        line(0.05, "sl", 0, noise_pos=0.4),
        line(0.2, "sl", 1, noise_pos=0.4),
        *(
            line(0.4, "bpr", seed, **({"noise_pos": r} if r else {}))
            for seed in (0, 1)
            for r in (0, 0.2)
        ),
    ]
    store(tmp_path, recalls)
    table = robustness_table(tmp_path, "trial")
    assert column(table, "noise") == [
        *["clean"] * 2,
        *["pos=0.2"] * 2,
        "pos=0.4",
        "slope over pos at 0, 0.2, 0.4",
        "slope over pos at 0, 0.2",
    ]
    assert column(table, "loss") == ["sl", "bpr", "sl", "bpr", "sl", "sl", "bpr"]
    assert column(table, "Recall@20")[:5] == pytest.approx([0.3, 0.4, 0.15, 0.4, 0.125])
    change = [row[table.column("against clean")] for row in table.rows]
    assert [e.value for e in change[2:5]] == pytest.approx([-0.5, 0, (-0.75 - 0.5) / 2])
    assert change[4].sd == pytest.approx(0.25 / math.sqrt(2))
    slopes = [row[table.column("slope")] for row in table.rows[5:]]
    # Seed 0: log recall falls by log 2 every 0.2. Seed 1: 0.4, 0.2, 0.2 at 0, 0.2, 0.4.
    by_seed = [-math.log(2) / 0.2, -math.log(2) / 0.4]
    assert slopes[0].value == pytest.approx(np.mean(by_seed))
    assert slopes[0].sd == pytest.approx(np.std(by_seed, ddof=1))
    assert slopes[1].value == pytest.approx(0, abs=1e-12)
    assert slopes[1].place == slopes[0].place == 1  # over other levels: no match for each other


def test_a_slope_is_of_seeds_that_have_every_level(tmp_path: Path) -> None:
    recalls = [
        line(value, loss, seed, **({"noise_pos": r} if r else {}))
        for loss, factor in (("sl", 1.0), ("bpr", 2.0))
        for seed, levels in ((0, (0, 0.1, 0.4)), (1, (0, 0.1)))
        for r, value in zip((0, 0.1, 0.4), (0.4, 0.38, 0.4 - 0.1 * factor), strict=True)
        if r in levels
    ]
    store(tmp_path, recalls)
    table = robustness_table(tmp_path, "trial")
    assert column(table, "noise")[-2:] == ["slope over pos"] * 2
    assert column(table, "seeds")[-2:] == ["1", "1"]
    slopes = [row[table.column("slope")] for row in table.rows[-2:]]
    assert [entry.place for entry in slopes] == [1, 2]
    logs = np.log([0.4, 0.38, 0.3])
    assert slopes[0].value == pytest.approx(np.polyfit([0, 0.1, 0.4], logs, 1)[0])


def test_negatives_are_sloped_over_their_share_of_false_ones(tmp_path: Path) -> None:
    levels = {0.0: (0.0, 0.3), 1.0: (0.1, 0.27), 5.0: (0.4, 0.18)}
    made = {r: line(v, "sl", 0, noise_neg=r) for r, (_, v) in levels.items()}
    store(tmp_path, list(made.values()))
    shares = {made[r][0]["id"]: {"false_negative_share": s} for r, (s, _) in levels.items()}
    amend(tmp_path, "runs.csv", shares)
    table = robustness_table(tmp_path, "trial")
    assert column(table, "noise") == ["neg=0", "clean", "neg=5", "slope over neg"]
    assert column(table, "false negatives")[:3] == [0.0, 0.1, 0.4]
    change = column(table, "against clean")
    assert change[0] == pytest.approx(0.3 / 0.27 - 1) and change[1] == ""
    x, y = zip(*((s, math.log(v)) for s, v in levels.values()), strict=True)
    assert column(table, "slope")[3] == pytest.approx(np.polyfit(x, y, 1)[0])


def test_both_sides_and_hidden_pairs_are_lines_of_their_own(tmp_path: Path) -> None:
    hidden = {"noise_hidden": True}
    store(
        tmp_path,
        [
            line(0.30, "sl", 0),
            line(0.25, "sl", 0, noise_pos=0.2),
            line(0.20, "sl", 0, noise_pos=0.2, noise_neg=5.0),
            line(0.28, "sl", 0, **hidden),
            line(0.21, "sl", 0, noise_fneg=0.5, **hidden),
        ],
    )
    table = robustness_table(tmp_path, "trial")
    pairs = zip(column(table, "noise"), column(table, "against clean"), strict=True)
    changes = {noise: change for noise, change in pairs if change != ""}
    assert changes["pos=0.2, neg=5"] == pytest.approx(0.2 / 0.25 - 1)  # against pos=0.2
    assert changes["fneg=0.5"] == pytest.approx(0.21 / 0.28 - 1)  # against p = 0
    assert changes["pos=0.2"] == pytest.approx(0.25 / 0.3 - 1)
    slopes = {"slope over neg, pos=0.2", "slope over fneg, hidden positives"}
    assert slopes <= set(column(table, "noise"))


def test_levels_at_which_nothing_was_tuned_are_named(tmp_path: Path) -> None:
    made = [
        (noisy(loss, 0, noise_neg=r, backbone=backbone), 0.3)
        for loss, r in itertools.product(("sl", "bpr"), (0.0, 1.0, 5.0))
        for backbone in ("mf", "lightgcn")
    ]
    store(tmp_path, made)
    sources = {
        c["id"]: {"settings_from": f"tuned (s, trial 1, at neg={c['noise_neg']:g}){more}"}
        for c, _ in made
        for more in [OTHERWISE if c["loss"] == "bpr" and c["backbone"] == "mf" else ""]
    }
    amend(tmp_path, "runs.csv", sources)
    notes = robustness_table(tmp_path, "trial").notes
    assert "settings of bpr on mf, yelp2018 were not tuned at neg=0; neg=5" in notes
    assert "neg=0 is a level of the slope here, though of none in a verdict" in notes


def test_settings_are_chosen_on_valid_level_by_level(tmp_path: Path) -> None:
    made = [
        (noisy("sl", 0, noise_neg=r, tau=tau), recall)
        for r, tau, recall in [(1.0, 0.1, 0.3), (1.0, 0.2, 0.4), (5.0, 0.1, 0.2), (5.0, 0.2, 0.1)]
    ]
    valid = {
        c["id"]: 0.5 if c["tau"] == (0.1 if c["noise_neg"] == 1 else 0.2) else 0.4 for c, _ in made
    }
    store(tmp_path, made, valid=valid)
    table = robustness_table(tmp_path, "trial")
    shown = zip(column(table, "noise"), column(table, "settings"), strict=True)
    assert dict(zip(shown, column(table, "Recall@20"), strict=True)) == {
        ("clean", "both"): 0.3,
        ("neg=5", "by level"): 0.1,
        ("neg=5", "fixed"): 0.2,
        ("slope over neg", "by level"): "",
        ("slope over neg", "fixed"): "",
    }
    change = column(table, "against clean")
    assert change[1:3] == pytest.approx([0.1 / 0.3 - 1, 0.2 / 0.3 - 1])
    assert any("1 others left out" in note for note in table.notes)


def test_a_loss_whose_settings_never_change_stands_in_both_panels(tmp_path: Path) -> None:
    levels = [("sl", 1.0, 0.1, 0.3), ("sl", 5.0, 0.1, 0.2), ("sl", 5.0, 0.2, 0.1)]
    levels += [("bpr", 1.0, 0.1, 0.4), ("bpr", 5.0, 0.1, 0.3)]
    made = [(noisy(loss, 0, noise_neg=r, tau=tau), recall) for loss, r, tau, recall in levels]
    store(tmp_path, made, valid={c["id"]: c["tau"] for c, _ in made})
    results = Results.load(tmp_path, "trial")
    shown = {
        (panel.title, series.label): series.y
        for panel in chart(results, "robustness").panels
        for series in panel.series
    }
    assert shown == {
        ("mf, by level", "sl"): [0.3, 0.1],
        ("mf, by level", "bpr"): [0.4, 0.3],
        ("mf, fixed", "sl"): [0.3, 0.2],
        ("mf, fixed", "bpr"): [0.4, 0.3],
    }
    table = robustness_table(tmp_path, "trial")
    settings = zip(column(table, "loss"), column(table, "settings"), strict=True)
    assert set(settings) == {
        *(("sl", settings) for settings in ("by level", "fixed", "both")),
        ("bpr", "both"),
    }


def test_what_noise_has_put_into_train_of_test_stands_beneath(tmp_path: Path) -> None:
    published = {"noise_kind": "published", "noise_pos": 0.4}
    shares = [
        (noisy("sl", 0), ""),
        (noisy("sl", 0, noise_neg=5.0), "0.0"),
        (noisy("sl", 0, noise_pos=0.2), "0.0"),
        (noisy("sl", 0, **published), "0.048"),
        (noisy("sl", 1, noise_neg=5.0, **published), "0.05"),
    ]
    write(tmp_path, [(c, {"Recall@20": 0.3, "NDCG@20": 0.2}) for c, _ in shares])
    assert not any("into train" in note for note in robustness_table(tmp_path, "trial").footer)
    amend(tmp_path, "runs.csv", {c["id"]: {"noise_in_test": s} for c, s in shares})
    for name in ("robustness", "main"):
        [said] = [note for note in builder(name)(tmp_path, "trial", None).footer if "into" in note]
        assert said.endswith(": yelp2018 pos=0.2 0 %, yelp2018 pos=0.4 (published) 4.9 %")


def test_rows_from_outside_have_no_valid_values_and_harm_no_table(tmp_path: Path) -> None:
    outside = cell("lightfm", 0, backbone="external")
    ours = [cell(loss, s, rho=1.1, tau=0.1) for loss in ("sl", "bsl_inbatch") for s in (0, 1)]
    scored = [(c, keep(tmp_path, c, ranked(c, 0.4))[1]) for c in (outside, *ours)]
    write(tmp_path, scored)
    metrics = tmp_path / "trial" / "metrics.csv"
    lines = metrics.read_text().splitlines(True)
    metrics.write_text(
        "".join(one for one in lines if not (outside["id"] in one and ",valid," in one))
    )
    table = ablation_table(tmp_path, "trial")
    assert "both" in column(table, "contrast")
    assert chart(Results.load(tmp_path, "trial"), "contrasts").panels
    ranks = ranking_table(tmp_path, "trial", ["Recall@20"])
    assert sorted(column(ranks, "loss")) == ["bsl_inbatch", "sl"]
    assert sorted(column(ranks, "mean rank", "Recall@20")) == [1.5, 1.5]


def test_no_noise_no_robustness(tmp_path: Path) -> None:
    store(tmp_path, [line(0.3, "sl", 0)])
    with pytest.raises(ConfigError, match="no loss with finished runs at two levels of noise"):
        robustness_table(tmp_path, "trial")
    with pytest.raises(ConfigError, match=r"has no Recall@7"):
        robustness_table(tmp_path, "trial", ["Recall@7"])


# Fairness


def test_the_tails_share_and_the_spread_of_the_lists(tmp_path: Path) -> None:
    pop, sl = popularity(0, **CLEAN), noisy("sl")
    parts = {
        pop["id"]: dict(zip(range(1, 11), [0] * 9 + [0.2], strict=True)),
        sl["id"]: dict(zip(range(1, 11), [0.01] * 5 + [0.05] * 5, strict=True)),
    }
    store(tmp_path, [(pop, 0.2), (sl, 0.3)], groups=parts)
    spread = {"Gini": 0.9, "ARP": 120.5, "Coverage": 0.2, "TailShare": 0.1}
    append(tmp_path, [(sl, "test", name, 20, "", value) for name, value in spread.items()])
    table = fairness_table(tmp_path, "trial")
    assert column(table, "loss") == ["sl", "popularity"]
    assert column(table, "groups 1-5") == pytest.approx([0.05 / 0.3, 0])
    assert [column(table, name) for name in spread] == [[v, "-"] for v in spread.values()]
    assert column(table, "10", "Recall@20 of group") == [0.05, 0.2]
    assert table.columns[table.column("Gini")].better == "lower"


def test_results_without_groups_have_no_fairness(tmp_path: Path) -> None:
    store(tmp_path, [line(0.3, "sl", 0)])  # which has group 3 alone
    with pytest.raises(ConfigError, match="has Recall@20 by group of items"):
        fairness_table(tmp_path, "trial")


# Variance


def test_variance_over_the_squared_gap(tmp_path: Path) -> None:
    runs = [noisy("sl", 0), noisy("sl", 1), noisy("mse", 0)]
    store(tmp_path, [(run, 0.3) for run in [*runs, popularity(0, **CLEAN)]])
    values = [
        {
            "PosMean": 0.7,
            "PosVar": 0.01,
            "NegMean": 0.2,
            "NegVar": 0.05,
            "Gap": 0.5,
            "WeightVar": 2,
            "WeightESS": 0.4,
        },
        {
            "PosMean": 0.7,
            "PosVar": 0.01,
            "NegMean": 0.2,
            "NegVar": 0.075,
            "Gap": 0.5,
            "WeightVar": 2,
            "WeightESS": 0.4,
        },
        {"PosMean": 0.9, "PosVar": 0.02, "NegMean": 0.1, "NegVar": 0.08, "Gap": 0.8},
    ]
    append(
        tmp_path,
        [
            (run, "train", name, 0, "", value)
            for run, own in zip(runs, values, strict=True)
            for name, value in own.items()
        ],
    )
    table = variance_table(tmp_path, "trial")
    assert column(table, "loss") == ["sl", "mse"]
    assert column(table, "NegVar/Gap²") == pytest.approx([(0.2 + 0.3) / 2, 0.08 / 0.64])
    assert column(table, "WeightESS") == [0.4, "-"]
    assert [row[table.column("NegVar/Gap²")].place for row in table.rows] == [2, 1]
    with pytest.raises(ConfigError, match="has its own metrics"):
        variance_table(tmp_path, "trial", ["Recall@20"])


def test_results_without_spread_have_no_variance(tmp_path: Path) -> None:
    store(tmp_path, [line(0.3, "sl", 0)])
    with pytest.raises(ConfigError, match="has the spread of its scores"):
        variance_table(tmp_path, "trial")


# Temperature


def sweep(best: dict[float, float]) -> tuple[list[tuple[dict[str, Any], float]], dict[str, float]]:
    """Return runs at three temperatures per level, and their values on valid."""
    made, valid = [], {}
    for level, tau in best.items():
        for tried in (0.1, 0.2, 0.4):
            c = noisy("sl", 0, noise_neg=level, tau=tried)
            made.append((c, 0.3 - abs(tried - tau)))
            valid[c["id"]] = 0.3 - abs(tried - tau)
    return made, valid


@pytest.mark.parametrize(
    ("best", "said"),
    [
        ({1.0: 0.4, 3.0: 0.2, 10.0: 0.1}, "rank correlation +1.00"),
        ({1.0: 0.1, 3.0: 0.2, 10.0: 0.4}, "rank correlation -1.00"),
        ({1.0: 0.2, 3.0: 0.2, 10.0: 0.2}, "no rank correlation"),
    ],
)
def test_the_law_is_judged_by_ranks(tmp_path: Path, best: dict[float, float], said: str) -> None:
    made, valid = sweep(best)
    store(tmp_path, made, valid=valid)
    share = {1.0: 0.1, 3.0: 0.25, 10.0: 0.5}
    amend(
        tmp_path,
        "runs.csv",
        {c["id"]: {"false_negative_share": share[c["noise_neg"]]} for c, _ in made},
    )
    table = temperature_table(tmp_path, "trial")
    assert column(table, "best tau") == list(best.values())
    assert column(table, "Recall@20") == [0.3] * 3
    law = [(-math.log(1 - s)) ** -0.5 for s in share.values()]
    found = column(table, "law")
    assert [f / found[0] for f in found] == pytest.approx([x / law[0] for x in law])
    assert np.prod(found) == pytest.approx(np.prod(list(best.values())))
    assert said in table.notes[0] and "fewer than the 5 that tell" in table.notes[0]
    edges = {0.1: "lowest tried", 0.2: "", 0.4: "highest tried"}
    assert column(table, "edge") == [edges[tau] for tau in best.values()]


def test_no_law_is_read_out_of_what_is_missing(tmp_path: Path) -> None:
    made, _ = sweep({1.0: 0.4, 3.0: 0.4, 10.0: 0.4})
    made = [run for run in made if run[0]["tau"] < 0.4 or run[0]["noise_neg"] < 10]
    store(tmp_path, made)
    amend(tmp_path, "runs.csv", {c["id"]: {"false_negative_share": 0.1} for c, _ in made})
    table = temperature_table(tmp_path, "trial")
    assert "not the same temperatures and numbers of seeds at all levels" in table.notes[0]
    assert column(table, "law") == [""] * 3


def test_no_sweep_no_temperature(tmp_path: Path) -> None:
    store(tmp_path, [(noisy("sl", 0, tau=0.1), 0.3)])
    with pytest.raises(ConfigError, match="no loss at several temperatures"):
        temperature_table(tmp_path, "trial")


# Ablation


def test_contrasts_were_fixed_and_the_rest_is_exploratory(tmp_path: Path) -> None:
    cells = {
        "sl": [cell("sl", s, tau=0.1) for s in range(3)],
        "sl other": [cell("sl", s, tau=0.2) for s in range(2)],
        "rho": [cell("bsl_reweight", s, tau=0.1, rho=1.1) for s in range(3)],
        "rho worse": [cell("bsl_reweight", s, tau=0.1, rho=0.9) for s in range(3)],
        "pool": [cell("bsl", s, tau=0.1, rho=1.0, n_pos=16) for s in range(3)],
        "pool and rho": [cell("bsl", s, tau=0.1, rho=1.1, n_pos=16) for s in range(3)],
    }
    levels = {
        "sl": 0.4,
        "sl other": 0.9,
        "rho": 0.6,
        "rho worse": 0.3,
        "pool": 0.41,
        "pool and rho": 0.7,
    }
    runs = [
        (c, keep(tmp_path, c, ranked(c, levels[name]))) for name, own in cells.items() for c in own
    ]
    scored = [(c, metrics) for c, (_, metrics) in runs]
    write(tmp_path, scored, valid={c["id"]: metrics["Recall@20"] for c, metrics in scored})
    table = ablation_table(tmp_path, "trial")
    rows = list(
        zip(column(table, "contrast"), column(table, "loss"), column(table, "seeds"), strict=True)
    )
    assert rows[0] == ("baseline", "sl", "3")  # the other has fewer seeds, though it is better
    assert rows[1:3] == [("rho alone", "bsl_reweight", "3"), ("pooling alone", "bsl", "3")]
    aside = "better on the selection split, left aside for fewer seeds: mf, sl tau=0.2 on yelp2018"
    assert f"{aside}, 2 seeds" in table.notes
    assert not any("differ too" in note for note in table.notes)
    assert {row[0] for row in rows[3:]} == {"exploratory"} and len(rows) == 6
    made = chart(Results.load(tmp_path, "trial"), "contrasts")
    [[bars]] = [panel.series for panel in made.panels]
    gains = [row[table.column("vs sl")] for row in table.rows[1:3]]
    assert made.x_names == ("rho alone", "pooling alone", "both")
    assert (list(bars.x), list(bars.y)) == ([0, 1], pytest.approx([100 * g.value for g in gains]))
    for reach, bound in zip(bars.error, (0, 1), strict=True):  # down and up
        reaches = [100 * abs(gain.interval[bound] - gain.value) for gain in gains]
        assert list(reach) == pytest.approx(reaches)
    assert "rho=1.1" in column(table, "settings")[1] and "rho=1.0" in column(table, "settings")[2]
    found = dict(zip(column(table, "contrast"), table.rows, strict=True))
    index = table.column("vs sl")
    recall = column(table, "Recall@20")
    entry = found["rho alone"][index]
    assert entry.value == pytest.approx(recall[1] / recall[0] - 1)
    assert entry.interval is not None and entry.interval[0] < entry.value < entry.interval[1]
    assert found["rho alone"][table.column("difference is")].text == "there"
    assert found["baseline"][index].value is None
    p, adjusted = column(table, "p"), column(table, "p (Holm)")
    assert adjusted[1:3] == holm(p[1:3]) and adjusted[1:3] != p[1:3]  # two contrasts are there
    assert adjusted[0] == "" and adjusted[3:] == [""] * 3
    smallest = next(note for note in table.notes if note.startswith("smallest p"))
    assert smallest.endswith(": 0.5 with 2 seeds, 0.25 with 3 seeds")


def test_what_else_sets_a_contrast_apart_is_said(tmp_path: Path) -> None:
    cells = [cell("sl", s, tau=0.1, l2=0.1) for s in range(2)]
    cells += [cell("bsl_reweight", s, tau=0.2, rho=1.1, l2=0.1) for s in range(2)]
    write(tmp_path, [(c, keep(tmp_path, c, ranked(c, 0.4))[1]) for c in cells])
    notes = ablation_table(tmp_path, "trial").notes
    assert "rho alone on mf, yelp2018: tau differ too" in notes


def test_contrasts_are_adjusted_place_by_place(tmp_path: Path) -> None:
    levels = {
        "sl": (0.4, {}),
        "bsl_reweight": (0.41, {"rho": 1.1}),
        "bsl_inbatch": (0.42, {"rho": 1.1}),
    }
    scored = []
    for backbone in ("mf", "lightgcn"):
        for loss, (level, rho) in levels.items():
            for seed in range(3):
                c = cell(loss, seed, backbone=backbone, **rho)
                scored.append((c, keep(tmp_path, c, ranked(c, level))[1]))
    write(tmp_path, scored)
    table = ablation_table(tmp_path, "trial")
    p, adjusted = column(table, "p"), column(table, "p (Holm)")
    assert column(table, "contrast") == ["baseline", "rho alone", "both"] * 2
    assert [adjusted[1:3], adjusted[4:]] == [holm(p[1:3]), holm(p[4:])]


def test_without_ranks_or_sl_there_is_no_difference(tmp_path: Path) -> None:
    store(tmp_path, [(cell("sl", 0, tau=0.1), 0.3), (cell("bsl_inbatch", 0, rho=1.1), 0.31)])
    table = ablation_table(tmp_path, "trial")
    assert column(table, "contrast") == ["baseline", "both"]
    assert column(table, "difference is") == ["", "ranks not at hand"]
    assert not any(note.startswith("smallest p") for note in table.notes)
    other = tmp_path / "other"
    store(other, [(cell("bsl", 0, rho=1.0), 0.3)])
    with pytest.raises(ConfigError, match="no finished run of sl"):
        ablation_table(other, "trial")


# Published pairs


def paired(results: Path, levels: dict[tuple[str, float], float], n: int, **fields: Any) -> list:
    """Write n seeds of each loss at its rho, whose recall rises with the level."""
    runs = []
    for (loss, rho), level in levels.items():
        for seed in range(n):
            given = fields if loss == "sl" else fields | {"rho": rho}
            c = cell(loss, seed, **given)
            runs.append((c, keep(results, c, ranked(c, level))[1]))
    return runs


def test_published_gains_lie_inside_ours_or_not(tmp_path: Path) -> None:
    on_test = {"selection": "test", "tau": 0.11}
    levels = {("bsl_inbatch", 1.0): 0.4, ("bsl_inbatch", 1.1): 0.41, ("bsl_inbatch", 1.2): 0.7}
    scored = paired(tmp_path, levels, 3, **on_test)
    graph = on_test | {"backbone": "lightgcn"}
    scored += paired(tmp_path, {("sl", 1.0): 0.7, ("bsl_reweight", 1.12): 0.4}, 3, **graph)
    write(tmp_path, scored)
    table = pairs_table(tmp_path, "trial", ["Recall@20"])
    assert column(table, "backbone") == ["mf", "lightgcn"]
    assert column(table, "BSL") == ["bsl_inbatch rho=1.1", "bsl_reweight"]
    assert column(table, "SL") == ["bsl_inbatch rho=1.0", "sl"]
    assert column(table, "seeds") == ["3", "3"]
    published = [0.07245 / 0.07212 - 1, 0.07444 / 0.07364 - 1]
    assert column(table, "published") == pytest.approx(published)
    ours = [row[table.column("ours")] for row in table.rows]
    means = [np.mean([m["Recall@20"] for _, m in scored[i : i + 3]]) for i in range(0, 15, 3)]
    assert [e.value for e in ours] == pytest.approx(
        [means[1] / means[0] - 1, means[4] / means[3] - 1]
    )
    assert ours[0].interval[0] < published[0] < ours[0].interval[1]
    assert ours[1].interval[1] < published[1]
    assert column(table, "published gain is") == ["inside", "above"]
    assert table.stamp and not any(note.startswith("*") for note in table.notes)
    sweep = pairs_table(tmp_path, "trial", ["NDCG@20"])  # of which rho 1.1 and 1.2 are run
    words = dict(zip(column(sweep, "BSL"), column(sweep, "published gain is"), strict=True))
    assert words["bsl_inbatch rho=1.2"] == "below" and words["bsl_inbatch rho=2.0"] == "not run"


def test_each_selection_has_its_own_pairs_of_equal_settings(tmp_path: Path) -> None:
    levels = {("bsl_inbatch", 1.0): 0.4, ("bsl_inbatch", 1.1): 0.5}
    scored = paired(tmp_path, levels, 1, selection="test", tau=0.11)
    scored += paired(tmp_path, levels, 2, selection="valid", tau=0.11)
    scored += paired(tmp_path, {("sl", 1.0): 0.4}, 2, selection="valid", tau=0.2)
    write(tmp_path, scored)
    table = pairs_table(tmp_path, "trial", ["Recall@20"])
    rows = [
        [row[table.column(name)].text for name in ("backbone", "selection", "seeds")]
        for row in table.rows
    ]
    assert rows == [["mf", "test", "1"], ["mf", "valid", "2"]] + [
        ["lightgcn", selection, "-"] for selection in ("test", "valid")
    ]
    assert column(table, "published gain is")[0] == "not told by one seed"
    assert column(table, "published gain is")[2:] == ["not run", "not run"]
    assert table.rows[0][table.column("ours")].interval is None
    marks = [row[table.column("published")].mark for row in table.rows]
    assert marks == ["a", "a*", "a", "a*"]
    assert any(note.startswith("*: theirs picked the best epoch on test") for note in table.notes)


def test_pairs_without_ranks_or_figures_say_so(tmp_path: Path) -> None:
    pair = cell("sl", selection="test"), cell("bsl_inbatch", selection="test", rho=1.1)
    store(tmp_path, [(run, 0.07) for run in pair])
    table = pairs_table(tmp_path, "trial", ["Recall@20"])
    assert column(table, "published gain is") == ["ranks not at hand", "not run"]
    other = tmp_path / "other"
    store(other, [(cell("sl", 0, dataset="synthetic"), 0.3)])
    with pytest.raises(ConfigError, match="no pair of sl and BSL is published for the datasets"):
        pairs_table(other, "trial", ["Recall@20"])


# Theory


def test_the_identities_on_a_kept_model(tmp_path: Path) -> None:
    fields = {"score_train": "cosine", **CLEAN}
    run, inner = cell("sl", 0, **fields), cell("bpr", 0, **(fields | {"score_train": "inner"}))
    store(tmp_path, [(run, 0.3), (inner, 0.3)])
    rng = np.random.default_rng(0)
    for c in (run, inner):
        folder = tmp_path / "runs" / c["id"]
        folder.mkdir(parents=True)
        tables = {"users": rng.normal(size=(9, 4)), "items": rng.normal(size=(70, 4))}
        save_file(
            {k: v.astype(np.float32) for k, v in tables.items()}, folder / "model.safetensors"
        )
    table = theory_table(tmp_path, "trial")
    assert set(column(table, "loss")) == {"sl"}
    assert column(table, "tau") == [0.05, 0.1, 0.2, 0.3, 0.5]
    for name in ("penalised", "constrained"):
        assert max(column(table, name, "error of the duality")) < 1e-5
    sizes = column(table, "effective size")
    assert sizes == sorted(sizes) and 0 < sizes[0] < 0.3
    with pytest.raises(ConfigError, match="has no metrics"):
        theory_table(tmp_path, "trial", ["Recall@20"])


def test_without_a_model_no_theory(tmp_path: Path) -> None:
    store(tmp_path, [line(0.3, "sl", 0)])
    with pytest.raises(ConfigError, match="train with --save-model"):
        theory_table(tmp_path, "trial")


# All formats


@pytest.mark.parametrize("fmt", ["console", "markdown", "latex", "csv", "html"])
def test_every_claim_is_written_in_every_format(tmp_path: Path, fmt: Any) -> None:
    made, valid = sweep({1.0: 0.4, 3.0: 0.2, 10.0: 0.1})
    store(tmp_path, made, valid=valid)
    for name in ("robustness", "temperature"):
        text = render(builder(name)(tmp_path, "trial", None), fmt)
        assert "neg=3" in text and text.endswith("\n")
