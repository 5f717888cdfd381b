"""Data of one's own: read right or refused in one line, split as said, given out as it is."""

import gzip
import json
import random
import re
import shlex
import shutil
from collections import Counter
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import UUID

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks import fuzz
from bslbench.catalog import load_catalog, packaged_at
from bslbench.data.ids import Coder, ids_of
from bslbench.data.interactions import Interactions
from bslbench.data.load import load
from bslbench.data.splits import hold_out
from bslbench.errors import BslbenchError, ConfigError, DataError
from bslbench.own.add import Own, prepare, write
from bslbench.own.catalog_file import with_entry
from bslbench.own.export import export
from bslbench.own.gather import Columns
from bslbench.own.split import TEST, TRAIN, VALID
from tests.fixtures import Command

Row = tuple[str, str, float]


@pytest.fixture(autouse=True)
def somewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("BSLBENCH_DATA", "data")


def orders(n: int = 600, seed: int = 0) -> list[Row]:
    """User, item and time of n orders, some repeated."""
    draws = random.Random(seed)
    pairs = [(f"u{draws.randrange(40)}", f"{draws.randrange(60):03}") for _ in range(n)]
    return [(user, item, float(draws.randrange(1000))) for user, item in pairs]


def write_csv(path: str, rows: list[Any], header: str = "user,item,time") -> Path:
    lines = [header, *(",".join(map(str, row)) for row in rows)]
    Path(path).write_text("\n".join(lines) + "\n")
    return Path(path)


def named(own: Own) -> dict[tuple[str, str], int]:
    """The split of every pair of ids."""
    users, items = own.ids.users.to_pylist(), own.ids.items.to_pylist()
    pairs = zip(own.pairs.users.tolist(), own.pairs.items.tolist(), strict=True)
    return {(users[u], items[i]): int(p) for (u, i), p in zip(pairs, own.parts, strict=True)}


def triples(data: Interactions, catalog: Any = None) -> dict[str, set[tuple[str, str]]]:
    """The pairs of ids in each split of a dataset."""
    ids = ids_of(catalog or load_catalog(), data.name, data)
    users, items = ids.users.to_pylist(), ids.items.to_pylist()
    return {
        split: {(users[u], items[i]) for u, i in zip(*getattr(data, split).nonzero(), strict=True)}
        for split in ("train", "valid", "test")
    }


# Reading


def test_every_format_gives_the_same_dataset() -> None:
    rows = orders()
    users, items, times = (list(column) for column in zip(*rows, strict=True))
    write_csv("o.csv", rows)
    Path("o.tsv").write_text(Path("o.csv").read_text().replace(",", "\t"))
    Path("semicolon.csv").write_text(Path("o.csv").read_text().replace(",", ";"))
    header = "user_id:token\titem_id:token\ttimestamp:float\n"
    Path("o.inter").write_text(header + "".join("\t".join(map(str, row)) + "\n" for row in rows))
    moments = [datetime.fromtimestamp(1.6e9 + time, UTC) for time in times]
    columns = {"customer": users, "sku": items, "when": moments}
    pq.write_table(pa.table(columns), "o.parquet", row_group_size=50)
    iso = [(u, i, moment.isoformat()) for (u, i, _), moment in zip(rows, moments, strict=True)]
    write_csv("iso.csv", iso)
    made = [
        prepare("o", [Path(f"{name}")], Columns())
        for name in ("o.csv", "o.tsv", "semicolon.csv", "o.inter", "o.parquet", "iso.csv")
    ]
    assert all(named(own) == named(made[0]) for own in made)
    assert {own.how for own in made} == {"time"}
    assert set(named(made[0])) == {(user, item) for user, item, _ in rows}


def test_neither_the_order_of_rows_nor_of_files_matters() -> None:
    rows = orders()
    one = prepare("o", [write_csv("all.csv", rows)], Columns(), how="random")
    random.Random(1).shuffle(rows)
    parts = [write_csv("a.csv", rows[:200]), write_csv("b.csv", rows[200:])]
    two = prepare("o", parts, Columns(), how="random")
    assert named(one) == named(two)
    assert np.array_equal(one.pairs.users, two.pairs.users)


def test_repeats_count_once_at_their_earliest_and_are_counted() -> None:
    rows = [("a", "x", 9.0), ("a", "x", 2.0), ("b", "x", 5.0), ("a", "y", 4.0), ("a", "x", 7.0)]
    own = prepare("o", [write_csv("o.csv", [*rows, ("a", "z", 8.0)])], Columns(), how="time")
    assert own.pairs.tally == {"rows": 6, "repeated": 2}
    assert own.pairs.times is not None
    assert dict(zip(named(own), own.pairs.times.tolist(), strict=True)) == {
        ("a", "x"): 2.0,
        ("a", "y"): 4.0,
        ("a", "z"): 8.0,
        ("b", "x"): 5.0,
    }


