"""Lazy Adam against the dense one."""

from typing import Any

import pytest
import torch
from torch import nn

from bslbench.backbones import MF
from bslbench.config import Cell, Grid, TrainSettings
from bslbench.data.interactions import Interactions
from bslbench.engine.grid import expand
from bslbench.errors import ConfigError
from bslbench.kernels.cpu_adam import MOST
from bslbench.losses import SL
from bslbench.optimisers import Adam, LazyAdam
from bslbench.sampling.own import reads_few
from bslbench.training import Interrupted, train
from tests.fixtures import tiny


@pytest.mark.parametrize(
    ("sampler", "n_items", "few"),
    [("own", 90, False), ("own", 450, True), ("pool", 90, False), ("in_batch", 90, False)],
)
def test_lazy_and_dense_agree_after_hundreds_of_steps(
    sampler: str, n_items: int, few: bool
) -> None:
    data = tiny(n_items=n_items)
    dense, lazy = (weights(kind, sampler, data) for kind in ("adam", "adam_lazy"))
    assert reads_few(settings_of("adam_lazy", sampler, data), SL(), n_items) == few
    assert dense.keys() == lazy.keys()
    for name, table in dense.items():
        assert (lazy[name] - table).norm() / table.norm() < 1e-6


def weights(optimizer: str, sampler: str, data: Interactions) -> dict[str, torch.Tensor]:
    """Return the last weights, after at least 500 steps: the evaluation always improves."""
    settings = settings_of(optimizer, sampler, data)
    model = MF(data, 8, torch.Generator().manual_seed(0))
    calls = iter(range(10**6))
    train(settings, data, model, SL(), seed=0, evaluate=lambda backbone: (next(calls), 0.0))
    return model.state_dict()


def settings_of(optimizer: str, sampler: str, data: Interactions) -> TrainSettings:
    return TrainSettings(
        optimizer=optimizer,
        sampler=sampler,
        epochs=-(-500 * 16 // data.train.nnz) + 1,
        batch_size=16,
        n_negatives=12,
        dim=8,
        lr=1e-2,
        lr_schedule="linear",
        l2=1e-2,
        dropout=0.1,
        scale=None,
    )  # type: ignore[arg-type]


@pytest.mark.parametrize("gap", [1, 7, MOST, MOST + 1, 1000])
def test_a_row_left_alone_for_long_is_where_dense_adam_has_it(gap: int) -> None:
    draws = torch.Generator().manual_seed(gap)
    start = torch.randn(5, 23, generator=draws)
    dense, lazy = nn.Parameter(start.clone()), nn.Parameter(start.clone())
    one, other = Adam([dense]), LazyAdam([lazy], [])
    rows = torch.tensor([3, 1, 3])
    for t in range(gap + 2):
        named = rows if t in (0, gap + 1) else rows[:0]
        values = torch.randn(len(named), 23, generator=draws)
        dense.grad = torch.zeros_like(dense).index_add_(0, named, values)
        other.catch_up(named)
        lazy.grad = torch.sparse_coo_tensor(named[None], values, lazy.shape, check_invariants=True)
        one.step(0.1 / (t + 1))
        other.step(0.1 / (t + 1))
    other.settle()
    torch.testing.assert_close(lazy, dense, rtol=1e-6, atol=1e-7)
    assert torch.equal(lazy[[0, 2, 4]], start[[0, 2, 4]])


def test_steps_without_a_gradient_do_not_count() -> None:
    dense, lazy = (nn.Parameter(torch.ones(4, 3)) for _ in range(2))
    one, other = Adam([dense]), LazyAdam([lazy], [])
    for t in range(1000):
        if t >= 990:
            dense.grad = torch.ones(4, 3)
            rows = torch.arange(4)[None]
            lazy.grad = torch.sparse_coo_tensor(rows, dense.grad, lazy.shape, check_invariants=True)
        one.step(0.01)
        other.step(0.01)
    torch.testing.assert_close(lazy, dense, rtol=1e-6, atol=1e-7)
    assert torch.allclose(dense, torch.tensor(0.9))


def test_cut_off_anywhere_it_ends_in_the_same_bytes() -> None:
    data = tiny()
    settings = TrainSettings(
        optimizer="adam_lazy", sampler="pool", epochs=3, batch_size=16, n_negatives=9, dim=8
    )
    ends = []
    for cuts in ((), (5, 30)):
        state: dict[str, Any] | None = None
        for cut in (*cuts, 10**9):
            model = MF(data, 8, torch.Generator().manual_seed(0))
            steps, kept = iter(range(10**6)), {}
            try:
                train(
                    settings,
                    data,
                    model,
                    SL(),
                    seed=0,
                    evaluate=lambda backbone: (float(backbone.users.detach().sum()), 0.0),
                    state=state,
                    keep=kept.update,
                    stop=lambda steps=steps, cut=cut: next(steps) >= cut,
                )
            except Interrupted:
                state = kept
        ends.append(model.state_dict())
    assert all(torch.equal(ends[0][name], ends[1][name]) for name in ends[0])


@pytest.mark.parametrize("second", ["adam", "adam_lazy"])
def test_a_backbone_can_be_trained_again(second: str) -> None:
    data, ends = tiny(), []
    for again in (False, True):
        model = MF(data, 8, torch.Generator().manual_seed(0))
        fields = {"sampler": "pool", "epochs": 1, "batch_size": 16, "n_negatives": 9, "dim": 8}
        if again:
            lazy = TrainSettings.model_validate(fields | {"optimizer": "adam_lazy"})
            train(lazy, data, model, SL(), seed=0, evaluate=lambda backbone: (0.0, 0.0))
            fresh = MF(data, 8, torch.Generator().manual_seed(0))
            model.load_state_dict(fresh.state_dict())
        settings = TrainSettings.model_validate(fields | {"optimizer": second})
        train(settings, data, model, SL(), seed=0, evaluate=lambda backbone: (0.0, 0.0))
        ends.append(model.state_dict())
    assert all(torch.equal(ends[0][name], ends[1][name]) for name in ends[0])


def test_a_backbone_that_reads_every_row_is_refused() -> None:
    asked = Grid(
        datasets=["synthetic?users=200&items=120&interactions=4000"],
        losses=["sl"],
        backbones=["lightgcn"],
        set={"optimizer": "adam_lazy"},
    )
    with pytest.raises(ConfigError, match="adam_lazy needs a backbone that reads single rows"):
        expand(asked)


def test_the_default_optimiser_stays_out_of_the_id() -> None:
    fields = {"dataset": "a", "fingerprint": "b", "backbone": "mf", "loss": "sl", "seed": 0}
    cell = Cell.model_validate(fields | {"selection": "valid", "train": TrainSettings()})
    assert "optimizer" not in cell.canonical() and cell.flat()["optimizer"] == "adam"
    lazy = cell.model_copy(update={"train": TrainSettings(optimizer="adam_lazy")})
    assert lazy.canonical() != cell.canonical()
