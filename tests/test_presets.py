"""Presets: what fills the settings that a grid leaves open, and what the results say of it."""

from pathlib import Path
from typing import Any

import pytest

from bslbench.config import Grid
from bslbench.engine.grid import expand, find_grid
from bslbench.engine.presets import find_presets, taken_from
from bslbench.errors import ConfigError

DATA = "synthetic?users=200&items=120&interactions=4000"
FILE = """
[[preset]]
source = "tuned (study a)"
when = {{ dataset = "{data}", backbone = ["mf", "lightgcn"], loss = ["sl", "bsl_reweight"] }}
set = {{ tau = 0.3, rho = 1.2, lr = 2e-3, hops = 2, l2 = 1e-3 }}

[[preset]]
source = "tuned (study b)"
when = {{ dataset = "{data}", backbone = "mf", loss = "sl" }}
set = {{ l2 = 1e-4 }}
"""


@pytest.fixture
def file(tmp_path: Path) -> str:
    path = tmp_path / "tuned.toml"
    path.write_text(FILE.format(data=DATA))
    return str(path)


def grid(**changes: Any) -> Grid:
    return Grid.model_validate({"name": "trial", "datasets": [DATA], "losses": ["sl"]} | changes)


def test_the_grid_wins_over_the_preset_and_the_preset_over_defaults(file: str) -> None:
    [cell] = expand(grid(presets=file, set={"lr": 0.1}))
    assert {
        "tau": 0.3,
        "lr": 0.1,
        "l2": 1e-4,
        "score_test": "cosine",
    }.items() <= cell.flat().items()
    assert {key: cell.origin[key] for key in ("lr", "tau", "l2", "score_test", "patience")} == {
        "lr": "grid trial",
        "tau": "tuned (study a) preset",
        "l2": "tuned (study b) preset",
        "score_test": "loss sl",
        "patience": "default",
    }


def test_an_override_wins_over_the_preset(file: str) -> None:
    override = [{"when": {"loss": "sl"}, "set": {"tau": [0.1, 0.2]}}]
    cells = expand(grid(presets=file, override=override))
    assert [cell.loss_params["tau"] for cell in cells] == [0.1, 0.2]
    assert cells[0].origin["tau"] == "grid trial, override"


def test_a_key_goes_to_the_losses_and_backbones_that_have_it(file: str) -> None:
    cells = expand(
        grid(presets=file, backbones=["mf", "lightgcn"], losses=["sl", "bsl_reweight", "bpr"])
    )
    found = {(c.backbone, c.loss): (c.flat().get("rho"), c.flat().get("hops")) for c in cells}
    assert found == {
        ("mf", "sl"): (None, None),
        ("mf", "bsl_reweight"): (1.2, None),
        ("mf", "bpr"): (None, None),
        ("lightgcn", "sl"): (None, 2),
        ("lightgcn", "bsl_reweight"): (1.2, 2),
        ("lightgcn", "bpr"): (None, 3),
    }


def test_presets_can_be_turned_off_and_do_not_reorder_axes(file: str) -> None:
    axes = {"lr": [1e-2, 1e-3], "tau": [0.1, 0.2]}
    plain, preset = (expand(grid(presets=p, set=axes)) for p in (False, file))
    assert plain[0].flat()["l2"] == 0.0
    order = [[(c.flat()["lr"], c.flat()["tau"]) for c in cells] for cells in (plain, preset)]
    assert order[0] == order[1]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "tau = 0.3",
            "tuned.toml: no loss, backbone, reference or training setting has a 'taw'.* 'tau",
        ),
        ("[[preset]]", "tuned.toml: unknown key 'presets'; did you mean 'preset'"),
    ],
)
def test_what_cannot_be_meant_is_named(file: str, text: str, message: str) -> None:
    path = Path(file)
    wrong = text.replace("tau", "taw").replace("preset", "presets")
    path.write_text(path.read_text().replace(text, wrong, 1))
    with pytest.raises(ConfigError, match=message):
        expand(grid(presets=file))


def test_presets_that_are_for_nothing_in_the_grid_are_named(file: str) -> None:
    cells = expand(grid(presets=file))
    assert taken_from(cells, file) and not taken_from(expand(grid(losses=["bpr"])), file)
    assert taken_from(expand(grid(presets="fast")), "fast")
    assert not taken_from(expand(grid(presets="tuned")), "tuned")


