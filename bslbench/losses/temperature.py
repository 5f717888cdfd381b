"""The softmax loss whose temperatures set themselves: Adap-tau."""

import math
from typing import Any

import numpy as np
import torch
from scipy.special import lambertw
from torch import Tensor
from torch.nn.functional import normalize

from bslbench.errors import ConfigError
from bslbench.losses.base import Batch, Setup, check_positive, check_range, log_mean_exp
from bslbench.losses.softmax import SoftmaxLoss

FIRST_GAP = 0.7
"""Gap between positives and all items that is reckoned with before it is measured."""

LEAST_GAP = 0.01
"""A smaller gap, or a negative one, would make the temperature vanish or negative."""

BRANCH_POINT = 1e-9 - 1 / math.e
"""Where W is -1; at -1/e itself SciPy's is not a number."""

CHUNK = 16_384
"""Pairs scored at a time; below 32,768 a sum has the same bits on any number of threads."""


class AdapTau(SoftmaxLoss):
    """Softmax loss with one temperature for the positives and one per user for its negatives.

    ``-w_0 p + log mean_j exp(w_u n_j)``, mean over rows, with inverse temperatures
    ``w_0 = log(U I / 2D) / (mean of positive scores - mean of all scores)`` for U users, I items, D
    train pairs, and ``w_u = w_0 exp(-W(max((L_u - L) / beta, -1/e)))``, W the Lambert function:
    users whose loss of the last epoch, L_u at temperature 1, is above the mean L get a smaller w_u.
    Both are set at the start of each epoch; the gap in w_0 is 0.7 before epoch `warmup`.

    Parameters
    ----------
    beta
        How little the users' temperatures differ, > 0.
    warmup
        First epoch in which the gap is measured, at least 0.

    Notes
    -----
    As in the authors' code, the fifth of the users with the fewest train pairs do not count for
    w_0. The code sums over the negatives where we average, which adds the constant log M.

    Raises
    ------
    ConfigError
        In `setup`, if more than half of all pairs are train pairs: no w_0 is positive then.

    Examples
    --------
    >>> loss, zero = AdapTau(), torch.tensor([0])
    >>> loss.setup(Setup.of(zero, zero, n_users=1, n_items=8))
    >>> loss(torch.tensor([[0.7]]), torch.tensor([[0.0]]), Batch(*4 * [zero]))  # -log(8/2)
    tensor(-1.3863)
    """

    graph_safe = False
    n_negatives = 1024
    space = {"beta": ("log", 0.1, 10.0)}
    counted = {"warmup": "epochs"}
    formula = (
        "-w_0 p + log mean_j exp(w_u n_j), w_0 from the gap of positive and all scores, "
        "w_u = w_0 exp(-W((L_u - L)/beta))"
    )
    source = "Chen et al., Adap-tau, WWW 2023"

    active: Tensor
    base: Tensor
    inverse_tau: Tensor
    loss_sums: Tensor
    loss_counts: Tensor

    def __init__(self, beta: float = 1.0, warmup: int = 100) -> None:
        super().__init__()
        check_positive(beta=beta)
        check_range(0, math.inf, warmup=warmup)
        self.beta = beta
        self.warmup = warmup

    def setup(self, info: Setup) -> None:
        """Count what w_0 needs and make the users' temperatures and losses."""
        degrees = info.user_degrees
        active = degrees > degrees.double().quantile(0.2)
        active = active if active.any() else degrees > 0  # all users have as many pairs
        n_pairs = int(degrees[active].sum())
        self.log_odds = math.log(int(active.sum()) * info.n_items / (2 * n_pairs))
        if self.log_odds <= 0:
            raise ConfigError("adap_tau needs data with less than half of all pairs in train")
        kept = active[info.train_users]
        self.pairs = info.train_users[kept], info.train_items[kept]  # [D] each
        self.cosine = info.score == "cosine"
        zeros = torch.zeros(info.n_users, device=info.device)
        self.register_buffer("active", active, persistent=False)
        self.register_buffer("base", torch.tensor(self.log_odds / FIRST_GAP, device=info.device))
        self.register_buffer("inverse_tau", zeros + self.base)
        self.register_buffer("loss_sums", zeros.clone())
        self.register_buffer("loss_counts", zeros.clone())

    def on_epoch_start(self, users: Tensor, items: Tensor, epoch: int) -> None:
        """Set the temperatures from the scores of now and the losses of the last epoch."""
        gap = FIRST_GAP if epoch < self.warmup else self.gap(users, items)
        self.base.fill_(self.log_odds / max(gap, LEAST_GAP))
        self.inverse_tau.copy_(self.base.expand_as(self.inverse_tau))
        met = self.loss_counts > 0
        if met.any():
            losses: Any = (self.loss_sums[met] / self.loss_counts[met]).double().cpu().numpy()
            distance = np.maximum((losses - losses.mean()) / self.beta, BRANCH_POINT)
            factors = np.exp(-lambertw(distance).real)  # the principal branch, from -1 on
            self.inverse_tau[met] *= torch.from_numpy(factors).to(self.base)
        self.loss_sums.zero_()
        self.loss_counts.zero_()

    def gap(self, users: Tensor, items: Tensor) -> float:
        """Return the mean score of the active users' train pairs less that of all their pairs."""
        if self.cosine:
            users, items = normalize(users, eps=1e-12), normalize(items, eps=1e-12)
        sums = [
            (users[u] * items[i]).sum(1).sum()
            for u, i in zip(*(torch.split(ids, CHUNK) for ids in self.pairs), strict=True)
        ]
        positives = math.fsum(torch.stack(sums).tolist()) / len(self.pairs[0])
        everything = (users[self.active] * items.mean(0)).sum(1).double()
        return positives - math.fsum(everything.tolist()) / len(everything)

    def forward(self, pos: Tensor, neg: Tensor, batch: Batch) -> Tensor:
        """Return the loss of scores pos [B, 1], neg [B, M] and ``batch.users`` [B]."""
        p = pos[:, 0]  # [B]
        with torch.no_grad():
            plain = (torch.logsumexp(neg, dim=1) - p).to(self.loss_sums)  # [B]
            self.loss_sums.index_add_(0, batch.users, plain)
            self.loss_counts.index_add_(0, batch.users, torch.ones_like(plain))
        scaled = neg * self.inverse_tau[batch.users, None]  # [B, M]
        return (log_mean_exp(scaled) - self.base * p).mean()
