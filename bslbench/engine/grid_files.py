"""The files of a grid, ``grid.toml``, ``metrics.csv`` and ``runs.csv``: what stands in them."""

import csv
import io
import json
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bslbench.config import FRAMING, Cell, Scalar
from bslbench.errors import DataError
from bslbench.toml import toml_value

LEADING = ["run_id", "dataset", "backbone", "loss", "noise_pos", "noise_neg", "noise_fneg"]
LEADING += ["seed", "selection"]
TRAILING = ["split", "metric", "k", "group", "value"]

PLANNED = dict.fromkeys(("id", "dataset", "backbone", "loss", "selection"), str) | {"seed": int}
"""What every cell of a ``grid.toml`` has."""

Row = Mapping[str, Any]


@dataclass(frozen=True)
class Listed:
    """A cell of which there is what ``grid.toml`` says: its id and every field spelt out."""

    id: str
    fields: dict[str, Scalar]

    def flat(self) -> dict[str, Scalar]:
        """Return every field by its plain name."""
        return self.fields


Entry = Cell | Listed


OTHERWISE = "; set otherwise"
"""How `sources` ends where a grid has other settings than its presets."""


def sources(origin: Mapping[str, str]) -> str:
    """Return where settings are from: the presets or the trial, else ``grid`` or ``default``.

    Presets are no longer what they were where a grid sets the loss, or its rate, otherwise: said by
    `OTHERWISE`.

    Examples
    --------
    >>> sources({"lr": "published preset", "epochs": "grid mine", "dim": "default"})
    'published'
    >>> sources({"lr": "published preset", "tau": "grid mine", "dim": "default"})
    'published; set otherwise'
    >>> sources({"lr": "grid trial", "dim": "default"}), sources({"lr": "default"})
    ('grid', 'default')
    """
    found = sorted(set(origin.values()))
    tuned = [text.removesuffix(" preset") for text in found if text.endswith(" preset")]
    if tuned and any(o.startswith("grid ") for key, o in origin.items() if key not in FRAMING):
        tuned[-1] += OTHERWISE
    tuned += [text for text in found if text == "trial"]
    by_grid = "grid" if any(text.startswith("grid ") for text in found) else "default"
    return "; ".join(tuned) or by_grid


def read_plan(path: Path) -> list[dict[str, Any]]:
    """Return the cells of a ``grid.toml``, each with its id and every field.

    Raises
    ------
    DataError
        If the file is damaged.
    """
    try:
        cells: list[dict[str, Any]] = tomllib.loads(path.read_text("utf-8"))["cells"]
        for cell in cells:
            cell.setdefault("loss_version", 1)  # which older grids do not say
            for key, kind in PLANNED.items():
                if not isinstance(cell[key], kind):
                    raise TypeError(key)
    except (ValueError, KeyError, TypeError) as error:  # TOML and decoding errors are ValueErrors
        raise DataError(f"{path} is not whole; train the grid again") from error
    return cells


def listed_in(folder: Path) -> list[Listed]:
    """Return the cells of the grid that a folder holds, none if it holds none."""
    path = folder / "grid.toml"
    cells = read_plan(path) if path.exists() else []
    return [Listed(cell["id"], {k: v for k, v in cell.items() if k != "id"}) for cell in cells]


def finished_in(folder: Path) -> list[str]:
    """Return the ids of the runs that a grid's ``runs.csv`` has as finished, none without one."""
    try:
        with (folder / "runs.csv").open(newline="", encoding="utf-8", errors="replace") as file:
            return [row["run_id"] for row in csv.DictReader(file) if row["status"] == "finished"]
    except (OSError, KeyError, csv.Error):  # a damaged one is about to be written anew
        return []


def sort_key(cell: Entry) -> tuple[str, ...]:
    """Return what the cells of a grid are sorted by: names, settings, then the seed."""
    flat = cell.flat()
    settings = json.dumps({k: v for k, v in flat.items() if k != "seed"}, sort_keys=True)
    names = [str(flat[key]) for key in ("dataset", "backbone", "loss")]
    return *names, settings, f"{flat['seed']:012d}"


def varying_fields(cells: Iterable[Entry]) -> list[str]:
    """Return the fields, beside the leading ones, that are not the same in every cell.

    A parameter that is called as a column of each metric, such as ItemKNN's `k`, stands in
    ``runs.csv`` alone.
    """
    flats = [cell.flat() for cell in cells]
    keys = dict.fromkeys(key for flat in flats for key in flat)
    values = {key: {repr(flat.get(key)) for flat in flats} for key in keys}
    return [
        key
        for key in keys
        if len(values[key]) > 1 and key not in (*LEADING, *TRAILING, "fingerprint")
    ]


def grid_toml(name: str, cells: Sequence[Entry]) -> str:
    """Return the resolved grid as TOML: the list of its cells, every field spelt out."""
    lines = [f"name = {toml_value(name)}", 'primary = "Recall@20"']
    for cell in cells:
        lines += ["", "[[cells]]", f"id = {toml_value(cell.id)}"]
        lines += [f"{key} = {toml_value(value)}" for key, value in cell.flat().items()]
    return "\n".join(lines) + "\n"


def csv_text(columns: Sequence[str], rows: Iterable[Row]) -> str:
    """Return rows as CSV with LF line ends; floats in shortest round-trip form."""
    out = io.StringIO()
    writer = csv.DictWriter(out, columns, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return out.getvalue()
