"""What a table is, and how it looks on a console, in Markdown, in LaTeX and as CSV."""

import io
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import groupby
from typing import Literal, get_args

import pandas as pd
import rich.box
import rich.markup
import rich.table
from rich.console import Console
from tabulate import tabulate

from bslbench.errors import ConfigError, suggest

Format = Literal["console", "markdown", "latex", "csv"]

DECIMALS = 4
"""Of every value shown; who shows the same figure shares the place."""


@dataclass(frozen=True)
class Entry:
    """Mean and sample standard deviation over seeds, None for one seed.

    `place` is 1 for the best of its column, 2 for the second, 0 for the others.
    """

    mean: float
    sd: float | None
    place: int


@dataclass(frozen=True)
class Row:
    """One loss on one backbone.

    Attributes
    ----------
    backbone, loss
        Names; ``reference`` and, say, ``popularity`` for what no gradient trains.
    settings
        The fields that vary among the runs of one (dataset, backbone, loss), such as ``tau=0.08``.
    selection
        How its best epochs were picked.
    seeds
        Per dataset how many runs are finished and how many the grid asks for.
    entries
        Per (dataset, metric); absent where no run is finished.
    """

    backbone: str
    loss: str
    settings: str
    selection: str
    seeds: Mapping[str, tuple[int, int]]
    entries: Mapping[tuple[str, str], Entry]

    @property
    def label(self) -> str:
        """Loss and settings."""
        return f"{self.loss} {self.settings}".strip()

    @property
    def n(self) -> str:
        """The seeds as ``3``, as ``2/3`` if runs are lacking; one per dataset if they differ."""
        texts = [str(n) if n == asked else f"{n}/{asked}" for n, asked in self.seeds.values()]
        return texts[0] if len(set(texts)) == 1 else ", ".join(texts)


@dataclass(frozen=True)
class Table:
    """A table, ready to be rendered.

    Attributes
    ----------
    grid
        Name of the grid.
    datasets, metrics
        The columns are all pairs of the two, values of the test split.
    rows
        References first, then grouped by backbone.
    stamp
        What nobody may overlook; else empty.
    problems
        One line per failed run, and one for those not trained yet.
    footer
        Seeds, selection, versions, hardware, data.
    """

    grid: str
    datasets: tuple[str, ...]
    metrics: tuple[str, ...]
    rows: tuple[Row, ...]
    stamp: str
    problems: tuple[str, ...]
    footer: tuple[str, ...]


@dataclass(frozen=True)
class _Dialect:
    """How one format writes plain text, a mean by its place (0, 1, 2), a deviation, a stamp."""

    escape: Callable[[str], str]
    marks: tuple[str, str, str]
    deviation: str
    stamp: str
    legend: str = "best bold, second underlined"


def _latex_escape(text: str) -> str:
    return re.sub(r"[\\{}$&#%_~^<>|]", lambda match: _LATEX[match[0]], text)


_LATEX = {c: f"\\{c}" for c in "{}$&#%_"}
_LATEX |= {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}
_LATEX |= {"<": r"\textless{}", ">": r"\textgreater{}", "|": r"\textbar{}"}


def _markdown_escape(text: str) -> str:
    return re.sub(r"[|<>*]", r"\\\g<0>", text)


_RICH = _Dialect(
    rich.markup.escape, ("{}", "[bold]{}[/]", "[underline]{}[/]"), " ±{}", "[bold]{}[/]"
)
_PLAIN = _Dialect(rich.markup.escape, ("{}", "{}*", "{}+"), " ±{}", "{}", "best *, second +")
_MARKDOWN = _Dialect(_markdown_escape, ("{}", "**{}**", "<u>{}</u>"), " ± {}", "**{}**")
_TEX = _Dialect(
    _latex_escape,
    ("{}", r"\textbf{{{}}}", r"\underline{{{}}}"),
    r" {{\scriptsize$\pm$\,{}}}",
    r"\textbf{{{}}}",
)


