"""SDDMM and its gradients by numba: one set of kernels for each embedding size.

Rows are values in vector registers; unsigned indices spare the test for negative ones.
"""

from functools import lru_cache
from typing import Any, NamedTuple

import numba
import numpy as np

from bslbench.kernels.cpu import F32, I32, inline, jit_in_order
from bslbench.kernels.cpu_rows import (
    LANES,
    TO_L1,
    add_scaled,
    dot,
    filled,
    load,
    prefetch,
    store,
    times,
)

EPS = np.float32(1e-12)
"""Rows are divided by max(norm, EPS), as torch.nn.functional.normalize does."""

AHEAD = 8
"""Rows between the one that asks for its share of a block and the one that works on it."""


class Scale(NamedTuple):
    """What rows are scaled by before they are multiplied.

    Attributes
    ----------
    factor
        [n]: 1, or for a cosine one over the row's norm.
    pull
        [n], what the norm's own derivative is multiplied by: 0, or for a cosine the squared factor.
    """

    factor: F32
    pull: F32


class Kernels(NamedTuple):
    """The kernels for rows of one length.

    Shared parameters: `users` [B, d] and `items` [I, d] with the `Scale` of each; `index`,
    `offsets` and `bounds` as `sddmm.Index` has them; `pos` [B, K] and `neg` [B, M], scores or
    their gradient.
    """

    squared_norms: Any
    """(rows [n, d], out [n])."""
    scales: Any
    """(rows [n, d], cosine, factor [n], pull [n]), the last two written."""
    unit: Any
    """(rows [n, d], factor [n], pull [n], out [n, d]), all but the first written."""
    grad_unit: Any
    """(given [n, d], rows [n, d], factor [n], pull [n], out [n, d])."""
    forward: Any
    """(users, items, cosine, user_scale, factor [I], pull [I], squared [I], index, offsets, bounds,
    pos, neg): factor, pull and squared norm of each item, and the scores, are written."""
    grad_users: Any
    """(pos, neg, users, items, user_scale, item_scale, index, offsets, n_parts, out [B, d])."""
    grad_items: Any
    """(pos, neg, users, items, user_scale, item_scale, grad_squared [I], index, offsets, bounds,
    out [I, d])."""


@inline
def through_norm(given: Any, row: Any, factor: Any, pull: Any, grad_squared: Any) -> Any:
    """Return the gradient of a row from the one `given` for the scaled row.

    ``factor (given - pull <given, row> row) + 2 grad_squared row``: the second part is the
    derivative of the norm, the third that of the squared norm.
    """
    weight = np.float32(2) * grad_squared - factor * pull * dot(given, row)
    return add_scaled(times(given, factor), weight, row)


@inline
def ask_for(index: I32, numbers: F32, offsets: I32, i: int, b: int) -> None:
    """Ask for the columns that row i has in block b, and their numbers: two cache lines of each.

    From row to row they lie too far apart for the machine to see them coming.
    """
    n_pos = index.shape[1] - numbers.shape[1]
    column, number = (
        i * index.shape[1] + offsets[i, b],
        i * numbers.shape[1] + offsets[i, b] - n_pos,
    )
    for line in (0, LANES):
        prefetch(index, column + line, TO_L1)
        prefetch(numbers, number + line, TO_L1)


@inline
def scale_of(squared: Any, cosine: bool) -> Any:
    """Return `Scale.factor` and `Scale.pull` of a row with this squared norm."""
    norm = np.sqrt(squared)
    factor = np.float32(1) / (norm if not norm < EPS else EPS)  # NaN stays NaN
    pull = factor * factor if norm > EPS else np.float32(0)
    return (factor, pull) if cosine else (np.float32(1), np.float32(0))


