"""The identities behind the softmax loss, each computed twice: in closed form and by a solver.

With P the uniform distribution over n negatives of scores f and KL the Kullback-Leibler divergence
from P:

- penalised: tau log E_P exp(f / tau) = max_Q { E_Q f - tau KL(Q) }, at Q* ~ exp(f / tau);
- constrained: max { E_Q f : KL(Q) <= eta } = tau log E_P exp(f / tau) + tau eta, eta = KL(Q*);
- expansion: tau log E_P exp(f / tau) = E_P f + Var_P f / (2 tau) + o(1 / tau).

Source: Wu et al., BSL, ICDE 2024; Hu, Hong, Kullback-Leibler divergence constrained
distributionally robust optimization, 2013.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.optimize import minimize
from scipy.special import log_softmax, logsumexp
from scipy.stats import spearmanr

FloatArray = npt.NDArray[np.float64]

ATOMS = 50
"""Negatives that the solver distributes."""


def softened(scores: FloatArray, tau: float) -> FloatArray:
    """Return tau log E exp(f / tau) of scores [..., n], [...]; the part of SL that negatives have.

    Examples
    --------
    >>> softened(np.array([0.3, 0.3]), 0.1).round(12)
    np.float64(0.3)
    """
    n = scores.shape[-1]
    value: FloatArray = tau * (logsumexp(scores / tau, axis=-1) - np.log(n))
    return value


def expansion(scores: FloatArray, tau: float) -> FloatArray:
    """Return E f + Var f / (2 tau) of scores [..., n], [...]."""
    value: FloatArray = scores.mean(-1) + scores.var(-1) / (2 * tau)
    return value


def worst_case(scores: FloatArray, tau: float) -> FloatArray:
    """Return Q* of scores [..., n]: the distribution that SL weighs negatives by, [..., n]."""
    value: FloatArray = np.exp(log_softmax(scores / tau, axis=-1))
    return value


def divergence(q: FloatArray) -> FloatArray:
    """Return KL(Q) from the uniform distribution, q [..., n] -> [...].

    Examples
    --------
    >>> divergence(np.array([1.0, 0.0])).round(6), divergence(np.array([0.5, 0.5]))
    (np.float64(0.693147), np.float64(0.0))
    """
    logs = np.log(q * q.shape[-1], where=q > 0, out=np.zeros_like(q))
    value: FloatArray = (q * logs).sum(-1)
    return value


def effective_size(q: FloatArray) -> FloatArray:
    """Return the effective sample size of a distribution, 1 / sum q^2, [..., n] -> [...].

    Examples
    --------
    >>> effective_size(np.array([0.5, 0.5, 0.0, 0.0]))
    np.float64(2.0)
    """
    value: FloatArray = 1 / np.square(q).sum(-1)
    return value


def solve_penalised(scores: FloatArray, tau: float) -> float:
    """Return max_Q { E_Q f - tau KL(Q) } for scores [n], by a solver that knows no closed form."""
    return _maximum(scores, tau=tau)


def solve_constrained(scores: FloatArray, eta: float) -> float:
    """Return max { E_Q f : KL(Q) <= eta } for scores [n], by a solver that knows no closed form."""
    return _maximum(scores, eta=eta)


def _maximum(scores: FloatArray, tau: float = 0.0, eta: float | None = None) -> float:
    """Maximise E_Q f - tau KL(Q), perhaps within a ball, by sequential quadratic programming.

    From the uniform distribution, over logits and over Q itself, and twice again from the best so
    far: either loses its way now and then, the first near a corner of the simplex, the second
    along its edges. The largest value within the ball is the maximum found.
    """
    n = len(scores)
    best, start = float(scores.mean()), np.full(n, 1 / n)
    for _ in range(3):
        for solve in (_by_logits, _by_shares):
            found = _within(solve(scores, tau, eta, start), eta)
            value = float(found @ scores - tau * divergence(found))
            if value > best:
                best, start = value, found
    return best


def _within(q: FloatArray, eta: float | None) -> FloatArray:
    """Return q [n], drawn towards the uniform distribution as far as it lies outside the ball."""
    if eta is None or divergence(q) <= eta:
        return q
    inside, outside = 1.0, 0.0  # shares of the uniform distribution
    for _ in range(60):
        middle = (inside + outside) / 2
        mixed = (1 - middle) * q + middle / len(q)
        inside, outside = (middle, outside) if divergence(mixed) <= eta else (inside, middle)
    return (1 - inside) * q + inside / len(q)


def _by_logits(scores: FloatArray, tau: float, eta: float | None, start: FloatArray) -> FloatArray:
    """Solve over logits, which need neither bounds nor normalisation; return Q [n]."""
    log_n = np.log(len(scores))

    def at(logits: FloatArray) -> tuple[FloatArray, FloatArray]:
        logs = log_softmax(logits)
        return np.exp(logs), logs + log_n

    def loss(logits: FloatArray) -> float:
        q, ratios = at(logits)
        return -float(q @ (scores - tau * ratios))

    def loss_gradient(logits: FloatArray) -> FloatArray:
        q, ratios = at(logits)
        gain = scores - tau * ratios
        return -q * (gain - q @ gain)

    def room(logits: FloatArray) -> float:
        q, ratios = at(logits)
        return (eta or 0.0) - float(q @ ratios)

    def room_gradient(logits: FloatArray) -> FloatArray:
        q, ratios = at(logits)
        return -q * (ratios - q @ ratios)

    ball = {"type": "ineq", "fun": room, "jac": room_gradient}
    found = _programme(loss, loss_gradient, np.log(np.maximum(start, TINY)), [ball], eta)
    return at(found)[0]


def _by_shares(scores: FloatArray, tau: float, eta: float | None, start: FloatArray) -> FloatArray:
    """Solve over Q itself, a convex problem; return Q [n]."""
    n = len(scores)

    def ratios(q: FloatArray) -> FloatArray:
        logs: FloatArray = np.log(np.maximum(q, TINY) * n)
        return logs

    ball = {
        "type": "ineq",
        "fun": lambda q: (eta or 0.0) - q @ ratios(q),
        "jac": lambda q: -(ratios(q) + 1),
    }
    whole = {"type": "eq", "fun": lambda q: q.sum() - 1, "jac": lambda q: np.ones(n)}
    found = _programme(
        lambda q: -float(q @ (scores - tau * ratios(q))),
        lambda q: -(scores - tau * (ratios(q) + 1)),
        start,
        [whole, ball],
        eta,
        bounds=[(TINY, 1.0)] * n,
    )
    q: FloatArray = np.clip(found, 0, None) / np.clip(found, 0, None).sum()
    return q


TINY = 1e-12
"""The least share of an atom: its logarithm is finite."""


def _programme(
    loss: Any, gradient: Any, start: FloatArray, constraints: Any, eta: float | None, **more: Any
) -> FloatArray:
    """Run the solver; without a radius the ball, the last constraint, is left out."""
    solver: Any = minimize
    found = solver(
        loss,
        start,
        jac=gradient,
        method="SLSQP",
        constraints=constraints if eta is not None else constraints[:-1],
        options={"maxiter": 3000, "ftol": 1e-13},
        **more,
    )
    x: FloatArray = found.x
    return x


@dataclass(frozen=True)
class Check:
    """What the identities come to on the scores of some users at one temperature.

    Attributes
    ----------
    tau
        Temperature.
    penalised, constrained
        Largest difference between solver and closed form over the users, `ATOMS` negatives each.
    eta
        KL(Q*), mean over users, all negatives.
    exact, expanded
        tau log E exp(f / tau) and its expansion, means over users, all negatives.
    effective
        Effective sample size of Q* over the number of negatives, mean over users.
    """

    tau: float
    penalised: float
    constrained: float
    eta: float
    exact: float
    expanded: float
    effective: float

    @property
    def remainder(self) -> float:
        """What the expansion lacks."""
        return self.exact - self.expanded


def check(scores: FloatArray, tau: float, n_solved: int = 4) -> Check:
    """Check the identities on the scores of users against negatives [n_users, n], in any order.

    Solved are the first `n_solved` users with their first `ATOMS` negatives.
    """
    penalised, constrained = [], []
    for row in scores[:n_solved, :ATOMS]:
        closed = float(softened(row, tau))
        eta = float(divergence(worst_case(row, tau)))
        penalised.append(abs(solve_penalised(row, tau) - closed))
        constrained.append(abs(solve_constrained(row, eta) - (closed + tau * eta)))
    q = worst_case(scores, tau)
    return Check(
        tau,
        max(penalised),
        max(constrained),
        float(divergence(q).mean()),
        float(softened(scores, tau).mean()),
        float(expansion(scores, tau).mean()),
        float(effective_size(q).mean()) / scores.shape[1],
    )


def lawful_tau(share: float) -> float:
    """Return what the best temperature is proportional to at a share of false negatives.

    The clean distribution lies at KL -log(1 - s) from the sampler's, and tau* ~ sqrt(Var / (2 eta))
    with that eta: 1 / sqrt(-log(1 - s)), infinite where no negative is false.

    Examples
    --------
    >>> lawful_tau(0.0), round(lawful_tau(0.5), 4)
    (inf, 1.2011)
    """
    eta = -float(np.log1p(-share))
    return float("inf") if eta == 0 else eta**-0.5


def law_correlation(shares: Sequence[float], best: Sequence[float]) -> float:
    """Return Spearman's rank correlation of the best temperatures with `lawful_tau`.

    NaN for fewer than three levels, and where all best temperatures are the same.
    """
    if len(shares) < 3 or len(set(best)) < 2:
        return float("nan")
    # The law falls with s, so that its ranks are those of -s: no infinities to rank.
    return float(spearmanr([-share for share in shares], best).statistic)
