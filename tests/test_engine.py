"""Grids to cells to results: ids, axes, skipping, failing, resuming, the same bytes every time."""

import csv
import itertools
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from scipy.sparse import csr_array

import bslbench
from bslbench.backbones.base import start_from
from bslbench.config import Cell, Grid
from bslbench.data.load import load
from bslbench.data.splits import hold_out
from bslbench.engine import cell as cells
from bslbench.engine import machine
from bslbench.engine.grid import GRIDS, expand, find_grid
from bslbench.engine.inputs import Options
from bslbench.engine.running import run_grid
from bslbench.engine.store import Store
from bslbench.errors import ConfigError, DataError, RunFailed
from bslbench.evaluation.metrics import METRICS
from bslbench.report.render import render
from bslbench.report.tables import main_table
from bslbench.training import Evaluation, Interrupted
from bslbench.warmstart import als_tables
from tests.fixtures import on_threads

SMALL = "synthetic?users=200&items=120&interactions=4000"
RANKED = 2 * 6 * 4  # splits x metrics x cut-offs
GROUPED = 2 * 10 + 4  # shares of Recall and NDCG by group, and how even the lists are
SPREAD = 7  # of the scores, for what is trained
USER_LOSSES = Path(__file__).with_name("user_losses.py")
BACKBONE = """
from bslbench.backbones import MF

class Own(MF):
    pass
"""


class Quiet:
    """A watcher that remembers which cells were started."""

    def __init__(self) -> None:
        self.ran: list[str] = []

    def planned(self, n_cells: int, n_finished: int) -> None: ...

    def started(self, cell: Cell) -> None:
        self.ran.append(cell.id)

    def evaluated(self, cell: Cell, evaluation: Evaluation) -> None: ...

    def ended(self, cell: Cell, failure: str = "") -> None: ...

    def left(self, cell: Cell) -> None: ...

    def waiting(self, n_cells: int) -> None: ...


def grid(**changes: Any) -> Grid:
    settings = {"epochs": 3, "n_negatives": 20, "dim": 8, "batch_size": 512} | changes.pop(
        "set", {}
    )
    content = {"name": "trial", "datasets": [SMALL], "losses": ["sl"], "set": settings} | changes
    return Grid.model_validate(content)


def run(asked: Grid, root: Path, **options: Any) -> tuple[Quiet, Any]:
    watcher = Quiet()
    how = Options(**options)
    return watcher, run_grid(asked.name, expand(asked), Store(root), watcher, options=how)


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


# From a grid to its cells


def test_axes_multiply_and_a_list_is_an_axis() -> None:
    made = expand(grid(losses=["sl", "bpr"], seeds=2, set={"tau": [0.1, 0.2], "lr": [0.1, 0.2]}))
    assert len(made) == 2 * 2 * 2 + 2 * 2  # bpr has no tau
    assert len({cell.id for cell in made}) == len(made)


def test_a_loss_decides_what_the_grid_leaves_open() -> None:
    sl, bpr = expand(Grid(datasets=[SMALL], losses=["sl", "bpr"]))
    assert sl.train is not None and bpr.train is not None
    assert (sl.train.score_train, sl.train.n_negatives, sl.train.scale) == ("cosine", 800, None)
    assert (bpr.train.score_train, bpr.train.n_negatives, bpr.train.scale) == ("inner", 1, 1.0)
    assert sl.origin["n_negatives"] == "loss sl"


def test_overrides_win_and_exclude_drops() -> None:
    asked = grid(
        losses=["sl", "bpr"],
        override=[{"when": {"loss": "bpr"}, "set": {"lr": [0.5, 0.6]}}],
        exclude=[{"loss": "bpr", "lr": 0.6}],
    )
    assert [(c.loss, c.train.lr) for c in expand(asked) if c.train] == [("sl", 1e-3), ("bpr", 0.5)]
    assert expand(asked)[1].origin["lr"] == "grid trial, override"


