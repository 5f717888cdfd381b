"""Other splits of the same pairs: which, how many, and under which name."""

from pathlib import Path

import numpy as np
import pytest

from bslbench.data.interactions import Interactions
from bslbench.data.load import load
from bslbench.data.resplit import split_anew
from bslbench.errors import ConfigError
from tests.test_noise import pairs_of

SMALL = "synthetic?users=200&items=120&interactions=4000"


def counts(data: Interactions) -> list[list[int]]:
    return [np.diff(split.indptr).tolist() for split in (data.train, data.valid, data.test)]


def whole(data: Interactions) -> set[tuple[int, int]]:
    return pairs_of(data.train) | pairs_of(data.valid) | pairs_of(data.test)


def test_resplit_deals_each_users_pairs_anew_in_the_same_numbers() -> None:
    base, first, again, second = (
        load(SMALL + more) for more in ("", "&resplit=1", "&resplit=1", "&resplit=2")
    )
    assert first.name == f"{SMALL}&resplit=1"
    assert counts(first) == counts(base)
    assert whole(first) == whole(base)
    assert not pairs_of(first.train) & pairs_of(first.test)
    assert (first.test != again.test).nnz == 0
    assert first.fingerprint == again.fingerprint
    assert len({data.fingerprint for data in (base, first, second)}) == 3
    # Nothing of the old split is left: a pair is in test as often as any other of its user.
    stay = len(pairs_of(first.test) & pairs_of(base.test)) / base.test.nnz
    assert stay == pytest.approx(0.2, abs=0.05)


def test_a_dataset_with_its_own_valid_split_keeps_its_proportions() -> None:
    users, items = np.divmod(np.arange(200), 20)
    parts = [(users[k::10], items[k::10]) for k in range(10)]
    train = tuple(np.concatenate(arrays) for arrays in zip(*parts[2:], strict=True))
    data = Interactions.from_pairs("own", 10, 20, train, parts[0], parts[1])  # type: ignore[arg-type]
    dealt = split_anew(data, {"resplit": "3"})
    assert counts(dealt) == counts(data) == [[16] * 10, [2] * 10, [2] * 10]
    assert whole(dealt) == whole(data)
    assert len(whole(dealt)) == dealt.train.nnz + dealt.valid.nnz + dealt.test.nnz


def test_ood_keeps_half_of_the_test_pairs_and_evens_out_the_items() -> None:
    base, ood = load("synthetic"), load("synthetic?split=ood")
    assert ood.name == "synthetic?split=ood"
    assert ood.test.nnz == base.test.nnz // 2
    assert pairs_of(ood.test) < pairs_of(base.test)
    assert (ood.train != base.train).nnz == 0
    assert ood.fingerprint != base.fingerprint

    def spread(data: Interactions) -> float:
        degrees = np.bincount(data.test.indices, minlength=data.n_items)
        return float(degrees.std() / degrees.mean())

    assert spread(ood) < 0.75 * spread(base)


def test_ood_keeps_rare_items_by_their_weight() -> None:
    """Half of the items have one test pair, half have three: these stay a third as often."""
    n = 3000
    users = np.concatenate([np.arange(n), *[np.arange(n)] * 3])
    items = np.concatenate([np.arange(n), *[np.arange(n, 2 * n)] * 3])
    test = (users + np.repeat(np.arange(4), n) * n, items)
    nothing = np.zeros(0, np.int64), np.zeros(0, np.int64)
    data = Interactions.from_pairs("rare", 4 * n, 2 * n, nothing, nothing, test)
    kept = split_anew(data, {"split": "ood"}).test
    shares = [np.isin(kept.indices, np.arange(k * n, (k + 1) * n)).sum() for k in (0, 1)]
    assert sum(shares) == 2 * n
    # With exponential keys of rates 1 and 1/3: 1 - x and 1 - x^(1/3) stay, for the x at which
    # (1 - x) + 3 (1 - x^(1/3)) = 2.
    x = min(np.linspace(0, 1, 100_001), key=lambda x: abs((1 - x) + 3 * (1 - x ** (1 / 3)) - 2))
    assert shares[0] / n == pytest.approx(1 - x, abs=0.03)


def test_both_at_once_and_none() -> None:
    both = load(f"{SMALL}&split=ood&resplit=2")
    assert both.name == f"{SMALL}&resplit=2&split=ood"
    assert pairs_of(both.test) < pairs_of(load(f"{SMALL}&resplit=2").test)
    plain = load(f"{SMALL}&split=standard")
    assert plain.name == SMALL
    assert plain.fingerprint == load(SMALL).fingerprint


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ("split=odd", "no split named 'odd'; did you mean 'ood'"),
        ("resplit=x", "resplit=x is not a whole number"),
        ("resplit=²", "resplit=² is not a whole number"),
        ("spilt=ood", "no modifier 'spilt'; did you mean 'split'"),
    ],
)
def test_a_modifier_that_cannot_be_meant(more: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load(f"synthetic?{more}")


def test_real_data_take_them_too(real_data: Path) -> None:
    base, ood = load("movielens-1m", real_data), load("movielens-1m?split=ood&resplit=1", real_data)
    assert ood.name == "movielens-1m?resplit=1&split=ood"
    assert (ood.valid.nnz, ood.test.nnz) == (base.valid.nnz, base.test.nnz // 2)
