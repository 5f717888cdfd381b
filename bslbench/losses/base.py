"""What a loss is: scores in, one number out, and what it declares about itself."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from inspect import cleandoc
from typing import Any, ClassVar, Literal, cast

import torch
from torch import Tensor, nn

from bslbench.errors import ConfigError
from bslbench.kernels.log_sum_exp import log_sum_exp

Status = Literal["verified", "classic", "experimental"]


@dataclass(frozen=True)
class Batch:
    """What a loss may look at besides the scores.

    Attributes
    ----------
    users, items
        Ids of the rows' interactions, [B] int64.
    epoch, step
        0-based counters, 0-d int64 tensors on the CPU.
    neg_items
        Ids of the negatives, [B, M] int64, column for column those of `neg`; only if the loss
        needs ``"neg_items"``.
    user_rows, item_rows
        Raw (not normalised) embeddings of the rows' users and items, [B, d], part of the graph;
        only if the loss needs ``"embeddings"``.
    all_scores
        Scores of the rows' users against all items in id order, [B, I], made and scaled as `pos`;
        only if the loss needs ``"all_items"``.
    negative_products
        A function of rows [B, r] and of a table over all items [I, r], any r: their products at
        the negatives, [B, M], column for column those of `neg`, differentiable in both; only if
        the loss needs ``"negative_products"``. What a second model of the loss's own is scored
        with, without ever gathering [B, M, r].
    """

    users: Tensor
    items: Tensor
    epoch: Tensor
    step: Tensor
    neg_items: Tensor | None = None
    user_rows: Tensor | None = None
    item_rows: Tensor | None = None
    all_scores: Tensor | None = None
    negative_products: Callable[[Tensor, Tensor], Tensor] | None = None


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
    score
        ``cosine`` or ``inner``: what the scores of the training are.
    train_users, train_items
        The train pairs, [n] int64 each, on `device`.
    """

    n_users: int
    n_items: int
    user_degrees: Tensor
    item_degrees: Tensor
    device: torch.device
    seed: int
    score: str
    train_users: Tensor
    train_items: Tensor

    @classmethod
    def of(
        cls,
        train_users: Tensor,
        train_items: Tensor,
        n_users: int,
        n_items: int,
        *,
        score: str = "cosine",
        seed: int = 0,
    ) -> "Setup":
        """Return what train pairs, [n] integers each, say: all that a loss needs outside a run too.

        Examples
        --------
        >>> info = Setup.of(torch.tensor([0, 0, 1]), torch.tensor([3, 1, 3]), n_users=2, n_items=4)
        >>> info.user_degrees, info.item_degrees
        (tensor([2, 1]), tensor([0, 1, 0, 2]))
        """
        return cls(
            n_users,
            n_items,
            torch.bincount(train_users, minlength=n_users),
            torch.bincount(train_items, minlength=n_items),
            train_users.device,
            seed,
            score,
            train_users.long(),
            train_items.long(),
        )


NEEDS = ("negatives", "neg_items", "negative_products", "embeddings", "all_items")
"""What a loss can ask to be given."""


class Loss(nn.Module):
    """Base of the losses here, and the defaults of any other ``nn.Module`` used as one.

    A loss is called as ``loss(pos [B, K], neg [B, M], batch)`` and returns a scalar, the mean over
    the rows. Its constructor's arguments are its hyper-parameters. Optional hooks:
    ``setup(info: Setup)`` before the first step and ``on_epoch_start(users [n_users, d],
    items [n_items, d], epoch)`` without gradient, and ``rests(epoch)``, whether the loss leaves the
    model alone in an epoch: L2 then does, too. Parameters of its own are trained by the same
    optimiser, at the run's learning rate or, by name, at those that ``learning_rates(lr)`` returns;
    with the parameters, buffers survive a resume.
    """

    needs: ClassVar[frozenset[str]] = frozenset({"negatives"})
    """Of `NEEDS`."""
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
    logq: ClassVar[bool] = False
    """Each negative counts by exp(n / tau), which is what the setting `logq` corrects."""
    graph_safe: ClassVar[bool] = False
    """May be captured in a CUDA graph."""
    space: ClassVar[dict[str, Any]] = {}
    """Search space of its own hyper-parameters by name.

    ``(kind, low, high)`` of the kind ``"log"``, ``"linear"``, or for whole numbers ``"log_int"``,
    ``"int"``; or ``("choice", value, value, ...)``. Tuning widens a range whose edge is best, as
    far as the constructor takes the values.
    """
    counted: ClassVar[dict[str, Literal["epochs", "steps"]]] = {}
    """Which of its own hyper-parameters are counts of epochs or steps: what has to be shortened
    where the training is short."""
    version: ClassVar[int] = 1
    """Raised by a change that moves this loss's numbers; part of its cells' ids."""
    formula: ClassVar[str] = ""
    source: ClassVar[str] = ""
    """Paper, venue and year, and the equation where it is known; ends the class's docstring."""
    status: ClassVar[Status] = "experimental"
    """``verified``: it has met a figure published for it; ``classic``: as old as the field, there
    is no figure of its own to meet; ``experimental``: neither. All are tested against their
    formulas."""
    evidence: ClassVar[str] = "none yet"
    """What the status rests on."""

    def __init_subclass__(cls) -> None:
        """Have the docstring end in the source, which is thus written once."""
        super().__init_subclass__()
        if cls.__doc__ and "source" in vars(cls):
            cls.__doc__ = f"{cleandoc(cls.__doc__)}\n\nReferences\n----------\n{cls.source}"


def log_mean_exp(x: Tensor, tau: float | Tensor = 1.0) -> Tensor:
    """Return log of the mean of exp(x / tau) over the last dimension, [..., n] -> [...].

    Without overflow, and differentiable once.

    Examples
    --------
    >>> log_mean_exp(torch.tensor([[100.0, 100.0]]))
    tensor([100.])
    """
    return log_sum_exp(x, tau) - math.log(x.shape[-1])


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


def check_range(low: float, high: float, **values: float) -> None:
    """Raise a `ConfigError` naming the first value that is not from `low` to `high`."""
    for name, value in values.items():
        if not low <= value <= high:
            raise ConfigError(f"{name} must be from {low:g} to {high:g}, not {value}")


def ascending(x: Tensor) -> Tensor:
    """Return x with its gradient turned round: the optimiser descends, so what made x ascends.

    Examples
    --------
    >>> x = torch.tensor(3.0, requires_grad=True)
    >>> y = ascending(x)
    >>> y.backward()
    >>> y.item(), x.grad.item()
    (3.0, -1.0)
    """
    return 2 * x.detach() - x


def turned(cosine: Tensor, angle: Tensor) -> Tensor:
    """Return the cosine after the angle behind it has grown by `angle`, cos(arccos(c) + a).

    Examples
    --------
    >>> turned(torch.tensor([0.0]), torch.tensor([math.pi / 2]))
    tensor([-1.])
    """
    # At plus and minus 1 the derivative is infinite: 1e-7 short of them it is a few thousand.
    sine = (1 - cosine.clamp(-1 + 1e-7, 1 - 1e-7).square()).sqrt()
    return cosine * angle.cos() - sine * angle.sin()


def normal_table(
    n_rows: int, dim: int, draws: torch.Generator, device: torch.device
) -> nn.Parameter:
    """Return a Xavier-normal table [n_rows, dim] (Glorot, Bengio, AISTATS 2010)."""
    table = torch.empty(n_rows, dim)
    return nn.Parameter(nn.init.xavier_normal_(table, generator=draws).to(device))
