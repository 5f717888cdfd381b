"""A race before it runs and how it keeps to its budget: rungs, plan, agreement, clock."""

import json
import math
import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from bslbench import memory
from bslbench.config import Cell
from bslbench.engine.failures import record_failure
from bslbench.engine.grid_files import TRAILING, csv_text
from bslbench.engine.inputs import Options
from bslbench.engine.jobs import Job, Listener, Result, Stop
from bslbench.engine.race import clock as clocks
from bslbench.engine.race import prepare
from bslbench.engine.race.agreement import agreement, turned
from bslbench.engine.race.clock import Clock
from bslbench.engine.race.cost import OVERHEAD, Cost, side_by_side
from bslbench.engine.race.finals import Finals
from bslbench.engine.race.ladder import Race, Rung, entered, ladder, study
from bslbench.engine.race.plan import Plan, described, plan
from bslbench.engine.race.race import Outcome, run_race
from bslbench.engine.race.record import Folder, Record
from bslbench.engine.race.stages import promising
from bslbench.engine.status import overview
from bslbench.engine.store import Store, sha256
from bslbench.errors import ConfigError, DataError, RunFailed
from tests.races import DATA, SET, heat, means, planned, race

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


@pytest.mark.parametrize(
    ("backbone", "n_users", "n_items", "optimizer"),
    [
        ("mf", 60_000, 2_000, "adam"),
        ("mf", 70_000, 2_000, "adam_lazy"),
        ("mf", 60_000, 3_000, "adam_lazy"),  # of which a batch names at most 128 * 9
        ("lightgcn", 70_000, 3_000, "adam"),
    ],
)
def test_large_tables_are_trained_lazily(
    backbone: str, n_users: int, n_items: int, optimizer: str
) -> None:
    asked = race(backbone=backbone)
    rung = ladder(asked, Options())[-1]
    assert rung.batch_size == 128
    rung = rung.model_copy(update={"n_users": n_users, "items": n_items})
    trains = [c.cell.train for c in entered(study(asked, 1, rung, 4, []), rung, Options())]
    assert {train.optimizer for train in trains if train} == {optimizer}


@pytest.mark.parametrize(
    ("fixed", "message"),
    [
        ({"logq": True}, "--set, sl on mf: logq acts on in_batch negatives only"),
        ({"lr": 0.1, "l2": 0.0, "tau": 0.1}, "--set: all of sl is set: nothing to tune"),
    ],
)
def test_settings_that_do_not_go_together_are_named(fixed: Any, message: str) -> None:
    asked = race(losses=["sl"], set=SET | fixed)
    with pytest.raises(ConfigError, match=f"^{message}$"):
        prepare.planned(asked, Options(), 1e6, 1, 10)


COUNTING = ("bc", "adap_tau", "tce", "sl_at_k", "advinfonce")


def counted(epochs: int, **fixed: Any) -> dict[str, Any]:
    """What the losses that count epochs or steps count to, in a race of so many epochs."""
    asked = race(losses=[*COUNTING], set={"batch_size": 256} | fixed)
    rung = ladder(asked, Options())[-1]
    made = entered(study(asked, 1, rung, epochs, []), rung, Options())
    names = ("warmup", "warmup", "ramp", "every", "adv_every")
    return {c.name: c.cell.loss_params[at] for c, at in zip(made, names, strict=True)}


def test_what_a_loss_counts_in_epochs_or_steps_ends_within_a_quarter_of_the_training() -> None:
    steps = math.ceil(ladder(race(), Options())[-1].pairs / 256)

    def each(bc: int, adap_tau: int, tce: int, others: int) -> dict[str, int]:
        every = {"sl_at_k": others, "advinfonce": others}
        return {"bc": bc, "adap_tau": adap_tau, "tce": tce} | every

    assert counted(4) == each(1, 1, steps, 1)
    assert counted(20) == each(5, 5, 5 * steps, 5)
    assert counted(40) == each(5, 10, 10 * steps, 5)
    assert counted(4, warmup=3, **{"tce.ramp": 7}) == each(3, 3, 7, 1)


def test_what_a_loss_counts_is_not_tuned_in_a_race() -> None:
    asked = race(losses=["sl_at_k"])
    rung = ladder(asked, Options())[-1]
    [made] = entered(study(asked, 1, rung, 20, []), rung, Options())
    assert made.space.keys() == {"lr", "l2", "tau", "tau_w"}


