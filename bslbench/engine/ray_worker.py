"""What of the Ray executor runs on the nodes, and the board between them and the driver."""

import os
from contextlib import suppress
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryDirectory
from time import monotonic
from typing import Any

from bslbench.config import Cell
from bslbench.engine.jobs import Job, Result, perform
from bslbench.engine.machine import set_threads
from bslbench.engine.store import Store
from bslbench.training import Evaluation

LOOK_EVERY = 1.0
"""Seconds between two words of a worker with the driver."""

Files = dict[str, bytes]


class Board:
    """Lies beside the driver: what workers tell it, and whether they are to stop."""

    def __init__(self) -> None:
        self.last: dict[str, Evaluation] = {}
        self.stopping = False

    def tell(self, cell_id: str, evaluation: Evaluation | None) -> bool:
        """Leave an evaluation; return whether to stop."""
        if evaluation is not None:
            self.last[cell_id] = evaluation
        return self.stopping

    def news(self) -> dict[str, Evaluation]:
        """Return what was left since the last time."""
        last, self.last = self.last, {}
        return last

    def stop(self) -> None:
        """Let the workers stop."""
        self.stopping = True


def sees(token: Path) -> bool:
    """Tell whether this node sees the results folder that the token lies in."""
    return token.exists()


def work(
    job: Job, threads: int, board: Any, token: Path | None, state: Files, user_files: Files
) -> tuple[Result, Files]:
    """Run a job on a node; return the files of its run if the driver is to write them."""
    set_threads(threads)
    word = _Word(import_module("ray"), board, job.cell.id)
    with TemporaryDirectory(prefix="bslbench-") as folder:
        cell = _with_files(job.cell, user_files, Path(folder))
        if token is not None:
            if not token.exists():
                node = os.uname().nodename
                return Result("unwritable", f"node {node} does not see {token.parent}"), {}
            return perform(replace(job, cell=cell), word.stop, word.show), {}
        run = Store(Path(folder)).run(cell.id)
        run.folder.mkdir(parents=True)
        for name, content in state.items():
            run.file(name).write_bytes(content)
        result = perform(replace(job, cell=cell, root=Path(folder)), word.stop, word.show)
        files = (file for file in run.folder.iterdir() if file.name != ".lock")
        return result, {file.name: file.read_bytes() for file in files}


def _with_files(cell: Cell, files: Files, folder: Path) -> Cell:
    """Return the cell with the user's files where they lie here."""
    changes = {}
    for field in ("loss_path", "backbone_path"):
        place, _, name = getattr(cell, field).rpartition(":")
        if place in files:
            (folder / field).mkdir()  # the two may be of one name
            here = folder / field / Path(place).name
            here.write_bytes(files[place])
            changes[field] = f"{here}:{name}"
    return cell.model_copy(update=changes)


class _Word:
    """A worker's word with the driver, once in a while and never waited for."""

    def __init__(self, ray: Any, board: Any, cell_id: str) -> None:
        self.ray, self.board, self.cell_id = ray, board, cell_id
        self.evaluation: Evaluation | None = None
        self.answer: Any = None
        self.asked = 0.0
        self.stopping = False

    def show(self, evaluation: Evaluation) -> None:
        self.evaluation = evaluation

    def stop(self) -> bool:
        if monotonic() - self.asked >= LOOK_EVERY:
            if self.answer is not None and self.ray.wait([self.answer], timeout=0)[0]:
                with suppress(self.ray.exceptions.RayError):  # no driver to stop for
                    self.stopping = self.ray.get(self.answer)
            self.answer = self.board.tell.remote(self.cell_id, self.evaluation)
            self.asked = monotonic()
        return self.stopping
