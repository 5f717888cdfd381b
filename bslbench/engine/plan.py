"""What a grid asks for, what is left of it, and about how long and how large that is."""

import math
import resource
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from statistics import median
from time import perf_counter

from bslbench.config import Cell
from bslbench.engine.cell import built, evaluate, reference, trained
from bslbench.engine.failures import reason_of
from bslbench.engine.inputs import Options, split_of
from bslbench.engine.running import Part
from bslbench.engine.status import WORDS, span
from bslbench.engine.store import Store
from bslbench.errors import RunFailed
from bslbench.memory import gigabytes
from bslbench.training import Interrupted, train

STEPS = 6
"""Training steps of a probe; the first one, which compiles, does not count."""

Evaluations = dict[str, tuple[float, float]]
"""Seconds of an evaluation and the process's MiB while at it, by what these depend on."""


@dataclass(frozen=True)
class Cost:
    """What one cell takes at most: early stopping can only make it shorter.

    Attributes
    ----------
    step, evaluation
        Seconds of one training step, and of one evaluation.
    epoch, seconds
        Seconds of one epoch with its share of the evaluations, and of the whole run.
    megabytes
        Of the whole process.
    failure
        Why the probe failed.
    """

    step: float = 0.0
    evaluation: float = 0.0
    epoch: float = 0.0
    seconds: float = 0.0
    megabytes: float = 0.0
    failure: str = ""


def plan(
    cells: Sequence[Cell],
    store: Store,
    options: Options,
    part: Part,
    jobs: int,
    tell: Callable[[str], None] = lambda text: None,
) -> tuple[list[dict[str, str]], str]:
    """Return a table, one row for all cells of equal cost, and a summary. Nothing is written.

    Parameters
    ----------
    jobs
        How many cells run at a time.
    tell
        Called with each probe's name before it starts.
    """
    pending = {cell.id for cell in part.pending(cells, store, options)}
    groups: dict[str, list[Cell]] = {}
    for cell in part.of(cells):
        groups.setdefault(_alike(cell), []).append(cell)
    firsts = [group[0] for group in groups.values()]
    columns = list(_distinguishing(firsts))
    rows, total = [], 0.0
    evaluations: Evaluations = {}
    for group in groups.values():
        todo = [cell for cell in group if cell.id in pending]
        row = {column: str(group[0].flat().get(column, "")) for column in columns}
        row |= {"cells": str(len(group)), "to do": str(len(todo))}
        if todo and todo[0].train:
            tell(f"probing {todo[0].dataset}, {todo[0].backbone}, {todo[0].loss}")
            cost = _cost(todo[0], options, evaluations)
            total += len(todo) * cost.seconds
            row |= {"epochs <=": str(todo[0].train.epochs)} | _shown(cost)
        elif todo:
            data = split_of(todo[0], options)
            row |= {"memory": gigabytes(reference(todo[0]).n_bytes(data.n_users, data.n_items))}
        rows.append(row)
    states = Counter(store.run(cell.id).status() for cell in part.of(cells))
    counts = ", ".join(f"{states[state]} {word}" for state, word in WORDS.items() if states[state])
    together = f", {jobs} at a time" if jobs > 1 else ""
    summary = f"{len(part.of(cells))} cells: {counts}; {len(pending)} to do"
    return rows, summary + (f", at most about {span(total / jobs)}{together}" if total else "")


def _shown(cost: Cost) -> dict[str, str]:
    if cost.failure:
        return {"time <=": f"fails: {cost.failure}"}
    memory = f"{cost.megabytes / 1024:.1f} GB"
    return {"epoch": f"{cost.epoch:.3g} s", "memory": memory, "time <=": span(cost.seconds)}


def _alike(cell: Cell) -> str:
    """Return what a cell's cost depends on: neither the seed nor real numbers such as tau or lr."""
    flat = {k: v for k, v in cell.flat().items() if k != "seed" and not isinstance(v, float)}
    return repr(sorted(flat.items()))


def _distinguishing(cells: Sequence[Cell]) -> Iterator[str]:
    """Yield the fields that tell groups apart, after the three that name them."""
    yield from ("dataset", "backbone", "loss")
    flats = [cell.flat() for cell in cells if cell.train]
    for key in dict.fromkeys(key for flat in flats for key in flat):
        values = {(flat["loss"], flat["backbone"], repr(flat.get(key))) for flat in flats}
        pairs = {(flat["loss"], flat["backbone"]) for flat in flats}
        if key in ("dataset", "fingerprint", "seed") or len(values) == len(pairs):
            continue
        if not any(isinstance(flat.get(key), float) for flat in flats):
            yield key


def _ranked_alike(cell: Cell) -> str:
    """Return what the cost of an evaluation depends on: neither the loss nor how it is trained."""
    settings = trained(cell)
    data = (cell.fingerprint, cell.selection, cell.eval_users)
    model = (cell.backbone, cell.backbone_source, cell.backbone_params)
    return repr((data, model, settings.dim, settings.score_test))


def _cost(cell: Cell, options: Options, evaluations: Evaluations) -> Cost:
    try:
        return _probe(cell, options, evaluations)
    except Exception as error:
        return Cost(failure=reason_of(error))


def probe(cell: Cell, options: Options) -> Cost:
    """Measure a few steps and an evaluation of a cell that trains, in this process.

    Raises
    ------
    RunFailed
        With the reason, if that cannot be done.
    """
    try:
        return _probe(cell, options, {})
    except Exception as error:
        raise RunFailed(f"{cell.loss} on {cell.backbone}: {reason_of(error)}") from error


def _probe(cell: Cell, options: Options, evaluations: Evaluations) -> Cost:
    """Measure a cell; evaluations known are not made again, and what is measured enters."""
    settings = trained(cell)
    short = settings.model_copy(update={"epochs": STEPS + 1, "patience": STEPS + 1})
    data = split_of(cell, options)
    clock: list[float] = []

    def stop() -> bool:
        clock.append(perf_counter())
        return len(clock) > STEPS

    _forget_peak()
    with built(cell, data) as (backbone, loss, _):
        with suppress(Interrupted):
            train(
                short,
                data,
                backbone,
                loss,
                seed=cell.seed,
                evaluate=lambda model: (0.0, 0.0),
                stop=stop,
            )
        trained_in = _peak()
        if (alike := _ranked_alike(cell)) not in evaluations:
            _forget_peak()
            for _ in range(2):  # the first one compiles
                started = perf_counter()
                evaluate(backbone, settings, data, cell.selection, cell.eval_users)
                evaluations[alike] = perf_counter() - started, _peak()
    step = median(later - earlier for earlier, later in pairwise(clock))
    steps = math.ceil(data.clean_train.nnz / settings.batch_size)
    n_evaluations = math.ceil(settings.epochs / settings.eval_every)
    evaluation, evaluated_in = evaluations[alike]
    seconds = settings.epochs * steps * step + (n_evaluations + 2) * evaluation
    return Cost(step, evaluation, seconds / settings.epochs, seconds, max(trained_in, evaluated_in))


def _forget_peak() -> None:
    """Let the peak of this process's memory count from now on, where the system can."""
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def _peak() -> float:
    """Return the largest memory of this process so far, in MiB."""
    status = Path("/proc/self/status")
    for line in status.read_text().splitlines() if status.exists() else []:
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) / 1024
    unit = 1024**2 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit
