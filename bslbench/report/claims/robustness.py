"""How a metric falls with noise: level by level, and as a slope."""

import math
from collections import defaultdict
from collections.abc import Hashable, Iterator, Mapping, Sequence
from pathlib import Path
from statistics import linear_regression
from typing import NamedTuple

from bslbench.config import REFERENCE
from bslbench.errors import ConfigError
from bslbench.report.best import Case, as_without_noise, case_of
from bslbench.report.claims.common import CASE, Loaded, n_seeds, names, over_seeds, overall
from bslbench.report.levels import CLEAN, noise_of, noise_text, tuned_at
from bslbench.report.parts import mean_entry
from bslbench.report.results import Results, Run
from bslbench.report.table import Column, Like, Table

AXES = {"noise_pos": "r", "noise_neg": "s", "noise_fneg": "p"}
"""The kinds of noise, and what their slopes are over."""
OF_POSITIVES = ("noise_kind", "valid_noise")
"""What says how positives are false, and means nothing where none are."""

Fields = tuple[tuple[str, Hashable], ...]


class Axis(NamedTuple):
    """A kind of noise that varies, with what stays as it is.

    Attributes
    ----------
    field
        One of `AXES`.
    kind
        How positives are false, for the axis of these.
    rest
        The other noise, which all points share.
    """

    dataset: str
    backbone: str
    field: str
    kind: Fields
    rest: Fields

    @property
    def name(self) -> str:
        """The axis in words."""
        others = noise_text(dict(self.rest + self.kind))
        return self.field.removeprefix("noise_") + (f", {others}" if others else "")


class Point(NamedTuple):
    """The runs of one loss at one level of an axis."""

    case: Case
    level: float
    runs: list[Run]


BY_LEVEL, FIXED, BOTH = "by level", "fixed", "both"
"""Settings: the best on the selection split at each level, those that are best without noise, or
where these are the same."""


class Line(NamedTuple):
    """A loss along an axis, by rising level."""

    loss: str
    settings: str
    points: list[Point]


def axis_of(case: Case, field: str) -> Axis:
    """Return the axis that a case lies on if it moves along `field`."""
    of_kind = OF_POSITIVES if field == "noise_pos" else ()
    kind = tuple(item for item in case.noise if item[0] in of_kind)
    rest = tuple(item for item in case.noise if item[0] != field and item[0] not in of_kind)
    return Axis(case.dataset, case.backbone, field, kind, rest)


def axes(kept: Mapping[Case, list[Run]]) -> list[Axis]:
    """Return along which kinds of noise anything varies, by dataset, backbone and kind."""
    moving = {
        axis_of(case, field)
        for case in kept
        for field, clean in CLEAN.items()
        if dict(case.noise)[field] != clean
    }
    places, fields = [case.dataset for case in kept], list(AXES)
    return sorted(
        moving,
        key=lambda axis: (
            places.index(axis.dataset),
            axis.backbone,
            fields.index(axis.field),
            axis.kind,
            axis.rest,
        ),
    )


def along(axis: Axis, kept: Mapping[Case, list[Run]]) -> dict[str, list[Point]]:
    """Return the points of each loss on an axis, by rising level, the clean one too."""
    points: defaultdict[str, list[Point]] = defaultdict(list)
    for case, runs in kept.items():
        level = float(str(dict(case.noise)[axis.field]))
        own = axis_of(case, axis.field)
        if own == axis or (level == CLEAN[axis.field] and own._replace(kind=axis.kind) == axis):
            points[case.loss].append(Point(case, level, runs))
    return {
        loss: sorted(each, key=lambda point: point.level)
        for loss, each in points.items()
        if len(each) > 1
    }


def lines(results: Results, kept: Mapping[Case, list[Run]]) -> dict[Axis, list[Line]]:
    """Return for each axis the losses with two levels on it.

    A loss whose best settings change with the level has a second line, of those that are best
    without noise, if these were run.
    """
    still = as_without_noise(results, kept)
    found: dict[Axis, list[Line]] = {}
    for axis in axes(kept):
        best, same = along(axis, kept), along(axis, still)
        own = [Line(loss, BY_LEVEL, best[loss]) for loss in best if best[loss] != same.get(loss)]
        own += [
            Line(loss, BOTH if same[loss] == best[loss] else FIXED, same[loss])
            for loss in best
            if loss in same
        ]
        if own:
            found[axis] = sorted(own, key=lambda line: list(best).index(line.loss))
    return found