def test_ids_of_any_type_become_text() -> None:
    columns = [
        pa.array([7, 10, 7, 9]),
        pa.array([7.0, 10.0, 7.0, 9.0]),
        pa.array(["7", "10", "7", "9"]).dictionary_encode(),
        pa.array([b"7", b"10", b"7", b"9"]),
        pa.array([7, 10, 7, 9], pa.uint64()),
        pa.array(list(map(Decimal, [7, 10, 7, 9])), pa.decimal128(38, 0)),
        pa.array(list(map(Decimal, [7, 10, 7, 9])), pa.decimal128(20, 3)),
        pa.array(list(map(Decimal, [7, 10, 7, 9])), pa.decimal256(70, 3)),
        pa.array(["7", "10", "7", "9"], pa.string_view()),
        pa.array([b"7", b"10", b"7", b"9"], pa.binary_view()),
    ]
    for column in columns:
        items = pa.array(["a", "b", "c", "d"], pa.large_string())
        pq.write_table(pa.table({"user": column, "item": items, "time": [1, 2, 3, 4]}), "o.parquet")
        own = prepare("o", [Path("o.parquet")], Columns())
        assert own.ids.users.to_pylist() == ["10", "7", "9"]


def test_uuids_are_read_as_they_are_written(bslbench: Command) -> None:
    users = [UUID(int=n << 90) for n in (7, 10, 7, 9)]
    for kind in (pa.binary(16), pa.uuid()):
        column = pa.array([user.bytes for user in users], kind)
        table = pa.table({"user": column, "item": [b"a", b"b", b"c", b"d"], "time": [1, 2, 3, 4]})
        pq.write_table(table, "o.parquet")
        own = prepare("o", [Path("o.parquet")], Columns())
        assert own.ids.users.to_pylist() == sorted(set(map(str, users)))
    fixed = pa.array([b"abc", b"abd", b"abc", None], pa.binary(3))
    pq.write_table(table.set_column(0, "user", [fixed]), "p.parquet")
    code, _, err = bslbench("data", "add", "p", "p.parquet")
    assert code == 2 and "p.parquet, row 4: no user" in err
    code, _, err = bslbench("data", "add", "o", "o.parquet", "--user", "item", "--item", "user")
    assert code == 0, err


def test_columns_by_option_by_usual_name_and_by_neither(bslbench: Command) -> None:
    write_csv("o.csv", orders(), "Customer-ID,sku,bought")
    code, out, err = bslbench("data", "add", "o", "o.csv", "--time", "bought", "--dry-run")
    assert code == 0 and "split by time" in out, err
    write_csv("p.csv", orders(), "who,sku,bought")
    code, _, err = bslbench("data", "add", "p", "p.csv")
    assert code == 2 and "p.csv: which column is its user? say --user" in err
    code, _, err = bslbench("data", "add", "p", "p.csv", "--user", "woh")
    assert code == 2 and "p.csv: it has no column 'woh'; did you mean 'who'?" in err
    write_csv("q.csv", orders(), "user,User,item")
    code, _, err = bslbench("data", "add", "q", "q.csv")
    assert code == 2 and "several columns may be its user: user, User" in err


@pytest.mark.parametrize(
    ("name", "delimiter"), [("o.csv", ";"), ("o.data", "\t"), ("o.txt.gz", " "), ("o.dat", "::")]
)
def test_texts_without_a_header(bslbench: Command, name: str, delimiter: str) -> None:
    other = "," if delimiter == "\t" else "-"  # more of them than of the right one
    lines = [delimiter.join([*row[:2], other * 9, "5", str(row[2])]) for row in orders()]
    with gzip.open(name, "wt") if name.endswith(".gz") else open(name, "w") as file:
        file.write("\ufeff" + "\n".join(lines))
    names = ["--columns", "user,item,title,rating,time", "--min-rating", "1"]
    code, out, err = bslbench("data", "add", "o", name, *names)
    assert code == 0 and "(user, item, time, rating); rating >= 1; split by time" in out, err
    code, _, err = bslbench("data", "add", "same", str(write_csv("with.csv", orders())))
    assert code == 0, err
    assert load("o").fingerprint == load("same").fingerprint


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("a,x,1\nb,y\n", "o.csv, line 2: expected 3 columns, found 2"),
        ('a,"x\ny",1\nb,z\n', "o.csv, line 3: expected 3 columns, found 2"),
        ("a,x,1\nb,y,soon\n", "o.csv, line 2: 'soon' is not a time"),
        ("a,x,soon\n", "o.csv, line 1: 'soon' is not a time"),
        ("a,x\n", "o.csv, line 1: 2 columns between ',', --columns names 3"),
        ("", "o.csv, line 1: 0 columns between ',', --columns names 3"),
        ("User_ID,sku,when\n", "o.csv, line 1: 'User_ID' names a column: leave out --columns"),
    ],
)
def test_a_malformed_text_without_a_header_is_named_with_its_line(
    bslbench: Command, content: str, message: str
) -> None:
    Path("o.csv").write_text(content)
    code, out, err = bslbench("data", "add", "shop", "o.csv", "--columns", "user,item,time")
    assert code == 2 and message in err and len(err.splitlines()) == 1 and not out


