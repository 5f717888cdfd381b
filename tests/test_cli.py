"""The command line as a user meets it: exit codes, one-line errors, tables, no heavy import."""

import csv
import re
import subprocess
import sys
from pathlib import Path

import pytest

from bslbench import cli
from bslbench.config import TrainSettings
from bslbench.losses import LOSSES

SMALL = "synthetic?users=200&items=120&interactions=4000"
TRAIN = ["train", "--dataset", SMALL, "--set", "epochs=2", "--set", "n_negatives=20"]


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys; sys.argv = ['bslbench', 'train', '--help']\n"
        "from bslbench import cli\n"
        "try:\n    cli.main()\nexcept SystemExit:\n    pass\n"
        "heavy = {'torch', 'pandas', 'numba', 'numpy', 'scipy'}\n"
        "sys.exit(', '.join(heavy & set(sys.modules)) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "--save-model" in done.stdout


def test_the_way_from_grid_to_table(bslbench) -> None:
    code, out, err = bslbench(*TRAIN, "--loss", "sl", "--set", "tau=0.08,0.11", "--seeds", "2")
    assert code == 0, err
    assert "4 cells: 4 trained, 0 already done, 0 failed" in out
    code, out, _ = bslbench("report")
    assert code == 0
    assert "tau=0.08" in out and "tau=0.11" in out and "valid" in out
    code, out, _ = bslbench(*TRAIN, "--loss", "sl", "--set", "tau=0.08", "--name", "other")
    assert "1 cells: 0 trained, 1 already done" in out
    code, out, _ = bslbench("report", "--grid", "adhoc", "--format", "markdown")
    assert code == 0 and "\n| backbone" in out


def test_profile_accounts_for_the_time(bslbench) -> None:
    code, out, err = bslbench(*TRAIN, "--loss", "sl", "--profile")
    assert code == 0, err
    names, _, row = (line.split() for line in out.splitlines()[:3])
    values = dict(zip(names[2:], map(float, row[2:]), strict=False))
    assert values["total"] > 0
    assert sum(values[name] for name in names[2:-2]) == pytest.approx(values["total"], abs=0.05)


def test_bsl_that_pools_nothing_is_said_to_be_another_loss(bslbench) -> None:
    for positives, said in (("1", True), ("4", False)):
        code, _, err = bslbench(*TRAIN, "--loss", "bsl", "--set", f"n_pos={positives}", "--dry-run")
        assert code == 0 and ("it is bsl_reweight, and sl where rho is 1" in err) is said


def test_a_grid_in_parts(bslbench, tmp_path: Path) -> None:
    asked = [*TRAIN, "--loss", "sl", "--seeds", "3"]
    code, out, _ = bslbench(*asked, "--dry-run")
    assert code == 0 and "3 cells: 3 missing; 3 to do, at most about" in out
    assert not (tmp_path / "results").exists()
    code, out, _ = bslbench(*asked, "--shard", "2/2")
    assert code == 0 and "1 cells: 1 trained" in out
    code, out, _ = bslbench("status")
    assert code == 0 and out.startswith("adhoc: 3 cells: 1 done, 2 missing, about ")
    code, out, _ = bslbench(*asked, "--limit", "1", "--only", "missing")
    assert code == 0 and "3 cells: 1 trained, 1 already done, 0 failed, 1 left; next:" in out
    code, out, _ = bslbench(*asked, "--jobs", "2", "--threads", "1")
    assert code == 0 and "3 cells: 1 trained, 2 already done, 0 failed" in out


def test_what_is_set_for_one_loss_stands_over_what_is_set_for_all(bslbench, tmp_path: Path) -> None:
    one = ["--set", "bpr.n_negatives=1,2", "--set", "n_negatives=30", "--set", "sl.tau=0.3"]
    code, _, err = bslbench(*TRAIN, "--loss", "sl", "--loss", "bpr", *one)
    assert code == 0, err
    with (tmp_path / "results/adhoc/runs.csv").open(newline="") as file:
        rows = [(row["loss"], row["n_negatives"], row["tau"]) for row in csv.DictReader(file)]
    assert rows == [("bpr", "1", ""), ("bpr", "2", ""), ("sl", "30", "0.3")]


