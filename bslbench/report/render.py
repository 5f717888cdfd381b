"""How a table looks: on a console, in Markdown, LaTeX, CSV and HTML."""

import csv
import io
import re
from collections.abc import Iterator, Sequence
from itertools import groupby
from pathlib import Path
from typing import Literal, get_args

from tabulate import tabulate

from bslbench.errors import ConfigError, suggest
from bslbench.report.console import console
from bslbench.report.dialects import MARKDOWN, TEX
from bslbench.report.html import html_table
from bslbench.report.table import Column, Entry, Table
from bslbench.report.text import notes, sections, shown_columns

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
        ``console``, ``markdown``, ``latex`` (needs booktabs, graphicx),
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
        return console(table, width, styled)
    formats = {"markdown": _markdown, "latex": _latex, "csv": _csv, "html": html_table}
    if fmt not in formats:
        raise ConfigError(f"no format named '{fmt}'{suggest(fmt, get_args(Format))}")
    return formats[fmt](table)


def _markdown(table: Table) -> str:
    rows = [cells for section in sections(table, MARKDOWN) for cells in section]
    heads = [MARKDOWN.escape(column.label) for column in shown_columns(table)]
    sides = [column.align for column in shown_columns(table)]
    body = tabulate(rows, heads, tablefmt="pipe", disable_numparse=True, colalign=sides)
    title = f"{MARKDOWN.stamp.format(MARKDOWN.escape(table.title))}\n\n"
    return f"{title}{body}\n\n" + "".join(f"- {note}\n" for note in notes(table, MARKDOWN))


_FIT = r"\resizebox{\ifdim\width>\linewidth\linewidth\else\width\fi}{!}{%"
"""Shrinks what is wider than the page, and nothing else."""


def _latex(table: Table) -> str:
    columns = shown_columns(table)
    heads = [[TEX.escape(column.name) for column in columns]]
    blocks = [heads, *sections(table, TEX)]
    cells = zip(*(row for block in blocks for row in block), strict=True)
    widths = [max(map(len, column)) for column in cells]
    rules = [*["\\midrule"] * (len(blocks) - 1), "\\bottomrule"]
    lines = [
        "% needs \\usepackage{booktabs,graphicx}",
        "\\begin{table}[htbp]",
        "\\centering",
        f"\\caption{{{TEX.escape(table.title)}}}",
        f"\\label{{tab:{re.sub('[^A-Za-z0-9-]', '-', table.name)}}}",
        _FIT,
        f"\\begin{{tabular}}{{{''.join(column.align[0] for column in columns)}}}",
        "\\toprule",
        *_spans(columns),
    ]
    for block, rule in zip(blocks, rules, strict=True):
        for row in block:
            padded = [text.ljust(width) for text, width in zip(row, widths, strict=True)]
            lines.append(f"{' & '.join(padded)} \\\\")
        lines.append(rule)
    lines += [
        "\\end{tabular}}",
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
    if table.stamp:
        blocks.append({"stamp": [table.stamp] * len(table.rows)})
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
