"""What a claim comes to at one place: a state, the gain with its interval, and what is missing."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from bslbench.evaluation.statistics import Estimate, Word, seeds_needed, told
from bslbench.noise import Noise
from bslbench.report.significance import Comparison
from bslbench.report.verdict.pool import Arm, Place

State = Literal["there", "reversed", "absent", "cannot be told"]

GRAVEST: tuple[State, ...] = ("reversed", "absent", "cannot be told", "there")
"""Of several gains that a claim asks for, this one decides."""


@dataclass(frozen=True)
class Gain:
    """A gain over one opponent.

    Attributes
    ----------
    value, low, high
        Its size and interval, positive if the claim is right.
    spec
        How these numbers are written.
    p, n_seeds
        Of the paired t-test over seeds.
    seeds_needed
        With how many seeds it could be told, None if with no number.
    """

    against: str
    state: State
    value: float
    low: float
    high: float
    p: float
    n_seeds: int
    spec: str
    seeds_needed: int | None = None
    missing: str = ""
    note: str = ""


@dataclass(frozen=True)
class Finding:
    """What a claim comes to at one place; `gain` is that over the opponent that decides."""

    place: Place
    state: State
    gain: Gain
    missing: tuple[str, ...]
    notes: tuple[str, ...] = ()


def of_comparison(against: str, found: Comparison) -> Gain:
    """Return a gain by a metric, as a share of the opponent's value."""
    low, high = found.relative_interval
    return Gain(
        against,
        _state(found.word, found.diff),
        found.relative,
        low,
        high,
        found.p,
        found.n_seeds,
        "+.2%",
        found.seeds_needed,
    )


def of_estimate(against: str, found: Estimate, smallest: float, spec: str) -> Gain:
    """Return a gain that has been estimated in its own units."""
    word = told(found.low, found.high, smallest, directed=True)
    return Gain(
        against,
        _state(word, found.mean),
        found.mean,
        found.low,
        found.high,
        found.p,
        found.spread.n_seeds,
        spec,
        seeds_needed(found, smallest, directed=True),
    )


def not_told(against: str, missing: str) -> Gain:
    """Return the gain of what could not be measured."""
    nan = math.nan
    return Gain(against, "cannot be told", nan, nan, nan, nan, 0, "", missing=missing)


def _state(word: Word, value: float) -> State:
    return "reversed" if word == "there" and value < 0 else word


def allowed(gain: Gain, arms: Sequence[Arm], seeds: int) -> Gain:
    """Return the gain if it may be judged: enough seeds, and settings that were searched for."""
    if gain.missing:
        return gain
    missing = [] if gain.n_seeds >= seeds else [f"{gain.n_seeds} of {seeds} seeds"]
    missing += dict.fromkeys(_tuned(arm) for arm in arms if not arm.tuned)
    if missing:
        return replace(gain, state="cannot be told", missing="; ".join(missing))
    if gain.state == "cannot be told":
        needed = f"about {gain.seeds_needed} seeds" if gain.seeds_needed else "more users"
        return replace(gain, missing=needed)
    return gain


def _tuned(arm: Arm) -> str:
    """Say what an arm lacks: settings tuned at its own noise."""
    level = Noise.of(arm.fields).level
    return f"settings of {arm.loss} that were tuned" + (f" at {level}" if level else "")


def decided(place: Place, gains: Sequence[Gain]) -> Finding:
    """Return what the gains over several opponents come to: the gravest, of these the smallest."""
    gravest = min(gains, key=lambda gain: (GRAVEST.index(gain.state), _size(gain)))
    missing = [f"{gain.against}: {gain.missing}" for gain in gains if gain.missing]
    notes = dict.fromkeys(gain.note for gain in gains if gain.note)
    state = gravest.state
    return Finding(
        place, state, gravest, tuple(missing) if state == "cannot be told" else (), tuple(notes)
    )


def _size(gain: Gain) -> float:
    return math.inf if math.isnan(gain.value) else gain.value
