"""What a model recommends to all its users, as a file of ranked lists."""

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import torch

from bslbench.engine.embeddings import Embeddings
from bslbench.engine.store import writing
from bslbench.errors import ConfigError
from bslbench.evaluation.ranking import EmbeddingScorer
from bslbench.kernels.topk import masked_topk

SCHEMA = pa.schema(
    {"user": pa.string(), "item": pa.string(), "rank": pa.int32(), "score": pa.float32()}
)
WRITERS = {".csv": pyarrow.csv.CSVWriter, ".parquet": pq.ParquetWriter}
"""By the end of a file's name."""
BLOCK_SCORES = 1 << 24
"""Scores that are looked at together."""


def lists(model: Embeddings, k: int) -> Iterator[pa.Table]:
    """Yield the `k` best items of every user that the model knows, some users at a time.

    They are those of `Embeddings.recommend`, without what a user has already; a user without
    interactions is left out. Columns `user`, `item`, `rank` from 1 and `score`.
    """
    known = np.flatnonzero(np.diff(model.seen.indptr))
    n_items, n_rows = len(model.items), max(16, min(1024, BLOCK_SCORES // len(model.items)))
    tables = [torch.from_numpy(np.array(table)) for table in (model.users, model.items)]
    scorer = EmbeddingScorer(tables[0], tables[1], model.about["score"])
    places = np.arange(n_items, dtype=np.int32)
    users, items = (pa.array(ids) for ids in (model.user_ids, model.item_ids))
    for first in range(0, len(known), n_rows):
        rows = known[first : first + n_rows]
        seen = model.seen[rows]
        seen.sort_indices()
        scores = scorer(torch.from_numpy(rows))  # (n, I)
        best = masked_topk(scores, seen.indptr, seen.indices, places, min(k, n_items))
        found, values = (x.numpy() for x in best)  # (n, k)
        row, place = np.nonzero(found >= 0)
        columns = [
            users.take(pa.array(rows[row])),
            items.take(pa.array(found[row, place])),
            pa.array((place + 1).astype(np.int32)),
            pa.array(values[row, place]),
        ]
        yield pa.table(columns, SCHEMA)


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
                for table in lists(model, k):
                    writer.write_table(table)
                    n_users += int((table["rank"].to_numpy() == 1).sum())
            os.replace(fresh, path)
        finally:
            fresh.unlink(missing_ok=True)
    return n_users
