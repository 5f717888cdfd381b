import csv
import io
import os
from types import SimpleNamespace

import pytest

from bslbench.errors import ConfigError, DataError
from bslbench.report import parts
from bslbench.report.long_table import long_table
from bslbench.report.render import render
from bslbench.report.results import latest_grid
from bslbench.report.tables import TABLES, builder, main_table
from tests.stores import cell, popularity, seeds, write


def texts(table, *names):
    """Return what stands in some columns, row by row, as one text."""
    heads = [column.name for column in table.columns if not column.group]
    found = [[row[heads.index(n)].text for n in names if n in heads] for row in table.rows]
    return [" ".join(filter(None, row)) for row in found]


def entries(table, metric="Recall@20", dataset="yelp2018"):
    column = table.column(metric, dataset)
    labels = texts(table, "loss", "settings")
    return {label: row[column] for label, row in zip(labels, table.rows, strict=True)}


def counts(table):
    return dict(zip(texts(table, "loss", "settings"), texts(table, "seeds"), strict=True))


def cells(line, separator):
    return [cell.strip() for cell in line.split(separator)]


def test_mean_and_sample_deviation_over_seeds(tmp_path):
    write(tmp_path, seeds([0.1, 0.2, 0.4], "sl") + seeds([0.3], "mse"))
    found = entries(main_table(tmp_path, "trial"))
    assert found["sl"].value == pytest.approx(0.7 / 3, abs=1e-15)
    # Deviations from 7/30: -4/30, -1/30, 5/30; squares sum to 42/900, over n - 1 = 2.
    assert found["sl"].each == (("seed 0", 0.1), ("seed 1", 0.2), ("seed 2", 0.4))
    assert found["sl"].sd == pytest.approx((42 / 900 / 2) ** 0.5, abs=1e-15)
    assert (found["mse"].value, found["mse"].sd) == (0.3, None)


def test_settings_stand_by_their_size_within_a_loss(tmp_path):
    asked = [(loss, epochs) for loss in ("sl", "bpr") for epochs in (16, 8, 100)]
    write(tmp_path, [(cell(loss, epochs=e), {"Recall@20": 0.1}) for loss, e in asked])
    wanted = [f"{loss} epochs={e}" for loss in ("sl", "bpr") for e in (8, 16, 100)]
    assert texts(main_table(tmp_path, "trial", ["Recall@20"]), "loss", "settings") == wanted


def test_only_ungrouped_values_of_the_test_split_count(tmp_path):
    write(tmp_path, seeds([0.1, 0.2], "sl"))
    table = main_table(tmp_path, "trial", ["NDCG@20"])
    assert entries(table, "NDCG@20")["sl"].value == pytest.approx(0.075)
    assert [column.name for column in table.columns if column.better] == ["NDCG@20"]


def test_best_and_second_count_references_and_ties_share(tmp_path):
    scored = [(popularity(), {"Recall@20": 0.2})]
    for loss, value in {"a": 0.30001, "b": 0.29999, "c": 0.1, "d": 0.2}.items():
        scored.append((cell(loss), {"Recall@20": value}))
    write(tmp_path, scored)
    found = entries(main_table(tmp_path, "trial", ["Recall@20"]))
    places = {label: entry.place for label, entry in found.items()}
    assert places == {"popularity": 2, "a": 1, "b": 1, "c": 0, "d": 2}


def test_the_metric_says_which_way_is_better(tmp_path, monkeypatch):
    monkeypatch.setitem(parts.METRICS, "Regret", SimpleNamespace(higher_is_better=False))
    write(tmp_path, [(cell("a"), {"Regret@20": 0.2}), (cell("b"), {"Regret@20": 0.1})])
    found = entries(main_table(tmp_path, "trial", ["Regret@20"]), "Regret@20")
    assert (found["a"].place, found["b"].place) == (2, 1)


