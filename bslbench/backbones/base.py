"""What a backbone is: ids in, embeddings out."""

from abc import ABC, abstractmethod
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor, nn

from bslbench.errors import ConfigError


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
        the backbone has several). None: of the rows above.
    """

    users: Tensor
    items: Tensor
    sq_users: Tensor | None = None
    sq_items: Tensor | None = None


class Backbone(nn.Module, ABC):
    """Base of the backbones: constructed as ``cls(data, dim, generator, **hyper_parameters)``.

    `data` is the training `Interactions`, `dim` the embedding size d, `generator` a
    ``torch.Generator`` for the initialisation. Any ``nn.Module`` with that constructor,
    `forward` and `tables` can stand in its place. Optional hook: ``on_step(draws)`` before each
    training step, with a ``torch.Generator`` seeded by (seed, epoch, step) for whatever it draws.
    """

    source: ClassVar[str] = ""
    row_wise: ClassVar[bool] = False
    """`forward` reads no rows but those asked for, of its parameters `users` and `items`, and gives
    them sparse gradients while `sparse` is set, in training: what ``adam_lazy`` needs."""
    sparse: bool = False

    @abstractmethod
    def forward(self, users: Tensor, items: Tensor | None) -> Rows:
        """Return the rows of `users` [B] and `items` [n], ids int64; None asks for all items."""

    @abstractmethod
    def tables(self) -> tuple[Tensor, Tensor]:
        """Return the embeddings of all users [n_users, d] and all items [n_items, d]."""


def start_from(backbone: nn.Module, users: Tensor, items: Tensor) -> None:
    """Start a backbone's parameters `users` and `items` from tables [n_users, d], [n_items, d].

    Raises
    ------
    ConfigError
        If it has no such parameters.
    """
    own = dict(backbone.named_parameters(recurse=False))
    for name, table in (("users", users), ("items", items)):
        if name not in own or own[name].shape != table.shape:
            raise ConfigError(
                f"init: {type(backbone).__name__} has no table '{name}' of shape "
                f"{tuple(table.shape)} that could be started from another model"
            )
        own[name].data.copy_(table)


def picked(table: Tensor, rows: Tensor | None) -> Tensor:
    """Return the listed rows [n] of a table; None for the table itself.

    Not ``table[rows]``: its gradient adds the shares of a row listed thrice in any order.
    """
    return table if rows is None else table.index_select(0, rows)


def xavier_table(n_rows: int, dim: int, generator: torch.Generator) -> nn.Parameter:
    """Return a Xavier-uniform table [n_rows, dim] (Glorot, Bengio, AISTATS 2010)."""
    table = torch.empty(n_rows, dim)
    return nn.Parameter(nn.init.xavier_uniform_(table, generator=generator))
