"""Three hard losses as a user would write them: in one file, outside the package."""

import math

import torch
from torch.nn.functional import normalize


class DirectAU(torch.nn.Module):
    """Alignment and uniformity, no negatives (Wang et al., KDD 2022)."""

    needs = frozenset({"embeddings"})

    def __init__(self, gamma: float = 1.0):
        super().__init__()
        self.gamma = gamma

    def forward(self, pos, neg, batch):
        users, items = normalize(batch.user_rows), normalize(batch.item_rows)  # [B, d]
        align = (users - items).square().sum(1).mean()
        return align + self.gamma / 2 * (self.uniform(users) + self.uniform(items))

    @staticmethod
    def uniform(rows):
        return torch.pdist(rows).square().mul(-2).exp().mean().clamp_min(1e-9).log()


class SLatK(torch.nn.Module):
    """Softmax loss weighted by the user's top-K score quantile (Yang et al., KDD 2025)."""

    order_free = True
    scale = None

    def __init__(self, tau: float = 0.2, tau_w: float = 1.0, k: int = 20, every: int = 2):
        super().__init__()
        self.tau, self.tau_w, self.k, self.every = tau, tau_w, k, every

    def setup(self, info):
        self.register_buffer("threshold", torch.zeros(info.n_users, device=info.device))

    def on_epoch_start(self, users, items, epoch):
        if epoch % self.every == 0:
            units = normalize(items).T  # [d, I]
            tops = [(normalize(u) @ units).topk(self.k, dim=1).values for u in users.split(1024)]
            self.threshold.copy_(torch.cat(tops)[:, -1])

    def forward(self, pos, neg, batch):
        p = pos[:, 0]  # [B]
        weight = torch.sigmoid((p - self.threshold[batch.users]) / self.tau_w)
        softmax = torch.logsumexp(neg / self.tau, 1) - math.log(neg.shape[1]) - p / self.tau
        return (weight * softmax).mean()


class AdvInfoNCE(torch.nn.Module):
    """Softmax loss whose negatives an adversary weighs (Zhang et al., NeurIPS 2023)."""

    needs = frozenset({"negatives", "neg_items"})
    order_free = True
    scale = None

    def __init__(self, tau: float = 0.2, rank: int = 4):
        super().__init__()
        self.tau, self.rank = tau, rank

    def setup(self, info):
        draws = torch.Generator().manual_seed(info.seed)
        self.users = torch.nn.Parameter(torch.randn(info.n_users, self.rank, generator=draws))
        self.items = torch.nn.Parameter(torch.randn(info.n_items, self.rank, generator=draws))

    def forward(self, pos, neg, batch):
        u = self.users[batch.users]  # [B, r]
        hardness = torch.einsum("br,bmr->bm", u, self.items[batch.neg_items])
        # Same value, gradient turned round: the optimiser descends, so the adversary ascends.
        hardness = 2 * hardness.detach() - hardness
        weights = torch.log_softmax(hardness, 1)  # [B, M]
        p = pos[:, 0] / self.tau
        pushed = torch.logsumexp(neg / self.tau + weights, 1) + math.log(neg.shape[1])
        return (torch.logaddexp(p, pushed) - p).mean()
