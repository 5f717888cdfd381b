"""Comparisons of runs, and of the rows of a grid: right, made once, and shown."""

import csv
import json
import math
import re
import shutil

import numpy as np
import pytest
from scipy import stats

from bslbench.engine.store import Store
from bslbench.errors import ConfigError, DataError
from bslbench.evaluation.metrics import per_user
from bslbench.evaluation.ranks import Ranks
from bslbench.report import pairs
from bslbench.report.compare import with_baseline
from bslbench.report.main_table import main_table
from bslbench.report.pairs import significance
from bslbench.report.results import Key, Results
from bslbench.report.significance import compare, compare_values
from bslbench.report.significance_table import significance_table, with_significance
from tests.stores import cell, popularity, write

METRICS = ("Recall@20", "NDCG@20")
N_USERS = 60


def ranked(cell, level, *, users=N_USERS):
    """Return ranks of three items per user, the lower the higher `level` (0 to 1)."""
    draws = np.random.default_rng([cell["seed"], round(1000 * level)])
    own = np.random.default_rng(7).random(users) - 0.5  # what all runs have in common
    places = np.repeat(0.3 - level / 4 + own / 4, 3) + draws.normal(0, 0.02, 3 * users)
    ranks = np.clip(places * 80, 1, 100).astype(np.uint8)
    numbers, indptr = np.arange(users, dtype=np.int32), np.arange(0, 3 * users + 1, 3)
    return Ranks(numbers, indptr, ranks, np.zeros(5, np.int32), 0, 0.0)


def keep(results, cell, ranks, fingerprint="f"):
    """Write what a comparison reads of a run; return the run and its metrics."""
    run = Store(results).run(cell["id"])
    run.folder.mkdir(parents=True, exist_ok=True)
    ranks.save(run.file("ranks.npz"))
    canonical = {"seed": cell["seed"], "fingerprint": fingerprint}
    run.file("run.json").write_text(json.dumps({"canonical": canonical}))
    values = {m: float(per_user(ranks, m.split("@")[0], 20).mean()) for m in METRICS}
    return run, values


def group(results, loss, level, seeds, **fields):
    """Write the runs of one row; return its cells with their metrics, and the runs."""
    cells = [cell(loss, seed, **fields) for seed in seeds]
    kept = [keep(results, c, ranked(c, level)) for c in cells]
    return [(c, values) for c, (_, values) in zip(cells, kept, strict=True)], [r for r, _ in kept]


def recalls(runs):
    return np.stack([per_user(Ranks.load(run.file("ranks.npz")), "Recall", 20) for run in runs])


def test_a_comparison_pairs_seeds_and_users(tmp_path):
    _, a = group(tmp_path, "sl", 0.5, [3, 1, 2, 0])
    _, b = group(tmp_path, "bpr", 0.4, [5, 2, 3, 0])
    found = compare(a, b, "Recall@20")
    x, y = recalls([a[3], a[2], a[0]]), recalls([b[3], b[1], b[2]])  # seeds 0, 2, 3
    assert found.diff == pytest.approx(x.mean() - y.mean()) and found.base == y.mean()
    assert found.relative == pytest.approx(x.mean() / y.mean() - 1)
    assert found.p == pytest.approx(stats.ttest_rel(x.mean(1), y.mean(1)).pvalue)
    assert (found.n_seeds, found.n_users, found.word) == (3, N_USERS, "there")
    assert 0 < found.low < found.diff < found.high
    low, high = found.relative_interval
    assert (low, high) == pytest.approx((found.low / y.mean(), found.high / y.mean()))
    mirrored = compare(b, a, "Recall@20")
    assert mirrored.p == pytest.approx(found.p) and mirrored.diff == pytest.approx(-found.diff)


def test_a_loss_against_itself_is_absent_and_one_seed_tells_nothing(tmp_path):
    _, a = group(tmp_path, "sl", 0.5, range(3))
    same = compare(a, a, "NDCG@20")
    assert (same.diff, same.low, same.high, same.word) == (0, 0, 0, "absent")
    _, b = group(tmp_path, "bpr", 0.4, [2, 7])
    one = compare(a, b, "Recall@20")
    assert (one.n_seeds, one.word, one.seeds_needed) == (1, "cannot be told", None)
    assert one.diff > 0 and math.isnan(one.p) and math.isnan(one.low)


def test_a_small_difference_cannot_be_told_and_says_what_it_takes():
    draws = np.random.default_rng(1)
    base = np.full((5, 400), 0.2)
    noisy = base + draws.normal(0.0008, 0.002, (5, 1)) + np.zeros(400)
    found = compare_values(noisy, base)
    assert found.word == "cannot be told" and found.seeds_needed > 5
    far = compare_values(noisy - 0.002, base)
    assert far.word == "cannot be told"
    assert compare_values(noisy - 0.002, base, directed=True).word == "absent"