@pytest.mark.parametrize("row", ["b::y", "b::y::4::5", "b::y:4", "b::y:9:4", "b::y::4:", "b:y:4"])
def test_a_row_between_double_colons_is_read_whole_or_named(bslbench: Command, row: str) -> None:
    Path("o.dat").write_text(f"a::x::3\n{row}\n")
    code, _, err = bslbench("data", "add", "shop", "o.dat", "--columns", "user,item,time")
    assert code == 2 and "o.dat, line 2: expected 3 columns between '::'\n" in err


def test_low_ratings_and_small_counts_are_left_out() -> None:
    rows = [(u, i, 5) for u in "abc" for i in "xyz"] + [("d", "x", 5), ("a", "w", 5), ("b", "x", 1)]
    rows += [("c", "q", 1)]
    path = write_csv("o.csv", rows, "user,item,stars")
    own = prepare("o", [path], Columns(min_rating=3), k_core=3)
    assert set(named(own)) == {(u, i) for u in "abc" for i in "xyz"}
    assert own.pairs.tally == {"rows": 13, "rated below": 2, "outside the core": 2}
    assert (
        own.title == "from o.csv (user, item, rating stars); rating >= 3; 3-core; split by random"
    )
    with pytest.raises(DataError, match="no user and item has 4 interactions"):
        prepare("o", [path], Columns(), k_core=4)


@settings(max_examples=30, deadline=None)
@given(
    pairs=st.sets(st.tuples(st.integers(0, 8), st.integers(0, 8)), min_size=1),
    k=st.integers(1, 4),
)
def test_the_core_equals_a_loop(pairs: set[tuple[int, int]], k: int) -> None:
    left = set(pairs)
    while True:
        users, items = Counter(u for u, _ in left), Counter(i for _, i in left)
        kept = {(u, i) for u, i in left if users[u] >= k and items[i] >= k}
        if kept == left:
            break
        left = kept
    path = write_csv("o.csv", sorted(pairs), "user,item")
    try:
        own = prepare("o", [path], Columns(), k_core=k)
    except DataError:
        able = any(count >= 3 for count in Counter(u for u, _ in left).values())
        assert not able  # nothing left, or nobody with enough for a test pair
        return
    assert {(int(u), int(i)) for u, i in named(own)} == left


# Splitting


def test_the_cut_in_time_is_one_for_all() -> None:
    own = prepare("o", [write_csv("o.csv", orders())], Columns())
    times = own.pairs.times
    assert times is not None
    train, valid, test = (times[own.parts == part] for part in (TRAIN, VALID, TEST))
    assert train.max() < valid.min() and valid.max() < test.min()
    assert len(train) / len(times) == pytest.approx(0.8, abs=0.01)
    assert len(test) / len(times) == pytest.approx(0.1, abs=0.01)


def test_leave_one_out_takes_the_last_and_the_one_before() -> None:
    own = prepare("o", [write_csv("o.csv", orders())], Columns(), how="leave-one-out")
    assert own.pairs.times is not None
    for user in range(len(own.ids.users)):
        mine = own.pairs.users == user
        times, parts = own.pairs.times[mine], own.parts[mine]
        if len(times) < 3:
            assert not parts.any()
            continue
        assert sorted(parts)[-2:] == [VALID, TEST] and (parts > 0).sum() == 2
        assert times[parts == TEST] == times.max()
        assert times[parts == VALID][0] >= times[parts == TRAIN].max()


