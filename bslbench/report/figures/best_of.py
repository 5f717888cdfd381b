"""Expected best of n trials of tuning, over their number and over the time they take."""

from collections.abc import Sequence
from math import comb
from statistics import fmean
from typing import Literal

import pandas as pd

from bslbench.report.figures.chart import Chart, Nothing, Panel, Series
from bslbench.report.results import Results, whole


def expected_best(values: Sequence[float]) -> list[float]:
    """Return the expected best of n of the `values`, drawn without replacement, for n = 1 to all.

    Of N values the i-th smallest is the best of n in C(i - 1, n - 1) of C(N, n) draws. Drawing with
    replacement (Dodge et al., Show Your Work, EMNLP 2019) is biased downward: Tang et al., Showing
    Your Work Doesn't Always Work, ACL 2020.

    Examples
    --------
    >>> expected_best([1.0, 2.0, 4.0])
    [2.3333333333333335, 3.3333333333333335, 4.0]
    """
    ordered, count = sorted(values), len(values)
    return [
        sum(v * comb(i, n - 1) for i, v in enumerate(ordered)) / comb(count, n)
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
    series = []
    with whole(path):
        for loss, trials in pd.read_csv(path).groupby("loss", sort=False):
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
        caption=f"Expected best {metric} on valid of n trials drawn without replacement.",
    )
