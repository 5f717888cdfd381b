"""What samplers share: extra positives, dropout, and the scores that a loss is handed."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from bslbench.backbones.base import Backbone, Rows
from bslbench.config import TrainSettings
from bslbench.data.interactions import Interactions
from bslbench.kernels.dropout import dropout
from bslbench.kernels.norms import squared_norms, unit_rows
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
        return dropout(rows, rate, key_of(self.seed, "dropout", epoch, step)) if rate else rows

    def rows(
        self, backbone: Backbone, users: Tensor, items: Tensor | None, epoch: int, step: int
    ) -> tuple[Rows, Tensor]:
        """Return the backbone's rows, dropout on the users', and these' squared norms without."""
        rows = backbone(users, items)
        sq_users = self.squares(rows.users, rows.sq_users)
        return rows._replace(users=self.dropout(rows.users, epoch, step)), sq_users

    def squares(self, rows: Tensor, given: Tensor | None) -> Tensor:
        """Return the squared norms of rows [n, d] that L2 sums, [n]; 0 for a run without L2."""
        if not self.settings.l2:
            return rows.new_zeros(len(rows))
        return squared_norms(rows) if given is None else given

    def scored(
        self, pos: Tensor, neg: Tensor, squared: Tensor, **makers: Callable[[], Any]
    ) -> Scored:
        """Return the scores, and of the rest only what the loss needs: [B, B] ids are not free."""
        made = {name: make() for name, make in makers.items() if NEEDED_FOR[name] in self.needs}
        return Scored(pos, neg, squared, **made)

    def scaled(self, rows: Tensor) -> Tensor:
        """Return rows [n, d] ready to be multiplied: at unit length if scores are cosines."""
        return unit_rows(rows) if self.cosine else rows
