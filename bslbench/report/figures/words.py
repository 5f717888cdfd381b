"""What figures call their panels and lines."""

import math
from collections.abc import Iterable, Mapping, Sequence
from statistics import stdev

from scipy.special import stdtrit

from bslbench.config import REFERENCE
from bslbench.evaluation.statistics import CONFIDENCE
from bslbench.report.best import Case
from bslbench.report.levels import noise_text
from bslbench.report.results import Results

INTERVAL = "bars: its 95 % interval"
"""What captions call `half_interval`."""


def half_interval(values: Sequence[float]) -> float:
    """Return half of the 95 % t interval of a mean over seeds, NaN for fewer than two.

    Examples
    --------
    >>> round(half_interval([0.10, 0.12]), 3)  # t of one degree of freedom is 12.7
    0.127
    """
    n = len(values)
    if n < 2:
        return math.nan
    quantile = float(stdtrit(n - 1, (1 + CONFIDENCE) / 2))
    return quantile * stdev(values) / math.sqrt(n)


def losses_in_order(results: Results) -> tuple[str, ...]:
    """Return the trained losses in the order of the grid, so that all figures colour them alike."""
    return tuple(
        dict.fromkeys(run.key.loss for run in results.runs if run.key.backbone != REFERENCE)
    )


def titles(cases: Iterable[Case]) -> Mapping[Case, str]:
    """Return what a panel of each case is called: only what tells it from the others' panels."""
    cases = list(cases)
    datasets = {case.dataset for case in cases}
    made = {}
    for case in cases:
        place = case.backbone if len(datasets) == 1 else f"{case.backbone} on {case.dataset}"
        noise = noise_text(dict(case.noise))
        made[case] = f"{place}, {noise}" if noise else place
    return made


def of_the_best(others: int) -> str:
    """Return the end of a caption: that other settings were left out, if any were."""
    return (
        f"; of each loss the settings best on the selection split, {others} others left out."
        if others
        else "."
    )
