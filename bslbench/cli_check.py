"""The command `check`."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from bslbench.errors import ConfigError
from bslbench.options import Results


class Format(StrEnum):
    """How `check` says what it has found."""

    console = "console"
    markdown = "markdown"
    github = "github"


def check(
    baseline: Annotated[
        Path, typer.Option("--baseline", help="The committed file to compare with.")
    ],
    grid: Annotated[
        str | None, typer.Option("--grid", help="Grid in the results; default the latest.")
    ] = None,
    update: Annotated[
        bool, typer.Option("--update", help="Write the baseline from the results instead.")
    ] = False,
    metric: Annotated[
        str | None,
        typer.Option("--metric", help="With --update: what later checks look at, else Recall@20."),
    ] = None,
    tolerance: Annotated[
        float, typer.Option("--tolerance", min=0, max=1, help="Relative drop that is accepted.")
    ] = 0.005,
    fmt: Annotated[Format, typer.Option("--format", help="Output format.")] = Format.console,
    results: Results = Path("results"),
) -> None:
    """Tell whether a grid's results are worse than a baseline: exit code 0, 3 if so, 4 if unknown.

    Worse means: by more than the tolerance, and by a one-sided test at 2.5 % for all groups.
    """
    from bslbench.files import write_atomically
    from bslbench.report.baseline import Baseline, baseline_of
    from bslbench.report.check import check, exit_code
    from bslbench.report.check_table import annotations, check_table
    from bslbench.report.render import render
    from bslbench.report.results import Results, latest_grid

    if metric and not update:
        raise ConfigError("--metric goes with --update: a check looks at what its baseline has")
    loaded = Results.load(results, grid or latest_grid(results))
    if update:
        if baseline.exists() and baseline.suffix != ".toml":
            raise ConfigError(f"{baseline} is there, and no baseline: name a .toml file")
        chosen = metric or "Recall@20"
        made = baseline_of(loaded, chosen)
        write_atomically(baseline, made.toml())
        print(f"{baseline}: {len(made.group)} groups of {loaded.grid} by {chosen}")
        return
    if not baseline.is_file():
        raise ConfigError(f"{baseline}: no such file; bslbench check --update makes it")
    known = Baseline.read(baseline)
    findings = check(loaded, known, baseline, tolerance)
    if fmt is Format.github:
        print(annotations(findings, known), end="")
    else:
        table = check_table(findings, known, loaded.grid, baseline, tolerance)
        print(render(table, "markdown" if fmt is Format.markdown else "console"), end="")
    if code := exit_code(findings):
        raise typer.Exit(code)
