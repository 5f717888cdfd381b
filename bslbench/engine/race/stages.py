"""How rungs are run: the first one as a study, the others with the best settings so far."""

from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import replace
from itertools import takewhile
from pathlib import Path
from statistics import fmean
from typing import Protocol

from bslbench.config import Cell
from bslbench.engine.pruning import past
from bslbench.engine.race.clock import OutOfTime
from bslbench.engine.race.cost import OVERHEAD
from bslbench.engine.race.heats import Heat, Means
from bslbench.engine.race.ladder import entered, study
from bslbench.engine.race.plan import MORE_FIRST, makespan
from bslbench.engine.race.record import Record
from bslbench.engine.running import Part, run_grid
from bslbench.engine.store import Store
from bslbench.engine.tuning.contenders import Contender
from bslbench.engine.tuning.ledger import Ledger, Trial
from bslbench.engine.tuning.search import Budget, search
from bslbench.errors import DataError

LEAST_ROUNDS = 2
"""Settings of each loss on the first rung that are tried whatever the time."""

MISSING = Part(only="missing")
"""What has just failed is not tried again."""


class Stage(Protocol):
    """A rung that can be run, in rounds: a setting of each contender.

    Attributes
    ----------
    least, most
        Rounds that are run whatever the time, and those that there are.
    """

    least: int
    most: int

    def tried(self, count: int, part: Part = MISSING) -> int:
        """Run so many rounds, if there is time, and return how many are whole."""

    def begun(self, number: int) -> bool:
        """Tell whether any run of a round has ended."""

    def heat(self, made: int, jobs: int) -> Heat:
        """Return what so many rounds have come to.

        Raises
        ------
        DataError
            If one of their runs is gone.
        """


class Tuned:
    """The first rung: all losses tuned on the smallest sample, at equal effort."""

    def __init__(self, record: Record, means: Means) -> None:
        self.means, self.rung = means, record.plan.rungs[0]
        self.study = study(record.race, 0, self.rung, record.plan.epochs, record.plan.references)
        self.contenders = _contenders(record, means, 0)
        self.ledger = Ledger(means.store.root / self.study.name)
        self.least = min(LEAST_ROUNDS, self.rung.rounds)
        alone = len(record.plan.rungs) == 1
        self.most = max(self.rung.rounds, MORE_FIRST[0]) if alone else self.rung.rounds

    def tried(self, count: int, part: Part = MISSING) -> int:
        """Run so many rounds, if there is time, and return how many are whole."""
        means, entered_ = self.means, list(self.contenders.values())
        self.ledger.open(self.study, entered_)
        budget = Budget(count, hopeless=None)
        with suppress(OutOfTime), means.watch_trials() as shown:
            search(self.study, entered_, budget, means.store, shown, means.execute, means.options)
        ended = self._ended()
        whole = (all(number in own for own in ended) for number in range(count))
        return sum(takewhile(bool, whole))

    def begun(self, number: int) -> bool:
        """Tell whether any trial of a round has ended."""
        return any(number in own for own in self._ended())

    def _ended(self) -> list[set[int]]:
        """Return the numbers of the trials that have ended, of each contender."""
        return [{trial.number for trial in self.ledger.trials(n)} for n in self.contenders]

    def heat(self, made: int, jobs: int) -> Heat:
        """Return what so many rounds have come to."""
        trials = {
            name: [trial for trial in self.ledger.trials(name) if trial.number < made]
            for name in self.contenders
        }
        if any(len(own) < made for own in trials.values()):
            raise _gone(self.ledger.folder)
        cells = [
            [self.contenders[name].trial(trial.params) for trial in own]
            for name, own in trials.items()
        ]
        seconds = _round_seconds(cells, self.means.store, jobs)
        return Heat(self.rung, self.contenders, trials, self.most - made, seconds)


