"""Each loss against plain Python loops in float64, its identities, gradients and extremes."""

import copy
import inspect
import math
import re
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from bslbench.errors import ConfigError
from bslbench.losses import (
    BSL,
    DCL,
    LOSSES,
    RCE,
    SL,
    SSM,
    Batch,
    BSLInBatch,
    BSLReweight,
    BSLScaled,
    Loss,
    Setup,
    SLShift,
    SogCLR,
)
from bslbench.losses.base import turned
from bslbench.losses.softmax import log_mean_exp_by
from tests.loops import LOOPS, MORE, Given

N_USERS, N_ITEMS, N_ROWS = 10, 12, 9
USERS = torch.tensor([4, 1, 4, 4, 0, 9, 1, 2, 3])
CASES = [(name, params, 0) for name, (_, params) in LOOPS.items()] + MORE
HELD = {"rce", "sogclr", "talos"}
"""Losses with a part that has no gradient: no difference quotient of theirs can agree."""


def setup_info() -> Setup:
    draws = torch.Generator().manual_seed(8)
    users = torch.randint(N_USERS, (40,), generator=draws)
    return Setup.of(users, torch.randint(N_ITEMS, (40,), generator=draws), N_USERS, N_ITEMS)


def make(name: str, **params: Any) -> Loss:
    """Return a loss with everything that it keeps filled with something, in float64."""
    loss = LOSSES[name](**params)
    if setup := getattr(loss, "setup", None):
        setup(setup_info())
    draws = torch.Generator().manual_seed(4)
    for kept in loss.double().state_dict().values():  # the tensors themselves
        if kept.is_floating_point():
            kept.copy_(torch.rand(kept.shape, generator=draws) * 0.6 + 0.2)
        else:
            kept.fill_(2)
    return loss


