"""Presets: settings for a dataset, backbone and loss that a grid may leave open."""

from pathlib import Path

from bslbench.backbones import BACKBONES
from bslbench.config import Preset, Strict, TrainSettings, read_toml, validated
from bslbench.errors import ConfigError, suggest
from bslbench.losses import LOSSES
from bslbench.plugins import Plugin

PRESETS = Path(__file__).parent.parent / "presets.toml"


class _File(Strict):
    preset: list[Preset]


def find_presets(choice: bool | str, plugins: list[Plugin]) -> list[Preset]:
    """Return the presets of ours, of a TOML file, or none.

    Parameters
    ----------
    choice
        True for ours, the path of a file, False for none.
    plugins
        The losses and backbones of the grid: a preset may have their settings and those of ours.

    Raises
    ------
    ConfigError
        For a file that is missing or malformed, or a setting that nothing has.
    """
    if choice is False:
        return []
    path = PRESETS if choice is True else Path(choice)
    presets = validated(_File, read_toml(path), str(path)).preset
    ours = [Plugin(name, cls) for table in (LOSSES, BACKBONES) for name, cls in table.items()]
    known = set(TrainSettings.model_fields).union(*(p.parameters() for p in [*ours, *plugins]))
    for key in [key for preset in presets for key in preset.set]:
        if key not in known:
            raise ConfigError(
                f"{path}: no loss, backbone or training setting has a '{key}'{suggest(key, known)}"
            )
    return presets
