"""A metric over a setting that a grid sweeps, such as the temperature, with the best point."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any, TypeGuard

from bslbench.config import REFERENCE
from bslbench.report.best import Case, Rows, best_key, case_of, rows_by, selecting
from bslbench.report.figures.chart import Chart, Nothing, Panel, Series
from bslbench.report.figures.words import INTERVAL, half_interval, losses_in_order
from bslbench.report.levels import CLEAN_NAME, noise_text
from bslbench.report.results import Results, Run

LEAST = 3
"""Values of a setting that make a curve."""


def swept(results: Results) -> list[str]:
    """Return the settings that some loss has at least three numbers of, at one level of noise."""
    values: defaultdict[tuple[Case, str], set[float]] = defaultdict(set)
    for run in results.runs:
        for field, value in run.fields.items():
            if _number(value) and field != "seed":
                values[case_of(run), field].add(value)
    found = dict.fromkeys(
        field
        for (_, field), different in values.items()
        if len(different) >= LEAST and not field.startswith("noise_")
    )
    return list(found)


def sweep(results: Results, metric: str, field: str) -> Chart:
    """Return a metric on test over the values of a setting, the best by the selection split marked.

    Where other settings vary too, each point is of the best of them, by the selection split again.
    References that have the setting stand beside the losses of every backbone.

    Raises
    ------
    Nothing
        If no loss has at least three values of it.
    """
    test = results.scores([metric])
    splits = {run.selection for run in results.runs}
    picks = selecting(results)

    def place(run: Run) -> tuple[Case, float] | None:
        value = run.fields.get(field)
        return (case_of(run), value) if _number(value) else None

    points: defaultdict[Case, dict[float, Rows]] = defaultdict(dict)
    for (case, value), rows in rows_by(results, place).items():
        points[case][value] = rows

    def pick(runs: Sequence[Run]) -> float:
        return fmean(picks[run.id] for run in runs)

    noisy = len({case.noise for case in points}) > 1
    several = len({case.dataset for case in points}) > 1
    places: defaultdict[tuple[str, str], list[Series]] = defaultdict(list)
    others = False
    for case, by_value in points.items():
        if len(by_value) < LEAST:
            continue
        xs = sorted(by_value)
        best = [by_value[x][key] for x in xs if (key := best_key(by_value[x], pick))]
        others |= any(len(keys) > 1 for keys in by_value.values())
        values = [[test[run.id, metric] for run in runs] for runs in best]
        top = max(range(len(xs)), key=lambda n: pick(best[n]))
        noise = noise_text(dict(case.noise)) or CLEAN_NAME
        places[case.dataset, case.backbone].append(
            Series(
                f"{case.loss}, {noise}" if noisy else case.loss,
                xs,
                [fmean(v) for v in values],
                error=[half_interval(v) for v in values],
                best=top,
                note=f"{xs[top]:g}",
            )
        )
    if not places:
        raise Nothing(f"no loss has finished runs at {LEAST} values of {field} or more")
    every = [x for series in places.values() for one in series for x in one.x]
    split = " and ".join(sorted(splits))
    return Chart(
        field,
        field,
        f"{metric} on test",
        tuple(
            Panel(f"{backbone} on {dataset}" if several else backbone, tuple(series))
            for (dataset, backbone), series in _beside_references(places).items()
        ),
        x_scale="log" if min(every) > 0 and max(every) >= 4 * min(every) else "linear",
        caption=(
            f"{metric} on test over {field}: mean over seeds, {INTERVAL}; ringed: best on {split}"
            f"{', which also picked the other settings at each point' if others else ''}."
        ),
        order=() if noisy else losses_in_order(results),
    )


def _beside_references(
    places: Mapping[tuple[str, str], list[Series]],
) -> dict[tuple[str, str], list[Series]]:
    """Return the series by dataset and backbone, those of references with each backbone's."""
    trained = {dataset for dataset, backbone in places if backbone != REFERENCE}
    return {
        (dataset, backbone): [*series, *places.get((dataset, REFERENCE), ())]
        if backbone != REFERENCE
        else series
        for (dataset, backbone), series in places.items()
        if backbone != REFERENCE or dataset not in trained
    }


def _number(value: Any) -> TypeGuard[float]:
    return isinstance(value, int | float) and not isinstance(value, bool)
