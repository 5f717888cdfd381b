"""EASE: a linear autoencoder in closed form, one inverse of a dense item-item matrix."""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import embedding_bag

from bslbench import memory
from bslbench.data.interactions import Interactions
from bslbench.evaluation.ranking import Scorer
from bslbench.kernels import inverse
from bslbench.losses.base import check_positive
from bslbench.references.base import Reference
from bslbench.references.gram import Counts

ROWS = 1024
"""Rows of the matrix that are filled at a time."""


@dataclass(frozen=True)
class EASE(Reference):
    """Embarrassingly shallow autoencoder.

    ``min_B |X - X B|^2 + lam |B|^2`` with a zero diagonal: with P the inverse of X'X + lam,
    ``B_ij = -P_ij / P_jj``. In float32, all of it in the memory of one matrix [I, I]; time grows
    with the cube of the items.

    Parameters
    ----------
    lam
        Weight of the squared norm, > 0.
    """

    lam: float = 300.0

    space = {"lam": ("log", 10.0, 10_000.0)}
    formula = "x_u B, B_ij = -P_ij / P_jj, B_ii = 0, P = (X'X + lam)^-1"
    source = "Steck, WWW 2019, Eq. 8"

    def __post_init__(self) -> None:
        check_positive(lam=self.lam)

    def n_bytes(self, n_users: int, n_items: int) -> int:
        """Return 4 I^2, and the panels of the inversion."""
        return 4 * n_items**2 + inverse.n_bytes(n_items)

    def fit(self, data: Interactions, seed: int) -> Scorer:
        """Return the scorer."""
        memory.require(self.n_bytes(data.n_users, data.n_items), f"EASE of {data.n_items:,} items")
        weights = self.weights(data)
        indptr = torch.tensor(data.train.indptr, dtype=torch.int64)  # copies: both are read-only
        items = torch.tensor(data.train.indices, dtype=torch.int64)

        def score(users: Tensor) -> Tensor:
            first, last = indptr[users], indptr[users + 1]
            lengths = last - first
            starts = lengths.cumsum(0) - lengths
            within = torch.arange(int(lengths.sum())) - starts.repeat_interleave(lengths)
            consumed = items[first.repeat_interleave(lengths) + within]
            return embedding_bag(consumed, weights, starts, mode="sum")  # (n, I)

        return score

    def weights(self, data: Interactions) -> Tensor:
        """Return B [I, I] float32."""
        matrix = torch.empty(data.n_items, data.n_items)
        counts = Counts(data)
        for first in range(0, data.n_items, ROWS):
            rows = slice(first, min(first + ROWS, data.n_items))
            counts.rows(rows, matrix[rows])
        matrix.diagonal().add_(self.lam)
        inverse.invert(matrix)
        matrix.div_(-matrix.diagonal().clone())
        matrix.diagonal().zero_()
        return matrix
