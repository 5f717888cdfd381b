"""Sampled dense-dense matrix product: the scores of (user, item) pairs that an index names."""

from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numba
import numpy as np
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from bslbench.kernels import cpu
from bslbench.kernels.cpu_sddmm import EPS, Scale, kernels


def item_block(n_items: int) -> int:
    """Return the number of item rows of one block: for each catalog one, whatever the machine.

    With 64 numbers a row 512 of them are an eighth of a MiB, which leaves a core's cache room for
    users; more than 256 blocks would cost a row with few negatives more than these do.
    """
    return min(-(-n_items // 16), max(512, -(-n_items // 256)))


def item_bounds(n_items: int) -> Tensor:
    """Return the first row of each block of a whole item table, and its end, int32."""
    block = item_block(n_items)
    return torch.arange(0, n_items + block, block, dtype=torch.int32).clamp_max_(n_items)


@dataclass(frozen=True)
class Index:
    """Which rows of an item table each row of a batch is scored against.

    Attributes
    ----------
    items
        [B, K + M] int32: K positives, then M negatives grouped by block of the table.
    offsets
        [B, n_blocks + 1] int32: block b of row i holds columns ``offsets[i, b]`` up to
        ``offsets[i, b + 1]``; the first is K.
    n_pos
        K.
    bounds
        [n_blocks + 1] int32: block b is rows ``bounds[b]`` up to ``bounds[b + 1]`` of the table,
        from its first to its last.
    """

    items: Tensor
    offsets: Tensor
    n_pos: int
    bounds: Tensor

    @property
    def n_rows(self) -> int:
        """Rows of the table, I."""
        return int(self.bounds[-1])

    def renumbered(self) -> tuple[Tensor, "Index"]:
        """Return the rows that are named, in their order, [n] int64, and the index into these."""
        items, bounds = self.items.numpy(), self.bounds.numpy()
        named = np.zeros(self.n_rows, np.bool_)
        named[items] = True
        rows = np.flatnonzero(named)
        places = np.empty(self.n_rows, np.int32)
        places[rows] = np.arange(len(rows))
        within = np.searchsorted(rows, bounds).astype(np.int32)
        found = torch.from_numpy(places[items]), torch.from_numpy(within)
        return torch.from_numpy(rows), replace(self, items=found[0], bounds=found[1])


class Scores(NamedTuple):
    """Scores of the positives [B, K] and negatives [B, M]; squared norms of all item rows [I].

    The norms come out of the same pass and are what L2 needs.
    """

    pos: Tensor
    neg: Tensor
    squared: Tensor


def sddmm(users: Tensor, items: Tensor, index: Index, *, cosine: bool) -> Scores:
    """Return the scores of the pairs that `index` names, differentiable in both tables.

    No tensor of shape [B, K + M, d] is materialised, forward or backward.

    Parameters
    ----------
    users
        Rows of the batch's users, [B, d] float32.
    items
        The whole item table in id order, [I, d] float32.
    cosine
        Divide each row by its norm (at least `EPS`) first; no normalised copy is made.
    """
    if cpu.takes(users):
        return Scores(*_CpuSddmm.apply(users, items, index, cosine))  # type: ignore[no-untyped-call]
    if users.is_cuda and users.dtype == torch.float32:
        from bslbench.kernels import cuda_sddmm  # Triton comes with torch's CUDA builds only

        scores, squared = cuda_sddmm.sddmm(users, items, index, cosine=cosine)
        return _apart(scores, index, squared)
    return sddmm_reference(users, items, index, cosine=cosine)


def sddmm_reference(
    users: Tensor, items: Tensor, index: Index, *, cosine: bool, chunk: int = 64
) -> Scores:
    """`sddmm` in plain torch, any device and dtype, gathering `chunk` rows at a time."""
    squared = items.square().sum(1)
    if cosine:
        users = users / users.norm(dim=1, keepdim=True).clamp_min(float(EPS))
        items = items / items.norm(dim=1, keepdim=True).clamp_min(float(EPS))
    parts = [
        torch.einsum("bd,bmd->bm", rows, items[columns.long()])
        for rows, columns in zip(
            torch.split(users, chunk), torch.split(index.items, chunk), strict=True
        )
    ]
    return _apart(torch.cat(parts), index, squared)


def _apart(scores: Tensor, index: Index, squared: Tensor) -> Scores:
    pos, neg = torch.split(scores, [index.n_pos, scores.shape[1] - index.n_pos], dim=1)
    return Scores(pos, neg, squared)


class _CpuSddmm(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, users: Tensor, items: Tensor, index: Index, cosine: bool
    ) -> tuple[Tensor, Tensor, Tensor]:
        users, items = users.contiguous(), items.contiguous()
        n_rows, n_columns = index.items.shape
        pos, neg = torch.empty(n_rows, index.n_pos), torch.empty(n_rows, n_columns - index.n_pos)
        squared = torch.empty(len(items))
        user_scale, item_scale = (
            Scale(*np.empty((2, len(rows)), np.float32)) for rows in (users, items)
        )
        tables, columns = (_np(users), _np(items)), (_np(index.items), *_merged(index))
        compiled = kernels(users.shape[1])
        compiled.scales(tables[0], cosine, *user_scale)
        of_items = *item_scale, _np(squared)
        compiled.forward(*tables, cosine, user_scale, *of_items, *columns, _np(pos), _np(neg))
        ctx.save_for_backward(users, items)  # or a table that changed since would go unseen
        ctx.tables, ctx.columns = (*tables, user_scale, item_scale), columns
        ctx.shapes = pos.shape, neg.shape, squared.shape
        # Torch would wake its threads in each step to clear the norms', which only L2 has.
        ctx.set_materialize_grads(False)
        return pos, neg, squared

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *given: Tensor | None) -> tuple[Tensor, Tensor, None, None]:
        users, items = ctx.saved_tensors
        pos, neg, squared = (
            np.zeros(shape, np.float32) if grad is None else _np(grad.contiguous())
            for grad, shape in zip(given, ctx.shapes, strict=True)
        )
        grad_users, grad_items = torch.empty_like(users), torch.empty_like(items)
        compiled = kernels(users.shape[1])
        n_parts = numba.get_num_threads()
        compiled.grad_users(pos, neg, *ctx.tables, *ctx.columns[:2], n_parts, _np(grad_users))
        compiled.grad_items(pos, neg, *ctx.tables, squared, *ctx.columns, _np(grad_items))
        return grad_users, grad_items, None, None


def _per_visit(index: Index) -> int:
    """Return how many blocks a row takes at each visit, so that it finds about 16 negatives there.

    Looking up where a block's columns lie costs as much as several products; past 8,192 item rows
    the cache's misses cost more.
    """
    n_blocks, n_neg = index.offsets.shape[1] - 1, index.items.shape[1] - index.n_pos
    return max(1, min(16 * n_blocks // max(1, n_neg), 8192 * n_blocks // index.n_rows))


def _merged(index: Index) -> tuple[Any, Any]:
    """Return the offsets and bounds, with the blocks of one visit made one block.

    Each thread keeps two blocks or more, where there are so many. The bits stay the same: no sum
    runs over blocks.
    """
    n_blocks = index.offsets.shape[1] - 1
    count = max(1, min(_per_visit(index), n_blocks // (2 * numba.get_num_threads())))
    offsets, bounds, parts = _np(index.offsets), _np(index.bounds), slice(None, -1, count)
    if count == 1:
        return offsets, bounds
    merged = np.concatenate([offsets[:, parts], offsets[:, -1:]], axis=1)
    return merged, np.concatenate([bounds[parts], bounds[-1:]])


def _np(tensor: Tensor) -> Any:
    return tensor.detach().numpy()
