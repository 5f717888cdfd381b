"""``python -m benchmarks.choice FOLDER``: what `choose` says in its time, held to a longer tuning.

Takes a dataset, or MovieLens-1M written out as Parquet with ids of text and made-up times. Calls
`choose`, kills it once at a random moment and calls it again, finds the reported Recall@20 in its
embeddings by numpy alone, and tunes the same losses, on the same data or on a sample, for several
times its time. What has ended in FOLDER is not made again.
"""

import argparse
import json
import os
import random
import re
import resource
import signal
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from statistics import fmean, stdev

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks import PROGRAM
from bslbench.data.load import load
from bslbench.engine.race.ladder import FAST, SHORT_LIST
from bslbench.options import seconds
from bslbench.report.results import Results

NAME, LONGER = "choice", "longer"
METRIC = "Recall@20"


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.choice", description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--dataset", help="instead of MovieLens-1M as Parquet")
    parser.add_argument("--budget", default="20m", help="of choose")
    parser.add_argument(
        "--times", type=float, default=8.0, help="of the longer tuning, in budgets; 0: none"
    )
    parser.add_argument("--sample", default="100%", help="tune on a rung of choose, such as 5%%")
    parser.add_argument("--epochs", type=int, default=20, help="of the longer tuning")
    options = parser.parse_args(arguments)
    options.folder.mkdir(parents=True, exist_ok=True)
    os.chdir(options.folder)  # where `choose` keeps its catalog and results
    words = ["--dataset", options.dataset] if options.dataset else movielens()
    chosen(words, options.budget)
    checked(seconds(options.budget))
    if options.times:
        tuned(options.sample, options.times * seconds(options.budget), options.epochs)
        compared()


def movielens() -> list[str]:
    """Write MovieLens-1M as a shop would have it; return what tells `choose` of it."""
    if not Path("ratings.parquet").exists():
        data = load("movielens-1m")
        users, items = (data.train + data.valid + data.test).nonzero()
        rng = np.random.default_rng(0)
        # All through a year, so that at a cut in time everybody has a past and a future.
        when = rng.integers(1_600_000_000, 1_631_536_000, len(users))
        columns = {
            "customer": [f"customer-{user:05d}" for user in users],
            "sku": [f"SKU {item:04d}/x" for item in items],
            "when": pa.array(when * 1_000_000, pa.timestamp("us", "UTC")),
        }
        pq.write_table(pa.table(columns).take(rng.permutation(len(users))), "ratings.parquet")
    return ["ratings.parquet", "--user", "customer", "--item", "sku", "--time", "when"]


def chosen(words: Sequence[str], budget: str) -> None:
    """Call `choose`, killed once at a random moment of its budget."""
    if Path("results", NAME, "report.md").exists():
        return
    call = [*PROGRAM, "choose", *words, "--budget", budget, "--name", NAME, "--jobs", "2"]
    moment = random.uniform(0.05, 0.9) * seconds(budget)
    process = subprocess.Popen(call, start_new_session=True)
    with suppress(subprocess.TimeoutExpired):
        process.wait(moment)
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        print(f"killed after {moment:.0f} s")
    subprocess.run(call, check=True)


def checked(budget: float) -> None:
    """Print the verdict, the time taken, and the figure that the embeddings give; keep all that."""
    kept = Path("checked.md")
    if not kept.exists():
        folder = Path("results", NAME)
        spent = float((folder / "race" / "clock").read_text())
        evaluated = folder / "evaluated"
        [code] = re.findall(r"```python\n(.*?)```", (evaluated / "README.md").read_text(), re.S)
        alone = [sys.executable, "-c", code]
        run = subprocess.run(alone, cwd=evaluated, check=True, capture_output=True, text=True)
        peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 2**20
        found = [
            (folder / "report.md").read_text().split("\n## ")[0],
            f"time: {spent:.0f} of {budget:.0f} s over all calls",
            f"{METRIC} of evaluated/, by numpy alone: {float(run.stdout):.6f}",
            f"peak memory of the largest process: {peak:.1f} GiB",
        ]
        kept.write_text("\n".join([*found, ""]))
    print(kept.read_text())


def tuned(share: str, budget: float, epochs: int) -> None:
    """Tune the same losses by the rules of `tune`, for so long on the clock, two at a time.

    Data, batch and negatives are those of the race's rung; dropout, which it holds, is tuned too.
    """
    if Path("results", LONGER, "table.md").exists():
        return
    plan = json.loads(Path("results", NAME, "race", "race.json").read_text())["plan"]
    rungs = {rung["share"]: rung for rung in plan["rungs"]}
    if share not in rungs:
        raise SystemExit(f"--sample {share}: the race was on {', '.join(rungs)}")
    rung = rungs[share]
    call = [*PROGRAM, "tune", "--dataset", rung["dataset"], "--name", LONGER, "--seeds", "5"]
    call += [word for loss in SHORT_LIST for word in ("--loss", loss)]
    fixed = {key: value for key, value in FAST.items() if key != "dropout"}
    fixed |= {"epochs": epochs, "batch_size": rung["batch_size"]}
    call += [word for pair in fixed.items() for word in ("--set", "{}={}".format(*pair))]
    subprocess.run([*call, "--jobs", "2", "--budget", f"{2 * budget:.0f}s"], check=True)


def compared() -> None:
    """Print each loss of the longer tuning, and where the pick stands."""
    scores = scores_of(LONGER)
    best = max(scores, key=lambda loss: fmean(scores[loss]["valid"]))
    pick = max(own := scores_of(NAME), key=lambda loss: fmean(own[loss]["valid"]))
    for loss, by_split in sorted(scores.items(), key=lambda pair: -fmean(pair[1]["valid"])):
        print(loss, *(f"{split} {fmean(v):.4f} ± {stdev(v):.4f}" for split, v in by_split.items()))
    gaps = [a - b for a, b in zip(scores[best]["valid"], scores[pick]["valid"], strict=True)]
    gap, error = fmean(gaps), stdev(gaps) / len(gaps) ** 0.5
    within = "within" if gap <= error else "not within"
    print(f"pick {pick}, best {best}: {gap:.5f} apart on valid over the same seeds,", end=" ")
    print(f"{within} a standard error of that, {error:.5f}")


def scores_of(grid: str) -> dict[str, dict[str, list[float]]]:
    """Return a metric by loss and split, a value for each seed; of losses alone."""
    results = Results.load(Path("results"), grid)
    scores: dict[str, dict[str, list[float]]] = {}
    for split in ("valid", "test"):
        by_run = results.scores([METRIC], split)
        for run in results.runs:
            if run.key.backbone == "mf" and (run.id, METRIC) in by_run:
                own = scores.setdefault(run.key.loss, {}).setdefault(split, [])
                own.append(by_run[run.id, METRIC])
    return scores


if __name__ == "__main__":
    main()
