"""The tables by name, and the main one: losses as rows, datasets x metrics as columns."""

import math
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from statistics import fmean, stdev

from bslbench.config import REFERENCE
from bslbench.evaluation.metrics import METRICS, parse_metric
from bslbench.report.provenance import footer, problems
from bslbench.report.results import Key, Results, Run
from bslbench.report.table import GAP, Column, Entry, Table

Builder = Callable[[Path, str, Sequence[str] | None], Table]
"""Makes a table from the results folder, a grid's name and the metrics asked for, if any."""

PRIMARY = ("Recall@20", "NDCG@20")
"""The metrics of a table that nobody asked for others."""


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
    keys = sorted(runs, key=lambda key: (key.backbone != REFERENCE, key.backbone))
    columns = list(_columns(loaded.datasets, metrics, any(key.settings for key in keys)))
    rows = [_row(key, runs[key], columns, scores, loaded.finished) for key in keys]
    return Table.of(
        "main",
        columns,
        rows,
        title=grid,
        sections=True,
        stamp=loaded.stamp,
        says="test split",
        problems=problems(loaded),
        footer=footer(loaded),
    )


TABLES: dict[str, Builder] = {"main": main_table}
"""By the name that ``bslbench report --table`` takes."""


def measured(metric: str, group: str = "") -> Column:
    """Return the column of a metric, which knows which way is better."""
    higher = METRICS[parse_metric(metric)[0]].higher_is_better
    return Column(metric, group, better="higher" if higher else "lower")


def mean_entry(values: Mapping[int, float]) -> Entry:
    """Return mean and sample deviation of the values by seed, a gap if there are none.

    Not a number, as a metric is where no user has anything to find, counts as no value.
    """
    each = {f"seed {seed}": v for seed, v in sorted(values.items()) if not math.isnan(v)}
    if not each:
        return Entry(text=GAP)
    numbers = list(each.values())
    return Entry(
        fmean(numbers), stdev(numbers) if len(numbers) > 1 else None, each=tuple(each.items())
    )


def _columns(
    datasets: Sequence[str], metrics: Sequence[str], with_settings: bool
) -> Iterator[Column]:
    yield Column("backbone")
    yield Column("loss")
    if with_settings:
        yield Column("settings")
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
    texts = {
        "backbone": key.backbone,
        "loss": key.loss,
        "settings": key.settings,
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


def count(seeds: Sequence[tuple[int, int]]) -> str:
    """Return how many are finished as ``3``, ``2/3`` if any lack; per dataset if they differ."""
    texts = [str(n) if n == asked else f"{n}/{asked}" for n, asked in seeds]
    return texts[0] if len(set(texts)) == 1 else ", ".join(texts)
