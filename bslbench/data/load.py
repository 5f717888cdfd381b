"""Load: from a dataset's name to `Interactions`, parsed once and memory-mapped from then on.

The parsed form lies in the user's cache folder. Its key covers all that it was made from (the
catalog's entry, the checksums, the parameters of a synthetic one and the code that makes it), so
it is never out of date.
"""

import contextlib
import hashlib
import inspect
import json
import os
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import combinations
from pathlib import Path
from shutil import rmtree

import numpy as np
import platformdirs
from scipy.sparse import csr_array

from bslbench.catalog import (
    DatasetSpec,
    FileSpec,
    Split,
    data_dir,
    get,
    load_catalog,
    missing_files,
    split_name,
    verify,
)
from bslbench.data import synthetic
from bslbench.data.interactions import IntArray, Interactions, csr_of, fingerprint_of
from bslbench.data.readers import READERS, Pairs, read_bytes
from bslbench.data.resplit import SPLITTING, separated, split_anew
from bslbench.errors import ConfigError, DataError, suggest

CACHE_VERSION = 1
"""Raised when the parsed form of the same files would differ."""

SPARSE = 1000
"""Times as many users or items as pairs: more cannot be meant, and would only fill the memory."""

SPLITS: tuple[Split, ...] = ("train", "valid", "test")
NO_PAIRS: Pairs = (np.empty(0, dtype=np.int64), np.empty(0, dtype=np.int64))


def load(
    name: str, data: Path | None = None, catalog: Mapping[str, DatasetSpec] | None = None
) -> Interactions:
    """Return a dataset by its name, modifiers included.

    Parameters
    ----------
    name
        A name of the catalog, perhaps with modifiers: any dataset takes ``?split=ood``,
        ``?resplit=1`` and ``?sample=5%`` (`bslbench.data.resplit`), and ``synthetic``
        ``?users=1e4&seed=1``.
    data
        The data folder; by default what `catalog.data_dir` says.
    catalog
        By default what `catalog.load_catalog` returns.

    Raises
    ------
    ConfigError
        For a name or a modifier that is not known.
    DataError
        For a file that is missing, malformed or not the one that the catalog describes.
    """
    return _load(name, data, catalog).interactions


def describe(
    name: str, data: Path | None = None, catalog: Mapping[str, DatasetSpec] | None = None
) -> dict[str, int | float]:
    """Return the `statistics` of a dataset and how many repeated rows its files had."""
    loaded = _load(name, data, catalog)
    return statistics(loaded.interactions) | {"repeated_rows": loaded.repeated_rows}


def statistics(interactions: Interactions) -> dict[str, int | float]:
    """Return sizes, density of train, and train interactions per user that has any."""
    train = interactions.train
    degrees = interactions.user_degrees[interactions.user_degrees > 0]
    per_user = degrees if degrees.size else np.zeros(1)
    return {
        "users": interactions.n_users,
        "items": interactions.n_items,
        "train": int(train.nnz),
        "valid": int(interactions.valid.nnz),
        "test": int(interactions.test.nnz),
        "density": train.nnz / (interactions.n_users * interactions.n_items),
        "per_user_min": int(per_user.min()),
        "per_user_median": float(np.median(per_user)),
        "per_user_mean": float(per_user.mean()),
        "per_user_max": int(per_user.max()),
    }


@dataclass(frozen=True)
class _Loaded:
    """`interactions`, and the number of rows that repeated another of the same split."""

    interactions: Interactions
    repeated_rows: int


def _load(name: str, data: Path | None, catalog: Mapping[str, DatasetSpec] | None) -> _Loaded:
    base, modifiers = split_name(name)
    splits, modifiers = separated(modifiers)
    spec = get(load_catalog() if catalog is None else catalog, base)
    parameters = _parameters(spec, modifiers)
    folder = data_dir(data)
    root = platformdirs.user_cache_path("bslbench") / "interactions"
    entry = root / f"{base}-{_key(spec, parameters, folder)}"
    loaded = _open(entry)
    if loaded is None:
        built = (
            _Loaded(synthetic.generate(**parameters), 0)
            if spec.reader == "synthetic"
            else _parse(spec, folder)
        )
        with contextlib.suppress(OSError):  # a cache that cannot be written costs only time
            _store(built, entry)
        loaded = _open(entry) or built
    seeded = replace(loaded.interactions, split_seed=spec.split_seed)
    return replace(loaded, interactions=split_anew(seeded, splits))


