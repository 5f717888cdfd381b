"""The race: nested rungs, equal effort, one budget over all calls, embeddings that can be read."""

import contextlib
import io
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from bslbench.cli import app
from bslbench.config import Cell
from bslbench.data.load import load
from bslbench.engine.embeddings import of_run, read
from bslbench.engine.executors import inline
from bslbench.engine.inputs import Options
from bslbench.engine.jobs import Executor, Job, Listener, Result, Stop
from bslbench.engine.race import clock as clocks
from bslbench.engine.race import prepare
from bslbench.engine.race.clock import Clock, Timed
from bslbench.engine.race.cost import OVERHEAD, Cost
from bslbench.engine.race.finals import Final, Finals
from bslbench.engine.race.heats import Heat, Means, agreement
from bslbench.engine.race.ladder import Race, Rung, entered, ladder, study
from bslbench.engine.race.plan import Plan, described, plan
from bslbench.engine.race.race import Outcome, leave, run_race
from bslbench.engine.race.record import Folder, Record
from bslbench.engine.refit import everything, refit
from bslbench.engine.store import TRAILING, Run, Store, csv_text, sha256
from bslbench.engine.tuning.ledger import Trial
from bslbench.errors import BslbenchError, ConfigError
from bslbench.evaluation.ranking import Ranks
from bslbench.report.choice import Verdict, verdict
from bslbench.training import Interrupted
from tests.test_engine import Quiet
from tests.test_tune import Silent

DATA = "synthetic?users=820&items=100&interactions=8200"
SET = {"dim": 4, "n_negatives": 8}


def race(name: str = "trial", **changes: Any) -> Race:
    content = {"name": name, "dataset": DATA, "losses": ["sl", "bpr"], "set": SET}
    return Race(fingerprint=load(DATA).fingerprint, **content | changes)


def planned(
    asked: Race, options: Options | None = None, rounds: Sequence[int] = (4, 2), **changes: Any
) -> Plan:
    """A plan made by hand: what it decides is not up to the machine's speed."""
    rungs = [
        rung.model_copy(update={"rounds": n})
        for rung, n in zip(ladder(asked, options or Options()), rounds, strict=True)
    ]
    content = {"epochs": 2, "rungs": rungs, "entering": 2, "finalists": 2}
    content |= {"references": ["popularity", "ials"], "left_out": {}, "ends": [0.4, 0.7, 0.9]}
    return Plan(**content | {"seconds": 1.0, "least": 1.0} | changes)


class Watched(Quiet):
    """Watches runs, all in one list."""

    def __init__(self, ran: list[str]) -> None:
        self.ran = ran


def means(root: Path, asked: Race, execute: Executor = inline, budget: float = 1e6) -> Means:
    folder = Folder(root / asked.name / "race")
    folder.root.mkdir(parents=True, exist_ok=True)
    execute_ = Timed(execute, Clock(folder.root / "clock"))

    @contextmanager
    def trials() -> Iterator[Silent]:
        yield Silent()

    @contextmanager
    def runs(titles: Mapping[str, str]) -> Iterator[Watched]:
        yield Watched([])

    return Means(Store(root), folder, execute_, Options(), budget, trials, runs)


def ran(root: Path, asked: Race | None = None, seeds: int = 2, **changes: Any) -> Outcome:
    asked = asked or race()
    return run_race(
        Record(race=asked, plan=planned(asked, **changes)), means(root, asked), seeds, 1
    )


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Outcome]:
    """A race that has been run, for all tests that only look at it."""
    root = tmp_path_factory.mktemp("race")
    return root, ran(root)


# The ladder and the plan


def test_a_rung_has_as_many_steps_as_the_whole_and_enough_users() -> None:
    part, whole = ladder(race(), Options())
    assert (part.share, whole.share, whole.dataset) == ("25%", "100%", DATA)
    assert part.n_users == 205  # a twentieth of the users would be too few
    assert part.pairs / part.batch_size == pytest.approx(whole.pairs / whole.batch_size, rel=0.1)
    fixed = ladder(race(set={"batch_size": 512}), Options())
    assert [rung.batch_size for rung in fixed] == [round(512 * part.pairs / whole.pairs), 512]


