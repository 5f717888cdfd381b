"""The training loop, whole and visible."""

import inspect
import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from time import perf_counter
from typing import Any

import torch
from torch import Tensor, nn

from bslbench import memory
from bslbench.backbones.base import Backbone
from bslbench.config import TrainSettings
from bslbench.data.interactions import Interactions
from bslbench.errors import RunFailed
from bslbench.losses.base import Batch, Loss, Setup
from bslbench.optimisers import optimiser_for, release
from bslbench.sampling import SAMPLERS
from bslbench.seeding import generator, key_of

GATHERED = 64
"""Batches that are made at once."""
PHASES = ("start", "scores", "loss", "backward", "adam")
"""Start of the tables; then, of each step, draws and scores, loss, all gradients, optimiser."""


@dataclass(frozen=True)
class Evaluation:
    """One point of the learning curve: the mean loss of the epoch and what ranking gave.

    `loss` is the unweighted mean over the batches, L2 included; `seconds` counts training only;
    `spread` is what `measure` said of the scores.
    """

    epoch: int
    loss: float
    recall: float
    ndcg: float
    seconds: float
    spread: dict[str, float] = field(default_factory=dict)


@dataclass
class Progress:
    """Where a run stands: all that resume needs beside weights and optimiser."""

    epoch: int = 0
    step: int = 0
    losses: list[float] = field(default_factory=list)
    """Losses of the running epoch's steps so far."""
    best_epoch: int = -1
    best_recall: float = -math.inf
    stale: int = 0
    """Evaluations since the last improvement."""
    seconds_train: float = 0.0
    seconds_eval: float = 0.0
    phases: dict[str, float] = field(default_factory=lambda: dict.fromkeys(PHASES, 0.0))
    """Seconds of training by `PHASES`."""
    curve: list[Evaluation] = field(default_factory=list)


class Interrupted(Exception):
    """The run was asked to stop; its state has been kept."""


@contextmanager
def _deterministic() -> Iterator[None]:
    """Sum gradients of repeated rows in a fixed order, in the user's own losses too."""
    options: Any = torch.utils.deterministic
    mode, fill = torch.get_deterministic_debug_mode(), options.fill_uninitialized_memory
    torch.use_deterministic_algorithms(True, warn_only=True)
    options.fill_uninitialized_memory = False
    try:
        yield
    finally:
        torch.set_deterministic_debug_mode(mode)
        options.fill_uninitialized_memory = fill


