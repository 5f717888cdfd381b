"""The grids of the claims: as many cells as they say, of the settings that they speak of."""

import re
import shlex
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

import pytest

from bslbench.catalog import load_catalog
from bslbench.config import Cell
from bslbench.engine.grid import GRIDS, at_hand, expand, find_grid
from bslbench.errors import DataError
from bslbench.report.tables import TABLES
from tests.fixtures import Command
from tests.test_engine import SMALL, grid

CLAIMS = ("robustness", "temperature", "fairness", "ablation", "factorial", "dimension", "full")
CURVES = ("curves-epochs-movielens", "curves-negatives-movielens", "curves-batch-movielens")
ELSE = ("contrasts", "curves")
NAMES = sorted(p.stem for p in GRIDS.glob("*.toml") if p.stem.startswith((*CLAIMS, *ELSE)))
DOCS = Path(__file__).parents[1] / "docs" / "claims.md"


def stated(name: str) -> int:
    """Return how many cells a grid's file says that it has, references aside."""
    text = (GRIDS / f"{name}.toml").read_text()
    found = re.search(r"^# ([\d,]+) cells", text, re.M)
    assert found is not None
    return int(found[1].replace(",", ""))


def trained(name: str, data: Path | None = None) -> list[Cell]:
    return [cell for cell in expand(find_grid(name), data) if cell.train]


def test_every_claim_has_a_grid_that_minutes_are_enough_for() -> None:
    for claim in CLAIMS[:-1]:
        assert f"{claim}-synthetic" in NAMES


@pytest.mark.parametrize("name", [name for name in NAMES if name.endswith("-synthetic")])
def test_synthetic_grids_have_the_cells_that_they_state(name: str) -> None:
    assert len(trained(name)) == stated(name)


@pytest.mark.parametrize("name", [name for name in NAMES if not name.endswith("-synthetic")])
def test_real_grids_have_the_cells_that_they_state(name: str, real_data: Path) -> None:
    asked, missing = at_hand(find_grid(name), real_data, load_catalog())
    if missing and name != "full":
        pytest.skip(f"no {missing}")
    cells = [cell for cell in expand(asked, real_data) if cell.train]
    share = len(asked.datasets) / len(find_grid(name).datasets)
    assert len(cells) == stated(name) * share


@pytest.mark.parametrize("name", ["robustness-synthetic", "fairness-synthetic"])
def test_losses_differ_by_the_loss(name: str) -> None:
    cells = trained(name)
    fields = ("epochs", "batch_size", "lr", "l2", "l2_negatives", "sampler", "dropout", "dim")
    assert len({tuple(cell.flat()[field] for field in fields) for cell in cells}) == 1
    assert {cell.train.sampler for cell in cells if cell.train} == {"own"}
    assert {cell.flat()["n_negatives"] for cell in cells if cell.loss == "bpr"} == {1}


def test_contrasts_have_all_seeds_and_the_rest_a_few() -> None:
    seeds: Counter[tuple[Any, ...]] = Counter()
    for cell in trained("ablation-synthetic"):
        flat = cell.flat()
        seeds[tuple(flat.get(k) for k in ("loss", "tau", "rho", "n_pos", "tau_pos"))] += 1
    assert {key for key, n in seeds.items() if n == 5} == {
        ("sl", 0.15, None, None, None),
        ("bsl_reweight", 0.15, 1.1, None, None),
        ("bsl", 0.15, 1.0, 16, 0.15),
        ("bsl_inbatch", 0.15, 1.1, None, None),
    }
    rest = [n for n in seeds.values() if n != 5]
    assert set(rest) == {2} and len(rest) == 23


@pytest.mark.parametrize("name", ["ablation", "ablation-movielens"])
def test_the_contrasts_are_those_at_tuned_settings(name: str, real_data: Path) -> None:
    asked = find_grid(name)
    plain = {"override": [], "exclude": [], "losses": asked.losses[:-1]}
    contrasts = {cell.id for cell in expand(asked.model_copy(update=plain), real_data)}
    cells = expand(asked, real_data)
    ids = {cell.id for cell in cells}
    assert len(contrasts & ids) == len(contrasts) == 4 * len(asked.seed_list())
    common = {
        loss: {
            tuple(cell.flat()[key] for key in ("lr", "l2", "dropout", "tau"))
            for cell in cells
            if cell.loss == loss and (loss == "sl_shift" or cell.id in contrasts)
        }
        for loss in ("sl", "sl_shift")
    }
    assert common["sl"] == common["sl_shift"] and len(common["sl"]) == 1


