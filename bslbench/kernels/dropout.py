"""Dropout masks that are a pure function of (key, row, column): rows drop alike in any company."""

import numba
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from bslbench.kernels.cpu import _mix as mix
from bslbench.kernels.cpu import jit


def dropout(x: Tensor, rate: float, key: int, rows: Tensor | None = None) -> Tensor:
    """Return x with each entry set to 0 at `rate` and the others divided by 1 - `rate`.

    Parameters
    ----------
    x
        [n, d].
    key
        Names the draw.
    rows
        Which rows of the table x is, [n] int64; None for a whole table.

    Examples
    --------
    >>> x, rows = torch.ones(5, 3), torch.tensor([4, 0, 4])
    >>> torch.equal(dropout(x, 0.5, 7)[rows], dropout(x[rows], 0.5, 7, rows))
    True
    """
    keep = np.empty(x.shape, np.bool_)
    listed = np.arange(len(x)) if rows is None else rows.cpu().numpy()
    _keep(key, round(rate * 2**32), listed, keep)
    return x * torch.from_numpy(keep).to(x.device) / (1 - rate)


@jit
def _keep(key: int, below: int, rows: npt.NDArray[np.int64], out: npt.NDArray[np.bool_]) -> None:
    """Write which entries stay, [n, d]: those whose 32 hashed bits are not below `below`."""
    stream = mix(np.uint64(key))
    for r in numba.prange(out.shape[0]):
        for k in range(out.shape[1]):
            entry = np.uint64(rows[r] * out.shape[1] + k)
            out[r, k] = mix(stream + entry) >> np.uint64(32) >= np.uint64(below)
