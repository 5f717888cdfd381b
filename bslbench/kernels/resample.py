"""Means over resampled users: the inner loop of the bootstrap, without a matrix of weights."""

import numba
import numpy as np
import numpy.typing as npt

from bslbench.kernels.cpu import jit_strictly, mix

F64 = npt.NDArray[np.float64]


def resampled_means(values: npt.ArrayLike, n_resamples: int, key: int) -> F64:
    """Return the means of all columns over users drawn with replacement, [n_resamples, k] float64.

    Resample r draws the same users for every column and in every call with as many users, so that
    columns from different calls may be compared. The bits depend on nothing but the column.

    Parameters
    ----------
    values
        [n_users, k], fewer than 2^32 users.
    key
        Names the draws.

    Examples
    --------
    >>> resampled_means([[1.0, 2.0], [1.0, 2.0], [1.0, 2.0]], 2, key=0)
    array([[1., 2.],
           [1., 2.]])
    """
    rows = np.ascontiguousarray(values, dtype=np.float64)
    means = np.empty((n_resamples, rows.shape[1]))
    _resample(rows, np.uint64(key), means)
    return means


@jit_strictly
def _resample(values: F64, key: np.uint64, means: F64) -> None:
    """Add up the rows as often as each is drawn, in the order of the users."""
    n_users, n_columns = values.shape
    golden = np.uint64(0x9E3779B97F4A7C15)
    for r in numba.prange(len(means)):
        stream = mix(key + np.uint64(r) * golden)
        times = np.zeros(n_users, np.uint32)
        total = np.zeros(n_columns)
        for i in range(n_users):
            bits = mix(stream + np.uint64(i + 1) * golden) >> np.uint64(32)
            times[(bits * np.uint64(n_users)) >> np.uint64(32)] += 1
        for u in range(n_users):
            if times[u]:
                weight = np.float64(times[u])
                for c in range(n_columns):
                    total[c] += weight * values[u, c]
        means[r] = total / n_users
