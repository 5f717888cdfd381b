"""A run made once more on all interactions, valid and test among them: to be used, not measured."""

import io
from collections.abc import Callable
from time import monotonic

import torch
from scipy.sparse import csr_array
from torch import Tensor

from bslbench.config import Cell
from bslbench.data.interactions import Interactions
from bslbench.engine.cell import built, kept_state, made_by, trained
from bslbench.engine.store import Run, write_atomically
from bslbench.training import Evaluation, train


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
        it is stopped; a call that was cut off goes on from there.
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
    asked, kept = False, monotonic()

    def stopping() -> bool:
        nonlocal asked
        asked = stop()
        return asked

    def keep(state: dict[str, object]) -> None:
        nonlocal kept
        if asked or monotonic() - kept >= keep_every:
            kept = monotonic()
            buffer = io.BytesIO()
            torch.save({"made_by": made_by(cell), **state}, buffer)
            write_atomically(run.file("state.pt"), buffer.getvalue())

    def show(evaluation: Evaluation) -> None:
        if evaluation.epoch == best_epoch:
            raise _Enough

    with built(cell, whole) as (backbone, loss, _):
        try:
            train(
                settings,
                whole,
                backbone,
                loss,
                seed=cell.seed,
                evaluate=lambda model: (0.0, 0.0),
                state=kept_state(cell, run),
                keep=keep,
                stop=stopping,
                show=show,
            )
        except _Enough:
            run.file("state.pt").unlink(missing_ok=True)
    with torch.no_grad():
        backbone.eval()
        users, items = backbone.tables()
        return users.detach().contiguous(), items.detach().contiguous()