def test_references_come_first_and_once_then_one_group_per_backbone(tmp_path):
    scored = [row for b in ("lightgcn", "mf") for row in seeds([0.1], "sl", backbone=b)]
    scored += seeds([0.2], "mse")
    scored += [(popularity(), {"Recall@20": 0.01, "NDCG@20": 0.01})]
    write(tmp_path, scored)
    table = main_table(tmp_path, "trial")
    assert texts(table, "backbone", "loss") == [
        "reference popularity",
        "lightgcn sl",
        "mf sl",
        "mf mse",
    ]
    lines = render(table, "markdown").splitlines()[4:8]
    assert [cells(line, "|")[1] for line in lines] == ["reference", "lightgcn", "mf", ""]


def test_a_label_has_the_fields_that_vary_within_its_loss_and_no_other(tmp_path):
    scored = seeds([0.1], "bpr", score_train="inner", n_negatives=1)
    for tau in (0.08, 0.11):
        scored += seeds([0.2], "sl", score_train="cosine", n_negatives=800, tau=tau)
    scored += seeds([0.3], "bsl", tau=0.1, rho=1.0, l2_negatives=True)
    scored += seeds([0.3], "bsl", tau=0.1, rho=1.1, l2_negatives=False)
    write(tmp_path, scored)
    assert list(entries(main_table(tmp_path, "trial"))) == [
        "bpr",
        "sl tau=0.08",
        "sl tau=0.11",
        "bsl l2_negatives=true rho=1.0",
        "bsl l2_negatives=false rho=1.1",
    ]


def test_a_setting_that_goes_with_the_dataset_is_no_label(tmp_path):
    scored = seeds([0.1], "sl", tau=0.11) + seeds([0.2], "sl", tau=0.08, dataset="gowalla")
    write(tmp_path, scored)
    table = main_table(tmp_path, "trial", ["Recall@20"])
    assert texts(table, "loss", "settings") == ["sl"]
    assert [c.group for c in table.columns if c.better] == ["yelp2018", "gowalla"]
    assert entries(table, dataset="gowalla")["sl"].value == 0.2


def test_noise_is_a_column_within_which_rows_compete(tmp_path):
    scored = seeds([0.4], "sl", tau=0.1) + seeds([0.3], "mse")
    scored += seeds([0.2], "sl", tau=0.1, noise_pos=0.2, noise_kind="popular")
    scored += seeds([0.1], "mse", noise_pos=0.2, noise_kind="popular")
    write(tmp_path, scored)
    table = main_table(tmp_path, "trial", ["Recall@20"])
    assert texts(table, "loss", "settings", "noise") == [
        "sl clean",
        "mse clean",
        "sl pos=0.2 (popular)",
        "mse pos=0.2 (popular)",
    ]
    index = table.column("Recall@20", "yelp2018")
    assert [row[index].place for row in table.rows] == [1, 2, 1, 2]


def test_the_long_table_has_a_row_per_dataset_and_a_contest_each(tmp_path):
    scored = seeds([0.1, 0.2], "sl") + seeds([0.3], "mse") + seeds([0.9], "sl", dataset="gowalla")
    write(tmp_path, scored, unfinished=[cell("sl", 1, dataset="gowalla")])
    table = long_table(tmp_path, "trial", ["Recall@20"])
    assert texts(table, "dataset", "backbone", "loss") == [
        "yelp2018 mf sl",
        "yelp2018 mf mse",
        "gowalla mf sl",
    ]
    index = table.column("Recall@20")
    assert [(row[index].value, row[index].place) for row in table.rows] == [
        (pytest.approx(0.15), 2),
        (0.3, 1),
        (0.9, 1),
    ]
    assert texts(table, "seeds") == ["2", "1", "1/2"]
    last = list(csv.DictReader(io.StringIO(render(table, "csv"))))[-1]
    assert (last["seeds"], last["asked"]) == ("1", "2")


def test_failed_and_missing_runs_are_shown(tmp_path):
    lost = [cell("sl", 1), cell("sl", 2), cell("bce", 0), cell("bce", 1)]
    failed = {lost[0]["id"]: "non-finite loss\nat epoch 3", lost[2]["id"]: ""}
    write(tmp_path, seeds([0.1], "sl") + seeds([0.2, 0.2], "mse"), unfinished=lost, failed=failed)
    table = main_table(tmp_path, "trial")
    assert counts(table) == {"sl": "1/3", "mse": "2", "bce": "0/2"}
    assert table.problems == (
        "failed: mf, sl on yelp2018, seed 1: non-finite loss at epoch 3",
        "failed: mf, bce on yelp2018, seed 0: not at hand",
        "missing: 2 of 7 runs (1 of 3 of sl, 1 of 2 of bce); train the grid again to finish them",
    )
    for fmt in ("console", "markdown", "latex", "html"):
        text = render(table, fmt, styled=False, width=200)
        assert "1/3" in text and "0/2" in text and "non-finite loss at epoch 3" in text
    assert render(table, "markdown").splitlines()[6].split()[-2] == "-"


