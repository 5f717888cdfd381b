"""Numba kernels of the reference recommenders; each row of a result belongs to one thread."""

import numba
import numpy as np

from bslbench.kernels.cpu import F32, I32, I64, jit, mix


@jit
def common_users(
    first: int, item_indptr: I32, item_users: I32, user_indptr: I32, user_items: I32, out: F32
) -> None:
    """Write how many users each of a range of items has in common with every item.

    Parameters
    ----------
    first
        Id of the first item of the range.
    item_indptr, item_users, user_indptr, user_items
        The train matrix as CSR, item by item and user by user.
    out
        [n, I], written: row r is item ``first + r``.
    """
    for r in numba.prange(len(out)):
        for j in range(out.shape[1]):
            out[r, j] = 0
        for e in range(item_indptr[first + r], item_indptr[first + r + 1]):
            user = item_users[e]
            for f in range(user_indptr[user], user_indptr[user + 1]):
                out[r, user_items[f]] += 1


@jit
def add_rows(
    users: I64, indptr: I32, indices: I32, row_indptr: I32, columns: I32, values: F32, out: F32
) -> None:
    """Add to each user's row the sparse rows of the items it has, in the order of their ids.

    Parameters
    ----------
    users
        [n].
    indptr, indices
        The items of all users as CSR.
    row_indptr, columns, values
        A sparse matrix [I, I] as CSR.
    out
        [n, I], added to.
    """
    for r in numba.prange(len(users)):
        for e in range(indptr[users[r]], indptr[users[r] + 1]):
            item = indices[e]
            for f in range(row_indptr[item], row_indptr[item + 1]):
                out[r, columns[f]] += values[f]


@jit
def draw_uniform(key: int, users: I64, out: F32) -> None:
    """Fill ``out[r, i]`` with a number in [0, 1) that is a function of (key, users[r], i).

    24 bits of splitmix64 at counter i of the user's own stream.
    """
    golden = np.uint64(0x9E3779B97F4A7C15)
    for r in numba.prange(len(users)):
        stream = mix(np.uint64(key) + np.uint64(users[r]) * golden)
        for i in range(out.shape[1]):
            bits = mix(stream + np.uint64(i + 1) * golden) >> np.uint64(40)
            out[r, i] = np.float32(bits) * np.float32(2.0**-24)
