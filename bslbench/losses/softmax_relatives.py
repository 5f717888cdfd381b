"""Relatives of the softmax loss that its one formula does not cover: PSL, SogCLR, full softmax."""

import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from bslbench.errors import ConfigError, suggest
from bslbench.kernels.log_sum_exp import log_sum_exp
from bslbench.losses.base import Batch, Setup, check_positive, check_range, log_mean_exp
from bslbench.losses.softmax import TAU, SoftmaxLoss, log_mean_exp_by

TINY = 1e-6


class PSL(SoftmaxLoss):
    """Pairwise softmax loss: another surrogate in place of the exponential.

    ``log sum_j s(d_j)^(1/tau)``, mean over rows, with ``d_j = (n_j - p) / 2``, which for cosines
    lies in [-1, 1], and the surrogate s(d) = 1 + tanh d, 1 + arctan d or [1 + d]_+. With
    s(d) = exp(2 d) it would be `SL`.

    Parameters
    ----------
    tau
        Temperature, > 0.
    surrogate
        ``tanh``, ``atan`` or ``relu``.

    Examples
    --------
    >>> PSL(tau=0.5, surrogate="relu")(torch.tensor([[1.0]]), torch.tensor([[1.0, 1.0]]))
    tensor(0.6931)
    """

    n_negatives = 1000
    space = {"tau": ("log", 0.005, 0.25), "surrogate": ("choice", "tanh", "atan", "relu")}
    formula = "log sum_j s((n_j - p)/2)^(1/tau), s(d) = 1 + tanh d, 1 + atan d or [1 + d]_+"
    source = "Yang et al., PSL, NeurIPS 2024"

    def __init__(self, tau: float = 0.1, surrogate: str = "tanh") -> None:
        super().__init__()
        check_positive(tau=tau)
        if surrogate not in LOG_SURROGATES:
            hint = suggest(surrogate, LOG_SURROGATES)
            raise ConfigError(f"surrogate must be tanh, atan or relu, not '{surrogate}'{hint}")
        self.tau = tau
        self.surrogate = surrogate

    def forward(self, pos: Tensor, neg: Tensor, batch: Batch | None = None) -> Tensor:
        """Return the loss of scores pos [B, 1], neg [B, M]."""
        logs = LOG_SURROGATES[self.surrogate]((neg - pos) / 2)  # [B, M]
        return log_sum_exp(logs, self.tau).mean()


# 1 + tanh d is twice the logistic of 2 d. The others reach 0, whose logarithm is kept finite.
LOG_SURROGATES: dict[str, Callable[[Tensor], Tensor]] = {
    "tanh": lambda d: math.log(2) + logsigmoid(2 * d),
    "atan": lambda d: (1 + torch.atan(d)).clamp_min(TINY).log(),
    "relu": lambda d: (1 + d).clamp_min(TINY).log(),
}


class SogCLR(SoftmaxLoss):
    """Softmax loss whose denominator is a moving average per user, so that few negatives do.

    ``-p/tau + g / G_u`` with ``g = mean_j exp(n_j / tau)`` and, without gradient,
    ``G_u = (1 - gamma) G_u + gamma g``; a user met for the first time has ``G_u = g``. Rows of one
    user in a batch move its average once, by their mean. Its gradient is that of `SL` with g in the
    denominator replaced by G_u; at ``gamma = 1`` and one row a user it is `SL`'s.

    Parameters
    ----------
    tau
        Temperature, > 0.
    gamma
        Weight of the new value, from above 0 to 1.

    Examples
    --------
    >>> loss, zero = SogCLR(tau=1.0), torch.tensor([0])
    >>> loss.setup(Setup.of(zero, zero, n_users=1, n_items=1))
    >>> loss(torch.tensor([[0.5]]), torch.tensor([[0.2]]), Batch(*4 * [zero]))
    tensor(0.5000)
    """

    graph_safe = False
    n_negatives = 1000
    space = {"tau": TAU, "gamma": ("linear", 0.1, 1.0)}
    formula = "-p/tau + g/G_u, g = mean_j exp(n_j/tau), G_u a moving average of g (gamma)"
    source = "Yuan et al., SogCLR, ICML 2022"

    log_averages: Tensor

    def __init__(self, tau: float = 0.1, gamma: float = 0.9) -> None:
        super().__init__()
        check_positive(tau=tau, gamma=gamma)
        check_range(0, 1, gamma=gamma)
        self.tau = tau
        self.gamma = gamma

    def setup(self, info: Setup) -> None:
        """Make one average per user, log 0 for those not met yet."""
        nothing = torch.full((info.n_users,), -torch.inf, device=info.device)
        self.register_buffer("log_averages", nothing)

    def forward(self, pos: Tensor, neg: Tensor, batch: Batch) -> Tensor:
        """Return the loss of scores pos [B, 1], neg [B, M] and ``batch.users`` [B]."""
        log_g = log_mean_exp(neg, self.tau)  # [B]
        with torch.no_grad():
            fresh = log_mean_exp_by(batch.users, log_g)  # [B], alike for rows of one user
            old = self.log_averages[batch.users].to(fresh.dtype)
            keep = math.log1p(-self.gamma) if self.gamma < 1 else -math.inf
            moved = torch.logaddexp(old + keep, fresh + math.log(self.gamma))
            average = torch.where(old == -torch.inf, fresh, moved)
            self.log_averages[batch.users] = average.to(self.log_averages.dtype)
        return ((log_g - average).exp() - pos[:, 0] / self.tau).mean()


class FullSoftmax(SoftmaxLoss):
    """Cross-entropy over all items: no negatives are sampled.

    ``-p/tau + log sum_i exp(f_i / tau)`` over the scores f_i of all items, mean over rows.

    Parameters
    ----------
    tau
        Temperature, > 0.

    Examples
    --------
    >>> scores = torch.tensor([[0.5, 0.5]])
    >>> batch = Batch(*4 * [torch.tensor([0])], all_scores=scores)
    >>> FullSoftmax(tau=1.0)(scores[:, :1], scores[:, :0], batch)
    tensor(0.6931)
    """

    needs = frozenset({"all_items"})
    formula = "-p/tau + log sum_{all items i} exp(f_i/tau)"
    source = "classic; the likelihood of Liang et al., Mult-VAE, WWW 2018"
    status = "classic"
    evidence = "against its formula"

    def __init__(self, tau: float = 0.1) -> None:
        super().__init__()
        check_positive(tau=tau)
        self.tau = tau

    def forward(self, pos: Tensor, neg: Tensor, batch: Batch) -> Tensor:
        """Return the loss of scores pos [B, 1] and ``batch.all_scores`` [B, I]."""
        assert batch.all_scores is not None
        return (log_sum_exp(batch.all_scores, self.tau) - pos[:, 0] / self.tau).mean()
