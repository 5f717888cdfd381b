"""Reference recommenders: each against its formula in float64, and what all of them do."""

from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch import Tensor

from bslbench import memory
from bslbench.config import Cell, Grid
from bslbench.data.interactions import Interactions
from bslbench.data.load import load
from bslbench.data.splits import take
from bslbench.engine.cell import run_cell
from bslbench.engine.grid import expand
from bslbench.engine.inputs import Options
from bslbench.engine.machine import n_cores, set_threads
from bslbench.engine.plan import plan
from bslbench.engine.presets import find_presets
from bslbench.engine.store import Store
from bslbench.errors import ConfigError, RunFailed
from bslbench.evaluation.metrics import per_user
from bslbench.evaluation.ranking import Scorer, rank_all, tie_order
from bslbench.kernels import cpu_als, inverse
from bslbench.references import EASE, IALS, REFERENCES, ItemKNN, Popularity, Random
from bslbench.references.itemknn import Similarity
from tests.fixtures import checkerboard, on_threads, ragged, tiny

F64 = npt.NDArray[np.float64]
SMALL = "synthetic?users=200&items=120&interactions=4000"


def scores_of(scorer: Scorer, data: Interactions) -> F64:
    return scorer(torch.arange(data.n_users)).double().numpy()


@pytest.fixture
def threads() -> Iterator[None]:
    with on_threads(n_cores()):
        yield


@pytest.mark.parametrize("name", REFERENCES)
def test_every_reference_scores_all_items_and_repeats_itself(name: str) -> None:
    data = tiny()
    users = torch.tensor([4, 7, 9])
    scores = REFERENCES[name]().fit(data, 0)(users).clone()
    assert scores.shape == (3, data.n_items)
    assert scores.dtype == torch.float32
    again = REFERENCES[name]().fit(data, 0)
    assert torch.equal(scores, again(users))
    assert torch.equal(scores[1:], again(users[1:]))  # however users come in blocks


@pytest.mark.parametrize("name", REFERENCES)
def test_every_reference_can_be_ranked(name: str) -> None:
    data = tiny()
    ranks = rank_all(REFERENCES[name]().fit(data, 0), data, "test")
    assert len(ranks.users) == data.n_users
    assert 0 <= per_user(ranks, "Recall", 20).mean() <= 1


@pytest.mark.parametrize("name", REFERENCES)
def test_every_reference_takes_users_and_items_without_train(name: str) -> None:
    data = ragged()
    scores = REFERENCES[name]().fit(data, 0)(torch.arange(data.n_users))
    assert scores.isfinite().all()


@pytest.mark.parametrize("name", REFERENCES)
def test_bits_do_not_depend_on_the_threads(name: str, threads: None) -> None:
    data = load(SMALL)
    made = []
    for count in (1, 2):
        set_threads(count)
        made.append(REFERENCES[name]().fit(data, 3)(torch.arange(50)).clone())
    assert torch.equal(*made)


@pytest.mark.parametrize("reference", [ItemKNN(k=5), EASE(lam=5.0), IALS(dim=4)])
def test_finds_the_held_out_item_of_the_checkerboard(reference: Any) -> None:
    data = checkerboard()
    ranks = rank_all(reference.fit(data, 0), data, "test")
    assert ranks.ranks.tolist() == [1] * data.n_users


def test_popularity_is_the_train_degree() -> None:
    data = tiny()
    scores = Popularity().fit(data, 0)(torch.tensor([0, 3]))
    assert scores.tolist() == [data.train.sum(axis=0).tolist()] * 2


def test_random_is_uniform_and_a_function_of_seed_user_and_item() -> None:
    data = load(SMALL)
    scores = scores_of(Random().fit(data, 0), data)
    assert scores.min() >= 0 and scores.max() < 1
    counts, _ = np.histogram(scores, 10, (0, 1))
    assert abs(counts / scores.size - 0.1).max() < 0.01
    assert abs(np.corrcoef(scores[0], scores[1])[0, 1]) < 0.3
    other = scores_of(Random().fit(data, 1), data)
    assert not (scores == other).any()


