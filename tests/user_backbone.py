"""Matrix factorisation with a bias per item, as a user would write it: in one file of their own."""

import torch
from torch.nn.functional import embedding

from bslbench.backbones import Rows


class BiasedMF(torch.nn.Module):
    """Koren, Bell, Volinsky, IEEE Computer 2009; for inner products."""

    def __init__(self, data, dim, generator, width: float = 0.1):
        super().__init__()
        users = torch.randn(data.n_users, dim, generator=generator)
        items = torch.randn(data.n_items, dim, generator=generator)
        self.users = torch.nn.Parameter(width * users)
        self.items = torch.nn.Parameter(width * items)
        self.bias = torch.nn.Parameter(torch.zeros(data.n_items, 1))

    def forward(self, users, items):
        all_users, all_items = self.tables()
        user_rows = embedding(users, all_users)  # [B, d + 1]
        item_rows = all_items if items is None else embedding(items, all_items)  # [n, d + 1]
        return Rows(user_rows, item_rows)

    def tables(self):
        ones = torch.ones(len(self.users), 1)
        return torch.cat([self.users, ones], 1), torch.cat([self.items, self.bias], 1)
