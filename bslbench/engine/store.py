"""Results on disk: one folder per run, shared by all grids, and one folder per grid.

A run's ``metrics.csv`` is written last, to a temporary name, and renamed: its presence means that
the run is finished. A grid's files are derived from its cells and can be rebuilt at any time.
"""

import csv
import io
import json
import os
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bslbench.config import Cell, Scalar
from bslbench.errors import DataError

LEADING = ["run_id", "dataset", "backbone", "loss", "noise_pos", "noise_neg", "noise_fneg"]
LEADING += ["seed", "selection"]
TRAILING = ["split", "metric", "k", "group", "value"]
CLEAN: dict[str, Scalar] = {"noise_pos": 0.0, "noise_neg": 1.0, "noise_fneg": 0.0}
"""What the noise columns say of a cell without noise."""

Row = Mapping[str, Any]


@dataclass(frozen=True)
class Run:
    """The folder of one run."""

    folder: Path

    def file(self, name: str) -> Path:
        """Return the path of one of the run's files."""
        return self.folder / name

    def finished(self, cell: Cell) -> bool:
        """Tell whether the run is finished and is this very cell, not one of the same name.

        Raises
        ------
        DataError
            If the folder holds another configuration than its id says.
        """
        if not self.file("metrics.csv").exists():
            return False
        if self.info()["canonical"] != json.loads(cell.canonical()):
            raise DataError(f"{self.folder} holds another run than its name says; remove it")
        return True

    def info(self) -> dict[str, Any]:
        """Return ``run.json``."""
        return dict(json.loads(self.file("run.json").read_text()))

    def metrics(self) -> list[dict[str, str]]:
        """Return the rows of ``metrics.csv``, as text.

        Raises
        ------
        DataError
            If the file is not whole.
        """
        path = self.file("metrics.csv")
        with path.open(newline="") as file:
            rows = list(csv.DictReader(file))
        if not rows or any(set(row) != set(TRAILING) or not row["value"] for row in rows):
            raise DataError(f"{path} is not whole; remove {self.folder} and train again")
        return rows

    def failure(self) -> dict[str, str] | None:
        """Return ``failure.json`` of a failed run, else None."""
        path = self.file("failure.json")
        return dict(json.loads(path.read_text())) if path.exists() else None

    def status(self) -> str:
        """Return ``finished``, ``failed`` or ``missing``."""
        if self.file("metrics.csv").exists():
            return "finished"
        return "failed" if self.file("failure.json").exists() else "missing"


class Store:
    """The results folder."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def run(self, cell_id: str) -> Run:
        """Return the folder of a run, which need not exist."""
        return Run(self.root / "runs" / cell_id)

    def write_grid(self, name: str, cells: Sequence[Cell]) -> None:
        """Write what a grid asked for and what came out: grid.toml, metrics.csv, runs.csv."""
        folder = self.root / name
        folder.mkdir(parents=True, exist_ok=True)
        cells = sorted(cells, key=_order)
        write_atomically(folder / "grid.toml", grid_toml(name, cells))
        finished = [cell for cell in cells if self.run(cell.id).finished(cell)]
        varying = _varying(cells)
        rows = [
            self._identity(cell, varying) | row
            for cell in finished
            for row in self.run(cell.id).metrics()
        ]
        write_atomically(folder / "metrics.csv", csv_text([*LEADING, *varying, *TRAILING], rows))
        runs = [self._run_row(cell) for cell in cells]
        columns = list(dict.fromkeys(key for row in runs for key in row))
        write_atomically(folder / "runs.csv", csv_text(columns, runs))

    def _identity(self, cell: Cell, varying: list[str]) -> dict[str, Any]:
        flat = CLEAN | cell.flat() | {"run_id": cell.id}
        return {column: flat.get(column, "") for column in [*LEADING, *varying]}

    def _run_row(self, cell: Cell) -> dict[str, Any]:
        run = self.run(cell.id)
        status = run.status()
        outcome = run.info()["outcome"] if status == "finished" else {}
        return {"run_id": cell.id, "status": status} | CLEAN | cell.flat() | outcome


def _order(cell: Cell) -> tuple[str, ...]:
    flat = cell.flat()
    settings = json.dumps({k: v for k, v in flat.items() if k != "seed"}, sort_keys=True)
    return cell.dataset, cell.backbone, cell.loss, settings, f"{cell.seed:012d}"


def _varying(cells: Iterable[Cell]) -> list[str]:
    """Return the fields, beside the leading ones, that are not the same in every cell."""
    flats = [cell.flat() for cell in cells]
    keys = dict.fromkeys(key for flat in flats for key in flat)
    values = {key: {repr(flat.get(key)) for flat in flats} for key in keys}
    return [key for key in keys if len(values[key]) > 1 and key not in (*LEADING, "fingerprint")]


def grid_toml(name: str, cells: Sequence[Cell]) -> str:
    """Return the resolved grid as TOML: the list of its cells, every field spelt out."""
    lines = [f"name = {json.dumps(name)}", 'primary = "Recall@20"']
    for cell in cells:
        lines += ["", "[[cells]]", f"id = {json.dumps(cell.id)}"]
        lines += [f"{key} = {json.dumps(value)}" for key, value in cell.flat().items()]
    return "\n".join(lines) + "\n"


def csv_text(columns: Sequence[str], rows: Iterable[Row]) -> str:
    """Return rows as CSV with LF line ends; floats in shortest round-trip form."""
    out = io.StringIO()
    writer = csv.DictWriter(out, columns, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return out.getvalue()


def write_atomically(path: Path, content: str | bytes) -> None:
    """Write to a temporary name beside `path`, sync, rename: readers see all of it or nothing."""
    data = content.encode() if isinstance(content, str) else content
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
