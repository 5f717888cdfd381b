"""The rungs of a race: many settings on few users, then the best of each loss on more of them."""

import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass, replace
from itertools import takewhile
from pathlib import Path

from bslbench.config import Cell
from bslbench.engine import executors
from bslbench.engine.executors import WHOLE, Part, run_grid
from bslbench.engine.inputs import Options
from bslbench.engine.pruning import past
from bslbench.engine.race.clock import OutOfTime, Timed
from bslbench.engine.race.cost import OVERHEAD
from bslbench.engine.race.ladder import Rung, entered, study
from bslbench.engine.race.plan import PLANNED_SEEDS
from bslbench.engine.race.record import Folder, Record
from bslbench.engine.store import Store
from bslbench.engine.tuning import search as tuning
from bslbench.engine.tuning.contenders import Contender
from bslbench.engine.tuning.ledger import Ledger, Trial
from bslbench.engine.tuning.search import Budget, search
from bslbench.errors import DataError, RunFailed

LEAST_ROUNDS = 2
"""Settings of each loss on the first rung that are tried whatever the time."""

MISSING = Part(only="missing")
"""What has just failed is not tried again."""

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
    watch_runs: Callable[[Mapping[str, str]], AbstractContextManager[executors.Watcher]]


@dataclass(frozen=True)
class Heat:
    """A rung that has been run.

    Attributes
    ----------
    entered
        The contenders, by name.
    trials
        Those that count: of each contender as many. On later rungs they have the numbers of the
        first one, since they try the same.
    round_seconds
        Of wall time for one more setting of each.
    """

    rung: Rung
    entered: Mapping[str, Contender]
    trials: Trials
    round_seconds: float = 0.0

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


def climb(record: Record, means: Means, jobs: int) -> tuple[Record, list[Heat]]:
    """Run all rungs, or what is left of them.

    Raises
    ------
    RunFailed
        If no loss could be trained.
    DataError
        If a run is gone that a rung was decided by.
    Interrupted
        After SIGINT or SIGTERM.
    """
    heats: list[Heat] = []
    for number in range(len(record.plan.rungs)):
        if number == 0:
            record, heat = _first(record, means, jobs)
        else:
            record, heat = _next(record, means, heats, jobs)
        if not heat.losses():
            why = "; ".join(f"{name}: {reason}" for name, reason in heat.fallen().items())
            raise RunFailed(f"no loss could be trained on {heat.rung.dataset}: {why}")
        heats.append(heat)
    return record, heats


def _contenders(record: Record, means: Means, number: int) -> dict[str, Contender]:
    rung = record.plan.rungs[number]
    asked = study(record.race, number, rung, record.plan.epochs, record.plan.references)
    return {contender.name: contender for contender in entered(asked, rung, means.options)}


def _first(record: Record, means: Means, jobs: int) -> tuple[Record, Heat]:
    """Tune all losses on the smallest sample, at equal effort."""
    plan = record.plan
    rung = plan.rungs[0]
    asked = study(record.race, 0, rung, plan.epochs, plan.references)
    contenders = _contenders(record, means, 0)
    ledger = Ledger(means.store.root / asked.name)

    def tried(rounds: int) -> int:
        """Run so many rounds, if there is time, and return how many are whole."""
        with suppress(OutOfTime), means.watch_trials() as shown:
            search(
                asked,
                list(contenders.values()),
                Budget(rounds, hopeless=None),
                means.store,
                shown,
                means.execute,
                means.options,
            )
        numbers = [{trial.number for trial in ledger.trials(name)} for name in contenders]
        whole = (all(n in own for own in numbers) for n in range(rounds))
        return sum(takewhile(bool, whole))

    def counting() -> dict[str, list[Trial]]:
        made = record.done["rung-0"]
        trials = {
            name: [trial for trial in ledger.trials(name) if trial.number < made]
            for name in contenders
        }
        if any(len(own) < made for own in trials.values()):
            raise _gone(ledger.folder)
        return trials

    if "rung-0" not in record.done:
        ledger.open(asked, list(contenders.values()))
        tried(min(LEAST_ROUNDS, rung.rounds))
        with means.execute.until(plan.ends[0] * means.budget):
            made = tried(rung.rounds)
        record = means.folder.decide(record, "rung-0", made)
    cells = [contenders[name].trial(own[0].params) for name, own in counting().items()]
    cost = round_seconds(cells, means.store, jobs)
    record = _more(record, means, 0, tried, cost)
    return record, Heat(rung, contenders, counting(), cost)


