"""What a cell is run with: how, and on which data, which a process keeps for its next cell."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from bslbench.catalog import DatasetSpec
from bslbench.config import Cell
from bslbench.data.interactions import Interactions
from bslbench.data.load import load
from bslbench.data.noise import corrupt
from bslbench.data.splits import hold_out
from bslbench.errors import DataError


@dataclass(frozen=True)
class Options:
    """How runs are made, nothing of which changes a number.

    Attributes
    ----------
    data, catalog
        Where the data lie and how they are described; None for the defaults.
    save_model
        Keep the embeddings.
    force
        Train anew what is finished.
    keep_every
        Seconds between two writes of a run's state, at evaluations.
    """

    data: Path | None = None
    catalog: Mapping[str, DatasetSpec] | None = None
    save_model: bool = False
    force: bool = False
    keep_every: float = 30.0


DEFAULTS = Options()

_held: dict[tuple[str, str, int, str], Interactions] = {}


def split_of(cell: Cell, options: Options) -> Interactions:
    """Return the data of a cell with what is held out of train, and with its noise.

    Raises
    ------
    DataError
        If they are no longer those that the cell was planned on.
    """
    data = load(cell.dataset, options.data, options.catalog)
    if data.fingerprint != cell.fingerprint:
        raise DataError(f"{cell.dataset} is no longer the data that {cell.id} was planned on")
    key = data.name, data.fingerprint, data.split_seed, cell.selection
    if key not in _held:
        _held.clear()  # grids go through their datasets one after the other
        _held[key] = hold_out(data, cell.selection)
    return corrupt(_held[key], cell.noise, cell.seed, data)
