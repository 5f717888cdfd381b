"""The gate: what is worse, what cannot be told, what it can find, and what it says."""

import inspect
import math
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from benchmarks.check_power import alarms, typical
from bslbench import cli, cli_check
from bslbench.engine.grid import expand, find_grid
from bslbench.errors import CannotTell, ConfigError, DataError
from bslbench.evaluation.statistics import SMALLEST_EFFECT
from bslbench.report.baseline import BASELINE_SEEDS, Baseline, baseline_of, config_of
from bslbench.report.check import RUN_SEEDS, Finding, check, drop_p, exit_code, findable_drop
from bslbench.report.check_table import annotations
from bslbench.report.results import Results
from tests.stores import cell, write

FILE = Path("base.toml")
SPREAD = np.array([-3, -1, 0, 1, 3])  # sd 2.236


def values(mean, sd, n):
    """Return n values of exactly this mean and sample deviation."""
    made = np.resize(SPREAD, n) + np.arange(n) / 100
    return list(mean + sd * (made - made.mean()) / made.std(ddof=1))


def store(results, *, grid="trial", unfinished=(), protocol=1, fingerprint="f" * 64, **groups):
    """Write a grid in which each loss has these values, seed by seed, or (values, fields)."""
    common = {"protocol": protocol, "fingerprint": fingerprint}
    scored = []
    for loss, given in groups.items():
        found, fields = given if isinstance(given, tuple) else (given, {})
        for seed, value in enumerate(found):
            scored.append((cell(loss, seed, **common, **fields), {"Recall@20": value}))
    lost = [cell(loss, seed, **common) for loss, seed in unfinished]
    write(results, scored, grid=grid, unfinished=lost)
    return Results.load(results, grid)


@pytest.fixture
def base(tmp_path):
    """A baseline of two losses, ten seeds each, with a deviation of 1 %."""
    loaded = store(tmp_path, grid="base", sl=values(0.2, 0.002, 10), bpr=values(0.1, 0.001, 10))
    made = baseline_of(loaded, "Recall@20")
    (tmp_path / "base.toml").write_text(made.toml())
    return Baseline.read(tmp_path / "base.toml")


def states(findings):
    return {finding.group.loss: finding.state for finding in findings}


def test_a_baseline_file_reads_back_as_it_was(base, tmp_path):
    assert [group.loss for group in base.group] == ["sl", "bpr"]
    assert base.group[0].values == values(0.2, 0.002, 10) and base.group[0].seeds == list(range(10))
    assert Baseline.read(tmp_path / "base.toml").toml() == base.toml()


def test_kinds_of_noise_are_groups_of_their_own(tmp_path):
    noisy = {"noise_pos": 0.2, "noise_neg": 1.0, "noise_fneg": 0.0}
    common = {"protocol": 1, "fingerprint": "f" * 64}
    scored = []
    kinds = {0.2: {}, 0.1: {"noise_kind": "popular"}, 0.15: {"valid_noise": "same"}}
    for mean, kind in kinds.items():
        for seed, value in enumerate(values(mean, 0.001, 10)):
            scored.append((cell("sl", seed, **common, **kind, **noisy), {"Recall@20": value}))
    for order in (scored, scored[::-1]):
        write(tmp_path / str(order is scored), order)
        loaded = Results.load(tmp_path / str(order is scored), "trial")
        found = check(loaded, baseline_of(loaded, "Recall@20"), FILE)
        assert [f.state for f in found] == ["fine"] * 3 and {f.change for f in found} == {0}


def test_an_equal_run_is_fine_and_a_lower_one_is_worse(base, tmp_path):
    same = store(tmp_path, grid="same", sl=values(0.2, 0.002, 5), bpr=values(0.1, 0.001, 5))
    found = check(same, base, FILE)
    assert states(found) == {"sl": "fine", "bpr": "fine"} and exit_code(found) == 0
    assert all(abs(f.change) < 1e-12 and f.p > 0.4 for f in found)
    low = store(tmp_path, grid="low", sl=values(0.19, 0.002, 5), bpr=values(0.1, 0.001, 5))
    found = check(low, base, FILE)
    assert states(found) == {"sl": "worse", "bpr": "fine"} and exit_code(found) == 3
    assert found[0].change == pytest.approx(-0.05)
    high = store(tmp_path, grid="high", sl=values(0.3, 0.002, 5), bpr=values(0.2, 0.001, 5))
    assert exit_code(check(high, base, FILE)) == 0


def test_it_takes_both_the_tolerance_and_the_test(base, tmp_path):
    # Significant, but within the tolerance; then beyond it, but well within what seeds do.
    small = store(tmp_path, grid="a", sl=values(0.196, 0.002, 5), bpr=values(0.1, 0.001, 5))
    assert states(check(small, base, FILE, 0.015))["sl"] == "worse"
    assert states(check(small, base, FILE, 0.025))["sl"] == "fine"
    noisy = store(tmp_path, grid="b", sl=values(0.1986, 0.002, 5), bpr=values(0.1, 0.001, 5))
    [sl, _] = check(noisy, base, FILE)
    assert sl.change < -SMALLEST_EFFECT and sl.p > 0.025 and sl.state == "fine"


