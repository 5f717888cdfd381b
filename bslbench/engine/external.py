"""Recommenders trained elsewhere: their embeddings or lists read, checked, and made a cell."""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import torch
from safetensors.torch import load_file
from torch import Tensor

from bslbench.config import EXTERNAL, Cell, Scalar, Score, Selection
from bslbench.data.ids import Ids, find
from bslbench.data.interactions import Interactions
from bslbench.data.tables import Chunk, open_table, shown
from bslbench.data.trec import SUFFIXES, Trec
from bslbench.data.values import numbers, texts
from bslbench.errors import BslbenchError, ConfigError, DataError, first_line
from bslbench.evaluation.lists import Lists, rank_lists
from bslbench.evaluation.ranking import EmbeddingScorer, rank_all
from bslbench.evaluation.ranks import Ranks

USUAL = {
    "user": ("user", "user_id", "uid", "qid", "query"),
    "item": ("item", "item_id", "iid", "docid", "doc_id"),
    "rank": ("rank", "position", "place"),
}
"""Names by which the columns of a file of lists are known."""

Unknown = dict[str, set[str]]
"""Ids that the data do not have, by ``user`` and ``item``."""


@dataclass(frozen=True)
class ReadEmbeddings:
    """Embeddings from elsewhere: a ranker.

    Attributes
    ----------
    users, items
        [n_users, d] and [n_items, d] float32, rows in the order of the ids.
    score
        What ranks: their cosine or inner product.
    """

    users: Tensor
    items: Tensor
    score: Score

    @classmethod
    def read(cls, users: Path, items: Path, score: Score, data: Interactions) -> "ReadEmbeddings":
        """Read two tables, .npy or .safetensors, perhaps of one file.

        Raises
        ------
        DataError
            Naming the file, and the shape or the row that cannot be.
        """
        tables: list[Tensor] = []
        for path, side, n in ((users, "users", data.n_users), (items, "items", data.n_items)):
            table = _table(path, side)
            if table.ndim != 2 or len(table) != n:
                shape = " x ".join(map(str, table.shape))
                raise DataError(
                    f"{path}: {side} are {shape}, expected {n:,} rows, one for each of the {side} "
                    f"of {data.name}"
                )
            bad = ~torch.isfinite(table).all(1)
            if bad.any():
                raise DataError(
                    f"{path}, row {int(bad.int().argmax()) + 1}: not all finite numbers"
                )
            tables.append(table)
        if tables[0].shape[1] != tables[1].shape[1] or not tables[0].shape[1]:
            sizes = " and ".join(str(table.shape[1]) for table in tables)
            raise DataError(f"{users} and {items}: rows of {sizes} numbers, expected the same")
        return cls(tables[0], tables[1], score)

    @property
    def digest(self) -> str:
        """sha256 over shapes and numbers, whatever file they came in."""
        digest = hashlib.sha256()
        for table in (self.users, self.items):
            digest.update(repr(tuple(table.shape)).encode())
            digest.update(table.contiguous().numpy().tobytes())
        return digest.hexdigest()

    @property
    def params(self) -> dict[str, Scalar]:
        """What the results say of it."""
        return {"score_test": self.score}

    def __call__(self, data: Interactions, split: Selection) -> Ranks:
        """Rank all items."""
        return rank_all(EmbeddingScorer(self.users, self.items, self.score), data, split)


def _table(path: Path, side: str) -> Tensor:
    """Return a table as float32; of several in a file the one that is called like its side."""
    if not path.is_file():
        raise DataError(f"{path}: no such file")
    try:
        if path.suffix == ".safetensors":
            tables = load_file(path)
            if len(tables) > 1 and side not in tables:
                raise DataError(f"{path}: none of its tensors is called '{side}'")
            table = tables[side] if side in tables else next(iter(tables.values()))
        elif path.suffix == ".npy":
            array = np.load(path, allow_pickle=False)
            if array.dtype.kind not in "fiu":
                raise DataError(f"{path}: expected numbers, found {array.dtype}")
            with np.errstate(over="ignore"):  # what is too large is found to be infinite
                table = torch.from_numpy(array.astype(np.float32))
        else:
            raise DataError(f"{path}: its name ends neither in .npy nor in .safetensors")
    except BslbenchError:
        raise
    except Exception as error:  # damaged bytes make numpy and safetensors raise a dozen kinds
        raise DataError(f"{path}: it cannot be read: {first_line(error)}") from error
    if table.is_complex() or table.dtype == torch.bool:
        raise DataError(f"{path}: expected numbers, found {table.dtype}")
    return table.float()