def test_every_loss_is_trained_alike() -> None:
    rungs = ladder(race(), Options())
    for number, rung in enumerate(rungs):
        asked = study(race(), number, rung, 6, ["ials"])
        by_name = {c.name: c for c in entered(asked, rung, Options())}
        assert set(by_name) == {"sl", "bpr", "ials"}
        trains = [by_name[name].cell.train for name in ("sl", "bpr")]
        for train in trains:
            assert train is not None
            shared = (train.epochs, train.batch_size, train.lr_schedule, train.n_negatives)
            assert shared == (6, rung.batch_size, "linear", 8)
            assert (train.init, train.l2_negatives) == ("xavier", False)
        assert by_name["sl"].space["lr"] == by_name["bpr"].space["lr"]
        assert by_name["ials"].cell.loss_params["dim"] == 4  # the same as theirs


RUNGS = [
    Rung(dataset="d", share=share, users=n, n_users=n, items=9, pairs=9, batch_size=8)
    for share, n in (("1%", 300), ("5%", 1500), ("25%", 7500), ("100%", 30_000))
]
COSTS = {
    name: [Cost(epoch=each * share, evaluation=share) for share in (0.01, 0.05, 0.25, 1.0)]
    for name, each in (("a", 4.0), ("b", 4.0), ("c", 6.0), ("d", 8.0), ("e", 2.0))
} | {"ease": [Cost(fixed=1.0)] * 4}


def made(budget: float, jobs: int = 1, seeds: int = 10, **fixed: Any) -> Plan:
    asked = Race(name="x", dataset="d", fingerprint="", losses=list("abcde"), set=fixed)
    return plan(asked, RUNGS, COSTS, ["ease"], {}, budget, jobs, seeds)


def test_the_plan_fits_and_a_larger_budget_trains_longer_and_tries_more() -> None:
    budgets = [900.0, 1500.0, 3000.0, 9000.0, 30_000.0]
    found = [made(budget) for budget in budgets]
    for budget, one in zip(budgets, found, strict=True):
        assert one.seconds <= 0.8 * budget
        assert sorted(one.ends) == one.ends and one.ends[0] > 0 and one.ends[-1] < 1
    epochs = [one.epochs for one in found]
    assert epochs == sorted(epochs) and epochs[0] < 8 and epochs[-1] == 20
    assert found[0].finalists <= found[-1].finalists == 3
    assert [rung.rounds for rung in found[-1].rungs] == [32, 8, 2, 1]
    assert found[-1].entering == 3  # of five
    assert made(1500.0, jobs=2).epochs > made(1500.0).epochs
    assert made(9000.0, epochs=5).epochs == 5


def test_a_budget_that_is_too_short_is_told_the_least() -> None:
    with pytest.raises(
        ConfigError, match=r"a budget of 60 s is too short: the least is \d+"
    ) as told:
        made(60.0)
    least = made(1e5).least
    assert f"{least / 60:.1f} min" in str(told.value)
    assert made(least + 1).epochs == 4


# The rungs


def test_the_best_of_each_loss_goes_on_and_effort_is_equal(finished: tuple[Path, Outcome]) -> None:
    _, outcome = finished
    first, last = outcome.heats
    for name in ("sl", "bpr", "ials"):
        tried, promoted = first.trials[name], last.trials[name]
        assert [trial.number for trial in tried] == [0, 1, 2, 3]
        best = sorted(tried, key=lambda t: (t.state != "complete", -t.score))[:2]
        assert [trial.params for trial in promoted] == [trial.params for trial in best]
        assert len({trial.cell for trial in [*tried, *promoted]}) == 6
    common = [
        [{k: t.params[k] for k in ("lr", "l2")} for t in first.trials[n]] for n in ("sl", "bpr")
    ]
    assert common[0] == common[1]  # the same points of the common space
    samples = {
        Store(finished[0]).run(t.cell).info()["canonical"]["dataset"] for t in first.trials["sl"]
    }
    assert samples == {f"{DATA}&sample=25%"}


