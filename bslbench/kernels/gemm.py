"""Products of dense matrices whose bits do not depend on the number of threads."""

from torch import Tensor
from torch.nn.functional import pad

GRAIN = 16
"""MKL deals a product out to its threads by rows and columns, and takes another way, with other
last bits, for what is left over of its tiles. Of extents that this divides nothing is left over."""


def matmul(a: Tensor, b: Tensor) -> Tensor:
    """Return ``a @ b`` of a [n, d] and b [d, m], differentiable; perhaps a view of a wider matrix.

    Both are filled up with zeros, the inner extent too: in the gradients it is an outer one.

    Examples
    --------
    >>> import torch
    >>> matmul(torch.ones(2, 3), torch.ones(3, 1))
    tensor([[3.],
            [3.]])
    """
    return (filled(a) @ filled(b))[: len(a), : b.shape[1]]


def filled(x: Tensor) -> Tensor:
    """Return x [n, m] with rows and columns of zeros added up to multiples of `GRAIN`."""
    rows, columns = -len(x) % GRAIN, -x.shape[1] % GRAIN
    return pad(x, (0, columns, 0, rows)) if rows or columns else x
