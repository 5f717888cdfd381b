"""The long table: a row for each dataset too, so that it can be sorted and filtered."""

from collections import defaultdict
from collections.abc import Iterator, Sequence
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
from bslbench.report.table import Column, Like, Table


def long_table(results: Path, grid: str, metrics: Sequence[str] | None = None) -> Table:
    """Return the main table's values with a row per dataset; rows compete within dataset and noise.

    Parameters and errors as of `bslbench.report.main_table.main_table`.
    """
    metrics = tuple(dict.fromkeys(metrics or PRIMARY))
    loaded = Results.load(results, grid)
    scores = loaded.scores(metrics)
    runs: defaultdict[tuple[str, Key], list[Run]] = defaultdict(list)
    for run in loaded.runs:
        runs[run.dataset, run.key].append(run)
    keys = in_order(key for _, key in runs)
    order = [
        (dataset, key) for dataset in loaded.datasets for key in keys if (dataset, key) in runs
    ]
    names = key_columns(keys)

    def row(dataset: str, key: Key, own: Sequence[Run]) -> Iterator[Like]:
        done = sum(run.id in loaded.finished for run in own)
        said = key._asdict() | {"loss": loss_entry(key)}
        yield from (dataset, *(said[column.name] for column in names))
        yield from (count([(done, len(own))]), done, len(own))
        yield ", ".join(dict.fromkeys(run.selection for run in own))
        for metric in metrics:
            found = {run.seed: (run.id, metric) for run in own}
            yield mean_entry({s: scores[name] for s, name in found.items() if name in scores})

    return Table.of(
        "long",
        [
            Column("dataset"),
            *names,
            Column("seeds", only="shown"),
            Column("seeds", spec="d", only="csv"),
            Column("asked", spec="d", only="csv"),
            Column("selection", only="csv"),
            *map(measured, metrics),
        ],
        [row(dataset, key, runs[dataset, key]) for dataset, key in order],
        title=grid,
        sections=True,
        within=("dataset", "noise"),
        stamp=loaded.stamp,
        says="test split",
        notes=["best and second among the rows of the same dataset and noise", *loss_notes(keys)],
        problems=problems(loaded),
        footer=footer(loaded),
    )
