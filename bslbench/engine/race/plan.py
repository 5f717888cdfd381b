"""What a race does with its budget: how long it trains, how much it tries, whom it runs to the end.

Everything that is decided before the first trial is decided here, from costs, and kept.
"""

import heapq
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from tabulate import tabulate

from bslbench.config import Strict
from bslbench.engine.race.cost import Costs
from bslbench.engine.race.ladder import STEPS, Race, Rung, lazy, shortened
from bslbench.engine.status import span
from bslbench.errors import ConfigError

FIRST, LEAST_FIRST = 8, 4
"""Settings of each loss on the first rung, and where time is short."""
MORE_FIRST = (32, 16)
"""As many as the budget allows for the training that it allows with `FIRST`."""
FEWER = 4
"""Of so many settings of a loss one goes on to the next rung."""

WORTH = 2.0
"""How much longer a trial on the next rung has to take, for a rung to be worth its noise."""
LONG = 8
"""Epochs that an answer takes; before more of them come larger samples."""

EPOCHS = (20, 16, 12, 10, 8, 6, 5, 4)
"""Epochs of every run: as many as the budget allows."""
SHORTER = (3, 2, 1)
"""Where time is shortest, if that many still have the steps of four epochs of smaller data."""

ENTERING = 5
"""As many losses come to all users whatever the samples say, as many as race by default."""

FINALISTS, LEAST_FINALISTS = 3, 2
PLANNED_SEEDS, LEAST_SEEDS = 3, 2
"""Final seeds to count on; what time is left adds to them."""

MORE_PAIRS = 1.25
"""How much longer than a final run the last one takes, which has valid and test to train on too."""

AIM = 0.8
"""Share of the budget that the plan fills: measured costs are never quite met."""


class Plan(Strict):
    """A race as it is going to be run.

    Attributes
    ----------
    epochs
        Of every run.
    rungs
        With the settings tried on each; on the last one more, if there is time.
    entering
        Losses on the last rung: the best of those before.
    finalists
        Losses that get final seeds.
    references, left_out
        The rows it is held against, and why others are not.
    ends
        When each rung, and then the final runs, have to be over, as shares of the budget.
    jobs
        Runs at a time, as many as the memory allows.
    seconds
        About what it takes with `PLANNED_SEEDS`.
    least
        The smallest budget that can be planned for.
    """

    epochs: int
    rungs: list[Rung]
    entering: int
    finalists: int
    references: list[str]
    left_out: dict[str, str]
    ends: list[float]
    jobs: int
    seconds: float
    least: float


@dataclass(frozen=True)
class _Draft:
    """One way to spend a budget, and what it takes."""

    rungs: Sequence[Rung]
    costs: Costs
    jobs: int
    epochs: int
    first: int
    finalists: int
    seeds: int

    def worthwhile(self) -> "_Draft":
        """Return it without the rungs that save too little."""
        *smaller, whole = range(len(self.rungs))
        seconds = [sum(map(sum, self._seconds(n))) for n in (*smaller, whole)]
        kept = [whole]
        for n in reversed(smaller):
            if WORTH * seconds[n] <= seconds[kept[0]]:
                kept.insert(0, n)
        costs = {name: [own[n] for n in kept] for name, own in self.costs.items()}
        return replace(self, rungs=[self.rungs[n] for n in kept], costs=costs)

    @property
    def rounds(self) -> list[int]:
        """Settings of each contender by rung."""
        return rounds_of(self.first, len(self.rungs))

    @property
    def entering(self) -> int:
        """Losses on the last rung."""
        n_losses = sum(own[-1].epoch > 0 for own in self.costs.values())
        half = n_losses if len(self.rungs) == 1 else (n_losses + 1) // 2
        return min(n_losses, max(half, ENTERING))

    def phases(self) -> list[float]:
        """Return the seconds of each rung, of the final runs, and of the last run on all data."""
        work = []
        for number, rounds in enumerate(self.rounds):
            losses, references = self._seconds(number)
            n_losses = self.entering if number == len(self.rungs) - 1 else len(losses)
            work.append(rounds * [*losses[:n_losses], *references])
        work.append(self.seeds * [*losses[: self.finalists], *references])
        return [makespan(runs, self.jobs) for runs in work] + [MORE_PAIRS * losses[0]]

    def total(self) -> float:
        """Return the seconds of all phases."""
        return sum(self.phases())

    def _seconds(self, rung: int) -> tuple[list[float], list[float]]:
        """Return the seconds of a trial of each loss, longest first, and of each reference."""
        losses: list[float] = []
        references: list[float] = []
        for own in self.costs.values():
            (losses if own[rung].epoch else references).append(own[rung].seconds(self.epochs))
        return sorted(losses, reverse=True), references


