"""Dropout in one pass each way, and masks that are a function of (key, row, column) alone."""

from typing import Any

import numba
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from bslbench.kernels import cpu
from bslbench.kernels.cpu import F32, jit, jit_in_order, mix

Mask = npt.NDArray[np.bool_]


def drop(x: Tensor, keep: Tensor, rate: float) -> Tensor:
    """Return x where `keep` says so, divided by 1 - `rate`, and 0 elsewhere.

    Parameters
    ----------
    x
        [n, d], floating point.
    keep
        [n, d] bool.

    Examples
    --------
    >>> drop(torch.ones(1, 2), torch.tensor([[True, False]]), 0.5)
    tensor([[2., 0.]])
    """
    if not cpu.takes(x):
        return x * keep / (1 - rate)
    kept: Tensor = _CpuDrop.apply(x, keep, rate)  # type: ignore[no-untyped-call]
    return kept


class _CpuDrop(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, keep: Tensor, rate: float) -> Tensor:
        ctx.save_for_backward(keep)
        ctx.rate = rate
        out = torch.empty(x.shape)
        _drop(x.detach().contiguous().numpy(), keep.numpy(), np.float32(1 - rate), out.numpy())
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        (keep,) = ctx.saved_tensors
        return drop(grad, keep, ctx.rate), None, None


@jit_in_order
def _drop(x: F32, keep: Mask, rest: np.float32, out: F32) -> None:
    """Write ``x / rest`` where `keep`, else 0, [n, d]; a quotient, which `jit` would not keep."""
    for i in numba.prange(x.shape[0]):
        for k in range(x.shape[1]):
            out[i, k] = x[i, k] / rest if keep[i, k] else np.float32(0)


def dropout(x: Tensor, rate: float, key: int, rows: Tensor | None = None) -> Tensor:
    """Return x with each entry set to 0 at `rate` and the others divided by 1 - `rate`.

    Parameters
    ----------
    x
        [n, d].
    key
        Names the draw.
    rows
        Which rows of the table x is, [n] int64; None for a whole table.

    Examples
    --------
    >>> x, rows = torch.ones(5, 3), torch.tensor([4, 0, 4])
    >>> torch.equal(dropout(x, 0.5, 7)[rows], dropout(x[rows], 0.5, 7, rows))
    True
    """
    keep = np.empty(x.shape, np.bool_)
    listed = np.arange(len(x)) if rows is None else rows.cpu().numpy()
    _keep(key, round(rate * 2**32), listed, keep)
    return drop(x, torch.from_numpy(keep).to(x.device), rate)


@jit
def _keep(key: int, below: int, rows: npt.NDArray[np.int64], out: Mask) -> None:
    """Write which entries stay, [n, d]: those whose 32 hashed bits are not below `below`."""
    stream = mix(np.uint64(key))
    for r in numba.prange(out.shape[0]):
        for k in range(out.shape[1]):
            entry = np.uint64(rows[r] * out.shape[1] + k)
            out[r, k] = mix(stream + entry) >> np.uint64(32) >= np.uint64(below)
