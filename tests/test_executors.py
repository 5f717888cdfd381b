"""Executors: the same bytes from many processes, and what is killed, slow, held or stopped."""

import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock

from bslbench.config import Cell
from bslbench.engine import running
from bslbench.engine.cell import run_cell
from bslbench.engine.executors import executor_for
from bslbench.engine.grid import expand
from bslbench.engine.inputs import Options
from bslbench.engine.processes import GRACE
from bslbench.engine.running import Outcome, Part, run_grid
from bslbench.engine.store import Store
from bslbench.errors import ConfigError
from tests.test_engine import Quiet, grid

LOSSES = """
import os, signal, time, torch

class Killer(torch.nn.Module):
    def forward(self, pos, neg, batch):
        os.kill(os.getpid(), signal.SIGKILL)

class Sleeper(torch.nn.Module):
    def forward(self, pos, neg, batch):
        time.sleep(1000)

class Broken(torch.nn.Module):
    def forward(self, pos, neg, batch):
        return pos.sum() / None

class Greedy(torch.nn.Module):
    def forward(self, pos, neg, batch):
        return torch.empty(2**60)
"""
ENDLESS = {"epochs": 10**7, "patience": 10**7}


@pytest.fixture
def mine(tmp_path: Path) -> str:
    path = tmp_path / "mine.py"
    path.write_text(LOSSES)
    return str(path)


def run(asked: Any, root: Path, watcher: Quiet | None = None, **how: Any) -> Outcome:
    jobs, timeout = how.pop("jobs", None), how.pop("timeout", None)
    execute = executor_for(jobs=jobs, timeout=timeout, threads=1)
    return run_grid(asked.name, expand(asked), Store(root), watcher or Quiet(), execute, **how)


def metrics(root: Path) -> bytes:
    return (root / "trial" / "metrics.csv").read_bytes()


def test_processes_leave_the_same_bytes(tmp_path: Path) -> None:
    asked = grid(losses=["sl", "bpr"], references=["popularity"], seeds=2)
    run(asked, tmp_path / "one")
    outcome = run(asked, tmp_path / "two", jobs=2)
    assert (outcome.finished, outcome.failed) == (6, {})
    assert metrics(tmp_path / "one") == metrics(tmp_path / "two")


def test_a_killed_worker_costs_only_its_cell(tmp_path: Path, mine: str) -> None:
    asked = grid(losses=[f"{mine}:Killer", f"{mine}:Broken", "sl"])
    outcome = run(asked, tmp_path, jobs=2)
    assert outcome.finished == 1
    killed, broken = (outcome.failed[cell.id] for cell in expand(asked)[:2])
    assert killed == "its worker was killed, most often for want of memory"
    assert broken.startswith(f"{mine}, line 14: TypeError")
    folder = Store(tmp_path).run(expand(asked)[0].id)
    assert folder.failure()["reason"] == killed and not folder.held()


def test_a_run_that_takes_too_long_fails_and_keeps_its_state(tmp_path: Path, mine: str) -> None:
    asked = grid(losses=["sl"], set=ENDLESS)
    outcome = run(asked, tmp_path, timeout=3)
    assert list(outcome.failed.values()) == ["it took longer than the timeout of 3 s"]
    folder = Store(tmp_path).run(expand(asked)[0].id)
    assert folder.file("state.pt").exists() and folder.status() == "failed"


