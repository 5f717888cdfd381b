"""The rules as data: what a claim says, what it is measured by, and what it takes to judge it."""

import math
from functools import lru_cache
from pathlib import Path
from typing import Literal

from pydantic import Field, model_validator

from bslbench.config import Scalar, Strict
from bslbench.toml import read_toml, validated

RULES = Path(__file__).parents[2] / "verdict.toml"

Measure = Literal["metric", "slope", "tail", "spread", "identities", "temperature", "equal"]
Axis = Literal["noise_pos", "noise_neg", "noise_fneg"]


class Claim(Strict):
    """One claim.

    Attributes
    ----------
    rule, name, text
        Number of the rule that it stands in, what it is called, and the rule's words.
    measure
        How it is measured: a name in `bslbench.report.verdict.measures.MEASURES`.
    loss, where
        Whose gain it is, at its best settings on valid among those that agree with `where`.
    against, opponent
        The losses that it is compared with: ``each`` of them, or the ``best`` on valid.
    metric
        Of test.
    axis, least, most, levels
        The noise that varies, its lowest and highest level, and how many levels there must be.
    seeds_on
        How many seeds a dataset takes, where it is not `Rules.seeds`.
    smallest
        The smallest effect of interest, where it is not the general one.
    tolerance
        Of identities.
    """

    rule: int
    name: str
    text: str
    measure: Measure
    loss: str
    where: dict[str, Scalar] = Field({})
    against: list[str] = Field([])
    opponent: Literal["each", "best"] = "each"
    metric: str = "Recall@20"
    axis: Axis | None = None
    least: float = 0.0
    most: float = math.inf
    levels: int = 3
    seeds_on: dict[str, int] = Field({})
    smallest: float | None = None
    tolerance: float | None = None

    @model_validator(mode="after")
    def _whole(self) -> "Claim":
        if (self.measure in ("slope", "temperature")) != (self.axis is not None):
            raise ValueError(f"'{self.name}': slope and temperature need an axis, others have none")
        if (self.measure == "identities") != (self.tolerance is not None):
            raise ValueError(f"'{self.name}': identities need a tolerance, others have none")
        return self


class Rules(Strict):
    """All claims, and what any of them takes.

    Attributes
    ----------
    version
        Raised with every change of what is judged, or how.
    datasets, seeds
        How many different datasets a verdict takes, and how many paired seeds a place.
    not_on
        Datasets that are no evidence.
    """

    version: int
    datasets: int
    seeds: int
    not_on: list[str] = Field([])
    claim: list[Claim] = Field(min_length=1)

    def seeds_for(self, claim: Claim, dataset: str) -> int:
        """Return how many paired seeds a claim takes on a dataset."""
        return claim.seeds_on.get(base_of(dataset), self.seeds)


def base_of(dataset: str) -> str:
    """Return a dataset's name without its modifiers.

    Examples
    --------
    >>> base_of("yelp2018?split=ood")
    'yelp2018'
    """
    return dataset.partition("?")[0]


@lru_cache
def read_rules(path: Path = RULES) -> Rules:
    """Return the rules of a TOML file, ours unless another is named.

    Raises
    ------
    ConfigError
        Naming the file and the key that is wrong.
    """
    return validated(Rules, read_toml(path), str(path))