def _next(record: Record, means: Means, heats: Sequence[Heat], jobs: int) -> tuple[Record, Heat]:
    """Try the best settings so far on the next rung; on the last as many as there is time for."""
    number = len(heats)
    rung = record.plan.rungs[number]
    last = number == len(record.plan.rungs) - 1
    going = heats[-1].losses()[: record.plan.entering if last else None]
    known = _contenders(record, means, number)
    contenders = {n: c for n, c in known.items() if n in going or not c.cell.train}
    best = {name: _promising(heats, name, None if last else rung.rounds) for name in contenders}
    cells = {
        name: [contenders[name].trial(trial.params) for trial in own] for name, own in best.items()
    }
    counts = [len(own) for own in cells.values()]
    n_rounds = min(max(counts), max(min(counts), rung.rounds))  # beyond the plan all have as many
    rounds = [[own[n] for own in cells.values() if n < len(own)] for n in range(n_rounds)]
    titles = {
        cell.id: f"{name}, setting {trial.number} on {rung.share}"
        for name, own in best.items()
        for trial, cell in zip(own, cells[name], strict=True)
    }
    phase = f"rung-{number}"

    def tried(count: int, part: Part = MISSING) -> int:
        """Run so many rounds, if there is time, and return how many have ended."""
        once = {cell.id: cell for round_ in rounds[:count] for cell in round_}
        with suppress(OutOfTime), means.watch_runs(titles) as shown:
            run_grid(
                f"{record.race.name}/{phase}",
                list(once.values()),
                means.store,
                shown,
                means.execute,
                options=means.options,
                part=part,
            )
        ended = (all(_ended(cell, means) for cell in round_) for round_ in rounds[:count])
        return sum(takewhile(bool, ended))

    if phase not in record.done:
        tried(1, WHOLE)
        with means.execute.until(record.plan.ends[number] * means.budget):
            made = tried(rung.rounds)
        record = means.folder.decide(record, phase, made)
    cost = round_seconds(rounds[0], means.store, jobs)
    record = _more(record, means, number, tried, cost, len(rounds))
    trials = {
        name: [
            _trial(trial, cell, means)
            for trial, cell in zip(own, cells[name][: record.done[phase]], strict=False)
        ]
        for name, own in best.items()
    }
    return record, Heat(rung, contenders, trials, cost)


def _more(
    record: Record,
    means: Means,
    number: int,
    tried: Callable[[int], int],
    cost: float,
    most: float = math.inf,
) -> Record:
    """Try more settings on the last rung, one of each at a time, if seeds have time after them."""
    phase = f"rung-{number}"
    end = record.plan.ends[-1] * means.budget - PLANNED_SEEDS * cost
    while (
        number == len(record.plan.rungs) - 1
        and (made := record.done[phase]) < most
        and means.execute.clock.spent() + cost <= end
    ):
        with means.execute.until(end):
            if tried(made + 1) == made:
                break
        record = means.folder.decide(record, phase, made + 1)
    return record


def _promising(heats: Sequence[Heat], name: str, count: int | None) -> list[Trial]:
    """Return the settings of a contender that came farthest, of these the best ones first."""
    order: dict[int, Trial] = {}
    for heat in reversed(heats):
        for trial in heat.best(name, None):
            order.setdefault(trial.number, trial)
    return list(order.values())[:count]


def round_seconds(cells: Sequence[Cell], store: Store, jobs: int) -> float:
    """Return what such runs as these take on the clock, by those that are finished."""
    seconds = 0.0
    for cell in cells:
        run = store.run(cell.id)
        if run.finished(cell):
            outcome = run.info()["outcome"]
            phases = ("load", "train", "eval", "test")
            seconds += OVERHEAD + sum(outcome[f"seconds_{phase}"] for phase in phases)
    return seconds / jobs


def _gone(folder: Path) -> DataError:
    return DataError(f"{folder} is gone or damaged, and the race rests on it; give another --name")


def _ended(cell: Cell, means: Means) -> bool:
    run = means.store.run(cell.id)
    return run.finished(cell) or bool(run.failure())


def _trial(trial: Trial, cell: Cell, means: Means) -> Trial:
    """Return a trial of the first rung as what it came to on another."""
    run = means.store.run(cell.id)
    found = past(run, cell, {})
    if found is None:
        if not _ended(cell, means):  # not a failure: it had ended when the rung was decided
            raise _gone(run.folder)
        reason = run.failure().get("reason", "")
        return replace(trial, cell=cell.id, state="failed", curve={}, seconds=0.0, reason=reason)
    return replace(
        trial, cell=cell.id, state="complete", curve=found.curve, seconds=found.seconds, reason=""
    )
