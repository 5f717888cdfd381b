"""Run files of TREC: lines ``user Q0 item rank score tag`` without a header."""

from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path

import pyarrow as pa

from bslbench.data.tables import Chunk, Table
from bslbench.errors import DataError

SUFFIXES = (".run", ".trec", ".txt")
LINES = 1 << 20
"""Lines read at a time."""


class Trec(Table):
    """The table in a run file."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.names = ["user", "q0", "item", "rank", "score", "tag"]
        if not path.is_file():
            raise DataError(f"{path}: no such file")

    def chunks(self, columns: Sequence[str]) -> Iterator[Chunk]:
        """Yield all rows, once, with these columns of it."""
        places = [self.names.index(name) for name in columns]
        first = 0
        try:
            with self.path.open("rb") as file:
                while lines := list(islice(file, LINES)):
                    rows = [line.split() for line in lines]
                    for i, row in enumerate(rows):
                        if row and len(row) != len(self.names):
                            raise DataError(
                                f"{self.place(first + i)}: expected {len(self.names)} columns, "
                                f"found {len(row)}"
                            )
                    picked = ([row[at] if row else b"" for row in rows] for at in places)
                    yield Chunk(self, first, tuple(pa.array(x, pa.binary()) for x in picked))
                    first += len(lines)
        except OSError as error:
            raise DataError(f"{self.path}: {error.strerror or error}") from error

    def place(self, row: int) -> str:
        """Name the line of a row."""
        return f"{self.path}, line {row + 1}"
