"""What is recommended today, as lists: one more row to hold the losses against."""

from pathlib import Path

from bslbench.catalog import load_catalog
from bslbench.config import Cell
from bslbench.data.ids import ids_of
from bslbench.data.load import load
from bslbench.engine.cell import run_cell
from bslbench.engine.external import ReadLists, external_cell
from bslbench.engine.inputs import Options
from bslbench.engine.store import Store


def rank_lists_of(path: Path, dataset: str, store: Store, options: Options) -> Cell:
    """Rank lists of a file by the protocol, and keep them as a run.

    Parameters
    ----------
    path
        Rows of a user, an item and its rank; items that the user has in train or valid count for
        nothing and take no place.

    Raises
    ------
    ConfigError, DataError
        For a column that is not there or a row that cannot be meant, by its line.
    """
    catalog = load_catalog() if options.catalog is None else options.catalog
    data = load(dataset, options.data, catalog)
    made = ReadLists.read(path, ids_of(catalog, dataset, data, options.data))
    cell = external_cell(path.name, made, data, "valid")
    run_cell(cell, store, options, ranker=made)
    return cell
