"""Levels of noise, as results carry them and as reports put them into words."""

from collections.abc import Hashable, Mapping
from typing import Any

from bslbench.engine.grid_files import OTHERWISE
from bslbench.noise import RARELY, Noise

CLEAN: dict[str, float] = {"noise_pos": 0.0, "noise_neg": 1.0, "noise_fneg": 0.0}
"""The levels of a run without noise."""

RARE = tuple(RARELY)
"""What a noisy run may say beside its levels."""

CLEAN_NAME = "clean"


def noise_of(fields: Mapping[str, Any]) -> dict[str, Hashable]:
    """Return the noise fields of a run, the levels that it does not name being clean."""
    return CLEAN | {name: fields[name] for name in (*CLEAN, *RARE) if name in fields}


def tuned_at(settings_from: str, noise: Mapping[str, Any]) -> bool:
    """Tell whether settings were tuned at a noise, and left so, by where they are from.

    Examples
    --------
    >>> tuned_at("tuned (study, trial 3, at neg=5)", CLEAN | {"noise_neg": 5.0})
    True
    >>> tuned_at("tuned (study, trial 3)", CLEAN | {"noise_neg": 5.0})
    False
    >>> tuned_at("tuned (study, trial 3, at neg=5); set otherwise", CLEAN | {"noise_neg": 5.0})
    False
    """
    at = f", at {Noise.of(noise).level})"
    return at in settings_from and not settings_from.endswith(OTHERWISE)


def noise_text(noise: Mapping[str, Any]) -> str:
    """Return in words what differs from no noise.

    Examples
    --------
    >>> noise_text({"noise_pos": 0.2, "noise_neg": 5.0, "noise_kind": "popular"})
    'pos=0.2, neg=5 (popular)'
    >>> noise_text({"noise_fneg": 0.0, "noise_hidden": True}), noise_text(CLEAN)
    ('hidden positives', '')
    """
    levels = [
        f"{name.removeprefix('noise_')}={noise[name]:g}"
        for name, clean in CLEAN.items()
        if noise.get(name, clean) != clean
    ]
    if noise.get("noise_hidden") and not noise.get("noise_fneg"):
        levels.append("hidden positives")
    kinds = [str(noise["noise_kind"])] if "noise_kind" in noise else []
    kinds += ["valid too"] if noise.get("valid_noise") == "same" else []
    words = f"({', '.join(kinds)})" if levels and kinds else ", ".join(kinds)
    return " ".join(filter(None, (", ".join(levels), words)))
