"""A study: which losses are tuned, over which space, with what held fixed."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import Field, field_validator

from bslbench.catalog import DatasetSpec
from bslbench.config import PROTOCOL, Cell, Grid, Scalar, Strict, TrainSettings
from bslbench.engine.grid import expand
from bslbench.engine.tuning.space import Choice, Params, Range, Space, read
from bslbench.errors import BslbenchError, ConfigError, suggest
from bslbench.losses import LOSSES
from bslbench.losses.base import declared
from bslbench.plugins import Plugin, find

COMMON: Space = {
    "lr": Range("log", 1e-4, 3e-2),
    "l2": Range("log", 1e-6, 1e-1),
    "dropout": Range("linear", 0.0, 0.5),
}
"""What every loss is tuned over."""

OPEN: Space = {
    "n_negatives": Range("int_log", 1, 1024),
    "score": Choice(("cosine", "inner")),
    "scale": Range("log", 1.0, 100.0),
}
"""What a study can open for every loss; else a loss has its own default. `score` is both scores."""

SLOTS = (*COMMON, *OPEN)
"""Places of the common parameters in a quasi-random point; a loss's own come after these."""

TRIAL_SEED = 1000
"""Trials have this seed, plus the study's; final runs have seeds from 0."""


class Study(Strict):
    """What makes a study what it is: another value of any field but the losses is another study.

    Attributes
    ----------
    set
        Settings that are not tuned, for all losses that have them.
    open
        Of `OPEN`, what is tuned too.
    startup
        Trials of each loss at quasi-random points.
    lag
        Trial n of a loss is proposed from its trials 0 to n - `lag`: so `lag` of them may run side
        by side, and the study comes out the same whether they do or not.
    prune
        Whether trials below the median of their own loss's are given up.
    """

    name: str
    dataset: str
    backbone: str = "mf"
    losses: list[str] = Field(min_length=1)
    set: dict[str, Scalar] = Field(default_factory=dict)
    open: list[str] = Field(default_factory=list)
    seed: int = 0
    startup: int = Field(8, ge=1)
    lag: int = Field(2, ge=1)
    prune: bool = True

    @field_validator("open")
    @classmethod
    def _can_be_opened(cls, names: list[str]) -> list[str]:
        for name in names:
            if name not in OPEN:
                raise ValueError(f"'{name}' cannot be opened{suggest(name, OPEN)}")
        return names

    @property
    def trial_seed(self) -> int:
        """The seed of every trial."""
        return TRIAL_SEED + self.seed

    def fixed(self) -> dict[str, Scalar]:
        """Return the settings that are not tuned; L2 counts no negatives unless told to."""
        return {"l2_negatives": False} | self.set

    def grid(self, **changes: Any) -> Grid:
        """Return a grid over the study's dataset, backbone and losses."""
        content = {
            "name": self.name,
            "datasets": [self.dataset],
            "backbones": [self.backbone],
            "losses": self.losses,
            "seeds": [self.trial_seed],
            "set": self.fixed(),
            "presets": False,
        }
        return Grid.model_validate(content | changes)


@dataclass(frozen=True)
class Contender:
    """A loss in a study.

    Attributes
    ----------
    name
        As the results have it.
    asked
        As a grid takes it: a name or ``FILE.py:CLASS``.
    space
        What it is tuned over: the common space and its own.
    source
        sha256 of the user's file; empty for ours.
    cell
        A trial of it, at its defaults.
    """

    name: str
    asked: str
    space: Space
    source: str
    cell: Cell

    def trial(self, params: Params) -> Cell:
        """Return the cell of a trial.

        Raises
        ------
        ConfigError
            If the settings or the loss do not take the values.
        """
        flat = dict(params)
        if "score" in flat:
            flat["score_train"] = flat["score_test"] = flat.pop("score")
        settings = {k: v for k, v in flat.items() if k in TrainSettings.model_fields}
        assert self.cell.train is not None
        train = TrainSettings.model_validate(self.cell.train.model_dump() | settings)
        loss = find(self.asked, LOSSES, "loss")
        own = self.cell.loss_params | {k: v for k, v in flat.items() if k not in settings}
        fields = {name: getattr(self.cell, name) for name in Cell.model_fields}
        origin = self.cell.origin | dict.fromkeys(flat, "trial")
        return Cell(**fields | {"train": train, "loss_params": loss.resolve(own), "origin": origin})

    def takes(self, params: Params) -> bool:
        """Tell whether the settings and the loss's constructor take these values."""
        try:
            cell = self.trial(params)
            find(self.asked, LOSSES, "loss").cls(**cell.loss_params)
        except (BslbenchError, ValueError, AssertionError):
            return False
        return True


