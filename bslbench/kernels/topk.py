"""The best unseen items of each user, exact under ties."""

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from bslbench.kernels import cpu_topk, cuda_topk

IntArray = npt.NDArray[np.integer]

BLOCK_SCORES = 2**25
"""Scores to compute at a time (128 MiB), so that the cost of switching kernels does not show."""


def masked_topk(
    scores: Tensor,
    seen_indptr: IntArray,
    seen_indices: IntArray,
    tie_order: npt.NDArray[np.int32],
    k: int,
) -> tuple[Tensor, Tensor]:
    """Return the `k` best items of each row that the row has not seen, best first.

    The result depends neither on the number of threads nor on how rows are cut into blocks.

    Parameters
    ----------
    scores
        [n, I] float32, left as they are. NaN counts as minus infinity.
    seen_indptr, seen_indices
        CSR rows [n + 1], [nnz] of the items to leave out, ascending within a row; `seen_indptr`
        may be a slice of a larger matrix's.
    tie_order
        Permutation of the items, [I]: of equal scores the lower number is better.
    k
        Items per row.

    Returns
    -------
    tuple of Tensor
        items [n, k] int32 and their scores [n, k] float32. A row with fewer than `k` unseen items
        ends in items -1 with scores -inf.
    """
    if scores.is_cuda and scores.dtype == torch.float32:
        return cuda_topk.masked_topk(scores, seen_indptr, seen_indices, tie_order, k)
    if scores.device.type != "cpu" or scores.dtype != torch.float32:
        return masked_topk_reference(scores, seen_indptr, seen_indices, tie_order, k)
    scores = scores.detach()
    if scores.stride(1) != 1:
        scores = scores.contiguous()
    width = scores.stride(0)  # of rows that may be parts of longer ones
    n_flat = (len(scores) - 1) * width + scores.shape[1] if scores.numel() else 0
    flat = scores.as_strided((n_flat,), (1,))
    keys = np.empty((len(scores), k), np.int64)
    cpu_topk.best_keys(
        flat.view(torch.int32).numpy(),
        width,
        np.asarray(seen_indptr, dtype=np.int64),
        np.asarray(seen_indices, dtype=np.int32),
        tie_order,
        keys,
    )
    keys.sort(axis=1)
    items, top_scores = cpu_topk.unpacked(keys[:, ::-1], tie_order)
    return torch.from_numpy(items), torch.from_numpy(top_scores)


def masked_topk_reference(
    scores: Tensor,
    seen_indptr: IntArray,
    seen_indices: IntArray,
    tie_order: npt.NDArray[np.int32],
    k: int,
) -> tuple[Tensor, Tensor]:
    """`masked_topk` in plain torch, any device and dtype: two stable sorts of the whole rows."""
    n_rows, n_items = scores.shape
    device = scores.device
    by_order = torch.from_numpy(np.argsort(tie_order)).to(device)  # [I]
    rows = np.repeat(np.arange(n_rows), np.diff(seen_indptr))
    columns = tie_order[seen_indices[seen_indptr[0] : seen_indptr[-1]]]
    seen = torch.zeros(n_rows, n_items, dtype=torch.bool)
    seen[torch.from_numpy(rows), torch.from_numpy(columns).long()] = True
    seen = seen.to(device)

    ordered = scores[:, by_order]  # (n, I): ties now stand in the order that a stable sort keeps
    ordered = torch.where(ordered.isnan(), -torch.inf, ordered)
    top_scores, order = ordered.sort(dim=1, descending=True, stable=True)
    seen, unseen_first = seen.gather(1, order).sort(dim=1, stable=True)
    items = by_order[order.gather(1, unseen_first)].int().masked_fill(seen, -1)
    top_scores = top_scores.gather(1, unseen_first).masked_fill(seen, -torch.inf)

    missing = max(0, k - n_items)
    items = torch.nn.functional.pad(items[:, :k], (0, missing), value=-1)
    return items, torch.nn.functional.pad(top_scores[:, :k], (0, missing), value=-torch.inf)
