"""log-sum-exp at a temperature, in fewer passes over the scores than autograd takes."""

from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from bslbench.kernels import cpu, cpu_log_sum_exp


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
        rows = x.reshape(-1, x.shape[-1]).contiguous()  # [r, n]
        peak, total = _sums(rows, tau)
        ctx.save_for_backward(rows, peak, total)
        ctx.tau = tau
        return (total.log() + peak / tau).view(x.shape[:-1])

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        rows, peak, total = ctx.saved_tensors
        out = _gradient(rows, ctx.tau, peak, total, grad.reshape(-1))
        return out.view(*grad.shape, rows.shape[1]), None


def _sums(rows: Tensor, tau: float) -> tuple[Tensor, Tensor]:
    """Return each row's peak, 0 if infinite, and the sum of exp((x - peak) / tau), [r] each."""
    if cpu.takes(rows):
        peak, total = torch.empty(2, len(rows))
        factor = np.float32(1 / tau)
        cpu_log_sum_exp.sums(rows.detach().numpy(), factor, peak.numpy(), total.numpy())
        return peak, total
    peak = rows.amax(1)
    peak = peak.masked_fill(peak.isinf(), 0)  # -inf - -inf is not a number
    return peak, (rows - peak[:, None]).div_(tau).exp_().sum(1)


def _gradient(rows: Tensor, tau: float, peak: Tensor, total: Tensor, grad: Tensor) -> Tensor:
    """Return ``grad / (total tau) exp((x - peak) / tau)``, [r, n]; 0 where the total is 0."""
    if cpu.takes(rows):
        out = torch.empty_like(rows)
        scores, peaks, totals = rows.detach().numpy(), peak.numpy(), total.numpy()
        given, factor = grad.contiguous().numpy(), np.float32(1 / tau)
        of_rows = scores, peaks, totals, given
        cpu_log_sum_exp.gradient(*of_rows, np.float32(tau), factor, out.numpy())
        return out
    weight = (grad / (total * tau)).masked_fill(total == 0, 0)  # 0 / 0 where all scores are -inf
    return (rows - peak[:, None]).div_(tau).exp_().mul_(weight[:, None])
