"""One run, start to end: data, training, ranking, results on disk."""

import io
import json
import platform
import shutil
import subprocess
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from functools import lru_cache
from pathlib import Path
from time import monotonic, perf_counter
from typing import Any

import numpy as np
import torch
from filelock import FileLock, Timeout
from safetensors.torch import save

import bslbench
from bslbench.backbones import BACKBONES, Backbone
from bslbench.catalog import DatasetSpec
from bslbench.config import REFERENCE, Cell, Selection, TrainSettings
from bslbench.data.interactions import Interactions
from bslbench.data.load import load
from bslbench.data.splits import hold_out
from bslbench.engine.store import TRAILING, Run, Store, csv_text, write_atomically
from bslbench.errors import DataError, RunFailed
from bslbench.evaluation.metrics import per_user, summary
from bslbench.evaluation.ranking import EmbeddingScorer, Scorer, rank_all
from bslbench.losses import LOSSES
from bslbench.losses.base import as_loss
from bslbench.plugins import blaming, find
from bslbench.references import REFERENCES
from bslbench.seeding import generator
from bslbench.training import Evaluation, Interrupted, Progress, train

KEEP_EVERY = 30.0
"""Seconds between two writes of a run's state."""


def run_cell(
    cell: Cell,
    store: Store,
    *,
    data: Path | None = None,
    catalog: Mapping[str, DatasetSpec] | None = None,
    save_model: bool = False,
    force: bool = False,
    stop: Callable[[], bool] = lambda: False,
    show: Callable[[Evaluation], None] = lambda evaluation: None,
) -> None:
    """Train and rank one cell and store what came out, going on where an earlier call was cut off.

    Raises
    ------
    RunFailed
        If it cannot be finished (``failure.json`` has the reason and the traceback), or another
        process is at it.
    Interrupted
        If `stop` said so; ``state.pt`` has all that the next call needs.
    """
    run = store.run(cell.id)
    run.folder.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(run.file(".lock"), timeout=0):
            run.file("failure.json").unlink(missing_ok=True)
            if force:
                run.file("metrics.csv").unlink(missing_ok=True)
                run.file("state.pt").unlink(missing_ok=True)
            with _recording_failure(run):
                _finish(cell, run, data, catalog, save_model, stop, show)
    except Timeout as error:
        raise RunFailed(f"{cell.id} is being trained by another process") from error


def _finish(
    cell: Cell,
    run: Run,
    data: Path | None,
    catalog: Mapping[str, DatasetSpec] | None,
    save_model: bool,
    stop: Callable[[], bool],
    show: Callable[[Evaluation], None],
) -> None:
    started = perf_counter()
    interactions = load(cell.dataset, data, catalog)
    if interactions.fingerprint != cell.fingerprint:
        raise DataError(f"{cell.dataset} is no longer the data that {cell.id} was planned on")
    split = hold_out(interactions, cell.selection)
    seconds = {"load": perf_counter() - started}
    progress = Progress()
    if cell.backbone == REFERENCE:
        scorer = REFERENCES[cell.loss](split, cell.seed)
    else:
        backbone, progress = _train(cell, run, split, stop, show)
        scorer = _scorer(backbone, cell.train)
        if save_model:
            users, items = (table.detach().contiguous() for table in backbone.tables())
            write_atomically(run.file("model.safetensors"), save({"users": users, "items": items}))
    seconds |= {"train": progress.seconds_train, "eval": progress.seconds_eval}
    started = perf_counter()
    rows, outcome = _rank(scorer, split, cell.selection, run)
    seconds["test"] = perf_counter() - started
    outcome |= {"best_epoch": progress.best_epoch, "epochs_run": progress.epoch}
    outcome |= {f"seconds_{phase}": round(spent, 3) for phase, spent in seconds.items()}
    info = {"canonical": json.loads(cell.canonical()), "origin": cell.origin}
    info["outcome"] = outcome | environment()
    write_atomically(run.file("curve.csv"), _curve(progress))
    write_atomically(run.file("run.json"), json.dumps(info, indent=1) + "\n")
    write_atomically(run.file("metrics.csv"), csv_text(TRAILING, rows))
    run.file("state.pt").unlink(missing_ok=True)


