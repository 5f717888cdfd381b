"""Row norms and rows of unit length, differentiable, in one pass over the table each way."""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn.functional import normalize

from bslbench.kernels import cpu
from bslbench.kernels.cpu_sddmm import EPS, kernels


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
        of_x: Tensor = x * (2 * grad)[:, None]
        return of_x


def unit_rows(x: Tensor) -> Tensor:
    """Return the rows of x [n, d] divided by max(norm, `EPS`), as `normalize` does."""
    if cpu.takes(x):
        scaled: Tensor = _CpuUnitRows.apply(x)  # type: ignore[no-untyped-call]
        return scaled
    return normalize(x, dim=1, eps=float(EPS))


class _CpuUnitRows(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        x = x.contiguous()
        out, scale = torch.empty_like(x), torch.empty(2, len(x))
        kernels(x.shape[1]).unit(x.detach().numpy(), *scale.numpy(), out.numpy())
        ctx.save_for_backward(x, scale)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        x, scale = ctx.saved_tensors
        out, given = torch.empty_like(x), grad.contiguous().numpy()
        kernels(x.shape[1]).grad_unit(given, x.detach().numpy(), *scale.numpy(), out.numpy())
        return out