@dataclass(frozen=True)
class ReadLists:
    """Lists from elsewhere: a ranker."""

    lists: Lists

    @classmethod
    def read(cls, path: Path, ids: Ids, unknown: Unknown | None = None) -> "ReadLists":
        """Read rows of a user, an item and its rank: CSV, TSV, Parquet or a TREC run file.

        Parameters
        ----------
        ids
            What users and items are called in the file.
        unknown
            Gets the ids that are not known: such a user's rows are left out, such an item takes
            its place and is no hit. Without it the first such id is an error.

        Raises
        ------
        ConfigError, DataError
            For a column that is not there, an unknown id, a rank that is none, an item twice in a
            list or two at one rank, naming the line; if no row is left.
        """
        table = Trec(path) if path.suffix.lower() in SUFFIXES else open_table(path)
        columns = [table.column(what, None, usual) for what, usual in USUAL.items()]
        for what, column in zip(USUAL, columns, strict=True):
            if column is None:
                raise ConfigError(f"{path}: no column is called '{what}'{table.hint(what)}")
        chunks = table.chunks([name for name in columns if name])
        parts = [_rows(chunk, ids, unknown) for chunk in chunks]
        if not sum(len(part[0]) for part in parts):
            raise DataError(f"{path}: no rows")
        whole = [np.concatenate(column) for column in zip(*parts, strict=True)]
        users, items, ranks, rows = (column[whole[0] >= 0] for column in whole)
        if not len(users):
            raise DataError(f"{path}: none of its users is in the data")
        for twice, what in ((items, "item"), (ranks, "rank")):
            order = np.lexsort((rows, twice, users))
            again = (np.diff(users[order]) == 0) & (np.diff(twice[order]) == 0)
            again &= twice[order[1:]] >= 0  # unknown items have one number
            if again.any():
                row = rows[order[1:][again]].min()
                raise DataError(
                    f"{table.place(int(row))}: the {what} stands in the user's list already"
                )
        return cls(Lists(users.astype(np.int32), items.astype(np.int32), ranks))

    def n_without(self, users: npt.NDArray[np.int32]) -> int:
        """Return how many of `users` [n] have no list."""
        return int((~np.isin(users, self.lists.users)).sum())

    @property
    def digest(self) -> str:
        """sha256 over the lists, however the file was ordered and ranks were counted."""
        order = np.lexsort((self.lists.places, self.lists.users))
        digest = hashlib.sha256(self.lists.users[order].tobytes())
        digest.update(self.lists.items[order].tobytes())
        return digest.hexdigest()

    @property
    def params(self) -> dict[str, Scalar]:
        """What the results say of it."""
        return {}

    def __call__(self, data: Interactions, split: Selection) -> Ranks:
        """Rank what is listed."""
        return rank_lists(self.lists, data, split)


def _rows(chunk: Chunk, ids: Ids, unknown: Unknown | None) -> tuple[npt.NDArray[Any], ...]:
    """Return users, items, ranks and row numbers of a chunk, [n] int64 each; -1 is unknown."""
    filled = chunk.filled()

    def place(i: int) -> str:
        return chunk.place(int(filled[i]))

    user, item, rank = (column.take(pa.array(filled)) for column in chunk.columns)
    found = []
    for column, known, what in ((user, ids.users, "user"), (item, ids.items, "item")):
        names = texts(column, place, what)
        codes = find(names, known)
        if (codes < 0).any():
            if unknown is None:
                i = int((codes < 0).argmax())
                raise DataError(f"{place(i)}: unknown {what} '{_short(names[i].as_py())}'")
            unknown[what] |= set(names.filter(pa.array(codes < 0)).to_pylist())
        found.append(codes)
    values = numbers(rank, place, "rank").to_numpy()
    wrong = (values != np.floor(values)) | (values < 0) | (values > 2**53)
    if wrong.any():
        i = int(wrong.argmax())
        raise DataError(f"{place(i)}: {values[i]:g} is not a rank")
    return *found, values.astype(np.int64), filled + chunk.first


def _short(text: str) -> str:
    whole = shown(text)
    return whole if len(whole) <= 24 else whole[:21] + "..."


def external_cell(
    name: str, made: ReadEmbeddings | ReadLists, data: Interactions, selection: Selection
) -> Cell:
    """Return the cell of a recommender trained elsewhere; what it is made of is part of its id."""
    return Cell(
        dataset=data.name,
        fingerprint=data.fingerprint,
        backbone=EXTERNAL,
        loss=name,
        seed=0,
        selection=selection,
        loss_params=made.params,
        loss_source=made.digest,
    )
