"""Before a race: the data that it is about, entered once, and a plan, made once."""

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path

from bslbench.backbones import BACKBONES
from bslbench.engine.inputs import Options
from bslbench.engine.race.cost import affordable, costs
from bslbench.engine.race.ladder import Race, ladder
from bslbench.engine.race.plan import Plan, plan
from bslbench.engine.race.record import Folder, Record
from bslbench.engine.store import write_atomically, writing
from bslbench.errors import ConfigError, DataError
from bslbench.losses import LOSSES
from bslbench.own.add import Own, check_name, prepare, write
from bslbench.own.gather import Columns
from bslbench.plugins import Plugin, find

SOURCE = "source.json"


def name_of(files: Sequence[Path]) -> str:
    """Return what a dataset from files is called, if nobody says.

    Examples
    --------
    >>> name_of([Path("our data/shop orders.csv.gz")])
    'shop-orders'
    """
    stem = files[0].name.partition(".")[0]
    return re.sub(r"[^A-Za-z0-9_-]+", "-", stem).strip("-") or "data"


def add(
    name: str, files: Sequence[Path], columns: Columns, folder: Path, data: Path, catalog: Path
) -> Own | None:
    """Enter a dataset of files; nothing if an earlier call of the same race has.

    Parameters
    ----------
    folder
        The race's, which remembers what the dataset was made from.

    Raises
    ------
    ConfigError
        If there is another dataset of that name.
    DataError
        If a file is missing or malformed.
    """
    source = json.dumps({"files": [_stamp(path) for path in files], "columns": asdict(columns)})
    kept = folder / SOURCE
    known = kept.exists() and kept.read_text("utf-8") == source
    try:
        check_name(name, data, catalog)
    except ConfigError as error:
        if known:
            return None
        raise ConfigError(f"{error}; or use what is there by --dataset {name}") from error
    own = prepare(name, files, columns)
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
    write_atomically(kept, source)
    write(own, data, catalog)
    return own


def _stamp(path: Path) -> list[str | int]:
    try:
        stat = path.stat()
    except OSError as error:
        raise DataError(f"{path}: {error.strerror}") from error
    return [str(path.resolve()), stat.st_size, stat.st_mtime_ns]


def plugins(losses: Sequence[str], backbone: str) -> dict[str, Plugin]:
    """Return losses and backbone, by how they are asked for.

    Raises
    ------
    ConfigError
        For a name that is unknown, or a file without such a class.
    RunFailed
        If a file of the user's raises while it is imported.
    """
    found = {name: find(name, LOSSES, "loss") for name in losses}
    return found | {backbone: find(backbone, BACKBONES, "backbone")}


def planned(
    race: Race,
    options: Options,
    budget: float,
    jobs: int,
    seeds: int,
    probing: Callable[[str], None] = lambda text: None,
) -> Plan:
    """Return a plan for a race that is yet to begin. Nothing is written.

    Raises
    ------
    ConfigError
        If the budget is too short for any.
    """
    rungs = ladder(race, options)
    references, left_out = affordable(race, rungs[-1], budget * jobs)
    found = costs(race, rungs, references, options, probing)
    return plan(race, rungs, found, references, left_out, budget, jobs, seeds)


def begun(race: Race, folder: Folder, make: Callable[[], Plan]) -> Record:
    """Return the record of a race, begun now if it has not been before."""
    record = folder.read(race)
    if record is None:
        record = Record(race=race, plan=make())
        folder.write(record)
    return record
