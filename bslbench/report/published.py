"""Published figures beside ours, with the difference."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from bslbench.config import REFERENCE, Scalar, Selection, Strict
from bslbench.errors import ConfigError
from bslbench.evaluation.metrics import parse_metric
from bslbench.report.levels import CLEAN, noise_of
from bslbench.report.parts import count, key_columns, mean_entry, measured
from bslbench.report.provenance import footer, problems
from bslbench.report.results import PRIMARY, Key, Results, Run
from bslbench.report.table import GAP, Column, Entry, Like, Table
from bslbench.toml import read_toml, validated

OURS = Path(__file__).parent.parent / "published.toml"

ELSEWHERE = (
    "*: theirs picked the best epoch on test, ours on validation pairs, which it did not train on"
)
"""What the mark of a figure of another selection than ours means."""


class Kind(Strict):
    """A loss, and settings of it."""

    loss: str
    settings: dict[str, Scalar] = Field({})

    def includes(self, run: Run) -> bool:
        """Tell whether a run is of this loss and these settings."""
        return run.key.loss == self.loss and self.settings.items() <= run.fields.items()


class Figure(Kind):
    """A result that others have published.

    It stands for the runs of its dataset and backbone that are of its loss and settings, or of
    those of `also`: of what the same training is called elsewhere.
    """

    source: str
    dataset: str
    backbone: str
    also: Kind | None = None
    selection: Selection
    values: dict[str, Annotated[float, Field(gt=0)]]

    @property
    def key(self) -> Key:
        """What sets its row apart where none of ours is beside it."""
        settings = " ".join(f"{name}={value}" for name, value in self.settings.items())
        return Key(self.backbone, self.loss, settings)

    def stands_for(self, run: Run) -> bool:
        """Tell whether a run is of the kind that the figure was published for, without noise."""
        return (
            (run.dataset, run.key.backbone) == (self.dataset, self.backbone)
            and noise_of(run.fields) == CLEAN
            and (self.includes(run) or (self.also is not None and self.also.includes(run)))
        )


class Collection(Strict):
    """Figures and, by the name that they carry, where they come from."""

    sources: dict[str, str]
    figure: list[Figure]


def read_published(name: str) -> Collection:
    """Return the figures of a TOML file, or ours by the name ``published``.

    Raises
    ------
    ConfigError
        Naming the file and the key that is wrong.
    """
    if name != "published" and not name.endswith(".toml"):
        raise ConfigError(f"--against {name}: say 'published', or name a TOML file of figures")
    path = OURS if name == "published" else Path(name)
    collection = validated(Collection, read_toml(path), str(path))
    for figure in collection.figure:
        if figure.source not in collection.sources:
            raise ConfigError(f"{path}: no source named '{figure.source}' under [sources]")
        for metric in figure.values:
            parse_metric(metric)
    return collection


def letters(collection: Collection) -> dict[str, str]:
    """Return by source the letter that marks its figures."""
    return {source: chr(ord("a") + n) for n, source in enumerate(collection.sources)}


@dataclass(frozen=True)
class _Line:
    """One row: our runs of a key on a dataset, a published figure, or both."""

    dataset: str
    key: Key
    runs: Sequence[Run]
    figure: Figure | None
    letter: str


def published_table(
    results: Path,
    grid: str,
    metrics: Sequence[str] | None = None,
    *,
    against: str = "published",
) -> Table:
    """Return a grid's results with the published figures beside them, a row for each figure.

    Our rows without a figure, and figures for the grid's datasets without a row of ours, stand
    there with gaps.

    Parameters
    ----------
    results, grid, metrics
        As in `bslbench.report.main_table.main_table`.
    against
        ``published``, or a TOML file of figures in the form of ``bslbench/published.toml``.

    Raises
    ------
    ConfigError, DataError
        As `read_published` and `bslbench.report.results.Results` do.
    """
    metrics = tuple(dict.fromkeys(metrics or PRIMARY))
    loaded = Results.load(results, grid)
    scores = loaded.scores(metrics)
    collection = read_published(against)
    lines = list(_lines(loaded, collection, metrics))
    columns = [Column("dataset"), *key_columns(line.key for line in lines), Column("seeds")]
    for metric in metrics:
        columns += [
            Column("ours", metric, measured(metric).spec),
            Column("published", metric, measured(metric).spec),
            Column("difference", metric, "+.2%", align="right"),
        ]
    shown = [column.name for column in columns if column.name in Key._fields]
    rows = [_row(line, shown, metrics, scores, loaded.finished) for line in lines]
    return Table.of(
        "published",
        columns,
        rows,
        title=f"{grid} against published figures",
        sections=True,
        stamp=loaded.stamp,
        says="test split",
        problems=problems(loaded),
        notes=_notes(lines, collection.sources),
        footer=footer(loaded),
    )


def _lines(results: Results, collection: Collection, metrics: Sequence[str]) -> Iterator[_Line]:
    """Yield ours in their order, a line for each figure of theirs; then what we have not run."""
    marks = letters(collection)
    figures = [f for f in collection.figure if set(f.values) & set(metrics)]
    ours: dict[tuple[str, Key], list[Run]] = {}
    for run in results.runs:
        ours.setdefault((run.dataset, run.key), []).append(run)
    matched: list[Figure] = []
    places = {dataset: place for place, dataset in enumerate(results.datasets)}
    for (dataset, key), runs in sorted(
        ours.items(), key=lambda item: (places[item[0][0]], item[0][1].backbone != REFERENCE)
    ):
        own = [figure for figure in figures if figure.stands_for(runs[0])]
        matched += own
        for figure in own:
            yield _Line(dataset, key, runs, figure, marks[figure.source])
        if not own:
            yield _Line(dataset, key, runs, None, "")
    for figure in figures:
        if figure.dataset in results.datasets and figure not in matched:
            yield _Line(figure.dataset, figure.key, (), figure, marks[figure.source])


def _row(
    line: _Line,
    shown: Sequence[str],
    metrics: Sequence[str],
    scores: Mapping[tuple[str, str], float],
    finished: frozenset[str],
) -> Iterator[Like]:
    done = sum(run.id in finished for run in line.runs)
    yield from (line.dataset, *(getattr(line.key, name) for name in shown))
    yield count([(done, len(line.runs))]) if line.runs else GAP
    for metric in metrics:
        found = {
            run.seed: scores[run.id, metric] for run in line.runs if (run.id, metric) in scores
        }
        ours = mean_entry(found)
        theirs = line.figure.values.get(metric) if line.figure else None
        yield ours
        if theirs is None:
            yield from ("", "")
        else:
            yield Entry(theirs, mark=line.letter + _otherwise(line))
            yield None if ours.value is None else ours.value / theirs - 1


def _otherwise(line: _Line) -> Literal["", "*"]:
    """Return the mark of a figure whose best epoch was picked on another split than ours."""
    differs = line.figure and any(run.selection != line.figure.selection for run in line.runs)
    return "*" if differs else ""


def _notes(lines: Sequence[_Line], sources: Mapping[str, str]) -> Iterator[str]:
    used = {line.letter: line.figure.source for line in lines if line.figure}
    yield "difference: ours relative to theirs"
    yield from (f"{letter}: {sources[source]}" for letter, source in sorted(used.items()))
    if any(_otherwise(line) for line in lines):
        yield ELSEWHERE
    if not used:
        yield "there is no published figure for this grid's datasets and metrics"