def similarity(kind: Similarity, x: F64, i: int, j: int, shrink: float) -> float:
    a, b = x[:, i], x[:, j]
    if kind == "jaccard":
        return float((a * b).sum() / max(np.maximum(a, b).sum() + shrink, 1e-12))
    if kind == "pearson":
        a, b = a - a.mean(), b - b.mean()
    return float((a * b).sum() / max(np.sqrt((a * a).sum() * (b * b).sum()) + shrink, 1e-12))


@pytest.mark.parametrize("kind", ["cosine", "pearson", "jaccard"])
@pytest.mark.parametrize(("shrink", "normalize"), [(0.0, True), (0.0, False), (2.5, True)])
def test_itemknn_equals_loops(kind: Similarity, shrink: float, normalize: bool) -> None:
    data, k = ragged(), 4
    x = data.train.toarray().astype(float)
    places = tie_order(data)
    expected = np.zeros_like(x)
    for i in range(data.n_items):
        near = [(similarity(kind, x, i, j, shrink), j) for j in range(data.n_items) if j != i]
        near = sorted(near, key=lambda pair: (-round(pair[0], 6), places[pair[1]]))[:k]
        near = [(weight, j) for weight, j in near if weight > 0]
        total = sum(weight for weight, _ in near) if normalize else 1
        for weight, j in near:
            offset = x[:, j].mean() if normalize else 0
            expected[:, i] += weight / total * (x[:, j] - offset)
        expected[:, i] += x[:, i].mean() if normalize else 0
    found = ItemKNN(k=k, similarity=kind, shrink=shrink, normalize=normalize).fit(data, 0)
    np.testing.assert_allclose(scores_of(found, data), expected, atol=2e-6)


@pytest.mark.parametrize("lam", [0.5, 20.0])
def test_ease_equals_the_formula_in_float64(lam: float) -> None:
    data = ragged()
    x = data.train.toarray().astype(float)
    p = np.linalg.inv(x.T @ x + lam * np.eye(data.n_items))
    b = -p / np.diag(p)
    np.fill_diagonal(b, 0)
    np.testing.assert_allclose(EASE(lam=lam).weights(data).numpy(), b, atol=2e-6)
    np.testing.assert_allclose(scores_of(EASE(lam=lam).fit(data, 0), data), x @ b, atol=5e-6)


