"""Numba kernels of the sparse product: a row's sum stays in registers, every sum in its order.

Each row of a result belongs to one thread, which adds in a fixed order; work is cut into a fixed
number of parts, never by the number of threads.
"""

from typing import NamedTuple

import numba
import numpy as np

from bslbench.kernels.cpu import F32, I32, I64, PARTS, inline, jit, jit_in_order, mix
from bslbench.kernels.cpu_rows import (
    LANES,
    TO_L2,
    add_scaled,
    filled,
    load,
    prefetch,
    store,
    times,
)

AHEAD = 32
"""Entries between the one whose row of x is asked for and the one that is worked on."""
WIDTH = 64
"""Columns that are summed together: known to the compiler, so that the sums stay in registers."""
ROW_COST = 4
"""Work of one row beside its entries, in entries."""
BLOCKS = 16
"""Ranges of targets that `spread` is cut into."""


class Csr(NamedTuple):
    """A sparse matrix [n, m] whose entry (i, j) is ``row_scale[i] * column_scale[j]``.

    Attributes
    ----------
    starts, ends
        [n] int32: row i has the columns ``indices[starts[i] : ends[i]]``.
    indices
        [nnz] int32, ascending within a row; between rows of a thinned matrix any columns stand.
    row_scale, column_scale
        [n] and [m] float32.
    """

    starts: I32
    ends: I32
    indices: I32
    row_scale: F32
    column_scale: F32


@inline
def _equal_parts(matrix: Csr, rows: I64) -> I64:
    """Return where to cut `rows` into `PARTS` ranges of about equal work, [PARTS + 1]."""
    work = np.empty(len(rows), np.int64)
    total = 0
    for r in range(len(rows)):
        total += matrix.ends[rows[r]] - matrix.starts[rows[r]] + ROW_COST
        work[r] = total
    return np.searchsorted(work, np.arange(PARTS + 1) * total // PARTS, side="right")


@inline
def ask_for(x: F32, j: int, b: int) -> None:
    """Ask for block b of row j of x [m, d / WIDTH, WIDTH]."""
    first = (j * x.shape[1] + b) * WIDTH
    for line in range(0, WIDTH, LANES):
        prefetch(x, first + line, TO_L2)


@jit_in_order
def product(matrix: Csr, rows: I64, x: F32, out: F32) -> None:
    """Write ``out[r] = sum_j matrix[rows[r], j] x[j]``.

    Parameters
    ----------
    rows
        [r] int64.
    x, out
        [m, d / WIDTH, WIDTH] and [r, d / WIDTH, WIDTH]; `out` is written.
    """
    bounds = _equal_parts(matrix, rows)
    n_blocks = np.uint64(x.shape[1])
    for part in numba.prange(PARTS):
        for r in range(bounds[part], bounds[part + 1]):
            i = rows[r]
            # What is listed behind a row is asked for too if that is worked on next.
            follows = r + 1 < len(rows) and rows[r + 1] == i + 1
            end = len(matrix.indices) if follows else matrix.ends[i]
            for b in range(n_blocks):
                total = filled(np.float32(0), WIDTH)
                for e in range(matrix.starts[i], matrix.ends[i]):
                    ask_for(x, matrix.indices[min(e + AHEAD, end - 1)], b)
                    j = np.uint64(np.uint32(matrix.indices[e]))
                    own = load(x, j * n_blocks + b, WIDTH)
                    total = add_scaled(total, matrix.column_scale[j], own)
                place = np.uint64(r) * n_blocks + b
                store(out, place, times(total, matrix.row_scale[i]))


@jit_in_order
def spread(matrix: Csr, rows: I64, x: F32, out: F32) -> None:
    """Write ``out[j] = sum_r matrix[rows[r], j] x[r]``, the transpose of `product`.

    A block of targets belongs to one thread, which goes through the rows in their order; only the
    entries of these rows are touched.

    Parameters
    ----------
    rows
        [r] int64.
    x, out
        [r, d / WIDTH, WIDTH] and [m, d / WIDTH, WIDTH]; `out` is written.
    """
    size, n_blocks = (len(out) + BLOCKS - 1) // BLOCKS, np.uint64(x.shape[1])
    for block in numba.prange(BLOCKS):
        first, end = block * size, min(len(out), (block + 1) * size)
        out[first:end] = 0
        for r in range(len(rows)):
            i = rows[r]
            columns = matrix.indices[matrix.starts[i] : matrix.ends[i]]
            start, stop = np.searchsorted(columns, first), np.searchsorted(columns, end)
            for b in range(n_blocks):
                scaled = times(load(x, np.uint64(r) * n_blocks + b, WIDTH), matrix.row_scale[i])
                for e in range(start, stop):
                    j = np.uint64(np.uint32(columns[e]))
                    place = j * n_blocks + b
                    total = add_scaled(load(out, place, WIDTH), matrix.column_scale[j], scaled)
                    store(out, place, total)


@jit
def thin_out(
    key: int, below: int, matrix: Csr, strides: tuple[int, int], ends: I32, indices: I32
) -> None:
    """Leave out each entry of `matrix` whose 32 hashed bits are below `below`.

    Parameters
    ----------
    key
        Names the draw.
    strides
        The entry (i, j) is number ``strides[0] * i + strides[1] * j``, the same in the transpose,
        where it must meet the same fate.
    ends, indices
        [n] and [nnz] int32, written: what is left of row i is ``indices[starts[i] : ends[i]]``.
    """
    stream = mix(np.uint64(key))
    for i in numba.prange(len(ends)):
        ends[i] = matrix.starts[i]
        for e in range(matrix.starts[i], matrix.ends[i]):
            entry = np.uint64(strides[0] * i + strides[1] * matrix.indices[e])
            if mix(stream + entry) >> np.uint64(32) >= np.uint64(below):
                indices[ends[i]] = matrix.indices[e]
                ends[i] += 1
