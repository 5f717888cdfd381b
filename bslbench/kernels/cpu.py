"""Numba kernels: no row of negatives is ever gathered, and bits never depend on the thread count.

Each output row belongs to one thread, which adds in a fixed order; work is cut by item block or by
a fixed number of parts, never by the number of threads. Negatives come grouped by item block, so
that the rows a thread touches stay in its L2 cache (Negatives of docs/protocol.md).
"""

from collections.abc import Callable
from typing import Any, TypeVar, cast

import numba
import numpy as np
import numpy.typing as npt

F32 = npt.NDArray[np.float32]
I32 = npt.NDArray[np.int32]

ROW_PARTS = 64
"""Row ranges that the user gradient is cut into: enough for any number of threads."""

Kernel = TypeVar("Kernel", bound=Callable[..., Any])


def jit(function: Kernel) -> Kernel:
    """Compile for all threads at the first call; later processes load it from numba's cache."""
    return cast(Kernel, numba.njit(parallel=True, fastmath=True, cache=True, nogil=True)(function))


inline = cast(Callable[[Kernel], Kernel], numba.njit(inline="always"))


@inline
def _mix(z: Any) -> Any:
    """The finaliser of splitmix64 (Steele, Lea, Flood, OOPSLA 2014): 64 bits to 64 mixed bits."""
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


