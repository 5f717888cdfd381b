"""Dense products: the numbers of float64, and the same bits on any number of threads."""

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from bslbench.engine.machine import n_cores, set_threads
from bslbench.evaluation.ranking import EmbeddingScorer
from bslbench.kernels.gemm import matmul
from bslbench.kernels.uniformity import uniformity
from tests.fixtures import on_threads

THREADS = (1, 2, 3, 8, 16, 32)


@pytest.fixture(autouse=True)
def threads() -> Iterator[None]:
    with on_threads(n_cores()):
        yield


def draw(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(sum(shape)))


# Plain products of each have other bits on some of these numbers of threads (AMD EPYC, MKL).
SHAPES = [(5, 22, 32), (11, 277, 64), (267, 100, 50), (1024, 36, 100), (512, 83, 16)]


@pytest.mark.parametrize(("n", "m", "dim"), SHAPES)
def test_product_and_gradients_have_the_numbers_of_float64_and_the_same_bits(
    n: int, m: int, dim: int
) -> None:
    tables, weights = (draw(n, dim), draw(m, dim)), draw(n, m)
    exact = [table.double().requires_grad_() for table in tables]
    expected = exact[0] @ exact[1].T
    (expected * weights).sum().backward()
    outcomes = []
    for count in THREADS:
        set_threads(count)
        rows, columns = (table.clone().requires_grad_() for table in tables)
        product = matmul(rows, columns.T)
        (product * weights).sum(1).sum().backward()
        outcomes.append([product.detach(), rows.grad, columns.grad])
    for found, right in zip(
        outcomes[0], (expected.detach(), *(table.grad for table in exact)), strict=True
    ):
        assert found is not None and right is not None
        torch.testing.assert_close(found.double(), right, rtol=1e-4, atol=1e-4)
    for other in outcomes[1:]:
        assert all(map(torch.equal, outcomes[0], other))


@pytest.mark.parametrize("n_items", [100, 203, 1600])
def test_scores_of_a_ranking_do_not_depend_on_threads_or_blocks(n_items: int) -> None:
    users, items = draw(301, 64), draw(n_items, 64)
    outcomes = []
    for count in THREADS:
        set_threads(count)
        scorer = EmbeddingScorer(users, items, "cosine")
        for size in (301, 100, 7):
            blocks = torch.arange(301).split(size)
            outcomes.append(torch.cat([scorer(block).clone() for block in blocks]))
    assert outcomes[0].shape == (301, n_items)
    assert all(torch.equal(outcomes[0], other) for other in outcomes[1:])


@pytest.mark.parametrize("n", [5, 267, 300])
def test_uniformity_does_not_depend_on_threads(n: int) -> None:
    outcomes = []
    for count in THREADS:
        set_threads(count)
        rows = torch.nn.functional.normalize(draw(n, 50)).requires_grad_()
        value = uniformity(rows)
        value.backward()
        assert rows.grad is not None
        outcomes.append(torch.cat([value.detach()[None], rows.grad.flatten()]))
    assert all(torch.equal(outcomes[0], other) for other in outcomes[1:])