def test_the_random_split_is_per_user_and_seeded() -> None:
    path = write_csv("o.csv", [row[:2] for row in orders(900)], "user,item")
    one, same, other = (prepare("o", [path], Columns(), seed=seed) for seed in (0, 0, 1))
    assert named(one) == named(same) != named(other)
    for user in range(len(one.ids.users)):
        counts = np.bincount(one.parts[one.pairs.users == user], minlength=3)
        d = counts.sum()
        expected = max(1, d // 10) if d >= 3 else 0
        assert counts.tolist() == [d - 2 * expected, expected, expected]


@pytest.mark.parametrize(
    ("rows", "how", "message"),
    [
        ([("a", "x", 1), ("b", "y", 1)], "time", "train would be empty.*one time"),
        ([("a", "x", 1), ("b", "y", 2)], "random", "test would be empty.*no user has 3 pairs"),
        ([("a", "x", 1), ("b", "y", 2)], "leave-one-out", "test would be empty"),
    ],
)
def test_splits_that_cannot_be(rows: list[Row], how: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        prepare("o", [write_csv("o.csv", rows)], Columns(), how=how)


@pytest.mark.parametrize("how", ["time", "random"])
def test_ratings_that_leave_nothing_are_blamed(how: Any) -> None:
    path = write_csv("o.csv", [(*row, 5) for row in orders()], "user,item,time,rating")
    with pytest.raises(DataError, match="all 600 rows are rated below 9: lower --min-rating"):
        prepare("o", [path], Columns(min_rating=9), how=how)


def test_a_split_by_time_needs_times() -> None:
    path = write_csv("o.csv", [row[:2] for row in orders()], "user,item")
    with pytest.raises(ConfigError, match=r"--time, or --split random"):
        prepare("o", [path], Columns(), how="time")


# Writing and reading back


def test_what_is_added_is_loaded_and_trained_on(bslbench: Command) -> None:
    rows = orders()
    path = write_csv("o.csv", rows)
    code, out, err = bslbench("data", "add", "shop", "o.csv")
    assert code == 0 and "entered in datasets.toml" in out, err
    assert "600 rows, " in out and "repeated" in out
    assert "warning: with " in out  # few users
    data = load("shop")
    found = triples(data)
    expected = named(prepare("shop", [path], Columns()))
    for part, split in enumerate(("train", "valid", "test")):
        assert found[split] == {pair for pair, at in expected.items() if at == part}
    code, out, err = bslbench("data", "show", "shop")
    assert code == 0 and f"fingerprint {data.fingerprint}" in out and "most popular: 0" in out
    code, out, err = bslbench("train", "--dataset", "shop", "--reference", "itemknn")
    assert code == 0 and "1 cells: 1 trained" in out, err
    code, out, _ = bslbench("list", "datasets")
    assert code == 0 and "from o.csv (user, item, time); split by time" in out


def test_lists_are_of_the_ids_that_were_given(bslbench: Command) -> None:
    write_csv("o.csv", orders())
    assert bslbench("data", "add", "shop", "o.csv")[0] == 0
    test = triples(load("shop"))["test"]
    seen: Counter[str] = Counter()
    rows = []
    for user, item in sorted(test):
        seen[user] += 1
        rows.append((user, item, seen[user]))
    write_csv("best.csv", rows, "user,item,rank")
    code, out, err = bslbench(
        "eval", "--lists", "best.csv", "--dataset", "shop", "--metric", "NDCG"
    )
    assert code == 0 and re.search(r"NDCG +1 +1 +1 +1", out), err


@pytest.mark.parametrize("kind", ["parquet", "recbole", "lenskit"])
@pytest.mark.parametrize("selection", ["valid", "test"])
def test_an_export_is_the_exact_split(bslbench: Command, kind: str, selection: str) -> None:
    write_csv("o.csv", orders())
    assert bslbench("data", "add", "shop", "o.csv")[0] == 0
    asked = ["data", "export", "shop", "--format", kind, "--selection", selection, "--out", "out"]
    code, _, err = bslbench(*asked)
    assert code == 0, err
    expected = triples(hold_out(load("shop"), selection))  # type: ignore[arg-type]
    for split, pairs in expected.items():
        if kind == "recbole":
            header, *lines = Path(f"out/out.{split}.inter").read_text().splitlines()
            assert header == "user_id:token\titem_id:token"
            found = [tuple(line.split("\t")) for line in lines]
        else:
            table = pq.read_table(f"out/{split}.parquet")
            assert table.column_names == (
                ["user", "item"] if kind == "parquet" else ["user_id", "item_id"]
            )
            found = list(zip(*(column.to_pylist() for column in table.columns), strict=True))
        assert len(found) == len(pairs) and set(found) == pairs
    about = json.loads(Path("out/split.json").read_text())
    assert about["fingerprint"] == load("shop").fingerprint
    if kind != "recbole":
        users = pq.read_table("out/users.parquet").column("id").to_pylist()
        assert users == ids_of(load_catalog(), "shop", load("shop")).users.to_pylist()
    code, _, err = bslbench(*asked)
    assert code == 2 and "out is there already" in err
    assert bslbench(*asked, "--force")[0] == 0


def test_force_replaces_an_export_and_nothing_else(
    bslbench: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    export = ["data", "export", "synthetic?users=60&items=40&interactions=400", "--force", "--out"]
    Path("precious").mkdir()
    for name in ("precious/thesis.txt", "precious/split.json", "file"):
        Path(name).write_text("mine")
    for out in ("precious", "file", "."):
        code, _, err = bslbench(*export, out)
        assert code == 2 and f"{out} is there already, and no export: name another" in err
    left = sorted(path.name for path in Path().rglob("*"))
    assert left == ["file", "precious", "split.json", "thesis.txt"]
    assert bslbench(*export, "out")[0] == bslbench(*export, "out")[0] == 0
    Path("link").symlink_to("out")
    assert bslbench(*export, "link")[0] == 0
    assert Path("link").is_symlink() and Path("out/test.parquet").exists()
    monkeypatch.chdir("out")
    assert bslbench(*export, ".", "--format", "recbole")[0] == 0
    monkeypatch.chdir(tmp_path)
    assert {p.name for p in Path("out").glob("*.inter")} >= {"out.train.inter", "out.test.inter"}
    assert not list(Path().glob(".*"))


def test_an_export_can_be_added_again(bslbench: Command) -> None:
    write_csv("o.csv", orders())
    assert bslbench("data", "add", "shop", "o.csv")[0] == 0
    assert bslbench("data", "export", "shop", "--selection", "test", "--out", "out")[0] == 0
    files = [Path(f"out/{split}.parquet") for split in ("train", "test")]
    again = prepare("again", files, Columns())
    pairs = triples(load("shop"))
    assert set(named(again)) == pairs["train"] | pairs["test"]
    code, _, err = bslbench("data", "export", "synthetic?users=60&items=40&interactions=400")
    assert code == 0, err
    assert Path("synthetic_users_60_items_40_interactions_400/valid.parquet").exists()


RECBOLE = ["data", "export", "shop", "--format", "recbole", "--out", "out"]


def test_recbole_has_no_place_for_tabs(bslbench: Command) -> None:
    rows = [(f'"a\t{u}"', i, t) for u in range(4) for i, t in zip("wxyz", range(4), strict=True)]
    write_csv("o.csv", rows)
    assert bslbench("data", "add", "shop", "o.csv")[0] == 0
    code, _, err = bslbench(*RECBOLE, "--selection", "test")
    assert code == 2 and "an id has a tab" in err and not Path("out").exists()
    assert [path.name for path in Path().glob(".out*")] == []


CATALOG = """# ours
[a]   # kept as it stands
title = "first"
reader = "pairs"
[a.files]
train = {name = "t"}
test = { name = "u" }

[b]
reader = "pairs"
[b.files.train]
name = "x"
[b.files.test]
name = "y"
"""


def test_other_entries_of_the_catalog_stay_as_they_are(bslbench: Command) -> None:
    Path("datasets.toml").write_text(CATALOG)
    write_csv("o.csv", orders())
    assert bslbench("data", "add", "shop", "o.csv")[0] == 0
    first = Path("datasets.toml").read_text()
    assert first.startswith(CATALOG) and first.count("[shop]") == 1
    assert bslbench("data", "add", "shop2", "o.csv")[0] == 0
    code, _, err = bslbench("data", "add", "shop", "o.csv", "--seed", "3")
    assert code == 2 and "there is a 'shop' in datasets.toml" in err
    assert bslbench("data", "add", "shop", "o.csv", "--seed", "3", "--force")[0] == 0
    text = Path("datasets.toml").read_text()
    assert text.startswith(CATALOG) and text.count("[shop]") == 1 and text.count("[shop2]") == 1
    assert load_catalog()["shop"].split_seed == 3 and load_catalog()["shop2"].split_seed == 0


def test_a_name_with_dots_is_one_entry(bslbench: Command) -> None:
    write_csv("o.csv", orders())
    for name in ("shop.v2", "shop.v2.1", "shop"):
        code, _, err = bslbench("data", "add", name, "o.csv")
        assert code == 0, err
    before = Path("datasets.toml").read_text()
    assert bslbench("data", "add", "shop.v2", "o.csv", "--force", "--seed", "3")[0] == 0
    known = load_catalog()
    assert [known[name].split_seed for name in ("shop", "shop.v2", "shop.v2.1")] == [0, 3, 0]
    assert len(Path("datasets.toml").read_text()) == len(before)
    assert bslbench("data", "show", "shop.v2")[0] == 0
    code, _, err = bslbench("train", "--dataset", "shop.v2", "--reference", "popularity")
    assert code == 0, err


def test_comments_are_of_the_entry_that_they_stand_above() -> None:
    shop = "# of shop\n[shop]\na = 1\n# within\nb = 2\n\n[shop.files.test]\nname = 1\n"
    other = "\n# of other\n\n[other]\nc = 3\n"
    new = with_entry(shop + other, "shop", "[shop]\na = 2\n", "datasets.toml")
    assert new == "# of shop\n[shop]\na = 2\n" + other
    assert with_entry(new, "shop", "[shop]\na = 2\n", "datasets.toml") == new


def test_an_entry_that_cannot_be_taken_out_is_left_alone() -> None:
    inline = 'shop.reader = "pairs"\n'
    with pytest.raises(ConfigError, match="take the entry 'shop' out of it by hand"):
        with_entry(inline, "shop", '[shop]\nreader = "parquet"\n', "datasets.toml")


def test_names_that_cannot_be(bslbench: Command) -> None:
    write_csv("o.csv", orders())
    for name, message in (
        ("yelp2018", "comes with bslbench"),
        ("a/b", "a name is letters"),
        ("shop\n", "a name is letters"),
    ):
        code, _, err = bslbench("data", "add", name, "o.csv")
        assert code == 2 and message in err
    Path("datasets.toml").symlink_to(packaged_at())  # as in a checkout
    code, _, err = bslbench("data", "add", "shop", "o.csv")
    assert code == 2 and "datasets.toml is the catalog of bslbench itself: work in another" in err
    Path("datasets.toml").unlink()
    Path("data/there").mkdir(parents=True)
    Path("data/there/thesis.txt").write_text("mine")
    for asked in ([], ["--force"]):
        code, _, err = bslbench("data", "add", "there", "o.csv", *asked)
        assert (
            code == 2
            and "data/there is there, and no dataset that was added: choose another name" in err
        )
    assert [path.name for path in Path("data/there").iterdir()] == ["thesis.txt"]
    assert bslbench("data", "add", "shop", "o.csv")[0] == 0
    Path("datasets.toml").unlink()
    code, _, err = bslbench("data", "add", "shop", "o.csv")
    assert code == 2 and "there is a 'shop' in data/shop: choose another name, or say" in err
    assert bslbench("data", "add", "shop", "o.csv", "--force")[0] == 0


def test_what_fails_leaves_nothing_and_what_was_there(monkeypatch: pytest.MonkeyPatch) -> None:
    own = prepare("shop", [write_csv("o.csv", orders())], Columns())
    catalog = Path("datasets.toml")
    write(own, Path("data"), catalog)
    before = {path: path.read_bytes() for path in Path("data/shop").iterdir()}
    text = catalog.read_text()

    def full(path: Path, content: str | bytes) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("bslbench.own.add.write_atomically", full)
    other = prepare("shop", [write_csv("p.csv", orders(seed=1))], Columns())
    with pytest.raises(BslbenchError, match="No space left"):
        write(other, Path("data"), catalog, force=True)
    assert {path: path.read_bytes() for path in Path("data/shop").iterdir()} == before
    assert catalog.read_text() == text
    fresh = prepare("fresh", [Path("p.csv")], Columns())
    with pytest.raises(BslbenchError, match="No space left"):
        write(fresh, Path("data"), catalog)
    assert sorted(path.name for path in Path("data").iterdir()) == [".adding", "shop"]


# Warnings


def test_cold_items_and_users_without_history_are_warned_of(bslbench: Command) -> None:
    rows = [(f"u{u}", f"i{i}", 10 * u + i) for u in range(6) for i in range(10)]
    rows += [("late", f"new{i}", 900 + i) for i in range(8)]
    write_csv("o.csv", rows)
    _, out, _ = bslbench("data", "add", "shop", "o.csv", "--dry-run")
    assert "1 users have test pairs but none in train: they are skipped" in out
    assert "% of the test pairs are of items without train pairs" in out
    assert "users have no test pair and count nowhere" in out
    assert not Path("data").exists() and not Path("datasets.toml").exists()


# What is malformed


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "line 1: expected the names of two or more columns"),
        (b"user\n", "line 1: expected the names of two or more columns"),
        (b"user,item,time\n", "o.csv: no rows"),
        (b"user,item,time\na,x,1\na,y\n", "o.csv, line 3: expected 3 columns, found 2"),
        (b"user,item,time\na,x,1\n\na,y\n", "o.csv, line 4: expected 3 columns, found 2"),
        (b"user,item,time\na,x,1\nb,,2\n", "o.csv, line 3: no item"),
        (b"user,item,time\na,x,1\nb,y,soon\n", "o.csv, line 3: 'soon' is not a time"),
        (
            b"user,item\na,x\nb," + b"y" * 513,
            "line 3: 'yyyyyyyyyyyyyyyyyyyyy...' is not an item",
        ),
        (b"user,item\na,x\nb\0,y\n", "line 3: 'b\\x00' is not a user: it has a NUL"),
        (b"user,item,time\na,x,1\nb,y,\n", "o.csv, line 3: no time"),
        (b"user,item,time\na,x,1\nb,y,inf\n", "o.csv, line 3: 'inf' is not a time"),
        (b"user,item,time\na,x,2020-01-01\nb,y,7\n", "o.csv, line 3: '7' is not a time"),
        (b"user,item,time\na,x,7\nb,y,2020-01-01\n", "line 3: '2020-01-01' is not a time"),
        (b"user,item,time\na,x,1\nb,\xff\xfey,2\n", "o.csv, line 3: item is not UTF-8"),
        (b'user,item,time\na,"x\ny",1\nb,z\n', "o.csv, line 4: expected 3 columns, found 2"),
        (b'user,item,time\na,"x,1\nb,y,2\n', "o.csv, line 2: expected 3 columns, found 2"),
        ("user,item\na,x\n".encode("utf-16"), "o.csv: it is UTF-16; save it as UTF-8"),
        (b"us\xe9r,item\na,x\n", "o.csv, line 1: not UTF-8 at byte 2"),
    ],
)
def test_a_malformed_text_is_named_with_its_line(
    bslbench: Command, content: bytes, message: str
) -> None:
    Path("o.csv").write_bytes(content)
    code, out, err = bslbench("data", "add", "shop", "o.csv")
    assert code == 2 and message in err and len(err.splitlines()) == 1 and not out
    assert sorted(path.name for path in Path().iterdir()) == ["o.csv"]


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"user": [1, None, 3], "item": [1, 2, 3]}, "o.parquet, row 2: no user"),
        ({"user": [1.0, 2.5, 3.0], "item": [1, 2, 3]}, "o.parquet, row 2: '2.5' is not a user"),
        ({"user": [Decimal(1), Decimal("2.5")], "item": [1, 2]}, "row 2: '2.5' is not a user"),
        ({"user": [Decimal(1), None], "item": [1, 2]}, "row 2: no user"),
        ({"user": [True, False], "item": [1, 2]}, "row 1: a user cannot be a bool"),
        ({"user": [1, 2], "item": [True, False]}, "row 1: an item cannot be a bool"),
        ({"user": [1, 2], "item": [1, 2], "time": [None, "2020-01-01"]}, "row 1: no time"),
        ({"user": [[1], [2]], "item": [1, 2]}, "a user cannot be a list"),
        ({"user": [1, 2], "item": [1, 2], "time": ["now", "then"]}, "row 1: 'now' is not a time"),
        ({"user": [1], "item": [1], "time": [float("nan")]}, "row 1: 'nan' is not a time"),
    ],
)
def test_a_malformed_parquet_is_named_with_its_row(
    bslbench: Command, columns: dict[str, list[Any]], message: str
) -> None:
    pq.write_table(pa.table(columns), "o.parquet")
    code, out, err = bslbench("data", "add", "shop", "o.parquet")
    assert code == 2 and message in err and len(err.splitlines()) == 1 and not out


