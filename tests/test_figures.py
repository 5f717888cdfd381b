"""Figures: the numbers behind them, and that they get drawn, the same way every time."""

import itertools
import math
import random
from dataclasses import replace

import numpy as np
import pytest
from matplotlib.colors import to_rgb
from safetensors.numpy import save_file
from scipy.special import softmax

from bslbench.data.interactions import Interactions
from bslbench.data.splits import hold_out
from bslbench.errors import ConfigError
from bslbench.report.best import chosen
from bslbench.report.claims.identities import cosines
from bslbench.report.figures import draw
from bslbench.report.figures.best_of import best_of, expected_best
from bslbench.report.figures.catalogue import available, chart, save_all
from bslbench.report.figures.chart import Chart, Nothing, Panel, Series
from bslbench.report.figures.scores import score_pairs
from bslbench.report.results import Results
from tests.fixtures import tiny
from tests.stores import cell, popularity, seeds, write


def ids(scored):
    return [c["id"] for c, _ in scored]


def lines(made, panel=0):
    return {series.label: series for series in made.panels[panel].series}


def test_learning_curves_are_means_as_far_as_all_seeds_go(tmp_path) -> None:
    scored = [*seeds([0.1, 0.2], "sl"), (popularity(), {"Recall@20": 0.1})]
    first, second, _ = ids(scored)
    points = {
        first: [(0, 1.0, 0.1, 0.05, 2.0), (1, 0.5, 0.3, 0.1, 4.0), (2, 0.4, 0.2, 0.1, 6.0)],
        second: [(0, 1.0, 0.2, 0.15, 4.0), (1, 0.5, 0.3, 0.3, 8.0)],
    }
    write(tmp_path, scored, curves=points)
    results = Results.load(tmp_path, "trial")
    line = lines(chart(results, "epochs"))["sl"]
    assert (line.x, line.y) == ([1, 2], pytest.approx([0.15, 0.3]))
    assert line.best == 1 and [len(x) for x, _ in line.each] == [3, 2]
    line = lines(chart(results, "seconds", "NDCG@20"))["sl"]
    assert (line.x, line.y) == ([3.0, 6.0], pytest.approx([0.1, 0.2]))
    with pytest.raises(Nothing, match="kept of Recall@20 and NDCG@20, not of Recall@5"):
        chart(results, "epochs", "Recall@5")


def test_the_spread_of_scores_by_epoch(tmp_path) -> None:
    scored = seeds([0.1, 0.2, 0.3], "sl") + seeds([0.1], "mse")
    write(tmp_path, scored)
    results = Results.load(tmp_path, "trial")
    with pytest.raises(Nothing, match="has the spread of its scores"):
        chart(results, "variance")
    for run_id, gap in zip(ids(scored), (1.0, 2.0, 0.0, 1.0), strict=True):  # of no gap no ratio
        folder = tmp_path / "runs" / run_id
        folder.mkdir(parents=True)
        rows = ["epoch,seconds,neg_var,gap", f"3,1.0,0.4,{gap}", f"7,2.0,0.8,{gap}"]
        (folder / "curve.csv").write_text("\n".join(rows) + "\n")
    drawn = lines(chart(results, "variance"))
    assert (drawn["sl"].x, drawn["sl"].y) == ([4, 8], pytest.approx([0.25, 0.5]))
    assert (len(drawn["sl"].each), drawn["sl"].best) == (2, None)
    assert drawn["mse"].y == pytest.approx([0.4, 0.8])


def test_the_worst_case_looks_at_more_items_as_the_temperature_rises(tmp_path) -> None:
    scored = seeds([0.1, 0.2], "sl", score_train="cosine")
    write(tmp_path, scored)
    results = Results.load(tmp_path, "trial")
    with pytest.raises(Nothing, match="train with --save-model"):
        chart(results, "theory")
    rng = np.random.default_rng(0)
    tables = {name: rng.normal(size=(200, 8)).astype(np.float32) for name in ("users", "items")}
    folder = tmp_path / "runs" / ids(scored)[1]
    folder.mkdir(parents=True)
    save_file(tables, folder / "model.safetensors")
    line = lines(chart(results, "theory"))["sl"]
    assert (np.diff(line.y) > 0).all() and 0 < line.y[0] < 0.1 < 0.8 < line.y[-1] < 1
    scores = cosines(folder / "model.safetensors")
    shares = softmax(scores / line.x[5], axis=1)
    assert line.y[5] == pytest.approx((1 / np.square(shares).sum(1)).mean() / 200)


