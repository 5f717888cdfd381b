"""A grid from its cells to its tables: what is to do, by whom, until nothing is left."""

import os
import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from time import sleep
from types import FrameType
from typing import Any, Literal, Protocol

from bslbench.config import Cell
from bslbench.engine.executors import inline
from bslbench.engine.inputs import DEFAULTS, Options
from bslbench.engine.jobs import Executor, Job, Result
from bslbench.engine.store import Store
from bslbench.errors import StoreError
from bslbench.training import Evaluation, Interrupted

LOOK_EVERY = 0.5
"""Seconds between two looks at the cells that other processes hold."""


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

    def left(self, cell: Cell) -> None:
        """A run is left for later: another process is at it, or it was cut off."""

    def waiting(self, n_cells: int) -> None:
        """Nothing is left but cells that other processes are at."""


@dataclass(frozen=True)
class Part:
    """Which of a grid's cells a call takes.

    Attributes
    ----------
    only
        Those that failed before, or those that are neither finished nor failed.
    limit
        At most this many.
    shard
        ``(i, n)``, i from 1: every n-th cell of the whole grid, so that n machines share it.
    """

    only: Literal["failed", "missing"] | None = None
    limit: int | None = None
    shard: tuple[int, int] = (1, 1)

    def of(self, cells: Sequence[Cell]) -> Sequence[Cell]:
        """Return the shard's cells, finished or not."""
        index, count = self.shard
        return cells[index - 1 :: count]

    def pending(self, cells: Sequence[Cell], store: Store, options: Options) -> list[Cell]:
        """Return the cells that a call runs."""
        pending = [
            cell
            for cell in self.of(cells)
            if _pends(cell, store, options) and self.only in (None, store.run(cell.id).status())
        ]
        return pending[: self.limit]


WHOLE = Part()


def _pends(cell: Cell, store: Store, options: Options) -> bool:
    return options.force or not store.run(cell.id).finished(cell, options.save_model)


@dataclass
class Outcome:
    """How many cells there are, were finished before, are now, and which failed for what reason."""

    total: int = 0
    skipped: int = 0
    finished: int = 0
    failed: dict[str, str] = field(default_factory=dict)

    @property
    def left(self) -> int:
        """How many the call did not take, or was stopped before."""
        return self.total - self.skipped - self.finished - len(self.failed)


class _Ledger:
    """Keeps count of what an executor tells, and passes it on to the watcher."""

    def __init__(self, outcome: Outcome, watcher: Watcher) -> None:
        self.outcome = outcome
        self.watcher = watcher
        self.started = watcher.started
        self.evaluated = watcher.evaluated
        self.later: list[Job] = []
        self.unwritable = ""

    def ended(self, job: Job, result: Result) -> None:
        if result.kind in ("held", "interrupted", "unwritable"):
            if result.kind == "interrupted":  # by force it would begin from the start again
                job = replace(job, options=replace(job.options, force=False))
            self.later.append(job)
            self.unwritable = self.unwritable or result.reason
            self.watcher.left(job.cell)
            return
        if result.last:
            self.watcher.evaluated(job.cell, result.last)
        if result.kind == "trained":
            self.outcome.finished += 1
        elif result.kind == "found":
            self.outcome.skipped += 1
        else:
            self.outcome.failed[job.cell.id] = result.reason
        self.watcher.ended(job.cell, result.reason)


def run_grid(
    name: str,
    cells: Sequence[Cell],
    store: Store,
    watcher: Watcher,
    execute: Executor = inline,
    *,
    options: Options = DEFAULTS,
    part: Part = WHOLE,
    fail_fast: bool = False,
) -> Outcome:
    """Run the cells that are not finished, and write the grid's tables before and after.

    A failed run does not stop the others, unless `fail_fast`; then those that are running keep
    their state. Cells that another process is at are left for last: waited for, and run here if
    they are not finished when it lets go of them.

    Raises
    ------
    StoreError
        If the results cannot be written; nothing more is started.
    Interrupted
        After SIGINT or SIGTERM: the running runs' states are kept, the tables are written.
    """
    pending = part.pending(cells, store, options)
    total = len(part.of(cells))
    outcome = Outcome(total, sum(not _pends(cell, store, options) for cell in part.of(cells)))
    ledger = _Ledger(outcome, watcher)
    todo = [Job(cell, store.root, options) for cell in pending]
    store.write_grid(name, cells)
    watcher.planned(len(pending) + outcome.skipped, outcome.skipped)
    with stopping() as asked:

        def stop() -> bool:
            return asked() or bool(ledger.unwritable) or (fail_fast and bool(outcome.failed))

        try:
            while todo and not stop():
                ready, held = _split(todo)
                if ready:
                    execute(ready, ledger, stop)
                else:
                    watcher.waiting(len(held))
                    sleep(LOOK_EVERY)
                todo, ledger.later = held + ledger.later, []
        finally:
            if not ledger.unwritable:
                store.write_grid(name, cells)
        if ledger.unwritable:
            raise StoreError(ledger.unwritable)
        if asked():
            raise Interrupted
    return outcome


def _split(jobs: Sequence[Job]) -> tuple[list[Job], list[Job]]:
    """Return the jobs that can be run, and those that other processes are at."""
    ready: list[Job] = []
    held: list[Job] = []
    for job in jobs:
        (held if job.run.held() else ready).append(job)
    return ready, held


STOPPING = b"stopping once states are kept; asked again, at once\n"


@contextmanager
def stopping() -> Iterator[Callable[[], bool]]:
    """Yield a question that turns true at the first SIGINT or SIGTERM; the second acts at once."""
    asked = False

    def ask(signum: int, frame: FrameType | None) -> None:
        nonlocal asked
        asked = True
        # Ignored is what a shell's background jobs inherit; who asks twice means it all the same.
        ignored = previous[signum] is signal.SIG_IGN
        signal.signal(signum, signal.default_int_handler if ignored else previous[signum])
        os.write(2, STOPPING)  # a print might interrupt another one

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
