"""What a backbone is: ids in, embeddings out."""

from abc import ABC, abstractmethod
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor, nn


class Rows(NamedTuple):
    """Embeddings of one batch, and the squared norms that L2 is made of.

    Attributes
    ----------
    users
        [B, d] float32.
    items
        [n, d] float32: the items asked for, or the whole table in id order.
    sq_users, sq_items
        [B] and [n]: squared norms of the rows that L2 applies to (of all hop layers summed, where
        the backbone has several).
    """

    users: Tensor
    items: Tensor
    sq_users: Tensor
    sq_items: Tensor


class Backbone(nn.Module, ABC):
    """Base of the backbones: constructed as ``cls(data, dim, generator, **hyper_parameters)``.

    `data` is the training `Interactions`, `dim` the embedding size d, `generator` a
    ``torch.Generator`` for the initialisation. Any ``nn.Module`` with that constructor,
    `forward` and `tables` can stand in its place.
    """

    source: ClassVar[str] = ""

    @abstractmethod
    def forward(self, users: Tensor, items: Tensor | None) -> Rows:
        """Return the rows of `users` [B] and `items` [n], ids int64; None asks for all items."""

    @abstractmethod
    def tables(self) -> tuple[Tensor, Tensor]:
        """Return the embeddings of all users [n_users, d] and all items [n_items, d]."""


def xavier_table(n_rows: int, dim: int, generator: torch.Generator) -> nn.Parameter:
    """Return a Xavier-uniform table [n_rows, dim] (Glorot, Bengio, AISTATS 2010)."""
    table = torch.empty(n_rows, dim)
    return nn.Parameter(nn.init.xavier_uniform_(table, generator=generator))
