"""A race as it is run, and what it leaves: promotion, final seeds, embeddings that can be read."""

import contextlib
import io
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from typer.testing import CliRunner

from bslbench.cli import app
from bslbench.data.load import load
from bslbench.engine.cell import trained
from bslbench.engine.embeddings import of_run, read
from bslbench.engine.inputs import Options
from bslbench.engine.lists import lists, recommend
from bslbench.engine.race.race import Outcome, leave
from bslbench.engine.race.today import Today
from bslbench.engine.refit import everything, refit
from bslbench.engine.store import Run, Store
from bslbench.engine.tuning.search import HOPELESS
from bslbench.errors import ConfigError, RunFailed
from bslbench.references import IALS
from bslbench.report.choice import verdict
from bslbench.report.race import notes, rungs
from bslbench.report.render import render
from bslbench.training import Interrupted
from tests.races import DATA, SET, means, race, ran


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Outcome]:
    """A race that has been run, for all tests that only look at it."""
    root = tmp_path_factory.mktemp("race")
    return root, ran(root)


# The rungs


def test_the_best_of_each_loss_goes_on_and_effort_is_equal(finished: tuple[Path, Outcome]) -> None:
    _, outcome = finished
    first, last = outcome.heats
    for name in ("sl", "bpr", "ials"):
        tried, promoted = first.trials[name], last.trials[name]
        assert [trial.number for trial in tried] == [0, 1, 2, 3]
        best = sorted(tried, key=lambda t: -t.score)  # the time is enough for all of them
        assert [trial.params for trial in promoted] == [trial.params for trial in best]
        assert len({trial.cell for trial in [*tried, *promoted]}) == 8
    common = [
        [{k: t.params[k] for k in ("lr", "l2")} for t in first.trials[n]] for n in ("sl", "bpr")
    ]
    assert common[0] == common[1]  # the same points of the common space
    samples = {
        Store(finished[0]).run(t.cell).info()["canonical"]["dataset"] for t in first.trials["sl"]
    }
    assert samples == {f"{DATA}&sample=25%"}


def test_a_loss_that_left_is_not_run_on_and_is_named(tmp_path: Path) -> None:
    outcome = ran(tmp_path, rounds=(2, 1), entering=1, finalists=1)
    assert len(outcome.heats[0].losses()) == 2
    assert len(outcome.heats[1].losses()) == len(outcome.finals.losses) == 1
    assert set(outcome.heats[1].trials) == {outcome.pick.name, "ials"}
    [gone] = outcome.left()
    assert gone != outcome.pick.name
    assert verdict(outcome).sentences[1] == (
        f"Before the final runs {gone} had left, after 2 settings each."
    )


TWIN = """
from bslbench.losses import SL

class Twin(SL):
    '''The softmax loss under another name.'''
"""


def test_two_losses_that_are_the_same_are_not_told_apart(tmp_path: Path) -> None:
    mine = tmp_path / "twin.py"
    mine.write_text(TWIN)
    asked = race(losses=["sl", f"{mine}:Twin"], set=SET | {"epochs": 2})
    found = verdict(ran(tmp_path, asked, rounds=(8, 1), references=["popularity"]))
    assert found.losses["Twin"].word == "absent" and found.losses["Twin"].diff == 0.0
    assert found.sentences[0].startswith("Train with sl (tau ")
    assert found.sentences[0].endswith("; Twin would do as well.")
    assert "popularity (95 % interval " in found.sentences[2]


BROKEN = """
from bslbench.losses import SL

class Broken(SL):
    '''It is never finite.'''
    def forward(self, pos, neg, batch=None):
        return super().forward(pos, neg, batch) * float("inf")
"""


def test_what_always_fails_leaves_the_race_to_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fit(*asked: Any) -> None:
        raise RuntimeError("singular")

    monkeypatch.setattr(IALS, "fit", fit)
    mine = tmp_path / "broken.py"
    mine.write_text(BROKEN)
    outcome = ran(tmp_path, race(losses=[f"{mine}:Broken", "sl"]), rounds=(HOPELESS, 1))
    assert outcome.pick.name == "sl"
    assert [final.name for final in outcome.finals.references] == ["popularity"]
    said = list(notes(outcome))
    assert "without ials: RuntimeError: singular" in said
    assert any(line.startswith("without Broken: non-finite loss (inf)") for line in said)
    assert "Broken" in render(rungs(outcome), "markdown")


def test_a_race_of_which_nothing_can_be_trained_says_so(tmp_path: Path) -> None:
    mine = tmp_path / "broken.py"
    mine.write_text(BROKEN)
    with pytest.raises(RunFailed, match=r"no loss could be trained on .*: Broken: non-finite"):
        ran(tmp_path, race(losses=[f"{mine}:Broken"]), references=["popularity"])


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


def test_a_reference_whose_parameters_are_set_is_run_with_them(tmp_path: Path) -> None:
    asked = race(set=SET | {"ease.lam": 20.0})
    outcome = ran(tmp_path, asked, rounds=(2, 1), references=["popularity", "ease"])
    [ease] = [row for row in outcome.finals.references if row.name == "ease"]
    assert ease.cells[0].loss_params["lam"] == 20.0 and not ease.params


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


