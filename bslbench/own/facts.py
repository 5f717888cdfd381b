"""What a dataset is like, and what to be warned of before anything is measured on it."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from bslbench.data.ids import I32, Ids
from bslbench.data.interactions import Interactions
from bslbench.own.split import TEST, TRAIN, U8, VALID

COLD, HALF = 0.01, 0.5
"""Shares of test pairs that cannot be found, and of users without test, from which on we warn."""
FEW_USERS, FEW_ITEMS = 1000, 100
"""Fewer users make wide intervals; with fewer items the cut-offs up to 100 mean little."""


@dataclass(frozen=True)
class Facts:
    """Counts of a dataset.

    Attributes
    ----------
    pairs
        Of train, valid and test.
    per_user
        Least, median and most train pairs of a user who has any.
    evaluated
        Users with train and test pairs.
    unseen
        Users with test pairs and without train: skipped.
    cold_items, cold_pairs
        Items without train, and the test pairs that are of them.
    """

    users: int
    items: int
    pairs: tuple[int, int, int]
    per_user: tuple[int, float, int]
    evaluated: int
    unseen: int
    cold_items: int
    cold_pairs: int

    @classmethod
    def of_pairs(cls, users: I32, items: I32, parts: U8, sizes: tuple[int, int]) -> "Facts":
        """Count pairs, [n] each; `parts` as `split` returns them."""
        by_user = [np.bincount(users[parts == part], minlength=sizes[0]) for part in (TRAIN, TEST)]
        cold = np.bincount(items[parts == TRAIN], minlength=sizes[1]) == 0
        train, test = by_user
        some = train[train > 0] if train.any() else np.zeros(1, np.int64)
        counts = np.bincount(parts, minlength=3)
        return cls(
            users=sizes[0],
            items=sizes[1],
            pairs=(int(counts[TRAIN]), int(counts[VALID]), int(counts[TEST])),
            per_user=(int(some.min()), float(np.median(some)), int(some.max())),
            evaluated=int(((train > 0) & (test > 0)).sum()),
            unseen=int(((train == 0) & (test > 0)).sum()),
            cold_items=int(cold.sum()),
            cold_pairs=int(cold[items[parts == TEST]].sum()),
        )

    @classmethod
    def of(cls, data: Interactions) -> "Facts":
        """Count a dataset that is loaded."""
        matrices = data.train, data.valid, data.test
        users = [np.repeat(np.arange(data.n_users), np.diff(m.indptr)) for m in matrices]
        parts = np.repeat(np.arange(3, dtype=np.uint8), [m.nnz for m in matrices])
        items: npt.NDArray[np.int32] = np.concatenate([m.indices for m in matrices])
        return cls.of_pairs(np.concatenate(users), items, parts, (data.n_users, data.n_items))

    def lines(self) -> Iterator[str]:
        """Yield what they say, a line each."""
        total = sum(self.pairs)
        yield f"{self.users:,} users, {self.items:,} items, {total:,} pairs"
        yield f"density {total / max(1, self.users * self.items):.4g}"
        shares = [f"{n:,} ({n / max(1, total):.1%})" for n in self.pairs]
        yield "train {}, valid {}, test {}".format(*shares)
        least, median, most = self.per_user
        yield f"train pairs per user: {least:,} to {most:,}, median {median:g}"
        yield f"{self.evaluated:,} users are evaluated"

    def warnings(self) -> Iterator[str]:
        """Yield what to be warned of, a line each."""
        without = self.users - self.evaluated - self.unseen
        if without > HALF * self.users:
            yield f"{without:,} of {self.users:,} users have no test pair and count nowhere"
        if self.unseen:
            yield f"{self.unseen:,} users have test pairs but none in train: they are skipped"
        if self.cold_pairs > COLD * self.pairs[TEST]:
            yield (
                f"{self.cold_pairs / self.pairs[TEST]:.1%} of the test pairs are of items without "
                f"train pairs ({self.cold_items:,} items): nothing here can find them"
            )
        if self.evaluated < FEW_USERS:
            yield f"with {self.evaluated:,} users evaluated, small differences cannot be told"
        if self.items < FEW_ITEMS:
            yield f"with {self.items} items, every ranking has most of them among its best 50"
        if not self.pairs[VALID]:
            yield "no valid pairs: a tenth of train is held out for them when a run needs them"


def popular(data: Interactions, ids: Ids, n: int = 5) -> list[str]:
    """Return the n items of the most train pairs by what they are called, with these numbers."""
    best = np.argsort(-data.item_degrees, kind="stable")[:n]
    return [f"{ids.items[int(item)]} ({data.item_degrees[item]:,})" for item in best]
