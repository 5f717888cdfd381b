"""How one step of ours grows with its sizes, one of them moved at a time."""

from dataclasses import dataclass, replace
from statistics import median

import numpy as np

from benchmarks.cases import STEPS, WARM_UP, training
from benchmarks.measure import Action, Clock
from bslbench.config import TrainSettings
from bslbench.data.interactions import Interactions
from bslbench.losses import SL


@dataclass(frozen=True)
class Sizes:
    """Of a step of MF with own negatives; the defaults are about Yelp2018's."""

    batch_size: int = 1024
    n_negatives: int = 800
    dim: int = 64
    users: int = 32_000
    items: int = 38_000


AXES: dict[str, tuple[int, ...]] = {
    "batch_size": (256, 512, 2048, 4096),
    "n_negatives": (100, 200, 400, 1600),
    "dim": (32, 128, 256),
    "users": (10_000, 100_000, 1_000_000),
    "items": (10_000, 100_000, 1_000_000),
}


def scaling(device: str, base: Sizes, rounds: int) -> list[tuple[str, int, float, float]]:
    """Return (axis, value, ms per step, ms over those of the base), the base first of each.

    All sizes take turns, so that a busy minute falls on all of them.
    """
    points = [base, *(replace(base, **{axis: v}) for axis, values in AXES.items() for v in values)]
    turns = [(step(sizes, device), Clock(device)) for sizes in points]
    for _ in range(rounds):
        for action, clock in turns:
            action(clock)
    base_ms, *others = (1e3 * median(clock.readings) for _, clock in turns)
    rows = []
    for axis, values in AXES.items():
        rows.append((axis, getattr(base, axis), base_ms, 1.0))
        rows += [(axis, value, ms, ms / base_ms) for value, ms in zip(values, others, strict=False)]
        others = others[len(values) :]
    return rows


def step(sizes: Sizes, device: str) -> Action:
    """Return an action that takes whole steps on random interactions of these sizes."""
    rng = np.random.default_rng(0)
    n_pairs = 2 * (WARM_UP + STEPS) * sizes.batch_size  # twice what is needed: some coincide
    train = rng.integers(0, sizes.users, n_pairs), rng.integers(0, sizes.items, n_pairs)
    nothing = np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int64)
    data = Interactions.from_pairs("random", sizes.users, sizes.items, train, nothing, nothing)
    settings = TrainSettings(
        batch_size=sizes.batch_size, n_negatives=sizes.n_negatives, dim=sizes.dim, scale=None
    )
    return training(data, settings, SL(tau=0.11), device)
