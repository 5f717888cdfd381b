"""iALS: matrix factorisation by alternating least squares over all pairs."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from scipy.sparse import csr_array
from torch import Tensor

from bslbench import memory
from bslbench.data.interactions import Interactions
from bslbench.evaluation.ranking import EmbeddingScorer, Scorer
from bslbench.kernels import cpu_als
from bslbench.losses.base import check_positive
from bslbench.references.base import Reference, check_at_least
from bslbench.seeding import generator

START = 0.1
"""Standard deviation of the norm of a row at the start."""


@dataclass(frozen=True)
class IALS(Reference):
    """Implicit alternating least squares with regularisation scaled by frequency.

    Minimises, over the train pairs S and all pairs of users and items,
    ``sum_S (1 - u.i)^2 + alpha sum_all (u.i)^2 + sum_u l_u |u|^2 + sum_i l_i |i|^2`` with
    ``l_u = reg (n_u + alpha I)^nu``, ``l_i = reg (n_i + alpha U)^nu``, n the degrees in train. Each
    half step takes a few conjugate gradients from where it stands (Takacs et al.). The bits do not
    depend on the number of threads.

    Parameters
    ----------
    dim
        Size of the embeddings, at least 1; the name is that of the training setting, so that a
        grid sets both alike.
    alpha
        Weight of all pairs, > 0.
    reg, nu
        Strength of the regularisation, > 0, and how it grows with frequency: 0 is plain, 1 fully
        scaled.
    iterations
        Sweeps over users and items, at least 1.
    """

    dim: int = 64
    alpha: float = 0.03
    reg: float = 0.003
    nu: float = 1.0
    iterations: int = 16

    space = {
        "dim": ("choice", 64, 128, 256),
        "alpha": ("log", 1e-3, 1.0),
        "reg": ("log", 1e-4, 0.1),
        "nu": ("choice", 0.0, 0.5, 1.0),
        "iterations": ("choice", 8, 16, 32),
    }
    drawn = True
    formula = "u.i, least squares over all pairs, alternating"
    source = "Rendle et al., Revisiting the performance of iALS, RecSys 2022, Eq. 4"

    def __post_init__(self) -> None:
        check_positive(alpha=self.alpha, reg=self.reg)
        check_at_least(1, dim=self.dim, iterations=self.iterations)
        check_at_least(0, nu=self.nu)

    def n_bytes(self, n_users: int, n_items: int) -> int:
        """Return both tables."""
        return 4 * self.dim * (n_users + n_items)

    def fit(self, data: Interactions, seed: int) -> Scorer:
        """Return the scorer of inner products."""
        memory.require(self.n_bytes(data.n_users, data.n_items), f"iALS, dim {self.dim}")
        return EmbeddingScorer(*self.tables(data, seed), "inner")

    def tables(self, data: Interactions, seed: int) -> tuple[Tensor, Tensor]:
        """Return the embeddings of users [U, d] and items [I, d], float32."""
        draws = generator(seed, "ials")
        users, items = (
            torch.randn(n, self.dim, generator=draws) * (START / self.dim**0.5)
            for n in (data.n_users, data.n_items)
        )
        sides = _Side.of(data.train, users), _Side.of(csr_array(data.train.T), items)
        for _ in range(self.iterations):
            for own, other in (sides, sides[::-1]):
                self._solve(own, other)
        return users, items

    def _solve(self, own: "_Side", other: "_Side") -> None:
        """Improve the rows of one side, the other's held fixed."""
        gram = self.alpha * cpu_als.gram(other.table)
        strength = self.reg * (own.degrees + self.alpha * len(other.table)) ** self.nu
        cpu_als.improve_for(self.dim)(
            own.indptr,
            own.indices,
            other.table,
            gram.astype(np.float32),
            strength.astype(np.float32),
            own.table,
        )


@dataclass(frozen=True)
class _Side:
    """Users or items: their rows of the train matrix and of the table that is solved for."""

    indptr: npt.NDArray[np.int64]
    indices: npt.NDArray[np.int32]
    table: npt.NDArray[np.float32]

    @classmethod
    def of(cls, matrix: csr_array, table: Tensor) -> "_Side":
        matrix.sort_indices()
        return cls(
            matrix.indptr.astype(np.int64), np.array(matrix.indices, np.int32), table.numpy()
        )

    @property
    def degrees(self) -> npt.NDArray[np.int64]:
        return np.diff(self.indptr)
