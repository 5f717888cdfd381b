"""The budget: seconds spent, counted over all calls, and nothing that goes on past its time."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from math import inf
from pathlib import Path
from time import monotonic

from bslbench.engine.jobs import Executor, Job, Listener, Stop
from bslbench.errors import DataError
from bslbench.files import write_atomically

KEEP_EVERY = 2.0
"""Seconds between two writes of the clock: what a killed process takes with it uncounted."""


class OutOfTime(Exception):
    """What was to be run has not ended in its time; states are kept."""


@dataclass
class Clock:
    """Seconds that a race has taken, of this call and of those before.

    Attributes
    ----------
    path
        Where they are kept.
    begun
        When this call started, on the monotonic clock.

    Raises
    ------
    DataError
        If what was kept is damaged.
    """

    path: Path
    begun: float = field(default_factory=monotonic)

    def __post_init__(self) -> None:
        try:
            self.before = float(self.path.read_text("utf-8")) if self.path.exists() else 0.0
            if not 0 <= self.before < inf:
                raise ValueError
        except (OSError, ValueError) as error:
            raise DataError(f"{self.path} is damaged; remove it to count from now on") from error
        self.kept = -KEEP_EVERY

    def spent(self) -> float:
        """Return the seconds so far, and keep them now and then."""
        passed = monotonic() - self.begun
        if passed - self.kept >= KEEP_EVERY:
            self.keep()
        return self.before + passed

    def forget(self) -> None:
        """Count nothing of this call so far: it has found everything done."""
        self.begun = monotonic()

    def keep(self) -> None:
        """Write the seconds so far."""
        self.kept = monotonic() - self.begun
        write_atomically(self.path, f"{self.before + self.kept:.3f}\n")


class Timed:
    """An executor that watches the clock.

    Parameters
    ----------
    execute
        What runs the jobs.
    clock
        Kept while they run.

    Attributes
    ----------
    n_jobs
        Jobs that were run.
    """

    def __init__(self, execute: Executor, clock: Clock) -> None:
        self.execute = execute
        self.clock = clock
        self.end = inf
        self.n_jobs = 0

    @contextmanager
    def until(self, end: float) -> Iterator[None]:
        """Let nothing run on when the clock has passed `end`: `OutOfTime` comes out of the call."""
        self.end = end
        try:
            yield
        finally:
            self.end = inf

    def __call__(self, jobs: Iterable[Job], listener: Listener, stop: Stop) -> None:
        """Run jobs as the executor does, up to the end."""

        def late() -> bool:
            return self.clock.spent() > self.end

        def counted(job: Job) -> Job:
            self.n_jobs += not (late() or stop())  # what is asked for too late does not begin
            return job

        self.execute(map(counted, jobs), listener, lambda: late() or stop())
        if late() and not stop():
            raise OutOfTime