def test_one_setting_stands_for_a_loss_and_never_test_picks_it(tmp_path) -> None:
    scored = seeds([0.5], "sl", tau=0.1) + seeds([0.4], "sl", tau=0.2)
    better_on_test, better_on_valid = ids(scored)
    points = {run_id: [(0, 1.0, n, n, 1.0)] for n, run_id in enumerate(ids(scored), 1)}
    valid = {better_on_test: 0.1, better_on_valid: 0.2}
    write(tmp_path, scored, valid=valid, curves=points)
    made = chart(Results.load(tmp_path, "trial"), "epochs")
    assert lines(made)["sl"].y == [2.0]
    assert (
        "of each loss the settings best on the selection split, 1 others left out" in made.caption
    )


def test_settings_of_fewer_seeds_stand_for_nothing(tmp_path) -> None:
    looked_at, meant = seeds([0.5], "sl", tau=0.1), seeds([0.4, 0.4], "sl", tau=0.2)
    valid = dict.fromkeys(ids(looked_at), 0.9) | dict.fromkeys(ids(meant), 0.1)
    write(tmp_path, looked_at + meant, valid=valid)
    [runs] = chosen(Results.load(tmp_path, "trial")).values()
    assert [run.id for run in runs] == ids(meant)


def test_a_damaged_run_costs_the_figures_that_need_it(tmp_path) -> None:
    scored = seeds(
        [0.1, 0.2],
        "sl",
        score_train="cosine",
        score_test="cosine",
        fingerprint=tiny().fingerprint,
    )
    write(tmp_path, scored)
    folder = tmp_path / "runs" / ids(scored)[0]
    folder.mkdir(parents=True)
    (folder / "model.safetensors").write_bytes(b"spoiled")
    charts, reasons = available(Results.load(tmp_path, "trial"), load=lambda name: tiny())
    assert [one.name for one in charts] == ["groups"]
    assert "model.safetensors" in reasons["theory"]


def test_a_sweep_marks_the_best_on_valid(tmp_path) -> None:
    scored, valid = [], {}
    for tau, test, on_valid in [(0.05, 0.3, 0.1), (0.1, 0.2, 0.3), (0.2, 0.1, 0.2)]:
        made = seeds([test, test + 0.02], "sl", tau=tau)
        valid |= dict.fromkeys(ids(made), on_valid)
        scored += made
    write(tmp_path, scored + seeds([0.1], "mse"), valid=valid)
    made = chart(Results.load(tmp_path, "trial"), "tau")
    line = lines(made)["sl"]
    assert (list(line.x), line.y) == ([0.05, 0.1, 0.2], pytest.approx([0.31, 0.21, 0.11]))
    assert line.error == pytest.approx([12.7062 * 0.01] * 3)  # t of one degree of freedom
    assert (line.best, line.note, made.x_scale) == (1, "0.1", "log")


def test_other_settings_of_a_sweep_are_picked_point_by_point(tmp_path) -> None:
    scored, valid = [], {}
    for (tau, lr), on_valid in zip(
        itertools.product([0.1, 0.15, 0.2], [1e-3, 1e-2]), [1, 2, 4, 3, 5, 6], strict=True
    ):
        made = seeds([on_valid / 100], "sl", tau=tau, lr=lr)
        valid |= dict.fromkeys(ids(made), on_valid / 10)
        scored += made
    write(tmp_path, scored, valid=valid)
    made = chart(Results.load(tmp_path, "trial"), "tau")
    assert lines(made)["sl"].y == pytest.approx([0.02, 0.04, 0.06])
    assert "which also picked the other settings at each point" in made.caption
    assert made.x_scale == "linear"


