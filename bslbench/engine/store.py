"""Results on disk: one folder per run, shared by all grids, and one folder per grid.

A run's ``metrics.csv`` is written last, to a temporary name, and renamed: its presence means that
the run is finished, and ``run.json`` holds its checksum. A grid's files are derived from its cells
and can be rebuilt at any time. Whoever writes holds a lock that dies with its process.
"""

import csv
import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from bslbench.config import EXTERNAL, Cell, Scalar
from bslbench.engine.grid_files import (
    LEADING,
    TRAILING,
    Entry,
    Listed,
    csv_text,
    finished_in,
    grid_toml,
    listed_in,
    sort_key,
    sources,
    varying_fields,
)
from bslbench.errors import ConfigError, DataError, suggest
from bslbench.files import locked, write_atomically

MOMENT = 0.2
"""Seconds to wait for a run's lock: whoever asks whether it is held takes it for an instant."""


@dataclass(frozen=True)
class Run:
    """The folder of one run."""

    folder: Path

    def file(self, name: str) -> Path:
        """Return the path of one of the run's files."""
        return self.folder / name

    def finished(self, cell: Cell, with_model: bool = False) -> bool:
        """Tell whether the run is finished, whole, and this very cell, not one of the same name.

        A cell that trains is finished `with_model` only if its embeddings have been kept.

        Raises
        ------
        DataError
            If the folder holds another configuration than its id says.
        """
        if not self.whole():
            return False
        if self.info()["canonical"] != json.loads(cell.canonical()):
            raise DataError(f"{self.folder} holds another run than its name says; remove it")
        return not (with_model and cell.train) or self.file("model.safetensors").exists()

    def whole(self) -> bool:
        """Tell whether ``metrics.csv`` is there, with the very bytes that were written."""
        try:
            content = self.file("metrics.csv").read_bytes()
        except (FileNotFoundError, NotADirectoryError):
            return False
        return self.info().get("metrics_sha256") == sha256(content)

    def forget(self) -> None:
        """Remove what a run came to that is about to be made anew: its metrics and its model."""
        for name in ("metrics.csv", "model.safetensors"):
            self.file(name).unlink(missing_ok=True)

    def info(self) -> dict[str, Any]:
        """Return ``run.json``; nothing if it is missing or damaged."""
        return _json(self.file("run.json"))

    def metrics(self) -> list[dict[str, str]]:
        """Return the rows of ``metrics.csv`` of a finished run, as text."""
        with self.file("metrics.csv").open(newline="") as file:
            return list(csv.DictReader(file))

    def curve(self) -> dict[int, float]:
        """Return Recall@20 by evaluated epoch of a finished run, from ``curve.csv``."""
        with self.file("curve.csv").open(newline="") as file:
            return {int(row["epoch"]): float(row["recall"]) for row in csv.DictReader(file)}

    def selected(self, cell: Cell) -> float:
        """Return Recall@20 of a finished run on the split that selects."""
        [value] = [
            row["value"]
            for row in self.metrics()
            if (row["split"], row["metric"], row["k"]) == (cell.selection, "Recall", "20")
            and not row["group"]
        ]
        return float(value)

    def read(self, name: str) -> dict[str, Any]:
        """Return the JSON object in one of the run's files; nothing if missing or damaged."""
        return _json(self.file(name))

    def failure(self) -> dict[str, str]:
        """Return ``failure.json`` of a failed run, else nothing."""
        return _json(self.file("failure.json"))

    def progress(self) -> dict[str, Any]:
        """Return ``progress.json``: the last evaluation of a run that is going on."""
        return _json(self.file("progress.json"))

    def status(self) -> str:
        """Return ``finished``, ``failed`` or ``missing``."""
        return "finished" if self.whole() else "failed" if self.failure() else "missing"

    def held(self) -> bool:
        """Tell whether a process is at the run, here or on another machine that sees the store."""
        if not self.file(".lock").exists():
            return False
        try:
            with FileLock(self.file(".lock"), timeout=0):
                return False
        except Timeout:
            return True
        except OSError:  # a store that may only be read does not tell
            return False

    @contextmanager
    def claim(self) -> Iterator[None]:
        """Hold the run's lock, in a folder without what a killed process left half written.

        Raises
        ------
        InUse
            If another process holds it.
        StoreError
            If the folder cannot be written.
        """
        with locked(self.folder, MOMENT):
            yield