# The closures hold `dim` alone: with a function among them each process would compile anew.
@lru_cache
def kernels(dim: int) -> Kernels:
    """Return the kernels for embeddings of `dim` numbers, compiled at their first call."""

    @jit_in_order
    def squared_norms(rows: F32, out: F32) -> None:
        """Write the squared Euclidean norms of rows."""
        for i in numba.prange(rows.shape[0]):
            row = load(rows, np.uint64(i), dim)
            out[i] = dot(row, row)

    @jit_in_order
    def scales(rows: F32, cosine: bool, factor: F32, pull: F32) -> None:
        """Write what rows are scaled by."""
        for i in numba.prange(rows.shape[0]):
            row = load(rows, np.uint64(i), dim)
            factor[i], pull[i] = scale_of(dot(row, row), cosine)

    @jit_in_order
    def unit(rows: F32, factor: F32, pull: F32, out: F32) -> None:
        """Write rows at unit length, and what they were scaled by."""
        for r in numba.prange(rows.shape[0]):
            i = np.uint64(r)
            row = load(rows, i, dim)
            factor[r], pull[r] = scale_of(dot(row, row), True)
            store(out, i, times(row, factor[r]))

    @jit_in_order
    def grad_unit(given: F32, rows: F32, factor: F32, pull: F32, out: F32) -> None:
        """Write the gradient of rows from that of the same at unit length."""
        for r in numba.prange(rows.shape[0]):
            i = np.uint64(r)
            own, row = load(given, i, dim), load(rows, i, dim)
            store(out, i, through_norm(own, row, factor[r], pull[r], np.float32(0)))

    @jit_in_order
    def forward(
        users: F32,
        items: F32,
        cosine: bool,
        user_scale: Scale,
        factor: F32,
        pull: F32,
        squared: F32,
        index: I32,
        offsets: I32,
        bounds: I32,
        pos: F32,
        neg: F32,
    ) -> None:
        """Write the scores of row i and item ``index[i, c]``, block by block.

        The squared norms of a block's items, and what scales these, come first: read one after the
        other, rows reach the cache sooner than in the order of the negatives.
        """
        # Arrays that a parallel loop writes must not come in a tuple: numba loses what is written.
        n_rows, n_pos = users.shape[0], np.uint64(pos.shape[1])
        for b in numba.prange(offsets.shape[1] - 1):
            first_item, last_item = bounds[b], bounds[b + 1]
            for r in range(first_item, last_item):
                j = np.uint64(r)
                row = load(items, j, dim)
                squared[j] = dot(row, row)
                factor[j], pull[j] = scale_of(squared[j], cosine)
            for r in range(n_rows):
                if r + AHEAD < n_rows:
                    ask_for(index, neg, offsets, r + AHEAD, b)
                i, columns = np.uint64(r), index[r]
                user, own = load(users, i, dim), user_scale.factor[r]
                for c in range(n_pos):
                    if first_item <= columns[c] < last_item:
                        j = np.uint64(np.uint32(columns[c]))
                        pos[i, c] = dot(user, load(items, j, dim)) * own * factor[j]
                for c in range(np.uint64(offsets[r, b]), np.uint64(offsets[r, b + 1])):
                    j = np.uint64(np.uint32(columns[c]))
                    neg[i, c - n_pos] = dot(user, load(items, j, dim)) * own * factor[j]

    @jit_in_order
    def grad_users(
        pos: F32,
        neg: F32,
        users: F32,
        items: F32,
        user_scale: Scale,
        item_scale: Scale,
        index: I32,
        offsets: I32,
        n_parts: int,
        out: F32,
    ) -> None:
        """Write the gradient of `users`, the shares of a row added in the order of its columns.

        One part for each thread is best: the more rows share a block, the more find it in the
        cache.
        """
        n_rows, n_pos = pos.shape
        per_part = (n_rows + n_parts - 1) // n_parts
        for part in numba.prange(n_parts):
            first_row = part * per_part
            last_row = min(n_rows, first_row + per_part)
            for r in range(first_row, last_row):
                i, total = np.uint64(r), filled(np.float32(0), dim)
                for c in range(n_pos):
                    j = np.uint64(np.uint32(index[r, c]))
                    weight = pos[r, c] * item_scale.factor[j]
                    total = add_scaled(total, weight, load(items, j, dim))
                store(out, i, total)
            for b in range(offsets.shape[1] - 1):
                for r in range(first_row, last_row):
                    if r + AHEAD < last_row:
                        ask_for(index, neg, offsets, r + AHEAD, b)
                    i, columns, weights = np.uint64(r), index[r], neg[r]
                    total = load(out, i, dim)
                    for c in range(np.uint64(offsets[r, b]), np.uint64(offsets[r, b + 1])):
                        j = np.uint64(np.uint32(columns[c]))
                        weight = weights[c - np.uint64(n_pos)] * item_scale.factor[j]
                        total = add_scaled(total, weight, load(items, j, dim))
                    store(out, i, total)
            for r in range(first_row, last_row):
                i = np.uint64(r)
                factor, pull = user_scale.factor[i], user_scale.pull[i]
                given, row = load(out, i, dim), load(users, i, dim)
                store(out, i, through_norm(given, row, factor, pull, np.float32(0)))

    @jit_in_order
    def grad_items(
        pos: F32,
        neg: F32,
        users: F32,
        items: F32,
        user_scale: Scale,
        item_scale: Scale,
        grad_squared: F32,
        index: I32,
        offsets: I32,
        bounds: I32,
        out: F32,
    ) -> None:
        """Write the gradient of `items`, block by block; `grad_squared` is that of their norms.

        The shares of an item are added in batch order, within a row positives before negatives.
        """
        n_rows, n_pos = pos.shape
        for b in numba.prange(offsets.shape[1] - 1):
            first_item, last_item = bounds[b], bounds[b + 1]
            for r in range(first_item, last_item):
                store(out, np.uint64(r), filled(np.float32(0), dim))
            for i in range(n_rows):
                if i + AHEAD < n_rows:
                    ask_for(index, neg, offsets, i + AHEAD, b)
                columns, factor = index[i], user_scale.factor[i]
                user = load(users, np.uint64(i), dim)
                for c in range(n_pos):
                    if first_item <= columns[c] < last_item:
                        j = np.uint64(np.uint32(columns[c]))
                        store(out, j, add_scaled(load(out, j, dim), pos[i, c] * factor, user))
                weights = neg[i]
                for c in range(np.uint64(offsets[i, b]), np.uint64(offsets[i, b + 1])):
                    j = np.uint64(np.uint32(columns[c]))
                    weight = weights[c - np.uint64(n_pos)] * factor
                    store(out, j, add_scaled(load(out, j, dim), weight, user))
            for r in range(first_item, last_item):
                j = np.uint64(r)
                factor, pull = item_scale.factor[j], item_scale.pull[j]
                given, row = load(out, j, dim), load(items, j, dim)
                store(out, j, through_norm(given, row, factor, pull, grad_squared[j]))

    return Kernels(squared_norms, scales, unit, grad_unit, forward, grad_users, grad_items)
