"""``python -m benchmarks.coverage``: how often the intervals over seeds and users hold the truth.

Simulated differences x_su = effect + seed_s + user_u + rest_su with a known effect. Users are
skewed as those of Recall@20 are: most see no difference, few a large one. The share says how much
of the variance of the mean comes from the seeds; a fifth of the others' comes from the rest.
"""

import argparse
import math
from time import perf_counter

import numpy as np
import numpy.typing as npt
from tabulate import tabulate

from bslbench.evaluation.statistics import RESAMPLES, USERS, estimate
from bslbench.kernels.resample import resampled_means
from bslbench.seeding import key_of

EFFECT = 0.5
SHARES = (0.0, 0.5, 1.0)
REST = 0.2

FloatArray = npt.NDArray[np.float64]


def skewed(rng: np.random.Generator, shape: int | tuple[int, ...]) -> FloatArray:
    """Draw values with mean 0 and variance 1, four in five of them equal."""
    drawn = rng.exponential(size=shape) * (rng.random(shape) < 0.2)
    return (drawn - 0.2) / 0.6


def simulated(rng: np.random.Generator, n_seeds: int, n_users: int, share: float) -> FloatArray:
    """Draw values [n_seeds, n_users] whose mean has variance 1 about the effect."""
    seeds = math.sqrt(n_seeds * share * (1 - REST)) * rng.standard_normal((n_seeds, 1))
    users = math.sqrt(n_users * (1 - share) * (1 - REST)) * skewed(rng, n_users)
    rest = math.sqrt(n_seeds * n_users * REST) * skewed(rng, (n_seeds, n_users))
    return EFFECT + seeds + users + rest


def coverage(n_runs: int, n_seeds: int, n_users: int, share: float) -> tuple[float, float]:
    """Return how often the interval holds the effect, and its mean width."""
    held, width = 0, 0.0
    weights = resampled_means(np.eye(n_users), RESAMPLES, USERS)  # the same in every run
    for run in range(n_runs):
        rng = np.random.default_rng(key_of(run, "coverage", n_seeds, round(100 * share)))
        values = simulated(rng, n_seeds, n_users, share)
        found = estimate(values, weights @ values.T)
        held += found.low <= EFFECT <= found.high
        width += found.high - found.low
    return held / n_runs, width / n_runs


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser("python -m benchmarks.coverage", description=__doc__)
    parser.add_argument("--runs", type=int, default=2000)
    parser.add_argument("--seeds", type=int, nargs="+", default=[5, 10, 20])
    parser.add_argument("--users", type=int, default=1000)
    asked = parser.parse_args(arguments)
    started = perf_counter()
    rows = []
    for n_seeds in asked.seeds:
        for share in SHARES:
            held, width = coverage(asked.runs, n_seeds, asked.users, share)
            rows.append([n_seeds, f"{share:.0%}", f"{held:.1%}", f"{width:.2f}"])
    print(tabulate(rows, ["seeds", "variance from seeds", "covered", "mean width"]))
    error = 100 * math.sqrt(0.95 * 0.05 / asked.runs)
    print(
        f"{asked.runs} runs of {asked.users} users each, nominal 95 % (standard error of a "
        f"share {error:.1f} %); {perf_counter() - started:.0f} s"
    )


if __name__ == "__main__":
    main()
