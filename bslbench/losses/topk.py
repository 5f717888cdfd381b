"""Losses that know which items make the top K, by a threshold per user: SL@K, Talos."""

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import embedding, logsigmoid, normalize

from bslbench.kernels.gemm import matmul
from bslbench.kernels.log_sum_exp import log_sum_exp
from bslbench.kernels.topk import BLOCK_SCORES, masked_topk
from bslbench.losses.base import Batch, Setup, check_positive
from bslbench.losses.softmax import TAU, SoftmaxLoss

BLOCK = 1024
"""Users scored at a time, at most."""


class SLatK(SoftmaxLoss):
    """Softmax loss weighted by how near the positive is to the user's top K.

    ``sigma((p - b_u) / tau_w) log sum_j exp((n_j - p) / tau)``, mean over rows; b_u is the user's
    K-th highest score over all items, set anew every `every` epochs. The gradient flows through the
    weight too, and the sum, not the mean, keeps the logarithm from turning it round.

    Parameters
    ----------
    tau
        Temperature, > 0.
    tau_w
        Temperature of the weight, > 0.
    top_k
        K, at least 1.
    every
        Epochs between two settings of the thresholds, at least 1.

    Notes
    -----
    The authors estimate b_u from the user's train items and the sampled negatives, and start from
    0. Here it is what they estimate, over all items, from the first epoch on.

    Examples
    --------
    >>> loss, zero = SLatK(tau=1.0, tau_w=1.0), torch.tensor([0])
    >>> loss.setup(Setup.of(zero, zero, n_users=1, n_items=1))
    >>> loss(torch.tensor([[0.0]]), torch.tensor([[0.0, 0.0]]), Batch(*4 * [zero]))  # log(2) / 2
    tensor(0.3466)
    """

    graph_safe = False
    n_negatives = 1000
    space = {"tau": TAU, "tau_w": ("log", 0.5, 3.0), "every": ("choice", 5, 20)}
    counted = {"every": "epochs"}
    formula = "sigma((p - b_u)/tau_w) log sum_j exp((n_j - p)/tau), b_u the user's K-th best score"
    source = "Yang et al., SL@K, KDD 2025"

    thresholds: Tensor

    def __init__(
        self, tau: float = 0.1, tau_w: float = 1.0, top_k: int = 20, every: int = 5
    ) -> None:
        super().__init__()
        check_positive(tau=tau, tau_w=tau_w, top_k=top_k, every=every)
        self.tau = tau
        self.tau_w = tau_w
        self.top_k = top_k
        self.every = every

    def setup(self, info: Setup) -> None:
        """Make one threshold per user."""
        self.cosine = info.score == "cosine"
        self.register_buffer("thresholds", torch.zeros(info.n_users, device=info.device))

    def on_epoch_start(self, users: Tensor, items: Tensor, epoch: int) -> None:
        """Set the thresholds, if it is time."""
        if epoch % self.every == 0:
            if self.cosine:
                users, items = normalize(users, eps=1e-12), normalize(items, eps=1e-12)
            self.thresholds.copy_(kth_scores(users, items, self.top_k))

    def forward(self, pos: Tensor, neg: Tensor, batch: Batch) -> Tensor:
        """Return the loss of scores pos [B, 1], neg [B, M] and ``batch.users`` [B]."""
        weight = torch.sigmoid((pos[:, 0] - self.thresholds[batch.users]) / self.tau_w)  # [B]
        return (weight * log_sum_exp(neg - pos, self.tau)).mean()


class Talos(SoftmaxLoss):
    """Softmax loss of what passes a threshold per user, which is learnt to let K items pass.

    ``log sum_j sigma(n_j - b_u)^(1/tau) - log sigma(p - b_u)^(1/tau)``, mean over rows, b_u without
    gradient; to which comes, for b_u alone, the quantile regression
    ``mean_j (1 - t) [n_j - b_u]_+ + t [b_u - n_j]_+`` with t = K / I.

    Parameters
    ----------
    tau
        Temperature, > 0.
    top_k
        K, at least 1.
    quantile_lr
        Learning rate of the thresholds, > 0.

    Notes
    -----
    The authors' regression runs over the user's positives and, weighted up, the negatives. Ours
    runs over the negatives, which are drawn from all items, the positives among them.

    Examples
    --------
    >>> loss, zero = Talos(tau=1.0, top_k=1), torch.tensor([0])
    >>> loss.setup(Setup.of(zero, zero, n_users=1, n_items=2))
    >>> value = loss(torch.tensor([[0.0]]), torch.tensor([[0.0, 0.0]]), Batch(*4 * [zero]))
    >>> round(value.item(), 4)  # log 2
    0.6931
    """

    graph_safe = False
    n_negatives = 1024
    space = {"tau": ("log", 0.05, 0.3), "quantile_lr": ("log", 1e-4, 1e-2)}
    formula = (
        "log sum_j sigma(n_j - b_u)^(1/tau) - log sigma(p - b_u)^(1/tau), "
        "b_u by quantile regression at K/I"
    )
    source = "Zhang et al., Talos, WWW 2026"

    thresholds: nn.Parameter

    def __init__(self, tau: float = 0.1, top_k: int = 20, quantile_lr: float = 1e-3) -> None:
        super().__init__()
        check_positive(tau=tau, top_k=top_k, quantile_lr=quantile_lr)
        self.tau = tau
        self.top_k = top_k
        self.quantile_lr = quantile_lr

    def setup(self, info: Setup) -> None:
        """Make one threshold per user."""
        self.n_items = info.n_items
        self.thresholds = nn.Parameter(torch.zeros(info.n_users, 1, device=info.device))

    def learning_rates(self, lr: float) -> dict[str, float]:
        """Return the thresholds' rate."""
        return {"thresholds": self.quantile_lr}

    def forward(self, pos: Tensor, neg: Tensor, batch: Batch) -> Tensor:
        """Return the loss of scores pos [B, 1], neg [B, M] and ``batch.users`` [B]."""
        threshold = embedding(batch.users, self.thresholds)  # [B, 1]
        held = threshold.detach()
        pushed = log_sum_exp(logsigmoid(neg - held), self.tau)  # [B]
        pulled = logsigmoid(pos - held)[:, 0] / self.tau  # [B]
        above = neg.detach() - threshold  # [B, M]
        share = min(1.0, self.top_k / self.n_items)
        quantile = (1 - share) * above.relu() + share * (-above).relu()
        return (pushed - pulled + quantile.mean(1)).mean()


def kth_scores(users: Tensor, items: Tensor, k: int) -> Tensor:
    """Return each user's k-th highest product with the items [I, d], [n_users]; -inf if k > I."""
    block = min(BLOCK, max(16, BLOCK_SCORES // len(items) // 16 * 16))
    indptr, nothing = np.zeros(block + 1, dtype=np.int64), np.zeros(0, dtype=np.int32)
    ids = np.arange(len(items), dtype=np.int32)
    best = []
    for rows in torch.split(users, block):
        scores = matmul(rows, items.T)  # [n, I]
        _, top = masked_topk(scores, indptr[: len(rows) + 1], nothing, ids, k)  # [n, k]
        best.append(top[:, -1])
    return torch.cat(best)
