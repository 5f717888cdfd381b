"""Numba kernels: no row of negatives is ever gathered, and bits never depend on the thread count.

Each output row belongs to one thread, which adds in an order that does not depend on how the rows
are shared out. Negatives come grouped by item block, so that the rows a thread touches stay in its
L2 cache (Negatives of docs/protocol.md).

Loops stand where a cleared array, an assigned slice, a maximum or a sort would do: of these each
takes numba up to a second or two to compile. A loop over rows that are little work takes no memory
and chooses no array by a condition: numba counts who holds an array, and threads that count in one
place wait for each other.
"""

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar, cast

import numba
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

F32 = npt.NDArray[np.float32]
I32 = npt.NDArray[np.int32]
I64 = npt.NDArray[np.int64]

PARTS = 64
"""Parts that rows are cut into, or dealt out to: so many threads can share them."""

Kernel = TypeVar("Kernel", bound=Callable[..., Any])


def takes(x: Tensor) -> bool:
    """Whether the kernels can work on x: float32 on the CPU."""
    return x.device.type == "cpu" and x.dtype == torch.float32


def jit(function: Kernel) -> Kernel:
    """Compile for all threads at the first call; later processes load it from numba's cache."""
    return _compiled(function, fastmath=True)


def jit_in_order(function: Kernel) -> Kernel:
    """Compile as `jit` does, every sum in the order it is written in.

    Free to reorder, the process that compiles a kernel and those that load it from the cache may
    come to different bits: the one runs code optimised once, the others twice.
    """
    return _compiled(function, fastmath={"contract"})


def jit_strictly(function: Kernel) -> Kernel:
    """Compile for all threads, every operation as it is written."""
    return _compiled(function, fastmath=False)


def jit_alone(function: Kernel) -> Kernel:
    """Compile for one thread: what is next depends on what was before."""
    return _compiled(function, fastmath=False, parallel=False)


def _compiled(function: Kernel, fastmath: bool | set[str], parallel: bool = True) -> Kernel:
    compiled = numba.njit(parallel=parallel, fastmath=fastmath, cache=True, nogil=True)(function)
    # numba goes by a kernel's own file, and would keep one whose helpers have changed.
    index: Any = getattr(getattr(compiled, "_cache", None), "_cache_file", None)
    if hasattr(index, "_source_stamp"):
        index._source_stamp = SOURCES
    return cast(Kernel, compiled)


FILES = sorted(Path(__file__).parent.glob("*.py"))
SOURCES = hashlib.sha256(b"".join(file.read_bytes() for file in FILES)).hexdigest()
"""Stands for the source of all kernels in numba's cache."""


inline = cast(Callable[[Kernel], Kernel], numba.njit(inline="always"))


@inline
def mix(z: Any) -> Any:
    """The finaliser of splitmix64 (Steele, Lea, Flood, OOPSLA 2014): 64 bits to 64 mixed bits."""
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


@inline
def group_row(
    drawn: I32, i: int, block: int, n_pos: int, index: I32, offsets: I32, order: I64
) -> None:
    """Write the items `drawn` [M] for row i into it by a counting sort over blocks.

    The other arguments are those of `draw_grouped`.
    """
    row, ends, n_drawn, one = index[i], offsets[i], np.uint64(len(drawn)), np.uint64(1)
    # item // block as a multiplication: exact for any int32, and below 2^63, as `item_block` gives
    # blocks of up to 2^23 items and up to 256 of them. To multiply twice is faster than to store.
    shift = np.uint64(54)
    inverse = np.uint64(((1 << 54) + block - 1) // block)
    for e in range(len(ends)):
        ends[e] = 0
    for j in range(n_drawn):
        home = (np.uint64(np.uint32(drawn[j])) * inverse) >> shift
        ends[home + one] += 1
    place = n_pos
    for e in range(len(ends)):  # where the next item of block e - 1 goes
        place += ends[e]
        ends[e] = place - ends[e]
    for j in range(n_drawn):
        home = (np.uint64(np.uint32(drawn[j])) * inverse) >> shift
        place = ends[home + one]
        ends[home + one] = place + 1
        row[np.uint32(place)] = drawn[j]
        if order.shape[1] > 0:
            order[i, j] = place - n_pos


@jit
def draw_grouped(
    key: int, n_items: int, block: int, n_pos: int, index: I32, offsets: I32, order: I64
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
        [B, M] int64, written with the grouped column of each draw, minus K; [B, 0] to skip it.
    """
    n_neg = index.shape[1] - n_pos
    golden = np.uint64(0x9E3779B97F4A7C15)
    half, low = np.uint64(32), np.uint64(0xFFFFFFFF)
    n_rows, per_part = index.shape[0], (index.shape[0] + PARTS - 1) // PARTS
    for part in numba.prange(PARTS):
        pairs = np.empty(n_neg + 1, np.int32)  # room for the other of the last pair
        drawn = pairs[:n_neg]
        for i in range(part * per_part, min(n_rows, (part + 1) * per_part)):
            stream = mix(np.uint64(key) + np.uint64(i) * golden)
            for j in range(np.uint64((n_neg + 1) // 2)):
                bits = mix(stream + (np.uint64(2) * j + np.uint64(1)) * golden)
                first = ((bits >> half) * np.uint64(n_items)) >> half
                second = ((bits & low) * np.uint64(n_items)) >> half
                pairs[np.uint64(2) * j] = first
                pairs[np.uint64(2) * j + np.uint64(1)] = second
            group_row(drawn, i, block, n_pos, index, offsets, order)


@jit
def count_items(index: I32, first: int, counts: F32) -> None:
    """Add to counts [p, I] how often each item stands in column 0 or from column `first` on.

    The rows of `index` are cut into p parts, each with counts of its own: as whole numbers these
    come to the same sum however many parts there are.
    """
    n_rows, n_columns = index.shape
    per_part = (n_rows + len(counts) - 1) // len(counts)
    for part in numba.prange(len(counts)):
        own = counts[part]
        for i in range(part * per_part, min(n_rows, (part + 1) * per_part)):
            columns = index[i]
            own[np.uint64(np.uint32(columns[0]))] += np.float32(1)
            for c in range(np.uint64(first), np.uint64(n_columns)):
                own[np.uint64(np.uint32(columns[c]))] += np.float32(1)