@pytest.mark.parametrize("n", [1, 40, inverse.PIVOT + 7, inverse.ROWS + 17])
def test_inverse_in_place(n: int, threads: None) -> None:
    draws = torch.Generator().manual_seed(n)
    factor = torch.randn(n, n // 2 + 1, generator=draws, dtype=torch.float64)
    matrix = factor @ factor.T / n + torch.eye(n, dtype=torch.float64)
    made = []
    for count in (1, 2, 3, 8):
        set_threads(count)
        made.append(matrix.float())
        inverse.invert(made[-1])
    assert all(torch.equal(made[0], other) for other in made[1:])
    torch.testing.assert_close(made[0].double(), torch.linalg.inv(matrix), atol=2e-6, rtol=1e-5)


def objective(users: Tensor, items: Tensor, x: Tensor, model: IALS) -> Tensor:
    scores = users @ items.T
    total = (x * (1 - scores) ** 2).sum() + model.alpha * scores.square().sum()
    for table, degrees, n_other in ((users, x.sum(1), x.shape[1]), (items, x.sum(0), x.shape[0])):
        strength = model.reg * (degrees + model.alpha * n_other) ** model.nu
        total = total + (strength * table.square().sum(1)).sum()
    return total


@pytest.mark.parametrize("nu", [0.0, 0.5, 1.0])
def test_ials_ends_where_the_gradient_of_its_objective_vanishes(nu: float) -> None:
    data = ragged()
    model = IALS(dim=3, alpha=0.2, reg=0.05, nu=nu, iterations=300)
    tables = [table.double() for table in model.tables(data, 0)]
    x = torch.from_numpy(data.train.toarray()).double()

    def total(users: Tensor, items: Tensor) -> Tensor:
        return objective(users, items, x, model)

    gradients = torch.autograd.functional.jacobian(total, tuple(tables))
    assert max(float(gradient.abs().max()) for gradient in gradients) < 2e-4
    assert total(*tables) < x.sum()  # what tables of zeros would leave


def test_every_sweep_of_ials_lowers_its_objective() -> None:
    data = load(SMALL)
    x = torch.from_numpy(data.train.toarray()).double()
    values = []
    for iterations in (1, 2, 4, 8):
        model = IALS(dim=8, iterations=iterations)
        users, items = (table.double() for table in model.tables(data, 0))
        values.append(float(objective(users, items, x, model)))
    assert values == sorted(values, reverse=True)


def test_a_half_step_of_ials_repeated_solves_the_normal_equations() -> None:
    rng = np.random.default_rng(0)
    fixed = rng.normal(size=(9, 4)).astype(np.float32)
    indptr, indices = np.array([0, 3, 3, 8]), np.array([0, 4, 7, 1, 2, 3, 4, 8], np.int32)
    gram = cpu_als.gram(fixed)
    np.testing.assert_allclose(gram, fixed.T.astype(float) @ fixed, rtol=1e-6)
    strength = np.array([0.5, 0.1, 2.0], np.float32)
    found = rng.normal(size=(3, 4)).astype(np.float32)
    for _ in range(4):
        cpu_als.improve_for(4)(indptr, indices, fixed, gram.astype(np.float32), strength, found)
    for row, (first, last) in enumerate(pairwise(indptr)):
        own = fixed[indices[first:last]].astype(float)
        left = gram + strength[row] * np.eye(4) + own.T @ own
        np.testing.assert_allclose(found[row], np.linalg.solve(left, own.sum(0)), atol=1e-5)


def test_seeds_start_ials_elsewhere() -> None:
    data = tiny()
    one, two = (IALS(dim=4, iterations=1).tables(data, seed)[0] for seed in (0, 1))
    assert not torch.equal(one, two)


def grid(**changes: Any) -> Grid:
    return Grid.model_validate({"name": "trial", "datasets": [SMALL]} | changes)


def test_a_grid_sets_references_like_losses() -> None:
    cells = expand(
        grid(
            losses=["sl"],
            references=["popularity", "ease", "ials"],
            set={"dim": [8, 16]},
            override=[{"when": {"loss": "ease"}, "set": {"lam": [1, 100.0]}}],
        )
    )
    found = [(cell.loss, cell.flat().get("dim"), cell.flat().get("lam")) for cell in cells]
    assert found == [
        ("popularity", None, None),
        ("ease", None, 1.0),
        ("ease", None, 100.0),
        ("ials", 8, None),
        ("ials", 16, None),
        ("sl", 8, None),
        ("sl", 16, None),
    ]
    ials = cells[3]
    assert ials.origin["dim"] == "grid trial" and ials.origin["reg"] == "default"
    assert ials.backbone == "reference" and ials.train is None


def test_a_preset_names_a_reference_by_the_backbone_reference(tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    file.write_text(
        "[[preset]]\nsource = 'mine'\n"
        "when = { backbone = 'reference', loss = 'itemknn' }\nset = { k = 7 }\n"
    )
    [cell] = expand(grid(references=["itemknn"], presets=str(file)))
    assert cell.loss_params["k"] == 7 and cell.origin["k"] == "mine preset"


def test_popularity_has_no_parameters_and_so_its_old_id() -> None:
    [cell] = expand(grid(references=["popularity"]))
    bare = {"backbone": "reference", "loss": "popularity", "seed": 0, "selection": "valid"}
    assert cell.id == Cell(dataset=SMALL, fingerprint=cell.fingerprint, **bare).id
    assert cell.loss_params == {}


@pytest.mark.parametrize(
    ("reference", "setting", "message"),
    [
        ("ease", {"lam": 0.0}, "ease: lam must be above 0, not 0"),
        ("ease", {"lam": "big"}, "ease: lam = 'big' is not of type float"),
        ("ease", {"lamb": 1.0}, "reference or training setting here has a 'lamb'.*'lam'"),
        ("itemknn", {"k": 0}, "itemknn: k must be at least 1, not 0"),
        ("itemknn", {"similarity": "cos"}, "cosine, pearson, jaccard, not 'cos'"),
        ("ials", {"nu": -1}, "nu must be at least 0"),
        ("eas", {}, "no reference named 'eas'; did you mean 'ease'"),
    ],
)
def test_a_mistake_is_named_before_anything_runs(
    reference: str, setting: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        expand(grid(references=[reference], set=setting))


@pytest.mark.parametrize("reference", ["ease", "itemknn"])
def test_what_does_not_fit_in_memory_is_refused(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, reference: str
) -> None:
    monkeypatch.setattr(memory, "available", lambda: 50_000)
    [cell] = expand(grid(references=[reference]))
    with pytest.raises(RunFailed, match=r" of 120 items needs .* GB of memory, 0.0 GB are fr"):
        run_cell(cell, Store(tmp_path))
    monkeypatch.setattr(memory, "available", lambda: None)  # nothing told, nothing refused
    assert run_cell(cell, Store(tmp_path))


def test_the_plan_states_the_memory_of_ease() -> None:
    assert EASE().n_bytes(31_668, 38_048) == pytest.approx(4 * 38_048**2, rel=0.1)
    rows, _ = plan(
        expand(grid(references=["ease"])), Store(Path("nowhere")), Options(), _everything(), 1
    )
    assert rows[0]["memory"].endswith("GB")


def _everything() -> Any:
    from bslbench.engine.running import Part

    return Part()


def test_what_draws_nothing_is_fitted_once_for_all_seeds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = expand(grid(references=["ease"], seeds=2))
    other, _ = expand(grid(references=["ease"], seeds=2, set={"lam": 7.0}))
    noisy = expand(grid(references=["ease"], seeds=2, noise=["pos=0.2"]))
    drawn = expand(grid(references=["random"], seeds=2))
    store = Store(tmp_path)
    run_cell(first, store)
    run_cell(second, Store(tmp_path / "alone"))
    fitted: list[int] = []
    for reference in (EASE, Random):
        fit = reference.fit

        def counting(self: Any, data: Interactions, seed: int, fit: Any = fit) -> Scorer:
            fitted.append(seed)
            return fit(self, data, seed)

        monkeypatch.setattr(reference, "fit", counting)
    run_cell(second, store)
    assert not fitted
    run, alone = store.run(second.id), Store(tmp_path / "alone").run(second.id)
    assert run.finished(second)
    assert run.info()["taken_from"] == first.id
    assert run.info()["outcome"]["seconds_train"] == 0
    for name in ("metrics.csv", "ranks.npz", "curve.csv"):
        assert run.file(name).read_bytes() == alone.file(name).read_bytes()
    run_cell(second, store, Options(force=True))
    run_cell(other, store)
    for cell in (*noisy, *drawn):
        run_cell(cell, store)
    assert fitted == [1, 0, 0, 1, 0, 1]


def test_the_published_settings_of_references() -> None:
    found = {
        (preset.when["dataset"], preset.when["loss"]): preset.set
        for preset in find_presets(True, [])
        if preset.when["backbone"] == "reference"
    }
    assert found["yelp2018", "ease"] == {"lam": 300.0}
    assert found["yelp2018", "itemknn"]["similarity"] == "pearson"


def test_itemknn_on_yelp2018_is_the_published_one(real_data: Path) -> None:
    """BARS: Recall@20 .063913, NDCG@20 .053094, here on every third user."""
    [cell] = expand(
        grid(datasets=["yelp2018"], references=["itemknn"], selection="test"), real_data
    )
    assert cell.origin["k"] == "published preset"
    data = load("yelp2018", real_data)
    scorer = REFERENCES["itemknn"](**cell.loss_params).fit(data, 0)
    owners = np.repeat(np.arange(data.n_users), np.diff(data.test.indptr))
    ranks = rank_all(scorer, replace(data, test=take(data.test, owners % 3 == 0)), "test")
    assert per_user(ranks, "Recall", 20).mean() == pytest.approx(0.0639, rel=0.04)
    assert per_user(ranks, "NDCG", 20).mean() == pytest.approx(0.0531, rel=0.04)
