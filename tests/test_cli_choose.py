"""The commands `choose` and `recommend`, from a file of one's own to items in its ids."""

import os
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
from bslbench.engine.race import clock as clocks
from bslbench.engine.race import prepare, source
from bslbench.engine.race.ladder import Race
from bslbench.engine.race.plan import Plan
from bslbench.engine.refit import everything
from bslbench.engine.status import span
from bslbench.errors import BslbenchError, StoreError
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
            "user": [*(f"c{user}" for user in range(820) for _ in range(2)), "newcomer"],
            "item": [*(f"sku-{item}" for _ in range(820) for item in (3, 5)), "sku-gone"],
            "rank": [*(rank for _ in range(820) for rank in (1, 2)), 1],
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
    clock = Path(out, "race/clock")
    spent = float(clock.read_text())
    again = call(*asked)  # trains nothing, and says the same but for the budgets that it names
    assert re.sub(r"about [^)]*", "", again) == re.sub(r"about [^)]*", "", said)
    assert float(clock.read_text()) == pytest.approx(spent, abs=0.1), "nothing of it counts"
    begun = f"begun before: {span(float(clock.read_text()))} are spent"
    assert begun in call(*asked, "--dry-run")
    assert runs == {p: p.stat().st_mtime_ns for p in Path("results/runs").glob("*/metrics.csv")}
    other = call("choose", orders, "--user", "what", "--item", "who", *FAST, code=2)
    assert other == (
        "there is a 'shop-orders' in datasets.toml: give another --name, "
        "or use what is there by --dataset shop-orders"
    )