def test_text_of_parquet_that_is_not_utf8_is_named(bslbench: Command) -> None:
    users = pa.array([b"a", b"\xff"]).view(pa.string())  # as damaged pages come
    pq.write_table(pa.table({"user": users, "item": ["x", "y"]}), "o.parquet")
    code, _, err = bslbench("data", "add", "shop", "o.parquet")
    assert code == 2 and "o.parquet, row 2: user is not UTF-8" in err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["gone.csv"], "gone.csv: no such file"),
        (["o.xlsx"], "o.xlsx: its name ends in none of .csv, .tsv, .inter, .parquet, .pq"),
        (["o.csv", "--rating", "stars"], "say --min-rating too"),
        (["o.csv", "--min-rating", "3"], "which column is its rating?"),
        (["o.csv", "--min-rating", "nan"], "--min-rating: nan is not a rating"),
        (["o.csv", "--user", "item"], "one column cannot be two things"),
        (["o.csv", "--columns", "user,item,user"], "--columns: 'user' stands twice"),
        (["o.csv", "--columns", "user,,item"], "--columns 'user,,item': name each column"),
        (["o.csv", "--columns", ""], "--columns '': name each column"),
        (["o.parquet", "--columns", "user,item"], "o.parquet: --columns is for texts"),
        (["o.csv", "half.csv"], "half.csv: some files have a time and some have none"),
    ],
)
def test_a_mistake_is_one_line(bslbench: Command, arguments: list[str], message: str) -> None:
    write_csv("o.csv", orders())
    write_csv("half.csv", [row[:2] for row in orders()], "user,item")
    Path("o.xlsx").write_bytes(b"PK")
    Path("o.parquet").touch()
    code, out, err = bslbench("data", "add", "shop", *arguments)
    assert code == 2 and message in err and len(err.splitlines()) == 1 and not out