@pytest.mark.parametrize("name", ["factorial", "factorial-movielens", "full-movielens"])
def test_where_nothing_is_tuned_regularisation_is_the_same_for_all(
    name: str, real_data: Path
) -> None:
    cells = [cell.flat() for cell in expand(find_grid(name), real_data)]
    tried = defaultdict(set)
    for flat in cells:
        arm = flat["loss"], flat["score_train"], flat["backbone"]
        tried[arm].add((flat["l2"], flat["dropout"], flat["l2_negatives"]))
    by_score = {(score, frozenset(own)) for (_, score, _), own in tried.items()}
    assert len(by_score) == len({score for score, _ in by_score})


def test_the_factorial_crosses_loss_score_and_m() -> None:
    flats = [cell.flat() for cell in trained("factorial-synthetic")]
    assert all(flat["score_train"] == flat["score_test"] for flat in flats)
    arms = Counter((f["loss"], f["score_train"], f["n_negatives"]) for f in flats)
    assert len(arms) == 4 * 2 * 3
    assert set(arms.values()) == {2 * 2 * 2}  # rates x factors or L2, seeds


@pytest.mark.parametrize(
    ("name", "field", "wanted"),
    [*zip(CURVES, ("epochs", "n_negatives", "batch_size"), ([1], [1], [0.5, 1, 2]), strict=True)],
)
def test_curves_vary_one_setting_of_what_is_tuned(
    name: str, field: str, wanted: list[float], real_data: Path
) -> None:
    asked = find_grid(name)
    tuned = expand(asked.model_copy(update={"set": {}, "override": []}), real_data)
    middle = {cell.loss: cell.flat() for cell in tuned}
    rates = defaultdict(set)
    for cell in expand(asked, real_data):
        flat, own = cell.flat(), middle[cell.loss]
        assert {key for key in own if flat[key] != own[key]} <= {field, "lr", "seed"}
        rates[cell.loss].add(flat["lr"] / own["lr"])
    assert len(rates) == 6 and all(sorted(own) == pytest.approx(wanted) for own in rates.values())


def test_exclusions_take_lists() -> None:
    asked = grid(
        losses=["sl"],
        seeds=3,
        set={"tau": [0.1, 0.2, 0.3]},
        exclude=[{"tau": [0.2, 0.3], "seed": [1, 2]}, {"tau": 0.3}],
    )
    left = [(cell.loss_params["tau"], cell.seed) for cell in expand(asked)]
    assert left == [(0.1, 0), (0.1, 1), (0.1, 2), (0.2, 0)]


def test_datasets_that_are_not_here_can_be_left_out(tmp_path: Path) -> None:
    catalog = load_catalog()
    asked, missing = at_hand(grid(datasets=["amazon-electronics", SMALL]), tmp_path, catalog)
    assert (asked.datasets, missing) == ([SMALL], ["amazon-electronics"])
    nothing, missing = at_hand(grid(datasets=["amazon-electronics"]), tmp_path, catalog)
    assert (nothing.datasets, missing) == (["amazon-electronics"], [])
    with pytest.raises(DataError, match="bslbench download amazon-electronics"):
        expand(nothing, tmp_path, catalog)


def test_at_hand_on_the_command_line(bslbench: Command) -> None:
    words = [
        "train",
        "--dataset",
        "amazon-electronics",
        "--dataset",
        SMALL,
        "--reference",
        "popularity",
    ]
    code, _, err = bslbench(*words, "--data", "nowhere")
    assert code == 2 and "bslbench download amazon-electronics" in err
    code, out, err = bslbench(*words, "--data", "nowhere", "--at-hand")
    assert code == 0 and "1 trained" in out
    assert "amazon-electronics: not here, its cells are left out" in err


def test_the_page_speaks_of_grids_and_tables_that_there_are() -> None:
    text = DOCS.read_text()
    lines = text.replace("\\\n", "").splitlines()
    commands = [shlex.split(line) for line in lines if line.startswith("bslbench ")]
    assert len(commands) >= 10
    for words in commands:
        for option, known in (("--grid", NAMES), ("--table", TABLES)):
            if option in words:
                assert words[words.index(option) + 1] in known
    rows = re.findall(r"^\| (.*?) \| (.*?) \|", text, re.M)[2:]
    named = {name for row in rows for name in re.findall(r"`(\w[\w-]*)`", row[0])}
    assert named == {*CLAIMS, "contrasts-movielens", *CURVES}
    assert {name for row in rows for name in re.findall(r"`(\w+)`", row[1])} <= set(TABLES)
