"""The loss that reckons with popularity: BC."""

import torch
from torch import Tensor, nn
from torch.nn.functional import embedding, normalize

from bslbench.errors import ConfigError
from bslbench.kernels.gemm import matmul
from bslbench.losses.base import (
    Batch,
    Loss,
    Setup,
    check_positive,
    check_range,
    normal_table,
    turned,
)
from bslbench.losses.softmax import SSM, TAU
from bslbench.seeding import generator

POPULARITY_DIM = 64


class BC(Loss):
    """Bias-aware contrastive loss: a margin for what popularity alone foretells badly.

    ``(1 - w) SSM(cos(angle + M), n_j; tau)`` with the margin ``M = 1 - sigma(u_b i_b)`` from a
    popularity branch: embeddings u_b and i_b of the user's and the item's degree, scored by cosine
    and trained alone over the first `warmup` epochs by ``w SSM(tau_pop)``, then frozen.

    Parameters
    ----------
    tau
        Temperature, > 0.
    tau_pop
        Temperature of the popularity branch, > 0.
    w
        Share of the popularity branch, from 0 to 1. As the branches are trained one after the
        other, a constant factor on each.
    warmup
        Epochs of the popularity branch, at least 1.

    Raises
    ------
    ConfigError
        In `setup`, if scores are not cosines: there is no angle then.

    Examples
    --------
    >>> loss, one = BC(tau=1.0, w=0.0, warmup=1), torch.tensor([1])
    >>> loss.setup(Setup.of(one, one, n_users=2, n_items=2))
    >>> for table in loss.parameters():
    ...     _ = table.data.fill_(0)  # popularity foretells nothing: M = 1/2
    >>> batch = Batch(*4 * [one], neg_items=torch.tensor([[0]]))  # epoch 1
    >>> value = loss(torch.tensor([[0.0]]), torch.tensor([[0.0]]), batch)
    >>> round(value.item(), 4)  # log(1 + exp(sin(1/2)))
    0.9613
    """

    needs = frozenset({"negatives", "neg_items"})
    scale = None
    n_negatives = 128
    order_free = True
    space = {"tau": TAU, "tau_pop": TAU}
    counted = {"warmup": "epochs"}
    version = 2  # 1 let L2 move the model during the warm-up
    formula = (
        "(1-w) SSM(cos(angle(u,i) + M), n_j; tau), M = 1 - sigma(u_b i_b), "
        "u_b and i_b by degree, from w SSM(tau_pop) over the first epochs"
    )
    source = "Zhang et al., BC-Loss, NeurIPS 2022"

    user_group: Tensor
    item_group: Tensor
    user_table: nn.Parameter
    item_table: nn.Parameter

    def __init__(
        self, tau: float = 0.07, tau_pop: float = 0.1, w: float = 0.5, warmup: int = 5
    ) -> None:
        super().__init__()
        check_positive(tau=tau, tau_pop=tau_pop, warmup=warmup)
        check_range(0, 1, w=w)
        self.tau = tau
        self.tau_pop = tau_pop
        self.w = w
        self.warmup = warmup
        self.main, self.branch = SSM(tau), SSM(tau_pop)

    def setup(self, info: Setup) -> None:
        """Make one embedding per degree of a user and per degree of an item."""
        if info.score != "cosine":
            raise ConfigError(f"bc adds an angle to a cosine: score_train cannot be '{info.score}'")
        draws = generator(info.seed, "loss")
        for side, degrees in (("user", info.user_degrees), ("item", info.item_degrees)):
            known, group = torch.unique(degrees, return_inverse=True)
            self.register_buffer(f"{side}_group", group, persistent=False)
            table = normal_table(len(known), POPULARITY_DIM, draws, info.device)
            self.register_parameter(f"{side}_table", table)

    def rests(self, epoch: int) -> bool:
        """Tell whether the popularity branch trains alone."""
        return epoch < self.warmup

    def forward(self, pos: Tensor, neg: Tensor, batch: Batch) -> Tensor:
        """Return the loss of scores pos [B, 1], neg [B, M] and the batch's ids."""
        user_degrees, item_degrees = self.user_group[batch.users], self.item_group[batch.items]
        users = embedding(user_degrees, self.user_table)  # [B, 64]
        if self.rests(int(batch.epoch)):
            assert batch.neg_items is not None
            # All degrees of items at once: no [B, M, 64] of the negatives'.
            scores = matmul(normalize(users), normalize(self.item_table).T)
            own = scores.gather(1, item_degrees[:, None])  # [B, 1]
            others = scores.gather(1, self.item_group[batch.neg_items])  # [B, M]
            return self.w * self.branch.forward(own, others)
        items = embedding(item_degrees, self.item_table)  # [B, 64]
        margin = 1 - (users * items).sum(1, keepdim=True).detach().sigmoid()  # [B, 1]
        return (1 - self.w) * self.main.forward(turned(pos, margin), neg)