def test_files_of_ones_own_are_nowhere_to_be_downloaded(
    bslbench: Command, cache_folder: Path
) -> None:
    write_csv("o.csv", orders(seed=7))
    place = ["--data", "else where", "--catalog", "ours.toml"]
    code, out, err = bslbench("data", "add", "shop", "o.csv", *place)
    assert code == 0, err
    again = out.splitlines()[-1].removeprefix("next: ").split(" ", 1)[1]
    assert again.startswith("train --dataset shop --data 'else where' --catalog ours.toml --loss")
    code, _, err = bslbench("train", *shlex.split(again)[1:], "--dry-run")
    assert code == 0, err
    for missing in ("users", "train"):  # of the ids, once the pairs are known, and of the pairs
        code, _, err = bslbench("data", "show", "shop", "--catalog", "ours.toml")
        assert code == 2 and f"{missing}.parquet" in err
        assert "no such file; say --data if it lies elsewhere" in err
        for known in (cache_folder / "interactions").glob("shop-*"):
            shutil.rmtree(known)
    train = Path("else where/shop/train.parquet")
    train.write_bytes(train.read_bytes()[:-1])
    code, _, err = bslbench("data", "show", "shop", *place)
    assert code == 2 and "bytes, expected" in err and "download" not in err


def test_damaged_files_of_an_added_dataset_are_named(bslbench: Command) -> None:
    write_csv("o.csv", orders())
    assert bslbench("data", "add", "shop", "o.csv")[0] == 0
    ids = Path("data/shop/items.parquet")
    ids.write_bytes(ids.read_bytes()[:-9])
    code, _, err = bslbench("data", "show", "shop")
    assert code == 2 and "items.parquet: no ids can be read from it" in err
    train = Path("data/shop/train.parquet")
    train.write_bytes(train.read_bytes() + b"x")
    code, _, err = bslbench("data", "show", "shop")
    assert code == 2 or "fingerprint" not in err  # the parsed form may lie in the cache still


