"""Who is recommended: how much the unpopular half of the catalogue brings, by loss."""

from collections.abc import Sequence
from pathlib import Path

from bslbench.errors import ConfigError
from bslbench.evaluation.groups import N_GROUPS, TAIL
from bslbench.report.claims.common import CASE, Loaded, n_seeds, names, over_seeds, overall
from bslbench.report.table import Better, Column, Like, Table

GROUPS = [str(group) for group in range(1, N_GROUPS + 1)]


def fairness_table(folder: Path, grid: str, metrics: Sequence[str] | None = None) -> Table:
    """Return a metric, the share of it that the tail brings, and how even the lists are.

    Parameters
    ----------
    folder, grid, metrics
        As in `bslbench.report.tables.main_table`; of the metrics the first, which must be one that
        groups have shares of: Recall@20 or NDCG@20.

    Raises
    ------
    ConfigError
        If no run has the metric by group of items.
    """
    loaded = Loaded(folder, grid)
    metric = loaded.metric(metrics)
    values = loaded.values(metric)
    total = overall(values)
    tail = {
        run_id: sum(values[run_id, group] for group in GROUPS[:TAIL]) / value
        for run_id, value in total.items()
        if value and all((run_id, group) in values for group in GROUPS)
    }
    if not tail:
        raise ConfigError(f"no run of grid '{grid}' has {metric} by group of items")
    spread = {name: overall(loaded.values(f"{name}@20")) for name in SPREAD}
    columns = [
        *CASE,
        Column("seeds"),
        Column(metric, better="higher"),
        Column(f"groups 1-{TAIL}", spec=".1%", better="higher"),
        *(Column(name, spec=spec, better=better) for name, (spec, better) in SPREAD.items()),
        *(Column(group, f"{metric} of group", only="csv") for group in GROUPS),
    ]
    rows: list[list[Like]] = []
    for case, runs in loaded.cases():
        row = [*names(case), n_seeds(runs), over_seeds(runs, total)]
        row += [over_seeds(runs, tail)]
        row += [over_seeds(runs, spread[name]) for name in SPREAD]
        for group in GROUPS:
            own = {run_id: value for (run_id, g), value in values.items() if g == group}
            row.append(over_seeds(runs, own))
        rows.append(row)
    return loaded.table(
        "fairness",
        columns,
        rows,
        title=f"{metric} by popularity of the items",
        notes=[
            f"groups 1-{TAIL}: share of {metric} that the less popular items bring which together "
            "have half of the train pairs",
            "Gini of how often items stand in lists of 20; ARP: mean train pairs of the listed "
            "items; Coverage: share of the items listed; TailShare: share of the places that "
            f"groups 1-{TAIL} have",
        ],
    )


SPREAD: dict[str, tuple[str, Better]] = {
    "Gini": (".4f", "lower"),
    "ARP": (".1f", "lower"),
    "Coverage": (".1%", "higher"),
    "TailShare": (".1%", "higher"),
}
"""Metrics of the lists: how they are written, and which way is more even."""
