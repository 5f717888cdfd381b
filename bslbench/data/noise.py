"""Noise: false positives in train, and which negatives are drawn too often to be false.

Everything is a function of the data and a seed, so that runs of one seed share one noise.
"""

import math
from dataclasses import replace
from fractions import Fraction

import numpy as np
import numpy.typing as npt
from scipy.sparse import csr_array

from bslbench.data.interactions import Corruption, FalseNegatives, IntArray, Interactions, to_csr
from bslbench.data.splits import choose, take
from bslbench.errors import DataError
from bslbench.kernels.cpu_noise import draw_positives
from bslbench.noise import Noise
from bslbench.seeding import key_of

FloatArray = npt.NDArray[np.float64]


def corrupt(split: Interactions, noise: Noise, seed: int, whole: Interactions) -> Interactions:
    """Return a dataset as noise leaves it; its test and valid pairs stay (docs/protocol.md).

    Parameters
    ----------
    split
        After the hold-out.
    noise
        What is wrong, and how much.
    seed
        Of every draw.
    whole
        The dataset before the hold-out: no false positive is one of its pairs, in whichever split,
        unless it is drawn as published.

    Raises
    ------
    DataError
        If a user has all items, and none of them may be drawn.
    """
    if noise == Noise():
        return split
    clean, degrees = split.train, split.user_degrees
    train, labels = clean, split.valid
    false = None
    if noise.fneg is not None:
        hidden = choose(clean, degrees // 10, np.random.SeedSequence([seed, *b"hidden"]))
        train, listed = take(clean, ~hidden), take(clean, hidden)
        false = FalseNegatives(listed, np.where(np.diff(listed.indptr) > 0, noise.fneg, 0.0))
    elif noise.neg != 1:
        if not noise.neg and degrees.max() == split.n_items:
            raise DataError(
                f"{split.name}: user {int(degrees.argmax())} has every item, so that none is left "
                "for neg=0 to draw"
            )
        false = FalseNegatives(clean, _shares(degrees, split.n_items, noise.neg))
    if noise.pos:
        published = noise.kind == "published"  # which looks at train alone
        known = clean if published else whole.train + whole.valid + whole.test
        counts = _part(degrees, noise)
        train = train + _drawn(split, noise, counts, known, key_of(seed, "false positives"))
        if noise.labels == "same":
            together = _part(degrees + np.diff(labels.indptr), noise)
            key = key_of(seed, "false labels")
            labels = labels + _drawn(split, noise, together - counts, known + train, key)
    return replace(split, train=train, corruption=Corruption(clean, labels, false))


def _part(degrees: IntArray, noise: Noise) -> IntArray:
    """Return floor(r d) of the rate as written; the published draw takes it in floating point."""
    rate = noise.pos if noise.kind == "published" else Fraction(str(noise.pos))
    each: IntArray = np.unique(degrees)
    parts = np.array([math.floor(rate * int(degree)) for degree in each], dtype=np.int64)
    counts: IntArray = parts[np.searchsorted(each, degrees)]
    return counts


def realised(data: Interactions) -> dict[str, float]:
    """Return what noise has come to.

    Returns
    -------
    dict
        ``noise_rate``: pairs added per clean train pair; ``noise_hidden_rate``: pairs hidden per
        clean train pair; ``noise_in_test``: share of the test pairs that train now has, which no
        ranking can find.
    """
    n_clean, n_both = data.clean_train.nnz, data.train.multiply(data.clean_train).nnz
    in_test = (data.train.multiply(data.test)).nnz
    return {
        "noise_rate": (data.train.nnz - n_both) / n_clean,
        "noise_hidden_rate": (n_clean - n_both) / n_clean,
        "noise_in_test": in_test / max(1, data.test.nnz),
    }


def false_negative_share(data: Interactions) -> float:
    """Return the share of own negatives that are the user's own positives, over all train pairs.

    Under `fneg` only the hidden ones count.
    """
    if data.corruption is None or data.corruption.false_negatives is None:
        shares = _shares(np.diff(data.clean_train.indptr), data.n_items, 1.0)
    else:
        shares = data.corruption.false_negatives.shares
    return float(np.average(shares, weights=data.user_degrees))


def _shares(degrees: IntArray, n_items: int, weight: float) -> FloatArray:
    """Return r |P| / (r |P| + I - |P|) for users of |P| positives, [n] float64."""
    favoured = weight * degrees
    shares: FloatArray = favoured / (favoured + n_items - degrees)
    return shares


def _drawn(
    split: Interactions, noise: Noise, counts: IntArray, taken: csr_array, key: int
) -> csr_array:
    """Return counts[u] pairs of each user u, none of those that are taken.

    They are fewer where items run out or repeats collapse.
    """
    published = noise.kind == "published"
    # As popular: the item of a train pair drawn uniformly is as likely as its degree.
    pool = split.train.indices if noise.kind == "popular" else np.arange(split.n_items, dtype="i4")
    possible = np.bincount(pool, minlength=split.n_items) > 0  # [I]
    left = possible.sum() - np.diff(take(taken, possible[taken.indices]).indptr)
    counts = counts * (left > 0) if published else np.minimum(counts, left)
    starts = np.concatenate([[0], np.cumsum(counts)])
    items = np.empty(starts[-1], dtype=np.int32)
    matrix = taken.indptr, taken.indices
    draw_positives(key, starts, *matrix, pool, split.n_items, not published, items)
    users = np.repeat(np.arange(split.n_users), counts)
    return to_csr(users, items.astype(np.int64), split.n_users, split.n_items)