def test_p_is_a_t_test_with_the_spread_of_the_baseline():
    base, now = values(0.2, 0.002, 10), values(0.198, 0.02, 5)
    t = (0.2 - 0.198) / (0.002 * math.sqrt(1 / 10 + 1 / 5))
    assert drop_p(base, now) == pytest.approx(stats.t.sf(t, 9))


def test_a_seed_that_collapses_cannot_hide_behind_its_own_spread(base, tmp_path):
    run = [0.2, 0.2, 0.2, 0.2, 0.1]
    assert stats.ttest_ind(run, base.group[0].values, alternative="less").pvalue > 0.025
    found = check(store(tmp_path, grid="a", sl=run, bpr=values(0.1, 0.001, 5)), base, FILE)
    assert states(found)["sl"] == "worse"


def test_without_chance_any_drop_beyond_the_tolerance_is_one():
    assert drop_p([0.2] * 10, [0.19] * 5) == 0
    assert drop_p([0.2] * 10, [0.2] * 5) == drop_p([0.2] * 10, [0.21] * 5) == 1


def test_p_is_adjusted_for_the_number_of_groups(base, tmp_path):
    run = store(tmp_path, grid="a", sl=values(0.1972, 0.002, 5), bpr=values(0.1, 0.001, 5))
    one = drop_p(base.group[0].values, values(0.1972, 0.002, 5))
    [sl, _] = check(run, base, FILE)
    assert sl.p == pytest.approx(2 * one) and one < 0.025 < 2 * one and sl.state == "fine"


def test_too_few_seeds_and_lost_groups_cannot_be_told(base, tmp_path):
    lost = [("bpr", 4)]
    run = store(
        tmp_path,
        grid="a",
        sl=values(0.2, 0.002, 5),
        bpr=values(0.1, 0.001, 4),
        mse=[0.3],
        unfinished=lost,
    )
    found = check(run, base, FILE)
    assert states(found) == {"sl": "fine", "bpr": "cannot tell", "mse": "new"}
    assert found[1].note == "4 seeds finished, it takes 5" and exit_code(found) == 4
    gone = check(store(tmp_path, grid="b", sl=values(0.1, 0.002, 5)), base, FILE)
    assert gone[1].note == "not in the results"
    assert exit_code(gone) == 3  # a regression is told, whatever else cannot be
    few = base.model_copy(update={"group": [base.group[0].model_copy(update=cut(9))]})
    [sl, _] = check(run, few, FILE)[:2]
    assert (sl.state, sl.note) == ("cannot tell", "9 seeds in the baseline, it takes 10")


def cut(n):
    return {"seeds": list(range(n)), "values": values(0.2, 0.002, n)}


def test_changed_settings_are_compared_and_noted(tmp_path):
    made = baseline_of(store(tmp_path, sl=(values(0.2, 0.002, 10), {"dim": 64})), "Recall@20")
    run = (values(0.2, 0.002, 5), {"dim": 32, "invented_since": True})
    [sl] = check(store(tmp_path, grid="a", sl=run), made, FILE)
    assert (sl.state, sl.note) == ("fine", "settings have changed: dim 64 -> 32")


def test_a_group_is_known_by_its_settings_whatever_it_is_called(tmp_path):
    one = store(tmp_path, grid="one", sl=(values(0.2, 0.002, 10), {"tau": 0.1}))
    made = baseline_of(one, "Recall@20")
    scored = []
    for tau, mean in ((0.2, 0.1), (0.1, 0.2)):
        for seed, value in enumerate(values(mean, 0.002, 5)):
            fields = {"protocol": 1, "fingerprint": "f" * 64, "tau": tau}
            scored.append((cell("sl", seed, **fields), {"Recall@20": value}))
    write(tmp_path, scored, grid="two")
    found = check(Results.load(tmp_path, "two"), made, FILE)
    assert [(f.state, f.group.settings, f.note) for f in found] == [
        ("fine", "", ""),
        ("new", "tau=0.2", "not in the baseline"),
    ]


def test_another_protocol_or_other_data_are_refused(base, tmp_path):
    run = store(tmp_path, grid="a", protocol=2, sl=values(0.2, 0.002, 5))
    with pytest.raises(
        DataError, match=r"base\.toml: of protocol 1, the results of protocol 2; wr"
    ):
        check(run, base, FILE)
    run = store(tmp_path, grid="b", fingerprint="e" * 64, sl=values(0.2, 0.002, 5))
    with pytest.raises(
        DataError, match=r"base\.toml: yelp2018 had the fingerprint ffffffffffff, n"
    ):
        check(run, base, FILE)


