"""Who is recommended: shares of a metric by popularity group, and how even the lists are."""

import numpy as np
import numpy.typing as npt

from bslbench.data.interactions import Interactions
from bslbench.evaluation.metrics import METRICS, hits_of
from bslbench.evaluation.ranks import TOP, Ranks

N_GROUPS = 10
TAIL = 5
"""The least popular groups that make up the tail: half of all train interactions."""
SHARED = ("Recall", "NDCG")
"""Metrics that are sums over hits, so that groups have shares of them."""

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]


def item_groups(degrees: IntArray, n_groups: int = N_GROUPS) -> IntArray:
    """Return the group of each item, 0 for the least popular, [n_items] int64.

    Items sorted by degree (equal ones by id) are cut into groups of equal total degree; an item on
    a cut goes to the side where most of its degree lies. A group is empty where one item outweighs
    it.

    Examples
    --------
    >>> item_groups(np.array([4, 1, 1, 2]), 2)
    array([1, 0, 0, 0])
    """
    order = np.argsort(degrees, kind="stable")
    after = np.cumsum(degrees[order])
    twice_the_middle = 2 * after - degrees[order]
    groups = np.empty_like(order)
    groups[order] = np.minimum(twice_the_middle * n_groups // max(1, 2 * after[-1]), n_groups - 1)
    return groups


def group_shares(
    ranks: Ranks, items: npt.NDArray[np.integer], groups: IntArray, metric: str, k: int
) -> FloatArray:
    """Return each group's share of a metric, the mean over users of its hits' part, [N_GROUPS].

    Parameters
    ----------
    ranks
        Of the held-out items.
    items
        These items, [nnz], in the order of ``ranks.ranks``.
    groups
        Of each item, [n_items].
    metric
        One of `SHARED`; the shares add up to it.
    """
    own = groups[items]
    shares = []
    for group in range(N_GROUPS):
        hits = hits_of(ranks.indptr, np.where(own == group, ranks.ranks, 0))
        shares.append(METRICS[metric].function(hits, k).mean() if len(ranks.users) else np.nan)
    return np.array(shares)


def gini(counts: npt.NDArray[np.integer]) -> float:
    """Return the Gini coefficient of counts [n]: 0 if all are equal, 1 - 1/n if one has all.

    Examples
    --------
    >>> gini(np.array([1, 1, 1, 1])), gini(np.array([0, 0, 0, 8])), gini(np.array([1, 3]))
    (0.0, 0.75, 0.25)
    """
    ordered = np.sort(counts).astype(np.float64)
    n, total = len(ordered), ordered.sum()
    weights = 2 * np.arange(1, n + 1) - n - 1
    return float(weights @ ordered / (n * total)) if total else float("nan")


def exposure(top_counts: npt.NDArray[np.integer], degrees: IntArray) -> dict[str, float]:
    """Return how the places of all users' lists are spread over the items.

    Parameters
    ----------
    top_counts
        In how many lists each item stands, [n_items].
    degrees
        Clean train interactions of each item, [n_items].

    Returns
    -------
    dict
        ``Gini`` of the counts; ``ARP``, the mean degree over all places (average recommendation
        popularity); ``Coverage``, the share of the items that stand in a list; ``TailShare``, the
        share of the places that the `TAIL` least popular groups have.
    """
    places = int(top_counts.sum())
    if not places:
        return dict.fromkeys(("Gini", "ARP", "Coverage", "TailShare"), float("nan"))
    return {
        "Gini": gini(top_counts),
        "ARP": float(top_counts @ degrees / places),
        "Coverage": float((top_counts > 0).mean()),
        "TailShare": float(top_counts[item_groups(degrees) < TAIL].sum() / places),
    }


def fairness(ranks: Ranks, data: Interactions) -> list[tuple[str, int | None, float]]:
    """Return (metric, group, value) at rank 20 of test: shares of groups 1 to 10, then `exposure`.

    Popularity is that of the clean train split: noise makes no item popular.
    """
    degrees = np.bincount(data.clean_train.indices, minlength=data.n_items).astype(np.int64)
    groups = item_groups(degrees)
    items = data.test[ranks.users].indices
    rows: list[tuple[str, int | None, float]] = []
    for metric in SHARED:
        shares = group_shares(ranks, items, groups, metric, TOP)
        rows += [(metric, group, float(share)) for group, share in enumerate(shares, start=1)]
    return rows + [(m, None, v) for m, v in exposure(ranks.top_counts, degrees).items()]
