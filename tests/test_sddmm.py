"""SDDMM and its gradients against float64, and the draws that feed it."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numba
import numpy as np
import pytest
import torch
from torch.nn.functional import normalize

from bslbench.kernels import cpu
from bslbench.kernels.norms import squared_norms, unit_rows
from bslbench.kernels.sddmm import Index, item_block, item_bounds, sddmm, sddmm_reference
from tests.fixtures import on_threads


def draw(
    n_rows: int, n_items: int, n_pos: int, n_neg: int, key: int = 7, ordered: bool = False
) -> tuple[Index, np.ndarray]:
    block = item_block(n_items)
    items = np.zeros((n_rows, n_pos + n_neg), np.int32)
    offsets = np.zeros((n_rows, -(-n_items // block) + 1), np.int32)
    order = np.zeros((n_rows, n_neg if ordered else 0), np.int64)
    items[:, :n_pos] = np.random.default_rng(key).integers(0, n_items, (n_rows, n_pos))
    cpu.draw_grouped(key, n_items, block, n_pos, items, offsets, order)
    found = torch.from_numpy(items), torch.from_numpy(offsets)
    return Index(*found, n_pos, item_bounds(n_items)), order


@pytest.mark.parametrize("cosine", [True, False])
@pytest.mark.parametrize(
    ("n_rows", "n_items", "dim", "n_pos", "n_neg"),
    [(37, 101, 16, 1, 33), (5, 40_000, 64, 16, 200), (3, 1, 7, 1, 1), (130, 5000, 20, 3, 0)],
)
def test_forward_and_gradients_equal_the_float64_reference(
    cosine: bool, n_rows: int, n_items: int, dim: int, n_pos: int, n_neg: int
) -> None:
    draws = torch.Generator().manual_seed(0)
    users = torch.randn(n_rows, dim, generator=draws)
    items = torch.randn(n_items, dim, generator=draws)
    weights = torch.randn(n_rows, n_pos + n_neg, generator=draws)
    index, _ = draw(n_rows, n_items, n_pos, n_neg)
    ours = [users.clone().requires_grad_(), items.clone().requires_grad_()]
    exact = [users.double().requires_grad_(), items.double().requires_grad_()]
    *parts, squared = sddmm(*ours, index, cosine=cosine)
    *expected_parts, expected_squared = sddmm_reference(*exact, index, cosine=cosine)
    scores, expected = torch.cat(parts, 1), torch.cat(expected_parts, 1)
    counts = torch.arange(n_items) % 3 * 0.01
    ((scores * weights).sum() + (squared * counts).sum()).backward()
    ((expected * weights).sum() + (expected_squared * counts).sum()).backward()
    torch.testing.assert_close(squared.double(), expected_squared, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(scores.double(), expected, rtol=1e-5, atol=1e-5)
    for mine, theirs in zip(ours, exact, strict=True):
        assert mine.grad is not None and theirs.grad is not None
        error = (mine.grad - theirs.grad).norm() / theirs.grad.norm().clamp_min(1e-12)
        assert error < 1e-5 or theirs.grad.norm() < 1e-6


def test_squared_norms_alone_have_their_gradient_too() -> None:
    index, _ = draw(4, 50, 1, 10)
    users, items = (torch.ones(n, 8).requires_grad_() for n in (4, 50))
    sddmm(users, items, index, cosine=True).squared.sum().backward()
    assert users.grad is not None and (users.grad == 0).all()
    assert items.grad is not None and (items.grad == 2).all()


def test_a_zero_row_gets_a_finite_gradient_as_from_normalize() -> None:
    index, _ = draw(4, 50, 1, 10)
    tables = [torch.zeros(4, 8), torch.randn(50, 8, generator=torch.Generator().manual_seed(1))]
    ours, exact = ([t.clone().requires_grad_() for t in tables] for _ in range(2))
    sddmm(*ours, index, cosine=True).neg.sum().backward()
    sddmm_reference(*exact, index, cosine=True).neg.sum().backward()
    assert ours[0].grad is not None and exact[0].grad is not None
    assert ours[0].grad.isfinite().all()
    torch.testing.assert_close(ours[0].grad, exact[0].grad, rtol=1e-4, atol=0)


def test_bits_do_not_depend_on_the_number_of_threads() -> None:
    index, _ = draw(200, 3000, 2, 50)
    outcomes = []
    for threads in (1, 2, 4):
        draws = torch.Generator().manual_seed(3)
        users = torch.randn(200, 32, generator=draws).requires_grad_()
        items = torch.randn(3000, 32, generator=draws).requires_grad_()
        with on_threads(threads):
            scores = torch.cat(sddmm(users, items, index, cosine=True)[:2], 1)
            scores.square().sum(1).sum().backward()
            drawn = draw(200, 3000, 2, 50)[0].items
        assert users.grad is not None and items.grad is not None
        outcomes.append([scores.detach(), users.grad, items.grad, drawn])
    for other in outcomes[1:]:
        assert all(map(torch.equal, outcomes[0], other))


BITS = """
import hashlib, torch
import numpy as np
from torch import nn
from tests.test_sddmm import draw
from bslbench.kernels import cpu_als
from bslbench.kernels.log_sum_exp import log_sum_exp
from bslbench.kernels.sddmm import sddmm
from bslbench.optimisers import Adam
draws = torch.Generator().manual_seed(3)
tables = [nn.Parameter(torch.randn(n, 50, generator=draws)) for n in (64, 1000)]
index, _ = draw(64, 1000, 2, 100)
scores = torch.cat(sddmm(*tables, index, cosine=True)[:2], 1)
log_sum_exp(scores, 0.1).sum().backward()
parts = [scores.detach(), *(table.grad for table in tables)]
rows = torch.tensor([3, 9, 3])
for lazy in (True, False):
    table = nn.Parameter(torch.randn(64, 50, generator=draws))
    adam = Adam([table], lazy=lazy)
    for part in torch.randn(3, 3, 50, generator=draws):
        adam.catch_up(rows)
        table.grad = torch.sparse_coo_tensor(rows[None], part, table.shape, check_invariants=True)
        adam.step(0.1)
    table.grad = torch.randn(64, 50, generator=draws)
    adam.step(0.1)
    parts.append(table.detach())
