"""Samples of users: nested, whole for those who are in them, numbered without gaps."""

from decimal import Decimal
from itertools import pairwise

import numpy as np
import pytest
from scipy.sparse import csr_array

from bslbench.catalog import load_catalog
from bslbench.data.ids import ids_of
from bslbench.data.load import load
from bslbench.data.sample import sample_of, sampled
from bslbench.errors import ConfigError, DataError

SMALL = "synthetic?users=200&items=400&interactions=4000"


def pairs_of(matrix: csr_array) -> set[tuple[int, int]]:
    rows, columns = matrix.tocoo().coords
    return set(zip(rows.tolist(), columns.tolist(), strict=True))


def numbered(matrix: csr_array, users: np.ndarray, items: np.ndarray) -> set[tuple[int, int]]:
    """Return the pairs of a sample's matrix by the numbers that the whole has."""
    return {(int(users[u]), int(items[i])) for u, i in pairs_of(matrix)}


def test_smaller_samples_lie_in_larger_ones() -> None:
    whole = load(SMALL)
    shares = [Decimal(text) for text in ("0.01", "0.05", "0.25", "1")]
    parts = [sample_of(whole, share) for share in shares]
    assert [len(users) for users, _ in parts] == [2, 10, 50, 200]
    for (users, items), (more_users, more_items) in pairwise(parts):
        assert set(users) < set(more_users)
        assert set(items) <= set(more_items)


def test_a_sample_has_all_that_its_users_have_of_the_items_that_they_have_in_train() -> None:
    whole, part = load(SMALL), load(SMALL + "&sample=5%")
    users, items = sample_of(whole, Decimal("0.05"))
    assert part.name == SMALL + "&sample=5%"
    assert (part.n_users, part.n_items) == (len(users), len(items)) == part.train.shape
    assert part.item_degrees.min() > 0 and part.n_items < whole.n_items
    kept = set(items.tolist())
    for split in ("train", "valid", "test"):
        own = {(u, i) for u, i in pairs_of(getattr(whole, split)) if u in users and i in kept}
        assert numbered(getattr(part, split), users, items) == own
    lost = [i for u, i in pairs_of(whole.test) if u in users and i not in kept]
    assert lost  # or the test of what drops out would test nothing


def test_a_sample_of_users_who_have_nothing_to_learn_from_is_refused() -> None:
    data = load(SMALL)
    users, _ = sample_of(data, Decimal("0.01"))
    weak = data.train.copy()
    weak.data[np.isin(weak.tocoo().row, users)] = 0
    weak.eliminate_zeros()
    with pytest.raises(DataError, match="none of a sample of 2 users has a train pair"):
        sampled(data.with_splits(weak, data.valid), Decimal("0.01"))


def test_users_and_items_of_a_sample_are_called_what_they_are_called_in_the_whole() -> None:
    part = load(SMALL + "&sample=5%")
    users, items = sample_of(load(SMALL), Decimal("0.05"))
    ids = ids_of(load_catalog(), part.name, part)
    assert ids.users.to_pylist() == [str(user) for user in users]
    assert ids.items.to_pylist() == [str(item) for item in items]


def test_which_users_depends_on_the_datasets_seed_alone() -> None:
    first, again = load(SMALL + "&sample=25%"), load(SMALL + "&sample=25.0%")
    assert first.fingerprint == again.fingerprint and first.name == again.name
    other = load(SMALL.replace("4000", "4001") + "&sample=25%")
    assert other.fingerprint != first.fingerprint
    assert load(SMALL + "&sample=100%").name == SMALL


def test_it_comes_after_the_other_modifiers() -> None:
    part = load(SMALL + "&sample=25%&split=ood")
    assert part.name == SMALL + "&split=ood&sample=25%"
    assert 0 < part.test.nnz < load(SMALL + "&sample=25%").test.nnz


@pytest.mark.parametrize("text", ["5", "0%", "101%", "-1%", "a%", "nan%", "1e999999%", "%"])
def test_what_is_no_percentage_is_named(text: str) -> None:
    with pytest.raises(ConfigError, match=f"sample={text} is not a percentage such as 5%"):
        load(SMALL + f"&sample={text}")
