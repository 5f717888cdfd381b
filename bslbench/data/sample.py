"""Samples of a dataset's users, nested in one another: ``?sample=5%``."""

from dataclasses import replace
from decimal import Decimal, InvalidOperation

import numpy as np
import numpy.typing as npt
from scipy.sparse import csr_array

from bslbench.data.interactions import IntArray, Interactions, csr_of
from bslbench.errors import ConfigError, DataError


def share_of(text: str, name: str) -> Decimal:
    """Read a share of the users such as ``5%``.

    Raises
    ------
    ConfigError
        If it is not a percentage above 0 and up to 100; the message has the dataset's `name`.

    Examples
    --------
    >>> share_of("2.50%", "shop"), percent(share_of("2.50%", "shop"))
    (Decimal('0.025'), '2.5%')
    """
    try:
        share = Decimal(text.removesuffix("%")) / 100
    except InvalidOperation:
        share = Decimal(0)
    if not (text.endswith("%") and share.is_finite() and 0 < share <= 1):
        raise ConfigError(f"dataset '{name}': sample={text} is not a percentage such as 5%")
    return share


def percent(share: Decimal) -> str:
    """Return a share as a dataset's name has it."""
    return f"{(share * 100).normalize():f}%"


def sampled(data: Interactions, share: Decimal) -> Interactions:
    """Return the interactions of a share of the users, rounded down, one at least.

    Which users, `split_seed` decides: a smaller share's users are among a larger one's. Items that
    none of them has in train drop out, and with them their pairs of valid and test, which nothing
    could learn. Users and items that stay are numbered anew, in the order that they had. Name and
    fingerprint are the caller's to give.

    Raises
    ------
    DataError
        If none of them has a train pair.
    """
    users, items = sample_of(data, share)
    if not len(items):
        raise DataError(
            f"dataset '{data.name}': none of a sample of {len(users):,} users has a train pair: "
            "take a larger one"
        )
    number = np.full(data.n_items, -1, dtype=np.int32)
    number[items] = np.arange(len(items), dtype=np.int32)
    train, valid, test = (
        _renumbered(matrix[users], number, len(items))
        for matrix in (data.train, data.valid, data.test)
    )
    return replace(
        data,
        n_users=len(users),
        n_items=len(items),
        train=train,
        valid=valid,
        test=test,
        kept=(users, items),
    )


def sample_of(data: Interactions, share: Decimal) -> tuple[IntArray, IntArray]:
    """Return the users and the items of a sample, ascending, as the whole numbers them."""
    draws = np.random.PCG64(np.random.SeedSequence([data.split_seed, *b"sample"]))
    order = np.argsort(draws.random_raw(data.n_users), kind="stable")
    users = np.sort(order[: max(1, int(share * data.n_users))])
    present = np.zeros(data.n_items, dtype=bool)
    present[data.train[users].indices] = True
    return users, np.flatnonzero(present)


def _renumbered(matrix: csr_array, number: npt.NDArray[np.int32], n_items: int) -> csr_array:
    """Return a CSR matrix with the items that have a number, by it; -1 for none."""
    items = number[matrix.indices]
    kept = items >= 0
    indptr = np.concatenate([[0], np.cumsum(kept)])[matrix.indptr]
    return csr_of(indptr, items[kept], n_items)