def test_what_cannot_be_paired_is_an_error(tmp_path):
    _, a = group(tmp_path, "sl", 0.5, [0, 1])
    _, b = group(tmp_path, "bpr", 0.4, [2, 3])
    with pytest.raises(ConfigError, match=r"no seed in common: \[0, 1\] and \[2, 3\]"):
        compare(a, b, "Recall@20")
    with pytest.raises(ConfigError, match="seed 0 twice"):
        compare([*a, a[0]], a, "Recall@20")
    c = cell("mse", 0)
    other, _ = keep(tmp_path, c, ranked(c, 0.5, users=50))
    with pytest.raises(DataError, match="has ranked other users"):
        compare(a, [other], "Recall@20")
    other, _ = keep(tmp_path, c, ranked(c, 0.5), fingerprint="g")
    with pytest.raises(DataError, match="other data"):
        compare(a, [other], "Recall@20")
    a[0].file("ranks.npz").unlink()
    with pytest.raises(DataError, match="cannot be read as ranks"):
        compare(a, a, "Recall@20")


@pytest.fixture
def store(tmp_path):
    """Rows: popularity, sl best, then bsl a little and bpr far below, mse with one seed."""
    scored = []
    for seed in range(3):
        c = popularity(seed)
        scored.append((c, keep(tmp_path, c, ranked(cell("popularity", 0), 0.05))[1]))
    for loss, level, n in [("sl", 0.6, 4), ("bsl", 0.599, 4), ("bpr", 0.3, 4), ("mse", 0.4, 1)]:
        scored += group(tmp_path, loss, level, range(n))[0]
    write(tmp_path, scored)
    return tmp_path


def found_in(results, metrics=METRICS, baseline="best"):
    return significance(Results.load(results, "trial"), metrics, baseline)