@pytest.fixture(scope="module")
def kinds(tmp_path_factory: pytest.TempPathFactory) -> dict[str, fuzz.Target]:
    folder = tmp_path_factory.mktemp("fuzz")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("BSLBENCH_DATA", "data")
        return fuzz.targets(folder)


@pytest.mark.filterwarnings("default")
@settings(max_examples=60, deadline=None, derandomize=True)
@given(kind=st.integers(0, 1000), seed=st.integers(0, 2**32))
def test_spoilt_files_are_read_right_or_refused_in_one_line(
    kinds: dict[str, fuzz.Target], tmp_path_factory: pytest.TempPathFactory, kind: int, seed: int
) -> None:
    target = kinds[list(kinds)[kind % len(kinds)]]
    folder = tmp_path_factory.mktemp("work")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("BSLBENCH_DATA", "data")
        assert not fuzz.fault(target, fuzz.spoilt(target, random.Random(seed)), folder)


@settings(max_examples=50, deadline=None)
@given(chunks=st.lists(st.lists(st.text(max_size=3), max_size=6), max_size=5))
def test_codes_are_those_of_a_dictionary(chunks: list[list[str]]) -> None:
    coder = Coder()
    known: dict[str, int] = {}
    for chunk in chunks:
        expected = [known.setdefault(text, len(known)) for text in chunk]
        assert coder.numbers(pa.array(chunk, pa.string())).tolist() == expected
    assert coder.known.to_pylist() == list(known)


