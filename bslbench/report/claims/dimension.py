"""From which size of the embeddings on a loss is ahead of another, or of iALS."""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations, pairwise, product
from pathlib import Path

from bslbench.config import REFERENCE
from bslbench.errors import ConfigError
from bslbench.report.claims.common import CASE, Loaded, Place, n_seeds, over_seeds, overall
from bslbench.report.results import Run
from bslbench.report.table import Column, Like, Table

Curve = Mapping[int, float]
"""Means over seeds by dim."""


def dimension_table(folder: Path, grid: str, metrics: Sequence[str] | None = None) -> Table:
    """Return a metric of each loss and reference by dim, and beneath where two of them cross.

    Parameters
    ----------
    folder, grid, metrics
        As in `bslbench.report.tables.main_table`; of the metrics the first, higher being better.

    Raises
    ------
    ConfigError
        If nothing has finished runs at two dims.
    """
    loaded = Loaded(folder, grid)
    metric = loaded.metric(metrics)
    values = overall(loaded.values(metric))
    places: defaultdict[Place, defaultdict[str, dict[int, list[Run]]]]
    places = defaultdict(lambda: defaultdict(dict))
    for (place, loss, dim), runs in loaded.best_by(_where).items():
        places[place][loss][dim] = runs
    if all(len(dims) < 2 for losses in places.values() for dims in losses.values()):
        raise ConfigError(f"grid '{grid}' has nothing with finished runs at two values of dim")
    curves = {
        place: {loss: _curve(dims, values) for loss, dims in losses.items()}
        for place, losses in places.items()
    }
    datasets = loaded.results.datasets
    rows: list[list[Like]] = []
    for place in sorted(
        places, key=lambda p: (datasets.index(p.dataset), p.backbone != REFERENCE, p.backbone)
    ):
        for dim in sorted({dim for dims in places[place].values() for dim in dims}):
            for loss, dims in places[place].items():
                if dim in dims:
                    measured = n_seeds(dims[dim]), over_seeds(dims[dim], values)
                    rows.append([*place, loss, str(dim), *measured, "", ""])
        own = curves[place].items()
        references = curves.get(place._replace(backbone=REFERENCE), {}).items()
        beside = product(own, references) if place.backbone != REFERENCE else ()
        for (first, a), (second, b) in (*combinations(own, 2), *beside):
            for dims_between, at, ahead in _crossings(first, a, second, b):
                rows.append([*place, f"{first}, {second}", dims_between, "", "", at, ahead])
    return loaded.table(
        "dimension",
        [
            *CASE,
            Column("dim"),
            Column("seeds"),
            Column(metric, better="higher"),
            Column("cross at", spec=".0f"),
            Column("ahead"),
        ],
        rows,
        title=f"{metric} by size of the embeddings",
        notes=[
            "of each loss and dim the settings best on the selection split, of those with as many "
            "seeds as any; best and second among rows of the same dim",
            "cross at: where the means, linear in log dim between those measured, are equal; who "
            "is ahead is by the means alone",
            *_tuned_elsewhere(loaded),
        ],
        within=("dataset", "noise", "dim"),
        all_settings=True,
        of=_where,
    )


def _tuned_elsewhere(loaded: Loaded) -> Iterator[str]:
    """Say where the settings were tuned, if a study found them: at one dim, not at each."""
    sources = loaded.texts("settings_from").values()
    if found := dict.fromkeys(text for text in sources if "tuned (" in text):
        yield f"not tuned at each dim: {', '.join(found)}"


def _where(run: Run) -> tuple[Place, str, int] | None:
    """Return place, loss and dim of a run that has one."""
    dim = run.fields.get("dim")
    return (Place.of(run), run.key.loss, dim) if isinstance(dim, int) else None


def _curve(dims: Mapping[int, Sequence[Run]], values: Mapping[str, float]) -> Curve:
    means = {dim: over_seeds(runs, values).value for dim, runs in dims.items()}
    return {dim: mean for dim, mean in sorted(means.items()) if mean is not None}


def _crossings(
    first: str, a: Curve, second: str, b: Curve
) -> Iterator[tuple[str, float | str, str]]:
    """Yield between which dims it changes who is ahead, where and how; or that it does not."""

    def ahead(gap: float) -> str:
        return first if gap > 0 else second if gap < 0 else "neither"

    gaps = [(dim, a[dim] - b[dim]) for dim in a if dim in b]
    changes = [pair for pair in pairwise(gaps) if ahead(pair[0][1]) != ahead(pair[1][1])]
    for (low, before), (high, after) in changes:
        at = low * (high / low) ** (before / (before - after))
        yield f"{low} to {high}", at, f"{ahead(before)}, then {ahead(after)}"
    if len(gaps) > 1 and not changes:
        yield f"{gaps[0][0]} to {gaps[-1][0]}", "nowhere", ahead(gaps[0][1])
