"""Robustness: how a metric falls with the level of noise."""

from collections.abc import Mapping
from statistics import fmean

from bslbench.config import UNTRAINED
from bslbench.report.best import as_without_noise, chosen, tuned_away
from bslbench.report.claims.robustness import BOTH, BY_LEVEL, FIXED, Line, lines
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
    kept = {case: runs for case, runs in chosen(results).items() if case.backbone not in UNTRAINED}
    several = len({case.dataset for case in kept}) > 1
    panels = []
    for axis, own in lines(results, kept).items():
        apart = {BY_LEVEL, FIXED} <= {line.settings for line in own}
        for settings in (BY_LEVEL, FIXED) if apart else ("",):
            by_loss = {
                line.loss: line for line in own if not apart or line.settings in (settings, BOTH)
            }
            clean = CLEAN[axis.field] if relative else None
            made = (_series(line, test, metric, clean) for line in by_loss.values())
            series = tuple(one for one in made if one)
            place = f"{axis.backbone} on {axis.dataset}" if several else axis.backbone
            noise = noise_text(dict(axis.rest + axis.kind))
            title = ", ".join(filter(None, (place, noise, settings)))
            if series:
                panels.append(Panel(title, series, x_label=AXES[axis.field]))
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
            f"{of_the_best(tuned_away(results, kept, as_without_noise(results, kept)))}"
        ),
        order=losses_in_order(results),
    )


def _series(
    line: Line, test: Mapping[tuple[str, str], float], metric: str, clean: float | None
) -> Series | None:
    """Return a line, as shares of its mean at the level `clean` if one is given.

    None if it lacks that level, or a second one.
    """
    levels = {
        point.level: values
        for point in line.points
        if (values := [test[run.id, metric] for run in point.runs if (run.id, metric) in test])
    }
    if len(levels) < 2 or (clean is not None and clean not in levels):
        return None
    base = 1.0 if clean is None else fmean(levels[clean])
    shares = [[value / base for value in values] for values in levels.values()]
    return Series(
        line.loss,
        list(levels),
        [fmean(each) for each in shares],
        error=[half_interval(each) for each in shares],
    )
