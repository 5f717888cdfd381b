"""The loss that stands for a part of the area under the ROC curve: LLPAUC."""

import torch
from torch import Tensor, nn
from torch.nn.functional import softplus

from bslbench.losses.base import Batch, Loss, ascending, check_positive, check_range

KAPPA = 5.0
"""Sharpness of the softplus that stands for [x]_+."""


class LLPAUC(Loss):
    """Lower-left partial AUC: the best positives against the best negatives, as a game.

    With p and n_j through the logistic, ``s+ and gamma`` ascending, ``a, b, s-, theta_a, theta_b``
    and the model descending, and the softplus r of sharpness 5:
    ``-s+ - mean r(2 (1 + gamma) p - (p - a)^2 - s+) / alpha
    + s- + mean_j r((n_j - b)^2 + 2 (1 + gamma) n_j - s-) / beta
    - gamma^2 + theta_a (a + gamma) + theta_b (gamma + 1 - b)``.

    Parameters
    ----------
    alpha
        Share of the positives that counts, from above 0 to 1.
    beta
        Share of the negatives that counts, from above 0 to 1.

    Notes
    -----
    After each step the seven numbers are put back into their bounds, as in the paper's algorithm;
    s+, s- and gamma move at twice the run's learning rate, as in the authors' code.

    Examples
    --------
    >>> value = LLPAUC(alpha=1.0, beta=1.0)(torch.tensor([[0.0]]), torch.tensor([[0.0]]))
    >>> round(value.item(), 4)  # r(1/4 + 1 - 1/2) - r(1 - 1/4 - 1/2) + 1/2 + 1/2
    1.4543
    """

    score = "inner"
    n_negatives = 1000
    order_free = True
    space = {"alpha": ("linear", 0.1, 0.9), "beta": ("log", 0.01, 0.5)}
    formula = (
        "min over a, b, s-, theta_a, theta_b, max over s+, gamma: "
        "-s+ - mean r(2(1+gamma)p - (p-a)^2 - s+)/alpha + s- "
        "+ mean r((n-b)^2 + 2(1+gamma)n - s-)/beta "
        "- gamma^2 + theta_a (a + gamma) + theta_b (gamma + 1 - b), p and n through the logistic"
    )
    source = "Shi et al., LLPAUC, WWW 2024"

    BOUNDS = {
        "a": (0.0, 1.0),
        "b": (0.0, 1.0),
        "s_pos": (-1.0, 4.0),
        "s_neg": (0.0, 5.0),
        "gamma": (-1.0, 1.0),
        "theta_a": (0.0, torch.inf),
        "theta_b": (0.0, torch.inf),
    }
    STARTS = {"a": 1.0, "b": 0.0, "s_pos": 0.5, "s_neg": 0.5, "gamma": 0.0} | dict.fromkeys(
        ("theta_a", "theta_b"), 0.5
    )

    def __init__(self, alpha: float = 0.7, beta: float = 0.1) -> None:
        super().__init__()
        check_positive(alpha=alpha, beta=beta)
        check_range(0, 1, alpha=alpha, beta=beta)
        self.alpha = alpha
        self.beta = beta
        for name, start in self.STARTS.items():
            self.register_parameter(name, nn.Parameter(torch.full((1,), start)))

    def learning_rates(self, lr: float) -> dict[str, float]:
        """Return twice the run's rate for three of the seven."""
        return dict.fromkeys(("s_pos", "s_neg", "gamma"), 2 * lr)

    def forward(self, pos: Tensor, neg: Tensor, batch: Batch | None = None) -> Tensor:
        """Return the loss of scores pos [B, 1], neg [B, M]."""
        with torch.no_grad():
            for name, (low, high) in self.BOUNDS.items():
                self.get_parameter(name).clamp_(low, high)
        # One of each per row: a gradient is then summed row by row, in the same order always.
        a, b, s_pos, s_neg, gamma, theta_a, theta_b = (
            self.get_parameter(name).expand(len(pos), 1) for name in self.BOUNDS
        )
        gamma, s_pos = ascending(gamma), ascending(s_pos)  # [B, 1]
        p, n = pos.sigmoid(), neg.sigmoid()  # [B, 1], [B, M]
        best = softplus(2 * (1 + gamma) * p - (p - a).square() - s_pos, beta=KAPPA)
        worst = softplus((n - b).square() + 2 * (1 + gamma) * n - s_neg, beta=KAPPA)
        rows = s_neg - s_pos - best / self.alpha + worst.mean(1, keepdim=True) / self.beta
        bounds = theta_a * (a + gamma) + theta_b * (gamma + 1 - b)
        return (rows - gamma.square() + bounds).mean()
