"""What losses keep from step to step and from epoch to epoch, and the rates at which they learn."""

import itertools
import math
from contextlib import suppress
from typing import Any

import pytest
import torch
from scipy.special import lambertw
from torch import Tensor
from torch.nn.functional import normalize

from bslbench.backbones import MF
from bslbench.config import TrainSettings
from bslbench.errors import ConfigError
from bslbench.losses import (
    BC,
    LLPAUC,
    LOSSES,
    MAWU,
    TCE,
    AdapTau,
    AdvInfoNCE,
    Batch,
    Loss,
    Setup,
    SLatK,
    SogCLR,
    Talos,
)
from bslbench.losses.topk import kth_scores
from bslbench.optimisers import Adam
from bslbench.training import Interrupted, train
from tests.fixtures import tiny


def batch(users: list[int], epoch: int = 0, **more: Any) -> Batch:
    rows = torch.tensor(users)
    return Batch(rows, rows, torch.tensor(epoch), torch.tensor(0), **more)


def info(n_users: int = 3, n_items: int = 50, **more: Any) -> Setup:
    """Return a setup in which user u has u + 1 train items, the first ones."""
    pairs = [(user, item) for user in range(n_users) for item in range(user + 1)]
    users, items = (torch.tensor(ids) for ids in zip(*pairs, strict=True))
    return Setup.of(users, items, n_users, n_items, **more)


def trained(loss: Loss, steps: int = 10**9, **settings: Any) -> tuple[MF, list[list[float]]]:
    """Train on tiny data; return the model and Adam's rates at each step, those apart last."""
    data, rates, count = tiny(), [], itertools.count(1)
    model = MF(data, 8, torch.Generator().manual_seed(0))
    sampler = "own" if "negatives" in loss.needs else "none"
    base = {"n_negatives": 20, "sampler": sampler, "score_train": loss.score, "batch_size": 100}
    adam_step = Adam.step

    def spy(self: Adam, rate: float) -> None:
        adam_step(self, rate)
        apart = self.others.param_groups[1:] if self.others else []
        rates.append([rate, *(group["lr"] for group in apart)])

    with pytest.MonkeyPatch.context() as patch, suppress(Interrupted):
        patch.setattr(Adam, "step", spy)
        train(
            TrainSettings.model_validate(base | settings),
            data,
            model,
            loss,
            seed=0,
            evaluate=lambda backbone: (0.1, 0.1),
            stop=lambda: next(count) == steps,
        )
    return model, rates


def test_each_parameter_learns_at_its_own_rate_and_all_decay_alike() -> None:
    _, rates = trained(LLPAUC(), epochs=2, lr=0.01, lr_schedule="linear")  # 6 steps
    left = [1 - step / 6 for step in range(6)]
    assert rates == [pytest.approx([0.01 * f] + 3 * [0.02 * f]) for f in left]
    assert trained(Talos(quantile_lr=0.5), epochs=1)[1][0] == [1e-3, 0.5]
    assert trained(LOSSES["sl"](), epochs=1)[1][0] == [1e-3]


def test_a_rate_for_nothing_is_an_error() -> None:
    class Mistaken(LOSSES["sl"]):  # type: ignore[misc]
        def learning_rates(self, lr: float) -> dict[str, float]:
            return {"margin": lr}

    with pytest.raises(ConfigError, match="a learning rate for 'margin', but no such parameter"):
        trained(Mistaken(), epochs=1)


def test_sogclr_moves_the_average_of_each_user_once_a_batch() -> None:
    loss = SogCLR(tau=0.5, gamma=0.25)
    loss.setup(info())
    averages: dict[int, float] = {}
    for step, users in enumerate([[0, 1, 0], [1, 1, 2], [0, 2, 2]]):
        neg = torch.rand(3, 4, generator=torch.Generator().manual_seed(step))
        loss(torch.zeros(3, 1), neg, batch(users))
        g = [sum(math.exp(x / 0.5) for x in row) / 4 for row in neg.tolist()]
        for user in set(users):
            fresh = [value for value, other in zip(g, users, strict=True) if other == user]
            mean = sum(fresh) / len(fresh)
            averages[user] = 0.75 * averages[user] + 0.25 * mean if user in averages else mean
        for user, average in averages.items():
            assert loss.log_averages[user].exp().item() == pytest.approx(average, rel=1e-5)
    assert loss.log_averages.isfinite().tolist() == [user in averages for user in range(3)]


