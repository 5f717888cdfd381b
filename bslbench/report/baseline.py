"""A baseline file: what a grid's seeds have once come to, small enough to be committed."""

import math
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path

from pydantic import Field, field_validator, model_validator

import bslbench
from bslbench.config import Scalar, Strict
from bslbench.errors import CannotTell, ConfigError
from bslbench.evaluation.metrics import parse_metric
from bslbench.noise import RARELY
from bslbench.report.results import Key, Results
from bslbench.toml import read_toml, toml_value, validated

BASELINE_SEEDS = 10
"""Fewer do not tell how much seeds differ."""


class Group(Strict):
    """The seeds' values of runs that are alike in all else, of which `config` has the settings."""

    dataset: str
    backbone: str
    loss: str
    settings: str = ""
    noise: str = ""
    fingerprint: str
    config: dict[str, Scalar]
    seeds: list[int]
    values: list[float]

    @model_validator(mode="after")
    def _paired(self) -> "Group":
        if len(self.seeds) != len(self.values) or len(set(self.seeds)) != len(self.seeds):
            raise ValueError("seeds must be different ones, and as many as values")
        return self

    @property
    def name(self) -> str:
        """The group in words."""
        key = Key(self.backbone, self.loss, self.settings, self.noise)
        return f"{self.backbone} {key.label} on {self.dataset}"

    def changes(self, now: "Group") -> list[str]:
        """Return the settings that differ, as ``lr 0.01 -> 0.1``; those that one lacks are none."""
        before, after = RARELY | self.config, RARELY | now.config
        pairs = {key: (before[key], after[key]) for key in before if key in after}
        return [f"{key} {old} -> {new}" for key, (old, new) in pairs.items() if old != new]


class Baseline(Strict):
    """A baseline file."""

    protocol: int
    metric: str
    bslbench: str = ""
    group: list[Group] = Field(min_length=1)

    @field_validator("metric")
    @classmethod
    def _known(cls, metric: str) -> str:
        try:
            parse_metric(metric)
        except ConfigError as error:
            raise ValueError(str(error)) from error
        return metric

    @classmethod
    def read(cls, path: Path) -> "Baseline":
        """Read a file that `toml` wrote.

        Raises
        ------
        ConfigError
            Naming the file, and the line or key that is wrong.
        """
        return validated(cls, read_toml(path), str(path))

    def toml(self) -> str:
        """Return the file's text."""
        lines = [
            "# Written by `bslbench check --update`; `bslbench check` compares with it.",
            f"protocol = {self.protocol}",
            f"metric = {toml_value(self.metric)}",
            f"bslbench = {toml_value(self.bslbench)}",
        ]
        for group in self.group:
            lines += ["", "[[group]]"]
            fields = group.model_dump(exclude_defaults=True)
            lines += [f"{key} = {toml_value(value)}" for key, value in fields.items()]
        return "\n".join(lines) + "\n"


def groups_of(results: Results, metric: str) -> list[Group]:
    """Return the finished runs of a grid, grouped, by the metric on test."""
    scores = results.scores([metric])
    made: defaultdict[tuple[str, Key], dict[int, float]] = defaultdict(dict)
    fields: dict[tuple[str, Key], Mapping[str, Scalar]] = {}
    for run in results.runs:
        made[run.dataset, run.key]  # also those of which no run is finished
        fields[run.dataset, run.key] = run.fields
        value = scores.get((run.id, metric), math.nan)
        if not math.isnan(value):
            made[run.dataset, run.key][run.seed] = value
    return [
        Group(
            dataset=dataset,
            **key._asdict(),
            fingerprint=str(fields[dataset, key].get("fingerprint", "")),
            config=config_of(fields[dataset, key]),
            seeds=sorted(values),
            values=[values[seed] for seed in sorted(values)],
        )
        for (dataset, key), values in made.items()
    ]


def config_of(fields: Mapping[str, Scalar]) -> dict[str, Scalar]:
    """Return the settings among the fields of a cell."""
    names = ("id", "dataset", "backbone", "loss", "seed", "fingerprint", "protocol")
    return {key: value for key, value in fields.items() if key not in names}


def baseline_of(results: Results, metric: str) -> Baseline:
    """Return a baseline made of a grid's results.

    Raises
    ------
    CannotTell
        If a group has too few seeds to be one.
    """
    groups = groups_of(results, metric)
    for group in groups:
        if len(group.seeds) < BASELINE_SEEDS:
            raise CannotTell(
                f"{group.name} has {len(group.seeds)} seeds; a baseline takes at least "
                f"{BASELINE_SEEDS}: bslbench train --grid {results.grid} --seeds {BASELINE_SEEDS}"
            )
    return Baseline(
        protocol=protocol_of(results), metric=metric, bslbench=bslbench.__version__, group=groups
    )


def protocol_of(results: Results) -> int:
    """Return the version of the protocol that a grid was run under."""
    return max(int(run.fields.get("protocol", 0)) for run in results.runs)