def test_a_baseline_takes_ten_seeds(tmp_path):
    with pytest.raises(
        CannotTell, match="mf sl on yelp2018 has 9 seeds; a baseline takes at least"
    ):
        baseline_of(store(tmp_path, sl=values(0.2, 0.002, 9)), "Recall@20")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("protocol = 1", ""), "protocol: Field required"),
        (("seeds = [0,", "seeds = [1,"), "seeds must be different ones, and as many as values"),
        (("protocol = 1", "protocol = 1\nspeed = 2"), "unknown key 'speed'"),
        (("Recall@20", "Recal@20"), "no metric named 'Recal'; did you mean 'Recall'?"),
        (("[[group]]", "[[group]"), "not valid TOML"),
    ],
)
def test_a_damaged_file_is_an_error_that_names_it(base, tmp_path, change, message):
    path = tmp_path / "base.toml"
    path.write_text(path.read_text().replace(*change))
    with pytest.raises(ConfigError, match=r"base\.toml") as error:
        Baseline.read(path)
    assert message in str(error.value)


@pytest.mark.parametrize(("sd", "n_groups"), [(0.015, 1), (0.01, 3), (0.005, 1)])
def test_the_drop_that_it_says_it_finds_is_found_nine_times_in_ten(sd, n_groups):
    least = findable_drop(typical(sd), 5, n_groups)
    found = alarms(400, sd, least, n_groups=n_groups) / 400
    assert found == pytest.approx(0.9, abs=0.05)


def test_clean_runs_alarm_seldom_and_a_drop_of_three_percent_is_found():
    assert alarms(200, 0.01) <= 10 and alarms(200, 0.01, n_groups=4) <= 10
    assert alarms(200, 0.01, 0.03) >= 180
    assert findable_drop(typical(0.015), 5) <= 0.03  # nine times in ten, at the largest spread


def test_annotations_are_lines_that_github_reads(base, tmp_path):
    run = store(tmp_path, grid="a", sl=values(0.19, 0.002, 5))
    text = annotations(check(run, base, FILE), base)
    error, warning, notice = text.splitlines()
    assert error.startswith(
        "::error title=bslbench check::mf sl on yelp2018: Recall@20 0.2000 -> 0.1900 (-5.00%25, p "
    )
    assert warning == "::warning title=bslbench check::mf bpr on yelp2018: not in the results"
    assert notice.endswith("2 groups: 1 worse, 1 cannot be told (exit code 3)")
    broken = Finding(base.group[0], "cannot tell", "50 %\nlost")
    assert "50 %25%0Alost" in annotations([broken], base)


@pytest.fixture
def command(tmp_path, monkeypatch, capsys):
    """Run `bslbench check` in the folder of the results; return exit code, output and errors."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments):
        monkeypatch.setattr("sys.argv", ["bslbench", "check", "--results", ".", *arguments])
        code = 0
        try:
            cli.main()
        except SystemExit as stop:
            code = int(stop.code or 0)
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run


def test_the_command_from_baseline_to_exit_code(command, tmp_path):
    store(tmp_path, grid="good", sl=values(0.2, 0.002, 10))
    store(tmp_path, grid="bad", sl=values(0.18, 0.002, 5))
    store(tmp_path, grid="few", sl=values(0.2, 0.002, 3))
    baseline = ["--baseline", "kept.toml"]
    code, out, _ = command(*baseline, "--grid", "good", "--update")
    assert (code, out) == (0, "kept.toml: 1 groups of good by Recall@20\n")
    code, out, _ = command(*baseline, "--grid", "good")
    assert code == 0 and "1 groups: 1 fine (exit code 0)" in out and "finds drops of" in out
    code, out, _ = command(*baseline, "--grid", "bad", "--format", "markdown")
    assert code == 3 and "| worse" in out and "-10.00%" in out
    assert command(*baseline, "--grid", "bad", "--tolerance", "0.2")[0] == 0
    code, out, _ = command(*baseline, "--grid", "few", "--format", "github")
    assert code == 4 and "3 seeds finished, it takes 5" in out
    code, _, err = command(*baseline, "--grid", "bad", "--update")
    assert code == 4 and err.startswith("error: mf sl on yelp2018 has 5 seeds") and "\n" in err
    assert Baseline.read(tmp_path / "kept.toml").group[0].values[0] > 0.19  # left as it was
    code, _, err = command("--baseline", "gone.toml", "--grid", "good")
    assert (code, err) == (
        2,
        "error: gone.toml: no such file; bslbench check --update makes it\n",
    )


def test_the_default_tolerance_is_the_smallest_effect_of_interest():
    assert inspect.signature(cli_check.check).parameters["tolerance"].default == SMALLEST_EFFECT


def test_the_committed_baseline_is_one_of_the_grid_gate(tmp_path):
    base = Baseline.read(Path(__file__).parents[1] / "benchmarks" / "gate.toml")
    cells = expand(find_grid("gate"), tmp_path)
    for group in base.group:
        alike = [cell for cell in cells if cell.loss == group.loss]
        assert len(alike) >= RUN_SEEDS and len(group.seeds) >= BASELINE_SEEDS
        assert {(c.dataset, c.fingerprint, c.protocol) for c in alike} == {
            (group.dataset, group.fingerprint, base.protocol)
        }
        config = config_of(alike[0].flat())
        assert group.changes(group.model_copy(update={"config": config})) == []
    assert {cell.loss for cell in cells} == {group.loss for group in base.group}
