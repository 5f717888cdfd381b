"""Popularity groups and the spread of the lists, against numbers worked by hand."""

import csv
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from bslbench.config import Noise
from bslbench.data.interactions import Interactions
from bslbench.data.noise import corrupt
from bslbench.evaluation.groups import (
    N_GROUPS,
    SHARED,
    exposure,
    fairness,
    gini,
    group_shares,
    item_groups,
)
from bslbench.evaluation.metrics import per_user
from bslbench.evaluation.ranking import rank_all
from bslbench.evaluation.ranks import Ranks
from tests.fixtures import NONE, tiny
from tests.test_engine import grid, run


def test_groups_worked_by_hand() -> None:
    # Sorted: 0 0 1 1 3 5 of 10. The item of degree 3 lies from 2 to 5, that of 5 from 5 to 10.
    assert item_groups(np.array([3, 5, 0, 1, 0, 1]), 2).tolist() == [0, 1, 0, 0, 0, 0]
    # Sorted: 1 4 5; with a cut at 5 the 4 lies below it, of three groups it is the second.
    assert item_groups(np.array([4, 5, 1]), 2).tolist() == [0, 1, 0]
    assert item_groups(np.array([4, 5, 1]), 3).tolist() == [0, 2, 0]
    # Ten items of one pair each, ten groups; the next ten of the same degree go by id.
    assert item_groups(np.ones(10, int)).tolist() == list(range(10))
    assert item_groups(np.ones(20, int)).tolist() == [i // 2 for i in range(20)]
    # One item has 80 of 100: its middle is at 60, and five groups have nothing.
    assert item_groups(np.array([80, *[2] * 10])).tolist() == [6, *[0] * 5, *[1] * 5]


@given(st.lists(st.integers(0, 50), min_size=1, max_size=300))
def test_groups_are_in_order_and_near_equal(degrees: list[int]) -> None:
    degree = np.array(degrees)
    groups = item_groups(degree)
    order = np.argsort(degree, kind="stable")
    assert (np.diff(groups[order]) >= 0).all()
    assert groups.min() >= 0 and groups.max() < N_GROUPS
    mass = np.bincount(groups, degree, N_GROUPS)
    assert (np.abs(mass - degree.sum() / N_GROUPS) <= degree.max()).all()


def test_shares_worked_by_hand() -> None:
    ranks = Ranks(
        users=np.array([0, 3], np.int32),
        indptr=np.array([0, 3, 4]),
        ranks=np.array([1, 0, 7, 25], np.uint8),  # of items 5, 2, 4 and 1
        top_counts=np.zeros(6, np.int32),
        n_skipped=0,
        tied=0.0,
    )
    items, groups = np.array([5, 2, 4, 1]), np.array([0, 0, 1, 1, 2, 9])
    recall = group_shares(ranks, items, groups, "Recall", 20)
    assert recall.tolist() == [0, 0, 1 / 6, 0, 0, 0, 0, 0, 0, 1 / 6]
    ideal = 1 + 1 / np.log2(3) + 1 / np.log2(4)
    ndcg = group_shares(ranks, items, groups, "NDCG", 20)
    assert ndcg[9] == pytest.approx(1 / ideal / 2, abs=1e-15)
    assert ndcg[2] == pytest.approx(1 / np.log2(8) / ideal / 2, abs=1e-15)
    assert ndcg.sum() == pytest.approx(ndcg[2] + ndcg[9], abs=1e-15)


@pytest.mark.parametrize("metric", SHARED)
def test_shares_sum_to_the_total(metric: str) -> None:
    rng = np.random.default_rng(1)
    part = rng.choice(3, size=(80, 200), p=[0.85, 0.1, 0.05])
    train, test = (np.nonzero(part == split) for split in (1, 2))
    data = Interactions.from_pairs("random", 80, 200, train, NONE, test)
    scores = torch.rand(80, 200, generator=torch.Generator().manual_seed(0))
    ranks = rank_all(lambda users: scores[users], data, "test")
    shares = [value for name, group, value in fairness(ranks, data) if name == metric and group]
    assert len(shares) == N_GROUPS
    assert min(shares) > 0
    assert sum(shares) == pytest.approx(per_user(ranks, metric, 20).mean(), abs=1e-12)


def test_exposure_worked_by_hand() -> None:
    # Degrees 1 1 2 4, counts 2 0 1 3: groups 0, 1, 3 and 7 of ten, so the first three are the tail.
    found = exposure(np.array([2, 0, 1, 3]), np.array([1, 1, 2, 4]))
    assert found["ARP"] == pytest.approx((2 * 1 + 1 * 2 + 3 * 4) / 6, abs=1e-15)
    assert found["Coverage"] == 3 / 4
    assert found["TailShare"] == 3 / 6
    # Sorted 0 1 2 3: (-3*0 - 1*1 + 1*2 + 3*3) / (4 * 6).
    assert found["Gini"] == pytest.approx(10 / 24, abs=1e-15)


def test_gini_is_the_mean_difference_over_twice_the_mean() -> None:
    counts = np.random.default_rng(0).integers(0, 30, 50)
    differences = np.abs(counts[:, None] - counts[None, :]).mean()
    assert gini(counts) == pytest.approx(differences / (2 * counts.mean()), abs=1e-12)


def test_nothing_recommended_is_no_number() -> None:
    data = tiny()
    ranks = rank_all(lambda users: torch.zeros(len(users), 90), data, "valid")
    assert all(np.isnan(value) for _, _, value in fairness(ranks, data))


def test_popularity_is_that_of_clean_train() -> None:
    clean = tiny(n_items=40)
    noisy = corrupt(clean, Noise.parse("pos=1"), 0, clean)
    ranks = rank_all(lambda users: torch.arange(40.0).expand(len(users), -1), noisy, "test")
    arp = dict((name, value) for name, group, value in fairness(ranks, noisy) if not group)["ARP"]
    expected = ranks.top_counts @ clean.item_degrees / ranks.top_counts.sum()
    assert arp == pytest.approx(expected, abs=1e-12)


def test_rows_in_the_results(tmp_path: Path) -> None:
    run(grid(references=["popularity"]), tmp_path)
    with (tmp_path / "trial" / "metrics.csv").open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["split"] == "test"]
    for run_id in {row["run_id"] for row in rows}:
        own = [row for row in rows if row["run_id"] == run_id and row["k"] == "20"]
        for metric in SHARED:
            values = {row["group"]: float(row["value"]) for row in own if row["metric"] == metric}
            assert list(values) == ["", *map(str, range(1, 11))]
            assert sum(values.values()) - values[""] == pytest.approx(values[""], abs=1e-12)
        overall = {row["metric"] for row in own if not row["group"]}
        assert {"Gini", "ARP", "Coverage", "TailShare"} <= overall
