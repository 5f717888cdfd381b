"""Numba kernels that draw noise: false positives for train, false negatives for a batch.

Each row draws from a stream of its own, counter by counter, so that bits never depend on the
thread count.
"""

import numba
import numpy as np
import numpy.typing as npt

from bslbench.kernels.cpu import I32, I64, PARTS, group_row, jit, mix

F64 = npt.NDArray[np.float64]
Marks = npt.NDArray[np.bool_]


@jit
def draw_positives(
    key: int,
    starts: I64,
    taken_indptr: I32,
    taken_indices: I32,
    pool: I32,
    n_items: int,
    distinct: bool,
    out: I32,
) -> None:
    """Write into ``out[starts[u]:starts[u + 1]]`` items drawn for each user u.

    An item is that of a uniform place of `pool`, drawn again while it is one of the user's `taken`
    (a CSR matrix without its data) or, if `distinct`, one that the user was given before. Whoever
    calls sees to it that there are enough.
    """
    golden = np.uint64(0x9E3779B97F4A7C15)
    n_users = len(starts) - 1
    per_part = (n_users + PARTS - 1) // PARTS
    for part in numba.prange(PARTS):
        refused = np.zeros(n_items, np.bool_)
        for u in range(part * per_part, min(n_users, (part + 1) * per_part)):
            first, last = taken_indptr[u], taken_indptr[u + 1]
            for c in range(first, last):
                refused[taken_indices[c]] = True
            stream = mix(np.uint64(key) + np.uint64(u) * golden)
            counter = 0
            for j in range(starts[u], starts[u + 1]):
                while True:
                    counter += 1
                    bits = mix(stream + np.uint64(counter) * golden) >> np.uint64(11)
                    item = pool[int(float(bits) * 2.0**-53 * len(pool))]
                    if not refused[item]:
                        break
                out[j] = item
                refused[item] = distinct
            for c in range(first, last):
                refused[taken_indices[c]] = False
            for j in range(starts[u], starts[u + 1]):
                refused[out[j]] = False


@jit
def draw_false_negatives(
    key: int,
    n_items: int,
    block: int,
    n_pos: int,
    users: I64,
    shares: F64,
    indptr: I32,
    indices: I32,
    marks: Marks,
    index: I32,
    offsets: I32,
    order: I64,
) -> None:
    """Fill ``index[:, n_pos:]`` as `draw_grouped` does, some draws from the user's own list.

    With probability ``shares[u]``, u = users[i], a draw of row i is uniform over the items that a
    CSR matrix (`indptr`, `indices`, one at least) lists for u, else uniform over all others, by
    drawing again. The low 32 bits of splitmix64 choose the side and the high 32 the item (bias
    below I / 2^32). `marks` [n, n_items] is false before and after: a row for each of n parts.
    """
    n_rows, n_neg = index.shape[0], index.shape[1] - n_pos
    golden, one = np.uint64(0x9E3779B97F4A7C15), np.uint64(1)
    low, half = np.uint64(0xFFFFFFFF), np.uint64(32)
    n_parts = len(marks)
    per_part = (n_rows + n_parts - 1) // n_parts
    for part in numba.prange(n_parts):
        listed = marks[part]
        drawn, again = np.empty(n_neg, np.int32), np.empty(n_neg, np.int32)
        for i in range(part * per_part, min(n_rows, (part + 1) * per_part)):
            first, last = np.uint64(indptr[users[i]]), np.uint64(indptr[users[i] + 1])
            for c in range(first, last):
                listed[np.uint64(np.uint32(indices[c]))] = True
            stream = mix(np.uint64(key) + np.uint64(i) * golden)
            below = np.uint64(shares[users[i]] * 2.0**32)
            n_again = 0
            # No branch that the machine could guess wrong: whoever must draw again is written down.
            for j in range(np.uint64(n_neg)):
                bits = mix(stream + (j + one) * golden)
                false = (bits & low) < below
                place = ((bits >> half) * (last - first if false else np.uint64(n_items))) >> half
                own = np.uint64(np.uint32(indices[first + place if false else np.uint64(0)]))
                item = own if false else place
                drawn[j] = item
                again[n_again] = j
                n_again += (not false) & listed[item]
            counter = np.uint64(n_neg)
            for j in again[:n_again]:
                item = np.uint64(drawn[j])
                while listed[item]:
                    counter += one
                    bits = mix(stream + counter * golden)
                    item = ((bits >> half) * np.uint64(n_items)) >> half
                drawn[j] = item
            for c in range(first, last):
                listed[np.uint64(np.uint32(indices[c]))] = False
            group_row(drawn, i, block, n_pos, index, offsets, order)
