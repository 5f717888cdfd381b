"""Is a pack what it says? Its metrics from its ranks, and some of its runs made again."""

import csv
import io
import json
import random
import tomllib
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import stdev
from tempfile import TemporaryDirectory

import numpy as np
from scipy import stats

from bslbench.config import Cell
from bslbench.engine.cell import run_cell
from bslbench.engine.inputs import Options
from bslbench.engine.machine import bits_rest_on
from bslbench.engine.pack import Pack
from bslbench.engine.store import Run, Store
from bslbench.errors import DataError
from bslbench.evaluation.metrics import summary
from bslbench.evaluation.ranks import Ranks
from bslbench.losses import LOSSES
from bslbench.losses.base import declared

SURE = 0.99
"""How often an honest run on another kind of machine lies within its band."""


@dataclass(frozen=True)
class Check:
    """A run of a pack and the same run made here.

    Attributes
    ----------
    stated, found
        Recall@20 on test.
    same_machine
        Whether versions and processor are those of the pack, so that bytes must be.
    same_bytes
        Whether the metrics are equal byte for byte.
    band
        How far apart two seeds of these settings may lie, by the pack's own seeds; None with one,
        or where they are all alike.
    """

    cell: Cell
    stated: float
    found: float
    same_machine: bool
    same_bytes: bool
    band: float | None

    @property
    def verdict(self) -> str:
        """``same bytes``, ``within the band``, ``differs`` or ``cannot be told``."""
        if self.same_bytes:
            return "same bytes"
        if self.same_machine:
            return "differs"
        if self.band is None:
            return "cannot be told"
        return "within the band" if abs(self.found - self.stated) <= self.band else "differs"


def check_metrics(pack: Pack, root: Path) -> None:
    """Compute the metrics of each run of an unpacked pack from its ranks, its tables from these.

    Raises
    ------
    DataError
        Naming the first run whose stated metrics are others, or the table that states others.
    """
    for cell in pack.cells:
        run = Store(root).run(cell.id)
        if not run.finished(cell):
            raise DataError(f"{pack.where}: the metrics of {cell.id} are not those of its run.json")
        found = summary(Ranks.load(run.file("ranks.npz")))
        stated = _stated(run)
        for metric, k, value in found:
            if stated.get((metric, str(k))) != value and not np.isnan(value):
                raise DataError(f"{pack.where}: {cell.id}: its ranks give {metric}@{k} {value!r}")
    again = f"{pack.grid}-again"
    Store(root).write_grid(again, pack.cells)
    for name, read in (("metrics.csv", _rows), ("runs.csv", _rows), ("grid.toml", _cells)):
        if read(pack.text(name) or "") != read((root / again / name).read_text("utf-8")):
            raise DataError(f"{pack.where}: grid/{name} is not what its runs give")


def _rows(table: str) -> list[list[tuple[str, str]]]:
    """Return the rows of a CSV in an order of their own, without what is empty."""
    rows = csv.DictReader(io.StringIO(table))
    lacking = ("loss_version", "1")  # in packs from before losses had versions
    return sorted(
        sorted(pair for pair in row.items() if pair[1] and pair != lacking) for row in rows
    )


def _cells(grid: str) -> list[str]:
    """Return the cells of a ``grid.toml`` in an order of their own; none if it is damaged."""
    try:
        cells = [{"loss_version": 1} | cell for cell in tomllib.loads(grid)["cells"]]
        return sorted(json.dumps(cell, sort_keys=True) for cell in cells)
    except (ValueError, KeyError, TypeError):
        return []


def rerun(
    pack: Pack, root: Path, sample: int, seed: int, options: Options, tell: Callable[[str], None]
) -> Iterator[Check]:
    """Make some runs of an unpacked pack again, drawn at random, and compare.

    Runs of somebody's own code are left out, and of older versions of our losses: only what stands
    in this package is run.

    Parameters
    ----------
    root
        Where the pack is unpacked.
    tell
        Called with the id of each run before it starts.
    """
    ours = [cell for cell in pack.cells if _stands_here(cell)]
    bands = _bands(pack.cells, Store(root))
    for cell in random.Random(seed).sample(ours, min(sample, len(ours))):
        tell(cell.id)
        with TemporaryDirectory(prefix="bslbench-verify-") as folder:
            run_cell(cell, Store(Path(folder)), options)
            yield _compared(cell, Store(root).run(cell.id), Store(Path(folder)).run(cell.id), bands)


def _stands_here(cell: Cell) -> bool:
    if cell.loss_source or cell.backbone_source:
        return False
    loss = LOSSES.get(cell.loss)  # None for a reference
    return loss is None or declared(loss, "version") == cell.loss_version


def _compared(cell: Cell, packed: Run, made: Run, bands: dict[str, float]) -> Check:
    stated, found = (_stated(run)["Recall", "20"] for run in (packed, made))
    outcome = packed.info()["outcome"]
    return Check(
        cell,
        stated,
        found,
        # Older runs do not say which numba they had.
        all(outcome.get(name, here) == here for name, here in bits_rest_on().items()),
        packed.file("metrics.csv").read_bytes() == made.file("metrics.csv").read_bytes(),
        bands.get(_settings(cell)),
    )


def _stated(run: Run) -> dict[tuple[str, str], float]:
    rows = [row for row in run.metrics() if row["split"] == "test" and not row["group"]]
    return {(row["metric"], row["k"]): float(row["value"]) for row in rows}


def _settings(cell: Cell) -> str:
    return cell.changed(seed=0).canonical()


def _bands(cells: Sequence[Cell], store: Store) -> dict[str, float]:
    """Return by settings how far apart two draws lie at most, `SURE` of the time.

    Another machine rounds otherwise, and after thousands of steps that is as good as another seed:
    t sd sqrt(2), t with n - 1 degrees of freedom. What draws nothing has no band:
    its seeds are one run.
    """
    values: defaultdict[str, list[float]] = defaultdict(list)
    for cell in cells:
        values[_settings(cell)].append(_stated(store.run(cell.id))["Recall", "20"])
    return {
        settings: float(stats.t.ppf((1 + SURE) / 2, len(own) - 1)) * stdev(own) * 2**0.5
        for settings, own in values.items()
        if len(set(own)) > 1
    }
