"""What BSL owes to what: contrasts with SL that were fixed beforehand, and everything else."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from bslbench.config import REFERENCE
from bslbench.errors import ConfigError
from bslbench.evaluation.statistics import holm
from bslbench.report.best import Rows
from bslbench.report.claims.common import (
    NO_SETTINGS,
    Loaded,
    Place,
    over_seeds,
    overall,
    relative_entry,
)
from bslbench.report.parts import in_order, needed, smallest_p_note
from bslbench.report.results import Key
from bslbench.report.significance import Comparison
from bslbench.report.table import Column, Like, Table

BASELINE = "sl"
CONTRASTS: dict[str, dict[str, Any]] = {
    "rho alone": {"loss": "bsl_reweight"},
    "pooling alone": {"loss": "bsl", "rho": 1.0},
    "both": {"loss": "bsl_inbatch"},
}
"""The fields of each contrast; of the settings that have them the best on valid stands for it."""


def ablation_table(folder: Path, grid: str, metrics: Sequence[str] | None = None) -> Table:
    """Return the differences from `sl` of the contrasts and, marked so, of all other settings.

    Parameters
    ----------
    folder, grid, metrics
        As in `bslbench.report.tables.main_table`; of the metrics the first.

    Raises
    ------
    ConfigError
        If the grid has no finished `sl`.
    """
    loaded = Loaded(folder, grid)
    metric = loaded.metric(metrics)
    values = overall(loaded.values(metric))
    rows: list[list[Like]] = []
    n_seeds: set[int] = set()
    beside: list[str] = []
    for place, found, base, named in _places(loaded):
        told = {
            key: loaded.compared(runs, found[base], metric, directed=True)
            for key, runs in found.items()
            if key != base
        }
        adjusted = _adjusted({key: each for key, each in told.items() if key in named})
        n_seeds |= {each.n_seeds for each in told.values() if isinstance(each, Comparison)}
        beside += (
            f"{name} on {place.backbone}, {place.dataset}: {', '.join(others)} differ too"
            for key, name in named.items()
            if (others := _differing(found[key][0].fields, found[base][0].fields))
        )
        order = sorted(in_order(found), key=lambda key: (key != base, key not in named))
        for key in order:
            kind = "baseline" if key == base else named.get(key, "exploratory")
            row: list[Like] = [*place, kind, key.loss, key.settings, str(len(found[key]))]
            row.append(over_seeds(found[key], values))
            if key == base:
                rows.append([*row, "", "", "", "", ""])
            else:
                rows.append([*row, *_difference(told[key], adjusted.get(key, ""))])
    if not rows:
        raise ConfigError(f"grid '{grid}' has no finished run of {BASELINE} to compare with")
    return loaded.table(
        "ablation",
        [
            *(Column(name) for name in ("dataset", "backbone", "noise", "contrast", "loss")),
            Column("settings"),
            Column("seeds"),
            Column(metric),
            Column(f"vs {BASELINE}", spec="+.2%"),
            Column("p", spec=".2g"),
            Column("p (Holm)", spec=".2g"),
            Column("difference is"),
            Column("seeds to tell", spec="d"),
        ],
        rows,
        title=f"what sets BSL apart from {BASELINE}",
        notes=[
            f"vs {BASELINE}: relative difference from the same seeds of {BASELINE} at its best "
            "settings, 95 % interval over seeds and users; p: paired t-test over seeds",
            "contrasts were fixed beforehand, each at its best settings on the selection split, of "
            "those with as many seeds as any; Holm: p adjusted for those of the same dataset, "
            "backbone and noise; exploratory rows were not fixed, and their p is not adjusted for "
            "their number",
            *dict.fromkeys(beside),
            *smallest_p_note(n_seeds),
        ],
        all_settings=True,
    )


def contrasts(loaded: Loaded, metric: str) -> Iterator[tuple[Place, dict[str, Comparison]]]:
    """Yield by place what each contrast has over `sl`, those that can be compared.

    Raises
    ------
    DataError
        As `Loaded.compared` does.
    """
    for place, found, base, named in _places(loaded):
        told = {
            name: loaded.compared(found[key], found[base], metric, directed=True)
            for key, name in named.items()
        }
        known = {name: each for name, each in told.items() if isinstance(each, Comparison)}
        if known:
            yield place, known


def _places(loaded: Loaded) -> Iterator[tuple[Place, Rows, Key, dict[Key, str]]]:
    """Yield each place with a baseline: its rows, the baseline's, and the contrasts' by name."""
    rows = loaded.rows(lambda run: Place.of(run) if run.key.backbone != REFERENCE else None)
    for place, found in rows.items():
        if base := _best(loaded, found, {"loss": BASELINE}):
            best = {name: _best(loaded, found, fields) for name, fields in CONTRASTS.items()}
            yield place, found, base, {key: name for name, key in best.items() if key}


def _best(loaded: Loaded, found: Rows, fields: Mapping[str, Any]) -> Key | None:
    """Return the best on the selection split of the rows that have these fields."""
    return loaded.best(
        {
            key: runs
            for key, runs in found.items()
            if all(runs[0].fields.get(name) == value for name, value in fields.items())
        }
    )


def _differing(fields: Mapping[str, Any], base: Mapping[str, Any]) -> list[str]:
    """Return which settings that both have differ."""
    both = (fields.keys() & base.keys()) - NO_SETTINGS
    return sorted(name for name in both if fields[name] != base[name])


def _adjusted(told: Mapping[Key, Comparison | str]) -> dict[Key, float]:
    """Return p adjusted by Holm for the number of those that could be compared."""
    p = {key: found.p for key, found in told.items() if isinstance(found, Comparison)}
    return dict(zip(p, holm(list(p.values())), strict=True))


def _difference(found: Comparison | str, adjusted: Like) -> Iterator[Like]:
    """Yield what sets a row apart from the baseline, or why that cannot be said."""
    if isinstance(found, str):
        yield from (None, None, "", found, "")
        return
    yield relative_entry(found)
    yield from (found.p, adjusted, found.word)
    yield "" if found.word != "cannot be told" else needed(found.seeds_needed)
