"""Presets: settings for a dataset, backbone and loss or reference that a grid may leave open."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from bslbench.backbones import BACKBONES
from bslbench.config import Cell, Preset, Strict, TrainSettings
from bslbench.errors import ConfigError, suggest
from bslbench.losses import LOSSES
from bslbench.plugins import Plugin
from bslbench.references import REFERENCES
from bslbench.toml import read_toml, validated

PRESETS = Path(__file__).parent.parent / "presets.toml"
RECIPES = Path(__file__).parent.parent / "recipes"


class _File(Strict):
    preset: list[Preset]


def find_presets(choice: bool | str, plugins: list[Plugin]) -> list[Preset]:
    """Return the presets of ours, those of a recipe over them, those of a TOML file, or none.

    Parameters
    ----------
    choice
        True for ours, the name of one of `RECIPES` for it over them, the path of a file, False
        for none.
    plugins
        The losses and backbones of the grid: a preset may have their settings and those of ours.

    Raises
    ------
    ConfigError
        For a file that is missing or malformed, or a setting that nothing has.
    """
    if choice is False:
        return []
    if choice is True:
        return _read(PRESETS, plugins)
    recipes = {path.stem: path for path in RECIPES.glob("*.toml")}
    if choice in recipes:
        return _read(PRESETS, plugins) + _read(recipes[choice], plugins)
    if not choice.endswith(".toml"):
        raise ConfigError(f"no recipe named '{choice}'{suggest(choice, recipes)} (or FILE.toml)")
    return _read(Path(choice), plugins)


def taken_from(cells: Iterable[Cell], choice: str) -> bool:
    """Tell whether any setting of the cells is from a recipe or a file of presets."""
    sources = {source for cell in cells for source in cell.origin.values()}
    if not choice.endswith(".toml"):
        sources.discard("published preset")  # they lie beneath every recipe
    return any(source.endswith(" preset") for source in sources)


def _read(path: Path, plugins: list[Plugin]) -> list[Preset]:
    presets = validated(_File, read_toml(path), str(path)).preset
    tables: list[dict[str, Any]] = [LOSSES, BACKBONES, REFERENCES]
    ours = [Plugin(name, cls) for table in tables for name, cls in table.items()]
    known = set(TrainSettings.model_fields).union(*(p.parameters() for p in [*ours, *plugins]))
    for key in [key for preset in presets for key in preset.set]:
        if key not in known:
            raise ConfigError(
                f"{path}: no loss, backbone, reference or training setting has a '{key}'"
                f"{suggest(key, known)}"
            )
    return presets
