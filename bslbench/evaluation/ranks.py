"""Ranks: where a scorer put each user's held-out items, all that any metric needs."""

from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
import numpy.typing as npt

from bslbench.errors import DataError
from bslbench.files import replacing

DEPTH = 100
"""Ranks are kept down to here; every metric at any cut-off up to it follows from them."""

TOP = 20
"""The primary cut-off: what `Ranks.top_counts` and `Ranks.tied` look at."""

I32 = npt.NDArray[np.int32]
I64 = npt.NDArray[np.int64]
U8 = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Ranks:
    """Where a scorer put the held-out items of each user: all that any metric needs.

    Attributes
    ----------
    users
        Evaluated users, ascending, [n] int32: those with held-out items and with train items.
    indptr
        [n + 1] int64: user i's items are entries ``indptr[i]`` up to ``indptr[i + 1]``.
    ranks
        [nnz] uint8, in the order of the split's CSR rows: 1 is best, 0 is beyond `DEPTH` (or
        masked, where noise put a held-out item into train).
    top_counts
        [n_items] int32: how many evaluated users have the item among their best 20.
    n_skipped
        Users not evaluated.
    tied
        Share of evaluated users whose score at rank 20 equals that at rank 21.
    """

    users: I32
    indptr: I64
    ranks: U8
    top_counts: I32
    n_skipped: int
    tied: float

    def save(self, path: Path) -> None:
        """Write to `path` (.npz, no pickle), whole or not at all; equal ranks give equal bytes."""
        with replacing(path) as file:
            np.savez_compressed(file, **{f.name: getattr(self, f.name) for f in fields(self)})

    @classmethod
    def load(cls, path: Path) -> "Ranks":
        """Read what `save` wrote.

        Raises
        ------
        DataError
            If the file is missing, damaged or something else.
        """
        try:
            with path.open("rb") as file:
                stored = np.load(file, allow_pickle=False)
                arrays = {f.name: stored[f.name] for f in fields(cls)}
            n_skipped, tied = int(arrays.pop("n_skipped")), float(arrays.pop("tied"))
            ranks = cls(**arrays, n_skipped=n_skipped, tied=tied)
            if len(ranks.indptr) != len(ranks.users) + 1 or ranks.indptr[-1] != len(ranks.ranks):
                raise ValueError("its arrays do not fit together")
        except Exception as error:  # damaged bytes make zipfile and numpy raise a dozen kinds
            raise DataError(f"{path} cannot be read as ranks: {error}") from error
        return ranks