def test_tce_drops_more_positives_step_by_step_and_those_of_the_largest_loss() -> None:
    loss = TCE(drop=0.5, ramp=4)
    pos = torch.tensor([[3.0], [-2.0], [1.0], [0.0], [2.0], [-1.0], [4.0], [5.0]])
    dropped = []
    for _ in range(6):
        leaf = pos.clone().requires_grad_()
        loss(leaf, torch.zeros(8, 1)).backward()
        assert leaf.grad is not None
        dropped.append(pos[leaf.grad == 0].flatten().sort().values.tolist())
    assert dropped == [[], [-2.0], [-2.0, -1.0], [-2.0, -1.0, 0.0], *2 * [[-2.0, -1.0, 0.0, 1.0]]]


def test_thresholds_are_the_kth_highest_scores() -> None:
    draws = torch.Generator().manual_seed(0)
    users, items = (torch.randn(n, 6, generator=draws) for n in (1030, 90))
    expected = (users @ items.T).sort(dim=1, descending=True).values[:, 4]
    torch.testing.assert_close(kth_scores(users, items, 5), expected)
    assert (kth_scores(users[:2], items, 91) == -torch.inf).all()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("bslbench.losses.topk.BLOCK_SCORES", 100 * len(items))  # 96 users at a time
        torch.testing.assert_close(kth_scores(users, items, 5), expected)


def test_sl_at_k_sets_its_thresholds_every_few_epochs_by_the_score_of_training() -> None:
    draws = torch.Generator().manual_seed(0)
    users, items = (torch.randn(n, 6, generator=draws) for n in (3, 50))
    for score in ("cosine", "inner"):
        loss = SLatK(top_k=5, every=2)
        loss.setup(info(score=score))
        rows = (normalize(x) if score == "cosine" else x for x in (users, items))
        loss.on_epoch_start(users, items, 2)
        torch.testing.assert_close(loss.thresholds, kth_scores(*rows, 5))
    kept = loss.thresholds.clone()
    loss.on_epoch_start(users, -items, 3)
    assert torch.equal(loss.thresholds, kept)
    loss.on_epoch_start(users, -items, 4)
    assert not torch.equal(loss.thresholds, kept)


def test_talos_thresholds_learn_to_let_k_of_the_items_pass() -> None:
    loss = Talos(top_k=5, quantile_lr=0.01)
    loss.setup(info())
    adam = torch.optim.Adam(loss.parameters(), lr=loss.quantile_lr)
    neg = torch.linspace(-1, 1, 50).expand(3, 50)  # each item once
    for _ in range(1500):
        adam.zero_grad()
        loss(torch.zeros(3, 1), neg, batch([0, 1, 2])).backward()
        adam.step()
    passing = (neg > loss.thresholds).sum(1)
    assert ((passing >= 4) & (passing <= 6)).all()


def test_the_adversary_rests_but_in_its_epochs() -> None:
    loss = AdvInfoNCE(adv_every=2, adv_epochs=1, adv_lr=0.1)
    seen: list[Tensor] = []
    hook = loss.register_forward_pre_hook(
        lambda module, _: seen.append(loss.item_hardness.detach().clone())
    )
    trained(loss, epochs=4)  # 3 steps each
    hook.remove()
    seen.append(loss.item_hardness.detach())
    moved = [not torch.equal(*pair) for pair in itertools.pairwise(seen)]
    assert moved == 3 * [False] + 3 * [True] + 6 * [False]


def test_bc_trains_popularity_first_and_then_all_but_popularity() -> None:
    for steps, popularity, model_moves in [(6, True, False), (9, False, True)]:
        loss = BC(warmup=2)
        before = MF(tiny(), 8, torch.Generator().manual_seed(0)).users
        seen: list[Tensor] = []
        loss.register_forward_pre_hook(
            lambda module, _, seen=seen: seen.append(module.user_table.detach().clone())
        )
        model, _ = trained(loss, steps=steps, epochs=3, l2=0.1)  # which rests with the model
        assert torch.equal(loss.user_table, seen[-1]) != popularity
        assert torch.equal(model.users, before) != model_moves
    assert len(loss.user_table) == 1  # all users have as many train items
    assert len(loss.item_table) == len(set(tiny().item_degrees.tolist()))


