"""What a loss is: scores in, one number out, and what it declares about itself."""

import math
from dataclasses import dataclass
from typing import Any, ClassVar, cast

import torch
from torch import Tensor, nn

from bslbench.errors import ConfigError


@dataclass(frozen=True)
class Batch:
    """What a loss may look at besides the scores.

    Attributes
    ----------
    users, items
        Ids of the rows' interactions, [B] int64.
    epoch, step
        0-based counters, 0-d int64 tensors on the device.
    neg_items
        Ids of the negatives, [B, M] int64, column for column those of `neg`; only if the loss
        needs ``"neg_items"``.
    user_rows, item_rows
        Raw (not normalised) embeddings of the rows' users and items, [B, d], part of the graph;
        only if the loss needs ``"embeddings"``.
    """

    users: Tensor
    items: Tensor
    epoch: Tensor
    step: Tensor
    neg_items: Tensor | None = None
    user_rows: Tensor | None = None
    item_rows: Tensor | None = None


@dataclass(frozen=True)
class Setup:
    """What ``setup(info)`` of a loss is told before the first step.

    Attributes
    ----------
    n_users, n_items
        Sizes of the id spaces.
    user_degrees, item_degrees
        Train interactions per user [n_users] and per item [n_items], int64 tensors on `device`.
    device
        Where the training runs.
    seed
        The run's seed; derive every draw from it.
    """

    n_users: int
    n_items: int
    user_degrees: Tensor
    item_degrees: Tensor
    device: torch.device
    seed: int


class Loss(nn.Module):
    """Base of the losses here, and the defaults of any other ``nn.Module`` used as one.

    A loss is called as ``loss(pos [B, K], neg [B, M], batch)`` and returns a scalar, the mean over
    the rows. Its constructor's arguments are its hyper-parameters. Optional hooks:
    ``setup(info: Setup)`` before the first step and ``on_epoch_start(users [n_users, d],
    items [n_items, d], epoch)`` without gradient. Parameters of its own are trained by the same
    optimiser; buffers survive a resume.
    """

    needs: ClassVar[frozenset[str]] = frozenset({"negatives"})
    """Of ``negatives``, ``neg_items``, ``embeddings``."""
    n_pos: int = 1
    """K: positives per row, the row's own item in column 0; may be a hyper-parameter."""
    n_negatives: ClassVar[int] = 800
    """Default M."""
    score: ClassVar[str] = "cosine"
    """Default of ``score_train`` and ``score_test``."""
    scale: ClassVar[float | None] = 1.0
    """Default factor on the scores; None where a temperature takes its place."""
    order_free: ClassVar[bool] = False
    """Negatives are reduced symmetrically, so their columns may come in any order."""
    graph_safe: ClassVar[bool] = False
    """May be captured in a CUDA graph."""
    space: ClassVar[dict[str, Any]] = {}
    """Search space of its own hyper-parameters by name.

    ``(kind, low, high)`` of the kind ``"log"``, ``"linear"``, or for whole numbers ``"log_int"``,
    ``"int"``; or ``("choice", value, value, ...)``. Tuning widens a range whose edge is best, as
    far as the constructor takes the values.
    """
    formula: ClassVar[str] = ""
    source: ClassVar[str] = ""


def log_mean_exp(x: Tensor) -> Tensor:
    """Return log of the mean of exp over the last dimension, [..., n] -> [...], without overflow.

    Examples
    --------
    >>> log_mean_exp(torch.tensor([[100.0, 100.0]]))
    tensor([100.])
    """
    return torch.logsumexp(x, dim=-1) - math.log(x.shape[-1])


def declared(loss: nn.Module | type[nn.Module], trait: str) -> Any:
    """Return what a loss declares of itself, or the default of `Loss` where it says nothing."""
    return getattr(loss, trait, getattr(Loss, trait))


def as_loss(module: nn.Module) -> Loss:
    """Return any module with ``forward(pos, neg, batch)`` as a loss, its silences filled in."""
    for trait in ("needs", "n_pos", "score", "scale", "order_free", "graph_safe"):
        if not hasattr(module, trait):
            setattr(module, trait, getattr(Loss, trait))
    return cast(Loss, module)


def check_positive(**values: float) -> None:
    """Raise a `ConfigError` naming the first value that is not above zero."""
    for name, value in values.items():
        if not value > 0:
            raise ConfigError(f"{name} must be above 0, not {value}")
