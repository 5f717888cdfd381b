"""Readers: the bytes of an interaction file as arrays of users and items, all lines at once.

Every reader takes the bytes and the name to blame in errors, and returns (users, items): int64
arrays of one length, in the order of the file. Line ends are LF or CRLF; a byte order mark,
trailing blanks and blank lines are allowed. Anything wrong is a `DataError` with file and line.
"""

import codecs
import json
import re
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import chain
from pathlib import Path, PurePosixPath
from typing import NoReturn

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from bslbench.data.interactions import IntArray
from bslbench.errors import DataError, first_line, suggest

Pairs = tuple[IntArray, IntArray]
Reader = Callable[[bytes, str], Pairs]

MAX_ID = 2**31 - 1  # the indices of our CSR matrices are int32
MAX_DIGITS = len(str(MAX_ID))
MAX_MEMBER = 2**31
"""Bytes that one member of an archive may have, unpacked."""


def user_lists(data: bytes, where: str) -> Pairs:
    """Read lines ``user item item ...``; a user may have no items.

    Examples
    --------
    >>> users, items = user_lists(b"0 3 1" + bytes([10]) + b"2 5", "train.txt")
    >>> users.tolist(), items.tolist()
    ([0, 0, 2], [3, 1, 5])
    """
    text = _Text.of(data, where)
    ids = text.integers(slice(None))
    counts = np.diff(text.bounds)
    counts = counts[counts > 0]
    first = np.cumsum(counts) - counts  # the user's position on each line that is not blank
    return np.repeat(ids[first], counts - 1), np.delete(ids, first)


def pairs(data: bytes, where: str) -> Pairs:
    """Read lines ``user item``."""
    return _Text.of(data, where).two_columns("2", 2, 2)


def triples(data: bytes, where: str) -> Pairs:
    """Read lines ``user item weight``; the weight, and what may follow it, is ignored."""
    return _Text.of(data, where).two_columns("3 or more", 3, len(data))


def tsv(data: bytes, where: str) -> Pairs:
    """Read lines ``user item`` after a line of column names."""
    header, newline, rest = data.removeprefix(codecs.BOM_UTF8).partition(b"\n")
    if header.strip()[:1].isdigit():
        raise DataError(f"{where}, line 1: expected column names, found ids")
    return _Text.of(newline + rest, where).two_columns("2", 2, 2)  # line 1 is blank now


def json_lists(data: bytes, where: str) -> Pairs:
    """Read a list of lists, where list u has the items of user u.

    Examples
    --------
    >>> users, items = json_lists(b"[[3, 1], [], [5]]", "valid.json")
    >>> users.tolist(), items.tolist()
    ([0, 0, 2], [3, 1, 5])
    """
    try:
        text = data.decode("utf-8-sig")
        lists = json.loads(text)
    except json.JSONDecodeError as error:
        raise DataError(f"{where}, line {error.lineno}: not valid JSON: {error.msg}") from error
    except (ValueError, RecursionError) as error:
        raise DataError(f"{where}: not valid JSON: {error}") from error
    if not isinstance(lists, list) or not all(isinstance(items, list) for items in lists):
        raise DataError(f"{where}, line 1: expected a list of lists of item ids")
    flat = list(chain.from_iterable(lists))
    if (
        set(map(type, flat)) - {int}
        or not 0 <= min(flat, default=0) <= max(flat, default=0) <= MAX_ID
    ):
        user, bad = next(
            (user, item)
            for user, items in enumerate(lists)
            for item in items
            if type(item) is not int or not 0 <= item <= MAX_ID
        )
        opening = [match.start() for match in re.finditer(r"\[", text)][user + 1]
        line = text.count("\n", 0, opening) + 1
        raise DataError(f"{where}, line {line}: list of user {user}: {_fault(json.dumps(bad))}")
    users = np.repeat(np.arange(len(lists)), [len(items) for items in lists])
    return users, np.array(flat, dtype=np.int64)


def parquet(data: bytes, where: str) -> Pairs:
    """Read the columns ``user`` and ``item`` of whole numbers from 0, as `data add` writes them."""
    try:
        table = pq.read_table(
            pa.BufferReader(data), columns=["user", "item"], page_checksum_verification=True
        )
        columns = [table.column(name) for name in ("user", "item")]
        for column in columns:
            if not pa.types.is_integer(column.type) or column.null_count:
                raise DataError(f"{where}: its users and items are not all whole numbers")
        users, items = (pc.cast(column, pa.int64()).to_numpy() for column in columns)
    except (pa.ArrowException, OSError, KeyError, ValueError) as error:
        raise DataError(f"{where}: it cannot be read as Parquet: {first_line(error)}") from error
    for ids in (users, items):
        outside = (ids < 0) | (ids > MAX_ID)
        if outside.any():
            row = int(outside.argmax())
            raise DataError(f"{where}, row {row + 1}: {_fault(str(ids[row]))}")
    return users, items


READERS: dict[str, Reader] = {
    "user_lists": user_lists,
    "pairs": pairs,
    "triples": triples,
    "tsv": tsv,
    "json_lists": json_lists,
    "parquet": parquet,
}


