"""From files of any size to pairs of numbers: read in chunks, checked, filtered, counted."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from bslbench.data.ids import I32, Coder, Ids
from bslbench.data.tables import Chunk, Table, open_table, plain, shown
from bslbench.data.values import numbers, texts, time_kind, times
from bslbench.errors import ConfigError, DataError

USUAL = {
    "user": ("user", "user_id", "customer", "customer_id", "uid", "reviewer_id"),
    "item": ("item", "item_id", "product", "product_id", "sku", "iid", "movie_id", "asin"),
    "time": ("time", "timestamp", "when", "date", "datetime"),
    "rating": ("rating", "score", "stars"),
}
"""Names by which a column is known where none is asked for."""


Number = TypeVar("Number", np.int32, np.float64)


@dataclass(frozen=True)
class Columns:
    """Which columns of the files are what; None takes a usual name where there is one.

    Attributes
    ----------
    min_rating
        Rows rated lower are left out; None looks at no rating.
    names
        The names of the columns in their order, where the files are texts that do not say them.

    Raises
    ------
    ConfigError
        If the least rating is nan, or a name stands twice.
    """

    user: str | None = None
    item: str | None = None
    time: str | None = None
    rating: str | None = None
    min_rating: float | None = None
    names: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Check the least rating and the names."""
        if self.min_rating is not None and math.isnan(self.min_rating):
            raise ConfigError("--min-rating: nan is not a rating")
        twice = [name for name in self.names if self.names.count(name) > 1]
        if twice:
            raise ConfigError(f"--columns: '{twice[0]}' stands twice")

    def found(self, table: Table) -> dict[str, str]:
        """Return the columns of a table by what they are: user, item, perhaps time and rating.

        Raises
        ------
        ConfigError
            If one that is needed or asked for is not there.
        """
        asked = {"user": self.user, "item": self.item, "time": self.time}
        if self.min_rating is not None:
            asked["rating"] = self.rating
        found = {what: table.column(what, name, USUAL[what]) for what, name in asked.items()}
        for what in ("user", "item", "rating"):
            if what in found and found[what] is None:
                headless = "" if self.names or not table.lines else " (without a header: --columns)"
                raise ConfigError(
                    f"{table.path}: which column is its {what}? say --{what}{headless}"
                    f"{table.hint(what)}"
                )
        columns = {what: name for what, name in found.items() if name is not None}
        for what, name in columns.items() if self.names else ():
            value = table.first[table.names.index(name)]
            if plain(value) in map(plain, USUAL[what]):
                raise ConfigError(
                    f"{table.path}, line 1: '{shown(value)}' names a column: leave out --columns"
                )
        if len({*columns.values()}) < len(columns):
            raise ConfigError(f"{table.path}: one column cannot be two things: {columns}")
        return columns


@dataclass(frozen=True)
class Gathered:
    """Interactions as numbers, and what became of the rows they were read from.

    Attributes
    ----------
    users, items
        [n] int32.
    times
        [n] float64; None if there is no such column.
    ids
        What the numbers stand for.
    tally
        Rows by what became of them.
    columns
        What is in which column, as it is told: of each kind of file, once.
    """

    users: I32
    items: I32
    times: npt.NDArray[np.float64] | None
    ids: Ids
    tally: dict[str, int]
    columns: tuple[str, ...]

    def only(self, kept: npt.NDArray[np.bool_], why: str) -> "Gathered":
        """Return those that are kept, [n] bool; the others are counted under `why`."""
        left_out = len(kept) - int(kept.sum())
        if not left_out:
            return self
        return replace(
            self,
            users=self.users[kept],
            items=self.items[kept],
            times=None if self.times is None else self.times[kept],
            tally=self.tally | {why: left_out},
        )


def gather(files: Sequence[Path], columns: Columns) -> Gathered:
    """Read all rows of all files.

    Besides the result, 16 bytes or 32 a row while it is put together, only a chunk of a file is
    held at a time.

    Raises
    ------
    ConfigError, DataError
        For a column that is not there, or a row that cannot be meant, by its line.
    """
    parts = _Parts()
    for path in files:
        table = open_table(path, columns.names)
        found = columns.found(table)
        if ("time" in found) != parts.timed and parts.files:
            raise DataError(f"{path}: some files have a time and some have none")
        parts.timed = "time" in found
        parts.columns[_told(found)] = None
        parts.files += 1
        for chunk in table.chunks(list(found.values())):
            parts.add(chunk, list(found), columns.min_rating)
    rows, read = parts.tally["rows"], ", ".join(map(str, files))
    if not rows:
        raise DataError(f"{read}: no rows")
    if parts.tally.get("rated below") == rows:
        raise DataError(
            f"{read}: all {rows:,} rows are rated below {columns.min_rating:g}: lower --min-rating"
        )
    return parts.gathered()