def contenders(
    study: Study, data: Path | None = None, catalog: Mapping[str, DatasetSpec] | None = None
) -> list[Contender]:
    """Return a study's losses with their spaces.

    Raises
    ------
    ConfigError
        For a name that is unknown, a setting that nothing has, a malformed space, or one that
        leaves nothing to tune.
    """
    for key in ("score_train", "score_test"):
        if key in study.set and "score" in study.open:
            raise ConfigError(f"study '{study.name}': score is open, and {key} is set")
    cells = expand(study.grid(), data, catalog)  # says which settings nothing has
    plugins = [find(asked, LOSSES, "loss") for asked in study.losses]
    return [
        Contender(plugin.name, asked, _space(study, plugin, cell), plugin.source, cell)
        for asked, plugin, cell in zip(study.losses, plugins, cells, strict=True)
    ]


def _space(study: Study, loss: Plugin, cell: Cell) -> Space:
    own = read(declared(loss.cls, "space"), loss.name)
    for name in own:
        if name not in loss.parameters():
            known = suggest(name, loss.parameters())
            raise ConfigError(f"{loss.name}: space: it has no parameter '{name}'{known}")
    common = dict(COMMON) | {name: OPEN[name] for name in study.open}
    assert cell.train is not None
    if cell.train.scale is None:
        common.pop("scale", None)
    if cell.train.sampler in ("none", "in_batch"):
        common.pop("n_negatives", None)
    space = {name: entry for name, entry in (common | own).items() if name not in study.set}
    if not space:
        raise ConfigError(
            f"study '{study.name}': {loss.name}: every parameter is set, none is left"
        )
    return space


def record(study: Study, entered: list[Contender]) -> dict[str, Any]:
    """Return what ``study.toml`` says: the study, its data, its losses and their spaces."""
    content = study.model_dump(exclude={"losses", "set"})
    content |= {"fingerprint": entered[0].cell.fingerprint, "protocol": PROTOCOL}
    content["set"] = study.fixed()
    content["loss"] = {
        contender.name: {"asked": contender.asked, "source": contender.source}
        | {"space": {name: str(entry) for name, entry in contender.space.items()}}
        for contender in entered
    }
    return content


def merged(old: dict[str, Any], new: dict[str, Any], where: str) -> dict[str, Any]:
    """Return a study's record with losses added.

    Raises
    ------
    ConfigError
        If the two are not of one study.
    """
    for key in sorted({*old, *new} - {"loss"}):
        if old.get(key) != new.get(key):
            raise ConfigError(
                f"{where}: this study has {key} = {old.get(key)!r}, not {new.get(key)!r}; "
                "give another --name"
            )
    for name, loss in new["loss"].items():
        if name in old["loss"] and old["loss"][name] | {"asked": ""} != loss | {"asked": ""}:
            raise ConfigError(f"{where}: {name} has changed since; give another --name")
    return new | {"loss": old["loss"] | new["loss"]}


def as_toml(content: Mapping[str, Any]) -> str:
    """Return nested dicts of plain values as TOML."""
    return "\n".join(_tables(content, [])) + "\n"


def _tables(content: Mapping[str, Any], path: list[str]) -> list[str]:
    plain = {k: v for k, v in content.items() if not isinstance(v, Mapping)}
    lines = [f"{_key(key)} = {json.dumps(value)}" for key, value in plain.items()]
    if path and (plain or not content):
        lines = ["", f"[{'.'.join(map(_key, path))}]", *lines]
    for key, value in content.items():
        if isinstance(value, Mapping):
            lines += _tables(value, [*path, key])
    return lines


def _key(name: str) -> str:
    return name if re.fullmatch(r"[A-Za-z0-9_-]+", name) else json.dumps(name)
