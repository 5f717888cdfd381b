"""A study: which losses are tuned, over which space, with what held fixed."""

import re
from collections.abc import Mapping
from typing import Any

from pydantic import Field, field_validator

from bslbench.config import Grid, Scalar, Strict, by_loss
from bslbench.engine.tuning.space import OPEN
from bslbench.errors import ConfigError, suggest
from bslbench.noise import Labels, Noise
from bslbench.toml import toml_value, validated

TRIAL_SEED = 1000
"""Trials have this seed, plus the study's; final runs have seeds from 0."""


class Study(Strict):
    """What makes a study what it is: another value of any field but the losses is another study.

    Attributes
    ----------
    name
        Its folder in the results, perhaps one within another: ``choose-shop/rung-0``.
    references
        Recommenders without gradient; those with a space are tuned like the losses.
    set
        Settings that are not tuned, for all losses that have them; ``LOSS.KEY`` for one loss.
    open
        Of `OPEN`, what is tuned too.
    noise, valid_noise
        Of train and of the labels that select, as in a grid: what is best depends on them.
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
    losses: list[str]
    references: list[str] = Field(default_factory=list)
    set: dict[str, Scalar] = Field(default_factory=dict)
    open: list[str] = Field(default_factory=list)
    noise: str = ""
    valid_noise: Labels = "clean"
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

    @field_validator("noise")
    @classmethod
    def _plain_noise(cls, text: str) -> str:
        return Noise.parse(text).text

    @property
    def trial_seed(self) -> int:
        """The seed of every trial."""
        return TRIAL_SEED + self.seed

    def fixed(self, name: str = "") -> dict[str, Scalar]:
        """Return the settings that are not tuned, those of one loss or, without its name, of all.

        L2 counts no negatives unless told to: their number differs from loss to loss.
        """
        chosen = by_loss(self.set).get(name, {})
        return chosen if name or not self.losses else {"l2_negatives": False} | chosen

    def grid(self, **changes: Any) -> Grid:
        """Return a grid over the study's dataset, backbone, losses and references.

        Raises
        ------
        ConfigError
            For settings of a loss that the study does not have, or a name that is none.
        """
        names = [asked.rpartition(":")[2] for asked in [*self.losses, *self.references]]
        owners = [owner for owner in by_loss(self.set) if owner]
        for owner in owners:
            if owner not in names:
                raise ConfigError(
                    f"--set {owner}.: no such loss in the study{suggest(owner, names)}"
                )
        content = {
            "name": self.name.rpartition("/")[2],
            "datasets": [self.dataset],
            "backbones": [self.backbone],
            "losses": self.losses,
            "references": self.references,
            "noise": [self.noise],
            "valid_noise": self.valid_noise,
            "seeds": [self.trial_seed],
            "set": self.fixed(),
            "override": [{"when": {"loss": name}, "set": self.fixed(name)} for name in owners],
            "presets": False,
        }
        return validated(Grid, content | changes, f"study '{self.name}'")


def merged(old: dict[str, Any], new: dict[str, Any], where: str) -> dict[str, Any]:
    """Return a study's record with losses and references added.

    Raises
    ------
    ConfigError
        If the two are not of one study.
    """
    defaults = {key: field.default for key, field in Study.model_fields.items()}
    old = {key: defaults[key] for key in new if key in defaults} | {"references": []} | old
    for key in sorted({*old, *new} - {"loss", "references"}):
        if old.get(key) != new.get(key):
            raise ConfigError(
                f"{where}: this study has {key} = {old.get(key)!r}, not {new.get(key)!r}; "
                "give another --name"
            )
    for name, loss in new["loss"].items():
        before = old["loss"].get(name, loss)
        for key in sorted({*before, *loss} - {"asked"}):
            if before.get(key) != loss.get(key) and key == "source":
                raise ConfigError(f"{where}: {name} has changed since; give another --name")
            if before.get(key) != loss.get(key):
                raise ConfigError(
                    f"{where}: {name} has {key} = {before.get(key)!r}, not {loss.get(key)!r}; "
                    "give another --name"
                )
    references = list(dict.fromkeys([*old["references"], *new["references"]]))
    return new | {"references": references, "loss": old["loss"] | new["loss"]}


def as_toml(content: Mapping[str, Any]) -> str:
    """Return nested dicts of plain values as TOML."""
    return "\n".join(_tables(content, [])) + "\n"


def _tables(content: Mapping[str, Any], path: list[str]) -> list[str]:
    plain = {k: v for k, v in content.items() if not isinstance(v, Mapping)}
    lines = [f"{_key(key)} = {toml_value(value)}" for key, value in plain.items()]
    if path and (plain or not content):
        lines = ["", f"[{'.'.join(map(_key, path))}]", *lines]
    for key, value in content.items():
        if isinstance(value, Mapping):
            lines += _tables(value, [*path, key])
    return lines


def _key(name: str) -> str:
    return name if re.fullmatch(r"[A-Za-z0-9_-]+", name) else toml_value(name)