def robustness_table(folder: Path, grid: str, metrics: Sequence[str] | None = None) -> Table:
    """Return a metric at each level of noise, what it lost, and its slope.

    Parameters
    ----------
    folder, grid, metrics
        As in `bslbench.report.tables.main_table`; of the metrics the first.

    Raises
    ------
    ConfigError
        If no loss has runs at two levels of one kind of noise.
    """
    loaded = Loaded(folder, grid)
    metric = loaded.metric(metrics)
    values = overall(loaded.values(metric))
    shares = loaded.recorded("false_negative_share")
    columns = [
        *CASE,
        Column("settings"),
        Column("seeds"),
        Column("false negatives", spec=".1%"),
        Column(metric, better="higher"),
        Column("against clean", spec="+.1%", better="higher"),
        Column("slope", spec="+.3f", better="higher"),
    ]
    rows: list[list[Like]] = []
    zero = False
    for axis, own in lines(loaded.results, loaded.kept).items():
        zero |= axis.field == "noise_neg" and any(not p.level for line in own for p in line.points)
        for level in sorted({point.level for line in own for point in line.points}):
            shown: list[Point] = []
            points = [point for line in own for point in line.points]
            for line in own:
                for point in (p for p in line.points if p.level == level and p not in shown):
                    settings = BOTH if points.count(point) > 1 else line.settings
                    rows.append([*_level(axis, line, point, settings, values, shares), ""])
                    shown.append(point)
        several = len({_levels(line) for line in own}) > 1
        for line in own:
            slopes = _slopes(axis, line.points, values, shares)
            # Slopes over other levels are no match: what stands here keeps them apart.
            over = f"slope over {axis.name}" + (f" at {_levels(line)}" if several else "")
            given: list[Like] = [axis.dataset, axis.backbone, over, line.loss]
            rows.append([*given, line.settings, str(len(slopes)), "", "", "", mean_entry(slopes)])
    if not rows:
        raise ConfigError(f"grid '{grid}' has no loss with finished runs at two levels of noise")
    return loaded.table(
        "robustness",
        columns,
        rows,
        title=f"{metric} under noise in training",
        notes=[
            "against clean: relative change from the same seed without this noise",
            f"slope: of log {metric} over the level by least squares, per seed: over r for "
            "positives, over the share s of false negatives for neg, over p for fneg; the less "
            "negative, the more robust; of seeds with all levels; best and second of those over "
            "the same ones",
            f"settings: {BY_LEVEL}, the best on the selection split at each level; {FIXED}, those "
            f"that are best without noise, at the levels where they were run; {BOTH}, where these "
            "are the same",
            *(["neg=0 is a level of the slope here, though of none in a verdict"] if zero else []),
            *_not_tuned(loaded),
        ],
        beside=as_without_noise(loaded.results, loaded.kept),
    )


def _level(
    axis: Axis,
    line: Line,
    point: Point,
    settings: str,
    values: Mapping[str, float],
    shares: Mapping[str, float],
) -> Iterator[Like]:
    """Yield the row of one loss at one level, but for its slope."""
    clean = next((p for p in line.points if p.level == CLEAN[axis.field]), None)
    base = {run.seed: values[run.id] for run in clean.runs if run.id in values} if clean else {}
    change = {
        run.seed: values[run.id] / base[run.seed] - 1
        for run in point.runs
        if run.id in values and base.get(run.seed)
    }
    yield from names(point.case)
    yield settings
    yield n_seeds(point.runs)
    yield over_seeds(point.runs, shares)
    yield over_seeds(point.runs, values)
    yield "" if point is clean else mean_entry(change)


def _not_tuned(loaded: Loaded) -> Iterator[str]:
    """Name the levels of noise at which no settings of a loss were tuned."""
    sources = loaded.texts("settings_from")
    tuned = {
        case_of(run)
        for run in loaded.results.runs
        if tuned_at(sources.get(run.id, ""), noise_of(run.fields))
    }
    lacking: defaultdict[str, list[Case]] = defaultdict(list)
    for case, _ in loaded.cases():
        noise = noise_text(dict(case.noise))
        if sources and noise and case.backbone != REFERENCE and case not in tuned:
            lacking[noise].append(case)
    alike: defaultdict[str, list[str]] = defaultdict(list)
    for noise, cases in lacking.items():
        alike[_named(cases)].append(noise)
    for losses, noises in alike.items():
        yield f"settings of {losses} were not tuned at {'; '.join(noises)}"


def _named(cases: Sequence[Case]) -> str:
    """Return the losses of cases with where they are, place by place."""
    places: defaultdict[str, list[str]] = defaultdict(list)
    for case in cases:
        places[f"on {case.backbone}, {case.dataset}"].append(case.loss)
    return "; ".join(f"{', '.join(losses)} {place}" for place, losses in places.items())


def _levels(line: Line) -> str:
    return ", ".join(f"{point.level:g}" for point in line.points)


def _slopes(
    axis: Axis, points: Sequence[Point], values: Mapping[str, float], shares: Mapping[str, float]
) -> dict[int, float]:
    """Return the slope of the logarithm of the values by seed, of those with all levels.

    A value of zero has no logarithm.
    """
    found: defaultdict[int, list[tuple[float, float]]] = defaultdict(list)
    for point in points:
        for run in point.runs:
            x = shares.get(run.id) if axis.field == "noise_neg" else point.level
            value = values.get(run.id)
            if x is not None and value:
                found[run.seed].append((x, math.log(value)))
    return {
        seed: linear_regression([x for x, _ in each], [y for _, y in each]).slope
        for seed, each in found.items()
        if len(each) == len(points) and len({x for x, _ in each}) > 1
    }
