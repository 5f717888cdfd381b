"""What a run came to epoch by epoch: how good it was on the selection split, how scores spread."""

import csv
import math
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from statistics import fmean
from typing import Literal

from bslbench.report.best import Case, chosen, tuned_away
from bslbench.report.figures.chart import Chart, Nothing, Panel, Series
from bslbench.report.figures.words import losses_in_order, of_the_best, titles
from bslbench.report.levels import noise_text
from bslbench.report.results import Results, Run, whole

COLUMNS = {"Recall@20": "recall", "NDCG@20": "ndcg"}
"""What ``curve.csv`` calls the metrics that it has."""

Over = Literal["epochs", "seconds"]
Point = Mapping[str, float]
"""What ``curve.csv`` has of an evaluated epoch."""


def learning(results: Results, metric: str, over: Over) -> Chart:
    """Return the learning curves of a grid: the mean over seeds, each seed thin behind it.

    The mean goes as far as all seeds do; over seconds, so does their mean time at each epoch. Of a
    grid that varies noise the runs without any are shown.

    Raises
    ------
    Nothing
        If no run has a curve, or curves do not have the metric.
    """
    if metric not in COLUMNS:
        raise Nothing(f"learning curves are kept of {' and '.join(COLUMNS)}, not of {metric}")
    kept, without = _shown(results)
    panels = _panels(results, kept, over, lambda point: point[COLUMNS[metric]], best=True)
    if not panels:
        raise Nothing("no finished run has a learning curve")
    splits = " and ".join(sorted({run.selection for run in results.runs}))
    return Chart(
        over,
        "epoch" if over == "epochs" else "seconds of training",
        f"{metric} on {splits}",
        panels,
        kind="curves",
        caption=(
            f"Learning curves{without} over {over}: mean over seeds, each seed thin, the best of "
            f"the mean ringed{of_the_best(tuned_away(results, kept))}"
        ),
        order=losses_in_order(results),
    )


def variance(results: Results) -> Chart:
    """Return by epoch how far the scores of negatives spread: their variance over the squared gap.

    Raises
    ------
    Nothing
        If no run has kept it.
    """

    def spread(point: Point) -> float:
        return point["neg_var"] / point["gap"] ** 2 if point.get("gap") else math.nan

    kept, without = _shown(results)
    panels = _panels(results, kept, "epochs", spread, best=False)
    if not panels:
        raise Nothing("no finished run has the spread of its scores by epoch")
    return Chart(
        "variance",
        "epoch",
        "NegVar / Gap²",
        panels,
        kind="curves",
        caption=(
            f"Variance of the negatives' scores over the squared gap to the positives'{without}: "
            f"mean over seeds, each seed thin{of_the_best(tuned_away(results, kept))}"
        ),
        order=losses_in_order(results),
    )


def _shown(results: Results) -> tuple[dict[Case, list[Run]], str]:
    """Return the runs without noise, if there are any, and how a caption says so."""
    kept = chosen(results)
    clean = {case: runs for case, runs in kept.items() if not noise_text(dict(case.noise))}
    varies = len({case.noise for case in kept}) > 1
    return clean or kept, " without noise" if clean and varies else ""


def _panels(
    results: Results,
    kept: Mapping[Case, Sequence[Run]],
    over: Over,
    value: Callable[[Point], float],
    *,
    best: bool,
) -> tuple[Panel, ...]:
    """Return the curves of a value that every point of a curve has, by place; none without any."""
    names = titles(kept)
    panels: defaultdict[str, list[Series]] = defaultdict(list)
    for case, runs in kept.items():
        read = [_read(results, run, over, value) for run in runs]
        curves = [curve for curve in read if curve and not any(math.isnan(y) for _, y in curve)]
        if curves:
            panels[names[case]].append(_series(case.loss, curves, best=best))
    return tuple(Panel(title, tuple(series)) for title, series in panels.items())


def _read(
    results: Results, run: Run, over: Over, value: Callable[[Point], float]
) -> list[tuple[float, float]]:
    path = results.folder / "runs" / run.id / "curve.csv"
    if not path.is_file():
        return []
    with whole(path), path.open(newline="") as file:
        points = [{k: float(v) for k, v in row.items()} for row in csv.DictReader(file)]
        places = [p["epoch"] + 1 if over == "epochs" else p["seconds"] for p in points]
        return list(zip(places, map(value, points), strict=True))


def _series(loss: str, curves: Sequence[Sequence[tuple[float, float]]], *, best: bool) -> Series:
    shared = min(map(len, curves))
    x, y = ([fmean(curve[n][axis] for curve in curves) for n in range(shared)] for axis in (0, 1))
    each = [([x for x, _ in curve], [y for _, y in curve]) for curve in curves]
    return Series(
        loss,
        x,
        y,
        each=each if len(curves) > 1 else (),
        best=max(range(shared), key=y.__getitem__) if best else None,
    )
