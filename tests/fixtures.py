"""Small datasets and losses that several tests share."""

import numpy as np

from bslbench.data.interactions import Interactions

NONE = (np.zeros(0, np.int64), np.zeros(0, np.int64))


def tiny(n_users: int = 30, n_items: int = 90, per_user: int = 8) -> Interactions:
    """Each user with `per_user` random train items, and one more as test."""
    rng = np.random.default_rng(3)
    users = np.repeat(np.arange(n_users), per_user)
    chosen = np.stack([rng.choice(n_items, per_user + 1, replace=False) for _ in range(n_users)])
    test = (np.arange(n_users), chosen[:, -1])
    return Interactions.from_pairs(
        "tiny", n_users, n_items, (users, chosen[:, :-1].ravel()), NONE, test
    )


def checkerboard(n: int = 20) -> Interactions:
    """User u likes the items of its parity; item u is held out, the one right answer for u."""
    users, items = np.divmod(np.arange(n * n), n)
    alike = users % 2 == items % 2
    train = alike & (users != items)
    diagonal = np.arange(n)
    return Interactions.from_pairs(
        "checkerboard", n, n, (users[train], items[train]), NONE, (diagonal, diagonal)
    )
