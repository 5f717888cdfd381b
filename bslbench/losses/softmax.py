"""The softmax family on one scale.

Every member is ``-(tau_pos / tau) log mean_pool exp(p / tau_pos) + rho log mean_j exp(n_j / tau)``;
they differ in which positives are pooled and in rho (docs/protocol.md, "The softmax family").
"""

import torch
from torch import Tensor

from bslbench.kernels.log_sum_exp import log_sum_exp
from bslbench.losses.base import Batch, Loss, check_positive, log_mean_exp

TAU = ("log", 0.03, 1.0)
RHO = ("linear", 0.7, 1.4)


class SoftmaxLoss(Loss):
    """Declarations that the family shares."""

    scale = None
    order_free = True
    graph_safe = True
    space = {"tau": TAU}


class SL(SoftmaxLoss):
    """Softmax loss with the positive outside the denominator.

    ``-p/tau + log mean_j exp(n_j / tau)``, mean over rows.

    Parameters
    ----------
    tau
        Temperature, > 0.

    Examples
    --------
    >>> SL(tau=0.5)(torch.tensor([[1.0]]), torch.tensor([[0.5, 0.5]]))
    tensor(-1.)
    """

    logq = True
    formula = "-p/tau + log mean_j exp(n_j/tau)"
    source = "Wu et al., BSL, ICDE 2024, Eq. for SL"
    status = "verified"
    evidence = "Yelp2018, LightGCN: loss and Recall@20 of the published first epochs"

    def __init__(self, tau: float = 0.1) -> None:
        super().__init__()
        check_positive(tau=tau)
        self.tau = tau

    def forward(self, pos: Tensor, neg: Tensor, batch: Batch | None = None) -> Tensor:
        """Return the loss of scores pos [B, 1], neg [B, M]."""
        return (log_mean_exp(neg, self.tau) - pos[:, 0] / self.tau).mean()


class SSM(SoftmaxLoss):
    """Sampled softmax: the positive stands in the denominator too.

    ``-p/tau + log(exp(p/tau) + sum_j exp(n_j / tau))``, mean over rows.

    Parameters
    ----------
    tau
        Temperature, > 0.

    Examples
    --------
    >>> SSM(tau=1.0)(torch.tensor([[0.0]]), torch.tensor([[0.0]]))
    tensor(0.6931)
    """

    logq = True
    formula = "-p/tau + log(exp(p/tau) + sum_j exp(n_j/tau))"
    source = "Wu et al., On the Effectiveness of Sampled Softmax Loss, TOIS 2024"

    def __init__(self, tau: float = 0.1) -> None:
        super().__init__()
        check_positive(tau=tau)
        self.tau = tau

    def forward(self, pos: Tensor, neg: Tensor, batch: Batch | None = None) -> Tensor:
        """Return the loss of scores pos [B, 1], neg [B, M]."""
        p = pos[:, 0] / self.tau  # [B]
        return (torch.logaddexp(p, log_sum_exp(neg, self.tau)) - p).mean()


class BSL(SoftmaxLoss):
    """Bilateral softmax loss as the paper writes it, divided by tau to stand on the scale of `SL`.

    ``-(tau_pos/tau) log mean_k exp(p_k / tau_pos) + rho log mean_j exp(n_j / tau)`` over K
    positives of the user, the row's own among them; at K = 1 it is `SL`.

    Parameters
    ----------
    tau
        Temperature of the negatives, > 0.
    tau_pos
        Temperature of the positives, > 0.
    rho
        Weight of the negatives' part.
    n_pos
        K.

    Examples
    --------
    >>> pos, neg = torch.tensor([[0.3, 0.3]]), torch.tensor([[0.1, 0.2]])
    >>> torch.allclose(BSL(tau=0.1, n_pos=2)(pos, neg), SL(tau=0.1)(pos[:, :1], neg))
    True
    """

    logq = True
    space = {"tau": TAU, "tau_pos": TAU}
    formula = "-(tau_pos/tau) log mean_k exp(p_k/tau_pos) + rho log mean_j exp(n_j/tau)"
    source = "Wu et al., BSL, ICDE 2024, Eq. for BSL, divided by tau"
    evidence = "no published run has this form; with one positive it is sl (by test)"

    def __init__(
        self, tau: float = 0.1, tau_pos: float = 0.1, rho: float = 1.0, n_pos: int = 16
    ) -> None:
        super().__init__()
        check_positive(tau=tau, tau_pos=tau_pos, n_pos=n_pos)
        self.tau = tau
        self.tau_pos = tau_pos
        self.rho = rho
        self.n_pos = n_pos

    def forward(self, pos: Tensor, neg: Tensor, batch: Batch | None = None) -> Tensor:
        """Return the loss of scores pos [B, K], neg [B, M]."""
        pooled = log_mean_exp(pos, self.tau_pos) * (self.tau_pos / self.tau)  # [B]
        return (self.rho * log_mean_exp(neg, self.tau) - pooled).mean()


