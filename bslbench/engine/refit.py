"""A run made once more on all interactions, valid and test among them: to be used, not measured."""

from collections.abc import Callable
from contextlib import suppress

import torch
from scipy.sparse import csr_array
from torch import Tensor

from bslbench.backbones import Backbone
from bslbench.config import Cell
from bslbench.data.interactions import Interactions
from bslbench.engine.cell import built, trained
from bslbench.engine.state import Keeper, kept_state
from bslbench.engine.store import Run
from bslbench.training import train


class _Enough(Exception):
    """The weights are those of the chosen epoch."""


def everything(data: Interactions) -> csr_array:
    """Return all interactions of a dataset, [n_users, n_items]."""
    pairs = (data.train + data.valid + data.test).astype(bool).astype("uint8")
    pairs.sort_indices()
    return csr_array(pairs)


def refit(
    cell: Cell,
    best_epoch: int,
    data: Interactions,
    run: Run,
    keep_every: float = 30.0,
    stop: Callable[[], bool] = lambda: False,
) -> tuple[Tensor, Tensor]:
    """Train a cell on all interactions up to the epoch that was best for it, counted from 0.

    The rate decays as it did in the run that was measured, so that the weights are those which
    the same choice would have led to.

    Parameters
    ----------
    data
        Before the hold-out.
    run
        Where the state is kept, at the end of an epoch if so many seconds have passed, and when
        it is stopped; a call that was cut off goes on from there. Whoever has stored what comes
        out of this may remove it.
    stop
        Asked after every step whether to raise `Interrupted`.

    Returns
    -------
    tuple of Tensor
        Embeddings [n_users, d] and [n_items, d], float32.
    """
    run.folder.mkdir(parents=True, exist_ok=True)
    pairs = everything(data)
    nothing = csr_array(pairs.shape, dtype=pairs.dtype)
    whole = data.with_splits(pairs, nothing)
    settings = trained(cell).model_copy(update={"eval_every": 1})
    settings = settings.model_copy(update={"patience": settings.epochs})
    keeper = Keeper(cell, run, keep_every, stop)
    tables: list[Tensor] = []

    def measure(backbone: Backbone, epoch: int) -> dict[str, float]:
        if epoch < best_epoch:
            return {}
        with torch.no_grad():
            tables.extend(table.detach().clone().contiguous() for table in backbone.tables())
        raise _Enough

    with built(cell, whole) as (backbone, loss, _), suppress(_Enough):
        train(
            settings,
            whole,
            backbone,
            loss,
            seed=cell.seed,
            evaluate=lambda model: (0.0, 0.0),
            measure=measure,
            state=kept_state(cell, run),
            keep=keeper.keep,
            stop=keeper.stop,
        )
    users, items = tables
    return users, items