def test_the_plan_says_what_is_shortened() -> None:
    asked = race(losses=["bc", "sl"])
    assert "held to a quarter of the training: bc.warmup = 1" in described(asked, planned(asked), 1)
    assert "quarter" not in described(race(), planned(race()), 1)


WRONG = """
from bslbench.losses import SL

class Mine(SL):
    counted = {COUNTED}
"""


@pytest.mark.parametrize("wrong", ['{"warm": "epochs"}', '{"tau": "hours"}'])
def test_a_count_that_cannot_be_meant_is_named(tmp_path: Path, wrong: str) -> None:
    (tmp_path / "mine.py").write_text(WRONG.replace("{COUNTED}", wrong))
    with pytest.raises(ConfigError, match=r"Mine: counted: .* no parameter in epochs or steps"):
        described(asked := race(losses=[f"{tmp_path / 'mine.py'}:Mine"]), planned(asked), 1)


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
    budgets = [700.0, 1500.0, 3000.0, 9000.0, 30_000.0]
    found = [made(budget) for budget in budgets]
    for budget, one in zip(budgets, found, strict=True):
        assert one.seconds <= 0.8 * budget
        assert sorted(one.ends) == one.ends and one.ends[0] > 0 and one.ends[-1] < 1
    epochs = [one.epochs for one in found]
    assert epochs == sorted(epochs) and epochs[0] < 8 and epochs[-1] == 20
    assert found[0].finalists <= found[-1].finalists == 3
    assert [rung.rounds for rung in found[-1].rungs] == [32, 8, 2, 1]
    assert found[-1].entering == 5
    assert made(1500.0, jobs=2).epochs > made(1500.0).epochs
    assert made(9000.0, epochs=5).epochs == 5


def test_what_an_answer_takes_comes_before_a_third_finalist() -> None:
    found = [made(float(budget)) for budget in range(450, 3000, 25)]
    epochs, settings = [one.epochs for one in found], [one.rungs[0].rounds for one in found]
    answers = [e >= 8 and n >= 8 for e, n in zip(epochs, settings, strict=True)]
    first = answers.index(True)
    assert all(answers[first:])
    assert (epochs[first], settings[first], found[first].finalists) == (8, 8, 2)
    assert epochs[:first] == sorted(epochs[:first])  # else as many epochs as there can be


def test_a_budget_that_is_too_short_is_told_the_least() -> None:
    with pytest.raises(
        ConfigError, match=r"a budget of 60 s is too short: the least is \d+"
    ) as told:
        made(60.0)
    least = made(1e5).least
    assert f"{least / 60:.1f} min" in str(told.value)
    assert made(least + 1).epochs == 4


@pytest.mark.parametrize(("pairs", "epochs"), [(8 * 399, 4), (8 * 534, 3), (8 * 1600, 1)])
def test_where_epochs_are_long_few_are_enough(pairs: int, epochs: int) -> None:
    asked = Race(name="x", dataset="d", fingerprint="", losses=list("abcde"))
    rungs = [rung.model_copy(update={"pairs": pairs}) for rung in RUNGS]
    least = plan(asked, rungs, COSTS, ["ease"], {}, 1e5, 1, 10).least
    found = plan(asked, rungs, COSTS, ["ease"], {}, least + 1, 1, 10)
    assert (found.epochs, found.finalists, found.rungs[0].rounds) == (epochs, 2, 4)


def test_the_plan_knows_that_a_core_may_stand_idle() -> None:
    asked = Race(name="x", dataset="d", fingerprint="", losses=list("abc"), set={"epochs": 4})
    costs = {name: [Cost(epoch=1.0), Cost(epoch=10.0)] for name in "abc"}
    least = plan(asked, RUNGS[-2:], costs, [], {}, 1e5, 2, 2).least
    part, whole = OVERHEAD + 4.0, OVERHEAD + 40.0
    # four settings of three, one of three, two seeds of two, one run of all data
    assert least == pytest.approx((6 * part + (2 + 2 + 1.25) * whole) / 0.8)


@pytest.mark.parametrize(("free", "jobs"), [(None, 4), (10_000, 4), (2_500, 2), (500, 1)])
def test_runs_stand_side_by_side_as_memory_allows(
    monkeypatch: pytest.MonkeyPatch, free: int | None, jobs: int
) -> None:
    monkeypatch.setattr(memory, "available", lambda: None if free is None else free * 2**20)
    costs = {"sl": [Cost(1.0, megabytes=400.0), Cost(2.0, megabytes=1000.0)], "ials": [Cost()]}
    assert side_by_side(costs, 4) == jobs


