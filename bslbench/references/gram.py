"""How many users two items have in common: the Gram matrix of the train matrix, row by row."""

import numpy as np
import torch
from scipy.sparse import csr_array
from torch import Tensor

from bslbench.data.interactions import Interactions
from bslbench.kernels import cpu_references


class Counts:
    """The Gram matrix of a train matrix, of which any rows can be had; exact below 2^24 users."""

    def __init__(self, data: Interactions) -> None:
        by_item = csr_array(data.train.T)
        by_item.sort_indices()
        # Copies: the cache maps the arrays read-only, for which numba would compile anew.
        self.by_item = np.array(by_item.indptr), np.array(by_item.indices)
        self.by_user = np.array(data.train.indptr), np.array(data.train.indices)
        self.n_items = data.n_items

    def rows(self, rows: slice, out: Tensor | None = None) -> Tensor:
        """Return the rows of the items in a range of ids, [n, I] float32, in `out` if given."""
        if out is None:
            out = torch.empty(rows.stop - rows.start, self.n_items)
        cpu_references.common_users(rows.start, *self.by_item, *self.by_user, out.numpy())
        return out
