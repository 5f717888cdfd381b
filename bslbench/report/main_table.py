"""The main table: losses as rows, datasets x metrics as columns."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from bslbench.report.parts import (
    count,
    in_order,
    key_columns,
    loss_entry,
    loss_notes,
    mean_entry,
    measured,
)
from bslbench.report.provenance import footer, problems
from bslbench.report.results import PRIMARY, Key, Results, Run
from bslbench.report.table import Column, Entry, Table


def main_table(results: Path, grid: str, metrics: Sequence[str] | None = None) -> Table:
    """Return the main table of a grid, from what the store holds of it.

    Parameters
    ----------
    results
        The results folder.
    grid
        Name of a grid in it.
    metrics
        Which metrics to show, as ``NAME@K``; by default Recall@20 and NDCG@20.

    Raises
    ------
    ConfigError
        If there is no such grid or metric.
    DataError
        If values of one row and column differ in more than the seed, or stand twice.
    """
    metrics = tuple(dict.fromkeys(metrics or PRIMARY))
    loaded = Results.load(results, grid)
    scores = loaded.scores(metrics)
    runs: defaultdict[Key, list[Run]] = defaultdict(list)
    for run in loaded.runs:
        runs[run.key].append(run)
    keys = in_order(runs)
    columns = list(_columns(loaded.datasets, metrics, keys))
    rows = [_row(key, runs[key], columns, scores, loaded.finished) for key in keys]
    return Table.of(
        "main",
        columns,
        rows,
        title=grid,
        sections=True,
        within=("noise",),
        stamp=loaded.stamp,
        says="test split",
        problems=problems(loaded),
        notes=loss_notes(keys),
        footer=footer(loaded),
    )


def _columns(
    datasets: Sequence[str], metrics: Sequence[str], keys: Iterable[Key]
) -> Iterator[Column]:
    yield from key_columns(keys)
    yield Column("seeds", only="shown")
    yield Column("selection", only="csv")
    for dataset in datasets:
        yield Column("seeds", dataset, "d", only="csv")
        yield Column("asked", dataset, "d", only="csv")
        for metric in metrics:
            yield measured(metric, dataset)


def _row(
    key: Key,
    runs: Sequence[Run],
    columns: Sequence[Column],
    scores: Mapping[tuple[str, str], float],
    finished: frozenset[str],
) -> Iterator[Entry | str | float]:
    """Yield what the row of a key has in each column."""
    by_dataset: defaultdict[str, list[Run]] = defaultdict(list)
    for run in runs:
        by_dataset[run.dataset].append(run)
    asked = {dataset: len(own) for dataset, own in by_dataset.items()}
    done = {d: sum(run.id in finished for run in own) for d, own in by_dataset.items()}
    texts: dict[str, Entry | str] = {
        **key._asdict(),
        "loss": loss_entry(key),
        "seeds": count([(done[dataset], n) for dataset, n in asked.items()]),
        "selection": ", ".join(dict.fromkeys(run.selection for run in runs)),
    }
    for column in columns:
        own = by_dataset.get(column.group, [])
        if not column.group:
            yield texts[column.name]
        elif column.name in ("seeds", "asked"):
            yield (done if column.name == "seeds" else asked).get(column.group, 0)
        elif not own:
            yield ""  # never asked for
        else:
            names = ((run.seed, (run.id, column.name)) for run in own)
            yield mean_entry({seed: scores[name] for seed, name in names if name in scores})