def test_a_grid_without_a_finished_run_is_a_table_of_gaps(tmp_path):
    write(tmp_path, [], unfinished=[cell("sl")])
    table = main_table(tmp_path, "trial")
    assert counts(table) == {"sl": "0/1"}
    assert "unknown" in render(table, "console")


def test_a_metric_of_no_user_is_a_gap(tmp_path):
    write(tmp_path, seeds(["nan", "nan"], "sl"))
    table = main_table(tmp_path, "trial", ["Recall@20"])
    assert counts(table) == {"sl": "2"}
    assert (entries(table)["sl"].value, entries(table)["sl"].text) == (None, "-")


def test_datasets_with_different_counts_show_each(tmp_path):
    scored = seeds([0.1, 0.2], "sl") + seeds([0.1], "sl", dataset="gowalla")
    scored += seeds([0.1], "mse", dataset="gowalla")
    write(tmp_path, scored, unfinished=[cell("sl", 1, dataset="gowalla")])
    table = main_table(tmp_path, "trial", ["Recall@20"])
    assert counts(table) == {"sl": "2, 1/2", "mse": "1"}
    assert cells(render(table, "markdown").splitlines()[5], "|")[4] == ""  # never asked for


def test_runs_alike_in_all_but_the_id_are_an_error(tmp_path):
    scored = seeds([0.1], "sl", tau=0.1) * 2
    scored[1] = (scored[1][0] | {"id": "another"}, scored[1][1])
    write(tmp_path, scored)
    with pytest.raises(DataError, match="another have the same dataset, backbone, loss, seed"):
        main_table(tmp_path, "trial")


def test_a_value_that_stands_twice_is_an_error(tmp_path):
    write(tmp_path, seeds([0.1], "sl"), repeat=2)
    with pytest.raises(DataError, match="same run_id, split, metric, k, group: yelp2018-mf-sl-0"):
        main_table(tmp_path, "trial")


def test_a_value_of_a_run_not_asked_for_is_an_error(tmp_path):
    write(tmp_path, seeds([0.1], "sl"))
    with (tmp_path / "trial" / "metrics.csv").open("a") as file:
        file.write("stranger,yelp2018,test,Recall,20,,0.5\n")
    with pytest.raises(DataError, match="does not ask for: stranger"):
        main_table(tmp_path, "trial")


def test_missing_file_is_an_error(tmp_path):
    write(tmp_path, seeds([0.1], "sl"))
    (tmp_path / "trial" / "metrics.csv").unlink()
    with pytest.raises(DataError, match=r"metrics\.csv is missing; train the grid again"):
        main_table(tmp_path, "trial")


def test_selection_on_test_is_stamped(tmp_path):
    write(tmp_path, seeds([0.1], "sl", selection="test"))
    table = main_table(tmp_path, "trial")
    for fmt in ("console", "markdown", "latex", "html"):
        text = render(table, fmt, width=200)
        assert "SELECTION ON TEST: best epoch picked on test: to compare with published" in text
        assert "selection on valid" not in text
    row = next(csv.DictReader(io.StringIO(render(table, "csv"))))
    assert row["selection"] == "test" and row["stamp"].startswith("SELECTION ON TEST")
    assert row["stamp"] == table.stamp


def test_footer_says_what_the_table_was_made_from(tmp_path):
    write(tmp_path, seeds([0.1, 0.2], "sl"), unfinished=[cell("sl", 2)])
    table = main_table(tmp_path, "trial")
    assert table.stamp == ""
    assert table.footer == (
        "3 seeds: 0, 1, 2",
        "selection on valid: best epoch by Recall@20 on validation pairs, test scored once",
        "protocol 1, bslbench 0.1.0, torch 2.13.0, numpy unknown, python unknown, revision abc123",
        "on cpu, Some CPU, threads 2",
        "data yelp2018 0123456789ab",
    )


