"""Backbones: what turns ids into embeddings; `BACKBONES` lists them by name."""

from bslbench.backbones.base import Backbone, Rows
from bslbench.backbones.mf import MF

BACKBONES: dict[str, type[Backbone]] = {"mf": MF}

__all__ = ["BACKBONES", "MF", "Backbone", "Rows"]
