"""`masked_topk` where selection is one call of the device: (score, place) packed into one key."""

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn.functional import pad

IntArray = npt.NDArray[np.integer]

MAGNITUDE, SIGN = 0x7FFFFFFF, -(2**31)
INFINITY = 0x7F800000
"""The bits of infinity; those of NaN are above."""
SEEN = torch.iinfo(torch.int64).min


def masked_topk(
    scores: Tensor,
    seen_indptr: IntArray,
    seen_indices: IntArray,
    tie_order: npt.NDArray[np.int32],
    k: int,
) -> tuple[Tensor, Tensor]:
    """`bslbench.kernels.topk.masked_topk` in torch for float32 scores on any device, exact.

    Keys of unseen items are all different, so ties leave nothing to the device's order. They take
    twice the memory of the scores.
    """
    n_rows, n_items = scores.shape
    places = torch.from_numpy(tie_order).to(scores.device)  # [I]
    bits = scores.detach().contiguous().view(torch.int32)
    ordered = bits & MAGNITUDE  # integers in the order of the floats: -0 = 0, NaN = -infinity
    ordered = torch.where(ordered > INFINITY, -INFINITY, torch.where(bits < 0, -ordered, ordered))
    keys = (ordered.long() << 32) | (n_items - 1 - places)  # (n, I)
    rows = np.repeat(np.arange(n_rows), np.diff(seen_indptr))
    seen = rows * n_items + seen_indices[seen_indptr[0] : seen_indptr[-1]]
    keys.view(-1).index_fill_(0, torch.from_numpy(seen).to(keys.device), SEEN)

    keys = keys.topk(min(k, n_items), dim=1).values  # (n, k), the largest first
    keys = pad(keys, (0, k - keys.shape[1]), value=SEEN)
    found = keys != SEEN
    items = places.argsort().int()[n_items - 1 - (keys & 0xFFFFFFFF)].masked_fill(~found, -1)
    ordered = (keys >> 32).int()
    bits = torch.where(ordered < 0, -ordered | SIGN, ordered)
    return items, bits.view(torch.float32).masked_fill(~found, -torch.inf)
