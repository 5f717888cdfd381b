"""Losses of the difference between a positive and a negative: BPR, hinge, WARP, SimCE."""

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from bslbench.losses.base import Batch, Loss, Setup, check_positive

EULER = 0.57721566490153286
"""The Euler-Mascheroni constant: 1 + 1/2 + ... + 1/k = digamma(k + 1) + EULER."""


class BPR(Loss):
    """Bayesian personalised ranking.

    ``-mean_j log sigma(p - n_j)``, mean over rows; one negative a row is its usual form.

    Examples
    --------
    >>> import torch
    >>> BPR()(torch.tensor([[0.0]]), torch.tensor([[0.0]]))
    tensor(0.6931)
    """

    score = "inner"
    n_negatives = 1
    order_free = True
    graph_safe = True
    formula = "-mean_j log sigma(p - n_j)"
    source = "Rendle et al., BPR, UAI 2009"
    status = "classic"
    evidence = "against its formula"

    def forward(self, pos: Tensor, neg: Tensor, batch: Batch | None = None) -> Tensor:
        """Return the loss of scores pos [B, 1], neg [B, M]."""
        return -logsigmoid(pos - neg).mean(1).mean()


class Hinge(Loss):
    """Margin ranking loss: a positive should score higher than a negative by a margin.

    ``mean_j [margin - p + n_j]_+``, mean over rows; one negative a row is its usual form.

    Parameters
    ----------
    margin
        By how much, > 0.

    Examples
    --------
    >>> Hinge(margin=1.0)(torch.tensor([[0.5]]), torch.tensor([[0.0, -2.0]]))
    tensor(0.2500)
    """

    score = "inner"
    n_negatives = 1
    order_free = True
    graph_safe = True
    space = {"margin": ("log", 0.5, 2.0)}
    formula = "mean_j [margin - p + n_j]_+"
    source = "Weston, Bengio, Usunier, WSABIE, IJCAI 2011: its margin ranking loss"
    status = "classic"
    evidence = "against its formula"

    def __init__(self, margin: float = 1.0) -> None:
        super().__init__()
        check_positive(margin=margin)
        self.margin = margin

    def forward(self, pos: Tensor, neg: Tensor, batch: Batch | None = None) -> Tensor:
        """Return the loss of scores pos [B, 1], neg [B, M]."""
        return (self.margin - pos + neg).relu().mean(1).mean()


class WARP(Loss):
    """Weighted approximate-rank pairwise loss: hinge, heavier the lower the positive ranks.

    Negatives are tried in the order of their draws until one, the N-th, violates the margin; the
    rank of the positive is then estimated as r = floor((I - 1) / N) for I items, and the row's loss
    is ``(1 + 1/2 + ... + 1/r) (margin - p + n_N)``, 0 if none of the M violates it.

    Parameters
    ----------
    margin
        By how much the positive should score higher, > 0.

    Examples
    --------
    Of 7 items, the second negative tried violates the margin: r = 3.

    >>> warp, zero = WARP(margin=1.0), torch.tensor([0])
    >>> warp.setup(Setup.of(zero, zero, n_users=1, n_items=7))
    >>> warp(torch.tensor([[2.0]]), torch.tensor([[0.0, 1.5, 9.0]]))
    tensor(0.9167)
    """

    score = "inner"
    space = {"margin": ("log", 0.5, 2.0)}
    formula = "L(r) (margin - p + n_N), N the first that violates, r = (I-1)//N, L(r) = sum_1^r 1/i"
    source = "Weston, Bengio, Usunier, WSABIE, IJCAI 2011"

    def __init__(self, margin: float = 1.0) -> None:
        super().__init__()
        check_positive(margin=margin)
        self.margin = margin

    def setup(self, info: Setup) -> None:
        """Learn the number of items, which the ranks are estimated from."""
        self.n_items = info.n_items

    def forward(self, pos: Tensor, neg: Tensor, batch: Batch | None = None) -> Tensor:
        """Return the loss of scores pos [B, 1] and neg [B, M] in the order of the draws."""
        gaps = self.margin - pos + neg  # [B, M]
        first = (gaps > 0).int().argmax(1, keepdim=True)  # [B, 1], 0 if none violates
        rank = ((self.n_items - 1) // (first + 1)).clamp_min(1)
        weight = torch.digamma(rank.to(gaps.dtype) + 1) + EULER
        return (weight * gaps.gather(1, first).relu()).mean()


class SimCE(Loss):
    """Simplified sampled softmax: the hinge of the hardest negative, an upper bound of its kind.

    ``[margin - p + max_j n_j]_+``, mean over rows.

    Parameters
    ----------
    margin
        By how much the positive should score higher than the hardest negative, > 0.

    Examples
    --------
    >>> SimCE(margin=5.0)(torch.tensor([[1.0]]), torch.tensor([[0.5, -2.0]]))
    tensor(4.5000)
    """

    score = "inner"
    n_negatives = 64
    order_free = True
    graph_safe = True
    space = {"margin": ("log", 0.5, 20.0)}
    formula = "[margin - p + max_j n_j]_+"
    source = "Yang et al., SimCE, arXiv 2406.16170, 2024"

    def __init__(self, margin: float = 5.0) -> None:
        super().__init__()
        check_positive(margin=margin)
        self.margin = margin

    def forward(self, pos: Tensor, neg: Tensor, batch: Batch | None = None) -> Tensor:
        """Return the loss of scores pos [B, 1], neg [B, M]."""
        return (self.margin - pos[:, 0] + neg.amax(1)).relu().mean()
