"""What a race answers, in three sentences: which loss, how sure, against what."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from bslbench.config import Scalar
from bslbench.engine.race.agreement import turned
from bslbench.engine.race.finals import Final
from bslbench.engine.race.plan import FIRST
from bslbench.engine.race.race import Outcome
from bslbench.engine.status import span
from bslbench.engine.store import Run
from bslbench.evaluation.metrics import per_user
from bslbench.evaluation.ranks import I32, Ranks
from bslbench.evaluation.statistics import SMALLEST_EFFECT, FloatArray
from bslbench.report.parts import listed
from bslbench.report.significance import Comparison, compare_values

METRIC, K = "Recall", 20


@dataclass(frozen=True)
class Verdict:
    """The answer.

    Attributes
    ----------
    sentences
        Three.
    losses, references
        How the pick compares on test with the other finalists and with what needs no loss, by
        their names.
    recall
        Mean Recall@20 on test of the pick.
    told
        Whether the race was long enough for an answer, and no other loss is left that might as
        well be better.
    """

    sentences: tuple[str, str, str]
    losses: Mapping[str, Comparison]
    references: Mapping[str, Comparison]
    recall: float
    told: bool

    @property
    def text(self) -> str:
        """The sentences."""
        return " ".join(self.sentences)


def verdict(outcome: Outcome, lists: Mapping[str, Run] | None = None) -> Verdict:
    """Return what a race has come to.

    Parameters
    ----------
    lists
        Runs of what is used today, by their names.
    """
    pick, *others = outcome.finals.losses
    mine = [_values(run) for run in pick.runs]
    losses = {other.name: _versus(mine, other.runs) for other in others}
    rows = {row.name: row.runs for row in outcome.finals.references}
    rows |= {name: [run] for name, run in (lists or {}).items()}
    references = {name: _versus(mine, runs) for name, runs in rows.items()}
    recall = float(np.mean([values.mean() for _, values in mine]))
    turns = turned(outcome.heats, pick.name)
    open_ = [name for name, found in losses.items() if found.word == "cannot be told"]
    open_ += [name for name in turns if name not in open_]
    enough = outcome.budget_for_answer()
    sentences = (
        _which(outcome, losses, open_, recall, enough),
        _how_sure(outcome, losses, turns),
        _against(outcome, references, list(lists or {})),
    )
    return Verdict(sentences, losses, references, recall, told=not open_ and enough is None)


def _values(run: Run) -> tuple[I32, FloatArray]:
    ranks = Ranks.load(run.file("ranks.npz"))
    return ranks.users, per_user(ranks, METRIC, K)


def _versus(mine: Sequence[tuple[I32, FloatArray]], runs: Sequence[Run]) -> Comparison:
    """Compare seed by seed; what has one run for all seeds is held against each of them.

    Users that only one of the two has ranked, as where samples of users are evaluated, do not
    count.
    """
    theirs = [_values(run) for run in runs]
    users, own, other = np.intersect1d(mine[0][0], theirs[0][0], return_indices=True)
    a = np.stack([values[own] for _, values in mine])  # (seeds, users)
    b = np.stack([values[other] for _, values in theirs])
    return compare_values(a, np.broadcast_to(b, (len(a), len(users))))


def settings(final: Final) -> str:
    """Return the parameters of a loss in words, its own first."""
    cell = final.cells[0]
    order = sorted(final.params, key=lambda name: name not in cell.loss_params)
    return ", ".join(f"{name} {_figure(final.params[name])}" for name in order)


def _figure(value: Scalar) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def _which(
    outcome: Outcome,
    losses: Mapping[str, Comparison],
    open_: Sequence[str],
    recall: float,
    enough: float | None,
) -> str:
    pick = outcome.pick
    epochs = outcome.record.plan.epochs
    shown = f"Recall@{K} {recall:.4f} on test, mean of {_count(len(pick.runs), 'seed')}"
    chosen = f"{pick.name} ({settings(pick)}, {epochs} epochs): {shown}"
    alike = [name for name, found in losses.items() if found.word == "absent"]
    if enough is not None:
        return (
            f"This budget is too short for an answer, which takes {FIRST} settings of each and "
            f"{outcome.epochs_for_answer} epochs, about {span(enough)} (--budget "
            f"{_minutes(enough)} and another --name); first of a short race is {chosen}."
        )
    if open_:
        return (
            f"This budget cannot separate {listed([pick.name, *open_])}; first on validation is "
            f"{chosen}."
        )
    if alike:
        return f"Train with {chosen}; {listed(alike)} would do as well."
    return f"Train with {chosen}."


def _how_sure(
    outcome: Outcome, losses: Mapping[str, Comparison], turns: Mapping[str, float]
) -> str:
    gone = [name for name in outcome.left() if name not in losses]
    parts = []
    for name, found in losses.items():
        interval = _interval(found)
        if found.word == "there" and found.diff > 0:
            parts.append(f"it is ahead of {name} by {_percent(found.relative)} ({interval})")
        elif found.word == "there":
            parts.append(
                f"on test {name} is ahead of it by {_percent(-found.relative)} "
                f"({_interval(found, -1)}), though behind on validation"
            )
        elif found.word == "absent":
            parts.append(
                f"from {name} it differs by less than {100 * SMALLEST_EFFECT:g} % ({interval})"
            )
        else:
            parts.append(
                f"from {name} it cannot be told ({_signed(found.relative)}, {interval}): "
                f"{_needed(outcome, found)}"
            )
    if turns:
        parts.append(_turned(outcome, turns))
    if gone:
        tried = f"{_count(outcome.tried, 'setting')} each"
        parts.append(f"before the final runs {listed(gone)} had left, after {tried}")
    return _sentence("; ".join(parts) or "no other loss was in the race")


def _turned(outcome: Outcome, turns: Mapping[str, float]) -> str:
    before = outcome.heats[-2]
    leads = [f"{name} was ahead of it by {_percent(lead)}" for name, lead in turns.items()]
    text = (
        f"but on {before.rung.share} of the users {listed(leads)}, and on all of them each has "
        "had one setting"
    )
    budget = outcome.budget_for_setting()
    if budget is None:
        return text
    return f"{text}: another takes a budget of about {span(budget)} (--budget {_minutes(budget)})"


def _needed(outcome: Outcome, found: Comparison) -> str:
    if found.n_seeds < 2:
        return "that takes two seeds at least"
    if found.seeds_needed is None:
        return "no number of seeds could, it takes more users"
    budget = outcome.budget_for_seeds(found.seeds_needed)
    return (
        f"{found.seeds_needed} seeds could, with a budget of about {span(budget)} "
        f"(--budget {_minutes(budget)} --seeds {found.seeds_needed})"
    )


def _minutes(seconds: float) -> str:
    return f"{math.ceil(seconds / 60)}m"


def _against(outcome: Outcome, references: Mapping[str, Comparison], lists: Sequence[str]) -> str:
    if not references:
        return "Nothing that trains no loss could be run beside it."
    dim = outcome.pick.cells[0].flat()["dim"]
    best = max(references, key=lambda name: references[name].base)
    shown = dict.fromkeys([*(name for name in ("ials",) if name in references), best, *lists])
    titles = {"ials": f"ials of the same dimension ({dim})"}
    parts = [_gain(titles.get(name, name), references[name]) for name in shown]
    return _sentence(f"held against what it could replace, {'; '.join(parts)}")


def _gain(title: str, found: Comparison) -> str:
    interval = _interval(found)
    if not found.base:
        return f"{title} finds nothing"
    if found.word == "there" and found.diff > 0:
        return f"it gains {_percent(found.relative)} over {title} ({interval})"
    if found.word == "there":
        return f"it falls {_percent(-found.relative)} short of {title} ({_interval(found, -1)})"
    if found.word == "absent":
        return f"it is as good as {title} ({_signed(found.relative)}, {interval})"
    return f"whether it gains over {title} cannot be told ({_signed(found.relative)}, {interval})"


def _interval(found: Comparison, sign: int = 1) -> str:
    if found.n_seeds < 2:
        return "one seed, no interval"
    low, high = sorted(sign * bound for bound in found.relative_interval)
    return f"95 % interval {100 * low:.1f} to {100 * high:.1f} %"


def _signed(share: float) -> str:
    return f"{100 * share:+.1f} %"


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"


def _count(n: int, noun: str) -> str:
    return f"{n} {noun}{'s' * (n > 1)}"


def _sentence(text: str) -> str:
    return f"{text[0].upper()}{text[1:]}."
