"""What a race is run with, and a rung of it as it was run."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass

from bslbench.engine import running
from bslbench.engine.inputs import Options
from bslbench.engine.race.clock import Timed
from bslbench.engine.race.ladder import Rung
from bslbench.engine.race.record import Folder
from bslbench.engine.store import Store
from bslbench.engine.tuning import search as tuning
from bslbench.engine.tuning.contenders import Contender
from bslbench.engine.tuning.ledger import Trial

Trials = Mapping[str, Sequence[Trial]]
"""By loss or reference."""


@dataclass(frozen=True)
class Means:
    """What a race is run with.

    Attributes
    ----------
    folder
        Where its record is kept.
    execute
        Runs its runs, and keeps the clock.
    budget
        Seconds, over all calls.
    watch_trials, watch_runs
        Make who watches the first rung, and who watches the others; the latter are told the
        titles of runs by their ids.
    """

    store: Store
    folder: Folder
    execute: Timed
    options: Options
    budget: float
    watch_trials: Callable[[], AbstractContextManager[tuning.Watcher]]
    watch_runs: Callable[[Mapping[str, str]], AbstractContextManager[running.Watcher]]


@dataclass(frozen=True)
class Heat:
    """A rung that has been run.

    Attributes
    ----------
    entered
        The contenders, by name.
    trials
        Those that count, of each contender as many if it has had as many. On later rungs they have
        the numbers of the first one, since they try the same.
    more
        Settings of each that are left to try here.
    round_seconds
        Of wall time for one of these of each.
    """

    rung: Rung
    entered: Mapping[str, Contender]
    trials: Trials
    more: int = 0
    round_seconds: float = 0.0

    @property
    def settings(self) -> int:
        """Settings of each contender that count."""
        return max(map(len, self.trials.values()))

    def finished(self, name: str) -> list[Trial]:
        """Return the trials of a contender that neither failed nor were given up."""
        return [trial for trial in self.trials.get(name, ()) if trial.state == "complete"]

    def best(self, name: str, count: int | None = 1) -> list[Trial]:
        """Return the best of them, or all, the best first."""
        order = sorted(self.finished(name), key=lambda trial: (-trial.score, trial.number))
        return order[:count]

    def losses(self) -> list[str]:
        """Return the losses with a finished trial, the best first."""
        scores = {
            name: self.best(name)[0].score
            for name, contender in self.entered.items()
            if contender.cell.train and self.finished(name)
        }
        return sorted(scores, key=lambda name: -scores[name])

    def fallen(self) -> dict[str, str]:
        """Return what has no finished trial, and what its last one failed of."""
        return {
            name: trials[-1].reason or "no trial was finished"
            for name, trials in self.trials.items()
            if trials and not self.finished(name)
        }
