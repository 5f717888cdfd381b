"""Tuning: the same effort for every loss, the same trials however often it is cut off."""

import math
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bslbench.config import Cell, Grid
from bslbench.engine.executors import executor_for
from bslbench.engine.grid import expand
from bslbench.engine.jobs import Job, Listener, Result, Stop, perform
from bslbench.engine.pruning import fallen
from bslbench.engine.store import Store
from bslbench.engine.tuning.contenders import contenders, record
from bslbench.engine.tuning.ledger import Ledger, Trial
from bslbench.engine.tuning.outcome import TUNED, final_grid, write_outcome
from bslbench.engine.tuning.proposals import bar_of, best_of, proposal, quasi_random, widened
from bslbench.engine.tuning.search import Budget, rounds_of, search
from bslbench.engine.tuning.space import COMMON, Choice, Range, read
from bslbench.engine.tuning.study import Study, merged
from bslbench.errors import ConfigError, DataError, RunFailed
from bslbench.losses import LOSSES
from bslbench.references import REFERENCES
from bslbench.report.tuning import efforts
from bslbench.training import Evaluation
from tests.test_engine import SMALL

FIXED = {"epochs": 4, "dim": 8, "batch_size": 512, "n_negatives": 20}

MINE = """
import torch
from torch.nn.functional import softplus

class Fragile(torch.nn.Module):
    '''Turns infinite above a threshold.'''
    space = {"a": ("linear", 0.0, 1.0)}
    def __init__(self, a: float = 0.1):
        super().__init__()
        self.a = a
    def forward(self, pos, neg, batch):
        return softplus(neg - pos).mean() / (self.a < THRESHOLD)

class Deaf(torch.nn.Module):
    '''Learns nothing: all of its trials are alike.'''
    def forward(self, pos, neg, batch):
        return 0.0 * pos.mean()
"""


class Silent:
    """A watcher that remembers which trials were started and ended."""

    def __init__(self) -> None:
        self.started_titles: list[str] = []
        self.made: list[Trial] = []

    def planned(self, n_trials: int, n_ended: int) -> None: ...

    def started(self, cell: Cell, title: str) -> None:
        self.started_titles.append(title)

    def evaluated(self, cell: Cell, evaluation: Evaluation) -> None: ...

    def ended(self, cell: Cell, trial: Trial) -> None:
        self.made.append(trial)

    def left(self, cell: Cell) -> None: ...

    def waiting(self, n_trials: int) -> None: ...


def study(**changes: Any) -> Study:
    content = {"name": "study", "dataset": SMALL, "losses": ["sl", "bpr"], "startup": 3}
    fixed = {"set": FIXED | changes.pop("set", {})}
    return Study.model_validate(content | fixed | changes)


def tuned(
    asked: Study, root: Path, rounds: int, watcher: Silent | None = None, jobs: int | None = None
) -> dict[str, list[Trial]]:
    entered = contenders(asked)
    Ledger(root / asked.name).open(asked, entered)
    execute = executor_for(jobs=jobs, threads=1)
    return search(asked, entered, Budget(rounds), Store(root), watcher or Silent(), execute)


def essence(trials: dict[str, list[Trial]]) -> list[Any]:
    """All of a study but the seconds."""
    return [
        (name, t.number, dict(t.params), t.cell, t.state, dict(t.curve))
        for name, ended in trials.items()
        for t in ended
    ]


def trial(number: int, curve: Sequence[float], state: Any = "complete", **params: Any) -> Trial:
    return Trial(number, params, f"cell{number}", state, dict(enumerate(curve)), 1.0)


# The space


