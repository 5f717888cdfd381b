"""The verdict: which loss, how sure, against what, and when it cannot be told."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bslbench.config import Cell
from bslbench.engine.grid_files import TRAILING, csv_text
from bslbench.engine.inputs import Options
from bslbench.engine.race.finals import Final, Finals
from bslbench.engine.race.heats import Heat
from bslbench.engine.race.ladder import entered, ladder, study
from bslbench.engine.race.race import Outcome
from bslbench.engine.race.record import Record
from bslbench.engine.status import span
from bslbench.engine.store import Run
from bslbench.evaluation.ranking import Ranks
from bslbench.report.choice import Verdict, verdict
from tests.races import heat, planned, race


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


def answered(
    root: Path,
    hits: Mapping[str, Any],
    heats: Sequence[Heat] = (),
    rounds: Sequence[int] = (8, 2),
    epochs: int = 8,
    tried: int = 8,
) -> Verdict:
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
    heats = heats or [heat({"sl": [0.2, 0.1], "bpr": [0.2, 0.1]})]
    plan = planned(race(), rounds=rounds, epochs=epochs)
    record = Record(race=race(), plan=plan, done={"rung-0": tried, "seeds": 4})
    finals = Finals(losses, references, {}, [10.0, 20.0], 1)
    return verdict(Outcome(record, heats, finals, budget=600.0, spent=600.0))


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
        f"Train with sl (tau 0.123, lr 0.01, 8 epochs): Recall@20 {recall:.4f} on test, "
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


def test_an_order_that_one_setting_has_turned_is_not_taken_for_an_answer(tmp_path: Path) -> None:
    hits = {"sl": drawn(0.6, 4, 400), "bpr": drawn(0.4, 4, 400)}
    before, last = heat({"sl": [0.2], "bpr": [0.25]}), heat({"sl": [0.3], "bpr": [0.25]})
    found = answered(tmp_path, hits, [before, replace(last, more=3, round_seconds=60.0)])
    assert found.losses["bpr"].word == "there" and not found.told
    which, sure, _ = found.sentences
    assert which.startswith("This budget cannot separate sl and bpr; first on validation is sl (")
    budget = (600.0 + 4 * 60.0 * 1.1) / 0.9
    assert sure.startswith("It is ahead of bpr by ")
    assert sure.endswith(
        "; but on 25% of the users bpr was ahead of it by 25.0 %, and on all of them each has had "
        f"one setting: another takes a budget of about {span(budget)} (--budget 16m)."
    )


@pytest.mark.parametrize(
    ("rounds", "epochs", "tried"), [((4, 1), 8, 4), ((8, 2), 8, 7), ((8, 2), 4, 8)]
)
def test_a_short_race_gives_no_answer_and_says_what_does(
    tmp_path: Path, rounds: Sequence[int], epochs: int, tried: int
) -> None:
    hits = {"sl": drawn(0.6, 4, 400), "bpr": drawn(0.4, 4, 400)}
    heats = [
        replace(heat({"sl": [0.3] * n, "bpr": [0.2] * n}), round_seconds=seconds)
        for n, seconds in zip(rounds, (60.0, 150.0), strict=True)
    ]
    found = answered(tmp_path, hits, heats, rounds, epochs, tried)
    assert not found.told
    # eight settings and two, two seeds of 30 s, the longer run of these on all data
    budget = 1.1 * (8 * 60 + 2 * 150 + 2 * 30 + 1.25 * 20) * 8 / epochs / 0.8
    assert found.sentences[0].startswith(
        "This budget is too short for an answer, which takes 8 settings of each and 8 epochs, "
        f"about {span(budget)} (--budget {-int(-budget // 60)}m and another --name); first of a "
        f"short race is sl (tau 0.123, lr 0.01, {epochs} epochs)"
    )
