"""LightGCN: sparse products over the whole graph under dense autograd, against ours."""

import warnings
from collections.abc import Callable
from functools import partial

import numpy as np
import torch
from torch import Tensor

from benchmarks import plain
from benchmarks.cases import World, once, training
from benchmarks.measure import Action, Case, Meter
from bslbench.backbones import LightGCN
from bslbench.config import TrainSettings
from bslbench.data.interactions import Interactions
from bslbench.kernels.spmm import Adjacency, product
from bslbench.losses import SL

HOPS = 3
L2 = 1e-5
TAU = 0.15


def lightgcn(world: World, sampler: str) -> Case:
    """Three hops with the softmax loss and L2 over all hop layers, whole steps."""
    settings = TrainSettings(
        batch_size=world.batch_size,
        n_negatives=world.n_negatives,
        dim=world.dim,
        sampler=sampler,  # type: ignore[arg-type]
        l2=L2,
        scale=None,
    )
    step = plain_stepper(world, None if sampler == "in_batch" else world.n_negatives)
    backbone = partial(LightGCN, hops=HOPS)
    return Case(training(world.data, settings, SL(tau=TAU), world.device, backbone), once(step))


def plain_stepper(world: World, n_neg: int | None) -> Callable[[], None]:
    """Return a function that takes one whole step, draws included; M of None is in-batch."""
    data = world.data
    graph = square(data).to(world.device)
    table = torch.cat(world.tables()).requires_grad_()  # (N, d), N = n_users + n_items
    adam = torch.optim.Adam([table], lr=1e-3)
    entries = data.train.tocoo()
    pairs = [torch.from_numpy(x.astype(np.int64)) for x in (entries.row, entries.col)]
    rng = np.random.default_rng(0)

    def step() -> None:
        rows = torch.from_numpy(rng.integers(0, len(pairs[0]), world.batch_size))
        users, items = (ids[rows].to(world.device) for ids in pairs)  # (B,)
        neg = None
        if n_neg is not None:
            drawn = rng.integers(0, data.n_items, (len(rows), n_neg))
            neg = torch.from_numpy(drawn).to(world.device)  # (B, M)
        loss = plain_loss(graph, table, data.n_users, users, items, neg)
        adam.zero_grad()
        loss.backward()
        adam.step()

    return step


def plain_loss(
    graph: Tensor, table: Tensor, n_users: int, users: Tensor, items: Tensor, neg: Tensor | None
) -> Tensor:
    """Softmax loss of users [B] and items [B] with L2; neg [B, M] of None is in-batch."""
    hops = [table]  # each (N, d)
    for _ in range(HOPS):
        hops.append(torch.sparse.mm(graph, hops[-1]))
    mean = sum(hops[1:], start=hops[0]) / len(hops)
    tables = mean[:n_users], mean[n_users:]
    squares = torch.stack([hop.square().sum(1) for hop in hops]).sum(0)  # (N,)
    squared = squares[users].sum() + squares[n_users + items].sum()
    if neg is None:
        loss = plain.in_batch_loss(tables, users, items, tau=TAU, l2=0)
    else:
        loss = plain.own_loss(tables, users, items, neg, tau=TAU, l2=0)
        squared = squared + squares[n_users + neg].sum()
    return loss + L2 / (2 * len(users)) * squared


def square(data: Interactions) -> Tensor:
    """Return D^-1/2 A D^-1/2 over users and items, [n_users + n_items] squared, sparse COO."""
    entries = data.train.tocoo()
    users, items = entries.row, entries.col + data.n_users
    degrees = np.concatenate([data.user_degrees, data.item_degrees])
    values = (1 / np.sqrt(degrees[users] * degrees[items])).astype(np.float32)
    places = np.stack([np.concatenate([users, items]), np.concatenate([items, users])])
    both = torch.from_numpy(np.concatenate([values, values]))
    size = (len(degrees), len(degrees))
    torch.sparse.check_sparse_tensor_invariants.disable()  # what it does anyway, with a warning
    return torch.sparse_coo_tensor(torch.from_numpy(places), both, size).coalesce()


def spmm(world: World, layout: torch.layout) -> Case:
    """One hop of all users and items, against torch's own product."""
    users, items = world.tables()
    graph = Adjacency.of(world.data.train)
    table = torch.cat([users, items])
    theirs = square(world.data).to(world.device)
    if layout == torch.sparse_csr:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # "in beta state"
            theirs = theirs.to_sparse_csr()
    return Case(
        after_another(lambda: (product(graph, items), product(graph.T, users))),
        after_another(lambda: theirs @ table),
    )


def after_another(hop: Callable[[], object]) -> Action:
    """Return an action that meters a hop behind others, as in a step: their memory is at hand."""

    def action(meter: Meter) -> None:
        for _ in range(HOPS):
            hop()
        once(hop)(meter)

    return action


def adjacency(world: World) -> Case:
    """The normalised graph, built anew, and the memory that building and keeping it takes."""
    return Case(once(lambda: Adjacency.of(world.data.train)), once(lambda: square(world.data)))


CASES: dict[str, Callable[[World], Case]] = {
    "lightgcn-in-batch": partial(lightgcn, sampler="in_batch"),
    "lightgcn-own": partial(lightgcn, sampler="own"),
    "spmm-coo": partial(spmm, layout=torch.sparse_coo),
    "spmm-csr": partial(spmm, layout=torch.sparse_csr),
    "adjacency": adjacency,
}
