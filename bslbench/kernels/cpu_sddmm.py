"""SDDMM and its gradients by numba: one set of kernels for each embedding size.

With the size a constant, a row's loop is unrolled into whole vector registers; unsigned indices
spare the test for negative ones. Together they take a quarter off.
"""

from functools import lru_cache
from typing import Any, NamedTuple

import numba
import numpy as np
from numba import uint32, uint64

from bslbench.kernels.cpu import F32, I32, jit


class Kernels(NamedTuple):
    """The kernels for rows of one length.

    Shared parameters: `users` [B, d] and `items` [I, d]; `user_scale` [B] and `item_scale` [I],
    the factors on their products; `index`, `offsets` and `n_pos` as `sddmm.Index` has them;
    `grad` [B, K + M], the gradient of the scores.
    """

    forward: Any
    """(users, items, user_scale, item_scale, index, offsets, n_pos, out [B, K + M])."""
    grad_users: Any
    """(grad, users, items, user_scale, item_scale, user_pull, index, offsets, n_pos, n_parts,
    out [B, d])."""
    grad_items: Any
    """(grad, users, items, user_scale, item_scale, item_pull, grad_squared, index, offsets, n_pos,
    block, out [I, d])."""


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

    @jit
    def grad_users(
        grad: F32,
        users: F32,
        items: F32,
        user_scale: F32,
        item_scale: F32,
        user_pull: F32,
        index: I32,
        offsets: I32,
        n_pos: int,
        n_parts: int,
        out: F32,
    ) -> None:
        """Write the gradient of the users' rows, each summed in column order.

        With ``a = sum_c grad[i, c] item_scale[j] items[j]`` it is
        ``user_scale[i] (a - user_pull[i] <a, users[i]> users[i])``. The second part is the
        derivative of the norm: `user_pull` is the squared scale for a cosine, 0 for an inner
        product. One part for each thread is best: the more rows share a block, the more find it in
        the cache. The bits are the same for any number of parts.
        """
        n_rows = users.shape[0]
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
                            total[k] += (w0 * items[j0, k] + w1 * items[j1, k]) + (
                                w2 * items[j2, k] + w3 * items[j3, k]
                            )
                        c += uint64(4)
                    while c < last:
                        j0 = uint64(uint32(columns[c]))
                        w0 = weights[c] * item_scale[j0]
                        for k in range(d):
                            total[k] += w0 * items[j0, k]
                        c += uint64(1)
            for i in range(first_row, last_row):
                along = np.float32(0)
                for k in range(d):
                    along += out[i, k] * users[i, k]
                pull = user_pull[i] * along
                for k in range(d):
                    out[i, k] = user_scale[i] * (out[i, k] - pull * users[i, k])

    @jit
    def grad_items(
        grad: F32,
        users: F32,
        items: F32,
        user_scale: F32,
        item_scale: F32,
        item_pull: F32,
        grad_squared: F32,
        index: I32,
        offsets: I32,
        n_pos: int,
        block: int,
        out: F32,
    ) -> None:
        """Write the gradient of the item table: that of the users mirrored, and of L2.

        Each item's sum runs over the rows in batch order, within a row positives before negatives;
        ``2 grad_squared[j] items[j]`` is the derivative of its squared norm.
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
            for j in range(first_item, last_item):
                along = np.float32(0)
                for k in range(d):
                    along += out[j, k] * items[j, k]
                pull = item_scale[j] * item_pull[j] * along - 2 * grad_squared[j]
                for k in range(d):
                    out[j, k] = item_scale[j] * out[j, k] - pull * items[j, k]

    return Kernels(forward, grad_users, grad_items)
