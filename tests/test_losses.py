"""Each loss against plain Python loops in float64, its identities, gradients and extremes."""

import inspect
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from bslbench.errors import ConfigError
from bslbench.losses import BSL, LOSSES, SL, Batch, BSLInBatch, BSLReweight, BSLScaled
from bslbench.losses.softmax import log_mean_exp_by

Rows = list[list[float]]


def sigma(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def mean(values: list[float]) -> float:
    return sum(values) / len(values)


def mse(pos: Rows, neg: Rows, users: list[int], w: float) -> float:
    rows = [
        0.5 * (p[0] - 1) ** 2 + 0.5 * w * mean([x * x for x in n])
        for p, n in zip(pos, neg, strict=True)
    ]
    return mean(rows)


def bce(pos: Rows, neg: Rows, users: list[int], w: float) -> float:
    rows = [
        -math.log(sigma(p[0])) - w * mean([math.log(sigma(-x)) for x in n])
        for p, n in zip(pos, neg, strict=True)
    ]
    return mean(rows)


def bpr(pos: Rows, neg: Rows, users: list[int]) -> float:
    return mean(
        [-mean([math.log(sigma(p[0] - x)) for x in n]) for p, n in zip(pos, neg, strict=True)]
    )


def sl(pos: Rows, neg: Rows, users: list[int], tau: float) -> float:
    return bsl_reweight(pos, neg, users, tau, 1.0)


def ssm(pos: Rows, neg: Rows, users: list[int], tau: float) -> float:
    rows = []
    for p, n in zip(pos, neg, strict=True):
        top = math.exp(p[0] / tau)
        rows.append(-math.log(top / (top + sum(math.exp(x / tau) for x in n))))
    return mean(rows)


def bsl(
    pos: Rows, neg: Rows, users: list[int], tau: float, tau_pos: float, rho: float, n_pos: int
) -> float:
    rows = []
    for p, n in zip(pos, neg, strict=True):
        pooled = tau_pos * math.log(mean([math.exp(x / tau_pos) for x in p]))
        pushed = tau * math.log(mean([math.exp(x / tau) for x in n]))
        rows.append((rho * pushed - pooled) / tau)
    return mean(rows)


def bsl_reweight(pos: Rows, neg: Rows, users: list[int], tau: float, rho: float) -> float:
    rows = [
        -p[0] / tau + rho * math.log(mean([math.exp(x / tau) for x in n]))
        for p, n in zip(pos, neg, strict=True)
    ]
    return mean(rows)


def bsl_inbatch(pos: Rows, neg: Rows, users: list[int], tau: float, rho: float) -> float:
    rows = []
    for user, n in zip(users, neg, strict=True):
        mine = [math.exp(p[0] / tau) for p, other in zip(pos, users, strict=True) if other == user]
        rows.append(-math.log(mean(mine)) + rho * math.log(mean([math.exp(x / tau) for x in n])))
    return mean(rows)


def bsl_scaled(pos: Rows, neg: Rows, users: list[int], tau_pos: float, tau_neg: float) -> float:
    return tau_neg / tau_pos * bsl_reweight(pos, neg, users, tau_neg, 1.0)


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
}


def batch_of(users: Tensor) -> Batch:
    zero = torch.tensor(0)
    return Batch(users, torch.arange(len(users)), zero, zero)


def scores(n_pos: int, n_neg: int = 7, dtype: torch.dtype = torch.float64) -> tuple[Any, ...]:
    draws = torch.Generator().manual_seed(5)
    pos = torch.rand(9, n_pos, generator=draws, dtype=dtype) * 2 - 1
    neg = torch.rand(9, n_neg, generator=draws, dtype=dtype) * 2 - 1
    return pos, neg, torch.tensor([4, 1, 4, 4, 0, 9, 1, 2, 3])


def test_every_loss_has_its_loop() -> None:
    assert set(LOOPS) == set(LOSSES)


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("n_neg", [1, 7])
def test_equals_plain_loops(name: str, n_neg: int) -> None:
    loop, params = LOOPS[name]
    loss = LOSSES[name](**params)
    pos, neg, users = scores(loss.n_pos, n_neg)
    expected = loop(pos.tolist(), neg.tolist(), users.tolist(), **params)
    assert loss(pos, neg, batch_of(users)).item() == pytest.approx(expected, rel=1e-6)
    low = loss(pos.float(), neg.float(), batch_of(users))
    assert low.dtype == torch.float32
    assert low.item() == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("name", LOSSES)
