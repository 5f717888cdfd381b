"""Noise: how it is written, what it does to train and to the draws, and that nothing else moves."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from bslbench.backbones import MF
from bslbench.config import Noise, TrainSettings
from bslbench.data.interactions import Interactions, to_csr
from bslbench.data.load import load
from bslbench.data.noise import _part, corrupt, false_negative_share, realised
from bslbench.data.readers import read_bytes, user_lists
from bslbench.data.splits import hold_out
from bslbench.errors import ConfigError, DataError
from bslbench.evaluation.ranking import rank_all
from bslbench.losses import SL, Loss
from bslbench.references import Popularity
from bslbench.sampling import SAMPLERS
from bslbench.training import Interrupted, train
from tests.fixtures import NONE, on_threads, tiny
from tests.test_sampling import Everything


def noisy(text: str, data: Interactions, seed: int = 0, **how: Any) -> Interactions:
    return corrupt(data, Noise.parse(text, **how), seed, data)


def pairs_of(matrix: Any) -> set[tuple[int, int]]:
    return {(int(u), int(i)) for u, i in zip(*matrix.nonzero(), strict=True)}


def with_degrees(degrees: list[int], n_items: int = 60) -> Interactions:
    """User u has the train items 0 to degrees[u] - 1, and the last item of all as test."""
    users = np.repeat(np.arange(len(degrees)), degrees)
    items = np.concatenate([np.arange(d) for d in degrees])
    test = np.arange(len(degrees)), np.full(len(degrees), n_items - 1)
    return Interactions.from_pairs("degrees", len(degrees), n_items, (users, items), NONE, test)


# How it is written


@pytest.mark.parametrize(
    ("text", "written"),
    [
        ("", ""),
        ("clean", ""),
        ("pos=0", ""),
        ("pos_popular=0,neg=1.0", ""),
        ("pos=0.20", "pos=0.2"),
        ("neg=5,pos_published=1e-1", "pos_published=0.1,neg=5"),
        ("fneg=0", "fneg=0"),
    ],
)
def test_one_way_of_writing_each_noise(text: str, written: str) -> None:
    assert Noise.parse(text).text == written
    assert Noise.parse(written) == Noise.parse(text)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("pso=0.2", "no noise 'pso'; did you mean 'pos'"),
        ("pos=much", "pos: Input should be a valid number"),
        ("pos=", "pos: Input should be a valid number"),
        ("neg=-1", "neg: Input should be greater than or equal to 0"),
        ("neg=inf", "neg: Input should be a finite number"),
        ("fneg=2", "fneg: Input should be less than or equal to 1"),
        ("pos=0.1,pos_popular=0.2", "'pos' is given twice"),
        ("neg=2,fneg=0.1", "neg and fneg both say which negatives are false"),
    ],
)
def test_what_cannot_be_meant_says_so(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Noise.parse(text)


def test_labels_matter_only_where_there_are_false_positives() -> None:
    assert Noise.parse("neg=5", "same") == Noise.parse("neg=5")
    assert Noise.parse("pos=0.1", "same") != Noise.parse("pos=0.1")


# False positives


def test_the_rate_is_the_number_as_written() -> None:
    degrees = np.array([90, 100, 0])  # in floating point .7 * 90 lies below 63
    counts = {text: _part(degrees, Noise.parse(text)) for text in ("pos=0.7", "pos_published=0.7")}
    assert counts["pos=0.7"].tolist() == [63, 70, 0]
    assert counts["pos_published=0.7"].tolist() == [62, 70, 0]
    third = Noise.parse("pos=0.3333333333333333")  # sixteen digits times a degree pass 64 bits
    assert _part(np.array([3000, 2768]), third).tolist() == [999, 922]


def test_each_user_gets_floor_of_the_rate_and_no_pair_that_is_known() -> None:
    data = with_degrees([0, 1, 4, 5, 9, 10, 39])
    found = noisy("pos=0.2", data)
    added = pairs_of(found.train) - pairs_of(data.train)
    counts = np.bincount([user for user, _ in added], minlength=7)
    assert counts.tolist() == [0, 0, 0, 1, 1, 2, 7]
    assert pairs_of(data.train) <= pairs_of(found.train)
    assert not added & (pairs_of(data.train) | pairs_of(data.test))
    assert found.train.has_sorted_indices and found.train.dtype == np.uint8
    assert found.test is data.test and found.clean_train is data.train
    assert realised(found) == {
        "noise_rate": 11 / 68,
        "noise_hidden_rate": 0,
        "noise_in_test": 0,
    }


def test_a_user_runs_out_of_items() -> None:
    data = with_degrees([55, 3])
    found = noisy("pos=0.5", data)
    assert np.diff(found.train.indptr).tolist() == [59, 4]  # all but the test item


def test_what_is_held_out_is_no_false_positive() -> None:
    data = tiny(n_items=20, per_user=12)
    split = hold_out(data, "valid")
    found = corrupt(split, Noise.parse("pos=0.5"), 0, data)
    added = pairs_of(found.train) - pairs_of(split.train)
    assert len(added) == 30 * 5
    assert not added & (pairs_of(data.train) | pairs_of(data.test))


def test_the_seed_draws_and_nothing_else() -> None:
    data = tiny()
    first, again, other = (noisy("pos=0.5", data, seed).train for seed in (0, 0, 1))
    assert (first != again).nnz == 0
    assert (first != other).nnz > 0
    # Lower rates draw from the same stream: what is false at 0.25 is false at 0.5.
    assert pairs_of(noisy("pos=0.25", data).train) < pairs_of(first)


def test_uniform_and_popular_false_positives() -> None:
    """2,000 users draw one of 10 items; by degree these have 1 to 10 of 55 train pairs."""
    holders = np.repeat(np.arange(2000, 2010), np.arange(1, 11))
    items = np.concatenate([np.arange(10 - d, 10) for d in range(1, 11)])
    users = np.concatenate([np.arange(2000), holders])
    # Each of the 2,000 has the item 10, so that floor(1 * 1) = 1 is drawn.
    pairs = users, np.concatenate([np.full(2000, 10), items])
    data = Interactions.from_pairs("popular", 2010, 11, pairs, NONE, NONE)
    degree = np.bincount(items, minlength=10)
    for text, share in (("pos=1", np.full(10, 0.1)), ("pos_popular=1", degree / degree.sum())):
        added = noisy(text, data).train[:2000].tocoo().col
        counts = np.bincount(added[added < 10], minlength=10)
        assert counts.sum() == 2000
        error = np.sqrt(2000 * share * (1 - share))
        assert (np.abs(counts - 2000 * share) < 3.5 * error).all()


def test_popular_stops_at_items_that_nobody_has() -> None:
    data = Interactions.from_pairs(
        "few", 2, 9, (np.array([0, 0, 1]), np.array([0, 1, 2])), NONE, NONE
    )
    assert noisy("pos_popular=3", data).train.toarray().tolist() == [
        [1, 1, 1, 0, 0, 0, 0, 0, 0],
        [1, 1, 1, 0, 0, 0, 0, 0, 0],
    ]


def test_published_noise_is_that_of_the_published_file(real_data: Path) -> None:
    folder = real_data / "movielens-1m"
    file = folder / "train_0.1.txt"
    if not file.exists():
        pytest.skip(f"{file} is not there")
    data = hold_out(load("movielens-1m", real_data), "test")
    draws = np.floor(0.1 * data.user_degrees).astype(int)
    users, items = user_lists(read_bytes(file, ""), str(file))
    assert (np.bincount(users) == data.user_degrees + draws).all()
    theirs = to_csr(users, items, data.n_users, data.n_items)
    ours = noisy("pos_published=0.1", data).train
    free = data.n_items - data.user_degrees
    for noisy_train in (theirs, ours):
        assert noisy_train.multiply(data.train).nnz == data.train.nnz
        added = np.diff(noisy_train.indptr) - data.user_degrees
        assert (added <= draws).all()
        # Of n draws with replacement from F, F (1 - (1 - 1 / F)^n) are distinct on average.
        missed = (1 - 1 / free) ** draws
        both = free * (free - 1) * (1 - 2 / free) ** draws
        variance = (free * missed + both - (free * missed) ** 2).sum()
        repeats = (draws - added).sum()
        assert abs(repeats - (draws - free * (1 - missed)).sum()) < 3 * variance**0.5
        # A test pair is drawn at least once with probability 1 - (1 - 1 / F)^n.
        n_test = np.diff(data.test.indptr)
        hit = noisy_train.multiply(data.test).nnz
        expected = (n_test * (1 - missed)).sum()
        assert abs(hit - expected) < 3 * (n_test * missed * (1 - missed)).sum() ** 0.5
    assert realised(noisy("pos_published=0.1", data))["noise_in_test"] == pytest.approx(
        0.012, abs=0.001
    )


def test_published_noise_may_hit_test_items_and_these_cannot_be_found() -> None:
    data = with_degrees([30] * 200, n_items=40)
    found = noisy("pos_published=0.5", data)  # 15 draws from 10 items: most are hit
    hit = pairs_of(found.train) & pairs_of(data.test)
    assert realised(found)["noise_in_test"] == len(hit) / 200
    assert abs(len(hit) / 200 - (1 - 0.9**15)) < 3 * (0.9**15 * (1 - 0.9**15) / 200) ** 0.5
    ranks = rank_all(lambda users: torch.zeros(len(users), 40), found, "test")
    assert (ranks.ranks == 0).sum() == len(hit)


def test_references_see_the_noise() -> None:
    data = noisy("pos=0.5", tiny())
    scores = Popularity().fit(data, 0)(torch.tensor([0]))
    assert scores[0].tolist() == data.train.sum(axis=0).tolist()
    assert scores.sum() == 30 * (8 + 4)


# Labels of validation


def test_validation_labels_are_noisy_at_the_rate_of_train_and_test_does_not_see_them() -> None:
    data = tiny(n_users=100, n_items=300, per_user=40)
    split = hold_out(data, "valid")
    assert split.valid.nnz == 400
    clean, same = (
        corrupt(split, Noise.parse("pos=0.3", labels), 0, data) for labels in ("clean", "same")
    )
    assert (clean.train != same.train).nnz == 0
    assert clean.labels is split.valid and same.valid is split.valid
    added = pairs_of(same.labels) - pairs_of(split.valid)
    assert len(added) == 100 * (12 - 10)  # floor(.3 (36 + 4)) - floor(.3 36): 0.5 of 4, not 0.25
    assert not added & (pairs_of(data.train) | pairs_of(data.test) | pairs_of(same.train))
    scores = torch.rand(100, 300, generator=torch.Generator().manual_seed(0))
    tests = [rank_all(lambda users: scores[users], d, "test").ranks for d in (clean, same)]
    assert (tests[0] == tests[1]).all()
    valid = rank_all(lambda users: scores[users], same, "valid")
    assert len(valid.ranks) == 600


@pytest.mark.parametrize("kind", ["pos", "pos_popular", "pos_published"])
def test_no_false_label_lies_in_the_noisy_train_where_it_could_not_be_found(kind: str) -> None:
    data = tiny(n_users=200, n_items=120, per_user=40)
    noisy = corrupt(hold_out(data, "valid"), Noise.parse(f"{kind}=0.5", "same"), 0, data)
    added = pairs_of(noisy.labels) - pairs_of(noisy.valid)
    assert added and not added & pairs_of(noisy.train)


# False negatives


def draws_of(data: Interactions, user: int, n: int, seed: int = 0) -> np.ndarray:
    """Return n negatives that the sampler draws for one user."""
    sampler = SAMPLERS["own"](TrainSettings(n_negatives=n // 100), SL(), data, seed)
    users = torch.full((100,), user)
    index, _ = sampler.draw(users, torch.zeros(100, 1, dtype=torch.long), 0, 0)
    return index.items[:, 1:].numpy().ravel()


@pytest.mark.parametrize("n_positives", [1, 1000])
@pytest.mark.parametrize("weight", [0, 3, 5, 10])
def test_the_share_of_false_negatives_over_a_million_draws(n_positives: int, weight: int) -> None:
    n_items, n = 4000, 1_000_000
    users = np.repeat([0, 1], [1, 1000])
    items = np.concatenate([[17], np.arange(0, 3000, 3)])
    data = Interactions.from_pairs("two", 2, n_items, (users, items), NONE, NONE)
    user = 0 if n_positives == 1 else 1
    drawn = draws_of(noisy(f"neg={weight}", data), user, n)
    positive = np.isin(drawn, items[users == user])
    share = weight * n_positives / (weight * n_positives + n_items - n_positives)
    assert abs(positive.mean() - share) <= 3 * (share * (1 - share) / n) ** 0.5
    # Uniform within each side: chi-square over its items, mean k - 1, variance 2 (k - 1).
    for side in (drawn[positive], drawn[~positive]):
        counts = np.bincount(side, minlength=n_items)[np.unique(side)]
        if len(counts) > 1:
            expected = len(side) / len(counts)
            chi2 = ((counts - expected) ** 2 / expected).sum()
            assert abs(chi2 - (len(counts) - 1)) < 4 * (2 * (len(counts) - 1)) ** 0.5
    if weight:
        assert len(np.unique(drawn)) == n_items


def test_the_plain_sampler_is_weight_one() -> None:
    data = tiny()
    assert noisy("neg=1", data) is data
    assert false_negative_share(data) == pytest.approx(8 / 90)
    assert false_negative_share(noisy("neg=5", data)) == pytest.approx(40 / (40 + 82))


def test_positives_that_count_as_false_negatives_are_the_clean_ones() -> None:
    data = noisy("pos=0.5,neg=10", with_degrees([20], n_items=100))
    drawn = draws_of(data, 0, 20_000)
    added = data.train.indices[data.train.indices >= 20]
    assert len(added) == 10
    rate = np.isin(drawn, added).mean()
    assert rate == pytest.approx(10 / (10 * 20 + 80), abs=0.005)  # as any other item


def test_hidden_pairs_are_the_same_for_every_rate_and_are_drawn_at_it() -> None:
    data = with_degrees([9, 10, 25, 40], n_items=100)
    for rate in (0.0, 0.3, 1.0):
        found = noisy(f"fneg={rate}", data)
        hidden = pairs_of(data.train) - pairs_of(found.train)
        assert np.bincount([u for u, _ in hidden], minlength=4).tolist() == [0, 1, 2, 4]
        assert hidden == pairs_of(data.train) - pairs_of(noisy("fneg=0", data).train)
        for user, n_hidden in enumerate([0, 1, 2, 4]):
            own = [item for u, item in hidden if u == user]
            share = np.isin(draws_of(found, user, 20_000), own).mean()
            asked = rate if n_hidden else 0.0
            assert abs(share - asked) <= 3 * (asked * (1 - asked) / 20_000) ** 0.5
    assert realised(noisy("fneg=0", data))["noise_hidden_rate"] == 7 / 84


def test_hidden_pairs_stay_out_of_the_ranking() -> None:
    data = with_degrees([40], n_items=60)
    found = noisy("fneg=0.1", data)
    [ours], [clean] = (
        rank_all(lambda users: -torch.arange(60.0)[None], d, "test").ranks for d in (found, data)
    )
    assert ours == clean == 20  # the 40 train items are left out, hidden or not


def test_every_item_taken_leaves_nothing_to_draw() -> None:
    users, items = np.divmod(np.arange(20), 10)
    data = Interactions.from_pairs("full", 2, 10, (users[:15], items[:15]), NONE, NONE)
    with pytest.raises(DataError, match="user 0 has every item"):
        noisy("neg=0", data)
    assert set(draws_of(noisy("neg=2", data), 0, 1000)) == set(range(10))


@pytest.mark.parametrize("sampler", ["pool", "in_batch", "none"])
def test_shared_negatives_cannot_be_favoured(sampler: str) -> None:
    settings = TrainSettings(sampler=sampler)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=f"needs own ones, not {sampler}"):
        SAMPLERS[sampler](settings, SL(), noisy("neg=5", tiny()), 0)


@pytest.mark.parametrize("text", ["neg=5", "neg=0", "fneg=0.5"])
def test_noisy_negatives_are_scored_as_what_they_are(text: str) -> None:
    data = noisy(text, tiny(per_user=12))
    backbone = MF(data, 8, torch.Generator().manual_seed(0))
    users, items = torch.tensor([3, 7, 3, 20]), torch.arange(4)
    settings = TrainSettings(n_negatives=25, l2=1.0, score_train="inner")
    scored = SAMPLERS["own"](settings, Everything(), data, 0)(backbone, users, items, 2, 5)
    assert scored.neg_items is not None
    expected = backbone.users[users] @ backbone.items.T
    torch.testing.assert_close(scored.neg, expected.gather(1, scored.neg_items))


def test_draws_depend_on_the_row_and_not_on_the_threads() -> None:
    data = noisy("neg=5", tiny())
    users, items = torch.arange(30), torch.arange(30)[:, None]
    found = []
    for threads in (1, 2, 4):
        with on_threads(threads):
            sampler = SAMPLERS["own"](TrainSettings(n_negatives=30), SL(), data, 0)
            found.append(sampler.draw(users, items, 1, 2)[0].items)
        assert torch.equal(found[0], found[-1]) and not sampler.marks.any()
    assert torch.equal(sampler.draw(users[:7], items[:7], 1, 2)[0].items, found[0][:7])
    assert not torch.equal(sampler.draw(users, items, 1, 3)[0].items, found[0])


# Training


@pytest.mark.parametrize("text", ["pos=0.5", "fneg=0.2", "neg=5"])
def test_a_noisy_run_takes_the_steps_of_its_clean_twin(text: str) -> None:
    class Counting(Loss):
        order_free = True
        rows: list[int]

        def forward(self, pos: Any, neg: Any, batch: Any = None) -> Any:
            self.rows.append(len(pos))
            return neg.mean() - pos.mean()

    seen = {}
    for level in ("", text):
        data = noisy(level, tiny(per_user=12))
        loss = Counting()
        loss.rows = []
        model = MF(data, 4, torch.Generator().manual_seed(0))
        settings = TrainSettings(epochs=3, batch_size=100, n_negatives=5, dim=4)
        train(settings, data, model, loss, seed=0, evaluate=lambda _: (0.0, 0.0))
        seen[level] = loss.rows
    assert seen[text] == seen[""] == [100, 100, 100, 60] * 3


def test_all_pairs_of_a_noisy_train_are_visited_alike() -> None:
    class Visits(Loss):
        order_free = True
        pairs: list[tuple[int, int]]

        def forward(self, pos: Any, neg: Any, batch: Any = None) -> Any:
            self.pairs += zip(batch.users.tolist(), batch.items.tolist(), strict=True)
            return neg.mean() - pos.mean()

    data = noisy("pos=0.5", tiny(per_user=8))  # 12 pairs for 8: two epochs of 8 draw 4 twice
    loss = Visits()
    loss.pairs = []
    model = MF(data, 4, torch.Generator().manual_seed(0))
    settings = TrainSettings(epochs=3, batch_size=64, n_negatives=5, dim=4)
    train(settings, data, model, loss, seed=0, evaluate=lambda _: (0.0, 0.0))
    assert len(loss.pairs) == 3 * 240
    counts = {pair: loss.pairs.count(pair) for pair in pairs_of(data.train)}
    assert set(counts.values()) == {2}


def test_a_noisy_run_goes_on_where_it_was_cut_off() -> None:
    data = noisy("pos=0.5,neg=5", tiny())
    settings = TrainSettings(epochs=3, batch_size=64, n_negatives=5, dim=4)

    def run(**hooks: Any) -> torch.Tensor:
        model = MF(data, 4, torch.Generator().manual_seed(0))
        train(settings, data, model, SL(), seed=0, evaluate=lambda _: (0.0, 0.0), **hooks)
        return model.tables()[0]

    whole = run()
    kept: dict[str, Any] = {}
    steps = iter(range(6))
    with pytest.raises(Interrupted):
        run(keep=kept.update, stop=lambda: next(steps, None) is None)
    assert torch.equal(run(state=kept), whole)