def test_a_file_that_is_not_there_is_named() -> None:
    with pytest.raises(ConfigError, match=r"gone.toml: No such file"):
        expand(grid(presets="gone.toml"))


def test_ours_are_well_formed_and_published_for_both_losses_of_each_pair() -> None:
    presets = find_presets(True, [])
    assert {preset.source for preset in presets} == {"published"}
    trained = [preset for preset in presets if preset.when["backbone"] != "reference"]
    assert len(trained) == 8
    for preset in trained:
        assert preset.when.keys() == {"dataset", "backbone", "loss"}
        assert ("hops" in preset.set) == (preset.when["backbone"] == "lightgcn")


def test_the_paper_grids_take_the_published_settings(real_data: Path) -> None:
    sl, bsl = expand(find_grid("yelp2018-lightgcn-paper"), real_data)
    assert sl.train is not None and bsl.train == sl.train
    assert (sl.train.lr, sl.train.l2, sl.train.n_negatives) == (1e-3, 1e-5, 1023)
    assert (sl.train.score_train, sl.train.score_test) == ("cosine", "inner")
    assert (sl.loss_params, bsl.loss_params) == ({"tau": 0.15}, {"tau": 0.15, "rho": 1.12})
    assert sl.backbone_params["hops"] == 3 and sl.origin["hops"] == "published preset"
    pairs = [(c.backbone, c.loss) for c in expand(find_grid("movielens-paper"), real_data)]
    assert pairs == [
        ("mf", "sl"),
        ("mf", "bsl_inbatch"),
        ("lightgcn", "sl"),
        ("lightgcn", "bsl_reweight"),
    ]


def test_the_fast_grid_takes_no_preset(real_data: Path) -> None:
    [cell] = expand(find_grid("yelp2018-fast"), real_data)
    assert cell.train is not None and (cell.train.l2, cell.train.dropout) == (0.0, 0.0)


def test_a_recipe_stands_over_the_published_settings() -> None:
    [cell] = expand(grid(presets="fast"))
    assert {
        "init": "als",
        "lr_schedule": "linear",
        "n_negatives": 256,
        "dim": 128,
    }.items() <= cell.flat().items()
    assert cell.origin["init"] == "fast preset" and cell.flat()["optimizer"] == "adam_lazy"
    [graph] = expand(grid(presets="fast", backbones=["lightgcn"]))
    assert graph.flat()["optimizer"] == "adam", "it reads more rows than it is asked for"
    assert (graph.flat()["dim"], graph.flat()["n_negatives"]) == (64, 256)
    [bpr] = expand(grid(presets="fast", losses=["bpr"]))
    assert bpr.flat()["n_negatives"] == 16, "with one it loses what the start had"
    [tau] = expand(grid(presets="fast", losses=["directau"]))
    assert (tau.flat()["dim"], tau.flat()["epochs"]) == (64, 26), "found for others"
    names = {preset.source for preset in find_presets("fast", [])}
    assert names == {"published", "fast"}


def test_the_thorough_recipe_averages_the_weights_of_longer_rows() -> None:
    for loss, n_negatives in (("sl", 800), ("bsl", 800), ("bpr", 16)):
        [cell] = expand(grid(presets="thorough", losses=[loss]))
        assert cell.train is not None and cell.train.n_negatives == n_negatives
        assert cell.train.dim == 128
        assert cell.train.ema_decay and cell.origin["ema_decay"] == "thorough preset"


def test_the_grids_on_movielens_take_what_a_study_has_found(real_data: Path) -> None:
    for name in ("robustness", "fairness", "contrasts", "temperature"):
        asked = find_grid(f"{name}-movielens")
        for cell in expand(asked, real_data):
            if cell.train is not None:
                sources = {cell.origin[key] for key in ("lr", "l2", "dropout")}
                assert all(source.startswith("tuned (movielens-mf") for source in sources)
                assert cell.train.epochs == asked.set["epochs"]


def test_an_unknown_recipe_is_named() -> None:
    with pytest.raises(ConfigError, match=r"no recipe named 'fasd'; did you mean 'fast'"):
        find_presets("fasd", [])
