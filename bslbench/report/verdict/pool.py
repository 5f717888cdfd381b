"""The runs that verdicts rest on, from any number of grids, and which settings stand for a loss."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from copy import copy
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any, NamedTuple

from bslbench.config import EXTERNAL, FRAMING, REFERENCE, Scalar
from bslbench.engine.grid_files import OTHERWISE
from bslbench.engine.store import Run as Folder
from bslbench.engine.store import Store
from bslbench.losses import LOSSES
from bslbench.report.levels import CLEAN, noise_of, tuned_at
from bslbench.report.results import Results, Run
from bslbench.report.verdict.rules import Rules, base_of

TUNED = ("published", "tuned", "trial")
"""How `settings_from` begins for settings that somebody has searched."""
SIZE = ("epochs", "batch_size", "dim")
"""The settings that say how long a run is and how large: only runs alike in them are compared."""
SCORES = ("score_train", "score_test")
FRAME = FRAMING | {"loss_version"}
"""What is no search when it differs: a grid's settings, not a loss's, and a loss's version."""


class Place(NamedTuple):
    """Where a claim is judged."""

    dataset: str
    backbone: str


@dataclass(frozen=True)
class Arm:
    """The runs of one loss under one noise at one place and with the same settings, by seed.

    `tuned` tells whether anybody has searched for the settings.
    """

    loss: str
    runs: Mapping[int, Run]
    tuned: bool

    @property
    def fields(self) -> Mapping[str, Any]:
        """The settings, by plain names; those of the first run."""
        return next(iter(self.runs.values())).fields


