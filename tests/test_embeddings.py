"""Embeddings that are kept: read back right, or refused in one line."""

import contextlib
import io
from pathlib import Path

import numpy as np
import pytest
from scipy.sparse import csr_array

from bslbench.engine.embeddings import READ_BACK, Embeddings
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
        assert f"'{text}' is no folder of embeddings, and no run in results/runs" in said
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
