"""What a study is going to do, and about how long that takes."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from tabulate import tabulate

from bslbench.config import Grid
from bslbench.engine.inputs import Options
from bslbench.engine.plan import probe
from bslbench.engine.status import span
from bslbench.engine.tuning.contenders import Contender
from bslbench.engine.tuning.ledger import Ledger, Trial
from bslbench.engine.tuning.search import Budget, cost_of
from bslbench.engine.tuning.study import Study
from bslbench.errors import ConfigError


def plan(
    study: Study,
    entered: Sequence[Contender],
    budget: Budget,
    final: Grid,
    ledger: Ledger,
    options: Options,
    jobs: int,
    probing: Callable[[str], None] | None,
) -> tuple[Budget, str]:
    """Return the budget with what a trial costs, and the plan as text. Nothing is written.

    Parameters
    ----------
    jobs
        How many trials run at a time.
    probing
        Called with the name of each loss before some steps of it are made; without it the cost of
        a loss that has no trial yet stays unknown.

    Raises
    ------
    ConfigError
        If the study has more trials than are asked for.
    """
    trials = {c.name: ledger.trials(c.name) if ledger.begun else [] for c in entered}
    most = max(map(len, trials.values()), default=0)
    if budget.rounds is not None and budget.rounds < most:
        raise ConfigError(
            f"study '{study.name}' has made {most} trials of a loss, and takes none back: say "
            f"--trials {most} or more, or another --name"
        )
    guess = {}
    for contender in entered:
        cost = cost_of(trials[contender.name], 0.0)
        if not cost and probing and contender.cell.train:
            probing(f"probing {contender.name}")
            cost = probe(contender.cell, options).seconds
        guess[contender.name] = cost
    rows = [_row(contender, trials[contender.name], guess[contender.name]) for contender in entered]
    text = tabulate(rows, "keys", "simple", disable_numparse=True)
    return replace(budget, guess=guess), f"{text}\n{_summary(trials, budget, final, guess, jobs)}"


def _row(contender: Contender, trials: Sequence[Trial], cost: float) -> dict[str, str]:
    tuned = "; ".join(f"{name} {entry}" for name, entry in contender.space.items())
    row = {"loss": contender.name, "tuned over": tuned, "ended": str(len(trials))}
    return row | {"a trial <=": span(cost) if cost else "unknown"}


def _summary(
    trials: Mapping[str, Sequence[Trial]],
    budget: Budget,
    final: Grid,
    guess: Mapping[str, float],
    jobs: int,
) -> str:
    round_cost = sum(guess.values())
    n_seeds = len(final.seed_list())
    side = f", {jobs} at a time" if jobs > 1 else ""
    if budget.rounds is not None:
        left = sum(
            guess[name] * max(0, budget.rounds - len(ended)) for name, ended in trials.items()
        )
        search = f"{budget.rounds} trials of each loss"
        search += f", at most about {span(left / jobs)} more{side}" if left else ""
    else:
        assert budget.seconds is not None
        spent = sum(trial.seconds for ended in trials.values() for trial in ended)
        search = f"{span(budget.seconds)} of training in all, {span(spent)} of it spent"
        if round_cost:
            rounds = int(max(0.0, budget.seconds - spent) / round_cost)
            search += f": about {rounds} or more further trials of each loss{side}"
    text = f"{search}; then {n_seeds} fresh seed{'s' * (n_seeds > 1)} of the best of each"
    text += f", at most about {span(n_seeds * round_cost / jobs)}" if round_cost else ""
    unknown = [name for name, cost in guess.items() if not cost]
    return text + (f" (without {', '.join(unknown)})" if round_cost and unknown else "")
