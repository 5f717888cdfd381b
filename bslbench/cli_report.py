"""The command `report`."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from bslbench.errors import ConfigError, suggest
from bslbench.options import Results


class Format(StrEnum):
    """How `report` writes a table."""

    console = "console"
    markdown = "markdown"
    latex = "latex"
    csv = "csv"
    html = "html"


def report(
    grid: Annotated[
        str | None, typer.Option("--grid", help="Grid in the results; default the latest.")
    ] = None,
    table: Annotated[str, typer.Option("--table", help="Which table: main.")] = "main",
    fmt: Annotated[
        Format | None,
        typer.Option("--format", help="Output format; default the file's, else console."),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", help="Write to a file: .md, .tex, .csv, .html or .txt."),
    ] = None,
    metrics: Annotated[
        list[str] | None,
        typer.Option("--metric", help="Metric such as NDCG@10, repeatable."),
    ] = None,
    baseline: Annotated[
        str | None,
        typer.Option("--baseline", help="Loss to show the relative improvement over."),
    ] = None,
    against: Annotated[
        str | None,
        typer.Option("--against", help="'published', or a TOML file of figures to compare with."),
    ] = None,
    results: Results = Path("results"),
) -> None:
    """Show the results of a grid as a table."""
    from bslbench.engine.store import write_atomically
    from bslbench.report.compare import with_baseline
    from bslbench.report.published import published_table
    from bslbench.report.render import format_of, render
    from bslbench.report.results import latest_grid
    from bslbench.report.tables import TABLES

    if table not in TABLES:
        raise ConfigError(f"no table named '{table}'{suggest(table, TABLES)}")
    if against and (baseline or table != "main"):
        raise ConfigError("--against makes its own table: leave out --baseline and --table")
    form = fmt.value if fmt else format_of(out) if out else "console"
    name = grid or latest_grid(results)
    if against:
        made = published_table(results, name, metrics, against=against)
    else:
        made = TABLES[table](results, name, metrics)
    if baseline:
        made = with_baseline(made, baseline)
    text = render(made, form, styled=False if out else None)
    if out:
        write_atomically(out, text)
    else:
        print(text, end="")
