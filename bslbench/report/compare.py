"""A table with one more column per value: how much better than a chosen baseline."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from bslbench.config import UNTRAINED
from bslbench.errors import ConfigError, suggest
from bslbench.report.results import Key
from bslbench.report.table import GAP, Column, Entry, Table

BEST = "best"
"""Stands for the best row of each column where a baseline is asked for."""


def with_baseline(table: Table, baseline: str) -> Table:
    """Return the table with the relative improvement over a baseline beside each contested value.

    Parameters
    ----------
    table
        Any table with a column ``loss``.
    baseline
        A loss, or a loss with its settings where it has several rows, as in `baselines`; or
        ``best``, the best row of each column with the same noise. Rows are compared within the
        table's ``within``; with a named baseline, references across backbones too (`baselines`).

    Raises
    ------
    ConfigError
        If no row is the baseline, or several rows are that one could be compared with.
    """
    heads = [column.name for column in table.columns]
    if "loss" not in heads or not any(column.better for column in table.columns):
        raise ConfigError(f"table '{table.name}' has no losses to compare with a baseline")
    keys = row_keys(table)
    named = None if baseline == BEST else _named(table, keys, baseline)
    columns: list[Column] = []
    made: list[list[Entry]] = [[] for _ in table.rows]
    for index, column in enumerate(table.columns):
        columns.append(column)
        for n, row in enumerate(table.rows):
            made[n].append(row[index])
        if column.better:
            columns.append(Column(f"vs {baseline}", column.group, "+.2%", align="right"))
            bases = _best(table, keys, index) if named is None else named
            for n in range(len(made)):
                made[n].append(_improvement(table, n, bases[n], index))
    apart = dict.fromkeys((*table.within, "noise"))
    alike = [name for name in apart if len(set(_texts(table, name))) > 1]
    which = f"the best of the column{' with the same ' * bool(alike)}{', '.join(alike)}"
    if baseline != BEST:
        alike = [name for name in alike if name != "backbone"]
        which = f"{baseline} with the same {', '.join([*alike, 'backbone'])}"
        which += " (references: with the only one)"
    note = f"vs {baseline}: relative difference from the mean of {which}, positive is better"
    return replace(
        table,
        columns=tuple(columns),
        rows=tuple(map(tuple, made)),
        notes=(*table.notes, note),
    )


def row_keys(table: Table) -> list[Key]:
    """Return what sets each row apart, empty where there is no such column."""
    columns = [_texts(table, name) for name in Key._fields]
    return [Key(*row) for row in zip(*columns, strict=True)]


def names(key: Key) -> tuple[str, str]:
    """Return what a row can be named by as a baseline: its loss, and that with its settings."""
    return key.loss, key._replace(noise="").label


def baselines(keys: Sequence[Key], baseline: str) -> list[int | None]:
    """Return for each row the number of the row that it is compared with.

    Rows are compared within backbone and noise. If just one backbone has the baseline, references
    and rows from outside are compared with it too; if one of these is the baseline, every backbone
    is.

    Parameters
    ----------
    baseline
        A loss, or a loss with its settings.

    Raises
    ------
    ConfigError
        If no row is the baseline, or several rows of one backbone and noise are.
    """
    found: dict[tuple[str, str], list[int]] = {}
    for n, key in enumerate(keys):
        if baseline in names(key):
            found.setdefault((key.backbone, key.noise), []).append(n)
    if not found:
        known = [BEST, *(names(key)[1] for key in keys)]
        raise ConfigError(f"no baseline '{baseline}' in the table{suggest(baseline, known)}")
    for (backbone, _), rows in found.items():
        if len(rows) > 1:
            each = ", ".join(f"'{names(keys[n])[1]}'" for n in rows)
            raise ConfigError(
                f"baseline '{baseline}' has {len(rows)} rows of {backbone or 'the table'}; "
                f"say which: {each}"
            )
    return [_for(key, found) for key in keys]


def _for(key: Key, found: Mapping[tuple[str, str], Sequence[int]]) -> int | None:
    alike = {backbone: row for (backbone, noise), [row] in found.items() if noise == key.noise}
    if key.backbone in alike:
        return alike[key.backbone]
    if len(alike) == 1 and (key.backbone in UNTRAINED or alike.keys() & UNTRAINED):
        return next(iter(alike.values()))
    return None


def _named(table: Table, keys: Sequence[Key], baseline: str) -> list[int | None]:
    """Return for each row the baseline among those that it competes with, if it is one of them.

    Which backbones are compared with each other is for `baselines` to say.
    """
    within = tuple(name for name in table.within if name != "backbone")
    contests = replace(table, within=within).contests()
    contests = [members for members in contests if _has(keys, members, baseline)]
    found: list[int | None] = [None] * len(keys)
    for members in contests or [list(range(len(keys)))]:  # none has it: an error says so
        for n, base in zip(members, baselines([keys[n] for n in members], baseline), strict=True):
            found[n] = None if base is None else members[base]
    return found


def _has(keys: Sequence[Key], members: Sequence[int], baseline: str) -> bool:
    return any(baseline in names(keys[n]) for n in members)


def _best(table: Table, keys: Sequence[Key], index: int) -> list[int | None]:
    """Return for each row the best that it competes with at the same noise, the first of equals."""
    sign = -1 if table.columns[index].better == "higher" else 1
    found: list[int | None] = [None] * len(keys)
    for members in table.contests():
        best: dict[str, tuple[float, int]] = {}
        for n in members:
            value = table.rows[n][index].value
            if value is not None:
                own = (sign * value, n)
                best[keys[n].noise] = min(own, best.get(keys[n].noise, own))
        for n in members:
            found[n] = best[keys[n].noise][1] if keys[n].noise in best else None
    return found


def _texts(table: Table, name: str) -> list[str]:
    """Return what a column says in each row, nothing if there is no such column."""
    indices = [i for i, c in enumerate(table.columns) if c.name == name and not c.group]
    return ["".join(row[i].text for i in indices) for row in table.rows]


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
