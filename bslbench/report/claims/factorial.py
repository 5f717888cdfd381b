"""What SL owes to what: to its score, to its number of negatives, to the loss itself."""

import math
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from itertools import permutations, product
from pathlib import Path
from typing import NamedTuple

import numpy as np

from bslbench.errors import ConfigError
from bslbench.evaluation.statistics import FloatArray, estimate
from bslbench.losses import LOSSES
from bslbench.report.best import best_key
from bslbench.report.claims.common import CASE, Loaded, Place, n_seeds, over_seeds, overall
from bslbench.report.results import Run
from bslbench.report.table import GAP, Column, Entry, Like, Table

LOSS = "sl"
RIVAL = "bpr"
RIVALS = (RIVAL, "mse", "bce")
"""The gain is taken apart over `RIVAL`, and over the best of all."""


class Arm(NamedTuple):
    """What the factorial crosses; its fields are the factors that a gain is shared out to."""

    loss: str
    score: str
    M: str

    @classmethod
    def declared(cls, loss: str) -> "Arm":
        """Return a loss with the score and the number of negatives that it declares."""
        return cls(loss, LOSSES[loss].score, str(LOSSES[loss].n_negatives))

    def __str__(self) -> str:
        return f"{self.loss}, {self.score}, M = {self.M}"


Arms = Mapping[Arm, Sequence[Run]]


def _where(run: Run) -> tuple[Place, Arm] | None:
    """Return place and arm of a run that has a score in training."""
    if "score_train" not in run.fields:
        return None
    train, test = run.fields["score_train"], run.fields["score_test"]
    score = train if train == test else f"{train}, {test} on test"
    return Place.of(run), Arm(run.key.loss, score, str(run.fields.get("n_negatives", GAP)))


def factorial_table(folder: Path, grid: str, metrics: Sequence[str] | None = None) -> Table:
    """Return every loss by score and M, and what these bring of the gain of `sl` over others.

    Parameters
    ----------
    folder, grid, metrics
        As in `bslbench.report.tables.main_table`; of the metrics the first, higher being better.

    Raises
    ------
    ConfigError
        If the grid has no finished `sl` beside one of `RIVALS`, any of them at several scores or M.
    """
    loaded = Loaded(folder, grid)
    metric = loaded.metric(metrics)
    values = overall(loaded.values(metric))
    places: defaultdict[Place, dict[Arm, list[Run]]] = defaultdict(dict)
    for (place, arm), runs in loaded.best_by(_where).items():
        places[place][arm] = runs
    rows: list[list[Like]] = []
    lacking: list[str] = []
    for place, arms in places.items():
        forms = Counter(arm.loss for arm in arms if arm.loss in (LOSS, *RIVALS))
        if LOSS not in forms or len(forms) < 2 or max(forms.values()) < 2:
            continue
        for arm, runs in arms.items():
            row: list[Like] = [*place, *arm, n_seeds(runs), over_seeds(runs, values)]
            rows.append([*row, "", "", "", "", runs[0].key.settings])
        gains, lack = _apart(loaded, arms, values)
        rows += ([*place, *gain, ""] for gain in gains)
        lacking += (f"{', '.join(place)}: {one}" for one in lack)
    if not rows:
        rivals = f"{LOSS} beside {', '.join(RIVALS)}"
        raise ConfigError(f"grid '{grid}' has no finished {rivals} at several scores or M")
    return loaded.table(
        "factorial",
        [
            *CASE,
            Column("score"),
            Column("M"),
            Column("seeds"),
            Column(metric, better="higher"),
            Column("gain by"),
            Column("gain", spec="+.2%"),
            Column("share", spec=".0%"),
            Column("by order"),
            Column("settings", only="csv"),
        ],
        rows,
        title=f"what {LOSS} owes to score, number of negatives and loss",
        notes=[
            "of each loss, score and M the settings best on the selection split, of those with as "
            f"many seeds as any: {_tried(loaded)}",
            f"{LOSS} over another loss: from {RIVAL}, and from the best of {', '.join(RIVALS)} on "
            f"the selection split, at the score and M that it declares, to {LOSS} at its best; of "
            "arms with fewer seeds than others none is the best",
            "gain: relative, of one factor averaged over all orders in which they can be switched "
            f"(Shapley), in log {metric}, so that the factors multiply to all; 95 % interval over "
            "seeds, of two or more that every step has",
            "share: of the logarithm of the whole gain, if its interval leaves out zero; by order: "
            "the least and the most that the factor brings in any",
            *lacking,
        ],
        all_settings=True,
        of=_where,
    )


def _tried(loaded: Loaded) -> str:
    """Say how many settings the best of an arm is best of."""
    counts = sorted({len(rows) for rows in loaded.rows(_where).values()})
    return f"of {' to '.join(map(str, dict.fromkeys((counts[0], counts[-1]))))} tried"


