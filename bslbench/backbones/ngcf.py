"""NGCF: embeddings that take in their neighbours', and their products with them, hop by hop."""

import torch
from torch import Tensor, nn
from torch.nn.functional import leaky_relu, normalize

from bslbench.backbones.base import Backbone, Rows, picked, xavier_table
from bslbench.data.interactions import Interactions
from bslbench.errors import ConfigError
from bslbench.kernels.dropout import dropout
from bslbench.kernels.gemm import matmul
from bslbench.kernels.norms import squared_norms
from bslbench.kernels.spmm import Adjacency, spmm

SLOPE = 0.2
"""Of leaky ReLU below zero."""


class NGCF(Backbone):
    """Neural graph collaborative filtering: ``LeakyReLU((R + 1) E W_1 + R E * E W_2)`` a hop.

    R is D^-1/2 A D^-1/2. The embedding is hop 0 and each further hop, scaled to norm 1, side by
    side: ``dim * (hops + 1)`` columns. L2 sums hop 0 of the batch's rows; the others' norms are 1.

    Parameters
    ----------
    hops
        Layers, at least 1, all `dim` wide.
    message_dropout
        Share of the entries of a layer's output that are dropped in training.
    """

    source = "Wang et al., NGCF, SIGIR 2019, Eq. 7"

    def __init__(
        self,
        data: Interactions,
        dim: int,
        generator: torch.Generator,
        hops: int = 3,
        message_dropout: float = 0.1,
    ) -> None:
        super().__init__()
        if hops < 1:
            raise ConfigError(f"hops must be at least 1, not {hops}")
        if not 0 <= message_dropout < 1:
            raise ConfigError(f"message_dropout must be in [0, 1), not {message_dropout}")
        self.users = xavier_table(data.n_users, dim, generator)
        self.items = xavier_table(data.n_items, dim, generator)
        self.alone = nn.ParameterList(xavier_table(dim, dim, generator) for _ in range(hops))
        self.paired = nn.ParameterList(xavier_table(dim, dim, generator) for _ in range(hops))
        self.message_dropout = message_dropout
        self.graph = Adjacency.of(data.train)
        self.key = 0

    def on_step(self, draws: torch.Generator) -> None:
        """Take the key of this step's dropout."""
        self.key = draws.initial_seed()

    def forward(self, users: Tensor | None, items: Tensor | None) -> Rows:
        """Return the rows of `users` [B] and `items` [n]; None asks for all.

        The last hop is computed for these rows alone.
        """
        user_hop: Tensor = self.users  # [n_users, d]
        item_hop: Tensor = self.items  # [n_items, d]
        user_parts, item_parts = [picked(user_hop, users)], [picked(item_hop, items)]
        for hop in range(len(self.alone)):
            last = hop == len(self.alone) - 1
            user_rows, item_rows = (users, items) if last else (None, None)
            user_hop, item_hop = (
                self._layer(hop, self.graph, item_hop, user_hop, user_rows),
                self._layer(hop, self.graph.T, user_hop, item_hop, item_rows),
            )
            user_parts.append(normalize(user_hop if last else picked(user_hop, users)))
            item_parts.append(normalize(item_hop if last else picked(item_hop, items)))
        return Rows(
            torch.cat(user_parts, 1),
            torch.cat(item_parts, 1),
            squared_norms(user_parts[0]),
            squared_norms(item_parts[0]),
        )

    def tables(self) -> tuple[Tensor, Tensor]:
        """Return the rows of all users and all items, without dropout."""
        training = self.training
        self.eval()
        rows = self(None, None)
        self.train(training)
        return rows.users, rows.items

    def _layer(
        self, hop: int, graph: Adjacency, others: Tensor, own: Tensor, rows: Tensor | None
    ) -> Tensor:
        """Return the next hop of the listed rows of `own`, whose neighbours are in `others`."""
        around = spmm(graph, others, rows)  # [n, d]
        own = picked(own, rows)  # [n, d]
        mixed = matmul(around + own, self.alone[hop]) + matmul(around * own, self.paired[hop])
        out = leaky_relu(mixed, SLOPE)
        if self.training and self.message_dropout:
            stream = 2 * hop + (graph is not self.graph)
            out = dropout(out, self.message_dropout, self.key + stream, rows)
        return out
