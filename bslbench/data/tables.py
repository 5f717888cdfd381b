"""Tables in files of others, read a chunk at a time: CSV, TSV, RecBole's .inter, Parquet.

A table is text in columns with names. What cannot be read is a `DataError` of one line that names
the file and the line, or the row of a Parquet file, both counted from 1.
"""

import codecs
import csv
import io
import re
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet as pq

from bslbench.errors import ConfigError, DataError, first_line, suggest

BLOCK = 1 << 24
"""Bytes of text read at a time: more than the longest line that there may be."""
ROWS = 1 << 21
"""Rows of Parquet read at a time."""
HEADER = 1 << 20
"""Bytes in which the names of a text's columns must end."""

DELIMITERS = {".csv": ",;\t|", ".tsv": "\t", ".inter": "\t"}
ANY = ("\t", ",", ";", "|", " ", "::")
"""Delimiters of a text by another name; the last one is MovieLens'."""
PARQUET = (".parquet", ".pq")

MISFIT = re.compile(r"Row #(\d+): (?:Expected \d+ columns, got (\d+)|.* to null)")
"""What Arrow says of a line with too many or too few values, or with something between two of the
colons of a `::`; its rows count the header as 1."""

FAULTS = (pa.ArrowException, OSError, ValueError, KeyError, IndexError, TypeError, EOFError)
"""What Arrow raises on files that are not what they should be."""


@dataclass(frozen=True)
class Chunk:
    """Some rows of a table.

    Attributes
    ----------
    table
        Where they come from.
    first
        Number of the first of them among the table's rows, from 0.
    columns
        The columns asked for, in the order asked for; those of a text are binary.
    """

    table: "Table"
    first: int
    columns: tuple[pa.Array, ...]

    def place(self, row: int) -> str:
        """Name the file and the place in it of a row of the chunk."""
        return self.table.place(self.first + row)

    def filled(self) -> npt.NDArray[np.int64]:
        """Return which rows of the chunk are not blank: a blank line of a text is a row, too."""
        if not self.table.lines:
            return np.arange(len(self.columns[0]))
        length = sum(pc.binary_length(column).to_numpy() for column in self.columns)
        return np.flatnonzero(length)


class Table(ABC):
    """A file of rows."""

    names: list[str]
    """Its columns."""
    lines = True
    """Whether it is text, in lines."""
    first: Sequence[str] = ()
    """Values of the first row, where it was to name the columns."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @abstractmethod
    def chunks(self, columns: Sequence[str]) -> Iterator[Chunk]:
        """Yield all rows, once, with these columns of it."""

    @abstractmethod
    def place(self, row: int) -> str:
        """Name the file and the place in it of a row counted from 0."""

    def column(self, what: str, asked: str | None, usual: Sequence[str]) -> str | None:
        """Return the name of the column for `what`: the one asked for, else the first usual one.

        Names are compared by their letters and digits, without case and RecBole's ``:type``.

        Raises
        ------
        ConfigError
            If there is no column of the name asked for, or several could be meant.
        """
        if asked in self.names:
            return asked
        wanted = [asked] if asked else list(usual)
        for short in map(plain, wanted):
            found = [name for name in self.names if plain(name) == short]
            if len(found) > 1:
                several = ", ".join(found)
                raise ConfigError(f"{self.path}: several columns may be its {what}: {several}")
            if found:
                return found[0]
        if asked:
            raise ConfigError(f"{self.path}: it has no column '{asked}'{self.hint(asked)}")
        return None

    def hint(self, asked: str) -> str:
        """Return a suggestion for a name that is not there, on one line whatever the names are."""
        return shown(suggest(asked, self.names))[:400]


def shown(name: str) -> str:
    """Return what is found in a file as it can be shown, on one line."""
    return "".join(c if c.isprintable() else "?" for c in name)


def plain(name: str) -> str:
    """Return what of a column's name is compared: letters and digits, in lower case."""
    return "".join(c for c in name.partition(":")[0].lower() if c.isalnum())


def open_table(path: Path, names: Sequence[str] | None = None) -> Table:
    """Return the table in a file, by the end of its name; ``.gz`` may follow.

    With `names` of its columns, it is a text without a line that names them, whatever its end;
    None if nobody can say any.

    Raises
    ------
    ConfigError
        If it is Parquet and `names` are given.
    DataError
        If it is no such file, has no columns or not as many as `names`, or cannot be read.
    """
    if not path.is_file():
        raise DataError(f"{path}: no such file")
    suffixes = [suffix.lower() for suffix in path.suffixes]
    kind = next((suffix for suffix in suffixes[::-1] if suffix != ".gz"), "")
    if kind in PARQUET:
        if names:
            raise ConfigError(f"{path}: --columns is for texts, Parquet names its columns")
        return _Parquet(path)
    if kind in DELIMITERS or names:
        return _Text(path, DELIMITERS.get(kind, ANY), kind == ".csv", names or ())
    known = ", ".join([*DELIMITERS, *PARQUET])
    headless = "" if names is None else "; a text without a header is read with --columns"
    raise DataError(f"{path}: its name ends in none of {known}{headless}")


