"""A table with one more column per value: how much better than a chosen baseline."""

from collections.abc import Iterator, Mapping
from dataclasses import replace

from bslbench.config import REFERENCE
from bslbench.errors import ConfigError, suggest
from bslbench.report.table import GAP, Column, Entry, Table


def with_baseline(table: Table, baseline: str) -> Table:
    """Return the table with the relative improvement over a baseline beside each contested value.

    Parameters
    ----------
    table
        Any table with a column ``loss``; rows are compared within their ``backbone`` if it has one.
    baseline
        A loss, or a loss with its settings where it has several rows. If one row is the baseline,
        the references are compared with it too, and if that is a reference, every backbone is.

    Raises
    ------
    ConfigError
        If no row is the baseline, or several rows of one backbone are.
    """
    names = [column.name for column in table.columns]
    if "loss" not in names or not any(column.better for column in table.columns):
        raise ConfigError(f"table '{table.name}' has no losses to compare with a baseline")
    rows = _baselines(table, baseline)
    bases = [rows.get(backbone) for backbone in _texts(table, "backbone")]
    columns: list[Column] = []
    made: list[list[Entry]] = [[] for _ in table.rows]
    for index, column in enumerate(table.columns):
        columns.append(column)
        if column.better:
            columns.append(Column(f"vs {baseline}", column.group, "+.2%", align="right"))
        for n, row in enumerate(table.rows):
            made[n].append(row[index])
            if column.better:
                made[n].append(_improvement(table, n, bases[n], index))
    note = (
        f"vs {baseline}: relative difference from the mean of {baseline} on the same backbone "
        "(references: on the only one), positive is better"
    )
    return replace(
        table,
        columns=tuple(columns),
        rows=tuple(map(tuple, made)),
        notes=(*table.notes, note),
    )


def _baselines(table: Table, baseline: str) -> Mapping[str, int]:
    """Return the number of the baseline's row per backbone."""
    labels = list(_labels(table))
    losses = _texts(table, "loss")
    found: dict[str, list[int]] = {}
    for n, backbone in enumerate(_texts(table, "backbone")):
        if baseline in (losses[n], labels[n]):
            found.setdefault(backbone, []).append(n)
    if not found:
        raise ConfigError(f"no baseline '{baseline}' in the table{suggest(baseline, labels)}")
    for backbone, rows in found.items():
        if len(rows) > 1:
            each = ", ".join(f"'{labels[n]}'" for n in rows)
            raise ConfigError(
                f"baseline '{baseline}' has {len(rows)} rows of {backbone or 'the table'}; "
                f"say which: {each}"
            )
    only = {backbone: row for backbone, [row] in found.items()}
    if len(only) == 1:
        [row] = only.values()
        backbones = _texts(table, "backbone")
        wide = backbones if REFERENCE in only else [REFERENCE]
        only = dict.fromkeys(wide, row) | only
    return only


def _texts(table: Table, name: str) -> list[str]:
    """Return what a column says in each row, nothing if there is no such column."""
    indices = [i for i, c in enumerate(table.columns) if c.name == name and not c.group]
    return ["".join(row[i].text for i in indices) for row in table.rows]


def _labels(table: Table) -> Iterator[str]:
    for loss, settings in zip(_texts(table, "loss"), _texts(table, "settings"), strict=True):
        yield f"{loss} {settings}".strip()


def _improvement(table: Table, row: int, base: int | None, index: int) -> Entry:
    """Return a value's improvement as a share of the baseline's; a gap where either is lacking."""
    own = table.rows[row][index]
    if row == base:
        return Entry(text="baseline")
    if own.value is None and not own.text:
        return Entry()  # never asked for
    against = None if base is None else table.rows[base][index].value
    if own.value is None or not against:
        return Entry(text=GAP)
    sign = 1 if table.columns[index].better == "higher" else -1
    return Entry(sign * (own.value - against) / abs(against))
