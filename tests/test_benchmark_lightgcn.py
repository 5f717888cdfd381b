"""The plain formulation of LightGCN computes what ours does."""

import numpy as np
import pytest
import torch

from benchmarks.lightgcn import HOPS, L2, TAU, plain_loss, square
from bslbench.backbones import LightGCN
from bslbench.config import TrainSettings
from bslbench.losses import SL
from bslbench.sampling import SAMPLERS
from tests.fixtures import tiny


class SLWithItems(SL):
    """Softmax loss that asks for the ids of its negatives, so that both ways get the same."""

    needs = frozenset({"negatives", "neg_items"})


@pytest.mark.parametrize("sampler", ["own", "in_batch"])
def test_plain_has_our_loss_and_gradients(sampler: str) -> None:
    data = tiny()
    settings = TrainSettings.model_validate({"sampler": sampler, "n_negatives": 20, "l2": L2})
    model = LightGCN(data, 16, torch.Generator().manual_seed(0), hops=HOPS)
    table = torch.cat([model.users, model.items]).detach().requires_grad_()
    users, items = (torch.from_numpy(x[:50].astype(np.int64)) for x in data.train.nonzero())
    loss = SLWithItems(tau=TAU)
    scored = SAMPLERS[sampler](settings, loss, data, 0)(model, users, items, 0, 0)
    ours = loss(scored.pos, scored.neg) + L2 / (2 * len(users)) * scored.squared
    neg = scored.neg_items if sampler == "own" else None
    theirs = plain_loss(square(data), table, data.n_users, users, items, neg)
    torch.testing.assert_close(ours, theirs)
    ours.backward()
    theirs.backward()
    assert model.users.grad is not None and model.items.grad is not None
    found = torch.cat([model.users.grad, model.items.grad])
    torch.testing.assert_close(found, table.grad, rtol=1e-4, atol=1e-6)
