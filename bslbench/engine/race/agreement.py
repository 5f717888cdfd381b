"""How far the rungs of a race agree on what is better."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from scipy.stats import kendalltau

from bslbench.engine.race.heats import Heat
from bslbench.evaluation.statistics import SMALLEST_EFFECT


@dataclass(frozen=True)
class Agreement:
    """How far two rungs rank alike what both have tried.

    Attributes
    ----------
    settings, losses
        Kendall's tau-b of all settings that both have, and of the losses by their best setting;
        NaN for fewer than two.
    n_settings, n_losses
        How many that are.
    """

    settings: float
    losses: float
    n_settings: int
    n_losses: int


def agreement(earlier: Heat, later: Heat) -> Agreement:
    """Return how far two rungs agree."""
    before = dict(_scores(earlier))
    pairs = [(before[key], score) for key, score in _scores(later) if key in before]
    names = [name for name in later.losses() if name in earlier.losses()]
    losses = [(earlier.best(name)[0].score, later.best(name)[0].score) for name in names]
    return Agreement(_tau(pairs), _tau(losses), len(pairs), len(losses))


def turned(heats: Sequence[Heat], pick: str) -> dict[str, float]:
    """Return the losses that were ahead of `pick` before a last rung with one setting of each.

    By more than `SMALLEST_EFFECT`, and by more Recall@20 than half of what they are behind now: the
    setting can have turned the order as well as the users. Final seeds, of the same settings,
    cannot tell.

    Returns
    -------
    dict of str to float
        By how much they were ahead, as a share of the pick's Recall@20 (if it had any).
    """
    if len(heats) < 2 or heats[-1].settings > 1:
        return {}
    leads = {}
    for name in heats[-1].losses():
        (mine, theirs), (mine_now, theirs_now) = (
            (heat.best(pick)[0].score, heat.best(name)[0].score) for heat in heats[-2:]
        )
        lead = theirs - mine
        if lead > max(SMALLEST_EFFECT * mine, (mine_now - theirs_now) / 2):
            leads[name] = lead / (mine or theirs)
    return leads


def _scores(heat: Heat) -> Iterator[tuple[tuple[str, int], float]]:
    for name in heat.trials:
        for trial in heat.finished(name):
            yield (name, trial.number), trial.score


def _tau(pairs: Sequence[tuple[float, float]]) -> float:
    if len(pairs) < 2:
        return float("nan")
    return float(kendalltau(*zip(*pairs, strict=True)).statistic)
