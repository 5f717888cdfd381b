"""The table of a study: losses ranked after equal effort, and what the effort was."""

import csv
import tomllib
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from bslbench.config import REFERENCE
from bslbench.engine.tuning.ledger import parameters
from bslbench.engine.tuning.study import TRIAL_SEED
from bslbench.errors import ConfigError
from bslbench.report.compare import BEST, row_keys, with_baseline
from bslbench.report.dialects import TEX
from bslbench.report.main_table import main_table
from bslbench.report.pairs import significance
from bslbench.report.results import PRIMARY, Results, whole
from bslbench.report.significance_table import MARKS, WITHIN, with_significance
from bslbench.report.table import Column, Entry, Table
from bslbench.report.text import sections

STATES = {"pruned": "given up", "failed": "failed"}


@dataclass(frozen=True)
class Effort:
    """What tuning a loss took and came to.

    Attributes
    ----------
    trials
        How many, by state.
    seconds
        Of training and evaluation, over all of them.
    best
        Parameters of the best one.
    number
        Its number; None if none was trained to its end.
    widened
        Which ranges were widened, a text each.
    """

    trials: Mapping[str, int]
    seconds: float
    best: Mapping[str, str]
    number: int | None
    widened: tuple[str, ...]

    @property
    def counts(self) -> str:
        """The trials in words."""
        parts = [
            f"{self.trials[state]} {word}" for state, word in STATES.items() if self.trials[state]
        ]
        return f"{sum(self.trials.values())}" + (f" ({', '.join(parts)})" if parts else "")


def efforts(folder: Path) -> dict[str, Effort]:
    """Return by loss what a study's ``trials.csv`` says.

    Raises
    ------
    ConfigError
        If the folder has no study.
    """
    path = folder / "trials.csv"
    if not path.is_file():
        raise ConfigError(f"no {path}: `bslbench tune` makes it")
    by_loss: defaultdict[str, list[dict[str, str]]] = defaultdict(list)
    with whole(path), path.open(newline="") as file:
        for row in csv.DictReader(file):
            by_loss[row["loss"]].append(row)
        return {loss: _effort(trials) for loss, trials in by_loss.items()}


def _effort(trials: Sequence[dict[str, str]]) -> Effort:
    complete = [trial for trial in trials if trial["state"] == "complete"]
    best = max(complete, key=lambda trial: float(trial["score"]), default={})
    return Effort(
        Counter(trial["state"] for trial in trials),
        sum(float(trial["seconds"]) for trial in trials),
        parameters(best),
        int(best["trial"]) if best else None,
        tuple(step for t in trials if t["widened"] for step in t["widened"].split("; ")),
    )


def tuning_table(results: Path, grid: str, metrics: Sequence[str] | None = None) -> Table:
    """Return a study's final runs ranked: differences from the best, gains, effort, settings.

    Parameters
    ----------
    results, grid, metrics
        As in `bslbench.report.tables.main_table`; rows are ranked by the first metric.

    Raises
    ------
    ConfigError
        If there is no such grid or metric, or it was not tuned.
    """
    made = efforts(results / grid)
    table = _ranking(results, grid, list(dict.fromkeys(metrics or PRIMARY)), made)
    return replace(table, notes=(*table.notes, *_settings(made)))


def standings(results: Path, grid: str) -> Table:
    """Return what a study came to: the ranking by Recall@20, and who stands with its first.

    Parameters
    ----------
    results, grid
        As in `tuning_table`.

    Raises
    ------
    ConfigError
        If there is no such grid, or it was not tuned.
    """
    table = _ranking(results, grid, PRIMARY[:1], efforts(results / grid))
    kept = [i for i, column in enumerate(table.columns) if column.group != "tuning"]
    return replace(
        table,
        columns=tuple(table.columns[i] for i in kept),
        rows=tuple(tuple(row[i] for i in kept) for row in table.rows),
        notes=(*leaders(table), *table.notes),
    )


