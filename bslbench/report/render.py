"""How a table looks: on a console, in Markdown, LaTeX, CSV and HTML."""

import csv
import html
import io
import re
from collections.abc import Iterator, Sequence
from itertools import groupby
from pathlib import Path
from typing import Literal, get_args

import rich.box
import rich.table
from rich.console import Console
from tabulate import tabulate

from bslbench.errors import ConfigError, suggest
from bslbench.report.dialects import HTML, MARKDOWN, PLAIN, RICH, TEX, Dialect
from bslbench.report.table import Column, Entry, Table, figure

Format = Literal["console", "markdown", "latex", "csv", "html"]

SUFFIXES: dict[str, Format] = {".md": "markdown", ".tex": "latex", ".csv": "csv", ".html": "html"}
"""The format of a file by the end of its name; ``.txt`` is the console's."""
SUFFIXES[".txt"] = "console"


def format_of(path: Path) -> Format:
    """Return the format that a file's name asks for.

    Raises
    ------
    ConfigError
        If its suffix stands for none.
    """
    if path.suffix not in SUFFIXES:
        raise ConfigError(f"{path}: no format for '{path.suffix}'; known: {', '.join(SUFFIXES)}")
    return SUFFIXES[path.suffix]


def render(
    table: Table, fmt: Format, *, width: int | None = None, styled: bool | None = None
) -> str:
    """Return a table as text that ends in a newline.

    Parameters
    ----------
    table
        Any table.
    fmt
        ``console``, ``markdown``, ``latex`` (a ``table`` environment for the package booktabs),
        ``csv`` (all digits) or ``html`` (a ``figure`` element).
    width
        Columns of the console; None asks the terminal, and does not limit what is not one.
    styled
        Console: mark best and second by escape codes, else by signs; None asks the terminal.

    Raises
    ------
    ConfigError
        If there is no such format.
    """
    if fmt == "console":
        return _console(table, width, styled)
    formats = {"markdown": _markdown, "latex": _latex, "csv": _csv, "html": _html}
    if fmt not in formats:
        raise ConfigError(f"no format named '{fmt}'{suggest(fmt, get_args(Format))}")
    return formats[fmt](table)


def _console(table: Table, width: int | None, styled: bool | None) -> str:
    terminal = Console()
    if width is None:  # a file or a pipe has no width, and whoever reads it wants whole rows
        width = terminal.width if terminal.is_terminal else 100_000
    styled = terminal.color_system is not None if styled is None else styled
    dialect = RICH if styled else PLAIN
    console = Console(
        file=io.StringIO(),
        width=width,
        force_terminal=styled,
        force_jupyter=False,
        color_system="standard" if styled else None,
        highlight=False,
        emoji=False,
        legacy_windows=False,
    )
    unlimited = console.options.update(max_width=100_000)
    grid = _grid(table, dialect, " ")
    if console.measure(grid, options=unlimited).maximum > width:
        grid = _grid(table, dialect, "\n")  # folds cells at their blanks, but breaks no word
        console.width = max(width, console.measure(grid, options=unlimited).maximum)
    with console.capture() as capture:
        console.print(grid)
        for note in notes(table, dialect):
            console.print(note, width=width)
    return capture.get()


def _grid(table: Table, dialect: Dialect, blank: str) -> rich.table.Table:
    grid = rich.table.Table(title=dialect.escape(table.title), box=rich.box.SIMPLE_HEAD)
    grouped = any(column.group for _, column in _shown(table))
    for _, column in _shown(table):
        group = f"{dialect.escape(column.group)}\n" if grouped and column.group else ""
        grid.add_column(group + dialect.escape(column.name), no_wrap=True, justify=column.align)
    for section in _sections(table, dialect):
        for cells in section:
            grid.add_row(*(cell.replace(" ", blank) for cell in cells))
        grid.add_section()
    return grid


def _markdown(table: Table) -> str:
    rows = [cells for section in _sections(table, MARKDOWN) for cells in section]
    heads = [MARKDOWN.escape(column.label) for _, column in _shown(table)]
    sides = [column.align for _, column in _shown(table)]
    body = tabulate(rows, heads, tablefmt="pipe", disable_numparse=True, colalign=sides)
    title = f"{MARKDOWN.stamp.format(MARKDOWN.escape(table.title))}\n\n"
    return f"{title}{body}\n\n" + "".join(f"- {note}\n" for note in notes(table, MARKDOWN))