def trial(number: int, score: float, state: Any = "complete") -> Trial:
    return Trial(number, {}, f"cell{number}", state, {0: score}, 1.0)


def heat(scores: Mapping[str, Sequence[float]], failed: Iterable[str] = ()) -> Heat:
    rungs = ladder(race(), Options())
    contenders = {
        c.name: c for c in entered(study(race(), 0, rungs[0], 2, ["ials"]), rungs[0], Options())
    }
    trials = {
        name: [trial(n, s, "failed" if name in failed else "complete") for n, s in enumerate(own)]
        for name, own in scores.items()
    }
    return Heat(rungs[0], contenders, trials)


def test_losses_are_ranked_by_their_best_setting_and_references_are_none() -> None:
    found = heat({"sl": [0.1, 0.3, 0.3], "bpr": [0.2, 0.25, 0.1], "ials": [0.9]})
    assert found.losses() == ["sl", "bpr"]
    assert [t.number for t in found.best("sl", 2)] == [1, 2]
    assert heat({"sl": [0.9], "bpr": [0.1], "ials": []}, failed=["sl"]).losses() == ["bpr"]


def test_agreement_is_kendalls_tau_of_what_both_rungs_have() -> None:
    before = heat({"sl": [0.1, 0.2, 0.3], "bpr": [0.05, 0.15], "ials": [0.4]})
    after = heat({"sl": [0.1, 0.2], "bpr": [0.25], "ials": [0.5]})
    found = agreement(before, after)
    assert (found.n_settings, found.n_losses) == (4, 2)
    assert found.settings == pytest.approx((4 - 2) / 6)  # of six pairs two are the other way round
    assert found.losses == -1.0


def test_a_loss_that_left_is_not_run_on(tmp_path: Path) -> None:
    outcome = ran(tmp_path, entering=1, finalists=1)
    assert len(outcome.heats[0].losses()) == 2
    assert len(outcome.heats[1].losses()) == len(outcome.finals.losses) == 1
    assert set(outcome.heats[1].trials) == {outcome.pick.name, "ials"}


# The final runs


def test_final_seeds_are_fresh_and_what_draws_nothing_runs_once(
    finished: tuple[Path, Outcome],
) -> None:
    root, outcome = finished
    for final in outcome.finals.losses:
        assert [cell.seed for cell in final.cells] == [0, 1]
        best = outcome.heats[-1].best(final.name)[0]
        assert Store(root).run(best.cell).info()["canonical"]["seed"] == 1000
        assert dict(final.params) == dict(best.params)
    seeds = {row.name: len(row.runs) for row in outcome.finals.references}
    assert seeds == {"popularity": 1, "ials": 2}
    valid = [final.valid for final in outcome.finals.losses]
    assert valid == sorted(valid, reverse=True)
    listed = (root / "trial" / "grid.toml").read_text().count("[[cells]]")
    assert listed == 2 * 2 + 1 + 2


# The budget


class Now:
    """A clock that goes by what is run, and an executor whose runs take ten seconds and a hash."""

    def __init__(self) -> None:
        self.time = 0.0
        self.jobs: list[str] = []
        self.dies_at = -1

    def __call__(self) -> float:
        return self.time

    def execute(self, jobs: Iterable[Job], listener: Listener, stop: Stop) -> None:
        for job in jobs:
            if stop():
                return
            if len(self.jobs) == self.dies_at:
                raise KeyboardInterrupt  # as good as a kill: nothing is told of it
            listener.started(job.cell)
            pretend(job)
            self.jobs.append(job.cell.id)
            self.time += 10.0
            listener.ended(job, Result("trained"))


