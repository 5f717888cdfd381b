"""Every loss in plain Python, a number at a time: what `tests/test_losses.py` holds ours to.

What has no gradient is read from `held`: the same values, but a difference quotient leaves them.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

Rows = list[list[float]]


@dataclass(frozen=True)
class Given:
    """What a loss is called with, as lists: scores, ids, embeddings, its own state, held copies.

    `state` is the loss's `state_dict` before the call; `degrees` are those of users and items.
    """

    pos: Rows
    neg: Rows
    users: list[int]
    items: list[int]
    neg_items: list[list[int]]
    user_rows: Rows
    item_rows: Rows
    degrees: tuple[list[int], list[int]]
    epoch: int
    state: dict[str, Any]
    held: "Given | None" = None

    @property
    def n_items(self) -> int:
        return len(self.degrees[1])

    def pairs(self) -> list[tuple[float, list[float]]]:
        """Return of each row its own item's score and those of its negatives."""
        return [(p[0], n) for p, n in zip(self.pos, self.neg, strict=True)]

    def still(self) -> "Given":
        return self.held or self


def sigma(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def mean(values: list[float]) -> float:
    return sum(values) / len(values)


def dot(x: list[float], y: list[float]) -> float:
    return sum(a * b for a, b in zip(x, y, strict=True))


def unit(x: list[float]) -> list[float]:
    return [a / math.sqrt(dot(x, x)) for a in x]


def mse(x: Given, w: float) -> float:
    return mean([0.5 * (p - 1) ** 2 + 0.5 * w * mean([y * y for y in n]) for p, n in x.pairs()])


def bce(x: Given, w: float) -> float:
    return mean(
        [-math.log(sigma(p)) - w * mean([math.log(sigma(-y)) for y in n]) for p, n in x.pairs()]
    )


def gbce(x: Given, t: float) -> float:
    alpha = len(x.neg[0]) / (x.n_items - 1)
    beta = alpha * (t * (1 - 1 / alpha) + 1 / alpha)
    rows = [
        math.log(sigma(p) ** beta) + sum(math.log(1 - sigma(y)) for y in n) for p, n in x.pairs()
    ]
    return -mean(rows) / (len(x.neg[0]) + 1)


def tce(x: Given, drop: float, ramp: int, w: float) -> float:
    share = drop * min(1, x.state["steps"] / ramp)
    losses = [-math.log(sigma(p)) for p, _ in x.pairs()]
    kept = sorted(losses)[: math.floor((1 - share) * len(losses))]
    pushed = [-mean([math.log(sigma(-y)) for y in n]) for _, n in x.pairs()]
    return sum(kept) / len(losses) + w * mean(pushed)


def rce(x: Given, alpha: float, w: float) -> float:
    rows = []
    for (p, n), (q, m) in zip(x.pairs(), x.still().pairs(), strict=True):
        pushed = [sigma(-z) ** alpha * math.log(sigma(-y)) for y, z in zip(n, m, strict=True)]
        rows.append(-(sigma(q) ** alpha) * math.log(sigma(p)) - w * mean(pushed))
    return mean(rows)


def bpr(x: Given) -> float:
    return mean([-mean([math.log(sigma(p - y)) for y in n]) for p, n in x.pairs()])


def hinge(x: Given, margin: float) -> float:
    return mean([mean([max(0.0, margin - p + y) for y in n]) for p, n in x.pairs()])


def warp(x: Given, margin: float) -> float:
    rows = []
    for p, n in x.pairs():
        violating = [(trial, y) for trial, y in enumerate(n, 1) if margin - p + y > 0]
        if violating:
            trial, y = violating[0]
            rank = max(1, (x.n_items - 1) // trial)
            rows.append(sum(1 / i for i in range(1, rank + 1)) * (margin - p + y))
        else:
            rows.append(0.0)
    return mean(rows)


def simce(x: Given, margin: float) -> float:
    return mean([max(0.0, margin - p + max(n)) for p, n in x.pairs()])


def ccl(x: Given, margin: float, w: float) -> float:
    return mean(
        [max(0.0, 1 - p) + w * mean([max(0.0, y - margin) for y in n]) for p, n in x.pairs()]
    )


def drrl(x: Given, w: float, omega: float, margin: float, margin_lr: float) -> float:
    k = omega / (omega - 1)
    rows = []
    for user, (p, n) in zip(x.users, x.pairs(), strict=True):
        m = x.state["margins"][user][0]
        moment = mean([max(0.0, y - m) ** k for y in n]) ** (1 / k)
        rows.append(max(0.0, 1 - p) + m + w * moment)
    return mean(rows)


def sl(x: Given, tau: float) -> float:
    return bsl_reweight(x, tau, 1.0)


def ssm(x: Given, tau: float) -> float:
    rows = []
    for p, n in x.pairs():
        top = math.exp(p / tau)
        rows.append(-math.log(top / (top + sum(math.exp(y / tau) for y in n))))
    return mean(rows)


def full_softmax(x: Given, tau: float) -> float:
    """All items are here the row's own and its negatives."""
    return ssm(x, tau)


def bsl(x: Given, tau: float, tau_pos: float, rho: float, n_pos: int) -> float:
    rows = []
    for p, n in zip(x.pos, x.neg, strict=True):
        pooled = tau_pos * math.log(mean([math.exp(y / tau_pos) for y in p]))
        pushed = tau * math.log(mean([math.exp(y / tau) for y in n]))
        rows.append((rho * pushed - pooled) / tau)
    return mean(rows)


def bsl_reweight(x: Given, tau: float, rho: float) -> float:
    return mean(
        [-p / tau + rho * math.log(mean([math.exp(y / tau) for y in n])) for p, n in x.pairs()]
    )


def sl_shift(x: Given, tau: float, rho: float) -> float:
    return mean(
        [
            -p / tau + math.log(mean([math.exp(y / tau) for y in n])) + (rho - 1) * mean(n) / tau
            for p, n in x.pairs()
        ]
    )


def bsl_inbatch(x: Given, tau: float, rho: float) -> float:
    rows = []
    for user, n in zip(x.users, x.neg, strict=True):
        mine = [
            math.exp(p[0] / tau) for p, other in zip(x.pos, x.users, strict=True) if other == user
        ]
        rows.append(-math.log(mean(mine)) + rho * math.log(mean([math.exp(y / tau) for y in n])))
    return mean(rows)


def bsl_scaled(x: Given, tau_pos: float, tau_neg: float) -> float:
    return tau_neg / tau_pos * bsl_reweight(x, tau_neg, 1.0)


SURROGATES: dict[str, Callable[[float], float]] = {
    "tanh": lambda d: 1 + math.tanh(d),
    "atan": lambda d: 1 + math.atan(d),
    "relu": lambda d: max(0.0, 1 + d),
}


def psl(x: Given, tau: float, surrogate: str) -> float:
    s = SURROGATES[surrogate]
    rows = [math.log(sum(s((y - p) / 2) ** (1 / tau) for y in n)) for p, n in x.pairs()]
    return mean(rows)


def sogclr(x: Given, tau: float, gamma: float) -> float:
    still = x.still()
    rows = []
    for user, (p, n) in zip(x.users, x.pairs(), strict=True):
        mine = [
            mean([math.exp(y / tau) for y in m])
            for other, m in zip(still.users, still.neg, strict=True)
            if other == user
        ]
        average = (1 - gamma) * math.exp(still.state["log_averages"][user]) + gamma * mean(mine)
        rows.append(-p / tau + mean([math.exp(y / tau) for y in n]) / average)
    return mean(rows)


def dcl(x: Given, tau: float, tau_plus: float) -> float:
    rows = []
    for p, n in x.pairs():
        top = math.exp(p / tau)
        g = (mean([math.exp(y / tau) for y in n]) - tau_plus * top) / (1 - tau_plus)
        rows.append(-math.log(top / (top + len(n) * max(g, math.exp(-1 / tau)))))
    return mean(rows)


def adap_tau(x: Given, beta: float, warmup: int) -> float:
    rows = []
    for user, (p, n) in zip(x.users, x.pairs(), strict=True):
        w = x.state["inverse_tau"][user]
        rows.append(-x.state["base"] * p + math.log(mean([math.exp(w * y) for y in n])))
    return mean(rows)


def advinfonce(
    x: Given, tau: float, neg_weight: float, adv_lr: float, adv_every: int, adv_epochs: int
) -> float:
    rows = []
    for user, ids, (p, n) in zip(x.users, x.neg_items, x.pairs(), strict=True):
        mine = x.state["user_hardness"][user]
        hard = [math.exp(dot(mine, x.state["item_hardness"][item])) for item in ids]
        top = math.exp(p / tau)
        below = sum(h / sum(hard) * math.exp(y / tau) for h, y in zip(hard, n, strict=True))
        rows.append(-math.log(top / (top + neg_weight * len(n) * below)))
    return mean(rows)


def bc(x: Given, tau: float, tau_pop: float, w: float, warmup: int) -> float:
    groups = [sorted(set(degrees)) for degrees in x.degrees]

    def popularity(user: int, item: int, still: bool) -> tuple[list[float], list[float]]:
        state = x.still().state if still else x.state
        (users, items), (of_user, of_item) = x.degrees, groups
        return (
            state["user_table"][of_user.index(users[user])],
            state["item_table"][of_item.index(items[item])],
        )

    rows = []
    for user, item, ids, (p, n) in zip(x.users, x.items, x.neg_items, x.pairs(), strict=True):
        if x.epoch < warmup:
            mine, theirs = popularity(user, item, still=False)
            top = math.exp(dot(unit(mine), unit(theirs)) / tau_pop)
            others = [unit(popularity(user, j, still=False)[1]) for j in ids]
            below = sum(math.exp(dot(unit(mine), other) / tau_pop) for other in others)
            rows.append(-w * math.log(top / (top + below)))
        else:
            margin = 1 - sigma(dot(*popularity(user, item, still=True)))
            top = math.exp(math.cos(math.acos(p) + margin) / tau)
            below = sum(math.exp(y / tau) for y in n)
            rows.append(-(1 - w) * math.log(top / (top + below)))
    return mean(rows)


def uniformity(rows: Rows) -> float:
    apart = [
        math.exp(-2 * sum((a - b) ** 2 for a, b in zip(rows[i], rows[j], strict=True)))
        for i in range(len(rows))
        for j in range(i)
    ]
    return math.log(mean(apart))


def directau(x: Given, gamma: float) -> float:
    users, items = [unit(row) for row in x.user_rows], [unit(row) for row in x.item_rows]
    apart = [
        sum((a - b) ** 2 for a, b in zip(u, i, strict=True))
        for u, i in zip(users, items, strict=True)
    ]
    return mean(apart) + gamma / 2 * (uniformity(users) + uniformity(items))


def mawu(x: Given, gamma_user: float, gamma_item: float) -> float:
    users, items = [unit(row) for row in x.user_rows], [unit(row) for row in x.item_rows]
    aligned = []
    for user, item, u, i in zip(x.users, x.items, users, items, strict=True):
        both = x.state["user_margins"][user][0] + x.state["item_margins"][item][0]
        aligned.append(math.cos(min(math.acos(dot(u, i)) + 1 - sigma(both), math.pi)))
    return -mean(aligned) + gamma_user * uniformity(users) + gamma_item * uniformity(items)


def sl_at_k(x: Given, tau: float, tau_w: float, top_k: int, every: int) -> float:
    rows = []
    for user, (p, n) in zip(x.users, x.pairs(), strict=True):
        weight = sigma((p - x.state["thresholds"][user]) / tau_w)
        rows.append(weight * math.log(sum(math.exp((y - p) / tau) for y in n)))
    return mean(rows)


def talos(x: Given, tau: float, top_k: int, quantile_lr: float) -> float:
    still, t = x.still(), top_k / x.n_items
    rows = []
    for i, (user, (p, n)) in enumerate(zip(x.users, x.pairs(), strict=True)):
        fixed, b = still.state["thresholds"][user][0], x.state["thresholds"][user][0]
        below = sum(sigma(y - fixed) ** (1 / tau) for y in n)
        row = -math.log(sigma(p - fixed) ** (1 / tau) / below)
        gaps = [y - b for y in still.neg[i]]
        rows.append(row + mean([(1 - t) * max(g, 0.0) + t * max(-g, 0.0) for g in gaps]))
    return mean(rows)


def llpauc(x: Given, alpha: float, beta: float) -> float:
    a, b, s_pos, s_neg, gamma, theta_a, theta_b = (
        x.state[name][0] for name in ("a", "b", "s_pos", "s_neg", "gamma", "theta_a", "theta_b")
    )

    def r(y: float) -> float:
        return math.log(1 + math.exp(5 * y)) / 5

    best, worst = [], []
    for p, n in x.pairs():
        s = sigma(p)
        best.append(r(-((s - a) ** 2) + 2 * (1 + gamma) * s - s_pos))
        worst += [r((s - b) ** 2 + 2 * (1 + gamma) * s - s_neg) for s in map(sigma, n)]
    game = -s_pos - mean(best) / alpha + s_neg + mean(worst) / beta - gamma**2
    return game + theta_a * (a + gamma) + theta_b * (gamma + 1 - b)


LOOPS: dict[str, tuple[Callable[..., float], dict[str, Any]]] = {
    "mse": (mse, {"w": 2.5}),
    "bce": (bce, {"w": 0.4}),
    "bpr": (bpr, {}),
    "sl": (sl, {"tau": 0.13}),
    "ssm": (ssm, {"tau": 0.13}),
    "bsl": (bsl, {"tau": 0.13, "tau_pos": 0.3, "rho": 1.1, "n_pos": 4}),
    "bsl_reweight": (bsl_reweight, {"tau": 0.2, "rho": 0.8}),
    "bsl_inbatch": (bsl_inbatch, {"tau": 0.15, "rho": 1.2}),
    "bsl_scaled": (bsl_scaled, {"tau_pos": 0.1, "tau_neg": 0.2}),
    "sl_shift": (sl_shift, {"tau": 0.2, "rho": 1.3}),
    "gbce": (gbce, {"t": 0.6}),
    "tce": (tce, {"drop": 0.8, "ramp": 4, "w": 0.7}),
    "rce": (rce, {"alpha": 0.3, "w": 0.7}),
    "hinge": (hinge, {"margin": 0.7}),
    "warp": (warp, {"margin": 0.3}),
    "simce": (simce, {"margin": 0.4}),
    "ccl": (ccl, {"margin": 0.2, "w": 12.0}),
    "drrl": (drrl, {"w": 3.0, "omega": 1.7, "margin": 0.1, "margin_lr": 1e-3}),
    "directau": (directau, {"gamma": 0.6}),
    "mawu": (mawu, {"gamma_user": 0.9, "gamma_item": 0.4}),
    "full_softmax": (full_softmax, {"tau": 0.17}),
    "psl": (psl, {"tau": 0.2, "surrogate": "tanh"}),
    "sogclr": (sogclr, {"tau": 0.3, "gamma": 0.6}),
    "dcl": (dcl, {"tau": 0.3, "tau_plus": 0.2}),
    "adap_tau": (adap_tau, {"beta": 0.8, "warmup": 3}),
    "advinfonce": (
        advinfonce,
        {"tau": 0.2, "neg_weight": 5.0, "adv_lr": 1e-4, "adv_every": 1, "adv_epochs": 1},
    ),
    "bc": (bc, {"tau": 0.2, "tau_pop": 0.3, "w": 0.3, "warmup": 1}),
    "sl_at_k": (sl_at_k, {"tau": 0.2, "tau_w": 0.7, "top_k": 3, "every": 2}),
    "talos": (talos, {"tau": 0.2, "top_k": 3, "quantile_lr": 1e-3}),
    "llpauc": (llpauc, {"alpha": 0.6, "beta": 0.2}),
}
"""By name: the loop, and hyper-parameters to test it at."""

MORE: list[tuple[str, dict[str, Any], int]] = [
    ("tce", {"drop": 0.4, "ramp": 1, "w": 1.0}, 0),
    ("psl", {"tau": 0.2, "surrogate": "atan"}, 0),
    ("psl", {"tau": 0.2, "surrogate": "relu"}, 0),
    ("dcl", {"tau": 0.3, "tau_plus": 0.0}, 0),
    ("bc", LOOPS["bc"][1], 1),
    ("drrl", {"w": 2.0, "omega": 150.0, "margin": 0.1, "margin_lr": 1e-3}, 0),
]
"""Further cases: name, hyper-parameters, epoch."""
