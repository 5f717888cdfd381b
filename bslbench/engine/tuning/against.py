"""A new loss against a study's results: the same effort for it, and nothing else trained anew."""

import csv
import io
import shutil
import tomllib
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bslbench.backbones import BACKBONES
from bslbench.catalog import DatasetSpec
from bslbench.config import Cell, TrainSettings
from bslbench.data.load import load
from bslbench.engine.grid_files import csv_text
from bslbench.engine.pack import OF_RUN, Pack, pack_grid, read_pack
from bslbench.engine.store import Store
from bslbench.engine.tuning.study import Study, as_toml
from bslbench.errors import ConfigError, DataError
from bslbench.files import locked, write_atomically
from bslbench.losses import LOSSES
from bslbench.plugins import find
from bslbench.toml import validated


def open_pack(asked: str, results: Path) -> Pack:
    """Return the pack in a file, or that of a grid in the results.

    Of a grid of which there are tables alone this is the one that lies in its folder.

    Raises
    ------
    ConfigError, DataError
        As `pack_grid` and `read_pack`.
    """
    path = Path(asked)
    if path.suffix != ".zip":
        path = results / asked / f"{asked}.zip"
        if not (path.is_file() and Store(results).has_tables_alone(asked)):
            return read_pack(pack_grid(results, asked), f"grid '{asked}'")
    try:
        return read_pack(path.read_bytes(), str(path))
    except OSError as error:
        raise DataError(f"{path}: {error.strerror}") from error


def rival(
    pack: Pack,
    loss: str,
    name: str,
    data: Path | None = None,
    catalog: Mapping[str, DatasetSpec] | None = None,
) -> tuple[Study, int, list[int]]:
    """Return the study that gives a new loss what the pack's had, its rounds, and the final seeds.

    Raises
    ------
    ConfigError
        If the pack's losses were not tuned, or not all alike, or one has the name of the new one.
    DataError
        If the data here are not those of the pack.
    """
    study_toml, trials = pack.text("study.toml"), pack.text("trials.csv")
    if study_toml is None or trials is None:
        raise ConfigError(
            f"{pack.where}: its losses were not tuned (no study.toml), so that there is no budget "
            "to give to another; make it by `bslbench tune`"
        )
    content, counts = _told(study_toml, trials, pack.where)
    if len(set(counts.values())) != 1:
        each = ", ".join(f"{name} {n}" for name, n in counts.items())
        raise ConfigError(f"{pack.where}: its losses had different numbers of trials: {each}")
    here = load(content["dataset"], data, catalog)
    if here.fingerprint != content["fingerprint"]:
        raise DataError(
            f"{pack.where}: made from other data than {content['dataset']} here: fingerprint "
            f"{content['fingerprint'][:12]}, not {here.fingerprint[:12]}"
        )
    fields = {key: content[key] for key in Study.model_fields if key in content}
    fields |= {"name": name, "losses": [loss], "references": []}
    backbone = find(content["backbone"], BACKBONES, "backbone")
    plugin = find(loss, LOSSES, "loss")
    if (plugin.name, backbone.name) in {(cell.loss, cell.backbone) for cell in pack.cells}:
        raise ConfigError(
            f"{pack.where} has a loss '{plugin.name}' already: give the new class another name"
        )
    known = {*TrainSettings.model_fields, *plugin.parameters()}
    known |= backbone.parameters().keys()
    fields["set"] = {key: value for key, value in content["set"].items() if key in known}
    study = validated(Study, fields, pack.where)
    seeds = sorted({cell.seed for cell in pack.cells if cell.train})
    return study, next(iter(counts.values())), seeds


def _told(study_toml: str, trials: str, where: str) -> tuple[dict[str, Any], Counter[str]]:
    """Return a study's record, and how many trials each of its losses had."""
    try:
        content = tomllib.loads(study_toml)
        counts = Counter(row["loss"] for row in csv.DictReader(io.StringIO(trials)))
        for key in ("dataset", "backbone", "fingerprint", "set", "loss"):
            content[key]
    except (ValueError, KeyError) as error:
        raise DataError(f"{where}: its study.toml or trials.csv is damaged: {error}") from error
    return content, counts


def join(pack: Pack, study: Study, cells: Sequence[Cell], store: Store, root: Path) -> None:
    """Write a results folder with the pack's runs and those of the new loss, as one grid."""
    both = Store(root)
    with locked(root.parent):
        shutil.rmtree(root, ignore_errors=True)
        pack.unpack(root, study.name)
        for cell in cells:
            target = both.run(cell.id)
            target.folder.mkdir(parents=True)
            for name in OF_RUN:
                write_atomically(target.file(name), store.run(cell.id).file(name).read_bytes())
        both.write_grid(study.name, [*pack.cells, *cells])
        _join_studies(root / study.name, store.root / study.name)


def _join_studies(ours: Path, new: Path) -> None:
    """Add what the study in `new` says to the files of the one in `ours`."""
    old_study = tomllib.loads((ours / "study.toml").read_text("utf-8"))
    new_study = tomllib.loads((new / "study.toml").read_text("utf-8"))
    together = old_study | {
        "name": new_study["name"],
        "loss": old_study["loss"] | new_study["loss"],
    }
    rows: list[dict[str, str]] = []
    columns: dict[str, None] = {}
    for folder in (ours, new):
        with (folder / "trials.csv").open(newline="") as file:
            reader = csv.DictReader(file)
            rows += reader
            columns |= dict.fromkeys(reader.fieldnames or ())
    tuned = "\n".join((folder / "tuned.toml").read_text("utf-8") for folder in (ours, new))
    write_atomically(ours / "study.toml", as_toml(together))
    write_atomically(ours / "trials.csv", csv_text(list(columns), rows))
    write_atomically(ours / "tuned.toml", tuned)
