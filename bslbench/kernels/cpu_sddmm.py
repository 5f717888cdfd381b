"""SDDMM and its gradients by numba: one set of kernels for each embedding size.

With the size a constant, a row's loop is unrolled into whole vector registers; unsigned indices
spare the test for negative ones. Together they take a quarter off.
"""

from functools import lru_cache
from typing import Any, NamedTuple

import numba
import numpy as np
from numba import uint32, uint64

from bslbench.kernels.cpu import F32, I32, jit, jit_in_order


class Kernels(NamedTuple):
    """The kernels for rows of one length.

    Shared parameters: `users` [B, d] and `items` [I, d]; `user_scale` [B] and `item_scale` [I],
    the factors on their products; `index`, `offsets` and `n_pos` as `sddmm.Index` has them;
    `grad` [B, K + M], the gradient of the scores.
    """

    forward: Any
    """(users, items, user_scale, item_scale, index, offsets, n_pos, out [B, K + M])."""
    add_items: Any
    """(grad, items, item_scale, index, offsets, n_pos, n_parts, out [B, d])."""
    add_users: Any
    """(grad, users, user_scale, index, offsets, n_pos, block, out [I, d])."""
    through_norm: Any
    """(rows [n, d], scale [n], pull [n], grad_squared [n], grad [n, d])."""


@lru_cache
def kernels(dim: int) -> Kernels:
    """Return the kernels for embeddings of `dim` numbers, compiled at their first call."""
    d = uint64(dim)

    @jit
    def forward(
        users: F32,
        items: F32,
        user_scale: F32,
        item_scale: F32,
        index: I32,
        offsets: I32,
        n_pos: int,
        out: F32,
    ) -> None:
        """Write ``out[i, c] = user_scale[i] item_scale[j] <users[i], items[j]>``, j = index[i, c].

        Part 0 takes the positives, part b + 1 the negatives of block b.
        """
        for b in numba.prange(offsets.shape[1]):
            for i in range(users.shape[0]):
                user, scale, columns, row = users[i], user_scale[i], index[i], out[i]
                first = uint64(0 if b == 0 else offsets[i, b - 1])
                last = uint64(n_pos if b == 0 else offsets[i, b])
                for c in range(first, last):
                    j = uint64(uint32(columns[c]))
                    item = items[j]
                    total = np.float32(0)
                    for k in range(d):
                        total += user[k] * item[k]
                    row[c] = total * scale * item_scale[j]

    @jit_in_order
    def add_items(
        grad: F32,
        items: F32,
        item_scale: F32,
        index: I32,
        offsets: I32,
        n_pos: int,
        n_parts: int,
        out: F32,
    ) -> None:
        """Write ``out[i] = sum_c grad[i, c] item_scale[j] items[j]``, added in column order.

        One part for each thread is best: the more rows share a block, the more find it in the
        cache.
        """
        n_rows = out.shape[0]
        per_part = (n_rows + n_parts - 1) // n_parts
        for part in numba.prange(n_parts):
            first_row = part * per_part
            last_row = min(n_rows, first_row + per_part)
            for b in range(offsets.shape[1]):
                for i in range(first_row, last_row):
                    total, columns, weights = out[i], index[i], grad[i]
                    if b == 0:
                        total[:] = 0
                    c = uint64(0 if b == 0 else offsets[i, b - 1])
                    last = uint64(n_pos if b == 0 else offsets[i, b])
                    while c + uint64(4) <= last:  # four rows for each load and store of the sum
                        j0, j1 = uint64(uint32(columns[c])), uint64(uint32(columns[c + uint64(1)]))
                        j2 = uint64(uint32(columns[c + uint64(2)]))
                        j3 = uint64(uint32(columns[c + uint64(3)]))
                        w0 = weights[c] * item_scale[j0]
                        w1 = weights[c + uint64(1)] * item_scale[j1]
                        w2 = weights[c + uint64(2)] * item_scale[j2]
                        w3 = weights[c + uint64(3)] * item_scale[j3]
                        for k in range(d):
                            half = total[k] + w0 * items[j0, k] + w1 * items[j1, k]
                            total[k] = half + w2 * items[j2, k] + w3 * items[j3, k]
                        c += uint64(4)
                    while c < last:
                        j0 = uint64(uint32(columns[c]))
                        w0 = weights[c] * item_scale[j0]
                        for k in range(d):
                            total[k] += w0 * items[j0, k]
                        c += uint64(1)

    @jit_in_order
    def add_users(
        grad: F32,
        users: F32,
        user_scale: F32,
        index: I32,
        offsets: I32,
        n_pos: int,
        block: int,
        out: F32,
    ) -> None:
        """Write ``out[j] = sum_{i, c: index[i, c] = j} grad[i, c] user_scale[i] users[i]``.

        Rows are added in batch order, within a row positives before negatives.
        """
        n_rows = users.shape[0]
        for b in numba.prange(offsets.shape[1] - 1):
            first_item = b * block
            last_item = min(out.shape[0], first_item + block)
            out[first_item:last_item] = 0
            for i in range(n_rows):
                user, columns, weights, scale = users[i], index[i], grad[i], user_scale[i]
                for c in range(n_pos):
                    if first_item <= columns[c] < last_item:
                        j, weight = uint64(uint32(columns[c])), weights[c] * scale
                        for k in range(d):
                            out[j, k] += weight * user[k]
                for c in range(uint64(offsets[i, b]), uint64(offsets[i, b + 1])):
                    j, weight = uint64(uint32(columns[c])), weights[c] * scale
                    for k in range(d):
                        out[j, k] += weight * user[k]

    @jit
    def through_norm(rows: F32, scale: F32, pull: F32, grad_squared: F32, grad: F32) -> None:
        """Turn the gradient of the scaled rows, in place, into that of the rows.

        ``scale (grad - pull <grad, row> row) + 2 grad_squared row``: the second part is the
        derivative of the norm, `pull` the squared scale for a cosine, 0 for an inner product; the
        third is that of the squared norm.
        """
        for i in numba.prange(rows.shape[0]):
            along = np.float32(0)
            for k in range(d):
                along += grad[i, k] * rows[i, k]
            weight = scale[i] * pull[i] * along - 2 * grad_squared[i]
            for k in range(d):
                grad[i, k] = scale[i] * grad[i, k] - weight * rows[i, k]

    return Kernels(forward, add_items, add_users, through_norm)
