"""A race from its plan to what it leaves: rungs, final runs, embeddings."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from bslbench.engine.race.climb import AGAIN, climb
from bslbench.engine.race.finals import Final, Finals, run_finals
from bslbench.engine.race.heats import Heat, Means
from bslbench.engine.race.plan import (
    AIM,
    FIRST,
    LEAST_SEEDS,
    LONG,
    MORE_PAIRS,
    PLANNED_SEEDS,
    rounds_of,
)
from bslbench.engine.race.record import Record
from bslbench.engine.race.yields import write_deployed, write_evaluated
from bslbench.engine.running import stopping
from bslbench.engine.store import Run

SLACK = 1.1
"""Factor on time that a budget is named for: what comes may take longer than what was."""


@dataclass(frozen=True)
class Outcome:
    """What a race came to.

    Attributes
    ----------
    record
        What it was, and how far its phases went.
    heats
        Its rungs, as run.
    finals
        Its final runs.
    budget, spent
        Seconds asked for, and taken, over all calls.
    before
        Seconds of this call before it went on with the race; the next one has them too.
    idle
        Whether this call found everything done: its time does not count.
    """

    record: Record
    heats: Sequence[Heat]
    finals: Finals
    budget: float
    spent: float
    before: float = 0.0
    idle: bool = False

    @property
    def pick(self) -> Final:
        """The loss with the best mean over seeds on valid."""
        return self.finals.losses[0]

    @property
    def tried(self) -> int:
        """Settings of each loss on the first rung."""
        return self.record.done["rung-0"]

    def left(self) -> list[str]:
        """Return the losses that did not come to the final runs, the last to leave first."""
        finalists = [final.name for final in self.finals.losses]
        names = [name for heat in reversed(self.heats) for name in heat.losses()]
        stayed = {*finalists, *self.finals.failed}
        return [name for name in dict.fromkeys(names) if name not in stayed]

    def budget_for_setting(self) -> float | None:
        """Return the budget with which another setting is tried on the last rung, if any is left.

        It has time for other final runs too, in case the setting is better.
        """
        last = self.heats[-1]
        return self._larger((1 + PLANNED_SEEDS) * last.round_seconds) if last.more else None

    def budget_for_seeds(self, count: int) -> float:
        """Return the budget with which there are so many final seeds."""
        last = self.heats[-1]
        extra = self.finals.time(count - len(self.pick.runs))
        if last.more and last.settings < AGAIN:  # another setting comes first, with its own seeds
            extra = last.round_seconds + self.finals.time(count)
        return self._larger(extra)

    @property
    def epochs_for_answer(self) -> int:
        """Epochs that an answer takes at least; as many as there were, if these were set."""
        plan = self.record.plan
        return plan.epochs if "epochs" in self.record.race.set else max(LONG, plan.epochs)

    def budget_for_answer(self) -> float | None:
        """Return the budget of a race that is long enough for an answer, if this one was not.

        It has `FIRST` settings of each loss, by the time that runs have taken here. Few settings
        leave the order to chance, few epochs to how fast a loss learns.
        """
        plan = self.record.plan
        if plan.epochs >= self.epochs_for_answer and self.tried >= FIRST:
            return None
        rounds = rounds_of(FIRST, len(self.heats))
        work = sum(n * heat.round_seconds for n, heat in zip(rounds, self.heats, strict=True))
        work += self.finals.time(LEAST_SEEDS) + MORE_PAIRS * max(self.finals.seconds)
        return SLACK * work * self.epochs_for_answer / plan.epochs / AIM

    def _larger(self, extra: float) -> float:
        return (self.spent + self.before + extra * SLACK) / self.record.plan.ends[-1]

    @property
    def shown(self) -> Run:
        """The run of the pick whose embeddings are given away: the best of its seeds on valid."""
        pairs = zip(self.pick.runs, self.pick.cells, strict=True)
        return max(pairs, key=lambda pair: pair[0].selected(pair[1]))[0]


def run_race(record: Record, means: Means, seeds: int, jobs: int) -> Outcome:
    """Run a race, or what is left of it.

    Raises
    ------
    RunFailed
        If no loss could be trained.
    DataError
        If a run is gone that a rung was decided by.
    Interrupted
        After SIGINT or SIGTERM: whatever was running has kept its state.
    """
    clock = means.execute.clock
    before = clock.spent() - clock.before
    record, heats = climb(record, means, seeds, jobs)
    record, finals = run_finals(record, heats[-1], means, seeds, jobs)
    return Outcome(record, heats, finals, means.budget, clock.spent(), before)


def leave(outcome: Outcome, means: Means, out: Path, tell: Callable[[str], None]) -> Outcome:
    """Write ``evaluated/`` and ``deploy/`` of the pick, and return the outcome with the time.

    Raises
    ------
    Interrupted
        After SIGINT or SIGTERM: what was trained for ``deploy/`` is kept.
    """
    run, clock = outcome.shown, means.execute.clock
    tell("writing the embeddings that were evaluated")
    wrote = write_evaluated(run, means.options, out / "evaluated")
    tell("training once more, on all interactions")
    state = Run(means.folder.root / "refit" / run.folder.name)
    with stopping() as asked:

        def stop() -> bool:
            clock.spent()
            return asked()

        wrote |= write_deployed(run, means.options, out / "deploy", state, stop)
    idle = not (wrote or means.execute.n_jobs)
    return replace(outcome, spent=clock.before if idle else clock.spent(), idle=idle)
