"""What a race keeps in its folder: what it is, its plan, and how far each phase of it went."""

import json
from pathlib import Path
from typing import Any

from pydantic import Field

from bslbench.config import Strict
from bslbench.engine.race.ladder import Race
from bslbench.engine.race.plan import Plan
from bslbench.errors import ConfigError, DataError
from bslbench.files import write_atomically

SEEDS = "seeds"
"""The phase after the rungs, ``rung-0`` and so on: the final runs."""


class Record(Strict):
    """The content of ``race.json``.

    Attributes
    ----------
    done
        By phase, in their order, how many rounds of it count. Only those of the last rung and
        the final seeds grow, with the budget.
    """

    race: Race
    plan: Plan
    done: dict[str, int] = Field(default_factory=dict)


class Folder:
    """The folder of a race."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.path = root / "race.json"

    def read(self, race: Race) -> Record | None:
        """Return what was kept of the race, nothing if it is yet to begin.

        Raises
        ------
        ConfigError
            If the folder has another race, or one of code that has changed since.
        DataError
            If the file is damaged.
        """
        if not self.path.exists():
            return None
        try:
            kept = Record.model_validate(json.loads(self.path.read_bytes()))
        except (OSError, ValueError) as error:
            raise DataError(f"{self.path} is damaged; remove {self.root} to start anew") from error
        old, new = (one.model_dump(exclude={"sources"}) for one in (kept.race, race))
        for key, value in new.items():
            if old[key] != value:
                raise ConfigError(
                    f"{self.path}: this race has {key} = {old[key]!r}, not {value!r}; "
                    "give another --name"
                )
        for asked, source in race.sources.items():
            if kept.race.sources.get(asked) != source:
                raise ConfigError(f"{asked} has changed since the race began; give another --name")
        return kept

    def write(self, record: Record) -> None:
        """Keep it."""
        content: dict[str, Any] = record.model_dump()
        write_atomically(self.path, json.dumps(content, indent=1) + "\n")

    def decide(self, record: Record, phase: str, rounds: int) -> Record:
        """Keep that so many rounds of a phase count, and return the record with it.

        Of what comes after the phase nothing counts any more, though it stays known that it has
        been done once.
        """
        phases = list(record.done)
        after = phases[phases.index(phase) + 1 :] if phase in phases else []
        done = record.done | {phase: rounds} | dict.fromkeys(after, 0)
        record = record.model_copy(update={"done": done})
        self.write(record)
        return record
