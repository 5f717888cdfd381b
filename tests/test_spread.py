"""The spread of scores and of the gradient's weights, against the long way round."""

import csv
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn.functional import normalize

from bslbench.backbones import MF
from bslbench.config import TrainSettings
from bslbench.evaluation.spread import METRICS, N_NEGATIVES, N_PAIRS, Probe, pressure
from bslbench.losses import BPR, BSL, LOSSES, MSE, SL, Batch, BSLInBatch, Loss
from bslbench.losses.base import as_loss
from bslbench.training import train
from tests.fixtures import tiny
from tests.test_engine import grid, run
from tests.user_losses import DirectAU


def batch(n_rows: int) -> Batch:
    ids = torch.arange(n_rows)
    return Batch(ids, ids, torch.tensor(0), torch.tensor(0))


def scores(n_rows: int = 7, n_neg: int = 11) -> tuple[Tensor, Tensor]:
    draws = torch.Generator().manual_seed(1)
    return torch.rand(n_rows, 1, generator=draws), torch.rand(n_rows, n_neg, generator=draws) - 0.4


def model(dim: int = 8) -> MF:
    return MF(tiny(), dim, torch.Generator().manual_seed(0))


@pytest.mark.parametrize(("score", "scale"), [("cosine", None), ("inner", 1.0), ("cosine", 7.0)])
def test_means_and_variances_are_those_of_the_sample(score: Any, scale: float | None) -> None:
    data, loss = tiny(), BSL(n_pos=3)
    settings = TrainSettings(score_train=score, scale=scale)
    probe, backbone = Probe(settings, data, loss, 4), model()
    found = probe(backbone, 2)
    assert (len(probe.users), len(probe.negatives)) == (N_PAIRS, N_NEGATIVES)
    assert probe.positives.shape == (N_PAIRS, 3)
    train_pairs = data.train.toarray().astype(bool)
    assert train_pairs[probe.users[:, None], probe.positives].all()
    users, items = (table.detach() for table in backbone.tables())
    if score == "cosine":
        users, items = normalize(users), normalize(items)
    all_scores = ((users @ items.T) * (scale or 1)).double().numpy()
    pos = all_scores[probe.users, probe.positives[:, 0]]
    neg = all_scores[probe.users][:, probe.negatives]
    assert found["pos_mean"] == pytest.approx(pos.mean(), abs=1e-6)
    assert found["pos_var"] == pytest.approx(pos.var(), rel=1e-5)
    assert found["neg_mean"] == pytest.approx(neg.mean(), abs=1e-6)
    assert found["neg_var"] == pytest.approx(neg.var(axis=1).mean(), rel=1e-5)
    assert found["gap"] == found["pos_mean"] - found["neg_mean"]
    assert set(found) == set(METRICS)


def test_pairs_are_train_pairs_drawn_alike() -> None:
    probe = Probe(TrainSettings(), tiny(), SL(), 0)
    pairs = probe.users * 90 + probe.positives[:, 0]
    counts = pairs.unique(return_counts=True)[1]
    assert len(counts) > 220  # of 240, 1,000 draws miss 4 on average
    assert counts.max() < 15
    other = Probe(TrainSettings(), tiny(), SL(), 1)
    assert not torch.equal(probe.users, other.users)
    assert torch.equal(probe.users, Probe(TrainSettings(), tiny(), BPR(), 0).users)


def test_softmax_weighs_by_the_worst_case_distribution() -> None:
    pos, neg = scores()
    found = pressure(SL(tau=0.2), pos, neg, batch(7))
    q = (neg.double() / 0.2).softmax(1).numpy()
    assert found is not None
    assert found["weight_ess"] == pytest.approx((1 / (q**2).sum(1) / 11).mean(), rel=1e-6)
    assert found["weight_var"] == pytest.approx((11 * q).var(axis=1).mean(), rel=1e-6)


def test_squared_error_weighs_by_the_score_whatever_its_sign() -> None:
    pos, neg = scores()
    found = pressure(MSE(), pos, neg, batch(7))
    weights = neg.double().abs().numpy()
    weights /= weights.mean(axis=1, keepdims=True)
    assert found is not None
    assert found["weight_var"] == pytest.approx(weights.var(axis=1).mean(), rel=1e-6)


