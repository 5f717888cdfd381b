"""The command `report`."""

from collections.abc import Callable
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bslbench.errors import ConfigError, suggest
from bslbench.options import Catalog, Data, Results

if TYPE_CHECKING:
    from bslbench.report.table import Table


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
    table: Annotated[
        str,
        typer.Option(
            "--table",
            help="main, long, significance, ranking, tuning, robustness, fairness, variance, "
            "temperature, ablation, pairs, factorial, dimension or theory.",
        ),
    ] = "main",
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
        typer.Option("--baseline", help="Loss to show the differences from, or 'best'."),
    ] = None,
    against: Annotated[
        str | None,
        typer.Option("--against", help="'published', or a TOML file of figures to compare with."),
    ] = None,
    figure: Annotated[
        list[str] | None,
        typer.Option("--figure", help="A figure instead, such as tau or epochs; repeatable."),
    ] = None,
    figures: Annotated[
        Path | None,
        typer.Option("--figures", help="Folder for figures: all there are, or those of --figure."),
    ] = None,
    page: Annotated[
        Path | None,
        typer.Option("--html", help="Write one page with all tables, figures, filters."),
    ] = None,
    results: Results = Path("results"),
    data: Data = None,
    catalog: Catalog = None,
) -> None:
    """Show the results of a grid as a table, as figures, or as a page with all there is."""
    from rich.console import Console

    from bslbench.files import write_atomically
    from bslbench.report.render import format_of, render
    from bslbench.report.results import latest_grid
    from bslbench.report.tables import TABLES

    if figure or figures:
        if (fmt, baseline, against, page, table) != (None, None, None, None, "main"):
            raise ConfigError("--figure and --figures draw: leave out the options of tables")
        print(_draw(results, grid, figure, figures, out, metrics, data, catalog), end="")
        return
    if table not in TABLES:
        raise ConfigError(f"no table named '{table}'{suggest(table, TABLES)}")
    if against and (baseline or table != "main"):
        raise ConfigError("--against makes its own table: leave out --baseline and --table")
    if page:
        if (fmt, out, baseline, against, table) != (None, None, None, None, "main"):
            raise ConfigError("--html writes a page of its own: leave out the options of tables")
        fmt, out = Format.html, page
    form = fmt.value if fmt else format_of(out) if out else "console"
    name = grid or latest_grid(results)
    with Console(stderr=True).status("reading") as shown:
        if form == "html" and table == "main" and not (baseline or against):
            text = _page(results, name, metrics, data, catalog, shown.update)
        else:
            made = _table(results, name, metrics, table, baseline, against, shown.update)
            if form == "html":
                from bslbench.report.page import table_page

                text = table_page(made)
            else:
                text = render(made, form, styled=False if out else None)
    if out:
        write_atomically(out, text)
    else:
        print(text, end="")


def _table(
    results: Path,
    grid: str,
    metrics: list[str] | None,
    table: str,
    baseline: str | None,
    against: str | None,
    tell: Callable[[str], None],
) -> "Table":
    """Return the table asked for, the main one with what can be told of its differences."""
    from bslbench.report.compare import BEST, with_baseline
    from bslbench.report.pairs import significance
    from bslbench.report.published import published_table
    from bslbench.report.results import PRIMARY, Results
    from bslbench.report.significance_table import significance_table, with_significance
    from bslbench.report.tables import builder

    if against:
        return published_table(results, grid, metrics, against=against)
    if table == "significance":
        return significance_table(results, grid, metrics, baseline=baseline, tell=tell)
    made = builder(table)(results, grid, metrics)
    if baseline:
        made = with_baseline(made, baseline)
    if table == "main":
        loaded = Results.load(results, grid)
        found = significance(loaded, metrics or PRIMARY, baseline or BEST, tell)
        made = with_significance(made, found)
    return made


def _page(
    results: Path,
    grid: str,
    metrics: list[str] | None,
    data: Path | None,
    catalog: Path | None,
    tell: Callable[[str], None],
) -> str:
    """Return the page with all there is of a grid."""
    from functools import partial

    from bslbench.catalog import load_catalog
    from bslbench.data.load import load
    from bslbench.report.page import report_page

    loader = partial(load, data=data, catalog=load_catalog(catalog))
    return report_page(results, grid, metrics, loader, tell)


def _draw(
    results: Path,
    grid: str | None,
    names: list[str] | None,
    folder: Path | None,
    out: Path | None,
    metrics: list[str] | None,
    data: Path | None,
    catalog: Path | None,
) -> str:
    """Draw figures into a folder or one into a file; return a line for each."""
    from functools import partial

    from bslbench.catalog import load_catalog
    from bslbench.data.load import load
    from bslbench.report.figures.catalogue import available, chart, save_all
    from bslbench.report.figures.draw import save
    from bslbench.report.results import Results as Loaded
    from bslbench.report.results import latest_grid

    loaded = Loaded.load(results, grid or latest_grid(results))
    metric, *more = metrics or ["Recall@20"]
    loader = partial(load, data=data, catalog=load_catalog(catalog))
    if more:
        raise ConfigError("a figure shows one --metric")
    if (folder is None) == (out is None) or (out is not None and len(names or []) != 1):
        raise ConfigError("name a folder by --figures, or a file by --out for a single --figure")
    if out:
        save(chart(loaded, (names or [])[0], metric, loader), out)
        return ""
    reasons: dict[str, str] = {}
    if names:
        charts = [chart(loaded, name, metric, loader) for name in names]
    else:
        charts, reasons = available(loaded, metric, loader)
    lines = [str(path) for path in save_all(charts, folder or Path())]
    lines += [f"no {name}: {reason}" for name, reason in reasons.items()]
    return "".join(f"{line}\n" for line in lines)