def test_a_rung_that_saves_too_little_is_left_out_if_the_budget_allows() -> None:
    costs = {name: [Cost(epoch=each) for each in (3.0, 3.5, 4.0, 10.0)] for name in "abcde"}
    asked = Race(name="x", dataset="d", fingerprint="", losses=list("abcde"), set={"epochs": 4})

    def shares(budget: float) -> list[str]:
        return [rung.share for rung in plan(asked, RUNGS, costs, [], {}, budget, 1, 2).rungs]

    assert shares(1e5) == ["25%", "100%"]
    last = 2 * 5 + 2 * 3 + 1.25  # two settings, two seeds of three, all data
    trimmed = OVERHEAD * (8 * 5 + last) + 4 * (4.0 * 8 * 5 + 10.0 * last)
    assert shares(trimmed / 0.8 + 1) == ["25%", "100%"]
    assert shares(trimmed / 0.8 - 1) == ["1%", "5%", "25%", "100%"]


def test_fewer_epochs_are_better_than_small_samples_unless_they_are_too_few() -> None:
    costs = {name: [Cost(epoch=each) for each in (2.9, 3.0, 5.0, 12.0)] for name in "abcde"}

    def found(budget: float, **fixed: int) -> tuple[int, int]:
        asked = Race(name="x", dataset="d", fingerprint="", losses=list("abcde"), set=fixed)
        made = plan(asked, RUNGS, costs, [], {}, budget, 1, 2)
        return made.epochs, len(made.rungs)

    per_epoch = 5.0 * 8 * 5 + 12.0 * (2 * 5 + 2 * 3 + 1.25)  # on two rungs, and two seeds of three
    assert found(10.3 * per_epoch / 0.8) == (10, 2)
    assert found(10.3 * per_epoch / 0.8, epochs=12) == (12, 4)  # that would have been possible
    assert found(6.0 * per_epoch / 0.8) == (8, 4)


def test_what_is_set_for_a_reference_that_is_left_out_is_no_error() -> None:
    asked = race(set=SET | {"ease.lam": 500.0})
    rung = ladder(asked, Options())[-1]
    assert "ease.lam" not in study(asked, 0, rung, 4, ["ials"]).set
    assert study(asked, 0, rung, 4, ["ease"]).set["ease.lam"] == 500.0


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


@pytest.mark.parametrize(
    ("last", "leads"),
    [
        ({"sl": [0.3], "bpr": [0.25]}, {"bpr": 0.25}),
        ({"sl": [0.3, 0.1], "bpr": [0.25, 0.1]}, {}),  # two settings of each
        ({"sl": [0.3], "ials": [0.4]}, {}),  # what has left has not been tried on all users
    ],
)
def test_an_order_has_turned_if_one_setting_says_so(
    last: Mapping[str, Sequence[float]], leads: Mapping[str, float]
) -> None:
    before = heat({"sl": [0.2], "bpr": [0.25], "ials": [0.3]})
    assert turned([before, heat(last)], "sl") == pytest.approx(leads)
    assert turned([heat(last)], "sl") == {}


@pytest.mark.parametrize(
    ("before", "now", "leads"),
    [
        (0.2009, 0.2999, {}),  # less than the smallest effect
        (0.202, 0.293, {}),  # .002, and .007 behind now
        (0.204, 0.293, {"bpr": 0.02}),
        (0.204, 0.301, {"bpr": 0.02}),  # final seeds alone have made the other the pick
    ],
)
def test_a_lead_that_is_small_is_none(
    before: float, now: float, leads: Mapping[str, float]
) -> None:
    heats = [heat({"sl": [0.2], "bpr": [before]}), heat({"sl": [0.3], "bpr": [now]})]
    assert turned(heats, "sl") == pytest.approx(leads)


# The budget


