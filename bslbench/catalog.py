"""The catalog: which datasets there are, where their files lie, and how to tell the right ones.

It comes from ``datasets.toml`` in the package, the one in the working directory, and the one that
the user names (``--catalog``); a later entry replaces an earlier one of the same name.
"""

import hashlib
import os
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import platformdirs
from pydantic import Field

from bslbench.config import Strict
from bslbench.errors import ConfigError, DataError, suggest
from bslbench.toml import validated

Split = Literal["train", "valid", "test"]
Format = Literal["user_lists", "pairs", "triples", "tsv", "json_lists", "parquet"]

CHUNK = 1 << 20
LOCAL = Path("datasets.toml")
"""The catalog of the working directory."""

PLAIN_NAME = r"^[A-Za-z0-9_][A-Za-z0-9._-]*$"


class FileSpec(Strict):
    """One split's file: where it comes from and how to know that it is the right one.

    A checksum that is empty and a size or a number of pairs that is None are not checked.
    """

    name: str = Field(pattern=PLAIN_NAME, description="file name in the dataset's folder")
    url: str = Field("", pattern=r"^(https?://.+)?$")
    bytes: int | None = Field(None, ge=0)
    sha256: str = Field("", pattern=r"^([0-9a-f]{64})?$")
    git_blob: str = Field("", pattern=r"^([0-9a-f]{40})?$", description="git hash-object FILE")
    member: str = Field("", description="the file inside an archive")
    member_sha256: str = Field("", pattern=r"^([0-9a-f]{64})?$")
    reader: Format | None = Field(None, description="where it differs from the dataset's")
    pairs: int | None = Field(None, ge=0, description="rows to expect")

    @property
    def has_checksum(self) -> bool:
        """Whether the bytes are known, so that any other bytes can be told."""
        return bool(self.sha256 or self.git_blob)


class DatasetSpec(Strict):
    """One entry of the catalog.

    `user_offset` and `item_offset` are subtracted from the ids as written; `n_users` and `n_items`
    that are not given follow from the largest ids.
    """

    name: str = Field(pattern=PLAIN_NAME)
    title: str = ""
    citation: str = ""
    licence: str = ""
    source: str = Field("", description="home page")
    reader: Format | Literal["synthetic"]
    files: dict[Split, FileSpec] = Field({}, description="train and test, and perhaps valid")
    packs: dict[str, FileSpec] = Field({}, description="results of grids on it, by name")
    n_users: int | None = Field(None, ge=1)
    n_items: int | None = Field(None, ge=1)
    user_offset: int = Field(0, ge=0)
    item_offset: int = Field(0, ge=0)
    split_seed: int = Field(0, ge=0, description="seed of the validation hold-out")
    allow_overlap: bool = Field(False, description="a pair may be in two splits")
    ids: dict[Literal["users", "items"], str] = Field(
        {}, description="files of what users and items are called, if not by their numbers"
    )

    @property
    def downloads(self) -> list[FileSpec]:
        """The files to have, each once: two splits may come from one archive."""
        return list({file.name: file for file in self.files.values()}.values())

    @property
    def of_packs(self) -> "DatasetSpec":
        """The same entry with its packs in place of its files."""
        return self.model_copy(update={"files": self.packs})

    def path(self, file: FileSpec, data: Path) -> Path:
        """Return where a file lies below the data folder `data`."""
        return data / self.name / file.name


def load_catalog(path: Path | None = None) -> dict[str, DatasetSpec]:
    """Return the packaged entries, extended by ``./datasets.toml`` and by `path`.

    Raises
    ------
    ConfigError
        Naming the file, and the line or the key that is wrong.

    Examples
    --------
    >>> load_catalog()["gowalla"].n_users
    29858
    """
    catalog = packaged()
    if LOCAL.is_file():
        catalog |= read_catalog(LOCAL)
    if path is not None:
        catalog |= read_catalog(path)
    return catalog


def packaged() -> dict[str, DatasetSpec]:
    """Return the entries that come with the package."""
    return read_catalog(packaged_at())


def packaged_at() -> Path:
    """Return where the catalog that comes with the package lies."""
    inside = Path(__file__).with_name("datasets.toml")
    # In a checkout it lies beside the package's folder.
    return inside if inside.is_file() else inside.parents[1] / inside.name


