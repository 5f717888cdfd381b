"""Which of several settings stands for a loss, and what is noisy about a run."""

from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from statistics import fmean
from typing import NamedTuple, TypeVar

from bslbench.report.levels import CLEAN, RARE, noise_of
from bslbench.report.results import Key, Results, Run

Group = TypeVar("Group", bound=Hashable)
Rows = dict[Key, list[Run]]
"""Runs by all that sets them apart but their seed."""


class Case(NamedTuple):
    """What is compared with what: a loss on a backbone and a dataset, at a level of noise."""

    dataset: str
    backbone: str
    loss: str
    noise: tuple[tuple[str, Hashable], ...]


def case_of(run: Run) -> Case:
    """Return what a run is an instance of, its settings and seed aside."""
    noise = tuple(sorted(noise_of(run.fields).items()))
    return Case(run.dataset, run.key.backbone, run.key.loss, noise)


def selecting(results: Results) -> dict[str, float]:
    """Return by finished run the primary metric on the split that picked its epoch.

    What was trained elsewhere has none, and counts as 0.
    """
    splits = {run.selection for run in results.done}
    scores = {split: results.scores([results.primary], split) for split in splits}
    return {r.id: scores[r.selection].get((r.id, results.primary), 0.0) for r in results.done}


def rows_by(results: Results, of: Callable[[Run], Group | None]) -> dict[Group, Rows]:
    """Return the finished rows by what `of` says of their runs; None leaves a run out."""
    found: defaultdict[Group, Rows] = defaultdict(dict)
    for run in results.done:
        if (group := of(run)) is not None:
            found[group].setdefault(run.key, []).append(run)
    return found


def best_key(
    rows: Mapping[Group, Sequence[Run]], score: Callable[[Sequence[Run]], float]
) -> Group | None:
    """Return the best of several settings, of those that have as many seeds as any; None of none.

    Others are there to look around, and stand for nothing. Of equals the first one stands.
    """
    most = max(map(len, rows.values()), default=0)
    whole = [key for key, runs in rows.items() if len(runs) == most]
    return max(whole, key=lambda key: score(rows[key]), default=None)


def chosen(results: Results) -> dict[Case, list[Run]]:
    """Return the finished runs of each case, those of its best settings if it has several.

    Best, as `best_key` has it, is the highest mean of the primary metric on the split that picks
    epochs: never on test, unless that is the grid's selection.
    """
    scores = selecting(results)

    def score(runs: Iterable[Run]) -> float:
        return fmean(scores[run.id] for run in runs)

    cases = rows_by(results, case_of).items()
    return {case: rows[key] for case, rows in cases if (key := best_key(rows, score))}


def as_without_noise(results: Results, kept: Mapping[Case, list[Run]]) -> dict[Case, list[Run]]:
    """Return the finished runs that have, whatever their noise, the settings kept without noise."""

    def settings(run: Run) -> dict[str, Hashable]:
        return {k: v for k, v in run.fields.items() if k not in ("id", "seed", *CLEAN, *RARE)}

    clean = {
        case._replace(noise=()): settings(runs[0])
        for case, runs in kept.items()
        if dict(case.noise) == CLEAN
    }
    found: defaultdict[Case, list[Run]] = defaultdict(list)
    for run in results.done:
        case = case_of(run)
        if settings(run) == clean.get(case._replace(noise=())):
            found[case].append(run)
    return dict(found)


def tuned_away(results: Results, *shown: Mapping[Case, list[Run]]) -> int:
    """Return how many settings of the cases shown are not."""
    keys = {(case_of(run), run.key) for run in results.done}
    there = {(case, run.key) for kept in shown for case, runs in kept.items() for run in runs}
    cases = {case for case, _ in there}
    return sum(case in cases for case, _ in keys - there)
