"""Full ranking: the places that a scorer gives to every user's held-out items."""

from dataclasses import dataclass
from typing import Literal, Protocol

import numba
import numpy as np
import numpy.typing as npt
import torch
from scipy.sparse import csr_array
from torch import Tensor
from torch.nn.functional import normalize

from bslbench.data.interactions import Interactions
from bslbench.evaluation.ranks import DEPTH, I32, I64, TOP, U8, Ranks
from bslbench.kernels.gemm import filled
from bslbench.kernels.topk import BLOCK_SCORES, masked_topk


class Scorer(Protocol):
    """What ranking needs of a recommender."""

    def __call__(self, users: Tensor) -> Tensor:
        """Return the scores [n, n_items] float32 of `users` [n] int64, perhaps a reused buffer."""
        ...


class EmbeddingScorer:
    """Scores users against all items by their embeddings.

    Parameters
    ----------
    users, items
        Tables [n_users, d] and [n_items, d] float32, on one device.
    score
        ``"cosine"`` divides rows by max(norm, 1e-12) first; ``"inner"`` takes them as they are.
    """

    def __init__(self, users: Tensor, items: Tensor, score: Literal["cosine", "inner"]) -> None:
        users, items = users.detach(), items.detach()
        if score == "cosine":
            users, items = normalize(users, eps=1e-12), normalize(items, eps=1e-12)
        self.users = users
        self.n_items = len(items)
        self.items = filled(items)
        self.scores = users.new_empty(0, len(self.items))

    def __call__(self, users: Tensor) -> Tensor:
        """Return the scores [n, n_items] of `users` [n] int64, valid until the next call."""
        rows = filled(self.users[users])
        if len(self.scores) < len(rows):
            self.scores = rows.new_empty(len(rows), len(self.items))
        scores = torch.matmul(rows, self.items.T, out=self.scores[: len(rows)])
        return scores[: len(users), : self.n_items]


def tie_order(data: Interactions) -> I32:
    """Return each item's place among equal scores, [n_items] int32; the lower place wins.

    A permutation drawn from the fingerprint: ids go with popularity, so that ties broken by id
    would let a collapsed model rank by popularity.
    """
    bits = np.random.PCG64(int(data.fingerprint, 16))  # raw bits: the same in all numpy versions
    order = np.argsort(bits.random_raw(data.n_items), kind="stable")
    places = np.empty(data.n_items, dtype=np.int32)
    places[order] = np.arange(data.n_items, dtype=np.int32)
    return places


@dataclass(frozen=True)
class Task:
    """What there is to find, and where.

    Attributes
    ----------
    users
        Evaluated users, ascending, [n] int64.
    relevant, seen
        CSR [n, n_items]: their items to find, and those left out of their rankings, both sorted.
    n_skipped
        Users with nothing to find or without train.
    """

    users: npt.NDArray[np.int64]
    relevant: csr_array
    seen: csr_array
    n_skipped: int


def task_of(data: Interactions, split: Literal["valid", "test"], n_users: int = 0) -> Task:
    """Return what `rank_all` ranks."""
    relevant, seen = data.test, data.train
    if data.corruption is not None:
        seen = seen + data.clean_train
    if split == "valid":
        relevant = data.labels
    elif data.valid.nnz:
        seen = seen + data.valid
    users = np.flatnonzero((np.diff(relevant.indptr) > 0) & (data.user_degrees > 0))
    n_skipped = data.n_users - len(users)
    if 0 < n_users < len(users):
        users = _sample(users, n_users, data.split_seed)
    relevant, seen = relevant[users], seen[users]
    seen.sort_indices()
    return Task(users, relevant, seen, n_skipped)


def rank_all(
    scorer: Scorer,
    data: Interactions,
    split: Literal["valid", "test"],
    device: torch.device | str = "cpu",
    n_users: int = 0,
) -> Ranks:
    """Rank all items for every user and return the ranks of the items in `split`.

    Left out of each user's ranking: train, with noise and without, and for test also what was
    held out as valid. What ranks valid are the labels that pick the epoch.
    Users without items in `split` or in train are skipped.

    Parameters
    ----------
    scorer
        Called with blocks of ascending user ids on `device`.
    data
        With the (possibly noisy) train split that the scorer was fitted on.
    n_users
        Rank a sample of so many of the users, drawn by ``data.split_seed``: one sample for all
        runs; 0 for all of them.
    """
    task = task_of(data, split, n_users)
    users, relevant, seen = task.users, task.relevant, task.seen
    indptr = relevant.indptr.astype(np.int64)
    order = tie_order(data)
    ranks = np.zeros(relevant.nnz, dtype=np.uint8)
    top_counts = np.zeros(data.n_items, dtype=np.int32)
    n_tied = 0
    n_rows = max(16, min(1024, BLOCK_SCORES // data.n_items))
    for first in range(0, len(users), n_rows):
        block = slice(first, min(first + n_rows, len(users)))
        rows = slice(first, block.stop + 1)
        scores = scorer(torch.from_numpy(users[block]).to(device))  # (n, I)
        best = masked_topk(scores, seen.indptr[rows], seen.indices, order, DEPTH)
        items, top_scores = (x.cpu().numpy() for x in best)  # (n, DEPTH)
        _write_ranks(items, indptr[rows], relevant.indices, data.n_items, ranks)
        shown = items[:, :TOP]
        top_counts += np.bincount(shown[shown >= 0], minlength=data.n_items).astype(np.int32)
        tied = (top_scores[:, TOP - 1] == top_scores[:, TOP]) & (items[:, TOP] >= 0)
        n_tied += int(tied.sum())
    return Ranks(
        users=users.astype(np.int32),
        indptr=indptr,
        ranks=ranks,
        top_counts=top_counts,
        n_skipped=task.n_skipped,
        tied=n_tied / max(1, len(users)),
    )


def _sample(users: npt.NDArray[np.int64], n_users: int, seed: int) -> npt.NDArray[np.int64]:
    """Return `n_users` of the users, ascending: of two samples the smaller lies in the larger."""
    bits = np.random.PCG64(np.random.SeedSequence([seed, *b"evaluated users"]))
    order = np.argsort(bits.random_raw(len(users)), kind="stable")
    return np.sort(users[order[:n_users]])


@numba.njit(cache=True)
def _write_ranks(items: I32, indptr: I64, indices: I32, n_items: int, ranks: U8) -> None:
    """Write the ranks of CSR rows `indptr`, `indices` in `items` [n, DEPTH] (-1: no item)."""
    place = np.zeros(n_items + 1, np.uint8)  # of -1: the last one, which nobody asks for
    for i in range(len(items)):
        for r in range(items.shape[1]):
            place[items[i, r]] = r + 1
        for j in range(indptr[i], indptr[i + 1]):
            ranks[j] = place[indices[j]]
        for r in range(items.shape[1]):
            place[items[i, r]] = 0
