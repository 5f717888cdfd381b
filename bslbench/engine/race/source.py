"""The data of a race, where they come as files: read and shown first, then entered once."""

import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path

from bslbench.errors import ConfigError, DataError
from bslbench.files import write_atomically
from bslbench.own.add import Own, check_name, place_of, prepare, write
from bslbench.own.gather import Columns


def name_of(files: Sequence[Path]) -> str:
    """Return what a dataset from files is called, if nobody says.

    Examples
    --------
    >>> name_of([Path("our data/shop orders.csv.gz")])
    'shop-orders'
    """
    stem = files[0].name.partition(".")[0]
    return re.sub(r"[^A-Za-z0-9_-]+", "-", stem).strip("-") or "data"


@dataclass(frozen=True)
class Source:
    """Files of interactions, and where the dataset goes that a race makes of them.

    Attributes
    ----------
    name
        Of the dataset.
    folder
        The race's, which remembers what the dataset was made from.
    data, catalog
        The data folder, and the ``datasets.toml`` that gets the entry.
    """

    name: str
    files: Sequence[Path]
    columns: Columns
    folder: Path
    data: Path
    catalog: Path

    def read(self) -> Own | None:
        """Return the dataset, not yet written; None if an earlier call of the race has entered it.

        Raises
        ------
        ConfigError
            If there is another dataset of that name.
        DataError
            If a file is missing or malformed.
        """
        try:
            check_name(self.name, self.data, self.catalog, force=True)
        except ConfigError as error:
            raise ConfigError(f"--name: {error}") from error
        known, place = self._known(), place_of(self.name, self.data, self.catalog)
        entered = place == str(self.catalog)
        if place and not known:
            mend = f", or use what is there by --dataset {self.name}" if entered else ""
            raise ConfigError(f"there is a '{self.name}' in {place}: give another --name{mend}")
        # A call that was killed may have left the files without the entry.
        if entered and (self.data / self.name).exists():
            return None
        return prepare(self.name, self.files, self.columns)

    def enter(self, own: Own) -> None:
        """Write the dataset and its catalog entry, into a folder of the race that is there.

        Raises
        ------
        ConfigError
            If there is another dataset of that name by now.
        StoreError
            If the disk is full or does not let us.
        """
        known = self._known()
        write_atomically(self._kept, self._content)
        write(own, self.data, self.catalog, force=known)

    @property
    def _kept(self) -> Path:
        return self.folder / "source.json"

    def _known(self) -> bool:
        """Tell whether the race has been here with the same files before, wherever they lay."""
        return self._kept.exists() and self._kept.read_bytes() == self._content.encode()

    @cached_property
    def _content(self) -> str:
        files = [_digest(path) for path in self.files]
        columns = asdict(self.columns)
        if not self.columns.names:
            del columns["names"]  # as races wrote it before there were such
        return json.dumps({"files": files, "columns": columns})


def _digest(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise DataError(f"{path}: {error.strerror}") from error
