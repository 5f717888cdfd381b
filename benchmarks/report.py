"""How long `bslbench report` takes on a store of many runs.

``python -m benchmarks.report --runs 1000`` fabricates runs that no training made, but whose files
have the size and form of real ones, asks for the table of their grid, and prints the seconds: the
first call, which also compares all rows over seeds and users, and later calls, which find these
comparisons in ``significance.csv``.
"""

import argparse
import json
import os
import subprocess
import tempfile
from itertools import islice, product
from pathlib import Path
from statistics import median
from time import perf_counter

import numpy as np
from tabulate import tabulate

from benchmarks import PROGRAM
from bslbench.config import Cell, TrainSettings
from bslbench.engine.grid_files import TRAILING, csv_text
from bslbench.engine.machine import environment
from bslbench.engine.store import Store, sha256
from bslbench.evaluation.metrics import summary
from bslbench.evaluation.ranks import DEPTH, Ranks
from bslbench.seeding import key_of

SEEDS = 5
ITEMS = 5
"""Test items of each user."""

QUALITY = {"mse": 0.45, "bce": 0.52, "bpr": 0.55, "sl": 0.71, "bsl": 0.72}
PARAMS = {"mse": {"w": 1.0}, "bce": {"w": 1.0}, "sl": {"tau": 0.1}}
PARAMS["bsl"] = {"tau": 0.1, "tau_pos": 0.1, "rho": 1.0, "n_pos": 16}
CALLS = {
    "table": [],
    "latex": ["--format", "latex", "--baseline", "bpr lr=0.001"],
    "page": ["--html", "page.html"],
}


def cells(count: int) -> list[Cell]:
    """Return so many cells of a grid: datasets x backbones x losses x rates x seeds."""
    rates = [10.0**-exponent for exponent in np.linspace(1, 4, 1 + count // (20 * SEEDS))]
    axes = product(("first", "second"), ("mf", "lightgcn"), QUALITY, [1e-3, *rates], range(SEEDS))
    return [
        Cell(
            dataset=dataset,
            fingerprint=f"{key_of(0, dataset):064x}",
            backbone=backbone,
            loss=loss,
            seed=seed,
            selection="valid",
            train=TrainSettings(lr=lr, n_negatives=1 if loss == "bpr" else 800),
            loss_params=PARAMS.get(loss, {}),
        )
        for dataset, backbone, loss, lr, seed in islice(axes, count)
    ]


def fabricate(store: Store, made: list[Cell], n_users: int, epochs: int = 100) -> None:
    """Write the files that runs of these cells would have left, and the grid's."""
    for cell in made:
        rng = np.random.default_rng(key_of(cell.seed, cell.id))
        quality = QUALITY[cell.loss] * (1 + 0.01 * rng.standard_normal())
        run = store.run(cell.id)
        run.folder.mkdir(parents=True)
        found = ranks(rng, n_users, quality)
        found.save(run.file("ranks.npz"))
        values = summary(found)
        rows = [
            {"split": split, "metric": metric, "k": k, "group": "", "value": value}
            for split in ("valid", "test")
            for metric, k, value in values
        ]
        rows += [
            {"split": "test", "metric": metric, "k": 20, "group": group, "value": value / 10}
            for metric, k, value in values
            for group in range(1, 11)
            if k == 20 and metric in ("Recall", "NDCG")
        ]
        points = [
            {"epoch": e, "loss": 1.0, "recall": e / 1e4, "ndcg": e / 1e4, "seconds": float(e)}
            for e in range(epochs)
        ]
        text = csv_text(TRAILING, rows)
        info = {"canonical": json.loads(cell.canonical()), "origin": {}, "outcome": environment()}
        info["metrics_sha256"] = sha256(text.encode())
        run.file("curve.csv").write_text(csv_text(list(points[0]), points))
        run.file("run.json").write_text(json.dumps(info))
        run.file("metrics.csv").write_text(text)
    store.write_grid("fabricated", made)


def ranks(rng: np.random.Generator, n_users: int, quality: float) -> Ranks:
    """Return ranks that are better the higher the quality, 0 to 1."""
    places = np.minimum(rng.geometric(0.03 * quality, n_users * ITEMS), DEPTH + 1)
    places[places > DEPTH] = 0
    return Ranks(
        users=np.arange(n_users, dtype=np.int32),
        indptr=np.arange(n_users + 1, dtype=np.int64) * ITEMS,
        ranks=places.astype(np.uint8),
        top_counts=np.ones(1000, np.int32),
        n_skipped=0,
        tied=0.0,
    )


def timed(folder: Path, arguments: list[str]) -> tuple[float, float]:
    """Return seconds on the clock and of the processor of one call of `report`."""
    path = f"{Path(__file__).parents[1]}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"
    before, started = os.times(), perf_counter()
    command = [*PROGRAM, "report", *arguments]
    environ = os.environ | {"PYTHONPATH": path}
    subprocess.run(command, cwd=folder, check=True, capture_output=True, env=environ)
    clock, after = perf_counter() - started, os.times()
    return clock, sum(after[2:4]) - sum(before[2:4])


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--runs", type=int, default=1000)
    parser.add_argument("--users", type=int, default=5000, help="evaluated users of each run")
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        made = cells(options.runs)
        fabricate(Store(folder / "results"), made, options.users)
        size = sum(file.stat().st_size for file in (folder / "results" / "fabricated").iterdir())
        print(f"{len(made)} runs of {options.users} users; the grid's files {size / 2**20:.1f} MiB")
        rows = [["table, first call", *timed(folder, [])]]
        for call, extra in CALLS.items():
            times = [timed(folder, extra) for _ in range(options.repeats)]
            rows.append([call, *map(median, zip(*times, strict=True))])
    load = os.getloadavg()[0]
    print(tabulate(rows, ["report", "seconds", "of processor"], "simple", floatfmt=".2f"))
    print(
        f"median of {options.repeats}, a new process each; "
        f"load {load:.1f} on {os.cpu_count()} cores"
    )


if __name__ == "__main__":
    main()
