"""The commands `choose` and `recommend`, from a file of one's own to items in its ids."""

import re
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from bslbench import cli_choose
from bslbench.cli import app
from bslbench.data.load import load
from bslbench.engine.inputs import Options
from bslbench.engine.race import prepare
from bslbench.engine.race.ladder import Race
from bslbench.engine.race.plan import Plan
from bslbench.engine.refit import everything
from bslbench.errors import BslbenchError
from tests.races import DATA, planned


@pytest.fixture
def orders(tmp_path: Path) -> Path:
    """A shop's orders with its own ids, most of them of the synthetic dataset."""
    pairs = everything(load(DATA)).tocoo()
    customers = [f"c{user}" for user in pairs.row]
    skus = [f"sku-{item}" for item in pairs.col]
    path = tmp_path / "shop orders.parquet"
    pq.write_table(pa.table({"who": customers, "what": skus}), path)
    return path


def call(*arguments: str | Path, code: int = 0) -> str:
    shown = CliRunner().invoke(app, list(map(str, arguments)))
    if code == 0:
        assert shown.exit_code == 0, (shown.output, shown.exception)
        return shown.stdout
    assert isinstance(shown.exception, BslbenchError)
    return str(shown.exception)


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Plans that do not depend on the machine, and a working directory of its own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("BSLBENCH_DATA", str(tmp_path / "data"))

    def hasty(asked: Race, options: Options, *rest: Any) -> Plan:
        return planned(asked, options, rounds=(2, 1), epochs=1)

    monkeypatch.setattr(prepare, "planned", hasty)


FAST = ("--loss", "sl", "--loss", "bpr", "--set", "dim=4", "--set", "n_negatives=8", "--jobs", "1")


def test_from_a_file_to_an_answer_in_the_ids_of_its_owner(orders: Path, short: None) -> None:
    lists = pa.table(
        {
            "user": [f"c{user}" for user in range(820) for _ in range(2)],
            "item": [f"sku-{item}" for _ in range(820) for item in (3, 5)],
            "rank": [rank for _ in range(820) for rank in (1, 2)],
        }
    )
    pq.write_table(lists, "today.parquet")
    asked = ("choose", orders, "--user", "who", "--item", "what", "--against", "today.parquet")
    asked += ("--seeds", "2", *FAST)
    said = call(*asked)
    assert "Recall@20" in said and "ials of the same dimension (4)" in said
    assert "today.parquet" in said
    out = Path("results/choose-shop-orders")
    report = (out / "report.md").read_text()
    assert report.startswith("# Which loss for shop-orders\n\n" + said.splitlines()[0][:40])
    for part in ("## Final runs", "today.parquet", "Kendall's tau", "25% (", "evaluated"):
        assert part in report
    assert "<h2>The race</h2>" in (out / "report.html").read_text()
    deployed = call("recommend", "--run", out / "deploy", "--user", "c7", "-k", "5")
    items = [line.split()[1] for line in deployed.splitlines()[2:]]
    assert len(items) == 5 and all(item.startswith("sku-") for item in items)
    mine = {row["what"] for row in pq.read_table(orders).to_pylist() if row["who"] == "c7"}
    assert mine and not mine & set(items)
    runs = {path: path.stat().st_mtime_ns for path in Path("results/runs").glob("*/metrics.csv")}
    again = call(*asked)  # trains nothing, and says the same but for the time it has taken
    assert re.sub(r"about [^)]*", "", again) == re.sub(r"about [^)]*", "", said)
    assert runs == {p: p.stat().st_mtime_ns for p in Path("results/runs").glob("*/metrics.csv")}
    other = call("choose", orders, "--user", "what", "--item", "who", *FAST, code=2)
    assert "there is a 'shop-orders'" in other and "--dataset shop-orders" in other


@pytest.fixture
def unrun(short: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Races that are entered, planned and kept, and not run."""
    monkeypatch.setattr(cli_choose, "_run", lambda *asked: None)


MINE = """
from bslbench.losses import SL

class Mine(SL):
    '''A loss of one's own.'''
"""


def test_a_loss_that_has_changed_since_is_another_race(unrun: None) -> None:
    mine = Path("mine.py")
    mine.write_text(MINE)
    asked = ("choose", "--dataset", DATA, "--loss", "mine.py:Mine", *FAST, "--name", "own")
    call(*asked)
    mine.write_text(MINE + "# the same loss, but who can tell?\n")
    told = call(*asked, code=2)
    assert told == "mine.py:Mine has changed since the race began; give another --name"
    mine.write_text(MINE)
    call(*asked)


def test_a_dry_run_shows_the_plan_and_writes_nothing(orders: Path, short: None) -> None:
    before = sorted(Path().rglob("*"))
    shown = call("choose", orders, "--user", "who", "--item", "what", "--dry-run", *FAST)
    assert "205 (25%)" in shown and "sl, bpr on mf" in shown
    assert sorted(Path().rglob("*")) == before


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "name files of interactions, or a --dataset"),
        (("a.csv", "--dataset", "synthetic"), "name files of interactions, or a --dataset"),
        (("--dataset", "synthetic", "--user", "who"), "are columns of files"),
        (("a.csv", "--rating", "stars"), "say --min-rating too"),
        (("--dataset", "synthetic", "--name", "runs"), "'runs' is the folder of the runs"),
        (("--dataset", "synthetic", "--budget", "soon"), "'soon' is not a time"),
        (("a.csv",), "a.csv: No such file"),
        (("--dataset", "synthetik"), "did you mean 'synthetic'"),
    ],
)
def test_what_cannot_be_meant_is_named(
    short: None, arguments: tuple[str, ...], message: str
) -> None:
    assert message in call("choose", *arguments, code=2)
    assert not list(Path().iterdir())


def test_a_damaged_folder_is_named(tmp_path: Path) -> None:
    (tmp_path / "about.json").write_text('{"score": "cosine"}')
    told = call("recommend", "--run", tmp_path, "--user", "1", code=2)
    assert f"{tmp_path} cannot be read as embeddings" in told
