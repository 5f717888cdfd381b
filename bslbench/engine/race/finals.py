"""The final runs of a race: fresh seeds of the best losses, beside the references."""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from statistics import fmean

from bslbench.config import Cell, Grid
from bslbench.engine.executors import run_grid
from bslbench.engine.grid import expand
from bslbench.engine.inputs import Options
from bslbench.engine.race.clock import OutOfTime
from bslbench.engine.race.heats import Heat, Means
from bslbench.engine.race.plan import LEAST_SEEDS
from bslbench.engine.race.record import SEEDS, Record
from bslbench.engine.race.stages import run_seconds
from bslbench.engine.store import Run
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
    round_seconds
        Of wall time for one more seed of all.
    """

    losses: Sequence[Final]
    references: Sequence[Final]
    failed: Mapping[str, str]
    round_seconds: float


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
    held = _references(record, last, means.options)
    least = min(LEAST_SEEDS, seeds)
    made = max(record.done.get(SEEDS, 0), least)
    failed = _run(record, _cells(bases, held, made), means)
    bases, held = ({n: c for n, c in group.items() if n not in failed} for group in (bases, held))
    if not bases:
        raise RunFailed(f"{record.race.name}: {'; '.join(failed.values())}")
    drawn = [cell.changed(seed=0) for cell in [*bases.values(), *held.values()] if draws(cell)]
    cost = sum(run_seconds(drawn, means.store)) / jobs
    end = record.plan.ends[-1] * means.budget

    def begun(seed: int) -> float:
        """Return the share of a seed's runs that are finished."""
        return len(run_seconds([c.changed(seed=seed) for c in drawn], means.store)) / len(drawn)

    made = max(made, _whole(bases, held, seeds, means))  # some may have been cut off here
    while made < seeds:
        more = int((end - means.execute.clock.spent()) / cost + begun(made))
        if more < 1:
            break
        cells = _cells(bases, held, min(seeds, made + more))
        with suppress(OutOfTime), means.execute.until(end):
            _run(record, cells, means)
        before, made = made, _whole(bases, held, seeds, means)
        if made == before:
            break
    record = means.folder.decide(record, SEEDS, made)
    means.store.write_grid(record.race.name, _cells(bases, held, made))
    found = {name: _final(name, cell, last, made, means) for name, cell in (bases | held).items()}
    losses = sorted((found[name] for name in bases), key=lambda final: -final.valid)
    return record, Finals(losses, [found[name] for name in held], failed, cost)


def draws(cell: Cell) -> bool:
    """Tell whether a run's seed plays a part in it."""
    return cell.train is not None or REFERENCES[cell.loss].drawn


def _references(record: Record, last: Heat, options: Options) -> dict[str, Cell]:
    """Return a run of each reference, with the best settings of those that were tuned."""
    rows = Grid(datasets=[last.rung.dataset], references=record.plan.references, presets=False)
    cells = {cell.loss: cell for cell in expand(rows, options.data, options.catalog)}
    eval_users = next(iter(last.entered.values())).cell.eval_users
    held = {}
    for name, cell in cells.items():
        best = last.best(name)
        if best:
            held[name] = last.entered[name].trial(best[0].params)
        elif name not in last.entered:
            held[name] = cell.changed(eval_users=eval_users)
    return held


def _cells(bases: Mapping[str, Cell], held: Mapping[str, Cell], seeds: int) -> list[Cell]:
    """Return the cells seed by seed."""
    return [
        cell.changed(seed=seed)
        for seed in range(seeds)
        for cell in [*bases.values(), *held.values()]
        if draws(cell) or not seed
    ]


def _run(record: Record, cells: Sequence[Cell], means: Means) -> dict[str, str]:
    """Run cells, and return which losses failed and why."""
    titles = {cell.id: f"{cell.loss}, seed {cell.seed}" for cell in cells}
    options = replace(means.options, save_model=True)
    with means.watch_runs(titles) as shown:
        outcome = run_grid(
            record.race.name, cells, means.store, shown, means.execute, options=options
        )
    return {cell.loss: outcome.failed[cell.id] for cell in cells if cell.id in outcome.failed}


def _whole(bases: Mapping[str, Cell], held: Mapping[str, Cell], seeds: int, means: Means) -> int:
    """Return how many seeds are finished for all."""
    cells = _cells(bases, held, seeds)
    lacking = (cell.seed for cell in cells if not means.store.run(cell.id).finished(cell))
    return min(lacking, default=seeds)


def _final(name: str, base: Cell, last: Heat, seeds: int, means: Means) -> Final:
    best = last.best(name)
    cells = [base.changed(seed=seed) for seed in range(seeds if draws(base) else 1)]
    runs = [means.store.run(cell.id) for cell in cells]
    return Final(name, best[0].params if best else {}, cells, runs)
