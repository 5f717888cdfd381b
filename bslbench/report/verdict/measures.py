"""How each kind of claim is measured at a place: by gains, positive if the claim is right."""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from statistics import fmean

import numpy as np

from bslbench.evaluation.groups import N_GROUPS, TAIL
from bslbench.evaluation.statistics import SMALLEST_EFFECT, estimate
from bslbench.report.parts import listed
from bslbench.report.significance import compare
from bslbench.report.verdict.findings import (
    Finding,
    Gain,
    allowed,
    decided,
    not_told,
    of_comparison,
    of_estimate,
)
from bslbench.report.verdict.noisy import slope, temperature
from bslbench.report.verdict.pool import SCORES, Arm, Place, Pool
from bslbench.report.verdict.rules import Claim, Rules
from bslbench.report.verdict.theory import identities

Find = Callable[[Pool, Rules, Claim, Place], Finding | None]


def metric(pool: Pool, rules: Rules, claim: Claim, place: Place) -> Finding | None:
    """Judge a gain by the claim's metric, seeds and users paired."""
    seeds = rules.seeds_for(claim, place.dataset)
    own = pool.best(place, claim.loss, where=claim.where, seeds=seeds)
    others = _others(pool, claim, place, seeds)
    if own is None or not any(others.values()):
        return None
    return decided(place, list(_gains(pool, claim, own, others, seeds)))


def equal(pool: Pool, rules: Rules, claim: Claim, place: Place) -> Finding | None:
    """Judge a gain by the claim's metric over opponents with the same score and number M."""
    seeds = rules.seeds_for(claim, place.dataset)
    at_home = pool.declared()
    own = at_home.best(place, claim.loss, where=claim.where, seeds=seeds)
    if own is None or not any(pool.arms(place, loss) for loss in claim.against):
        return None
    alike = {name: own.fields[name] for name in (*SCORES, "n_negatives")}
    others = {loss: pool.best(place, loss, where=alike, seeds=seeds) for loss in claim.against}
    shown = f"at {alike['score_train']} scores and M = {alike['n_negatives']}"
    if not any(others.values()):
        return decided(place, [not_told(listed(claim.against), f"runs {shown}")])
    finding = decided(place, list(_gains(pool, claim, own, others, seeds)))
    whole = metric(at_home, rules, claim, place)
    left = ""
    if whole and whole.gain.value > 0:
        left = f"; {finding.gain.value / whole.gain.value:.0%} of the gain with each at its own"
    return replace(finding, notes=(*finding.notes, shown + left))


def _others(pool: Pool, claim: Claim, place: Place, seeds: int) -> dict[str, Arm | None]:
    return {loss: pool.best(place, loss, seeds=seeds) for loss in claim.against}


def _gains(
    pool: Pool, claim: Claim, own: Arm, others: dict[str, Arm | None], seeds: int
) -> Iterator[Gain]:
    """Yield the gains over each opponent, or over the best on valid if that is the question."""
    lost = [loss for loss, arm in others.items() if arm is None]
    found = {loss: arm for loss, arm in others.items() if arm}
    if claim.opponent == "best":
        if lost:
            yield not_told(f"the best of {listed(claim.against)}", f"runs of {listed(lost)}")
            return
        best = max(found.values(), key=pool.selected)
        gain = _gain(pool, claim, own, best)
        yield allowed(gain, [own, *found.values()], seeds)
        return
    yield from (not_told(loss, f"runs of {loss}") for loss in lost)
    for arm in found.values():
        yield allowed(_gain(pool, claim, own, arm), [own, arm], seeds)


def _gain(pool: Pool, claim: Claim, own: Arm, other: Arm) -> Gain:
    shared = sorted(own.runs.keys() & other.runs.keys())
    a, b = ([pool.folder_of(arm.runs[seed]) for seed in shared] for arm in (own, other))
    if not shared:
        return not_told(other.loss, "seeds in common")
    if lost := sum(not run.file("ranks.npz").exists() for run in [*a, *b]):
        return not_told(other.loss, f"ranks of {lost} runs")
    return of_comparison(other.loss, compare(a, b, claim.metric, directed=True))


