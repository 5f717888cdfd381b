"""Recommenders trained elsewhere: ranked by the same protocol, kept in the same tables."""

import csv
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from bslbench.data.interactions import Interactions
from bslbench.data.load import load
from bslbench.data.splits import hold_out
from bslbench.evaluation.lists import Lists, rank_lists
from bslbench.evaluation.ranking import EmbeddingScorer, rank_all
from bslbench.evaluation.ranks import Ranks
from bslbench.references import Popularity
from tests.fixtures import Command

SMALL = "synthetic?users=200&items=150&interactions=4000"


@pytest.fixture(scope="module")
def data() -> Interactions:
    return load(SMALL)


def tables(data: Interactions, d: int = 8) -> tuple[torch.Tensor, torch.Tensor]:
    draws = torch.Generator().manual_seed(0)
    return (
        torch.randn(data.n_users, d, generator=draws),
        torch.randn(data.n_items, d, generator=draws),
    )


def full_lists(scores: torch.Tensor) -> Lists:
    """All items for every user, best first; seen ones among them."""
    order = scores.argsort(dim=1, descending=True, stable=True).numpy()
    users = np.repeat(np.arange(len(scores)), scores.shape[1])
    places = np.tile(np.arange(scores.shape[1]), len(scores))
    return Lists(users.astype(np.int32), order.ravel().astype(np.int32), places)


def same(one: Ranks, two: Ranks) -> bool:
    arrays = ("users", "indptr", "ranks", "top_counts")
    return all(np.array_equal(getattr(one, a), getattr(two, a)) for a in arrays) and (
        one.n_skipped == two.n_skipped
    )


@pytest.mark.parametrize("selection", ["valid", "test"])
def test_full_lists_rank_like_the_scores_they_are_made_of(
    data: Interactions, selection: str
) -> None:
    split = hold_out(data, selection)  # type: ignore[arg-type]
    users, items = tables(data)
    by_scores = rank_all(EmbeddingScorer(users, items, "inner"), split, "test")
    assert same(rank_lists(full_lists(users @ items.T), split), by_scores)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 1000), keep=st.floats(0, 1))
def test_lists_equal_a_loop(seed: int, keep: float) -> None:
    rng = np.random.default_rng(seed)
    kinds = rng.choice(4, size=(7, 12), p=[0.5, 0.2, 0.1, 0.2])
    pairs = [np.nonzero(kinds == kind) for kind in (1, 2, 3)]
    data = Interactions.from_pairs("some", 7, 12, *pairs)
    listed = [(u, i) for u in range(7) for i in rng.permutation(14) if rng.random() < keep]
    users, items = np.array(listed, np.int32).reshape(-1, 2).T
    items[items >= 12] = -1  # unknown
    places = np.arange(len(listed)) * 3
    shuffled = rng.permutation(len(listed))
    found = rank_lists(Lists(users[shuffled], items[shuffled], places[shuffled]), data)
    expected = []
    for user in range(7):
        test = np.flatnonzero(kinds[user] == 3)
        if not len(test) or not (kinds[user] == 1).any():
            continue
        shown = [i for u, i in listed if u == user and (i >= 12 or kinds[user, i] not in (1, 2))]
        expected += [shown.index(item) + 1 if item in shown else 0 for item in test]
    assert found.ranks.tolist() == expected
    assert len(found.top_counts) == 12


def test_what_is_not_listed_has_no_rank(data: Interactions) -> None:
    split = hold_out(data, "test")
    users, items = tables(data)
    everything = full_lists(users @ items.T)
    first = everything.places < 30
    cut = Lists(*(column[first] for column in everything))
    short, full = rank_lists(cut, split), rank_lists(everything, split)
    assert set(short.ranks) <= {*range(31)} and (short.ranks > 0).any()
    agree = short.ranks > 0
    assert np.array_equal(short.ranks[agree], full.ranks[agree])
    nothing = np.empty(0, np.int32)
    none = rank_lists(Lists(nothing, nothing, np.empty(0, np.int64)), split)
    assert not none.ranks.any() and len(none.users) == len(full.users)