def scores(n_pos: int, n_neg: int = 7) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return scores pos [B, K] and neg [B, M], and rows of users and items [B, 3]."""
    draws = torch.Generator().manual_seed(5)
    shapes = (N_ROWS, n_pos), (N_ROWS, n_neg), (N_ROWS, 3), (N_ROWS, 3)
    pos, neg, users, items = (
        torch.rand(shape, generator=draws, dtype=torch.float64) * 2 - 1 for shape in shapes
    )
    return pos, neg, users, items


def ids(n_neg: int) -> tuple[Tensor, Tensor]:
    """Return the items [B] and the negatives [B, M] behind the scores."""
    draws = torch.Generator().manual_seed(6)
    items = torch.randint(N_ITEMS, (N_ROWS, 1 + n_neg), generator=draws)
    return items[:, 0], items[:, 1:]


def batch_of(
    pos: Tensor, neg: Tensor, user_rows: Tensor, item_rows: Tensor, epoch: int = 0
) -> Batch:
    n = len(pos)
    items, neg_items = (x[:n] for x in ids(neg.shape[1]))

    def products(rows: Tensor, table: Tensor) -> Tensor:
        return torch.einsum("br,bmr->bm", rows, table[neg_items])

    return Batch(
        USERS[:n],
        items,
        torch.tensor(epoch),
        torch.tensor(0),
        neg_items,
        user_rows,
        item_rows,
        torch.cat([pos[:, :1], neg], dim=1),
        products,
    )


def given(loss: Loss, inputs: tuple[Tensor, ...], epoch: int) -> Given:
    """Return what a loop is called with; call it before the loss, which may change its state."""
    pos, neg, user_rows, item_rows = (x.tolist() for x in inputs)
    items, neg_items = (x.tolist() for x in ids(inputs[1].shape[1]))
    info = setup_info()
    degrees = info.user_degrees.tolist(), info.item_degrees.tolist()
    state = {name: kept.tolist() for name, kept in loss.state_dict().items()}
    whole = Given(
        pos, neg, USERS.tolist(), items, neg_items, user_rows, item_rows, degrees, epoch, state
    )
    return replace(whole, held=copy.deepcopy(whole))


def test_every_loss_has_its_loop() -> None:
    assert set(LOOPS) == set(LOSSES)


@pytest.mark.parametrize(("name", "params", "epoch"), CASES)
@pytest.mark.parametrize("n_neg", [1, 7])
def test_equals_plain_loops(name: str, params: dict[str, Any], epoch: int, n_neg: int) -> None:
    loss = make(name, **params)
    inputs = scores(loss.n_pos, n_neg)
    expected = LOOPS[name][0](given(loss, inputs, epoch), **params)
    low = copy.deepcopy(loss).float()
    assert loss(*inputs[:2], batch_of(*inputs, epoch)).item() == pytest.approx(expected, rel=1e-6)
    single = tuple(x.float() for x in inputs)
    value = low(*single[:2], batch_of(*single, epoch))
    assert value.dtype == torch.float32
    assert value.item() == pytest.approx(expected, rel=1e-4, abs=1e-6)


@pytest.mark.parametrize(
    ("name", "params", "epoch"), [case for case in CASES if case[0] not in HELD]
)
def test_gradcheck(name: str, params: dict[str, Any], epoch: int) -> None:
    inputs = scores(LOSSES[name](**params).n_pos)
    for x in inputs:
        x.requires_grad_()

    def value(*inputs: Tensor) -> Tensor:
        fresh = make(name, **params)  # for what a call leaves behind
        used: Tensor = fresh(*inputs[:2], batch_of(*inputs, epoch))
        return used + 0 * sum(x.sum() for x in inputs)  # gradcheck wants to see all of them

    assert torch.autograd.gradcheck(value, inputs)


@pytest.mark.parametrize("name", sorted(HELD))
def test_gradients_where_something_is_held(name: str) -> None:
    loop, params = LOOPS[name]
    loss = make(name, **params)
    inputs = scores(loss.n_pos)
    x = given(loss, inputs, 0)
    pos, neg = (y.requires_grad_() for y in inputs[:2])
    loss(pos, neg, batch_of(*inputs)).backward()
    for side, tensor in (("pos", pos), ("neg", neg)):
        assert tensor.grad is not None
        for row, column in [(0, 0), (3, 0), (8, tensor.shape[1] - 1)]:
            slope = quotient(lambda moved: loop(moved, **params), x, side, row, column)
            assert tensor.grad[row, column].item() == pytest.approx(slope, rel=1e-5, abs=1e-9)


def quotient(f: Any, x: Given, field: str, row: int, column: int, step: float = 1e-6) -> float:
    """Return the central difference of f in one entry of a field of scores, all else held."""

    def at(by: float) -> float:
        moved = copy.deepcopy(getattr(x, field))
        moved[row][column] += by
        return float(f(replace(x, **{field: moved})))

    return (at(step) - at(-step)) / (2 * step)


ASCENDING = {("advinfonce", "user_hardness"), ("advinfonce", "item_hardness")}
ASCENDING |= {("llpauc", "s_pos"), ("llpauc", "gamma")}


@pytest.mark.parametrize("name", ["drrl", "mawu", "advinfonce", "bc", "talos", "llpauc"])
def test_what_a_loss_learns_itself_goes_downhill_or_up(name: str) -> None:
    loop, params = LOOPS[name]
    loss = make(name, **params)
    inputs = scores(loss.n_pos)
    x = given(loss, inputs, 0)
    loss(*inputs[:2], batch_of(*inputs)).backward()
    for parameter, tensor in loss.named_parameters():
        assert tensor.grad is not None, parameter
        sign = -1 if (name, parameter) in ASCENDING else 1
        flat = tensor.grad.flatten()
        for entry in {0, len(flat) // 2, len(flat) - 1}:
            slope = 0.0
            for by in (1e-6, -1e-6):
                moved = tensor.detach().clone()
                moved.view(-1)[entry] += by
                state = x.state | {parameter: moved.tolist()}
                slope += math.copysign(1, by) * loop(replace(x, state=state), **params) / 2e-6
            assert flat[entry].item() == pytest.approx(sign * slope, rel=1e-4, abs=1e-8)


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("sign", [1.0, -1.0])
@pytest.mark.parametrize("epoch", [0, 9])
def test_stays_finite_at_the_extremes_in_float32(name: str, sign: float, epoch: int) -> None:
    taus = {
        p: 0.01
        for p in inspect.signature(LOSSES[name].__init__).parameters
        if p.startswith("tau") and p != "tau_plus"
    }
    loss = LOSSES[name](**taus)
    if setup := getattr(loss, "setup", None):
        setup(setup_info())
    pos = torch.full((4, loss.n_pos), sign, requires_grad=True)
    neg = torch.full((4, 1), -sign, requires_grad=True)
    rows = torch.tensor([[1.0, 0.0]] * 4, requires_grad=True)
    value = loss(pos, neg, batch_of(pos, neg, rows, sign * rows, epoch))
    value.backward()
    assert value.isfinite()
    for tensor in (pos, neg, rows, *loss.parameters()):
        assert tensor.grad is None or tensor.grad.isfinite().all()


@pytest.mark.parametrize("name", [name for name, loss in LOSSES.items() if loss.order_free])
def test_order_free_losses_do_not_look_at_the_order(name: str) -> None:
    inputs = scores(LOSSES[name]().n_pos)
    order = torch.randperm(inputs[1].shape[1], generator=torch.Generator().manual_seed(1))
    drawn = batch_of(*inputs)
    assert drawn.neg_items is not None and drawn.negative_products is not None
    products = drawn.negative_products
    shuffled = replace(
        drawn,
        neg_items=drawn.neg_items[:, order],
        negative_products=lambda rows, table: products(rows, table)[:, order],
    )
    one = make(name)(*inputs[:2], drawn).item()
    two = make(name)(inputs[0], inputs[1][:, order], shuffled).item()
    assert one == pytest.approx(two, rel=1e-12)


def test_the_family_meets_softmax_loss() -> None:
    pos, neg, *rows = scores(1)
    expected = SL(tau=0.2)(pos, neg).item()
    batch = batch_of(pos, neg, *rows)
    apart = replace(batch, users=torch.arange(9))
    assert BSL(tau=0.2, tau_pos=0.7, n_pos=1)(pos, neg, batch).item() == pytest.approx(expected)
    assert BSLReweight(tau=0.2, rho=1.0)(pos, neg).item() == pytest.approx(expected)
    assert BSLInBatch(tau=0.2, rho=1.0)(pos, neg, apart).item() == pytest.approx(expected)
    scaled = BSLScaled(tau_pos=0.5, tau_neg=0.2)(pos, neg).item()
    assert scaled == pytest.approx(0.4 * expected)
    assert SLShift(tau=0.2, rho=1.0)(pos, neg).item() == pytest.approx(expected)


def test_a_shift_of_all_scores_moves_the_control_as_it_moves_rho() -> None:
    pos, neg, *_ = scores(1)
    for loss, moved in (
        (SL(tau=0.2), 0.0),
        (SLShift(0.2, 1.3), 0.45),
        (BSLReweight(0.2, 1.3), 0.45),
    ):
        by = loss(pos + 0.3, neg + 0.3) - loss(pos, neg)
        assert by.item() == pytest.approx(moved, abs=1e-6)


def test_relatives_meet_the_losses_they_start_from() -> None:
    pos, neg, *rows = scores(1)
    apart = replace(batch_of(pos, neg, *rows), users=torch.arange(9))
    ssm = SSM(tau=0.2)(pos, neg).item()
    assert DCL(tau=0.2, tau_plus=0.0)(pos, neg).item() == pytest.approx(ssm)
    bce = LOSSES["bce"](w=0.7)(pos, neg).item()
    assert RCE(alpha=0.0, w=0.7)(pos, neg).item() == pytest.approx(bce)
    assert LOSSES["tce"](drop=0.0, w=0.7)(pos, neg).item() == pytest.approx(bce)
    gradients = []
    for loss in (SogCLR(tau=0.2, gamma=1.0).double(), SL(tau=0.2)):
        if isinstance(loss, SogCLR):
            loss.setup(setup_info())
        leaf = neg.clone().requires_grad_()
        loss(pos, leaf, apart).backward()
        gradients.append(leaf.grad)
    torch.testing.assert_close(*gradients, rtol=1e-5, atol=0)


def test_pooling_ends_in_the_mean_and_the_maximum() -> None:
    pos, neg, *_ = scores(5)
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


def test_an_angle_grows_by_an_angle() -> None:
    cosine = torch.tensor([-0.9, 0.0, 0.7], dtype=torch.float64)
    expected = [math.cos(math.acos(c) + 0.3) for c in cosine.tolist()]
    assert turned(cosine, torch.full_like(cosine, 0.3)).tolist() == pytest.approx(expected)


@pytest.mark.parametrize(
    ("name", "params", "message"),
    [
        ("sl", {"tau": 0}, "tau must be above 0, not 0"),
        ("gbce", {"t": 1.1}, "t must be from 0 to 1, not 1.1"),
        ("tce", {"drop": -0.1}, "drop must be from 0 to 1"),
        ("tce", {"ramp": 0}, "ramp must be above 0"),
        ("rce", {"alpha": math.nan}, "alpha must be from 0 to inf, not nan"),
        ("hinge", {"margin": 0.0}, "margin must be above 0"),
        ("warp", {"margin": -1.0}, "margin must be above 0"),
        ("simce", {"margin": 0.0}, "margin must be above 0"),
        ("ccl", {"margin": 2.0}, "margin must be from -1 to 1"),
        ("ccl", {"w": 0.0}, "w must be above 0"),
        ("drrl", {"omega": 1.0}, "omega - 1 must be above 0"),
        ("drrl", {"w": 0.9}, "w must be from 1 to inf"),
        ("directau", {"gamma": 0.0}, "gamma must be above 0"),
        ("mawu", {"gamma_item": 0.0}, "gamma_item must be above 0"),
        ("full_softmax", {"tau": 0.0}, "tau must be above 0"),
        ("psl", {"tau": 0.0}, "tau must be above 0"),
        ("psl", {"surrogate": "tan"}, r"surrogate must be .*; did you mean 'tanh'"),
        ("sogclr", {"gamma": 1.1}, "gamma must be from 0 to 1"),
        ("dcl", {"tau_plus": 1.0}, "1 - tau_plus must be above 0"),
        ("dcl", {"tau_plus": -0.1}, "tau_plus must be from 0 to 1"),
        ("adap_tau", {"beta": 0.0}, "beta must be above 0"),
        ("advinfonce", {"adv_lr": 0.0}, "adv_lr must be above 0"),
        ("bc", {"w": 2.0}, "w must be from 0 to 1"),
        ("sl_at_k", {"top_k": 0}, "top_k must be above 0"),
        ("talos", {"quantile_lr": 0.0}, "quantile_lr must be above 0"),
        ("llpauc", {"alpha": 0.0}, "alpha must be above 0"),
        ("llpauc", {"beta": 1.5}, "beta must be from 0 to 1"),
    ],
)
def test_hyper_parameters_out_of_range_are_named(
    name: str, params: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        LOSSES[name](**params)


OURS = {"sl_shift"}
"""Losses of no paper."""
EQUATIONS = {"bce", "sl", "bsl"}
"""Losses whose equation is known."""


@pytest.mark.parametrize("name", LOSSES)
def test_the_docstring_ends_in_the_paper(name: str) -> None:
    loss = LOSSES[name]
    assert (inspect.getdoc(loss) or "").endswith(f"\n\nReferences\n----------\n{loss.source}")
    assert ("bslbench" in loss.source) == (name in OURS)
    assert bool(re.search(r"\b(19|20)\d\d\b", loss.source)) == (name not in OURS)
    assert ("Eq. " in loss.source) == (name in EQUATIONS)


@pytest.mark.parametrize("name", LOSSES)
def test_says_what_it_is(name: str) -> None:
    loss = LOSSES[name]
    assert loss.formula and loss.source
    assert loss.status in ("verified", "classic", "experimental")
    assert loss.evidence != Loss.evidence or loss.status == "experimental"
    assert set(loss.space) <= set(inspect.signature(loss.__init__).parameters)
    assert loss.needs <= {
        "negatives",
        "neg_items",
        "negative_products",
        "embeddings",
        "all_items",
    }
