"""A dataset with its exact split, in the files that other tools read."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
from scipy.sparse import csr_array

from bslbench.data.ids import Ids
from bslbench.data.interactions import Interactions
from bslbench.data.load import SPLITS
from bslbench.errors import ConfigError, DataError
from bslbench.files import writing
from bslbench.own.folders import in_place_of

Format = Literal["parquet", "recbole", "lenskit"]

COLUMNS: dict[Format, tuple[str, str]] = {
    "parquet": ("user", "item"),
    "recbole": ("user_id:token", "item_id:token"),
    "lenskit": ("user_id", "item_id"),
}
ABOUT = "split.json"
ROWS = 1 << 20
"""Pairs written at a time."""


def export(
    data: Interactions, ids: Ids, kind: Format, folder: Path, *, force: bool = False
) -> None:
    """Write train, valid and test of a dataset: a file each, all of them or nothing.

    Parameters
    ----------
    data
        As runs see it: with what is held out of train as valid.
    ids
        What users and items are called; that is what the files hold.
    kind
        ``parquet``: columns ``user`` and ``item``, and ``users.parquet`` and ``items.parquet`` with
        the ids in the order that rows of embeddings have here. ``lenskit``: the same with columns
        ``user_id`` and ``item_id``. ``recbole``: files as its ``benchmark_filename`` wants them.
    folder
        Where to.
    force
        Replace an export that is there; nothing else is ever replaced.

    Raises
    ------
    ConfigError
        If the folder is there.
    DataError
        For an id that the format cannot hold.
    StoreError
        If the disk is full or does not let us.
    """
    asked, folder = folder, folder.resolve()  # the name of "." is needed, and where a link leads
    if folder.exists():
        if not _is_export(folder):
            raise ConfigError(f"{asked} is there already, and no export: name another with --out")
        if not force:
            raise ConfigError(f"{asked} is there already: name another with --out, or say --force")
    fresh = folder.with_name(f".{folder.name}.new")
    with writing(folder):
        shutil.rmtree(fresh, ignore_errors=True)
        try:
            fresh.mkdir(parents=True)
            for split in SPLITS:
                chunks = _chunks(getattr(data, split), ids, COLUMNS[kind])
                if kind == "recbole":
                    _write_inter(chunks, fresh / f"{folder.name}.{split}.inter")
                else:
                    _write_parquet(chunks, fresh / f"{split}.parquet")
            if kind != "recbole":
                ids.save(fresh, {"users": "users.parquet", "items": "items.parquet"})
            counts = {split: int(getattr(data, split).nnz) for split in SPLITS}
            about = {"dataset": data.name, "fingerprint": data.fingerprint, "pairs": counts}
            (fresh / ABOUT).write_text(json.dumps(about, indent=1) + "\n")
            with in_place_of(folder, fresh):
                pass
        finally:
            shutil.rmtree(fresh, ignore_errors=True)


def _is_export(folder: Path) -> bool:
    """Tell whether `export` has made a folder."""
    try:
        about = json.loads((folder / ABOUT).read_bytes())
    except (OSError, ValueError):
        return False
    return isinstance(about, dict) and about.keys() == {"dataset", "fingerprint", "pairs"}


def _chunks(matrix: csr_array, ids: Ids, columns: tuple[str, str]) -> Iterator[pa.Table]:
    """Yield the pairs of a CSR matrix by their ids; at least one table, perhaps without rows."""
    for first in range(0, max(1, matrix.nnz), ROWS):
        entries = np.arange(first, min(first + ROWS, matrix.nnz))
        users = np.searchsorted(matrix.indptr, entries, side="right") - 1
        items = matrix.indices[first : first + ROWS]
        sides = ids.users.take(pa.array(users)), ids.items.take(pa.array(items))
        yield pa.table(dict(zip(columns, sides, strict=True)))


def _write_parquet(tables: Iterator[pa.Table], path: Path) -> None:
    first = next(tables)
    with pq.ParquetWriter(path, first.schema, compression="zstd", write_page_checksum=True) as file:
        file.write_table(first)
        for table in tables:
            file.write_table(table)


def _write_inter(tables: Iterator[pa.Table], path: Path) -> None:
    """Write RecBole's format, which knows no quotes: tabs, line ends and quotes are refused."""
    plain = pyarrow.csv.WriteOptions(include_header=False, delimiter="\t", quoting_style="none")
    with path.open("wb") as file:
        for number, table in enumerate(tables):
            if not number:
                file.write("\t".join(table.column_names).encode() + b"\n")
            try:
                pyarrow.csv.write_csv(table, file, plain)
            except pa.ArrowInvalid as error:
                raise DataError(
                    f"{path.name}: an id has a tab, a quote or a line end, for which RecBole's "
                    "format has no place; export parquet"
                ) from error