def render(
    table: Table, fmt: Format, *, width: int | None = None, styled: bool | None = None
) -> str:
    """Return a table as text that ends in a newline.

    Parameters
    ----------
    table
        From `bslbench.report.tables`.
    fmt
        ``console``, ``markdown``, ``latex`` (booktabs) or ``csv`` (one row per row, all digits).
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
    if fmt == "markdown":
        return _markdown(table)
    if fmt == "latex":
        return _latex(table)
    if fmt == "csv":
        return _csv(table)
    raise ConfigError(f"no format named '{fmt}'{suggest(fmt, get_args(Format))}")


def _console(table: Table, width: int | None, styled: bool | None) -> str:
    terminal = Console()
    if width is None:  # a file or a pipe has no width, and whoever reads it wants whole rows
        width = terminal.width if terminal.is_terminal else 100_000
    styled = terminal.color_system is not None if styled is None else styled
    dialect = _RICH if styled else _PLAIN
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
        for note in _notes(table, dialect):
            console.print(note, width=width)
    return capture.get()


def _grid(table: Table, dialect: _Dialect, blank: str) -> rich.table.Table:
    grid = rich.table.Table(title=dialect.escape(table.grid), box=rich.box.SIMPLE_HEAD)
    columns = [f"{dialect.escape(d)}\n{metric}" for d in table.datasets for metric in table.metrics]
    for name in ("backbone", "loss", "seeds", *columns):
        grid.add_column(name, no_wrap=True)
    for group in _groups(table, dialect):
        for cells in group:
            grid.add_row(*(cell.replace(" ", blank) for cell in cells))
        grid.add_section()
    return grid


def _markdown(table: Table) -> str:
    rows = [cells for group in _groups(table, _MARKDOWN) for cells in group]
    columns = [
        f"{_MARKDOWN.escape(d)} {metric}" for d in table.datasets for metric in table.metrics
    ]
    headers = ["backbone", "loss", "seeds", *columns]
    body = tabulate(rows, headers, tablefmt="github", disable_numparse=True)
    notes = "\n".join(f"- {note}" for note in _notes(table, _MARKDOWN))
    return f"{body}\n\n{notes}\n"


def _latex(table: Table) -> str:
    span = len(table.metrics)
    firsts = [4 + i * span for i in range(len(table.datasets))]
    datasets = [rf"\multicolumn{{{span}}}{{c}}{{{_TEX.escape(d)}}}" for d in table.datasets]
    names = ["backbone", "loss", "seeds", *table.metrics * len(datasets)]
    groups = [[names], *_groups(table, _TEX)]
    columns = zip(*(cells for group in groups for cells in group), strict=True)
    widths = [max(map(len, column)) for column in columns]
    lines = [
        rf"\begin{{tabular}}{{{'l' * len(names)}}}",
        r"\toprule",
        " & ".join(["&&", *datasets]) + r" \\",
        " ".join(rf"\cmidrule(lr){{{first}-{first + span - 1}}}" for first in firsts),
    ]
    for group in groups:
        for cells in group:
            padded = [cell.ljust(width) for cell, width in zip(cells, widths, strict=True)]
            lines.append(" & ".join(padded) + r" \\")
        lines.append(r"\midrule")
    lines[-1] = r"\bottomrule"
    notes = "\\\\\n".join(_notes(table, _TEX))
    lines += [r"\end{tabular}", "", r"\par\smallskip\noindent{\footnotesize", notes + r"\par}"]
    return "\n".join(lines) + "\n"


def _csv(table: Table) -> str:
    records = []
    for row in table.rows:
        record: dict[str, str | int | float | None] = {
            "backbone": row.backbone,
            "loss": row.loss,
            "settings": row.settings,
            "selection": row.selection,
        }
        for dataset in table.datasets:
            record[f"{dataset} seeds"], record[f"{dataset} asked"] = row.seeds.get(dataset, (0, 0))
            for metric in table.metrics:
                entry = row.entries.get((dataset, metric))
                record[f"{dataset} {metric} mean"] = entry.mean if entry else None
                record[f"{dataset} {metric} sd"] = entry.sd if entry else None
        records.append(record)
    return pd.DataFrame(records).to_csv(index=False, lineterminator="\n")


def _groups(table: Table, dialect: _Dialect) -> list[list[list[str]]]:
    """Return the cells of all rows, grouped by backbone, which only a group's first row names."""
    columns = [(dataset, metric) for dataset in table.datasets for metric in table.metrics]
    groups = []
    for backbone, rows in groupby(table.rows, key=lambda row: row.backbone):
        names = [dialect.escape(backbone)]
        group = []
        for row in rows:
            values = [_cell(row, column, dialect) for column in columns]
            group.append([*(names or [""]), dialect.escape(row.label), row.n, *values])
            names = []
        groups.append(group)
    return groups


def _cell(row: Row, column: tuple[str, str], dialect: _Dialect) -> str:
    entry = row.entries.get(column)
    if entry is None:
        return "-" if column[0] in row.seeds else ""
    text = dialect.marks[entry.place].format(f"{entry.mean:.{DECIMALS}f}")
    if entry.sd is not None:
        text += dialect.deviation.format(f"{entry.sd:.{DECIMALS}f}")
    return text


def _notes(table: Table, dialect: _Dialect) -> list[str]:
    """Return what stands beneath the table, the stamp first."""
    stamp = [dialect.stamp.format(dialect.escape(table.stamp))] if table.stamp else []
    mean = f"mean{dialect.deviation.format('sd')} (sample standard deviation) over seeds"
    legend = f"test split, {mean}; {dialect.legend}"
    rest = [dialect.escape(line) for line in (*table.problems, *table.footer)]
    return [*stamp, legend, *rest]
