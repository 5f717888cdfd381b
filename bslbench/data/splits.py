"""Splits: what is held out of train to select the best epoch by."""

from typing import Literal

import numpy as np
import numpy.typing as npt
from scipy.sparse import csr_array

from bslbench.data.interactions import IntArray, Interactions, csr_of
from bslbench.errors import DataError

MIN_DEGREE = 5
"""Users with fewer train interactions keep them all."""


def hold_out(data: Interactions, selection: Literal["valid", "test"]) -> Interactions:
    """Return `data` with the valid split that the best epoch is selected by.

    Under ``"valid"`` that is the dataset's own valid split if it has one, else
    max(1, floor(d / 10)) of the d train interactions of each user with d >= 5, drawn by
    ``data.split_seed``: all runs on a dataset see one split. Under ``"test"`` nothing is held
    out, and a valid split that the dataset has is emptied: neither trained on nor masked.

    Raises
    ------
    DataError
        If nobody has enough train interactions.
    """
    if selection == "test":
        return data.with_splits(data.train, take(data.valid, np.zeros(data.valid.nnz, dtype=bool)))
    if data.valid.nnz:
        return data
    counts = np.where(data.user_degrees >= MIN_DEGREE, np.maximum(1, data.user_degrees // 10), 0)
    if not counts.any():
        raise DataError(
            f"{data.name}: no user has {MIN_DEGREE} train interactions to hold one out for "
            'validation; use selection = "test"'
        )
    held_out = choose(data.train, counts, np.random.SeedSequence([data.split_seed, *b"hold out"]))
    return data.with_splits(take(data.train, ~held_out), take(data.train, held_out))


def choose(
    matrix: csr_array, counts: IntArray, seed: np.random.SeedSequence
) -> npt.NDArray[np.bool_]:
    """Mark ``counts[u]`` entries of each row u, drawn uniformly without replacement.

    Parameters
    ----------
    matrix
        CSR [n, m].
    counts
        [n] int64; a row with fewer entries is marked whole.

    Returns
    -------
    array
        [nnz] bool, in the order of ``matrix.indices``.
    """
    degrees = np.diff(matrix.indptr)
    rows = np.repeat(np.arange(len(degrees)), degrees)
    draws = np.random.PCG64(seed).random_raw(matrix.nnz)  # the same in all numpy versions
    by_draw = np.lexsort((draws, rows))  # row by row, each in random order
    place = np.arange(matrix.nnz) - matrix.indptr[rows]
    marked = np.empty(matrix.nnz, dtype=bool)
    marked[by_draw] = place < counts[rows]
    return marked


def take(matrix: csr_array, marked: npt.NDArray[np.bool_]) -> csr_array:
    """Return the marked entries of a CSR matrix of ones, `marked` [nnz] bool."""
    indptr = np.concatenate([[0], np.cumsum(marked)])[matrix.indptr]
    return csr_of(indptr, matrix.indices[marked], matrix.shape[1])