def get(catalog: Mapping[str, DatasetSpec], name: str) -> DatasetSpec:
    """Return the entry called `name`; a `ConfigError` suggests the nearest one."""
    if name not in catalog:
        raise ConfigError(
            f"no dataset named '{name}'{suggest(name, catalog)} (one of your own stands in the "
            "datasets.toml of the folder that it was added in, or say --catalog)"
        )
    return catalog[name]


def split_name(name: str) -> tuple[str, dict[str, str]]:
    """Split a dataset's name from its modifiers.

    Examples
    --------
    >>> split_name("synthetic?users=1e4&items=500")
    ('synthetic', {'users': '1e4', 'items': '500'})
    >>> split_name("yelp2018")
    ('yelp2018', {})
    """
    base, mark, rest = name.partition("?")
    modifiers: dict[str, str] = {}
    for part in rest.split("&") if mark else []:
        key, _, value = part.partition("=")
        if not key or not value:
            raise ConfigError(f"dataset '{name}': '{part}' is not of the form key=value")
        if key in modifiers:
            raise ConfigError(f"dataset '{name}': '{key}' is given twice")
        modifiers[key] = value
    return base, modifiers


def data_dir(option: Path | None = None) -> Path:
    """Return the data folder: `option` (``--data``), else ``BSLBENCH_DATA``, else the cache's."""
    if option is not None:
        return option
    if folder := os.environ.get("BSLBENCH_DATA"):
        return Path(folder)
    return platformdirs.user_cache_path("bslbench") / "data"


def missing_files(spec: DatasetSpec, data: Path) -> list[Path]:
    """Return the paths of those of a dataset's files that are not there."""
    paths = [spec.path(file, data) for file in spec.downloads]
    return [path for path in paths if not path.is_file()]


def verify(path: Path, file: FileSpec) -> None:
    """Raise a `DataError` that says what differs unless `path` has the right size and checksums."""
    if differs := difference(path, file):
        hint = f"; `bslbench download {path.parent.name}` fetches it anew" if file.url else ""
        raise DataError(f"{path}: {differs}{hint}")


def difference(path: Path, file: FileSpec) -> str:
    """Say how a file differs from the one that the catalog describes; empty if it does not.

    Raises
    ------
    DataError
        If there is no such file or it cannot be read.
    """
    try:
        size = path.stat().st_size
        if file.bytes is not None and size != file.bytes:
            return f"it has {size:,} bytes, expected {file.bytes:,}"
        digests = {
            "sha256": (hashlib.sha256(), file.sha256),
            "git blob id": (
                hashlib.sha1(b"blob %d\0" % size, usedforsecurity=False),
                file.git_blob,
            ),
        }
        wanted = {kind: pair for kind, pair in digests.items() if pair[1]}
        if wanted:
            with path.open("rb") as stream:
                while block := stream.read(CHUNK):
                    for digest, _ in wanted.values():
                        digest.update(block)
    except OSError as error:
        raise DataError(f"{path}: {error.strerror}") from error
    for kind, (digest, expected) in wanted.items():
        if digest.hexdigest() != expected:
            return f"its {kind} is {digest.hexdigest()[:12]}..., expected {expected[:12]}..."
    return ""


def read_catalog(path: Path) -> dict[str, DatasetSpec]:
    """Return the entries of one file.

    Raises
    ------
    ConfigError
        Naming the file, and the line or the key that is wrong.
    """
    try:
        content = tomllib.loads(path.read_text("utf-8"))
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: not valid TOML: {error}") from error
    return {name: _entry(name, entry, f"{path}: {name}") for name, entry in content.items()}


def _entry(name: str, entry: Any, where: str) -> DatasetSpec:
    """Check one table; its files one by one, so that a mistyped key gets the right suggestion."""
    files = entry.get("files", {}) if isinstance(entry, dict) else None
    if not isinstance(files, dict):
        raise ConfigError(f"{where}: expected tables [{name}] and [{name}.files.SPLIT]")
    checked = {
        split: validated(FileSpec, file, f"{where}.files.{split}") for split, file in files.items()
    }
    spec = validated(DatasetSpec, entry | {"name": name, "files": checked}, where)
    if spec.reader == "synthetic":
        if spec.files:
            raise ConfigError(f"{where}: a synthetic dataset has no files")
    elif not {"train", "test"} <= spec.files.keys():
        raise ConfigError(f"{where}: tables files.train and files.test are needed")
    return spec
