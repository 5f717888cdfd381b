"""How a metric falls with noise: level by level, and as a slope."""

import math
from collections import defaultdict
from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import linear_regression
from typing import NamedTuple

from bslbench.errors import ConfigError
from bslbench.report.choose import Case
from bslbench.report.claims.common import CASE, Loaded, n_seeds, names, over_seeds, overall
from bslbench.report.levels import CLEAN, noise_text
from bslbench.report.parts import mean_entry
from bslbench.report.results import Run
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


@dataclass(frozen=True)
class Point:
    """The runs of one loss at one level of an axis."""

    case: Case
    level: float
    runs: list[Run]


def axis_of(case: Case, field: str) -> Axis:
    """Return the axis that a case lies on if it moves along `field`."""
    of_kind = OF_POSITIVES if field == "noise_pos" else ()
    kind = tuple(item for item in case.noise if item[0] in of_kind)
    rest = tuple(item for item in case.noise if item[0] != field and item[0] not in of_kind)
    return Axis(case.dataset, case.backbone, field, kind, rest)


def lines(kept: Mapping[Case, list[Run]]) -> dict[Axis, dict[str, list[Point]]]:
    """Return for each axis of noise the points of each loss, by rising level, the clean one too."""
    moving = {
        axis_of(case, field)
        for case in kept
        for field, clean in CLEAN.items()
        if dict(case.noise)[field] != clean
    }
    found: dict[Axis, dict[str, list[Point]]] = {}
    for axis in sorted(moving, key=str):
        points: defaultdict[str, list[Point]] = defaultdict(list)
        for case, runs in kept.items():
            level = float(str(dict(case.noise)[axis.field]))
            own = axis_of(case, axis.field)
            if own == axis or (level == CLEAN[axis.field] and own._replace(kind=axis.kind) == axis):
                points[case.loss].append(Point(case, level, runs))
        found[axis] = {
            loss: sorted(each, key=lambda p: p.level)
            for loss, each in points.items()
            if len(each) > 1
        }
    return {axis: losses for axis, losses in found.items() if losses}


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
        Column("seeds"),
        Column("false negatives", spec=".1%"),
        Column(metric, better="higher"),
        Column("against clean", spec="+.1%", better="higher"),
        Column("slope", spec="+.3f", better="higher"),
    ]
    rows: list[list[Like]] = []
    for axis, losses in lines(loaded.kept).items():
        levels = sorted({point.level for points in losses.values() for point in points})
        for level in levels:
            for points in losses.values():
                for point in (p for p in points if p.level == level):
                    rows.append([*_level(loaded, axis, points, point, values, shares), ""])
        for loss, points in losses.items():
            slopes = _slopes(axis, points, values, shares)
            given: list[Like] = [axis.dataset, axis.backbone, f"slope over {axis.name}", loss]
            rows.append([*given, str(len(slopes)), "", "", "", mean_entry(slopes)])
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
            "positives, over the share s of false negatives for neg, over p for fneg; nearer to 0 "
            "is more robust",
        ],
    )


def _level(
    loaded: Loaded,
    axis: Axis,
    points: Sequence[Point],
    point: Point,
    values: Mapping[str, float],
    shares: Mapping[str, float],
) -> Iterator[Like]:
    """Yield the row of one loss at one level, but for its slope."""
    clean = next((p for p in points if p.level == CLEAN[axis.field]), None)
    base = {run.seed: values[run.id] for run in clean.runs if run.id in values} if clean else {}
    change = {
        run.seed: values[run.id] / base[run.seed] - 1
        for run in point.runs
        if run.id in values and base.get(run.seed)
    }
    yield from names(point.case)
    yield n_seeds(point.runs)
    yield over_seeds(point.runs, shares)
    yield over_seeds(point.runs, values)
    yield "" if point is clean else mean_entry(change)


def _slopes(
    axis: Axis, points: Sequence[Point], values: Mapping[str, float], shares: Mapping[str, float]
) -> dict[int, float]:
    """Return by seed the slope of the logarithm of the values; a value of zero has none."""
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
        if len({x for x, _ in each}) > 1
    }
