"""What is recommended today, as lists: one more row to hold the losses against."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from bslbench.catalog import load_catalog
from bslbench.config import Cell
from bslbench.data.ids import ids_of
from bslbench.data.interactions import Interactions
from bslbench.engine.cell import run_cell
from bslbench.engine.external import ReadLists, Unknown, external_cell
from bslbench.engine.inputs import Options
from bslbench.engine.store import Run, Store


@dataclass(frozen=True)
class Today:
    """Lists that were read and are yet to be ranked.

    Attributes
    ----------
    cell
        Of their run.
    unknown
        Users and items that are listed, and that the data do not have.
    """

    cell: Cell
    lists: ReadLists
    unknown: Unknown

    @classmethod
    def read(cls, path: Path, data: Interactions, options: Options) -> "Today":
        """Read rows of a user, an item and its rank.

        Raises
        ------
        ConfigError, DataError
            For a column that is not there, a row that cannot be meant, by its line, or lists of
            which none is for a user of the data.
        """
        catalog = load_catalog() if options.catalog is None else options.catalog
        unknown: Unknown = {"user": set(), "item": set()}
        lists = ReadLists.read(path, ids_of(catalog, data.name, data, options.data), unknown)
        return cls(external_cell(path.name, lists, data, "valid"), lists, unknown)

    def warnings(self) -> Iterator[str]:
        """Yield what to be warned of, a line each."""
        users, items = len(self.unknown["user"]), len(self.unknown["item"])
        if users:
            yield f"{self.cell.loss}: users not in the data, left out: {users:,}"
        if items:
            yield f"{self.cell.loss}: items not in the data, which count as misses: {items:,}"

    def run(self, store: Store, options: Options) -> Run:
        """Rank them by the protocol, kept as a run.

        Items that a user has in train or valid count for nothing and take no place.
        """
        run_cell(self.cell, store, options, ranker=self.lists)
        return store.run(self.cell.id)
