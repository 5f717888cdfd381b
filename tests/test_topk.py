"""masked_topk: against loops and against the torch reference, to the bit."""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch import Tensor

from bslbench.kernels.topk import masked_topk, masked_topk_reference
from tests.fixtures import on_threads

Seen = tuple[npt.NDArray[np.int64], npt.NDArray[np.int32]]


def random_seen(rng: np.random.Generator, n_rows: int, n_items: int) -> Seen:
    """Rows with no item, with all items and with random ones, as (indptr, indices)."""
    seen = rng.random((n_rows, n_items)) < rng.choice([0, 0.01, 0.3, 1], size=(n_rows, 1))
    rows, columns = np.nonzero(seen)
    indptr = np.searchsorted(rows, np.arange(n_rows + 1))
    return indptr.astype(np.int64), columns.astype(np.int32)


def by_loops(
    scores: Tensor, seen: Seen, tie_order: npt.NDArray[np.int32], k: int
) -> tuple[list[list[int]], list[list[float]]]:
    """Sort all unseen items of each row by (score descending, tie order)."""
    indptr, indices = seen
    items, values = [], []
    for i, row in enumerate(scores.tolist()):
        hidden = set(indices[indptr[i] : indptr[i + 1]].tolist())
        row = [-np.inf if np.isnan(score) else score for score in row]
        best = sorted(set(range(len(row))) - hidden, key=lambda j: (-row[j], tie_order[j]))[:k]
        items.append(best + [-1] * (k - len(best)))
        values.append([row[j] for j in best] + [-np.inf] * (k - len(best)))
    return items, values


def normal(shape: tuple[int, int], draws: torch.Generator) -> Tensor:
    return torch.randn(shape, generator=draws)


def few_values(shape: tuple[int, int], draws: torch.Generator) -> Tensor:
    return torch.randint(-2, 3, shape, generator=draws) * 0.5


def constant(shape: tuple[int, int], draws: torch.Generator) -> Tensor:
    return torch.full(shape, -0.25)


def zeros_of_both_signs(shape: tuple[int, int], draws: torch.Generator) -> Tensor:
    return torch.where(torch.rand(shape, generator=draws) < 0.5, 0.0, -0.0)


def extremes(shape: tuple[int, int], draws: torch.Generator) -> Tensor:
    values = [float("nan"), -float("nan"), torch.inf, -torch.inf, 3e38, -3e38, 1e-45, -1e-45, 0.5]
    return torch.tensor(values)[torch.randint(len(values), shape, generator=draws)]


def nothing_but_nan(shape: tuple[int, int], draws: torch.Generator) -> Tensor:
    return torch.full(shape, float("nan"))


def ascending(shape: tuple[int, int], draws: torch.Generator) -> Tensor:
    return torch.arange(shape[1], dtype=torch.float32).expand(shape)


KINDS = (
    normal,
    few_values,
    constant,
    zeros_of_both_signs,
    extremes,
    nothing_but_nan,
    ascending,
)


@pytest.mark.parametrize("make", KINDS)
@pytest.mark.parametrize(("n_items", "k"), [(3, 5), (64, 64), (100, 20), (1000, 3), (4001, 100)])
def test_equals_loops_and_reference(
    make: Callable[[tuple[int, int], torch.Generator], Tensor], n_items: int, k: int
) -> None:
    rng = np.random.default_rng(n_items)
    scores = make((8, n_items), torch.Generator().manual_seed(n_items))
    seen = random_seen(rng, len(scores), n_items)
    tie_order = rng.permutation(n_items).astype(np.int32)
    items, top_scores = masked_topk(scores, *seen, tie_order, k)
    expected_items, expected_scores = by_loops(scores, seen, tie_order, k)
    assert items.tolist() == expected_items
    assert top_scores.tolist() == expected_scores
    reference = masked_topk_reference(scores, *seen, tie_order, k)
    assert torch.equal(items, reference[0])
    assert torch.equal(top_scores, reference[1])
    assert items.dtype == reference[0].dtype == torch.int32


def test_a_user_that_has_seen_the_best_of_every_chunk() -> None:
    n_items, k = 640, 10
    scores = torch.rand(1, n_items, generator=torch.Generator().manual_seed(0))
    best_of_chunks = np.arange(0, n_items, 64) + scores.view(-1, 64).argmax(1).numpy()
    seen = np.array([0, 10]), best_of_chunks.astype(np.int32)
    tie_order = np.arange(n_items, dtype=np.int32)
    items, _ = masked_topk(scores, *seen, tie_order, k)
    assert items.tolist() == by_loops(scores, seen, tie_order, k)[0]


def test_same_bits_for_any_number_of_threads() -> None:
    scores = few_values((50, 3000), torch.Generator().manual_seed(1))
    rng = np.random.default_rng(1)
    seen = random_seen(rng, *scores.shape)
    tie_order = rng.permutation(3000).astype(np.int32)
    results = []
    for threads in (1, 2, 4):
        with on_threads(threads):
            results.append(masked_topk(scores, *seen, tie_order, 30))
    for other in results[1:]:
        assert all(map(torch.equal, results[0], other))


@pytest.mark.parametrize("function", [masked_topk, masked_topk_reference])
def test_takes_a_slice_of_the_row_pointers_and_leaves_the_scores_alone(
    function: Callable[..., tuple[Tensor, Tensor]],
) -> None:
    scores = normal((6, 200), torch.Generator().manual_seed(2))
    rng = np.random.default_rng(2)
    indptr, indices = random_seen(rng, *scores.shape)
    tie_order = rng.permutation(200).astype(np.int32)
    copy = scores.clone()
    whole = function(scores, indptr, indices, tie_order, 7)
    part = function(scores[2:5], indptr[2:6], indices, tie_order, 7)
    assert torch.equal(part[0], whole[0][2:5])
    assert torch.equal(part[1], whole[1][2:5])
    assert torch.equal(scores, copy)


def test_other_dtypes_take_the_reference() -> None:
    scores = torch.tensor([[1.0, 1.0 + 1e-12, 0.0]], dtype=torch.float64)
    nothing = np.array([0, 0]), np.array([], dtype=np.int32)
    items, top_scores = masked_topk(scores, *nothing, np.arange(3, dtype=np.int32), 2)
    assert items.tolist() == [[1, 0]]
    assert top_scores.dtype == torch.float64