class Now:
    """A clock that goes by what is run, and an executor whose runs take ten seconds and a hash.

    Unless `takes` has other seconds for a loss. What `fails` says has failed.
    """

    def __init__(self) -> None:
        self.time = 0.0
        self.jobs: list[str] = []
        self.dies_at = -1
        self.takes: dict[str, float] = {}
        self.fails: Callable[[Cell], bool] = lambda cell: False

    def __call__(self) -> float:
        return self.time

    def execute(self, jobs: Iterable[Job], listener: Listener, stop: Stop) -> None:
        for job in jobs:
            if stop():
                return
            if len(self.jobs) == self.dies_at:
                raise KeyboardInterrupt  # as good as a kill: nothing is told of it
            listener.started(job.cell)
            failed = self.fails(job.cell)
            seconds = self.takes.get(job.cell.loss, 10.0)
            if failed:
                job.run.folder.mkdir(parents=True, exist_ok=True)
                record_failure(job.run, "broken")
            else:
                pretend(job, seconds)
            self.jobs.append(job.cell.id)
            self.time += seconds
            listener.ended(job, Result("failed", "broken") if failed else Result("trained"))


def pretend(job: Job, seconds: float) -> None:
    """Leave behind what a finished run does, but for its ranks."""
    value = int(sha256(job.cell.id.encode())[:8], 16) / 16**8
    names = {"metric": "Recall", "k": 20, "group": "", "value": value}
    metrics = csv_text(TRAILING, [names | {"split": split} for split in ("valid", "test")])
    outcome = {f"seconds_{phase}": 0.0 for phase in ("load", "eval", "test")}
    info = {
        "canonical": json.loads(job.cell.canonical()),
        "metrics_sha256": sha256(metrics.encode()),
    }
    info |= {"origin": {}, "outcome": outcome | {"seconds_train": seconds - OVERHEAD}}
    job.run.folder.mkdir(parents=True)
    for name, content in (
        ("run.json", json.dumps(info)),
        ("curve.csv", f"epoch,recall\n1,{value}\n"),
        ("model.safetensors", ""),
        ("metrics.csv", metrics),
    ):
        job.run.file(name).write_text(content)


def timed(
    root: Path, now: Now, budget: float, dies_at: int = -1, before: float = 0.0, **changes: Any
) -> tuple[Outcome | None, Clock]:
    asked = race()
    now.dies_at = dies_at
    how = means(root, asked, now.execute, budget)
    how.execute.clock.begun = now()
    now.time += before
    record = how.folder.read(asked) or Record(race=asked, plan=planned(asked, **changes))
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
    # 12 trials, all of them once more; two seeds of three and a reference that runs once; another
    assert outcome.record.done == {"rung-0": 4, "rung-1": 4, "seeds": 3}
    assert clock.spent() == 10.0 * (12 + 12 + 7 + 3) <= 0.9 * 400.0
    longer, clock = timed(tmp_path, now, 500.0)  # the same command with a larger budget goes on
    assert longer is not None
    assert longer.record.done == {"rung-0": 4, "rung-1": 4, "seeds": 6}
    assert clock.spent() == 340.0 + 90.0
    assert len(set(now.jobs)) == len(now.jobs)  # and trains nothing twice


def test_the_last_rung_tries_more_settings_if_seeds_have_time_after_them(
    tmp_path: Path, now: Now
) -> None:
    planned_, _ = timed(tmp_path / "planned", now, 280.0)  # 180 of 252 s: a setting, but no seeds
    assert planned_ is not None and planned_.record.done["rung-1"] == 2
    assert planned_.heats[-1].round_seconds == pytest.approx(30.0)
    outcome, clock = timed(tmp_path / "more", now, 340.0)
    assert outcome is not None and clock.spent() == 280.0 <= 0.9 * 340.0
    assert outcome.record.done == {"rung-0": 4, "rung-1": 3, "seeds": 2}
    for name, tried in outcome.heats[-1].trials.items():
        order = [trial.number for trial in outcome.heats[0].best(name, None)]
        assert [trial.number for trial in tried] == order[:3]
    for final in outcome.finals.losses:
        assert final.params == outcome.heats[-1].best(final.name)[0].params


def test_a_race_on_all_users_alone_tries_more_settings_too(tmp_path: Path, now: Now) -> None:
    whole = ladder(race(), Options())[-1].model_copy(update={"rounds": 2})
    outcome, clock = timed(tmp_path, now, 280.0, rungs=[whole], ends=[0.7, 0.9])
    assert outcome is not None
    assert outcome.record.done == {"rung-0": 5, "seeds": 3}
    assert clock.spent() == 250.0 <= 0.9 * 280.0
    assert {len(own) for own in outcome.heats[0].trials.values()} == {5}


