"""Hold-out for validation: how many, which, and always the same."""

import numpy as np
import pytest

from bslbench.data.interactions import Interactions, to_csr
from bslbench.data.splits import choose, hold_out, take
from bslbench.errors import DataError
from tests.fixtures import NONE, tiny

DEGREES = np.array([0, 1, 4, 5, 9, 10, 19, 20, 39])
HELD_OUT = [0, 0, 0, 1, 1, 1, 1, 2, 3]


def with_degrees(split_seed: int = 0, valid: bool = False) -> Interactions:
    """User u has the items 0 to DEGREES[u] - 1 in train, item 40 in test, 41 perhaps in valid."""
    n_users = len(DEGREES)
    train = np.repeat(np.arange(n_users), DEGREES), np.concatenate([*map(np.arange, DEGREES)])
    users = np.arange(n_users)
    own = (users, np.full(n_users, 41)) if valid else NONE
    test = users, np.full(n_users, 40)
    return Interactions.from_pairs("degrees", n_users, 42, train, own, test, split_seed)


def test_a_tenth_of_each_user_with_five_or_more() -> None:
    data = with_degrees()
    split = hold_out(data, "valid")
    assert np.diff(split.valid.indptr).tolist() == HELD_OUT
    assert np.diff(split.train.indptr).tolist() == (DEGREES - HELD_OUT).tolist()


def test_train_and_valid_are_what_was_train() -> None:
    data = with_degrees()
    split = hold_out(data, "valid")
    assert (split.train + split.valid != data.train).nnz == 0
    assert split.train.multiply(split.valid).nnz == 0
    assert split.valid.has_sorted_indices
    assert split.valid.dtype == np.uint8
    assert split.valid.indices.dtype == np.int32
    assert split.fingerprint == data.fingerprint
    assert split.test is data.test


def test_drawn_by_the_split_seed_alone() -> None:
    first, again, other = (hold_out(with_degrees(seed), "valid").valid for seed in (0, 0, 1))
    assert (first != again).nnz == 0
    assert (first != other).nnz > 0
    # The draw is a part of the protocol: it must never change.
    assert first.indices.tolist() == [1, 3, 4, 6, 9, 18, 0, 25, 33]


def test_own_valid_split_is_used_or_left_aside() -> None:
    data = with_degrees(valid=True)
    assert hold_out(data, "valid") is data
    split = hold_out(data, "test")
    assert split.valid.nnz == 0
    assert split.valid.shape == data.valid.shape
    assert (split.train != data.train).nnz == 0


def test_test_selection_holds_nothing_out() -> None:
    data = tiny()
    split = hold_out(data, "test")
    assert split.valid.nnz == 0
    assert (split.train != data.train).nnz == 0


def test_nobody_has_enough() -> None:
    with pytest.raises(DataError, match='use selection = "test"'):
        hold_out(tiny(per_user=4), "valid")


def test_choose_is_uniform_and_without_replacement() -> None:
    n_rows, degree, count = 20_000, 4, 3
    users = np.repeat(np.arange(n_rows), degree)
    matrix = to_csr(users, np.tile(np.arange(degree), n_rows), n_rows, degree)
    marked = choose(matrix, np.full(n_rows, count), np.random.SeedSequence(0))
    chosen = marked.reshape(n_rows, degree)
    assert (chosen.sum(axis=1) == count).all()
    assert chosen.mean(axis=0) == pytest.approx(count / degree, abs=0.02)  # six deviations
    both = (chosen[:, 0] & chosen[:, 1]).mean()
    assert both == pytest.approx(0.5, abs=0.02)  # 3 / 4 times 2 / 3


def test_choose_marks_whole_rows_that_have_too_few() -> None:
    matrix = to_csr(np.array([0, 0, 2]), np.array([1, 3, 0]), 3, 4)
    assert choose(matrix, np.array([5, 1, 0]), np.random.SeedSequence(0)).tolist() == [1, 1, 0]


def test_take_keeps_rows_apart() -> None:
    matrix = to_csr(np.array([0, 0, 2]), np.array([1, 3, 0]), 3, 4)
    part = take(matrix, np.array([False, True, True]))
    assert part.toarray().tolist() == [[0, 0, 0, 1], [0, 0, 0, 0], [1, 0, 0, 0]]
