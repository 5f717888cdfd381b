"""A table on a console: aligned, with groups of columns under one head, folded where narrow."""

import io
from collections.abc import Iterator, Sequence
from itertools import groupby

from rich.console import Console
from rich.text import Text

from bslbench.report.dialects import PLAIN, RICH
from bslbench.report.table import Column, Table
from bslbench.report.text import notes, sections, shown_columns

INDENT, GAP = "  ", "   "


def console(table: Table, width: int | None = None, styled: bool | None = None) -> str:
    """Return a table as text for a console; see `bslbench.report.render.render`.

    Where it is too wide, cells are folded at their blanks; no word is broken.
    """
    terminal = Console()
    if width is None and terminal.is_terminal:  # a file or a pipe has no width
        width = terminal.width
    styled = terminal.color_system is not None if styled is None else styled
    dialect = RICH if styled else PLAIN
    lines = list(_lines(table, styled, fold=False))
    if width is not None and max(line.cell_len for line in lines) > width:
        lines = list(_lines(table, styled, fold=True))
    shown = Console(
        file=io.StringIO(),
        width=width or 100_000,
        force_terminal=styled,
        force_jupyter=False,
        color_system="standard" if styled else None,
        highlight=False,
        emoji=False,
        legacy_windows=False,
    )
    with shown.capture() as capture:
        for line in lines:
            line.rstrip()
            shown.print(line, soft_wrap=True)
        shown.print()
        for note in notes(table, dialect):
            shown.print(note)
    return capture.get()


def _lines(table: Table, styled: bool, fold: bool) -> Iterator[Text]:
    """Yield the lines of the table itself."""
    dialect = RICH if styled else PLAIN
    columns = shown_columns(table)
    heads = [[Text(column.name)] for column in columns]
    body = [
        [[_cell(markup, fold) for markup in row] for row in section]
        for section in sections(table, dialect)
    ]
    widths = [max(line.cell_len for line in head) for head in heads]
    for row in (row for section in body for row in section):
        widths = [max(w, *(line.cell_len for line in c)) for w, c in zip(widths, row, strict=True)]
    groups = _groups(columns)
    rooms = []
    for name, first, last in groups:  # a head that is wider than its columns widens the last one
        room = sum(widths[first:last]) + len(GAP) * (last - first - 1)
        rooms.append(max(room, Text(name).cell_len))
        widths[last - 1] += rooms[-1] - room
    sides = [column.align for column in columns]
    yield from (Text(), Text(INDENT + table.title, "bold" if styled else ""))
    if any(name for name, _, _ in groups):
        names = [name for name, _, _ in groups]
        yield from _row([[Text(name)] for name in names], rooms, ["left"] * len(names))
        rules = [("─" if n else " ") * room for n, room in zip(names, rooms, strict=True)]
        yield Text(INDENT + GAP.join(rules))
    yield from _row(heads, widths, sides)
    yield Text(" " + "─" * (sum(widths) + len(GAP) * (len(widths) - 1) + 2))
    for number, section in enumerate(body):
        if number:
            yield Text()
        for row in section:
            yield from _row(row, widths, sides)


def _cell(markup: str, fold: bool) -> list[Text]:
    return list(Text.from_markup(markup.replace(" ", "\n") if fold else markup).split("\n"))


def _groups(columns: Sequence[Column]) -> list[tuple[str, int, int]]:
    """Return each head that neighbours share, with its first column and the one after its last."""
    found, first = [], 0
    for group, members in groupby(column.group for column in columns):
        last = first + len(list(members))
        found.append((group, first, last))
        first = last
    return found


def _row(
    cells: Sequence[list[Text]], widths: Sequence[int], sides: Sequence[str]
) -> Iterator[Text]:
    """Yield the lines of one row, as many as its tallest cell has."""
    for n in range(max(map(len, cells))):
        line = Text(INDENT)
        for place, (cell, width, side) in enumerate(zip(cells, widths, sides, strict=True)):
            part = cell[n].copy() if n < len(cell) else Text()
            blanks = " " * (width - part.cell_len)
            line.append(GAP if place else "")
            line.append_text(Text(blanks) + part if side == "right" else part + Text(blanks))
        yield line
