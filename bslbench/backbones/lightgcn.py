"""LightGCN: embeddings averaged over hops of the user-item graph."""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from bslbench.backbones.base import Backbone, Rows, picked, xavier_table
from bslbench.data.interactions import Interactions
from bslbench.errors import ConfigError
from bslbench.kernels.norms import squared_norms
from bslbench.kernels.spmm import Adjacency, product, spread


class LightGCN(Backbone):
    """Mean of hops 0 to `hops` over D^-1/2 A D^-1/2, Xavier-uniform start.

    Parameters
    ----------
    hops
        Products with the graph, at least 1.
    edge_dropout
        Share of the interactions left out of the graph, drawn anew for each training step.
    l2_hops
        What L2 sums: ``all`` hop layers of the batch's rows (published), or hop ``zero``, the rows
        of the tables.
    """

    source = "He et al., LightGCN, SIGIR 2020"

    def __init__(
        self,
        data: Interactions,
        dim: int,
        generator: torch.Generator,
        hops: int = 3,
        edge_dropout: float = 0.0,
        l2_hops: str = "all",
    ) -> None:
        super().__init__()
        if hops < 1:
            raise ConfigError(f"hops must be at least 1, not {hops}")
        if not 0 <= edge_dropout < 1:
            raise ConfigError(f"edge_dropout must be in [0, 1), not {edge_dropout}")
        if l2_hops not in ("all", "zero"):
            raise ConfigError(f"l2_hops must be 'all' or 'zero', not '{l2_hops}'")
        self.users = xavier_table(data.n_users, dim, generator)
        self.items = xavier_table(data.n_items, dim, generator)
        self.hops, self.edge_dropout, self.l2_hops = hops, edge_dropout, l2_hops
        self.graph = Adjacency.of(data.train)
        self.step_graph = self.graph

    def on_step(self, draws: torch.Generator) -> None:
        """Draw the interactions that the graph of this step lacks."""
        if self.edge_dropout:
            self.step_graph = self.graph.thinned(self.edge_dropout, draws.initial_seed())

    def forward(self, users: Tensor, items: Tensor | None) -> Rows:
        """Return the mean rows of `users` [B] and `items` [n]; None asks for all items."""
        graph = self.step_graph if self.training else self.graph
        user_layers, item_layers = hop_rows(graph, self.users, self.items, self.hops, users, items)
        return Rows(
            _mean(user_layers),
            _mean(item_layers),
            self._squares(user_layers),
            self._squares(item_layers),
        )

    def tables(self) -> tuple[Tensor, Tensor]:
        """Return the mean rows of all users and all items, over the whole graph."""
        user_layers, item_layers = hop_rows(
            self.graph, self.users, self.items, self.hops, None, None
        )
        return _mean(user_layers), _mean(item_layers)

    def _squares(self, layers: list[Tensor]) -> Tensor:
        counted = layers if self.l2_hops == "all" else layers[:1]
        squares = [squared_norms(layer) for layer in counted]
        return sum(squares[1:], start=squares[0])


def _mean(layers: list[Tensor]) -> Tensor:
    return sum(layers[1:], start=layers[0]) / len(layers)


def hop_rows(
    graph: Adjacency,
    users: Tensor,
    items: Tensor,
    hops: int,
    user_rows: Tensor | None,
    item_rows: Tensor | None,
) -> tuple[list[Tensor], list[Tensor]]:
    """Return the listed rows of hops 0 to K of both tables, differentiable in these.

    Hop k + 1 of the users is the product of the graph with hop k of the items, and the other way
    round. The last hop, and its gradient, touch the listed rows alone: 2 (K - 1) full products in
    place of 2 K.

    Parameters
    ----------
    users, items
        Hop 0, [n_users, d] and [n_items, d].
    user_rows, item_rows
        [B] and [n] int64, repeats allowed; None for all.

    Returns
    -------
    tuple of list of Tensor
        K + 1 layers [B, d] and K + 1 layers [n, d].
    """
    layers = _HopRows.apply(users, items, graph, hops, user_rows, item_rows)  # type: ignore[no-untyped-call]
    return list(layers[: hops + 1]), list(layers[hops + 1 :])


class _HopRows(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        users: Tensor,
        items: Tensor,
        graph: Adjacency,
        hops: int,
        user_rows: Tensor | None,
        item_rows: Tensor | None,
    ) -> tuple[Tensor, ...]:
        ctx.graph, ctx.hops, ctx.rows = graph, hops, (user_rows, item_rows)
        user_layers, item_layers = [picked(users, user_rows)], [picked(items, item_rows)]
        for _ in range(hops - 1):
            users, items = product(graph, items), product(graph.T, users)
            user_layers.append(picked(users, user_rows))
            item_layers.append(picked(items, item_rows))
        user_layers.append(product(graph, items, user_rows))
        item_layers.append(product(graph.T, users, item_rows))
        return *user_layers, *item_layers

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, None, None, None, None]:
        graph, hops, (user_rows, item_rows) = ctx.graph, ctx.hops, ctx.rows
        user_grads, item_grads = grads[: hops + 1], grads[hops + 1 :]
        users = spread(graph.T, item_grads[hops], item_rows)  # [n_users, d]
        items = spread(graph, user_grads[hops], user_rows)  # [n_items, d]
        for k in reversed(range(hops)):
            _add(users, user_rows, user_grads[k])
            _add(items, item_rows, item_grads[k])
            if k:
                users, items = product(graph, items), product(graph.T, users)
        return users, items, None, None, None, None


def _add(table: Tensor, rows: Tensor | None, grad: Tensor) -> None:
    """Add to the listed rows of a table, in place and in their order."""
    if rows is None:
        table += grad
    else:
        table.index_add_(0, rows, grad)