def _parameters(spec: DatasetSpec, modifiers: dict[str, str]) -> dict[str, int]:
    """Return the arguments of the generator, defaults included; files take none."""
    known: dict[str, int] = {}
    if spec.reader == "synthetic":
        arguments = inspect.signature(synthetic.generate).parameters
        known = {key: argument.default for key, argument in arguments.items()}
    for key, value in modifiers.items():
        if key not in known:
            hint = suggest(key, [*known, *SPLITTING])
            raise ConfigError(f"dataset '{spec.name}' has no modifier '{key}'{hint}")
        try:
            known[key] = int(value) if value.isdigit() else _whole(float(value))
        except ValueError as error:
            raise ConfigError(
                f"dataset '{spec.name}': {key}={value} is not a whole number"
            ) from error
    return known


def _whole(number: float) -> int:
    if not number.is_integer():
        raise ValueError(number)
    return int(number)


def _key(spec: DatasetSpec, parameters: dict[str, int], folder: Path) -> str:
    """Return 12 hex digits over all that the parsed form depends on."""
    origin: dict[str, object] = {"version": CACHE_VERSION, "parameters": parameters}
    prose = dict.fromkeys(("title", "citation", "licence", "source", "ids", "packs"), True)
    origin["spec"] = spec.model_dump(exclude=prose | {"files": {"__all__": {"url"}}})
    if spec.reader == "synthetic":
        code = [path.read_bytes() for path in sorted(Path(__file__).parent.glob("*.py"))]
        origin["code"] = hashlib.sha256(b"".join(code)).hexdigest()
    unknown = [spec.path(file, folder) for file in spec.downloads if not file.has_checksum]
    if unknown:  # files of the user's own: known by size and time only
        _require_files(spec, folder)
        stats = [path.stat() for path in unknown]
        origin["stamps"] = [[stat.st_size, stat.st_mtime_ns] for stat in stats]
        origin["paths"] = [str(path.resolve()) for path in unknown]
    return hashlib.sha256(json.dumps(origin, sort_keys=True).encode()).hexdigest()[:12]


def _require_files(spec: DatasetSpec, folder: Path) -> None:
    if missing := missing_files(spec, folder):
        paths = ", ".join(map(str, missing))
        hint = "say --data if it lies elsewhere"
        if any(file.url for file in spec.downloads):
            hint = f"`bslbench download {spec.name}` fetches it"
        raise DataError(f"{paths}: no such file; {hint}")


def _parse(spec: DatasetSpec, folder: Path) -> _Loaded:
    """Verify, read and check all files of a dataset."""
    _require_files(spec, folder)
    for file in spec.downloads:
        verify(spec.path(file, folder), file)
    pairs = {split: _read(spec, file, folder) for split, file in spec.files.items()}
    n_users = spec.n_users or 1 + max(int(users.max(initial=0)) for users, _ in pairs.values())
    n_items = spec.n_items or 1 + max(int(items.max(initial=0)) for _, items in pairs.values())
    rows = sum(len(users) for users, _ in pairs.values())
    for size, what in ((n_users, "users"), (n_items, "items")):
        if size > SPARSE * (rows + 1000):
            raise DataError(
                f"{spec.name}: {size:,} {what} for {rows:,} pairs: one id, or n_{what} in the "
                "catalog, is far too large"
            )
    train, valid, test = (pairs.get(split, NO_PAIRS) for split in SPLITS)
    interactions = Interactions.from_pairs(spec.name, n_users, n_items, train, valid, test)
    if not spec.allow_overlap:
        _check_disjoint(spec, interactions)
    distinct = sum(int(matrix.nnz) for matrix in _matrices(interactions).values())
    return _Loaded(interactions, rows - distinct)


