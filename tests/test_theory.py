"""The theory's identities: on numbers worked by hand, and on trained models."""

from typing import Any

import numpy as np
import pytest
import torch
from torch.nn.functional import normalize

from bslbench import theory
from bslbench.backbones import BACKBONES
from bslbench.config import TrainSettings
from bslbench.losses import SL
from bslbench.training import train
from tests.fixtures import tiny

UNIFORM = np.linspace(-0.2, 0.4, 1_000_001)


@pytest.mark.parametrize(
    ("tau", "exact", "expanded"),
    [(0.08, 0.23876, 0.28750), (0.11, 0.21292, 0.23636), (0.30, 0.14843, 0.15000)],
)
def test_the_expansion_on_a_uniform_distribution(tau: float, exact: float, expanded: float) -> None:
    assert theory.softened(UNIFORM, tau) == pytest.approx(exact, abs=1e-5)
    assert theory.expansion(UNIFORM, tau) == pytest.approx(expanded, abs=1e-5)


def test_the_remainder_vanishes_faster_than_the_expansion() -> None:
    """Skewness over 6 tau^2 leads it: ten times the temperature, a hundredth of the remainder."""
    scores = np.array([0.0, 0.0, 0.0, 1.0])
    third = ((scores - scores.mean()) ** 3).mean()
    for tau in (10.0, 100.0):
        remainder = theory.softened(scores, tau) - theory.expansion(scores, tau)
        assert remainder * 6 * tau**2 / third == pytest.approx(1, rel=0.2 / tau)


def test_softened_is_what_the_loss_has_of_its_negatives() -> None:
    neg = torch.rand(5, 40, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    loss = SL(tau=0.2)(torch.zeros(5, 1, dtype=torch.float64), neg).item()
    assert theory.softened(neg.numpy(), 0.2).mean() / 0.2 == pytest.approx(loss, abs=1e-12)


def test_the_worst_case_is_the_gradient_of_the_loss() -> None:
    neg = torch.rand(1, 40, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    neg.requires_grad_()
    (0.2 * SL(tau=0.2)(torch.zeros(1, 1, dtype=torch.float64), neg)).backward()
    assert neg.grad is not None
    q = theory.worst_case(neg.detach().numpy(), 0.2)
    np.testing.assert_allclose(neg.grad.numpy(), q, atol=1e-12)
    assert theory.effective_size(q)[0] == pytest.approx(1 / (q**2).sum(), abs=1e-12)


def test_two_atoms_by_hand() -> None:
    """Of two atoms the ball's worst case puts q on the better one, with KL(q) = eta."""
    scores, q = np.array([0.2, 0.6]), 0.8
    eta = q * np.log(2 * q) + (1 - q) * np.log(2 * (1 - q))
    assert theory.solve_constrained(scores, eta) == pytest.approx(0.2 + 0.4 * q, abs=1e-7)
    # Q* puts 0.8 there at tau = 0.4 / log 4.
    tau = 0.4 / np.log(4)
    assert theory.worst_case(scores, tau)[1] == pytest.approx(q, abs=1e-12)
    assert theory.solve_penalised(scores, tau) == pytest.approx(0.2 + 0.4 * q - tau * eta, abs=1e-7)


def test_the_ball_is_what_holds_the_worst_case() -> None:
    scores = np.linspace(-1, 1, 20)
    values = [theory.solve_constrained(scores, eta) for eta in (0.0, 0.1, 0.5, 10.0)]
    assert values == sorted(values)
    assert values[0] == pytest.approx(0, abs=1e-6)  # no room: the mean
    assert values[3] == pytest.approx(1, abs=1e-5)  # all of it: the maximum


@pytest.mark.parametrize(
    "row",
    [
        np.r_[np.linspace(-0.25, 0.15, 49), 0.6],  # one that stands out, as trained models have it
        np.r_[np.zeros(48), 0.5, 0.5],  # two that are equal
        np.r_[np.full(49, -0.2), 0.9],
        np.sin(np.arange(50.0)) / 3,
    ],
)
@pytest.mark.parametrize("tau", [0.05, 0.1])
def test_the_solver_finds_its_way_to_the_corners(row: Any, tau: float) -> None:
    closed = float(theory.softened(row, tau))
    eta = float(theory.divergence(theory.worst_case(row, tau)))
    for found, expected in (
        (theory.solve_penalised(row, tau), closed),
        (theory.solve_constrained(row, eta), closed + tau * eta),
    ):
        assert expected - 1e-7 < found < expected + 1e-12  # never above what is possible


@pytest.mark.parametrize("backbone", ["mf", "lightgcn"])
def test_both_dualities_hold_on_trained_models(backbone: str) -> None:
    data = tiny()
    settings = TrainSettings(epochs=30, batch_size=64, n_negatives=20, dim=8, lr=0.05)
    model = BACKBONES[backbone](data, 8, torch.Generator().manual_seed(0))
    train(settings, data, model, SL(tau=0.1), seed=0, evaluate=lambda _: (0.0, 0.0))
    users, items = (normalize(table.detach()).double().numpy() for table in model.tables())
    scores = users @ items.T
    assert scores.std() > 0.2  # it has learnt, so that the worst cases are far from uniform
    for tau in (0.05, 0.1, 0.2, 0.5):
        found = theory.check(scores, tau, 2)
        assert found.penalised < 1e-5
        assert found.constrained < 1e-5
        assert found.remainder == found.exact - found.expanded


def test_lower_temperatures_look_at_fewer_negatives() -> None:
    scores = np.random.default_rng(0).normal(0, 0.2, (3, 500))
    checks = [theory.check(scores, tau, 1) for tau in (0.05, 0.1, 0.5)]
    assert [c.effective for c in checks] == sorted(c.effective for c in checks)
    assert [c.eta for c in checks] == sorted((c.eta for c in checks), reverse=True)
    assert 0 < checks[0].effective < checks[2].effective < 1


@pytest.mark.parametrize(
    ("best", "correlation"),
    [([0.3, 0.2, 0.1], 1.0), ([0.1, 0.2, 0.3], -1.0), ([0.2, 0.1, 0.3], -0.5)],
)
def test_the_temperature_law_can_fail(best: Any, correlation: float) -> None:
    assert theory.law_correlation([0.0, 0.1, 0.4], best) == pytest.approx(correlation)


def test_no_law_without_levels_or_a_difference() -> None:
    assert np.isnan(theory.law_correlation([0.0, 0.1], [0.2, 0.1]))
    assert np.isnan(theory.law_correlation([0.0, 0.1, 0.4], [0.1, 0.1, 0.1]))


def test_the_law_is_one_over_the_root_of_the_divergence() -> None:
    assert theory.lawful_tau(1 - np.exp(-4)) == pytest.approx(0.5)
