"""Embeddings that are kept: read back right, or refused in one line."""

import contextlib
import io
import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file
from scipy.sparse import csr_array

from bslbench.engine.embeddings import READ_BACK, Embeddings, read
from bslbench.engine.lists import recommend
from bslbench.errors import DataError
from tests.fixtures import Command

SMALL = "synthetic?users=60&items=40&interactions=400"


def model(n_items: int = 12) -> Embeddings:
    """Three users with four numbers each; the first item is the last user's already."""
    draws = np.random.default_rng(0)
    users, items = (draws.normal(size=(n, 4)).astype(np.float32) for n in (3, n_items))
    seen = csr_array((np.ones(1, np.uint8), [0], [0, 0, 0, 1]), shape=(3, n_items))
    ids = (np.array([f"{side}{i}" for i in range(n)]) for side, n in (("u", 3), ("i", n_items)))
    return Embeddings(users, items, *ids, seen, {"score": "cosine"})


@pytest.fixture
def kept(bslbench: Command) -> Path:
    """The folder of a run that has kept its model."""
    train = ["train", "--dataset", SMALL, "--loss", "bpr", "--set", "epochs=1", "--set", "dim=4"]
    code, _, err = bslbench(*train, "--save-model", "--set", "n_negatives=4")
    assert code == 0, err
    [found] = Path("results/runs").glob("*/model.safetensors")
    return found.parent


def refused(bslbench: Command, run: str) -> str:
    code, out, err = bslbench("recommend", "--run", run, "--user", "1")
    assert (code, out) == (2, "") and len(err.splitlines()) == 1, err
    return err


@pytest.mark.parametrize("n_items", [12, 20, 21, 60])
def test_the_readme_finds_the_figure_whatever_the_number_of_items(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, n_items: int
) -> None:
    monkeypatch.chdir(tmp_path)
    made = model(n_items)
    wanted = csr_array((np.ones(2, np.uint8), [3, 5], [0, 1, 2]), shape=(2, n_items))
    made.write(Path(), "", (np.array([1, 2]), wanted))
    with contextlib.redirect_stdout(io.StringIO()) as shown:
        exec(READ_BACK, {})
    hits = []
    for user, item, seen in ((1, 3, []), (2, 5, [0])):
        scores = made.items @ made.users[user] / np.linalg.norm(made.items, axis=1)
        scores[seen] = -np.inf
        hits.append((scores > scores[item]).sum() < 20)
    assert float(shown.getvalue()) == np.mean(hits)


def test_a_run_that_is_not_there_is_one_line(bslbench: Command, kept: Path) -> None:
    for text in (str(kept.parent.resolve() / "mistyped"), "a**b", "[", "../runs/", "gone/"):
        said = refused(bslbench, text)
        assert f"'{text}' is no folder of embeddings, and no run in results/runs; known: " in said
        code, _, err = bslbench("eval", text)
        assert code == 2 and f"'{text}' is no finished run in results/runs" in err
    assert f"did you mean '{kept.name}'?" in refused(bslbench, f"x{kept.name}")
    assert bslbench("recommend", "--run", kept.name[:12], "--user", "1")[0] == 0


def test_a_mistyped_folder_of_embeddings_gets_a_suggestion(
    bslbench: Command, tmp_path: Path
) -> None:
    model().write(tmp_path / "out" / "deploy", "")
    said = refused(bslbench, f"{tmp_path}/out/deplyo")
    assert f"did you mean '{tmp_path}/out/deploy'?" in said


@pytest.mark.parametrize("content", [b"", b"{}", b"\xff" * 40, None])
def test_a_damaged_model_of_a_run_is_named(
    bslbench: Command, kept: Path, content: bytes | None
) -> None:
    path = kept / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-3] if content is None else content)
    assert f"{path} cannot be read as embeddings: " in refused(bslbench, kept.name)


def test_a_model_of_another_shape_or_of_no_numbers_is_named(bslbench: Command, kept: Path) -> None:
    path = kept / "model.safetensors"
    tables = load_file(path)
    broken = [
        {"users": tables["users"]},
        tables | {"users": tables["users"][:-1]},
        tables | {"items": tables["items"][:, :-1].copy()},
        tables | {"items": np.full_like(tables["items"], np.nan)},
    ]
    for changed in broken:
        save_file(changed, path)
        assert str(kept) in refused(bslbench, kept.name)


def test_a_run_whose_configuration_is_damaged_is_named(bslbench: Command, kept: Path) -> None:
    info = json.loads((kept / "run.json").read_bytes())
    for canonical in ({}, info["canonical"] | {"seed": "x"}, [], None):
        (kept / "run.json").write_text(json.dumps(info | {"canonical": canonical}))
        assert str(kept) in refused(bslbench, kept.name)


def test_a_reference_has_no_embeddings(bslbench: Command) -> None:
    assert bslbench("train", "--dataset", SMALL, "--reference", "popularity")[0] == 0
    said = refused(bslbench, "synthetic")
    assert "has no embeddings: references and lists keep none" in said


def test_a_run_without_its_model_says_how_to_keep_it(bslbench: Command, kept: Path) -> None:
    (kept / "model.safetensors").unlink()
    assert "has kept no embeddings: train it again with --save-model" in refused(bslbench, "synth")
    (kept / "metrics.csv").unlink()
    assert "is not finished, or damaged; train it again" in refused(bslbench, "synthetic")


def test_a_folder_whose_parts_do_not_fit_is_refused(tmp_path: Path) -> None:
    made = model()
    made.write(tmp_path, "")
    assert recommend(read(tmp_path), "u2", 3) == recommend(made, "u2", 3)
    out_of_range = [np.array([0, 0, 0, 1]), np.array([99])]
    broken = {
        "users": made.users[:2],
        "items": made.items.astype(np.int32),
        "user_ids": np.arange(3),
        "item_ids": np.array([chr(0xD800)] * 12),
        "split": dict(zip(("seen_indptr", "seen_items"), out_of_range, strict=True)),
    }
    for name, content in broken.items():
        made.write(tmp_path, "")
        if isinstance(content, dict):
            np.savez(tmp_path / "split.npz", **content)
        else:
            np.save(tmp_path / f"{name}.npy", content)
        with pytest.raises(DataError, match="cannot be read as embeddings"):
            read(tmp_path)
