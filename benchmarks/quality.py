"""``python -m benchmarks.quality FOLDER``: Recall@20 over seconds, of recipes and of ALS.

Trains MF with the softmax loss by each recipe, its epochs followed on test as the published run's
are, and runs the ALS of the `implicit` library beside it. Prints the seconds to some levels and
draws the curves into FOLDER/quality.svg; a recipe that has ended in FOLDER is not trained again.
"""

import argparse
import csv
import subprocess
from collections.abc import Sequence
from itertools import accumulate
from pathlib import Path
from time import perf_counter

import bslbench  # noqa: F401  before torch: it sets how OpenMP threads wait

# isort: split
import numpy as np
import torch
from scipy.sparse import csr_matrix
from tabulate import tabulate
from threadpoolctl import threadpool_limits

from benchmarks import PROGRAM
from bslbench.data.load import load
from bslbench.data.splits import hold_out
from bslbench.evaluation.metrics import per_user
from bslbench.evaluation.ranking import EmbeddingScorer, rank_all
from bslbench.report.figures.chart import Chart, Panel, Series
from bslbench.report.figures.draw import save
from bslbench.warmstart import ALPHA, REGULARIZATION

LEVELS = (0.0600, 0.0650, 0.0700, 0.0710, 0.0718, 0.0721)
"""The last is the best of the published run's 228 epochs, as seen on test."""

Curve = list[tuple[float, float]]
"""Seconds of training and Recall@20 on test."""


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.quality", description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--recipe", action="append", help="default: fast")
    parser.add_argument("--dataset", default="yelp2018")
    parser.add_argument("--tau", default="0.11", help="the published temperature of Yelp2018")
    parser.add_argument("--factors", type=int, nargs="*", default=[64, 128], help="of ALS")
    options = parser.parse_args(arguments)
    curves = {f"ALS, d = {dim}": als(options.dataset, dim) for dim in options.factors}
    for name in options.recipe or ["fast"]:
        label, curve = recipe(options.folder, name, options.dataset, options.tau)
        curves[label] = curve
    rows = [[name, *map(shown, reached(curve)), *ending(curve)] for name, curve in curves.items()]
    heads = [f"s to {level:.4f}" for level in LEVELS]
    print(tabulate(rows, ["", *heads, "best", "at s"], disable_numparse=True))
    print(f"threads {torch.get_num_threads()}; seconds of training, evaluation not counted")
    lines = [Series(name, *zip(*curve, strict=True)) for name, curve in curves.items()]
    panels = [Panel(f"mf on {options.dataset}", lines)]
    chart = Chart("quality", "seconds", "Recall@20 on test", panels, "curves", "log")
    save(chart, options.folder / "quality.svg")


def recipe(folder: Path, name: str, dataset: str, tau: str) -> tuple[str, Curve]:
    """Train by a recipe, unless that is done, and return its name and size, and its curve."""
    call = [*PROGRAM, "train", "--dataset", dataset, "--loss", "sl", "--presets", name]
    call += ["--set", f"tau={tau}", "--set", "eval_every=1", "--selection", "test", "--name", name]
    subprocess.run([*call, "--results", str(folder)], check=True)
    with (folder / name / "runs.csv").open(newline="") as file:
        [run] = csv.DictReader(file)
    with (folder / "runs" / run["run_id"] / "curve.csv").open(newline="") as file:
        curve = [(float(row["seconds"]), float(row["recall"])) for row in csv.DictReader(file)]
    return f"{name}, d = {run['dim']}", curve


def als(dataset: str, dim: int, sweeps: int = 15) -> Curve:
    """Return the curve of ALS, a point for each sweep over users and items."""
    from implicit.cpu.als import AlternatingLeastSquares

    data = hold_out(load(dataset), "test")
    train = csr_matrix(data.train.astype(np.float32))
    model = AlternatingLeastSquares(
        factors=dim,
        alpha=ALPHA,
        regularization=REGULARIZATION,
        iterations=1,
        num_threads=torch.get_num_threads(),
        random_state=0,
    )
    seconds, recalls = [], []
    for _ in range(sweeps):
        started = perf_counter()
        with threadpool_limits(1, "blas"):
            model.fit(train, show_progress=False)  # goes on from the factors that it has
        seconds.append(perf_counter() - started)
        tables = torch.from_numpy(model.user_factors), torch.from_numpy(model.item_factors)
        ranks = rank_all(EmbeddingScorer(*tables, "inner"), data, "test")
        recalls.append(float(per_user(ranks, "Recall", 20).mean()))
    return list(zip(accumulate(seconds), recalls, strict=True))


def reached(curve: Curve) -> Sequence[float | None]:
    """Return the seconds after which each of `LEVELS` is reached, None where it is not."""
    return [
        next((seconds for seconds, recall in curve if recall >= level), None) for level in LEVELS
    ]


def shown(seconds: float | None) -> str:
    return "" if seconds is None else f"{seconds:.0f}"


def ending(curve: Curve) -> tuple[str, str]:
    """Return the best value and when it was reached."""
    seconds, best = max(curve, key=lambda point: point[1])
    return f"{best:.5f}", shown(seconds)


if __name__ == "__main__":
    main()
