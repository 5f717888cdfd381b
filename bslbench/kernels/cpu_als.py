"""Numba kernels of alternating least squares; each row is solved by one thread."""

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import numba
import numpy as np
import numpy.typing as npt

from bslbench.kernels.cpu import F32, I32, I64, PARTS, inline, jit_in_order
from bslbench.kernels.cpu_rows import add_scaled, dot, filled, load, store

STEPS = 3
"""Conjugate gradients of one half step."""


@jit_in_order
def gram(table: F32) -> npt.NDArray[np.float64]:
    """Return ``table.T @ table``, [d, d], summed row by row."""
    d = table.shape[1]
    out = np.zeros((d, d))
    for a in numba.prange(d):
        for i in range(len(table)):
            for b in range(d):
                out[a, b] += np.float64(table[i, a]) * table[i, b]
    return out


@inline
def less_image(
    total: Any,
    x: Any,
    numbers: F32,
    listed: I32,
    fixed: F32,
    gram: F32,
    strength: np.float32,
    dim: int,
) -> Any:
    """Return ``total - (gram + strength + sum_j y_j y_j') x``; `numbers` [d] is where x goes."""
    store(numbers, np.uint64(0), x)
    total = add_scaled(total, -strength, x)
    for a in range(dim):
        total = add_scaled(total, -numbers[a], load(gram, np.uint64(a), dim))
    for j in listed:
        y = load(fixed, np.uint64(np.uint32(j)), dim)
        total = add_scaled(total, -dot(y, x), y)
    return total


# The closure holds `dim` alone, as those of `cpu_sddmm.kernels` do.
@lru_cache
def improve_for(dim: int) -> Callable[[I64, I32, F32, F32, F32, F32], None]:
    """Return the kernel for embeddings of `dim` numbers, compiled at its first call."""

    @jit_in_order
    def improve(indptr: I64, indices: I32, fixed: F32, gram: F32, strength: F32, out: F32) -> None:
        """Improve each row x of `out` towards ``(gram + strength + sum_j y_j y_j') x = sum_j y_j``.

        The sums go over the rows y of `fixed` that are listed for x. A row without any becomes 0.

        Parameters
        ----------
        indptr, indices
            [n + 1], [nnz]: the rows of `fixed` that belong to each row.
        fixed
            [m, d].
        gram
            [d, d], what all rows of `fixed` add.
        strength
            [n], the regularisation of each row.
        out
            [n, d], where to start, and the result.
        """
        for part in numba.prange(PARTS):
            numbers = np.empty(dim, np.float32)
            zero = filled(np.float32(0), dim)
            for r in range(part, len(out), PARTS):
                listed = indices[indptr[r] : indptr[r + 1]]
                if len(listed) == 0:
                    store(out, np.uint64(r), zero)
                    continue
                x, rest = load(out, np.uint64(r), dim), zero
                for j in listed:
                    y = load(fixed, np.uint64(np.uint32(j)), dim)
                    rest = add_scaled(rest, np.float32(1), y)
                rest = less_image(rest, x, numbers, listed, fixed, gram, strength[r], dim)
                way, square = rest, dot(rest, rest)
                for _ in range(STEPS):
                    if square < 1e-12:
                        break
                    less = less_image(zero, way, numbers, listed, fixed, gram, strength[r], dim)
                    step = -square / dot(way, less)
                    x = add_scaled(x, step, way)
                    rest = add_scaled(rest, step, less)
                    before, square = square, dot(rest, rest)
                    way = add_scaled(rest, square / before, way)
                store(out, np.uint64(r), x)

    return improve
