"""Adam, of every row at each step or of a row when it is next read."""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from bslbench.config import TrainSettings
from bslbench.errors import ConfigError
from bslbench.kernels import cpu, cpu_adam
from bslbench.losses.base import Loss

BETAS, EPS = (0.9, 0.999), 1e-8


Apart = Sequence[tuple[nn.Parameter, float]]
"""Parameters with a learning rate of their own, each as a multiple of the run's."""


class Adam:
    """Adam (Kingma, Ba, ICLR 2015): tables by one kernel each, the other parameters by torch.

    A table's gradient may be sparse. Lazily, its rows without one are not moved but brought up to
    date when they are next read: the steps that they missed had no gradient, so they are known.
    Same mathematics, other last bits, and a cost that does not grow with these rows.

    Parameters
    ----------
    tables
        Parameters [N, d] float32 on the CPU.
    others, apart
        All other parameters, and those of them with a learning rate of their own.
    lazy
        Leave the rows of a sparse gradient's table alone that it does not name.
    """

    def __init__(
        self,
        tables: Iterable[nn.Parameter],
        others: Sequence[nn.Parameter] = (),
        apart: Apart = (),
        *,
        lazy: bool = False,
    ) -> None:
        self.tables = [_Table(table, lazy) for table in tables]
        groups = [{"params": list(others)}, *({"params": [own]} for own, _ in apart)]
        self.factors = [1.0, *(factor for _, factor in apart)]
        self.others = (
            torch.optim.Adam(groups, betas=BETAS, eps=EPS, fused=True) if others or apart else None
        )

    def catch_up(self, *rows: Tensor | None) -> None:
        """Bring the rows [n] that a forward pass is to read up to date, table by table.

        None stands for all rows of a table.
        """
        for table, wanted in zip(self.tables, rows, strict=False):
            if wanted is None:
                table.settle()
            else:
                table.catch_up(wanted)

    def zero_grad(self) -> None:
        """Forget the gradients."""
        for table in self.tables:
            table.parameter.grad = None
        if self.others:
            self.others.zero_grad()

    def step(self, rate: float) -> None:
        """Update every parameter that has a gradient, at this learning rate or its multiple."""
        for table in self.tables:
            table.step(rate)
        if self.others:
            for group, factor in zip(self.others.param_groups, self.factors, strict=True):
                group["lr"] = rate * factor
            self.others.step()

    def settle(self) -> None:
        """Bring every row up to date, as ranking and saving need it."""
        for table in self.tables:
            table.settle()

    def state_dict(self) -> dict[str, Any]:
        """Return what resume needs: rows as they stand, not brought up to date.

        A run that is cut off must replay as one that is not, or its last bits would differ.
        """
        others = self.others.state_dict() if self.others else None
        return {"tables": [table.state() for table in self.tables], "others": others}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from such a state."""
        for table, kept in zip(self.tables, state["tables"], strict=True):
            table.load(kept)
        if self.others:
            self.others.load_state_dict(state["others"])


class _Table:
    """A table with Adam's moments [N, d], and how many of its steps each row has taken [N]."""

    def __init__(self, parameter: nn.Parameter, lazy: bool) -> None:
        self.parameter, self.lazy = parameter, lazy
        self.m, self.v = torch.zeros_like(parameter), torch.zeros_like(parameter)
        self.last = torch.zeros(len(parameter), dtype=torch.int64)
        self.n_steps = 0
        # Rate over bias correction, and root of the other one, of each step so far.
        self.sizes, self.roots = np.empty(1024, np.float32), np.empty(1024, np.float32)
        self.every = np.arange(len(parameter), dtype=np.int32)
        self.slots = np.full(len(parameter), -1, np.int32)
        self.kernels = cpu_adam.kernels(parameter.shape[1])

    def state(self) -> dict[str, Tensor]:
        sizes, roots = (
            torch.from_numpy(x[: self.n_steps].copy()) for x in (self.sizes, self.roots)
        )
        return {"m": self.m, "v": self.v, "last": self.last, "sizes": sizes, "roots": roots}

    def load(self, state: dict[str, Tensor]) -> None:
        self.m, self.v, self.last = state["m"], state["v"], state["last"]
        self.n_steps = len(state["sizes"])
        room = max(1024, 2 * self.n_steps)
        self.sizes, self.roots = (np.resize(state[x].numpy(), room) for x in ("sizes", "roots"))

    def arrays(self) -> tuple[Any, ...]:
        return tuple(x.detach().numpy() for x in (self.parameter, self.m, self.v, self.last))

    def catch_up(self, names: Tensor) -> None:
        rows, *_ = self.grouped(names)
        self.replay(rows)

    def settle(self) -> None:
        self.replay(self.every)

    def replay(self, rows: Any) -> None:
        self.kernels.catch_up(rows, self.n_steps, self.sizes, self.roots, *self.arrays())

    def step(self, rate: float) -> None:
        grad = self.parameter.grad
        if grad is None:
            return  # as torch's, which counts no step of what has no gradient
        if self.lazy and not grad.is_sparse:
            self.settle()
        if self.n_steps == len(self.sizes):
            self.sizes, self.roots = (np.resize(x, 2 * len(x)) for x in (self.sizes, self.roots))
        t = self.n_steps = self.n_steps + 1
        size, root = rate / (1 - BETAS[0] ** t), (1 - BETAS[1] ** t) ** 0.5
        self.sizes[t - 1], self.roots[t - 1] = size, root
        if not grad.is_sparse:
            self.kernels.update_all(grad.contiguous().numpy(), t, size, 1 / root, *self.arrays())
            return
        names, values = grad._indices()[0], grad._values().contiguous()  # [B], [B, d]
        groups = *self.grouped(names), values.numpy()
        self.kernels.update(*groups, t, size, 1 / root, *self.arrays())
        if not self.lazy:
            self.settle()

    def grouped(self, names: Tensor) -> tuple[Any, Any, Any]:
        """Return the distinct rows among `names` [B], and where each is named (`cpu_adam`)."""
        rows, order = (np.empty(len(names), np.int32) for _ in range(2))
        starts = np.empty(len(names) + 1, np.int32)
        n = cpu_adam.grouped(names.numpy(), self.slots, rows, starts, order)
        return rows[:n], starts, order


