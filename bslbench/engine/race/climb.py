"""The rungs of a race: many settings on few users, then the best of each loss on more of them."""

from collections.abc import Sequence

from bslbench.engine.race.heats import Heat, Means
from bslbench.engine.race.plan import PLANNED_SEEDS
from bslbench.engine.race.record import SEEDS, Record
from bslbench.engine.race.stages import Promoted, Stage, Tuned
from bslbench.engine.running import WHOLE
from bslbench.errors import RunFailed

AGAIN = 2
"""Settings of each on the last rung up to which a larger budget goes, after final runs."""


def climb(record: Record, means: Means, seeds: int, jobs: int) -> tuple[Record, Sequence[Heat]]:
    """Run all rungs, or what is left of them.

    Raises
    ------
    RunFailed
        If no loss could be trained.
    DataError
        If a run is gone that a rung was decided by.
    Interrupted
        After SIGINT or SIGTERM.
    """
    plan = record.plan
    heats: list[Heat] = []
    for number, rung in enumerate(plan.rungs):
        phase = f"rung-{number}"
        stage: Stage = Promoted(record, means, heats) if heats else Tuned(record, means)
        if phase not in record.done:
            stage.tried(stage.least, WHOLE)
            with means.execute.until(plan.ends[number] * means.budget):
                made = stage.tried(rung.rounds)
            record = means.folder.decide(record, phase, made)
        heat = stage.heat(record.done[phase], jobs)
        if not heat.losses():
            why = "; ".join(f"{name}: {reason}" for name, reason in heat.fallen().items())
            raise RunFailed(f"no loss could be trained on {heat.rung.dataset}: {why}")
        heats.append(heat)
    record, last = _more(record, means, stage, heats[-1], min(PLANNED_SEEDS, seeds), jobs)
    return record, [*heats[:-1], last]


def _more(
    record: Record, means: Means, stage: Stage, heat: Heat, seeds: int, jobs: int
) -> tuple[Record, Heat]:
    """Try more settings on the last rung, one of each at a time, if seeds have time after them."""
    phase = f"rung-{len(record.plan.rungs) - 1}"
    most = min(stage.most, AGAIN) if SEEDS in record.done else stage.most
    while (made := record.done[phase]) < most:
        end = record.plan.ends[-1] * means.budget - seeds * heat.round_seconds
        enough = means.execute.clock.spent() + heat.round_seconds <= end
        if not (enough or stage.begun(made)):  # cut off here, it goes on
            break
        with means.execute.until(end):
            if stage.tried(made + 1) <= made:
                break
        record = means.folder.decide(record, phase, made + 1)
        heat = stage.heat(made + 1, jobs)
    return record, heat
