"""Races on a small dataset, for the tests of what they do and of what they leave."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from bslbench.data.load import load
from bslbench.engine.executors import inline
from bslbench.engine.inputs import Options
from bslbench.engine.jobs import Executor
from bslbench.engine.race.clock import Clock, Timed
from bslbench.engine.race.heats import Heat, Means
from bslbench.engine.race.ladder import Race, entered, ladder, study
from bslbench.engine.race.plan import Plan
from bslbench.engine.race.race import Outcome, run_race
from bslbench.engine.race.record import Folder, Record
from bslbench.engine.store import Store
from bslbench.engine.tuning.ledger import Trial
from tests.test_engine import Quiet
from tests.test_tune import Silent

DATA = "synthetic?users=820&items=100&interactions=8200"
SET = {"dim": 4, "n_negatives": 8}


def race(name: str = "trial", **changes: Any) -> Race:
    content = {"name": name, "dataset": DATA, "losses": ["sl", "bpr"], "set": SET}
    return Race(fingerprint=load(DATA).fingerprint, **content | changes)


def planned(
    asked: Race, options: Options | None = None, rounds: Sequence[int] = (4, 2), **changes: Any
) -> Plan:
    """A plan made by hand: what it decides is not up to the machine's speed."""
    rungs = [
        rung.model_copy(update={"rounds": n})
        for rung, n in zip(ladder(asked, options or Options()), rounds, strict=True)
    ]
    content = {"epochs": 2, "rungs": rungs, "entering": 2, "finalists": 2}
    content |= {
        "references": ["popularity", "ials"],
        "left_out": {},
        "ends": [0.4, 0.7, 0.9],
        "jobs": 8,
    }
    return Plan(**content | {"seconds": 1.0, "least": 1.0} | changes)


class Watched(Quiet):
    """Watches runs, all in one list."""

    def __init__(self, ran: list[str]) -> None:
        self.ran = ran


def means(root: Path, asked: Race, execute: Executor = inline, budget: float = 1e6) -> Means:
    folder = Folder(root / asked.name / "race")
    folder.root.mkdir(parents=True, exist_ok=True)
    execute_ = Timed(execute, Clock(folder.root / "clock"))

    @contextmanager
    def trials() -> Iterator[Silent]:
        yield Silent()

    @contextmanager
    def runs(titles: Mapping[str, str]) -> Iterator[Watched]:
        yield Watched([])

    return Means(Store(root), folder, execute_, Options(), budget, trials, runs)


def ran(root: Path, asked: Race | None = None, seeds: int = 2, **changes: Any) -> Outcome:
    asked = asked or race()
    return run_race(
        Record(race=asked, plan=planned(asked, **changes)), means(root, asked), seeds, 1
    )


def _trial(number: int, score: float, state: Any = "complete") -> Trial:
    return Trial(number, {}, f"cell{number}", state, {0: score}, 1.0)


def heat(scores: Mapping[str, Sequence[float]], failed: Iterable[str] = ()) -> Heat:
    """A rung by what its settings came to."""
    rungs = ladder(race(), Options())
    contenders = {
        c.name: c for c in entered(study(race(), 0, rungs[0], 2, ["ials"]), rungs[0], Options())
    }
    trials = {
        name: [_trial(n, s, "failed" if name in failed else "complete") for n, s in enumerate(own)]
        for name, own in scores.items()
    }
    return Heat(rungs[0], contenders, trials)