def optimiser_for(settings: TrainSettings, backbone: nn.Module, loss: Loss) -> Adam:
    """Return what ``settings.optimizer`` names, over all parameters of a backbone and a loss.

    A backbone that reads single rows gives sparse gradients from here on, until `release`.

    Raises
    ------
    ConfigError
        If the loss has a learning rate for a parameter that it does not have, or the backbone has
        not the tables that ``adam_lazy`` needs.
    """
    release(backbone)
    own: Any = backbone
    direct = dict(backbone.named_parameters(recurse=False))
    row_wise = getattr(backbone, "row_wise", False) and {"users", "items"} <= direct.keys()
    lazy = settings.optimizer == "adam_lazy"
    if lazy and not row_wise:
        name = type(backbone).__name__
        raise ConfigError(f"adam_lazy needs parameters 'users' and 'items': {name} has none")
    if row_wise:
        tables = [direct["users"], direct["items"]]
        if not all(map(_is_ours, tables)):
            tables = []
        own.sparse = bool(tables)
    else:
        dim = (settings.dim,)
        tables = [p for p in backbone.parameters() if p.shape[1:] == dim and _is_ours(p)]
    ours = {id(table) for table in tables}
    others = [p for p in backbone.parameters() if id(p) not in ours]
    shared, apart = _by_rate(loss, settings.lr)
    adam = Adam(tables, [*others, *shared], apart, lazy=lazy)
    if lazy:
        own.lazy_hook = own.register_forward_pre_hook(lambda module, rows: adam.catch_up(*rows))
    return adam


def release(backbone: nn.Module) -> None:
    """Let a backbone be trained by anything: dense gradients, and no rows caught up."""
    own: Any = backbone
    if hook := vars(own).pop("lazy_hook", None):
        hook.remove()
    if getattr(backbone, "row_wise", False):
        own.sparse = False


def _is_ours(parameter: nn.Parameter) -> bool:
    """Whether the kernels can work on a parameter; else torch can."""
    return cpu.takes(parameter) and parameter.is_contiguous()


def _by_rate(loss: nn.Module, lr: float) -> tuple[list[nn.Parameter], Apart]:
    """Return a loss's parameters that learn at the run's rate, and those that have their own."""
    learning_rates: Any = getattr(loss, "learning_rates", None)
    rates = learning_rates(lr) if learning_rates else {}
    own = dict(loss.named_parameters())
    for name in rates:
        if name not in own:
            raise ConfigError(f"the loss has a learning rate for '{name}', but no such parameter")
    shared = [parameter for name, parameter in own.items() if name not in rates]
    return shared, [(own[name], rate / lr) for name, rate in rates.items()]