@inline
def group_row(
    drawn: I32, i: int, block: int, n_pos: int, index: I32, offsets: I32, order: I32
) -> None:
    """Write the items `drawn` [M] for row i into it by a counting sort over blocks.

    The other arguments are those of `draw_grouped`.
    """
    n_blocks = offsets.shape[1] - 1
    # item // block as a multiplication: exact for blocks of min(2048, ceil(I / 16)) and any int32.
    shift = np.uint64(43)
    inverse = np.uint64(((1 << 43) + block - 1) // block)
    fill = np.zeros(n_blocks + 1, np.int32)
    for j in range(len(drawn)):
        fill[((np.uint64(drawn[j]) * inverse) >> shift) + 1] += 1
    fill[0] = n_pos
    offsets[i, 0] = n_pos
    for b in range(n_blocks):
        fill[b + 1] += fill[b]
        offsets[i, b + 1] = fill[b + 1]
    for j in range(len(drawn)):
        home = (np.uint64(drawn[j]) * inverse) >> shift
        index[i, fill[home]] = drawn[j]
        if order.shape[1] > 0:
            order[i, j] = fill[home] - n_pos
        fill[home] += 1


@jit
def draw_grouped(
    key: int, n_items: int, block: int, n_pos: int, index: I32, offsets: I32, order: I32
) -> None:
    """Fill ``index[:, n_pos:]`` with uniform items, grouped by item block within each row.

    Draw j of row i takes 32 bits of splitmix64 at counter j // 2 of the row's own stream, scaled
    to the item range by multiplication (Lemire 2019, without the rejection: bias below I / 2^32).

    Parameters
    ----------
    key
        Stream of this step, uint64.
    index
        [B, K + M] int32, written from column K = `n_pos` on.
    offsets
        [B, n_blocks + 1] int32, written: block b of row i holds columns offsets[i, b] up to
        offsets[i, b + 1].
    order
        [B, M] int32, written with the grouped column of each draw, minus K; [B, 0] to skip it.
    """
    n_neg = index.shape[1] - n_pos
    golden = np.uint64(0x9E3779B97F4A7C15)
    low = np.uint64(0xFFFFFFFF)
    for i in numba.prange(index.shape[0]):
        drawn = np.empty(n_neg + 1, np.int32)
        stream = _mix(np.uint64(key) + np.uint64(i) * golden)
        for j in range(0, n_neg, 2):
            bits = _mix(stream + np.uint64(j + 1) * golden)
            drawn[j] = ((bits >> np.uint64(32)) * np.uint64(n_items)) >> np.uint64(32)
            drawn[j + 1] = ((bits & low) * np.uint64(n_items)) >> np.uint64(32)
        group_row(drawn[:n_neg], i, block, n_pos, index, offsets, order)


@jit
def count_items(index: I32, offsets: I32, block: int, n_pos: int, counts: F32) -> None:
    """Write into counts [I] how often each item stands in column 0 or among the negatives.

    Columns 1 to `n_pos` - 1, the other positives, are not counted; ``offsets`` of shape
    [B, 0] leaves the negatives out.
    """
    n_blocks = (counts.shape[0] + block - 1) // block
    for b in numba.prange(n_blocks):
        first = b * block
        last = min(counts.shape[0], first + block)
        counts[first:last] = 0
        for i in range(index.shape[0]):
            if first <= index[i, 0] < last:
                counts[index[i, 0]] += np.float32(1)
            if offsets.shape[1] > 0:
                for c in range(offsets[i, b], offsets[i, b + 1]):
                    counts[index[i, c]] += np.float32(1)


@jit
def squared_norms(x: F32, out: F32) -> None:
    """Write the squared Euclidean norms of the rows of x [n, d] into out [n]."""
    for i in numba.prange(x.shape[0]):
        total = np.float32(0)
        for k in range(x.shape[1]):
            total += x[i, k] * x[i, k]
        out[i] = total


@jit
def scale_rows(x: F32, factors: F32, out: F32) -> None:
    """Write ``out[i] = factors[i] x[i]``, [n, d]."""
    for i in numba.prange(x.shape[0]):
        for k in range(x.shape[1]):
            out[i, k] = factors[i] * x[i, k]


@jit
def sddmm_forward(
    users: F32,
    items: F32,
    user_scale: F32,
    item_scale: F32,
    index: I32,
    offsets: I32,
    n_pos: int,
    out: F32,
) -> None:
    """Write ``out[i, c] = user_scale[i] item_scale[j] <users[i], items[j]>``, j = index[i, c]."""
    n_rows, dim = users.shape
    for b in numba.prange(offsets.shape[1]):
        # Part 0 takes the positives, part b + 1 the negatives of block b.
        for i in range(n_rows):
            first = 0 if b == 0 else offsets[i, b - 1]
            last = n_pos if b == 0 else offsets[i, b]
            for c in range(first, last):
                j = index[i, c]
                total = np.float32(0)
                for k in range(dim):
                    total += users[i, k] * items[j, k]
                out[i, c] = total * user_scale[i] * item_scale[j]


@jit
def sddmm_grad_users(
    grad: F32,
    users: F32,
    items: F32,
    user_scale: F32,
    item_scale: F32,
    user_pull: F32,
    index: I32,
    offsets: I32,
    n_pos: int,
    out: F32,
) -> None:
    """Write the gradient of the users' rows, [B, d], each summed in column order.

    With ``a = sum_c grad[i, c] item_scale[j] items[j]`` it is
    ``user_scale[i] (a - user_pull[i] <a, users[i]> users[i])``. The second part is the derivative
    of the norm: `user_pull` is the squared scale for a cosine, 0 for an inner product.
    """
    n_rows, dim = out.shape
    per_part = (n_rows + ROW_PARTS - 1) // ROW_PARTS
    for part in numba.prange(ROW_PARTS):
        first_row = part * per_part
        last_row = min(n_rows, first_row + per_part)
        for b in range(offsets.shape[1]):
            for i in range(first_row, last_row):
                if b == 0:
                    out[i] = 0
                c = 0 if b == 0 else offsets[i, b - 1]
                last = n_pos if b == 0 else offsets[i, b]
                while c + 4 <= last:  # four rows for each load and store of the sum
                    j0, j1, j2, j3 = index[i, c], index[i, c + 1], index[i, c + 2], index[i, c + 3]
                    w0 = grad[i, c] * item_scale[j0]
                    w1 = grad[i, c + 1] * item_scale[j1]
                    w2 = grad[i, c + 2] * item_scale[j2]
                    w3 = grad[i, c + 3] * item_scale[j3]
                    for k in range(dim):
                        out[i, k] += (w0 * items[j0, k] + w1 * items[j1, k]) + (
                            w2 * items[j2, k] + w3 * items[j3, k]
                        )
                    c += 4
                while c < last:
                    weight = grad[i, c] * item_scale[index[i, c]]
                    for k in range(dim):
                        out[i, k] += weight * items[index[i, c], k]
                    c += 1
        for i in range(first_row, last_row):
            along = np.float32(0)
            for k in range(dim):
                along += out[i, k] * users[i, k]
            pull = user_pull[i] * along
            for k in range(dim):
                out[i, k] = user_scale[i] * (out[i, k] - pull * users[i, k])


@jit
def sddmm_grad_items(
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
    """Write the gradient of the item table, [I, d]: that of the users mirrored, and of L2.

    Each item's sum runs over the rows in batch order, within a row positives before negatives;
    ``2 grad_squared[j] items[j]`` is the derivative of its squared norm.
    """
    n_rows, dim = users.shape
    for b in numba.prange(offsets.shape[1] - 1):
        first_item = b * block
        last_item = min(out.shape[0], first_item + block)
        out[first_item:last_item] = 0
        for i in range(n_rows):
            for c in range(n_pos):
                j = index[i, c]
                if first_item <= j < last_item:
                    weight = grad[i, c] * user_scale[i]
                    for k in range(dim):
                        out[j, k] += weight * users[i, k]
            for c in range(offsets[i, b], offsets[i, b + 1]):
                j = index[i, c]
                weight = grad[i, c] * user_scale[i]
                for k in range(dim):
                    out[j, k] += weight * users[i, k]
        for j in range(first_item, last_item):
            along = np.float32(0)
            for k in range(dim):
                along += out[j, k] * items[j, k]
            pull = item_scale[j] * item_pull[j] * along - 2 * grad_squared[j]
            for k in range(dim):
                out[j, k] = item_scale[j] * out[j, k] - pull * items[j, k]