class BSLReweight(SoftmaxLoss):
    """Softmax loss whose negatives' part is weighted by rho; at rho = 1 it is `SL`.

    ``-p/tau + rho log mean_j exp(n_j / tau)``. The published code logs the sum over negatives:
    its figures lie ``rho log M`` higher.

    Parameters
    ----------
    tau
        Temperature, > 0.
    rho
        Weight of the negatives' part, the published code's ``temperature_2``.

    Examples
    --------
    >>> BSLReweight(tau=0.5, rho=2.0)(torch.tensor([[1.0]]), torch.tensor([[0.5]]))
    tensor(0.)
    """

    logq = True
    space = {"tau": TAU, "rho": RHO}
    formula = "-p/tau + rho log mean_j exp(n_j/tau)"
    source = "published code of BSL, ICDE 2024, mode reweight"
    status = "verified"
    evidence = "at rho 1: Yelp2018, LightGCN: loss and Recall@20 of the published first epochs"

    def __init__(self, tau: float = 0.1, rho: float = 1.1) -> None:
        super().__init__()
        check_positive(tau=tau)
        self.tau = tau
        self.rho = rho

    def forward(self, pos: Tensor, neg: Tensor, batch: Batch | None = None) -> Tensor:
        """Return the loss of scores pos [B, 1], neg [B, M]."""
        return (self.rho * log_mean_exp(neg, self.tau) - pos[:, 0] / self.tau).mean()


class SLShift(SoftmaxLoss):
    """Softmax loss that pulls at the negatives' mean as `BSLReweight` does, and at nothing else.

    ``-p/tau + log mean_j exp(n_j / tau) + (rho - 1) mean_j n_j / tau``. A shift of all scores by c
    changes it by ``(rho - 1) c / tau``, just as it changes `BSLReweight`: what of rho's effect this
    has too is that of the broken invariance alone.

    Parameters
    ----------
    tau
        Temperature, > 0.
    rho
        1 + the weight of the negatives' mean.

    Examples
    --------
    >>> SLShift(tau=0.5, rho=2.0)(torch.tensor([[1.0]]), torch.tensor([[0.25, 0.25]]))
    tensor(-1.)
    """

    logq = True
    space = {"tau": TAU, "rho": RHO}
    formula = "-p/tau + log mean_j exp(n_j/tau) + (rho - 1) mean_j n_j/tau"
    source = "bslbench, a control for bsl_reweight"
    evidence = "its formula, and how it moves under a shift of all scores"

    def __init__(self, tau: float = 0.1, rho: float = 1.1) -> None:
        super().__init__()
        check_positive(tau=tau)
        self.tau = tau
        self.rho = rho

    def forward(self, pos: Tensor, neg: Tensor, batch: Batch | None = None) -> Tensor:
        """Return the loss of scores pos [B, 1], neg [B, M]."""
        shift = (self.rho - 1) * neg.mean(1) / self.tau  # [B]
        return (log_mean_exp(neg, self.tau) + shift - pos[:, 0] / self.tau).mean()


