"""Losses that allow for wrong labels: TCE and RCE for false positives, DCL for false negatives."""

import math

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from bslbench.losses.base import Batch, Loss, check_positive, check_range, log_mean_exp
from bslbench.losses.softmax import TAU, SoftmaxLoss

W = ("log", 0.1, 1000.0)


class TCE(Loss):
    """Truncated cross-entropy: `BCE` without the positives that it fits worst.

    ``-[kept] log sigma(p) - w mean_j log sigma(-n_j)``, mean over rows. In each step the share
    ``drop min(1, t / ramp)`` of the batch's positives, those of the largest loss, is not kept; t
    counts the steps from 0.

    Parameters
    ----------
    drop
        Largest share, from 0 to 1.
    ramp
        Steps over which the share grows to it, > 0.
    w
        Weight of the negatives' mean.

    Notes
    -----
    The authors' code drops the share from positives and negatives together, though positives alone
    fall away: with its one negative per positive, twice the share of them.

    Examples
    --------
    >>> loss = TCE(drop=0.5, ramp=1)
    >>> pos, neg = torch.tensor([[0.0], [-3.0]]), torch.full((2, 1), -100.0)
    >>> [round(loss(pos, neg).item(), 4) for _ in range(2)]  # the second step drops the second row
    [1.8709, 0.3466]
    """

    score = "inner"
    order_free = True
    space = {"drop": ("linear", 0.05, 0.3), "w": W}
    counted = {"ramp": "steps"}
    formula = "-[kept] log sigma(p) - w mean_j log sigma(-n_j), dropped: the largest losses"
    source = "Wang et al., Denoising implicit feedback (ADT), WSDM 2021: T-CE"

    steps: Tensor

    def __init__(self, drop: float = 0.2, ramp: int = 30_000, w: float = 1.0) -> None:
        super().__init__()
        check_range(0, 1, drop=drop)
        check_range(0, math.inf, w=w)
        check_positive(ramp=ramp)
        self.drop = drop
        self.ramp = ramp
        self.w = w
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))

    def forward(self, pos: Tensor, neg: Tensor, batch: Batch | None = None) -> Tensor:
        """Return the loss of scores pos [B, 1], neg [B, M]."""
        share = self.drop * min(1.0, int(self.steps) / self.ramp)
        self.steps += 1
        losses = -logsigmoid(pos[:, 0])  # [B]
        smallest = losses.detach().argsort(stable=True)[: int((1 - share) * len(losses))]
        kept = losses.new_zeros(len(losses)).index_fill(0, smallest, 1.0)
        return (kept * losses - self.w * logsigmoid(-neg).mean(1)).mean()


class RCE(Loss):
    """Reweighted cross-entropy: `BCE` in which what is fitted badly weighs less.

    ``-sigma(p)^alpha log sigma(p) - w mean_j sigma(-n_j)^alpha log sigma(-n_j)``, mean over rows;
    the weights, the powers, have no gradient.

    Parameters
    ----------
    alpha
        How much less, >= 0; 0 is `BCE`.
    w
        Weight of the negatives' mean.

    Examples
    --------
    >>> RCE(alpha=1.0)(torch.tensor([[0.0]]), torch.tensor([[0.0]]))
    tensor(0.6931)
    """

    score = "inner"
    order_free = True
    graph_safe = True
    space = {"alpha": ("linear", 0.05, 0.5), "w": W}
    formula = "-sigma(p)^alpha log sigma(p) - w mean_j sigma(-n_j)^alpha log sigma(-n_j)"
    source = "Wang et al., Denoising implicit feedback (ADT), WSDM 2021: R-CE"

    def __init__(self, alpha: float = 0.2, w: float = 1.0) -> None:
        super().__init__()
        check_range(0, math.inf, alpha=alpha, w=w)
        self.alpha = alpha
        self.w = w

    def forward(self, pos: Tensor, neg: Tensor, batch: Batch | None = None) -> Tensor:
        """Return the loss of scores pos [B, 1], neg [B, M]."""
        fits = logsigmoid(pos[:, 0]), logsigmoid(-neg)  # [B], [B, M]
        pulled, pushed = (-(self.alpha * fit.detach()).exp() * fit for fit in fits)
        return (pulled + self.w * pushed.mean(1)).mean()


class DCL(SoftmaxLoss):
    """Debiased contrastive loss: the share of positives among the negatives is taken out.

    ``-p/tau + log(exp(p/tau) + M g)`` with
    ``g = max((mean_j exp(n_j/tau) - tau_plus exp(p/tau)) / (1 - tau_plus), exp(-1/tau))``.

    Parameters
    ----------
    tau
        Temperature, > 0.
    tau_plus
        Probability that a negative is a positive, from 0 up to, but not, 1; 0 is `SSM`. Images
        had 0.1, their chance of one class in ten.

    Examples
    --------
    >>> pos, neg = torch.tensor([[0.3]]), torch.tensor([[0.1, 0.2]])
    >>> from bslbench.losses import SSM
    >>> torch.allclose(DCL(tau=0.1, tau_plus=0.0)(pos, neg), SSM(tau=0.1)(pos, neg))
    True
    """

    logq = True
    space = {"tau": TAU, "tau_plus": ("log", 1e-4, 0.1)}
    formula = (
        "-p/tau + log(exp(p/tau) + M g), "
        "g = max((mean_j exp(n_j/tau) - tau_plus exp(p/tau)) / (1 - tau_plus), exp(-1/tau))"
    )
    source = "Chuang et al., Debiased contrastive learning, NeurIPS 2020"

    def __init__(self, tau: float = 0.1, tau_plus: float = 0.01) -> None:
        super().__init__()
        check_positive(tau=tau, **{"1 - tau_plus": 1 - tau_plus})
        check_range(0, 1, tau_plus=tau_plus)
        self.tau = tau
        self.tau_plus = tau_plus

    def forward(self, pos: Tensor, neg: Tensor, batch: Batch | None = None) -> Tensor:
        """Return the loss of scores pos [B, 1], neg [B, M]."""
        p = pos[:, 0] / self.tau  # [B]
        mean = log_mean_exp(neg, self.tau)  # [B]
        share = math.log(self.tau_plus) if self.tau_plus else -math.inf
        # log(exp(mean) - exp(taken)), where that is positive; elsewhere the floor holds.
        ratio = share + p - mean
        rest = torch.log(-torch.expm1(ratio.clamp_max(-1e-6)))
        debiased = mean + rest - math.log1p(-self.tau_plus)
        floor = torch.full_like(p, -1 / self.tau)
        g = torch.where(ratio < -1e-6, torch.maximum(debiased, floor), floor)
        return (torch.logaddexp(p, math.log(neg.shape[1]) + g) - p).mean()
