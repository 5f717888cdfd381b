"""Ids as their owner writes them, and the numbers 0, 1, 2, ... that stand for them in here."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from bslbench.catalog import DatasetSpec, data_dir, get, split_name
from bslbench.data.interactions import IntArray, Interactions
from bslbench.errors import DataError

I32 = npt.NDArray[np.int32]
TEXT = pa.large_string()
COLUMN = "id"


class Coder:
    """Numbers texts in the order in which they first appear, chunk by chunk.

    Attributes
    ----------
    known
        The texts so far, [n] large_string: text i has the number i.
    """

    def __init__(self) -> None:
        self.known: pa.Array = pa.array([], TEXT)

    def numbers(self, texts: pa.Array) -> I32:
        """Return the number of each text [n], new ones getting the next."""
        encoded = pc.cast(texts, TEXT).dictionary_encode()
        codes = find(encoded.dictionary, self.known)
        new = codes < 0
        codes[new] = np.arange(len(self.known), len(self.known) + int(new.sum()))
        self.known = pa.concat_arrays([self.known, encoded.dictionary.filter(pa.array(new))])
        numbers: I32 = codes.astype(np.int32)[encoded.indices.to_numpy()]
        return numbers


def find(texts: pa.Array, known: pa.Array) -> IntArray:
    """Return where each text [n] stands in `known`, -1 where it does not, [n] int64."""
    places = pc.index_in(pc.cast(texts, TEXT), value_set=known)
    found: IntArray = pc.fill_null(places, -1).to_numpy(zero_copy_only=False).astype(np.int64)
    return found


@dataclass(frozen=True)
class Ids:
    """What users and items are called outside.

    Attributes
    ----------
    users, items
        [n_users] and [n_items] large_string.
    """

    users: pa.Array
    items: pa.Array

    def save(self, folder: Path, names: Mapping[str, str]) -> None:
        """Write a Parquet file each, a column ``id`` whose row i is what number i is called."""
        for side, name in names.items():
            table = pa.table({COLUMN: getattr(self, side)})
            pq.write_table(table, folder / name, write_page_checksum=True)


def ids_of(
    catalog: Mapping[str, DatasetSpec],
    dataset: str,
    interactions: Interactions,
    data: Path | None = None,
) -> Ids:
    """Return what the users and items of a dataset are called: if nothing else, their numbers as
    its files have them.

    Parameters
    ----------
    dataset
        Its name; modifiers do not matter.
    interactions
        It, loaded.

    Raises
    ------
    DataError
        If a file of ids is missing, or has not one id for each.
    """
    spec = get(catalog, split_name(dataset)[0])
    sizes = interactions.n_users, interactions.n_items
    kept = interactions.kept or (None, None)
    offsets = spec.user_offset, spec.item_offset
    sides = []
    for side, size, rows, offset in zip(("users", "items"), sizes, kept, offsets, strict=True):
        numbers = np.arange(size) if rows is None else rows
        if side not in spec.ids:
            sides.append(pc.cast(pa.array(numbers + offset), TEXT))
            continue
        path = data_dir(data) / spec.name / spec.ids[side]
        if not path.is_file():  # while the pairs come from the cache
            raise DataError(f"{path}: no such file; say --data if it lies elsewhere")
        try:
            table = pq.read_table(path, columns=[COLUMN], page_checksum_verification=True)
            column = pc.cast(pc.cast(table.column(COLUMN), pa.large_binary()), TEXT)  # checks UTF-8
        except (pa.ArrowException, OSError, KeyError, ValueError) as error:
            raise DataError(f"{path}: no ids can be read from it; add the data again") from error
        if len(column) != size if rows is None else len(column) <= numbers[-1]:
            raise DataError(f"{path}: it has {len(column):,} ids, expected {size:,}")
        sides.append(pc.cast(column.combine_chunks().take(pa.array(numbers)), TEXT))
    return Ids(*sides)
