"""Losses that look at one score at a time: MSE and BCE."""

from torch import Tensor
from torch.nn.functional import logsigmoid

from bslbench.losses.base import Batch, Loss


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

    def __init__(self, w: float = 1.0) -> None:
        super().__init__()
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

    def __init__(self, w: float = 1.0) -> None:
        super().__init__()
        self.w = w

    def forward(self, pos: Tensor, neg: Tensor, batch: Batch | None = None) -> Tensor:
        """Return the loss of scores pos [B, 1], neg [B, M]."""
        rows = -logsigmoid(pos[:, 0]) - self.w * logsigmoid(-neg).mean(1)  # [B]
        return rows.mean()
