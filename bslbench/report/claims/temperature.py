"""Which temperature is best at each level of noise, and whether the theory's law says so."""

import math
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from statistics import fmean

from bslbench.errors import ConfigError
from bslbench.report.best import Case, case_of
from bslbench.report.claims.common import CASE, Loaded, n_seeds, names, over_seeds, overall
from bslbench.report.claims.robustness import along, axes
from bslbench.report.results import Results, Run
from bslbench.report.table import Column, Like, Table
from bslbench.theory import law_correlation, lawful_tau

Law = dict[Case, tuple[float, float]]
"""Share of false negatives and best temperature at each level of one loss."""


def temperature_table(folder: Path, grid: str, metrics: Sequence[str] | None = None) -> Table:
    """Return the best temperature of each loss at each level of noise, beside the law's.

    Best is the highest mean of the primary metric on the split that picks epochs.

    Parameters
    ----------
    folder, grid, metrics
        As in `bslbench.report.tables.main_table`; of the metrics the first.

    Raises
    ------
    ConfigError
        If no loss was trained at several temperatures.
    """
    loaded = Loaded(folder, grid)
    metric = loaded.metric(metrics)
    values = overall(loaded.values(metric))
    shares = loaded.recorded("false_negative_share")
    tried = _tried(loaded.results)
    kept = {case: runs for case, runs in loaded.kept.items() if case in tried}
    if not kept:
        raise ConfigError(f"grid '{grid}' has no loss at several temperatures: sweep tau")
    found = list(_negatives(kept, shares))
    even = [law for _, law in found if _is_even(law, tried)]
    expected = {case: tau for law in even for case, tau in _expected(law).items()}
    rows: list[list[Like]] = []
    for case, runs in loaded.cases():
        if case in kept:
            tau, taus = float(runs[0].fields["tau"]), list(tried[case])
            edge = {taus[0]: "lowest tried", taus[-1]: "highest tried"}.get(tau, "")
            row = [*names(case), n_seeds(runs), over_seeds(runs, shares)]
            rows.append([*row, tau, edge, expected.get(case, ""), over_seeds(runs, values)])
    return loaded.table(
        "temperature",
        [
            *CASE,
            Column("seeds"),
            Column("false negatives", spec=".1%"),
            Column("best tau", spec=".3g"),
            Column("edge"),
            Column("law", spec=".3g"),
            Column(metric, better="higher"),
        ],
        rows,
        title="best temperature by noise",
        notes=[
            *(_judged(where, law, tried) for where, law in found),
            "law: 1 / sqrt(-log(1 - s)) for the share s of false negatives, scaled to the best "
            "temperatures in the geometric mean",
        ],
    )


Tried = dict[Case, dict[float, int]]
"""How many finished runs each temperature of a case has, by rising temperature."""


def _tried(results: Results) -> Tried:
    """Return the temperatures of each case that has several."""
    taus: defaultdict[Case, Counter[float]] = defaultdict(Counter)
    for run in results.done:
        if "tau" in run.fields:
            taus[case_of(run)][float(run.fields["tau"])] += 1
    return {case: dict(sorted(each.items())) for case, each in taus.items() if len(each) > 1}


def _negatives(
    kept: Mapping[Case, list[Run]], shares: Mapping[str, float]
) -> Iterator[tuple[str, Law]]:
    """Yield each loss's levels of `neg`, and where it is."""
    for axis in axes(kept):
        for loss, points in along(axis, kept).items() if axis.field == "noise_neg" else ():
            law = {
                point.case: (fmean(own), float(point.runs[0].fields["tau"]))
                for point in points
                if (own := [shares[run.id] for run in point.runs if run.id in shares])
            }
            yield f"{loss} on {axis.backbone}, {axis.dataset}, {axis.name}", law


def _expected(law: Law) -> dict[Case, float]:
    """Return the law's temperatures, scaled to the best ones."""
    taus = {case: lawful_tau(share) for case, (share, _) in law.items()}
    taus = {case: tau for case, tau in taus.items() if math.isfinite(tau)}
    if not taus:
        return {}
    scale = math.exp(fmean(math.log(law[case][1] / tau) for case, tau in taus.items()))
    return {case: scale * tau for case, tau in taus.items()}


def _is_even(law: Law, tried: Tried) -> bool:
    """Tell whether all levels have tried the same: else what lacks makes a best temperature."""
    return len({repr(tried[case]) for case in law}) < 2


def _judged(where: str, law: Law, tried: Tried) -> str:
    """Return the rank correlation of best temperatures and law, in words."""
    if not _is_even(law, tried):
        return f"{where}: not the same temperatures and numbers of seeds at all levels"
    correlation = law_correlation(*zip(*law.values(), strict=True)) if law else math.nan
    text = (
        "no rank correlation" if math.isnan(correlation) else f"rank correlation {correlation:+.2f}"
    )
    few = "" if len(law) >= LEVELS else f", fewer than the {LEVELS} that tell"
    return f"{where}: {text} of the best temperatures with the law's, {len(law)} levels{few}"


LEVELS = 5
"""Levels of noise that the law is judged by."""
