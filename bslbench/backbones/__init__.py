"""Backbones: what turns ids into embeddings; `BACKBONES` lists them by name."""

from bslbench.backbones.base import Backbone, Rows
from bslbench.backbones.lightgcn import LightGCN
from bslbench.backbones.mf import MF
from bslbench.backbones.ngcf import NGCF

BACKBONES: dict[str, type[Backbone]] = {"mf": MF, "ngcf": NGCF, "lightgcn": LightGCN}

__all__ = ["BACKBONES", "MF", "NGCF", "Backbone", "LightGCN", "Rows"]
