"""SDDMM, its gradients and its draws on CUDA (Triton), in a fixed order, without autotuning.

Every sum belongs to one program, which adds in a fixed order. For the item table's gradient the
pairs are sorted by (item, row, column) and each program sums one item's; the only atomics add
whole numbers, which commute to the bit. Nothing waits for the device, so that a step can be
captured in a graph.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.autograd.function import once_differentiable

if TYPE_CHECKING:
    from bslbench.kernels.sddmm import Index

EPS = 1e-12
TILE = 4096
"""Numbers that a program holds at a time: gathered rows x embedding size, to powers of 2."""

DRAWS = 256
"""Draws or counts of one program."""


def jit(kernel: Callable[..., None]) -> Any:
    """Compile at the first launch; under ``TRITON_INTERPRET=1`` run it in Python, on the CPU."""
    return triton.jit(kernel)


def sddmm(
    users: Tensor, items: Tensor, index: "Index", *, cosine: bool, half: bool = False
) -> tuple[Tensor, Tensor]:
    """`bslbench.kernels.sddmm.sddmm` for tables on a CUDA device.

    Parameters
    ----------
    users, items
        [B, d] and [I, d] float32.
    index
        Its columns may come in any order; the offsets are not looked at.
    half
        Gather rows rounded to bfloat16, half the traffic; norms, sums and gradients stay float32.

    Returns
    -------
    tuple of Tensor
        Scores [B, K + M] and the squared norms of the item rows [I], float32.
    """
    outcome: tuple[Tensor, Tensor] = _CudaSddmm.apply(users, items, index.items, cosine, half)  # type: ignore[no-untyped-call]
    return outcome


def draw(key: Tensor, pos_items: Tensor, n_items: int, n_neg: int) -> Tensor:
    """Return positives [B, K] and uniform negatives in draw order, [B, K + M] int32.

    A row's negatives are, as a set, those that the CPU draws under the same key.

    Parameters
    ----------
    key
        0-d int64 on the device: a captured graph reads there what its next replay should draw.
    """
    n_rows, n_pos = pos_items.shape
    columns = torch.empty(
        n_rows, n_pos + n_neg, dtype=torch.int32, device=pos_items.device
    )  # (B, K + M)
    columns[:, :n_pos] = pos_items
    if n_neg:
        grid = n_rows, triton.cdiv(n_neg, DRAWS)
        _draw[grid](key, columns, n_items, n_pos, n_neg, BLOCK=DRAWS)
    return columns


def count_items(columns: Tensor, n_items: int, n_pos: int, negatives: bool) -> Tensor:
    """Return how often each item stands in column 0 or, if asked for, in columns K on, [I] float32.

    Parameters
    ----------
    columns
        [B, K + M] int32.
    """
    n_rows, n_columns = columns.shape
    counts = torch.zeros(n_items, dtype=torch.int32, device=columns.device)
    grid = n_rows, triton.cdiv(n_columns if negatives else 1, DRAWS)
    _count[grid](columns, counts, n_columns, n_pos, n_columns if negatives else 1, BLOCK=DRAWS)
    return counts.float()


class _CudaSddmm(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, users: Tensor, items: Tensor, columns: Tensor, cosine: bool, half: bool
    ) -> tuple[Tensor, Tensor]:
        users, items, columns = users.contiguous(), items.contiguous(), columns.contiguous()
        squared = items.square().sum(1)
        user_scale, user_pull = _scales(users.square().sum(1), cosine)
        item_scale, item_pull = _scales(squared, cosine)
        gathered = (users.bfloat16(), items.bfloat16()) if half else (users, items)
        scores = torch.empty(columns.shape, device=users.device)
        (n_rows, n_columns), dim = columns.shape, users.shape[1]
        shape = tile(dim)
        grid = n_rows, triton.cdiv(n_columns, shape["ROWS"])
        _forward[grid](*gathered, user_scale, item_scale, columns, scores, n_columns, dim, **shape)
        scales = user_scale, user_pull, item_scale, item_pull
        ctx.save_for_backward(users, items, *gathered, *scales, columns)
        ctx.set_materialize_grads(False)
        return scores, squared

    @staticmethod
    @once_differentiable
    def backward(
        ctx: Any, grad: Tensor | None, grad_squared: Tensor | None
    ) -> tuple[Tensor, Tensor, None, None, None]:
        users, items, *gathered, columns = ctx.saved_tensors
        gathered_users, gathered_items, user_scale, user_pull, item_scale, item_pull = gathered
        (n_rows, n_columns), n_items = columns.shape, len(items)
        grad = items.new_zeros(columns.shape) if grad is None else grad.contiguous()
        flat = columns.flatten()
        if grad_squared is None:
            grad_squared = items.new_zeros(n_items)
        grad_users, grad_items = torch.empty_like(users), torch.empty_like(items)
        # Row by row: the entries lie side by side.
        bounds = torch.arange(max(n_rows, n_items) + 1, device=grad.device, dtype=torch.int32)
        entries = torch.arange(n_rows * n_columns, device=grad.device, dtype=torch.int32)
        own = users, user_scale, user_pull, users.new_zeros(n_rows)
        groups = entries, flat, bounds[: n_rows + 1] * n_columns
        _gradient(own, gathered_items, item_scale, grad, groups, grad_users)
        # Item by item: a stable sort leaves rows, and columns within them, in order.
        ordered, entries = flat.sort(stable=True)
        own = items, item_scale, item_pull, grad_squared.contiguous()
        starts = torch.searchsorted(ordered, bounds[: n_items + 1], out_int32=True)
        groups = entries, (entries // n_columns).int(), starts
        _gradient(own, gathered_users, user_scale, grad, groups, grad_items)
        return grad_users, grad_items, None, None, None


def _gradient(
    own: tuple[Tensor, Tensor, Tensor, Tensor],
    others: Tensor,
    other_scale: Tensor,
    grad: Tensor,
    groups: tuple[Tensor, Tensor, Tensor],
    out: Tensor,
) -> None:
    """Write the gradient of one side's rows, [n, d].

    Parameters
    ----------
    own
        This side's rows, scales, pulls, and the gradient of its squared norms.
    others, other_scale
        The other side's rows and scales.
    groups
        Entries grouped by own row: their places in `grad` [e], the other side's rows [e] int32,
        and where each own row's entries start [n + 1] int32.
    """
    dim = out.shape[1]
    _gradient_kernel[(len(out),)](*own, others, other_scale, grad, *groups, out, dim, **tile(dim))


def _scales(squared: Tensor, cosine: bool) -> tuple[Tensor, Tensor]:
    """Return per row the factor on its products and that on the derivative of its norm, [n]."""
    if not cosine:
        return torch.ones_like(squared), torch.zeros_like(squared)
    norms = squared.sqrt()
    scale = norms.clamp_min(EPS).reciprocal()
    return scale, torch.where(norms > EPS, scale.square(), 0.0)


def tile(dim: int) -> dict[str, int]:
    """Return the shape of what a program holds: d up to a power of 2, and as many rows as fit."""
    padded = triton.next_power_of_2(dim)
    return {"ROWS": max(1, min(64, TILE // padded)), "DIM": padded}


@jit
def _forward(
    users: tl.tensor,
    items: tl.tensor,
    user_scale: tl.tensor,
    item_scale: tl.tensor,
    columns: tl.tensor,
    scores: tl.tensor,
    n_columns: tl.tensor,
    dim: tl.tensor,
    ROWS: tl.constexpr,
    DIM: tl.constexpr,
) -> None:
    """One user against ROWS of its columns."""
    i = tl.program_id(0).to(tl.int64)
    c = tl.program_id(1) * ROWS + tl.arange(0, ROWS)
    k = tl.arange(0, DIM)
    inside, real = c < n_columns, k < dim
    j = tl.load(columns + i * n_columns + c, mask=inside, other=0).to(tl.int64)
    user = tl.load(users + i * dim + k, mask=real, other=0.0).to(tl.float32)  # (DIM,)
    places = items + j[:, None] * dim + k[None, :]
    rows = tl.load(places, mask=inside[:, None] & real[None, :], other=0.0)  # (ROWS, DIM)
    products = tl.sum(rows.to(tl.float32) * user[None, :], axis=1)
    factors = tl.load(user_scale + i) * tl.load(item_scale + j, mask=inside, other=0.0)
    tl.store(scores + i * n_columns + c, products * factors, mask=inside)


@jit
def _gradient_kernel(
    rows: tl.tensor,
    scale: tl.tensor,
    pull: tl.tensor,
    grad_squared: tl.tensor,
    other_rows: tl.tensor,
    other_scale: tl.tensor,
    grad: tl.tensor,
    entries: tl.tensor,
    partners: tl.tensor,
    starts: tl.tensor,
    out: tl.tensor,
    dim: tl.tensor,
    ROWS: tl.constexpr,
    DIM: tl.constexpr,
) -> None:
    """All entries of one row x, ROWS at a time: ``s (t - pull <t, x> x) + 2 g x``.

    t sums gradient times the partner's scale times the partner's row; g is that of <x, x>.
    """
    i = tl.program_id(0).to(tl.int64)
    k = tl.arange(0, DIM)
    real = k < dim
    first, last = tl.load(starts + i), tl.load(starts + i + 1)
    total = tl.zeros((DIM,), tl.float32)
    for start in range(first, last, ROWS):
        e = start + tl.arange(0, ROWS)
        inside = e < last
        entry = tl.load(entries + e, mask=inside, other=0)
        j = tl.load(partners + e, mask=inside, other=0).to(tl.int64)
        weight = tl.load(grad + entry, mask=inside, other=0.0)
        weight *= tl.load(other_scale + j, mask=inside, other=0.0)
        places = other_rows + j[:, None] * dim + k[None, :]
        partner = tl.load(places, mask=inside[:, None] & real[None, :], other=0.0)  # (ROWS, DIM)
        total += tl.sum(weight[:, None] * partner.to(tl.float32), axis=0)
    own = tl.load(rows + i * dim + k, mask=real, other=0.0)
    along = tl.load(pull + i) * tl.sum(total * own, axis=0)
    result = tl.load(scale + i) * (total - along * own) + 2 * tl.load(grad_squared + i) * own
    tl.store(out + i * dim + k, result, mask=real)


@jit
def _draw(
    key: tl.tensor,
    columns: tl.tensor,
    n_items: tl.tensor,
    n_pos: tl.tensor,
    n_neg: tl.tensor,
    BLOCK: tl.constexpr,
) -> None:
    """BLOCK negatives of one row, by the counters and the mixer of `cpu.draw_grouped`."""
    i = tl.program_id(0).to(tl.int64)
    j = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    stream = _mix(tl.load(key).to(tl.uint64) + i.to(tl.uint64) * 0x9E3779B97F4A7C15)
    counter = (j - j % 2 + 1).to(tl.uint64)
    bits = _mix(stream + counter * 0x9E3779B97F4A7C15)
    half = tl.where(j % 2 == 0, bits >> 32, bits & 0xFFFFFFFF)
    drawn = (half * n_items) >> 32
    places = columns + i * (n_pos + n_neg) + n_pos + j
    tl.store(places, drawn.to(tl.int32), mask=j < n_neg)


@jit
def _mix(z: tl.tensor) -> tl.tensor:
    """The finaliser of splitmix64, as in `cpu`."""
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9
    z = (z ^ (z >> 27)) * 0x94D049BB133111EB
    return z ^ (z >> 31)


@jit
def _count(
    columns: tl.tensor,
    counts: tl.tensor,
    n_columns: tl.tensor,
    n_pos: tl.tensor,
    last: tl.tensor,
    BLOCK: tl.constexpr,
) -> None:
    """Count the items of one row's columns 0 and K up to `last`."""
    i = tl.program_id(0).to(tl.int64)
    c = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    counted = (c < last) & ((c == 0) | (c >= n_pos))
    j = tl.load(columns + i * n_columns + c, mask=counted, other=0)
    tl.atomic_add(counts + j, 1, mask=counted)
