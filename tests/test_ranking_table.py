"""Mean ranks over places, worked out by hand."""

import pytest

from bslbench.report.ranking_table import ranking_table
from tests.stores import cell, popularity, write

PLACES = [(d, b) for d in ("yelp2018", "gowalla", "movielens-1m") for b in ("mf", "lightgcn")]


def store(results, values, places=PLACES):
    """Write seeds 0 and 1 of each loss at each place: means of Recall@20, one above, one below."""
    write(
        results,
        [
            (cell(loss, seed, dataset=d, backbone=b), {"Recall@20": mean + (seed - 0.5) / 10})
            for (d, b), own in zip(places, values, strict=True)
            for loss, mean in own.items()
            for seed in (0, 1)
        ]
        + [(popularity(), {"Recall@20": 0.05})],
    )


def entries(table):
    return {row[0].text: (row[1].value, row[2].value, row[1].interval) for row in table.rows}


def test_ranks_by_hand(tmp_path) -> None:
    clear = {"sl": 0.5, "bpr": 0.4, "mse": 0.3}
    store(tmp_path, [clear] * 5 + [{"sl": 0.4, "bpr": 0.4, "mse": 0.5}])
    table = ranking_table(tmp_path, "trial", ["Recall@20"])
    found = entries(table)
    assert {loss: found[loss][0] for loss in found} == {
        "sl": pytest.approx((5 * 1 + 2.5) / 6),
        "bpr": pytest.approx((5 * 2 + 2.5) / 6),
        "mse": pytest.approx((5 * 3 + 1) / 6),
    }
    assert [found[loss][1] for loss in ("sl", "bpr", "mse")] == [5, 0, 1]
    half = 2.343 * (3 * 4 / (6 * 6)) ** 0.5 / 2  # q of three, Demsar 2006, table 5
    low, high = found["sl"][2]
    assert (low, high) == pytest.approx((7.5 / 6 - half, 7.5 / 6 + half), abs=1e-3)
    [note] = [note for note in table.notes if "Friedman" in note]
    # Ranks sum to 7.5, 12.5, 16; one tie of two among six times three: Friedman's chi-square by
    # hand is (12 * 468.5 / (6 * 3 * 4) - 3 * 6 * 4) / (1 - 6 / (6 * 24)) = 6.348, p = exp(-3.174)
    assert "6 places" in note and "p 0.042 " in note


def test_few_places_and_gaps_are_said(tmp_path) -> None:
    clear = {"sl": 0.5, "bpr": 0.4, "mse": 0.3}
    store(tmp_path, [clear] * 5 + [{"sl": 0.5, "bpr": 0.4}])
    table = ranking_table(tmp_path, "trial", ["Recall@20"])
    assert entries(table)["sl"] == (1.0, 5, None)
    assert "Recall@20: too few to rank: 5 of at least 6 places" in table.notes
    assert "Recall@20: without a value of each loss: movielens-1m, lightgcn, clean" in table.notes


def test_references_alone_have_no_ranks(tmp_path) -> None:
    store(tmp_path, [], [])
    assert ranking_table(tmp_path, "trial", ["Recall@20"]).rows == ()


def test_two_losses_are_sent_elsewhere(tmp_path) -> None:
    store(tmp_path, [{"sl": 0.5, "bpr": 0.4}] * 6)
    table = ranking_table(tmp_path, "trial", ["Recall@20"])
    assert entries(table)["sl"][::2] == (1.0, None)
    assert any("--table significance" in note for note in table.notes)