class Promoted:
    """A later rung: the best settings so far; on the last one all, as far as there is time."""

    least = 1

    def __init__(self, record: Record, means: Means, before: Sequence[Heat]) -> None:
        self.means, number = means, len(before)
        self.name = f"{record.race.name}/rung-{number}"
        self.rung = record.plan.rungs[number]
        last = number == len(record.plan.rungs) - 1
        going = before[-1].losses()[: record.plan.entering if last else None]
        known = _contenders(record, means, number)
        self.contenders = {n: c for n, c in known.items() if n in going or not c.cell.train}
        planned = self.rung.rounds
        self.best = {
            name: promising(before, name)[: None if last else planned] for name in self.contenders
        }
        self.cells = {
            name: [self.contenders[name].trial(trial.params) for trial in own]
            for name, own in self.best.items()
        }
        counts = [len(own) for own in self.best.values() if own]
        # Beyond the plan all have as many.
        self.most = min(max(counts), max(min(counts), planned))

    def _round(self, number: int) -> list[Cell]:
        return [own[number] for own in self.cells.values() if number < len(own)]

    def tried(self, count: int, part: Part = MISSING) -> int:
        """Run so many rounds, if there is time, and return how many are whole."""
        means, count = self.means, min(count, self.most)
        titles = {
            cell.id: f"{name}, setting {trial.number} on {self.rung.share}"
            for name, own in self.best.items()
            for trial, cell in zip(own, self.cells[name], strict=True)
        }
        once = {cell.id: cell for number in range(count) for cell in self._round(number)}
        with suppress(OutOfTime), means.watch_runs(titles) as shown:
            run_grid(
                self.name,
                list(once.values()),
                means.store,
                shown,
                means.execute,
                options=means.options,
                part=part,
            )
        return sum(takewhile(bool, (all(self._ended(number)) for number in range(count))))

    def begun(self, number: int) -> bool:
        """Tell whether any run of a round has ended."""
        return any(self._ended(number))

    def _ended(self, number: int) -> list[bool]:
        return [_ended(cell, self.means.store) for cell in self._round(number)]

    def heat(self, made: int, jobs: int) -> Heat:
        """Return what so many rounds have come to."""
        store = self.means.store
        trials = {
            name: [
                _as_run(trial, cell, store)
                for trial, cell in zip(own, self.cells[name][:made], strict=False)
            ]
            for name, own in self.best.items()
        }
        seconds = _round_seconds([own[:made] for own in self.cells.values()], store, jobs)
        return Heat(self.rung, self.contenders, trials, self.most - made, seconds)


def run_seconds(cells: Iterable[Cell], store: Store) -> list[float]:
    """Return what runs have taken on the clock, those that are finished."""
    seconds = []
    for cell in cells:
        run = store.run(cell.id)
        if run.finished(cell):
            outcome = run.info()["outcome"]
            phases = ("load", "train", "eval", "test")
            seconds.append(OVERHEAD + sum(outcome[f"seconds_{phase}"] for phase in phases))
    return seconds


def _round_seconds(cells: Iterable[Sequence[Cell]], store: Store, jobs: int) -> float:
    """Return what a round takes on the clock, by the runs of each contender."""
    each = [fmean(seconds) for own in cells if (seconds := run_seconds(own, store))]
    return makespan(each, jobs)


def _contenders(record: Record, means: Means, number: int) -> dict[str, Contender]:
    rung = record.plan.rungs[number]
    asked = study(record.race, number, rung, record.plan.epochs, record.plan.references)
    return {contender.name: contender for contender in entered(asked, rung, means.options)}


def promising(heats: Sequence[Heat], name: str) -> list[Trial]:
    """Return the settings of a contender that came farthest, of these the best ones first.

    None if none was finished on the rung before; what failed on any does not go on either.
    """
    if not heats[-1].finished(name):
        return []
    failed = {t.number for heat in heats for t in heat.trials[name] if t.state == "failed"}
    order: dict[int, Trial] = {}
    for heat in reversed(heats):
        for trial in heat.best(name, None):
            order.setdefault(trial.number, trial)
    return [trial for number, trial in order.items() if number not in failed]


def _gone(folder: Path) -> DataError:
    return DataError(f"{folder} is gone or damaged, and the race rests on it; give another --name")


def _ended(cell: Cell, store: Store) -> bool:
    run = store.run(cell.id)
    return run.finished(cell) or bool(run.failure())


def _as_run(trial: Trial, cell: Cell, store: Store) -> Trial:
    """Return a trial of the first rung as what it came to on another."""
    run = store.run(cell.id)
    found = past(run, cell, {})
    if found is None:
        if not _ended(cell, store):  # not a failure: it had ended when the rung was decided
            raise _gone(run.folder)
        reason = run.failure().get("reason", "")
        return replace(trial, cell=cell.id, state="failed", curve={}, seconds=0.0, reason=reason)
    return replace(
        trial, cell=cell.id, state="complete", curve=found.curve, seconds=found.seconds, reason=""
    )