def _told(found: Mapping[str, str]) -> str:
    """Return the columns of a table as they are told.

    Examples
    --------
    >>> _told({"user": "user", "item": "sku"})
    'user, item sku'
    """
    return ", ".join(
        what if what == name else f"{what} {shown(name)}" for what, name in found.items()
    )


class _Parts:
    """What has been read so far."""

    def __init__(self) -> None:
        self.coders = Coder(), Coder()
        self.users: list[I32] = []
        self.items: list[I32] = []
        self.times: list[npt.NDArray[np.float64]] = []
        self.tally = {"rows": 0}
        self.columns: dict[str, None] = {}
        self.kind: pa.DataType | None = None
        self.timed = False
        self.files = 0

    def add(self, chunk: Chunk, roles: list[str], min_rating: float | None) -> None:
        by_role = dict(zip(roles, chunk.columns, strict=True))
        rows = chunk.filled()
        if len(rows) < len(by_role["user"]):
            self._count("blank", len(by_role["user"]) - len(rows))
            by_role = {role: column.take(pa.array(rows)) for role, column in by_role.items()}
        if not len(rows):
            return

        def place(i: int) -> str:
            return chunk.place(int(rows[i]))

        users, items = (texts(by_role[side], place, side) for side in ("user", "item"))
        moments = None
        if "time" in by_role:
            self.kind = self.kind or time_kind(by_role["time"])
            moments = times(by_role["time"], self.kind, place, "time")
        self._count("rows", len(rows))
        if min_rating is not None:
            high = pc.greater_equal(numbers(by_role["rating"], place, "rating"), min_rating)
            users, items = users.filter(high), items.filter(high)
            moments = None if moments is None else moments.filter(high)
            self._count("rated below", len(rows) - len(users))
        self.users.append(self.coders[0].numbers(users))
        self.items.append(self.coders[1].numbers(items))
        if moments is not None:
            self.times.append(moments.to_numpy())

    def _count(self, what: str, n: int) -> None:
        self.tally[what] = self.tally.get(what, 0) + n

    def gathered(self) -> Gathered:
        users, items = _joined(self.users), _joined(self.items)
        moments = _joined(self.times) if self.timed else None
        ids = Ids(*(coder.known for coder in self.coders))
        return Gathered(users, items, moments, ids, self.tally, tuple(self.columns))


def _joined(parts: list[npt.NDArray[Number]]) -> npt.NDArray[Number]:
    """Return the parts as one, and let go of them: they are the largest thing there is."""
    whole = np.concatenate(parts)
    parts.clear()
    return whole


def distinct(data: Gathered) -> Gathered:
    """Return each pair once, at its earliest time, users and items numbered in the order of their
    ids and the pairs in theirs: however the rows were ordered, the result is the same.
    """
    users, user_ids = _renumbered(data.users, data.ids.users)
    items, item_ids = _renumbered(data.items, data.ids.items)
    keys = users.astype(np.int64) * len(item_ids) + items
    times = data.times
    if times is None:
        keys.sort()
    else:
        order = np.lexsort((times, keys))
        keys, times = keys[order], times[order]
    first = np.diff(keys, prepend=-1) > 0
    keys = keys[first]
    repeated = len(first) - len(keys)
    return Gathered(
        (keys // len(item_ids)).astype(np.int32),
        (keys % len(item_ids)).astype(np.int32),
        None if times is None else times[first],
        Ids(user_ids, item_ids),
        data.tally | ({"repeated": repeated} if repeated else {}),
        data.columns,
    )


def _renumbered(numbers: I32, ids: pa.Array) -> tuple[I32, pa.Array]:
    """Return numbers without gaps in the order of the ids [m], and the ids [n] that are used."""
    used = np.flatnonzero(np.bincount(numbers, minlength=len(ids)))
    kept = ids.take(pa.array(used))
    order = pc.sort_indices(kept).to_numpy()
    places = np.empty(len(ids), np.int32)
    places[used[order]] = np.arange(len(used))
    return places[numbers], kept.take(pa.array(order))


def core(data: Gathered, k: int) -> Gathered:
    """Return the k-core: what is left when users and items of fewer than k pairs go, in turns.

    Raises
    ------
    DataError
        If nothing is left.
    """
    kept = np.ones(len(data.users), bool)
    while True:
        users, items = data.users[kept], data.items[kept]
        enough = (np.bincount(users)[users] >= k) & (np.bincount(items)[items] >= k)
        if enough.all():
            break
        kept[np.flatnonzero(kept)[~enough]] = False
    if not kept.any():
        raise DataError(f"no user and item has {k} interactions with the others: lower --k-core")
    return distinct(data.only(kept, "outside the core"))