def test_a_space_is_read_as_declared() -> None:
    declared = {"a": ("log", 0.1, 10), "k": ("log_int", 1, 64), "s": ("choice", "x", "y")}
    assert read(declared, "Loss") == {
        "a": Range("log", 0.1, 10),
        "k": Range("log_int", 1, 64),
        "s": Choice(("x", "y")),
    }


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        (("logg", 1.0, 2.0), "Loss: space: a: no kind 'logg'; did you mean 'log'"),
        (("log", 0.0, 2.0), "a logarithmic range starts above 0, not at 0.0"),
        (("linear", 2.0, 1.0), "2.0 is not below 1.0"),
        (("int", 1.5, 3), "is not a kind and two numbers of it"),
        (("linear", 1, 2, 3), "is not a kind and two numbers of it"),
        (("linear", 0.0, math.inf), "is not a kind and two numbers of it"),
        (("int", False, True), "is not a kind and two numbers of it"),
        ([1, 2], "is neither"),
        ("log", "is neither"),
    ],
)
def test_what_is_no_space_is_named(entry: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        read({"a": entry}, "Loss")


@pytest.mark.parametrize("name", [*LOSSES, *(n for n in REFERENCES if REFERENCES[n].space)])
def test_every_loss_and_reference_can_be_tuned(name: str) -> None:
    kind = "losses" if name in LOSSES else "references"
    [contender] = contenders(Study.model_validate(study(losses=[]).model_dump() | {kind: [name]}))
    assert set(contender.space) >= (set(COMMON) if kind == "losses" else set())
    for number in range(8):
        assert contender.takes(quasi_random(contender.space, number, 8, seed=0))


@pytest.mark.parametrize("kind", ["log", "linear", "int", "log_int"])
def test_values_fill_a_range_and_stay_within_it(kind: Any) -> None:
    a_range = Range(kind, 2, 9)
    values = [a_range.at(u) for u in np.linspace(0, 1, 101)]
    assert (min(values), max(values)) == (2, 9)
    assert values == sorted(values, key=float)
    if a_range.whole:
        assert {type(v) for v in values} == {int} and set(values) == set(range(2, 10))
    assert a_range.side(2) == -1 and a_range.side(9) == 1 and a_range.side(5) == 0


def test_an_edge_moves_by_a_quarter_of_the_range_as_declared() -> None:
    declared = Range("log", 0.01, 1.0)
    once = declared.widened(1, declared)
    assert once == Range("log", 0.01, 3.162)
    assert once.widened(1, declared).high == pytest.approx(10, rel=1e-3)
    assert declared.widened(-1, declared).low == 0.003162
    assert Range("log_int", 1, 100).widened(-1, Range("log_int", 1, 100)).low == 1
    assert Range("int", 0, 8).widened(1, Range("int", 0, 8)).high == 11


# The proposals


def test_the_first_points_are_the_same_for_all_losses_and_even() -> None:
    entered = contenders(study(losses=["sl", "bsl", "bpr", "mse"]))
    points = {c.name: [quasi_random(c.space, n, 8, seed=5) for n in range(8)] for c in entered}
    common = [[{k: p[k] for k in COMMON} for p in own] for own in points.values()]
    assert all(own == common[0] for own in common)
    assert [p["tau"] for p in points["sl"]] == [p["tau"] for p in points["bsl"]]
    for name, entry in COMMON.items():  # one in each eighth of every range
        assert isinstance(entry, Range)
        values = sorted(float(p[name]) for p in common[0])
        for i, value in enumerate(values):
            assert float(entry.at(i / 8)) * 0.999 <= value <= float(entry.at((i + 1) / 8)) * 1.001
    lr_and_tau = [(p["lr"], p["tau"]) for p in points["sl"]]
    other = [quasi_random(entered[0].space, n, 8, seed=6) for n in range(8)]
    assert lr_and_tau != [(p["lr"], p["tau"]) for p in other]


def test_a_proposal_depends_on_seed_loss_number_and_history_alone() -> None:
    space = contenders(study())[0].space
    rng = np.random.default_rng(0)
    history = [trial(n, rng.random(4).tolist(), **quasi_random(space, n, 4, 0)) for n in range(4)]
    first = proposal(space, history, 6, 4, 0, "sl")
    assert first == proposal(space, history, 6, 4, 0, "sl")
    others = [(7, 4, 0, "sl"), (6, 4, 1, "sl"), (6, 4, 0, "bsl")]
    assert all(first != proposal(space, history, *other) for other in others)
    upside_down = [trial(t.number, [1 - t.score], **t.params) for t in history]
    assert first != proposal(space, upside_down, 6, 4, 0, "sl")


def test_a_space_of_too_many_parameters_is_refused() -> None:
    space = {f"p{i}": Range("linear", 0.0, 1.0) for i in range(27)}
    with pytest.raises(ConfigError, match="a space of 27 parameters: at most 26"):
        quasi_random(space, 0, 8, 0)


def test_the_space_is_widened_where_the_best_lies_on_its_edge_and_the_loss_goes_along() -> None:
    [contender] = contenders(study(losses=["sl"]))
    middle = {"lr": 1e-3, "l2": 1e-4, "dropout": 0.2, "tau": 0.2}
    history = [
        trial(0, [0.1], **middle),
        trial(1, [0.3], **middle | {"lr": 0.029, "dropout": 0.0}),
        trial(2, [0.2], **middle | {"tau": 1.0}),
    ]
    space, steps = widened(contender.space, history, 2, contender.takes)
    told = [[step.told(n, lag=2) for step in steps] for n in (3, 4)]
    widening = "lr widened up from 0.03 to 0.1249 after 2 trials"
    assert told == [[f"{widening}, too late for any"], [widening]]
    assert space["lr"] == Range("log", 1e-4, 0.1249)
    assert space["dropout"] == COMMON["dropout"]  # no rate below 0
    assert widened(contender.space, history[:1], 2, contender.takes)[0] == contender.space
    failed = [trial(0, [], "failed", **middle)] * 2
    assert widened(contender.space, failed, 2, contender.takes)[1] == []


def test_the_bar_is_the_median_of_best_values_so_far() -> None:
    history = [
        trial(0, [0.1, 0.4, 0.2, 0.2, 0.2, 0.2, 0.2, 0.2]),
        trial(1, [0.2, 0.1, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8]),
        trial(2, [0.1, 0.5]),  # stopped early
        trial(3, [0.0, 0.1], "pruned"),
        trial(4, [0.3, 0.3, 0.9, 0.9, 0.9, 0.9, 0.9, 0.9]),
        trial(5, [], "failed"),
    ]
    bar = bar_of(history, epochs=8)
    assert list(bar) == [1, 2, 3, 4, 5, 6]  # a quarter to warm up, and the last is seen through
    assert bar[1] == 0.3 and bar[2] == pytest.approx((0.4 + 0.5) / 2)
    assert fallen({0: 0.0, 1: 0.29}, bar) == 1 and fallen({0: 0.35, 1: 0.0, 2: 0.5}, bar) is None
    assert bar_of(history[:3], epochs=8) == {}


# The search


def test_a_study_is_the_same_whatever_runs_it(tmp_path: Path) -> None:
    watcher = Silent()
    alone = tuned(study(), tmp_path / "a", 7, watcher)
    assert [len(ended) for ended in alone.values()] == [7, 7]
    assert len(watcher.made) == 14 and "sl, trial 6" in watcher.started_titles
    assert essence(tuned(study(), tmp_path / "b", 7, jobs=2)) == essence(alone)
    assert essence(tuned(study(), tmp_path / "a", 7, again := Silent())) == essence(alone)
    assert not again.started_titles
    shorter = tuned(study(), tmp_path / "a", 3)
    assert essence(shorter) == [e for e in essence(alone) if e[1] < 3]


def test_trials_are_runs_of_the_store_scored_on_valid(tmp_path: Path) -> None:
    made = tuned(study(losses=["sl"], prune=False), tmp_path, 2)
    for one in made["sl"]:
        run = Store(tmp_path).run(one.cell)
        assert run.info()["canonical"]["seed"] == 1000
        assert run.info()["canonical"]["train"]["l2_negatives"] is False
        valid = [
            r for r in run.metrics() if (r["split"], r["metric"], r["k"])[:2] == ("valid", "Recall")
        ]
        assert one.score == float(next(r["value"] for r in valid if r["k"] == "20"))


def test_trials_of_one_loss_do_not_prune_those_of_another(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(MINE)
    losses = ["sl", f"{tmp_path / 'mine.py'}:Deaf"]
    made = tuned(study(losses=losses, set={"Deaf.l2": 0.0}), tmp_path, 7)
    assert fallen(made["Deaf"][6].curve, bar_of(made["sl"], FIXED["epochs"])) is not None
    assert {t.state for t in made["Deaf"]} == {"complete"}
    assert "pruned" in {t.state for t in made["sl"]}
    pruned = next(t for t in made["sl"] if t.state == "pruned")
    run = Store(tmp_path).run(pruned.cell)
    assert not run.whole() and not run.file("state.pt").exists()
    assert len(pruned.curve) < FIXED["epochs"]


def test_a_study_of_another_version_of_a_loss_takes_another_name() -> None:
    asked = study(losses=["bc"])
    new = record(asked, contenders(asked))
    assert new["loss"]["bc"]["version"] == 2
    del new["loss"]["bc"]["version"]
    with pytest.raises(ConfigError, match="bc has version = None, not 2; give another --name"):
        merged(new, record(asked, contenders(asked)), "study.toml")


def test_a_failed_trial_counts_and_hopeless_losses_end_the_study(tmp_path: Path) -> None:
    path = tmp_path / "mine.py"
    path.write_text(MINE.replace("THRESHOLD", "0.7"))
    asked = study(losses=[f"{path}:Fragile"], startup=4)
    made = tuned(asked, tmp_path, 4)["Fragile"]
    states = {t.params["a"] < 0.7: t.state for t in made}
    assert states[False] == "failed" and states[True] != "failed"
    assert all("non-finite" in t.reason for t in made if t.state == "failed")
    path.write_text(MINE.replace("THRESHOLD", "0"))
    with pytest.raises(ConfigError, match="Fragile has changed since; give another --name"):
        tuned(asked, tmp_path, 4)
    with pytest.raises(RunFailed, match="Fragile: its first 4 trials failed: non-finite"):
        tuned(asked.model_copy(update={"name": "other"}), tmp_path, 5)


@pytest.mark.parametrize(("n_lost", "state"), [(2, "complete"), (3, "failed")])
def test_a_trial_whose_process_is_lost_is_tried_again(
    tmp_path: Path, n_lost: int, state: str
) -> None:
    lost: Counter[str] = Counter()

    def execute(jobs: Iterable[Job], listener: Listener, stop: Stop) -> None:
        for job in jobs:
            listener.started(job.cell)
            lost[job.cell.id] += 1
            gone = lost[job.cell.id] <= n_lost
            listener.ended(job, Result("lost", "killed") if gone else perform(job, stop))

    asked = study(losses=["sl"], prune=False)
    Ledger(tmp_path / asked.name).open(asked, contenders(asked))
    made = search(asked, contenders(asked), Budget(2), Store(tmp_path), Silent(), execute)["sl"]
    assert [trial.state for trial in made] == [state] * 2
    assert set(lost.values()) == {3} and made[0].reason == ("killed" if state == "failed" else "")


def test_a_trial_that_another_process_is_at_is_waited_for(tmp_path: Path) -> None:
    class Waiting(Silent):
        def waiting(self, n_trials: int) -> None:
            assert n_trials == 2 and not self.started_titles
            raise StopIteration

    asked = study(losses=["sl"], lag=1)
    [entered] = contenders(asked)
    first = proposal(entered.space, [], 0, asked.startup, asked.seed, "sl")
    with Store(tmp_path).run(entered.trial(first).id).claim(), pytest.raises(StopIteration):
        tuned(asked, tmp_path, 2, Waiting())
    assert len(tuned(asked, tmp_path, 2)["sl"]) == 2


def test_a_damaged_database_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "study.db").write_text("no database, but long enough to be looked at" * 100)
    with pytest.raises(DataError, match=r"study\.db is damaged: "):
        Ledger(tmp_path).trials("sl")


def test_asking_for_a_loss_does_not_enter_it(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)
    ledger.add("sl", trial(0, [0.1]), {})
    before = (tmp_path / "study.db").read_bytes()
    assert ledger.trials("bpr") == [] and (tmp_path / "study.db").read_bytes() == before


def test_a_folder_holds_one_study(tmp_path: Path) -> None:
    Ledger(tmp_path / "study").open(study(), contenders(study()))
    assert Ledger(tmp_path / "study").trials("sl") == []
    assert not (tmp_path / "study" / "study.db").exists()  # asking makes nothing
    (tmp_path / "grid").mkdir()
    (tmp_path / "grid" / "grid.toml").write_text("")
    with pytest.raises(ConfigError, match="grid has results of a grid; give another --name"):
        Ledger(tmp_path / "grid").open(study(), contenders(study()))
    more = study(losses=["sl", "mse"], references=["popularity"])
    Ledger(tmp_path / "study").open(more, contenders(more))
    (tmp_path / "study" / "trials.csv").write_text("loss,trial\n")  # none has been made
    Ledger(tmp_path / "study").open(more, contenders(more))
    (tmp_path / "study" / "trials.csv").write_text("loss,trial\nsl,0\n")
    with pytest.raises(ConfigError, match=r"study has trials, but not the study\.db that"):
        Ledger(tmp_path / "study").open(more, contenders(more))
    assert Ledger(tmp_path / "study").asked() == (["sl", "bpr", "mse"], ["popularity"])
    other = study(set={"epochs": 5})
    with pytest.raises(ConfigError, match=r"this study has set = .*give another --name"):
        Ledger(tmp_path / "study").open(other, contenders(other))
    other = study(set={"sl.tau": 0.2})
    with pytest.raises(ConfigError, match=r"sl has set = \{\}, not \{'tau': 0.2\}; give another"):
        Ledger(tmp_path / "study").open(other, contenders(other))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"open": ["score"], "set": {"score_train": "inner"}}, "score is open, and score_train"),
        ({"set": {"sll.tau": 0.1}}, "--set sll.: no such loss in the study; did you mean 'sl'"),
        ({"losses": ["bpr"], "set": {"lr": 0.1, "l2": 0.0, "dropout": 0.0}}, "nothing to tune"),
        ({"set": {"taw": 1}}, "has a 'taw'; did you mean 'tau'"),
        ({"losses": [], "references": ["popularity"], "set": {}}, "nothing to tune"),
    ],
)
def test_what_cannot_be_a_study_is_named(changes: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        contenders(study(**changes))


def test_settings_can_be_fixed_for_one_loss_or_opened_for_all() -> None:
    asked = study(set={"bpr.n_negatives": 1, "sl.tau": 0.2}, open=["score", "scale"])
    sl, bpr = contenders(asked)
    assert "tau" not in sl.space and sl.cell.loss_params == {"tau": 0.2}
    assert "scale" in bpr.space and "scale" not in sl.space  # a temperature takes its place
    assert bpr.cell.train is not None and bpr.cell.train.n_negatives == 1
    made = bpr.trial({"score": "cosine", "scale": 4.0, "lr": 0.02}).flat()
    assert (made["score_train"], made["score_test"], made["scale"]) == ("cosine", "cosine", 4.0)


def test_seconds_are_shared_out_in_whole_rounds(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)
    budget = Budget(seconds=10.0, guess={"a": 1.0, "b": 2.0})

    def spent(n_a: int, n_b: int) -> dict[str, list[Trial]]:
        cheap = [Trial(n, {}, "", "complete", {0: 0.1}, 1.0) for n in range(n_a)]
        dear = [Trial(n, {}, "", "complete", {0: 0.1}, 3.0) for n in range(n_b)]
        return {"a": cheap, "b": dear}

    assert rounds_of(spent(0, 0), budget, 2, ledger) == 2
    assert rounds_of(spent(2, 1), budget, 2, ledger) == 2  # 5 spent, 3 to come, 4 too much
    assert rounds_of(spent(2, 2), budget, 2, ledger) == 2
    assert rounds_of(spent(2, 2), Budget(seconds=12.0), 2, ledger) == 3
    # Trials that are there without rounds.json, of a study that was copied or had no budget.
    bare = Ledger(tmp_path / "bare")
    assert rounds_of(spent(3, 3), budget, 2, bare) == 3
    with pytest.raises(ConfigError, match="a trial of each loss takes about 3 s, more than"):
        rounds_of(spent(0, 0), Budget(seconds=2.0, guess=budget.guess), 2, Ledger(tmp_path / "b"))


# The outcome


def test_the_best_settings_are_presets_that_runs_cite(tmp_path: Path) -> None:
    asked = study(set={"bpr.n_negatives": 2}, open=["score"])
    entered = contenders(asked)
    made = tuned(asked, tmp_path, 3)
    folder = tmp_path / asked.name
    write_outcome(asked, entered, made, folder)
    best = best_of(made["bpr"])
    assert best is not None
    cells = expand(final_grid(asked, 2, folder))
    plain = Grid(
        name="plain", datasets=[SMALL], losses=["sl", "bpr"], seeds=2, presets=str(folder / TUNED)
    )
    assert [cell.id for cell in cells] == [cell.id for cell in expand(plain)]
    bpr = cells[2]
    assert bpr.seed == 0 and bpr.train is not None and bpr.train.n_negatives == 2
    assert bpr.train.lr == best.params["lr"] and bpr.train.score_test == best.params["score"]
    assert bpr.origin["lr"] == f"tuned (study, trial {best.number}) preset"
    with pytest.raises(ConfigError, match="1000 is the seed of the study's trials"):
        final_grid(asked, [0, 1000], folder)
    told = efforts(folder)["bpr"]  # whose parameter is called like a column, the score of a trial
    assert told.number == best.number and told.best["score"] == best.params["score"]


def test_where_every_trial_has_failed_the_reason_is_said(tmp_path: Path) -> None:
    entered = contenders(study(losses=["sl"]))
    failed = [Trial(0, {}, "cell", "failed", {}, 1.0, "non-finite loss")]
    with pytest.raises(RunFailed, match=r"no trial of study 'study' was finished: non-finite loss"):
        write_outcome(study(losses=["sl"]), entered, {"sl": failed}, tmp_path)
    [told] = efforts(tmp_path).values()
    assert (told.counts, told.number) == ("1 (1 failed)", None)


# Killed, and side by side

WORKER = """
import sys
from pathlib import Path
from tests.test_tune import study, tuned
tuned(study(), Path(sys.argv[1]), int(sys.argv[2]))
"""


@pytest.fixture
def worker(tmp_path: Path) -> Iterator[Any]:
    begun: list[subprocess.Popen[bytes]] = []

    def begin(root: Path, rounds: int) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-c", WORKER, str(root), str(rounds)]
        begun.append(subprocess.Popen(command, cwd=Path(__file__).parents[1]))
        return begun[-1]

    yield begin
    for process in begun:
        process.kill()
        process.wait()


def test_killed_at_any_moment_it_goes_on_and_two_share_it(tmp_path: Path, worker: Any) -> None:
    root, rounds = tmp_path / "killed", 7
    process = worker(root, rounds)
    while len(list(root.glob("runs/*/metrics.csv"))) < 3:
        assert process.poll() is None
    process.send_signal(signal.SIGKILL)
    process.wait()
    finished = {path: path.stat().st_mtime_ns for path in root.glob("runs/*/metrics.csv")}
    other = worker(root, rounds)
    made = tuned(study(), root, rounds)
    assert other.wait() == 0
    assert {path: path.stat().st_mtime_ns for path in finished} == finished
    assert essence(made) == essence(tuned(study(), tmp_path / "whole", rounds))
    assert essence(made) == essence(
        {name: Ledger(root / "study").trials(name) for name in ("sl", "bpr")}
    )
