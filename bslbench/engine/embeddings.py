"""A model as a folder of arrays that numpy alone can read, and what it recommends.

``users.npy`` [n_users, d] and ``items.npy`` [n_items, d], both also in ``model.safetensors``;
``user_ids.npy`` and ``item_ids.npy``, what the rows are called; ``split.npz``, what is left out of
whose ranking, and what is to be found; ``about.json`` and ``README.md``, how rows are scored and
what the folder is.
"""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from safetensors.numpy import load_file, save
from scipy.sparse import csr_array

from bslbench.catalog import load_catalog
from bslbench.config import Cell
from bslbench.data.ids import ids_of
from bslbench.data.interactions import Interactions
from bslbench.engine.inputs import Options, split_of
from bslbench.engine.store import Run, Store
from bslbench.errors import ConfigError, DataError, first_line, suggest
from bslbench.files import replacing, write_atomically, writing

FloatTable = npt.NDArray[np.float32]
Texts = npt.NDArray[np.str_]

READ_BACK = """import json
import numpy as np

with open("about.json") as file:
    about = json.load(file)
users, items, split = np.load("users.npy"), np.load("items.npy"), dict(np.load("split.npz"))
if about["score"] == "cosine":
    users /= np.maximum(np.linalg.norm(users, axis=1, keepdims=True), 1e-12)
    items /= np.maximum(np.linalg.norm(items, axis=1, keepdims=True), 1e-12)
recall = []
for n, user in enumerate(split["test_users"]):
    scores = items @ users[user]
    first, last = split["seen_indptr"][user : user + 2]
    scores[split["seen_items"][first:last]] = -np.inf
    best = np.argpartition(-scores, min(20, len(scores)) - 1)[:20]
    first, last = split["test_indptr"][n : n + 2]
    wanted = split["test_items"][first:last]
    recall.append(np.isin(wanted, best).mean())
print(np.mean(recall))
"""
"""What ``README.md`` shows: the figure of the folder, from its files alone."""


@dataclass(frozen=True)
class Embeddings:
    """A model that scores by its embeddings.

    Attributes
    ----------
    users, items
        [n_users, d] and [n_items, d] float32, rows as trained.
    user_ids, item_ids
        What they are called.
    seen
        What is left out of each user's list, CSR [n_users, n_items].
    about
        ``score`` (``cosine`` or ``inner``), and what else there is to say of it.
    """

    users: FloatTable
    items: FloatTable
    user_ids: Texts
    item_ids: Texts
    seen: csr_array
    about: Mapping[str, Any]

    def row_of(self, user: str) -> int:
        """Return the row of a user of whom something is known.

        Raises
        ------
        ConfigError
            If there is no such user, or nothing is known of it.
        """
        found = np.flatnonzero(self.user_ids == user)
        if not found.size:
            raise ConfigError(f"no user '{user}'{_near(user, self.user_ids)}")
        row = int(found[0])
        if self.seen.indptr[row] == self.seen.indptr[row + 1]:
            raise ConfigError(
                f"user '{user}' has no interactions that the model was trained on: it has no taste"
            )
        return row

    def write(self, folder: Path, readme: str, test: tuple[Any, csr_array] | None = None) -> None:
        """Write the folder; ``about.json`` comes last, so that what has it is whole.

        Parameters
        ----------
        test
            The users that were evaluated, [n] int, and their test items, CSR [n, n_items].

        Raises
        ------
        StoreError
            If the disk is full or does not let us.
        """
        with writing(folder):
            folder.mkdir(parents=True, exist_ok=True)
            (folder / "about.json").unlink(missing_ok=True)
        # Never written over: who has the old tables mapped keeps them.
        for name in ("users", "items", "user_ids", "item_ids"):
            with replacing(folder / f"{name}.npy") as file:
                np.save(file, getattr(self, name), allow_pickle=False)
        split: dict[str, Any] = {
            "seen_indptr": self.seen.indptr,
            "seen_items": self.seen.indices,
        }
        if test is not None:
            users, wanted = test
            split |= {"test_users": users, "test_indptr": wanted.indptr}
            split["test_items"] = wanted.indices
        with replacing(folder / "split.npz") as file:
            np.savez_compressed(file, **split)
        write_atomically(
            folder / "model.safetensors", save({"users": self.users, "items": self.items})
        )
        write_atomically(folder / "README.md", readme)
        write_atomically(folder / "about.json", json.dumps(dict(self.about), indent=1) + "\n")


