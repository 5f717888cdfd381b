"""Ranked lists made elsewhere, ranked by the same protocol as scores."""

from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from bslbench.data.interactions import Interactions
from bslbench.evaluation.ranking import task_of
from bslbench.evaluation.ranks import DEPTH, TOP, Ranks

I32 = npt.NDArray[np.int32]


class Lists(NamedTuple):
    """Items recommended to users; no item twice to one user, no two at one place.

    Attributes
    ----------
    users, items
        [n] int32; the item -1 is one that the data do not have: it takes its place, and is no hit.
    places
        Place of the item in its user's list, the smallest first, [n] int64; only the order counts.
    """

    users: I32
    items: I32
    places: npt.NDArray[np.int64]


def rank_lists(lists: Lists, data: Interactions, split: Literal["valid", "test"] = "test") -> Ranks:
    """Return the ranks of the items in `split`, as `rank_all` does from scores.

    What `rank_all` leaves out of a user's ranking is left out here too, and what stands below it
    moves up. An item that is not in a list has no rank; nor has any for a user without a list.
    """
    task = task_of(data, split)
    row_of = np.full(data.n_users, -1, np.int64)
    row_of[task.users] = np.arange(len(task.users))
    rows = row_of[lists.users]
    keys = np.where(lists.items < 0, -1, rows * data.n_items + lists.items)
    kept = (rows >= 0) & ~_among(keys, _keys(task.seen.indptr, task.seen.indices, data.n_items))
    order = np.flatnonzero(kept)
    order = order[np.lexsort((lists.places[order], rows[order]))]
    rows, keys = rows[order], keys[order]
    ranks = np.arange(len(rows)) - np.searchsorted(rows, rows) + 1
    indptr = task.relevant.indptr.astype(np.int64)
    wanted = _keys(indptr, task.relevant.indices, data.n_items)
    found = np.zeros(len(wanted), np.uint8)
    hit = (ranks <= DEPTH) & _among(keys, wanted)
    found[np.searchsorted(wanted, keys[hit])] = ranks[hit]
    shown = lists.items[order][ranks <= TOP]
    return Ranks(
        users=task.users.astype(np.int32),
        indptr=indptr,
        ranks=found,
        top_counts=np.bincount(shown[shown >= 0], minlength=data.n_items).astype(np.int32),
        n_skipped=task.n_skipped,
        tied=0.0,
    )


def _keys(
    indptr: npt.NDArray[np.integer], indices: npt.NDArray[np.integer], n_items: int
) -> npt.NDArray[np.int64]:
    """Return row * n_items + column of the entries of CSR rows, ascending."""
    rows = np.repeat(np.arange(len(indptr) - 1), np.diff(indptr))
    keys: npt.NDArray[np.int64] = rows * n_items + indices
    return keys


def _among(keys: npt.NDArray[np.int64], known: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
    """Tell of each key whether it is one of `known`, which ascend."""
    if not len(known):
        return np.zeros(len(keys), bool)
    places = np.minimum(np.searchsorted(known, keys), len(known) - 1)
    same: npt.NDArray[np.bool_] = known[places] == keys
    return same
