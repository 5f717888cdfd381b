"""Samplers: what is drawn, what is scored, what L2 sums; each against the long way round."""

import math

import pytest
import torch
from torch import Tensor
from torch.nn.functional import normalize

from bslbench.backbones import BACKBONES, MF
from bslbench.config import TrainSettings
from bslbench.kernels.dropout import drop
from bslbench.losses import BSL, SL, FullSoftmax, Loss
from bslbench.losses.base import as_loss
from bslbench.sampling import SAMPLERS, Scored, own
from bslbench.sampling.own import stable_sum
from tests.fixtures import tiny


class Everything(Loss):
    """Asks for all that a loss can ask for, in draw order."""

    needs = frozenset({"negatives", "neg_items", "negative_products", "embeddings", "all_items"})
    tau = 0.5


class Grouped(Everything):
    """The same in any order."""

    order_free = True


def score(sampler: str, loss: Loss, **changes: object) -> tuple[Scored, MF, Tensor, Tensor]:
    data = tiny()
    base = {"sampler": sampler, "n_negatives": 25, "l2": 1.0}
    settings = TrainSettings.model_validate(base | changes)
    backbone = MF(data, 8, torch.Generator().manual_seed(0))
    users, items = torch.tensor([3, 7, 3, 20]), torch.from_numpy(data.train.indices[:4]).long()
    scored = SAMPLERS[sampler](settings, loss, data, 0)(backbone, users, items, 2, 5)
    return scored, backbone, users, items


@pytest.mark.parametrize("sampler", ["own", "pool", "in_batch"])
@pytest.mark.parametrize("kind", ["cosine", "inner"])
@pytest.mark.parametrize("l2_negatives", [True, False])
def test_scores_and_squares_are_those_of_the_items_named(
    sampler: str, kind: str, l2_negatives: bool
) -> None:
    loss = Everything()
    loss.n_pos = 3
    scored, backbone, users, items = score(
        sampler, loss, score_train=kind, l2_negatives=l2_negatives
    )
    user_rows, item_table = backbone.users[users], backbone.items
    unit = normalize if kind == "cosine" else lambda x, dim=-1: x
    expected = unit(user_rows) @ unit(item_table).T  # [B, I]
    assert scored.neg_items is not None and scored.item_rows is not None
    torch.testing.assert_close(scored.neg, expected.gather(1, scored.neg_items))
    torch.testing.assert_close(scored.pos[:, :1], expected.gather(1, items[:, None]))
    torch.testing.assert_close(scored.user_rows, user_rows)
    torch.testing.assert_close(scored.item_rows, item_table[items])
    squares = user_rows.square().sum() + item_table[items].square().sum()
    if l2_negatives and sampler != "in_batch":
        squares = squares + item_table[scored.neg_items].square().sum()
    torch.testing.assert_close(scored.squared, squares)
    torch.testing.assert_close(scored.all_scores, expected)


