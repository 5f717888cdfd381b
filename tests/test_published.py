"""Published figures beside ours."""

import re

import pytest

from bslbench.backbones import BACKBONES
from bslbench.config import REFERENCE
from bslbench.engine.presets import find_presets
from bslbench.errors import ConfigError
from bslbench.losses import LOSSES
from bslbench.report.published import published_table, read_published
from tests.stores import cell, seeds, write

FIGURES = """
[sources]
log = "a log"
plot = "a plot"

[[figure]]
source = "log"
dataset = "yelp2018"
backbone = "mf"
loss = "sl"
selection = "test"
values = { "Recall@20" = 0.2, "NDCG@20" = 0.1 }

[[figure]]
source = "plot"
dataset = "yelp2018"
backbone = "mf"
loss = "bsl"
selection = "test"
settings = { rho = 1.2 }
values = { "Recall@20" = 0.4 }

[[figure]]
source = "plot"
dataset = "yelp2018"
backbone = "mf"
loss = "ccl"
selection = "test"
values = { "Recall@20" = 0.3 }

[[figure]]
source = "plot"
dataset = "gowalla"
backbone = "mf"
loss = "sl"
selection = "test"
values = { "Recall@20" = 0.3 }
"""


@pytest.fixture
def figures(tmp_path):
    path = tmp_path / "figures.toml"
    path.write_text(FIGURES)
    return path


def show(table, *names):
    """Return the row's labels and the entries of some of its columns."""
    indices = [table.column(name, "Recall@20") for name in names]
    return [
        (" ".join(filter(None, (e.text for e in row[1:4]))), *(row[i] for i in indices))
        for row in table.rows
    ]


def test_ours_theirs_and_the_difference(tmp_path, figures) -> None:
    scored = seeds([0.19, 0.17], "sl", selection="test")
    scored += seeds([0.4], "bsl", selection="test", rho=1.0)
    scored += seeds([0.5], "bsl", selection="test", rho=1.2)
    write(tmp_path, scored)
    table = published_table(tmp_path, "trial", ["Recall@20"], against=str(figures))
    rows = show(table, "ours", "published", "difference")
    assert [label for label, *_ in rows] == ["mf sl", "mf bsl rho=1.0", "mf bsl rho=1.2", "mf ccl"]
    sl, other, bsl, ccl = (entries for _, *entries in rows)
    assert (sl[0].value, sl[1].value) == (pytest.approx(0.18), 0.2)
    assert sl[2].value == pytest.approx(-0.1) and sl[1].mark == "a"
    assert (other[1].value, other[2].value) == (None, None)  # published for another rho
    assert bsl[2].value == pytest.approx(0.25) and bsl[1].mark == "b"
    assert (ccl[0].text, ccl[1].value, ccl[2].text) == ("-", 0.3, "-")
    assert {"a: a log", "b: a plot"} <= set(table.notes)
    assert table.stamp and not any(note.startswith("*") for note in table.notes)


def test_another_selection_is_marked(tmp_path, figures) -> None:
    write(tmp_path, seeds([0.1], "sl"))
    table = published_table(tmp_path, "trial", ["NDCG@20"], against=str(figures))
    row = table.rows[0]
    assert row[table.column("published", "NDCG@20")].mark == "a*"
    assert any(note.startswith("*: theirs picked the best epoch on test") for note in table.notes)
    assert len(table.rows) == 1  # the other figures have no NDCG@20


def test_a_failed_run_is_a_gap_beside_its_figure(tmp_path, figures) -> None:
    write(tmp_path, [], unfinished=[cell("sl")])
    table = published_table(tmp_path, "trial", ["Recall@20"], against=str(figures))
    _, ours, theirs, difference = show(table, "ours", "published", "difference")[0]
    assert (ours.text, theirs.value, difference.text) == ("-", 0.2, "-")
    assert table.problems == (
        "missing: 1 of 1 runs (1 of 1 of sl); train the grid again to finish them",
    )


def test_a_grid_without_published_figures_says_so(tmp_path) -> None:
    write(tmp_path, seeds([0.1], "sl", dataset="synthetic"))
    table = published_table(tmp_path, "trial")
    assert len(table.rows) == 1
    assert "there is no published figure for this grid's datasets and metrics" in table.notes


def test_each_run_of_a_published_pair_stands_beside_its_own_figure(tmp_path) -> None:
    scored = [
        run
        for rho in (1.0, 1.1, 1.2)
        for run in seeds([rho / 10], "bsl_inbatch", selection="test", rho=rho)
    ]
    scored += seeds([0.07], "bsl_reweight", selection="test", backbone="lightgcn", rho=1.12)
    write(tmp_path, scored)
    table = published_table(tmp_path, "trial", ["Recall@20"])
    theirs = {
        label: published.value
        for label, ours, published in show(table, "ours", "published")
        if ours.value is not None
    }
    assert theirs == {
        "mf bsl_inbatch rho=1.0": 0.07212,  # which is what the published code calls SL
        "mf bsl_inbatch rho=1.1": 0.07245,
        "mf bsl_inbatch rho=1.2": None,
        "lightgcn bsl_reweight": 0.07444,
    }
    not_run = [label for label, ours, _ in show(table, "ours", "published") if ours.value is None]
    assert "lightgcn sl" in not_run and not_run.count("mf sl") == 1  # that of the plot


def test_a_figure_stands_for_plain_sl_too(tmp_path) -> None:
    scored = seeds([0.07], "sl", selection="test")
    write(tmp_path, scored + seeds([0.071], "bsl_inbatch", selection="test", rho=1.0))
    table = published_table(tmp_path, "trial", ["NDCG@20"])
    theirs = [row[table.column("published", "NDCG@20")].value for row in table.rows]
    assert theirs[:4] == [0.05918, 0.0592, 0.05918, 0.0592]


def test_a_wrong_file_is_named(tmp_path, figures) -> None:
    with pytest.raises(ConfigError, match="say 'published', or name a TOML file"):
        read_published("publisht")
    figures.write_text(FIGURES.replace('source = "log"', 'source = "lag"'))
    with pytest.raises(ConfigError, match=r"figures\.toml: no source named 'lag'"):
        read_published(str(figures))
    figures.write_text(re.sub(r'("Recall@20" = )[0-9.]+', r"\g<1>0", FIGURES))
    with pytest.raises(ConfigError, match=r"Recall@20: Input should be greater than 0"):
        read_published(str(figures))
    figures.write_text(FIGURES.replace("NDCG@20", "NDGC@20"))
    with pytest.raises(ConfigError, match="no metric named 'NDGC'"):
        read_published(str(figures))


def preset_rho(figure):
    """Return the rho that the presets give to a figure's runs."""
    names = {"dataset": figure.dataset, "backbone": figure.backbone, "loss": figure.loss}
    return next(p.set["rho"] for p in find_presets(True, []) if p.matches(**names, noise=""))


def test_our_collection_is_whole() -> None:
    collection = read_published("published")
    names = {(f.backbone, f.loss): f.values for f in collection.figure if f.source == "log"}
    assert names["mf", "sl"]["Recall@20"] == 0.07212
    assert names["lightgcn", "bsl_reweight"]["NDCG@20"] == 0.06171
    assert {f.source for f in collection.figure} == set(collection.sources)
    for figure in (f for f in collection.figure if f.source == "log"):
        if figure.loss == "sl":
            assert figure.also.settings == {"rho": 1.0}
        else:
            assert figure.settings == {"rho": preset_rho(figure)}
    known = {(b, loss) for b in (*BACKBONES, REFERENCE) for loss in LOSSES}
    assert set(names) <= known  # else they would stand beside nothing
