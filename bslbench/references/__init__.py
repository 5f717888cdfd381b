"""Reference recommenders that need no gradient training, under the names that grids use."""

from bslbench.references.base import Reference
from bslbench.references.ease import EASE
from bslbench.references.ials import IALS
from bslbench.references.itemknn import ItemKNN
from bslbench.references.unpersonal import Popularity, Random

__all__ = ["EASE", "IALS", "REFERENCES", "ItemKNN", "Popularity", "Random", "Reference"]

REFERENCES: dict[str, type[Reference]] = {
    "random": Random,
    "popularity": Popularity,
    "itemknn": ItemKNN,
    "ease": EASE,
    "ials": IALS,
}
