"""What a model recommends: to a user, or to all of them in a file of ranked lists."""

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import torch

from bslbench.engine.embeddings import Embeddings
from bslbench.errors import ConfigError
from bslbench.evaluation.ranking import EmbeddingScorer
from bslbench.files import writing
from bslbench.kernels.topk import masked_topk

I64 = npt.NDArray[np.int64]

SCHEMA = pa.schema(
    {"user": pa.string(), "item": pa.string(), "rank": pa.int32(), "score": pa.float32()}
)
WRITERS = {".csv": pyarrow.csv.CSVWriter, ".parquet": pq.ParquetWriter}
"""By the end of a file's name."""
BLOCK_SCORES, BLOCK_ROWS = 1 << 24, 1 << 20
"""Scores that are looked at together, and rows that are written together."""


def lists(model: Embeddings, k: int, rows: I64 | None = None) -> Iterator[pa.Table]:
    """Yield the `k` best items of users, without what they have already, some users at a time.

    Columns `user`, `item`, `rank` from 1 and `score`; of equal scores the first item is better.

    Parameters
    ----------
    rows
        Whose lists, [n] int64; by default all users' of whom something is known.
    """
    if rows is None:
        rows = np.flatnonzero(np.diff(model.seen.indptr))
    n_items = len(model.items)
    n_rows = max(16, min(1024, BLOCK_SCORES // max(1, n_items)))
    tables = [torch.from_numpy(table) for table in (model.users[rows], np.array(model.items))]
    scorer = EmbeddingScorer(tables[0], tables[1], model.about["score"])
    places = np.arange(n_items, dtype=np.int32)
    for first in range(0, len(rows), n_rows):
        block = rows[first : first + n_rows]
        seen = model.seen[block]
        seen.sort_indices()
        scores = scorer(torch.arange(first, first + len(block)))  # (n, I)
        best = masked_topk(scores, seen.indptr, seen.indices, places, min(k, n_items))
        found, values = (x.numpy() for x in best)  # (n, k)
        row, place = np.nonzero(found >= 0)
        columns = [
            pa.array(model.user_ids[block[row]]),
            pa.array(model.item_ids[found[row, place]]),
            pa.array((place + 1).astype(np.int32)),
            pa.array(values[row, place]),
        ]
        yield pa.table(columns, SCHEMA)


def recommend(model: Embeddings, user: str, k: int) -> list[tuple[str, float]]:
    """Return the best `k` items that a user has not seen, with their scores.

    Raises
    ------
    ConfigError
        If there is no such user, or nothing is known of it.
    """
    [best] = lists(model, k, np.array([model.row_of(user)]))
    return list(zip(best["item"].to_pylist(), best["score"].to_pylist(), strict=True))


def _gathered(tables: Iterator[pa.Table]) -> Iterator[pa.Table]:
    """Yield them some at a time: a Parquet file of many small groups of rows is a slow one."""
    held: list[pa.Table] = []
    for table in tables:
        held.append(table)
        if sum(map(len, held)) >= BLOCK_ROWS:
            yield pa.concat_tables(held)
            held = []
    if held:
        yield pa.concat_tables(held)


def write_lists(model: Embeddings, k: int, path: Path) -> int:
    """Write the lists of all users to a CSV or Parquet file, whole or not at all.

    Returns
    -------
    int
        The number of users.

    Raises
    ------
    ConfigError
        If the file's name has another end.
    StoreError
        If the disk is full or does not let us.
    """
    make = WRITERS.get(path.suffix.lower())
    if make is None:
        raise ConfigError(f"--out {path}: its name ends in none of {', '.join(WRITERS)}")
    fresh = path.with_name(f".{path.name}.{os.getpid()}")
    n_users = 0
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with make(fresh, SCHEMA) as writer:
                for table in _gathered(lists(model, k)):
                    writer.write_table(table)
                    n_users += int((table["rank"].to_numpy() == 1).sum())
            os.replace(fresh, path)
        finally:
            fresh.unlink(missing_ok=True)
    return n_users
