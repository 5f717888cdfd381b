"""What a study tunes: losses and references, each with its space."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bslbench.catalog import DatasetSpec
from bslbench.config import PROTOCOL, Cell, Scalar, TrainSettings
from bslbench.engine.grid import expand
from bslbench.engine.tuning.space import COMMON, OPEN, Params, Space, read
from bslbench.engine.tuning.study import Study
from bslbench.errors import ConfigError, suggest
from bslbench.losses import LOSSES
from bslbench.losses.base import declared
from bslbench.plugins import Plugin, find
from bslbench.references import REFERENCES


@dataclass(frozen=True)
class Contender:
    """A loss, or a reference with something to tune, in a study.

    Attributes
    ----------
    asked
        As a grid takes it: a name or ``FILE.py:CLASS``.
    plugin
        Its class.
    space
        What it is tuned over: for a loss the common space and its own.
    fixed
        What the study holds fixed for it.
    cell
        A trial of it, with what is tuned at its defaults.
    """

    asked: str
    plugin: Plugin
    space: Space
    fixed: Mapping[str, Scalar]
    cell: Cell

    @property
    def name(self) -> str:
        """As the results have it."""
        return self.plugin.name

    def trial(self, params: Params) -> Cell:
        """Return the cell of a trial.

        Raises
        ------
        ConfigError, ValidationError
            If the settings do not take the values.
        """
        values = dict(params)
        if "score" in values:
            values["score_train"] = values["score_test"] = values.pop("score")
        own = {key: value for key, value in values.items() if key in self.cell.loss_params}
        changes: dict[str, Any] = {
            "loss_params": self.plugin.resolve(self.cell.loss_params | own),
            "origin": self.cell.origin | dict.fromkeys(values, "trial"),
        }
        if self.cell.train:
            settings = {key: value for key, value in values.items() if key not in own}
            train = self.cell.train.model_dump() | settings
            changes["train"] = TrainSettings.model_validate(train)
        return self.cell.changed(**changes)

    def takes(self, params: Params) -> bool:
        """Tell whether the settings and the constructor take these values."""
        try:
            self.plugin.cls(**self.trial(params).loss_params)
        except Exception:  # somebody's constructor refuses in a way of its own
            return False
        return True


def contenders(
    study: Study, data: Path | None = None, catalog: Mapping[str, DatasetSpec] | None = None
) -> list[Contender]:
    """Return a study's losses, and those of its references that have a space.

    Raises
    ------
    ConfigError
        For a name that is unknown, a setting that nothing has, a space that is malformed or empty.
    """
    for key in ("score_train", "score_test"):
        if key in study.set and "score" in study.open:
            raise ConfigError(f"study '{study.name}': score is open, and {key} is set")
    cells = {cell.loss: cell for cell in expand(study.grid(), data, catalog)}
    entered = []
    for asked in dict.fromkeys([*study.losses, *study.references]):
        plugin = _plugin(asked, asked in study.references)
        fixed = study.fixed() | study.fixed(plugin.name)
        cell = cells[plugin.name]
        space = {key: at for key, at in _space(study, plugin, cell).items() if key not in fixed}
        if space:
            entered.append(Contender(asked, plugin, space, fixed, cell))
        elif cell.train:
            raise ConfigError(f"study '{study.name}': all of {plugin.name} is set: nothing to tune")
    if not entered:
        raise ConfigError(f"study '{study.name}': nothing to tune")
    return entered


def _plugin(asked: str, is_reference: bool) -> Plugin:
    return Plugin(asked, REFERENCES[asked]) if is_reference else find(asked, LOSSES, "loss")


def _space(study: Study, plugin: Plugin, cell: Cell) -> Space:
    """Return the space of a loss or reference, without regard to what is fixed."""
    own = read(declared(plugin.cls, "space"), plugin.place)
    for name in own:
        if name not in cell.loss_params:
            known = suggest(name, cell.loss_params)
            raise ConfigError(f"{plugin.place}: space: it has no parameter '{name}'{known}")
    if not cell.train:
        return own
    common = dict(COMMON) | {name: OPEN[name] for name in study.open}
    if cell.train.scale is None:
        common.pop("scale", None)
    if cell.train.sampler in ("none", "in_batch"):
        common.pop("n_negatives", None)
    return common | own


def record(study: Study, entered: list[Contender]) -> dict[str, Any]:
    """Return what ``study.toml`` says: the study, its data, what it tunes over which spaces."""
    content = study.model_dump(exclude={"losses", "set"})
    content |= {"fingerprint": entered[0].cell.fingerprint, "protocol": PROTOCOL}
    content["set"] = study.fixed()
    content["loss"] = {
        contender.name: {
            "asked": contender.asked,
            "source": contender.plugin.source,
            "reference": contender.cell.train is None,
            "set": study.fixed(contender.name),
            "space": {name: str(entry) for name, entry in contender.space.items()},
        }
        | ({"version": version} if (version := contender.cell.loss_version) != 1 else {})
        for contender in entered
    }
    return content