def test_references_with_the_setting_stand_beside_every_backbone(tmp_path) -> None:
    scored = [
        row
        for dim in (32, 64, 128)
        for backbone, loss in (("reference", "ials"), ("mf", "sl"), ("lightgcn", "sl"))
        for row in seeds([dim / 1000], loss, backbone=backbone, dim=dim)
    ]
    write(tmp_path / "both", [*scored, (popularity(), {"Recall@20": 0.1})])
    made = chart(Results.load(tmp_path / "both", "trial"), "dim")
    assert [panel.title for panel in made.panels] == ["mf", "lightgcn"]
    assert [list(lines(made, panel)) for panel in (0, 1)] == [["sl", "ials"]] * 2
    assert lines(made)["ials"].y == [0.032, 0.064, 0.128]
    assert made.labels == ("sl", "ials")
    alone = [row for row in scored if row[0]["backbone"] == "reference"]
    write(tmp_path / "alone", alone + seeds([0.1], "sl", dim=64))
    [panel] = chart(Results.load(tmp_path / "alone", "trial"), "dim").panels
    assert (panel.title, [series.label for series in panel.series]) == ("reference", ["ials"])


def test_no_curve_through_two_points(tmp_path) -> None:
    write(tmp_path, seeds([0.1], "sl", tau=0.1) + seeds([0.2], "sl", tau=0.2))
    results = Results.load(tmp_path, "trial")
    with pytest.raises(Nothing, match="no loss has finished runs at 3 values of tau"):
        chart(results, "tau")
    with pytest.raises(ConfigError, match="no figure named 'epoch'; did you mean 'epochs'"):
        chart(results, "epoch")


def test_robustness_starts_every_line_at_the_clean_run(tmp_path) -> None:
    scored = seeds([0.4, 0.2], "sl", noise_pos=0.0, noise_neg=1.0)
    scored += seeds([0.15], "sl", noise_pos=0.2, noise_neg=1.0)
    scored += seeds([0.1], "sl", noise_pos=0.2, noise_neg=1.0, noise_kind="popular")
    scored += seeds([0.2], "sl", noise_pos=0.0, noise_neg=5.0)
    scored += seeds([0.05], "sl", noise_pos=0.2, noise_neg=5.0)
    scored += [(popularity(), {"Recall@20": 0.1})]
    write(tmp_path, scored)
    results = Results.load(tmp_path, "trial")
    found = {
        (panel.title, panel.x_label.split()[0]): panel.series[0]
        for panel in chart(results, "robustness").panels
    }
    points = {key: (list(s.x), [round(y, 3) for y in s.y]) for key, s in found.items()}
    assert points == {
        ("mf", "false"): ([0.0, 0.2], [0.3, 0.15]),
        ("mf, popular", "false"): ([0.0, 0.2], [0.3, 0.1]),
        ("mf, neg=5", "false"): ([0.0, 0.2], [0.2, 0.05]),
        ("mf", "weight"): ([1.0, 5.0], [0.3, 0.2]),
        ("mf, pos=0.2", "weight"): ([1.0, 5.0], [0.15, 0.05]),
    }
    relative = chart(results, "robustness-relative").panels[0].series[0]
    assert relative.y == pytest.approx([1.0, 0.5])


def test_hidden_positives_are_compared_with_their_own_twin(tmp_path) -> None:
    scored = seeds([0.4], "sl") + seeds([0.3], "sl", noise_fneg=0.0, noise_hidden=True)
    scored += seeds([0.2], "sl", noise_fneg=0.5, noise_hidden=True)
    write(tmp_path, scored)
    [panel] = chart(Results.load(tmp_path, "trial"), "robustness").panels
    assert [list(series.y) for series in panel.series] == [pytest.approx([0.3, 0.2])]


def test_groups_in_their_order_with_deviations(tmp_path) -> None:
    scored = seeds([0.1, 0.1], "sl")
    first, second = ids(scored)
    groups = {first: {"10": 0.5, "2": 0.1, "1": 0.3}, second: {"10": 0.7, "2": 0.1, "1": 0.1}}
    write(tmp_path, scored, groups=groups)
    made = chart(Results.load(tmp_path, "trial"), "groups")
    assert list(made.x_names) == ["1", "2", "10"]
    bars = lines(made)["sl"]
    assert bars.y == pytest.approx([0.2, 0.1, 0.6])
    assert bars.error == pytest.approx([12.7062 * 0.1, 0, 12.7062 * 0.1])


