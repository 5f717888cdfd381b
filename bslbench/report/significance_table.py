"""Comparisons as a table of their own, and as marks and intervals in another one."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from bslbench.evaluation.statistics import SMALLEST_EFFECT, Word
from bslbench.report.compare import BEST, row_keys
from bslbench.report.pairs import Compared, Significance, significance
from bslbench.report.parts import key_columns, needed, smallest_p_note
from bslbench.report.provenance import footer, problems
from bslbench.report.results import PRIMARY, Results
from bslbench.report.table import Column, Entry, Like, Table

MARKS: dict[Word, str] = {"there": "", "absent": "≈", "cannot be told": "?"}

INTERVAL = "95 % interval over seeds and users"
WITHIN = f"within {100 * SMALLEST_EFFECT:g} %"


def significance_table(
    results: Path,
    grid: str,
    metrics: Sequence[str] | None = None,
    *,
    baseline: str | None = None,
    tell: Callable[[str], None] = lambda text: None,
) -> Table:
    """Return every comparison of a grid: difference, interval, p-values, and what can be told.

    Parameters
    ----------
    results, grid, metrics
        As in `bslbench.report.tables.main_table`.
    baseline, tell
        As in `bslbench.report.pairs.significance`.
    """
    loaded = Results.load(results, grid)
    found = significance(loaded, list(dict.fromkeys(metrics or PRIMARY)), baseline or BEST, tell)
    names = key_columns(line.pair.key for line in found.compared)
    columns = [
        Column("dataset"),
        Column("metric"),
        *names,
        Column("against"),
        Column("seeds", spec="d", align="right"),
        Column("users", spec="d", align="right", only="csv"),
        Column("difference", spec="+.5f"),
        Column("relative", spec="+.2%", align="right"),
        Column("p", spec=".2g", align="right"),
        Column("p (Holm)", spec=".2g", align="right"),
        Column("difference is"),
        Column("seeds to tell", spec="d", align="right"),
    ]
    return Table.of(
        "significance",
        columns,
        [_row(line, [column.name for column in names]) for line in found.compared],
        title=f"{grid}: differences from {_named(found.baseline)}",
        sections=True,
        stamp=loaded.stamp,
        says="test split",
        problems=[*_lacking(found), *problems(loaded)],
        notes=_notes(found),
        footer=footer(loaded),
    )


def _row(line: Compared, names: Sequence[str]) -> Iterator[Like]:
    pair, found = line.pair, line.found
    yield from (pair.dataset, pair.metric, *(getattr(pair.key, name) for name in names))
    yield f"{pair.against.backbone} {pair.against.label}"
    yield from (found.n_seeds, found.n_users)
    yield Entry(found.diff, interval=(found.low, found.high))
    yield found.relative
    yield from (found.p, line.p_holm)
    yield found.word
    yield "" if found.word != "cannot be told" else needed(found.seeds_needed)


def _notes(found: Significance) -> Iterator[str]:
    yield (
        f"difference: the row's mean minus that of {_named(found.baseline)}, [{INTERVAL}], "
        "seeds paired"
    )
    yield (
        f"there: the interval excludes zero; absent: it lies {WITHIN} of the baseline; seeds to "
        "tell: how many would, nine times in ten, were all as estimated"
    )
    yield "p: paired t-test over seeds; Holm: adjusted for all comparisons here by the same metric"
    yield from smallest_p_note(line.found.n_seeds for line in found.compared)


def _named(baseline: str) -> str:
    return "the best of the column" if baseline == BEST else baseline


def _lacking(found: Significance) -> Iterator[str]:
    n_pairs = found.lacking + found.few + len(found.compared)
    if found.lacking:
        yield (
            f"not compared: {found.lacking} of {n_pairs} pairs, whose ranks are not under runs, or "
            "not those of this table"
        )
    if found.few:
        yield f"not compared: {found.few} of {n_pairs} pairs, without two seeds in common"


def with_significance(table: Table, found: Significance) -> Table:
    """Return the main table with what can be told of each difference.

    Values carry marks; where `bslbench.report.compare.with_baseline` has put the relative
    difference beside them, that carries the mark, and its interval.
    """
    beside = f"vs {found.baseline}"
    shown = beside in (column.name for column in table.columns)
    keys = row_keys(table)
    rows = [list(row) for row in table.rows]
    marked = False
    for index, column in enumerate(table.columns):
        if not column.better:
            continue
        place = index + 1 if shown else index
        for row, key in zip(rows, keys, strict=True):
            line = found.of(column.group, column.name, key)
            entry = row[place]
            if line and entry.value is not None:
                interval = line.found.relative_interval if shown else None
                row[place] = replace(entry, mark=MARKS[line.found.word], interval=interval)
                marked = True
            elif entry.value is not None and (shown or entry.place != 1):
                row[place] = replace(entry, mark=MARKS["cannot be told"])
    if not marked:
        reason = f"no row has two seeds in common with {_named(found.baseline)}"
        if found.lacking:
            reason = "the ranks of the runs are not under runs, or not those of this table"
        return replace(table, notes=(*table.notes, f"differences are not tested: {reason}"))
    notes = [
        f"difference from {_named(found.baseline)}, {INTERVAL}: unmarked if it is there, "
        f"≈ if absent ({WITHIN}), ? if it cannot be told; figures: report --table significance",
        *smallest_p_note(line.found.n_seeds for line in found.compared),
    ]
    return replace(
        table,
        rows=tuple(map(tuple, rows)),
        notes=(*table.notes, *notes),
        problems=(*_lacking(found), *table.problems),
    )
