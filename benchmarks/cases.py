"""What is measured. Our steps run in the real training loop: nothing of it is rewritten here."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import normalize

from benchmarks import plain
from benchmarks.measure import Action, Case, Meter
from bslbench.backbones import MF, Backbone
from bslbench.config import TrainSettings
from bslbench.data.interactions import Interactions
from bslbench.data.load import load
from bslbench.data.readers import user_lists
from bslbench.evaluation.metrics import summary
from bslbench.evaluation.ranking import EmbeddingScorer, rank_all
from bslbench.kernels.cpu_adam import MOST
from bslbench.losses import LOSSES, SL, Batch, Loss, Setup
from bslbench.sampling.own import are_few
from bslbench.training import Interrupted, train

WARM_UP, STEPS = 3, 10
"""Steps of the real loop before and under the meter, in one call of an action."""


@dataclass(frozen=True)
class World:
    """What all cases share: the data, where they came from, and the sizes of a step."""

    data: Interactions
    name: str
    folder: Path | None
    device: str
    batch_size: int = 1024
    n_negatives: int = 800
    dim: int = 64

    def tables(self) -> tuple[Tensor, Tensor]:
        """Return random embeddings, [n_users, d] and [n_items, d]."""
        draws = torch.Generator().manual_seed(0)
        sizes = self.data.n_users, self.data.n_items
        users, items = (torch.randn(n, self.dim, generator=draws) / 8 for n in sizes)
        return users.to(self.device), items.to(self.device)


def training(
    data: Interactions,
    settings: TrainSettings,
    loss: Loss,
    device: str,
    make: Callable[..., Backbone] = MF,
) -> Action:
    """Return an action that trains a backbone for a few steps and meters each whole step."""
    # Until the rows of lazy Adam are about as far behind as they ever are.
    warm_up = MOST if settings.optimizer == "adam_lazy" else WARM_UP
    backbone = make(data, settings.dim, torch.Generator().manual_seed(0)).to(device)

    def action(meter: Meter) -> None:
        taken = 0

        def after_step() -> bool:
            nonlocal taken
            if taken >= warm_up:
                meter.end()
            taken += 1
            done = taken == warm_up + STEPS
            if taken >= warm_up and not done:
                meter.begin()
            return done

        try:
            train(
                settings, data, backbone, loss, seed=0, evaluate=lambda _: (0, 0), stop=after_step
            )
        except Interrupted:
            return
        raise ValueError(f"{data.name} has fewer than {warm_up + STEPS} batches")

    return action


def mf(world: World, sampler: str, l2: float, optimizer: str = "adam") -> Case:
    """MF with the softmax loss, against own negatives (also for `pool`) or in-batch ones."""
    data, n_rows, n_neg = world.data, world.batch_size, world.n_negatives
    settings = TrainSettings(
        batch_size=n_rows,
        n_negatives=n_neg,
        dim=world.dim,
        sampler=sampler,  # type: ignore[arg-type]
        l2=l2,
        optimizer=optimizer,  # type: ignore[arg-type]
        scale=None,
    )
    entries = data.train.tocoo()
    users, items = (
        torch.from_numpy(x.astype(np.int64)).to(world.device) for x in (entries.row, entries.col)
    )
    tables = tuple(table.requires_grad_() for table in world.tables())
    step = plain.stepper(
        tables, (users, items), n_rows, None if sampler == "in_batch" else n_neg, l2
    )

    def plain_step(meter: Meter) -> None:
        meter.begin()
        step()
        meter.end()

    scores = n_rows * (n_rows if sampler == "in_batch" else n_neg)
    # Rows that have a gradient, and those that Adam moves.
    listed = {"own": n_rows * (1 + n_neg), "pool": n_rows + n_neg, "in_batch": n_rows}[sampler]
    every = sampler == "own" and not are_few(listed, data.n_items)
    n_named = n_rows + (data.n_items if every else listed)
    n_moved = n_named if optimizer == "adam_lazy" else data.n_users + data.n_items
    parameters = 6 * n_moved + 2 * n_named
    # Three products over the scores. Adam reads and writes parameter and two moments; gradients are
    # written and read once, and so are scores and their gradients.
    return Case(
        training(data, settings, SL(tau=0.11), world.device),
        plain_step,
        flops=3 * 2 * scores * world.dim,
        traffic=4 * (parameters * world.dim + 4 * scores),
    )


def evaluation(world: World) -> Case:
    """All metrics at all cut-offs of the test split, against its GEMM alone."""
    users, items = world.tables()
    evaluated = np.flatnonzero(
        (np.diff(world.data.test.indptr) > 0) & (world.data.user_degrees > 0)
    )
    unit_users = normalize(users[torch.from_numpy(evaluated).to(world.device)])
    unit_items = normalize(items)

    def ours() -> None:
        scorer = EmbeddingScorer(users, items, "cosine")
        summary(rank_all(scorer, world.data, "test", world.device))

    flops = 2 * len(evaluated) * world.data.n_items * world.dim
    return Case(
        once(ours), once(partial(plain.products, unit_users, unit_items, 1024)), flops=flops
    )


def parse(world: World) -> Case:
    """The train split, from the bytes of its text file to CSR, against a loop over the lines."""
    text = as_text(world.data)
    content = text.encode()

    def build(users: object, items: object) -> None:
        pairs = np.asarray(users, dtype=np.int64), np.asarray(items, dtype=np.int64)
        nothing = np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int64)
        sizes = world.data.n_users, world.data.n_items
        Interactions.from_pairs("parsed", *sizes, pairs, nothing, nothing)

    return Case(
        once(lambda: build(*user_lists(content, "train"))),
        once(lambda: build(*plain.parse(text))),
    )


def cached_load(world: World) -> Case:
    """A dataset by its name, parsed before, against a loop over the lines of its train split."""
    text = as_text(world.data)
    return Case(once(lambda: load(world.name, world.folder)), once(lambda: plain.parse(text)))


def loss_cost(name: str, world: World) -> Case:
    """One loss alone, forward and backward, on scores [B, 1] and [B, M]."""
    draws = torch.Generator().manual_seed(0)
    loss = LOSSES[name]()
    n_rows, n_neg, data = world.batch_size, world.n_negatives, world.data
    if setup := getattr(loss, "setup", None):
        pairs = (torch.from_numpy(x.astype(np.int64)) for x in data.train.nonzero())
        on_device = [x.to(world.device) for x in pairs]
        setup(Setup.of(*on_device, data.n_users, data.n_items, score=loss.score))
    pos, neg, rows, other_rows = (
        (torch.rand(n_rows, n, generator=draws) - 0.5).to(world.device).requires_grad_()
        for n in (loss.n_pos, n_neg, world.dim, world.dim)
    )
    users = torch.randint(data.n_users, (n_rows,), generator=draws).to(world.device)
    items = torch.randint(data.n_items, (n_rows, 1 + n_neg), generator=draws).to(world.device)
    zero = torch.tensor(0, device=world.device)
    batch = Batch(
        users,
        items[:, 0],
        zero,
        zero,
        items[:, 1:],
        rows,
        other_rows,
        torch.cat([pos[:, :1], neg], dim=1),
        lambda others, table: others @ table[items[0, 1:]].T,
    )

    def ours() -> None:
        pos.grad = neg.grad = None
        loss(pos, neg, batch).backward()

    # Scores are read, and their gradient is written.
    return Case(once(ours), traffic=4 * 2 * n_rows * n_neg)


def once(function: Callable[[], object]) -> Action:
    """Return an action that calls `function` under the meter."""

    def action(meter: Meter) -> None:
        meter.begin()
        function()
        meter.end()

    return action


def as_text(data: Interactions) -> str:
    """Return train as lines ``user item item ...``."""
    bounds, items = data.train.indptr.tolist(), data.train.indices.astype(str)
    return "\n".join(
        f"{user} {' '.join(items[bounds[user] : bounds[user + 1]])}".strip()
        for user in range(data.n_users)
    )


CASES: dict[str, Callable[[World], Case]] = {
    "mf-own": partial(mf, sampler="own", l2=0.0),
    "mf-own-l2": partial(mf, sampler="own", l2=1e-3),
    "mf-own-lazy": partial(mf, sampler="own", l2=0.0, optimizer="adam_lazy"),
    "mf-pool": partial(mf, sampler="pool", l2=0.0),
    "mf-pool-lazy": partial(mf, sampler="pool", l2=0.0, optimizer="adam_lazy"),
    "mf-in-batch": partial(mf, sampler="in_batch", l2=0.0),
    "evaluation": evaluation,
    "parse": parse,
    "cached-load": cached_load,
    **{f"loss-{name}": partial(loss_cost, name) for name in LOSSES},
}
