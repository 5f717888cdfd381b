"""Published gains of BSL over SL, each beside ours between runs that differ as those did."""

import math
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from bslbench.errors import ConfigError
from bslbench.report.claims.ablation import BASELINE, CONTRASTS
from bslbench.report.claims.common import NO_SETTINGS, Loaded, relative_entry
from bslbench.report.published import ELSEWHERE, Figure, letters, read_published
from bslbench.report.results import PRIMARY, Key, Results, Run
from bslbench.report.significance import Comparison
from bslbench.report.table import Column, Entry, Like, Table

FORMS = {fields["loss"] for fields in CONTRASTS.values()}
"""The losses that are called BSL."""
APART = {*NO_SETTINGS, "rho"}
"""The fields in which the runs of a pair may differ, as the published ones do."""


class Pair(NamedTuple):
    """A published figure of SL and one of BSL: same source, dataset, backbone and selection."""

    base: Figure
    form: Figure

    def gain(self, metric: str) -> float | None:
        """Return what BSL gains relative to SL; None where one of them lacks the metric."""
        base, form = (figure.values.get(metric) for figure in self)
        return None if base is None or form is None else form / base - 1


def published_pairs(figures: Sequence[Figure]) -> Iterator[Pair]:
    """Yield all pairs among the figures."""
    for form in figures:
        for base in figures:
            if base.loss == BASELINE and form.loss in FORMS and _place(base) == _place(form):
                yield Pair(base, form)


def _place(figure: Figure) -> tuple[str, ...]:
    return figure.source, figure.dataset, figure.backbone, figure.selection


def pairs_table(folder: Path, grid: str, metrics: Sequence[str] | None = None) -> Table:
    """Return the published gains of BSL over SL on the grid's datasets, and ours beside them.

    Parameters
    ----------
    folder, grid, metrics
        As in `bslbench.report.tables.main_table`.

    Raises
    ------
    ConfigError
        If there is no such metric, or no pair published with it on the grid's datasets.
    DataError
        As `Loaded.compared` does.
    """
    loaded = Loaded(folder, grid)
    metrics = tuple(dict.fromkeys(metrics or PRIMARY))
    loaded.results.scores(metrics)
    collection = read_published("published")
    pairs = [
        pair
        for pair in published_pairs(collection.figure)
        if pair.form.dataset in loaded.results.datasets
        and any(pair.gain(metric) is not None for metric in metrics)
    ]
    if not pairs:
        raise ConfigError(
            f"no pair of {BASELINE} and BSL is published for the datasets of grid '{grid}' with "
            f"{' or '.join(metrics)}"
        )
    marks = letters(collection)
    sources = dict.fromkeys(pair.form.source for pair in pairs)
    selections = dict.fromkeys(run.selection for run in loaded.results.runs)
    notes = [
        "published, ours: relative difference of BSL from SL; ours with its 95 % interval over "
        "seeds and users, between runs that differ in nothing but loss and rho",
        "published gain is: inside our interval, above it or below it",
        *(f"{marks[name]}: {collection.sources[name]}" for name in sources),
    ]
    if any(pair.form.selection != selection for pair in pairs for selection in selections):
        notes.append(ELSEWHERE)
    return loaded.table(
        "pairs",
        [
            *(Column(name) for name in ("dataset", "backbone", "BSL", "SL", "selection", "metric")),
            Column("seeds"),
            Column("published", spec="+.2%"),
            Column("ours", spec="+.2%"),
            Column("published gain is"),
        ],
        [
            row
            for pair in pairs
            for selection in selections
            for row in _rows(loaded, pair, selection, metrics, marks[pair.form.source])
        ],
        title="published gains of BSL over SL",
        notes=notes,
        all_settings=True,
    )


def _rows(
    loaded: Loaded, pair: Pair, selection: str, metrics: Sequence[str], mark: str
) -> Iterator[list[Like]]:
    """Yield a row for each metric and each two of our rows, or one that says there are none."""
    place = (pair.form.dataset, pair.form.backbone)
    ours = list(_ours(loaded.results, pair, selection))
    for metric in metrics:
        gain = pair.gain(metric)
        if gain is None:
            continue
        published = Entry(gain, mark=mark + "*" * (selection != pair.form.selection))
        for form, base in ours:
            names = (form[0].key.label, base[0].key.label, selection, metric)
            found = loaded.compared(form, base, metric)
            yield [*place, *names, *_against(published, gain, found)]
        if not ours:
            names = (pair.form.key.label, pair.base.key.label, selection, metric)
            yield [*place, *names, *_against(published, gain, "not run")]


def _ours(results: Results, pair: Pair, selection: str) -> Iterator[tuple[list[Run], list[Run]]]:
    """Yield our finished runs of BSL and of SL, by row, that differ as the published ones."""
    rows: defaultdict[tuple[str, Key], list[Run]] = defaultdict(list)
    for run in results.done:
        if run.selection == selection:
            rows[run.dataset, run.key].append(run)
    for form in rows.values():
        for base in rows.values():
            stand = pair.form.stands_for(form[0]) and pair.base.stands_for(base[0])
            if stand and _shared(form[0]) == _shared(base[0]):
                yield form, base


def _shared(run: Run) -> dict[str, Any]:
    return {name: value for name, value in run.fields.items() if name not in APART}


def _against(published: Entry, gain: float, found: Comparison | str) -> Iterator[Like]:
    """Yield seeds, published gain and ours, and where the published one lies."""
    if isinstance(found, str):
        yield from (None, published, None, found)
        return
    yield from (str(found.n_seeds), published, relative_entry(found))
    low, high = found.relative_interval
    if math.isnan(low):
        yield "not told by one seed"
    else:
        yield "above" if gain > high else "below" if gain < low else "inside"
