"""The plain formulation: what one writes without a second thought, kept lean.

Numpy draws, one gather of [B, 1 + M, d], normalize, bmm, exp and log, dense Adam.
"""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import embedding, normalize

Tables = tuple[Tensor, Tensor]
"""Users [n_users, d] and items [n_items, d], both with gradients."""


def own_loss(
    tables: Tables, users: Tensor, items: Tensor, neg: Tensor, tau: float, l2: float
) -> Tensor:
    """Softmax loss of users [B] and items [B] against negatives of their own [B, M]."""
    user_table, item_table = tables
    user_rows = embedding(users, user_table)  # (B, d)
    item_rows = embedding(torch.cat([items[:, None], neg], dim=1), item_table)  # (B, 1 + M, d)
    unit_users, unit_items = normalize(user_rows, dim=1), normalize(item_rows, dim=2)
    scores = torch.bmm(unit_items, unit_users[:, :, None]).squeeze(2)  # (B, 1 + M)
    loss = ((scores[:, 1:] / tau).exp().mean(1).log() - scores[:, 0] / tau).mean()
    if l2:
        squared = user_rows.square().sum() + item_rows.square().sum()
        loss = loss + l2 / (2 * len(users)) * squared
    return loss


def in_batch_loss(tables: Tables, users: Tensor, items: Tensor, tau: float, l2: float) -> Tensor:
    """Softmax loss of users [B] and items [B] against the other rows' items."""
    user_table, item_table = tables
    user_rows, item_rows = embedding(users, user_table), embedding(items, item_table)  # (B, d)
    scores = normalize(user_rows, dim=1) @ normalize(item_rows, dim=1).T  # (B, B)
    own = torch.eye(len(users), dtype=torch.bool, device=users.device)
    others = (scores / tau).exp().masked_fill(own, 0).sum(1) / (len(users) - 1)
    loss = (others.log() - scores.diagonal() / tau).mean()
    if l2:
        squared = user_rows.square().sum() + item_rows.square().sum()
        loss = loss + l2 / (2 * len(users)) * squared
    return loss


def stepper(
    tables: Tables, pairs: tuple[Tensor, Tensor], n_rows: int, n_neg: int | None, l2: float
) -> Callable[[], None]:
    """Return a function that takes one whole training step, draws included.

    Parameters
    ----------
    pairs
        Users and items of the train interactions, [n] int64 each.
    n_rows
        B.
    n_neg
        M; None for the other rows' items.
    """
    adam = torch.optim.Adam(tables, lr=1e-4)
    rng = np.random.default_rng(0)
    device = tables[0].device

    def step() -> None:
        rows = torch.from_numpy(rng.integers(0, len(pairs[0]), n_rows)).to(device)
        users, items = pairs[0][rows], pairs[1][rows]  # (B,)
        if n_neg is None:
            loss = in_batch_loss(tables, users, items, tau=0.11, l2=l2)
        else:
            neg = torch.from_numpy(rng.integers(0, len(tables[1]), (n_rows, n_neg))).to(device)
            loss = own_loss(tables, users, items, neg, tau=0.11, l2=l2)
        adam.zero_grad()
        loss.backward()
        adam.step()

    return step


def parse(text: str) -> tuple[list[int], list[int]]:
    """Read lines ``user item item ...`` one by one."""
    users, items = [], []
    for line in text.splitlines():
        user, *liked = line.split()
        users += [int(user)] * len(liked)
        items += [int(item) for item in liked]
    return users, items


def products(users: Tensor, items: Tensor, n_rows: int) -> None:
    """Multiply `n_rows` users at a time with all items: the least that full ranking costs."""
    scores = users.new_empty(n_rows, len(items))
    for block in torch.split(users, n_rows):
        torch.matmul(block, items.T, out=scores[: len(block)])