def test_expected_best_agrees_with_enumeration() -> None:
    values = [0.3, 0.1, 0.2, 0.2, 0.5]
    for n, expected in enumerate(expected_best(values), 1):
        every = [max(drawn) for drawn in itertools.combinations(values, n)]
        assert expected == pytest.approx(sum(every) / len(every))


def test_best_of_counts_every_trial(tmp_path) -> None:
    write(tmp_path, seeds([0.1], "sl"))
    results = Results.load(tmp_path, "trial")
    with pytest.raises(Nothing, match=r"no .*trials\.csv: tuning makes it"):
        best_of(results, "Recall@20", "trials")
    (tmp_path / "trial" / "trials.csv").write_text(
        "loss,trial,state,score,seconds\nsl,0,complete,0.2,10\nsl,1,failed,,20\n"
        "sl,2,pruned,0.1,30\nmse,0,failed,,5\n"
    )
    line = lines(best_of(results, "Recall@20", "trials"))["sl"]
    assert (line.x, line.y) == ([1, 2, 3], pytest.approx(expected_best([0.2, 0.1, 0.1])))
    assert lines(best_of(results, "Recall@20", "seconds"))["sl"].x == [20, 40, 60]


def test_scores_of_pairs_against_plain_loops(tmp_path) -> None:
    data = hold_out(tiny(), "valid")
    rng = np.random.default_rng(0)
    users = rng.standard_normal((data.n_users, 5)).astype(np.float32)
    items = rng.standard_normal((data.n_items, 5)).astype(np.float32)
    save_file({"users": users, "items": items}, tmp_path / "m")

    def cosine(u: int, i: int) -> float:
        return users[u] @ items[i] / (np.linalg.norm(users[u]) * np.linalg.norm(items[i]))

    found = score_pairs(data, tmp_path / "m", "cosine")
    for kind, split in [("train pairs", data.train), ("test pairs", data.test)]:
        expected = sorted(cosine(u, i) for u, i in zip(*split.nonzero(), strict=True))
        assert np.sort(found[kind]) == pytest.approx(expected, abs=1e-6)
    known = set(zip(*(data.train + data.valid + data.test).nonzero(), strict=True))
    pairs = itertools.product(range(data.n_users), range(data.n_items))
    allowed = np.sort([cosine(u, i) for u, i in pairs if (u, i) not in known])
    place = np.clip(np.searchsorted(allowed, found["other pairs"]), 1, len(allowed) - 1)
    gaps = np.minimum(
        abs(allowed[place] - found["other pairs"]), abs(allowed[place - 1] - found["other pairs"])
    )
    assert gaps.max() < 1e-6 and len(found["other pairs"]) > 40_000
    inner = score_pairs(data, tmp_path / "m", "inner")["test pairs"]
    expected = sorted(users[u] @ items[i] for u, i in zip(*data.test.nonzero(), strict=True))
    assert np.sort(inner) == pytest.approx(expected, abs=1e-5)


def test_score_distributions_of_the_runs_with_a_model(tmp_path) -> None:
    made_on = {"dataset": "tiny", "score_test": "inner", "fingerprint": tiny().fingerprint}
    scored = seeds([0.1, 0.2], "sl", **made_on)
    write(tmp_path, scored)
    results = Results.load(tmp_path, "trial")
    with pytest.raises(Nothing, match="train with --save-model"):
        chart(results, "scores", load=lambda name: tiny())
    folder = tmp_path / "runs" / ids(scored)[1]
    folder.mkdir(parents=True)
    tables = {"users": np.ones((30, 2), np.float32), "items": np.ones((90, 2), np.float32)}
    save_file(tables, folder / "model.safetensors")
    made = chart(results, "scores", load=lambda name: tiny())
    assert list(lines(made)) == ["train pairs", "test pairs", "other pairs"]
    other = replace(tiny(), fingerprint="other")
    with pytest.raises(Nothing, match="tiny is no longer the data that"):
        chart(results, "scores", load=lambda name: other)

    def unknown(name: str) -> Interactions:
        raise ConfigError(f"no dataset named '{name}'")

    _, reasons = available(results, load=unknown)
    assert reasons["scores"] == "no dataset named 'tiny'"


