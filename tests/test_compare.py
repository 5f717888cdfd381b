"""The improvement over a baseline, beside every contested value."""

import pytest

from bslbench.errors import ConfigError
from bslbench.report.compare import with_baseline
from bslbench.report.long_table import long_table
from bslbench.report.main_table import main_table
from bslbench.report.table import Column, Entry, Table
from tests.stores import cell, popularity, seeds, write

METRICS = ["Recall@20"]


def improvements(table: Table, baseline: str) -> list[float | str]:
    made = with_baseline(table, baseline)
    index = made.column(f"vs {baseline}", "yelp2018")
    entries = [row[index] for row in made.rows]
    return [e.text if e.value is None else pytest.approx(e.value, abs=1e-12) for e in entries]


def test_each_backbone_has_its_own_baseline(tmp_path) -> None:
    scored = seeds([0.10, 0.20], "bpr") + seeds([0.18, 0.18], "sl")
    scored += seeds([0.4], "bpr", backbone="lightgcn") + seeds([0.3], "sl", backbone="lightgcn")
    scored += [(popularity(), {"Recall@20": 0.05, "NDCG@20": 0.05})]
    write(tmp_path, scored)
    table = main_table(tmp_path, "trial", METRICS)
    # popularity: no one baseline; lightgcn: (0.3 - 0.4) / 0.4; mf: (0.18 - 0.15) / 0.15
    assert improvements(table, "bpr") == ["-", "baseline", -0.25, "baseline", 0.2]


def test_rows_are_compared_with_what_they_compete_with(tmp_path) -> None:
    scored = seeds([0.4], "bpr", dataset="gowalla") + seeds([0.5], "sl", dataset="gowalla")
    scored += seeds([0.2], "bpr") + seeds([0.1], "sl") + seeds([0.05], "mse", dataset="lastfm")
    write(tmp_path, scored)
    table = long_table(tmp_path, "trial", METRICS)
    for baseline, expected in (
        ("bpr", {("gowalla", "sl"): 0.25, ("yelp2018", "sl"): -0.5, ("lastfm", "mse"): "-"}),
        ("best", {("gowalla", "bpr"): -0.2, ("yelp2018", "sl"): -0.5}),
    ):
        made = with_baseline(table, baseline)
        at = [made.column(name) for name in ("dataset", "loss", f"vs {baseline}")]
        found = {(row[at[0]].text, row[at[1]].text): row[at[2]] for row in made.rows}
        said = {place: e.text if e.value is None else e.value for place, e in found.items()}
        rest = {place: value for place, value in said.items() if value != "baseline"}
        assert rest == {place: pytest.approx(value) for place, value in expected.items()}
        assert "with the same dataset" in made.notes[-1]


def test_claims_compare_references_too() -> None:
    """Best and second are found within a backbone there; a named baseline goes beyond it."""
    columns = [Column("backbone"), Column("loss"), Column("Recall@20", better="higher")]
    rows = [["reference", "popularity", 0.05], ["mf", "bpr", 0.1], ["mf", "sl", 0.2]]
    table = Table.of("claim", columns, rows, within=("backbone", "noise"))
    for baseline, expected in (("bpr", [-0.5, None, 1.0]), ("best", [None, -0.5, None])):
        made = with_baseline(table, baseline)
        assert [row[3].value for row in made.rows] == expected
        assert "with the same backbone" in made.notes[-1]


def test_one_baseline_serves_the_references_and_a_reference_serves_all(tmp_path) -> None:
    scored = seeds([0.1], "bpr") + seeds([0.2], "sl", backbone="lightgcn")
    scored += [(popularity(), {"Recall@20": 0.05, "NDCG@20": 0.05})]
    write(tmp_path, scored)
    table = main_table(tmp_path, "trial", METRICS)
    assert improvements(table, "bpr") == [-0.5, "-", "baseline"]
    assert improvements(table, "popularity") == ["baseline", 3.0, 1.0]


def test_positive_is_better_where_less_is_better() -> None:
    columns = [Column("loss"), Column("seconds", better="lower", spec=".1f")]
    table = with_baseline(Table.of("cost", columns, [["a", 4.0], ["b", 3.0], ["c", 5.0]]), "a")
    assert [row[2].value for row in table.rows] == [None, 0.25, -0.25]
    assert "positive is better" in table.notes[-1]


def test_the_best_of_each_column_may_be_the_baseline(tmp_path) -> None:
    scored = seeds([0.1], "bpr") + seeds([0.4], "sl", backbone="lightgcn")
    write(tmp_path, scored, unfinished=[cell("mse")])
    table = main_table(tmp_path, "trial", METRICS)
    assert improvements(table, "best") == ["baseline", -0.75, "-"]
    columns = [Column("loss"), Column("seconds", better="lower"), Column("gain", better="higher")]
    made = with_baseline(Table.of("cost", columns, [["a", 4.0, 2.0], ["b", 5.0, 4.0]]), "best")
    assert [[e.value for e in row[2::2]] for row in made.rows] == [[None, -0.5], [-0.25, None]]


def test_a_gap_stays_one(tmp_path) -> None:
    scored = seeds([0.1], "bpr") + seeds([0.2], "sl", dataset="gowalla")
    write(tmp_path, scored, unfinished=[cell("mse")])
    made = with_baseline(main_table(tmp_path, "trial", METRICS), "bpr")
    texts = {
        group: [row[made.column("vs bpr", group)].text for row in made.rows]
        for group in ("yelp2018", "gowalla")
    }
    assert texts == {"yelp2018": ["baseline", "", "-"], "gowalla": ["baseline", "-", ""]}


def test_best_and_second_stay_marked(tmp_path) -> None:
    write(tmp_path, seeds([0.1], "bpr") + seeds([0.2], "sl"))
    made = with_baseline(main_table(tmp_path, "trial", METRICS), "bpr")
    index = made.column("Recall@20", "yelp2018")
    assert [row[index].place for row in made.rows] == [2, 1]
    assert all(isinstance(entry, Entry) for row in made.rows for entry in row)


def test_a_baseline_is_one_row(tmp_path) -> None:
    write(tmp_path, seeds([0.1], "sl", tau=0.1) + seeds([0.2], "sl", tau=0.2))
    table = main_table(tmp_path, "trial", METRICS)
    assert improvements(table, "sl tau=0.1") == ["baseline", 1.0]
    with pytest.raises(ConfigError, match=r"2 rows of mf; say which: 'sl tau=0\.1', 'sl tau=0\.2'"):
        with_baseline(table, "sl")
    with pytest.raises(
        ConfigError, match=r"no baseline 'bpr' in the table; known: best, sl tau=0\.1"
    ):
        with_baseline(table, "bpr")
    with pytest.raises(ConfigError, match="table 't' has no losses to compare"):
        with_baseline(Table.of("t", [Column("a")], [["x"]]), "sl")
