"""What stands in a table's cells and beneath it, written in the dialect of a format."""

from collections.abc import Iterator
from itertools import groupby

from bslbench.report.dialects import Dialect
from bslbench.report.table import Column, Entry, Table, figure


def shown_columns(table: Table) -> list[Column]:
    """Return the columns that people see."""
    return [column for column in table.columns if column.only != "csv"]


def shown_rows(table: Table) -> Iterator[list[Entry]]:
    """Yield the entries that people see, row by row."""
    kept = [i for i, column in enumerate(table.columns) if column.only != "csv"]
    for row in table.rows:
        yield [row[i] for i in kept]


def sections(table: Table, dialect: Dialect) -> Iterator[list[list[str]]]:
    """Yield the cells of all rows, a section at a time; only its first row has its name."""
    columns = shown_columns(table)
    rows = [
        [cell(entry, column, dialect) for entry, column in zip(row, columns, strict=True)]
        for row in shown_rows(table)
    ]
    if not table.sections:
        yield rows
        return
    for _, members in groupby(rows, key=lambda cells: cells[0]):
        first, *rest = members
        yield [first, *(["", *cells[1:]] for cells in rest)]


def cell(entry: Entry, column: Column, dialect: Dialect) -> str:
    """Return what stands in a cell: value or text, mark, deviation, interval."""

    def number(value: float, spec: str = column.spec) -> str:
        return dialect.escape(figure(value, spec)).replace("-", dialect.minus)

    words = dialect.escape(entry.text)
    text = words if entry.value is None or entry.text else number(entry.value)
    text = dialect.places[entry.place].format(text) + dialect.superscript(entry.mark)
    if entry.sd is not None:
        text += dialect.deviation.format(number(entry.sd, column.spec.removeprefix("+")))
    if entry.interval is not None:
        text += dialect.interval.format(*map(number, entry.interval))
    return text


def notes(table: Table, dialect: Dialect) -> list[str]:
    """Return what stands beneath the table, the stamp first."""
    entries = [entry for row in table.rows for entry in row]
    legend = []
    if any(entry.sd is not None for entry in entries):
        deviation = dialect.deviation.format("sd")
        legend.append(f"mean{deviation} (sample standard deviation) over seeds")
    if any(entry.place for entry in entries):
        legend.append(dialect.legend)
    if table.says:
        legend.insert(0, dialect.escape(table.says))
    stamp = [dialect.stamp.format(dialect.escape(table.stamp))] if table.stamp else []
    rest = [dialect.escape(line) for line in (*table.notes, *table.problems, *table.footer)]
    return [*stamp, *filter(None, ["; ".join(legend)]), *rest]
