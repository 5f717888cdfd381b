"""What the store holds of a grid, as every table and figure reads it."""

import json
import tomllib
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from bslbench.engine.grid_files import TRAILING, read_plan
from bslbench.errors import ConfigError, DataError, suggest
from bslbench.evaluation.metrics import parse_metric
from bslbench.report.levels import CLEAN, CLEAN_NAME, RARE, noise_of, noise_text

FILES = ("grid.toml", "runs.csv", "metrics.csv")

PRIMARY = ("Recall@20", "NDCG@20")
"""The metrics of a table that nobody asked for others."""

STAMP = "SELECTION ON TEST: best epoch picked on test: to compare with published figures only"


class Key(NamedTuple):
    """What sets a row of a table apart.

    `settings` are the fields that vary within its loss, `noise` is in words, and empty if no run of
    the grid has any.
    """

    backbone: str
    loss: str
    settings: str = ""
    noise: str = ""

    @property
    def label(self) -> str:
        """Loss, settings and noise."""
        noise = f"({self.noise})" if self.noise else ""
        return " ".join(filter(None, (self.loss, self.settings, noise)))


@dataclass(frozen=True)
class Run:
    """A run that the grid asks for; `fields` are all of its cell's, by their plain names."""

    id: str
    dataset: str
    key: Key
    seed: int
    selection: str
    fields: Mapping[str, Any]

    @property
    def title(self) -> str:
        """The run in words, but for its seed."""
        return f"{self.key.backbone}, {self.key.label} on {self.dataset}"


@dataclass(frozen=True)
class Results:
    """A grid's results.

    Attributes
    ----------
    folder, grid
        Where all results are, and the grid's name.
    primary
        The metric that picks the best epoch.
    runs
        In the order of grid.toml; no two share dataset, key and seed.
    metrics
        ``metrics.csv``, every cell as text, and ``name``, the metric with its cut-off.
    record
        ``runs.csv``, every cell as text.
    """

    folder: Path
    grid: str
    primary: str
    runs: tuple[Run, ...]
    metrics: pd.DataFrame
    record: pd.DataFrame

    @classmethod
    def load(cls, folder: Path, grid: str) -> "Results":
        """Read a grid's three files, once for as long as they do not change.

        Raises
        ------
        ConfigError
            If there is no such grid.
        DataError
            If a file is missing, or runs differ in nothing, or are not the grid's.
        """
        home = folder / grid
        if not (home / "grid.toml").is_file():
            known = [file.parent.name for file in folder.glob("*/grid.toml")]
            raise ConfigError(f"no results of a grid '{grid}' in {folder}{suggest(grid, known)}")
        state = [path.stat() for name in FILES if (path := home / name).is_file()]
        return _load(folder, grid, tuple((file.st_mtime_ns, file.st_size) for file in state))

    @property
    def datasets(self) -> tuple[str, ...]:
        """The datasets, in the order of the runs."""
        return tuple(dict.fromkeys(run.dataset for run in self.runs))

    @cached_property
    def finished(self) -> frozenset[str]:
        """The ids of the runs that have metrics."""
        return frozenset(self.metrics["run_id"])

    @cached_property
    def done(self) -> tuple[Run, ...]:
        """The runs that have metrics, in their order."""
        return tuple(run for run in self.runs if run.id in self.finished)

    @property
    def stamp(self) -> str:
        """What nobody may overlook, or nothing."""
        samples = sorted({run.fields.get("eval_users", 0) for run in self.runs} - {0})
        stamps = [STAMP] if any(run.selection == "test" for run in self.runs) else []
        starts = sorted({run.fields.get("init", "xavier") for run in self.runs} - {"xavier"})
        stamps += [f"STARTED FROM {name.upper()}: no comparison of losses" for name in starts]
        stamps += [f"A SAMPLE OF {n:,} USERS EVALUATED" for n in samples]
        return "; ".join(stamps)

    def scores(self, metrics: Sequence[str], split: str = "test") -> dict[tuple[str, str], float]:
        """Return the values over all users of a split by run and metric, NAME@K.

        Raises
        ------
        ConfigError
            If a metric is none, or is not stored.
        DataError
            If a value stands twice.
        """
        path = self.folder / self.grid / "metrics.csv"
        rows = self.metrics[(self.metrics["split"] == split) & (self.metrics["group"] == "")]
        stored = set(rows["name"])
        for metric in metrics:
            parse_metric(metric)
            if stored and metric not in stored:
                raise ConfigError(
                    f"{path} has no {metric}{suggest(metric, stored)} (of a single run, bslbench "
                    "eval RUN --k gives any cut-off)"
                )
        rows = rows[rows["name"].isin(metrics)]
        keys = list(zip(rows["run_id"], rows["name"], strict=True))
        with whole(path):
            scores = dict(zip(keys, rows["value"].astype(float), strict=True))
        if len(scores) < len(keys):
            run_id, metric = next(key for key in keys if keys.count(key) > 1)
            raise DataError(
                f"{path} has two values of the same run_id, split, metric, k, group: "
                f"{run_id}, {split}, {metric}"
            )
        return scores


