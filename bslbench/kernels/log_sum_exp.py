"""log-sum-exp at a temperature, in half the passes over the scores that autograd takes."""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

CHUNK = 1 << 18
"""Scores that a CPU works on together: about what a core's cache holds."""


def log_sum_exp(x: Tensor, tau: float | Tensor = 1.0) -> Tensor:
    """Return ``log sum exp(x / tau)`` over the last dimension, without overflow.

    Parameters
    ----------
    x
        [..., n], floating point.
    tau
        Temperature, > 0; a tensor gets its gradient too.

    Returns
    -------
    Tensor
        [...], differentiable once. No scores, or all of them -inf, give -inf, and a gradient of 0.

    Examples
    --------
    >>> log_sum_exp(torch.tensor([[100.0, 100.0]]), tau=0.5)
    tensor([200.6931])
    """
    if isinstance(tau, Tensor):
        x, tau = x / tau, 1.0
    if not x.shape[-1]:
        return torch.logsumexp(x, -1)
    total: Tensor = _LogSumExp.apply(x, tau)  # type: ignore[no-untyped-call]
    return total


class _LogSumExp(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, tau: float) -> Tensor:
        rows = x.reshape(-1, x.shape[-1])  # [r, n]
        exps = torch.empty_like(rows)
        total, peak = (rows.new_empty(len(rows), 1) for _ in range(2))
        n_chunk = max(1, len(rows) if x.is_cuda else CHUNK // rows.shape[1])
        for first in range(0, len(rows), n_chunk):
            part = slice(first, first + n_chunk)
            chunk = torch.div(rows[part], tau, out=exps[part])
            torch.amax(chunk, 1, keepdim=True, out=peak[part])
            peak[part].masked_fill_(peak[part].isinf(), 0)  # -inf - -inf is not a number
            chunk.sub_(peak[part]).exp_()
            # Threads share the sum of a long row that is alone, and would part it by their number.
            pair = chunk.expand(2, -1) if len(chunk) == 1 else chunk
            total[part] = pair.sum(1, keepdim=True)[: len(chunk)]
        ctx.save_for_backward(exps, total)
        ctx.tau = tau
        return (total.log() + peak).view(x.shape[:-1])

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        exps, total = ctx.saved_tensors
        weight = grad.reshape(-1, 1) / (total * ctx.tau)  # [r, 1]
        weight = weight.masked_fill(total == 0, 0)  # 0 / 0 where all scores are -inf
        return (exps * weight).view(*grad.shape, exps.shape[1]), None
