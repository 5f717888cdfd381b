"""The inverse of a symmetric positive definite matrix, in its own memory."""

import numba
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from bslbench.kernels.gemm import matmul

PIVOT = 512
"""Rows that are eliminated at a time."""
ROWS = 2048
"""Rows that one matrix product updates; fixed, so that the bits are."""


def n_bytes(n: int) -> int:
    """Return the memory that `invert` takes beside the matrix: panels, and an update of rows."""
    return 4 * n * (3 * PIVOT + ROWS)


def invert(matrix: Tensor) -> None:
    """Replace a symmetric positive definite matrix [n, n] float32 by its inverse.

    Blocks of rows are swept one after the other (Goodnight, The American Statistician 1979): the
    work, n^3 operations on the lower triangle, is that of a Cholesky inverse, but it is all matrix
    products of fixed shapes, so that the bits do not depend on the number of threads, and nothing
    but three panels [n, PIVOT] and an update [ROWS, n] is needed beside the matrix. Only its lower
    triangle is read.
    """
    n = len(matrix)
    for first in range(0, n, PIVOT):
        end = min(first + PIVOT, n)
        block = _symmetric(matrix[first:end, first:end].double())
        panel = torch.cat([matrix[first:end, :first].T, block.float(), matrix[end:, first:end]])
        _sweep(block.numpy())
        pivot = block.float()  # minus the inverse
        scaled = matmul(panel, -pivot)  # (n, PIVOT)
        for top in range(0, n, ROWS):
            bottom = min(top + ROWS, n)
            rows = matrix[top:bottom, :bottom]
            rows -= matmul(scaled[top:bottom], panel[:bottom].T)
        matrix[first:end, :first] = scaled[:first].T
        matrix[end:, first:end] = scaled[end:]
        matrix[first:end, first:end] = pivot
    for top in range(0, n, ROWS):  # it is minus the inverse now, below the diagonal
        bottom = min(top + ROWS, n)
        matrix[top:bottom, :top].neg_()
        matrix[:top, top:bottom] = matrix[top:bottom, :top].T
        matrix[top:bottom, top:bottom] = -_symmetric(matrix[top:bottom, top:bottom])


def _symmetric(block: Tensor) -> Tensor:
    """Return a square block with its lower triangle mirrored."""
    return block.tril() + block.tril(-1).T


@numba.njit(cache=True)
def _sweep(block: npt.NDArray[np.float64]) -> None:
    """Replace a symmetric positive definite block by minus its inverse."""
    for p in range(len(block)):
        row = block[p].copy()
        pivot = 1 / row[p]
        for i in range(len(block)):
            weight = row[i] * pivot
            for j in range(len(block)):
                block[i, j] -= weight * row[j]
            block[i, p] = weight
        for j in range(len(block)):
            block[p, j] = row[j] * pivot
        block[p, p] = -pivot
