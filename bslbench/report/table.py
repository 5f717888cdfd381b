"""What a table is, whatever it is about: columns, rows of entries, and what stands around them.

A table in a few lines; `bslbench.report.render.render` shows it in every format:

>>> columns = [Column("loss"), Column("Recall@20", "yelp2018", better="higher")]
>>> rows = [["sl", Entry(0.0721, 0.0002)], ["bpr", 0.0549], ["mse", None]]
>>> table = Table.of("example", columns, rows, says="test split", footer=["2 seeds: 0, 1"])
>>> [row[1].place for row in table.rows]
[1, 2, 0]
"""

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

Better = Literal["", "higher", "lower"]

DECIMALS = 4
"""Of every measured value shown; values that show the same figure share their place."""

GAP = "-"
"""Stands where a value was asked for and there is none."""


@dataclass(frozen=True)
class Column:
    """A column.

    Attributes
    ----------
    name, group
        Its head, and the head that it shares with its neighbours, such as a dataset.
    spec
        How its numbers are written, as in ``format(value, spec)``: ``".4f"``, ``"d"``, ``"+.1%"``.
    better
        Which values are better; best and second are then marked. Empty for what is no contest.
    align
        ``left`` or ``right``.
    only
        ``shown`` leaves it out of CSV, ``csv`` out of everything else.
    """

    name: str
    group: str = ""
    spec: str = f".{DECIMALS}f"
    better: Better = ""
    align: Literal["left", "right"] = "left"
    only: Literal["", "shown", "csv"] = ""

    @property
    def label(self) -> str:
        """Group and name in one line."""
        return f"{self.group} {self.name}".strip()


@dataclass(frozen=True)
class Entry:
    """One cell of a table: a number, a text, or a number that is shown as a text.

    Attributes
    ----------
    value
        The number; None for text and for gaps.
    sd
        Its sample standard deviation over seeds, None for a single one.
    text
        Shown instead of the number, which CSV and sorting still use.
    place
        1 for the best of its column, 2 for the second, 0 for the others.
    mark
        Superscript such as a sign of significance, which the table's notes explain.
    interval
        Its bounds.
    each
        What it is the mean of, by name, such as ``("seed 0", 0.0721)``.
    """

    value: float | None = None
    sd: float | None = None
    text: str = ""
    place: int = 0
    mark: str = ""
    interval: tuple[float, float] | None = None
    each: tuple[tuple[str, float], ...] = ()


Like = Entry | str | float | None
"""What a row may be given as: an entry, or a bare text, number or None for a gap."""


@dataclass(frozen=True)
class Table:
    """A table, ready to be rendered.

    Attributes
    ----------
    name, title
        What commands and files call it, and its heading.
    columns, rows
        Every row has an entry for each column.
    sections
        Whether rows that begin alike belong together: a rule between, the name shown once.
    within
        Names of columns, such as ``dataset``: only rows that say the same in them compete. One that
        is no column is ignored.
    stamp
        What nobody may overlook; else empty.
    says
        What the values are, such as ``test split``; the legend begins with it.
    problems
        What is missing or failed, a line each.
    notes
        What marks and columns mean, a line each.
    footer
        What the table was made from, a line each: seeds, selection, versions, data.
    """

    name: str
    title: str
    columns: tuple[Column, ...]
    rows: tuple[tuple[Entry, ...], ...]
    sections: bool = False
    within: tuple[str, ...] = ()
    stamp: str = ""
    says: str = ""
    problems: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    footer: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for row in self.rows:
            if len(row) != len(self.columns):
                raise ValueError(
                    f"table '{self.name}': a row of {len(row)} entries for "
                    f"{len(self.columns)} columns"
                )

    @classmethod
    def of(
        cls,
        name: str,
        columns: Iterable[Column],
        rows: Iterable[Iterable[Like]],
        *,
        title: str = "",
        sections: bool = False,
        within: Iterable[str] = (),
        stamp: str = "",
        says: str = "",
        problems: Iterable[str] = (),
        notes: Iterable[str] = (),
        footer: Iterable[str] = (),
    ) -> "Table":
        """Build a table from plain rows; best and second of each contested column get their place.

        Raises
        ------
        ValueError
            If a row has not one entry per column.
        """
        table = cls(
            name,
            title or name,
            tuple(columns),
            tuple(tuple(map(entry, row)) for row in rows),
            sections,
            tuple(within),
            stamp,
            says,
            tuple(problems),
            tuple(notes),
            tuple(footer),
        )
        return placed(table)

    def contests(self) -> list[list[int]]:
        """Return the numbers of the rows that compete with each other."""
        apart = [i for i, column in enumerate(self.columns) if column.name in self.within]
        found: dict[tuple[str, ...], list[int]] = {}
        for n, row in enumerate(self.rows):
            found.setdefault(tuple(row[i].text for i in apart), []).append(n)
        return list(found.values())

    def column(self, name: str, group: str = "") -> int:
        """Return the index of a column.

        Raises
        ------
        KeyError
            If there is none.
        """
        for index, column in enumerate(self.columns):
            if (column.name, column.group) == (name, group):
                return index
        raise KeyError(f"{group} {name}".strip())


def entry(given: Like) -> Entry:
    """Return what stands in a cell; None and NaN are gaps."""
    if isinstance(given, Entry):
        return given
    if isinstance(given, str):
        return Entry(text=given)
    if given is None or math.isnan(given):
        return Entry(text=GAP)
    return Entry(given)


def placed(table: Table) -> Table:
    """Return the table with best and second of each contested column marked, and no others."""
    contests = table.contests()
    rows = [list(row) for row in table.rows]
    for index, column in enumerate(table.columns):
        for members in contests if column.better else ():
            entries = list(_places([rows[n][index] for n in members], column))
            for n, placed_entry in zip(members, entries, strict=True):
                rows[n][index] = placed_entry
    return replace(table, rows=tuple(map(tuple, rows)))


def _places(entries: Sequence[Entry], column: Column) -> Iterator[Entry]:
    values = {figure(e.value, column.spec): e.value for e in entries if e.value is not None}
    order = sorted(values, key=lambda text: values[text], reverse=column.better == "higher")
    for one in entries:
        text = "" if one.value is None else figure(one.value, column.spec)
        yield replace(one, place=order.index(text) + 1 if text in order[:2] else 0)


def figure(value: float, spec: str) -> str:
    """Return a number as a column writes it.

    Examples
    --------
    >>> figure(0.07214, ".4f"), figure(0.012, "+.1%"), figure(3, "d")
    ('0.0721', '+1.2%', '3')
    """
    return format(value, spec)
