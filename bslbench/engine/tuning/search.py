"""The search: rounds of one trial for each loss, until the budget is spent."""

import math
from collections import Counter, deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from time import monotonic, sleep
from typing import Protocol

from bslbench.config import Cell
from bslbench.engine.inputs import DEFAULTS, Options
from bslbench.engine.jobs import Executor, Job, Result
from bslbench.engine.pruning import past
from bslbench.engine.running import LOOK_EVERY, stopping
from bslbench.engine.store import Store
from bslbench.engine.tuning.contenders import Contender
from bslbench.engine.tuning.ledger import Ledger, State, Trial
from bslbench.engine.tuning.proposals import bar_of, proposal, widened
from bslbench.engine.tuning.space import Params, Space
from bslbench.engine.tuning.study import Study
from bslbench.errors import ConfigError, RunFailed, StoreError
from bslbench.training import Evaluation, Interrupted

TRIES = 3
"""How often a call starts a trial whose process gets lost: for want of memory, say, which others
had."""

HOPELESS = 4
"""Failures with which a loss may begin before they end a study, unless a budget says otherwise."""


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
    hopeless
        A loss whose first trials all fail, so many of them, ends the study; None: it goes on.
    """

    rounds: int | None = None
    seconds: float | None = None
    guess: Mapping[str, float] = field(default_factory=dict)
    hopeless: int | None = HOPELESS


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


class _Feed:
    """The trials as an executor asks for them, and what it tells of them.

    An iterator that is exhausted for now: once a trial has ended, it may have more.
    """

    def __init__(
        self,
        study: Study,
        entered: Sequence[Contender],
        budget: Budget,
        store: Store,
        watcher: Watcher,
        options: Options,
    ) -> None:
        self.study, self.entered, self.budget = study, entered, budget
        self.store, self.options, self.watcher = store, options, watcher
        self.ledger = Ledger(store.root / study.name)
        self.evaluated = watcher.evaluated
        self.trials: dict[str, list[Trial]] = {}
        self.lacking = 0
        self.ready: deque[_Task] = deque()
        self.running: dict[str, tuple[_Task, float]] = {}
        self.held: set[str] = set()
        self.lost: Counter[str] = Counter()
        self.unwritable = ""
        self.looked = -math.inf

    def __iter__(self) -> "_Feed":
        return self

    def __next__(self) -> Job:
        if not self.ready and monotonic() - self.looked >= LOOK_EVERY:
            self.look()
        if not self.ready:
            raise StopIteration
        task = self.ready.popleft()
        self.running[task.job.cell.id] = task, monotonic()
        return task.job

    def look(self) -> None:
        """See what has ended, here or elsewhere, and what can be made now."""
        self.trials = {c.name: self.ledger.trials(c.name) for c in self.entered}
        if self.budget.hopeless is not None:
            _check_hope(self.trials, self.budget.hopeless)
        if self.budget.rounds is not None:
            self.trials = {
                name: [trial for trial in trials if trial.number < self.budget.rounds]
                for name, trials in self.trials.items()
            }
        rounds = rounds_of(self.trials, self.budget, self.study.lag, self.ledger)
        ended = {name: len(trials) for name, trials in self.trials.items()}
        self.lacking = sum(max(0, rounds - n) for n in ended.values())
        self.watcher.planned(sum(ended.values()) + self.lacking, sum(ended.values()))
        tasks = [task for contender in self.entered for task in self._tasks(contender, rounds)]
        taken = {*self.running, *self.held}
        for task in sorted(tasks, key=lambda task: task.number):
            # Two trials may try the same: one after the other.
            if task.job.cell.id not in taken and not task.job.run.held():
                self.ready.append(task)
            taken.add(task.job.cell.id)
        self.looked = monotonic()

    def _tasks(self, contender: Contender, rounds: int) -> Iterator[_Task]:
        """Yield the trials of a loss that have not ended and may know all that they are to know."""
        trials = self.trials[contender.name]
        ended = {trial.number for trial in trials}
        first = next(number for number in range(len(trials) + 1) if number not in ended)
        for number in range(first, min(first + self.study.lag, rounds)):
            if number not in ended:
                yield self._task(contender, trials, number)

    def _task(self, contender: Contender, trials: Sequence[Trial], number: int) -> _Task:
        study = self.study
        history = [trial for trial in trials if trial.number <= number - study.lag]
        space = contender.space
        if number >= study.startup:
            space, _ = widened(space, history, study.startup, contender.takes)
        params = proposal(space, history, number, study.startup, study.seed, contender.name)
        cell = contender.trial(params)
        bar = bar_of(history, cell.train.epochs) if study.prune and cell.train else {}
        job = Job(cell, self.store.root, self.options, bar)
        return _Task(contender, number, space, params, job)

    def started(self, cell: Cell) -> None:
        task, _ = self.running[cell.id]
        before = task.job.run.progress().get("seconds", 0.0)  # of a call that was cut off
        self.running[cell.id] = task, monotonic() - before
        self.watcher.started(cell, f"{task.contender.name}, trial {task.number}")

    def ended(self, job: Job, result: Result) -> None:
        task, begun = self.running.pop(job.cell.id)
        self.looked = -math.inf
        self.lost[job.cell.id] += result.kind == "lost"
        again = result.kind == "lost" and self.lost[job.cell.id] < TRIES
        if again or result.kind in ("held", "interrupted", "unwritable"):
            self.held.add(job.cell.id)
            if result.kind == "unwritable":
                self.unwritable = self.unwritable or result.reason
            self.watcher.left(job.cell)
            return
        if result.kind in ("failed", "lost"):
            spent = monotonic() - begun
            trial = Trial(task.number, task.params, job.cell.id, "failed", {}, spent, result.reason)
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
        If a loss is found to be hopeless; the message has the first reason.
    StoreError
        If the results cannot be written.
    Interrupted
        After SIGINT or SIGTERM: the running trials' states are kept.
    """
    feed = _Feed(study, entered, budget, store, watcher, options)
    feed.look()
    with stopping() as asked:
        while feed.lacking:
            if feed.ready:
                execute(feed, feed, lambda: asked() or bool(feed.unwritable))
            else:
                watcher.waiting(feed.lacking)
                sleep(LOOK_EVERY)
            if feed.unwritable:
                raise StoreError(feed.unwritable)
            if asked():
                raise Interrupted
            feed.held.clear()
            feed.look()
    return feed.trials


