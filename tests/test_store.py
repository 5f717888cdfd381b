"""The results folder under bad luck: full, not writable, damaged. Never a wrong row."""

import errno
import io
import os
import shutil
import tomllib
from pathlib import Path
from typing import Any

import pytest
import torch

from bslbench.engine import cell as cells
from bslbench.engine.grid import expand
from bslbench.engine.grid_files import Listed, grid_toml
from bslbench.engine.inputs import Options
from bslbench.engine.store import Run, Store
from bslbench.errors import StoreError
from bslbench.evaluation.ranks import Ranks
from bslbench.files import write_atomically
from tests.test_engine import SMALL, Quiet, grid, rows
from tests.test_executors import metrics, run


def the_run(root: Path) -> Run:
    [folder] = (root / "runs").iterdir()
    return Run(folder)


@pytest.mark.parametrize("keep", [0, 0.5, 0.999])
@pytest.mark.parametrize("name", ["metrics.csv", "run.json"])
def test_a_truncated_result_is_trained_again(tmp_path: Path, name: str, keep: float) -> None:
    run(grid(), tmp_path)
    before = metrics(tmp_path)
    file = the_run(tmp_path).file(name)
    file.write_bytes(file.read_bytes()[: int(keep * file.stat().st_size)])
    assert the_run(tmp_path).status() == "missing"
    watcher = Quiet()
    assert run(grid(), tmp_path, watcher).finished == 1
    assert len(watcher.ran) == 1 and metrics(tmp_path) == before


def test_a_row_that_was_changed_is_not_believed(tmp_path: Path) -> None:
    run(grid(), tmp_path)
    before = metrics(tmp_path)
    file = the_run(tmp_path).file("metrics.csv")
    file.write_text(file.read_text().replace("0.", "0.9", 1))
    assert run(grid(), tmp_path).finished == 1
    assert metrics(tmp_path) == before


def test_truncated_tables_are_written_again(tmp_path: Path) -> None:
    run(grid(), tmp_path)
    before = metrics(tmp_path)
    for name in ("metrics.csv", "runs.csv", "grid.toml"):
        (tmp_path / "trial" / name).write_text("run_id")
    assert run(grid(), tmp_path).skipped == 1
    assert metrics(tmp_path) == before


def cut_off() -> bytes:
    """Return a quarter of a state: of this length torch says "Invalid argument"."""
    whole = io.BytesIO()
    torch.save({"backbone": torch.zeros(50_000)}, whole)
    return whole.getvalue()[:50_000]


@pytest.mark.parametrize("content", [b"", b"not a state", cut_off()])
def test_a_damaged_state_starts_afresh(tmp_path: Path, content: bytes) -> None:
    run(grid(), tmp_path / "whole")
    [cell] = expand(grid())
    folder = Store(tmp_path).run(cell.id)
    folder.folder.mkdir(parents=True)
    folder.file("state.pt").write_bytes(content)
    assert run(grid(), tmp_path).finished == 1
    assert metrics(tmp_path) == metrics(tmp_path / "whole")


def test_a_state_that_cannot_be_read_is_not_trained_over(tmp_path: Path) -> None:
    [cell] = expand(grid())
    state = Store(tmp_path).run(cell.id).file("state.pt")
    state.mkdir(parents=True)
    with pytest.raises(StoreError, match=r"^cannot read .*state\.pt: Is a directory"):
        run(grid(), tmp_path)
    assert state.exists()


def test_a_model_is_that_of_the_run_it_lies_beside(tmp_path: Path) -> None:
    run(grid(), tmp_path, options=Options(save_model=True))
    assert the_run(tmp_path).file("model.safetensors").exists()
    run(grid(), tmp_path, options=Options(force=True))
    assert not the_run(tmp_path).file("model.safetensors").exists()