class Store:
    """The results folder."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def run(self, cell_id: str) -> Run:
        """Return the folder of a run, which need not exist."""
        return Run(self.root / "runs" / cell_id)

    def find(self, text: str, having: str, what: str, beside: Iterable[str] = ()) -> Run:
        """Return a run by its folder, its id or the beginning of it.

        Parameters
        ----------
        having
            A file that it must have.
        what
            What to say that the text is if there is none, such as ``no finished run``.
        beside
            What else may have been meant, besides runs.

        Raises
        ------
        ConfigError
            If there is none, or more than one.
        """
        if (Path(text) / having).exists():
            return Run(Path(text))
        runs = self.root / "runs"
        known = sorted(path.parent.name for path in runs.glob(f"*/{having}"))
        found = [name for name in known if name.startswith(text)]
        if not found:
            hint = suggest(text, [*known, *beside], most=3)
            raise ConfigError(f"'{text}' is {what} in {runs}{hint}")
        if len(found) > 1:
            raise ConfigError(f"'{text}' is the beginning of {len(found)} runs, such as {found[0]}")
        return self.run(found[0])

    def write_grid(self, name: str, cells: Sequence[Cell]) -> None:
        """Write what a grid asked for and what came out: grid.toml, metrics.csv, runs.csv.

        Rows from outside that were added to the grid stay in it.
        """
        folder = self.root / name
        with locked(folder):  # read and written under one lock: no row that is there gets lost
            listed: list[Listed] = []
            with suppress(DataError):  # a damaged one is about to be written anew
                listed = listed_in(folder)
            guests = [cell for cell in listed if cell.fields["backbone"] == EXTERNAL]
            self._write_grid(folder, name, [*cells, *guests])

    def check_free(self, name: str) -> None:
        """Raise a `ConfigError` if a grid would take the place of what a study or race came to."""
        folder = self.root / name
        if any((folder / part).exists() for part in ("study.toml", "race")):
            raise ConfigError(f"{folder} has the results of a study; give another --name")

    def has_tables_alone(self, name: str) -> bool:
        """Tell whether a grid's tables came without their runs, as they do in a repository."""
        finished = finished_in(self.root / name)
        return bool(finished) and not any(self.run(run_id).folder.exists() for run_id in finished)

    def check_kept(self, name: str) -> None:
        """Raise a `ConfigError` if writing a grid anew would empty tables without their runs."""
        if self.has_tables_alone(name):
            raise ConfigError(
                f"{self.root / name} has tables of runs that are not in {self.root / 'runs'}, and "
                "they would be emptied; give other --results or another --name"
            )

    def check_joins(self, name: str, cell: Cell) -> None:
        """Raise a `ConfigError` if a grid's rows on the cell's dataset cannot be compared with it.

        That is, if they are of other data, of another selection or evaluated on other users.
        """
        for other in listed_in(self.root / name):
            if other.fields["dataset"] != cell.dataset:
                continue
            for field, ours in (
                ("fingerprint", cell.fingerprint),
                ("selection", cell.selection),
                ("eval_users", cell.eval_users),
            ):
                if (theirs := other.fields.get(field, 0)) != ours:
                    raise ConfigError(
                        f"grid '{name}' has {field} {theirs} on {cell.dataset}, this row {ours}: "
                        "they cannot be compared; name another --grid"
                    )

    def add_to_grid(self, name: str, cell: Cell) -> None:
        """Write a grid that is there, or a new one, with one cell more.

        A row from outside takes the place of one that differs in nothing but what it was made of.

        Raises
        ------
        DataError
            If what is there is damaged.
        """
        folder, mine = self.root / name, _as_called(cell)
        with locked(folder):
            listed = (other for other in listed_in(folder) if other.id != cell.id)
            others = [other for other in listed if _as_called(other) != mine]
            self._write_grid(folder, name, [*others, cell])

    def _write_grid(self, folder: Path, name: str, cells: Sequence[Entry]) -> None:
        cells = sorted(cells, key=sort_key)
        write_atomically(folder / "grid.toml", grid_toml(name, cells))
        metrics = {cell.id: self._metrics(cell) for cell in cells}
        varying = varying_fields(cells)
        rows = [self._identity(cell, varying) | row for cell in cells for row in metrics[cell.id]]
        write_atomically(folder / "metrics.csv", csv_text([*LEADING, *varying, *TRAILING], rows))
        runs = [self._run_row(cell, bool(metrics[cell.id])) for cell in cells]
        columns = list(dict.fromkeys(key for row in runs for key in row))
        write_atomically(folder / "runs.csv", csv_text(columns, runs))

    def _metrics(self, cell: Entry) -> list[dict[str, str]]:
        """Return the metrics of a run, none if it is not finished."""
        run = self.run(cell.id)
        with suppress(FileNotFoundError):  # another process has just begun to train it anew
            if run.finished(cell) if isinstance(cell, Cell) else run.whole():
                return run.metrics()
        return []

    def _identity(self, cell: Entry, varying: list[str]) -> dict[str, Any]:
        flat = cell.flat() | {"run_id": cell.id}
        return {column: flat.get(column, "") for column in [*LEADING, *varying]}

    def _run_row(self, cell: Entry, finished: bool) -> dict[str, Any]:
        run = self.run(cell.id)
        status = "finished" if finished else "failed" if run.failure() else "missing"
        row: dict[str, Any] = {"run_id": cell.id, "status": status} | cell.flat()
        if finished:
            info = run.info()
            row |= info["outcome"] | {"settings_from": sources(info["origin"])}
        return row


def _as_called(cell: Entry) -> dict[str, Scalar]:
    """Return what a cell is called by: of one from outside all but what it was made of."""
    outside = cell.flat()["backbone"] == EXTERNAL
    return {k: v for k, v in cell.flat().items() if not (outside and k == "loss_source")}


def sha256(content: bytes) -> str:
    """Return the checksum of a file's bytes, as hex digits."""
    return hashlib.sha256(content).hexdigest()


def _json(path: Path) -> dict[str, Any]:
    """Return a JSON object; nothing for a file that is missing or damaged."""
    try:
        content = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}
