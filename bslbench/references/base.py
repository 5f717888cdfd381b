"""What a reference recommender is: hyper-parameters in, and from a train split a scorer."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar

from bslbench.data.interactions import Interactions
from bslbench.errors import ConfigError
from bslbench.evaluation.ranking import Scorer


@dataclass(frozen=True)
class Reference(ABC):
    """Base of the recommenders that stand beside the losses and need no gradient.

    The fields of a subclass are its hyper-parameters, which a grid sets like those of a loss.
    """

    space: ClassVar[dict[str, Any]] = {}
    """Search space of its hyper-parameters, in the form of `Loss.space`."""
    drawn: ClassVar[bool] = False
    """Whether the seed plays a part: what is not drawn comes out the same for every seed."""
    formula: ClassVar[str] = ""
    source: ClassVar[str] = ""

    @abstractmethod
    def fit(self, data: Interactions, seed: int) -> Scorer:
        """Return what ranks all items for the users of ``data.train``, noise included.

        Parameters
        ----------
        data
            Only its train split is looked at.
        seed
            The run's seed; where nothing is drawn it plays no part.

        Raises
        ------
        RunFailed
            If the memory that it needs is not there.
        """

    def n_bytes(self, n_users: int, n_items: int) -> int:
        """Return about how much memory fitting takes beside the data."""
        return 0


def check_at_least(least: float, **values: float) -> None:
    """Raise a `ConfigError` naming the first value that is below `least`."""
    for name, value in values.items():
        if not value >= least:
            raise ConfigError(f"{name} must be at least {least:g}, not {value:g}")
