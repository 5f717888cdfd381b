"""What a loss does to the scores: their means and variances, and on whom its gradient presses."""

import copy

import torch
from torch import Tensor
from torch.nn.functional import normalize

from bslbench.backbones.base import Backbone
from bslbench.config import TrainSettings
from bslbench.data.interactions import Interactions
from bslbench.kernels.gemm import matmul
from bslbench.losses.base import Batch, Loss
from bslbench.sampling import SAMPLERS
from bslbench.seeding import generator

N_PAIRS, N_NEGATIVES = 1000, 800
"""Size of the sample: train pairs, and uniform negatives that all of them share."""

METRICS = {
    "pos_mean": "PosMean",
    "pos_var": "PosVar",
    "neg_mean": "NegMean",
    "neg_var": "NegVar",
    "gap": "Gap",
    "weight_var": "WeightVar",
    "weight_ess": "WeightESS",
}
"""What a curve's columns are called among the metrics of the final model."""


class Probe:
    """Measures the spread of a model's scores on one sample, a function of data and seed.

    Parameters
    ----------
    settings
        The run's: score, scale.
    data
        Its train split is where the pairs come from.
    loss
        What the model is trained with.
    seed
        The run's seed.
    """

    def __init__(self, settings: TrainSettings, data: Interactions, loss: Loss, seed: int) -> None:
        draws = generator(seed, "spread")
        chosen = torch.randint(data.train.nnz, (N_PAIRS,), generator=draws).numpy()
        users = data.train.indptr.searchsorted(chosen, side="right") - 1
        self.users = torch.from_numpy(users).long()  # [B]
        items = torch.from_numpy(data.train.indices[chosen]).long()
        self.negatives = torch.randint(data.n_items, (N_NEGATIVES,), generator=draws)  # [M]
        sampler = SAMPLERS[settings.sampler](settings, loss, data, seed)
        self.positives = sampler.positives(self.users, items, -1, -1)  # [B, K], by no step's draws
        self.settings, self.loss = settings, loss

    def __call__(self, backbone: Backbone, epoch: int) -> dict[str, float]:
        """Return the spread of the scores as the loss sees them; nothing is changed by it.

        Returns
        -------
        dict
            ``pos_mean``, ``pos_var``: over the train pairs. ``neg_mean``; ``neg_var``: over the
            negatives of one pair, its mean over pairs. ``gap``: ``pos_mean - neg_mean``.
            ``weight_var``, ``weight_ess``: see `pressure`; absent where that is None.
        """
        with torch.no_grad():
            raw_users, raw_items = (table.detach() for table in backbone.tables())
        users, items = raw_users[self.users], raw_items  # [B, d], [I, d]
        if self.settings.score_train == "cosine":
            users, items = (normalize(table, dim=1, eps=1e-12) for table in (users, items))
        scale = self.settings.scale or 1.0
        pos = scale * torch.einsum("bd,bkd->bk", users, items[self.positives])  # [B, K]
        neg = scale * matmul(users, items[self.negatives].T)  # [B, M]
        own, others = pos[:, 0].double(), neg.double()
        pos_mean, neg_mean = own.mean().item(), others.mean(1).mean().item()
        spread = {
            "pos_mean": pos_mean,
            "pos_var": own.var(correction=0).item(),
            "neg_mean": neg_mean,
            "neg_var": others.var(1, correction=0).mean().item(),
            "gap": pos_mean - neg_mean,
        }
        batch = Batch(
            self.users,
            self.positives[:, 0],
            torch.tensor(epoch),
            torch.tensor(0),
            self.negatives.expand(len(neg), -1),
            raw_users[self.users],
            raw_items[self.positives[:, 0]],
            all_scores=scale * matmul(users, items.T) if "all_items" in self.loss.needs else None,
            negative_products=lambda rows, table: matmul(rows, table[self.negatives].T),
        )
        found = pressure(self.loss, pos, neg, batch)
        return spread if found is None else spread | found


def pressure(loss: Loss, pos: Tensor, neg: Tensor, batch: Batch) -> dict[str, float] | None:
    """Return how unevenly a loss presses on the negatives of a row.

    With w the absolute derivatives of the loss by the negatives [B, M] of one row, scaled to mean
    1, these are means over the rows that are pressed on at all.

    Returns
    -------
    dict or None
        ``weight_var``: the variance of w. ``weight_ess``: their effective sample size,
        (sum w)^2 / sum w^2, over M. None for a loss that does not look at negatives, and for one
        that holds what cannot be copied.
    """
    if "negatives" not in loss.needs:
        return None
    try:
        apart = copy.deepcopy(loss)  # a loss may remember what it has seen
    except (RuntimeError, TypeError):  # a tensor with a history, a lock, a generator
        return None
    neg = neg.detach().requires_grad_()
    with torch.random.fork_rng(devices=[]), torch.enable_grad():
        total = apart(pos.detach(), neg, batch)
        if not total.requires_grad:  # it looks at no negative after all
            return None
        [grad] = torch.autograd.grad(total, neg, materialize_grads=True)
    weights = grad.double().abs()  # [B, M]
    weights = weights[weights.sum(1) > 0]
    if not len(weights):
        return None
    squares = (weights / weights.mean(1, keepdim=True)).square().mean(1)  # [B]: E w^2, for E w = 1
    return {"weight_var": (squares - 1).mean().item(), "weight_ess": (1 / squares).mean().item()}
