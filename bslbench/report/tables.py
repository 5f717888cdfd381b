"""The main table of a grid, read from the store: losses as rows, datasets x metrics as columns."""

import json
import math
import tomllib
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, stdev
from typing import Any, NamedTuple

import pandas as pd

from bslbench.config import REFERENCE
from bslbench.errors import ConfigError, DataError, suggest
from bslbench.evaluation.metrics import METRICS, parse_metric
from bslbench.report.render import DECIMALS, Entry, Row, Table, render

__all__ = ["TABLES", "Table", "latest_grid", "main_table", "render"]

STAMP = "SELECTION ON TEST: best epoch picked on test: to compare with published figures only"


class _Key(NamedTuple):
    """What sets a row of the table apart."""

    backbone: str
    loss: str
    settings: str


@dataclass(frozen=True)
class _Run:
    id: str
    dataset: str
    key: _Key
    seed: int
    selection: str

    @property
    def title(self) -> str:
        backbone, loss, settings = self.key
        return f"{backbone}, {' '.join(filter(None, (loss, settings)))} on {self.dataset}"


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


def main_table(results: Path, grid: str, metrics: Sequence[str] | None = None) -> Table:
    """Return the main table of a grid, from what the store holds of it.

    Parameters
    ----------
    results
        The results folder.
    grid
        Name of a grid in it.
    metrics
        Which metrics to show, as ``NAME@K``; by default Recall@20 and NDCG@20.

    Raises
    ------
    ConfigError
        If there is no such grid or metric.
    DataError
        If values of one row and column differ in more than the seed, or stand twice.
    """
    metrics = tuple(dict.fromkeys(metrics or ("Recall@20", "NDCG@20")))
    folder = results / grid
    if not (folder / "grid.toml").is_file():
        known = [file.parent.name for file in results.glob("*/grid.toml")]
        raise ConfigError(f"no results of a grid '{grid}' in {results}{suggest(grid, known)}")
    plan = tomllib.loads((folder / "grid.toml").read_text("utf-8"))
    record = _read(folder / "runs.csv")
    runs = _runs(plan["cells"])
    scores = _scores(folder / "metrics.csv", {run.id for run in runs}, metrics)
    finished = {run_id for run_id, _ in scores}
    return Table(
        grid,
        tuple(dict.fromkeys(run.dataset for run in runs)),
        metrics,
        tuple(_rows(runs, scores, metrics, finished)),
        STAMP if any(run.selection == "test" for run in runs) else "",
        tuple(_problems(results, [run for run in runs if run.id not in finished], record)),
        tuple(_footer(runs, record, plan["primary"])),
    )


TABLES = {"main": main_table}
"""By the name that ``bslbench report --table`` takes."""


def _read(path: Path) -> pd.DataFrame:
    """Read a CSV file of the store, every cell as text."""
    if not path.is_file():
        raise DataError(f"{path} is missing; train the grid again to rebuild it")
    return pd.read_csv(path, dtype=str, keep_default_na=False)


def _runs(cells: Sequence[Mapping[str, Any]]) -> list[_Run]:
    """Return the runs that a grid asks for, each with the settings that set its row apart."""
    alike: defaultdict[tuple[str, ...], list[Mapping[str, Any]]] = defaultdict(list)
    for cell in cells:
        alike[cell["dataset"], cell["backbone"], cell["loss"]].append(cell)
    runs: dict[tuple[str, _Key, int], _Run] = {}
    for (dataset, backbone, loss), group in alike.items():
        fields = dict.fromkeys(f for cell in group for f in cell if f not in ("id", "seed"))
        varying = [f for f in fields if len({repr(cell.get(f)) for cell in group}) > 1]
        for cell in group:
            settings = [f"{field}={_text(cell[field])}" for field in varying if field in cell]
            key = _Key(backbone, loss, " ".join(settings))
            run = _Run(cell["id"], dataset, key, cell["seed"], cell["selection"])
            twin = runs.setdefault((dataset, key, run.seed), run)
            if twin is not run:
                raise DataError(
                    f"only seeds are averaged over, but {twin.id} and {run.id} have the same "
                    f"dataset, backbone, loss, seed and all else: {run.title}, seed {run.seed}"
                )
    return list(runs.values())


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _scores(path: Path, asked: set[str], metrics: Sequence[str]) -> dict[tuple[str, str], float]:
    """Return the values of the test split by run and metric, NAME@K."""
    frame = _read(path)
    frame = frame[(frame["split"] == "test") & (frame["group"] == "")]
    names = frame["metric"] + "@" + frame["k"]
    stored = set(names)
    for metric in metrics:
        parse_metric(metric)
        if stored and metric not in stored:
            raise ConfigError(f"{path} has no {metric}{suggest(metric, stored)}")
    scores: dict[tuple[str, str], float] = {}
    for run_id, metric, value in zip(frame["run_id"], names, frame["value"], strict=True):
        if run_id not in asked:
            raise DataError(f"{path} has a run that grid.toml does not ask for: {run_id}")
        if (run_id, metric) in scores:
            raise DataError(
                f"{path} has two values of the same run_id, split, metric, k, group: "
                f"{run_id}, test, {metric}"
            )
        scores[run_id, metric] = float(value)
    return scores