@pytest.mark.parametrize("before", [0.0, 17.0])  # seconds of each call until it has the data
def test_a_budget_that_is_named_for_another_setting_has_it(
    tmp_path: Path, now: Now, before: float
) -> None:
    outcome, _ = timed(tmp_path, now, 280.0, rounds=(4, 1), before=before)
    assert outcome is not None and outcome.heats[-1].settings == 1
    larger = outcome.budget_for_setting()
    assert larger is not None
    again, clock = timed(tmp_path, now, larger, before=before)
    assert again is not None and again.heats[-1].settings == 2
    assert clock.spent() <= larger


@pytest.mark.parametrize("alone", [False, True])
@pytest.mark.parametrize("count", [4, 10])
def test_a_budget_that_is_named_for_seeds_has_them(
    tmp_path: Path, now: Now, alone: bool, count: int
) -> None:
    whole = ladder(race(), Options())[-1].model_copy(update={"rounds": 2})
    plans: dict[str, Any] = {"rungs": [whole], "ends": [0.7, 0.9]} if alone else {"rounds": (4, 1)}
    outcome, _ = timed(tmp_path, now, 280.0, before=2.0, **plans)
    assert outcome is not None and len(outcome.pick.runs) == 3
    larger = outcome.budget_for_seeds(count)
    again, clock = timed(tmp_path, now, larger, before=2.0)
    assert again is not None and len(again.pick.runs) >= count
    assert clock.spent() <= larger


def test_a_larger_budget_that_is_cut_off_spends_no_more_on_settings(
    tmp_path: Path, now: Now
) -> None:
    outcome, _ = timed(tmp_path, now, 280.0, rounds=(4, 1))
    assert outcome is not None
    larger = outcome.budget_for_seeds(10)
    assert timed(tmp_path, now, larger, dies_at=len(now.jobs) + 8)[0] is None
    again, _ = timed(tmp_path, now, larger)
    assert again is not None and again.heats[-1].settings == 2
    assert len(again.pick.runs) == 10


def test_seeds_take_what_the_longest_run_leaves_idle() -> None:
    finals = Finals((), (), {}, [60.0, 60.0, 60.0, 5.0], 2)
    assert [finals.time(count) for count in (0, 1, 2)] == [0.0, 120.0, 185.0]


@pytest.mark.parametrize("seed", [1, 3])
def test_what_fails_in_the_final_runs_leaves_them(tmp_path: Path, now: Now, seed: int) -> None:
    now.fails = lambda cell: (cell.loss, cell.seed) == ("bpr", seed)
    outcome, _ = timed(tmp_path, now, 500.0)
    assert outcome is not None
    assert [final.name for final in outcome.finals.losses] == ["sl"]
    assert outcome.finals.failed == {"bpr": "broken"}
    assert outcome.left() == [] and len(outcome.pick.runs) > 4
    made = len(now.jobs)
    longer, _ = timed(tmp_path, now, 700.0)
    assert longer is not None and len(longer.pick.runs) == 10
    assert {cell.split("-")[3] for cell in now.jobs[made:] if "-bpr-" in cell} <= {f"s{seed}"}


def test_where_nothing_can_be_trained_time_is_not_spent_on_more(tmp_path: Path, now: Now) -> None:
    now.fails = lambda cell: cell.loss in ("sl", "bpr")
    whole = ladder(race(), Options())[-1].model_copy(update={"rounds": 2})
    with pytest.raises(RunFailed, match="no loss could be trained"):
        timed(tmp_path, now, 1e6, rungs=[whole], ends=[0.7, 0.9])
    assert len(now.jobs) == 2 * 3


def test_what_has_left_the_race_has_no_settings_left() -> None:
    first = heat({"sl": [0.1, 0.2], "bpr": [0.2, 0.1]})
    later = heat({"sl": [0.3], "bpr": [0.3]}, failed=["bpr"])
    assert [trial.number for trial in promising([first, later], "sl")] == [0, 1]
    assert promising([first, later], "bpr") == []


def test_a_short_budget_cuts_all_losses_alike_but_not_below_the_least(
    tmp_path: Path, now: Now
) -> None:
    outcome, clock = timed(tmp_path, now, 180.0)
    assert outcome is not None
    assert outcome.record.done == {"rung-0": 2, "rung-1": 1, "seeds": 2}
    assert {len(own) for own in outcome.heats[0].trials.values()} == {2}
    assert {len(own) for own in outcome.heats[1].trials.values()} == {1}
    assert clock.spent() == 200.0  # two runs of the first rung and two of the last came to nothing


