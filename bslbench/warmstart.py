"""A warm start: embedding tables by alternating least squares, through the `implicit` library."""

import numpy as np
import torch
from scipy.sparse import csr_matrix
from torch import Tensor

from bslbench.data.interactions import Interactions
from bslbench.errors import ConfigError
from bslbench.seeding import generator, key_of

MEAN_NORM = 0.5
"""Mean norm of the rows of both tables: ALS's own scale means nothing to another loss."""

ITERATIONS = 10
ALPHA, REGULARIZATION = 20.0, 100.0
"""Weight of an interaction and of the squared norms: the best of ten pairs on Yelp2018's valid."""


def als_tables(data: Interactions, dim: int, seed: int) -> tuple[Tensor, Tensor]:
    """Return user and item tables [n_users, d], [n_items, d] float32, fitted to train.

    The same bits for any number of threads: BLAS is held to one, and each row is solved by one
    thread. Rows without train interactions get small random values, since a zero row has no
    direction.

    Raises
    ------
    ConfigError
        If `implicit` is not installed (the extra ``als``).

    Notes
    -----
    Hu, Koren, Volinsky, ICDM 2008; Takács, Pilászy, Tikk, RecSys 2011 (conjugate gradients).
    """
    try:
        from implicit.cpu.als import AlternatingLeastSquares
        from threadpoolctl import threadpool_limits
    except ImportError as error:
        raise ConfigError("init = 'als' needs implicit: pip install 'bslbench[als]'") from error
    with threadpool_limits(1, "blas"):
        model = AlternatingLeastSquares(
            factors=dim,
            alpha=ALPHA,
            regularization=REGULARIZATION,
            iterations=ITERATIONS,
            num_threads=torch.get_num_threads(),
            random_state=key_of(seed, "als") % 2**32,
        )
        model.fit(csr_matrix(data.train.astype(np.float32)), show_progress=False)
    draws = generator(seed, "als")
    users, items = (
        _scaled(torch.from_numpy(factors), draws)
        for factors in (model.user_factors, model.item_factors)
    )
    return users, items


def _scaled(table: Tensor, draws: torch.Generator) -> Tensor:
    """Return a table [n, d] with `MEAN_NORM`, its zero rows filled with a hundredth of it."""
    norms = table.norm(dim=1, keepdim=True)
    noise = torch.randn(table.shape, generator=draws) / table.shape[1] ** 0.5
    mean = norms[norms > 0].numpy().mean()  # torch's would depend on the number of threads
    return torch.where(norms > 0, table / mean, noise / 100) * MEAN_NORM
