"""Adam for rows that few steps touch: what a step would do to the others is done when needed.

Without a gradient Adam's update is a known sequence, so a row is brought up to date before it is
next read, by replaying the steps it missed with their own rates.
"""

import numba
import numpy as np
import numpy.typing as npt

from bslbench.kernels.cpu import F32, jit

F64 = npt.NDArray[np.float64]
I64 = npt.NDArray[np.int64]

BETA1, BETA2, EPS = np.float32(0.9), np.float32(0.999), np.float32(1e-8)
REST1, REST2 = np.float32(1 - 0.9), np.float32(1 - 0.999)  # not 1 - BETA2: 5e-5 off in float32

MOST = 156
"""Steps without a gradient after which no float32 parameter moves any more: 0.9^156 < 1e-7."""


@jit
def catch_up(
    rows: I64, n_steps: int, sizes: F32, roots: F32, table: F32, m: F32, v: F32, last: I64
) -> None:
    """Bring `rows` of a table to where dense Adam has them after `n_steps` steps.

    Parameters
    ----------
    rows
        Distinct ids, [n].
    sizes, roots
        Per step, from index 0: rate / (1 - beta1^t) and sqrt(1 - beta2^t), [>= n_steps].
    table, m, v
        Parameters and moments, [N, d], changed in place.
    last
        Number of steps each row has taken, [N], changed in place; 0 for one never touched, which
        Adam leaves where it is.
    """
    for r in numba.prange(len(rows)):
        i = rows[r]
        first = last[i]
        if 0 < first < n_steps:
            until = min(n_steps, first + MOST)
            for t in range(first, until):
                size, root = sizes[t], np.float32(1) / roots[t]
                for k in range(table.shape[1]):
                    m[i, k] *= BETA1
                    v[i, k] *= BETA2
                    table[i, k] -= size * m[i, k] / (np.sqrt(v[i, k]) * root + EPS)
            if until < n_steps:
                fade1, fade2 = BETA1 ** (n_steps - until), BETA2 ** (n_steps - until)
                for k in range(table.shape[1]):
                    m[i, k] *= fade1
                    v[i, k] *= fade2
            last[i] = n_steps


@jit
def update(
    rows: I64,
    starts: I64,
    order: I64,
    grad: F32,
    n_steps: int,
    size: float,
    root: float,
    table: F32,
    m: F32,
    v: F32,
    last: I64,
) -> None:
    """Take step `n_steps` on distinct `rows` [n], which have taken all steps before it.

    Row r's gradient is the sum of ``grad[order[starts[r]]]`` up to ``grad[order[starts[r + 1] -
    1]]``, in this order; `grad` [B, d]; the rest as for `catch_up`.
    """
    step, scale = np.float32(size), np.float32(1 / root)
    for r in numba.prange(len(rows)):
        i = rows[r]
        total = np.zeros(table.shape[1], np.float32)
        for c in range(starts[r], starts[r + 1]):
            for k in range(table.shape[1]):
                total[k] += grad[order[c], k]
        for k in range(table.shape[1]):
            m[i, k] += REST1 * (total[k] - m[i, k])
            v[i, k] = BETA2 * v[i, k] + REST2 * total[k] * total[k]
            table[i, k] -= step * m[i, k] / (np.sqrt(v[i, k]) * scale + EPS)
        last[i] = n_steps