@_deterministic()
def train(
    settings: TrainSettings,
    data: Interactions,
    backbone: Backbone,
    loss: Loss,
    *,
    seed: int,
    evaluate: Callable[[Backbone], tuple[float, float]],
    measure: Callable[[Backbone, int], dict[str, float]] = lambda backbone, epoch: {},
    spent: float = 0.0,
    state: dict[str, Any] | None = None,
    keep: Callable[[dict[str, Any]], None] = lambda state: None,
    stop: Callable[[], bool] = lambda: False,
    show: Callable[[Evaluation], None] = lambda evaluation: None,
) -> Progress:
    """Train `backbone` in place and leave it with the weights of its best evaluated epoch.

    With `ema_decay` these, and what is evaluated and measured, are its parameters' moving averages.

    Parameters
    ----------
    settings
        Every choice of the protocol.
    data
        What is trained on: its train split. A noisy one takes the steps of the clean one.
    backbone, loss
        Trained together by one Adam.
    seed
        Every draw is a function of it.
    evaluate
        Returns Recall@20 and NDCG@20 on the split that selects the epoch.
    measure
        Returns what else there is to say of the model at an evaluated epoch.
    spent
        Seconds that the start of the tables took: they count as training.
    state
        What `keep` was given by an earlier call that was cut off: the run goes on from there and
        ends in the same bits as one that was not.
    keep
        Called after each evaluation and before `Interrupted` with the state to store.
    stop
        Asked after every step whether to raise `Interrupted`.
    show
        Called with each evaluation.

    Raises
    ------
    RunFailed
        If the loss turns non-finite; the message has epoch, step and hyper-parameters.
    Interrupted
        If `stop` said so.
    """
    memory.keep_freed()
    device = next(backbone.parameters()).device
    pairs = data.train.tocoo()
    users, items = (torch.tensor(ids, device=device) for ids in (pairs.row, pairs.col))  # [n]
    sampler = SAMPLERS[settings.sampler](settings, loss, data, seed)
    if setup := getattr(loss, "setup", None):
        sizes = data.n_users, data.n_items
        setup(Setup.of(users, items, *sizes, score=settings.score_train, seed=seed))
    adam = optimiser_for(settings, backbone, loss)
    n_drawn = data.clean_train.nnz  # in an epoch: pairs that noise adds buy no training
    starts = range(0, n_drawn, settings.batch_size)
    if settings.sampler == "in_batch" and n_drawn - starts[-1] == 1:
        starts = starts[:-1]  # a lone row has no negatives
    best = _copy(backbone.state_dict())
    average = _copy(dict(backbone.named_parameters())) if settings.ema_decay else {}
    now = Progress(seconds_train=spent)
    now.phases["start"] = spent
    if state is not None:
        backbone.load_state_dict(state["backbone"])
        loss.load_state_dict(state["loss"])
        adam.load_state_dict(state["adam"])
        best, average = state["best"], state.get("average") or {}
        curve = [Evaluation(**point) for point in state["progress"].pop("curve")]
        now = Progress(**state["progress"], curve=curve)

    def kept() -> dict[str, Any]:
        return {
            "backbone": backbone.state_dict(),
            "loss": loss.state_dict(),
            "adam": adam.state_dict(),
            "best": best,
            "average": average,
            "progress": asdict(now),
        }

    def stopped_early() -> bool:
        return settings.lr_schedule == "constant" and now.stale > settings.patience

    started = perf_counter()
    while now.epoch < settings.epochs and not stopped_early():
        backbone.train()
        if now.step == 0 and (on_epoch_start := getattr(loss, "on_epoch_start", None)):
            adam.settle()
            torch.default_generator.manual_seed(key_of(seed, "epoch", now.epoch))
            with torch.no_grad():
                on_epoch_start(*backbone.tables(), now.epoch)
        resting = (rests := getattr(loss, "rests", None)) and rests(now.epoch)
        order = epoch_order(len(users), n_drawn, seed, now.epoch)
        losses = torch.zeros(len(starts), device=device)
        losses[: now.step] = torch.tensor(now.losses)
        epoch = torch.tensor(now.epoch)
        batches = _batches(users, items, order, settings.batch_size, now.step)
        while now.step < len(starts):
            batch_users, batch_items, step = next(batches)
            if on_step := getattr(backbone, "on_step", None):
                on_step(generator(seed, "backbone", now.epoch, now.step))
            torch.default_generator.manual_seed(key_of(seed, "step", now.epoch, now.step))
            clock = perf_counter()
            scored = sampler(backbone, batch_users, batch_items, now.epoch, now.step)
            pos, neg, all_scores = scored.pos, scored.neg, scored.all_scores  # [B, K], [B, M]
            if settings.scale not in (None, 1.0):
                pos, neg = pos * settings.scale, neg * settings.scale
                all_scores = None if all_scores is None else all_scores * settings.scale
            clock = _lap(now, "scores", clock)
            batch = Batch(
                batch_users,
                batch_items,
                epoch,
                step,
                scored.neg_items,
                scored.user_rows,
                scored.item_rows,
                all_scores,
                scored.negative_products,
            )
            total = loss(pos, neg, batch)
            _check_scalar(total, loss)
            if settings.l2 and not resting:
                total = total + settings.l2 / (2 * len(batch_users)) * scored.squared
            clock = _lap(now, "loss", clock)
            adam.zero_grad()
            total.backward()
            clock = _lap(now, "backward", clock)
            rate = settings.lr
            if settings.lr_schedule == "linear":
                done = now.epoch * len(starts) + now.step
                rate *= 1 - done / (settings.epochs * len(starts))
            adam.step(rate)
            _lap(now, "adam", clock)
            losses[now.step] = total.detach()
            now.step += 1
            if stop():
                now.losses = losses[: now.step].tolist()
                now.seconds_train += perf_counter() - started
                keep(kept())
                raise Interrupted
        _check_finite(losses, now.epoch, settings, loss)
        now.epoch, now.step, now.losses = now.epoch + 1, 0, []
        ranks = now.epoch % settings.eval_every == 0 or now.epoch == settings.epochs
        if settings.ema_decay or ranks:
            adam.settle()
        if settings.ema_decay:
            _move(average, backbone, max(1 - settings.ema_decay, 1 / now.epoch))
        if not ranks:
            continue
        now.seconds_train += perf_counter() - started
        started = perf_counter()
        with _standing_in(average, backbone):
            backbone.eval()
            recall, ndcg = evaluate(backbone)
            spread = measure(backbone, now.epoch - 1)
        now.seconds_eval += perf_counter() - started
        now.curve.append(
            Evaluation(
                now.epoch - 1,
                math.fsum(losses.tolist()) / len(losses),
                recall,
                ndcg,
                now.seconds_train,
                spread,
            )
        )
        if recall > now.best_recall:
            now.best_recall, now.best_epoch, now.stale = recall, now.epoch - 1, 0
            best = _copy(backbone.state_dict() | average)
        else:
            now.stale += 1
        show(now.curve[-1])
        keep(kept())
        started = perf_counter()
    release(backbone)
    backbone.load_state_dict(best)
    return now


