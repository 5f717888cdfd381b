"""The CUDA kernels against float64 and against the CPU's: on a GPU, else interpreted."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from bslbench.data.interactions import Interactions
from bslbench.kernels import cpu
from bslbench.kernels.sddmm import Index, item_block, item_bounds, sddmm_reference
from bslbench.kernels.spmm import Adjacency, product_reference
from bslbench.kernels.topk import masked_topk_reference

from .fixtures import NONE, tiny
from .test_topk import KINDS, random_seen

pytest.importorskip("triton", reason="no triton: it comes with the dev extra, on Linux only")
from bslbench.kernels import cuda_sddmm, cuda_spmm, cuda_topk

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"  # conftest has it interpreted there
SIZES = [(13, 101, 16, 1, 33), (3, 400, 64, 5, 70), (3, 1, 7, 1, 1), (20, 300, 20, 3, 0)]


def index_of(n_rows: int, n_items: int, n_pos: int, n_neg: int) -> Index:
    """Random columns in draw order; the offsets are not looked at."""
    draws = torch.Generator().manual_seed(n_items)
    columns = torch.randint(n_items, (n_rows, n_pos + n_neg), generator=draws, dtype=torch.int32)
    nothing = torch.empty(n_rows, 0, dtype=torch.int32)
    return Index(columns.to(DEVICE), nothing, n_pos, item_bounds(n_items))


@pytest.mark.parametrize("half", [False, True])
@pytest.mark.parametrize("cosine", [True, False])
@pytest.mark.parametrize(("n_rows", "n_items", "dim", "n_pos", "n_neg"), SIZES)
def test_sddmm_and_its_gradients_equal_the_float64_reference(
    half: bool, cosine: bool, n_rows: int, n_items: int, dim: int, n_pos: int, n_neg: int
) -> None:
    draws = torch.Generator().manual_seed(0)
    users = torch.randn(n_rows, dim, generator=draws).to(DEVICE)
    items = torch.randn(n_items, dim, generator=draws).to(DEVICE)
    weights = torch.randn(n_rows, n_pos + n_neg, generator=draws).to(DEVICE)
    norm_weights = torch.randn(n_items, generator=draws).to(DEVICE)
    index = index_of(n_rows, n_items, n_pos, n_neg)
    ours = [users.clone().requires_grad_(), items.clone().requires_grad_()]
    exact = [users.double().requires_grad_(), items.double().requires_grad_()]
    scores, squared = cuda_sddmm.sddmm(*ours, index, cosine=cosine, half=half)
    *parts, expected_squared = sddmm_reference(*exact, index, cosine=cosine)
    expected = torch.cat(parts, 1)
    torch.testing.assert_close(squared.double(), expected_squared, rtol=1e-5, atol=0)
    ((scores * weights).sum() + (squared * norm_weights).sum()).backward()
    ((expected * weights).sum() + (expected_squared * norm_weights).sum()).backward()
    tolerance = 2e-2 if half else 1e-5
    assert scores.dtype == torch.float32
    assert (scores - expected).norm() < tolerance * expected.norm()
    for mine, theirs in zip(ours, exact, strict=True):
        assert mine.grad is not None and theirs.grad is not None
        assert mine.grad.dtype == torch.float32
        error = (mine.grad - theirs.grad).norm()
        assert error < tolerance * max(float(theirs.grad.norm()), 1.0)


def test_zero_rows_and_items_never_drawn_get_a_finite_gradient() -> None:
    index = index_of(4, 500, 1, 10)
    users = torch.zeros(4, 8, device=DEVICE).requires_grad_()
    items = torch.randn(500, 8, device=DEVICE).requires_grad_()
    cuda_sddmm.sddmm(users, items, index, cosine=True)[0].sum().backward()
    assert users.grad is not None and users.grad.isfinite().all()
    assert items.grad is not None and (items.grad == 0).all()


def test_squared_norms_alone_have_their_gradient_too() -> None:
    users, items = (torch.ones(n, 8, device=DEVICE).requires_grad_() for n in (4, 50))
    cuda_sddmm.sddmm(users, items, index_of(4, 50, 1, 10), cosine=True)[1].sum().backward()
    assert users.grad is not None and (users.grad == 0).all()
    assert items.grad is not None and (items.grad == 2).all()


@pytest.mark.parametrize(("n_pos", "n_neg"), [(1, 301), (3, 8), (2, 0)])
def test_draws_are_those_of_the_cpu_in_draw_order(n_pos: int, n_neg: int) -> None:
    n_rows, n_items, key = 9, 1000, 2**63 - 25
    block = item_block(n_items)
    pos_items = torch.randint(n_items, (n_rows, n_pos), generator=torch.Generator().manual_seed(1))
    expected = np.zeros((n_rows, n_pos + n_neg), np.int32)
    expected[:, :n_pos] = pos_items
    offsets = np.zeros((n_rows, -(-n_items // block) + 1), np.int32)
    order = np.zeros((n_rows, n_neg), np.int64)
    cpu.draw_grouped(key, n_items, block, n_pos, expected, offsets, order)
    expected[:, n_pos:] = np.take_along_axis(expected[:, n_pos:], order, axis=1)
    where = torch.tensor(key, device=DEVICE)
    columns = cuda_sddmm.draw(where, pos_items.to(DEVICE), n_items, n_neg)
    assert columns.tolist() == expected.tolist()


@pytest.mark.parametrize("negatives", [True, False])
def test_counts_weigh_the_own_item_and_the_negatives_only(negatives: bool) -> None:
    columns = index_of(30, 70, 3, 280).items
    counts = cuda_sddmm.count_items(columns, 70, 3, negatives)
    kept = columns[:, [0, *range(3, 283)]] if negatives else columns[:, :1]
    assert counts.tolist() == torch.bincount(kept.flatten(), minlength=70).tolist()
    assert counts.dtype == torch.float32


@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("dim", [7, 64])
def test_spmm_and_its_gradient_equal_the_reference(dim: int, transposed: bool) -> None:
    graph = Adjacency.of(tiny(n_users=20, n_items=25).train)
    graph = graph.T if transposed else graph
    by_row, by_column = (cuda_spmm.DeviceCsr.of(m, DEVICE) for m in (graph.by_row, graph.by_column))
    rows = torch.tensor([7, 3, 0, 7, 7, 11], device=DEVICE)
    for listed in (None, rows):
        x = torch.randn(graph.shape[1], dim, generator=torch.Generator().manual_seed(0))
        x = x.to(DEVICE).requires_grad_()
        expected = product_reference(graph, x.double(), listed)
        found = cuda_spmm.product(by_row, x, listed)
        torch.testing.assert_close(found.double(), expected, rtol=1e-5, atol=1e-6)
        weights = torch.randn(found.shape, generator=torch.Generator().manual_seed(1)).to(DEVICE)
        (expected * weights).sum().backward()
        assert x.grad is not None
        gradient = cuda_spmm.spread(by_column, weights, listed)
        torch.testing.assert_close(gradient, x.grad, rtol=1e-5, atol=1e-6)


def test_rows_without_entries_are_zero() -> None:
    pairs = np.array([0, 2]), np.array([1, 1])
    graph = Adjacency.of(Interactions.from_pairs("gaps", 3, 2, pairs, NONE, NONE).train)
    x = torch.full((2, 5), 1e30, device=DEVICE)
    by_row = cuda_spmm.DeviceCsr.of(graph.by_row, DEVICE)
    assert (cuda_spmm.product(by_row, x)[1] == 0).all()
    assert cuda_spmm.product(
        by_row, x, torch.tensor([], dtype=torch.int64, device=DEVICE)
    ).shape == (0, 5)


@pytest.mark.parametrize("make", KINDS)
@pytest.mark.parametrize(("n_items", "k"), [(3, 5), (64, 64), (100, 20), (4001, 100)])
def test_topk_equals_the_reference_to_the_bit(
    make: Callable[[tuple[int, int], torch.Generator], Tensor], n_items: int, k: int
) -> None:
    rng = np.random.default_rng(n_items)
    scores = make((8, n_items), torch.Generator().manual_seed(n_items)).to(DEVICE)
    copy = scores.clone()
    indptr, indices = random_seen(rng, len(scores), n_items)
    tie_order = rng.permutation(n_items).astype(np.int32)
    for part, rows in ((scores, indptr), (scores[2:5], indptr[2:6])):
        items, top_scores = cuda_topk.masked_topk(part, rows, indices, tie_order, k)
        expected = masked_topk_reference(part, rows, indices, tie_order, k)
        assert torch.equal(items, expected[0])
        assert torch.equal(top_scores, expected[1])
        assert items.dtype == torch.int32
    assert torch.equal(scores.view(torch.int32), copy.view(torch.int32))


def test_kernels_compile_for_a_gpu(tmp_path: Path) -> None:
    """The interpreter takes what the compiler refuses; the compiler needs no GPU."""
    root = Path(__file__).parents[1]
    environment = os.environ | {"TRITON_INTERPRET": "0", "TRITON_CACHE_DIR": str(tmp_path)}
    command = [sys.executable, "-m", "tests.compile_cuda"]
    done = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.split()) == 12
