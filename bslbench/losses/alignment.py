"""Alignment of positive pairs and uniformity of embeddings, without negatives: DirectAU, MAWU."""

import torch
from torch import Tensor, nn
from torch.nn.functional import embedding, normalize

from bslbench.kernels.uniformity import uniformity
from bslbench.losses.base import Batch, Loss, Setup, check_positive, normal_table, turned
from bslbench.seeding import generator


class AlignmentLoss(Loss):
    """Declarations that the family shares: it looks at the batch's embeddings, at unit length."""

    needs = frozenset({"embeddings"})
    scale = None
    order_free = True


class DirectAU(AlignmentLoss):
    """Alignment of users with their items, uniformity of both.

    ``mean |u - i|^2 + gamma/2 (log mean exp(-2 |u - u'|^2) + log mean exp(-2 |i - i'|^2))`` over
    the rows of the batch and all pairs of different rows, unit vectors.

    Parameters
    ----------
    gamma
        Weight of uniformity, > 0.

    Examples
    --------
    >>> users = torch.tensor([[1.0, 0.0], [-1.0, 0.0]])
    >>> items = torch.tensor([[2.0, 0.0], [0.0, 3.0]])
    >>> rows = Batch(*4 * [torch.arange(2)], user_rows=users, item_rows=items)
    >>> DirectAU(gamma=1.0)(users[:, :1], users[:, :0], rows)  # (0 + 2)/2 + (-8 - 4)/2
    tensor(-5.)
    """

    graph_safe = True
    space = {"gamma": ("log", 0.2, 10.0)}
    formula = "mean |u-i|^2 + gamma/2 (log mean e^{-2|u-u'|^2} + log mean e^{-2|i-i'|^2})"
    source = "Wang et al., DirectAU, KDD 2022"

    def __init__(self, gamma: float = 1.0) -> None:
        super().__init__()
        check_positive(gamma=gamma)
        self.gamma = gamma

    def forward(self, pos: Tensor, neg: Tensor, batch: Batch) -> Tensor:
        """Return the loss of ``batch.user_rows`` and ``batch.item_rows``, [B, d] each."""
        users, items = unit_rows(batch)
        alignment = (users - items).square().sum(1).mean()
        return alignment + self.gamma / 2 * (uniformity(users) + uniformity(items))


class MAWU(AlignmentLoss):
    """Margin-aware alignment, weighted uniformity.

    ``-mean cos(min(angle(u, i) + M, pi)) + gamma_user log mean exp(-2 |u - u'|^2) + gamma_item log
    mean exp(-2 |i - i'|^2)`` with the margin ``M = 1 - sigma(m_u + m_i)``, whose m_u and m_i are
    learnt and kept in [0, 1].

    Parameters
    ----------
    gamma_user, gamma_item
        Weights of the two uniformities, > 0.

    Examples
    --------
    >>> loss, ids = MAWU(gamma_user=1.0, gamma_item=1.0), torch.arange(2)
    >>> loss.setup(Setup.of(ids, ids, n_users=2, n_items=2))
    >>> for margins in loss.parameters():
    ...     _ = margins.data.fill_(1)
    >>> x = torch.tensor([[1.0, 0.0], [-1.0, 0.0]])
    >>> value = loss(x[:, :1], x[:, :0], Batch(*4 * [ids], user_rows=x, item_rows=x))
    >>> round(value.item(), 3)  # -cos(1 - sigma(2)) - 8 - 8
    -16.993
    """

    space = {"gamma_user": ("log", 0.5, 3.0), "gamma_item": ("log", 0.1, 2.0)}
    formula = (
        "-mean cos(angle(u,i) + 1 - sigma(m_u + m_i)) "
        "+ gamma_user log mean e^{-2|u-u'|^2} + gamma_item log mean e^{-2|i-i'|^2}"
    )
    source = "Park et al., MAWU, CIKM 2023; defaults of its MF on Yelp"

    user_margins: nn.Parameter
    item_margins: nn.Parameter

    def __init__(self, gamma_user: float = 0.8, gamma_item: float = 0.6) -> None:
        super().__init__()
        check_positive(gamma_user=gamma_user, gamma_item=gamma_item)
        self.gamma_user = gamma_user
        self.gamma_item = gamma_item

    def setup(self, info: Setup) -> None:
        """Make one margin per user and per item."""
        draws = generator(info.seed, "loss")
        self.user_margins = normal_table(info.n_users, 1, draws, info.device)
        self.item_margins = normal_table(info.n_items, 1, draws, info.device)

    def forward(self, pos: Tensor, neg: Tensor, batch: Batch) -> Tensor:
        """Return the loss of ``batch.user_rows`` and ``batch.item_rows``, [B, d] each."""
        with torch.no_grad():
            self.user_margins.clamp_(0, 1)
            self.item_margins.clamp_(0, 1)
        users, items = unit_rows(batch)
        drawn = embedding(batch.users, self.user_margins), embedding(batch.items, self.item_margins)
        margin = 1 - (drawn[0] + drawn[1])[:, 0].sigmoid()  # [B]
        cosine = (users * items).sum(1)  # [B]
        within = cosine > -margin.cos()  # the angle and its margin stay below pi
        alignment = -torch.where(within, turned(cosine, margin), -1.0).mean()
        spread = self.gamma_user * uniformity(users) + self.gamma_item * uniformity(items)
        return alignment + spread


def unit_rows(batch: Batch) -> tuple[Tensor, Tensor]:
    """Return the batch's users and items at unit length, [B, d] each."""
    assert batch.user_rows is not None and batch.item_rows is not None
    return normalize(batch.user_rows, eps=1e-12), normalize(batch.item_rows, eps=1e-12)