def _train(
    cell: Cell,
    run: Run,
    data: Interactions,
    stop: Callable[[], bool],
    show: Callable[[Evaluation], None],
) -> tuple[Backbone, Progress]:
    assert cell.train is not None
    settings = cell.train
    user_files = []
    for spec, source in (
        (cell.loss_path, cell.loss_source),
        (cell.backbone_path, cell.backbone_source),
    ):
        if spec:
            plugin = find(spec, {}, "class")
            if plugin.source != source:
                raise RunFailed(f"{plugin.path} has changed since {cell.id} was planned")
            shutil.copy(plugin.path, run.folder)
            user_files.append(plugin.path)
    with blaming(*user_files):
        draws = generator(cell.seed, "init")
        backbone_class: Any = find(cell.backbone_path or cell.backbone, BACKBONES, "backbone").cls
        backbone = backbone_class(data, settings.dim, draws, **cell.backbone_params)
        loss_class: Any = find(cell.loss_path or cell.loss, LOSSES, "loss").cls
        loss = as_loss(loss_class(**cell.loss_params))
        written = monotonic()

        def keep(state: dict[str, Any], at_once: bool = False) -> None:
            nonlocal written
            if at_once or monotonic() - written >= KEEP_EVERY:
                buffer = io.BytesIO()
                torch.save({"made_by": _made_by(cell), **state}, buffer)
                write_atomically(run.file("state.pt"), buffer.getvalue())
                written = monotonic()

        progress = train(
            settings,
            data,
            backbone,
            loss,
            seed=cell.seed,
            evaluate=lambda model: _evaluate(model, settings, data, cell.selection),
            state=_state(cell, run),
            keep=keep,
            stop=stop,
            show=show,
        )
    return backbone, progress


def _state(cell: Cell, run: Run) -> dict[str, Any] | None:
    """Return what an earlier call kept, if it was the same cell on the same kind of machine."""
    try:
        state = torch.load(run.file("state.pt"), weights_only=True)
        if state.pop("made_by") == _made_by(cell):
            return dict(state)
    except FileNotFoundError:
        return None
    except Exception:  # torch.load raises many kinds on a damaged file; training starts afresh
        run.file("state.pt").unlink(missing_ok=True)
    return None


def _made_by(cell: Cell) -> str:
    """Return what must be the same for a resumed run to end in the same bits."""
    versions = f"torch {torch.__version__}, numpy {np.__version__}"
    return f"{cell.canonical()} {versions}, {torch.backends.cpu.get_cpu_capability()}"


def _scorer(backbone: Backbone, settings: TrainSettings | None) -> Scorer:
    assert settings is not None
    with torch.no_grad():
        backbone.eval()
        users, items = backbone.tables()
        return EmbeddingScorer(users.detach(), items.detach(), settings.score_test)


def _evaluate(
    backbone: Backbone, settings: TrainSettings, data: Interactions, selection: Selection
) -> tuple[float, float]:
    ranks = rank_all(_scorer(backbone, settings), data, selection)
    return float(per_user(ranks, "Recall", 20).mean()), float(per_user(ranks, "NDCG", 20).mean())


def _rank(
    scorer: Scorer, data: Interactions, selection: Selection, run: Run
) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Rank the selection split and test, store test's ranks; return metric rows and counts."""
    rows = []
    for split in dict.fromkeys((selection, "test")):
        ranks = rank_all(scorer, data, split)
        rows += [
            {"split": split, "metric": metric, "k": k, "group": "", "value": value}
            for metric, k, value in summary(ranks)
        ]
    ranks.save(run.file("ranks.npz"))
    counts = {"users_evaluated": len(ranks.users), "users_skipped": ranks.n_skipped}
    return rows, counts | {"tied_share": ranks.tied}


def _curve(progress: Progress) -> str:
    columns = list(Evaluation.__dataclass_fields__)
    return csv_text(columns, [asdict(point) for point in progress.curve])


@contextmanager
def _recording_failure(run: Run) -> Iterator[None]:
    try:
        yield
    except Interrupted:
        raise
    except Exception as error:
        reason = str(error) if isinstance(error, RunFailed | DataError) else repr(error)
        if isinstance(error, MemoryError) or "can't allocate memory" in str(error):
            reason = f"out of memory: {error}"
        content = {"reason": reason, "traceback": traceback.format_exc()}
        write_atomically(run.file("failure.json"), json.dumps(content, indent=1) + "\n")
        raise RunFailed(reason) from error


@lru_cache
def environment() -> dict[str, Any]:
    """Return what a result was made on: versions, processor, threads, revision."""
    return {
        "bslbench": bslbench.__version__,
        "torch": torch.__version__,
        "numpy": np.__version__,
        "python": platform.python_version(),
        "cpu": _processor(),
        "threads": torch.get_num_threads(),
        "revision": _revision(),
    }


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    names = info.read_text().splitlines() if info.exists() else []
    models = [line.split(":", 1)[1].strip() for line in names if line.startswith("model name")]
    name = models[0] if models else platform.processor() or platform.machine()
    return f"{name}, {torch.backends.cpu.get_cpu_capability()}"


def _revision() -> str:
    """Return the git revision of a checkout of bslbench, empty for an installed package."""
    package = Path(__file__).parents[2]
    if not (package / ".git").exists():
        return ""
    command = ["git", "-C", str(package), "describe", "--always", "--dirty", "--abbrev=12"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.stdout.strip()
