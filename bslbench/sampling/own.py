"""Negatives of each row's own, scored by SDDMM."""

import numba
import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import embedding, pad

from bslbench.backbones.base import Backbone
from bslbench.config import TrainSettings
from bslbench.data.interactions import Interactions
from bslbench.kernels import cpu, cpu_noise
from bslbench.kernels.gemm import matmul
from bslbench.kernels.sddmm import Index, item_block, item_bounds, sddmm
from bslbench.losses.base import Loss
from bslbench.sampling.base import Sampler, Scored
from bslbench.seeding import key_of

FEW = 0.5
"""Items named in a step, repeats counted, over all items: fewer are read by themselves."""


def are_few(n_named: int, n_items: int) -> bool:
    """Tell whether a step names few of the items, repeats counted."""
    return n_named < FEW * n_items


class Own(Sampler):
    """M negatives per row with replacement, uniform over all items unless noise favours some."""

    def __init__(self, settings: TrainSettings, loss: Loss, data: Interactions, seed: int) -> None:
        super().__init__(settings, loss, data, seed)
        self.order_free = loss.order_free
        false = None if data.corruption is None else data.corruption.false_negatives
        self.false = false if false and false.items.nnz else None
        if self.false:
            self.marks = np.zeros((numba.get_num_threads(), data.n_items), np.bool_)
        self.block = item_block(data.n_items)
        self.bounds = item_bounds(data.n_items)
        n_named = settings.batch_size * (loss.n_pos + settings.n_negatives)
        self.few = "all_items" not in loss.needs and are_few(n_named, data.n_items)

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
            all_scores=lambda: matmul(self.scaled(rows.users), self.scaled(rows.items).T),
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
        order = torch.empty(n_rows, 0 if self.order_free else n_neg, dtype=torch.int64)
        where = key_of(self.seed, "negatives", epoch, step), self.n_items, self.block, n_pos
        out = columns.numpy(), offsets.numpy(), order.numpy()
        if self.false is None:
            cpu.draw_grouped(*where, *out)
        else:
            listed = self.false.items.indptr, self.false.items.indices, self.marks
            cpu_noise.draw_false_negatives(*where, users.numpy(), self.false.shares, *listed, *out)
        return Index(columns, offsets, n_pos, self.bounds), order

    def count(self, index: Index) -> Tensor:
        """Return how often L2 counts each row of the index's table, [n] float32."""
        n_rows, n_columns = index.items.shape
        first = index.n_pos if self.settings.l2_negatives else n_columns
        # Each part costs a pass over the items, which as many negatives are worth.
        worth = n_rows * (n_columns - first) // index.n_rows
        n_parts = max(1, min(numba.get_num_threads(), worth))
        counts = torch.zeros(n_parts, index.n_rows)
        cpu.count_items(index.items.numpy(), first, counts.numpy())
        return counts.sum(0)


def stable_sum(x: Tensor) -> Tensor:
    """Return the sum of x [n] by rows of 1,024, so that its bits do not depend on the threads."""
    return pad(x, (0, -len(x) % 1024)).view(-1, 1024).sum(1).sum()
