"""A study from its first trial to its tables, as `tune` and `compare` carry it out."""

from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from bslbench.config import Cell, Grid
from bslbench.engine.grid import expand
from bslbench.engine.inputs import Options
from bslbench.engine.jobs import Executor
from bslbench.engine.running import run_grid
from bslbench.engine.store import Store
from bslbench.engine.tuning.contenders import Contender
from bslbench.engine.tuning.ledger import Ledger
from bslbench.engine.tuning.outcome import write_outcome
from bslbench.engine.tuning.search import Budget, check_budget, search
from bslbench.engine.tuning.study import Study
from bslbench.errors import RunFailed
from bslbench.files import locked, write_atomically
from bslbench.progress import StudyWatcher, watcher
from bslbench.report.figures.catalogue import chart
from bslbench.report.figures.draw import save
from bslbench.report.render import render
from bslbench.report.results import Results
from bslbench.report.table import Table
from bslbench.report.tuning import tuning_table


def carry_out(
    study: Study,
    entered: list[Contender],
    budget: Budget,
    final: Grid,
    store: Store,
    execute: Executor,
    options: Options,
    console: Console,
) -> list[Cell]:
    """Make a study's trials, write what they came to, and run the best with fresh seeds.

    Returns
    -------
    list of Cell
        The final runs, all of them finished.

    Raises
    ------
    ConfigError
        If the folder has another study, or tables without their runs, or the budget does not
        allow one round.
    RunFailed
        If all trials of a loss fail, or a final run does.
    Interrupted
        After SIGINT or SIGTERM: all that was made is kept.
    """
    store.check_kept(study.name)
    ledger = Ledger(store.root / study.name)
    if not ledger.begun:
        check_budget(budget)
    ledger.open(study, entered)
    with watcher(console, "trials") as shown:
        trials = search(study, entered, budget, store, StudyWatcher(shown), execute, options)
    write_outcome(study, entered, trials, ledger.folder)
    cells = expand(final, options.data, options.catalog)
    _check_tuned(cells, entered, study)
    with watcher(console, "final runs") as shown:
        outcome = run_grid(study.name, cells, store, shown, execute, options=options)
    if outcome.failed:
        reasons = "; ".join(f"{cell}: {reason}" for cell, reason in outcome.failed.items())
        raise RunFailed(f"{len(outcome.failed)} of {len(cells)} final runs failed: {reasons}")
    return cells


def _check_tuned(cells: Sequence[Cell], entered: Sequence[Contender], study: Study) -> None:
    """Raise a `RunFailed` if another call has put other losses' settings in the place of these."""
    source = f"tuned ({study.name}, "
    for contender in entered:
        own = (cell for cell in cells if cell.loss == contender.name)
        if not all(any(source in text for text in cell.origin.values()) for cell in own):
            raise RunFailed(
                f"{contender.name}: another call has written what study '{study.name}' came to; "
                "call again"
            )


def show(results: Path, name: str, folder: Path) -> Table:
    """Write a study's table and its figures, expected best of n, into a folder; return the table.

    Parameters
    ----------
    results, name
        Where the results lie, and the study's name there.
    """
    table = tuning_table(results, name)
    loaded = Results.load(results, name)
    with locked(folder):
        write_atomically(folder / "table.md", render(table, "markdown"))
        for over in ("trials", "seconds"):
            save(chart(loaded, f"best-of-{over}"), folder / f"best-of-{over}.svg")
    return table