def _latex(table: Table) -> str:
    columns = [column for _, column in _shown(table)]
    heads = [[TEX.escape(column.name) for column in columns]]
    sections = [heads, *_sections(table, TEX)]
    cells = zip(*(cells for section in sections for cells in section), strict=True)
    widths = [max(map(len, column)) for column in cells]
    rules = [*["\\midrule"] * (len(sections) - 1), "\\bottomrule"]
    lines = [
        "% needs \\usepackage{booktabs}",
        "\\begin{table}[htbp]",
        "\\centering",
        f"\\caption{{{TEX.escape(table.title)}}}",
        f"\\label{{tab:{re.sub('[^A-Za-z0-9-]', '-', table.name)}}}",
        f"\\begin{{tabular}}{{{''.join(column.align[0] for column in columns)}}}",
        "\\toprule",
        *_spans(columns),
    ]
    for section, rule in zip(sections, rules, strict=True):
        for row in section:
            padded = [cell.ljust(width) for cell, width in zip(row, widths, strict=True)]
            lines.append(f"{' & '.join(padded)} \\\\")
        lines.append(rule)
    lines += [
        "\\end{tabular}",
        "",
        "\\smallskip",
        "\\begin{minipage}{\\linewidth}",
        "\\footnotesize",
    ]
    lines.append("\\\\\n".join(notes(table, TEX)))
    return "\n".join([*lines, "\\end{minipage}", "\\end{table}"]) + "\n"


def _spans(columns: Sequence[Column]) -> Iterator[str]:
    """Yield the line of group heads and the rules beneath, if there are any groups."""
    heads, rules, first = [], [], 1
    for group, members in groupby(column.group for column in columns):
        span = len(list(members))
        if group:
            heads.append(f"\\multicolumn{{{span}}}{{c}}{{{TEX.escape(group)}}}")
            rules.append(f"\\cmidrule(lr){{{first}-{first + span - 1}}}")
        else:
            heads.append("&" * (span - 1))
        first += span
    if rules:
        yield f"{' & '.join(heads)} \\\\"
        yield " ".join(rules)


def _csv(table: Table) -> str:
    kept = [(i, column) for i, column in enumerate(table.columns) if column.only != "shown"]
    blocks = [_records([row[i] for row in table.rows], column) for i, column in kept]
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow([head for block in blocks for head in block])
    for n in range(len(table.rows)):
        writer.writerow([values[n] for block in blocks for values in block.values()])
    return out.getvalue()


def _records(entries: Sequence[Entry], column: Column) -> dict[str, list[float | str | None]]:
    """Return the columns of CSV that one column makes: numbers in full, what is absent empty."""
    texts = all(e.value is None for e in entries) and not column.better
    measured = column.better or any(e.sd is not None for e in entries)
    name = f"{column.label} mean" if measured else column.label
    made: dict[str, list[float | str | None]] = {
        name: [e.text if texts else e.value for e in entries]
    }
    if measured:
        made[f"{column.label} sd"] = [e.sd for e in entries]
    if any(e.interval for e in entries):
        made[f"{column.label} low"] = [e.interval[0] if e.interval else None for e in entries]
        made[f"{column.label} high"] = [e.interval[1] if e.interval else None for e in entries]
    if any(e.mark for e in entries):
        made[f"{column.label} mark"] = [e.mark for e in entries]
    return made


def _html(table: Table) -> str:
    columns = [column for _, column in _shown(table)]
    lines = ["<figure>", f"<table>\n<caption>{HTML.escape(table.title)}</caption>", "<thead>"]
    if any(column.group for column in columns):
        spans = [
            (group, len(list(members))) for group, members in groupby(c.group for c in columns)
        ]
        cells = "".join(f'<th colspan="{span}">{HTML.escape(group)}</th>' for group, span in spans)
        lines.append(f'<tr class="groups">{cells}</tr>')
    heads = "".join(f'<th scope="col">{HTML.escape(column.name)}</th>' for column in columns)
    lines.append(f"<tr>{heads}</tr>\n</thead>\n<tbody>")
    for row in table.rows:
        lines.append(f"<tr>{''.join(_td(row[i], column) for i, column in _shown(table))}</tr>")
    lines.append("</tbody>\n</table>\n<figcaption>")
    lines += [f"<p>{note}</p>" for note in notes(table, HTML)]
    return "\n".join([*lines, "</figcaption>\n</figure>"]) + "\n"


def _td(entry: Entry, column: Column) -> str:
    sort = "" if entry.value is None else f' data-value="{entry.value!r}"'
    content = shown(entry, column, HTML)
    if entry.each:
        values = ", ".join(f"{name} {figure(v, column.spec)}" for name, v in entry.each)
        content = f"<details><summary>{content}</summary>{html.escape(values)}</details>"
    side = ' class="right"' if column.align == "right" else ""
    return f"<td{side}{sort}>{content}</td>"


def _shown(table: Table) -> list[tuple[int, Column]]:
    return [(i, column) for i, column in enumerate(table.columns) if column.only != "csv"]


def _sections(table: Table, dialect: Dialect) -> Iterator[list[list[str]]]:
    """Yield the cells of all rows, a section at a time; only its first row has its name."""
    rows = [[shown(row[i], column, dialect) for i, column in _shown(table)] for row in table.rows]
    if not table.sections:
        yield rows
        return
    for _, members in groupby(rows, key=lambda cells: cells[0]):
        first, *rest = members
        yield [first, *(["", *cells[1:]] for cells in rest)]


def shown(entry: Entry, column: Column, dialect: Dialect) -> str:
    """Return what stands in a cell: value, mark, deviation and interval, or the text."""

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