def _rows(
    runs: Sequence[_Run],
    scores: Mapping[tuple[str, str], float],
    metrics: Sequence[str],
    finished: set[str],
) -> Iterator[Row]:
    """Yield the rows, references first, then by backbone."""
    columns: dict[tuple[str, str], dict[_Key, list[float]]] = {}
    for run in runs:
        for metric in metrics:
            value = scores.get((run.id, metric), math.nan)
            if not math.isnan(value):  # as it is where no user has anything to find
                column = columns.setdefault((run.dataset, metric), {})
                column.setdefault(run.key, []).append(value)
    entries = {name: _entries(column, name[1]) for name, column in columns.items()}
    keys = dict.fromkeys(run.key for run in runs)
    for key in sorted(keys, key=lambda key: (key.backbone != REFERENCE, key.backbone)):
        own = [run for run in runs if run.key == key]
        asked = Counter(run.dataset for run in own)
        done = Counter(run.dataset for run in own if run.id in finished)
        yield Row(
            *key,
            ", ".join(dict.fromkeys(run.selection for run in own)),
            {dataset: (done[dataset], n) for dataset, n in asked.items()},
            {name: column[key] for name, column in entries.items() if key in column},
        )


def _entries(column: Mapping[_Key, list[float]], metric: str) -> dict[_Key, Entry]:
    means = {key: fmean(values) for key, values in column.items()}
    shown = {key: round(mean, DECIMALS) for key, mean in means.items()}
    higher = METRICS[parse_metric(metric)[0]].higher_is_better
    places = {value: i for i, value in enumerate(sorted({*shown.values()}, reverse=higher)[:2], 1)}
    return {
        key: Entry(
            means[key],
            stdev(values) if len(values) > 1 else None,
            places.get(shown[key], 0),
        )
        for key, values in column.items()
    }


def _problems(results: Path, unfinished: Sequence[_Run], record: pd.DataFrame) -> Iterator[str]:
    """Yield a line per failed run with its reason, and one for the runs not trained yet."""
    status = dict(zip(record["run_id"], record["status"], strict=True))
    failed = [run for run in unfinished if status.get(run.id) == "failed"]
    for run in failed:
        file = results / "runs" / run.id / "failure.json"
        reason = json.loads(file.read_text("utf-8"))["reason"] if file.is_file() else "not at hand"
        yield f"failed: {run.title}, seed {run.seed}: {' '.join(reason.split())}"
    if n_missing := len(unfinished) - len(failed):
        yield f"missing: {n_missing} of {len(record)} runs; train the grid again to finish them"


def _footer(runs: Sequence[_Run], record: pd.DataFrame, primary: str) -> Iterator[str]:
    def seen(column: str) -> str:
        values = dict.fromkeys(record[column]) if column in record else {}
        return ", ".join(value for value in values if value) or "unknown"

    seeds = sorted({run.seed for run in runs})
    yield f"{len(seeds)} seed{'s' * (len(seeds) > 1)}: {', '.join(map(str, seeds))}"
    if any(run.selection == "valid" for run in runs):
        yield f"selection on valid: best epoch by {primary} on validation pairs, test scored once"
    names = ["protocol", "bslbench", "torch", "numpy", "python", "revision"]
    yield ", ".join(f"{name} {seen(name)}" for name in names)
    yield f"on {seen('device')}, {seen('cpu')}, threads {seen('threads')}"
    data = dict.fromkeys(zip(record["dataset"], record["fingerprint"], strict=True))
    yield f"data {', '.join(f'{name} {fingerprint[:12]}' for name, fingerprint in data)}"
