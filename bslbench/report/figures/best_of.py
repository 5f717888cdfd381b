"""Expected best of n trials of tuning, over their number and over the time they take."""

from collections.abc import Sequence
from statistics import fmean
from typing import Literal

import pandas as pd

from bslbench.report.figures.chart import Chart, Nothing, Panel, Series
from bslbench.report.results import Results


def expected_best(values: Sequence[float]) -> list[float]:
    """Return the expected best of n values drawn from `values` with replacement, for n = 1 to all.

    The sum over the sorted values v_i of v_i ((i / N)^n - ((i - 1) / N)^n).

    Source: Dodge et al., Show Your Work, EMNLP 2019, Eq. 7.

    Examples
    --------
    >>> expected_best([1.0, 2.0])
    [1.5, 1.75]
    """
    ordered, count = sorted(values), len(values)
    return [
        sum(v * ((i / count) ** n - ((i - 1) / count) ** n) for i, v in enumerate(ordered, 1))
        for n in range(1, count + 1)
    ]


def best_of(results: Results, metric: str, over: Literal["trials", "seconds"]) -> Chart:
    """Return the expected best on valid of the tuning trials in the grid's folder.

    A trial that was given up early counts with its best until then, one that failed as the worst.

    Raises
    ------
    Nothing
        If the folder has no ``trials.csv``, or the metric is not what trials were scored by.
    """
    path = results.folder / results.grid / "trials.csv"
    if metric != results.primary:
        raise Nothing(f"trials are scored by {results.primary}, not by {metric}")
    if not path.is_file():
        raise Nothing(f"no {path}: tuning makes it")
    frame = pd.read_csv(path)
    series = []
    for loss, trials in frame.groupby("loss", sort=False):
        scored = trials["score"].fillna(trials["score"].min())
        if scored.isna().any():
            continue  # none was ever evaluated
        y = expected_best([float(score) for score in scored])
        step = 1.0 if over == "trials" else fmean(float(s) for s in trials["seconds"])
        series.append(Series(str(loss), [step * n for n in range(1, len(y) + 1)], y))
    if not series:
        raise Nothing(f"no trial in {path} has a score")
    return Chart(
        f"best-of-{over}",
        "trials" if over == "trials" else "seconds of tuning, trials times their mean",
        f"expected best {metric}",
        (Panel("", tuple(series)),),
        kind="curves",
        caption=f"Expected best {metric} on valid of n trials, over {over} (Dodge et al., 2019).",
    )
