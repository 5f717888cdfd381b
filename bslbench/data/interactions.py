"""Interactions: who consumed what, split into train, valid and test."""

import hashlib
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import numpy.typing as npt
from scipy.sparse import csr_array

from bslbench.errors import DataError

IntArray = npt.NDArray[np.int64]


@dataclass(frozen=True)
class FalseNegatives:
    """What noise has drawn as negatives at a rate of its own.

    Attributes
    ----------
    items
        CSR [n_users, n_items].
    shares
        [n_users] float64: a negative of user u is with this probability one of its row of `items`.
    """

    items: csr_array
    shares: npt.NDArray[np.float64]


@dataclass(frozen=True)
class Corruption:
    """What noise has done to a dataset (`bslbench.data.noise`).

    Attributes
    ----------
    clean
        The train split before it.
    labels
        The validation pairs that pick the best epoch; the dataset's `valid` stay what is masked
        when test is ranked.
    false_negatives
        None where negatives are drawn as ever.
    """

    clean: csr_array
    labels: csr_array
    false_negatives: FalseNegatives | None = None


@dataclass(frozen=True)
class Interactions:
    """One dataset, ready to train on.

    Attributes
    ----------
    name
        Name with its modifiers, such as ``yelp2018`` or ``synthetic?users=1e4``.
    n_users, n_items
        Sizes of the id spaces; ids are contiguous and start at 0.
    train, valid, test
        CSR matrices [n_users, n_items] of uint8 ones with sorted int32 indices; `valid` may be
        empty. They are pairwise disjoint unless the catalog allows an overlap.
    fingerprint
        sha256 (64 hex digits) over the sizes and the canonical arrays *as parsed*, before any
        hold-out or noise: it names the data that a result was made from.
    split_seed
        Seed of the validation hold-out, a property of the dataset and never of a run.
    corruption
        What noise has done to it; None where there is none.
    kept
        Of a sample: which users and items of the whole are in it, ascending; else None.
    """

    name: str
    n_users: int
    n_items: int
    train: csr_array
    valid: csr_array
    test: csr_array
    fingerprint: str
    split_seed: int = 0
    corruption: Corruption | None = None
    kept: tuple[IntArray, IntArray] | None = None

    @classmethod
    def from_pairs(
        cls,
        name: str,
        n_users: int,
        n_items: int,
        train: tuple[IntArray, IntArray],
        valid: tuple[IntArray, IntArray],
        test: tuple[IntArray, IntArray],
        split_seed: int = 0,
    ) -> "Interactions":
        """Build from (users, items) arrays of pairs; repeated pairs collapse.

        Raises
        ------
        DataError
            If an id lies outside the id space.
        """
        matrices = [to_csr(*pairs, n_users, n_items) for pairs in (train, valid, test)]
        train_csr, valid_csr, test_csr = matrices
        fingerprint = fingerprint_of(*matrices)
        return cls(name, n_users, n_items, train_csr, valid_csr, test_csr, fingerprint, split_seed)

    @property
    def clean_train(self) -> csr_array:
        """The train split before noise."""
        return self.train if self.corruption is None else self.corruption.clean

    @property
    def labels(self) -> csr_array:
        """The validation pairs that pick the best epoch."""
        return self.valid if self.corruption is None else self.corruption.labels

    @cached_property
    def item_degrees(self) -> IntArray:
        """Train interactions per item, [n_items] int64."""
        return np.bincount(self.train.indices, minlength=self.n_items).astype(np.int64)

    @cached_property
    def user_degrees(self) -> IntArray:
        """Train interactions per user, [n_users] int64."""
        return np.diff(self.train.indptr).astype(np.int64)

    def with_splits(self, train: csr_array, valid: csr_array) -> "Interactions":
        """Return the same dataset with another train and valid split; the fingerprint stays."""
        return replace(self, train=train, valid=valid)


def to_csr(users: IntArray, items: IntArray, n_users: int, n_items: int) -> csr_array:
    """Return pairs as a CSR matrix [n_users, n_items] of uint8 ones, sorted, without repeats."""
    if users.size:
        if int(users.max()) >= n_users or int(users.min()) < 0:
            raise DataError(f"user id {int(users.max())} outside 0..{n_users - 1}")
        if int(items.max()) >= n_items or int(items.min()) < 0:
            raise DataError(f"item id {int(items.max())} outside 0..{n_items - 1}")
    keys = np.sort(users.astype(np.int64) * n_items + items)
    keys = keys[np.diff(keys, prepend=-1) > 0]  # np.unique hashes: 20 times slower here
    indptr = np.searchsorted(keys, np.arange(n_users + 1, dtype=np.int64) * n_items)
    return csr_of(indptr, (keys % n_items).astype(np.int32), n_items)


def csr_of(
    indptr: npt.NDArray[np.integer], indices: npt.NDArray[np.int32], n_items: int
) -> csr_array:
    """Wrap (possibly memory-mapped) `indptr` and sorted `indices` as a CSR matrix, uncopied."""
    ones = np.ones(len(indices), dtype=np.uint8)
    matrix = csr_array(
        (ones, indices, indptr.astype(np.int32, copy=False)), shape=(len(indptr) - 1, n_items)
    )
    matrix.has_sorted_indices = True
    return matrix


def fingerprint_of(*matrices: csr_array) -> str:
    """Return the sha256 (hex) over shapes, row pointers and indices of CSR matrices."""
    digest = hashlib.sha256()
    for matrix in matrices:
        digest.update(np.asarray(matrix.shape, dtype="<i8").tobytes())
        digest.update(matrix.indptr.astype("<i8").tobytes())
        digest.update(matrix.indices.astype("<i4").tobytes())
    return digest.hexdigest()
