"""A report as one HTML page that needs nothing else: no network, no other file."""

import base64
import html
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from importlib.resources import files
from pathlib import Path
from string import Template

from bslbench import __version__
from bslbench.errors import ConfigError, DataError
from bslbench.report.figures.catalogue import available
from bslbench.report.figures.chart import Chart
from bslbench.report.figures.draw import draw, image
from bslbench.report.figures.scores import Loader
from bslbench.report.html import html_table
from bslbench.report.long_table import long_table
from bslbench.report.provenance import footer, problems
from bslbench.report.results import Results
from bslbench.report.table import Column, Table
from bslbench.report.tables import OF_NO_METRIC, TABLES, builder

FILTERS = ("dataset", "backbone", "loss", "noise")
"""The columns by which all tables of a page can be filtered."""

RUN_COLUMNS = ["status", "dataset", "backbone", "loss", "seed", "best_epoch", "epochs_run"]
RUN_COLUMNS += ["seconds_train", "seconds_eval", "device", "cpu", "threads", "revision", "run_id"]


def report_page(
    folder: Path,
    grid: str,
    metrics: Sequence[str] | None,
    load: Loader,
    tell: Callable[[str], None] = lambda text: None,
) -> str:
    """Return all that there is to show of a grid: tables, figures, provenance.

    Parameters
    ----------
    folder, grid, metrics
        As of `bslbench.report.main_table.main_table`; figures show the first metric.
    load
        Gives a dataset by its name, for the figures that need it.
    tell
        Is told what is being made.
    """
    tell("results")
    results = Results.load(folder, grid)
    main = long_table(folder, grid, metrics)
    body = [_facts(results), *_problems(results), _filters(main)]
    body += ["<h2>Results</h2>", html_table(_bare(main))]
    missing = []
    for name in TABLES:
        if name not in ("main", "long"):
            tell(f"table {name}")
            asked = None if name in OF_NO_METRIC else metrics
            try:
                body += [f"<h2>{html.escape(name.capitalize())}</h2>"]
                body += [html_table(_bare(builder(name)(folder, grid, asked)))]
            except (ConfigError, DataError) as reason:
                body.pop()
                missing.append(f"table {name}: {reason}")
    tell("figures")
    charts, reasons = available(results, (metrics or ["Recall@20"])[0], load)
    missing += [f"figure {name}: {reason}" for name, reason in reasons.items()]
    if charts:
        body += ["<h2>Figures</h2>", '<div class="drawings">', *map(_drawing, charts), "</div>"]
    body += [*_provenance(results), *_missing(missing)]
    return page_of(grid, body)


def table_page(table: Table) -> str:
    """Return a page with one table."""
    return page_of(table.title, [_filters(table), html_table(table)])


def page_of(title: str, body: Iterable[str]) -> str:
    """Return a page with a title and what stands in it, as HTML."""
    parts = files(__package__)
    template = Template(parts.joinpath("page.html").read_text("utf-8"))
    return template.substitute(
        title=html.escape(title),
        version=__version__,
        style=parts.joinpath("page.css").read_text("utf-8"),
        script=parts.joinpath("page.js").read_text("utf-8"),
        body="\n".join(body) + "\n",
    )


def _bare(table: Table) -> Table:
    """Return the table without what the page says once for all of them."""
    return replace(table, title="", problems=(), footer=(), stamp="")


def _facts(results: Results) -> str:
    done, asked = len(results.finished), len(results.runs)
    backbones = dict.fromkeys(run.key.backbone for run in results.runs)
    stamp = f'<p class="stamp">{html.escape(results.stamp)}</p>' if results.stamp else ""
    facts = (
        f"{done} of {asked} runs finished; {', '.join(results.datasets)}; {', '.join(backbones)}"
    )
    return f'{stamp}<p class="facts">{html.escape(facts)}</p>'


def _problems(results: Results) -> Iterator[str]:
    lines = "".join(f"<li>{html.escape(line)}</li>" for line in problems(results))
    if lines:
        yield f'<div class="problems"><ul>{lines}</ul></div>'


def _filters(table: Table) -> str:
    """Return a choice for each filter column that says more than one thing."""
    made = []
    for index, column in enumerate(table.columns):
        values = list(dict.fromkeys(row[index].text for row in table.rows))
        if column.name in FILTERS and not column.group and len(values) > 1:
            options = "".join(f"<option>{html.escape(value)}</option>" for value in values)
            choice = f'<select data-filter="{column.name}"><option value="">all</option>{options}'
            made.append(f"<label>{column.name}{choice}</select></label>")
    buttons = '<button type="button" data-seeds aria-pressed="false">each seed</button>'
    if made:
        buttons += '<button type="button" data-reset>all rows</button>'
    count = '<p class="count" aria-live="polite"></p>'
    return f'<div class="filters">{"".join(made)}{buttons}{count}</div>'


def _drawing(chart: Chart) -> str:
    data = base64.b64encode(image(draw(chart), "svg")).decode()
    text = html.escape(chart.caption or chart.name)
    return (
        f'<figure id="{html.escape(chart.name)}">'
        f'<img src="data:image/svg+xml;base64,{data}" alt="{text}">'
        f"<figcaption>{text}</figcaption></figure>"
    )


def _provenance(results: Results) -> Iterator[str]:
    yield '<h2>Provenance</h2>\n<div class="provenance">'
    yield from (f"<p>{html.escape(line)}</p>" for line in footer(results))
    record = results.record
    names = [name for name in RUN_COLUMNS if name in record]
    rows = record[names].values.tolist()
    runs = Table.of("runs", [Column(name.replace("_", " ")) for name in names], rows)
    yield f"<details><summary>All {len(rows)} runs</summary>{html_table(_bare(runs))}</details>"
    yield "</div>"


def _missing(lines: Sequence[str]) -> Iterator[str]:
    if lines:
        items = "".join(f"<li>{html.escape(line)}</li>" for line in lines)
        yield f'<details class="provenance"><summary>Not on this page</summary><ul>{items}</ul>'
        yield "</details>"
