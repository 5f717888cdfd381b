"""``python -m benchmarks``: one table of the plain formulation against ours, and how steps grow."""

import argparse
import json
import os
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import bslbench  # noqa: F401  before torch: it sets how OpenMP threads wait

# isort: split
import torch
from tabulate import tabulate

from benchmarks import lightgcn
from benchmarks.cases import CASES, World
from benchmarks.measure import Case, Machine, Row, measure
from benchmarks.scaling import Sizes, scaling
from bslbench.data.load import load
from bslbench.engine.machine import processor
from bslbench.errors import BslbenchError

YELP_SIZED = "synthetic?users=31668&items=38048&interactions=1561406"
COLUMNS = ["case", "plain ms", "ours ms", "ratio", "plain MiB", "ours MiB", "floor"]
NOTES = """\
ms: median of many, plain and ours taking turns. ratio: plain over ours; for `evaluation` plain is
its GEMM alone, for `mf-pool` the plain step with own negatives; `lazy` rows have adam_lazy. MiB:
peak of one call above what was held before it. floor: the time that GEMM rate or bandwidth allow at
best, over ours."""


def main(arguments: list[str] | None = None) -> None:
    options = parser().parse_args(arguments)
    world = world_of(options)
    machine = Machine.measure(options.device)
    about = {
        "data": world.name,
        "device": options.device,
        "processor": torch.cuda.get_device_name() if options.device != "cpu" else processor(),
        "threads": torch.get_num_threads(),
        "load": round(os.getloadavg()[0], 2),
        "gemm_gflops": round(machine.flops / 1e9, 1),
        "bandwidth_gb": round(machine.bandwidth / 1e9, 1),
        "torch": torch.__version__,
    }
    print(", ".join(f"{key} {value}" for key, value in about.items()))
    rows = []
    for name, make in cases(options.device).items():
        if wanted(name, options.only):
            row = measure(name, make(world), machine, options.device, options.rounds)
            rows.append(row)
            against = f", {row.ratio:.3g}x" if row.ratio else ""
            print(f"  {name}: {row.ms:.3g} ms{against}", flush=True)
    grown = []
    if wanted("scaling", options.only):
        sizes = Sizes(world.batch_size, world.n_negatives, world.dim)
        grown = scaling(options.device, sizes, max(1, options.rounds // 3))
    print(tabulate([line(row) for row in rows], headers=COLUMNS, floatfmt="#.3g"))
    print(NOTES)
    if grown:
        print(tabulate(grown, headers=["axis", "value", "ms per step", "factor"], floatfmt=".3g"))
    if options.json:
        content = {"about": about, "rows": [asdict(row) for row in rows], "scaling": grown}
        options.json.write_text(json.dumps(content, indent=1) + "\n")


def parser() -> argparse.ArgumentParser:
    names = ", ".join(cases())
    result = argparse.ArgumentParser("python -m benchmarks", description=__doc__)
    result.add_argument("--only", nargs="+", metavar="NAME", help=f"of {names}, scaling; or begin")
    result.add_argument("--rounds", type=int, default=15, help="turns of plain and ours")
    result.add_argument("--device", default="cpu", help="cpu or cuda")
    result.add_argument("--json", type=Path, metavar="FILE", help="keep the figures here")
    result.add_argument("--data", type=Path, metavar="DIR", help="data folder (BSLBENCH_DATA)")
    result.add_argument("--dataset", help="default: yelp2018, else synthetic of the same size")
    result.add_argument("--batch-size", type=int, default=1024, metavar="B")
    result.add_argument("--negatives", type=int, default=800, metavar="M")
    result.add_argument("--dim", type=int, default=64, metavar="D")
    return result


def cases(device: str = "cpu") -> dict[str, Callable[[World], Case]]:
    """Return all cases that a device has, those of graph backbones among them."""
    every = CASES | lightgcn.CASES
    return {name: case for name, case in every.items() if device == "cpu" or "lazy" not in name}


def wanted(name: str, only: list[str] | None) -> bool:
    return only is None or any(name.startswith(start) for start in only)


def world_of(options: argparse.Namespace) -> World:
    """Load the dataset asked for; without one, Yelp2018 or what is as large."""
    name = options.dataset or "yelp2018"
    try:
        data = load(name, options.data)
    except BslbenchError:
        if options.dataset:
            raise
        name = YELP_SIZED
        data = load(name)
    sizes = options.batch_size, options.negatives, options.dim
    return World(data, name, options.data, options.device, *sizes)


def line(row: Row) -> list[object]:
    share = f"{row.floor:.0%}" if row.floor is not None else None
    return [row.name, row.plain_ms, row.ms, row.ratio, row.plain_mib, row.mib, share]


if __name__ == "__main__":
    main()