def rounds_of(first: int, n_rungs: int) -> list[int]:
    """Return the settings of each contender by rung.

    Examples
    --------
    >>> rounds_of(8, 3)
    [8, 2, 1]
    """
    return [max(1, first // FEWER**i) for i in range(n_rungs)]


def makespan(runs: Sequence[float], jobs: int) -> float:
    """Return what runs take together, so many at a time, the longest ones first."""
    ends = [0.0] * jobs
    for seconds in sorted(runs, reverse=True):
        heapq.heapreplace(ends, ends[0] + seconds)
    return max(ends)


def plan(
    race: Race,
    rungs: Sequence[Rung],
    costs: Costs,
    references: Sequence[str],
    left_out: dict[str, str],
    budget: float,
    jobs: int,
    seeds: int,
) -> Plan:
    """Return the longest training that the budget allows, and with it as many trials as it does.

    What an answer can rest on comes first, `FIRST` settings and `LONG` epochs; else as many epochs
    as there can be. Rungs that save too little are left out, if that allows `LONG` or no fewer.

    Parameters
    ----------
    budget
        Seconds.
    jobs
        Runs at a time.
    seeds
        Final seeds at most.

    Raises
    ------
    ConfigError
        If not even the shortest race fits; the message says what would.
    """
    asked = int(race.set.get("epochs", 0))
    lengths = (asked,) if asked else EPOCHS
    shortest: tuple[int, ...] = lengths
    if not asked:
        steps = math.ceil(rungs[-1].pairs / rungs[-1].batch_size)
        shortest += tuple(epochs for epochs in SHORTER if epochs * steps >= EPOCHS[-1] * STEPS)
    ways = (
        (FIRST, FINALISTS, PLANNED_SEEDS, lengths),
        (FIRST, LEAST_FINALISTS, LEAST_SEEDS, lengths),
        (LEAST_FIRST, LEAST_FINALISTS, LEAST_SEEDS, shortest),
    )
    drafts: list[_Draft] = []
    for first, finalists, n_seeds, possible in ways:
        most = min(finalists, len(race.losses)), min(n_seeds, seeds)
        ladders = [_Draft(rungs, costs, jobs, epochs, first, *most) for epochs in possible]
        shorter = [whole.worthwhile() for whole in ladders]
        drafts += [draft for draft in shorter if draft.epochs >= LONG]
        drafts += [draft for pair in zip(shorter, ladders, strict=True) for draft in pair]
    long = asked or LONG
    drafts.sort(key=lambda one: (one.first < FIRST or one.epochs < long, max(0, long - one.epochs)))
    least = min(draft.total() for draft in drafts) / AIM
    fitting = [draft for draft in drafts if draft.total() <= AIM * budget]
    if not fitting:
        raise ConfigError(f"a budget of {span(budget)} is too short: the least is {span(least)}")
    wider = [replace(fitting[0], first=first) for first in MORE_FIRST]
    chosen = next((draft for draft in wider if draft.total() <= AIM * budget), fitting[0])
    phases, total = chosen.phases(), chosen.total()
    return Plan(
        epochs=chosen.epochs,
        rungs=[
            rung.model_copy(update={"rounds": n})
            for rung, n in zip(chosen.rungs, chosen.rounds, strict=True)
        ],
        entering=chosen.entering,
        finalists=chosen.finalists,
        references=list(references),
        left_out=left_out,
        ends=[sum(phases[: i + 1]) / total for i in range(len(phases) - 1)],
        jobs=jobs,
        seconds=total,
        least=least,
    )


def described(race: Race, plan: Plan, jobs: int) -> str:
    """Return a plan as text."""
    total = plan.seconds
    begins = [0.0, *plan.ends[:-1]]
    rows = []
    for i, rung in enumerate(plan.rungs):
        last = i == len(plan.rungs) - 1
        n_losses = plan.entering if last else len(race.losses)
        rows.append(
            {
                "users": f"{rung.n_users:,} ({rung.share})",
                "items": f"{rung.items:,}",
                "train pairs": f"{rung.pairs:,}",
                "batch": str(rung.batch_size),
                "losses": str(n_losses),
                "settings of each": str(rung.rounds),
                "about": span((plan.ends[i] - begins[i]) * total),
            }
        )
    table = tabulate(rows, "keys", "simple", disable_numparse=True)
    return "\n".join([table, *_lines(race, plan, jobs)])


def shortenings(race: Race, plan: Plan) -> Iterator[str]:
    """Yield what the losses count to on all users where it is less than by default, if any."""
    held = shortened(race, plan.rungs[-1], plan.epochs)
    if held:
        counts = ", ".join(f"{key} = {value}" for key, value in held.items())
        yield f"held to a quarter of the training: {counts}"


def _lines(race: Race, plan: Plan, jobs: int) -> Iterator[str]:
    side = f", {jobs} runs at a time" if jobs > 1 else ""
    length = f"{plan.epochs} epoch{'s' * (plan.epochs > 1)}"
    yield f"{', '.join(race.losses)} on {race.backbone}, {length} each{side}"
    if any(lazy(race, rung) for rung in plan.rungs):
        yield "adam_lazy on large tables, and where a batch names few items"
    yield from shortenings(race, plan)
    yield f"held against {', '.join(plan.references)}"
    yield from (f"without {name}: {reason}" for name, reason in plan.left_out.items())
    yield "if there is time, more settings on all users"
    losses = f"the best {plan.finalists} losses" if plan.finalists > 1 else "the loss"
    final = (plan.ends[-1] - plan.ends[-2]) * plan.seconds
    yield f"then fresh seeds of {losses}, about {span(final)} or as long as the budget lasts"
    yield f"then the best one on all interactions, about {span((1 - plan.ends[-1]) * plan.seconds)}"
    yield f"in all about {span(plan.seconds)}"
