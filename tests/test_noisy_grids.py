"""Noise as an axis of a grid: cells, ids, settings per level, and what a run says of it."""

import json
from pathlib import Path
from typing import Any

import pytest

from bslbench.config import Cell, Noise
from bslbench.engine.grid import expand
from bslbench.engine.grid_files import sources
from bslbench.engine.inputs import Options, split_of
from bslbench.engine.store import Store
from bslbench.engine.tuning.contenders import contenders
from bslbench.engine.tuning.ledger import Trial
from bslbench.engine.tuning.outcome import tuned_toml
from bslbench.engine.tuning.study import Study
from bslbench.errors import ConfigError
from bslbench.report.levels import tuned_at
from tests.test_engine import SMALL, grid, rows, run


def levels(cells: list[Cell]) -> list[str]:
    return [cell.noise.text for cell in cells]


def test_noise_is_an_axis() -> None:
    made = expand(grid(losses=["sl", "bpr"], noise=["", "pos=0.2", "neg=5,pos=0.2"], seeds=2))
    assert levels(made[:6]) == ["", "", "pos=0.2", "pos=0.2", *["pos=0.2,neg=5"] * 2]
    assert len({cell.id for cell in made}) == len(made) == 12
    assert "-mf-sl-pos_0.2_neg_5-s1-" in made[5].id


def test_clean_cells_keep_the_ids_they_had_before_there_was_noise() -> None:
    [clean] = expand(grid())
    assert "noise" not in json.loads(clean.canonical())
    assert [cell.id for cell in expand(grid(noise=["neg=1", "", "pos=0"]))] == [clean.id]
    assert [cell.id for cell in expand(grid(valid_noise=["clean", "same"]))] == [clean.id]


def test_labels_are_an_axis_where_there_are_false_positives() -> None:
    made = expand(grid(noise=["", "pos=0.2"], valid_noise=["clean", "same"]))
    assert [cell.flat().get("valid_noise", "clean") for cell in made] == ["clean", "clean", "same"]


def test_references_take_part_in_what_changes_train() -> None:
    noise = ["", "pos=0.2", "neg=5", "neg=5,pos=0.2", "fneg=0", "fneg=0.5"]
    made = expand(grid(losses=[], references=["popularity"], noise=noise))
    assert levels(made) == ["", "pos=0.2", "fneg=0"]


def test_settings_by_level_of_noise() -> None:
    asked = grid(
        noise=["", "neg=5", "neg=10"],
        set={"tau": 0.1},
        override=[
            {"when": {"noise": ["neg=5.0", "neg=10"]}, "set": {"tau": 0.2}},
            {"when": {"noise": "clean"}, "set": {"tau": 0.3}},
        ],
    )
    assert [cell.loss_params["tau"] for cell in expand(asked)] == [0.3, 0.2, 0.2]


def test_presets_of_a_level_of_noise_hold_there_or_are_left_aside(tmp_path: Path) -> None:
    presets = tmp_path / "presets.toml"
    whens = ['noise = "clean"', 'noise = "pos=0.2"', 'noise = "pos=0.2", valid_noise = "same"']
    presets.write_text(
        "".join(
            f'[[preset]]\nsource = "mine"\nwhen = {{ {when} }}\nset = {{ tau = {tau} }}\n'
            for when, tau in zip(whens, (0.3, 0.4, 0.5), strict=True)
        )
    )

    def temperatures(noisy: bool | list[bool]) -> list[tuple[str, Any]]:
        both: dict[str, Any] = {"noise": ["", "pos=0.2"], "valid_noise": ["clean", "same"]}
        made = expand(grid(presets=str(presets), noisy_presets=noisy, **both))
        return [(cell.noise.level, cell.loss_params["tau"]) for cell in made]

    own = [("", 0.3), ("pos=0.2", 0.4), ("pos=0.2 on noisy valid", 0.5)]
    carried = [("", 0.3), ("pos=0.2", 0.3), ("pos=0.2 on noisy valid", 0.3)]
    assert temperatures(True) == own
    assert temperatures(False) == carried
    both = temperatures([True, False])
    assert len(both) == 5 and set(both) == {*own, *carried}


def test_a_study_of_noise_makes_presets_for_that_noise(tmp_path: Path) -> None:
    content = {"name": "study", "dataset": SMALL, "losses": ["sl"], "references": ["itemknn"]}
    noise = {"noise": "pos=0.2", "valid_noise": "same"}
    study = Study.model_validate(content | noise | {"set": {"epochs": 2, "dim": 8}})
    entered = contenders(study)
    best = {c.name: [Trial(0, {}, "id", "complete", {0: 0.1}, 1.0)] for c in entered}
    (tmp_path / "tuned.toml").write_text(tuned_toml(study, entered, best))
    both: dict[str, Any] = {"noise": ["", "pos=0.2"], "valid_noise": ["clean", "same"]}
    made = expand(grid(presets=str(tmp_path / "tuned.toml"), **both))
    assert [sources(cell.origin) for cell in made] == [
        "grid",
        "grid",
        "tuned (study, trial 0, at pos=0.2 on noisy valid)",
    ]
    assert [tuned_at(sources(cell.origin), cell.flat()) for cell in made] == [False, False, True]


