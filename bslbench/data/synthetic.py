"""Synthetic interactions with a known structure: tastes in a two-level hierarchy of items.

Items lie in clusters of sub-clusters; their popularity and the activity of users follow power
laws. A user has a home cluster and four tastes, three of them sub-clusters of home. Most of its
interactions come from a taste, some from anywhere at home, some from the whole catalogue; in each
case popular items are likelier. So popularity explains a part, and the hierarchy the rest.
"""

import inspect

import numpy as np
from scipy.sparse import csr_array

from bslbench.data.interactions import IntArray, Interactions, csr_of, fingerprint_of
from bslbench.data.splits import choose, take
from bslbench.errors import ConfigError

MIN_DEGREE = 5
"""Interactions of the least active users."""

MIN_ITEMS = 20

SHARES = (0.35, 0.2, 0.1, 0.1, 0.1, 0.15)
"""Of a user's interactions: from its four tastes, from its home cluster, from everywhere."""

PREFERRED_ROUNDS = 8
"""Rounds of drawing after which a user that knows all it likes takes any items."""


def generate(
    users: int = 2000, items: int = 1500, interactions: int = 60_000, seed: int = 0
) -> Interactions:
    """Return a dataset of about `interactions` distinct pairs, a function of its parameters only.

    Every user has at least 5 interactions; a fifth of them, at least one, is the test split, the
    rest train. Valid is empty. Time and memory grow with `interactions`.

    Raises
    ------
    ConfigError
        If there are fewer than 5 interactions per user, more than a quarter of all pairs, or fewer
        than 20 items.
    """
    given = {"users": users, "items": items, "interactions": interactions, "seed": seed}
    _check(**given)
    rng = np.random.default_rng(np.random.SeedSequence([seed, *b"synthetic"]))
    degrees = _degrees(users, items, interactions, rng)
    pairs = _draw(degrees, items, rng)
    test_counts = (degrees + 2) // 5  # a fifth, rounded
    in_test = choose(pairs, test_counts, np.random.SeedSequence([seed, *b"synthetic test"]))
    nothing = np.zeros(pairs.nnz, dtype=bool)
    train, valid, test = (take(pairs, marked) for marked in (~in_test, nothing, in_test))
    defaults = inspect.signature(generate).parameters
    changed = [f"{key}={value}" for key, value in given.items() if value != defaults[key].default]
    name = "synthetic" + ("?" + "&".join(changed) if changed else "")
    fingerprint = fingerprint_of(train, valid, test)
    return Interactions(name, users, items, train, valid, test, fingerprint)


def _check(users: int, items: int, interactions: int, seed: int) -> None:
    if users < 1 or seed < 0:
        raise ConfigError(f"synthetic: users={users}, seed={seed}: at least 1 user, seed 0")
    if items < MIN_ITEMS:
        raise ConfigError(f"synthetic: items={items} is too few; at least {MIN_ITEMS}")
    least, most = MIN_DEGREE * users, users * items // 4
    if not least <= interactions <= most:
        raise ConfigError(
            f"synthetic: interactions={interactions} for {users} users and {items} items; "
            f"{least} (5 per user) to {most} (a quarter of all pairs)"
        )


def _degrees(users: int, items: int, interactions: int, rng: np.random.Generator) -> IntArray:
    """Return interactions per user, [users] int64: a power law above `MIN_DEGREE`, capped."""
    total = interactions - MIN_DEGREE * users
    most = items // 2 - MIN_DEGREE
    extra = 1 / (rng.permutation(users) + users / 50)
    for _ in range(20):  # what the cap cuts off goes to the others
        extra = np.minimum(extra * (total / (extra.sum() or 1.0)), most)
    whole = np.floor(extra.cumsum() + 0.5).astype(np.int64)  # rounds without changing the total
    return MIN_DEGREE + np.diff(whole, prepend=0)


def _draw(degrees: IntArray, items: int, rng: np.random.Generator) -> csr_array:
    """Return a CSR matrix of ones, [users, items], with ``degrees[u]`` in row u."""
    users = len(degrees)
    item_at = rng.permutation(items)  # clusters are ranges of places in this order
    popularity = (rng.permutation(items) + 5.0) ** -0.7
    mass = np.concatenate([[0.0], popularity.cumsum()])  # [items + 1]
    first, last = _ranges(users, items, rng)  # [users, 6] each
    upto = np.cumsum(SHARES)[:-1]
    keys = np.empty(0, dtype=np.int64)
    missing = degrees
    rounds = 0
    while missing.any():  # an item drawn twice counts once, so draw again what is missing
        owners = np.repeat(np.arange(users), missing)
        if rounds < PREFERRED_ROUNDS:
            kind = np.searchsorted(upto, rng.random(len(owners)), side="right")
            low, high = mass[first[owners, kind]], mass[last[owners, kind]]
            point = low + rng.random(len(owners)) * (high - low)
            places = np.minimum(np.searchsorted(mass, point, side="right") - 1, items - 1)
        else:
            places = rng.integers(items, size=len(owners))
        keys = np.sort(np.concatenate([keys, owners * items + item_at[places]]))
        keys = keys[np.diff(keys, prepend=-1) > 0]
        missing = degrees - np.bincount(keys // items, minlength=users)
        rounds += 1
    indptr = np.concatenate([[0], degrees.cumsum()])
    return csr_of(indptr, (keys % items).astype(np.int32), items)


def _ranges(users: int, items: int, rng: np.random.Generator) -> tuple[IntArray, IntArray]:
    """Return the ranges of places that each user draws from, in the order of `SHARES`.

    Returns
    -------
    tuple of array
        First places and ends, [users, 6] int64 each.
    """
    n_clusters = max(3, round(items**0.25))  # and as many sub-clusters in each
    starts = np.arange(n_clusters**2 + 1) * items // n_clusters**2
    home = rng.integers(n_clusters, size=(users, 1))
    at_home = rng.random((users, n_clusters)).argsort(axis=1)[:, :3] + home * n_clusters
    anywhere = rng.integers(n_clusters**2, size=(users, 1))
    tastes = np.hstack([at_home, anywhere])
    everywhere = np.zeros((users, 1), dtype=np.int64)
    first = np.hstack([starts[tastes], starts[home * n_clusters], everywhere])
    last = np.hstack([starts[tastes + 1], starts[(home + 1) * n_clusters], everywhere + items])
    return first, last