def pretend(job: Job) -> None:
    """Leave behind what a finished run does, but for its ranks."""
    value = int(sha256(job.cell.id.encode())[:8], 16) / 16**8
    names = {"metric": "Recall", "k": 20, "group": "", "value": value}
    metrics = csv_text(TRAILING, [names | {"split": split} for split in ("valid", "test")])
    outcome = {f"seconds_{phase}": 0.0 for phase in ("load", "eval", "test")}
    info = {
        "canonical": json.loads(job.cell.canonical()),
        "metrics_sha256": sha256(metrics.encode()),
    }
    info |= {"origin": {}, "outcome": outcome | {"seconds_train": 10.0 - OVERHEAD}}
    job.run.folder.mkdir(parents=True)
    for name, content in (
        ("run.json", json.dumps(info)),
        ("curve.csv", f"epoch,recall\n1,{value}\n"),
        ("model.safetensors", ""),
        ("metrics.csv", metrics),
    ):
        job.run.file(name).write_text(content)


def timed(root: Path, now: Now, budget: float, dies_at: int = -1) -> tuple[Outcome | None, Clock]:
    asked = race()
    now.dies_at = dies_at
    how = means(root, asked, now.execute, budget)
    how.execute.clock.begun = now()
    record = how.folder.read(asked) or Record(race=asked, plan=planned(asked))
    how.folder.write(record)
    try:
        return run_race(record, how, 10, 1), how.execute.clock
    except KeyboardInterrupt:
        how.execute.clock.keep()
        return None, how.execute.clock


@pytest.fixture
def now(monkeypatch: pytest.MonkeyPatch) -> Now:
    found = Now()
    monkeypatch.setattr(clocks, "monotonic", found)
    return found


def test_the_final_seeds_take_what_time_is_left(tmp_path: Path, now: Now) -> None:
    outcome, clock = timed(tmp_path, now, 400.0)
    assert outcome is not None
    # 12 trials and 6 more; two seeds of three and a reference that runs once; 30 s a further seed
    assert outcome.record.done == {"rung-0": 4, "rung-1": 2, "seeds": 5}
    assert clock.spent() == 10.0 * (12 + 6 + 7 + 9) <= 0.9 * 400.0
    longer, clock = timed(tmp_path, now, 500.0)  # the same command with a larger budget goes on
    assert longer is not None
    assert longer.record.done == {"rung-0": 4, "rung-1": 2, "seeds": 8}
    assert clock.spent() == 340.0 + 90.0
    assert len(set(now.jobs)) == len(now.jobs)  # and trains nothing twice


def test_a_short_budget_cuts_all_losses_alike_but_not_below_the_least(
    tmp_path: Path, now: Now
) -> None:
    outcome, clock = timed(tmp_path, now, 180.0)
    assert outcome is not None
    assert outcome.record.done == {"rung-0": 2, "rung-1": 1, "seeds": 2}
    assert {len(own) for own in outcome.heats[0].trials.values()} == {2}
    assert {len(own) for own in outcome.heats[1].trials.values()} == {1}
    assert clock.spent() == 200.0  # two runs of the first rung and two of the last came to nothing


@pytest.mark.parametrize("dies_at", [3, 13, 20, 27])
def test_killed_and_called_again_it_ends_with_the_same_budget_and_results(
    tmp_path: Path, now: Now, dies_at: int
) -> None:
    whole, clock = timed(tmp_path / "whole", now, 400.0)
    spent, made = clock.spent(), now.jobs.copy()
    now.jobs.clear()
    assert timed(tmp_path / "cut", now, 400.0, dies_at)[0] is None
    now.time += 1000.0  # while nothing runs, nothing counts
    again, clock = timed(tmp_path / "cut", now, 400.0)
    assert whole is not None and again is not None
    assert again.record.done == whole.record.done
    assert clock.spent() == pytest.approx(spent)
    assert [(f.name, f.valid) for f in again.finals.losses] == [
        (f.name, f.valid) for f in whole.finals.losses
    ]
    assert sorted(now.jobs) == sorted(made)


def test_another_race_of_the_same_name_is_refused(tmp_path: Path) -> None:
    folder = Folder(tmp_path)
    folder.write(Record(race=race(), plan=planned(race())))
    assert folder.read(race()) is not None
    with pytest.raises(ConfigError, match=r"this race has losses = \['sl', 'bpr'\], not \['sl'\]"):
        folder.read(race(losses=["sl"]))