def test_gradcheck(name: str) -> None:
    loss = LOSSES[name](**LOOPS[name][1])
    pos, neg, users = scores(loss.n_pos)
    pos.requires_grad_()
    neg.requires_grad_()
    assert torch.autograd.gradcheck(lambda p, n: loss(p, n, batch_of(users)), (pos, neg))


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_stays_finite_at_the_extremes_in_float32(name: str, sign: float) -> None:
    taus = {p: 0.01 for p in inspect.signature(LOSSES[name].__init__).parameters if "tau" in p}
    loss = LOSSES[name](**taus)
    pos = torch.full((4, loss.n_pos), sign, requires_grad=True)
    neg = torch.full((4, 1), -sign, requires_grad=True)
    value = loss(pos, neg, batch_of(torch.tensor([0, 0, 1, 2])))
    value.backward()
    assert value.isfinite()
    assert pos.grad is not None and pos.grad.isfinite().all()
    assert neg.grad is not None and neg.grad.isfinite().all()


@pytest.mark.parametrize("name", [name for name, loss in LOSSES.items() if loss.order_free])
def test_order_free_losses_do_not_look_at_the_order(name: str) -> None:
    loss = LOSSES[name]()
    pos, neg, users = scores(loss.n_pos)
    shuffled = neg[:, torch.randperm(neg.shape[1], generator=torch.Generator().manual_seed(1))]
    one, two = (loss(pos, n, batch_of(users)).item() for n in (neg, shuffled))
    assert one == pytest.approx(two, rel=1e-12)


def test_the_family_meets_softmax_loss() -> None:
    pos, neg, users = scores(1)
    expected = SL(tau=0.2)(pos, neg).item()
    batch = batch_of(users)
    apart = batch_of(torch.arange(9))
    assert BSL(tau=0.2, tau_pos=0.7, n_pos=1)(pos, neg, batch).item() == pytest.approx(expected)
    assert BSLReweight(tau=0.2, rho=1.0)(pos, neg).item() == pytest.approx(expected)
    assert BSLInBatch(tau=0.2, rho=1.0)(pos, neg, apart).item() == pytest.approx(expected)
    scaled = BSLScaled(tau_pos=0.5, tau_neg=0.2)(pos, neg).item()
    assert scaled == pytest.approx(0.4 * expected)


def test_pooling_ends_in_the_mean_and_the_maximum() -> None:
    pos, neg, _ = scores(5)
    means, tops = pos.mean(1, keepdim=True), pos.max(1, keepdim=True).values
    hot = BSL(tau=0.2, tau_pos=1e5, n_pos=5)(pos, neg).item()
    assert hot == pytest.approx(SL(tau=0.2)(means, neg).item(), abs=1e-4)
    cold = BSL(tau=0.2, tau_pos=1e-4, n_pos=5)(pos, neg).item()
    assert cold == pytest.approx(SL(tau=0.2)(tops, neg).item(), abs=1e-2)


def test_large_temperature_leaves_mean_and_variance() -> None:
    f = torch.linspace(-0.2, 0.4, 100_001, dtype=torch.float64)[None]
    for tau, exact, expansion in [
        (0.08, 0.23876, 0.28750),
        (0.11, 0.21292, 0.23636),
        (0.30, 0.14843, 0.15000),
    ]:
        value = tau * SL(tau=tau)(torch.zeros(1, 1, dtype=torch.float64), f).item()
        assert value == pytest.approx(exact, abs=1e-5)
        second = (f.mean() + f.var(correction=0) / (2 * tau)).item()
        assert second == pytest.approx(expansion, abs=1e-5)


def test_groups_far_apart_in_scale_do_not_underflow() -> None:
    groups = torch.tensor([1, 2, 1])
    value = log_mean_exp_by(groups, torch.tensor([-300.0, 300.0, -300.0]))
    torch.testing.assert_close(value, torch.tensor([-300.0, 300.0, -300.0]))


def test_a_temperature_must_be_positive() -> None:
    with pytest.raises(ConfigError, match="tau must be above 0, not 0"):
        SL(tau=0)


@pytest.mark.parametrize("name", LOSSES)
def test_says_what_it_is(name: str) -> None:
    assert LOSSES[name].formula and LOSSES[name].source
    assert set(LOSSES[name].space) <= set(inspect.signature(LOSSES[name].__init__).parameters)