def test_a_model_cut_off_half_way_leaves_no_run_of_two_trainings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(grid(), tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(Ranks, "save", _full)
        with pytest.raises(StoreError, match="full"):
            run(grid(), tmp_path, options=Options(save_model=True))
    assert the_run(tmp_path).file("model.safetensors").exists()
    assert the_run(tmp_path).status() == "missing"
    assert run(grid(), tmp_path).finished == 1


def test_a_run_that_is_begun_anew_meanwhile_counts_as_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(grid(), tmp_path)
    the_run(tmp_path).file("metrics.csv").unlink()
    monkeypatch.setattr(Run, "finished", lambda run, cell: True)
    Store(tmp_path).write_grid("trial", expand(grid()))
    assert [row["status"] for row in rows(tmp_path / "trial" / "runs.csv")] == ["missing"]


def test_others_can_read_what_a_run_leaves(tmp_path: Path) -> None:
    run(grid(), tmp_path)
    for name in ("ranks.npz", "metrics.csv", "run.json"):
        assert the_run(tmp_path).file(name).stat().st_mode & 0o777 == 0o644


def test_tables_without_their_runs_are_not_emptied(bslbench: Any, tmp_path: Path) -> None:
    train = ["train", "--dataset", SMALL, "--loss", "sl", "--set", "epochs=1", "--name", "trial"]
    assert bslbench(*train)[0] == 0
    tables = metrics(tmp_path / "results")
    shutil.rmtree(tmp_path / "results" / "runs")
    code, _, err = bslbench(*train)
    assert code == 2 and "trial has tables of runs that are not in results/runs, and" in err
    assert metrics(tmp_path / "results") == tables
    assert bslbench(*train, "--dry-run")[0] == 0
    damaged = tmp_path / "results" / "trial" / "runs.csv"
    damaged.write_bytes(b"\xff" + damaged.read_bytes()[1:])
    assert not Store(tmp_path / "results").has_tables_alone("trial")  # it is written anew
    assert bslbench(*train, "--results", "elsewhere")[0] == 0
    assert metrics(tmp_path / "elsewhere") == tables
    shutil.rmtree(tmp_path / "elsewhere" / "runs")
    assert bslbench(*train, "--results", "elsewhere", "--force")[0] == 0


def test_any_name_is_read_back() -> None:
    odd = 'naïve \U0001f525 "\\ \x7f'
    text = grid_toml(odd, [Listed("one", {"loss": odd, "tau": 0.1, "fine": True})])
    read = tomllib.loads(text)
    assert read["name"] == odd
    assert read["cells"] == [{"id": "one", "loss": odd, "tau": 0.1, "fine": True}]


def test_a_changed_grid_has_its_own_rows(tmp_path: Path) -> None:
    run(grid(set={"tau": [0.1, 0.2]}), tmp_path)
    watcher = Quiet()
    changed = grid(set={"tau": [0.2, 0.3]})
    run(changed, tmp_path, watcher)
    assert len(watcher.ran) == 1  # 0.2 has been trained before
    assert {row["tau"] for row in rows(tmp_path / "trial" / "metrics.csv")} == {"0.2", "0.3"}


class Full:
    """A disk that is full after so many files."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, after: int) -> None:
        self.left = after
        self.sync = os.fsync
        monkeypatch.setattr(os, "fsync", self)

    def __call__(self, descriptor: int) -> None:
        self.left -= 1
        if self.left < 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        self.sync(descriptor)


@pytest.mark.parametrize("after", range(0, 8))
def test_a_full_disk_stops_the_grid_and_is_gone_on_from(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, after: int
) -> None:
    asked = grid(losses=["sl", "bpr"])
    run(asked, tmp_path / "whole")
    with monkeypatch.context() as patch:
        Full(patch, after)
        with pytest.raises(StoreError, match=r"^cannot write .*: No space left on device$"):
            run(asked, tmp_path)
        assert not list(tmp_path.glob("runs/*/.[!l]*"))
    assert not list(tmp_path.glob("runs/*/failure.json"))
    assert run(asked, tmp_path).failed == {}
    assert metrics(tmp_path) == metrics(tmp_path / "whole")


def test_a_full_disk_stops_workers_too(tmp_path: Path) -> None:
    asked = grid(losses=["sl", "bpr"])
    first = Store(tmp_path).run(expand(asked)[0].id).folder
    first.parent.mkdir(parents=True)
    first.write_text("a file where the folder should be")
    with pytest.raises(StoreError, match=r"^cannot write .*File exists"):
        run(asked, tmp_path, jobs=2)


def test_a_results_folder_that_is_none(tmp_path: Path) -> None:
    (tmp_path / "results").write_text("")
    with pytest.raises(StoreError, match=r"cannot write .*results"):
        run(grid(), tmp_path / "results")


def test_what_a_killed_process_left_half_written_is_cleared(tmp_path: Path) -> None:
    [cell] = expand(grid())
    folder = Store(tmp_path).run(cell.id)
    folder.folder.mkdir(parents=True)
    folder.file(".metrics.csv.x1y2").write_text("run_id")
    cells.run_cell(cell, Store(tmp_path))
    assert sorted(p.name for p in folder.folder.glob(".*")) == [".lock"]


def test_an_atomic_write_that_fails_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "file"
    write_atomically(path, "old")
    monkeypatch.setattr(os, "replace", _denied)
    with pytest.raises(StoreError, match="Permission denied"):
        write_atomically(path, "new")
    assert [p.name for p in tmp_path.iterdir()] == ["file"] and path.read_text() == "old"


def _full(*_: Any) -> None:
    raise StoreError("the disk is full")


def _denied(*arguments: Any) -> None:
    raise OSError(errno.EACCES, os.strerror(errno.EACCES))
