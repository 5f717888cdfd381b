"""log-sum-exp at a temperature, in half the passes over the scores that autograd takes."""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

CHUNK = 1 << 18
"""Scores that are worked on together: about what a core's cache holds."""


def log_sum_exp(x: Tensor, tau: float = 1.0) -> Tensor:
    """Return ``log sum exp(x / tau)`` over the last dimension, without overflow.

    Parameters
    ----------
    x
        [..., n], floating point.
    tau
        Temperature, > 0.

    Returns
    -------
    Tensor
        [...], differentiable once in x. A row of -inf gives -inf, and a gradient of zero.

    Examples
    --------
    >>> log_sum_exp(torch.tensor([[100.0, 100.0]]), tau=0.5)
    tensor([200.6931])
    """
    total: Tensor = _LogSumExp.apply(x, tau)  # type: ignore[no-untyped-call]
    return total


class _LogSumExp(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, tau: float) -> Tensor:
        rows = x.reshape(-1, x.shape[-1])
        share = torch.empty_like(rows)  # of exp in its row's sum, before it is divided by that
        total, most = (rows.new_empty(len(rows), 1) for _ in range(2))
        n_chunk = max(1, CHUNK // max(1, rows.shape[1]))
        for first in range(0, len(rows), n_chunk):
            part = slice(first, first + n_chunk)
            chunk = torch.div(rows[part], tau, out=share[part])
            torch.amax(chunk, 1, keepdim=True, out=most[part])
            most[part].masked_fill_(most[part].isinf(), 0)
            torch.sum(chunk.sub_(most[part]).exp_(), 1, keepdim=True, out=total[part])
        ctx.save_for_backward(share, total)
        ctx.tau = tau
        return (total.log() + most).view(x.shape[:-1])

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        share, total = ctx.saved_tensors
        weight = grad.reshape(-1, 1) / (total * ctx.tau)
        weight = weight.masked_fill(total == 0, 0)
        return (share * weight).view(*grad.shape, share.shape[1]), None