def test_what_a_grid_has_and_why_not_the_rest(tmp_path) -> None:
    scored = [row for tau in (0.1, 0.2, 0.3) for row in seeds([tau], "sl", tau=tau)]
    write(tmp_path, scored)
    charts, reasons = available(Results.load(tmp_path, "trial"))
    assert [one.name for one in charts] == ["groups", "tau"]
    assert reasons["epochs"] == "no finished run has a learning curve"
    assert set(reasons) == {
        *("epochs", "seconds", "robustness", "robustness-relative", "scores"),
        *("variance", "contrasts", "theory"),
        *("best-of-trials", "best-of-seconds"),
    }


def sample(kind: str, x_scale: str = "linear") -> Chart:
    rng = random.Random(0)
    series = [
        Series(f"loss{n} $a_b$", [1, 2, 4], y, error=[0.1, math.nan, 0.1], best=1, note="2")
        for n, y in enumerate([[rng.random() for _ in range(3)] for _ in range(3)])
    ]
    panels = [Panel(f"panel {n}", series) for n in range(2)]
    return Chart("sample", "x", "y", panels, kind, x_scale, x_names=["a", "b", "c", "d", "e"])


@pytest.mark.parametrize(
    ("kind", "x_scale"), [("lines", "log"), ("curves", "linear"), ("bars", "names")]
)
def test_every_kind_is_drawn_the_same_each_time(kind: str, x_scale: str) -> None:
    made = sample(kind, x_scale)
    drawn = draw.draw(made)
    assert [axes.get_title() for axes in drawn.axes] == ["panel 0", "panel 1"]
    assert [text.get_text() for text in drawn.legends[0].get_texts()] == list(made.labels)
    assert [axes.get_ylabel() for axes in drawn.axes] == ["y", ""]
    assert [axes.get_xlabel() for axes in drawn.axes] == ["x", "x"]
    if x_scale == "log":
        assert [t.get_text() for t in drawn.axes[0].get_xticklabels()] == ["1", "2", "4"]
        assert [note.get_text() for note in drawn.axes[0].texts] == ["2"]  # one, not three
    assert draw.image(drawn, "svg") == draw.image(draw.draw(made), "svg")


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [(0.5, 1700, ["1", "10", "100", "1000"]), (0.02, 0.09, ["0.02", "0.05"])],
)
def test_a_logarithmic_axis_of_many_values_names_round_ones(
    low: float, high: float, expected: list[str]
) -> None:
    values = np.linspace(low, high, 200).tolist()
    many = Chart("race", "s", "y", [Panel("", [Series("a", values, values)])], "curves", "log")
    figure = draw.draw(many)
    draw.image(figure, "svg")  # the labels are written as it is drawn
    first, last = figure.axes[0].get_xlim()
    labels = figure.axes[0].get_xticklabels()
    assert [t.get_text() for t in labels if first <= t.get_position()[0] <= last] == expected


def test_lines_differ_without_colour() -> None:
    shades = [np.dot(to_rgb(colour), (0.2126, 0.7152, 0.0722)) for colour in draw.COLOURS]
    looks = list(zip(draw.MARKERS, map(str, draw.DASHES * 2), strict=False))
    assert len(set(looks)) == len(draw.COLOURS) == len(set(draw.MARKERS))
    for others in (draw.DASHES, draw.HATCHES):  # 30 labels: more than there are losses in a table
        cycles = [(n % len(draw.COLOURS), n % len(others)) for n in range(30)]
        assert len(set(cycles)) == len(cycles)
    assert all(abs(a - b) > 0.1 for a, b in itertools.pairwise(shades[:6]))


def test_files(tmp_path) -> None:
    paths = save_all([sample("lines")], tmp_path / "new" / "folder")
    assert [path.name for path in paths] == ["sample.pdf", "sample.svg", "sample.png"]
    starts = [path.read_bytes()[:5] for path in paths]
    assert starts == [b"%PDF-", b"<?xml", b"\x89PNG\r"]
    with pytest.raises(ConfigError, match=r"a figure is written as \.pdf, \.svg, \.png"):
        draw.save(sample("lines"), tmp_path / "a.jpg")


def test_unfinished_runs_are_left_out(tmp_path) -> None:
    write(tmp_path, [], unfinished=[cell("sl", tau=0.1)])
    charts, reasons = available(Results.load(tmp_path, "trial"))
    assert not charts and "epochs" in reasons
