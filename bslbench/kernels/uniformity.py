"""Uniformity of unit vectors: all pairs' similarities, but never all at once."""

import math
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from bslbench.kernels.gemm import matmul

CHUNK = 256
"""Rows that are compared with all others together."""


def uniformity(rows: Tensor) -> Tensor:
    """Return log mean exp(-2 |x - y|^2) over all pairs of different rows.

    No [B, B] matrix is kept: the gradient comes out of the same pass.

    Parameters
    ----------
    rows
        [B, d], floating point, of unit length.

    Returns
    -------
    Tensor
        0-d, differentiable once. A single row has no pair and counts as 0.

    Examples
    --------
    >>> uniformity(torch.tensor([[1.0, 0.0], [0.0, 1.0]]))
    tensor(-4.)
    """
    n = len(rows)
    if n == 1:
        return rows.new_zeros(())
    log_sum: Tensor = _LogSumOfPairs.apply(rows)  # type: ignore[no-untyped-call]
    return log_sum - math.log(n * (n - 1))


class _LogSumOfPairs(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, rows: Tensor) -> Tensor:
        pulls, sums = torch.zeros_like(rows), []
        for first in range(0, len(rows), CHUNK):
            chunk = rows[first : first + CHUNK]
            near = matmul(4 * chunk, rows[first:].T).exp_()  # e^4 exp(-2 |x - y|^2)
            near[:, : len(chunk)].triu_(1)  # each pair once
            pulls[first : first + CHUNK] += matmul(near, rows[first:])
            pulls[first:] += matmul(near.T, chunk)
            sums.append(near.sum(1).sum())  # by rows, so that no bit depends on the threads
        total = 2 * torch.stack(sums).sum()
        ctx.save_for_backward(pulls, total)
        return total.log() - 4

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        pulls, total = ctx.saved_tensors
        each: Tensor = 8 * grad / total * pulls  # each pair stands in the sum twice
        return each