def test_what_fails_on_a_later_rung_is_tried_once_and_leaves(tmp_path: Path, now: Now) -> None:
    now.fails = lambda cell: (cell.loss, cell.dataset) == ("bpr", DATA)
    outcome, _ = timed(tmp_path, now, 1000.0)
    assert outcome is not None
    assert outcome.heats[-1].fallen() == {"bpr": "broken"}
    assert [final.name for final in outcome.finals.losses] == ["sl"]
    assert outcome.record.done["rung-1"] == 4
    assert len(set(now.jobs)) == len(now.jobs)


@pytest.mark.parametrize("takes", [{}, {"sl": 13.0, "ials": 2.0}])
@pytest.mark.parametrize(
    ("budget", "dies_at"),
    [(400.0, 3), (400.0, 13), (400.0, 20), (400.0, 27), (380.0, 23), (490.0, 42)],
)  # the last two within the last setting and the last seed that there is time for
def test_killed_and_called_again_it_ends_with_the_same_budget_and_results(
    tmp_path: Path, now: Now, budget: float, dies_at: int, takes: dict[str, float]
) -> None:
    now.takes = takes
    whole, clock = timed(tmp_path / "whole", now, budget)
    spent, made = clock.spent(), now.jobs.copy()
    now.jobs.clear()
    assert timed(tmp_path / "cut", now, budget, dies_at)[0] is None
    now.time += 1000.0  # while nothing runs, nothing counts
    again, clock = timed(tmp_path / "cut", now, budget)
    assert whole is not None and again is not None
    assert again.record.done == whole.record.done
    assert clock.spent() == pytest.approx(spent)
    assert [(f.name, f.valid) for f in again.finals.losses] == [
        (f.name, f.valid) for f in whole.finals.losses
    ]
    assert sorted(now.jobs) == sorted(made)


def test_results_of_another_kind_are_left_alone(tmp_path: Path) -> None:
    (tmp_path / "grid.toml").write_text("")
    with pytest.raises(ConfigError, match="has results of a grid; give another --name"):
        prepare.begun(race(), Folder(tmp_path / "race"), lambda: planned(race()))
    (tmp_path / "grid.toml").unlink()
    (tmp_path / "race").mkdir()
    assert prepare.begun(race(), Folder(tmp_path / "race"), lambda: planned(race())).done == {}


def test_another_race_of_the_same_name_is_refused(tmp_path: Path) -> None:
    folder = Folder(tmp_path)
    folder.write(Record(race=race(), plan=planned(race())))
    assert folder.read(race()) is not None
    with pytest.raises(ConfigError, match=r"this race has losses = \['sl', 'bpr'\], not \['sl'\]"):
        folder.read(race(losses=["sl"]))


def test_a_run_that_a_decided_rung_rests_on_is_missed(tmp_path: Path, now: Now) -> None:
    outcome, _ = timed(tmp_path, now, 400.0)
    assert outcome is not None
    gone = Store(tmp_path).run(outcome.heats[-1].best("sl")[0].cell).folder
    shutil.rmtree(gone)
    with pytest.raises(DataError, match=f"{gone} is gone or damaged, .*give another --name"):
        timed(tmp_path, now, 400.0)


def test_the_trials_that_the_first_rung_rests_on_are_missed(tmp_path: Path, now: Now) -> None:
    outcome, _ = timed(tmp_path, now, 400.0)
    assert outcome is not None
    rung = tmp_path / outcome.record.race.name / "rung-0"
    shown = overview(tmp_path).splitlines()
    assert "trial/rung-0: study: 12 trials done, 4 of each of 3" in shown
    assert "trial/rung-1: 12 cells: 12 done" in shown
    (rung / "study.db").unlink()
    with pytest.raises(DataError, match=f"{rung} is gone or damaged, .*give another --name"):
        timed(tmp_path, now, 400.0)


def test_a_plan_is_made_from_what_is_measured(tmp_path: Path) -> None:
    asked = race()
    found = prepare.planned(asked, Options(), 1e6, 1, 10)
    assert found.epochs == 20 and found.rungs[0].rounds == 32
    assert found.references == ["popularity", "itemknn", "ease", "ials"]
    text = described(asked, found, 2)
    assert "sl, bpr on mf, 20 epochs each, 2 runs at a time" in text
    assert "820 (100%)" in text
