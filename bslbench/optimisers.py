"""Adam, dense or lazy: the same mathematics, other memory traffic."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from bslbench.config import TrainSettings
from bslbench.errors import ConfigError
from bslbench.kernels import cpu_adam
from bslbench.losses.base import Loss
from bslbench.sampling.own import reads_few

BETAS, EPS = (0.9, 0.999), 1e-8


Apart = Sequence[tuple[nn.Parameter, float]]
"""Parameters with a learning rate of their own, each as a multiple of the run's."""


class Adam:
    """Dense Adam over all parameters (Kingma, Ba, ICLR 2015), fused."""

    def __init__(self, parameters: list[nn.Parameter], apart: Apart = ()) -> None:
        groups = [{"params": parameters}, *({"params": [own]} for own, _ in apart)]
        self.factors = [1.0, *(factor for _, factor in apart)]
        self.adam = torch.optim.Adam(groups, betas=BETAS, eps=EPS, fused=True)

    def zero_grad(self) -> None:
        """Forget the gradients."""
        self.adam.zero_grad()

    def step(self, rate: float) -> None:
        """Update every parameter that has a gradient, at this learning rate or its multiple."""
        for group, factor in zip(self.adam.param_groups, self.factors, strict=True):
            group["lr"] = rate * factor
        self.adam.step()

    def settle(self) -> None:
        """Bring every parameter up to date: it is."""

    def state_dict(self) -> dict[str, Any]:
        """Return what resume needs."""
        return self.adam.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from such a state."""
        self.adam.load_state_dict(state)


class LazyAdam:
    """Adam whose cost does not grow with the rows that a batch does not touch.

    A row of a table whose gradient is sparse is updated when a batch touches it, and brought up to
    date when it is next read: the steps that it missed had no gradient, so they are known. Same
    mathematics as `Adam`, other last bits. The other parameters go by `Adam`.

    Parameters
    ----------
    tables
        Parameters [N, d] float32 on the CPU whose gradients are sparse.
    others, apart
        All other parameters, and those of them with a learning rate of their own.
    """

    def __init__(
        self, tables: list[nn.Parameter], others: list[nn.Parameter], apart: Apart = ()
    ) -> None:
        self.tables = [_Table(table) for table in tables]
        self.dense = Adam(others, apart) if others or apart else None
        self.n_steps = 0
        # Rate over bias correction, and root of the other one, of each step so far.
        self.sizes, self.roots = np.empty(1024, np.float32), np.empty(1024, np.float32)

    def catch_up(self, *rows: Tensor | None) -> None:
        """Bring the rows [n] that a forward pass is to read up to date, table by table."""
        for table, wanted in zip(self.tables, rows, strict=False):
            if wanted is not None:
                table.catch_up(wanted, self.n_steps, self.sizes, self.roots)

    def zero_grad(self) -> None:
        """Forget the gradients."""
        for table in self.tables:
            table.parameter.grad = None
        if self.dense:
            self.dense.zero_grad()

    def step(self, rate: float) -> None:
        """Update the rows and parameters that have a gradient, at this learning rate."""
        if self.dense:
            self.dense.step(rate)
        if all(table.parameter.grad is None for table in self.tables):
            return  # as `Adam`, which counts no step of what has no gradient
        if self.n_steps == len(self.sizes):
            self.sizes, self.roots = (np.resize(x, 2 * len(x)) for x in (self.sizes, self.roots))
        t = self.n_steps = self.n_steps + 1
        self.sizes[t - 1] = rate / (1 - BETAS[0] ** t)
        self.roots[t - 1] = (1 - BETAS[1] ** t) ** 0.5
        for table in self.tables:
            table.update(t, float(self.sizes[t - 1]), float(self.roots[t - 1]))

    def settle(self) -> None:
        """Bring every row up to date, as ranking and saving need it."""
        for table in self.tables:
            table.settle(self.n_steps, self.sizes, self.roots)

    def state_dict(self) -> dict[str, Any]:
        """Return what resume needs: rows as they stand, not brought up to date.

        A run that is cut off must replay as one that is not, or its last bits would differ.
        """
        past = [torch.from_numpy(x[: self.n_steps].copy()) for x in (self.sizes, self.roots)]
        state = {"tables": [table.state() for table in self.tables], "past": past}
        return state | {"dense": self.dense.state_dict() if self.dense else None}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from such a state."""
        for table, kept in zip(self.tables, state["tables"], strict=True):
            table.m, table.v, table.last = kept
        self.n_steps = len(state["past"][0])
        room = max(1024, 2 * self.n_steps)
        self.sizes, self.roots = (np.resize(x.numpy(), room) for x in state["past"])
        if self.dense:
            self.dense.load_state_dict(state["dense"])


