"""Rankings that know nothing of a user's taste: the floor under every table."""

from dataclasses import dataclass

import torch
from torch import Tensor

from bslbench.data.interactions import Interactions
from bslbench.evaluation.ranking import Scorer
from bslbench.kernels import cpu_references
from bslbench.references.base import Reference
from bslbench.seeding import key_of


@dataclass(frozen=True)
class Popularity(Reference):
    """Score every item by its train interactions, for all users alike."""

    formula = "d_i"

    def fit(self, data: Interactions, seed: int) -> Scorer:
        """Return the scorer."""
        degrees = torch.from_numpy(data.item_degrees).float()  # [I], exact below 2^24

        def score(users: Tensor) -> Tensor:
            return degrees.to(users.device).expand(len(users), -1)

        return score


@dataclass(frozen=True)
class Random(Reference):
    """Rank the items of each user in an order of its own, drawn by the run's seed."""

    drawn = True
    formula = "uniform in [0, 1), a function of (seed, user, item)"

    def fit(self, data: Interactions, seed: int) -> Scorer:
        """Return the scorer."""
        key = key_of(seed, "random")

        def score(users: Tensor) -> Tensor:
            scores = torch.empty(len(users), data.n_items)
            cpu_references.draw_uniform(key, users.numpy(), scores.numpy())
            return scores

        return score