@pytest.mark.parametrize("sampler", ["own", "pool", "in_batch"])
@pytest.mark.parametrize("loss", [Everything, Grouped])
def test_other_tables_are_multiplied_at_the_same_negatives(sampler: str, loss: type[Loss]) -> None:
    scored, _, users, _ = score(sampler, loss())
    draws = torch.Generator().manual_seed(1)
    rows, table = (torch.randn(n, 5, generator=draws) for n in (len(users), tiny().n_items))
    ours, exact = ([x.clone().requires_grad_() for x in (rows, table)] for _ in range(2))
    assert scored.neg_items is not None and scored.negative_products is not None
    found = scored.negative_products(*ours)
    expected = (exact[0] @ exact[1].T).gather(1, scored.neg_items)
    torch.testing.assert_close(found, expected)
    for products in (found, expected):
        products.square().sum().backward()
    for mine, theirs in zip(ours, exact, strict=True):
        torch.testing.assert_close(mine.grad, theirs.grad, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("backbone", BACKBONES)
def test_all_items_are_scored_without_negatives_and_l2_counts_no_more(backbone: str) -> None:
    loss, data = FullSoftmax(), tiny()
    users, items = torch.tensor([3, 7, 3, 20]), torch.from_numpy(data.train.indices[:4]).long()
    made = BACKBONES[backbone](data, 8, torch.Generator().manual_seed(0)).eval()  # no dropout
    settings = TrainSettings(sampler="none", n_negatives=0, l2=1.0)
    scored = SAMPLERS["none"](settings, loss, data, 0)(made, users, items, 0, 0)
    tables = [normalize(table) for table in made.tables()]
    torch.testing.assert_close(scored.all_scores, tables[0][users] @ tables[1].T)
    assert scored.all_scores is not None and scored.neg.shape == (4, 0)
    torch.testing.assert_close(scored.pos, scored.all_scores.gather(1, items[:, None]))
    plain = SAMPLERS["none"](settings, SL(), data, 0)(made, users, items, 0, 0)
    torch.testing.assert_close(scored.squared, plain.squared)


class Named(Everything):
    """All but the scores of all items, which take the whole table."""

    needs = Everything.needs - {"all_items"}


@pytest.mark.parametrize("backbone", BACKBONES)
@pytest.mark.parametrize("l2_negatives", [True, False])
def test_items_named_come_to_the_same_as_the_whole_table(
    backbone: str, l2_negatives: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = tiny()
    settings = TrainSettings(n_negatives=25, l2=1.0, l2_negatives=l2_negatives, dropout=0.3)
    users, items = torch.tensor([3, 7, 3, 20]), torch.from_numpy(data.train.indices[:4]).long()
    found = []
    for most in (0.0, math.inf):
        monkeypatch.setattr(own, "FEW", most)
        sampler = own.Own(settings, Named(), data, 0)
        assert sampler.few == (most > 0)
        model = BACKBONES[backbone](data, 8, torch.Generator().manual_seed(0))
        scored = sampler(model, users, items, 2, 5)
        given = [scored.pos, scored.neg, scored.squared, scored.user_rows, scored.item_rows]
        sum(part.sin().sum() for part in given if part is not None).backward()  # type: ignore[union-attr]
        found.append([*given, scored.neg_items, *(p.grad for p in model.parameters())])
    torch.testing.assert_close(*found)


def test_nothing_is_made_that_a_loss_did_not_ask_for() -> None:
    for sampler in ("own", "pool", "in_batch", "none"):
        scored, *_ = score(sampler, SL())
        assert scored.neg_items is scored.user_rows is scored.item_rows is None
        assert scored.all_scores is scored.negative_products is None


def test_in_batch_negatives_are_the_other_rows_items() -> None:
    scored, _, _, items = score("in_batch", Everything())
    assert scored.neg_items is not None
    for row, negatives in enumerate(scored.neg_items.tolist()):
        assert negatives == [item for other, item in enumerate(items.tolist()) if other != row]


def test_logq_divides_exp_by_the_share_of_the_item() -> None:
    plain, _, _, _ = score("in_batch", Everything())
    corrected, _, _, _ = score("in_batch", Everything(), logq=True)
    data = tiny()
    share = torch.from_numpy(data.item_degrees / data.item_degrees.sum()).float()
    assert plain.neg_items is not None
    torch.testing.assert_close(
        torch.exp(corrected.neg / 0.5), torch.exp(plain.neg / 0.5) / share[plain.neg_items]
    )
    torch.testing.assert_close(corrected.pos, plain.pos)


def test_draws_differ_by_epoch_step_and_seed_and_repeat_otherwise() -> None:
    data = tiny()
    settings = TrainSettings(n_negatives=25)
    users, items = torch.arange(4), torch.arange(4)[:, None]
    drawn = {
        key: SAMPLERS["own"](settings, SL(), data, key[0]).draw(users, items, *key[1:])[0].items
        for key in [(0, 0, 0), (0, 0, 1), (0, 1, 0), (1, 0, 0)]
    }
    assert len({tuple(index.flatten().tolist()) for index in drawn.values()}) == 4
    again = SAMPLERS["own"](settings, SL(), data, 0).draw(users, items, 0, 0)[0].items
    assert torch.equal(again, drawn[0, 0, 0])


def test_extra_positives_are_train_items_of_the_user() -> None:
    data = tiny()
    loss = BSL(n_pos=40)
    sampler = SAMPLERS["own"](TrainSettings(), loss, data, 0)
    users = torch.tensor([5, 6])
    own = torch.from_numpy(data.train[[5, 6]].indices[[0, 9]]).long()
    drawn = sampler.positives(users, own, 0, 0)
    assert torch.equal(drawn[:, 0], own)
    for user, row in zip([5, 6], drawn.tolist(), strict=True):
        assert set(row) == set(data.train[[user]].indices.tolist())


@pytest.mark.parametrize("shape", [(0, 3), (5, 7), (300, 64)])
def test_drop_has_the_bits_of_its_formula(shape: tuple[int, int]) -> None:
    draws = torch.Generator().manual_seed(0)
    keep = torch.rand(shape, generator=draws) >= 0.3
    ours = torch.randn(shape, generator=draws).requires_grad_()
    plain = ours.detach().clone().requires_grad_()
    weights = torch.randn(shape, generator=draws)
    (drop(ours, keep, 0.3) * weights).sum().backward()
    (plain * keep / (1 - 0.3) * weights).sum().backward()
    assert torch.equal(drop(ours, keep, 0.3), plain * keep / (1 - 0.3))
    assert ours.grad is not None and plain.grad is not None
    assert torch.equal(ours.grad, plain.grad)


def test_dropout_keeps_the_expectation_and_moves_with_the_step() -> None:
    sampler = SAMPLERS["own"](TrainSettings(dropout=0.25), SL(), tiny(), 0)
    rows = torch.ones(400, 50)
    dropped = sampler.dropout(rows, 0, 0)
    assert dropped.unique().tolist() == pytest.approx([0, 4 / 3])
    assert dropped.mean().item() == pytest.approx(1, abs=0.02)
    assert not torch.equal(dropped, sampler.dropout(rows, 0, 1))
    assert torch.equal(dropped, sampler.dropout(rows, 0, 0))


def test_a_plain_module_is_a_loss_with_the_defaults() -> None:
    loss = as_loss(torch.nn.Identity())
    assert (loss.n_pos, loss.needs, loss.order_free) == (1, frozenset({"negatives"}), False)
    assert (loss.score, loss.scale) == ("cosine", 1.0)


def test_stable_sum_is_a_sum() -> None:
    x = torch.arange(5000, dtype=torch.float64).requires_grad_()
    stable_sum(x).backward()
    assert stable_sum(x).item() == 5000 * 4999 / 2
    assert x.grad is not None and (x.grad == 1).all()
