"""A dataset of one's own, from the rows that were read to its files and its catalog entry."""

import hashlib
import re
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from bslbench.catalog import PLAIN_NAME, FileSpec, Split, packaged, packaged_at, read_catalog
from bslbench.data.ids import Ids
from bslbench.data.load import SPLITS
from bslbench.errors import ConfigError
from bslbench.files import locked, write_atomically, writing
from bslbench.own.catalog_file import entry_text, with_entry
from bslbench.own.folders import in_place_of
from bslbench.own.gather import Columns, Gathered, core, distinct, gather
from bslbench.own.split import U8, How, split

ID_FILES = {"users": "users.parquet", "items": "items.parquet"}


@dataclass(frozen=True)
class Own:
    """A dataset ready to be written.

    Attributes
    ----------
    pairs
        Every pair once, with what happened on the way to them.
    parts
        The split of each pair, [n] uint8.
    how, seed
        How they were split.
    title
        What its catalog entry says of it.
    """

    name: str
    pairs: Gathered
    parts: U8
    how: How
    seed: int
    title: str

    @property
    def ids(self) -> Ids:
        """What its users and items are called."""
        return self.pairs.ids


def prepare(
    name: str,
    files: Sequence[Path],
    columns: Columns,
    *,
    k_core: int = 1,
    how: How | None = None,
    seed: int = 0,
) -> Own:
    """Read, clean and split; nothing is written.

    Parameters
    ----------
    k_core
        Users and items with fewer pairs go, until none is left that has.
    how
        None is by time where there is one, else at random.

    Raises
    ------
    ConfigError, DataError
        For what cannot be meant, or a dataset of which nothing is left.
    """
    pairs = distinct(gather(files, columns))
    if k_core > 1:
        pairs = core(pairs, k_core)
    how = how or ("random" if pairs.times is None else "time")
    filters = [f"rating >= {columns.min_rating:g}"] if columns.min_rating is not None else []
    filters += [f"{k_core}-core"] if k_core > 1 else []
    source = ", ".join(path.name for path in files)
    source += f" ({' / '.join(pairs.columns)})"
    title = "; ".join([f"from {source}", *filters, f"split by {how}"])
    return Own(name, pairs, split(pairs, how, seed), how, seed, title)


def check_name(name: str, data: Path, catalog: Path, force: bool = False) -> None:
    """Raise a `ConfigError` if a dataset cannot be called so."""
    if not re.fullmatch(PLAIN_NAME, name):
        raise ConfigError(f"{name!r}: a name is letters, digits, '.', '_' and '-'")
    folder = data / name
    if folder.exists() and not (folder / ID_FILES["users"]).is_file():
        raise ConfigError(f"{folder} is there, and no dataset that was added: choose another name")
    if catalog.resolve() == packaged_at().resolve():
        raise ConfigError(
            f"{catalog} is the catalog of bslbench itself: work in another folder, or name a file "
            "of your own by --catalog"
        )
    if name in packaged():
        raise ConfigError(f"'{name}' is a dataset that comes with bslbench: choose another name")
    place = place_of(name, data, catalog)
    if place and not force:
        raise ConfigError(f"there is a '{name}' in {place}: choose another name, or say --force")


def place_of(name: str, data: Path, catalog: Path) -> str:
    """Return where a dataset of the user's of that name is: a catalog, a folder, or nowhere."""
    if catalog.is_file() and name in read_catalog(catalog):
        return str(catalog)
    return str(data / name) if (data / name).exists() else ""


def write(own: Own, data: Path, catalog: Path, *, force: bool = False) -> None:
    """Write the files of a dataset and its catalog entry: all of it or nothing.

    Parameters
    ----------
    data
        The data folder; the files lie in a folder of the dataset's name in it.
    catalog
        The ``datasets.toml`` that gets the entry.
    force
        Replace a dataset of the user's that is there.

    Raises
    ------
    ConfigError
        If there is a dataset of that name.
    StoreError
        If the disk is full or does not let us.
    """
    check_name(own.name, data, catalog, force)
    staging = data / ".adding"
    with locked(staging), writing(data / own.name):
        fresh = staging / own.name
        shutil.rmtree(fresh, ignore_errors=True)
        try:
            fresh.mkdir()
            files = _write_files(own, fresh)
            text = catalog.read_text("utf-8") if catalog.is_file() else ""
            text = with_entry(text, own.name, _entry(own, files), str(catalog))
            with in_place_of(data / own.name, fresh):
                write_atomically(catalog.resolve(), text)
        finally:
            shutil.rmtree(fresh, ignore_errors=True)


def _write_files(own: Own, folder: Path) -> dict[Split, FileSpec]:
    """Write splits and ids, and return what the catalog says of the splits' files."""
    files: dict[Split, FileSpec] = {}
    for part, name in enumerate(SPLITS):
        chosen = own.parts == part
        if not chosen.any():
            continue
        users, items = own.pairs.users[chosen], own.pairs.items[chosen]
        path = folder / f"{name}.parquet"
        table = pa.table({"user": users, "item": items})
        pq.write_table(table, path, compression="zstd", write_page_checksum=True)
        with path.open("rb") as stream:
            digest = hashlib.file_digest(stream, "sha256")
        files[name] = FileSpec(
            name=path.name,
            bytes=path.stat().st_size,
            sha256=digest.hexdigest(),
            pairs=len(users),
        )
    own.ids.save(folder, ID_FILES)
    return files


def _entry(own: Own, files: Mapping[Split, FileSpec]) -> str:
    fields = {
        "title": own.title,
        "licence": "yours",
        "reader": "parquet",
        "n_users": len(own.ids.users),
        "n_items": len(own.ids.items),
        "split_seed": own.seed,
        "ids": ID_FILES,
    }
    said: dict[str, dict[str, object]] = {
        split: file.model_dump(exclude_defaults=True) for split, file in files.items()
    }
    return entry_text(own.name, fields, said)