fixed, solved = (torch.randn(30, 50, generator=draws) for _ in range(2))
gram = torch.from_numpy(cpu_als.gram(fixed.numpy())).float()
listed = np.arange(31), np.arange(30, dtype=np.int32), fixed.numpy(), gram.numpy()
cpu_als.improve_for(50)(*listed, np.ones(30, np.float32), solved.numpy())
parts += [gram, solved]
print([hashlib.sha256(part.numpy().tobytes()).hexdigest() for part in parts])
"""


def test_one_process_compiles_and_those_after_it_come_to_its_bits(tmp_path: Path) -> None:
    bits, compiled = [], []
    for _ in range(2):
        process = subprocess.run(
            [sys.executable, "-c", BITS],
            env=os.environ | {"NUMBA_CACHE_DIR": str(tmp_path)},
            cwd=Path(__file__).parents[1],
            stdout=subprocess.PIPE,
            check=True,
        )
        bits.append(process.stdout)
        compiled.append(set(tmp_path.rglob("*.nbc")))
    assert compiled[0] == compiled[1] != set()
    assert bits[0] == bits[1]


def test_draws_are_uniform_grouped_and_a_function_of_key_and_row() -> None:
    n_items = 1000
    index, order = draw(2000, n_items, 1, 501, key=11, ordered=True)
    drawn = index.items[:, 1:].numpy()
    block = item_block(n_items)
    assert (np.diff(drawn // block, axis=1) >= 0).all()
    offsets = index.offsets.numpy()
    assert (offsets[:, 0] == 1).all() and (offsets[:, -1] == 502).all()
    for b in range(offsets.shape[1] - 1):
        columns = index.items[0, offsets[0, b] : offsets[0, b + 1]]
        assert ((columns // block) == b).all()
    counts = np.bincount(drawn.ravel(), minlength=n_items)
    expected = drawn.size / n_items
    chi2 = ((counts - expected) ** 2 / expected).sum()
    assert abs(chi2 - n_items) < 5 * np.sqrt(2 * n_items)
    assert (np.sort(order, axis=1) == np.arange(501)).all()
    in_draw_order = np.take_along_axis(drawn, order, axis=1)
    column_means = in_draw_order.mean(axis=0)
    assert abs(column_means - n_items / 2).max() < 6 * n_items / np.sqrt(12 * 2000)
    again, _ = draw(10, n_items, 1, 501, key=11)
    assert torch.equal(again.items[:, 1:], index.items[:10, 1:])
    other, _ = draw(10, n_items, 1, 501, key=12)
    assert not torch.equal(other.items[:, 1:], index.items[:10, 1:])


@pytest.mark.parametrize("n_items", [15, 9_000, 200_000, 2_000_000_000])
def test_items_lie_in_the_block_that_they_are_listed_in(n_items: int) -> None:
    """The first and the last item of each, where a division by multiplication would go wrong."""
    block = item_block(n_items)
    firsts = np.arange(0, n_items, block)
    assert len(firsts) <= 256 and (block <= 512 or len(firsts) > 250)
    edges = np.sort(np.concatenate([firsts, np.minimum(firsts + block, n_items) - 1]))
    index = np.zeros((1, len(edges)), np.int32)
    offsets, order = np.zeros((1, len(firsts) + 1), np.int32), np.zeros((1, 0), np.int32)
    group(edges.astype(np.int32)[::-1].copy(), block, index, offsets, order)
    assert (offsets[0] == 2 * np.arange(len(firsts) + 1)).all()
    assert (np.sort(index[0].reshape(-1, 2), axis=1) == edges.reshape(-1, 2)).all()


@numba.njit
def group(drawn: Any, block: int, index: Any, offsets: Any, order: Any) -> None:
    cpu.group_row(drawn, 0, block, 0, index, offsets, order)


@pytest.mark.parametrize("n_neg", [5, 400])
def test_the_rows_that_an_index_names_do_for_the_table(n_neg: int) -> None:
    """The same bits from them alone, forward and backward."""
    draws = torch.Generator().manual_seed(0)
    users, table = (torch.randn(n, 16, generator=draws) for n in (37, 9_000))
    index, _ = draw(37, len(table), 3, n_neg)
    names, local = index.renumbered()
    assert torch.equal(names, index.items.unique().long())
    assert torch.equal(names[local.items], index.items.long())
    ends = [(names >= bound).nonzero() for bound in index.bounds[:-1]]
    assert local.bounds.tolist() == [int(end[0]) for end in ends] + [len(names)]
    weights = torch.randn(37, 3 + n_neg, generator=draws)
    found = []
    for items, named in ((table, index), (table[names], local)):
        leaves = users.clone().requires_grad_(), items.clone().requires_grad_()
        scores = torch.cat(sddmm(*leaves, named, cosine=True)[:2], 1)
        (scores * weights).sum().backward()
        found.append((scores, *(leaf.grad for leaf in leaves)))
    (scores, of_users, of_table), (scores_too, of_users_too, of_named) = found
    assert torch.equal(scores, scores_too) and torch.equal(of_users, of_users_too)
    assert of_table is not None and torch.equal(of_table[names], of_named)
    assert of_table.count_nonzero() == of_named.count_nonzero()


@pytest.mark.parametrize("n_parts", [1, 2, 7, 400])
def test_counts_weigh_the_own_item_and_the_negatives_only(n_parts: int) -> None:
    items = draw(300, 70, 3, 40)[0].items.numpy()
    kept = np.concatenate([items[:, :1].ravel(), items[:, 3:].ravel()])
    for first, counted in ((3, kept), (43, items[:, 0])):
        counts = np.zeros((n_parts, 70), np.float32)
        cpu.count_items(items, first, counts)
        assert (counts.sum(0) == np.bincount(counted, minlength=70)).all()


def test_squared_norms_equal_plain_torch() -> None:
    x = torch.randn(50, 24, generator=torch.Generator().manual_seed(2)).requires_grad_()
    y = x.detach().clone().requires_grad_()
    weights = torch.arange(50.0)
    (squared_norms(x) * weights).sum().backward()
    (y.square().sum(1) * weights).sum().backward()
    assert x.grad is not None and y.grad is not None
    torch.testing.assert_close(x.grad, y.grad)


@pytest.mark.parametrize("dim", [1, 7, 24, 64])
def test_unit_rows_equal_normalize_in_float64(dim: int) -> None:
    draws = torch.Generator().manual_seed(3)
    x = torch.randn(dim, 50, generator=draws).t()  # rows that do not lie in one piece
    x[0], x[1] = 0, 1e-20
    weights = torch.randn(50, dim, generator=draws)
    ours, exact = x.clone().requires_grad_(), x.double().requires_grad_()
    scaled, expected = unit_rows(ours), normalize(exact, dim=1, eps=1e-12)
    (scaled * weights).sum().backward()
    (expected * weights).sum().backward()
    assert ours.grad is not None and exact.grad is not None
    torch.testing.assert_close(scaled.double(), expected, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(ours.grad.double(), exact.grad, rtol=1e-5, atol=1e-5)


def test_unit_rows_of_what_is_not_a_number_are_not_numbers() -> None:
    assert unit_rows(torch.full((1, 3), torch.nan)).isnan().all()


def test_second_derivatives_are_refused() -> None:
    index, _ = draw(4, 50, 1, 10)
    users, items = (torch.rand(n, 8, requires_grad=True) for n in (4, 50))
    made = sddmm(users, items, index, cosine=True).neg, squared_norms(items), unit_rows(items)
    for out in made:
        (grad,) = torch.autograd.grad(out.square().sum(), items, create_graph=True)
        with pytest.raises(RuntimeError, match="once_differentiable"):
            grad.sum().backward()
