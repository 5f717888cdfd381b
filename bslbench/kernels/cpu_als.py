"""Numba kernels of alternating least squares; each row is solved by one thread."""

import numba
import numpy as np
import numpy.typing as npt

from bslbench.kernels.cpu import F32, I32, jit

I64 = npt.NDArray[np.int64]

PARTS = 64
"""Parts that rows are dealt out to in turn, whatever the number of threads."""
STEPS = 3
"""Conjugate gradients of one half step."""


@jit
def gram(table: F32) -> npt.NDArray[np.float64]:
    """Return ``table.T @ table``, [d, d], summed row by row."""
    d = table.shape[1]
    out = np.zeros((d, d))
    for a in numba.prange(d):
        for i in range(len(table)):
            for b in range(d):
                out[a, b] += np.float64(table[i, a]) * table[i, b]
    return out


@jit
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
    n, d = out.shape
    for part in numba.prange(PARTS):
        rest = np.empty(d, np.float32)
        way = np.empty(d, np.float32)
        image = np.empty(d, np.float32)
        for i in range(part, n, PARTS):
            x = out[i]
            listed = indices[indptr[i] : indptr[i + 1]]
            if len(listed) == 0:
                x[:] = 0
                continue
            _apply(listed, fixed, gram, strength[i], x, rest)
            for k in range(d):
                rest[k] = -rest[k]
            for j in listed:
                for k in range(d):
                    rest[k] += fixed[j, k]
            square = np.float32(0)
            for k in range(d):
                way[k] = rest[k]
                square += rest[k] * rest[k]
            for _ in range(STEPS):
                if square < 1e-12:
                    break
                _apply(listed, fixed, gram, strength[i], way, image)
                curvature = np.float32(0)
                for k in range(d):
                    curvature += way[k] * image[k]
                step = square / curvature
                before, square = square, np.float32(0)
                for k in range(d):
                    x[k] += step * way[k]
                    rest[k] -= step * image[k]
                    square += rest[k] * rest[k]
                for k in range(d):
                    way[k] = rest[k] + square / before * way[k]


@numba.njit(fastmath=True, cache=True)
def _apply(listed: I32, fixed: F32, gram: F32, strength: np.float32, x: F32, out: F32) -> None:
    """Write ``(gram + strength + sum_j y_j y_j') x`` to `out`, [d]."""
    d = len(x)
    for k in range(d):
        out[k] = strength * x[k]
    for a in range(d):
        for k in range(d):
            out[k] += x[a] * gram[a, k]
    for j in listed:
        score = np.float32(0)
        for k in range(d):
            score += fixed[j, k] * x[k]
        for k in range(d):
            out[k] += score * fixed[j, k]
