"""Adam, of every row and lazy, against torch's in float64 and against each other."""

from typing import Any, Literal

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
from bslbench.optimisers import BETAS, EPS, Adam, optimiser_for
from bslbench.sampling.own import Own
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
    assert Own(settings_of("adam", sampler, data), SL(), data, seed=0).few == few
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


def torch_adam(table: nn.Parameter) -> torch.optim.Adam:
    return torch.optim.Adam([table], betas=BETAS, eps=EPS)


def sparse(rows: torch.Tensor, values: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    return torch.sparse_coo_tensor(rows[None], values, like.shape, check_invariants=True)


@pytest.mark.parametrize("dim", [1, 23, 64])
@pytest.mark.parametrize("lazy", [False, True])
@pytest.mark.parametrize("kind", ["dense", "sparse", "either"])
def test_tables_go_where_torch_has_them(dim: int, lazy: bool, kind: str) -> None:
    draws = torch.Generator().manual_seed(dim)
    start = torch.randn(40, dim, generator=draws)
    table, wanted = nn.Parameter(start.clone()), nn.Parameter(start.double())
    ours, theirs = Adam([table], lazy=lazy), torch_adam(wanted)
    for t in range(60):
        rate = 0.1 / (t + 1)
        rows = torch.randint(0, 30, (9,), generator=draws)  # some twice, ten never
        values = torch.randn(9, dim, generator=draws)
        dense = torch.zeros_like(table).index_add_(0, rows, values)
        as_dense = kind == "dense" or (kind == "either" and t % 3 == 0)
        ours.catch_up(None if as_dense else rows)
        table.grad = dense if as_dense else sparse(rows, values, table)
        wanted.grad = dense.double()
        theirs.param_groups[0]["lr"] = rate
        ours.step(rate)
        theirs.step()
        if not lazy:
            torch.testing.assert_close(table.double(), wanted, rtol=1e-5, atol=1e-6)
    ours.settle()
    torch.testing.assert_close(table.double(), wanted, rtol=1e-5, atol=1e-6)
    if kind != "dense":
        assert torch.equal(table[30:], start[30:])


@pytest.mark.parametrize("gap", [1, 7, MOST, MOST + 1, 1000])
def test_a_row_left_alone_for_long_is_where_dense_adam_has_it(gap: int) -> None:
    draws = torch.Generator().manual_seed(gap)
    start = torch.randn(5, 23, generator=draws)
    dense, lazy = nn.Parameter(start.clone()), nn.Parameter(start.clone())
    one, other = torch_adam(dense), Adam([lazy], lazy=True)
    rows = torch.tensor([3, 1, 3])
    for t in range(gap + 2):
        named = rows if t in (0, gap + 1) else rows[:0]
        values = torch.randn(len(named), 23, generator=draws)
        dense.grad = torch.zeros_like(dense).index_add_(0, named, values)
        other.catch_up(named)
        lazy.grad = sparse(named, values, lazy)
        one.param_groups[0]["lr"] = 0.1 / (t + 1)
        one.step()
        other.step(0.1 / (t + 1))
    other.settle()
    torch.testing.assert_close(lazy, dense, rtol=1e-6, atol=1e-7)
    assert torch.equal(lazy[[0, 2, 4]], start[[0, 2, 4]])


@pytest.mark.parametrize("lazy", [False, True])
def test_steps_without_a_gradient_do_not_count(lazy: bool) -> None:
    tables = [nn.Parameter(torch.ones(4, 3)) for _ in range(2)]
    adam = Adam(tables, lazy=lazy)
    for t in range(1000):
        tables[0].grad = torch.ones(4, 3)
        tables[1].grad = torch.ones(4, 3) if t >= 990 else None
        adam.step(0.01)
        if t == 9:
            early = tables[0].detach().clone()
    assert torch.equal(tables[1], early) and torch.allclose(early, torch.tensor(0.9))


def test_a_dense_gradient_finds_lazy_rows_where_they_would_be() -> None:
    start = torch.ones(2, 3)
    table, wanted = nn.Parameter(start.clone()), nn.Parameter(start.double())
    ours, theirs = Adam([table], lazy=True), torch_adam(wanted)
    for t in range(9):
        row = torch.tensor([t == 0]).long()  # row 1 first, then row 0
        ours.catch_up(row)
        wanted.grad = torch.zeros_like(wanted)
        wanted.grad[row] = 1
        table.grad = sparse(row, torch.ones(1, 3), table)
        if t == 8:
            table.grad, wanted.grad = torch.ones(2, 3), torch.ones_like(wanted)
        ours.step(0.1)
        theirs.param_groups[0]["lr"] = 0.1
        theirs.step()
    torch.testing.assert_close(table.double(), wanted, rtol=1e-5, atol=1e-6)


def test_the_other_parameters_take_the_same_steps() -> None:
    draws = torch.Generator().manual_seed(0)
    start = torch.randn(4, 8, generator=draws)
    ours = [nn.Parameter(start.clone()) for _ in range(3)]
    wanted = [nn.Parameter(start.double()) for _ in range(3)]
    adam = Adam(ours[:1], ours[1:2], [(ours[2], 3.0)])
    theirs = [torch_adam(parameter) for parameter in wanted]
    for t in range(20):
        grad, rate = torch.randn(4, 8, generator=draws), 0.1 / (t + 1)
        for parameter, other in zip(ours, wanted, strict=True):
            parameter.grad, other.grad = grad.clone(), grad.double()
        adam.step(rate)
        for one, factor in zip(theirs, (1, 1, 3), strict=True):
            one.param_groups[0]["lr"] = rate * factor
            one.step()
    for parameter, other in zip(ours, wanted, strict=True):
        torch.testing.assert_close(parameter.double(), other, rtol=1e-5, atol=1e-6)


class Other(nn.Module):
    """Tables of other kinds, no single rows."""

    def __init__(self) -> None:
        super().__init__()
        self.sparse = "its own affair"
        self.users, self.items = (nn.Parameter(torch.zeros(5, 8)) for _ in range(2))
        self.turned = nn.Parameter(torch.zeros(8, 5).T)
        self.bias, self.wide = nn.Parameter(torch.zeros(3)), nn.Parameter(torch.zeros(8, 9))


class Renamed(MF):
    """Reads single rows of tables that are not called as they should be."""

    def __init__(self) -> None:
        super().__init__(tiny(), 8, torch.Generator().manual_seed(0))
        self.embedding = self.users
        del self.users


def test_what_the_kernels_do_not_take_is_left_to_torch() -> None:
    model = Other()
    adam = optimiser_for(TrainSettings(dim=8), model, SL())
    assert [id(table.parameter) for table in adam.tables] == [id(model.users), id(model.items)]
    assert adam.others is not None
    rest = model.turned, model.bias, model.wide
    assert list(map(id, adam.others.param_groups[0]["params"])) == list(map(id, rest))
    assert model.sparse == "its own affair"
    assert not optimiser_for(TrainSettings(dim=8), model.double(), SL()).tables
    assert len(optimiser_for(TrainSettings(dim=8), Renamed(), SL()).tables) == 2


def test_lazy_rows_take_tables_of_their_names() -> None:
    lazy = TrainSettings(dim=8, optimizer="adam_lazy")
    with pytest.raises(ConfigError, match="needs parameters 'users' and 'items': Renamed has none"):
        optimiser_for(lazy, Renamed(), SL())


@pytest.mark.parametrize("optimizer", ["adam", "adam_lazy"])
def test_a_trained_backbone_is_anyones(optimizer: Literal["adam", "adam_lazy"]) -> None:
    data, model = tiny(), MF(tiny(), 8, torch.Generator().manual_seed(0))
    settings = TrainSettings(optimizer=optimizer, epochs=1, n_negatives=3, dim=8)
    train(settings, data, model, SL(), seed=0, evaluate=lambda backbone: (0.0, 0.0))
    model(torch.tensor([1, 2]), torch.tensor([3])).users.sum().backward()
    torch.optim.Adam(model.parameters()).step()  # refuses sparse gradients
    assert not model._forward_pre_hooks


@pytest.mark.parametrize("optimizer", ["adam", "adam_lazy"])
def test_cut_off_anywhere_it_ends_in_the_same_bytes(
    optimizer: Literal["adam", "adam_lazy"],
) -> None:
    data = tiny()
    settings = TrainSettings(
        optimizer=optimizer, sampler="pool", epochs=3, batch_size=16, n_negatives=9, dim=8
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
