"""Samplers: which positives and negatives a batch is scored against, and their scores.

Each draw is a pure function of (seed, epoch, step, row).
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import embedding, normalize, pad

from bslbench.backbones.base import Backbone, Rows
from bslbench.config import TrainSettings
from bslbench.data.interactions import Interactions
from bslbench.errors import ConfigError
from bslbench.kernels import cpu, cpu_noise
from bslbench.kernels.dropout import drop
from bslbench.kernels.sddmm import EPS, Index, item_block, item_bounds, sddmm
from bslbench.losses.base import Loss
from bslbench.seeding import generator, key_of

Products = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Scored:
    """The scores of one batch and what L2 and some losses need beside them.

    Attributes
    ----------
    pos, neg
        [B, K] and [B, M].
    squared
        0-d: the squared norms that L2 sums (docs/protocol.md, "L2"); 0 for a run without L2.
    neg_items
        Ids behind `neg`, [B, M] int64, for a loss that needs ``"neg_items"``.
    user_rows, item_rows
        Raw embeddings of the rows' users (after dropout) and own items, [B, d], for a loss that
        needs ``"embeddings"``.
    all_scores
        Scores of the rows' users against all items, [B, I], for a loss that needs ``"all_items"``.
    negative_products
        Products of other rows [B, r] and another table [I, r] at the negatives, for a loss that
        needs ``"negative_products"``.
    """

    pos: Tensor
    neg: Tensor
    squared: Tensor
    neg_items: Tensor | None = None
    user_rows: Tensor | None = None
    item_rows: Tensor | None = None
    all_scores: Tensor | None = None
    negative_products: Products | None = None


NEEDED_FOR = {
    "neg_items": "neg_items",
    "user_rows": "embeddings",
    "item_rows": "embeddings",
    "all_scores": "all_items",
    "negative_products": "negative_products",
}
"""What a loss needs to be given each of the fields above."""


class Sampler(ABC):
    """What all samplers share: extra positives, dropout, the scores of a list of rows.

    Parameters
    ----------
    settings
        The run's settings: M, score, dropout, what L2 counts.
    loss
        Tells K and whether it may get its negatives grouped by item block.
    data
        Its train split is where extra positives come from.
    seed
        The run's seed.
    """

    def __init__(self, settings: TrainSettings, loss: Loss, data: Interactions, seed: int) -> None:
        self.settings = settings
        self.cosine = settings.score_train == "cosine"
        self.n_pos = loss.n_pos
        self.needs = loss.needs
        self.n_items = data.n_items
        self.seed = seed
        self.train = data.train

    @abstractmethod
    def __call__(
        self, backbone: Backbone, users: Tensor, items: Tensor, epoch: int, step: int
    ) -> Scored:
        """Draw for the interactions (users [B], items [B]) and score with `backbone`."""

    def positives(self, users: Tensor, items: Tensor, epoch: int, step: int) -> Tensor:
        """Return the row's own item, then K - 1 drawn from the user's train items, [B, K]."""
        if self.n_pos == 1:
            return items[:, None]
        draws = generator(self.seed, "positives", epoch, step)
        uniform = torch.rand(len(users), self.n_pos - 1, generator=draws, dtype=torch.float64)
        rows = users.numpy()
        first = self.train.indptr[rows, None].astype("int64")  # [B, 1]
        n_own = self.train.indptr[rows + 1, None] - first
        places = first + (uniform.numpy() * n_own).astype("int64")  # [B, K - 1]
        drawn = torch.from_numpy(self.train.indices[places].astype("int64"))
        return torch.cat([items[:, None], drawn], dim=1)

    def dropout(self, rows: Tensor, epoch: int, step: int) -> Tensor:
        """Return rows [B, d] with each entry dropped at the run's rate, the rest scaled up."""
        rate = self.settings.dropout
        if rate == 0:
            return rows
        draws = generator(self.seed, "dropout", epoch, step)
        return drop(rows, torch.rand(rows.shape, generator=draws) >= rate, rate)

    def rows(
        self, backbone: Backbone, users: Tensor, items: Tensor | None, epoch: int, step: int
    ) -> tuple[Rows, Tensor]:
        """Return the backbone's rows, dropout on the users', and these' squared norms without."""
        rows = backbone(users, items)
        sq_users = rows.users.square().sum(1) if rows.sq_users is None else rows.sq_users
        return rows._replace(users=self.dropout(rows.users, epoch, step)), sq_users

    def scored(
        self, pos: Tensor, neg: Tensor, squared: Tensor, **makers: Callable[[], Any]
    ) -> Scored:
        """Return the scores, and of the rest only what the loss needs: [B, B] ids are not free."""
        made = {name: make() for name, make in makers.items() if NEEDED_FOR[name] in self.needs}
        return Scored(pos, neg, squared, **made)

    def scaled(self, rows: Tensor) -> Tensor:
        """Return rows [n, d] ready to be multiplied: at unit length if scores are cosines."""
        return normalize(rows, dim=1, eps=EPS) if self.cosine else rows


FEW = 0.5
"""Items named in a step, repeats counted, over all items: fewer are read row by row."""


