"""The loss whose negatives an adversary weighs: AdvInfoNCE."""

import math

import torch
from torch import Tensor, nn
from torch.nn.functional import embedding

from bslbench.losses.base import Batch, Setup, ascending, check_positive, normal_table
from bslbench.losses.softmax import TAU, SoftmaxLoss
from bslbench.seeding import generator

HARDNESS_DIM = 64


class AdvInfoNCE(SoftmaxLoss):
    """Softmax loss that an adversary makes harder, by weights on the negatives.

    ``-p/tau + log(exp(p/tau) + K M sum_j delta_j exp(n_j / tau))``, mean over rows. The weights
    ``delta = softmax_j(u_a i_a)`` come from embeddings u_a and i_a of the adversary's own. They
    ascend the loss in one epoch of `adv_every`, `adv_epochs` of them in all, and else rest.

    Parameters
    ----------
    tau
        Temperature, > 0.
    neg_weight
        K, weight of the negatives, > 0.
    adv_lr
        Learning rate of the adversary, > 0.
    adv_every, adv_epochs
        When the adversary trains: in epochs 2, 7, 12, ... for 5. How many such epochs there are
        bounds how far the weights go from uniform.

    Notes
    -----
    The authors give the adversary a pass of its own over the data before such an epoch. Here both
    train in the same pass, each step taking the other as it stands.

    Examples
    --------
    With negatives that the adversary has no opinion of, it is `SSM` with a weight.

    >>> loss, zero = AdvInfoNCE(tau=1.0, neg_weight=2.0), torch.tensor([0])
    >>> loss.setup(Setup.of(zero, zero, n_users=1, n_items=1))
    >>> batch = Batch(*4 * [zero], negative_products=lambda rows, table: torch.zeros(1, 2))
    >>> value = loss(torch.tensor([[0.0]]), torch.tensor([[0.0, 0.0]]), batch)
    >>> round(value.item(), 4)  # log(1 + 2 * 2)
    1.6094
    """

    needs = frozenset({"negatives", "negative_products"})
    graph_safe = False
    n_negatives = 128
    space = {"tau": TAU, "neg_weight": ("log", 1.0, 256.0), "adv_lr": ("log", 1e-5, 1e-3)}
    formula = (
        "-p/tau + log(e^{p/tau} + K M sum_j delta_j e^{n_j/tau}), "
        "delta = softmax of the adversary's scores, K = neg_weight"
    )
    counted = {"adv_every": "epochs"}
    source = "Zhang et al., AdvInfoNCE, NeurIPS 2023"

    user_hardness: nn.Parameter
    item_hardness: nn.Parameter

    def __init__(
        self,
        tau: float = 0.1,
        neg_weight: float = 64.0,
        adv_lr: float = 5e-5,
        adv_every: int = 5,
        adv_epochs: int = 7,
    ) -> None:
        super().__init__()
        check_positive(tau=tau, neg_weight=neg_weight, adv_lr=adv_lr, adv_every=adv_every)
        check_positive(adv_epochs=adv_epochs)
        self.tau = tau
        self.neg_weight = neg_weight
        self.adv_lr = adv_lr
        self.adv_every = adv_every
        self.adv_epochs = adv_epochs

    def setup(self, info: Setup) -> None:
        """Make the adversary's embeddings."""
        draws = generator(info.seed, "loss")
        self.user_hardness = normal_table(info.n_users, HARDNESS_DIM, draws, info.device)
        self.item_hardness = normal_table(info.n_items, HARDNESS_DIM, draws, info.device)

    def learning_rates(self, lr: float) -> dict[str, float]:
        """Return the adversary's rate."""
        return dict.fromkeys(("user_hardness", "item_hardness"), self.adv_lr)

    def forward(self, pos: Tensor, neg: Tensor, batch: Batch) -> Tensor:
        """Return the loss of scores pos [B, 1], neg [B, M] and ``batch.negative_products``."""
        assert batch.negative_products is not None
        turn, within = divmod(int(batch.epoch), self.adv_every)
        attacking = within == self.adv_every // 2 and turn < self.adv_epochs
        # Without a gradient, Adam leaves the adversary and its moments as they are.
        with torch.set_grad_enabled(attacking and torch.is_grad_enabled()):
            rows = embedding(batch.users, self.user_hardness)  # [B, 64]
            hardness = batch.negative_products(rows, self.item_hardness)  # [B, M]
        log_delta = torch.log_softmax(ascending(hardness), dim=1)
        p = pos[:, 0] / self.tau  # [B]
        pushed = torch.logsumexp(neg / self.tau + log_delta, dim=1)
        pushed = pushed + math.log(self.neg_weight * neg.shape[1])
        return (torch.logaddexp(p, pushed) - p).mean()
