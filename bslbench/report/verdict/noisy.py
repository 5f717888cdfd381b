"""Claims about levels of noise: slopes, and the temperatures that are best."""

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from statistics import fmean

import numpy as np

from bslbench.evaluation.statistics import SMALLEST_EFFECT, FloatArray, estimate
from bslbench.report.levels import CLEAN, noise_of
from bslbench.report.significance import user_values
from bslbench.report.verdict.findings import Finding, Gain, allowed, decided, not_told, of_estimate
from bslbench.report.verdict.pool import Arm, Place, Pool
from bslbench.report.verdict.rules import Axis, Claim, Rules
from bslbench.theory import law_correlation

Noise = Mapping[str, object]


def levels(pool: Pool, place: Place, claim: Claim) -> dict[float, Noise]:
    """Return the levels of a claim's axis that anything was trained at, by rising level.

    Everything else is clean; only that false positives stand among the validation labels too, and
    that hidden positives are hidden at every level.
    """
    axis = claim.axis
    assert axis is not None
    found: dict[float, Noise] = {}
    for run in pool.runs:
        noise = noise_of(run.fields)
        level = float(str(noise[axis]))
        if Place(run.dataset, run.key.backbone) == place and noise == _on(axis, level):
            found[level] = noise
    return {level: found[level] for level in sorted(found) if claim.least <= level <= claim.most}


def _on(axis: Axis, level: float) -> Noise:
    noise = dict(CLEAN) | {axis: level}
    if axis == "noise_fneg":
        return noise | {"noise_hidden": True}
    if axis == "noise_pos" and level:
        return noise | {"valid_noise": "same"}
    return noise


def slope(pool: Pool, rules: Rules, claim: Claim, place: Place) -> Finding | None:
    """Judge how much less steeply log metric falls over the level of noise.

    The smallest difference of interest is that which makes half a percent of the metric at the
    other end of the levels.
    """
    seeds = rules.seeds_for(claim, place.dataset)
    noises = levels(pool, place, claim)
    arms = {
        loss: {
            level: arm
            for level, noise in noises.items()
            if (arm := pool.best(place, loss, noise, claim.where if own else None, seeds=seeds))
        }
        for own, loss in ((True, claim.loss), *((False, loss) for loss in claim.against))
    }
    tested = [loss for loss in claim.against if len(arms[loss]) > 1]
    if len(arms[claim.loss]) < 2 or not tested:
        return None
    return decided(
        place, [_steeper(pool, claim, arms[claim.loss], arms[o], o, seeds) for o in claim.against]
    )


def _steeper(
    pool: Pool,
    claim: Claim,
    own: Mapping[float, Arm],
    other: Mapping[float, Arm],
    against: str,
    seeds: int,
) -> Gain:
    """Return the difference of the slopes over the levels that both have."""
    both = [level for level in own if level in other]
    if len(both) < claim.levels:
        return not_told(against, f"{len(both)} of {claim.levels} levels in common")
    arms = [[line[level] for level in both] for line in (own, other)]
    shared = sorted(set.intersection(*(set(arm.runs) for line in arms for arm in line)))
    if len(shared) < 2:
        return not_told(against, "two seeds that all levels have")
    runs = [[arm.runs[seed] for arm in line for seed in shared] for line in arms]
    folders = [[pool.folder_of(run) for run in line] for line in runs]
    if lost := sum(not run.file("ranks.npz").exists() for line in folders for run in line):
        return not_told(against, f"ranks of {lost} runs")
    shape = len(both), len(shared)
    if claim.axis == "noise_neg":
        shares = [float(pool.recorded(run, "false_negative_share") or "nan") for run in runs[0]]
        x = np.array(shares).reshape(shape)
    else:
        x = np.repeat(np.array(both)[:, None], len(shared), axis=1)
    if np.isnan(x).any():
        return not_told(against, "the shares of false negatives")
    all_values = user_values([run for line in folders for run in line], claim.metric)
    values = [half.reshape(*shape, -1) for half in np.split(all_values, 2)]
    if any((half.mean(2) == 0).any() for half in values):
        return not_told(against, f"{claim.metric} above zero at every level")
    a, b = (slopes(half, x) for half in values)
    found = estimate(a - b)
    gain = of_estimate(against, found, SMALLEST_EFFECT / float(np.ptp(x.mean(1))), "+.3f")
    gain = replace(gain, note=f"levels {', '.join(f'{level:g}' for level in both)}")
    return allowed(gain, [arm for line in arms for arm in line], seeds)