def test_a_loss_that_presses_on_all_alike() -> None:
    class Mean(Loss):
        def forward(self, pos: Tensor, neg: Tensor, batch: Any = None) -> Tensor:
            return neg.mean() - pos.mean()

    found = pressure(Mean(), *scores(), batch(7))
    assert found == pytest.approx({"weight_var": 0.0, "weight_ess": 1.0}, abs=1e-6)


def test_rows_without_pressure_do_not_count() -> None:
    class Hinge(Loss):
        def forward(self, pos: Tensor, neg: Tensor, batch: Any = None) -> Tensor:
            return (neg - pos).relu().mean()

    neg = torch.tensor([[0.5, 0.5, 0.0, 0.0], [0.0, 0.0, 0.0, 0.0]])
    found = pressure(Hinge(), torch.tensor([[0.1], [0.1]]), neg, batch(2))
    assert found == pytest.approx({"weight_var": 1.0, "weight_ess": 0.5}, abs=1e-6)
    assert pressure(Hinge(), torch.ones(2, 1), neg, batch(2)) is None


def test_a_loss_without_negatives_has_no_weights() -> None:
    loss = as_loss(DirectAU())
    settings = TrainSettings(sampler="none", n_negatives=0)
    found = Probe(settings, tiny(), loss, 0)(model(), 0)
    assert set(found) == {name for name in METRICS if not name.startswith("weight")}


class Remembering(Loss):
    """Counts its calls, draws, and may hold a tensor with a history."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("calls", torch.zeros(()))
        self.last: Any = None

    def forward(self, pos: Tensor, neg: Tensor, batch: Any = None) -> Tensor:
        self.calls += 1
        return (neg + torch.rand(neg.shape)).square().mean()


def test_measuring_changes_neither_the_loss_nor_later_draws() -> None:
    loss = Remembering()
    state = torch.get_rng_state()
    assert pressure(loss, *scores(), batch(7)) is not None
    assert loss.calls == 0
    assert torch.equal(torch.get_rng_state(), state)
    loss.last = torch.ones(1, requires_grad=True) * 2
    assert pressure(loss, *scores(), batch(7)) is None


@pytest.mark.parametrize("name", LOSSES)
def test_training_ends_in_the_same_bits_measured_or_not(name: str) -> None:
    settings = TrainSettings(epochs=3, batch_size=64, n_negatives=20, dim=8, lr=0.05)
    ends = []
    for measured in (True, False):
        backbone, loss = model(), LOSSES[name]()
        how = {"measure": Probe(settings, tiny(), loss, 0)} if measured else {}
        progress = train(
            settings, tiny(), backbone, loss, seed=0, evaluate=lambda _: (0.0, 0.0), **how
        )
        ends.append(backbone.tables()[0])
        assert all(bool(point.spread) == measured for point in progress.curve)
    assert torch.equal(*ends)


def test_the_curve_and_the_results_have_it(tmp_path: Path) -> None:
    run(grid(losses=["sl", "bpr"], references=["popularity"], set={"epochs": 5}), tmp_path)
    for folder in (tmp_path / "runs").iterdir():
        with (folder / "metrics.csv").open(newline="") as file:
            found = {r["metric"]: r for r in csv.DictReader(file) if r["split"] == "train"}
        with (folder / "curve.csv").open(newline="") as file:
            curve = list(csv.DictReader(file))
        if "popularity" in folder.name:
            assert not found and not curve
            continue
        assert list(found) == list(METRICS.values())
        best = max(curve, key=lambda row: float(row["recall"]))
        for column, metric in METRICS.items():
            assert found[metric]["value"] == best[column]
            assert (found[metric]["k"], found[metric]["group"]) == ("0", "")
        assert 0 < float(best["weight_ess"]) <= 1
        assert len({row["neg_var"] for row in curve}) == 5


def test_in_batch_pooling_sees_the_users_of_the_sample() -> None:
    found = Probe(TrainSettings(), tiny(), BSLInBatch(), 0)(model(), 0)
    assert np.isfinite(list(found.values())).all()
