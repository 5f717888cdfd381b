"""The trials of a study that have ended, kept by Optuna in ``study.db``: one of its studies a loss.

What is running is not in it: a trial that is cut off is simply not there yet, and whoever comes
next goes on with its run where that was left.
"""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import optuna
from optuna.trial import FrozenTrial, TrialState, create_trial
from sqlalchemy.exc import OperationalError, SQLAlchemyError

from bslbench.config import Scalar
from bslbench.engine.tuning.contenders import Contender, record
from bslbench.engine.tuning.space import Space
from bslbench.engine.tuning.study import Study, as_toml, merged
from bslbench.errors import ConfigError, DataError, StoreError, first_line
from bslbench.files import locked, write_atomically
from bslbench.toml import read_toml

State = Literal["complete", "pruned", "failed"]

COLUMNS = ["loss", "trial", "state", "score", "epochs", "seconds", "cell", "reason", "widened"]
"""Of ``trials.csv``, before one column for each parameter. `score` is Recall@20 on valid."""
CLASH = "param."
"""Before the name of a parameter that is one of these."""


def column_of(parameter: str) -> str:
    """Return the column of ``trials.csv`` that a parameter has.

    Examples
    --------
    >>> column_of("tau"), column_of("score")
    ('tau', 'param.score')
    """
    return CLASH + parameter if parameter in COLUMNS else parameter


def parameters(row: Mapping[str, str]) -> dict[str, str]:
    """Return the parameters among the values of a row of ``trials.csv``."""
    own = {name: value for name, value in row.items() if value and name not in COLUMNS}
    return {name.removeprefix(CLASH): value for name, value in own.items()}


STATES: dict[State, TrialState] = {
    "complete": TrialState.COMPLETE,
    "pruned": TrialState.PRUNED,
    "failed": TrialState.FAIL,
}


@dataclass(frozen=True)
class Trial:
    """A trial that has ended.

    Attributes
    ----------
    number
        Counted from 0 within its loss.
    params
        The values tried.
    cell
        Id of its run.
    state
        ``complete``; ``pruned``: given up below the median; ``failed``: for the `reason`.
    curve
        Recall@20 on valid by evaluated epoch.
    seconds
        Of training and evaluation.
    """

    number: int
    params: Mapping[str, Scalar]
    cell: str
    state: State
    curve: Mapping[int, float]
    seconds: float
    reason: str = ""

    @property
    def score(self) -> float:
        """Best Recall@20 on valid that it came to; 0 if it failed before the first one."""
        return max(self.curve.values(), default=0.0)


class Ledger:
    """The folder of a study."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.path = folder / "study.toml"
        self._studies: dict[str, optuna.Study] = {}

    @property
    def begun(self) -> bool:
        """Whether the folder has a study."""
        return self.path.exists()

    def open(self, study: Study, entered: list[Contender]) -> None:
        """Begin the study, or go on with it, perhaps with more losses.

        Raises
        ------
        ConfigError
            As `check` does.
        """
        with locked(self.folder):
            write_atomically(self.path, as_toml(self.check(study, entered)))

    def check(self, study: Study, entered: list[Contender]) -> dict[str, Any]:
        """Return what ``study.toml`` is to say of the study.

        Raises
        ------
        ConfigError
            If the folder has another study, one whose trials are elsewhere, or a grid that none has
            made.
        """
        content = record(study, entered)
        if self.begun:
            together = merged(read_toml(self.path), content, str(self.path))
            if self._told() and not self._database.exists():
                raise ConfigError(
                    f"{self.folder} has trials, but not the study.db that a study goes on from; "
                    "give another --name"
                )
            return together
        if (self.folder / "grid.toml").exists():
            raise ConfigError(f"{self.folder} has results of a grid; give another --name")
        return content

    def asked(self) -> tuple[list[str], list[str]]:
        """Return the losses and the references of the study here, as they were asked for.

        Raises
        ------
        ConfigError
            If ``study.toml`` is not what this wrote.
        """
        if not self.begun:
            return [], []
        try:
            content = read_toml(self.path)
            known = list(content["loss"].values())
            tuned = [loss["asked"] for loss in known if loss["reference"]]
            losses = [loss["asked"] for loss in known if not loss["reference"]]
            return losses, list(content.get("references", tuned))
        except (KeyError, TypeError, AttributeError) as error:
            raise ConfigError(f"{self.path} is no study's; give another --name") from error

    def trials(self, name: str) -> list[Trial]:
        """Return the trials of a loss by number; some of the last ones may be lacking."""
        with locked(self.folder):
            return self._trials(name)

    def add(self, name: str, trial: Trial, space: Space) -> None:
        """Keep a trial, unless another process has kept it already."""
        distributions = {key: space[key].distribution() for key in trial.params}
        frozen = create_trial(
            state=STATES[trial.state],
            value=trial.score if trial.state == "complete" else None,
            params=dict(trial.params),
            distributions=distributions,
            intermediate_values=dict(trial.curve),
            user_attrs={
                "trial": trial.number,
                "cell": trial.cell,
                "seconds": trial.seconds,
                "reason": trial.reason,
            },
        )
        with locked(self.folder):
            if trial.number not in {known.number for known in self._trials(name)}:
                with self._whole():
                    self._study(name).add_trial(frozen)

    def granted(self) -> int:
        """Return how many rounds, one trial of each loss, a budget has been found to allow."""
        path = self.folder / "rounds.json"
        return int(json.loads(path.read_bytes())) if path.exists() else 0

    def grant(self, rounds: int) -> None:
        """Allow so many rounds, unless another process has allowed more."""
        with locked(self.folder):
            if rounds > self.granted():
                write_atomically(self.folder / "rounds.json", f"{rounds}\n")

    def _told(self) -> bool:
        """Tell whether ``trials.csv`` has a trial."""
        try:
            return len((self.folder / "trials.csv").read_bytes().splitlines()) > 1
        except FileNotFoundError:
            return False

    @property
    def _database(self) -> Path:
        return self.folder / "study.db"

    @cached_property
    def _storage(self) -> Any:
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        return optuna.storages.RDBStorage(f"sqlite:///{self._database.resolve()}")

    def _study(self, name: str) -> optuna.Study:
        if name not in self._studies:
            self._studies[name] = optuna.create_study(
                study_name=name, storage=self._storage, direction="maximize", load_if_exists=True
            )
        return self._studies[name]

    def _trials(self, name: str) -> list[Trial]:
        if not self._database.exists():  # which reading would make
            return []
        with self._whole():
            known = name in self._studies or name in optuna.get_all_study_names(self._storage)
            if not known:  # which reading would enter
                return []
            found = [_read(frozen) for frozen in self._study(name).get_trials(deepcopy=False)]
        return sorted(found, key=lambda trial: trial.number)

    @contextmanager
    def _whole(self) -> Iterator[None]:
        """Turn what a damaged database, or a full disk, makes Optuna raise into one line."""
        try:
            yield
        except (optuna.exceptions.StorageInternalError, SQLAlchemyError) as error:
            cause = error.__cause__ or error
            if isinstance(cause, OperationalError):
                raise StoreError(f"cannot write {self._database}: {first_line(cause)}") from error
            raise DataError(f"{self._database} is damaged: {first_line(cause)}") from error


def _read(frozen: FrozenTrial) -> Trial:
    [state] = [name for name, state in STATES.items() if state == frozen.state]
    told = frozen.user_attrs
    return Trial(
        told["trial"],
        frozen.params,
        told["cell"],
        state,
        frozen.intermediate_values,
        told["seconds"],
        told["reason"],
    )