@lru_cache(maxsize=1)
def _load(folder: Path, grid: str, state: tuple[tuple[int, int], ...]) -> Results:
    """Read a grid's files in this state: each table of a report asks for them anew."""
    home = folder / grid
    runs = _runs(read_plan(home / "grid.toml"))
    with whole(home / "grid.toml"):
        head, _, _ = (home / "grid.toml").read_text("utf-8").partition("[[cells]]")
        primary = str(tomllib.loads(head)["primary"])
    record = _read(home / "runs.csv", ("run_id", "status", "dataset", "fingerprint"))
    metrics = _read(home / "metrics.csv", ("run_id", *TRAILING))
    metrics["name"] = metrics["metric"] + "@" + metrics["k"]
    strangers = set(metrics["run_id"]) - {run.id for run in runs}
    if strangers:
        raise DataError(
            f"{home / 'metrics.csv'} has a run that grid.toml does not ask for: {min(strangers)}"
        )
    return Results(folder, grid, primary, tuple(runs), metrics, record)


def latest_grid(results: Path) -> str:
    """Return the name of the grid that was written last.

    Raises
    ------
    ConfigError
        If there is none.
    """
    files = list(results.glob("*/grid.toml"))
    if not files:
        raise ConfigError(f"no results in {results}; train first: bslbench train --grid quick")
    return max(files, key=lambda file: (file.stat().st_mtime_ns, file)).parent.name


def _read(path: Path, needed: Sequence[str]) -> pd.DataFrame:
    """Read a CSV file of the store, every cell as text."""
    if not path.is_file():
        raise DataError(f"{path} is missing; train the grid again to rebuild it")
    with whole(path):
        frame = pd.read_csv(path, dtype=str, keep_default_na=False)
        frame[list(needed)]  # a KeyError if one is missing
    return frame


@contextmanager
def whole(path: Path) -> Iterator[None]:
    """Turn what a damaged file of the store makes its reader raise into a `DataError`."""
    try:
        yield
    except OSError as error:
        raise DataError(f"{path}: {error.strerror}") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:  # TOML and CSV errors too
        raise DataError(f"{path} is not whole; run again what made it") from error


def _runs(cells: Sequence[Mapping[str, Any]]) -> list[Run]:
    """Return the runs that a grid asks for, each with the settings that set its row apart."""
    alike: defaultdict[tuple[str, ...], list[Mapping[str, Any]]] = defaultdict(list)
    for cell in cells:
        alike[cell["dataset"], cell["backbone"], cell["loss"]].append(cell)
    noises = {cell["id"]: noise_text(noise_of(cell)) for cell in cells}
    plain = CLEAN_NAME if any(noises.values()) else ""
    aside = {"id", "seed", *CLEAN, *RARE}
    runs: dict[tuple[str, Key, int], Run] = {}
    for (dataset, backbone, loss), group in alike.items():
        fields = dict.fromkeys(f for cell in group for f in cell if f not in aside)
        varying = [f for f in fields if len({repr(cell.get(f)) for cell in group}) > 1]
        for cell in group:
            settings = [f"{field}={_text(cell[field])}" for field in varying if field in cell]
            key = Key(backbone, loss, " ".join(settings), noises[cell["id"]] or plain)
            run = Run(cell["id"], dataset, key, cell["seed"], cell["selection"], cell)
            twin = runs.setdefault((dataset, key, run.seed), run)
            if twin is not run:
                raise DataError(
                    f"only seeds are averaged over, but {twin.id} and {run.id} have the same "
                    f"dataset, backbone, loss, seed and all else: {run.title}, seed {run.seed}"
                )
    return list(runs.values())


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)
