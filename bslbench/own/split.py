"""How interactions of one's own are split into train, valid and test."""

from typing import Literal

import numpy as np
import numpy.typing as npt

from bslbench.data.interactions import csr_of
from bslbench.data.splits import choose
from bslbench.errors import ConfigError, DataError
from bslbench.own.gather import Gathered

How = Literal["time", "random", "leave-one-out"]
U8 = npt.NDArray[np.uint8]
TRAIN, VALID, TEST = range(3)

SHARES = (0.8, 0.9)
"""Where valid and test begin, in time."""
LEAST = 3
"""Pairs that a user needs to have one in each split; the others are train as a whole."""


def split(data: Gathered, how: How, seed: int) -> U8:
    """Return the split of each pair, [n] uint8: `TRAIN`, `VALID` or `TEST`.

    ``time`` cuts all pairs at two moments, 80 and 90 % of them being earlier; pairs of one moment
    stay together. ``random`` draws max(1, floor(d / 10)) of a user's d pairs for test and as many
    for valid; ``leave-one-out`` takes the user's last pair for test and the one before for valid,
    by time if there is one (equal times in a drawn order), else drawn. In both, users with fewer
    than `LEAST` pairs are train as a whole.

    Parameters
    ----------
    data
        Without repeats, sorted by user and item, as `distinct` returns it.
    seed
        Of what is drawn.

    Raises
    ------
    ConfigError
        For ``time`` without a time.
    DataError
        If train or test would be empty.
    """
    if how == "time":
        parts = _by_time(data)
    else:
        degrees = np.bincount(data.users)
        able = degrees >= LEAST
        if how == "random":
            parts = _at_random(data, np.where(able, np.maximum(1, degrees // 10), 0), seed)
        else:
            parts = _last(data, able, seed)
    counts = np.bincount(parts, minlength=3)
    if not counts[TRAIN] or not counts[TEST]:
        empty = "test" if counts[TRAIN] else "train"
        why = "nearly all pairs have one time" if how == "time" else f"no user has {LEAST} pairs"
        raise DataError(f"split by {how}: {empty} would be empty, since {why}")
    return parts


def _by_time(data: Gathered) -> U8:
    if data.times is None:
        raise ConfigError("a split by time needs a column of times: say --time, or --split random")
    n = len(data.times)
    places = [int(share * n) for share in SHARES]
    cuts = np.partition(data.times, places)[places]
    return np.searchsorted(cuts, data.times, side="right").astype(np.uint8)


def _at_random(data: Gathered, counts: npt.NDArray[np.int64], seed: int) -> U8:
    parts = np.zeros(len(data.users), np.uint8)
    for part, purpose in ((TEST, b"own test"), (VALID, b"own valid")):
        left = parts == TRAIN
        users, items = data.users[left], data.items[left]
        indptr = np.searchsorted(users, np.arange(len(counts) + 1))
        matrix = csr_of(indptr, items, len(data.ids.items))
        marked = choose(matrix, counts, np.random.SeedSequence([seed, *purpose]))
        parts[np.flatnonzero(left)[marked]] = part
    return parts


def _last(data: Gathered, able: npt.NDArray[np.bool_], seed: int) -> U8:
    bits = np.random.PCG64(np.random.SeedSequence([seed, *b"own last"]))
    draws = bits.random_raw(len(data.users))  # the same in all numpy versions
    by = (draws, data.users) if data.times is None else (draws, data.times, data.users)
    order = np.lexsort(by)
    ends = np.cumsum(np.bincount(data.users))[able]  # behind each user's last
    parts = np.zeros(len(data.users), np.uint8)
    parts[order[ends - 1]] = TEST
    parts[order[ends - 2]] = VALID
    return parts
