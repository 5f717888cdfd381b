"""How a figure is drawn, and written to files."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bslbench.errors import ConfigError
from bslbench.files import write_atomically
from bslbench.report.figures.chart import Chart, Panel, Series

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SUFFIXES = (".pdf", ".svg", ".png")

# Okabe and Ito's colours, told apart by all kinds of colour vision; their yellow is left out, since
# thin lines of it vanish on white. The order alternates dark and light, for print in grey.
COLOURS = ["#0072B2", "#E69F00", "#009E73", "#56B4E9", "#D55E00", "#CC79A7", "#000000", "#8C8C8C"]
# No two of the lengths of colours, dashes and hatches have a factor in common: a ninth label has
# the first colour again, with another dash and another hatch.
MARKERS = ["o", "s", "^", "D", "v", "P", "X", "*"]
DASHES: list[Any] = [
    "-",
    (0, (5, 1.5)),
    (0, (1.5, 1)),
    (0, (6, 1.5, 1, 1.5)),
    (0, (3, 1, 1, 1, 1, 1)),
]
HATCHES = ["", "////", "....", "\\\\\\\\", "xxxx", "||||", "++"]
MOST_TICKS = 12
"""Of a logarithmic axis: with more values than that round ones are named instead."""
STYLE: dict[Any, Any] = {
    "font.size": 8,
    "axes.titlesize": 8,
    "axes.labelsize": 8,
    "legend.fontsize": 8,
    "xtick.labelsize": 7,
    "ytick.labelsize": 7,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.6,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#E3E3E3",
    "grid.linewidth": 0.5,
    "lines.linewidth": 1.3,
    "lines.markersize": 4,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "legend.frameon": False,
    "hatch.linewidth": 0.5,
    "figure.dpi": 100,
    "savefig.dpi": 200,
    "pdf.fonttype": 42,  # TrueType, which journals ask for
    "svg.fonttype": "path",
    "svg.hashsalt": "bslbench",  # the same chart gives the same bytes
    "text.parse_math": False,  # a name with two $ is no formula
}


def draw(chart: Chart) -> Figure:
    """Return the chart as a Matplotlib figure, on no screen."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib.figure import Figure

    wide = chart.kind == "bars"
    columns = min(1 if wide and len(chart.x_names) > 12 else 2 if wide else 3, len(chart.panels))
    columns = 2 if len(chart.panels) == 4 and columns == 3 else columns
    rows = -(-len(chart.panels) // columns)
    width = max(3.4, (3.6 if wide or columns < 3 else 2.5) * columns)
    with matplotlib.rc_context(STYLE):
        entries = _legend_columns(chart.labels, width)
        below = 0.17 * -(-len(chart.labels) // entries) + 0.1
        figure = Figure(figsize=(width, 2.2 * rows + below), layout="constrained")
        grid = figure.subplots(rows, columns, squeeze=False)
        for index, axes in enumerate(grid.flat):
            if index < len(chart.panels):
                _panel(axes, chart, chart.panels[index])
            else:
                axes.remove()
        _outer_labels(figure, columns)
        _legend(figure, chart, entries)
    return figure


def save(chart: Chart, *paths: Path) -> None:
    """Draw a chart into files: .pdf, .svg or .png by their suffixes.

    Raises
    ------
    ConfigError
        If a suffix is another.
    StoreError
        If a file cannot be written.
    """
    for path in paths:
        if path.suffix not in SUFFIXES:
            raise ConfigError(f"{path}: a figure is written as {', '.join(SUFFIXES)}")
    figure = draw(chart)
    for path in paths:
        write_atomically(path, image(figure, path.suffix[1:]))


def image(figure: Figure, form: str) -> bytes:
    """Return the bytes of a ``pdf``, ``svg`` or ``png``; the same chart gives the same ones."""
    import matplotlib

    dates: dict[str, Any] = {"pdf": {"CreationDate": None}, "svg": {"Date": None}, "png": {}}
    out = io.BytesIO()
    with matplotlib.rc_context(STYLE):
        figure.savefig(out, format=form, metadata=dates[form])
    return out.getvalue()


def _panel(axes: Axes, chart: Chart, panel: Panel) -> None:
    from matplotlib.ticker import LogLocator

    draw_one = {"bars": _bars, "lines": _line, "curves": _line, "steps": _line}[chart.kind]
    for place, series in enumerate(panel.series):
        draw_one(axes, chart, series, chart.labels.index(series.label), place, len(panel.series))
    tops: dict[float, Series] = {}  # notes at one place would hide each other: the highest stays
    noted = [series for series in panel.series if series.note]
    for series in sorted(noted, key=lambda series: _best(series)[1]):
        tops[_best(series)[0]] = series
    for series in tops.values():
        axes.annotate(
            series.note, _best(series), (0, 7), textcoords="offset points", ha="center", fontsize=7
        )
    axes.set_title(panel.title)
    axes.set_xlabel(panel.x_label or chart.x_label)
    axes.set_ylabel(panel.y_label or chart.y_label)
    if chart.x_scale == "log":
        axes.set_xscale("log")
        ticks = sorted({x for series in panel.series for x in series.x})
        if len(ticks) <= MOST_TICKS:
            axes.set_xticks(ticks)
        else:
            steps = (1, 2, 5) if ticks[-1] < 100 * ticks[0] else (1,)
            axes.xaxis.set_major_locator(LogLocator(subs=steps))
        axes.xaxis.set_major_formatter("{x:g}")
        axes.xaxis.minorticks_off()
    if chart.x_scale == "names":
        axes.set_xticks(range(len(chart.x_names)), chart.x_names)
        axes.grid(axis="x", visible=False)
    axes.margins(x=0.03, y=0.12 if any(series.note for series in panel.series) else 0.05)


def _best(series: Series) -> tuple[float, float]:
    index = series.best or 0
    return series.x[index], series.y[index]


def _outer_labels(figure: Figure, columns: int) -> None:
    """Keep an axis label at the edge only, where all panels have the same."""
    for side in ("x", "y"):
        texts = [getattr(axes, f"get_{side}label")() for axes in figure.axes]
        if len(set(texts)) == 1:
            for index, axes in enumerate(figure.axes):
                below = index + columns < len(figure.axes)
                if below if side == "x" else index % columns:
                    getattr(axes, f"set_{side}label")("")


def _line(axes: Axes, chart: Chart, series: Series, style: int, place: int, count: int) -> None:
    colour, marker = COLOURS[style % len(COLOURS)], MARKERS[style % len(MARKERS)]
    for x, y in series.each:
        axes.plot(x, y, color=colour, linewidth=0.4, alpha=0.35)
    apart = max(1, len(series.x) // 6)  # curves have many points: few markers, not all at one place
    axes.plot(
        series.x,
        series.y,
        color=colour,
        linestyle=DASHES[style % len(DASHES)],
        marker=marker,
        markevery=1 if chart.kind == "lines" else (place * apart // max(1, count), apart),
        markeredgecolor="white",
        markeredgewidth=0.4,
        drawstyle="steps-post" if chart.kind == "steps" else "default",
        label=series.label,
    )
    if series.error is not None:
        axes.errorbar(
            series.x, series.y, series.error, fmt="none", ecolor=colour, elinewidth=1.0, zorder=1.9
        )
    if series.best is not None:
        ring: dict[str, Any] = {"markersize": 8, "markeredgewidth": 1.0, "markerfacecolor": "none"}
        axes.plot(*_best(series), "o", color=colour, **ring)


def _bars(axes: Axes, chart: Chart, series: Series, style: int, place: int, count: int) -> None:
    width = 0.82 / count
    offset = (place - (count - 1) / 2) * width
    axes.bar(
        [x + offset for x in series.x],
        series.y,
        width,
        yerr=series.error,
        color=COLOURS[style % len(COLOURS)],
        hatch=HATCHES[style % len(HATCHES)],
        edgecolor="white",
        linewidth=0.4,
        error_kw={"elinewidth": 0.6, "ecolor": "#444444"},
        label=series.label,
    )


def _legend_columns(labels: Sequence[str], width: float) -> int:
    """Return how many entries of the legend stand side by side in `width` inches."""
    sizes = [0.063 * len(label) + 0.62 for label in labels]
    if sum(sizes) <= width:
        return max(1, len(labels))
    return max(1, int(width / max(sizes)))


def _legend(figure: Figure, chart: Chart, columns: int) -> None:
    """Put one legend under all panels, unless there is but one series to tell."""
    found: dict[str, Any] = {}
    for axes in figure.axes:
        handles, labels = axes.get_legend_handles_labels()
        found |= {label: handle for label, handle in zip(labels, handles, strict=True)}
    order = [label for label in chart.labels if label in found]
    if len(order) > 1:
        figure.legend(
            [found[label] for label in order], order, loc="outside lower center", ncols=columns
        )
