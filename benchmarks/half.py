"""``python -m benchmarks.half FOLDER``: what rows rounded to bfloat16 cost in Recall@20.

The CUDA kernel can gather rows rounded to bfloat16, sums and gradients staying float32. Here, on
the CPU, rows are rounded before they are multiplied, and gradients go to the float32 rows. Each
seed trains twice at tuned settings, with the same draws, as they are and rounded; what has ended in
FOLDER is not trained again.
"""

import argparse
from pathlib import Path
from statistics import fmean, stdev
from typing import Any
from unittest.mock import patch

import bslbench

# isort: split
from torch import Tensor
from torch.autograd import Function

from bslbench.config import Grid
from bslbench.kernels.sddmm import Index, Scores, sddmm
from bslbench.sampling import own

METRIC = "Recall@20"


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.half", description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--dataset", default="movielens-1m")
    parser.add_argument("--losses", nargs="+", default=["mse", "bpr", "sl"])
    parser.add_argument("--seeds", type=int, default=5)
    options = parser.parse_args(arguments)
    grid = Grid(
        name="half",
        datasets=[options.dataset],
        losses=options.losses,
        seeds=options.seeds,
        presets="tuned",
        set={"sampler": "own"},
    )
    whole = recalls(grid, options.folder / "float32")
    with patch.object(own, "sddmm", of_rounded):
        half = recalls(grid, options.folder / "bfloat16")
    for loss in options.losses:
        change = [half[loss, s] / whole[loss, s] - 1 for s in range(options.seeds)]
        error = stdev(change) / len(change) ** 0.5 if len(change) > 1 else float("nan")
        levels = (fmean(found[loss, s] for s in range(options.seeds)) for found in (whole, half))
        print(
            f"{loss}: {METRIC} {' and '.join(f'{level:.4f}' for level in levels)}, "
            f"{fmean(change):+.2%}, standard error {error:.2%} over {len(change)} seeds"
        )


def recalls(grid: Grid, folder: Path) -> dict[tuple[str, int], float]:
    """Train what is missing, in this process, and return the metric of each loss and seed."""
    rows = bslbench.run(grid, results_dir=folder, jobs=1)
    name, cutoff = METRIC.split("@")
    rows = rows[
        (rows.metric == name) & (rows.k == int(cutoff)) & (rows.split == "test") & rows.group.eq("")
    ]
    return {(row.loss, row.seed): row.value for row in rows.itertuples()}


def of_rounded(users: Tensor, items: Tensor, index: Index, *, cosine: bool) -> Scores:
    """`sddmm` of rows rounded to bfloat16."""
    rounded: list[Tensor] = [_Rounded.apply(rows) for rows in (users, items)]  # type: ignore[no-untyped-call]
    return sddmm(*rounded, index, cosine=cosine)


class _Rounded(Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.bfloat16().float()

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        return grad


if __name__ == "__main__":
    main()