@pytest.fixture
def unrun(short: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Races that are entered, planned and kept, and not run."""
    monkeypatch.setattr(cli_choose, "_run", lambda *asked: None)


OWN = ("--user", "who", "--item", "what", *FAST)


def test_files_are_known_by_their_content(orders: Path, unrun: None) -> None:
    call("choose", orders, *OWN)
    os.utime(orders, (1, 1))
    call("choose", orders, *OWN)
    elsewhere = orders.rename(orders.with_name("moved.parquet"))
    call("choose", elsewhere.rename(orders), *OWN)
    pq.write_table(pq.read_table(orders)[1:], orders)
    for more in ((), ("--dry-run",)):
        assert "there is a 'shop-orders' in" in call("choose", orders, *OWN, *more, code=2)


def test_files_that_a_killed_call_left_without_an_entry_are_entered_anew(
    orders: Path, unrun: None
) -> None:
    catalog = Path("datasets.toml")
    call("choose", orders, *OWN)
    entry = catalog.read_text()
    catalog.unlink()
    call("choose", orders, *OWN)
    assert catalog.read_text() == entry
    catalog.unlink()
    told = call("choose", orders, *OWN, "--results", "others", code=2)
    assert told.endswith("data/shop-orders: give another --name")


def test_what_the_data_are_like_is_shown_before_they_are_written(
    orders: Path, unrun: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*asked: Any, **options: Any) -> None:
        raise StoreError("the disk is full")

    monkeypatch.setattr(source, "write", full)
    shown = CliRunner().invoke(app, ["choose", str(orders), *OWN])
    assert str(shown.exception) == "the disk is full"
    assert "820 users are evaluated" in shown.output
    assert "warning: with 820 users evaluated" in shown.output
    assert not Path("datasets.toml").exists()


LISTS = """user,item,rank
c3,sku-gone,1
newcomer,sku-5,1
c3,sku-5,2
c3,sku-lost,3
stranger,sku-7,1
newcomer,sku-7,2
"""


@pytest.mark.parametrize("more", [(), ("--dry-run",)])
def test_lists_of_today_may_know_users_and_items_that_the_data_do_not(
    orders: Path, unrun: None, more: tuple[str, ...]
) -> None:
    Path("today.csv").write_text(LISTS)
    asked = ["choose", str(orders), *OWN, "--against", "today.csv", *more]
    shown = CliRunner().invoke(app, asked)
    assert shown.exit_code == 0, (shown.output, shown.exception)
    assert "warning: today.csv: users not in the data, left out: 2\n" in shown.output
    assert "warning: today.csv: items not in the data, which count as misses: 2\n" in shown.output


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ("who,sku-5,1\n", "today.csv: none of its users is in the data"),
        ("c3,sku-5,first\n", "today.csv, line 2: 'first' is not a rank"),
        ("c3,sku-5,1\nc3,sku-5,2\n", "line 3: the item stands in the user's list already"),
        ("c3,gone,1\nc3,lost,1\n", "line 3: the rank stands in the user's list already"),
    ],
)
def test_lists_of_today_are_checked_before_anything_is_measured(
    orders: Path, short: None, monkeypatch: pytest.MonkeyPatch, rows: str, message: str
) -> None:
    def planned(*asked: Any) -> None:
        raise AssertionError("measured")

    monkeypatch.setattr(prepare, "planned", planned)
    Path("today.csv").write_text("user,item,rank\n" + rows)
    asked = ("choose", orders, *OWN, "--against", "today.csv")
    assert message in call(*asked, "--dry-run", code=2)
    assert message in call(*asked, code=2)


class Killed(BaseException):
    """Comes out of what a process is killed in."""


@pytest.mark.parametrize(
    ("kill", "counted"), [("entering", [20.0, 20.0 + 29.0]), ("probing", [28.0, 28.0 + 6.0])]
)
def test_what_a_killed_call_has_taken_before_the_race_is_counted(
    orders: Path, unrun: None, monkeypatch: pytest.MonkeyPatch, kill: str, counted: list[float]
) -> None:
    now, alive = 0.0, False

    def passes(seconds: float, what: str = "") -> None:
        nonlocal now
        now += seconds
        if what == kill and not alive:
            raise Killed

    def read(*asked: Any) -> Any:
        passes(20.0)
        return prepared(*asked)

    def enter(*asked: Any, **options: Any) -> None:
        passes(3.0, "entering")
        written(*asked, **options)

    def probed(asked: Race, how: Options, *rest: Any) -> Plan:
        for what in ("", "probing"):
            rest[-1]("probing")
            passes(5.0 if not what else 1.0, what)
        return planned(asked, how, rounds=(2, 1), epochs=1)

    for module in (cli_choose, clocks):
        monkeypatch.setattr(module, "monotonic", lambda: now)
    prepared, written = source.prepare, source.write
    monkeypatch.setattr(source, "prepare", read)
    monkeypatch.setattr(source, "write", enter)
    monkeypatch.setattr(prepare, "planned", probed)
    asked = ["choose", str(orders), *OWN]
    clock = Path("results/choose-shop-orders/race/clock")
    with pytest.raises(Killed):
        CliRunner().invoke(app, asked)
    assert float(clock.read_text()) == counted[0]
    alive = True
    call(*asked)
    assert float(clock.read_text()) == counted[1]


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
        (("--dataset", "synthetic", "--columns", "user,item"), "are columns of files"),
        (("a.csv", "--rating", "stars"), "say --min-rating too"),
        (("--dataset", "synthetic", "--name", "runs"), "'runs' is the folder of the runs"),
        (("--dataset", "synthetic", "--budget", "soon"), "'soon' is not a time"),
        (("a.csv",), "a.csv: no such file"),
        (("a.csv", "--name", "gowalla"), "--name: 'gowalla' is a dataset that comes with"),
        (("--dataset", "synthetik"), "did you mean 'synthetic'"),
        (("--dataset", DATA, "--loss", "slx"), "no loss named 'slx'; did you mean 'sl'?"),
        *(
            (("--dataset", DATA, "--loss", "sl", *told.split()), message)
            for told, message in (
                ("--set dim=abc", "--set: dim: Input should be a valid integer"),
                ("--set batch_size=abc", "--set: batch_size: Input should be a valid integer"),
                ("--set sl.epochs=0", "--set: epochs: Input should be greater than or equal to 1"),
                ("--set dim=16,32", "--set: dim: give one value: what is set is not tuned"),
                ("--set dmi=16", "--set: nothing here has a 'dmi'; did you mean 'dim'?"),
                ("--set sl.taw=1", "--set: sl has no 'taw'; did you mean 'tau'?"),
                ("--set sll.tau=1", "--set: nothing here is called 'sll'; did you mean 'sl'?"),
                ("--set tau=hot", "--set: sl: tau = 'hot' is not of type float"),
                ("--set tau=-1", "--set: tau must be above 0, not -1.0"),
                ("--set ials.alpha=-1", "--set: alpha must be above 0"),
                (
                    "--backbone lightgcn --set hops=abc",
                    "--set: lightgcn: hops = 'abc' is not of type",
                ),
            )
        ),
    ],
)
def test_what_cannot_be_meant_is_named(
    short: None, arguments: tuple[str, ...], message: str
) -> None:
    assert message in call("choose", *arguments, code=2)
    assert not list(Path().iterdir())


@pytest.mark.parametrize("kept", [b"nan", b"-5", b"inf", b"\xff"])
def test_a_damaged_clock_is_named(orders: Path, unrun: None, kept: bytes) -> None:
    call("choose", orders, *OWN)
    clock = Path("results/choose-shop-orders/race/clock")
    clock.write_bytes(kept)
    assert call("choose", orders, *OWN, code=2).startswith(f"{clock} is damaged; remove it")


def test_files_are_not_known_by_a_damaged_source(orders: Path, unrun: None) -> None:
    call("choose", orders, *OWN)
    Path("results/choose-shop-orders/race/source.json").write_bytes(b"\xff")
    assert "there is a 'shop-orders' in" in call("choose", orders, *OWN, code=2)


def test_a_damaged_folder_is_named(tmp_path: Path) -> None:
    (tmp_path / "about.json").write_text('{"score": "cosine"}')
    told = call("recommend", "--run", tmp_path, "--user", "1", code=2)
    assert f"{tmp_path} cannot be read as embeddings" in told