def test_a_run_that_does_not_answer_is_killed(
    tmp_path: Path, mine: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bslbench.engine.processes.GRACE", 0.1)
    asked = grid(losses=[f"{mine}:Sleeper", "sl"])
    outcome = run(asked, tmp_path, timeout=8)
    assert outcome.finished == 1
    assert list(outcome.failed.values()) == ["it took longer than the timeout of 8 s"]


def test_want_of_memory_is_named(tmp_path: Path, mine: str) -> None:
    [reason] = run(grid(losses=[f"{mine}:Greedy"]), tmp_path).failed.values()
    assert reason.startswith("out of memory: ") and "mine.py, line 18" in reason


def test_fail_fast_stops_at_the_first_failure(tmp_path: Path, mine: str) -> None:
    asked = grid(losses=[f"{mine}:Broken", "sl"])
    watcher = Quiet()
    outcome = run(asked, tmp_path, watcher, fail_fast=True)
    assert len(watcher.ran) == 1 and len(outcome.failed) == 1


def test_parts_of_a_grid(tmp_path: Path, mine: str) -> None:
    asked = grid(losses=["sl", f"{mine}:Broken"], seeds=3)
    assert run(asked, tmp_path, part=Part(limit=2)).finished == 2
    watcher = Quiet()
    outcome = run(asked, tmp_path, watcher, part=Part(shard=(2, 2)))
    assert watcher.ran == [cell.id for cell in expand(asked)[3::2]]
    assert (outcome.total, outcome.skipped, len(outcome.failed)) == (3, 1, 2)
    watcher = Quiet()
    run(asked, tmp_path, watcher, part=Part(only="failed"))
    assert watcher.ran == [cell.id for cell in expand(asked)[3::2]]
    watcher = Quiet()
    run(asked, tmp_path, watcher, part=Part(only="missing"))
    assert watcher.ran == [expand(asked)[2].id, expand(asked)[4].id]


@pytest.mark.parametrize("finished", [True, False])
def test_a_cell_that_another_process_is_at_comes_last(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, finished: bool
) -> None:
    """It is waited for, and trained here only if the other one lets go of it unfinished."""
    monkeypatch.setattr(running, "LOOK_EVERY", 0.01)
    asked = grid(losses=["sl", "bpr"])
    held, free = expand(asked)
    store = Store(tmp_path / "store")
    folder = store.run(held.id)
    elsewhere = Store(tmp_path / "elsewhere")
    run_cell(held, elsewhere)
    folder.folder.mkdir(parents=True)
    lock = FileLock(folder.file(".lock"), thread_local=False)
    lock.acquire()

    class Waiting(Quiet):
        def waiting(self, n_cells: int) -> None:
            assert (self.ran, n_cells) == ([free.id], 1)
            if finished:
                for file in elsewhere.run(held.id).folder.glob("[!.]*"):
                    folder.file(file.name).write_bytes(file.read_bytes())
            lock.release()

    watcher = Waiting()
    outcome = run(asked, tmp_path / "store", watcher)
    assert outcome.failed == {} and watcher.ran == [free.id, held.id]
    assert (outcome.finished, outcome.skipped) == ((1, 1) if finished else (2, 0))


def start(root: Path, *options: str) -> subprocess.Popen[str]:
    program = [sys.executable, "-m", "bslbench", "train"]
    dataset = ["--dataset", "synthetic?users=200&items=120&interactions=4000", "--name", "trial"]
    return subprocess.Popen(
        [*program, *dataset, "--results", str(root), *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def until_running(store: Store, count: int) -> None:
    """Wait until so many runs have been evaluated or hold their lock."""
    deadline = time.monotonic() + 60
    while sum(store.run(f.name).held() for f in store.root.glob("runs/*")) < count:
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.mark.parametrize(("jobs", "by"), [("1", signal.SIGINT), ("2", signal.SIGTERM)])
def test_an_interrupt_keeps_the_states(tmp_path: Path, jobs: str, by: signal.Signals) -> None:
    process = start(
        tmp_path, "--loss", "sl", "--seeds", "3", "--jobs", jobs, "--set", "epochs=10000000"
    )
    until_running(Store(tmp_path), int(jobs))
    process.send_signal(by)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert err.splitlines()[-1].startswith("interrupted: states are kept; the same command goes")
    assert len(list(tmp_path.glob("runs/*/state.pt"))) == int(jobs)
    assert not list(tmp_path.glob("runs/*/failure.json")) and "Traceback" not in err


def test_a_second_interrupt_stops_at_once(tmp_path: Path, mine: str) -> None:
    process = start(
        tmp_path / "results", "--loss", f"{mine}:Sleeper", "--seeds", "2", "--jobs", "2"
    )
    until_running(Store(tmp_path / "results"), 2)
    process.send_signal(signal.SIGINT)
    assert process.stderr is not None
    while not process.stderr.readline().startswith("stopping once states are kept"):
        assert process.poll() is None
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=20)
    assert process.returncode and "Traceback" not in err


def test_workers_leave_when_their_parent_is_killed(tmp_path: Path) -> None:
    options = ["--loss", "sl", "--seeds", "2", "--jobs", "2", "--set", "epochs=10000000"]
    process = start(tmp_path, *options)
    store = Store(tmp_path)
    until_running(store, 2)
    process.kill()
    process.communicate()
    deadline = time.monotonic() + 90
    while len(list(tmp_path.glob("runs/*/state.pt"))) < 2:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    time.sleep(0.1)
    assert not any(store.run(folder.name).held() for folder in tmp_path.glob("runs/*"))


def test_a_worker_that_looks_at_nothing_leaves_soon_after_its_parent(
    tmp_path: Path, mine: str
) -> None:
    store = Store(tmp_path / "results")
    process = start(store.root, "--loss", f"{mine}:Sleeper", "--timeout", "1000")
    until_running(store, 1)
    process.kill()
    process.communicate()
    deadline = time.monotonic() + GRACE + 20
    while any(store.run(folder.name).held() for folder in store.root.glob("runs/*")):
        assert time.monotonic() < deadline
        time.sleep(0.1)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"kind": "inline", "jobs": 2}, "more than one job, or a timeout, needs .* 'processes'"),
        ({"kind": "inline", "timeout": 3.0}, "more than one job, or a timeout, needs"),
        ({"ray_address": "auto"}, "need the executor 'ray'"),
        ({"kind": "dask"}, "no executor named 'dask'; known: inline, processes, ray"),
    ],
)
def test_executors_that_cannot_be(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        executor_for(**arguments)


def test_without_ray_the_way_to_get_it_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    asked = grid()
    with pytest.raises(ConfigError, match=r"pip install 'bslbench\[ray\]'"):
        run_grid("trial", expand(asked), Store(tmp_path), Quiet(), executor_for("ray"))


def test_signals_are_somebody_elses_in_a_thread(tmp_path: Path) -> None:
    outcomes: list[Outcome] = []
    thread = threading.Thread(target=lambda: outcomes.append(run(grid(), tmp_path)))
    thread.start()
    thread.join()
    assert outcomes[0].finished == 1


def test_force_trains_again(tmp_path: Path) -> None:
    asked = grid()
    run(asked, tmp_path)
    before = metrics(tmp_path)
    watcher = Quiet()
    outcome = run(asked, tmp_path, watcher, options=Options(force=True))
    assert (outcome.finished, outcome.skipped, len(watcher.ran)) == (1, 0, 1)
    assert metrics(tmp_path) == before


class Counting(Quiet):
    def __init__(self) -> None:
        super().__init__()
        self.epochs: list[int] = []

    def evaluated(self, cell: Cell, evaluation: Any) -> None:
        self.epochs.append(evaluation.epoch)


def test_a_watcher_sees_how_far_a_worker_is(tmp_path: Path) -> None:
    watcher = Counting()
    run(grid(set={"epochs": 400, "patience": 400}), tmp_path, watcher, jobs=2)
    assert watcher.epochs[-1] == 399 and len(watcher.epochs) > 1
