"""Group bars: what each group of items brings to Recall@20, from the least to the most popular."""

import re
from collections import defaultdict
from statistics import fmean

from bslbench.report.best import chosen, tuned_away
from bslbench.report.figures.chart import Chart, Nothing, Panel, Series
from bslbench.report.figures.words import (
    INTERVAL,
    half_interval,
    losses_in_order,
    of_the_best,
    titles,
)
from bslbench.report.results import Results


def groups(results: Results, metric: str) -> Chart:
    """Return a metric on test by group of items, a bar per loss.

    Raises
    ------
    Nothing
        If no run has the metric by group.
    """
    frame = results.metrics
    rows = frame[(frame["split"] == "test") & (frame["group"] != "") & (frame["name"] == metric)]
    if rows.empty:
        raise Nothing(f"no run has {metric} by group of items")
    values: defaultdict[str, dict[str, float]] = defaultdict(dict)
    for run_id, group, value in zip(rows["run_id"], rows["group"], rows["value"], strict=True):
        values[run_id][group] = float(value)
    names = sorted(set(rows["group"]), key=_natural)
    kept = chosen(results)
    heads = titles(kept)
    panels: defaultdict[str, list[Series]] = defaultdict(list)
    for case, runs in kept.items():
        own = [values[run.id] for run in runs if run.id in values]
        if own:
            bars = [[one[name] for one in own if name in one] for name in names]
            panels[heads[case]].append(
                Series(
                    case.loss,
                    range(len(names)),
                    [fmean(bar) if bar else 0.0 for bar in bars],
                    error=[half_interval(bar) for bar in bars],
                )
            )
    return Chart(
        "groups",
        "group of items, from the least to the most popular",
        f"{metric} on test",
        tuple(Panel(title, tuple(series)) for title, series in panels.items()),
        kind="bars",
        x_scale="names",
        x_names=names,
        caption=(
            f"{metric} on test by group of items, each group with the same share of all train "
            f"pairs; mean over seeds, {INTERVAL}{of_the_best(tuned_away(results, kept))}"
        ),
        order=losses_in_order(results),
    )


def _natural(name: str) -> tuple[tuple[int, str], ...]:
    """Return what sorts ``2`` before ``10``."""
    return tuple((int(part or 0), text) for text, part in re.findall(r"(\D*)(\d*)", name))
