"""Robustness: how a metric falls with the level of noise."""

from collections import defaultdict
from collections.abc import Hashable, Iterator, Mapping, Sequence
from statistics import fmean
from typing import Any, NamedTuple

from bslbench.config import REFERENCE
from bslbench.report.choose import Case, chosen, tuned_away
from bslbench.report.figures.chart import Chart, Nothing, Panel, Series
from bslbench.report.figures.words import (
    INTERVAL,
    half_interval,
    losses_in_order,
    of_the_best,
)
from bslbench.report.levels import CLEAN, noise_text
from bslbench.report.results import Results

AXES = {
    "noise_pos": "false positives per positive, r",
    "noise_neg": "weight of positives as negatives, r",
    "noise_fneg": "false negatives among negatives, p",
}


def robustness(results: Results, metric: str, *, relative: bool) -> Chart:
    """Return a metric on test over the level of each kind of noise that the grid varies.

    Raises
    ------
    Nothing
        If no loss has runs at two levels of one kind.
    """
    test = results.scores([metric])
    kept = chosen(results)
    lines: defaultdict[_Line, dict[str, dict[float, list[float]]]]
    lines = defaultdict(lambda: defaultdict(dict))
    known = {line for case in kept for line in _moving(case)}
    for case, runs in kept.items():
        values = [test[run.id, metric] for run in runs if (run.id, metric) in test]
        if case.backbone != REFERENCE and values:
            for line in filter(lambda line: line.has(case), known):
                level = float(str(dict(case.noise)[line.axis]))
                lines[line][case.loss][level] = values
    panels = []
    several = len({case.dataset for case in kept}) > 1
    places, axes = list(results.datasets), list(AXES)

    def order(line: _Line) -> tuple[Any, ...]:
        return (
            places.index(line.dataset),
            line.backbone,
            axes.index(line.axis),
            line.kind,
            line.rest,
        )

    for line in sorted(lines, key=order):
        series = [
            _series(loss, levels, CLEAN[line.axis], relative)
            for loss, levels in lines[line].items()
            if len(levels) > 1 and (not relative or CLEAN[line.axis] in levels)
        ]
        if series:
            place = f"{line.backbone} on {line.dataset}" if several else line.backbone
            title = ", ".join(filter(None, (place, noise_text(dict(line.rest + line.kind)))))
            panels.append(Panel(title, tuple(series), x_label=AXES[line.axis]))
    if not panels:
        raise Nothing("no loss has finished runs at two levels of noise or more")
    return Chart(
        "robustness-relative" if relative else "robustness",
        "",
        f"{metric}, share of clean" if relative else f"{metric} on test",
        tuple(panels),
        caption=(
            f"{metric} on clean test pairs over the noise in training, mean over seeds"
            f"{', as a share of the mean without noise' if relative else ''}, {INTERVAL}"
            f"{of_the_best(tuned_away(results, kept))}"
        ),
        order=losses_in_order(results),
    )


class _Line(NamedTuple):
    """What a line's points share: all noise but that along its axis.

    `kind` says how false positives are drawn; where there are none it has no meaning, so that a
    point at level zero belongs to the lines of all kinds.
    """

    dataset: str
    backbone: str
    axis: str
    rest: tuple[tuple[str, Hashable], ...]
    kind: tuple[tuple[str, Hashable], ...]

    def has(self, case: Case) -> bool:
        """Tell whether a case is a point of the line."""
        rest, kind = _rest(case, self.axis)
        still = dict(case.noise)[self.axis] == CLEAN[self.axis]
        same = (case.dataset, case.backbone, rest) == (self.dataset, self.backbone, self.rest)
        return same and (still or kind == self.kind)


def _moving(case: Case) -> Iterator[_Line]:
    """Yield the lines along which a case is not at the level of no noise."""
    for axis, clean in CLEAN.items():
        if dict(case.noise)[axis] != clean:
            yield _Line(case.dataset, case.backbone, axis, *_rest(case, axis))


def _rest(case: Case, axis: str) -> Sequence[tuple[tuple[str, Hashable], ...]]:
    """Return the noise of a case beside an axis, and apart the kind that goes with the axis."""
    kinds = ("noise_kind", "valid_noise") if axis == "noise_pos" else ()
    rest = tuple(item for item in case.noise if item[0] != axis and item[0] not in kinds)
    return rest, tuple(item for item in case.noise if item[0] in kinds)


def _series(loss: str, levels: Mapping[float, list[float]], clean: float, relative: bool) -> Series:
    xs = sorted(levels)
    base = fmean(levels[clean]) if relative else 1.0
    values = [[value / base for value in levels[x]] for x in xs]
    return Series(
        loss,
        xs,
        [fmean(v) for v in values],
        error=[half_interval(v) for v in values],
    )
