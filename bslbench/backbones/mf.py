"""Matrix factorisation: one free embedding per user and per item."""

import torch
from torch import Tensor
from torch.nn.functional import embedding

from bslbench.backbones.base import Backbone, Rows, xavier_table
from bslbench.data.interactions import Interactions


class MF(Backbone):
    """Matrix factorisation, Xavier-uniform start."""

    source = "Koren, Bell, Volinsky, IEEE Computer 2009"
    row_wise = True

    def __init__(self, data: Interactions, dim: int, generator: torch.Generator) -> None:
        super().__init__()
        self.users = xavier_table(data.n_users, dim, generator)
        self.items = xavier_table(data.n_items, dim, generator)

    def forward(self, users: Tensor, items: Tensor | None) -> Rows:
        """Return the rows of `users` [B] and `items` [n]; None asks for the whole item table."""
        user_rows = embedding(users, self.users, sparse=self.sparse)  # [B, d]
        item_rows: Tensor = self.items
        if items is not None:
            item_rows = embedding(items, self.items, sparse=self.sparse)  # [n, d]
        return Rows(user_rows, item_rows)

    def tables(self) -> tuple[Tensor, Tensor]:
        """Return both tables, uncopied."""
        return self.users, self.items