def leaders(table: Table) -> Iterator[str]:
    """Say in one line which losses stand with the first; nothing if no difference was tested.

    Examples
    --------
    >>> columns = [Column("loss"), Column("vs best")]
    >>> rows = [["bsl", "baseline"], ["sl", Entry(-0.001, interval=(-0.002, 0.0), mark="≈")]]
    >>> rows += [["mse", Entry(-0.01, interval=(-0.03, 0.01), mark="?")]]
    >>> rows += [["bpr", Entry(-0.2, interval=(-0.3, -0.1))], ["bce", None]]
    >>> [said] = leaders(Table.of("study", columns, rows))
    >>> said.split("; ")[:3]
    ['first: bsl', 'within 0.5 % of it: sl', 'not told from it: mse']
    >>> said.split("; ")[3:]
    ['behind it: 1 of 3', 'not compared: bce']
    """
    [place] = [i for i, column in enumerate(table.columns) if column.name == f"vs {BEST}"]
    names = [row[table.column("loss")].text for row in table.rows]
    tested = {name: row[place] for name, row in zip(names, table.rows, strict=True)}
    if not any(entry.interval for entry in tested.values()):
        return
    parts = [f"first: {names[0]}"]
    words = {MARKS["absent"]: f"{WITHIN} of it", MARKS["cannot be told"]: "not told from it"}
    for mark, text in words.items():
        if alike := [name for name in names[1:] if tested[name].mark == mark]:
            parts.append(f"{text}: {', '.join(alike)}")
    known = [name for name in names[1:] if tested[name].interval]
    behind = sum(tested[name].mark == MARKS["there"] for name in known)
    parts.append(f"behind it: {behind} of {len(known)}")
    if lacking := [name for name in names[1:] if name not in known]:
        parts.append(f"not compared: {', '.join(lacking)}")
    yield "; ".join(parts)


def _ranking(results: Path, grid: str, metrics: Sequence[str], made: Mapping[str, Effort]) -> Table:
    """Return the table of a study without the settings that it found."""
    plain = main_table(results, grid, metrics)
    found = significance(Results.load(results, grid), metrics)
    table = with_significance(with_baseline(plain, BEST), found)
    names = [row[plain.column("loss")].text for row in plain.rows]
    first = next(i for i, column in enumerate(plain.columns) if column.better)
    means = [row[first].value for row in plain.rows]
    bases = {
        name: mean
        for name, mean, key in zip(names, means, row_keys(plain), strict=True)
        if key.backbone == REFERENCE
    }
    columns = [
        *table.columns,
        *(Column(f"vs {base}", plain.columns[first].name, "+.1%", align="right") for base in bases),
        Column("trials", "tuning"),
        Column("seconds", "tuning", ".0f", align="right"),
    ]
    rows = [
        [*row, *(_gain(mean, base) for base in bases.values()), *_spent(made.get(name))]
        for row, name, mean in zip(table.rows, names, means, strict=True)
    ]
    order = sorted(range(len(rows)), key=lambda n: -(means[n] or 0.0))
    return replace(
        table,
        name="tuning",
        title=f"{grid}: after equal tuning",
        columns=tuple(columns),
        rows=tuple(tuple(rows[n]) for n in order),
        sections=False,
        notes=(*table.notes, *_notes(results / grid, made)),
    )


def _gain(mean: float | None, base: float | None) -> Entry:
    return Entry(mean / base - 1) if mean is not None and base else Entry()


def _spent(effort: Effort | None) -> tuple[Entry, Entry]:
    return (Entry(text=effort.counts), Entry(effort.seconds)) if effort else (Entry(), Entry())


def latex_row(table: Table, loss: str) -> str:
    """Return the row of a loss as the table has it in LaTeX, with its places and marks."""
    [rows] = sections(replace(table, sections=False), TEX)
    number = [row[table.column("loss")].text for row in table.rows].index(loss)
    return " & ".join(rows[number]) + " \\\\\n"


def _notes(folder: Path, made: Mapping[str, Effort]) -> Iterator[str]:
    path = folder / "study.toml"
    with whole(path):
        study = tomllib.loads(path.read_text("utf-8"))
        fixed = ", ".join(f"{key} {_plain(value)}" for key, value in study["set"].items())
        startup, seed = int(study["startup"]), TRIAL_SEED + study["seed"]
    counts = {sum(effort.trials.values()) for effort in made.values()}
    if not counts:
        return  # references alone, of which none has anything to tune
    if len(counts) > 1:
        yield "NOT EQUAL: the losses have different numbers of trials; tune again to even them out"
    yield (
        f"tuned on valid Recall@20 with {' or '.join(map(str, sorted(counts)))} trials each, "
        f"{min(startup, *counts)} of them at the same quasi-random points for all, seed "
        f"{seed}; held fixed: {fixed}"
    )


def _settings(made: Mapping[str, Effort]) -> Iterator[str]:
    """Say, a line for each loss, what its best trial was and which ranges were widened."""
    for loss, effort in made.items():
        best = ", ".join(f"{name} {value}" for name, value in effort.best.items())
        wider = f"; {'; '.join(effort.widened)}" if effort.widened else ""
        trial = "no trial" if effort.number is None else f"trial {effort.number}, {best}"
        yield f"{loss}: {trial}{wider}"


def _plain(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