def test_what_is_deployed_has_seen_everything_and_says_so(
    finished: tuple[Path, Outcome], left: Path
) -> None:
    data = load(DATA)
    deployed, evaluated = read(left / "deploy"), read(left / "evaluated")
    assert (deployed.about["kind"], evaluated.about["kind"]) == ("deploy", "evaluated")
    assert deployed.seen.nnz == everything(data).nnz == data.train.nnz + data.test.nnz
    assert evaluated.seen.nnz == data.train.nnz
    assert not np.array_equal(deployed.users, evaluated.users)
    assert "Recall@20" not in deployed.about
    states = [path for path in finished[0].rglob("state.pt") if "refit" in path.parts]
    assert not states and list(finished[0].rglob("refit"))  # gone once that is stored
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
    assert (tmp_path / "c" / "state.pt").exists()  # until what came of it has been stored


def test_a_refit_has_the_average_that_was_measured(
    finished: tuple[Path, Outcome], tmp_path: Path
) -> None:
    cell, data = finished[1].pick.cells[0], load(DATA)
    averaged = cell.changed(train=trained(cell).model_copy(update={"ema_decay": 0.9}))
    first, second = (refit(cell, epoch, data, Run(tmp_path / str(epoch))) for epoch in (0, 1))
    mean = refit(averaged, 1, data, Run(tmp_path / "averaged"))
    for table, one, other in zip(mean, first, second, strict=True):
        np.testing.assert_allclose(table, (one + other) / 2, rtol=1e-5, atol=1e-6)


def test_recommendations_are_the_best_that_the_user_has_not(left: Path) -> None:
    model = read(left / "evaluated")
    seen = set(model.seen.indices[model.seen.indptr[7] : model.seen.indptr[8]].tolist())
    best = recommend(model, "7", 100)
    assert len(best) == 100 - len(seen)
    assert not seen & {int(item) for item, _ in best}
    scores = [score for _, score in best]
    assert scores == sorted(scores, reverse=True)
    rows = [model.users[7], model.items[int(best[0][0])]]
    if model.about["score"] == "cosine":
        rows = [row / np.linalg.norm(row) for row in rows]
    assert scores[0] == pytest.approx(float(rows[0] @ rows[1]), rel=1e-5)
    assert best[:3] == recommend(model, "7", 3)
    with pytest.raises(ConfigError, match="no user '8x'; did you mean"):
        recommend(model, "8x", 3)


@pytest.mark.parametrize("k", [3, 1000])
def test_the_lists_of_all_users_are_those_of_each(left: Path, k: int) -> None:
    model = read(left / "evaluated")
    found = pa.concat_tables(lists(model, k)).to_pandas()
    assert set(found["user"]) == set(model.user_ids[np.diff(model.seen.indptr) > 0])
    for user, rows in list(found.groupby("user"))[:50]:
        best = recommend(model, str(user), k)
        assert rows["rank"].tolist() == list(range(1, len(best) + 1))
        assert rows["item"].tolist() == [item for item, _ in best]
        assert rows["score"].tolist() == [score for _, score in best]


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_a_file_of_lists_has_the_figure_of_the_report(
    finished: tuple[Path, Outcome], left: Path, tmp_path: Path, kind: str
) -> None:
    out = tmp_path / "new" / f"lists.{kind}"
    folder = str(left / "evaluated")
    run = CliRunner().invoke(app, ["recommend", "--run", folder, "--out", str(out), "-k", "50"])
    assert run.exit_code == 0 and "the lists of 820 users are in" in run.output, run.output
    assert [path.name for path in out.parent.iterdir()] == [out.name]
    found = CliRunner().invoke(app, ["eval", "--lists", str(out), "--dataset", DATA])
    assert f"{reported(finished[1].shown):.5f}" in found.output, found.output
    assert not list(Today.read(out, load(DATA), Options()).warnings())


def test_lists_of_no_known_kind_or_of_nobody_are_refused(left: Path, tmp_path: Path) -> None:
    command = ["recommend", "--run", str(left / "evaluated")]
    for more, message in (
        (["--out", str(tmp_path / "lists.xlsx")], "ends in none of .csv, .parquet"),
        ([], "say --user ID to see one list, or --out FILE"),
        (["--user", "1", "--out", str(tmp_path / "lists.csv")], "say --user ID"),
    ):
        refused = CliRunner().invoke(app, [*command, *more])
        assert isinstance(refused.exception, ConfigError) and message in str(refused.exception)
    assert not list(tmp_path.iterdir())


def test_a_run_of_the_store_recommends_the_same(finished: tuple[Path, Outcome], left: Path) -> None:
    run = finished[1].shown
    model, _, _ = of_run(run, Options())
    assert recommend(model, "3", 5) == recommend(read(left / "evaluated"), "3", 5)
    shown = CliRunner().invoke(
        app, ["recommend", "--run", run.folder.name, "--user", "3", "--results", str(finished[0])]
    )
    other = CliRunner().invoke(app, ["recommend", "--run", str(left / "evaluated"), "--user", "3"])
    assert shown.exit_code == other.exit_code == 0, shown.output
    assert shown.output == other.output
    assert len(shown.output.splitlines()) == 2 + 20