def _check_hope(trials: Mapping[str, Sequence[Trial]], hopeless: int) -> None:
    for name, ended in trials.items():
        if len(ended) >= hopeless and all(t.state == "failed" for t in ended[:hopeless]):
            raise RunFailed(f"{name}: its first {hopeless} trials failed: {ended[0].reason}")


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
    rounds = max(ledger.granted(), min(map(len, trials.values())))
    spent = sum(trial.seconds for ended in trials.values() for trial in ended)
    cost = {name: cost_of(ended, budget.guess.get(name, 0.0)) for name, ended in trials.items()}
    while rounds < min(map(len, trials.values())) + lag:
        open_ = sum(cost[name] * max(0, rounds - len(ended)) for name, ended in trials.items())
        if spent + open_ + sum(cost.values()) > budget.seconds:
            break
        rounds += 1
    if not rounds:
        raise _too_little(sum(cost.values()), budget.seconds)
    ledger.grant(rounds)
    return rounds


def check_budget(budget: Budget) -> None:
    """Raise a `ConfigError` if the budget is too little to begin a study with."""
    guess = sum(budget.guess.values())
    if budget.seconds is not None and guess > budget.seconds:
        raise _too_little(guess, budget.seconds)


def _too_little(cost: float, seconds: float) -> ConfigError:
    return ConfigError(
        f"a trial of each loss takes about {cost:.0f} s, more than the budget of {seconds:.0f} s; "
        "shorter trials: --set epochs=12, say"
    )


def cost_of(trials: Sequence[Trial], guess: float) -> float:
    """Return the seconds of a trial that is not given up."""
    complete = [trial.seconds for trial in trials if trial.state == "complete"]
    return sum(complete) / len(complete) if complete else guess