# What it leaves


@pytest.fixture(scope="module")
def left(finished: tuple[Path, Outcome], tmp_path_factory: pytest.TempPathFactory) -> Path:
    root, outcome = finished
    out = tmp_path_factory.mktemp("left")
    leave(outcome, means(root, race()), out, lambda text: None)
    return out


def reported(run: Run) -> float:
    [row] = [
        row
        for row in run.metrics()
        if (row["split"], row["metric"], row["k"], row["group"]) == ("test", "Recall", "20", "")
    ]
    return float(row["value"])


@pytest.mark.parametrize("loss", ["sl", "bpr"])  # cosine and inner product
def test_numpy_alone_finds_the_figure_again(
    finished: tuple[Path, Outcome], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, loss: str
) -> None:
    root, outcome = finished
    [final] = [final for final in outcome.finals.losses if final.name == loss]
    alone = replace(outcome, finals=replace(outcome.finals, losses=[final]))
    leave(alone, means(root, race()), tmp_path, lambda text: None)
    folder = tmp_path / "evaluated"
    about = json.loads((folder / "about.json").read_text())
    assert about["score"] == ("cosine" if loss == "sl" else "inner")
    readme = (folder / "README.md").read_text()
    code = readme.partition("```python\n")[2].partition("```")[0]
    assert "bslbench" not in code and "torch" not in code
    monkeypatch.chdir(folder)
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(code, {})
    figure = float(printed.getvalue())
    assert figure == pytest.approx(reported(alone.shown), abs=1e-9)
    assert figure == pytest.approx(about["Recall@20"]) and f"{figure:.4f}" in readme


def test_what_is_deployed_has_seen_everything_and_says_so(left: Path) -> None:
    data = load(DATA)
    deployed, evaluated = read(left / "deploy"), read(left / "evaluated")
    assert (deployed.about["kind"], evaluated.about["kind"]) == ("deploy", "evaluated")
    assert deployed.seen.nnz == everything(data).nnz == data.train.nnz + data.test.nnz
    assert evaluated.seen.nnz == data.train.nnz
    assert not np.array_equal(deployed.users, evaluated.users)
    assert "Recall@20" not in deployed.about
    assert "all* interactions" in (left / "deploy" / "README.md").read_text()


def test_a_refit_stops_at_the_chosen_epoch_and_goes_on_where_it_was_cut_off(
    finished: tuple[Path, Outcome], tmp_path: Path
) -> None:
    cell, data = finished[1].pick.cells[0], load(DATA)
    first = refit(cell, 0, data, Run(tmp_path / "a"))
    whole = refit(cell, 1, data, Run(tmp_path / "b"))
    assert not np.array_equal(first[0], whole[0])
    steps = iter(range(1000))
    with pytest.raises(Interrupted):
        refit(cell, 1, data, Run(tmp_path / "c"), stop=lambda: next(steps) == 70)
    assert (tmp_path / "c" / "state.pt").exists()
    again = refit(cell, 1, data, Run(tmp_path / "c"))
    assert all(np.array_equal(x, y) for x, y in zip(whole, again, strict=True))
    assert not (tmp_path / "c" / "state.pt").exists()


def test_recommendations_are_the_best_that_the_user_has_not(left: Path) -> None:
    model = read(left / "evaluated")
    seen = set(model.seen.indices[model.seen.indptr[7] : model.seen.indptr[8]].tolist())
    best = model.recommend("7", 100)
    assert len(best) == 100 - len(seen)
    assert not seen & {int(item) for item, _ in best}
    scores = [score for _, score in best]
    assert scores == sorted(scores, reverse=True)
    rows = [model.users[7], model.items[int(best[0][0])]]
    if model.about["score"] == "cosine":
        rows = [row / np.linalg.norm(row) for row in rows]
    assert scores[0] == pytest.approx(float(rows[0] @ rows[1]), rel=1e-5)
    assert best[:3] == model.recommend("7", 3)
    with pytest.raises(ConfigError, match="no user '8x'; did you mean"):
        model.recommend("8x", 3)


