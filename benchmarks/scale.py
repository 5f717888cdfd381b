"""``python -m benchmarks.scale``: a large dataset from nothing to a ranking, against a small one.

The same batch, negatives and embedding size on both; the pool of negatives and the lazy optimiser
touch no row that the batch does not.
"""

import argparse
import resource
from contextlib import suppress
from itertools import pairwise
from statistics import median
from time import perf_counter

import bslbench  # noqa: F401  before torch: it sets how OpenMP threads wait

# isort: split
import torch
from tabulate import tabulate

from bslbench.backbones import MF
from bslbench.config import TrainSettings
from bslbench.data.interactions import Interactions
from bslbench.data.load import load
from bslbench.data.splits import hold_out
from bslbench.engine.cell import evaluate
from bslbench.losses import SL
from bslbench.training import Interrupted, train

SMALL = "synthetic?users=31668&items=38048&interactions=1561406"
LARGE = "synthetic?users=1000000&items=200000&interactions=50000000"


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scale", description=__doc__)
    parser.add_argument("--dataset", default=LARGE, help="the large dataset")
    parser.add_argument("--small", default=SMALL, help="the dataset it is held against")
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--eval-users", type=int, default=20_000)
    options = parser.parse_args(arguments)
    rows = [
        [name, *measured(dataset, options.steps, options.eval_users)]
        for name, dataset in (("small", options.small), ("large", options.dataset))
    ]
    names = ["data", "load s", "first epoch's order s", "ms per step", "evaluation s", "peak GiB"]
    print(tabulate(rows, names, "simple", floatfmt="#.3g"))
    print(f"step: {rows[1][3] / rows[0][3]:.2f}x that of the small one")
    print("peak: of the whole process so far; the first load parses or generates, and caches")


def measured(dataset: str, n_steps: int, eval_users: int) -> tuple[float, ...]:
    """Return seconds to load, to the first step, per step in ms, to evaluate; and peak GiB."""
    started = perf_counter()
    data = hold_out(load(dataset), "test")
    loaded = perf_counter()
    settings = TrainSettings(
        sampler="pool", optimizer="adam_lazy", n_negatives=800, batch_size=1024, scale=None, l2=1e-6
    )
    backbone = MF(data, settings.dim, torch.Generator().manual_seed(0))
    began, clock = perf_counter(), steps(data, settings, backbone, n_steps)
    trained = perf_counter()
    evaluate(backbone, settings, data, "test", eval_users)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    ms = 1e3 * median(b - a for a, b in pairwise(clock))
    return loaded - started, clock[0] - began, ms, perf_counter() - trained, peak


def steps(data: Interactions, settings: TrainSettings, backbone: MF, n_steps: int) -> list[float]:
    """Train so many steps and return when each ended."""
    clock: list[float] = []

    def stop() -> bool:
        clock.append(perf_counter())
        return len(clock) >= n_steps

    with suppress(Interrupted):
        train(settings, data, backbone, SL(), seed=0, evaluate=lambda model: (0.0, 0.0), stop=stop)
    return clock


if __name__ == "__main__":
    main()
