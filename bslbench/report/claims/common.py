"""What the tables of claims share."""

import math
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from statistics import fmean
from types import MappingProxyType
from typing import NamedTuple

from bslbench.engine.store import Store
from bslbench.report.best import (
    Case,
    Group,
    Rows,
    best_key,
    case_of,
    chosen,
    rows_by,
    selecting,
    tuned_away,
)
from bslbench.report.levels import CLEAN_NAME, noise_text
from bslbench.report.parts import mean_entry
from bslbench.report.provenance import footer, problems
from bslbench.report.results import PRIMARY, Key, Results, Run
from bslbench.report.significance import Comparison, compare
from bslbench.report.table import Column, Entry, Like, Table

NO_SETTINGS = {"id", "seed", "loss", "loss_version"}
"""Fields of a run that do not say how it was trained."""

CASE = (Column("dataset"), Column("backbone"), Column("noise"), Column("loss"))
"""What tells the rows of a claim's table apart; rows compete within the first three."""


class Place(NamedTuple):
    """Where rows compete; each field is a column."""

    dataset: str
    backbone: str
    noise: str

    @classmethod
    def of(cls, run: Run) -> "Place":
        """Return where a run competes."""
        return cls(run.dataset, run.key.backbone, run.key.noise or CLEAN_NAME)