def test_a_run_of_the_store_recommends_the_same(finished: tuple[Path, Outcome], left: Path) -> None:
    run = finished[1].shown
    model, _, _ = of_run(run, Options())
    assert model.recommend("3", 5) == read(left / "evaluated").recommend("3", 5)
    shown = CliRunner().invoke(
        app, ["recommend", "--run", run.folder.name, "--user", "3", "--results", str(finished[0])]
    )
    other = CliRunner().invoke(app, ["recommend", "--run", str(left / "evaluated"), "--user", "3"])
    assert shown.exit_code == other.exit_code == 0, shown.output
    assert shown.output == other.output
    assert len(shown.output.splitlines()) == 2 + 20


# The verdict


def scored(root: Path, cell: Cell, hits: Any, valid: float) -> Final:
    """A loss whose runs have found, or not, the one test item of each user: hits [seeds, users]."""
    runs = []
    for seed, found in enumerate(np.asarray(hits, dtype=np.uint8)):
        run = Run(root / f"{cell.loss}-{seed}")
        run.folder.mkdir()
        n = len(found)
        users, indptr = np.arange(n, dtype=np.int32), np.arange(n + 1)
        Ranks(users, indptr, found, np.zeros(3, np.int32), 0, 0.0).save(run.file("ranks.npz"))
        row = {"split": "valid", "metric": "Recall", "k": 20, "group": "", "value": valid}
        run.file("metrics.csv").write_text(csv_text(TRAILING, [row]))
        runs.append(run)
    params = {"tau": 0.1234} if cell.loss == "sl" else {}
    return Final(cell.loss, params | {"lr": 0.01}, [cell] * len(runs), runs)


def answered(root: Path, hits: Mapping[str, Any], spent: float = 600.0) -> Verdict:
    """The verdict over losses and references by their hits, the best on valid first."""
    rung = ladder(race(), Options())[-1]
    known = {c.name: c.cell for c in entered(study(race(), 0, rung, 2, ["ials"]), rung, Options())}
    ease = known["ials"].model_copy(update={"loss": "ease"})
    cells = known | {"ease": ease}
    made = {
        name: scored(root, cells[name], own, 1.0 - n) for n, (name, own) in enumerate(hits.items())
    }
    losses = [final for name, final in made.items() if cells[name].train]
    references = [final for name, final in made.items() if not cells[name].train]
    record = Record(race=race(), plan=planned(race()), done={"seeds": 4})
    return verdict(Outcome(record, [], Finals(losses, references, {}, 30.0), 600.0, spent))


def drawn(share: float, seeds: int, users: int, seed: int = 0) -> Any:
    """Hits of users some of whom are easier than others: alike from seed to seed."""
    rng = np.random.default_rng(seed)
    taste = rng.random(users)
    return taste + 0.1 * rng.random((seeds, users)) < share


def test_a_clear_answer_says_which_how_sure_and_against_what(tmp_path: Path) -> None:
    hits = {"sl": drawn(0.6, 4, 400), "bpr": drawn(0.4, 4, 400), "ials": drawn(0.5, 4, 400)}
    found = answered(tmp_path, hits | {"ease": drawn(0.7, 1, 400)})
    which, sure, against = found.sentences
    recall = np.mean(hits["sl"])
    assert which == (
        f"Train with sl (tau 0.123, lr 0.01, 2 epochs): Recall@20 {recall:.4f} on test, "
        "mean of 4 seeds."
    )
    gain = 100 * (recall / np.mean(hits["bpr"]) - 1)
    assert sure.startswith(f"It is ahead of bpr by {gain:.1f} % (95 % interval ")
    assert "it gains " in against and "over ials of the same dimension (4)" in against
    assert "short of ease (95 % interval " in against  # what is better is not kept quiet
    assert found.told and found.losses["bpr"].word == "there"


