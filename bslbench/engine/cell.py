"""One run, start to end: data, training, ranking, results on disk."""

import glob
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from time import monotonic, perf_counter
from types import MappingProxyType
from typing import Any

import torch
from safetensors.torch import save

from bslbench.backbones import BACKBONES, Backbone
from bslbench.backbones.base import start_from
from bslbench.config import EXTERNAL, REFERENCE, Cell, Selection, TrainSettings
from bslbench.data.interactions import Interactions
from bslbench.data.noise import false_negative_share, realised
from bslbench.engine.failures import recording_failure
from bslbench.engine.grid_files import TRAILING, csv_text
from bslbench.engine.inputs import DEFAULTS, Options, split_of
from bslbench.engine.machine import environment
from bslbench.engine.pruning import Bar, Pruned, fallen, give_up, past
from bslbench.engine.state import Keeper, kept_state
from bslbench.engine.store import Run, Store, sha256
from bslbench.errors import RunFailed
from bslbench.evaluation.groups import fairness
from bslbench.evaluation.metrics import per_user, summary
from bslbench.evaluation.ranking import EmbeddingScorer, Scorer, rank_all
from bslbench.evaluation.ranks import TOP, Ranks
from bslbench.evaluation.spread import METRICS, Probe
from bslbench.files import write_atomically, writing
from bslbench.losses import LOSSES
from bslbench.losses.base import Loss, as_loss, declared
from bslbench.noise import Noise
from bslbench.plugins import blaming, find
from bslbench.references import REFERENCES, Reference
from bslbench.seeding import generator, key_of
from bslbench.training import Evaluation, Progress, train
from bslbench.warmstart import als_tables

Ranker = Callable[[Interactions, Selection], Ranks]
"""Ranks all items for the users of a split."""

SHOW_EVERY = 1.0
"""Seconds between two writes of what ``status`` shows of a run."""


def run_cell(
    cell: Cell,
    store: Store,
    options: Options = DEFAULTS,
    *,
    bar: Bar = MappingProxyType({}),
    ranker: Ranker | None = None,
    stop: Callable[[], bool] = lambda: False,
    show: Callable[[Evaluation], None] = lambda evaluation: None,
) -> bool:
    """Train and rank one cell and store what came out, going on where an earlier call was cut off.

    Parameters
    ----------
    bar
        By epoch, the best Recall@20 so far that the run needs to go on.
    ranker
        What ranks test for a cell that was neither trained nor fitted here.

    Returns
    -------
    bool
        False if another process has finished it meanwhile.

    Raises
    ------
    InUse
        If another process is at it.
    RunFailed
        If it cannot be finished; ``failure.json`` has the reason and the traceback.
    StoreError
        If the results cannot be written.
    Interrupted
        If `stop` said so; ``state.pt`` has all that the next call needs.
    Pruned
        If the run fell below the bar, now or in an earlier call.
    """
    run = store.run(cell.id)
    with run.claim():
        with writing(run.folder):
            if options.force:
                run.file("state.pt").unlink(missing_ok=True)
            elif run.finished(cell, options.save_model):
                return False
            if options.force or not run.finished(cell):
                run.forget()
            run.file("failure.json").unlink(missing_ok=True)
        if bar and (before := past(run, cell, bar)) and before.pruned:
            raise Pruned
        with recording_failure(run):
            if options.force or not _taken_over(cell, run):
                _finish(cell, run, options, bar, ranker, stop, show)
        run.file("progress.json").unlink(missing_ok=True)
        return True


def _taken_over(cell: Cell, run: Run) -> bool:
    """Take over what another seed of a reference that draws nothing came to, if there is one.

    ``run.json`` names that run; no time counts as spent.
    """
    if cell.backbone != REFERENCE or cell.noise != Noise() or reference(cell).drawn:
        return False
    canonical = json.loads(cell.canonical())
    stem = cell.id.rpartition(f"-s{cell.seed}-")[0]
    for folder in sorted(run.folder.parent.glob(f"{glob.escape(stem)}-s*")):
        other = Run(folder)
        info = other.info()
        if info.get("canonical", {}) | {"seed": cell.seed} != canonical or not other.whole():
            continue
        for name in ("ranks.npz", "curve.csv"):
            write_atomically(run.file(name), other.file(name).read_bytes())
        info |= {"canonical": canonical, "origin": cell.origin, "taken_from": folder.name}
        for part, prefix in (("seconds", ""), ("outcome", "seconds_")):
            info[part] |= {key: 0.0 for key in info[part] if key.startswith(prefix)}
        write_atomically(run.file("run.json"), json.dumps(info, indent=1) + "\n")
        write_atomically(run.file("metrics.csv"), other.file("metrics.csv").read_bytes())
        return True
    return False


