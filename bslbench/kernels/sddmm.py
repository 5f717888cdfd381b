"""Sampled dense-dense matrix product: the scores of (user, item) pairs that an index names."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from bslbench.kernels import cpu

EPS = 1e-12
"""Rows are divided by max(norm, EPS), as torch.nn.functional.normalize does."""


def item_block(n_items: int) -> int:
    """Return the number of item rows of one block, a constant of the protocol."""
    return min(2048, -(-n_items // 16))


@dataclass(frozen=True)
class Index:
    """Which items each row of a batch is scored against.

    Attributes
    ----------
    items
        [B, K + M] int32: K positives, then M negatives grouped by item block.
    offsets
        [B, n_blocks + 1] int32: block b of row i holds columns ``offsets[i, b]`` up to
        ``offsets[i, b + 1]``; the first is K.
    n_pos
        K.
    block
        Item rows per block.
    """

    items: Tensor
    offsets: Tensor
    n_pos: int
    block: int


def sddmm(users: Tensor, items: Tensor, index: Index, *, cosine: bool) -> Tensor:
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

    Returns
    -------
    Tensor
        [B, K + M] float32.
    """
    if users.device.type == "cpu" and users.dtype == torch.float32:
        scores: Tensor = _CpuSddmm.apply(users, items, index, cosine)  # type: ignore[no-untyped-call]
        return scores
    return sddmm_reference(users, items, index, cosine=cosine)


def sddmm_reference(
    users: Tensor, items: Tensor, index: Index, *, cosine: bool, chunk: int = 64
) -> Tensor:
    """`sddmm` in plain torch, any device and dtype, gathering `chunk` rows at a time."""
    if cosine:
        users = users / users.norm(dim=1, keepdim=True).clamp_min(EPS)
        items = items / items.norm(dim=1, keepdim=True).clamp_min(EPS)
    parts = [
        torch.einsum("bd,bmd->bm", rows, items[columns.long()])
        for rows, columns in zip(
            torch.split(users, chunk), torch.split(index.items, chunk), strict=True
        )
    ]
    return torch.cat(parts)


class _CpuSddmm(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, users: Tensor, items: Tensor, index: Index, cosine: bool) -> Tensor:
        users, items = users.contiguous(), items.contiguous()
        user_scale, user_pull = _scales(users, cosine)
        item_scale, item_pull = _scales(items, cosine)
        scores = torch.empty(index.items.shape)
        tables = _np(users), _np(items), _np(user_scale), _np(item_scale)
        columns = _np(index.items), _np(index.offsets), index.n_pos
        cpu.sddmm_forward(*tables, *columns, _np(scores))
        ctx.save_for_backward(users, items, scores)
        ctx.tables, ctx.pulls, ctx.columns, ctx.block = (
            tables,
            (_np(user_pull), _np(item_pull)),
            columns,
            index.block,
        )
        return scores

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, None, None]:
        users, items, scores = ctx.saved_tensors
        _, _, user_scale, item_scale = ctx.tables
        shared = (
            *(_np(grad.contiguous()), _np(scores), _np(users), _np(items)),
            *(user_scale, item_scale),
        )
        user_pull, item_pull = ctx.pulls
        columns, offsets, n_pos = ctx.columns
        grad_users, grad_items = torch.empty_like(users), torch.empty_like(items)
        cpu.sddmm_grad_users(*shared, user_pull, columns, offsets, n_pos, _np(grad_users))
        cpu.sddmm_grad_items(
            *shared, item_pull, columns, offsets, n_pos, ctx.block, _np(grad_items)
        )
        return grad_users, grad_items, None, None


def _scales(rows: Tensor, cosine: bool) -> tuple[Tensor, Tensor]:
    """Return per row the factor on its products and that on the derivative of its norm, [n]."""
    if not cosine:
        return torch.ones(len(rows)), torch.zeros(len(rows))
    squared = torch.empty(len(rows))
    cpu.squared_norms(_np(rows), _np(squared))
    norms = squared.sqrt()
    scale = norms.clamp_min(EPS).reciprocal()
    return scale, torch.where(norms > EPS, scale.square(), 0.0)


def _np(tensor: Tensor) -> Any:
    return tensor.detach().numpy()
