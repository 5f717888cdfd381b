"""Negatives that all rows of a batch share, scored by GEMM: a pool, the batch's items, or none."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import embedding

from bslbench.backbones.base import Backbone, Rows
from bslbench.config import TrainSettings
from bslbench.data.interactions import Interactions
from bslbench.errors import ConfigError
from bslbench.kernels.gemm import matmul
from bslbench.losses.base import Loss
from bslbench.sampling.base import Products, Sampler, Scored
from bslbench.seeding import generator


class Listed(NamedTuple):
    """The rows that a batch takes part with: K lists of positives, the own ones first, then a pool.

    `users` [B, d] and `items` [K B + M, d] have unit length if scores are cosines; `pos` [B, K] are
    the positives' scores; `squares` 0-d and `sq_pool` [M] are the squared norms of the users' and
    own items' rows, summed, and of the pool's rows; `table` [I, d] are the rows of all items, None
    unless the loss needs ``"all_items"``.
    """

    rows: Rows
    users: Tensor
    items: Tensor
    pos: Tensor
    squares: Tensor
    sq_pool: Tensor
    table: Tensor | None


class Shared(Sampler):
    """Negatives that all rows of a batch share: only the rows listed take part, by GEMM."""

    def __init__(self, settings: TrainSettings, loss: Loss, data: Interactions, seed: int) -> None:
        super().__init__(settings, loss, data, seed)
        if data.corruption is not None and data.corruption.false_negatives is not None:
            raise ConfigError(f"noise among negatives needs own ones, not {settings.sampler}")

    def listed(
        self,
        backbone: Backbone,
        users: Tensor,
        items: Tensor,
        pool: Tensor,
        epoch: int,
        step: int,
    ) -> Listed:
        """Look up the rows of users [B], of their positives, and of the pool [M]."""
        pos_items = self.positives(users, items, epoch, step)  # [B, K]
        n_rows, n_pos = pos_items.shape
        names = torch.cat([pos_items.t().flatten(), pool])
        table = None
        if "all_items" in self.needs:
            rows, sq_users = self.rows(backbone, users, None, epoch, step)
            table = rows.items
            sq_items = None if rows.sq_items is None else rows.sq_items.index_select(0, names)
            rows = rows._replace(items=embedding(names, table), sq_items=sq_items)
        else:
            rows, sq_users = self.rows(backbone, users, names, epoch, step)
        sq_items = self.squares(rows.items, rows.sq_items)
        unit_users, unit_items = self.scaled(rows.users), self.scaled(rows.items)
        positives = unit_items[: n_pos * n_rows].view(n_pos, n_rows, -1)
        pos = (unit_users * positives).sum(2).t()
        squares = sq_users.sum() + sq_items[:n_rows].sum()
        sq_pool = sq_items[n_pos * n_rows :]
        return Listed(rows, unit_users, unit_items, pos, squares, sq_pool, table)

    def shared(
        self,
        found: Listed,
        neg: Tensor,
        squared: Tensor,
        neg_items: Callable[[], Tensor],
        products: Products,
    ) -> Scored:
        """Return the scores with what the loss needs."""

        def all_scores() -> Tensor:
            assert found.table is not None
            return matmul(found.users, self.scaled(found.table).T)

        return self.scored(
            found.pos,
            neg,
            squared,
            neg_items=lambda: neg_items().long(),
            user_rows=lambda: found.rows.users,
            item_rows=lambda: found.rows.items[: len(neg)],
            all_scores=all_scores,
            negative_products=lambda: products,
        )


class Pool(Shared):
    """M negatives per batch, uniform over all items with replacement."""

    def __call__(
        self, backbone: Backbone, users: Tensor, items: Tensor, epoch: int, step: int
    ) -> Scored:
        """Draw and score; in L2 each row of the pool counts B times."""
        draws = generator(self.seed, "pool", epoch, step)
        pool = torch.randint(self.n_items, (self.settings.n_negatives,), generator=draws)
        found = self.listed(backbone, users, items, pool, epoch, step)
        neg = matmul(found.users, found.items[-len(pool) :].T)  # [B, M]
        squared = found.squares
        if self.settings.l2_negatives:
            squared = squared + len(users) * found.sq_pool.sum()
        return self.shared(
            found,
            neg,
            squared,
            lambda: pool.expand(len(users), -1),
            lambda others, table: matmul(others, embedding(pool, table).T),
        )


class InBatch(Shared):
    """The other rows' items, accidental hits kept; L2 has no term for negatives."""

    def __init__(self, settings: TrainSettings, loss: Loss, data: Interactions, seed: int) -> None:
        super().__init__(settings, loss, data, seed)
        self.correction: Tensor | None = None
        if settings.logq:
            share = torch.from_numpy(data.item_degrees / data.item_degrees.sum())
            # The loss divides by tau, so this divides exp(n / tau) by the item's share.
            self.correction = float(loss.tau) * share.log().float()  # type: ignore[arg-type]

    def __call__(
        self, backbone: Backbone, users: Tensor, items: Tensor, epoch: int, step: int
    ) -> Scored:
        """Score every row against every other row's item, [B, B - 1]."""
        found = self.listed(backbone, users, items, items[:0], epoch, step)
        scores = matmul(found.users, found.items[: len(users)].T)  # [B, B]
        if self.correction is not None:
            scores = scores - self.correction[items]
        return self.shared(
            found,
            off_diagonal(scores),
            found.squares,
            lambda: off_diagonal(items.expand(len(users), -1)),
            lambda others, table: off_diagonal(matmul(others, embedding(items, table).T)),
        )


class NoNegatives(Shared):
    """For a loss that looks at positives and embeddings only; M = 0."""

    def __call__(
        self, backbone: Backbone, users: Tensor, items: Tensor, epoch: int, step: int
    ) -> Scored:
        """Score the positives."""
        none = items[:0]
        found = self.listed(backbone, users, items, none, epoch, step)
        return self.shared(
            found,
            found.pos[:, :0],
            found.squares,
            lambda: none.expand(len(users), -1),
            lambda others, table: others[:, :0],
        )


def off_diagonal(square: Tensor) -> Tensor:
    """Return a matrix [n, n] without its diagonal, [n, n - 1].

    Examples
    --------
    >>> off_diagonal(torch.tensor([[0, 1, 2], [3, 4, 5], [6, 7, 8]]))
    tensor([[1, 2],
            [3, 5],
            [6, 7]])
    """
    n = len(square)
    return square.flatten()[1:].view(n - 1, n + 1)[:, :-1].reshape(n, n - 1)
