"""The sparse product on CUDA (Triton): every row of a result is one program's, in a fixed order."""

from typing import NamedTuple

import torch
import triton.language as tl
from torch import Tensor

from bslbench.kernels.cpu_spmm import Csr
from bslbench.kernels.cuda_sddmm import jit, tile


class DeviceCsr(NamedTuple):
    """`cpu_spmm.Csr` as tensors on a device."""

    starts: Tensor
    ends: Tensor
    indices: Tensor
    row_scale: Tensor
    column_scale: Tensor

    @classmethod
    def of(cls, matrix: Csr, device: torch.device | str) -> "DeviceCsr":
        """Copy a matrix to `device`."""
        return cls(*(torch.from_numpy(array).to(device) for array in matrix))


def product(matrix: DeviceCsr, x: Tensor, rows: Tensor | None = None) -> Tensor:
    """Return ``matrix @ x``, or the listed rows of it alone, without a gradient.

    Parameters
    ----------
    matrix
        [n, m].
    x
        [m, d] float32.
    rows
        [r] int64, repeats allowed; only their entries are touched. None for all n rows.

    Returns
    -------
    Tensor
        [n, d] or [r, d] float32.
    """
    return _launch(matrix, x, rows, None)


def spread(transposed: DeviceCsr, x: Tensor, rows: Tensor | None = None) -> Tensor:
    """Return ``matrix[rows].T @ x`` for x [r, d]: the gradient of `product`, [m, d] float32.

    Parameters
    ----------
    transposed
        The transpose of the matrix, [m, n]. Its indices are all read, but only the listed rows' x.
    """
    if rows is None:
        return product(transposed, x)
    n_rows = len(transposed.column_scale)
    # Accumulating index_put sorts on CUDA, so that repeats are added in their order.
    summed = x.new_zeros(n_rows, x.shape[1]).index_put_((rows,), x, accumulate=True)
    listed = torch.zeros(n_rows, dtype=torch.int8, device=x.device).index_fill_(0, rows, 1)
    return _launch(transposed, summed, None, listed)


def _launch(matrix: DeviceCsr, x: Tensor, rows: Tensor | None, kept: Tensor | None) -> Tensor:
    """Return the `rows` of the product, leaving out columns whose `kept` [m] int8 is 0."""
    n_rows, dim = len(matrix.starts) if rows is None else len(rows), x.shape[1]
    out = torch.empty(n_rows, dim, device=x.device)
    if n_rows:
        _product[(n_rows,)](
            *matrix,
            matrix.starts if rows is None else rows,
            matrix.starts if kept is None else kept,
            x.detach().contiguous(),
            out,
            dim,
            LISTED=rows is not None,
            SOME=kept is not None,
            **tile(dim),
        )
    return out


@jit
def _product(
    starts: tl.tensor,
    ends: tl.tensor,
    indices: tl.tensor,
    row_scale: tl.tensor,
    column_scale: tl.tensor,
    rows: tl.tensor,
    kept: tl.tensor,
    x: tl.tensor,
    out: tl.tensor,
    dim: tl.tensor,
    LISTED: tl.constexpr,
    SOME: tl.constexpr,
    ROWS: tl.constexpr,
    DIM: tl.constexpr,
) -> None:
    """One row of the result, ROWS entries at a time."""
    r = tl.program_id(0).to(tl.int64)
    i = r
    if LISTED:
        i = tl.load(rows + r)
    k = tl.arange(0, DIM)
    real = k < dim
    first, last = tl.load(starts + i), tl.load(ends + i)
    total = tl.zeros((DIM,), tl.float32)
    for start in range(first, last, ROWS):
        e = start + tl.arange(0, ROWS)
        inside = e < last
        j = tl.load(indices + e, mask=inside, other=0).to(tl.int64)
        if SOME:
            inside = inside & (tl.load(kept + j, mask=inside, other=0) != 0)
        weight = tl.load(column_scale + j, mask=inside, other=0.0)
        places = x + j[:, None] * dim + k[None, :]
        row = tl.load(places, mask=inside[:, None] & real[None, :], other=0.0)  # (ROWS, DIM)
        total += tl.sum(weight[:, None] * row, axis=0)
    tl.store(out + r * dim + k, total * tl.load(row_scale + i), mask=real)
