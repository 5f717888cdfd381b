"""Two groups of runs with the same seeds: how they differ, and whether that can be told.

>>> a = np.array([[0.2, 0.4, 0.3], [0.3, 0.5, 0.2]])  # Recall@20 by seed and user
>>> b = a - np.array([[0.1, 0.2, 0.1], [0.1, 0.1, 0.2]])
>>> found = compare_values(a, b)
>>> round(found.diff, 3), found.n_seeds, found.word
(0.133, 2, 'there')
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TypeVar

import numpy as np

from bslbench.config import EXTERNAL
from bslbench.engine.store import Run
from bslbench.errors import ConfigError, DataError
from bslbench.evaluation.metrics import parse_metric, per_user
from bslbench.evaluation.ranks import I32, Ranks
from bslbench.evaluation.statistics import (
    SMALLEST_EFFECT,
    FloatArray,
    Word,
    estimate,
    seeds_needed,
    told,
)

AnyRun = TypeVar("AnyRun")


@dataclass(frozen=True)
class Comparison:
    """A minus B, paired by seed and user.

    Attributes
    ----------
    base
        The mean of B.
    diff, low, high
        Difference of the means and its 95 % interval over seeds and users.
    p
        Of a paired t-test over seeds; NaN where the seeds all say the same, or there is one.
    n_seeds, n_users
        How many were paired.
    word
        Whether the difference is there, absent, or cannot be told.
    seeds_needed
        With how many seeds it could be told nine times in ten; None if with no number.
    """

    base: float
    diff: float
    low: float
    high: float
    p: float
    n_seeds: int
    n_users: int
    word: Word
    seeds_needed: int | None

    @property
    def relative(self) -> float:
        """The difference as a share of B."""
        return self.diff / self.base if self.base else math.nan

    @property
    def relative_interval(self) -> tuple[float, float]:
        """The interval as shares of B."""
        if not self.base:
            return math.nan, math.nan
        low, high = sorted((self.low / self.base, self.high / self.base))
        return low, high


def compare(
    runs_a: Sequence[Run], runs_b: Sequence[Run], metric: str, *, directed: bool = False
) -> Comparison:
    """Compare two groups of finished runs on test, from the ranks that they have kept.

    Parameters
    ----------
    runs_a, runs_b
        Of one dataset; those whose seed the other group has too are compared. A lone run from
        outside is none of several draws: it is held against each seed of the other group.
    metric
        ``NAME@K``, K up to 100.
    directed
        Whether the question is for a gain of A; see `bslbench.evaluation.statistics.told`.

    Raises
    ------
    ConfigError
        If the groups have no seed in common, or one has a seed twice.
    DataError
        If ranks cannot be read, or are of different data or users.
    """
    a, b = _by_seed(runs_a), _by_seed(runs_b)
    a, b = meeting_all(a, b, _backbone(a)), meeting_all(b, a, _backbone(b))
    seeds = sorted(a.keys() & b.keys())
    if not seeds:
        raise ConfigError(f"no seed in common: {sorted(a)} and {sorted(b)}")
    chosen = [group[seed] for group in (a, b) for seed in seeds]
    if len({run.info()["canonical"]["fingerprint"] for run in chosen}) > 1:
        raise DataError(f"{chosen[0].folder.name} and {chosen[-1].folder.name}: other data")
    values = user_values(chosen, metric)
    return compare_values(values[: len(seeds)], values[len(seeds) :], directed=directed)


def compare_values(a: FloatArray, b: FloatArray, *, directed: bool = False) -> Comparison:
    """Compare values [n_seeds, n_users] of the same seeds and users; see `compare`."""
    n_seeds, n_users = a.shape
    base, diff = float(b.mean()), float((a - b).mean())
    if n_seeds < 2:
        nan = math.nan
        return Comparison(base, diff, nan, nan, nan, n_seeds, n_users, "cannot be told", None)
    found = estimate(a - b)
    smallest = SMALLEST_EFFECT * abs(base)
    word = told(found.low, found.high, smallest, directed=directed)
    needed = seeds_needed(found, smallest, directed=directed)
    if needed is not None and word == "cannot be told":
        needed = max(needed, n_seeds + 1)
    return Comparison(base, diff, found.low, found.high, found.p, n_seeds, n_users, word, needed)


def user_values(runs: Sequence[Run], metric: str) -> FloatArray:
    """Return a metric on test for each run and user, [n_runs, n_users].

    Raises
    ------
    DataError
        If ranks cannot be read, or the runs have evaluated different users.
    """
    loaded = [_values(file, _written(file), metric) for file in (r.file("ranks.npz") for r in runs)]
    users, _ = loaded[0]
    for run, (others, _) in zip(runs, loaded, strict=True):
        if not np.array_equal(users, others):
            raise DataError(
                f"{run.folder.name} has ranked other users than {runs[0].folder.name}, so that "
                "they cannot be paired"
            )
    return np.stack([values for _, values in loaded])


@lru_cache(maxsize=64)  # one group is compared with many
def _values(path: Path, written: int, metric: str) -> tuple[I32, FloatArray]:
    ranks = Ranks.load(path)
    return ranks.users, per_user(ranks, *parse_metric(metric))


def _written(path: Path) -> int:
    return path.stat().st_mtime_ns if path.exists() else 0


def meeting_all(
    runs: Mapping[int, AnyRun], others: Mapping[int, AnyRun], backbone: str
) -> Mapping[int, AnyRun]:
    """Return a group's runs by seed; a lone one from outside stands at every seed of the others."""
    lone = backbone == EXTERNAL and len(runs) == 1
    return dict.fromkeys(others, *runs.values()) if lone else runs


def _backbone(runs: Mapping[int, Run]) -> str:
    return next((run.info()["canonical"].get("backbone", "") for run in runs.values()), "")


def _by_seed(runs: Sequence[Run]) -> Mapping[int, Run]:
    found: dict[int, Run] = {}
    for run in runs:
        info = run.info()
        if not info:
            raise DataError(f"{run.file('run.json')} is missing or damaged")
        seed = info["canonical"]["seed"]
        if seed in found:
            raise ConfigError(f"seed {seed} twice: {found[seed].folder.name}, {run.folder.name}")
        found[seed] = run
    return found