class _Table:
    """A table with Adam's moments [N, d] and how many steps each row has taken [N]."""

    def __init__(self, parameter: nn.Parameter) -> None:
        self.parameter = parameter
        self.m, self.v = torch.zeros_like(parameter), torch.zeros_like(parameter)
        self.last = torch.zeros(len(parameter), dtype=torch.int64)
        self.slots = np.full(len(parameter), -1, np.int32)
        self.kernels = cpu_adam.kernels(parameter.shape[1])

    def state(self) -> tuple[Tensor, Tensor, Tensor]:
        return self.m, self.v, self.last

    def arrays(self) -> tuple[Any, ...]:
        return tuple(x.detach().numpy() for x in (self.parameter, *self.state()))

    def grouped(self, names: Tensor) -> tuple[Any, Any, Any]:
        """Return the distinct rows among `names` [B], and where each is named (`cpu_adam`)."""
        rows, order = (np.empty(len(names), np.int32) for _ in range(2))
        starts = np.empty(len(names) + 1, np.int32)
        n = cpu_adam.grouped(names.numpy(), self.slots, rows, starts, order)
        return rows[:n], starts, order

    def catch_up(self, names: Tensor, n_steps: int, sizes: Any, roots: Any) -> None:
        rows, *_ = self.grouped(names)
        self.kernels.catch_up(rows, n_steps, sizes, roots, *self.arrays())

    def settle(self, n_steps: int, sizes: Any, roots: Any) -> None:
        every = np.arange(len(self.parameter), dtype=np.int32)
        self.kernels.catch_up(every, n_steps, sizes, roots, *self.arrays())

    def update(self, n_steps: int, size: float, root: float) -> None:
        grad = self.parameter.grad
        if grad is None:
            return
        names, values = grad._indices()[0], grad._values().contiguous()  # [B], [B, d]
        groups = *self.grouped(names), values.numpy()
        self.kernels.update(*groups, n_steps, size, 1 / root, *self.arrays())


def optimiser_for(settings: TrainSettings, backbone: nn.Module, loss: Loss) -> Adam | LazyAdam:
    """Return what ``settings.optimizer`` names, over all parameters of a backbone and a loss.

    Raises
    ------
    ConfigError
        If the loss has a learning rate for a parameter that it does not have.
    """
    own: Any = backbone
    if hook := vars(own).pop("lazy_hook", None):  # of an earlier training of this backbone
        hook.remove()
        own.sparse = False
    shared, apart = _by_rate(loss, settings.lr)
    if settings.optimizer == "adam":
        return Adam([*backbone.parameters(), *shared], apart)
    # Where the whole item table is read at each step, its gradient is dense.
    own_negatives = settings.sampler == "own" and not reads_few(settings, loss, len(own.items))
    all_items = own_negatives or "all_items" in loss.needs
    tables = [own.users] if all_items else [own.users, own.items]
    lazy = {id(table) for table in tables}
    others = [p for p in own.parameters() if id(p) not in lazy]
    adam = LazyAdam(tables, [*others, *shared], apart)
    own.sparse = True
    own.lazy_hook = own.register_forward_pre_hook(lambda module, rows: adam.catch_up(*rows))
    return adam


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