def read_bytes(path: Path, member: str = "") -> bytes:
    """Return the bytes of a file, or of a member of a zip or tar archive; nothing is unpacked.

    Raises
    ------
    DataError
        If there is no such file or member, the archive is damaged, or any of its members has an
        absolute path, a path with ``..``, is a link or a device, or is larger than `MAX_MEMBER`.
    """
    try:
        return _read_member(path, member) if member else path.read_bytes()
    except OSError as error:
        raise DataError(f"{path}: {error.strerror or error}") from error
    except (
        tarfile.TarError,
        zipfile.BadZipFile,
        zlib.error,
        EOFError,
        RuntimeError,
        ValueError,
    ) as error:
        raise DataError(f"{path}: damaged archive: {error}") from error


@dataclass(frozen=True)
class _Text:
    """Lines of blank-separated tokens, found but not yet converted.

    Attributes
    ----------
    codes
        The bytes, with one line end before and one after, [n] uint8.
    starts, ends
        Where each token starts and ends in `codes`, [n_tokens] int64.
    bounds
        Number of tokens before each line and before the end, [n_lines + 1] int64.
    """

    where: str
    codes: npt.NDArray[np.uint8]
    starts: IntArray
    ends: IntArray
    bounds: IntArray

    @classmethod
    def of(cls, data: bytes, where: str) -> "_Text":
        data = data.removeprefix(codecs.BOM_UTF8).replace(b"\r\n", b"\n")
        codes = np.frombuffer(b"\n" + data + b"\n", dtype=np.uint8)
        newline = codes == ord("\n")
        solid = ~(newline | (codes == ord(" ")) | (codes == ord("\t")))
        edges = np.flatnonzero(solid[1:] != solid[:-1]) + 1
        starts, ends = edges[0::2], edges[1::2]
        bounds = np.searchsorted(starts, np.flatnonzero(newline)).astype(np.int64)
        return cls(where, codes, starts, ends, bounds)

    def integers(self, tokens: IntArray | slice) -> IntArray:
        """Return the chosen tokens as ids, Horner's rule on all of them at once."""
        starts, ends = self.starts[tokens], self.ends[tokens]
        lengths = ends - starts
        values = np.zeros(len(starts), dtype=np.int64)
        bad = lengths > MAX_DIGITS
        for k in range(min(int(lengths.max(initial=0)), MAX_DIGITS)):
            digits = self.codes[np.minimum(starts + k, ends - 1)] - np.uint8(ord("0"))
            bad |= digits > 9  # below "0" wraps around to above 9
            values = np.where(k < lengths, values * 10 + digits, values)
        bad |= values > MAX_ID
        if bad.any():
            self.blame(int(np.arange(len(self.starts))[tokens][bad.argmax()]))
        return values

    def two_columns(self, expected: str, fewest: int, most: int) -> Pairs:
        """Return the first two tokens of every line that is not blank."""
        counts = np.diff(self.bounds)
        filled = counts > 0
        wrong = filled & ((counts < fewest) | (counts > most))
        if wrong.any():
            line = int(wrong.argmax())
            raise DataError(
                f"{self.where}, line {line + 1}: expected {expected} columns, found {counts[line]}"
            )
        first = self.bounds[:-1][filled]
        return self.integers(first), self.integers(first + 1)

    def blame(self, token: int) -> NoReturn:
        line = int(np.searchsorted(self.bounds, token, side="right"))
        written = self.codes[self.starts[token] : self.ends[token]].tobytes()
        raise DataError(f"{self.where}, line {line}: {_fault(written.decode('ascii', 'replace'))}")


def _fault(written: str) -> str:
    """Say why something is not an id."""
    shown = written if len(written) <= 24 else written[:21] + "..."
    if re.fullmatch(r"\d+", written):
        return f"id {shown} is larger than {MAX_ID}"
    if re.fullmatch(r"-\d+", written):
        return f"id {shown} is negative"
    if re.fullmatch(r"[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?", written):
        return f"id {shown} is not a whole number"
    return f"{shown!r} is not a number"


def _read_member(path: Path, member: str) -> bytes:
    """Look at every member before trusting one: a hostile archive is refused as a whole."""
    found: dict[str, bytes] = {}
    names = []
    for name, size, is_plain, read in (_in_zip if path.suffix == ".zip" else _in_tar)(path):
        where = PurePosixPath(name.replace("\\", "/"))
        if where.is_absolute() or ".." in where.parts or re.match("[A-Za-z]:", name):
            raise DataError(f"{path}: refused: member {name!r} lies outside the archive")
        if not is_plain:
            raise DataError(f"{path}: refused: member {name!r} is a link or a device")
        if size > MAX_MEMBER:
            raise DataError(f"{path}: refused: member {name!r} has {size:,} bytes")
        names.append(str(where))
        if names[-1] == member:
            found[member] = read()
    if member not in found:
        raise DataError(f"{path}: no member '{member}'{suggest(member, names)}")
    return found[member]


Member = tuple[str, int, bool, Callable[[], bytes]]


def _in_zip(path: Path) -> Iterator[Member]:
    with zipfile.ZipFile(path) as archive:
        for info in archive.infolist():
            kind = stat.S_IFMT(info.external_attr >> 16)
            is_plain = kind in (0, stat.S_IFREG, stat.S_IFDIR)
            yield info.filename, info.file_size, is_plain, partial(archive.read, info)


def _in_tar(path: Path) -> Iterator[Member]:
    def read(info: tarfile.TarInfo) -> bytes:
        stream = archive.extractfile(info)
        return stream.read() if stream is not None else b""

    with tarfile.open(path, "r:gz" if path.suffix in {".gz", ".tgz"} else "r:") as archive:
        for info in archive:
            yield info.name, info.size, info.isfile() or info.isdir(), partial(read, info)