def test_csv_has_every_digit_and_every_count(tmp_path):
    values = [0.1, 0.1 + 2**-40]
    scored = seeds(values, "sl", tau=0.1) + seeds([1 / 3], "sl", tau=0.2)
    write(tmp_path, scored, unfinished=[cell("sl", 1, tau=0.2)])
    table = main_table(tmp_path, "trial", ["Recall@20"])
    first, second = csv.DictReader(io.StringIO(render(table, "csv")))
    assert list(first) == [
        "backbone",
        "loss",
        "settings",
        "selection",
        "yelp2018 seeds",
        "yelp2018 asked",
        "yelp2018 Recall@20 mean",
        "yelp2018 Recall@20 sd",
    ]
    assert (first["loss"], first["settings"], first["yelp2018 seeds"]) == ("sl", "tau=0.1", "2")
    assert float(first["yelp2018 Recall@20 sd"]) == entries(table)["sl tau=0.1"].sd
    assert (second["yelp2018 seeds"], second["yelp2018 asked"]) == ("1", "2")
    assert second["yelp2018 Recall@20 mean"] == "0.3333333333333333"
    assert second["yelp2018 Recall@20 sd"] == ""


def test_experimental_losses_are_marked_and_others_are_not(tmp_path):
    scored = [(popularity(), {"Recall@20": 0.02}), *seeds([0.1], "sl"), *seeds([0.2], "me")]
    write(tmp_path, scored, grid="none")
    table = main_table(tmp_path, "none", ["Recall@20"])
    assert not any(e.mark for row in table.rows for e in row) and not table.notes
    write(tmp_path, seeds([0.1], "sl") + seeds([0.3, 0.2], "ccl") + seeds([0.2], "hinge"))
    long = long_table(tmp_path, "trial")
    assert [row[2].mark for row in long.rows] == ["", "†", ""]
    table = main_table(tmp_path, "trial", ["Recall@20"])
    assert long.notes[-1:] == table.notes
    marks = {row[1].text: row[1].mark for row in table.rows}
    assert marks == {"sl": "", "ccl": "†", "hinge": ""}
    meaning = "experimental, has met no published figure yet (bslbench list losses)"
    assert table.notes == (f"†: {meaning}",)
    assert r"ccl\textsuperscript{$\dagger$}" in render(table, "latex")
    assert "ccl<sup>†</sup>" in render(table, "markdown") and "ccl†" in render(table, "console")
    records = list(csv.DictReader(io.StringIO(render(table, "csv"))))
    assert [(r["loss"], r["loss mark"]) for r in records] == list(marks.items())


def test_unknown_grid_or_metric_is_an_error_with_a_suggestion(tmp_path):
    write(tmp_path, seeds([0.1], "sl"))
    with pytest.raises(ConfigError, match="did you mean 'trial'"):
        main_table(tmp_path, "trail")
    with pytest.raises(ConfigError, match="no metric named 'recal'; did you mean 'Recall'"):
        main_table(tmp_path, "trial", ["recal@20"])
    with pytest.raises(ConfigError, match="'Recall' is not a metric with its cut-off"):
        main_table(tmp_path, "trial", ["Recall"])
    with pytest.raises(ConfigError, match="has no Recall@7; did you mean 'Recall@20'"):
        main_table(tmp_path, "trial", ["Recall@7"])


def test_latest_grid_is_the_one_written_last(tmp_path):
    with pytest.raises(ConfigError, match="train first: bslbench train --grid quick"):
        latest_grid(tmp_path)
    for i, grid in enumerate(["b", "c", "a"]):
        write(tmp_path, seeds([0.1], "sl"), grid=grid)
        os.utime(tmp_path / grid / "grid.toml", (i, 100 - abs(i - 1)))
    assert latest_grid(tmp_path) == "c"


@pytest.mark.parametrize("name", TABLES)
def test_every_table_is_where_its_name_says(name):
    assert builder(name).__name__.endswith("_table")
