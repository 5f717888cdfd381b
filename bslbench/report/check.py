"""A grid's results against a committed baseline: worse, fine, or too little to tell.

A group (all but the seed alike) is worse if its mean has dropped by more than a tolerance *and* a
one-sided t-test says so. The test takes its standard deviation from the baseline's seeds alone, so
that a run of which one seed collapses cannot hide behind its own spread; Holm's procedure keeps
the nominal 2.5 % for all groups together.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import Literal

import numpy as np
from scipy import optimize, stats

from bslbench.errors import DataError
from bslbench.evaluation.statistics import POWER, SMALLEST_EFFECT, holm
from bslbench.report.baseline import BASELINE_SEEDS, Baseline, Group, groups_of, protocol_of
from bslbench.report.results import Results

LEVEL = 0.025
"""Share of clean calls that alarm, at most."""

RUN_SEEDS = 5
"""Fewer are not compared."""

State = Literal["fine", "worse", "cannot tell", "new"]


@dataclass(frozen=True)
class Finding:
    """What has become of a group.

    Attributes
    ----------
    group
        Of the baseline, or of the results if it is new.
    state, note
        The outcome, and why nothing can be told, or what else to know.
    values
        Of the runs, by seed; empty if there are none.
    change, p
        Relative change of the mean and the p-value of a drop, adjusted for all groups; NaN where
        nothing is compared.
    findable
        The smallest relative drop that would be found nine times in ten.
    """

    group: Group
    state: State
    note: str = ""
    values: tuple[float, ...] = ()
    change: float = math.nan
    p: float = math.nan
    findable: float = math.nan


def check(
    results: Results, baseline: Baseline, path: Path, tolerance: float = SMALLEST_EFFECT
) -> list[Finding]:
    """Compare a grid's results with a baseline.

    Parameters
    ----------
    path
        Of the baseline, for errors.
    tolerance
        Relative drop that is nobody's concern.

    Raises
    ------
    DataError
        If the two are of different protocols or data.
    """
    protocol = protocol_of(results)
    if protocol != baseline.protocol:
        raise DataError(
            f"{path}: of protocol {baseline.protocol}, the results of protocol {protocol}; "
            "write it anew: bslbench check --update"
        )
    own = groups_of(results, baseline.metric)
    pairs = [(group, _counterpart(group, own)) for group in baseline.group]
    for group, now in pairs:
        if now and now.fingerprint != group.fingerprint:
            raise DataError(
                f"{path}: {group.dataset} had the fingerprint {group.fingerprint[:12]}, now it has "
                f"{now.fingerprint[:12]}: other data; write it anew: bslbench check --update"
            )
    known = [now for _, now in pairs if now]
    new = [Finding(now, "new", "not in the baseline") for now in own if now not in known]
    return [*judged(pairs, tolerance), *new]


def _counterpart(group: Group, own: Sequence[Group]) -> Group | None:
    """Return the group with the same settings, else the one that is called the same."""
    alike = [
        other
        for other in own
        if (other.dataset, other.backbone, other.loss)
        == (group.dataset, group.backbone, group.loss)
    ]
    exact = [other for other in alike if not group.changes(other)]
    called = [o for o in alike if (o.settings, o.noise) == (group.settings, group.noise)]
    return next(iter([*exact, *called]), None)


def judged(
    pairs: Sequence[tuple[Group, Group | None]], tolerance: float = SMALLEST_EFFECT
) -> Iterator[Finding]:
    """Yield what has become of each group of a baseline, given what it is now."""
    lacks = [_lacking(group, now) for group, now in pairs]
    compared = [(g, now) for (g, now), lack in zip(pairs, lacks, strict=True) if now and not lack]
    adjusted = iter(holm([drop_p(group.values, now.values) for group, now in compared]))
    for (group, now), lack in zip(pairs, lacks, strict=True):
        values = tuple(now.values) if now else ()
        if lack or not now:
            yield Finding(group, "cannot tell", lack, values)
            continue
        p, base = next(adjusted), float(np.mean(group.values))
        change = float(np.mean(values)) / base - 1 if base else 0.0
        worse = change < -tolerance and p <= LEVEL
        least = findable_drop(group.values, len(values), len(compared), tolerance)
        changes = group.changes(now)
        note = f"settings have changed: {', '.join(changes)}" if changes else ""
        yield Finding(group, "worse" if worse else "fine", note, values, change, p, least)


def _lacking(group: Group, now: Group | None) -> str:
    if len(group.seeds) < BASELINE_SEEDS:
        return f"{len(group.seeds)} seeds in the baseline, it takes {BASELINE_SEEDS}"
    if now is None:
        return "not in the results"
    if len(now.seeds) < RUN_SEEDS:
        return f"{len(now.seeds)} seeds finished, it takes {RUN_SEEDS}"
    return ""


def drop_p(base: Sequence[float], values: Sequence[float]) -> float:
    """Return the one-sided p-value of a drop; the spread is that of the baseline's seeds."""
    drop, error = float(np.mean(base) - np.mean(values)), _error(base, len(values))
    if error <= 1e-12 * abs(float(np.mean(base))):  # recommenders without chance: any drop is one
        return 0.0 if drop > 0 else 1.0
    return float(stats.t.sf(drop / error, len(base) - 1))


def findable_drop(
    base: Sequence[float], n_seeds: int, n_groups: int = 1, tolerance: float = SMALLEST_EFFECT
) -> float:
    """Return the smallest relative drop that is found nine times in ten.

    Parameters
    ----------
    base
        The baseline's values.
    n_seeds
        Of the runs to be compared with it.
    n_groups
        How many groups are compared at a time.
    tolerance
        Drops within it do not count.
    """
    mean, error = abs(float(np.mean(base))), _error(base, n_seeds)
    if not mean:
        return math.nan
    shift = _findable_shift(n_groups, len(base) - 1)
    return max(shift * error / mean, tolerance + float(stats.norm.ppf(POWER)) * error / mean)


@lru_cache
def _findable_shift(n_groups: int, freedom: int) -> float:
    """Return the smallest drop that the test finds, in standard errors."""
    critical = stats.t.isf(LEVEL / n_groups, freedom)
    power = partial(stats.nct.sf, critical, freedom)
    return float(optimize.brentq(lambda shift: power(shift) - POWER, 0, 5 * critical + 20))


def _error(base: Sequence[float], n_seeds: int) -> float:
    """Return the standard error of the difference of the means, by the baseline's spread."""
    return float(np.std(base, ddof=1)) * math.sqrt(1 / len(base) + 1 / n_seeds)


def exit_code(findings: Sequence[Finding]) -> int:
    """Return 3 if a group is worse, else 4 if one could not be compared, else 0."""
    states = {finding.state for finding in findings}
    return 3 if "worse" in states else 4 if "cannot tell" in states else 0
