"""What a trial of each contender takes on each rung, before there is one."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from bslbench import memory
from bslbench.engine.inputs import Options
from bslbench.engine.plan import probe
from bslbench.engine.race.ladder import (
    FAST,
    MOST_USERS,
    Race,
    Rung,
    entered,
    study,
)
from bslbench.engine.status import span
from bslbench.engine.tuning.contenders import Contender
from bslbench.references import REFERENCES, Reference

PROBED_USERS = 2000
"""Users whose ranking is timed; that of all of them takes in proportion."""

REFERENCE_ROWS = ("popularity", "itemknn", "ease", "ials")
"""What every race is held against."""

OVERHEAD = 0.3
"""Seconds of a run beside training and ranking: its process, its data, its files."""

RATE = 5e8
"""Operations a second that a reference is taken to make: rather too few than too many."""

LONGEST = 0.05
"""Share of the budget that one fit of a reference to all users may take."""


@dataclass(frozen=True)
class Cost:
    """Seconds of an epoch and of an evaluation; a reference has no epochs but `fixed` seconds.

    `megabytes` are those of the whole process, the data that processes share among them.
    """

    epoch: float = 0.0
    evaluation: float = 0.0
    fixed: float = 0.0
    megabytes: float = 0.0

    def seconds(self, epochs: int) -> float:
        """Return the seconds of a whole run, its three evaluations and two rankings included."""
        evaluations = math.ceil(epochs / math.ceil(epochs / 3)) + 2 if self.epoch else 2
        return OVERHEAD + self.fixed + epochs * self.epoch + evaluations * self.evaluation


Costs = Mapping[str, Sequence[Cost]]
"""By contender, one for each rung."""


def costs(
    race: Race,
    rungs: Sequence[Rung],
    references: Sequence[str],
    options: Options,
    probing: Callable[[str], None] = lambda text: None,
) -> Costs:
    """Measure some steps and a ranking of every loss on every rung; references by their counts.

    Parameters
    ----------
    probing
        Called with what is about to be measured.
    """
    found: dict[str, list[Cost]] = {}
    for number, rung in enumerate(rungs):
        for contender in entered(study(race, number, rung, 1, references), rung, options):
            if contender.cell.train:
                probing(f"probing {contender.name} on {rung.share} of the users")
                cost = _measured(contender, rung, options)
            else:
                dim = int(race.set.get("dim", FAST["dim"]))
                cost = Cost(fixed=counted(contender.name, rung, dim))
            found.setdefault(contender.name, []).append(cost)
    return found


def _measured(contender: Contender, rung: Rung, options: Options) -> Cost:
    cost = probe(contender.cell.changed(eval_users=PROBED_USERS), options)
    ranked = min(rung.users, MOST_USERS)
    steps = math.ceil(rung.pairs / rung.batch_size)
    evaluation = cost.evaluation * max(1.0, ranked / PROBED_USERS)
    return Cost(steps * cost.step, evaluation, megabytes=cost.megabytes)


def side_by_side(found: Costs, jobs: int) -> int:
    """Return how many runs at a time the memory allows, `jobs` at most and one at least."""
    most = max(cost.megabytes for own in found.values() for cost in own) * 2**20
    free = memory.available()
    return jobs if free is None or not most else max(1, min(jobs, int(free / most)))


def counted(name: str, rung: Rung, dim: int) -> float:
    """Return about how many seconds a fit of a reference takes, from what it has to compute.

    Co-occurrences are taken to be those of users who are all alike, times four for their tail.
    """
    squares = 4 * rung.pairs**2 / rung.n_users
    square = float(rung.items) ** 2
    operations = {
        "popularity": float(rung.pairs),
        "itemknn": squares + 8 * square,
        "ease": squares + square * rung.items / 40 + rung.pairs * rung.items / 4,
        "ials": 24 * (2 * rung.pairs * dim + (rung.n_users + rung.items) * dim**2),
    }
    return operations[name] / RATE


def affordable(race: Race, whole: Rung, seconds: float) -> tuple[list[str], dict[str, str]]:
    """Return the references that memory and time allow, and for the others why not.

    Parameters
    ----------
    seconds
        Of work that the budget allows.
    """
    dim = int(race.set.get("dim", FAST["dim"]))
    left_out = {}
    for name in REFERENCE_ROWS:
        made: Reference = REFERENCES[name](**({"dim": dim} if name == "ials" else {}))
        need, free = made.n_bytes(whole.n_users, whole.items), memory.available()
        took = counted(name, whole, dim)
        if free is not None and need > free / 2:
            left_out[name] = f"it needs {memory.gigabytes(need)} of memory"
        elif took > LONGEST * seconds:
            left_out[name] = f"one fit takes about {span(took)}"
    return [name for name in REFERENCE_ROWS if name not in left_out], left_out