def kept_rows(results):
    with (results / "trial" / "significance.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_rows_are_compared_with_the_best_of_each_metric(store):
    found = found_in(store)
    assert [(c.pair.metric, c.pair.key.label) for c in found.compared] == [
        (metric, label) for metric in METRICS for label in ("popularity", "bsl", "bpr")
    ]
    assert {c.pair.against.label for c in found.compared} == {"sl"} and found.lacking == 0
    assert [c.found.n_seeds for c in found.compared[:3]] == [3, 4, 4]
    p = [c.found.p for c in found.compared[:3]]
    order = sorted(range(3), key=p.__getitem__)
    assert found.compared[order[0]].p_holm == min(1, 3 * p[order[0]])
    runs = Store(store)
    direct = compare(
        [runs.run(cell("bpr", s)["id"]) for s in range(4)],
        [runs.run(cell("sl", s)["id"]) for s in range(4)],
        "Recall@20",
    )
    assert found.compared[2].found == direct and direct.word == "there"


def test_a_baseline_is_compared_within_its_backbone(store):
    found = found_in(store, ["Recall@20"], "bpr")
    assert [(c.pair.key.label, c.pair.against.label) for c in found.compared] == [
        (label, "bpr") for label in ("popularity", "sl", "bsl")
    ]
    with pytest.raises(ConfigError, match="did you mean 'bpr'"):
        found_in(store, ["Recall@20"], "bprr")


def test_comparisons_are_made_once(store, monkeypatch):
    first = found_in(store)
    path = store / "trial" / "significance.csv"
    content = path.read_bytes()
    shutil.rmtree(store / "runs")  # as in a checkout of the committed results
    monkeypatch.setattr(pairs, "compare", lambda *_: pytest.fail("compared again"))
    again = found_in(store)
    assert [str(c) for c in again.compared] == [str(c) for c in first.compared]
    assert path.read_bytes() == content


def test_other_baselines_stay_until_they_are_no_longer_true(store):
    found_in(store)
    found_in(store, ["Recall@20"], "bpr")
    assert {row["baseline"] for row in kept_rows(store)} == {"best", "bpr"}
    path = store / "trial" / "metrics.csv"
    sl = cell("sl", 1)
    _, values = keep(store, sl, ranked(sl, 0.7))  # trained again, to another result
    text = path.read_text()
    for name, value in values.items():
        head = f"{sl['id']},yelp2018,test,{name.replace('@', ',')},,"
        text = re.sub(re.escape(head) + r".*", head + str(value), text)
    path.write_text(text)
    assert len(found_in(store, ["NDCG@20"]).compared) == 3
    assert {(row["baseline"], row["metric"]) for row in kept_rows(store)} == {("best", "NDCG@20")}


def test_the_export_has_every_p_value_and_what_it_is_of(store):
    found = found_in(store)
    rows = {(row["metric"], row["loss"]): row for row in kept_rows(store)}
    for line in found.compared:
        row = rows[line.pair.metric, line.pair.key.loss]
        assert float(row["p"] or "nan") == pytest.approx(line.found.p, nan_ok=True, abs=0)
        assert float(row["p_holm"] or "nan") == pytest.approx(line.p_holm, nan_ok=True, abs=0)
        assert (row["against_loss"], row["word"]) == ("sl", line.found.word)
        assert float(row["relative"]) == line.found.relative


def test_without_ranks_nothing_is_compared_and_that_is_said(store):
    (store / "runs" / cell("bpr", 2)["id"] / "ranks.npz").unlink()
    found = found_in(store)
    assert found.lacking == 2 and len(found.compared) == 4
    table = significance_table(store, "trial")
    gone = "not compared: 2 of 8 pairs, whose ranks are not under runs, or not those of this table"
    few = "not compared: 2 of 8 pairs, without two seeds in common"
    assert table.problems[:2] == (gone, few)
    shutil.rmtree(store / "runs")
    (store / "trial" / "significance.csv").unlink()
    made = with_significance(main_table(store, "trial"), found_in(store))
    assert made.notes[-1].startswith("differences are not tested: the ranks of the runs are not")


def test_ranks_of_another_machine_are_no_ranks_of_this_table(store):
    other = cell("bpr", 2)
    keep(store, other, ranked(other, 0.5))  # the same cell, to another result
    found = found_in(store)
    assert found.lacking == 2 and not found.of("yelp2018", "Recall@20", Key("mf", "bpr"))
    assert len(found.compared) == 4


def test_a_damaged_file_is_an_error_that_names_it(store):
    path = store / "trial" / "significance.csv"
    path.write_text("digest,baseline\na,best\n")
    with pytest.raises(DataError, match=r"significance\.csv is damaged .*remove it"):
        found_in(store)


def test_the_table_of_comparisons(store):
    table = significance_table(store, "trial", ["Recall@20"])
    rows = {row[table.column("loss")].text: row for row in table.rows}
    bpr = rows["bpr"]
    assert bpr[table.column("difference is")].text == "there"
    assert bpr[table.column("seeds to tell")].text == ""
    difference = bpr[table.column("difference")]
    assert difference.interval[0] < difference.value < difference.interval[1] < 0
    assert table.notes[-1].endswith("normality: 0.25 with 3 seeds, 0.12 with 4 seeds")


def marks(table, name="Recall@20"):
    index = table.column(name, "yelp2018")
    return {row[table.column("loss")].text: row[index].mark for row in table.rows}


def test_marks_stand_where_a_difference_is_not_there(store):
    found = found_in(store)
    words = {c.pair.key.label: c.found.word for c in found.compared[:3]}
    made = with_significance(main_table(store, "trial"), found)
    assert words["bsl"] != "there" == words["bpr"] == words["popularity"]
    expected = {"absent": "≈", "cannot be told": "?"}[words["bsl"]]
    assert marks(made) == {"popularity": "", "sl": "", "bsl": expected, "bpr": "", "mse": "?"}


def test_beside_a_baseline_stand_interval_and_mark(store):
    table = with_baseline(main_table(store, "trial"), "bpr")
    made = with_significance(table, found_in(store, METRICS, "bpr"))
    index = made.column("vs bpr", "yelp2018")
    entries = {row[made.column("loss")].text: row[index] for row in made.rows}
    low, high = entries["sl"].interval
    assert low < entries["sl"].value < high and low > 0 and entries["sl"].mark == ""
    assert entries["bpr"].interval is None and entries["mse"].mark == "?"
    assert marks(made)["bsl"] == ""


def test_one_seed_is_not_tested(tmp_path):
    write(tmp_path, group(tmp_path, "sl", 0.5, [0])[0] + group(tmp_path, "bpr", 0.4, [0])[0])
    made = with_significance(main_table(tmp_path, "trial"), found_in(tmp_path))
    assert made.notes[-1] == (
        "differences are not tested: no row has two seeds in common with the best of the column"
    )
    assert not (tmp_path / "trial" / "significance.csv").exists()
    assert set(marks(made).values()) == {""}


def test_rows_are_compared_within_their_noise(tmp_path):
    scored = []
    for noise, shift in ((0.0, 0.0), (0.4, -0.2)):
        for loss, level in (("sl", 0.6), ("bpr", 0.4)):
            scored += group(tmp_path, loss, level + shift, range(3), noise_pos=noise)[0]
    write(tmp_path, scored)
    found = found_in(tmp_path, ["Recall@20"])
    expected = [("bpr (clean)", "sl (clean)"), ("bpr (pos=0.4)", "sl (pos=0.4)")]
    assert [(c.pair.key.label, c.pair.against.label) for c in found.compared] == expected
    found = found_in(tmp_path, ["Recall@20"], "bpr")
    assert [(c.pair.against.label, c.pair.key.label) for c in found.compared] == expected
    table = with_baseline(main_table(tmp_path, "trial"), "bpr")
    made = with_significance(table, found)
    index = made.column("vs bpr", "yelp2018")
    assert [row[index].text or "interval" for row in made.rows if row[index].interval is None] == [
        "baseline"
    ] * 2
    assert significance_table(tmp_path, "trial").column("noise") > 0
