"""Before a race: what it is about is looked up, and a plan is made, once."""

from collections.abc import Callable, Sequence

from bslbench.backbones import BACKBONES
from bslbench.engine.inputs import Options
from bslbench.engine.race.cost import affordable, costs, side_by_side
from bslbench.engine.race.ladder import Race, ladder
from bslbench.engine.race.plan import Plan, plan
from bslbench.engine.race.record import Folder, Record
from bslbench.errors import ConfigError
from bslbench.losses import LOSSES
from bslbench.plugins import Plugin, find


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
    able = side_by_side(found, jobs)
    return plan(race, rungs, found, references, left_out, budget, able, seeds)


def begun(race: Race, folder: Folder, make: Callable[[], Plan]) -> Record:
    """Return the record of a race, begun now if it has not been before.

    Raises
    ------
    ConfigError
        As `Folder.read`, or if there are results of that name that are no race's.
    """
    record = folder.read(race)
    if record is None:
        if (folder.root.parent / "grid.toml").exists():
            raise ConfigError(f"{folder.root.parent} has results of a grid; give another --name")
        record = Record(race=race, plan=make())
        folder.write(record)
    return record