def test_the_id_moves_with_what_is_measured_and_only_with_that(tmp_path: Path) -> None:
    [base] = expand(grid())
    assert expand(grid(name="other", description="said otherwise"))[0].id == base.id
    assert expand(grid(set={"tau": 0.1}))[0].id == base.id  # the default, spelt out
    changes: list[dict[str, Any]] = [
        {"set": {"tau": 0.11}},
        {"set": {"lr": 2e-3}},
        {"selection": "test"},
        {"seeds": [1]},
        {"datasets": [f"{SMALL}&seed=1"]},
    ]
    ids = {expand(grid(**change))[0].id for change in changes}
    assert len(ids) == len(changes) and base.id not in ids
    assert Cell.model_validate(base.model_dump() | {"protocol": base.protocol + 1}).id != base.id


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"losses": ["sll"]}, "no loss named 'sll'; did you mean 'sl'"),
        ({"backbones": ["mfa"]}, "no backbone named 'mfa'; did you mean 'mf'"),
        ({"datasets": ["yelp"]}, "no dataset named 'yelp'; did you mean 'yelp2018'"),
        ({"references": ["popular"]}, "no reference named 'popular'; did you mean 'popularity'"),
        ({"set": {"taw": 0.1}}, "has a 'taw'; did you mean 'tau'"),
        ({"set": {"epochs": 0}}, "epochs: Input should be greater than or equal to 1"),
        ({"set": {"tau": 0}}, "sl on mf: tau must be above 0"),
        ({"set": {"tau": "hot"}}, "sl: tau = 'hot' is not of type float"),
        ({"set": {"logq": True}}, "logq acts on in_batch negatives only"),
        ({"losses": ["psl"], "set": {"logq": True, "sampler": "in_batch"}}, "count by exp"),
        ({"losses": ["bpr"], "set": {"logq": True, "sampler": "in_batch"}}, "count by exp"),
        ({"set": {"sampler": "none"}}, "the loss needs negatives"),
        ({"losses": []}, "has neither losses nor references"),
        ({"exclude": [{"loss": "sl"}]}, "excludes every cell"),
        ({"exclude": [{"los": "sl"}]}, "exclude: no 'los'; did you mean 'loss'"),
        ({"exclude": [{"loss": "bprr"}]}, "exclude: no loss named 'bprr'; did you mean 'bpr'"),
        ({"exclude": [{"dataset": "sinthetic"}]}, "exclude: no dataset named 'sinthetic'; did you"),
        ({"exclude": [{"loss_params": 1}]}, "exclude: no 'loss_params'; did you mean"),
        (
            {"override": [{"when": {"loss": ["sl", "ssl"]}, "set": {"tau": 0.2}}]},
            "override: no loss named 'ssl'; did you mean 'sl'",
        ),
        (
            {"override": [{"when": {"backbone": "mff"}, "set": {"tau": 0.2}}]},
            "override: no backbone named 'mff'; did you mean 'mf'",
        ),
        (
            {"override": [{"when": {"loss": "bqr"}, "set": {"n_negatives": 1}}]},
            "override: no loss named 'bqr'; did you mean 'bpr'",
        ),
        ({"override": [{"when": {}, "set": {"scale": 5.0}}]}, "no loss here takes 'scale'"),
        (
            {
                "losses": ["sl", "directau"],
                "override": [{"when": {"loss": "directau"}, "set": {"n_negatives": 5}}],
            },
            "no loss here takes 'n_negatives'",
        ),
        (
            {"losses": [], "references": ["ease"], "override": [{"when": {}, "set": {"lr": 0.1}}]},
            "no loss here takes 'lr'",
        ),
    ],
)
def test_what_cannot_be_meant_is_one_line_with_the_mend(
    changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        expand(grid(**changes))


def test_a_part_of_a_grid_may_lack_what_its_rules_are_for() -> None:
    rules = {
        "override": [{"when": {"loss": "bsl"}, "set": {"n_pos": [4, 16]}}],
        "exclude": [{"loss": "bsl", "n_pos": 4}],
    }
    assert len(expand(grid(losses=["sl", "bsl"], **rules))) == 2
    assert len(expand(grid(losses=["sl"], **rules))) == 1
    others = {"override": [{"when": {"backbone": "lightgcn"}, "set": {"lr": 0.1}}]}
    references = {"losses": [], "references": ["ease"]}
    assert len(expand(grid(**references, set={"epochs": 3}, **others))) == 1


def test_a_reference_may_have_a_parameter_that_is_called_as_a_setting() -> None:
    rule = {"when": {"loss": "ials"}, "set": {"dim": 32}}
    cells = expand(grid(losses=["sl"], references=["ials"], override=[rule]))
    assert [cell.flat()["dim"] for cell in cells] == [32, 8]


@pytest.mark.parametrize(
    ("rule", "left"),
    [
        ({"noise": "pos=0.50"}, {("", SMALL), ("", f"{SMALL}&resplit=1")}),
        ({"noise": ["clean"]}, {("pos=0.5", SMALL), ("pos=0.5", f"{SMALL}&resplit=1")}),
        ({"noise": "clean", "dataset": f"{SMALL}&resplit=1"}, None),
        ({"noise": "pos=0.5", "dataset": SMALL}, {("", SMALL), ("", f"{SMALL}&resplit=1")}),
    ],
)
def test_exclusions_are_matched_as_overrides_are(
    rule: dict[str, Any], left: set[tuple[str, str]] | None
) -> None:
    datasets = [SMALL, f"{SMALL}&resplit=1"]
    made = expand(grid(datasets=datasets, noise=["clean", "pos=0.5"], exclude=[rule]))
    found = {(cell.noise.text, cell.dataset) for cell in made}
    everything = set(itertools.product(("", "pos=0.5"), datasets))
    assert found == (everything - {("", datasets[1])} if left is None else left)


def test_a_parameter_that_is_called_like_a_column_stands_in_runs_alone(tmp_path: Path) -> None:
    asked = grid(losses=[], references=["itemknn"], set={"k": [5, 10]}).model_copy(
        update={"set": {"k": [5, 10]}}
    )
    run(asked, tmp_path)
    header = (tmp_path / "trial" / "metrics.csv").read_text().splitlines()[0].split(",")
    assert len(set(header)) == len(header)
    assert {row["k"] for row in rows(tmp_path / "trial" / "metrics.csv")} >= {"10", "20"}
    assert {row["k"] for row in rows(tmp_path / "trial" / "runs.csv")} == {"5", "10"}


def test_where_nobody_can_be_ranked_no_epoch_is_picked() -> None:
    data = hold_out(load(SMALL), "valid")
    strangers = data.with_splits(csr_array(data.train.shape, dtype=data.train.dtype), data.valid)
    [cell] = expand(grid())
    with (
        cells.built(cell, data) as (backbone, _, _),
        pytest.raises(RunFailed, match="of the users with valid pairs none has a train pair"),
    ):
        cells.evaluate(backbone, cells.trained(cell), strangers, "valid")


def test_users_files_are_kept_beside_the_run_whatever_their_names_and_rights(
    tmp_path: Path,
) -> None:
    source = USER_LOSSES.read_text()
    for place, text in (("a", source), ("b", source + "\n" + BACKBONE)):
        (tmp_path / place).mkdir()
        (tmp_path / place / "mine.py").write_text(text)
        (tmp_path / place / "mine.py").chmod(0o444)
    mine = grid(losses=[f"{tmp_path}/a/mine.py:SLatK"], backbones=[f"{tmp_path}/b/mine.py:Own"])
    run(mine, tmp_path)
    [folder] = (tmp_path / "runs").iterdir()
    assert (folder / "mine.py").read_text() == source
    assert (folder / "backbone-mine.py").read_text().endswith(BACKBONE)
    _, again = run(mine, tmp_path, force=True)
    assert again.failed == {}


def test_a_cell_of_another_version_of_its_loss_cannot_be_made_again(tmp_path: Path) -> None:
    [cell] = expand(grid(losses=["bc"]))
    old = cell.changed(loss_version=1)
    assert cell.loss_version == 2 and old.id != cell.id
    with pytest.raises(RunFailed, match="planned with version 1 of bc, which is at version 2"):
        cells.run_cell(old, Store(tmp_path))


def test_a_version_that_is_no_whole_number_is_named(tmp_path: Path) -> None:
    text = "from bslbench.losses import SL\n\n\nclass Mine(SL):\n    version = '1.0'\n"
    (tmp_path / "mine.py").write_text(text)
    with pytest.raises(ConfigError, match=r"Mine: version = '1\.0' is not a whole number"):
        expand(grid(losses=[f"{tmp_path}/mine.py:Mine"]))


def test_without_git_a_checkout_has_no_revision(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    assert machine._revision() == ""


def test_in_batch_cells_do_not_differ_by_a_number_of_negatives_that_cannot_act() -> None:
    made = expand(grid(set={"sampler": ["own", "in_batch"], "n_negatives": [10, 20]}))
    assert [c.train.n_negatives for c in made if c.train] == [10, 511, 20]


@pytest.mark.parametrize("name", [path.stem for path in GRIDS.glob("*.toml")])
def test_every_grid_of_ours_is_well_formed(name: str) -> None:
    assert find_grid(name).description


def test_grid_files_are_named_with_what_is_wrong(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text('datasets = ["synthetic"]\nlosess = ["sl"]\n')
    with pytest.raises(ConfigError, match=r"mine.toml: unknown key 'losess'; .* 'losses'"):
        find_grid(str(path))
    path.write_text("datasets = [\n")
    with pytest.raises(ConfigError, match=r"mine.toml: not valid TOML: .*at "):
        find_grid(str(path))
    with pytest.raises(ConfigError, match=r"gone.toml: No such file"):
        find_grid(str(tmp_path / "gone.toml"))
    with pytest.raises(ConfigError, match="no grid named 'quik'; did you mean 'quick'"):
        find_grid("quik")


# What a run leaves behind


def test_a_grid_leaves_tidy_results_and_is_not_trained_twice(tmp_path: Path) -> None:
    asked = grid(references=["popularity"], losses=["sl", "bsl"], seeds=2, set={"tau": [0.1, 0.2]})
    watcher, outcome = run(asked, tmp_path)
    assert (outcome.finished, outcome.skipped, outcome.failed) == (10, 0, {})
    metrics = rows(tmp_path / "trial" / "metrics.csv")
    assert list(metrics[0])[:9] == [
        *("run_id", "dataset", "backbone", "loss", "noise_pos", "noise_neg", "noise_fneg"),
        *("seed", "selection"),
    ]
    assert list(metrics[0])[-5:] == ["split", "metric", "k", "group", "value"]
    assert "tau" in metrics[0]
    assert {row["tau"] for row in metrics} == {"0.1", "0.2", ""}
    assert len(metrics) == 10 * (RANKED + GROUPED) + 8 * SPREAD
    ranked = [row for row in metrics if row["metric"] in METRICS]
    assert all(0 <= float(row["value"]) <= 1 for row in ranked)
    before = (tmp_path / "trial" / "metrics.csv").read_bytes()
    watcher, outcome = run(asked, tmp_path)
    assert (watcher.ran, outcome.skipped) == ([], 10)
    assert (tmp_path / "trial" / "metrics.csv").read_bytes() == before
    watcher, outcome = run(grid(name="another", losses=["sl"]), tmp_path)
    assert (watcher.ran, outcome.skipped) == ([], 1)
    assert len(rows(tmp_path / "another" / "metrics.csv")) == RANKED + GROUPED + SPREAD


def test_only_fields_that_vary_are_columns(tmp_path: Path) -> None:
    run(grid(losses=["sl", "bpr"], seeds=2), tmp_path)
    columns = list(rows(tmp_path / "trial" / "metrics.csv")[0])
    assert {"tau", "score_train", "score_test", "scale"} <= set(columns)
    assert not {"lr", "dim", "epochs", "fingerprint", "protocol"} & set(columns)


def test_a_run_says_where_it_came_from(tmp_path: Path) -> None:
    run(grid(seeds=[4]), tmp_path)
    [folder] = (tmp_path / "runs").iterdir()
    info = json.loads((folder / "run.json").read_text())
    assert info["canonical"]["train"]["epochs"] == 3
    assert info["origin"]["epochs"] == "grid trial"
    assert info["origin"]["lr"] == "default"
    assert info["outcome"]["torch"] == torch.__version__
    assert {"seconds_load", "seconds_train", "seconds_eval"} <= set(info["outcome"])
    assert [row["epoch"] for row in rows(folder / "curve.csv")] == ["0", "1", "2"]
    [record] = rows(tmp_path / "trial" / "runs.csv")
    assert record["status"] == "finished" and record["users_evaluated"] == "200"


def test_threads_do_not_change_a_byte(tmp_path: Path) -> None:
    for threads in (1, 2):
        asked = grid(losses=["sl", "bsl_inbatch"], set={"l2": 1e-3, "dropout": 0.1})
        with on_threads(threads):
            run(asked, tmp_path / str(threads), save_model=True)
    one, two = (tmp_path / str(threads) / "trial" / "metrics.csv" for threads in (1, 2))
    assert one.read_bytes() == two.read_bytes()
    for model in (tmp_path / "1" / "runs").glob("*/model.safetensors"):
        other = tmp_path / "2" / "runs" / model.parent.name / model.name
        assert model.read_bytes() == other.read_bytes()


def test_a_saved_model_gives_the_ranks_that_were_reported(tmp_path: Path) -> None:
    run(grid(set={"epochs": 8}), tmp_path, save_model=True)
    [folder] = (tmp_path / "runs").iterdir()
    tables = load_file(folder / "model.safetensors")
    data = bslbench.data.load.load(SMALL)
    from bslbench.data.splits import hold_out

    split = hold_out(data, "valid")
    unit = {name: torch.nn.functional.normalize(table) for name, table in tables.items()}
    scores = unit["users"] @ unit["items"].T
    seen = torch.from_numpy((split.train + split.valid).toarray()).bool()
    scores[seen] = -torch.inf
    top = scores.topk(20, dim=1).indices
    test = torch.from_numpy(split.test.toarray()).float()
    recall = (test.gather(1, top).sum(1) / test.sum(1)).mean().item()
    [reported] = [
        float(row["value"])
        for row in rows(tmp_path / "trial" / "metrics.csv")
        if (row["split"], row["metric"], row["k"], row["group"]) == ("test", "Recall", "20", "")
    ]
    assert recall == pytest.approx(reported, abs=1e-6)


@pytest.mark.parametrize("loss", ["sl", "DirectAU", "SLatK", "AdvInfoNCE"])
@pytest.mark.parametrize("stop_after", [5, 13])
def test_a_run_that_was_cut_off_ends_in_the_same_bytes(
    tmp_path: Path, loss: str, stop_after: int
) -> None:
    name = loss if loss == "sl" else f"{USER_LOSSES}:{loss}"
    [cell] = expand(grid(losses=[name], set={"epochs": 4}))
    how = Options(save_model=True, keep_every=0)
    cells.run_cell(cell, Store(tmp_path / "whole"), how)
    store = Store(tmp_path / "cut")
    steps = iter(range(stop_after))
    with pytest.raises(Interrupted):
        cells.run_cell(cell, store, how, stop=lambda: next(steps, None) is None)
    run_folder = store.run(cell.id)
    assert run_folder.status() == "missing" and run_folder.file("state.pt").exists()
    cells.run_cell(cell, store, how)
    assert not run_folder.file("state.pt").exists()
    for file in ("metrics.csv", "model.safetensors", "ranks.npz"):
        whole = Store(tmp_path / "whole").run(cell.id).file(file)
        assert run_folder.file(file).read_bytes() == whole.read_bytes()


def test_a_failed_run_leaves_its_reason_and_the_rest_goes_on(tmp_path: Path) -> None:
    broken = tmp_path / "broken.py"
    broken.write_text(
        "import torch\nclass Broken(torch.nn.Module):\n"
        "    def forward(self, pos, neg, batch):\n        return pos.sum() / None\n"
    )
    asked = grid(losses=[f"{broken}:Broken", "sl"])
    _, outcome = run(asked, tmp_path)
    assert outcome.finished == 1
    [reason] = outcome.failed.values()
    assert reason.startswith(f"{broken}, line 4: TypeError")
    failed = next(c for c in expand(asked) if c.loss == "Broken")
    failure = Store(tmp_path).run(failed.id).failure()
    assert failure["reason"] == reason
    assert "Traceback" in failure["traceback"]
    assert {r["status"] for r in rows(tmp_path / "trial" / "runs.csv")} == {"finished", "failed"}
    watcher, _ = run(asked, tmp_path)
    assert watcher.ran == [failed.id]  # retried, and only that


def test_a_loss_of_the_users_own_gets_a_new_id_when_its_source_changes(tmp_path: Path) -> None:
    mine = tmp_path / "mine.py"
    mine.write_bytes(USER_LOSSES.read_bytes())
    asked = grid(losses=[f"{mine}:DirectAU"])
    [first] = expand(asked)
    run(asked, tmp_path)
    assert (Store(tmp_path).run(first.id).folder / "mine.py").exists()
    mine.write_text(mine.read_text() + "\n# another version\n")
    [second] = expand(asked)
    assert second.id != first.id
    assert first.train is not None and first.train.sampler == "none"


def test_a_folder_that_holds_another_run_is_not_trusted(tmp_path: Path) -> None:
    run(grid(), tmp_path)
    [folder] = (tmp_path / "runs").iterdir()
    info = json.loads((folder / "run.json").read_text())
    info["canonical"]["train"]["lr"] = 7
    (folder / "run.json").write_text(json.dumps(info))
    with pytest.raises(DataError, match="holds another run than its name says"):
        run(grid(), tmp_path)


def test_a_run_in_use_is_left_alone(tmp_path: Path) -> None:
    from filelock import FileLock

    [cell] = expand(grid())
    run_folder = Store(tmp_path).run(cell.id)
    run_folder.folder.mkdir(parents=True)
    held = FileLock(run_folder.file(".lock"))
    with held, pytest.raises(RunFailed, match="is being trained by another process"):
        cells.run_cell(cell, Store(tmp_path))
    assert not run_folder.failure()


def test_python_is_a_third_way_to_the_same_store(tmp_path: Path) -> None:
    run(grid(), tmp_path)
    frame = bslbench.run(grid(), results_dir=tmp_path)
    again = bslbench.results("trial", results_dir=tmp_path)
    assert frame.equals(again) and len(frame) == RANKED + GROUPED + SPREAD
    assert frame["k"].dtype == int
    assert frame["value"].dtype == float
    path = tmp_path / "trial" / "metrics.csv"
    path.write_text(path.read_text().rsplit(",", 1)[0] + ",nan\n")
    undefined = bslbench.results("trial", results_dir=tmp_path)["value"]
    assert undefined.dtype == float and undefined.isna().sum() == 1
    with pytest.raises(ConfigError, match=r"no results of a grid 'trail'.*did you mean 'trial'"):
        bslbench.results("trail", results_dir=tmp_path)


def test_the_public_names_are_exactly_those_promised() -> None:
    for name in bslbench.__all__:
        assert getattr(bslbench, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = bslbench.nothing


@pytest.mark.parametrize("backbone", ["mf", "lightgcn"])
def test_a_warm_start_is_where_training_starts(backbone: str, tmp_path: Path) -> None:
    pytest.importorskip("implicit")
    frozen = {"init": "als", "lr": 1e-12, "epochs": 1}
    asked = grid(backbones=[backbone], set=frozen)
    run(asked, tmp_path, save_model=True)
    assert "STARTED FROM ALS" in render(main_table(tmp_path, "trial"), "console")
    [cell] = expand(asked)
    tables = load_file(Store(tmp_path).run(cell.id).file("model.safetensors"))
    data = load(SMALL)
    users, _ = als_tables(hold_out(data, "valid"), 8, seed=0)
    if backbone == "mf":
        assert torch.allclose(tables["users"], users, atol=1e-6)
    cold = expand(grid(backbones=[backbone], set=frozen | {"init": "xavier"}))[0]
    assert cold.id != cell.id


def test_a_warm_start_needs_tables_of_its_shape() -> None:
    with pytest.raises(ConfigError, match="Linear has no table 'users'"):
        start_from(torch.nn.Linear(2, 2), torch.zeros(3, 2), torch.zeros(3, 2))


def test_evaluating_a_sample_of_users_makes_another_cell_that_says_so(tmp_path: Path) -> None:
    whole, sample = grid(), grid(eval_users=30)
    assert "eval_users" not in expand(whole)[0].canonical()
    run(sample, tmp_path)
    [cell] = expand(sample)
    assert cell.id != expand(whole)[0].id
    assert Store(tmp_path).run(cell.id).info()["outcome"]["users_evaluated"] == 30
    assert "A SAMPLE OF 30 USERS" in render(main_table(tmp_path, "trial"), "console")
