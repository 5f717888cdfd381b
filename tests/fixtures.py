"""Small datasets and losses that several tests share."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numba
import numpy as np
import torch

from bslbench.data.interactions import Interactions
from bslbench.engine.machine import set_threads

Command = Callable[..., tuple[int, str, str]]
"""What the fixture `bslbench` is: arguments in, exit code, output and errors out."""

NONE = (np.zeros(0, np.int64), np.zeros(0, np.int64))


@contextmanager
def on_threads(count: int) -> Iterator[None]:
    """Let kernels and torch use so many threads, of kernels 4 at most (`conftest`)."""
    assert numba.config.NUMBA_NUM_THREADS > 1, "with one thread nothing could differ"
    before = torch.get_num_threads(), numba.get_num_threads()
    set_threads(count)
    try:
        yield
    finally:
        numba.set_num_threads(before[1])
        torch.set_num_threads(before[0])


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


def ragged(n_users: int = 12, n_items: int = 17) -> Interactions:
    """Users and items of all degrees; user 3 and item 5 have no interaction."""
    liked = np.random.default_rng(7).random((n_users, n_items)) < 0.3
    liked[3, :] = liked[:, 5] = False
    return Interactions.from_pairs("ragged", n_users, n_items, liked.nonzero(), NONE, NONE)