def of_run(run: Run, options: Options) -> tuple[Embeddings, Cell, Interactions]:
    """Return the embeddings that a finished run has kept, its cell and its data.

    Raises
    ------
    ConfigError
        If it has kept none.
    DataError
        If it is damaged, or its data are no longer what they were.
    """
    name, model = run.folder.name, run.file("model.safetensors")
    if not run.whole():
        raise DataError(f"{run.folder} is not finished, or damaged; train it again")
    try:
        cell = Cell.model_validate(run.info()["canonical"])
    except (KeyError, ValueError) as error:
        raise DataError(f"{run.folder} is damaged; train it again: {first_line(error)}") from error
    if cell.train is None:
        raise ConfigError(f"{name} has no embeddings: references and lists keep none")
    if not model.exists():
        raise ConfigError(f"{name} has kept no embeddings: train it again with --save-model")
    data = split_of(cell, options)
    users, items = read_tables(model)
    if (len(users), len(items)) != data.train.shape:
        raise DataError(f"{model} has not one row for each user and item of {data.name}")
    seen = csr_array(data.train + data.valid)
    seen.sort_indices()
    about = {"score": cell.train.score_test}
    return Embeddings(users, items, *called(data, options), seen, about), cell, data


def read_tables(path: Path) -> tuple[FloatTable, FloatTable]:
    """Return the users [n_users, d] and items [n_items, d] of a ``model.safetensors``.

    Raises
    ------
    DataError
        If it is damaged.
    """
    with _readable(path):
        tables = load_file(path)
        users, items = tables["users"], tables["items"]
        _check_tables(users, items)
    return users, items


def find_run(text: str, results: Path) -> Run:
    """Return a run by its folder, its id or the beginning of it.

    Raises
    ------
    ConfigError
        If there is none, or more than one.
    """
    beside = [str(path.parent) for path in Path(text).parent.glob("*/about.json")]
    what = "no folder of embeddings, and no run"
    return Store(results).find(text, "run.json", what, beside)


def called(data: Interactions, options: Options) -> tuple[Texts, Texts]:
    """Return what users and items of a dataset are called, [n_users] and [n_items]."""
    catalog = load_catalog() if options.catalog is None else options.catalog
    ids = ids_of(catalog, data.name, data, options.data)
    users, items = (np.array(side.to_pylist(), dtype=np.str_) for side in (ids.users, ids.items))
    return users, items


def read(folder: Path) -> Embeddings:
    """Read a folder that `Embeddings.write` has written; tables are mapped into memory.

    Raises
    ------
    DataError
        If a file is missing or damaged, or they do not fit together.
    """
    with _readable(folder):
        about = json.loads((folder / "about.json").read_bytes())
        users, items, user_ids, item_ids = (
            np.load(folder / f"{name}.npy", mmap_mode="r", allow_pickle=False)
            for name in ("users", "items", "user_ids", "item_ids")
        )
        with np.load(folder / "split.npz", allow_pickle=False) as split:
            indptr, indices = split["seen_indptr"], split["seen_items"]
        _check_tables(users, items)
        for ids, table in ((user_ids, users), (item_ids, items)):
            if ids.shape != (len(table),) or ids.dtype.kind != "U":
                raise ValueError("it has not one id for each row")
            "".join(ids.tolist()).encode()  # damaged text has what cannot be shown
        seen = csr_array(
            (np.ones(len(indices), np.uint8), indices, indptr), shape=(len(users), len(items))
        )
        seen.check_format(full_check=True)
        if about["score"] not in ("cosine", "inner"):
            raise ValueError(f"score {about['score']!r} in about.json")
    return Embeddings(users, items, user_ids, item_ids, seen, about)


@contextmanager
def _readable(place: Path) -> Iterator[None]:
    """Turn what damaged bytes make json, zipfile, numpy and safetensors raise into one error."""
    try:
        yield
    except Exception as error:
        message = f"{place} cannot be read as embeddings: {first_line(error)}"
        raise DataError(message) from error


def _check_tables(users: FloatTable, items: FloatTable) -> None:
    """Raise a `ValueError` unless both are rows of as many finite numbers."""
    if not (users.ndim == items.ndim == 2 and users.shape[1] == items.shape[1]):
        raise ValueError(f"its tables have the shapes {users.shape} and {items.shape}")
    for table in (users, items):
        if table.dtype.kind != "f" or not np.isfinite(table).all():
            raise ValueError("its tables are not all finite numbers")


def _near(user: str, known: Texts) -> str:
    if len(known) > 100_000:  # looking for what is alike takes time in proportion
        return ""
    return suggest(user, map(str, known), most=3)