class _Text(Table):
    """Lines of values between delimiters, the names of the columns on the first or given."""

    def __init__(
        self, path: Path, delimiters: Sequence[str], quoted: bool, names: Sequence[str] = ()
    ) -> None:
        super().__init__(path)
        self.quoted = quoted
        self.header = 0 if names else 1
        with _readable(path), pa.input_stream(path, compression="detect") as stream:
            start = bytes(stream.read(HEADER))
        if start.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
            raise DataError(f"{path}: it is UTF-16; save it as UTF-8")
        lines = start.removeprefix(codecs.BOM_UTF8).splitlines(keepends=True)
        try:
            text = lines[0].decode() if lines else ""
            self.delimiter = max(
                delimiters, key=lambda mark: (text.count(mark) + 1 == len(names), text.count(mark))
            )
            decoded = (line.decode() for line in lines)
            first = next(csv.reader(decoded, **self._dialect(), strict=True), [])
            self.first = first[:: len(self.delimiter)]
        except UnicodeDecodeError as error:
            raise DataError(f"{path}, line 1: not UTF-8 at byte {error.start}") from error
        except csv.Error as error:
            raise DataError(f"{path}, line 1: {error}") from error
        self.names = list(names or self.first)
        if len(self.first) != len(self.names):
            raise DataError(
                f"{path}, line 1: {len(self.first)} columns between {self.delimiter!r}, "
                f"--columns names {len(self.names)}"
            )
        if len(self.names) < 2:
            raise DataError(f"{path}, line 1: expected the names of two or more columns")

    def _dialect(self) -> dict[str, Any]:
        quoting = csv.QUOTE_MINIMAL if self.quoted else csv.QUOTE_NONE
        return {"delimiter": self.delimiter[0], "quoting": quoting}

    def chunks(self, columns: Sequence[str]) -> Iterator[Chunk]:
        twice = [name for name in columns if self.names.count(name) > 1]
        if twice:
            raise DataError(f"{self.path}, line 1: there are several columns '{twice[0]}'")
        names, between = self.names, {}
        if self.delimiter == "::":  # for Arrow it is ":", and a column that is always empty
            between = {f"{name}::": pa.null() for name in names[:-1]}
            names = [*chain.from_iterable(zip(names, between, strict=False)), names[-1]]
        reading = pyarrow.csv.ReadOptions(
            use_threads=False, block_size=BLOCK, column_names=None if self.header else names
        )
        parsing = pyarrow.csv.ParseOptions(
            delimiter=self.delimiter[0],
            quote_char='"' if self.quoted else False,
            newlines_in_values=self.quoted,
            ignore_empty_lines=False,
        )
        converting = pyarrow.csv.ConvertOptions(
            include_columns=[*dict.fromkeys(columns), *between],
            column_types=dict.fromkeys(columns, pa.binary()) | between,
        )
        first = 0
        try:
            with pyarrow.csv.open_csv(self.path, reading, parsing, converting) as reader:
                for batch in reader:
                    yield Chunk(self, first, tuple(batch.column(name) for name in columns))
                    first += batch.num_rows
        except FAULTS as error:
            if wrong := MISFIT.search(str(error)):
                where = self.place(int(wrong[1]) - 1 - self.header)
                found = f", found {wrong[2]}" if len(self.delimiter) == 1 else " between '::'"
                raise DataError(f"{where}: expected {len(self.names)} columns{found}") from error
            if "straddling" in str(error):
                raise DataError(
                    f"{self.place(first)} or later: a line of more than {BLOCK:,} bytes; "
                    "is a quote left open?"
                ) from error
            raise DataError(f"{self.path}: {first_line(error)}") from error

    def place(self, row: int) -> str:
        """Name the line on which a row starts: a value in quotes may have line ends of its own."""
        number = row + 1 + self.header
        if self.quoted:
            with (
                pa.input_stream(self.path, compression="detect") as stream,
                io.TextIOWrapper(stream, "utf-8-sig", "replace", newline="") as text,
            ):
                reader = csv.reader((line.replace("\0", " ") for line in text), **self._dialect())
                try:
                    for _ in zip(range(row + self.header), reader, strict=False):
                        pass
                    number = reader.line_num + 1
                except csv.Error:
                    pass  # a field too long for it: count rows
        return f"{self.path}, line {number}"


class _Parquet(Table):
    lines = False

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        with _readable(path):
            self.file = pq.ParquetFile(path, page_checksum_verification=True)
            self.names = self.file.schema_arrow.names

    def chunks(self, columns: Sequence[str]) -> Iterator[Chunk]:
        wanted = list(dict.fromkeys(columns))
        first = 0
        with _readable(self.path):
            batches = self.file.iter_batches(batch_size=ROWS, columns=wanted, use_threads=False)
        while True:
            with _readable(self.path):
                batch = next(batches, None)
                if batch is None:
                    return
                chunk = Chunk(self, first, tuple(batch.column(name) for name in columns))
            yield chunk
            first += batch.num_rows

    def place(self, row: int) -> str:
        return f"{self.path}, row {row + 1}"


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    """Turn what Arrow raises on a file into a `DataError`."""
    try:
        yield
    except FAULTS as error:
        raise DataError(f"{path}: it cannot be read: {first_line(error)}") from error