def _read(spec: DatasetSpec, file: FileSpec, folder: Path) -> Pairs:
    """Return one split's pairs, ids from 0."""
    path = spec.path(file, folder)
    where = f"{path}:{file.member}" if file.member else str(path)
    content = read_bytes(path, file.member)
    if file.member_sha256:
        digest = hashlib.sha256(content).hexdigest()
        if digest != file.member_sha256:
            raise DataError(
                f"{where}: its sha256 is {digest[:12]}..., expected {file.member_sha256[:12]}..."
            )
    users, items = READERS[file.reader or spec.reader](content, where)
    if file.pairs is not None and len(users) != file.pairs:
        raise DataError(f"{where}: it has {len(users):,} pairs, expected {file.pairs:,}")
    return (
        _from_zero(users, spec.user_offset, spec.n_users, f"{where}: user"),
        _from_zero(items, spec.item_offset, spec.n_items, f"{where}: item"),
    )


def _from_zero(ids: IntArray, offset: int, size: int | None, what: str) -> IntArray:
    """Subtract the offset from ids as written, all of which must lie in the id space."""
    last = offset + size - 1 if size is not None else int(ids.max(initial=offset))
    outside = (ids < offset) | (ids > last)
    if outside.any():
        raise DataError(f"{what} id {ids[outside.argmax()]} outside {offset}..{last}")
    return ids - offset


def _check_disjoint(spec: DatasetSpec, interactions: Interactions) -> None:
    matrices = _matrices(interactions)
    for first, second in combinations(SPLITS, 2):
        shared = matrices[first].multiply(matrices[second]).tocoo()
        if shared.nnz:
            user, item = shared.row[0] + spec.user_offset, shared.col[0] + spec.item_offset
            raise DataError(
                f"{spec.name}/{spec.files[second].name}: user {user} and item {item} are a pair of "
                f"{second} and of {first} ({shared.nnz:,} such pairs)"
            )


def _matrices(interactions: Interactions) -> dict[str, csr_array]:
    return {split: getattr(interactions, split) for split in SPLITS}


def _store(loaded: _Loaded, entry: Path) -> None:
    """Write an entry aside and move it into place whole; whoever comes first wins."""
    entry.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=entry.parent, prefix=".") as aside:
        folder = Path(aside) / entry.name
        folder.mkdir()
        interactions = loaded.interactions
        for split, matrix in _matrices(interactions).items():
            np.save(folder / f"{split}_indptr.npy", matrix.indptr)
            np.save(folder / f"{split}_indices.npy", matrix.indices)
        meta = {
            "name": interactions.name,
            "n_items": interactions.n_items,
            "fingerprint": interactions.fingerprint,
            "repeated_rows": loaded.repeated_rows,
        }
        (folder / "meta.json").write_text(json.dumps(meta))
        if _open(entry) is None:  # none by now, or a damaged one
            rmtree(entry, ignore_errors=True)
            os.rename(folder, entry)


def _open(entry: Path) -> _Loaded | None:
    """Map an entry into memory; None if there is none, or not a whole one."""
    try:
        meta = json.loads((entry / "meta.json").read_text())
        matrices = [
            csr_of(
                np.load(entry / f"{split}_indptr.npy", mmap_mode="r"),
                np.load(entry / f"{split}_indices.npy", mmap_mode="r"),
                meta["n_items"],
            )
            for split in SPLITS
        ]
        train, valid, test = matrices
        interactions = Interactions(
            meta["name"], *train.shape, train, valid, test, fingerprint=meta["fingerprint"]
        )
        loaded = _Loaded(interactions, meta["repeated_rows"])
    except (OSError, ValueError, KeyError, TypeError, EOFError):
        return None
    return loaded if fingerprint_of(*matrices) == interactions.fingerprint else None
