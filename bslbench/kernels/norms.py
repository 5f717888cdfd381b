"""Squared row norms, differentiable, in one pass over the table each way."""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from bslbench.kernels import cpu
from bslbench.kernels.cpu_sddmm import kernels


def squared_norms(x: Tensor) -> Tensor:
    """Return the squared Euclidean norms of the rows of x [n, d], [n]."""
    if cpu.takes(x):
        norms: Tensor = _CpuSquaredNorms.apply(x)  # type: ignore[no-untyped-call]
        return norms
    return x.square().sum(1)


class _CpuSquaredNorms(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        x = x.contiguous()
        out = torch.empty(len(x))
        kernels(x.shape[1]).squared_norms(x.detach().numpy(), out.numpy())
        ctx.save_for_backward(x)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        out = torch.empty_like(x)
        cpu.scale_rows(x.detach().numpy(), (2 * grad).numpy(), out.numpy())
        return out
