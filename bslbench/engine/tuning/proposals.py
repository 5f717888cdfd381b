"""What a trial tries: a pure function of the study's seed and of the trials that came before."""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from statistics import median

import optuna
from optuna.samplers import TPESampler
from optuna.trial import TrialState, create_trial
from scipy.stats import qmc

from bslbench.config import Scalar
from bslbench.engine.pruning import Bar
from bslbench.engine.tuning.ledger import STATES, Trial
from bslbench.engine.tuning.space import SLOTS, Dimension, Params, Range, Space
from bslbench.errors import ConfigError
from bslbench.seeding import key_of

DIMENSIONS = 32
"""Of a quasi-random point: places for the common parameters and for 26 of a loss's own."""

ENOUGH = 4
"""Trials whose median can give up another one."""

WARM_UP = 0.25
"""Share of the epochs before which no trial is given up, and at most so many epochs."""
WARM_UP_EPOCHS = 20


@dataclass(frozen=True)
class Widening:
    """A range of the space that was widened, because the best of the trials lay on its edge."""

    known: int
    """How many trials were known."""
    name: str
    old: Range
    new: Range

    def told(self, trials: int, lag: int) -> str:
        """Return it in words, as of a study of so many trials: the last ones know nothing of it."""
        low = self.new.low < self.old.low
        side, was, now = (
            ("down", self.old.low, self.new.low) if low else ("up", self.old.high, self.new.high)
        )
        late = ", too late for any" if self.known > trials - lag else ""
        return f"{self.name} widened {side} from {was:g} to {now:g} after {self.known} trials{late}"


def proposal(
    space: Space, history: Sequence[Trial], number: int, startup: int, seed: int, name: str
) -> dict[str, Scalar]:
    """Return what trial `number` of the loss `name` tries.

    The first ones take quasi-random points, whose places for the common parameters are the same
    for every loss; the rest come from a tree-structured Parzen estimator (Bergstra et al., NeurIPS
    2011) over all parameters together.

    Parameters
    ----------
    space
        As declared for the first `startup` trials, as widened after them.
    history
        The trials that it may know.
    """
    if number < startup:
        return quasi_random(space, number, startup, seed)
    return _estimated(space, history, key_of(seed, f"tune {name}", number) % 2**32)


def quasi_random(space: Space, number: int, count: int, seed: int) -> dict[str, Scalar]:
    """Return the point `number` of `count` of a scrambled Sobol sequence (Owen, 1998).

    Raises
    ------
    ConfigError
        If the space has more parameters than the sequence has places for.
    """
    own = [name for name in space if name not in SLOTS]
    if len(own) > DIMENSIONS - len(SLOTS):
        raise ConfigError(f"a space of {len(own)} parameters: at most {DIMENSIONS - len(SLOTS)}")
    places = {name: place for place, name in enumerate([*SLOTS, *own])}
    # All places at once: the scrambling of one depends on how many there are.
    sequence = qmc.Sobol(DIMENSIONS, scramble=True, seed=key_of(seed, "sobol") % 2**32)
    point = sequence.random_base2(math.ceil(math.log2(max(count, 2))))[number]  # [DIMENSIONS]
    return {name: entry.at(float(point[places[name]])) for name, entry in space.items()}


def _estimated(space: Space, history: Sequence[Trial], seed: int) -> dict[str, Scalar]:
    sampler = TPESampler(seed=seed, multivariate=True, n_startup_trials=0)
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(direction="maximize", sampler=sampler)
    distributions = {name: entry.distribution() for name, entry in space.items()}
    for trial in history:
        failed = trial.state == "failed"  # told as given up at once: the estimator skips failures
        study.add_trial(
            create_trial(
                state=TrialState.PRUNED if failed else STATES[trial.state],
                value=trial.score if trial.state == "complete" else None,
                params=dict(trial.params),
                distributions=distributions,
                intermediate_values={} if failed else dict(trial.curve),
            )
        )
    asked = study.ask(distributions)
    return {name: entry.rounded(asked.params[name]) for name, entry in space.items()}


def widened(
    space: Space, history: Sequence[Trial], startup: int, takes: Callable[[Params], bool]
) -> tuple[Space, list[Widening]]:
    """Return the space as the trials have widened it, and each step of it.

    Whenever another trial is known, each range on whose edge the best trial lies is widened in
    that direction, if the loss takes the new edge.

    Parameters
    ----------
    takes
        Tells whether a trial with these values can be made.
    """
    now: dict[str, Dimension] = dict(space)
    steps = []
    for known in range(startup, len(history) + 1):
        best = best_of(history[:known])
        for name, old in now.items():
            declared = space[name]
            if best is None or not isinstance(old, Range) or not isinstance(declared, Range):
                continue
            side = old.side(best.params[name])
            new = old.widened(side, declared) if side else old
            if new != old and takes({**best.params, name: new.low if side < 0 else new.high}):
                now[name] = new
                steps.append(Widening(known, name, old, new))
    return now, steps


def best_of(trials: Sequence[Trial]) -> Trial | None:
    """Return the complete trial with the highest score, of equal ones the first."""
    complete = [trial for trial in trials if trial.state == "complete"]
    return max(complete, key=lambda trial: trial.score, default=None)


def bar_of(history: Sequence[Trial], epochs: int) -> Bar:
    """Return by epoch the median of the best values so far of earlier trials of the same loss.

    Trials that were given up before an epoch say nothing about it; complete ones that ended
    before it, by early stopping, keep their best. There is no bar in the first epochs, and none
    at the last one.
    """
    warm = min(math.ceil(WARM_UP * epochs), WARM_UP_EPOCHS)
    known = [(trial, dict(_running(trial))) for trial in history if trial.state != "failed"]
    evaluated = sorted({epoch for _, curve in known for epoch in curve})
    bar = {}
    for epoch in (e for e in evaluated if warm <= e + 1 < epochs):
        values = [
            curve.get(epoch, trial.score)
            for trial, curve in known
            if epoch in curve or (trial.state == "complete" and epoch > max(curve))
        ]
        if len(values) >= ENOUGH:
            bar[epoch] = median(values)
    return bar


def _running(trial: Trial) -> Iterator[tuple[int, float]]:
    best = -math.inf
    for epoch, value in sorted(trial.curve.items()):
        best = max(best, value)
        yield epoch, best
