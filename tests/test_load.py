import hashlib
import json
import os
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bslbench.catalog import DatasetSpec, load_catalog
from bslbench.data import load as module
from bslbench.data import synthetic
from bslbench.data.ids import ids_of
from bslbench.data.interactions import Interactions
from bslbench.data.load import describe, load, statistics
from bslbench.errors import ConfigError, DataError

TRAIN, VALID, TEST = b"0 1 2\n1 0\n2 3\n", b"0 3\n", b"0 0\n2 2\n"

# name, users, items, train, valid, test, per user: min, median, mean (2 digits), max
REAL = [
    ("yelp2018", 31_668, 38_048, 1_237_259, 0, 324_147, 16, 25, 39.07, 1_848),
    ("gowalla", 29_858, 40_981, 810_128, 0, 217_242, 8, 16, 27.13, 811),
    ("movielens-1m", 6_022, 3_043, 796_244, 99_455, 99_455, 16, 76, 132.22, 1_720),
    ("lastfm", 1_892, 4_489, 42_135, 0, 10_533, 1, 23, 22.44, 39),
    ("amazon2014-electronic", 13_455, 8_360, 182_398, 0, 52_123, 8, 10, 13.56, 216),
]


class Dataset:
    """A dataset of the user's own: its files, written now, and the catalog that describes them."""

    def __init__(self, folder: Path, known: bool = True, **files: bytes) -> None:
        self.folder = folder
        contents = files or {"train": TRAIN, "valid": VALID, "test": TEST}
        self.spec: dict[str, Any] = {"name": "mine", "reader": "user_lists", "files": {}}
        self.spec |= {"n_users": 3, "n_items": 4}
        (folder / "mine").mkdir()
        for split, content in contents.items():
            self.path(split).write_bytes(content)
            self.spec["files"][split] = {"name": f"{split}.txt"}
            if known:
                self.spec["files"][split]["sha256"] = hashlib.sha256(content).hexdigest()

    def path(self, split: str) -> Path:
        return self.folder / "mine" / f"{split}.txt"

    def load(self) -> Interactions:
        return load("mine", self.folder, self.catalog())

    def catalog(self) -> dict[str, DatasetSpec]:
        return {"mine": DatasetSpec.model_validate(self.spec)}


