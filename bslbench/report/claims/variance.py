"""What losses do to the scores: how far positives lie above negatives, and how these spread."""

from collections.abc import Sequence
from pathlib import Path

from bslbench.config import UNTRAINED
from bslbench.errors import ConfigError
from bslbench.evaluation.spread import METRICS
from bslbench.report.claims.common import CASE, Loaded, n_seeds, names, over_seeds, overall
from bslbench.report.table import Column, Like, Table


def variance_table(folder: Path, grid: str, metrics: Sequence[str] | None = None) -> Table:
    """Return means and variances of scores of the final models, and of the gradient's weights.

    Parameters
    ----------
    folder, grid
        As in `bslbench.report.tables.main_table`.
    metrics
        Must be None: this table has its own.

    Raises
    ------
    ConfigError
        If metrics are asked for, or no run has any of this.
    """
    if metrics:
        raise ConfigError("the table 'variance' has its own metrics: leave out --metric")
    loaded = Loaded(folder, grid)
    found = {name: overall(loaded.values(f"{name}@0", "train")) for name in METRICS.values()}
    if not found["Gap"]:
        raise ConfigError(f"no run of grid '{grid}' has the spread of its scores")
    ratio = {
        run_id: variance / found["Gap"][run_id] ** 2
        for run_id, variance in found["NegVar"].items()
        if found["Gap"].get(run_id)
    }
    columns = [
        *CASE,
        Column("seeds"),
        *(Column(name, spec=".4g") for name in METRICS.values()),
        Column("NegVar/Gap²", spec=".4f", better="lower"),
    ]
    rows: list[list[Like]] = [
        [
            *names(case),
            n_seeds(runs),
            *(over_seeds(runs, found[name]) for name in METRICS.values()),
            over_seeds(runs, ratio),
        ]
        for case, runs in loaded.cases()
        if case.backbone not in UNTRAINED
    ]
    return loaded.table(
        "variance",
        columns,
        rows,
        title="spread of the scores in training",
        says="1,000 train pairs and 800 uniform negatives, as the loss sees their scores",
        notes=[
            "NegVar: over the negatives of one user; Gap: PosMean - NegMean; NegVar/Gap² does not "
            "depend on the scale of the scores",
            "WeightVar, WeightESS: variance, and effective sample size as a share, of the "
            "gradient's weights on the negatives of one pair, scaled to mean 1",
        ],
    )
