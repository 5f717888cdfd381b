"""The search: rounds of one trial for each loss, until the budget is spent."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from time import monotonic, sleep
from typing import Protocol

from bslbench.config import Cell
from bslbench.engine.executors import LOOK_EVERY, stopping
from bslbench.engine.inputs import DEFAULTS, Options
from bslbench.engine.jobs import Executor, Job, Result
from bslbench.engine.pruning import past
from bslbench.engine.store import Store
from bslbench.engine.tuning.contenders import Contender
from bslbench.engine.tuning.ledger import Ledger, State, Trial
from bslbench.engine.tuning.proposals import bar_of, proposal, widened
from bslbench.engine.tuning.space import Params, Space
from bslbench.engine.tuning.study import Study
from bslbench.errors import ConfigError, RunFailed, StoreError
from bslbench.training import Evaluation, Interrupted

HOPELESS = 4
"""A loss whose first trials all fail, so many of them, ends the study."""


@dataclass(frozen=True)
class Budget:
    """How far a study goes: a number of rounds, or seconds of training in all.

    Attributes
    ----------
    rounds
        Trials of each loss; None where seconds limit them.
    seconds
        Of training and evaluation, summed over all trials.
    guess
        Seconds that a trial takes, by loss, for the time before there is one.
    """

    rounds: int | None = None
    seconds: float | None = None
    guess: Mapping[str, float] = field(default_factory=dict)


class Watcher(Protocol):
    """Whoever wants to know how a study gets on."""

    def planned(self, n_trials: int, n_ended: int) -> None:
        """So many trials are to be had, so many have ended."""

    def started(self, cell: Cell, title: str) -> None:
        """A trial starts or goes on."""

    def evaluated(self, cell: Cell, evaluation: Evaluation) -> None:
        """A trial has evaluated an epoch."""

    def ended(self, cell: Cell, trial: Trial) -> None:
        """A trial has ended."""

    def left(self, cell: Cell) -> None:
        """A trial is left for later: another process is at it, or it was cut off."""

    def waiting(self, n_trials: int) -> None:
        """Nothing is left but trials that other processes are at."""


@dataclass(frozen=True)
class _Task:
    """A trial that can be made now."""

    contender: Contender
    number: int
    space: Space
    params: Params
    job: Job

    @property
    def title(self) -> str:
        return f"{self.contender.name}, trial {self.number}"


class _Round:
    """Keeps what an executor tells of a batch of trials."""

    def __init__(self, tasks: Sequence[_Task], ledger: Ledger, watcher: Watcher) -> None:
        self.tasks: dict[str, _Task] = {}
        for task in tasks:  # two trials may try the same: the later one finds it done
            self.tasks.setdefault(task.job.cell.id, task)
        self.ledger = ledger
        self.watcher = watcher
        self.evaluated = watcher.evaluated
        self.begun: dict[str, float] = {}
        self.n_held = 0
        self.unwritable = ""

    def started(self, cell: Cell) -> None:
        self.begun[cell.id] = monotonic()
        self.watcher.started(cell, self.tasks[cell.id].title)

    def ended(self, job: Job, result: Result) -> None:
        task = self.tasks[job.cell.id]
        if result.kind in ("held", "interrupted", "unwritable"):
            self.n_held += result.kind == "held"
            self.unwritable = self.unwritable or result.reason
            self.watcher.left(job.cell)
            return
        if result.kind == "failed":
            seconds = monotonic() - self.begun[job.cell.id]
            trial = Trial(
                task.number, task.params, job.cell.id, "failed", {}, seconds, result.reason
            )
        else:
            trial = _trial(task)
        self.ledger.add(task.contender.name, trial, task.space)
        self.watcher.ended(job.cell, trial)


def _trial(task: _Task) -> Trial:
    """Return a trial that was made, from what the store has of its run."""
    found = past(task.job.run, task.job.cell, task.job.bar)
    assert found is not None
    state: State = "pruned" if found.pruned else "complete"
    return Trial(task.number, task.params, task.job.cell.id, state, found.curve, found.seconds)


def search(
    study: Study,
    entered: Sequence[Contender],
    budget: Budget,
    store: Store,
    watcher: Watcher,
    execute: Executor,
    options: Options = DEFAULTS,
) -> dict[str, list[Trial]]:
    """Make the trials that are lacking and return all of them by loss.

    Any number of processes may search one study at a time, each on trials that no other is at;
    the trials are the same whoever makes them, and however often they are cut off.

    Raises
    ------
    ConfigError
        If the budget does not allow one round.
    RunFailed
        If the first trials of a loss have all failed; the message has the last reason.
    StoreError
        If the results cannot be written.
    Interrupted
        After SIGINT or SIGTERM: the running trials' states are kept.
    """
    ledger = Ledger(store.root / study.name)
    with stopping() as asked:
        while True:
            trials = {c.name: ledger.trials(c.name)[: budget.rounds] for c in entered}
            _check_hope(trials)
            rounds = rounds_of(trials, budget, study.lag, ledger)
            ended = sum(map(len, trials.values()))
            watcher.planned(max(rounds * len(entered), ended), ended)
            tasks = [
                task
                for contender in entered
                for task in _ready(study, contender, trials[contender.name], rounds, store, options)
            ]
            if not tasks:
                return trials
            tasks.sort(key=lambda task: task.number)
            batch = _Round(tasks, ledger, watcher)
            tasks = list(batch.tasks.values())
            execute([task.job for task in tasks], batch, asked)
            if batch.unwritable:
                raise StoreError(batch.unwritable)
            if asked():
                raise Interrupted
            if batch.n_held == len(tasks):
                watcher.waiting(batch.n_held)
                sleep(LOOK_EVERY)


def _ready(
    study: Study,
    contender: Contender,
    trials: Sequence[Trial],
    rounds: int,
    store: Store,
    options: Options,
) -> list[_Task]:
    """Return the trials of a loss that have not ended and may know all that they are to know."""
    ended = {trial.number for trial in trials}
    first = next(number for number in range(len(trials) + 1) if number not in ended)
    numbers = range(first, min(first + study.lag, rounds))
    return [
        _task(study, contender, trials, number, store, options)
        for number in numbers
        if number not in ended
    ]


def _task(
    study: Study,
    contender: Contender,
    trials: Sequence[Trial],
    number: int,
    store: Store,
    options: Options,
) -> _Task:
    history = [trial for trial in trials if trial.number <= number - study.lag]
    space = contender.space
    if number >= study.startup:
        space, _ = widened(space, history, study.startup, contender.takes)
    params = proposal(space, history, number, study.startup, study.seed, contender.name)
    cell = contender.trial(params)
    bar = bar_of(history, cell.train.epochs) if study.prune and cell.train else {}
    return _Task(contender, number, space, params, Job(cell, store.root, options, bar))


def _check_hope(trials: Mapping[str, Sequence[Trial]]) -> None:
    for name, ended in trials.items():
        if len(ended) >= HOPELESS and all(t.state == "failed" for t in ended[:HOPELESS]):
            raise RunFailed(f"{name}: its first {HOPELESS} trials failed: {ended[0].reason}")


def rounds_of(
    trials: Mapping[str, Sequence[Trial]], budget: Budget, lag: int, ledger: Ledger
) -> int:
    """Return how many rounds there may be, by what they have cost so far.

    Every loss gets as many trials: a round is allowed if all that it will cost, and all that is
    not finished of earlier ones, fits into what is left.
    """
    if budget.rounds is not None:
        return budget.rounds
    assert budget.seconds is not None
    rounds = ledger.granted()
    spent = sum(trial.seconds for ended in trials.values() for trial in ended)
    cost = {name: cost_of(ended, budget.guess.get(name, 0.0)) for name, ended in trials.items()}
    while rounds < min(map(len, trials.values())) + lag:
        open_ = sum(cost[name] * max(0, rounds - len(ended)) for name, ended in trials.items())
        if spent + open_ + sum(cost.values()) > budget.seconds:
            break
        rounds += 1
    if not rounds:
        raise ConfigError(
            f"a trial of each loss takes about {sum(cost.values()):.0f} s, "
            f"more than the budget of {budget.seconds:.0f} s"
        )
    ledger.grant(rounds)
    return rounds


def cost_of(trials: Sequence[Trial], guess: float) -> float:
    """Return the seconds of a trial that is not given up."""
    complete = [trial.seconds for trial in trials if trial.state == "complete"]
    return sum(complete) / len(complete) if complete else guess