def test_bc_has_no_angle_without_a_cosine() -> None:
    with pytest.raises(ConfigError, match="score_train cannot be 'inner'"):
        trained(BC(), epochs=1, score_train="inner")


def test_the_numbers_of_games_and_margins_stay_in_their_bounds() -> None:
    loss = LLPAUC()
    trained(loss, epochs=5, lr=1.0)
    loss(torch.zeros(1, 1), torch.zeros(1, 1))
    for name, (low, high) in loss.BOUNDS.items():
        assert low <= loss.get_parameter(name).item() <= high
    margins = MAWU()
    trained(margins, epochs=3, lr=1.0)
    rows = torch.ones(1, 8)
    margins(rows, rows, batch([0], user_rows=rows, item_rows=rows))
    for margin in margins.parameters():
        assert margin.min() >= 0 and margin.max() <= 1


def test_adap_tau_sets_its_temperatures_from_gap_and_losses() -> None:
    loss = AdapTau(beta=0.5, warmup=2)
    loss.setup(info(n_users=6))  # user 0 and 1, with 1 and 2 items, are the least active fifth
    pos = torch.tensor([[0.1], [0.4], [0.3], [0.9]])
    neg = torch.rand(4, 5, generator=torch.Generator().manual_seed(0))
    rows = [1, 3, 3, 4]
    loss(pos, neg, batch(rows))
    draws = torch.Generator().manual_seed(2)
    users, items = (torch.rand(n, 4, generator=draws) for n in (6, 50))

    mean_loss: dict[int, float] = {}
    for user in (1, 3, 4):
        own = [
            math.log(sum(map(math.exp, n))) - p[0]
            for n, p, other in zip(neg.tolist(), pos.tolist(), rows, strict=True)
            if other == user
        ]
        mean_loss[user] = sum(own) / len(own)
    centre = sum(mean_loss.values()) / 3
    factor = {
        user: math.exp(-lambertw(max((own - centre) / 0.5, 1e-9 - 1 / math.e)).real)
        for user, own in mean_loss.items()
    }
    cosines = normalize(users) @ normalize(items).T
    active = [2, 3, 4, 5]
    positive = torch.cat([cosines[user, : user + 1] for user in active]).mean()
    odds = math.log(4 * 50 / (2 * (3 + 4 + 5 + 6)))

    state = {name: kept.clone() for name, kept in loss.state_dict().items()}
    for epoch, gap in [(1, 0.7), (2, (positive - cosines[active].mean()).item())]:
        loss.load_state_dict(state)
        loss.on_epoch_start(users, items, epoch)
        expected = [odds / max(gap, 0.01) * factor.get(user, 1.0) for user in range(6)]
        assert loss.base.item() == pytest.approx(odds / max(gap, 0.01), rel=1e-4)
        assert loss.inverse_tau.tolist() == pytest.approx(expected, rel=1e-4)
    assert not loss.loss_counts.any() and not loss.loss_sums.any()


def test_adap_tau_needs_sparse_data() -> None:
    with pytest.raises(ConfigError, match="less than half of all pairs"):
        AdapTau().setup(info(n_users=4, n_items=4))


def test_adap_tau_starts_at_the_published_temperature_on_yelp2018(real_data: Any) -> None:
    """The authors' log of their run on Yelp2018 begins at 1/tau = 8.619972513557173."""
    from bslbench.data.load import load

    data = load("yelp2018", real_data)
    users, items = (torch.from_numpy(x.astype("int64")) for x in data.train.nonzero())
    loss = AdapTau()
    loss.setup(Setup.of(users, items, data.n_users, data.n_items))
    assert loss.base.item() == pytest.approx(8.619972513557173, rel=1e-6)


def test_warp_gets_its_negatives_in_the_order_of_the_draws() -> None:
    """Ids go with popularity, and grouped draws with ids: the first would be a popular one."""
    seen: list[Tensor] = []

    class Watching(LOSSES["warp"]):  # type: ignore[misc]
        needs = frozenset({"negatives", "neg_items"})

        def forward(self, pos: Tensor, neg: Tensor, batch: Any = None) -> Tensor:
            seen.append(batch.neg_items[:, 0].float())
            return super().forward(pos, neg, batch)

    trained(Watching(), epochs=5)
    assert torch.cat(seen).mean().item() == pytest.approx(44.5, abs=4)
