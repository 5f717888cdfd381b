"""The command `verdict`."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from bslbench.options import Results


class Format(StrEnum):
    """How `verdict` writes its tables."""

    console = "console"
    markdown = "markdown"
    latex = "latex"
    csv = "csv"


def verdict(
    grids: Annotated[
        list[str] | None, typer.Option("--grid", help="Grid in the results, repeatable; else all.")
    ] = None,
    fmt: Annotated[Format, typer.Option("--format", help="Output format.")] = Format.console,
    write: Annotated[
        Path | None, typer.Option("--write", help="Write a Markdown page with the rules instead.")
    ] = None,
    results: Results = Path("results"),
) -> None:
    """Judge the paper's claims by the results, under rules that were fixed before them."""
    from bslbench.files import write_atomically
    from bslbench.report.render import render
    from bslbench.report.verdict.page import details_table, judged, page, summary_table
    from bslbench.report.verdict.rules import read_rules

    found = judged(results, grids or [], read_rules())
    if write:
        write_atomically(write, page(found))
        return
    details = details_table(found)
    tables = [details] if fmt is Format.csv else [summary_table(found), details]
    for table in tables:  # CSV is one table, with the verdict beside each place
        print(render(table, fmt.value), end="")
