"""log-sum-exp and its gradient by numba: the exponentials are taken again, never kept."""

import numba
import numpy as np

from bslbench.kernels.cpu import F32, PARTS, inline, jit_in_order
from bslbench.kernels.cpu_rows import (
    LANES,
    add_scaled,
    dot,
    exp,
    filled,
    load,
    maximum,
    minus,
    store,
    times,
)


@inline
def _last_lanes(row: F32, lanes: F32) -> int:
    """Write the numbers of `row` [n] behind its last whole register, then -inf; return how many."""
    n_last = len(row) % LANES
    for k in range(LANES):
        lanes[k] = row[len(row) - n_last + k] if k < n_last else -np.inf
    return n_last


@jit_in_order
def sums(x: F32, factor: np.float32, peaks: F32, totals: F32) -> None:
    """Write each row's largest number, 0 if infinite, and ``sum exp(factor (x - peak))``.

    The peak is taken off before the product: behind it, its own exponent might not be 0.

    Parameters
    ----------
    x
        [r, n].
    factor
        One over the temperature, float32.
    peaks, totals
        [r], written.
    """
    first, one = np.uint64(0), np.float32(1)
    n_whole, per_part = np.uint64(x.shape[1] // LANES), (x.shape[0] + PARTS - 1) // PARTS
    for part in numba.prange(PARTS):
        lanes = np.empty(LANES, np.float32)
        for i in range(part * per_part, min(x.shape[0], (part + 1) * per_part)):
            row = x[i]
            _last_lanes(row, lanes)
            last = load(lanes, first, LANES)
            top = last
            for k in range(n_whole):
                top = maximum(top, load(row, k, LANES))
            store(lanes, first, top)
            peak = lanes[0]
            for k in range(1, LANES):
                peak = max(peak, lanes[k])
            if peak == np.inf:
                peaks[i], totals[i] = 0, np.inf
                continue
            if peak == -np.inf:  # -inf - -inf is not a number
                peak = np.float32(0)
            total = exp(times(minus(last, peak), factor))
            for k in range(n_whole):
                term = exp(times(minus(load(row, k, LANES), peak), factor))
                total = add_scaled(total, one, term)
            peaks[i], totals[i] = peak, dot(total, filled(one, LANES))


@jit_in_order
def gradient(
    x: F32, peaks: F32, totals: F32, given: F32, tau: np.float32, factor: np.float32, out: F32
) -> None:
    """Write the gradient of x from that of its rows' log-sum-exp, 0 for a row whose total is 0.

    ``out[i] = given[i] / (totals[i] tau) exp(factor (x[i] - peaks[i]))``; the rest as for `sums`.
    """
    first = np.uint64(0)
    n_whole, per_part = np.uint64(x.shape[1] // LANES), (x.shape[0] + PARTS - 1) // PARTS
    for part in numba.prange(PARTS):
        lanes = np.empty(LANES, np.float32)
        for i in range(part * per_part, min(x.shape[0], (part + 1) * per_part)):
            row, grad, peak = x[i], out[i], peaks[i]
            weight = given[i] / (totals[i] * tau) if totals[i] != 0 else np.float32(0)
            for k in range(n_whole):
                value = exp(times(minus(load(row, k, LANES), peak), factor))
                store(grad, k, times(value, weight))
            n_last = _last_lanes(row, lanes)
            value = exp(times(minus(load(lanes, first, LANES), peak), factor))
            store(lanes, first, times(value, weight))
            for k in range(n_last):
                grad[len(row) - n_last + k] = lanes[k]