class Pool:
    """Finished runs of several grids, each once, of those kinds that verdicts may rest on.

    Attributes
    ----------
    folder
        Of the results.
    grids
        Names.
    runs
        In the order of the grids.
    left_out
        Why runs do not count, with how many of them.
    refused
        Grids made under older rules, each with the first such run.
    """

    def __init__(self, folder: Path, grids: Sequence[str], rules: Rules) -> None:
        self.folder = folder
        self.grids: list[str] = []
        self.refused: dict[str, str] = {}
        self.runs: list[Run] = []
        self.left_out: defaultdict[str, int] = defaultdict(int)
        self._records: dict[str, Mapping[str, str]] = {}
        self._values: dict[tuple[str, str, str, str], float] = {}
        for grid in grids:
            self._add(Results.load(folder, grid), rules)

    def _add(self, results: Results, rules: Rules) -> None:
        table = results.record.to_dict("records")
        records = {row["run_id"]: {str(k): str(v) for k, v in row.items()} for row in table}
        for run in results.done:
            if int(records[run.id].get("rules") or 0) < rules.version:
                self.refused[results.grid] = run.id
                return
        self.grids.append(results.grid)
        new = results.finished - self._records.keys()
        for run in results.done:
            if run.id not in new:
                continue
            self._records[run.id] = records[run.id]
            if reason := _no_evidence(run, rules):
                self.left_out[reason] += 1
            else:
                self.runs.append(run)
        columns = [results.metrics[name] for name in ("run_id", "split", "name", "group", "value")]
        for run_id, split, name, group, value in zip(*columns, strict=True):
            if run_id in new:
                self._values[run_id, split, name, group] = float(value)

    def places(self, losses: Iterable[str]) -> list[Place]:
        """Return where any of these losses was trained, in the order of the runs."""
        wanted = set(losses)
        return list(
            dict.fromkeys(
                Place(run.dataset, run.key.backbone) for run in self.runs if run.key.loss in wanted
            )
        )

    def value(self, run: Run, name: str, split: str = "test", group: str = "") -> float | None:
        """Return a metric, NAME@K, of a run."""
        return self._values.get((run.id, split, name, group))

    def recorded(self, run: Run, column: str) -> str:
        """Return what runs.csv says of a run, nothing if it does not."""
        return self._records[run.id].get(column, "")

    def folder_of(self, run: Run) -> Folder:
        """Return the run's own folder, which need not be there."""
        return Store(self.folder).run(run.id)

    def arms(
        self,
        place: Place,
        loss: str,
        noise: Mapping[str, Any] = CLEAN,
        where: Mapping[str, Scalar] | None = None,
    ) -> list[Arm]:
        """Return the settings of a loss under a noise, those that agree with `where`."""
        found: defaultdict[str, dict[int, Run]] = defaultdict(dict)
        for run in self.runs:
            if (
                Place(run.dataset, run.key.backbone) == place
                and run.key.loss == loss
                and noise_of(run.fields) == noise
                and all(run.fields.get(key) == value for key, value in (where or {}).items())
            ):
                settings = {k: v for k, v in run.fields.items() if k not in ("id", "seed")}
                found[repr(sorted(settings.items()))][run.seed] = run
        # A noisy grid may hold several settings for reasons of its own: that is no search.
        searched = noise == CLEAN and len({_searchable(runs) for runs in found.values()}) > 1
        return [Arm(loss, runs, searched or self._tuned(runs.values())) for runs in found.values()]

    def _tuned(self, runs: Iterable[Run]) -> bool:
        """Tell whether settings were searched for, those of noisy runs at their own noise."""
        return all(
            (source := self.recorded(run, "settings_from")).startswith(TUNED)
            and not source.endswith(OTHERWISE)
            and (noise_of(run.fields) == CLEAN or tuned_at(source, run.fields))
            for run in runs
        )

    def declared(self) -> "Pool":
        """Return the pool with the runs at the score that their loss declares alone."""
        return self._of(
            [
                run
                for run in self.runs
                if (loss := LOSSES.get(run.key.loss)) is None
                or {run.fields.get(name, loss.score) for name in SCORES} == {loss.score}
            ]
        )

    def alike(
        self,
        place: Place,
        losses: Sequence[str],
        noises: Iterable[Mapping[str, Any]],
        where: Mapping[str, Scalar] | None = None,
        *,
        seeds: int,
    ) -> "Pool":
        """Return the pool with the runs of one size alone: the one that tells most.

        It has the first loss and another, if any has; most of these losses at most of these levels
        of noise; of several such, most with `seeds` runs; then, the first loss is best on the split
        that selects. `where` is asked of the first loss.
        """
        by_size: defaultdict[tuple[Any, ...], list[Run]] = defaultdict(list)
        for run in self.runs:
            if Place(run.dataset, run.key.backbone) == place:
                by_size[tuple(run.fields.get(key) for key in SIZE)].append(run)
        levels = list(noises)

        def tells(pool: Pool) -> tuple[bool, int, int, float]:
            asked = [where, *[None] * (len(losses) - 1)]
            there = [
                arm
                for loss, fields in zip(losses, asked, strict=True)
                for noise in levels
                if (arm := pool.best(place, loss, noise, fields, seeds=seeds))
            ]
            own = [pool.selected(arm) for arm in there if arm.loss == losses[0]]
            enough = sum(len(arm.runs) >= seeds for arm in there)
            tested = bool(own) and len({arm.loss for arm in there}) > 1
            return tested, len(there), enough, max(own, default=0.0)

        return max(map(self._of, by_size.values()), key=tells, default=self)

    def _of(self, runs: list[Run]) -> "Pool":
        narrowed = copy(self)
        narrowed.runs = runs
        return narrowed

    def best(
        self,
        place: Place,
        loss: str,
        noise: Mapping[str, Any] = CLEAN,
        where: Mapping[str, Scalar] | None = None,
        *,
        seeds: int,
    ) -> Arm | None:
        """Return the settings with the best mean of the primary metric on valid.

        Of those that were tuned, if any were; of these, of those that have at least `seeds` runs,
        or, if none has, the most.
        """
        arms = self.arms(place, loss, noise, where)
        arms = [arm for arm in arms if arm.tuned] or arms
        enough = min(seeds, max((len(arm.runs) for arm in arms), default=0))
        arms = [arm for arm in arms if len(arm.runs) >= enough]
        return max(arms, key=self.selected, default=None)

    def selected(self, arm: Arm) -> float:
        """Return the mean of Recall@20 on the split that picked the epochs."""
        return fmean(
            self.value(run, "Recall@20", run.selection) or 0.0 for run in arm.runs.values()
        )


def _searchable(runs: Mapping[int, Run]) -> str:
    """Return the settings of an arm that a search may have varied."""
    fields = next(iter(runs.values())).fields
    return repr(sorted((k, v) for k, v in fields.items() if k not in {"id", "seed", *FRAME}))


def _no_evidence(run: Run, rules: Rules) -> str:
    """Return why verdicts may not rest on a run; nothing if they may."""
    if base_of(run.dataset) in rules.not_on:
        return f"on {base_of(run.dataset)}"
    if run.selection != "valid":
        return "with epochs picked on test"
    if run.fields.get("init", "xavier") != "xavier":
        return "not started from Xavier"
    if run.fields.get("eval_users", 0):
        return "evaluated on a sample of users"
    if run.key.backbone == REFERENCE:
        return "of recommenders without a loss"
    if run.key.backbone == EXTERNAL:
        return "of models from outside"
    return ""