def _lap(now: Progress, phase: str, since: float) -> float:
    """Add the time since then to a phase of the step and return the time now."""
    clock = perf_counter()
    now.phases[phase] += clock - since
    return clock


def epoch_order(n_pairs: int, n_drawn: int, seed: int, epoch: int) -> Tensor:
    """Return the next `n_drawn` of an endless row of permutations of the pairs, [n_drawn] int64.

    That is one permutation an epoch unless noise has made the pairs more or fewer than are drawn.

    Examples
    --------
    >>> torch.cat([epoch_order(3, 2, 0, epoch) for epoch in range(3)]).bincount().tolist()
    [2, 2, 2]
    """
    start, end = epoch * n_drawn, (epoch + 1) * n_drawn
    numbers = range(start // n_pairs, -(-end // n_pairs))
    row = [torch.randperm(n_pairs, generator=generator(seed, "shuffle", k)) for k in numbers]
    return torch.cat(row)[start % n_pairs :][:n_drawn]


def _batches(
    users: Tensor, items: Tensor, order: Tensor, size: int, first: int
) -> Iterator[tuple[Tensor, ...]]:
    """Yield of each batch from number `first` on: users [B], items [B], its number, all int64.

    They are made for many batches at once: between kernels that fill the caches each call of torch
    costs some 30 microseconds.
    """
    for start in range(first, -(-len(order) // size), GATHERED):
        rows = order[start * size : (start + GATHERED) * size]
        both = (torch.split(ids[rows].long(), size) for ids in (users, items))
        yield from zip(*both, torch.arange(start, start + GATHERED).unbind(), strict=False)


def _copy(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.detach().clone() for name, tensor in weights.items()}


def _move(average: dict[str, Tensor], backbone: nn.Module, share: float) -> None:
    """Let the averages, in place, have this share of the parameters as they are now.

    Not ``lerp_``: it rounds once or twice by where a thread's part ends.
    """
    for name, parameter in backbone.named_parameters():
        average[name].mul_(1 - share).add_(parameter.detach() * share)


@contextmanager
def _standing_in(average: dict[str, Tensor], backbone: nn.Module) -> Iterator[None]:
    """Lend a backbone the averages of its parameters, where there are any."""
    own = _copy({name: p for name, p in backbone.named_parameters() if name in average})
    backbone.load_state_dict(average, strict=False)
    try:
        yield
    finally:
        backbone.load_state_dict(own, strict=False)


def _check_scalar(total: Any, loss: Loss) -> None:
    """Raise a `RunFailed` if there is nothing to descend on."""
    if not isinstance(total, Tensor):
        found = type(total).__name__
    elif total.numel() != 1:
        found = f"a tensor of shape {list(total.shape)}"
    elif not total.requires_grad:
        found = "a tensor without gradient"
    else:
        return
    code = getattr(inspect.unwrap(loss.forward), "__code__", None)
    where = f"{code.co_filename}, line {code.co_firstlineno}" if code else type(loss).__name__
    raise RunFailed(f"{where}: forward returned {found}, not one number to minimise")


def _check_finite(losses: Tensor, epoch: int, settings: TrainSettings, loss: nn.Module) -> None:
    broken = (~losses.isfinite()).nonzero()
    if len(broken):
        step = int(broken[0])
        plain = {k: v for k, v in vars(loss).items() if isinstance(v, float | int)}
        plain = {k: v for k, v in plain.items() if k != "training" and not k.startswith("_")}
        hyper = ", ".join(f"{k}={v}" for k, v in (plain | {"lr": settings.lr}).items())
        raise RunFailed(f"non-finite loss ({losses[step]}) at epoch {epoch}, step {step}: {hyper}")
