"""Where the time of runs went, as their ``run.json`` has it."""

from collections.abc import Iterable

from tabulate import tabulate

from bslbench.engine.store import Run
from bslbench.training import PHASES

COLUMNS = {
    "load": "read the data, hold out",
    "start": "build the backbone, start its tables",
    "scores": "draw negatives, score",
    "loss": "the loss",
    "backward": "all gradients",
    "adam": "the optimiser",
    "other": "the rest of training",
    "eval": "rank to pick the epoch",
    "test": "final ranking",
}


def profile(runs: Iterable[Run]) -> str:
    """Return seconds per phase of each finished run, and what the phases are, as text."""
    rows = []
    for run in runs:
        info = run.info() if run.whole() else {}
        if "seconds" not in info:
            continue
        seconds = dict(info["seconds"])
        train = seconds.pop("train")
        seconds["other"] = train - sum(seconds.get(phase, 0.0) for phase in PHASES)
        total = train + seconds["load"] + seconds["eval"] + seconds["test"]
        shown = [seconds.get(column, 0.0) for column in COLUMNS]
        rows.append([run.folder.name, info["outcome"]["epochs_run"], *shown, total])
    table = tabulate(rows, ["run", "epochs", *COLUMNS, "total s"], "simple", floatfmt=".2f")
    return table + "\n" + "; ".join(f"{name}: {what}" for name, what in COLUMNS.items())
