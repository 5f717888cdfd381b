"""``python -m benchmarks.check_power``: how often `check` alarms without cause, and with one.

Simulated seeds, normal about their mean: a baseline of ten, a run of five, compared by the code
that `bslbench check` runs. Clean: both have the same mean. Drop: that of the run is lower.
"""

import argparse
import math
from collections.abc import Sequence

import numpy as np
from scipy import stats
from tabulate import tabulate

from bslbench.report.baseline import Group
from bslbench.report.check import LEVEL, findable_drop, judged
from bslbench.seeding import key_of

SPREADS = (0.002, 0.005, 0.01, 0.015)
"""Relative standard deviations of the seeds."""

MEAN = 0.07


def group(values: Sequence[float]) -> Group:
    return Group(
        dataset="simulated",
        backbone="mf",
        loss="sl",
        fingerprint="",
        config={},
        seeds=list(range(len(values))),
        values=list(values),
    )


def alarms(
    n_runs: int, spread: float, drop: float = 0.0, *, n_groups: int = 1, n_base: int = 10
) -> int:
    """Return how many of `n_runs` calls alarm; of `n_groups` groups the first has dropped."""
    rng = np.random.default_rng(key_of(0, "check", round(1e6 * spread), round(1e6 * drop)))
    alarmed = 0
    for _ in range(n_runs):
        pairs = []
        for number in range(n_groups):
            now = 1 - drop if number == 0 else 1.0
            base = MEAN * rng.normal(1, spread, n_base)
            pairs.append((group(base), group(MEAN * rng.normal(now, spread, 5))))
        alarmed += any(finding.state == "worse" for finding in judged(pairs))
    return alarmed


def typical(spread: float, n_base: int = 10) -> list[float]:
    """Return a baseline of exactly this spread."""
    values = np.linspace(-1, 1, n_base)
    return list(MEAN * (1 + spread * values / values.std(ddof=1)))


def power(spread: float, drop: float, n_groups: int = 1, n_base: int = 10) -> float:
    """Return how often a drop is found by the noncentral t distribution."""
    error = spread * math.sqrt(1 / n_base + 1 / 5)
    critical = stats.t.isf(LEVEL / n_groups, n_base - 1)
    return float(stats.nct.sf(critical, n_base - 1, drop / error))


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser("python -m benchmarks.check_power", description=__doc__)
    parser.add_argument("--runs", type=int, default=4000, help="for the precise figures")
    asked = parser.parse_args(arguments)
    rows = []
    for n_groups in (1, 3, 10):
        for spread in SPREADS:
            least = findable_drop(typical(spread), 5, n_groups)
            clean = alarms(asked.runs, spread, n_groups=n_groups) / asked.runs
            at_3 = alarms(asked.runs, spread, 0.03, n_groups=n_groups) / asked.runs
            at_least = alarms(asked.runs, spread, least, n_groups=n_groups) / asked.runs
            shares = [f"{s:.1%}" for s in (clean, at_3, power(spread, 0.03, n_groups), at_least)]
            rows.append([n_groups, f"{spread:.1%}", *shares, f"{least:.2%}"])
    heads = ["groups", "sd of seeds", "clean alarms", "3% found", "by theory", "smallest found"]
    print(tabulate(rows, [*heads, "smallest drop"]))
    error = 100 * math.sqrt(0.9 * 0.1 / asked.runs)
    print(f"{asked.runs} simulated calls each; standard error at 90 %: {error:.1f} %")
    for n_base in (10, 20):
        print(f"of 200 calls, baseline of {n_base} seeds:")
        for spread in SPREADS:
            clean = alarms(200, spread, n_base=n_base)
            found = alarms(200, spread, 0.03, n_base=n_base)
            exact = power(spread, 0.03, n_base=n_base)
            print(
                f"  sd {spread:.1%}: {clean} clean alarms; a drop of 3 % found {found} times "
                f"({exact:.1%} by theory)"
            )


if __name__ == "__main__":
    main()
