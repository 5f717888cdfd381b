"""log-sum-exp and uniformity against plain torch in float64."""

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.nn.functional import normalize

from bslbench.kernels.log_sum_exp import log_sum_exp
from bslbench.kernels.uniformity import CHUNK, uniformity


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


def test_the_exponentials_are_good_to_the_last_bits() -> None:
    x = torch.linspace(-86, 0, 100_003)  # a term each, next to a 1 that tells nothing of it
    pairs = torch.stack([torch.zeros_like(x), x], 1).requires_grad_()
    log_sum_exp(pairs).sum().backward()
    exact = x.double().exp() / (1 + x.double().exp())
    assert pairs.grad is not None
    assert ((pairs.grad[:, 1] - exact).abs() / exact).max() < 4e-7


@pytest.mark.parametrize("n", [2, 40])
@pytest.mark.parametrize("number", [math.nan, math.inf])
def test_a_score_that_is_no_number_is_not_lost(n: int, number: float) -> None:
    for place in range(n):
        x = torch.zeros(n)
        x[place] = number
        assert not log_sum_exp(x).isfinite()


def test_log_sum_exp_neither_overflows_nor_divides_by_zero() -> None:
    x = torch.tensor([[1e4, 0.0], [-math.inf, -math.inf], [-math.inf, 0.0]], requires_grad=True)
    total = log_sum_exp(x, 0.01)
    assert total.tolist() == [1e6, -math.inf, 0]
    total.sum().backward()
    assert x.grad is not None
    assert x.grad.tolist() == [[100, 0], [0, 0], [0, 100]]


def test_a_tensor_as_temperature_gets_its_gradient() -> None:
    taus = [torch.tensor(0.3, requires_grad=True) for _ in range(2)]
    log_sum_exp(draw(4, 5), taus[0]).sum().backward()
    torch.logsumexp(draw(4, 5) / taus[1], 1).sum().backward()
    torch.testing.assert_close(taus[0].grad, taus[1].grad)


@pytest.mark.parametrize(
    ("of", "shape"),
    [(log_sum_exp, (2, 140_000)), (log_sum_exp, (1, 40_000)), (uniformity, (2 * CHUNK + 1, 16))],
)
def test_bits_do_not_depend_on_the_number_of_threads(
    of: Callable[[Tensor], Tensor], shape: tuple[int, ...]
) -> None:
    before, bits = torch.get_num_threads(), []
    for threads in (1, 2):
        torch.set_num_threads(threads)
        x = normalize(draw(*shape).float()).requires_grad_()
        of(x).sum().backward()
        bits.append(x.grad)
    torch.set_num_threads(before)
    assert bits[0] is not None and bits[1] is not None
    assert torch.equal(bits[0], bits[1])


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
