"""Adam for tables, and for rows that few steps touch: the others' steps are taken when needed.

Without a gradient Adam's update is a known sequence, so a row is brought up to date before it is
next read, by replaying the steps it missed with their own rates.
"""

from functools import lru_cache
from typing import Any, NamedTuple

import numba
import numpy as np

from bslbench.kernels.cpu import F32, I32, I64, inline, jit_alone, jit_in_order
from bslbench.kernels.cpu_rows import (
    add_scaled,
    filled,
    load,
    quotient,
    root,
    store,
    times,
)

BETA1, BETA2, EPS = np.float32(0.9), np.float32(0.999), np.float32(1e-8)
REST1, REST2 = np.float32(1 - 0.9), np.float32(1 - 0.999)  # not 1 - BETA2: 5e-5 off in float32

MOST = 156
"""Steps without a gradient after which no float32 parameter moves any more: 0.9^156 < 1e-7."""
FADE1 = (0.9 ** np.arange(MOST + 1)).astype(np.float32)
FADE2 = (0.999 ** (np.arange(MOST + 1) / 2)).astype(np.float32)
"""What is left of the first moment, and of the root of the second, after so many such steps."""


class Kernels(NamedTuple):
    """The kernels for rows of one length.

    Shared parameters: `rows`, distinct ids, [n] int32; `size` and `scale`, rate / (1 - beta1^t) and
    1 / sqrt(1 - beta2^t) of step t = `n_steps`; `table`, `m`, `v`, parameters and moments [N, d],
    changed in place; `last`, the number of steps each row has taken, [N] int64, changed in place.
    """

    catch_up: Any
    """(rows, n_steps, sizes, roots, table, m, v, last)."""
    update: Any
    """(rows, starts, order, grad [B, d], n_steps, size, scale, table, m, v, last)."""
    update_all: Any
    """(grad [N, d], n_steps, size, scale, table, m, v, last)."""


@inline
def moments(mean: Any, square: Any, grad: Any) -> Any:
    """Return a row's two moments after a step with this gradient."""
    mean = add_scaled(times(mean, BETA1), REST1, grad)
    return mean, add_scaled(times(square, BETA2), REST2, times(grad, grad))


@inline
def direction(mean: Any, square: Any, scale: Any, floor: Any) -> Any:
    """Return ``mean / (EPS + scale sqrt(square))``; `floor` is a row of EPS."""
    return quotient(mean, add_scaled(floor, np.float32(scale), root(square)))


@lru_cache
def kernels(dim: int) -> Kernels:
    """Return the kernels for rows of `dim` numbers, compiled at their first call."""

    @jit_in_order
    def catch_up(
        rows: I32, n_steps: int, sizes: F32, roots: F32, table: F32, m: F32, v: F32, last: I64
    ) -> None:
        """Bring `rows` of a table to where dense Adam has them after `n_steps` steps.

        Per step, from index 0, `sizes` has rate / (1 - beta1^t) and `roots` sqrt(1 - beta2^t),
        [>= n_steps]. A row that has taken none was never touched: Adam leaves it where it is.
        """
        for r in numba.prange(len(rows)):
            i = np.uint64(rows[r])
            first = last[i]
            if 0 < first < n_steps:
                value, mean, square = load(table, i, dim), load(m, i, dim), load(v, i, dim)
                spread, floor = root(square), filled(EPS, dim)
                for t in range(first, min(n_steps, first + MOST)):
                    left = t + 1 - first
                    below = add_scaled(floor, FADE2[left] / roots[t], spread)
                    value = add_scaled(value, -sizes[t] * FADE1[left], quotient(mean, below))
                missed = n_steps - first
                store(table, i, value)
                store(m, i, times(mean, BETA1**missed))
                store(v, i, times(square, BETA2**missed))
                last[i] = n_steps

    @jit_in_order
    def update(
        rows: I32,
        starts: I32,
        order: I32,
        grad: F32,
        n_steps: int,
        size: float,
        scale: float,
        table: F32,
        m: F32,
        v: F32,
        last: I64,
    ) -> None:
        """Take step `n_steps` on `rows`, which have taken all steps before it.

        Row r's gradient is the sum of ``grad[order[starts[r]]]`` up to ``grad[order[starts[r + 1] -
        1]]``, in this order.
        """
        for r in numba.prange(len(rows)):
            i = np.uint64(rows[r])
            total = filled(np.float32(0), dim)
            for c in range(starts[r], starts[r + 1]):
                total = add_scaled(total, np.float32(1), load(grad, np.uint64(order[c]), dim))
            mean, square = moments(load(m, i, dim), load(v, i, dim), total)
            way = direction(mean, square, scale, filled(EPS, dim))
            store(table, i, add_scaled(load(table, i, dim), -np.float32(size), way))
            store(m, i, mean)
            store(v, i, square)
            last[i] = n_steps

    @jit_in_order
    def update_all(
        grad: F32, n_steps: int, size: float, scale: float, table: F32, m: F32, v: F32, last: I64
    ) -> None:
        """Take step `n_steps` on all rows, which have taken those before it; `grad` has theirs."""
        for r in numba.prange(len(table)):
            i = np.uint64(r)
            mean, square = moments(load(m, i, dim), load(v, i, dim), load(grad, i, dim))
            way = direction(mean, square, scale, filled(EPS, dim))
            store(table, i, add_scaled(load(table, i, dim), -np.float32(size), way))
            store(m, i, mean)
            store(v, i, square)
            last[i] = n_steps

    return Kernels(catch_up, update, update_all)


@jit_alone
def grouped(names: I64, slots: I32, rows: I32, starts: I32, order: I32) -> int:
    """Find the distinct rows among `names` [B], and where each is named; return how many.

    Parameters
    ----------
    slots
        [N] int32, all -1 before and after.
    rows
        [B] int32, written: the distinct rows, as they first come.
    starts, order
        [B + 1] and [B] int32, written: row r is named at ``order[starts[r] : starts[r + 1]]``.
    """
    n = 0
    for c in range(len(names)):
        i = names[c]
        if slots[i] < 0:
            slots[i] = n
            rows[n] = i
            starts[n + 1] = 0
            n += 1
        starts[slots[i] + 1] += 1
    starts[0] = 0
    for r in range(n):
        starts[r + 1] += starts[r]
    for c in range(len(names)):
        r = slots[names[c]]
        order[starts[r]] = c
        starts[r] += 1
    for r in range(n, 0, -1):
        starts[r] = starts[r - 1]
    starts[0] = 0
    for r in range(n):
        slots[rows[r]] = -1
    return n
