"""Packs: a grid's results in one file, so that others compare with them and retrain nothing.

A zip archive. ``pack.json`` says what it is and has the sha256 of every other file: the grid's
folder under ``grid/``, and of each run settings, versions, metrics and ranks under ``runs/<id>/``.
Files of equal bytes, such as the ranks of a reference that draws nothing, are in the archive once,
under the first of their paths.
"""

import io
import json
import re
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from bslbench import __version__
from bslbench.config import GRID_NAME, PROTOCOL, Cell
from bslbench.engine.store import Store, sha256
from bslbench.errors import ConfigError, DataError, suggest
from bslbench.files import write_atomically, writing
from bslbench.toml import read_toml

VERSION = 2
READABLE = (1, VERSION)
"""Version 1 had equal files once for each path, which reads the same."""
MANIFEST = "pack.json"
OF_GRID = ("grid.toml", "metrics.csv", "runs.csv", "study.toml", "trials.csv", "tuned.toml")
"""Of a grid's folder; the last three if it was tuned."""
OF_RUN = ("run.json", "metrics.csv", "curve.csv", "ranks.npz")
NAMES = re.compile(r"(grid|runs/[\w-][\w.-]*)/[\w-][\w.-]*", re.ASCII)


@dataclass(frozen=True)
class Pack:
    """The content of a pack, checked.

    Attributes
    ----------
    grid
        The grid's name.
    files
        Bytes by path, without the manifest.
    where
        What errors call it.
    """

    grid: str
    files: Mapping[str, bytes]
    where: str

    @cached_property
    def cells(self) -> list[Cell]:
        """The grid's cells, in the order of their ids.

        Raises
        ------
        DataError
            If one is not what its id says.
        """
        return [self._cell(run_id) for run_id in sorted(self._ids())]

    def _ids(self) -> set[str]:
        return {path.split("/")[1] for path in self.files if path.startswith("runs/")}

    def _cell(self, run_id: str) -> Cell:
        try:
            info = json.loads(self.files[f"runs/{run_id}/run.json"])
            cell = Cell.model_validate(info["canonical"])
        except (KeyError, ValueError) as error:
            raise DataError(f"{self.where}: the settings of {run_id} cannot be read") from error
        if cell.id != run_id:
            raise DataError(f"{self.where}: {run_id} has the settings of {cell.id}")
        return cell

    def text(self, name: str) -> str | None:
        """Return a file of the grid's folder, None if it is not there."""
        content = self.files.get(f"grid/{name}")
        return None if content is None else content.decode()

    def unpack(self, root: Path, grid: str) -> None:
        """Write the pack into a results folder, its grid under a name of its own.

        A run that is there with the same metrics and ranks stays as it is, in its own time.

        Raises
        ------
        ConfigError
            If a file is there that is another one; nothing is written then.
        """
        there = {run_id for run_id in self._ids() if self._is_at(root, run_id)}
        places = {
            root / (f"{grid}/{path[5:]}" if path.startswith("grid/") else path): content
            for path, content in self.files.items()
            if path.split("/")[1] not in there
        }
        for place, content in places.items():
            if place.is_file() and place.read_bytes() != content:
                raise ConfigError(
                    f"{place} is there and is not that of {self.where}; "
                    "unpack into another folder, by --results"
                )
        for place, content in places.items():
            with writing(place):
                place.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(place, content)

    def _is_at(self, root: Path, run_id: str) -> bool:
        """Tell whether a results folder has the run, with the same metrics and ranks."""
        run = Store(root).run(run_id)
        return run.whole() and all(
            file.is_file() and file.read_bytes() == self.files.get(f"runs/{run_id}/{file.name}")
            for file in map(run.file, ("metrics.csv", "ranks.npz"))
        )


def pack_grid(results: Path, grid: str) -> bytes:
    """Return a grid's pack; equal results give equal bytes.

    Raises
    ------
    ConfigError
        If there is no such grid, or it has runs that are not finished.
    """
    folder = results / grid
    if not (folder / "grid.toml").is_file():
        known = [file.parent.name for file in results.glob("*/grid.toml")]
        raise ConfigError(f"no results of a grid '{grid}' in {results}{suggest(grid, known)}")
    ids = [cell["id"] for cell in read_toml(folder / "grid.toml")["cells"]]
    store = Store(results)
    if lacking := [run_id for run_id in ids if not store.run(run_id).whole()]:
        raise ConfigError(
            f"grid '{grid}': {len(lacking)} of {len(ids)} runs are not finished, "
            f"such as {lacking[0]}; train the grid again"
        )
    files = {f"grid/{n}": folder / n for n in OF_GRID if (folder / n).is_file()}
    for run_id in ids:
        files |= {f"runs/{run_id}/{name}": store.run(run_id).file(name) for name in OF_RUN}
    content = {path: file.read_bytes() for path, file in sorted(files.items())}
    sums = {path: sha256(data) for path, data in content.items()}
    first = {digest: path for path, digest in reversed(sums.items())}
    manifest = {
        "pack": VERSION,
        "grid": grid,
        "protocol": PROTOCOL,
        "bslbench": __version__,
        "files": sums,
    }
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as out:
        out.writestr(
            zipfile.ZipInfo(MANIFEST), json.dumps(manifest, indent=1), zipfile.ZIP_DEFLATED
        )
        for path in sorted(first.values()):
            kind = zipfile.ZIP_STORED if path.endswith(".npz") else zipfile.ZIP_DEFLATED
            out.writestr(zipfile.ZipInfo(path), content[path], kind)
    return archive.getvalue()


def read_pack(content: bytes, where: str) -> Pack:
    """Return a pack, every file of it checked.

    Raises
    ------
    DataError
        If it is damaged or no pack, or was made under another version of the protocol.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            manifest = json.loads(archive.read(MANIFEST))
            if manifest["pack"] not in READABLE:
                raise DataError(f"{where}: a pack of version {manifest['pack']}, not {VERSION}")
            files = _checked(archive, manifest["files"], where)
            grid, protocol = str(manifest["grid"]), manifest["protocol"]
    except DataError:
        raise
    except Exception as error:  # damaged bytes make zipfile, zlib and json raise a dozen kinds
        raise DataError(f"{where} cannot be read as a pack: {error}") from error
    if not re.fullmatch(GRID_NAME, grid):
        raise DataError(f"{where}: its grid cannot be called {grid!r}")
    if protocol != PROTOCOL:
        raise DataError(
            f"{where}: made under version {protocol} of the protocol, this is version {PROTOCOL}: "
            "the figures do not compare"
        )
    return Pack(grid, files, where)


def _checked(archive: zipfile.ZipFile, sums: Mapping[str, str], where: str) -> dict[str, bytes]:
    """Return the bytes of every path that is listed, each what the manifest says."""
    stored = {name: archive.read(name) for name in archive.namelist() if name != MANIFEST}
    if not stored.keys() <= sums.keys():
        raise DataError(f"{where}: its files are not those that it lists")
    found = {name: sha256(data) for name, data in stored.items()}
    contents = {found[name]: data for name, data in stored.items()}
    for path, digest in sums.items():
        whole = found.get(path, digest) == digest and digest in contents
        if not (whole and NAMES.fullmatch(path)):
            raise DataError(f"{where}: {path} is not the file that was packed")
    return {path: contents[digest] for path, digest in sums.items()}