def test_a_preset_that_the_grid_sets_otherwise_is_no_longer_tuned(tmp_path: Path) -> None:
    presets = tmp_path / "presets.toml"
    presets.write_text(
        '[[preset]]\nsource = "tuned (study, trial 3)"\nwhen = {}\n'
        "[preset.set]\nepochs = 2\ntau = 0.3\nlr = 0.01\n"
    )

    def said(**settings: Any) -> list[str]:
        return [sources(c.origin) for c in expand(grid(presets=str(presets), set=settings))]

    assert said(epochs=4, tau=0.3) == said(dim=8) == ["tuned (study, trial 3)"]
    assert said(tau=0.2) == ["tuned (study, trial 3); set otherwise"]
    assert said(tau=[0.3, 0.2]) == [*said(), *said(tau=0.2)]


def test_what_another_preset_says_does_not_make_a_setting_tuned(tmp_path: Path) -> None:
    presets = tmp_path / "presets.toml"
    presets.write_text(
        '[[preset]]\nsource = "tuned (a, trial 3)"\nwhen = {}\nset = { tau = 0.3 }\n'
        '[[preset]]\nsource = "tuned (b, trial 4, at neg=5)"\nwhen = { noise = "neg=5" }\n'
        "set = { tau = 0.4, lr = 0.01 }\n"
    )
    asked = grid(presets=str(presets), noise=["neg=5"], set={"tau": 0.3})
    assert [sources(cell.origin) for cell in expand(asked)] == [
        "tuned (b, trial 4, at neg=5); set otherwise"
    ]


def test_presets_hold_for_other_splits_of_a_dataset(tmp_path: Path) -> None:
    presets = tmp_path / "presets.toml"
    presets.write_text(
        f'[[preset]]\nsource = "mine"\nwhen = {{ dataset = "{SMALL}" }}\nset = {{ tau = 0.3 }}\n'
    )
    names = [SMALL, f"{SMALL}&split=ood", f"{SMALL}&resplit=1", f"{SMALL}&seed=1"]
    made = expand(grid(datasets=names, presets=str(presets)))
    assert [cell.loss_params["tau"] for cell in made] == [0.3, 0.3, 0.3, 0.1]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"noise": ["neg=5"], "set": {"sampler": "pool"}}, 'needs sampler = "own", not "pool"'),
        (
            {"losses": ["full_softmax"], "noise": ["neg=5"]},
            "noise 'neg=5' is among negatives: the loss draws none",
        ),
        ({"noise": ["fneg=0"], "set": {"sampler": "in_batch"}}, "'fneg=0' needs sampler"),
        (
            {"noise": ["pos=1"], "valid_noise": "same", "selection": "test"},
            'valid_noise acts on selection = "valid" only',
        ),
    ],
)
def test_a_combination_that_cannot_act_is_an_error(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        expand(grid(**changes))


def test_false_positives_go_with_any_sampler() -> None:
    assert len(expand(grid(noise=["pos=0.2"], set={"sampler": ["pool", "in_batch"]}))) == 2


def test_seeds_are_paired_across_losses() -> None:
    made = expand(grid(losses=["sl", "bpr"], noise=["pos=0.5"], seeds=2))
    trains = [split_of(cell, Options()).train for cell in made]
    assert (trains[0] != trains[2]).nnz == 0
    assert (trains[1] != trains[3]).nnz == 0
    assert (trains[0] != trains[1]).nnz > 0


def test_results_carry_the_noise_and_what_it_came_to(tmp_path: Path) -> None:
    asked = grid(
        losses=["sl"],
        references=["popularity"],
        noise=["", "pos=0.5", "pos_popular=0.5,neg=5", "fneg=0.3"],
    )
    _, outcome = run(asked, tmp_path)
    assert not outcome.failed
    columns = ("noise_pos", "noise_neg", "noise_fneg", "noise_kind", "noise_hidden")
    metrics = rows(tmp_path / "trial" / "metrics.csv")
    assert {tuple(row[c] for c in columns) for row in metrics if row["loss"] == "sl"} == {
        ("0.0", "1.0", "0.0", "", ""),
        ("0.5", "1.0", "0.0", "", ""),
        ("0.5", "5.0", "0.0", "popular", ""),
        ("0.0", "1.0", "0.3", "", "True"),
    }
    record = {row["run_id"]: row for row in rows(tmp_path / "trial" / "runs.csv")}
    by_noise = {cell.noise.text: record[cell.id] for cell in expand(asked) if cell.loss == "sl"}
    assert by_noise[""]["noise_rate"] == by_noise[""]["noise_seed"] == ""
    assert 0.4 < float(by_noise["pos=0.5"]["noise_rate"]) <= 0.5
    assert by_noise["pos=0.5"]["noise_seed"] == "0"
    hidden = float(by_noise["fneg=0.3"]["false_negative_share"])
    assert 0.2 < hidden < 0.3  # a user with fewer than 10 pairs has none to hide
    clean, weighted = (
        float(by_noise[text]["false_negative_share"]) for text in ("", "pos_popular=0.5,neg=5")
    )
    assert 2 * clean < weighted < 5 * clean
    again = Store(tmp_path).run(expand(asked)[0].id)
    assert again.finished(expand(asked)[0])
    assert len({row["run_id"] for row in metrics if row["loss"] == "popularity"}) == 4


def test_a_cell_read_back_is_the_same_cell() -> None:
    [cell] = expand(grid(noise=["pos_published=0.1,neg=3"], valid_noise="same"))
    assert Cell.model_validate(cell.model_dump()).id == cell.id
    assert cell.noise == Noise(pos=0.1, kind="published", neg=3, labels="same")
