"""What an executor is given and what it says: the same for one process, many, or a cluster."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Protocol

from bslbench.config import Cell
from bslbench.engine.cell import run_cell
from bslbench.engine.failures import record_failure
from bslbench.engine.inputs import Options
from bslbench.engine.pruning import Bar, Pruned
from bslbench.engine.store import Run, Store
from bslbench.errors import BslbenchError, InUse, RunFailed, StoreError
from bslbench.training import Evaluation, Interrupted

Stop = Callable[[], bool]
"""Asked again and again whether to stop; once true, always true."""


@dataclass(frozen=True)
class Job:
    """One cell to run, where its results go, and the bar that it must not fall below."""

    cell: Cell
    root: Path
    options: Options
    bar: Bar = field(default_factory=dict)

    @property
    def run(self) -> Run:
        """The folder of the run."""
        return Store(self.root).run(self.cell.id)


@dataclass(frozen=True)
class Result:
    """How a job ended.

    Attributes
    ----------
    kind
        ``trained``; ``found``: another process has finished it; ``held``: another process is at it;
        ``interrupted``: its state is kept; ``pruned``: it fell below the bar; ``failed``; ``lost``:
        its process is gone; ``unwritable``: the store is.
    reason
        One line for the last three.
    last
        The last evaluation.
    """

    kind: Literal[
        "trained", "found", "held", "interrupted", "pruned", "failed", "lost", "unwritable"
    ]
    reason: str = ""
    last: Evaluation | None = None


class Listener(Protocol):
    """Whoever an executor tells what happens."""

    def started(self, cell: Cell) -> None:
        """A run starts or goes on."""

    def evaluated(self, cell: Cell, evaluation: Evaluation) -> None:
        """A run has evaluated an epoch."""

    def ended(self, job: Job, result: Result) -> None:
        """A job has ended, one way or another."""


Executor = Callable[[Iterable[Job], Listener, Stop], None]
"""Runs jobs until they are through or it is told to stop; every started job is told as ended.

Jobs are asked for when there is room for one, and asked for again after one has ended.
"""


def perform(job: Job, stop: Stop, show: Callable[[Evaluation], None] = lambda _: None) -> Result:
    """Run one job here; whatever happens to it is in the result."""
    last = None

    def tell(evaluation: Evaluation) -> None:
        nonlocal last
        last = evaluation
        show(evaluation)

    try:
        trained = run_cell(
            job.cell, Store(job.root), job.options, bar=job.bar, stop=stop, show=tell
        )
        return Result("trained" if trained else "found", last=last)
    except Pruned:
        return Result("pruned", last=last)
    except Interrupted:
        return Result("interrupted")
    except InUse:
        return Result("held")
    except StoreError as error:
        return Result("unwritable", str(error))
    except BslbenchError as error:
        return Result("failed", str(error))


def lost(job: Job, reason: str) -> Result:
    """Return the result of a job whose process is gone, and leave the reason in its folder."""
    run = job.run
    try:
        with run.claim():
            # What a forced job finds may be the old results, which it had not come to forget.
            if not job.options.force and run.finished(job.cell, job.options.save_model):
                return Result("trained")
            record_failure(run, reason)
    except InUse:
        return Result("held")
    except StoreError as error:
        return Result("unwritable", str(error))
    except RunFailed as error:
        return Result("failed", str(error))
    return Result("lost", reason)


class Follower:
    """Passes on the evaluations that a run elsewhere leaves in the store."""

    def __init__(self, job: Job, listener: Listener) -> None:
        self.job = job
        self.listener = listener
        self.epoch = int(job.run.progress().get("epoch", -1))

    def look(self) -> None:
        """Tell of the last evaluation if it is a new one."""
        point = self.job.run.progress()
        if point and point["epoch"] != self.epoch:
            self.epoch = point["epoch"]
            fields = {name: point[name] for name in Evaluation.__dataclass_fields__}
            self.listener.evaluated(self.job.cell, Evaluation(**fields))
