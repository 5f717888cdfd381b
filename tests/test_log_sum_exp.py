"""log-sum-exp and uniformity against plain torch in float64."""

import math
from collections.abc import Callable

import numba
import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn.functional import normalize

from bslbench.kernels.cpu import F32, jit_in_order
from bslbench.kernels.cpu_rows import LANES, exp, load, store
from bslbench.kernels.log_sum_exp import log_sum_exp
from bslbench.kernels.uniformity import CHUNK, uniformity
from tests.fixtures import on_threads


def draw(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


SHAPES = [(7, 5), (2, 3, 4), (6,), (1, 1), (0, 3), (3, 0), (3, 16), (4, 17), (2, 100)]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_log_sum_exp_and_its_gradient_equal_torch_in_float64(
    shape: tuple[int, ...], dtype: torch.dtype
) -> None:
    ours, exact = draw(*shape).to(dtype).requires_grad_(), draw(*shape).requires_grad_()
    found, expected = log_sum_exp(ours, 0.1), torch.logsumexp(exact / 0.1, -1)
    torch.testing.assert_close(found, expected.to(dtype))
    weights = draw(*expected.shape)
    (found * weights).sum().backward()
    (expected * weights).sum().backward()
    assert ours.grad is not None and exact.grad is not None
    torch.testing.assert_close(ours.grad, exact.grad.to(dtype))
    if math.prod(shape):
        assert torch.autograd.gradcheck(log_sum_exp, (draw(*shape).requires_grad_(), 0.3))


def test_exponentials_are_right_to_a_unit_in_the_last_place() -> None:
    @jit_in_order
    def exponentials(x: F32, out: F32) -> None:
        for k in numba.prange(len(x) // LANES):
            i = np.uint64(k)
            store(out, i, exp(load(x, i, LANES)))

    x = -np.linspace(0, 87, 1 << 17, dtype=np.float32)
    found = np.empty_like(x)
    exponentials(x, found)
    exact = np.exp(x.astype(np.float64))
    assert (np.abs(found - exact) / np.spacing(exact.astype(np.float32))).max() < 1.02
    assert found[0] == 1


@pytest.mark.parametrize("n", [2, 40])
@pytest.mark.parametrize("number", [math.nan, math.inf])
def test_a_score_that_is_no_number_is_not_lost(n: int, number: float) -> None:
    for place in range(n):
        x = torch.zeros(n)
        x[place] = number
        assert log_sum_exp(x).item() == pytest.approx(number, nan_ok=True)


def test_log_sum_exp_neither_overflows_nor_divides_by_zero() -> None:
    x = torch.tensor([[1e4, 0.0], [-math.inf, -math.inf], [-math.inf, 0.0]], requires_grad=True)
    total = log_sum_exp(x, 0.01)
    assert total.tolist() == [1e6, -math.inf, 0]
    total.sum().backward()
    assert x.grad is not None
    assert x.grad.tolist() == [[100, 0], [0, 0], [0, 100]]


@pytest.mark.parametrize("numbers", [[1.2345678e10, 0, 0], [7.7777e9, 7.7777e9, 1]])
@pytest.mark.parametrize("tau", [0.1, 0.03])
def test_the_largest_scores_are_taken_off_exactly(numbers: list[float], tau: float) -> None:
    x = torch.tensor(numbers, requires_grad=True)
    exact = torch.tensor(numbers, dtype=torch.float64).requires_grad_()
    for scores in (x, exact):
        log_sum_exp(scores, tau).backward()
    torch.testing.assert_close(log_sum_exp(x, tau).double(), torch.logsumexp(exact / tau, 0))
    torch.testing.assert_close(x.grad, exact.grad.float())


def test_a_tensor_as_temperature_gets_its_gradient() -> None:
    taus = [torch.tensor(0.3, requires_grad=True) for _ in range(2)]
    log_sum_exp(draw(4, 5), taus[0]).sum().backward()
    torch.logsumexp(draw(4, 5) / taus[1], 1).sum().backward()
    torch.testing.assert_close(taus[0].grad, taus[1].grad)


@pytest.mark.parametrize(
    ("of", "shape"),
    [(log_sum_exp, (2, 140_000)), (log_sum_exp, (300, 70)), (uniformity, (2 * CHUNK + 1, 16))],
)
def test_bits_do_not_depend_on_the_number_of_threads(
    of: Callable[[Tensor], Tensor], shape: tuple[int, ...]
) -> None:
    bits = []
    for threads in (1, 2, 4):
        x = normalize(draw(*shape).float()).requires_grad_()
        with on_threads(threads):
            of(x).sum().backward()
        assert x.grad is not None
        bits.append(x.grad)
    assert all(torch.equal(bits[0], other) for other in bits[1:])


@pytest.mark.parametrize("n", [2, CHUNK, 2 * CHUNK + 3])
def test_uniformity_and_its_gradient_equal_all_pairs_written_out(n: int) -> None:
    ours, exact = (draw(n, 8).requires_grad_() for _ in range(2))
    found = uniformity(normalize(ours))
    apart = torch.pdist(normalize(exact)).square()
    expected = apart.mul(-2).exp().mean().log()
    torch.testing.assert_close(found, expected)
    for value in (found, expected):
        value.backward()
    torch.testing.assert_close(ours.grad, exact.grad)


def test_uniformity_of_a_single_row_is_zero() -> None:
    assert uniformity(torch.ones(1, 4)) == 0