cells = st.text(
    st.characters(codec="utf-8", exclude_categories=["Cs", "Cc"]), min_size=1, max_size=5
)


@settings(max_examples=40, deadline=None)
@given(
    pairs=st.sets(st.tuples(cells, cells), min_size=3, max_size=30),
    quoted=st.booleans(),
    crlf=st.booleans(),
    bom=st.booleans(),
)
def test_any_text_comes_back_as_it_was(
    pairs: set[tuple[str, str]], quoted: bool, crlf: bool, bom: bool
) -> None:
    def written(text: str) -> str:
        plain = not quoted and not set(text) & set(',";\t|')
        return text if plain else '"' + text.replace('"', '""') + '"'

    rows = [f"{written(u)},{written(i)},{t}" for t, (u, i) in enumerate(sorted(pairs))]
    text = "\n".join(["user,item,time", *rows]) + "\n"
    content = text.replace("\n", "\r\n" if crlf else "\n").encode("utf-8-sig" if bom else "utf-8")
    Path("o.csv").write_bytes(content)
    own = prepare("o", [Path("o.csv")], Columns())
    assert set(named(own)) == pairs


def test_the_folder_of_an_export_is_whole_or_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    own = prepare("shop", [write_csv("o.csv", orders())], Columns())
    write(own, Path("data"), Path("datasets.toml"))
    data = load("shop")
    monkeypatch.setattr("bslbench.own.export.json.dumps", _raise)
    with pytest.raises(BslbenchError):
        export(data, own.ids, "parquet", Path("out"))
    assert not Path("out").exists() and not list(Path().glob(".out*"))


def _raise(*arguments: Any, **named: Any) -> str:
    raise OSError(28, "No space left on device")
