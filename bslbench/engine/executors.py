"""Executors: the same `run_cell` for every cell of a grid, here one after the other."""

import signal
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any, Protocol

from bslbench.catalog import DatasetSpec
from bslbench.config import Cell
from bslbench.engine.cell import run_cell
from bslbench.engine.store import Store
from bslbench.errors import RunFailed
from bslbench.training import Evaluation


class Watcher(Protocol):
    """Whoever wants to know how a grid gets on."""

    def planned(self, n_cells: int, n_finished: int) -> None:
        """Called once, before the first run."""

    def started(self, cell: Cell) -> None:
        """A run starts or goes on."""

    def evaluated(self, cell: Cell, evaluation: Evaluation) -> None:
        """A run has evaluated an epoch."""

    def ended(self, cell: Cell, failure: str = "") -> None:
        """A run is finished, or failed for the reason given."""


@dataclass
class Outcome:
    """How many cells were finished before, are now, and which failed for what reason."""

    skipped: int = 0
    finished: int = 0
    failed: dict[str, str] = field(default_factory=dict)


def run_inline(
    name: str,
    cells: Sequence[Cell],
    store: Store,
    watcher: Watcher,
    *,
    data: Path | None = None,
    catalog: Mapping[str, DatasetSpec] | None = None,
    save_model: bool = False,
    force: bool = False,
) -> Outcome:
    """Run every cell that is not finished, in order, and write the grid's tables.

    A failed run does not stop the others.

    Raises
    ------
    Interrupted
        After SIGINT or SIGTERM: the running run's state is kept, the tables are written.
    """
    outcome = Outcome()
    pending = []
    for cell in cells:
        run = store.run(cell.id)
        models = not save_model or cell.train is None or run.file("model.safetensors").exists()
        if force or not (run.finished(cell) and models):
            pending.append(cell)
    outcome.skipped = len(cells) - len(pending)
    watcher.planned(len(cells), outcome.skipped)
    try:
        with _stopping() as stop:
            for cell in pending:
                watcher.started(cell)
                reason = ""
                try:
                    run_cell(
                        cell,
                        store,
                        data=data,
                        catalog=catalog,
                        save_model=save_model,
                        force=force,
                        stop=stop,
                        show=partial(watcher.evaluated, cell),
                    )
                    outcome.finished += 1
                except RunFailed as error:
                    reason = str(error)
                    outcome.failed[cell.id] = reason
                watcher.ended(cell, reason)
    finally:
        store.write_grid(name, cells)
    return outcome


@contextmanager
def _stopping() -> Iterator[Callable[[], bool]]:
    """Yield a question that turns true at the first SIGINT or SIGTERM; the second acts at once."""
    asked = False

    def ask(signum: int, frame: FrameType | None) -> None:
        nonlocal asked
        asked = True
        signal.signal(signum, previous[signum])

    previous: dict[int, Any] = {}
    try:
        for wanted in (signal.SIGINT, signal.SIGTERM):
            previous[wanted] = signal.signal(wanted, ask)
    except ValueError:
        pass  # not in the main thread, as in some notebooks: signals go to whoever is
    try:
        yield lambda: asked
    finally:
        for signum, handler in previous.items():
            signal.signal(signum, handler)
