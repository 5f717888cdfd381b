"""The commands `tune`, `pack`, `compare`, `verify` and `download --packs` as a user meets them."""

import hashlib
import shutil
from pathlib import Path

import pytest

from tests.test_engine import SMALL
from tests.test_pack import CAUCHY

TUNE = ["tune", "--dataset", SMALL, "--startup", "2", "--name", "mine", "--seeds", "2"]
TUNE += ["--set", "epochs=2", "--set", "n_negatives=20", "--set", "dim=8"]


def test_from_a_study_to_a_row_in_somebody_elses(bslbench, tmp_path: Path) -> None:
    code, _, err = bslbench(*TUNE, "--loss", "sl", "--trials", "3", "--dry-run")
    assert code == 0 and "sl      lr 0.0001 to 0.03, log" in err
    assert "3 trials of each loss, at most about" in err
    assert not (tmp_path / "results").exists()
    code, out, err = bslbench(
        *TUNE, "--loss", "sl", "--loss", "bpr", "--reference", "popularity", "--trials", "3"
    )
    assert code == 0, err
    assert "mine: after equal tuning" in out and "3 trials each, 2 of them at the same" in out
    folder = tmp_path / "results" / "mine"
    made = {"table.md", "best-of-trials.svg", "best-of-seconds.svg", "tuned.toml", "trials.csv"}
    assert made < {path.name for path in folder.iterdir()}
    code, _, err = bslbench(*TUNE, "--trials", "3", "--set", "dim=16", "--dry-run")
    assert code == 2 and "study.toml: this study has set = {" in err
    code, again, err = bslbench(*TUNE, "--trials", "3")
    assert code == 0 and again == out and "0 trained" not in err
    code, out, _ = bslbench("report", "--grid", "mine", "--table", "tuning", "--format", "markdown")
    assert code == 0 and out == (folder / "table.md").read_text()
    kept = {path.name: path.read_bytes() for path in folder.iterdir()}
    code, _, err = bslbench(*TUNE, "--trials", "2")
    assert code == 2 and "has made 3 trials of a loss, and takes none back" in err
    code, _, err = bslbench("train", "--dataset", SMALL, "--loss", "sl", "--name", "mine")
    assert code == 2 and "mine has the results of a study; give another --name" in err
    assert kept == {path.name: path.read_bytes() for path in folder.iterdir()}

    code, out, err = bslbench("pack", "mine")
    pack = folder / "mine.zip"
    digest = hashlib.sha256(pack.read_bytes()).hexdigest()
    assert code == 0 and digest in out
    code, out, err = bslbench("unpack", str(pack), "--results", "theirs")
    assert code == 0, err
    assert out.endswith(" runs; next: bslbench report --grid mine --results theirs\n")
    assert (tmp_path / "theirs/mine/trials.csv").is_file()
    code, out, err = bslbench("verify", str(pack), "--sample", "1", "--seed", "0")
    assert code == 0 and "same bytes" in out, err

    (tmp_path / "datasets.toml").write_text(
        '[synthetic]\nreader = "synthetic"\n[synthetic.packs.mine]\nname = "mine.zip"\n'
        f'url = "https://example.org/mine.zip"\nsha256 = "{digest}"\n'
    )
    (tmp_path / "source" / "synthetic").mkdir(parents=True)
    shutil.copy(pack, tmp_path / "source" / "synthetic" / "mine.zip")
    code, _, err = bslbench("download", "synthetic", "--packs", "--from", "source")
    fetched = tmp_path / "data" / "synthetic" / "mine.zip"
    assert code == 0 and fetched.read_bytes() == pack.read_bytes(), err
    code, _, err = bslbench("download", "gowalla", "--packs")
    assert code == 2 and "the catalog has no packs of gowalla" in err

    (tmp_path / "cauchy.py").write_text(CAUCHY)
    shutil.rmtree(tmp_path / "results")
    code, out, err = bslbench("compare", "cauchy.py:Cauchy", "--against", str(fetched))
    assert code == 0, err
    row = tmp_path / "results" / "Cauchy-against-mine" / "row.tex"
    assert row.read_text().startswith("mf & Cauchy & 2 & 0.") and "row.tex: mf & Cauchy" in out
    there = ["--against", str(fetched), "--name", "Cauchy-against-mine"]
    code, again, err = bslbench("compare", "./cauchy.py:Cauchy", *there)  # goes on, and is done
    assert code == 0 and again == out, err
    code, _, err = bslbench("compare", "mse", *there)
    assert code == 2 and "Cauchy-against-mine has another study; give another --name" in err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([*TUNE, "--loss", "sl"], "say how far to go, by one of --trials N and --budget 30m"),
        ([*TUNE, "--loss", "sl", "--budget", "soon"], "'soon' is not a time such as 90s, 30m"),
        (
            [*TUNE, "--loss", "sl", "--trials", "2", "--set", "lr=1,2"],
            "--set lr: a study holds one",
        ),
        ([*TUNE, "--loss", "sl", "--trials", "2", "--open", "taus"], "'taus' cannot be opened"),
        ([*TUNE, "--trials", "2"], "has neither losses nor references"),
        (
            [*TUNE, "--loss", "sl", "--trials", "2", "--name", "../x"],
            "--name: name: letters, digits",
        ),
        (["pack", "nothing"], "no results of a grid 'nothing'"),
        (["pack", "mine", "--out", "mine.tar"], "--out mine.tar: a pack's name ends in .zip"),
        (["verify", "mine.zip"], "mine.zip: No such file or directory"),
        (["compare", "sl", "--against", "nothing"], "no results of a grid 'nothing'"),
    ],
)
def test_what_cannot_be_meant_is_one_line(bslbench, arguments: list[str], message: str) -> None:
    code, out, err = bslbench(*arguments)
    assert (code, out) == (2, "")
    assert message in err and err.count("\n") == 1 and err.startswith("error: ")


def test_a_budget_that_is_too_small_leaves_nothing_in_the_way(bslbench) -> None:
    code, _, err = bslbench(*TUNE, "--loss", "sl", "--budget", "1e-3s", "--name", "small")
    assert code == 2 and "more than the budget of 0 s; shorter trials: --set epochs=12" in err
    assert not Path("results/small").exists()