def test_two_losses_that_are_the_same_are_said_to_be(tmp_path: Path) -> None:
    hits = drawn(0.5, 3, 200)
    found = answered(tmp_path, {"sl": hits, "bpr": hits})
    assert found.sentences[0].endswith("mean of 3 seeds; bpr would do as well.")
    assert found.sentences[1].startswith("From bpr it differs by less than 0.5 %")
    assert found.sentences[2] == "Nothing that trains no loss could be run beside it."


def test_what_the_budget_cannot_separate_it_says_and_what_could(tmp_path: Path) -> None:
    rng = np.random.default_rng(5)
    easy = rng.random(20_000) < 0.5
    a, b = (easy ^ (rng.random((2, 20_000)) < 0.02) for _ in range(2))
    a[:, :300] |= easy[:300] | True
    a[1] = easy ^ (rng.random(20_000) < 0.04)
    found = answered(tmp_path, {"sl": a, "bpr": b, "ials": drawn(0.3, 2, 20_000)})
    compared = found.losses["bpr"]
    assert compared.word == "cannot be told" and compared.seeds_needed is not None
    assert not found.told
    which, sure, _ = found.sentences
    assert which.startswith("This budget cannot separate sl and bpr; first on validation is sl (")
    budget = (600.0 + (compared.seeds_needed - 2) * 30.0 * 1.1) / 0.9
    told = f"(--budget {-int(-budget // 60)}m --seeds {compared.seeds_needed})"
    assert f"{compared.seeds_needed} seeds could, with a budget of about " in sure and told in sure


def test_a_few_users_cannot_be_helped_by_seeds(tmp_path: Path) -> None:
    found = answered(tmp_path, {"sl": drawn(0.5, 3, 12), "bpr": drawn(0.5, 3, 12, seed=1)})
    assert "no number of seeds could, it takes more users" in found.sentences[1]


# The commands


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
    assert call(*asked) == said  # called again it trains nothing
    assert runs == {p: p.stat().st_mtime_ns for p in Path("results/runs").glob("*/metrics.csv")}
    other = call("choose", orders, "--user", "what", "--item", "who", *FAST, code=2)
    assert "there is a 'shop-orders'" in other and "--dataset shop-orders" in other


def test_a_dry_run_shows_the_plan_and_writes_nothing(orders: Path, short: None) -> None:
    before = sorted(Path().rglob("*"))
    shown = call("choose", orders, "--user", "who", "--item", "what", "--dry-run", *FAST)
    assert "205 (25%)" in shown and "sl, bpr on mf" in shown
    assert sorted(Path().rglob("*")) == before


def test_a_plan_is_made_from_what_is_measured(tmp_path: Path) -> None:
    asked = race()
    found = prepare.planned(asked, Options(), 1e6, 1, 10)
    assert found.epochs == 20 and [rung.rounds for rung in found.rungs] == [32, 8]
    assert found.references == ["popularity", "itemknn", "ease", "ials"]
    text = described(asked, found, 2)
    assert "sl, bpr on mf, 20 epochs each, 2 runs at a time" in text
    assert "205 (25%)" in text and "820 (100%)" in text


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


def test_a_run_without_embeddings_says_how_to_keep_them(tmp_path: Path) -> None:
    (tmp_path / "runs" / "synthetic-mf-sl-s0-abc").mkdir(parents=True)
    (tmp_path / "runs" / "synthetic-mf-sl-s0-abc" / "run.json").write_text("{}")
    told = call("recommend", "--run", "synthetic-mf", "--user", "1", "--results", tmp_path, code=2)
    assert "has kept no embeddings: train it again with --save-model" in told
    told = call("recommend", "--run", "nothing", "--user", "1", "--results", tmp_path, code=2)
    assert "'nothing' is no folder of embeddings, and no run in" in told


def test_a_damaged_folder_is_named(tmp_path: Path) -> None:
    (tmp_path / "about.json").write_text('{"score": "cosine"}')
    told = call("recommend", "--run", tmp_path, "--user", "1", code=2)
    assert f"{tmp_path} cannot be read as embeddings" in told
