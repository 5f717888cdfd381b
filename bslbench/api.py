"""The Python face of the engine: run a grid, read its results."""

from collections.abc import Mapping
from pathlib import Path

import pandas as pd
from rich.console import Console

from bslbench.catalog import DatasetSpec, load_catalog
from bslbench.config import Grid
from bslbench.engine.executors import executor_for
from bslbench.engine.grid import expand, find_grid
from bslbench.engine.inputs import Options
from bslbench.engine.running import run_grid
from bslbench.engine.store import Store
from bslbench.errors import ConfigError, RunFailed, suggest
from bslbench.progress import watcher


def run(
    grid: Grid | str | Path,
    *,
    results_dir: str | Path = "results",
    data: str | Path | None = None,
    catalog: Mapping[str, DatasetSpec] | None = None,
    save_model: bool = False,
    jobs: int | None = None,
    executor: str | None = None,
    ray_address: str | None = None,
) -> pd.DataFrame:
    """Train the cells of a grid that are not finished and return all its metrics.

    Parameters
    ----------
    grid
        A `Grid`, the name of one of ours, or the path of a TOML file.
    results_dir
        The store of runs; the same cells are the same runs, whichever way they were asked for.
    data
        The data folder; without it ``BSLBENCH_DATA``, else the user cache.
    jobs
        Cells at a time, a process each. A script that asks for it calls `run` under
        ``if __name__ == "__main__":``, since each process imports the script.
    executor, ray_address
        ``"ray"``, and the cluster if it is not to be started here.

    Returns
    -------
    pandas.DataFrame
        ``metrics.csv`` of the grid: one value a row.

    Raises
    ------
    ConfigError, DataError
        Before anything is trained.
    RunFailed
        After the rest is finished, naming the cells that failed.
    """
    asked = grid if isinstance(grid, Grid) else find_grid(str(grid))
    catalog = catalog or load_catalog()
    folder = Path(data) if data is not None else None
    cells = expand(asked, folder, catalog)
    execute = executor_for(executor, jobs=jobs, ray_address=ray_address)
    options = Options(folder, catalog, save_model)
    store = Store(Path(results_dir))
    store.check_free(asked.name)
    store.check_kept(asked.name)
    with watcher(Console(stderr=True)) as shown:
        outcome = run_grid(asked.name, cells, store, shown, execute, options=options)
    if outcome.failed:
        reasons = "; ".join(f"{cell}: {reason}" for cell, reason in outcome.failed.items())
        raise RunFailed(f"{len(outcome.failed)} of {len(cells)} cells failed: {reasons}")
    return results(asked.name, results_dir=results_dir)


def results(name: str, *, results_dir: str | Path = "results") -> pd.DataFrame:
    """Return the metrics of a grid that was trained before, one value a row.

    Raises
    ------
    ConfigError
        If there is no such grid in the store.
    """
    path = Path(results_dir) / name / "metrics.csv"
    if not path.exists():
        known = [folder.parent.name for folder in Path(results_dir).glob("*/metrics.csv")]
        raise ConfigError(f"no results of a grid '{name}' in {results_dir}{suggest(name, known)}")
    return pd.read_csv(path, keep_default_na=False, na_values={"value": ["", "nan"]})