def reads_few(settings: TrainSettings, loss: Loss, n_items: int) -> bool:
    """Tell whether a step with own negatives reads no items but those that it names.

    That takes `adam_lazy`, which can leave the others as they are.
    """
    if settings.optimizer != "adam_lazy" or "all_items" in loss.needs:
        return False
    return are_few(settings.batch_size * (loss.n_pos + settings.n_negatives), n_items)


def are_few(n_named: int, n_items: int) -> bool:
    """Tell whether a step names few of the items, repeats counted."""
    return n_named < FEW * n_items


class Own(Sampler):
    """M negatives per row with replacement, uniform over all items unless noise favours some."""

    def __init__(self, settings: TrainSettings, loss: Loss, data: Interactions, seed: int) -> None:
        super().__init__(settings, loss, data, seed)
        self.order_free = loss.order_free
        self.false = None if data.corruption is None else data.corruption.false_negatives
        self.block = item_block(data.n_items)
        self.bounds = item_bounds(data.n_items)
        self.few = reads_few(settings, loss, data.n_items)

    def __call__(
        self, backbone: Backbone, users: Tensor, items: Tensor, epoch: int, step: int
    ) -> Scored:
        """Draw and score; the whole item table takes part, or what the batch names of it."""
        index, order = self.draw(users, self.positives(users, items, epoch, step), epoch, step)
        names, local = index.renumbered() if self.few else (None, index)
        rows, sq_users = self.rows(backbone, users, names, epoch, step)
        pos, neg, item_squares = sddmm(rows.users, rows.items, local, cosine=self.cosine)
        squared = pos.new_zeros(())
        if self.settings.l2:
            sq_items = item_squares if rows.sq_items is None else rows.sq_items
            squared = sq_users.sum() + stable_sum(self.count(local) * sq_items)

        def drawn(grouped: Tensor) -> Tensor:
            return grouped if self.order_free else grouped.gather(1, order)

        def products(others: Tensor, table: Tensor) -> Tensor:
            return drawn(sddmm(others, table, index, cosine=False).neg)

        return self.scored(
            pos,
            drawn(neg),
            squared,
            neg_items=lambda: drawn(index.items[:, index.n_pos :]).long(),
            user_rows=lambda: rows.users,
            item_rows=lambda: embedding(local.items[:, 0].long(), rows.items),
            all_scores=lambda: self.scaled(rows.users) @ self.scaled(rows.items).T,
            negative_products=lambda: products,
        )

    def draw(self, users: Tensor, pos_items: Tensor, epoch: int, step: int) -> tuple[Index, Tensor]:
        """Return the index of positives [B, K] and negatives drawn for users [B], and their order.

        The order [B, M] int64 names the grouped column of each draw.
        """
        n_rows, n_pos = pos_items.shape
        n_neg = self.settings.n_negatives
        columns = torch.empty(n_rows, n_pos + n_neg, dtype=torch.int32)
        columns[:, :n_pos] = pos_items
        n_blocks = -(-self.n_items // self.block)
        offsets = torch.empty(n_rows, n_blocks + 1, dtype=torch.int32)
        order = torch.empty(n_rows, 0 if self.order_free else n_neg, dtype=torch.int32)
        where = key_of(self.seed, "negatives", epoch, step), self.n_items, self.block, n_pos
        out = columns.numpy(), offsets.numpy(), order.numpy()
        if self.false is None:
            cpu.draw_grouped(*where, *out)
        else:
            listed = self.false.items.indptr, self.false.items.indices
            cpu_noise.draw_false_negatives(*where, users.numpy(), self.false.shares, *listed, *out)
        return Index(columns, offsets, n_pos, self.bounds), order.long()

    def count(self, index: Index) -> Tensor:
        """Return how often L2 counts each row of the index's table, [n] float32."""
        offsets = index.offsets if self.settings.l2_negatives else index.offsets[:, :0]
        counts = torch.empty(index.n_rows)
        where = index.items.numpy(), offsets.numpy(), index.bounds.numpy()
        cpu.count_items(*where, counts.numpy())
        return counts


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
        sq_items = rows.items.square().sum(1) if rows.sq_items is None else rows.sq_items
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
            return found.users @ self.scaled(found.table).T

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
        neg = found.users @ found.items[-len(pool) :].T  # [B, M]
        squared = found.squares
        if self.settings.l2_negatives:
            squared = squared + len(users) * found.sq_pool.sum()
        return self.shared(
            found,
            neg,
            squared,
            lambda: pool.expand(len(users), -1),
            lambda others, table: others @ embedding(pool, table).T,
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
        scores = found.users @ found.items[: len(users)].T  # [B, B]
        if self.correction is not None:
            scores = scores - self.correction[items]
        return self.shared(
            found,
            off_diagonal(scores),
            found.squares,
            lambda: off_diagonal(items.expand(len(users), -1)),
            lambda others, table: off_diagonal(others @ embedding(items, table).T),
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


SAMPLERS: dict[str, type[Sampler]] = {
    "own": Own,
    "pool": Pool,
    "in_batch": InBatch,
    "none": NoNegatives,
}


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


def stable_sum(x: Tensor) -> Tensor:
    """Return the sum of x [n] by rows of 1,024, so that its bits do not depend on the threads."""
    return pad(x, (0, -len(x) % 1024)).view(-1, 1024).sum(1).sum()
