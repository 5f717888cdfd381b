"""The final runs of a race: fresh seeds of the best losses, beside the references."""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from statistics import fmean

from bslbench.config import Cell
from bslbench.engine.grid import expand
from bslbench.engine.inputs import Options
from bslbench.engine.race.clock import OutOfTime
from bslbench.engine.race.heats import Heat, Means
from bslbench.engine.race.ladder import study
from bslbench.engine.race.plan import LEAST_SEEDS, makespan
from bslbench.engine.race.record import SEEDS, Record
from bslbench.engine.race.stages import run_seconds
from bslbench.engine.running import run_grid
from bslbench.engine.store import Run, Store
from bslbench.engine.tuning.space import Params
from bslbench.errors import RunFailed
from bslbench.references import REFERENCES


@dataclass(frozen=True)
class Final:
    """A loss or reference with the settings it has come to.

    Attributes
    ----------
    name
        As the results have it.
    params
        What was tuned, of those that have something to tune.
    cells, runs
        One for each seed; a reference that draws nothing has the first one alone.
    """

    name: str
    params: Params
    cells: Sequence[Cell]
    runs: Sequence[Run]

    @property
    def valid(self) -> float:
        """Mean Recall@20 on valid: what it is picked by."""
        return fmean(run.selected(cell) for run, cell in zip(self.runs, self.cells, strict=True))


@dataclass(frozen=True)
class Finals:
    """What the final runs came to.

    Attributes
    ----------
    losses
        The best on valid first.
    references
        The rows it is held against.
    failed
        Losses and references that could not be finished, and why.
    seconds
        That a seed takes, of each that draws.
    jobs
        Runs at a time.
    """

    losses: Sequence[Final]
    references: Sequence[Final]
    failed: Mapping[str, str]
    seconds: list[float]
    jobs: int

    def time(self, count: int) -> float:
        """Return the seconds that so many seeds of all take on the clock."""
        return makespan(self.seconds * count, self.jobs)


def run_finals(
    record: Record, last: Heat, means: Means, seeds: int, jobs: int
) -> tuple[Record, Finals]:
    """Run at least `LEAST_SEEDS` seeds, and up to `seeds` as long as there is time.

    Raises
    ------
    RunFailed
        If none of the losses could be finished.
    Interrupted
        After SIGINT or SIGTERM.
    """
    names = last.losses()[: record.plan.finalists]
    bases = {name: last.entered[name].trial(last.best(name)[0].params) for name in names}
    cells = bases | _references(record, last, means.options)
    failed: dict[str, str] = {}
    done = record.done.get(SEEDS, 0)

    def run(count: int) -> int:
        """Run so many seeds, drop what fails or has failed, and return how many are whole."""
        with suppress(OutOfTime):
            _run(record, _cells(cells, count), means)
        for name, reason in _failures(cells, max(count, done), means.store).items():
            failed[name] = reason
            del cells[name]
        if not bases.keys() & cells.keys():
            raise RunFailed(f"{record.race.name}: {'; '.join(failed.values())}")
        return _whole(cells, seeds, means.store)

    least = min(LEAST_SEEDS, seeds)
    run(least)
    made = run(max(least, done))
    end = record.plan.ends[-1] * means.budget
    while made < seeds:
        each, left = _seconds(cells, made, means.store), end - means.execute.clock.spent()
        fitting = (n for n in range(seeds - made, 0, -1) if makespan(each * n, jobs) <= left)
        more = next(fitting, int(_begun(cells, made, means.store)))  # cut off, a seed goes on
        if not more:
            break
        with means.execute.until(end):
            before, made = made, run(made + more)
        if made == before:
            break
    record = means.folder.decide(record, SEEDS, made)
    means.store.write_grid(record.race.name, _cells(cells, made))
    found = {name: _final(name, cell, last, made, means) for name, cell in cells.items()}
    losses = sorted((found[n] for n in cells if n in bases), key=lambda final: -final.valid)
    references = [found[name] for name in cells if name not in bases]
    return record, Finals(losses, references, failed, _seconds(cells, made, means.store), jobs)


def draws(cell: Cell) -> bool:
    """Tell whether a run's seed plays a part in it."""
    return cell.train is not None or REFERENCES[cell.loss].drawn


def _references(record: Record, last: Heat, options: Options) -> dict[str, Cell]:
    """Return a run of each reference, with the best settings of those that were tuned."""
    plan = record.plan
    asked = study(record.race, len(plan.rungs) - 1, last.rung, plan.epochs, plan.references)
    eval_users = next(iter(last.entered.values())).cell.eval_users
    held = {}
    for cell in expand(asked.grid(), options.data, options.catalog):
        best = last.best(cell.loss)
        if cell.train is None and best:
            held[cell.loss] = last.entered[cell.loss].trial(best[0].params)
        elif cell.train is None and cell.loss not in last.entered:
            held[cell.loss] = cell.changed(eval_users=eval_users)
    return held


def _cells(bases: Mapping[str, Cell], seeds: int) -> list[Cell]:
    """Return the cells seed by seed."""
    return [
        cell.changed(seed=seed)
        for seed in range(seeds)
        for cell in bases.values()
        if draws(cell) or not seed
    ]


def _run(record: Record, cells: Sequence[Cell], means: Means) -> None:
    titles = {cell.id: f"{cell.loss}, seed {cell.seed}" for cell in cells}
    options = replace(means.options, save_model=True)
    with means.watch_runs(titles) as shown:
        run_grid(record.race.name, cells, means.store, shown, means.execute, options=options)


def _failures(bases: Mapping[str, Cell], seeds: int, store: Store) -> dict[str, str]:
    """Return which losses and references have a seed that failed, and why."""
    failed = {}
    for name, base in bases.items():
        for cell in _cells({name: base}, seeds):
            run = store.run(cell.id)
            if not run.finished(cell) and (failure := run.failure()):
                failed[name] = failure.get("reason", "")
    return failed


def _whole(bases: Mapping[str, Cell], seeds: int, store: Store) -> int:
    """Return how many seeds are finished for all."""
    cells = _cells(bases, seeds)
    lacking = (cell.seed for cell in cells if not store.run(cell.id).finished(cell))
    return min(lacking, default=seeds)


def _begun(bases: Mapping[str, Cell], seed: int, store: Store) -> bool:
    """Tell whether any run of a seed is finished."""
    drawn = (cell.changed(seed=seed) for cell in bases.values() if draws(cell))
    return any(store.run(cell.id).finished(cell) for cell in drawn)


def _seconds(bases: Mapping[str, Cell], seeds: int, store: Store) -> list[float]:
    """Return the seconds that a run takes, of each that draws."""
    drawn = (_cells({name: base}, seeds) for name, base in bases.items() if draws(base))
    return [fmean(run_seconds(cells, store)) for cells in drawn]


def _final(name: str, base: Cell, last: Heat, seeds: int, means: Means) -> Final:
    best = last.best(name)
    cells = _cells({name: base}, seeds)
    runs = [means.store.run(cell.id) for cell in cells]
    return Final(name, best[0].params if best else {}, cells, runs)
