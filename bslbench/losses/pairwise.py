"""Losses of the difference between a positive and a negative: BPR."""

from torch import Tensor
from torch.nn.functional import logsigmoid

from bslbench.losses.base import Batch, Loss


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

    def forward(self, pos: Tensor, neg: Tensor, batch: Batch | None = None) -> Tensor:
        """Return the loss of scores pos [B, 1], neg [B, M]."""
        return -logsigmoid(pos - neg).mean(1).mean()