def _apart(
    loaded: Loaded, arms: Arms, values: Mapping[str, float]
) -> tuple[list[list[Like]], list[str]]:
    """Return the rows of a place's gains, but for the place, and what lacks for others."""
    own = {arm: runs for arm, runs in arms.items() if arm.loss == LOSS}
    end = best_key(own, loaded.selected)
    assert end is not None
    declared = [Arm.declared(loss) for loss in RIVALS]
    others = {arm: arms[arm] for arm in declared if arm in arms}
    best = best_key(others, loaded.selected) or declared[0]
    lost = [str(arm) for arm in declared if arm not in arms]
    lack = [f"no {'; '.join(lost)}: the best is of the others"] if lost else []
    if fewer := [str(arm) for group in (own, others) for arm in _fewer_seeds(group)]:
        lack.append(f"left aside for fewer seeds: {'; '.join(fewer)}")
    rows: list[list[Like]] = []
    for start in dict.fromkeys((declared[0], best)):
        corners = dict.fromkeys(map(Arm._make, product(*zip(start, end, strict=True))))
        if lost := [str(corner) for corner in corners if corner not in arms]:
            lack.append(f"{LOSS} over {start.loss}: no {'; '.join(lost)}")
        elif logs := _logs({corner: arms[corner] for corner in corners}, values):
            rows += _shares(start, end, logs)
        else:
            lack.append(f"{LOSS} over {start.loss}: no seed in common")
    return rows, lack


def _fewer_seeds(arms: Arms) -> list[Arm]:
    most = max(map(len, arms.values()), default=0)
    return [arm for arm, runs in arms.items() if len(runs) < most]


def _logs(arms: Arms, values: Mapping[str, float]) -> dict[Arm, FloatArray]:
    """Return log values [n_seeds] of every arm over the seeds that all have, nothing without any.

    A value of zero has no logarithm, and its seed does not count.
    """
    found = {
        arm: {run.seed: values[run.id] for run in runs if values.get(run.id, 0) > 0}
        for arm, runs in arms.items()
    }
    seeds = sorted(set.intersection(*map(set, found.values())))
    return {arm: np.log([own[seed] for seed in seeds]) for arm, own in found.items() if seeds}


def by_order(start: Arm, end: Arm, logs: Mapping[Arm, FloatArray]) -> dict[str, FloatArray]:
    """Return what each factor that differs brings in every order of switching, [n_orders, n_seeds].

    The mean over orders is the Shapley value; those of all factors add up to the whole.

    Examples
    --------
    >>> corners = [Arm(loss, "inner", m) for loss in ("bpr", "sl") for m in ("1", "800")]
    >>> logs = dict(zip(corners, np.array([[0], [2], [1], [5]])))
    >>> {factor: steps.T for factor, steps in by_order(corners[0], corners[-1], logs).items()}
    {'M': array([[2, 4]]), 'loss': array([[3, 1]])}
    """
    factors = [f for f in ("score", "M", "loss") if getattr(start, f) != getattr(end, f)]
    steps: dict[str, list[FloatArray]] = {factor: [] for factor in factors}
    for order in permutations(factors):
        here = start
        for factor in order:
            there = here._replace(**{factor: getattr(end, factor)})
            steps[factor].append(logs[there] - logs[here])
            here = there
    return {factor: np.array(each) for factor, each in steps.items()}


def _shares(start: Arm, end: Arm, logs: Mapping[Arm, FloatArray]) -> Iterator[list[Like]]:
    """Yield what each factor that differs brings, and what all do, but for the place."""
    whole = logs[end] - logs[start]
    said = _gain(whole).interval
    there = said is not None and said[0] * said[1] > 0
    for factor, steps in (by_order(start, end, logs) | {"all": whole[None]}).items():
        mean = steps.mean(0)  # (n_seeds,)
        least, most = np.expm1([steps.mean(1).min(), steps.mean(1).max()])
        yield [
            f"{end.loss} over {start.loss}",
            f"{start.score} to {end.score}" if factor in ("score", "all") else "",
            f"{start.M} to {end.M}" if factor in ("M", "all") else "",
            *(str(len(mean)), "", factor),
            _gain(mean),
            float(mean.mean() / whole.mean()) if there else None,
            f"{least:+.1%} to {most:+.1%}" if factor != "all" else "",
        ]


def _gain(logs: FloatArray) -> Entry:
    """Return the relative gain of log differences [n_seeds]."""
    if len(logs) < 2:
        return Entry(math.expm1(logs.mean()))
    found = estimate(logs[:, None])
    return Entry(math.expm1(found.mean), interval=(math.expm1(found.low), math.expm1(found.high)))