class BSLInBatch(SoftmaxLoss):
    """The published MF form: positives pooled over the rows of the batch with the same user.

    ``-log mean_{r: user_r = user} exp(p_r / tau) + rho log mean_j exp(n_j / tau)``.

    Parameters
    ----------
    tau
        Temperature of both sides, > 0.
    rho
        Weight of the negatives' part, the published code's ``temperature_2``.
    """

    logq = True
    space = {"tau": TAU, "rho": RHO}
    formula = "-log mean_{rows of the same user} exp(p/tau) + rho log mean_j exp(n_j/tau)"
    source = "published code of BSL, ICDE 2024, mode multi"
    status = "verified"
    evidence = "at rho 1: Yelp2018, MF: loss and Recall@20 of the published first epochs"

    def __init__(self, tau: float = 0.1, rho: float = 1.1) -> None:
        super().__init__()
        check_positive(tau=tau)
        self.tau = tau
        self.rho = rho

    def forward(self, pos: Tensor, neg: Tensor, batch: Batch) -> Tensor:
        """Return the loss of scores pos [B, 1], neg [B, M] and ``batch.users`` [B]."""
        pooled = log_mean_exp_by(batch.users, pos[:, 0] / self.tau)  # [B]
        return (self.rho * log_mean_exp(neg, self.tau) - pooled).mean()


class BSLScaled(SoftmaxLoss):
    """Softmax loss at temperature tau_neg times tau_neg / tau_pos, as others wrote BSL.

    ``(tau_neg / tau_pos) SL(tau_neg)``: under Adam without L2 it trains exactly as `SL`.

    Parameters
    ----------
    tau_pos, tau_neg
        The two temperatures, > 0.

    Examples
    --------
    >>> BSLScaled(tau_pos=0.25, tau_neg=0.5)(torch.tensor([[1.0]]), torch.tensor([[0.5]]))
    tensor(-2.)
    """

    space = {"tau_pos": TAU, "tau_neg": TAU}
    formula = "(tau_neg/tau_pos) (-p/tau_neg + log mean_j exp(n_j/tau_neg))"
    source = "IR-Benchmark; Talos, WWW 2026"
    evidence = "a constant times sl (by test)"

    def __init__(self, tau_pos: float = 0.1, tau_neg: float = 0.1) -> None:
        super().__init__()
        check_positive(tau_pos=tau_pos, tau_neg=tau_neg)
        self.tau_pos = tau_pos
        self.tau_neg = tau_neg

    def forward(self, pos: Tensor, neg: Tensor, batch: Batch | None = None) -> Tensor:
        """Return the loss of scores pos [B, 1], neg [B, M]."""
        rows = log_mean_exp(neg, self.tau_neg) - pos[:, 0] / self.tau_neg  # [B]
        return (self.tau_neg / self.tau_pos) * rows.mean()


def log_mean_exp_by(groups: Tensor, x: Tensor) -> Tensor:
    """Return for each row the log of the mean of exp(x) over the rows of its group, [B].

    Parameters
    ----------
    groups
        Group of each row, [B] int64, any values.
    x
        [B] float.

    Examples
    --------
    >>> log_mean_exp_by(torch.tensor([7, 3, 7]), torch.tensor([1.0, 5.0, 1.0]))
    tensor([1., 5., 1.])
    """
    # Sorting numbers the groups without the host sync that torch.unique needs for its size.
    ordered, order = groups.sort(stable=True)
    starts = torch.zeros_like(ordered)
    starts[1:] = ordered[1:] != ordered[:-1]
    group = torch.empty_like(order).scatter(0, order, starts.cumsum(0))  # [B], 0..B-1
    # The maximum is subtracted before exp, or a cosine of 0.9 at tau = 0.01 overflows float32.
    peak = torch.full_like(x, -torch.inf).scatter_reduce(0, group, x.detach(), "amax")
    total = torch.zeros_like(x).index_add(0, group, (x - peak[group]).exp())
    count = torch.zeros_like(x).index_add(0, group, torch.ones_like(x))
    return (total[group] / count[group]).log() + peak[group]