def _finish(
    cell: Cell,
    run: Run,
    options: Options,
    bar: Bar,
    ranker: Ranker | None,
    stop: Callable[[], bool],
    show: Callable[[Evaluation], None],
) -> None:
    started = perf_counter()
    split = split_of(cell, options)
    seconds = {"load": perf_counter() - started}
    progress = Progress()
    scorer: Scorer | None = None
    if cell.backbone == REFERENCE:
        started = perf_counter()
        scorer = reference(cell).fit(split, cell.seed)
        progress.seconds_train = perf_counter() - started
    elif ranker is None:
        backbone, progress = _train(cell, run, split, options.keep_every, bar, stop, show)
        scorer = _scorer(backbone, trained(cell))
        if options.save_model:
            # What a run without its model came to is given up only now that this one has come to
            # something: another machine's model goes with no other ranks and metrics than its own.
            run.file("metrics.csv").unlink(missing_ok=True)
            users, items = (table.detach().contiguous() for table in backbone.tables())
            write_atomically(run.file("model.safetensors"), save({"users": users, "items": items}))
    seconds |= {"train": progress.seconds_train, "eval": progress.seconds_eval}
    started = perf_counter()
    rows, outcome = _rank(ranker or _all_items(scorer, cell), split, cell, run)
    rows += _spread(progress)
    seconds["test"] = perf_counter() - started
    outcome |= _noise(cell, split)
    outcome |= {"best_epoch": progress.best_epoch, "epochs_run": progress.epoch}
    outcome |= {f"seconds_{phase}": round(spent, 3) for phase, spent in seconds.items()}
    info = {"canonical": json.loads(cell.canonical()), "origin": cell.origin}
    info["seconds"] = {k: round(v, 3) for k, v in (seconds | progress.phases).items()}
    info["outcome"] = outcome | environment()
    metrics = csv_text(TRAILING, rows)
    info["metrics_sha256"] = sha256(metrics.encode())
    write_atomically(run.file("curve.csv"), _curve(progress))
    write_atomically(run.file("run.json"), json.dumps(info, indent=1) + "\n")
    write_atomically(run.file("metrics.csv"), metrics)
    run.file("state.pt").unlink(missing_ok=True)


def _train(
    cell: Cell,
    run: Run,
    data: Interactions,
    keep_every: float,
    bar: Bar,
    stop: Callable[[], bool],
    show: Callable[[Evaluation], None],
) -> tuple[Backbone, Progress]:
    settings = trained(cell)
    shown = begun = monotonic()
    keeper = Keeper(cell, run, keep_every, stop)
    state = kept_state(cell, run)
    before = state["progress"] if state else asdict(Progress())
    curve = {point["epoch"]: point["recall"] for point in before["curve"]}
    seconds = before["seconds_train"] + before["seconds_eval"]

    def tell(evaluation: Evaluation) -> None:
        nonlocal shown
        if monotonic() - shown >= SHOW_EVERY:
            point = asdict(evaluation) | {"epochs": settings.epochs}
            write_atomically(run.file("progress.json"), json.dumps(point) + "\n")
            shown = monotonic()
        show(evaluation)
        curve[evaluation.epoch] = evaluation.recall
        if fallen(curve, bar) is not None:
            give_up(run, curve, seconds + monotonic() - begun)
            raise Pruned

    started = perf_counter()
    with built(cell, data) as (backbone, loss, user_files):
        spent = perf_counter() - started
        for name, path in user_files.items():
            write_atomically(run.file(name), path.read_bytes())
        progress = train(
            settings,
            data,
            backbone,
            loss,
            seed=cell.seed,
            evaluate=lambda model: evaluate(model, settings, data, cell.selection, cell.eval_users),
            measure=Probe(settings, data, loss, cell.seed),
            spent=spent,
            state=state,
            keep=keeper.keep,
            stop=keeper.stop,
            show=tell,
        )
    return backbone, progress


def reference(cell: Cell) -> Reference:
    """Return the recommender of a cell that trains nothing."""
    made: Callable[..., Reference] = REFERENCES[cell.loss]
    return made(**cell.loss_params)


def trained(cell: Cell) -> TrainSettings:
    """Return the training settings of a cell that is no reference."""
    assert cell.train is not None
    return cell.train


