"""Losses that look at one score at a time: MSE, BCE, gBCE."""

import math

from torch import Tensor
from torch.nn.functional import logsigmoid

from bslbench.losses.base import Batch, Loss, Setup, check_range


class MSE(Loss):
    """Squared error to 1 for the positive and to 0 for the negatives.

    ``1/2 (p - 1)^2 + w/2 mean_j n_j^2``, mean over rows.

    Parameters
    ----------
    w
        Weight of the negatives' mean.

    Examples
    --------
    >>> import torch
    >>> MSE(w=2.0)(torch.tensor([[0.0]]), torch.tensor([[1.0, 0.0]]))
    tensor(1.)
    """

    score = "inner"
    order_free = True
    graph_safe = True
    space = {"w": ("log", 0.1, 1000.0)}
    formula = "1/2 (p-1)^2 + w/2 mean_j n_j^2"
    source = "Hu, Koren, Volinsky, ICDM 2008 (sampled form)"
    status = "classic"
    evidence = "against its formula"

    def __init__(self, w: float = 1.0) -> None:
        super().__init__()
        check_range(0, math.inf, w=w)
        self.w = w

    def forward(self, pos: Tensor, neg: Tensor, batch: Batch | None = None) -> Tensor:
        """Return the loss of scores pos [B, 1], neg [B, M]."""
        rows = 0.5 * (pos[:, 0] - 1).square() + 0.5 * self.w * neg.square().mean(1)  # [B]
        return rows.mean()


class BCE(Loss):
    """Binary cross-entropy of the logistic of the scores.

    ``-log sigma(p) - w mean_j log sigma(-n_j)``, mean over rows.

    Parameters
    ----------
    w
        Weight of the negatives' mean.

    Examples
    --------
    >>> import torch
    >>> BCE()(torch.tensor([[0.0]]), torch.tensor([[0.0]]))
    tensor(1.3863)
    """

    score = "inner"
    order_free = True
    graph_safe = True
    space = {"w": ("log", 0.1, 1000.0)}
    formula = "-log sigma(p) - w mean_j log sigma(-n_j)"
    source = "He et al., Neural Collaborative Filtering, WWW 2017, Eq. 7"
    status = "classic"
    evidence = "against its formula"

    def __init__(self, w: float = 1.0) -> None:
        super().__init__()
        check_range(0, math.inf, w=w)
        self.w = w

    def forward(self, pos: Tensor, neg: Tensor, batch: Batch | None = None) -> Tensor:
        """Return the loss of scores pos [B, 1], neg [B, M]."""
        rows = -logsigmoid(pos[:, 0]) - self.w * logsigmoid(-neg).mean(1)  # [B]
        return rows.mean()


class GBCE(Loss):
    """Generalised binary cross-entropy: less pull on positives, against overconfidence.

    ``-(beta log sigma(p) + sum_j log sigma(-n_j)) / (M + 1)``, mean over rows, with
    ``beta = alpha (t (1 - 1/alpha) + 1/alpha) = 1 - t (1 - alpha)``, where alpha = M / (I - 1) is
    the rate at which the I items are sampled.

    Parameters
    ----------
    t
        Calibration, from 0, which is plain cross-entropy, to 1, full.

    Examples
    --------
    >>> import torch
    >>> loss, zero = GBCE(t=0.5), torch.tensor([0])
    >>> loss.setup(Setup.of(zero, zero, n_users=1, n_items=3))  # alpha = 1/2, beta = 3/4
    >>> loss(torch.tensor([[0.0]]), torch.tensor([[0.0]]))  # 7/8 log 2
    tensor(0.6065)
    """

    score = "inner"
    n_negatives = 256
    order_free = True
    graph_safe = True
    space = {"t": ("linear", 0.0, 1.0)}
    formula = "-(beta log sigma(p) + sum_j log sigma(-n_j))/(M+1), beta = 1 - t (1 - M/(I-1))"
    source = "Petrov, Macdonald, gSASRec, RecSys 2023"

    def __init__(self, t: float = 0.75) -> None:
        super().__init__()
        check_range(0, 1, t=t)
        self.t = t

    def setup(self, info: Setup) -> None:
        """Learn the number of items, which beta depends on."""
        self.n_items = info.n_items

    def forward(self, pos: Tensor, neg: Tensor, batch: Batch | None = None) -> Tensor:
        """Return the loss of scores pos [B, 1], neg [B, M]."""
        n_neg = neg.shape[1]
        alpha = n_neg / (self.n_items - 1)
        beta = 1 - self.t * (1 - alpha)
        rows = -beta * logsigmoid(pos[:, 0]) - logsigmoid(-neg).sum(1)  # [B]
        return rows.mean() / (n_neg + 1)
