"""The sparse product and its row-restricted form against dense float64."""

from pathlib import Path

import pytest
import torch
from torch import Tensor

from bslbench.data.load import load
from bslbench.kernels.spmm import Adjacency, product, product_reference, spmm, spread
from tests.fixtures import on_threads, ragged, tiny

ROWS = [None, torch.tensor([7, 3, 0, 7, 7, 11])]  # repeats, and one without interactions


def dense(train: Tensor) -> Tensor:
    """Return D^-1/2 A D^-1/2 of a matrix [n_users, n_items], float64."""
    train = train.double()
    degrees = train.sum(1, keepdim=True).clamp_min(1), train.sum(0, keepdim=True).clamp_min(1)
    return train / degrees[0].sqrt() / degrees[1].sqrt()


def both() -> tuple[Adjacency, Tensor]:
    train = ragged().train
    return Adjacency.of(train), dense(torch.from_numpy(train.toarray()))


def noise(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(*shape, dtype=dtype, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("rows", ROWS, ids=["all", "listed"])
@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("dim", [1, 7, 64, 130])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_product_and_gradient_equal_the_dense_ones(
    dtype: torch.dtype, dim: int, transposed: bool, rows: Tensor | None
) -> None:
    graph, exact = both()
    if transposed:
        graph, exact = graph.T, exact.T
    x = noise(graph.shape[1], dim, dtype=dtype).requires_grad_()
    x_exact = x.detach().double().requires_grad_()
    expected = exact @ x_exact if rows is None else exact[rows] @ x_exact
    found = spmm(graph, x, rows)
    torch.testing.assert_close(found.double(), expected, rtol=0, atol=1e-6)
    weights = noise(*expected.shape)
    (found * weights).sum().backward()
    (expected * weights).sum().backward()
    assert x.grad is not None and x_exact.grad is not None
    torch.testing.assert_close(x.grad.double(), x_exact.grad, rtol=0, atol=2e-6)


def test_rows_without_interactions_are_zero() -> None:
    graph, _ = both()
    assert torch.equal(product(graph, torch.full((17, 4), 1e30))[3], torch.zeros(4))
    assert torch.equal(product(graph.T, torch.full((12, 4), 1e30))[5], torch.zeros(4))


@pytest.mark.parametrize("rows", [None, torch.arange(400) % 30], ids=["all", "listed"])
def test_bits_do_not_depend_on_the_number_of_threads(rows: Tensor | None) -> None:
    graph = Adjacency.of(tiny(n_users=30, n_items=5000, per_user=300).train)
    outcomes = []
    for threads in (1, 2, 4):
        x = noise(5000, 64).requires_grad_()
        with on_threads(threads):
            found = spmm(graph, x, rows)
            (found * noise(*found.shape)).sum().backward()
        assert x.grad is not None
        outcomes.append((found.detach(), x.grad))
    for other in outcomes[1:]:
        assert all(map(torch.equal, outcomes[0], other))


def test_thinning_takes_interactions_out_of_both_directions() -> None:
    graph = Adjacency.of(tiny(n_users=200, n_items=300, per_user=50).train)
    thin = graph.thinned(0.3, key=5)
    whole, left, across = (
        product_reference(g, torch.eye(n, dtype=torch.float64))
        for g, n in ((graph, 300), (thin, 300), (thin.T, 200))
    )
    torch.testing.assert_close(left, across.T)
    torch.testing.assert_close(left, torch.where(left > 0, whole / 0.7, 0.0), rtol=1e-6, atol=0)
    assert ((left > 0).sum() / (whole > 0).sum()).item() == pytest.approx(0.7, abs=0.02)
    x, y, rows = noise(300, 64), noise(3, 64), torch.tensor([5, 5, 9])
    torch.testing.assert_close(product(thin, x), product_reference(thin, x))
    torch.testing.assert_close(
        spread(thin, y, rows), left[rows].float().T @ y, rtol=1e-5, atol=1e-6
    )


def test_thinning_is_a_function_of_its_key() -> None:
    graph = Adjacency.of(tiny().train)
    x = noise(90, 8)
    first, again, other = (product(graph.thinned(0.5, key), x) for key in (1, 1, 2))
    assert torch.equal(first, again) and not torch.equal(first, other)


def test_yelp2018_takes_less_than_60_mebibytes(real_data: Path) -> None:
    assert Adjacency.of(load("yelp2018", real_data).train).n_bytes < 60 * 2**20
