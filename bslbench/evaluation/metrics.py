"""Metrics from the ranks of the held-out items, exactly as the protocol defines them.

T are a user's held-out items, k is the cut-off; all metrics are 0 for a user without a hit.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from bslbench.errors import ConfigError, suggest
from bslbench.evaluation.ranks import DEPTH, Ranks

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

CUTOFFS = (5, 10, 20, 50)
"""The cut-offs that results are stored at."""


class Hits(NamedTuple):
    """The held-out items that were ranked, user by user, best first.

    Attributes
    ----------
    n_relevant
        |T| per user, [n] int64.
    users
        Number of the hit's user, 0 to n - 1, [h] int64.
    ranks
        Rank of the hit, 1 to 100, [h] int64.
    nth
        1 for the user's first hit, 2 for its second, ..., [h] int64.
    """

    n_relevant: IntArray
    users: IntArray
    ranks: IntArray
    nth: IntArray

    def total(self, k: int, values: npt.ArrayLike) -> FloatArray:
        """Sum `values` ([h], or one for all) over each user's hits within rank `k`, [n]."""
        weights = np.where(self.ranks <= k, values, 0.0)
        totals = np.bincount(self.users, weights, len(self.n_relevant))
        return totals.astype(np.float64, copy=False)


def hits_of(indptr: IntArray | list[int], ranks: npt.ArrayLike) -> Hits:
    """Sort out the hits from row pointers [n + 1] and ranks [nnz], 0 for none, as in `Ranks`.

    Examples
    --------
    >>> hits = hits_of([0, 3, 4], [7, 0, 2, 1])
    >>> hits.n_relevant, hits.users, hits.ranks, hits.nth
    (array([3, 1]), array([0, 0, 1]), array([2, 7, 1]), array([1, 2, 1]))
    """
    bounds = np.asarray(indptr, dtype=np.int64)
    n_relevant = bounds[1:] - bounds[:-1]
    places = np.asarray(ranks, dtype=np.int64)
    users = np.repeat(np.arange(len(n_relevant)), n_relevant)
    order = np.lexsort((places, users))
    order = order[places[order] > 0]
    users, places = users[order], places[order]
    nth = np.arange(1, len(users) + 1) - np.searchsorted(users, users)
    return Hits(n_relevant, users, places, nth)


def recall(hits: Hits, k: int) -> FloatArray:
    """Return hits / |T| per user, [n].

    Examples
    --------
    >>> recall(hits_of([0, 4], [1, 3, 20, 0]), k=5)
    array([0.5])
    """
    return hits.total(k, 1) / hits.n_relevant


def precision(hits: Hits, k: int) -> FloatArray:
    """Return hits / k per user, [n].

    Examples
    --------
    >>> precision(hits_of([0, 4], [1, 3, 20, 0]), k=5)
    array([0.4])
    """
    return hits.total(k, 1) / k


def hit_rate(hits: Hits, k: int) -> FloatArray:
    """Return 1 for each user with a hit, else 0, [n].

    Examples
    --------
    >>> hit_rate(hits_of([0, 4, 5], [1, 3, 20, 0, 6]), k=5)
    array([1., 0.])
    """
    return hits.total(k, hits.nth == 1)


def reciprocal_rank(hits: Hits, k: int) -> FloatArray:
    """Return 1 / rank of the first hit per user, 0 beyond k, [n]; its mean is MRR.

    Examples
    --------
    >>> reciprocal_rank(hits_of([0, 3], [0, 8, 4]), k=5)
    array([0.25])
    """
    return hits.total(k, (hits.nth == 1) / hits.ranks)


def average_precision(hits: Hits, k: int) -> FloatArray:
    """Return the sum of precision at each hit / min(k, |T|) per user, [n]; its mean is MAP.

    Examples
    --------
    >>> average_precision(hits_of([0, 4], [1, 4, 20, 0]), k=5)  # (1/1 + 2/4) / 4
    array([0.375])
    """
    return hits.total(k, hits.nth / hits.ranks) / np.minimum(k, hits.n_relevant)


def ndcg(hits: Hits, k: int) -> FloatArray:
    """Return NDCG per user, [n]: binary gains, 1 / log2(rank + 1), ideal over min(k, |T|).

    Source: Järvelin, Kekäläinen, TOIS 2002.

    Examples
    --------
    >>> ndcg(hits_of([0, 1], [3]), k=5)
    array([0.5])
    """
    best = np.cumsum(1 / np.log2(np.arange(2, k + 2)))  # [k]
    ideal: FloatArray = best[np.minimum(k, hits.n_relevant) - 1]
    return hits.total(k, 1 / np.log2(hits.ranks + 1)) / ideal


@dataclass(frozen=True)
class Metric:
    """A metric: its values per user, and whether larger ones are better."""

    function: Callable[[Hits, int], FloatArray]
    higher_is_better: bool = True


METRICS: dict[str, Metric] = {
    "Recall": Metric(recall),
    "NDCG": Metric(ndcg),
    "Precision": Metric(precision),
    "HitRate": Metric(hit_rate),
    "MRR": Metric(reciprocal_rank),
    "MAP": Metric(average_precision),
}
"""By the name that results carry."""


def per_user(ranks: Ranks, metric: str, k: int) -> FloatArray:
    """Return a metric for each of ``ranks.users``, [n] float64.

    Raises
    ------
    ConfigError
        If there is no such metric, or `k` is not within 1 to 100.
    """
    _check(metric, k)
    return METRICS[metric].function(hits_of(ranks.indptr, ranks.ranks), k)


def summary(
    ranks: Ranks, cutoffs: Sequence[int] = CUTOFFS, metrics: Sequence[str] = tuple(METRICS)
) -> list[tuple[str, int, float]]:
    """Return (metric, k, mean over users) of all `metrics` at all `cutoffs`; NaN without users.

    Raises
    ------
    ConfigError
        As `per_user`.
    """
    hits = hits_of(ranks.indptr, ranks.ranks)
    means = []
    for metric in metrics:
        for k in cutoffs:
            _check(metric, k)
            values = METRICS[metric].function(hits, k)
            means.append((metric, k, float(values.mean()) if values.size else float("nan")))
    return means


def parse_metric(text: str) -> tuple[str, int]:
    """Split a metric as the field writes it into name and cut-off.

    Raises
    ------
    ConfigError
        If it is not one.

    Examples
    --------
    >>> parse_metric("Recall@20")
    ('Recall', 20)
    """
    match = re.fullmatch(r"(\w+)@(\d{1,9})", text, re.ASCII)
    if not match:
        raise ConfigError(f"'{text}' is not a metric with its cut-off, such as Recall@20")
    metric, k = match[1], int(match[2])
    _check(metric, k)
    return metric, k


def _check(metric: str, k: int) -> None:
    if metric not in METRICS:
        raise ConfigError(f"no metric named '{metric}'{suggest(metric, METRICS)}")
    if not 1 <= k <= DEPTH:
        raise ConfigError(f"{metric}@{k}: cut-offs go from 1 to {DEPTH}")
