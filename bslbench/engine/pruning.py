"""Pruning: a trial that lies below the middle of earlier ones of the same loss is given up."""

import json
from collections.abc import Mapping
from dataclasses import dataclass

from bslbench.config import Cell
from bslbench.engine.store import Run
from bslbench.files import write_atomically
from bslbench.training import Interrupted

Curve = Mapping[int, float]
"""Recall@20 by evaluated epoch."""

Bar = Mapping[int, float]
"""By epoch, the best Recall@20 so far that a run needs to go on."""

FILE = "pruned.json"


class Pruned(Interrupted):
    """The run stayed below its bar; its curve is kept, its weights are not."""


@dataclass(frozen=True)
class Past:
    """What is known of a run that was finished or given up.

    Attributes
    ----------
    curve
        Up to its end, or up to where it fell below the bar; one point for what has no epochs.
    seconds
        Of training and evaluation.
    pruned
        Whether it fell below.
    """

    curve: Curve
    seconds: float
    pruned: bool


def fallen(curve: Curve, bar: Bar) -> int | None:
    """Return the first epoch at which the best value so far lies below the bar.

    Examples
    --------
    >>> fallen({0: 0.1, 1: 0.2, 2: 0.1}, {1: 0.2, 2: 0.25})
    2
    """
    best = float("-inf")
    for epoch, value in sorted(curve.items()):
        best = max(best, value)
        if best < bar.get(epoch, float("-inf")):
            return epoch
    return None


def give_up(run: Run, curve: Curve, seconds: float) -> None:
    """Leave a run's curve behind, and take away what it would have gone on from."""
    content = {"curve": {str(epoch): value for epoch, value in curve.items()}, "seconds": seconds}
    write_atomically(run.file(FILE), json.dumps(content) + "\n")
    for name in ("state.pt", "progress.json"):
        run.file(name).unlink(missing_ok=True)


def past(run: Run, cell: Cell, bar: Bar) -> Past | None:
    """Return what a run came to under a bar; None if it is yet to be made.

    A run that was finished for another purpose is cut off where this bar would have stopped it.
    """
    if run.finished(cell):
        outcome = run.info()["outcome"]
        seconds = float(outcome["seconds_train"] + outcome["seconds_eval"])
        return _cut(run.curve() or {0: run.selected(cell)}, seconds, bar)
    kept = run.read(FILE)
    if not kept:
        return None
    found = _cut({int(k): v for k, v in kept["curve"].items()}, kept["seconds"], bar)
    return found if found.pruned else None


def _cut(curve: dict[int, float], seconds: float, bar: Bar) -> Past:
    end = fallen(curve, bar)
    if end is None:
        return Past(curve, seconds, pruned=False)
    short = {epoch: value for epoch, value in curve.items() if epoch <= end}
    return Past(short, seconds * (end + 1) / (max(curve) + 1), pruned=True)