def write(path: Path, rows: list[list[object]]) -> None:
    with path.open("w", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows(rows)


def popularity_lists(data: Interactions, depth: int = 100) -> list[list[object]]:
    """Rows of user, item, rank: what popularity recommends from what a user has not seen."""
    split = hold_out(data, "valid")
    best = np.argsort(-split.item_degrees, kind="stable")
    seen = (split.train + split.valid).toarray() > 0
    return [
        [user, int(item), rank]
        for user in range(data.n_users)
        for rank, item in enumerate(best[~seen[user][best]][:depth], 1)
    ]


def test_embeddings_from_files_of_both_kinds(
    bslbench: Command, data: Interactions, tmp_path: Path
) -> None:
    users, items = tables(data)
    np.save("u.npy", users.double().numpy())
    np.save("i.npy", items.numpy())
    save_file({"users": users, "items": items}, "both.safetensors")
    shown = []
    for files in (("u.npy", "i.npy"), ("both.safetensors", "both.safetensors")):
        asked = ["--users", files[0], "--items", files[1], "--score", "cosine"]
        code, out, err = bslbench("eval", *asked, "--dataset", SMALL)
        assert code == 0, err
        shown.append(out)
    assert shown[0] == shown[1]
    ranks = rank_all(EmbeddingScorer(users, items, "cosine"), hold_out(data, "valid"), "test")
    printed = re.search(r"Recall +\S+ +\S+ +(\S+)", shown[0])
    assert printed and printed[1] == f"{per_user_recall(ranks):.5f}"
    assert not (tmp_path / "results").exists()


def test_arrays_that_python_2_wrote(bslbench: Command, data: Interactions) -> None:
    for name, table in zip(("u.npy", "i.npy"), tables(data), strict=True):
        np.save(name, table.numpy())
        written = Path(name).read_bytes()
        size = f"({len(table)}, {table.shape[1]}), }}  ".encode()
        assert size in written
        old = f"({len(table)}L, {table.shape[1]}L), }}".encode()
        Path(name).write_bytes(written.replace(size, old))
    code, _, err = bslbench("eval", *EMBEDDINGS[1:], "--score", "inner")
    assert (code, err) == (0, "")


@pytest.mark.parametrize("kind", ["csv", "tsv", "parquet", "run"])
def test_lists_from_files_of_all_kinds(bslbench: Command, data: Interactions, kind: str) -> None:
    rows = popularity_lists(data)
    path = Path(f"lists.{kind}")
    if kind == "run":
        path.write_text("".join(f"{u} Q0 {i} {r} {1 / r} pop\n" for u, i, r in rows))
    elif kind == "parquet":
        columns = zip(*rows, strict=True)
        pq.write_table(
            pa.table(dict(zip(("user_id", "item_id", "rank"), columns, strict=True))), path
        )
    else:
        write(path, [["rank", "user", "item"], *([r, u, i] for u, i, r in rows)])
        path.write_text(path.read_text().replace(",", "\t" if kind == "tsv" else ","))
    code, out, err = bslbench("eval", "--lists", str(path), "--dataset", SMALL, "--metric", "MRR")
    assert code == 0, err
    split = hold_out(data, "valid")
    users, items, ranks = (np.array(column) for column in zip(*rows, strict=True))
    ours = rank_lists(Lists(users.astype(np.int32), items.astype(np.int32), ranks), split)
    first = [row[row > 0].min(initial=255) for row in np.split(ours.ranks, ours.indptr[1:-1])]
    assert f"{np.mean([1 / rank if rank <= 50 else 0 for rank in first]):.5f}" in out
    assert "no list" not in err


def test_users_without_a_list_are_counted(bslbench: Command, data: Interactions) -> None:
    ranked = rank_all(EmbeddingScorer(*tables(data), "inner"), hold_out(data, "valid"), "test")
    some = {*ranked.users[:30].tolist()}
    rows = [row for row in popularity_lists(data) if row[0] in some]
    write(Path("few.csv"), [["user", "item", "rank"], *rows])
    for kept in ([], ["--name", "few"]):
        code, _, err = bslbench("eval", "--lists", "few.csv", "--dataset", SMALL, *kept)
        assert (code, err) == (0, f"{len(ranked.users) - 30} users have no list and count with 0\n")


def test_a_named_one_joins_the_grid_and_stays_there(bslbench: Command, data: Interactions) -> None:
    train = ["train", "--dataset", SMALL, "--reference", "popularity", "--name", "mine"]
    assert bslbench(*train)[0] == 0
    write(Path("pop.csv"), [["user", "item", "rank"], *popularity_lists(data)])
    asked = ["eval", "--lists", "pop.csv", "--dataset", SMALL, "--name", "lightfm"]
    code, out, err = bslbench(*asked, "--grid", "mine")
    assert code == 0 and "next: bslbench report --grid mine" in out, err
    again = bslbench(*asked, "--grid", "mine")
    assert again[:2] == (0, out)
    for _ in range(2):
        code, out, err = bslbench("report", "--grid", "mine", "--format", "csv")
        assert code == 0 and "external" in out and "popularity" in out, err
        assert bslbench(*train)[0] == 0  # the grid is written anew
    stored = Path("results/mine/metrics.csv").read_text().splitlines()
    table = [dict(zip(stored[0].split(","), line.split(","), strict=True)) for line in stored[1:]]
    recall = {
        row["loss"]: float(row["value"])
        for row in table
        if (row["split"], row["metric"], row["k"], row["group"]) == ("test", "Recall", "20", "")
    }
    exact = Popularity().fit(hold_out(data, "valid"), 0)
    assert recall["popularity"] == pytest.approx(
        per_user_recall(rank_all(exact, hold_out(data, "valid"), "test"))
    )
    assert recall["lightfm"] == pytest.approx(recall["popularity"], abs=0.01)  # but for ties
    code, out, _ = bslbench("status", "--grid", "mine")
    assert code == 0 and "2 cells: 2 done" in out


def test_a_lone_row_from_outside_is_held_against_every_seed(
    bslbench: Command, data: Interactions
) -> None:
    fixed = ["--loss", "sl", "--loss", "bpr", "--set", "epochs=2", "--set", "n_negatives=20"]
    assert bslbench("train", "--dataset", SMALL, *fixed, "--seeds", "3", "--name", "mine")[0] == 0
    write(Path("pop.csv"), [["user", "item", "rank"], *popularity_lists(data)])
    asked = ["eval", "--lists", "pop.csv", "--dataset", SMALL, "--name", "shop", "--grid", "mine"]
    assert bslbench(*asked)[0] == 0
    named = ["--grid", "mine", "--table", "significance", "--format", "csv"]
    code, out, err = bslbench("report", *named, "--baseline", "shop")
    assert code == 0, err
    found = [row for row in csv.DictReader(out.splitlines()) if row["metric"] == "Recall@20"]
    assert {row["loss"]: row["seeds"] for row in found} == {"bpr": "3", "sl": "3"}
    with Path("results/mine/metrics.csv").open() as file:
        values = {
            (row["loss"], row["seed"]): float(row["value"])
            for row in csv.DictReader(file)
            if (row["split"], row["metric"], row["k"], row["group"]) == ("test", "Recall", "20", "")
        }
    sl = np.mean([values["sl", seed] for seed in "012"])
    [difference] = [float(row["difference"]) for row in found if row["loss"] == "sl"]
    assert difference == pytest.approx(sl - values["shop", "0"])


def test_newer_lists_take_the_place_of_older_ones_of_the_same_name(
    bslbench: Command, data: Interactions
) -> None:
    rows = popularity_lists(data)
    asked = ["eval", "--lists", "l.csv", "--dataset", SMALL, "--grid", "mine"]
    made = []
    for name, listed in (("ours", rows), ("theirs", rows), ("ours", rows[: len(rows) // 2])):
        write(Path("l.csv"), [["user", "item", "rank"], *listed])
        code, out, err = bslbench(*asked, "--name", name)
        assert code == 0, err
        made += re.findall(r"^(\S+): \d+ users", out, re.M)
    with Path("results/mine/metrics.csv").open() as file:
        assert {row["run_id"] for row in csv.DictReader(file)} == set(made[1:])


def test_what_cannot_be_compared_with_a_grid_does_not_join_it(
    bslbench: Command, data: Interactions
) -> None:
    train = ["train", "--dataset", SMALL, "--reference", "popularity", "--name", "mine"]
    write(Path("pop.csv"), [["user", "item", "rank"], *popularity_lists(data)])
    asked = ["eval", "--lists", "pop.csv", "--dataset", SMALL, "--name", "pop", "--grid", "mine"]
    for option, value, said in (
        ("--eval-users", "20", "grid 'mine' has eval_users 20 on"),
        ("--selection", "test", "grid 'mine' has selection test on"),
    ):
        assert bslbench(*train, option, value)[0] == 0
        code, out, err = bslbench(*asked)
        assert (code, out) == (2, "") and said in err and "name another --grid" in err
    assert bslbench(*asked, "--selection", "test")[0] == 0


def per_user_recall(ranks: Ranks) -> float:
    hits = (ranks.ranks > 0) & (ranks.ranks <= 20)
    counts = np.add.reduceat(hits, ranks.indptr[:-1])
    return float(np.mean(counts / np.diff(ranks.indptr)))


def test_what_it_is_made_of_is_part_of_its_id(bslbench: Command, data: Interactions) -> None:
    users, items = tables(data)
    np.save("i.npy", items.numpy())
    for number, table in enumerate((users, users, users + 1)):
        np.save(f"u{number}.npy", table.numpy())
        asked = ["--users", f"u{number}.npy", "--items", "i.npy", "--dataset", SMALL]
        assert bslbench("eval", *asked, "--score", "inner", "--name", "mine")[0] == 0
    assert bslbench("eval", *asked, "--score", "cosine", "--name", "mine")[0] == 0
    assert len(list(Path("results/runs").iterdir())) == 3


EMBEDDINGS = ["eval", "--dataset", SMALL, "--users", "u.npy", "--items", "i.npy"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda u, i: (u[:-1], i), "u.npy: users are 199 x 8, expected 200 rows"),
        (lambda u, i: (u.ravel(), i), "u.npy: users are 1600, expected 200 rows"),
        (lambda u, i: (u, i[:, :5]), "u.npy and i.npy: rows of 8 and 5 numbers"),
        (lambda u, i: (u[:, :0], i[:, :0]), "rows of 0 and 0 numbers"),
        (lambda u, i: (u, np.where(i == i[7], np.nan, i)), "i.npy, row 8: not all finite"),
        (lambda u, i: (u * 1e38 * 10, i), "u.npy, row 1: not all finite"),
        (lambda u, i: (u.astype(str), i), "u.npy: expected numbers"),
    ],
)
def test_embeddings_that_cannot_be_meant(
    bslbench: Command,
    data: Interactions,
    change: Callable[..., tuple[np.ndarray, np.ndarray]],
    message: str,
) -> None:
    users, items = change(*(table.double().numpy() for table in tables(data)))
    np.save("u.npy", users)
    np.save("i.npy", items)
    code, out, err = bslbench(*EMBEDDINGS, "--score", "inner", "--name", "mine")
    assert code == 2 and message in err and len(err.splitlines()) == 1 and not out
    assert not Path("results").exists()


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([[0, 1, 1], [0, 999, 2]], "lists.csv, line 3: unknown item '999'"),
        ([[0, 1, 1], [200, 1, 2]], "lists.csv, line 3: unknown user '200'"),
        ([[0, 1, 1], [1, 1, 1], [0, 1, 2]], "line 4: the item stands in the user's list already"),
        ([[0, 1, 1], [1, 1, 1], [0, 2, 1]], "line 4: the rank stands in the user's list already"),
        ([[0, 1, "first"]], "line 2: 'first' is not a rank"),
        ([[0, 1, 1.5]], "line 2: 1.5 is not a rank"),
        ([[0, 1, -1]], "line 2: -1 is not a rank"),
        ([[0, 1, "nan"]], "line 2: 'nan' is not a rank"),
        ([[0, "", 1]], "line 2: no item"),
        ([[0, 1]], "line 2: expected 3 columns, found 2"),
        ([], "lists.csv: no rows"),
    ],
)
def test_lists_that_cannot_be_meant(
    bslbench: Command, rows: list[list[object]], message: str
) -> None:
    write(Path("lists.csv"), [["user", "item", "rank"], *rows])
    code, out, err = bslbench("eval", "--lists", "lists.csv", "--dataset", SMALL)
    assert code == 2 and message in err and len(err.splitlines()) == 1 and not out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "name a run, or --users and --items, or --lists"),
        (["--lists", "x.csv"], "say which --dataset"),
        (["--users", "u.npy", "--dataset", SMALL], "need --users, --items and --score"),
        (["--lists", "x.csv", "--score", "inner", "--dataset", SMALL], "--lists stands alone"),
        (["--lists", "x.csv", "--dataset", SMALL, "--grid", "g"], "--grid needs a --name"),
        (["--lists", "x.csv", "--dataset", SMALL], "x.csv: no such file"),
        (["--lists", "x.doc", "--dataset", SMALL], "x.doc: no such file"),
        (["run", "--dataset", SMALL], "--k, --metric and --results go with it"),
    ],
)
def test_commands_that_cannot_be_meant(
    bslbench: Command, arguments: list[str], message: str
) -> None:
    code, out, err = bslbench("eval", *arguments)
    assert code == 2 and message in err and len(err.splitlines()) == 1 and not out


def test_a_run_file_with_a_short_line(bslbench: Command) -> None:
    Path("x.run").write_text("0 Q0 1 1 0.5 tag\n\n0 Q0 2 2 0.4\n")
    code, _, err = bslbench("eval", "--lists", "x.run", "--dataset", SMALL)
    assert code == 2 and "x.run, line 3: expected 6 columns, found 5" in err
