"""Ranking: places worked by hand and by loops, ties, masks, and the file that keeps them."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from bslbench.data.interactions import Interactions
from bslbench.data.load import load
from bslbench.errors import DataError, StoreError
from bslbench.evaluation import ranking
from bslbench.evaluation.metrics import per_user
from bslbench.evaluation.ranking import EmbeddingScorer, Scorer, rank_all, tie_order
from bslbench.evaluation.ranks import DEPTH, Ranks
from tests.fixtures import NONE, on_threads, tiny


def fixed(scores: Tensor) -> Scorer:
    """Scores from a table [n_users, n_items]."""
    return lambda users: scores[users]


def pairs(*users: list[int]) -> tuple[np.ndarray, np.ndarray]:
    """(users, items) from one list of items per user."""
    owners = np.repeat(np.arange(len(users)), [len(items) for items in users])
    return owners, np.array([item for items in users for item in items], dtype=np.int64)


def random_data(seed: int = 0, n_users: int = 60, n_items: int = 300) -> Interactions:
    """Some users have no train items, some no test items; train, valid, test are disjoint."""
    rng = np.random.default_rng(seed)
    part = rng.choice(4, size=(n_users, n_items), p=[0.85, 0.09, 0.03, 0.03])
    part[:3][part[:3] == 1] = 0
    part[2:6][part[2:6] == 3] = 0
    train, valid, test = (np.nonzero(part == split) for split in (1, 2, 3))
    return Interactions.from_pairs("random", n_users, n_items, train, valid, test)


def same(one: Ranks, other: Ranks) -> bool:
    return all(
        np.array_equal(getattr(one, name), getattr(other, name)) for name in Ranks.__annotations__
    )


def test_worked_by_hand() -> None:
    data = Interactions.from_pairs(
        "hand", 4, 6, pairs([0], [1, 2], [], [5]), pairs([2], [], [], [0]), pairs([4, 1], [0], [3])
    )
    scores = torch.tensor([[9.0, 2, 8, 5, 3, 4], [1, 9, 9, 4, 3, 2], [0] * 6, [6, 5, 4, 3, 2, 1]])
    ranks = rank_all(fixed(scores), data, "test")
    assert ranks.users.tolist() == [0, 1]  # user 2 has no train item, user 3 no test item
    assert ranks.n_skipped == 2
    assert ranks.indptr.tolist() == [0, 2, 3]
    assert ranks.ranks.tolist() == [4, 3, 4]  # items 1 and 4 of user 0, whose item 2 is valid
    assert ranks.top_counts.tolist() == [1, 1, 0, 2, 2, 2]
    assert ranks.tied == 0
    valid = rank_all(fixed(scores), data, "valid")  # neither valid nor test is masked
    assert valid.users.tolist() == [0, 3]
    assert valid.ranks.tolist() == [1, 1]
    assert valid.top_counts.tolist() == [1, 2, 2, 2, 2, 1]


@pytest.mark.parametrize("split", ["valid", "test"])
def test_equals_loops_with_ties(split: str) -> None:
    data = random_data()
    scores = torch.randint(0, 12, (data.n_users, data.n_items)).float()
    ranks = rank_all(fixed(scores), data, split)
    order = tie_order(data)
    relevant = {"valid": data.valid, "test": data.test}[split].toarray()
    hidden = data.train.toarray() + (data.valid.toarray() if split == "test" else 0)
    users, places, tied = [], [], 0
    for user in range(data.n_users):
        if not relevant[user].any() or not data.train.toarray()[user].any():
            continue
        row = scores[user].tolist()
        unseen = [item for item in range(data.n_items) if not hidden[user, item]]
        best = sorted(unseen, key=lambda item: (-row[item], order[item]))
        users.append(user)
        tied += row[best[19]] == row[best[20]]
        for item in np.flatnonzero(relevant[user]):
            place = best.index(item) + 1
            places.append(place if place <= DEPTH else 0)
    assert ranks.users.tolist() == users
    assert ranks.ranks.tolist() == places
    assert ranks.tied == tied / len(users) > 0
    assert ranks.n_skipped == data.n_users - len(users) > 0
    assert ranks.top_counts.sum() == 20 * len(users)


def test_a_test_item_that_noise_put_into_train_is_not_found() -> None:
    data = Interactions.from_pairs("noisy", 1, 30, pairs([1, 7]), NONE, pairs([7, 8]))
    ranks = rank_all(fixed(torch.arange(30).flip(0)[None].float()), data, "test")
    assert ranks.ranks.tolist() == [0, 7]


def test_no_tie_where_there_is_no_rank_21() -> None:
    for n_items, tied in ((21, 0.0), (22, 1.0)):  # one of them is in train
        data = Interactions.from_pairs("few", 1, n_items, pairs([0]), NONE, pairs([1]))
        assert rank_all(fixed(torch.zeros(1, n_items)), data, "test").tied == tied


def test_nothing_to_rank() -> None:
    data = tiny()
    ranks = rank_all(fixed(torch.zeros(data.n_users, data.n_items)), data, "valid")
    assert (len(ranks.users), len(ranks.ranks), ranks.tied) == (0, 0, 0.0)
    assert ranks.n_skipped == data.n_users


def test_nan_ranks_behind_everything() -> None:
    data = tiny()
    scores = torch.rand(data.n_users, data.n_items)
    scores[data.test.nonzero()] = float("nan")
    last = data.n_items - data.user_degrees  # unseen items, the test item the last of them
    assert (rank_all(fixed(scores), data, "test").ranks == last).all()
    everywhere = rank_all(fixed(torch.full_like(scores, float("nan"))), data, "test")
    assert everywhere.tied == 1


def test_depends_neither_on_blocks_nor_on_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    data = random_data(n_users=203)
    draws = torch.Generator().manual_seed(0)
    users = torch.randn(data.n_users, 8, generator=draws)
    items = torch.randn(data.n_items, 8, generator=draws)
    items[::3] = items[0]

    def rank() -> Ranks:
        return rank_all(EmbeddingScorer(users, items, "cosine"), data, "test")

    whole = rank()
    monkeypatch.setattr(ranking, "BLOCK_SCORES", 20 * data.n_items)
    assert same(whole, rank())
    for threads in (1, 2, 4):
        with on_threads(threads):
            assert same(whole, rank())


def test_embedding_scores() -> None:
    users, items = torch.randn(5, 3), torch.randn(7, 3)
    users[2], items[4] = 0, 0
    chosen = torch.tensor([4, 2, 0])
    inner = EmbeddingScorer(users, items, "inner")(chosen)
    assert torch.allclose(inner, users[chosen] @ items.T)
    cosine = EmbeddingScorer(users, items, "cosine")(chosen)
    expected = torch.nn.functional.cosine_similarity(users[chosen][:, None], items, dim=2)
    assert torch.allclose(cosine, expected, atol=1e-6)
    assert not cosine[1].any()
    assert not cosine[:, 4].any()


def test_embedding_scores_reuse_their_buffer() -> None:
    scorer = EmbeddingScorer(torch.randn(40, 3, requires_grad=True), torch.randn(7, 3), "inner")
    first = scorer(torch.arange(40))
    assert scorer(torch.arange(9)).data_ptr() == first.data_ptr()
    assert not first.requires_grad


def test_tie_order_is_a_permutation_named_by_the_fingerprint() -> None:
    data = random_data()
    order = tie_order(data)
    assert sorted(order.tolist()) == list(range(data.n_items))
    assert order.dtype == np.int32
    assert (order == tie_order(random_data())).all()
    assert (order != tie_order(random_data(seed=1))).any()
    # A part of the protocol: it must never change.
    named = tie_order(replace(tiny(), fingerprint="ab" * 32))
    assert named[:8].tolist() == [33, 39, 70, 14, 44, 50, 60, 74]


def test_saved_and_loaded(tmp_path: Path) -> None:
    data = random_data()
    ranks = rank_all(fixed(torch.rand(data.n_users, data.n_items)), data, "test")
    ranks.save(tmp_path / "ranks.npz")
    loaded = Ranks.load(tmp_path / "ranks.npz")
    assert same(ranks, loaded)
    for name in ("users", "indptr", "ranks", "top_counts"):
        assert getattr(ranks, name).dtype == getattr(loaded, name).dtype
    assert type(loaded.n_skipped) is int
    assert type(loaded.tied) is float
    loaded.save(tmp_path / "again.npz")
    assert (tmp_path / "again.npz").read_bytes() == (tmp_path / "ranks.npz").read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["again.npz", "ranks.npz"]


def test_a_failed_write_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = random_data()
    ranks = rank_all(fixed(torch.rand(data.n_users, data.n_items)), data, "test")
    path = tmp_path / "ranks.npz"
    path.write_text("old")

    def full(descriptor: int) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(StoreError, match=r"cannot write .*no space"):
        ranks.save(path)
    assert [file.read_text() for file in tmp_path.iterdir()] == ["old"]


def test_damaged_files_are_told(tmp_path: Path) -> None:
    data = random_data()
    path = tmp_path / "ranks.npz"
    with pytest.raises(DataError, match=r"ranks\.npz"):
        Ranks.load(path)
    rank_all(fixed(torch.rand(data.n_users, data.n_items)), data, "test").save(path)
    whole = path.read_bytes()
    flipped = bytearray(whole)
    flipped[len(whole) // 3] ^= 0xFF
    for content in (b"", b"text", whole[:-40], whole[:100], bytes(flipped)):
        path.write_bytes(content)
        with pytest.raises(DataError, match=r"ranks\.npz cannot be read as ranks"):
            Ranks.load(path)
    np.savez(path, users=np.arange(3))
    with pytest.raises(DataError, match="indptr"):
        Ranks.load(path)
    np.save(tmp_path / "plain.npy", np.arange(3))
    with pytest.raises(DataError, match="plain"):
        Ranks.load(tmp_path / "plain.npy")


def test_a_constant_scorer_is_no_better_than_a_random_one(real_data: Path) -> None:
    data = load("yelp2018", data=real_data)
    constant = torch.zeros(1, data.n_items)
    by_id = torch.arange(data.n_items, 0, -1).float()[None]
    ranks = rank_all(lambda users: constant.expand(len(users), -1), data, "test")
    assert ranks.tied == 1
    # 20 random items get .0005 on average, and hardly ever more than .0015; ids in order .0035.
    assert per_user(ranks, "Recall", 20).mean() < 0.0015
    ranks = rank_all(lambda users: by_id.expand(len(users), -1), data, "test")
    assert per_user(ranks, "Recall", 20).mean() == pytest.approx(0.0035, abs=1e-4)


def test_a_sample_of_users_is_the_same_for_all_and_nested() -> None:
    data = tiny()
    scores = torch.rand(data.n_users, data.n_items, generator=torch.Generator().manual_seed(0))
    whole = rank_all(fixed(scores), data, "test")
    few, more = (rank_all(fixed(scores), data, "test", n_users=n) for n in (5, 9))
    assert len(few.users) == 5 and set(few.users) < set(more.users) < set(whole.users)
    assert few.n_skipped == whole.n_skipped
    recall = dict(zip(whole.users, per_user(whole, "Recall", 20), strict=True))
    assert per_user(few, "Recall", 20).tolist() == [recall[user] for user in few.users]
    everybody = rank_all(fixed(scores), data, "test", n_users=10**6)
    assert np.array_equal(everybody.users, whole.users)
