"""The dry run: what is to do and what it costs, with nothing written."""

from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from bslbench.backbones import Backbone
from bslbench.engine.cell import evaluate
from bslbench.engine.grid import expand
from bslbench.engine.inputs import Options
from bslbench.engine.plan import plan, probe
from bslbench.engine.running import Part
from bslbench.engine.store import Store
from tests.test_engine import grid
from tests.test_executors import LOSSES, run


def test_a_plan_counts_and_estimates_and_writes_nothing(tmp_path: Path) -> None:
    asked = grid(losses=["sl", "bpr"], seeds=2, set={"tau": [0.1, 0.2], "n_negatives": [5, 10]})
    cells = expand(asked)
    rows, summary = plan(cells, Store(tmp_path), Options(), Part(), jobs=2)
    assert [(row["loss"], row["n_negatives"]) for row in rows] == [
        ("sl", "5"),
        ("sl", "10"),
        ("bpr", "5"),
        ("bpr", "10"),
    ]  # neither seeds nor real numbers such as tau make another cost
    assert [row["cells"] for row in rows] == ["4", "4", "2", "2"]
    assert all(row["memory"].endswith("GB") and row["time <="] for row in rows)
    assert summary.startswith("12 cells: 12 missing; 12 to do, at most about ")
    assert summary.endswith(", 2 at a time")
    assert not list(tmp_path.iterdir())


def test_losses_that_are_ranked_alike_share_an_evaluation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    evaluated: list[str] = []

    def counting(backbone: Backbone, *args: Any) -> tuple[float, float]:
        evaluated.append(type(backbone).__name__)
        return evaluate(backbone, *args)

    monkeypatch.setattr("bslbench.engine.plan.evaluate", counting)
    asked = grid(backbones=["mf", "lightgcn"], losses=["sl", "bsl"], set={"dim": [8, 16]})
    rows, _ = plan(expand(asked), Store(tmp_path), Options(), Part(), 1)
    assert len(rows) == 8 and all(row["memory"].endswith("GB") for row in rows)
    assert Counter(evaluated) == {"MF": 4, "LightGCN": 4}  # twice each: the first one compiles


def test_finished_cells_are_not_probed(tmp_path: Path) -> None:
    asked = grid(references=["popularity"])
    run(asked, tmp_path)
    probed: list[str] = []
    cells = expand(asked)
    rows, summary = plan(cells, Store(tmp_path), Options(), Part(), 1, probed.append)
    assert summary == "2 cells: 2 done; 0 to do" and not probed
    assert [row["to do"] for row in rows] == ["0", "0"]


def test_a_probe_that_fails_says_why(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(LOSSES)
    cells = expand(grid(losses=[f"{tmp_path / 'mine.py'}:Broken"]))
    [row], _ = plan(cells, Store(tmp_path / "results"), Options(), Part(), 1)
    assert row["time <="].startswith("fails: ") and "line 14: TypeError" in row["time <="]


def test_a_cost_grows_with_the_epochs() -> None:
    [short], [long] = (expand(grid(set={"epochs": n, "eval_every": 10})) for n in (10, 10_000))
    assert probe(short, Options()).seconds * 50 < probe(long, Options()).seconds
