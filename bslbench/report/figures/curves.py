"""Learning curves: how good each loss is on the selection split after so much training."""

import csv
from collections import defaultdict
from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Literal

from bslbench.report.choose import Case, chosen, tuned_away
from bslbench.report.figures.chart import Chart, Nothing, Panel, Series
from bslbench.report.figures.words import losses_in_order, of_the_best, titles
from bslbench.report.levels import noise_text
from bslbench.report.results import Results, Run

COLUMNS = {"Recall@20": "recall", "NDCG@20": "ndcg"}
"""What ``curve.csv`` calls the metrics that it has."""


def learning(results: Results, metric: str, over: Literal["epochs", "seconds"]) -> Chart:
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
    kept = chosen(results)
    noises = {case.noise for case in kept}
    clean = {case: runs for case, runs in kept.items() if not noise_text(dict(case.noise))}
    kept = clean or kept
    names = titles(kept)
    panels: defaultdict[str, list[Series]] = defaultdict(list)
    for case, runs in kept.items():
        curves = [curve for run in runs if (curve := _read(results, run))]
        if curves:
            panels[names[case]].append(_series(case, curves, COLUMNS[metric], over))
    if not panels:
        raise Nothing("no finished run has a learning curve")
    without = " without noise" if clean and len(noises) > 1 else ""
    splits = " and ".join(sorted({run.selection for run in results.runs}))
    return Chart(
        over,
        "epoch" if over == "epochs" else "seconds of training",
        f"{metric} on {splits}",
        tuple(Panel(title, tuple(series)) for title, series in panels.items()),
        kind="curves",
        caption=(
            f"Learning curves{without} over {over}: mean over seeds, each seed thin, the best of "
            f"the mean ringed{of_the_best(tuned_away(results, kept))}"
        ),
        order=losses_in_order(results),
    )


def _read(results: Results, run: Run) -> list[Mapping[str, float]]:
    path = results.folder / "runs" / run.id / "curve.csv"
    if not path.is_file():
        return []
    with path.open(newline="") as file:
        return [{k: float(v) for k, v in row.items()} for row in csv.DictReader(file)]


def _series(
    case: Case, curves: Sequence[Sequence[Mapping[str, float]]], column: str, over: str
) -> Series:
    shared = min(map(len, curves))

    def place(point: Mapping[str, float]) -> float:
        return point["epoch"] + 1 if over == "epochs" else point["seconds"]

    x = [fmean(place(curve[n]) for curve in curves) for n in range(shared)]
    y = [fmean(curve[n][column] for curve in curves) for n in range(shared)]
    each = [([place(p) for p in curve], [p[column] for p in curve]) for curve in curves]
    return Series(
        case.loss,
        x,
        y,
        each=each if len(curves) > 1 else (),
        best=max(range(shared), key=y.__getitem__),
    )
