"""The synthetic dataset: what was asked for, always the same, and with something to learn."""

import tracemalloc

import numpy as np
import numpy.typing as npt
import pytest
import torch

from bslbench.data.interactions import Interactions
from bslbench.data.synthetic import generate
from bslbench.errors import ConfigError
from bslbench.evaluation.metrics import per_user
from bslbench.evaluation.ranking import rank_all
from bslbench.references import Popularity

SIZES = [
    {},
    {"users": 50, "items": 20, "interactions": 250},
    {"users": 1, "items": 20, "interactions": 5},
    {"users": 60, "items": 100, "interactions": 1500},
    {"users": 300, "items": 4000, "interactions": 9001, "seed": 3},
]


def degrees(data: Interactions) -> npt.NDArray[np.int64]:
    return np.diff(data.train.indptr) + np.diff(data.test.indptr)


@pytest.mark.parametrize("size", SIZES)
def test_keeps_its_promises(size: dict[str, int]) -> None:
    data = generate(**size)
    asked = {"users": 2000, "items": 1500, "interactions": 60_000} | size
    assert data.train.shape == data.valid.shape == data.test.shape
    assert data.train.shape == (asked["users"], asked["items"]) == (data.n_users, data.n_items)
    assert data.train.nnz + data.test.nnz == pytest.approx(asked["interactions"], rel=0.02)
    assert data.valid.nnz == 0
    assert data.train.multiply(data.test).nnz == 0
    assert degrees(data).min() >= 5
    test_degrees = np.diff(data.test.indptr)
    assert test_degrees.min() >= 1
    assert abs(test_degrees - degrees(data) / 5).max() <= 0.5
    for matrix in (data.train, data.test):
        rows = np.repeat(np.arange(data.n_users), np.diff(matrix.indptr))
        keys = rows * data.n_items + matrix.indices
        assert (np.diff(keys) > 0).all()  # sorted, no repeats
        assert (matrix.data == 1).all()
        assert matrix.indices.dtype == np.int32


def test_popularity_and_activity_have_long_tails() -> None:
    data = generate()
    popular = np.sort(data.item_degrees)[::-1]
    assert popular[: data.n_items // 10].sum() > 0.25 * popular.sum()
    assert np.corrcoef(np.arange(data.n_items), data.item_degrees)[0, 1] < 0.1  # not by id
    assert degrees(data).max() > 8 * np.median(degrees(data))


def test_a_function_of_its_parameters() -> None:
    small = {"users": 100, "items": 80, "interactions": 900}
    assert generate(**small).fingerprint == generate(**small).fingerprint
    assert generate(**small).fingerprint != generate(**small, seed=1).fingerprint
    # Another generator would be another dataset under the same name.
    assert generate().fingerprint[:12] == "e54a7f40c5c5"


def test_name_says_what_differs_from_the_defaults() -> None:
    assert generate().name == "synthetic"
    name = generate(seed=2, users=100, interactions=900).name
    assert name == "synthetic?users=100&interactions=900&seed=2"


def test_neighbours_tell_twice_as_much_as_popularity() -> None:
    data = generate()
    together = (data.train.T.astype(np.float32) @ data.train).toarray()  # [I, I]
    norms = np.sqrt(np.maximum(data.item_degrees, 1))
    similar = together / norms[:, None] / norms
    scores = torch.from_numpy((data.train @ similar).astype(np.float32))
    found = per_user(rank_all(lambda users: scores[users], data, "test"), "Recall", 20).mean()
    by_popularity = per_user(rank_all(Popularity().fit(data, 0), data, "test"), "Recall", 20).mean()
    assert 0.05 < by_popularity < 0.5 * found


def test_memory_grows_with_the_interactions() -> None:
    tracemalloc.start()
    generate(users=4000, items=20_000, interactions=24_000)  # 80 MB as a dense matrix of bytes
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 10e6


@pytest.mark.parametrize(
    ("size", "message"),
    [
        ({"users": 0}, "at least 1 user"),
        ({"seed": -1}, "seed 0"),
        ({"items": 19}, "at least 20"),
        ({"interactions": 9_999}, "10000 .5 per user. to 750000"),
        ({"interactions": 750_001}, "a quarter of all pairs"),
    ],
)
def test_says_what_cannot_be(size: dict[str, int], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        generate(**size)
