"""The k best of each row of scores, on the CPU: most scores are looked at once, 16 at a time.

Scores are compared as integers in the same order as the floats, which vectorises, leaves no
special case for NaN, and lets (score, place in the tie order) be packed into one 64-bit key.
"""

from typing import Any

import numba
import numpy as np

from bslbench.kernels.cpu import F32, I32, I64

CHUNK = 64
"""Scores that are passed over together if their maximum is too small."""

MAGNITUDE = np.int32(0x7FFFFFFF)
INFINITY = np.int32(0x7F800000)
LOWEST = np.int32(-0x7F800000)
"""What minus infinity, and NaN with it, becomes as an integer."""
NOTHING = np.int64(LOWEST) << 32
"""The key of a place left over; the lower half of an item's is not 0."""


@numba.njit(inline="always", cache=True)
def _ordered(bits: Any) -> Any:
    """Map the bits of a float32 to an integer of the same order; -0 = 0, NaN = -infinity.

    numba widens what it computes to 64 bits, of which a register holds half as many.
    """
    magnitude = np.int32(bits & MAGNITUDE)
    if magnitude > INFINITY:
        return LOWEST
    sign = np.int32(bits >> np.int32(31))  # 0 or -1
    return np.int32(np.int32(magnitude ^ sign) - sign)  # without a branch to mispredict


@numba.njit(cache=True)
def _select(values: Any, place: int) -> None:
    """Rearrange `values` in place: none before `place` is larger, none behind it smaller.

    Hoare's FIND; numba's `np.partition` takes ten seconds to compile.
    """
    low, high = 0, len(values) - 1
    while low < high:
        pivot = values[(low + high) // 2]
        i, j = low, high
        while i <= j:
            while values[i] < pivot:
                i += 1
            while values[j] > pivot:
                j -= 1
            if i <= j:
                values[i], values[j] = values[j], values[i]
                i += 1
                j -= 1
        if j < place < i:
            return
        if place <= j:
            high = j
        else:
            low = i


@numba.njit(cache=True, nogil=True)
def _best_of_row(row: I32, seen: I32, tie_order: I32, best: I64) -> None:
    """Write the keys of one row's best unseen items, and `NOTHING` for the rest, into `best` [k].

    A row costs one pass for the maxima of its chunks. At least k of the largest k + (number of
    seen items) maxima belong to unseen items, so the smallest of these maxima is a lower bound for
    what can be among the k best, and only chunks that reach it are opened.
    """
    n_items, k = len(tie_order), len(best)
    n_chunks = n_items // CHUNK  # the items left over are always looked at
    maxima = np.empty(n_chunks, np.int32)
    for c in range(n_chunks):
        chunk = row[c * CHUNK : (c + 1) * CHUNK]
        highest = LOWEST
        for j in range(CHUNK):
            highest = max(highest, _ordered(chunk[j]))
        maxima[c] = highest
    enough = k + len(seen)
    bound = LOWEST
    if enough <= n_chunks:
        rest = maxima.copy()
        _select(rest, n_chunks - enough)
        bound = rest[n_chunks - enough]

    found, near = np.empty(8 * k, np.int64), np.empty(CHUNK, np.int64)
    n_found, next_seen = 0, 0
    floor = np.iinfo(np.int64).min
    for c in range(n_chunks + 1):
        if c < n_chunks and maxima[c] < bound:
            continue
        n_near = 0
        for j in range(c * CHUNK, min(n_items, (c + 1) * CHUNK)):
            near[n_near] = j  # without a branch for each score
            n_near += _ordered(row[j]) >= bound
        for j in near[:n_near]:
            key = (np.int64(_ordered(row[j])) << 32) | np.int64(n_items - tie_order[j])
            if key < floor:
                continue
            while next_seen < len(seen) and seen[next_seen] < j:
                next_seen += 1
            if next_seen < len(seen) and seen[next_seen] == j:
                continue
            found[n_found] = key
            n_found += 1
            if n_found == len(found):
                _select(found, n_found - k)
                for r in range(k):
                    found[r] = found[n_found - k + r]
                n_found = k
                floor = found[0]
                bound = np.int32(floor >> 32)

    n_best = min(k, n_found)
    _select(found[:n_found], n_found - n_best)
    for r in range(k):
        best[r] = found[n_found - n_best + r] if r < n_best else NOTHING


@numba.njit(parallel=True, cache=True, nogil=True)
def best_keys(
    bits: I32, width: int, seen_indptr: I64, seen_indices: I32, tie_order: I32, keys: I64
) -> None:
    """Write the keys of the k best unseen items of each row, in no order.

    Parameters
    ----------
    bits, width
        Scores of n rows float32, viewed as int32: row i is ``bits[i * width :]``, I numbers.
    seen_indptr, seen_indices
        CSR rows [n + 1], [nnz]: items that must not appear, ascending within a row.
    tie_order
        [I]: of two items with equal scores the one with the lower number is better.
    keys
        [n, k], written: the score as an integer above, I minus the place in the tie order below.
        Places left over get `NOTHING`.
    """
    for i in numba.prange(len(keys)):
        row = bits[i * width : i * width + len(tie_order)]
        seen = seen_indices[seen_indptr[i] : seen_indptr[i + 1]]
        _best_of_row(row, seen, tie_order, keys[i])


def unpacked(keys: I64, tie_order: I32) -> tuple[I32, F32]:
    """Return the items, -1 for `NOTHING`, and the scores of keys, any shape."""
    n_items = len(tie_order)
    by_order = np.empty(n_items + 1, np.int32)
    by_order[tie_order] = np.arange(n_items, dtype=np.int32)
    by_order[n_items] = -1
    ordered = (keys >> 32).astype(np.int32)
    bits = np.where(ordered >= 0, ordered, ~MAGNITUDE | -ordered)  # the inverse of `_ordered`
    return by_order[n_items - (keys & 0xFFFFFFFF)], bits.view(np.float32)