def tail(pool: Pool, rules: Rules, claim: Claim, place: Place) -> Finding | None:
    """Judge what share of the metric the least popular groups bring, at no loss of the metric."""

    def share(arm: Arm, seed: int) -> float:
        run, groups = arm.runs[seed], [str(g) for g in range(1, N_GROUPS + 1)]
        parts = [pool.value(run, claim.metric, group=group) for group in groups]
        total = pool.value(run, claim.metric)
        if not total or None in parts:
            return math.nan
        return sum(part or 0.0 for part in parts[:TAIL]) / total

    def judge(own: Arm, other: Arm, seeds: Sequence[int]) -> Gain:
        a, b = (np.array([share(arm, seed) for seed in seeds]) for arm in (own, other))
        if np.isnan([*a, *b]).any():
            return not_told(other.loss, "shares by popularity group")
        base = float(b.mean())
        relative = (a - b) / base if base else np.full(len(a), math.nan)
        gain = of_estimate(other.loss, estimate(relative[:, None]), SMALLEST_EFFECT, "+.1%")
        gini = [
            fmean(pool.value(arm.runs[seed], "Gini@20") or math.nan for seed in seeds)
            for arm in (own, other)
        ]
        note = f"Gini {gini[0]:.3f}, {other.loss} {gini[1]:.3f}"
        cost = _gain(pool, claim, own, other)
        if cost.missing:
            return replace(cost, value=gain.value, n_seeds=gain.n_seeds)
        if cost.state == "reversed" and gain.state == "there":
            lost = f"at a loss of {claim.metric} ({cost.value:+.2%})"
            return replace(gain, state="absent", note=f"{note}, {lost}")
        if cost.low < -SMALLEST_EFFECT and gain.state == "there":
            known = f"whether {claim.metric} is lost"
            return replace(gain, state="cannot be told", missing=known, note=note)
        return replace(gain, note=note)

    return _each(pool, rules, claim, place, judge)


def spread(pool: Pool, rules: Rules, claim: Claim, place: Place) -> Finding | None:
    """Judge how much smaller the negatives' variance over the squared gap is, in logarithms."""

    def ratio(arm: Arm, seed: int) -> float:
        found = [pool.value(arm.runs[seed], f"{name}@0", "train") for name in ("NegVar", "Gap")]
        variance, gap = (math.nan if value is None else value for value in found)
        return math.log(variance / gap**2) if variance > 0 and gap else math.nan

    def judge(own: Arm, other: Arm, seeds: Sequence[int]) -> Gain:
        a, b = (np.array([ratio(arm, seed) for seed in seeds]) for arm in (own, other))
        if np.isnan([*a, *b]).any():
            return not_told(other.loss, "the spread of the scores")
        gain = of_estimate(other.loss, estimate((b - a)[:, None]), SMALLEST_EFFECT, "+.3f")
        return replace(gain, note=f"{other.loss}'s is {math.exp(gain.value):.2f} times as large")

    return _each(pool, rules, claim, place, judge)


def _each(
    pool: Pool,
    rules: Rules,
    claim: Claim,
    place: Place,
    judge: Callable[[Arm, Arm, Sequence[int]], Gain],
) -> Finding | None:
    """Judge values that there are one of for each seed, against each opponent."""
    seeds = rules.seeds_for(claim, place.dataset)
    own = pool.best(place, claim.loss, where=claim.where, seeds=seeds)
    others = _others(pool, claim, place, seeds)
    if own is None or not any(others.values()):
        return None
    gains = []
    for loss, other in others.items():
        shared = sorted(own.runs.keys() & other.runs.keys()) if other else []
        if other is None or len(shared) < 2:
            gains.append(not_told(loss, "two seeds in common" if other else f"runs of {loss}"))
        else:
            gains.append(allowed(judge(own, other, shared), [own, other], seeds))
    return decided(place, gains)


MEASURES: dict[str, Find] = {
    "metric": metric,
    "equal": equal,
    "slope": slope,
    "tail": tail,
    "spread": spread,
    "identities": identities,
    "temperature": temperature,
}
"""By the name that rules use: what a claim comes to at a place, None where it is not tested."""
