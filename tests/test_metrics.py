"""Metrics: cases worked by hand, and an independent library on the same ranks."""

import math

import numpy as np
import numpy.typing as npt
import pytest
from sklearn.metrics import average_precision_score, ndcg_score, precision_score, recall_score

from bslbench.errors import ConfigError
from bslbench.evaluation.metrics import CUTOFFS, METRICS, parse_metric, per_user, summary
from bslbench.evaluation.ranks import DEPTH, Ranks

PLACES = 400
"""Length of the rankings that the library gets: ranks beyond `DEPTH` lie in the rest."""


def ranks_of(*users: list[int]) -> Ranks:
    """Ranks of the test items, user by user."""
    return Ranks(
        users=np.arange(len(users), dtype=np.int32),
        indptr=np.cumsum([0, *map(len, users)], dtype=np.int64),
        ranks=np.array([rank for user in users for rank in user], dtype=np.uint8),
        top_counts=np.zeros(1, dtype=np.int32),
        n_skipped=0,
        tied=0.0,
    )


def random_ranks(seed: int) -> Ranks:
    """Users with one test item, with a few and with more than the largest cut-off."""
    rng = np.random.default_rng(seed)
    users = []
    for n_relevant in (1, 1, 2, 3, 10, 30, 70, 150, 1, 5):
        places = 1 + rng.permutation(rng.choice([160, PLACES]))[:n_relevant]
        users.append(np.where(places <= DEPTH, places, 0).tolist())
    return ranks_of(*users)


def relevance(ranks: Ranks, user: int) -> npt.NDArray[np.int64]:
    """1 at the places of the user's test items in its ranking, 0 elsewhere, [PLACES]."""
    own = ranks.ranks[ranks.indptr[user] : ranks.indptr[user + 1]].astype(np.int64)
    labels = np.zeros(PLACES, dtype=np.int64)
    labels[own[own > 0] - 1] = 1
    labels[DEPTH : DEPTH + (own == 0).sum()] = 1
    return labels


def library(labels: npt.NDArray[np.int64], metric: str, k: int) -> float:
    """A metric of one user by scikit-learn, from its labels in ranked order."""
    shown = np.arange(PLACES) < k
    hits, n_relevant = labels[:k].sum(), labels.sum()
    if metric == "NDCG":
        return float(ndcg_score([labels], [-np.arange(PLACES)], k=k))
    if metric == "Recall":
        return float(recall_score(labels, shown))
    if metric == "Precision":
        return float(precision_score(labels, shown))
    if hits == 0:
        return 0.0
    if metric == "HitRate":
        return float(recall_score([1], [labels[:k].max()]))
    if metric == "MAP":  # the library divides by the hits
        precision = average_precision_score(labels[:k], -np.arange(k))
        return float(precision * hits / min(k, n_relevant))
    first = np.zeros(k)
    first[labels[:k].argmax()] = 1
    return float(average_precision_score(first, -np.arange(k)))


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("k", [1, 2, 20, 50, 100])
@pytest.mark.parametrize("metric", METRICS)
def test_equals_the_library(metric: str, k: int, seed: int) -> None:
    ranks = random_ranks(seed)
    expected = [library(relevance(ranks, user), metric, k) for user in range(len(ranks.users))]
    assert per_user(ranks, metric, k) == pytest.approx(expected, abs=1e-9)


def test_worked_by_hand() -> None:
    ranks = ranks_of([3, 0, 1], [6], [0, 0], [2, 5, 4, 1, 3, 7])
    gains = [1 / math.log2(rank + 1) for rank in range(1, 6)]
    for metric, expected in {
        "Recall": [2 / 3, 0, 0, 5 / 6],
        "Precision": [2 / 5, 0, 0, 1],
        "HitRate": [1, 0, 0, 1],
        "MRR": [1, 0, 0, 1],
        "MAP": [(1 / 1 + 2 / 3) / 3, 0, 0, 1],
        "NDCG": [(gains[0] + gains[2]) / sum(gains[:3]), 0, 0, 1],
    }.items():
        assert per_user(ranks, metric, 5) == pytest.approx(expected, abs=1e-12), metric
    assert per_user(ranks, "MRR", 6).tolist() == pytest.approx([1, 1 / 6, 0, 1])
    assert per_user(ranks, "NDCG", 6)[1] == pytest.approx(1 / math.log2(7))


@pytest.mark.parametrize("metric", METRICS)
def test_order_within_a_user_means_nothing(metric: str) -> None:
    one, other = ranks_of([9, 0, 2, 40], [7]), ranks_of([40, 2, 9, 0], [7])
    assert (per_user(one, metric, 20) == per_user(other, metric, 20)).all()


@pytest.mark.parametrize("metric", METRICS)
def test_a_better_rank_is_never_worse(metric: str) -> None:
    assert METRICS[metric].higher_is_better
    values = [per_user(ranks_of([rank, 60, 0]), metric, 20)[0] for rank in range(1, 41)]
    assert values == sorted(values, reverse=True)
    assert values[0] > values[-1]


def test_summary_is_the_mean_over_users() -> None:
    ranks = random_ranks(5)
    table = summary(ranks)
    assert [(metric, k) for metric, k, _ in table] == [(m, k) for m in METRICS for k in CUTOFFS]
    for metric, k, value in table:
        assert value == pytest.approx(per_user(ranks, metric, k).mean(), abs=1e-15)
    assert summary(ranks, (7,), ("MAP",)) == [("MAP", 7, per_user(ranks, "MAP", 7).mean())]


def test_without_users_the_mean_is_nan() -> None:
    assert per_user(ranks_of(), "NDCG", 20).shape == (0,)
    assert all(math.isnan(value) for _, _, value in summary(ranks_of()))


def test_names_and_cut_offs_are_checked() -> None:
    ranks = ranks_of([1])
    with pytest.raises(ConfigError, match="did you mean 'Recall'"):
        per_user(ranks, "recall", 20)
    for k in (0, 101):
        with pytest.raises(ConfigError, match="from 1 to 100"):
            summary(ranks, (k,))


def test_parse_metric() -> None:
    assert parse_metric("NDCG@5") == ("NDCG", 5)
    for text in ("NDCG", "NDCG@", "@20", "NDCG@x", "NDCG@20 ", "NDCG@-1"):
        with pytest.raises(ConfigError, match="such as Recall@20"):
            parse_metric(text)
    with pytest.raises(ConfigError, match="did you mean 'NDCG'"):
        parse_metric("NCDG@20")
    with pytest.raises(ConfigError, match="from 1 to 100"):
        parse_metric("NDCG@200")
