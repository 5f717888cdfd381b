"""Embeddings and gradients against dense float64, dropout by key, a backbone of the user's."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import leaky_relu, normalize

import bslbench
from bslbench.backbones import BACKBONES, NGCF, Backbone, LightGCN
from bslbench.config import Grid, TrainSettings
from bslbench.errors import ConfigError
from bslbench.losses import SL
from bslbench.training import train
from tests.fixtures import on_threads, ragged, tiny
from tests.test_spmm import dense

USERS = torch.tensor([0, 3, 11, 7, 7, 7])  # 3 has no interactions; repeats
ITEMS = torch.tensor([5, 5, 16, 0, 5])  # 5 has none

USER_BACKBONE = Path(__file__).with_name("user_backbone.py")


def make(name: str, dim: int = 4, **hyper: Any) -> Backbone:
    return BACKBONES[name](ragged(), dim, torch.Generator().manual_seed(0), **hyper)


def adjacency() -> Tensor:
    """Return D^-1/2 A D^-1/2 over users and items in one square matrix, float64."""
    train = torch.from_numpy(ragged().train.toarray())
    n_users, n_items = train.shape
    square = torch.zeros(n_users + n_items, n_users + n_items)
    square[:n_users, n_users:] = train
    return dense(square + square.T)


def exact_layers(model: Backbone) -> list[Tensor]:
    """Return the hop layers over users and items together, as the papers have them."""
    square = adjacency()
    hops = [torch.cat([model.users, model.items]).double()]  # [n_users + n_items, d]
    if isinstance(model, LightGCN):
        for _ in range(model.hops):
            hops.append(square @ hops[-1])
    if isinstance(model, NGCF):
        unit = torch.eye(len(square), dtype=torch.float64)
        for alone, paired in zip(model.alone, model.paired, strict=True):
            near = (square + unit) @ hops[-1] @ alone.double()
            hops.append(leaky_relu(near + (square @ hops[-1] * hops[-1]) @ paired.double(), 0.2))
    return hops


def exact_embeddings(model: Backbone) -> Tensor:
    hops = exact_layers(model)
    if isinstance(model, NGCF):
        return torch.cat([hops[0], *map(normalize, hops[1:])], 1)
    return torch.stack(hops).mean(0)


@pytest.mark.parametrize("hops", [1, 2, 3])
@pytest.mark.parametrize("name", ["ngcf", "lightgcn"])
def test_embeddings_equal_a_dense_computation(name: str, hops: int) -> None:
    model = make(name, hops=hops)
    expected = exact_embeddings(model).float()
    torch.testing.assert_close(torch.cat(model.tables()), expected, rtol=0, atol=1e-6)
    model.eval()
    rows = model(USERS, ITEMS)
    torch.testing.assert_close(rows.users, expected[USERS], rtol=0, atol=1e-6)
    torch.testing.assert_close(rows.items, expected[12:][ITEMS], rtol=0, atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("items", [ITEMS, None], ids=["listed", "all"])
@pytest.mark.parametrize(
    ("name", "hyper"),
    [
        ("mf", {}),
        ("lightgcn", {"hops": 1}),
        ("lightgcn", {"hops": 3}),
        ("lightgcn", {"hops": 2, "l2_hops": "zero"}),
        ("ngcf", {"hops": 1}),
        ("ngcf", {"hops": 3}),
    ],
)
def test_gradients_of_the_rows_equal_dense_ones(
    name: str, hyper: dict[str, Any], items: Tensor | None, dtype: torch.dtype
) -> None:
    model = make(name, **hyper).to(dtype)
    exact = make(name, **hyper).double()
    model.eval()
    rows = model(USERS, items)
    found = [rows.users, rows.items]
    if rows.sq_users is not None and rows.sq_items is not None:
        found += [rows.sq_users, rows.sq_items]

    whole = exact_embeddings(exact)
    counted = exact_layers(exact)
    if name == "ngcf" or hyper.get("l2_hops") == "zero":
        counted = counted[:1]
    squares = torch.stack([hop.square().sum(1) for hop in counted]).sum(0)
    items = torch.arange(17) if items is None else items
    expected = [whole[USERS], whole[12:][items], squares[USERS], squares[12:][items]]

    total, exact_total = torch.zeros((), dtype=dtype), torch.zeros((), dtype=torch.float64)
    for mine, theirs in zip(found, expected, strict=False):
        weights = torch.randn(theirs.shape, generator=torch.Generator().manual_seed(2))
        torch.testing.assert_close(mine.double(), theirs, rtol=1e-5, atol=1e-6)
        total = total + (mine * weights).sum()
        exact_total = exact_total + (theirs * weights).sum()
    total.backward()
    exact_total.backward()
    for mine, theirs in zip(model.parameters(), exact.parameters(), strict=True):
        assert mine.grad is not None and theirs.grad is not None
        rtol, atol = (0, 1e-6) if dtype == torch.float64 else (1e-5, 1e-5)
        torch.testing.assert_close(mine.grad.double(), theirs.grad, rtol=rtol, atol=atol)


def test_without_interactions_only_hop_0_is_left() -> None:
    model = make("lightgcn", hops=3)
    users, items = model.tables()
    torch.testing.assert_close(users[3], model.users[3] / 4)
    torch.testing.assert_close(items[5], model.items[5] / 4)
    ngcf = make("ngcf", hops=1)
    alone = leaky_relu(ngcf.users[3] @ ngcf.alone[0], 0.2)
    torch.testing.assert_close(
        ngcf.tables()[0][3], torch.cat([ngcf.users[3], normalize(alone, dim=0)])
    )


@pytest.mark.parametrize(
    ("name", "hyper"),
    [("lightgcn", {"edge_dropout": 0.4}), ("ngcf", {"message_dropout": 0.4})],
)
def test_dropout_is_a_function_of_the_step_and_rests_in_evaluation(
    name: str, hyper: dict[str, float]
) -> None:
    model = make(name, **hyper)

    def step(seed: int, items: Tensor | None = None) -> tuple[Tensor, Tensor]:
        model.on_step(torch.Generator().manual_seed(seed))
        rows = model(USERS, items)
        return rows.users, rows.items

    users, items = step(1)
    assert torch.equal(users, step(1)[0]) and not torch.equal(users, step(2)[0])
    torch.testing.assert_close(users[3], users[4])  # the same user drops the same
    torch.testing.assert_close(step(1, ITEMS)[1], items[ITEMS])
    plain = make(name, **dict.fromkeys(hyper, 0.0))
    for mine, theirs in zip(model.tables(), plain.tables(), strict=True):
        assert torch.equal(mine, theirs)
    assert model.training
    model.eval()
    assert torch.equal(model(USERS, None).users, plain.eval()(USERS, None).users)


@pytest.mark.parametrize(
    ("name", "hyper"),
    [("mf", {}), ("lightgcn", {"edge_dropout": 0.2}), ("ngcf", {"message_dropout": 0.2})],
)
@pytest.mark.parametrize("sampler", ["own", "in_batch", "pool"])
def test_training_ends_in_the_same_bits_on_any_number_of_threads(
    name: str, hyper: dict[str, float], sampler: str
) -> None:
    data = tiny(n_users=40, n_items=600, per_user=60)
    settings = TrainSettings.model_validate(
        {"epochs": 1, "l2": 0.1, "sampler": sampler, "n_negatives": 100, "batch_size": 267}
    )
    ended = []
    for threads in (1, 2, 8, 8):
        model = BACKBONES[name](data, 50, torch.Generator().manual_seed(0), **hyper)
        with on_threads(threads):
            train(settings, data, model, SL(), seed=0, evaluate=lambda backbone: (0.1, 0.1))
        ended.append(torch.cat([p.detach().flatten() for p in model.parameters()]))
    assert all(torch.equal(ended[0], other) for other in ended[1:])


@pytest.mark.parametrize(
    ("name", "hyper"),
    [
        ("lightgcn", {"hops": 0}),
        ("lightgcn", {"edge_dropout": 1.0}),
        ("lightgcn", {"l2_hops": "one"}),
        ("ngcf", {"hops": 0}),
        ("ngcf", {"message_dropout": -0.1}),
    ],
)
def test_hyper_parameters_out_of_range_are_named(name: str, hyper: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=f"{next(iter(hyper))} must be"):
        make(name, **hyper)


def test_a_backbone_of_the_users_own_trains_by_file_and_class(tmp_path: Path) -> None:
    grid = Grid(
        datasets=["synthetic?users=200&items=120&interactions=4000"],
        backbones=[f"{USER_BACKBONE}:BiasedMF"],
        losses=["bpr"],
        set={"width": [0.1, 0.01], "epochs": 2, "dim": 8, "lr": 0.01, "l2": 1e-3},
    )
    metrics = bslbench.run(grid, results_dir=tmp_path)
    assert set(metrics.backbone) == {"BiasedMF"} and set(metrics.width) == {0.1, 0.01}
    assert len(list(tmp_path.glob("runs/*/user_backbone.py"))) == 2


def test_the_documented_backbone_is_the_one_tested() -> None:
    code = USER_BACKBONE.read_text().split("\n\n", 1)[1]
    assert (
        f"```python\n{code}```" in (USER_BACKBONE.parents[1] / "docs" / "backbones.md").read_text()
    )
