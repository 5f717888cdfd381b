"""ItemKNN: an item is scored by how much of its neighbourhood the user has consumed."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from scipy.sparse import csr_array
from torch import Tensor

from bslbench import memory
from bslbench.data.interactions import Interactions
from bslbench.errors import ConfigError
from bslbench.evaluation.ranking import Scorer, tie_order
from bslbench.kernels import cpu_references
from bslbench.kernels.topk import BLOCK_SCORES, masked_topk
from bslbench.references.base import Reference, check_at_least
from bslbench.references.gram import Counts

Similarity = Literal["cosine", "pearson", "jaccard"]


@dataclass(frozen=True)
class ItemKNN(Reference):
    """Score an item by the similarities of its k nearest items that the user has in train.

    Similarities are those of the columns of the train matrix; what is not above 0 is left out, and
    of equal ones the ranking's tie order decides. With `normalize` the weights of an item's
    neighbours sum to 1 and the score is a deviation from the items' means, as in the prediction of
    ratings: ``m_i + sum_j w_ij (x_uj - m_j)`` over the neighbours j, with m the items' degrees
    over the number of users.

    Parameters
    ----------
    k
        Neighbours of an item, at least 1.
    similarity
        ``cosine``; ``pearson``, the correlation of two columns; or ``jaccard``.
    shrink
        Added to the denominator: what few common users say counts less, >= 0.
    normalize
        Whether weights are divided by their sum.
    """

    k: int = 100
    similarity: Similarity = "cosine"
    shrink: float = 0.0
    normalize: bool = True

    space = {
        "k": ("log_int", 10, 1000),
        "similarity": ("choice", "cosine", "pearson", "jaccard"),
        "shrink": ("log", 0.1, 1000.0),
        "normalize": ("choice", True, False),
    }
    formula = "sum of s_ij over the k nearest items j of i that u has"
    source = "Sarwar et al., WWW 2001; Deshpande, Karypis, TOIS 2004"

    def __post_init__(self) -> None:
        check_at_least(1, k=self.k)
        check_at_least(0, shrink=self.shrink)
        known = Similarity.__args__  # type: ignore[attr-defined]
        if self.similarity not in known:
            raise ConfigError(f"similarity is one of {', '.join(known)}, not '{self.similarity}'")

    def n_bytes(self, n_users: int, n_items: int) -> int:
        """Return what neighbours, weights and the matrix of them take at their peak, 40 k I."""
        return 40 * min(self.k, n_items) * n_items

    def fit(self, data: Interactions, seed: int) -> Scorer:
        """Return the scorer; memory and time grow with k I and the interactions, not with I^2."""
        n_bytes = self.n_bytes(data.n_users, data.n_items)
        memory.require(n_bytes, f"ItemKNN of {self.k:,} neighbours of {data.n_items:,} items")
        neighbours, weights = self.nearest(data)  # (I, k) each
        degrees = torch.from_numpy(data.item_degrees).float()
        base = torch.zeros(data.n_items)
        if self.normalize:
            weights = weights / weights.sum(1, keepdim=True).clamp_min(1e-12)
            means = degrees / data.n_users
            base = means - (weights * means[neighbours]).sum(1)
        # Row j of the transpose: the items that have j among their neighbours.
        targets = np.repeat(np.arange(data.n_items), neighbours.shape[1])
        listed = weights.numpy().ravel(), (neighbours.numpy().ravel(), targets)
        matrix = csr_array(listed, shape=(data.n_items, data.n_items))
        matrix.eliminate_zeros()
        indptr, indices = np.array(data.train.indptr), np.array(data.train.indices)
        values = np.asarray(matrix.data, np.float32)

        def score(users: Tensor) -> Tensor:
            scores = base.repeat(len(users), 1)
            cpu_references.add_rows(
                users.numpy(),
                indptr,
                indices,
                matrix.indptr,
                matrix.indices,
                values,
                scores.numpy(),
            )
            return scores

        return score

    def nearest(self, data: Interactions) -> tuple[Tensor, Tensor]:
        """Return each item's neighbours [I, k] int64, nearest first, and similarities [I, k].

        Of an item with fewer than k similar ones the last similarities are 0.
        """
        k = min(self.k, data.n_items - 1)
        counts = Counts(data)
        order = tie_order(data)
        neighbours = torch.empty(data.n_items, k, dtype=torch.int64)
        similarities = torch.empty(data.n_items, k)
        step = max(16, BLOCK_SCORES // 16 // data.n_items)  # blocks that stay in a cache
        for first in range(0, data.n_items, step):
            rows = slice(first, min(first + step, data.n_items))
            scores = self._similarities(counts.rows(rows), rows, data)
            itself = np.arange(rows.start, rows.stop)
            items, values = masked_topk(scores, np.arange(len(itself) + 1), itself, order, k)
            neighbours[rows], similarities[rows] = items.long().clamp_min(0), values.clamp_min(0)
        return neighbours, similarities

    def _similarities(self, common: Tensor, rows: slice, data: Interactions) -> Tensor:
        """Return similarities [n, I] from the numbers of common users [n, I]."""
        degrees = torch.from_numpy(data.item_degrees).float()
        own = degrees[rows, None]
        if self.similarity == "jaccard":
            return common / (own + degrees - common + self.shrink).clamp_min(1e-12)
        if self.similarity == "pearson":
            common = common - own * (degrees / data.n_users)
            spread = degrees * (1 - degrees / data.n_users)
        else:
            spread = degrees
        roots = spread.sqrt()
        return common / (roots[rows, None] * roots + self.shrink).clamp_min(1e-12)
