"""Mean ranks over places, worked out by hand."""

import pytest

from bslbench.report.ranking_table import ranking_table
from tests.stores import cell, popularity, write

PLACES = [(d, b) for d in ("yelp2018", "gowalla", "movielens-1m") for b in ("mf", "lightgcn")]


def runs(values, places=PLACES, **noise):
    """Return seeds 0 and 1 of each loss at each place: means of Recall@20, one above, one below."""
    return [
        (cell(loss, seed, dataset=d, backbone=b, **noise), {"Recall@20": mean + (seed - 0.5) / 10})
        for (d, b), own in zip(places, values, strict=True)
        for loss, mean in own.items()
        for seed in (0, 1)
    ]


def store(results, values, places=PLACES):
    write(results, [*runs(values, places), (popularity(), {"Recall@20": 0.05})])


def entries(table):
    return {row[1].text: (row[2].value, row[3].value, row[2].interval) for row in table.rows}


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


def test_splits_of_one_dataset_are_one_place(tmp_path) -> None:
    clear = {"sl": 0.5, "bpr": 0.4, "mse": 0.3}
    turned = {"sl": 0.3, "bpr": 0.4, "mse": 0.5}
    splits = [("movielens-1m?resplit=" + str(n), "mf") for n in range(1, 6)]
    store(tmp_path, [clear] * 4 + [turned, turned], [*splits, ("yelp2018", "mf")])
    table = ranking_table(tmp_path, "trial", ["Recall@20"])
    assert "Recall@20: too few to rank: 2 of at least 6 places" in table.notes
    # Ranks of sl: (1 + 1 + 1 + 1 + 3) / 5 on MovieLens, 3 on Yelp.
    assert entries(table)["sl"][0] == pytest.approx((7 / 5 + 3) / 2)


def test_few_places_and_gaps_are_said(tmp_path) -> None:
    clear = {"sl": 0.5, "bpr": 0.4, "mse": 0.3}
    store(tmp_path, [clear] * 5 + [{"sl": 0.5, "bpr": 0.4}])
    table = ranking_table(tmp_path, "trial", ["Recall@20"])
    assert entries(table)["sl"] == (1.0, 5, None)
    assert "Recall@20: too few to rank: 5 of at least 6 places" in table.notes
    assert "Recall@20: without a value of each loss: movielens-1m, lightgcn" in table.notes


def test_references_alone_have_no_ranks(tmp_path) -> None:
    store(tmp_path, [], [])
    table = ranking_table(tmp_path, "trial", ["Recall@20"])
    assert (table.rows, table.notes) == ((), ())


def test_two_losses_are_sent_elsewhere(tmp_path) -> None:
    store(tmp_path, [{"sl": 0.5, "bpr": 0.4}] * 6)
    table = ranking_table(tmp_path, "trial", ["Recall@20"])
    assert entries(table)["sl"][::2] == (1.0, None)
    assert any("--table significance" in note for note in table.notes)


def test_noise_makes_no_places(tmp_path) -> None:
    clear = {"sl": 0.5, "bpr": 0.4, "mse": 0.3}
    turned = {"sl": 0.1, "bpr": 0.2, "mse": 0.3}
    noisy = runs([turned] * 6, noise_pos=0.2) + runs([turned] * 6, noise_neg=5.0)
    write(tmp_path / "clean", runs([clear] * 6) + noisy)
    table = ranking_table(tmp_path / "clean", "trial", ["Recall@20"])
    assert [row[0].text for row in table.rows] == ["clean"] * 3
    assert {loss: found[0] for loss, found in entries(table).items()} == {
        "sl": 1,
        "bpr": 2,
        "mse": 3,
    }
    assert "clean runs alone are ranked, not those at pos=0.2; neg=5" in table.notes
    assert sum("Recall@20: 6 places" in note for note in table.notes) == 1
    few = runs([clear] * 3, PLACES[:3]) + runs([turned] * 3, PLACES[:3], noise_pos=0.2)
    write(tmp_path / "few", few)
    table = ranking_table(tmp_path / "few", "trial", ["Recall@20"])
    assert "Recall@20: too few to rank: 3 of at least 6 places" in table.notes


def test_without_clean_runs_levels_are_ranked_apart(tmp_path) -> None:
    clear = {"sl": 0.5, "bpr": 0.4, "mse": 0.3}
    turned = {"sl": 0.1, "bpr": 0.2, "mse": 0.3}
    pos, neg = runs([clear] * 6, noise_pos=0.2), runs([turned] * 5, PLACES[:5], noise_neg=5.0)
    write(tmp_path, pos + neg)
    table = ranking_table(tmp_path, "trial", ["Recall@20"])
    rows = [(row[0].text, row[1].text, row[2].value, row[2].place) for row in table.rows]
    assert rows == [
        *[("pos=0.2", "sl", 1, 1), ("pos=0.2", "bpr", 2, 2), ("pos=0.2", "mse", 3, 0)],
        *[("neg=5", "sl", 3, 0), ("neg=5", "bpr", 2, 2), ("neg=5", "mse", 1, 1)],
    ]
    assert [row[2].interval is None for row in table.rows] == [False] * 3 + [True] * 3
    assert table.notes[0] == "no clean runs: each level of noise is ranked apart: pos=0.2; neg=5"
    assert any(note.startswith("pos=0.2, Recall@20: 6 places") for note in table.notes)
    assert "neg=5, Recall@20: too few to rank: 5 of at least 6 places" in table.notes
