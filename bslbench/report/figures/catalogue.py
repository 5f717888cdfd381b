"""The figures by name: which there are of a grid, and how they get into files."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from bslbench.data.load import load
from bslbench.errors import ConfigError, DataError, suggest
from bslbench.files import writing
from bslbench.report.figures.best_of import best_of
from bslbench.report.figures.chart import Chart
from bslbench.report.figures.contrasts import contrast_bars
from bslbench.report.figures.curves import learning, variance
from bslbench.report.figures.draw import SUFFIXES, save
from bslbench.report.figures.groups import groups
from bslbench.report.figures.robustness import robustness
from bslbench.report.figures.scores import Loader, scores
from bslbench.report.figures.sweeps import sweep, swept
from bslbench.report.figures.theory import worst_case_size
from bslbench.report.results import Results

Maker = Callable[[Results, str, Loader], Chart]
"""Makes a chart of a metric, NAME@K, or raises `Nothing`; datasets come from the loader."""

FIGURES: dict[str, Maker] = {
    "epochs": lambda results, metric, _: learning(results, metric, "epochs"),
    "seconds": lambda results, metric, _: learning(results, metric, "seconds"),
    "robustness": lambda results, metric, _: robustness(results, metric, relative=False),
    "robustness-relative": lambda results, metric, _: robustness(results, metric, relative=True),
    "variance": lambda results, *_: variance(results),
    "contrasts": lambda results, metric, _: contrast_bars(results, metric),
    "theory": lambda results, *_: worst_case_size(results),
    "groups": lambda results, metric, _: groups(results, metric),
    "scores": lambda results, _, load: scores(results, load),
    "best-of-trials": lambda results, metric, _: best_of(results, metric, "trials"),
    "best-of-seconds": lambda results, metric, _: best_of(results, metric, "seconds"),
}
"""By the name that ``bslbench report --figure`` takes; a setting that a grid sweeps is one too."""


def chart(results: Results, name: str, metric: str = "Recall@20", load: Loader = load) -> Chart:
    """Return a figure of a grid by its name: one of `FIGURES`, or a setting such as ``tau``.

    Raises
    ------
    ConfigError
        If there is no such figure.
    Nothing
        If the grid's results have nothing to show in it.
    """
    known = {field for run in results.runs for field in run.fields}
    if name in FIGURES:
        made = FIGURES[name](results, metric, load)
    elif name in known:
        made = sweep(results, metric, name)
    else:
        raise ConfigError(f"no figure named '{name}'{suggest(name, [*FIGURES, *swept(results)])}")
    return replace(made, caption=f"{results.stamp}. {made.caption}") if results.stamp else made


def available(
    results: Results, metric: str = "Recall@20", load: Loader = load
) -> tuple[list[Chart], dict[str, str]]:
    """Return every figure that a grid has something for, and of the others the reason why not."""
    charts, reasons = [], {}
    for name in (*FIGURES, *swept(results)):
        try:
            charts.append(chart(results, name, metric, load))
        except (ConfigError, DataError) as reason:  # a run or dataset that is not at hand, say
            reasons[name] = str(reason)
    return charts, reasons


def save_all(charts: list[Chart], folder: Path) -> list[Path]:
    """Write charts into a folder, each as PDF, SVG and PNG; return the files.

    Raises
    ------
    StoreError
        If the folder cannot be written.
    """
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
    files = [[folder / f"{one.name}{suffix}" for suffix in SUFFIXES] for one in charts]
    for one, paths in zip(charts, files, strict=True):
        save(one, *paths)
    return [path for paths in files for path in paths]