def slopes(values: FloatArray, x: FloatArray) -> FloatArray:
    """Return least-squares slopes of log means over x, spread over the users, [n_seeds, n_users].

    The slope of a seed is a function of the users' means at each level. Its values here are those
    of its linear part at each user (the influence function), shifted so that their mean is the
    slope itself: what resampling users does to it follows from them.

    Parameters
    ----------
    values
        [n_levels, n_seeds, n_users].
    x
        [n_levels, n_seeds].
    """
    centred = x - x.mean(0)
    weights = centred / np.square(centred).sum(0)  # [L, n]
    means = values.mean(2)  # [L, n]
    slope_of_seed = (weights * np.log(means)).sum(0)  # [n]
    influence = (weights[:, :, None] * (values / means[:, :, None] - 1)).sum(0)
    spread: FloatArray = slope_of_seed[:, None] + influence
    return spread


def temperature(pool: Pool, rules: Rules, claim: Claim, place: Place) -> Finding | None:
    """Judge the rank correlation of the best temperatures with the law, seed by seed."""
    seeds = rules.seeds_for(claim, place.dataset)
    tried = _sweep(pool, place, claim, seeds)
    common = sorted(_common(tried))
    swept = {level: [arms[tau] for tau in common] for level, arms in tried.items()}
    if len(swept) < 2:
        return None
    against = "the law"
    if len(swept) < claim.levels:
        lacking = f"{len(swept)} of {claim.levels} levels with several temperatures"
        return decided(place, [not_told(against, lacking)])
    if len(common) < 2:
        return decided(place, [not_told(against, "temperatures that all levels have")])
    arms = [arm for each in swept.values() for arm in each]
    shared = sorted(set.intersection(*(set(arm.runs) for arm in arms)))
    if len(shared) < 2:
        return decided(place, [not_told(against, "two seeds of every temperature")])
    shares = [
        fmean(
            float(pool.recorded(run, "false_negative_share") or "nan")
            for run in each[0].runs.values()
        )
        for each in swept.values()
    ]
    if any(math.isnan(share) for share in shares):
        return decided(place, [not_told(against, "the shares of false negatives")])
    found = [_correlation(pool, swept.values(), shares, seed) for seed in shared]
    gain = of_estimate(
        against, estimate(np.array(found)[:, None]), claim.smallest or SMALLEST_EFFECT, "+.2f"
    )
    return decided(place, [allowed(gain, [], seeds)])


Sweep = Mapping[float, Mapping[float, Arm]]
"""By level and temperature."""


def _sweep(pool: Pool, place: Place, claim: Claim, seeds: int) -> Sweep:
    """Return the arms at levels with several temperatures that are alike in all other settings.

    Of several such sweeps one with temperatures that all its levels have; of these that with the
    most levels, then with most of the seeds that it takes, then with most such temperatures.
    """
    found: defaultdict[str, defaultdict[float, dict[float, Arm]]]
    found = defaultdict(lambda: defaultdict(dict))
    for level, noise in levels(pool, place, claim).items():
        for arm in pool.arms(place, claim.loss, noise):
            if "tau" in arm.fields:
                free = {"id", "seed", "tau", *noise_of(arm.fields)}
                held = sorted((k, v) for k, v in arm.fields.items() if k not in free)
                found[repr(held)][level][arm.fields["tau"]] = arm
    sweeps = (
        {level: arms for level, arms in sweep.items() if len(arms) > 1} for sweep in found.values()
    )

    def tells(sweep: Sweep) -> tuple[bool, int, int, int]:
        common = _common(sweep)
        arms = [by_tau[tau] for by_tau in sweep.values() for tau in common]
        shared = set.intersection(*(set(arm.runs) for arm in arms)) if arms else set()
        return len(common) > 1, len(sweep), min(seeds, len(shared)), len(common)

    return max(sweeps, key=tells, default={})


def _common(sweep: Sweep) -> set[float]:
    """Return the temperatures that all levels have."""
    return set.intersection(*map(set, sweep.values())) if sweep else set()


def _correlation(
    pool: Pool, swept: Iterable[Sequence[Arm]], shares: Sequence[float], seed: int
) -> float:
    """Return the rank correlation of a seed's best temperatures with the law; 0 without any."""

    def valid(arm: Arm) -> float:
        run = arm.runs[seed]
        return pool.value(run, "Recall@20", run.selection) or 0.0

    best = [float(max(arms, key=valid).fields["tau"]) for arms in swept]
    correlation = law_correlation(shares, best)
    return 0.0 if math.isnan(correlation) else correlation
