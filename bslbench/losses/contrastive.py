"""Losses that push negatives below a margin of the cosine: CCL and DrRL, which learns it."""

import torch
from torch import Tensor, nn
from torch.nn.functional import embedding

from bslbench.losses.base import Batch, Loss, Setup, check_positive, check_range

TINY = 1e-12


class CCL(Loss):
    """Cosine contrastive loss: positives to 1, negatives below a margin.

    ``[1 - p]_+ + w mean_j [n_j - margin]_+``, mean over rows.

    Parameters
    ----------
    margin
        Below which a negative's cosine is left alone, from -1 to 1.
    w
        Weight of the negatives' mean, > 0.

    Examples
    --------
    >>> CCL(margin=0.5, w=10.0)(torch.tensor([[0.8]]), torch.tensor([[0.7, 0.1]]))
    tensor(1.2000)
    """

    order_free = True
    graph_safe = True
    space = {"margin": ("linear", 0.2, 0.9), "w": ("log", 10.0, 1000.0)}
    formula = "[1 - p]_+ + w mean_j [n_j - margin]_+"
    source = "Mao et al., SimpleX, CIKM 2021; defaults of its MF-CCL on Yelp2018"

    def __init__(self, margin: float = 0.9, w: float = 150.0) -> None:
        super().__init__()
        check_range(-1, 1, margin=margin)
        check_positive(w=w)
        self.margin = margin
        self.w = w

    def forward(self, pos: Tensor, neg: Tensor, batch: Batch | None = None) -> Tensor:
        """Return the loss of scores pos [B, 1], neg [B, M]."""
        pushed = (neg - self.margin).relu().mean(1)  # [B]
        return ((1 - pos[:, 0]).relu() + self.w * pushed).mean()


class DrRL(Loss):
    """Rényi loss: the worst case over a Rényi ball, in its dual form with a margin per user.

    ``[1 - p]_+ + m_u + w (mean_j [n_j - m_u]_+^k)^(1/k)`` with ``k = omega / (omega - 1)``. The
    margin m_u is learnt, downhill like everything else: at the optimum the last two terms are the
    worst-case mean of the negatives' scores. Towards omega = infinity (k = 1) this is `CCL` with a
    learnt margin, towards omega = 1 (k = infinity) the hardest negative decides.

    Parameters
    ----------
    w
        Size of the ball, at least 1, which leaves the plain mean.
    omega
        Order of the divergence, > 1.
    margin
        Where all margins start, from -1 to 1.
    margin_lr
        Learning rate of the margins, > 0.

    Notes
    -----
    The authors' code adds 0.1 to each [n_j - m_u]_+ for the sake of its gradient and moves the
    margins by SGD. Here nothing is added, and they move by Adam.

    Examples
    --------
    >>> loss, zero = DrRL(w=2.0, omega=2.0, margin=0.0), torch.tensor([0])
    >>> loss.setup(Setup.of(zero, zero, n_users=1, n_items=1))
    >>> value = loss(torch.tensor([[1.0]]), torch.tensor([[0.3, 0.1]]), Batch(*4 * [zero]))
    >>> round(value.item(), 4)  # 2 sqrt((0.09 + 0.01) / 2)
    0.4472
    """

    order_free = True
    space = {"w": ("log", 1.0, 100.0), "omega": ("log", 1.1, 150.0)}
    formula = "[1 - p]_+ + m_u + w (mean_j [n_j - m_u]_+^k)^(1/k), k = omega/(omega-1), m_u learnt"
    source = "Zhang et al., DrRL, AAAI 2025"

    margins: nn.Parameter

    def __init__(
        self, w: float = 1.0, omega: float = 150.0, margin: float = 0.7, margin_lr: float = 1e-3
    ) -> None:
        super().__init__()
        check_range(1, torch.inf, w=w)
        check_positive(margin_lr=margin_lr, **{"omega - 1": omega - 1})
        check_range(-1, 1, margin=margin)
        self.w = w
        self.omega = omega
        self.margin = margin
        self.margin_lr = margin_lr

    def setup(self, info: Setup) -> None:
        """Make one margin per user."""
        start = torch.full((info.n_users, 1), self.margin, device=info.device)
        self.margins = nn.Parameter(start)

    def learning_rates(self, lr: float) -> dict[str, float]:
        """Return the margins' rate."""
        return {"margins": self.margin_lr}

    def forward(self, pos: Tensor, neg: Tensor, batch: Batch) -> Tensor:
        """Return the loss of scores pos [B, 1], neg [B, M] and ``batch.users`` [B]."""
        k = self.omega / (self.omega - 1)
        margin = embedding(batch.users, self.margins)  # [B, 1]
        above = (neg - margin).relu()  # [B, M]
        # Divided by its largest, no power of a row under- or overflows; a row of zeros stays one.
        peak = above.detach().amax(1, keepdim=True).clamp_min(TINY)
        moment = ((above / peak).pow(k).mean(1) + TINY).pow(1 / k)  # [B]
        return ((1 - pos[:, 0]).relu() + margin[:, 0] + self.w * peak[:, 0] * moment).mean()