def test_any_cutoff_without_the_model(bslbench, tmp_path: Path) -> None:
    bslbench(*TRAIN, "--loss", "sl")
    [folder] = (tmp_path / "results" / "runs").iterdir()
    code, out, _ = bslbench("eval", folder.name[:10], "--k", "1,3,100", "--metric", "Recall")
    assert code == 0 and re.search(r"Recall +0\.\d+ +0\.\d+ +0\.\d+", out)
    code, _, err = bslbench("eval", folder.name, "--k", "101")
    assert code == 2 and "1" in err and "100" in err
    code, _, err = bslbench("eval", "nothing")
    assert code == 2 and "'nothing' is no finished run in" in err
    code, _, err = bslbench("eval", folder.name, "--k", "one")
    assert code == 2 and "'one' is not a whole number" in err
    code, _, err = bslbench("eval", folder.name, "--selection", "test")
    assert code == 2 and "a run is what it is" in err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["train", "--loss", "sll"], "error: no loss named 'sll'; did you mean 'sl'?"),
        (["train", "--loss", "sl", "--set", "taw=1"], "has a 'taw'; did you mean 'tau'?"),
        (["train", "--loss", "sl", "--set", "lr=inf"], "set.lr: Input should be a finite number"),
        (["train", "--loss", "sl", "--set", "epochs=true"], "epochs: true is neither a number"),
        (["train", "--loss", "sl", "--set", "tau"], "--set tau: write KEY=VALUE"),
        (["train", "--loss", "sl", "--set", "bpr.lr=1"], "--set bpr.lr: no loss 'bpr' in the grid"),
        (
            ["train", "--loss", "sl", "--loss", "mse", "--set", "sl.w=1"],
            "override: no loss, backbone",
        ),
        (["train", "--loss", "sl", "--set", ".lr=1"], "--set .lr=1: write KEY=VALUE"),
        (
            ["train", "--dataset", SMALL, "--loss", "sl", "--presets", "tuned"],
            "--presets tuned: nothing in it is for a cell of grid 'adhoc'",
        ),
        (["train", "--loss", "sl", "--seeds", "two"], "--seeds: 'two' is not a whole number"),
        (["train", "--loss", "sl", "--seeds", "0"], "--seeds 0: say how many, 1 or more"),
        (
            ["check", "--metric", "NDCG@20", "--baseline", "b.toml"],
            "--metric goes with --update",
        ),
        (["train", "--loss", "sl", "--selection", "tset"], "selection"),
        (["train", "--grid", "quik"], "no grid named 'quik'; did you mean 'quick'?"),
        (["train", "--loss", "sl", "--dataset", "gowalla"], "bslbench download gowalla"),
        (["train", "--loss", "sl", "--shard", "3/2"], "--shard 3/2: write I/N with I from 1 to N"),
        (["train", "--loss", "sl", "--shard", "x/2"], "--shard: 'x' is not a whole number"),
        (["train", "--loss", "sl", "--jobs", "2", "--executor", "inline"], "'processes'"),
        (["status"], "no grids in results; bslbench train makes the first"),
        (["download", "yelp"], "no dataset named 'yelp'; did you mean 'yelp2018'?"),
        (["download"], "name a dataset"),
        (["download", "gowalla", "--all"], "--all is every dataset"),
        (["download", "gowalla", "--from", ".", "--mirror", "http://x"], "say one of them"),
        (["report"], "bslbench train"),
        (["report", "--table", "man"], "no table named 'man'; did you mean 'main'?"),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2(
    bslbench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], message: str
) -> None:
    monkeypatch.setenv("BSLBENCH_DATA", "nowhere")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))  # else another test's Gowalla is trained
    code, out, err = bslbench(*arguments)
    assert code == 2
    assert message in err
    assert len(err.strip().splitlines()) == 1 and not out


def test_a_usage_error_is_exit_code_2(bslbench) -> None:
    assert bslbench("train", "--no-such-option")[0] == 2
    assert bslbench("list", "nothing")[0] == 2


def test_debug_shows_where_an_error_came_from(bslbench) -> None:
    with pytest.raises(cli.ConfigError):
        bslbench("--debug", "train", "--loss", "sll")


def test_failed_runs_are_listed_and_exit_code_1(bslbench, tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(
        "import torch\nclass Mine(torch.nn.Module):\n"
        "    def forward(self, pos, neg, batch):\n        return pos.sum() * float('nan')\n"
    )
    code, out, _ = bslbench(*TRAIN, "--loss", "mine.py:Mine")
    assert code == 1
    assert "non-finite loss (nan) at epoch 0, step 0" in out
    code, out, _ = bslbench("report")
    assert code == 0 and "non-finite" in out


def test_the_loss_in_contributing_trains_as_it_stands(bslbench, tmp_path: Path) -> None:
    text = Path(__file__).parents[1].joinpath("CONTRIBUTING.md").read_text()
    [block] = re.findall(r"```python\n# bslbench/losses/lorentzian.py\n(.*?)```", text, re.S)
    (tmp_path / "lorentzian.py").write_text(block)
    code, out, err = bslbench(*TRAIN, "--loss", "lorentzian.py:Lorentzian", "--set", "c=0.5,1")
    assert code == 0, err
    _, out, _ = bslbench("report")
    assert re.search(r"Lorentzian +c=0.5", out) and re.search(r"Lorentzian +c=1.0", out), out


def test_lists(bslbench) -> None:
    _, out, _ = bslbench("list", "losses")
    assert all(f"{name}\n" in out for name in LOSSES)
    assert "tau=0.1" in out and "-p/tau + log mean_j exp(n_j/tau)" in out
    _, out, _ = bslbench("list", "datasets")
    assert re.search(r"yelp2018 +no +31,668 +38,048", out)
    assert re.search(r"synthetic +embedded +2,000", out)
    _, out, _ = bslbench("list", "backbones")
    assert "mf" in out
    _, out, _ = bslbench("list", "references")
    assert "ease\n" in out and "lam=300.0" in out and "Steck, WWW 2019" in out
    _, out, _ = bslbench("list", "settings")
    told = {line.split()[0]: line for line in out.splitlines()}
    assert told.keys() >= TrainSettings.model_fields.keys()
    assert "own | pool | in_batch | none  the loss's own" in told["sampler"]
    _, out, _ = bslbench("list", "grids")
    assert "yelp2018-paper" in out


def test_version(bslbench) -> None:
    assert bslbench("--version")[1].startswith("bslbench 0.")
