"""Reference recommenders that need no gradient training: one function each."""

from collections.abc import Callable

import torch
from torch import Tensor

from bslbench.data.interactions import Interactions
from bslbench.evaluation.ranking import Scorer


def popularity(data: Interactions, seed: int) -> Scorer:
    """Score every item by its train interactions, for all users alike; `seed` plays no part."""
    degrees = torch.from_numpy(data.item_degrees).float()  # [I], exact below 2^24

    def score(users: Tensor) -> Tensor:
        return degrees.to(users.device).expand(len(users), -1)

    return score


REFERENCES: dict[str, Callable[[Interactions, int], Scorer]] = {"popularity": popularity}
"""By name: fits a recommender to a train split (noise included), with a seed, and returns it."""
