"""Sparse-dense matrix product: one hop over the graph of users and items."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from scipy.sparse import csr_array
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn.functional import pad

from bslbench.kernels import cpu, cpu_spmm
from bslbench.kernels.cpu import F32
from bslbench.kernels.cpu_spmm import WIDTH, Csr


@dataclass(frozen=True)
class Adjacency:
    """The normalised graph R = D_u^-1/2 A D_i^-1/2 of a train matrix A, [n_users, n_items].

    Degrees stand in for the values. A user or item without interactions has a row or column of
    zeros.

    Attributes
    ----------
    by_row, by_column
        R and its transpose, both row by row.
    """

    by_row: Csr
    by_column: Csr

    @classmethod
    def of(cls, train: csr_array) -> "Adjacency":
        """Build from a train matrix [n_users, n_items]: milliseconds, so nobody keeps it for later.

        Examples
        --------
        >>> spmm(Adjacency.of(csr_array([[1, 1], [0, 0]])), torch.ones(2, 1))
        tensor([[1.4142],
                [0.0000]])
        """
        columns = csr_array(train.T)
        columns.sort_indices()
        row_scale, column_scale = (_inverse_root(np.diff(m.indptr)) for m in (train, columns))
        return cls(
            _csr(train, row_scale, column_scale),
            _csr(columns, column_scale, row_scale),
        )

    @property
    def T(self) -> "Adjacency":
        """The transpose, [n_items, n_users], uncopied."""
        return Adjacency(self.by_column, self.by_row)

    @property
    def shape(self) -> tuple[int, int]:
        """Numbers of rows and of columns."""
        return len(self.by_row.row_scale), len(self.by_row.column_scale)

    @property
    def n_bytes(self) -> int:
        """Memory that it holds."""
        return sum(array.nbytes for array in (*self.by_row, *self.by_column))

    def thinned(self, rate: float, key: int) -> "Adjacency":
        """Return R with each interaction left out at `rate`, by draws that `key` names.

        The others are divided by 1 - `rate`.
        """
        n_columns = self.shape[1]
        return Adjacency(
            _thinned(self.by_row, rate, key, (n_columns, 1)),
            _thinned(self.by_column, rate, key, (1, n_columns)),
        )


def spmm(adjacency: Adjacency, x: Tensor, rows: Tensor | None = None) -> Tensor:
    """Return ``adjacency @ x``, or the listed rows of it alone, differentiable in x.

    With `rows`, only the entries of these rows are touched, forward and backward.

    Parameters
    ----------
    x
        [m, d], float32 on the CPU for the numba kernels.
    rows
        [r] int64, repeats allowed; None for all n rows.

    Returns
    -------
    Tensor
        [n, d] or [r, d].
    """
    result: Tensor = _Spmm.apply(x, adjacency, rows)  # type: ignore[no-untyped-call]
    return result


class _Spmm(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, adjacency: Adjacency, rows: Tensor | None) -> Tensor:
        ctx.adjacency, ctx.rows = adjacency, rows
        return product(adjacency, x, rows)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        return spread(ctx.adjacency, grad, ctx.rows), None, None


def product(adjacency: Adjacency, x: Tensor, rows: Tensor | None = None) -> Tensor:
    """`spmm` without a gradient."""
    if not cpu.takes(x):
        return product_reference(adjacency, x, rows)
    if rows is None:
        rows = torch.arange(adjacency.shape[0])
    blocks = _blocks(x)
    out = torch.empty(len(rows), *blocks.shape[1:])
    cpu_spmm.product(adjacency.by_row, rows.numpy(), blocks.numpy(), out.numpy())
    return out.flatten(1)[:, : x.shape[1]]


def spread(adjacency: Adjacency, x: Tensor, rows: Tensor | None = None) -> Tensor:
    """Return the gradient of `spmm`, ``adjacency[rows].T @ x`` for x [r, d], [m, d]."""
    if rows is None:
        return product(adjacency.T, x)
    if not cpu.takes(x):
        return spread_reference(adjacency, x, rows)
    blocks = _blocks(x)
    out = torch.empty(adjacency.shape[1], *blocks.shape[1:])
    cpu_spmm.spread(adjacency.by_row, rows.numpy(), blocks.numpy(), out.numpy())
    return out.flatten(1)[:, : x.shape[1]]


def product_reference(adjacency: Adjacency, x: Tensor, rows: Tensor | None = None) -> Tensor:
    """`product` in plain torch, any device and dtype."""
    n_rows = adjacency.shape[0] if rows is None else len(rows)
    places, columns, weights = _entries(adjacency.by_row, x, rows)
    out = x.new_zeros(n_rows, x.shape[1])
    return out.index_add_(0, places, weights * x[columns])


def spread_reference(adjacency: Adjacency, x: Tensor, rows: Tensor) -> Tensor:
    """`spread` in plain torch, any device and dtype."""
    places, columns, weights = _entries(adjacency.by_row, x, rows)
    out = x.new_zeros(adjacency.shape[1], x.shape[1])
    return out.index_add_(0, columns, weights * x[places])


def _entries(matrix: Csr, like: Tensor, rows: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
    """Return each listed row's entries: place in the list [e], column [e], weight [e, 1]."""
    listed = np.arange(len(matrix.starts)) if rows is None else rows.cpu().numpy()
    degrees = (matrix.ends - matrix.starts)[listed]
    places = np.repeat(np.arange(len(listed)), degrees)
    within = np.arange(len(places)) - (np.cumsum(degrees) - degrees)[places]
    columns = matrix.indices[matrix.starts[listed][places] + within].astype(np.int64)
    weights = matrix.row_scale[listed][places].astype(np.float64) * matrix.column_scale[columns]
    return (
        torch.from_numpy(places).to(like.device),
        torch.from_numpy(columns).to(like.device),
        torch.from_numpy(weights[:, None]).to(like),
    )


def _blocks(x: Tensor) -> Tensor:
    """Return x [n, d] as [n, blocks, WIDTH]; a copy only where WIDTH does not divide d."""
    x = x.detach()
    if x.shape[1] % WIDTH:
        x = pad(x, (0, -x.shape[1] % WIDTH))
    return x.contiguous().view(len(x), -1, WIDTH)


def _csr(matrix: csr_array, row_scale: F32, column_scale: F32) -> Csr:
    indptr = matrix.indptr.astype(np.int32)
    indices = np.array(matrix.indices, dtype=np.int32)  # a copy: the cache maps it read-only
    return Csr(indptr[:-1].copy(), indptr[1:].copy(), indices, row_scale, column_scale)


def _inverse_root(degrees: npt.NDArray[np.integer]) -> F32:
    """Return degree^-1/2, 0 for a degree of 0, float32."""
    return np.where(degrees > 0, np.maximum(degrees, 1) ** -0.5, 0).astype(np.float32)


def _thinned(matrix: Csr, rate: float, key: int, strides: tuple[int, int]) -> Csr:
    ends, indices = np.empty_like(matrix.ends), np.zeros_like(matrix.indices)
    cpu_spmm.thin_out(key, round(rate * 2**32), matrix, strides, ends, indices)
    row_scale = (matrix.row_scale / (1 - rate)).astype(np.float32)
    return matrix._replace(ends=ends, indices=indices, row_scale=row_scale)