@pytest.fixture(autouse=True)
def own_cache(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Path:
    """A cache for each test; those with real data share the session's."""
    if "real_data" not in request.fixturenames:
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "bslbench" / "interactions"


def entry(cache: Path) -> Path:
    (only,) = cache.iterdir()
    return only


@pytest.mark.parametrize(
    ("name", "users", "items", "train", "valid", "test", "least", "median", "mean", "most"), REAL
)
def test_real_data_have_the_counts_of_their_publication(
    real_data: Path,
    name: str,
    users: int,
    items: int,
    train: int,
    valid: int,
    test: int,
    least: int,
    median: float,
    mean: float,
    most: int,
) -> None:
    found = describe(name, real_data)
    assert found.pop("density") == pytest.approx(train / users / items)
    assert found.pop("per_user_mean") == pytest.approx(mean, abs=0.005)
    assert found == {
        "users": users,
        "items": items,
        "train": train,
        "valid": valid,
        "test": test,
        "per_user_min": least,
        "per_user_median": median,
        "per_user_max": most,
        "repeated_rows": 0,
    }
    again = load(name, real_data)
    assert again.name == name
    assert again.train.indices.base is not None, "mapped, not read"
    assert not again.train.indices.flags.writeable
    assert again.train.has_sorted_indices and again.train.data.dtype == np.uint8
    assert again.train.indices.dtype == again.train.indptr.dtype == np.int32


def test_amazon_electronics_without_train_says_how_to_get_it(real_data: Path) -> None:
    if (real_data / "amazon-electronics" / "train.txt").exists():
        pytest.skip("its train file is here")
    with pytest.raises(DataError, match=r"amazon-electronics/train\.txt.*: no such file") as caught:
        load("amazon-electronics", real_data)
    assert "`bslbench download amazon-electronics`" in str(caught.value)


def test_the_noisy_movielens_file_repeats_and_overlaps(real_data: Path) -> None:
    file = real_data / "movielens-1m" / "train_0.1.txt"
    if not file.exists():
        pytest.skip(f"{file} is not there")
    spec = load_catalog()["movielens-1m"].model_dump()
    spec["files"]["train"] |= {"name": "train_0.1.txt", "pairs": 873_173, "bytes": None}
    spec["files"]["train"] |= {
        "sha256": "9e389ffd097eebeeca11cf9c3c92bc11f6a33b50cc2859f4643f5efedd044b8a",
        "git_blob": "",
    }
    with pytest.raises(DataError, match=r"1,207 such pairs"):
        load("movielens-1m", real_data, {"movielens-1m": DatasetSpec.model_validate(spec)})
    spec["allow_overlap"] = True
    catalog = {"movielens-1m": DatasetSpec.model_validate(spec)}
    found = describe("movielens-1m", real_data, catalog)
    assert (found["train"], found["repeated_rows"]) == (872_728, 445)


def test_pairs_land_where_they_belong(tmp_path: Path) -> None:
    data = Dataset(tmp_path).load()
    assert data.train.toarray().tolist() == [[0, 1, 1, 0], [1, 0, 0, 0], [0, 0, 0, 1]]
    assert data.valid.toarray().tolist() == [[0, 0, 0, 1], [0, 0, 0, 0], [0, 0, 0, 0]]
    assert data.test.toarray().tolist() == [[1, 0, 0, 0], [0, 0, 0, 0], [0, 0, 1, 0]]
    assert data.name == "mine" and data.split_seed == 0


def test_statistics_of_users_with_interactions(tmp_path: Path) -> None:
    data = Dataset(tmp_path)
    data.spec |= {"n_users": 10, "n_items": 5}
    found = statistics(data.load())
    assert (found["users"], found["items"], found["train"], found["density"]) == (10, 5, 4, 0.08)
    assert (found["per_user_min"], found["per_user_median"], found["per_user_max"]) == (1, 1.0, 2)


def test_offsets_are_subtracted(tmp_path: Path) -> None:
    data = Dataset(tmp_path, train=b"11 21 23\n", test=b"12 20\n")
    data.spec |= {"user_offset": 11, "item_offset": 20}
    assert data.load().train.toarray().tolist()[0] == [0, 1, 0, 1]
    assert data.load().test.toarray().tolist()[1] == [1, 0, 0, 0]
    ids = ids_of(data.catalog(), "mine", data.load())  # and added where ids are shown
    assert ids.users.to_pylist() == ["11", "12", "13"]
    assert ids.items.to_pylist() == ["20", "21", "22", "23"]


@pytest.mark.parametrize(
    ("offsets", "message"),
    [
        ({"user_offset": 1}, r"train\.txt: user id 0 outside 1\.\.3"),
        ({"item_offset": 1}, r"train\.txt: item id 0 outside 1\.\.4"),
        ({"n_users": 2}, r"train\.txt: user id 2 outside 0\.\.1"),
        ({"n_items": 3}, r"train\.txt: item id 3 outside 0\.\.2"),
        ({"n_items": None, "item_offset": 1}, r"train\.txt: item id 0 outside"),
    ],
)
def test_ids_outside_are_refused(tmp_path: Path, offsets: dict[str, int], message: str) -> None:
    data = Dataset(tmp_path)
    data.spec |= offsets
    with pytest.raises(DataError, match=message):
        data.load()


def test_sizes_not_given_follow_from_the_ids(tmp_path: Path) -> None:
    data = Dataset(tmp_path)
    data.spec |= {"n_users": None, "n_items": None}
    assert (data.load().n_users, data.load().n_items) == (3, 4)


def test_counts_are_checked(tmp_path: Path) -> None:
    data = Dataset(tmp_path)
    data.spec["files"]["test"]["pairs"] = 3
    with pytest.raises(DataError, match=r"mine/test\.txt: it has 2 pairs, expected 3"):
        data.load()


def test_repeated_rows_collapse_and_are_counted(tmp_path: Path) -> None:
    data = Dataset(tmp_path, train=b"0 1 1\n0 1\n1 0\n", test=b"0 0\n")
    assert data.load().train.nnz == 2
    for _ in ("parsed", "cached"):
        assert describe("mine", tmp_path, data.catalog())["repeated_rows"] == 2


@pytest.mark.parametrize(
    ("files", "message"),
    [
        (
            {"valid": VALID, "test": b"2 3\n"},
            "mine/test.txt: user 2 and item 3 .* test and of train",
        ),
        ({"test": TEST, "valid": b"1 0\n"}, "mine/valid.txt: user 1 and item 0 .* valid and of tr"),
        (
            {"test": TEST, "valid": b"0 0\n"},
            "mine/test.txt: user 0 and item 0 .* test and of valid",
        ),
    ],
)
def test_a_pair_of_two_splits_is_refused_unless_allowed(
    tmp_path: Path, files: dict[str, bytes], message: str
) -> None:
    data = Dataset(tmp_path, train=TRAIN, **files)
    with pytest.raises(DataError, match=message):
        data.load()
    data.spec["allow_overlap"] = True
    assert data.load().train.nnz == 4


def test_an_overlap_is_named_with_the_ids_as_written(tmp_path: Path) -> None:
    data = Dataset(tmp_path, train=b"5 7\n", test=b"5 7\n")
    data.spec |= {"user_offset": 5, "item_offset": 6}
    with pytest.raises(DataError, match="user 5 and item 7"):
        data.load()


def test_missing_files_are_named(tmp_path: Path) -> None:
    for known in (True, False):
        folder = tmp_path / str(known)
        folder.mkdir()
        data = Dataset(folder, known=known)
        data.path("test").unlink()
        for url, hint in (("", "say --data if"), ("http://x", "`bslbench download mine` fetches")):
            data.spec["files"]["test"]["url"] = url
            with pytest.raises(DataError, match=rf"mine/test\.txt: no such file; {hint}"):
                data.load()


def test_a_wrong_file_is_not_parsed(tmp_path: Path) -> None:
    data = Dataset(tmp_path)
    data.path("train").write_bytes(TRAIN + b"\n")
    for url, hint in (
        ("", r"\.\.\.$"),
        ("http://x", "; `bslbench download mine` fetches it anew$"),
    ):
        data.spec["files"]["train"]["url"] = url
        with pytest.raises(DataError, match=rf"train\.txt: its sha256 is .*{hint}"):
            data.load()


def test_a_wrong_member_is_not_parsed(tmp_path: Path) -> None:
    data = Dataset(tmp_path, known=False)
    shutil.make_archive(str(tmp_path / "mine" / "all"), "zip", tmp_path / "mine", "train.txt")
    member = {"name": "all.zip", "member": "train.txt"}
    data.spec["files"]["train"] = member | {"member_sha256": hashlib.sha256(TRAIN).hexdigest()}
    assert data.load().train.nnz == 4
    data.spec["files"]["train"] = member | {"member_sha256": "0" * 64}
    with pytest.raises(DataError, match=r"all\.zip:train\.txt: its sha256 is .*expected 000000"):
        data.load()


def test_errors_of_readers_name_the_file(tmp_path: Path) -> None:
    data = Dataset(tmp_path, train=b"0 1\n1 x\n", test=TEST)
    with pytest.raises(DataError, match=r"mine/train\.txt, line 2: 'x' is not a number"):
        data.load()


def test_parsed_once(tmp_path: Path, own_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = Dataset(tmp_path)
    first = data.load()
    assert entry(own_cache).name.startswith("mine-")
    monkeypatch.setattr(module, "_parse", None)
    data.spec |= {"title": "what it is called does not matter"}
    data.spec["files"]["train"]["url"] = "https://nor.where/it/comes/from"
    again = data.load()
    assert again.fingerprint == first.fingerprint
    assert (again.train != first.train).nnz == 0


def test_the_key_covers_what_the_parsed_form_depends_on(tmp_path: Path, own_cache: Path) -> None:
    data = Dataset(tmp_path)
    data.load()
    for change in ({"n_users": 9}, {"n_items": 9}, {"allow_overlap": True}):
        data.spec |= change
        data.load()
    data.path("test").write_bytes(b"0 0\n")
    data.spec["files"]["test"]["sha256"] = hashlib.sha256(b"0 0\n").hexdigest()
    assert data.load().test.nnz == 1
    assert len(list(own_cache.iterdir())) == 5


def test_files_without_checksum_are_known_by_size_and_time(tmp_path: Path) -> None:
    data = Dataset(tmp_path, known=False)
    assert data.load().test.nnz == 2
    data.path("test").write_bytes(b"0 0\n")
    assert data.load().test.nnz == 1
    data.path("test").write_bytes(b"1 1\n")
    os.utime(data.path("test"), ns=(0, 1))
    assert data.load().test.toarray()[1].tolist() == [0, 1, 0, 0]


@pytest.mark.parametrize("damage", ["empty", "cut", "flip", "gone", "meta", "folder"])
def test_a_damaged_entry_is_made_anew(tmp_path: Path, own_cache: Path, damage: str) -> None:
    data = Dataset(tmp_path)
    whole = data.load().fingerprint
    array = entry(own_cache) / "train_indices.npy"
    content = array.read_bytes()
    if damage == "gone":
        array.unlink()
    elif damage == "meta":
        (entry(own_cache) / "meta.json").write_text(json.dumps([1]))
    elif damage == "folder":
        shutil.rmtree(entry(own_cache))
        entry(own_cache.parent).joinpath(array.parent.name).mkdir()
    else:
        flipped = content[:-1] + bytes([content[-1] ^ 1])
        array.write_bytes({"empty": b"", "cut": content[:-2], "flip": flipped}[damage])
    again = data.load()
    assert again.fingerprint == whole
    assert again.train.toarray().tolist() == [[0, 1, 1, 0], [1, 0, 0, 0], [0, 0, 0, 1]]
    assert array.read_bytes() == content


def test_a_cache_that_cannot_be_written_costs_only_time(tmp_path: Path, own_cache: Path) -> None:
    own_cache.parent.mkdir(parents=True)
    own_cache.write_text("a file where the folder should be")
    assert Dataset(tmp_path).load().train.nnz == 4


def test_several_at_once(tmp_path: Path, own_cache: Path) -> None:
    data = Dataset(tmp_path)
    with ThreadPoolExecutor(4) as pool:
        loaded = list(pool.map(lambda _: data.load().fingerprint, range(8)))
    assert len(set(loaded)) == 1
    assert entry(own_cache).is_dir()


def test_synthetic_takes_modifiers_and_is_cached(
    own_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = "synthetic?users=2e2&items=150&interactions=3e3&seed=1"
    data = load(name)
    canonical = "synthetic?users=200&items=150&interactions=3000&seed=1"
    assert (data.name, data.n_users, data.n_items) == (canonical, 200, 150)
    assert load(name).name == canonical
    direct = synthetic.generate(users=200, items=150, interactions=3000, seed=1)
    assert data.fingerprint == direct.fingerprint
    same = load("synthetic?seed=1&interactions=3000&items=150&users=200")
    assert same.fingerprint == data.fingerprint
    assert entry(own_cache).name.startswith("synthetic-")
    other = load(name.replace("seed=1", "seed=2"))
    assert other.fingerprint != data.fingerprint


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("synthetic?user=3", "no modifier 'user'; did you mean 'users'"),
        ("synthetic?users=many", "users=many is not a whole number"),
        ("synthetic?users=1.5", "users=1.5 is not a whole number"),
        ("synthetic?users=nan", "users=nan is not a whole number"),
        ("synthetic?users=1e999", "users=1e999 is not a whole number"),
        ("lastfm?users=3", "'lastfm' has no modifier 'users'; known: resplit, sample, split"),
        ("lastfn", "no dataset named 'lastfn'; did you mean 'lastfm'"),
    ],
)
def test_names_that_are_not_known(name: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load(name)


@pytest.mark.parametrize("slip", [{"n_users": 2_147_483_648}, {"n_items": 10**12}])
def test_a_space_of_ids_far_too_large_is_refused(tmp_path: Path, slip: dict[str, int]) -> None:
    dataset = Dataset(tmp_path)
    dataset.spec |= slip
    with pytest.raises(DataError, match=r"for 7 pairs: one id, or n_(users|items) in the catalog"):
        dataset.load()


def test_an_id_far_too_large_is_refused(tmp_path: Path) -> None:
    dataset = Dataset(tmp_path, train=b"0 1 2\n2147483647 0\n", test=b"0 0\n")
    dataset.spec |= {"n_users": None, "n_items": None}
    with pytest.raises(DataError, match="2,147,483,648 users for 4 pairs"):
        dataset.load()