class Loaded:
    """A grid's results, with the best settings of each case and the values of its runs.

    Attributes
    ----------
    results
        What the store holds.
    kept
        The finished runs of each case's best settings on the split that picks epochs.
    """

    def __init__(self, folder: Path, grid: str) -> None:
        self.results = Results.load(folder, grid)
        self.kept = chosen(self.results)

    @cached_property
    def selecting(self) -> dict[str, float]:
        """The primary metric by run, on the split that picks its epochs."""
        return selecting(self.results)

    def selected(self, runs: Iterable[Run]) -> float:
        """Return the mean of `selecting` over the seeds of a row."""
        return fmean(self.selecting[run.id] for run in runs)

    def rows(self, of: Callable[[Run], Group | None]) -> dict[Group, Rows]:
        """Return the finished rows by what `of` says of their runs; None leaves a run out."""
        return rows_by(self.results, of)

    def best(self, rows: Rows) -> Key | None:
        """Return the best on the selection split, as `best_key` has it."""
        return best_key(rows, self.selected)

    def passed_over(self, of: Callable[[Run], Group | None]) -> Iterator[str]:
        """Say which rows have fewer seeds than the `best` of their group, and would be it."""
        found = []
        for rows in self.rows(of).values():
            best = self.best(rows)
            for runs in rows.values():
                if best and self.selected(runs) > self.selected(rows[best]):
                    found.append(f"{runs[0].title}, {len(runs)} seed{'s' * (len(runs) > 1)}")
        if found:
            yield f"better on the selection split, left aside for fewer seeds: {'; '.join(found)}"

    def best_by(self, of: Callable[[Run], Group | None]) -> dict[Group, list[Run]]:
        """Return the runs of the `best` of each group of `rows`."""
        groups = self.rows(of).items()
        return {group: rows[key] for group, rows in groups if (key := self.best(rows))}

    def metric(self, asked: Sequence[str] | None) -> str:
        """Return the metric of a table of one: the first asked for, else Recall@20.

        Raises
        ------
        ConfigError
            If there is none of that name.
        """
        name = (asked or PRIMARY)[0]
        self.results.scores([name])
        return name

    def values(self, metric: str, split: str = "test") -> dict[tuple[str, str], float]:
        """Return a metric, NAME@K, by run and group; the group of all users' values is empty."""
        frame = self.results.metrics
        rows = frame[(frame["split"] == split) & (frame["name"] == metric)]
        keys = zip(rows["run_id"], rows["group"], strict=True)
        return dict(zip(keys, rows["value"].astype(float), strict=True))

    def texts(self, column: str) -> dict[str, str]:
        """Return a column of runs.csv by run, where a run has anything in it."""
        record = self.results.record
        if column not in record:
            return {}
        pairs = zip(record["run_id"], record[column], strict=True)
        return {run_id: text for run_id, text in pairs if text}

    def recorded(self, column: str) -> dict[str, float]:
        """Return the numbers of a column of runs.csv by run."""
        return {run_id: float(text) for run_id, text in self.texts(column).items()}

    def compared(
        self, runs: Sequence[Run], base: Sequence[Run], metric: str, *, directed: bool = False
    ) -> Comparison | str:
        """Return what sets finished runs apart from others on test, or why it cannot be said.

        Parameters
        ----------
        runs, base
            Of one dataset, paired by seed.
        metric, directed
            As in `bslbench.report.significance.compare`.

        Raises
        ------
        DataError
            If ranks cannot be read, or are of different data or users.
        """
        store = Store(self.results.folder)
        mine, theirs = ([store.run(run.id) for run in group] for group in (runs, base))
        if not all(run.file("ranks.npz").is_file() for run in (*mine, *theirs)):
            return "ranks not at hand"
        if not {run.seed for run in runs} & {run.seed for run in base}:
            return "no seed in common"
        return compare(mine, theirs, metric, directed=directed)

    def cases(self) -> Iterator[tuple[Case, list[Run]]]:
        """Yield the cases by dataset, backbone and noise, in the order of the grid."""
        noises = list(dict.fromkeys(case.noise for case in self.kept))
        order = {case: i for i, case in enumerate(self.kept)}
        places = self.results.datasets
        for case in sorted(
            self.kept,
            key=lambda c: (places.index(c.dataset), c.backbone, noises.index(c.noise), order[c]),
        ):
            yield case, self.kept[case]

    def table(
        self,
        name: str,
        columns: Sequence[Column],
        rows: Iterable[Iterable[Like]],
        *,
        title: str,
        notes: Iterable[str],
        says: str = "test split",
        within: Sequence[str] = ("dataset", "backbone", "noise"),
        all_settings: bool = False,
        beside: Mapping[Case, list[Run]] = MappingProxyType({}),
        of: Callable[[Run], Hashable] = case_of,
    ) -> Table:
        """Return a table with what stands around every one.

        `beside` are the settings that it shows but those kept, `of` is what the best are best of.
        """
        others = 0 if all_settings else tuned_away(self.results, self.kept, beside)
        picked = f"of each loss the settings best on the selection split, {others} others left out"
        return Table.of(
            name,
            columns,
            rows,
            title=f"{self.results.grid}: {title}",
            sections=True,
            within=within,
            stamp=self.results.stamp,
            says=says,
            problems=problems(self.results),
            notes=[*notes, *([picked] if others else []), *self.passed_over(of)],
            footer=footer(self.results),
        )


def names(case: Case) -> list[Like]:
    """Return what stands in the columns `CASE`."""
    noise = noise_text(dict(case.noise)) or CLEAN_NAME
    return [case.dataset, case.backbone, noise, case.loss]


def n_seeds(runs: Sequence[Run]) -> str:
    """Return what stands in a column of seeds: how many are finished."""
    return str(len(runs))


def relative_entry(found: Comparison) -> Entry:
    """Return a difference as a share of what it is from, with its interval if it has one."""
    interval = found.relative_interval
    return Entry(found.relative, interval=None if math.isnan(interval[0]) else interval)


def over_seeds(runs: Iterable[Run], values: Mapping[str, float]) -> Entry:
    """Return mean and deviation over seeds of what runs have by id."""
    return mean_entry({run.seed: values[run.id] for run in runs if run.id in values})


def overall(values: Mapping[tuple[str, str], float]) -> dict[str, float]:
    """Return the values over all users, by run."""
    return {run_id: value for (run_id, group), value in values.items() if not group}