@contextmanager
def built(cell: Cell, data: Interactions) -> Iterator[tuple[Backbone, Loss, dict[str, Path]]]:
    """Yield a cell's backbone, its loss and the user's files, by the names that they are kept by.

    Errors within these files blame them.

    Raises
    ------
    RunFailed
        If the loss, or a file of the user's, is no longer what the cell was planned with.
    """
    user_files: dict[str, Path] = {}
    for spec, source in (
        (cell.loss_path, cell.loss_source),
        (cell.backbone_path, cell.backbone_source),
    ):
        if spec:
            plugin = find(spec, {}, "class")
            if plugin.source != source:
                raise RunFailed(f"{plugin.path} has changed since {cell.id} was planned")
            path = Path(plugin.path)
            other = user_files.get(path.name, path) != path
            user_files[f"backbone-{path.name}" if other else path.name] = path
    # What a user's code draws without a generator belongs to the cell, too.
    with blaming(*map(str, user_files.values())), torch.random.fork_rng(devices=[]):
        torch.manual_seed(key_of(cell.seed, "module"))
        draws = generator(cell.seed, "init")
        backbone_class: Any = find(cell.backbone_path or cell.backbone, BACKBONES, "backbone").cls
        settings = trained(cell)
        backbone = backbone_class(data, settings.dim, draws, **cell.backbone_params)
        if settings.init == "als":
            start_from(backbone, *als_tables(data, settings.dim, cell.seed))
        loss_class: Any = find(cell.loss_path or cell.loss, LOSSES, "loss").cls
        if (now := declared(loss_class, "version")) != cell.loss_version:
            raise RunFailed(
                f"{cell.id} was planned with version {cell.loss_version} of {cell.loss}, which is "
                f"at version {now}"
            )
        yield backbone, as_loss(loss_class(**cell.loss_params)), user_files


def _scorer(backbone: Backbone, settings: TrainSettings) -> Scorer:
    with torch.no_grad():
        backbone.eval()
        users, items = backbone.tables()
        return EmbeddingScorer(users.detach(), items.detach(), settings.score_test)


def evaluate(
    backbone: Backbone,
    settings: TrainSettings,
    data: Interactions,
    selection: Selection,
    n_users: int = 0,
) -> tuple[float, float]:
    """Return Recall@20 and NDCG@20 on the split that selects the epoch, of `n_users` or all.

    Raises
    ------
    RunFailed
        If nobody can be ranked there: no epoch could be picked.
    """
    ranks = rank_all(_scorer(backbone, settings), data, selection, n_users=n_users)
    if not len(ranks.users):
        raise RunFailed(f"{data.name}: of the users with {selection} pairs none has a train pair")
    return float(per_user(ranks, "Recall", 20).mean()), float(per_user(ranks, "NDCG", 20).mean())


def _all_items(scorer: Scorer | None, cell: Cell) -> Ranker:
    assert scorer is not None
    return lambda data, split: rank_all(scorer, data, split, n_users=cell.eval_users)


def _rank(
    ranker: Ranker, data: Interactions, cell: Cell, run: Run
) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Rank the selection split and test, store test's ranks; return metric rows and counts.

    Of what comes from outside, test alone: it may know the validation pairs.
    """
    rows = []
    splits: list[Selection] = ["test"]
    if cell.backbone != EXTERNAL and cell.selection != "test":
        splits = [cell.selection, "test"]
    for split in splits:
        ranks = ranker(data, split)
        rows += [
            {"split": split, "metric": metric, "k": k, "group": "", "value": value}
            for metric, k, value in summary(ranks)
        ]
    rows += [
        {"split": "test", "metric": metric, "k": TOP, "group": group or "", "value": value}
        for metric, group, value in fairness(ranks, data)
    ]
    ranks.save(run.file("ranks.npz"))
    counts = {"users_evaluated": len(ranks.users), "users_skipped": ranks.n_skipped}
    return rows, counts | {"tied_share": ranks.tied}


def _noise(cell: Cell, split: Interactions) -> dict[str, Any]:
    """Return what noise came to, and how many own negatives were false, with noise or without."""
    drawn = {} if cell.noise == Noise() else {"noise_seed": cell.seed} | realised(split)
    own = cell.train is not None and cell.train.sampler == "own"
    return drawn | ({"false_negative_share": false_negative_share(split)} if own else {})


def _spread(progress: Progress) -> list[dict[str, Any]]:
    """Return metric rows of the scores' spread in the epoch whose weights were kept."""
    best = next((p.spread for p in progress.curve if p.epoch == progress.best_epoch), {})
    return [
        {"split": "train", "metric": METRICS[name], "k": 0, "group": "", "value": value}
        for name, value in best.items()
    ]


def _curve(progress: Progress) -> str:
    nothing = dict.fromkeys(METRICS, float("nan"))  # of a loss that has no weights, say
    rows = []
    for point in map(asdict, progress.curve):
        found = point.pop("spread")
        rows.append(point | nothing | found)
    columns = [name for name in Evaluation.__dataclass_fields__ if name != "spread"]
    return csv_text([*columns, *METRICS], rows)
