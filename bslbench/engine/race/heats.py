"""The rungs of a race: many settings on few users, then the best of each loss on more of them."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass, replace
from pathlib import Path

from bslbench.config import Cell
from bslbench.engine import executors
from bslbench.engine.executors import WHOLE, Part, run_grid
from bslbench.engine.inputs import Options
from bslbench.engine.pruning import past
from bslbench.engine.race.clock import OutOfTime, Timed
from bslbench.engine.race.ladder import Rung, entered, study
from bslbench.engine.race.record import Folder, Record
from bslbench.engine.store import Store
from bslbench.engine.tuning import search as tuning
from bslbench.engine.tuning.contenders import Contender
from bslbench.engine.tuning.ledger import Ledger, Trial
from bslbench.engine.tuning.search import Budget, search
from bslbench.errors import DataError, RunFailed

LEAST_ROUNDS = 2
"""Settings of each loss on the first rung that are tried whatever the time."""

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
    """

    rung: Rung
    entered: Mapping[str, Contender]
    trials: Trials

    def finished(self, name: str) -> list[Trial]:
        """Return the trials of a contender that neither failed nor were given up."""
        return [trial for trial in self.trials.get(name, ()) if trial.state == "complete"]

    def best(self, name: str, count: int = 1) -> list[Trial]:
        """Return the best of them, the best first."""
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


def climb(record: Record, means: Means) -> tuple[Record, list[Heat]]:
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
            record, heat = _first(record, means)
        else:
            record, heat = _next(record, means, number, heats[-1])
        if not heat.losses():
            why = "; ".join(f"{name}: {reason}" for name, reason in heat.fallen().items())
            raise RunFailed(f"no loss could be trained on {heat.rung.dataset}: {why}")
        heats.append(heat)
    return record, heats


def _contenders(record: Record, means: Means, number: int) -> dict[str, Contender]:
    rung = record.plan.rungs[number]
    asked = study(record.race, number, rung, record.plan.epochs, record.plan.references)
    return {contender.name: contender for contender in entered(asked, rung, means.options)}


def _first(record: Record, means: Means) -> tuple[Record, Heat]:
    """Tune all losses on the smallest sample, at equal effort."""
    plan = record.plan
    rung = plan.rungs[0]
    asked = study(record.race, 0, rung, plan.epochs, plan.references)
    contenders = _contenders(record, means, 0)
    ledger = Ledger(means.store.root / asked.name)
    if "rung-0" not in record.done:
        ledger.open(asked, list(contenders.values()))

        def tried(rounds: int) -> None:
            with means.watch_trials() as shown:
                search(
                    asked,
                    list(contenders.values()),
                    Budget(rounds, hopeless=None),
                    means.store,
                    shown,
                    means.execute,
                    means.options,
                )

        tried(min(LEAST_ROUNDS, rung.rounds))
        with suppress(OutOfTime), means.execute.until(plan.ends[0] * means.budget):
            tried(rung.rounds)
        numbers = [{trial.number for trial in ledger.trials(name)} for name in contenders]
        whole = (n for n in range(rung.rounds) if not all(n in own for own in numbers))
        record = means.folder.decide(record, "rung-0", next(whole, rung.rounds))
    counting = {
        name: [trial for trial in ledger.trials(name) if trial.number < record.done["rung-0"]]
        for name in contenders
    }
    if any(len(trials) < record.done["rung-0"] for trials in counting.values()):
        raise _gone(ledger.folder)
    return record, Heat(rung, contenders, counting)


def _next(record: Record, means: Means, number: int, before: Heat) -> tuple[Record, Heat]:
    """Try the best settings of the rung before on this one."""
    rung = record.plan.rungs[number]
    going = before.losses()
    if number == len(record.plan.rungs) - 1:
        going = going[: record.plan.entering]
    known = _contenders(record, means, number)
    contenders = {n: c for n, c in known.items() if n in going or not c.cell.train}
    best = {name: before.best(name, rung.rounds) for name in contenders}
    cells = {
        name: [contenders[name].trial(trial.params) for trial in own] for name, own in best.items()
    }
    phase = f"rung-{number}"
    if phase not in record.done:
        rounds = [
            [own[n] for own in cells.values() if n < len(own)]
            for n in range(max(map(len, cells.values())))
        ]
        titles = {
            cell.id: f"{name}, setting {trial.number} on {rung.share}"
            for name, own in best.items()
            for trial, cell in zip(own, cells[name], strict=True)
        }

        def tried(chosen: Sequence[Sequence[Cell]], part: Part = WHOLE) -> None:
            once = {cell.id: cell for round_ in chosen for cell in round_}
            with means.watch_runs(titles) as shown:
                run_grid(
                    f"{record.race.name}/{phase}",
                    list(once.values()),
                    means.store,
                    shown,
                    means.execute,
                    options=means.options,
                    part=part,
                )

        tried(rounds[:1])
        with suppress(OutOfTime), means.execute.until(record.plan.ends[number] * means.budget):
            tried(rounds, Part(only="missing"))  # what has just failed is not tried again
        lacking = (
            n for n, round_ in enumerate(rounds) if not all(_ended(c, means) for c in round_)
        )
        record = means.folder.decide(record, phase, next(lacking, len(rounds)))
    trials = {
        name: [
            _trial(trial, cell, means)
            for trial, cell in zip(own, cells[name][: record.done[phase]], strict=False)
        ]
        for name, own in best.items()
    }
    return record, Heat(rung, contenders, trials)


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
