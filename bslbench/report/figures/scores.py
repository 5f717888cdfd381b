"""Score distributions: how far train pairs, test pairs and all other pairs lie apart."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from bslbench.data.splits import hold_out
from bslbench.report.best import chosen, tuned_away
from bslbench.report.figures.chart import Chart, Nothing, Panel, Series
from bslbench.report.figures.words import of_the_best, titles
from bslbench.report.results import Results
from bslbench.seeding import key_of

if TYPE_CHECKING:
    from scipy.sparse import csr_array

    from bslbench.data.interactions import Interactions

PAIRS = 50_000
"""At most so many pairs of each kind are scored."""

BINS = 60

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
Loader = Callable[[str], "Interactions"]
"""Gives a dataset by its name."""


def scores(results: Results, load: Loader) -> Chart:
    """Return the densities of test scores, a panel per loss, of its first seed with a kept model.

    Raises
    ------
    Nothing
        If no run has its model (`bslbench train --save-model`).
    """
    kept = chosen(results)
    models = {}
    for case, runs in kept.items():
        files = [(run, results.folder / "runs" / run.id / "model.safetensors") for run in runs]
        found = [(run, file) for run, file in files if file.is_file()]
        if found:
            models[case] = found[0]
    if not models:
        raise Nothing("no run has kept its model: train with --save-model")
    heads = titles(models)
    several = len(set(heads.values())) > 1
    panels = []
    for case, (run, file) in models.items():
        name = f"{case.loss}, {heads[case]}" if several else case.loss
        whole = load(case.dataset)
        if whole.fingerprint != run.fields["fingerprint"]:
            raise Nothing(f"{case.dataset} is no longer the data that {run.id} was trained on")
        data = hold_out(whole, "test" if run.selection == "test" else "valid")
        pairs = score_pairs(data, file, str(run.fields["score_test"]))
        panels.append(Panel(name, tuple(_densities(pairs))))
    return Chart(
        "scores",
        "score in evaluation",
        "density",
        tuple(panels),
        kind="steps",
        caption=(
            f"Scores of train pairs, test pairs and pairs that are neither, at most {PAIRS:,} of "
            f"each; the first seed with a kept model{of_the_best(tuned_away(results, kept))}"
        ),
    )


def score_pairs(data: Interactions, model: Path, score: str) -> dict[str, Floats]:
    """Return the scores of pairs by kind, drawn from the whole dataset, the same at every call.

    Parameters
    ----------
    data
        With the validation pairs held out that the run did not train on.
    model
        Embeddings ``users`` [n_users, d] and ``items`` [n_items, d], as safetensors.
    score
        ``cosine`` or ``inner``.
    """
    from bslbench.engine.embeddings import read_tables

    users, items = read_tables(model)
    if score == "cosine":
        users, items = _normalized(users), _normalized(items)
    rng = np.random.default_rng(key_of(0, "scores"))
    kinds = {"train pairs": data.train, "test pairs": data.test}
    drawn: dict[str, tuple[Ints, Ints]] = {}
    for kind, split in kinds.items():
        rows = np.repeat(np.arange(data.n_users), np.diff(split.indptr))
        some = rng.choice(split.nnz, min(PAIRS, split.nnz), replace=False)
        drawn[kind] = rows[some], split.indices[some].astype(np.int64)
    known = np.concatenate([_codes(data, split) for split in (data.train, data.valid, data.test)])
    anywhere = rng.integers(data.n_users, size=PAIRS), rng.integers(data.n_items, size=PAIRS)
    other = ~np.isin(anywhere[0] * data.n_items + anywhere[1], known)
    drawn["other pairs"] = anywhere[0][other], anywhere[1][other]
    return {
        kind: np.einsum("nd,nd->n", users[u], items[i]).astype(np.float64)
        for kind, (u, i) in drawn.items()
    }


def _normalized(rows: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    norms = np.sqrt(np.einsum("nd,nd->n", rows, rows))
    scaled: npt.NDArray[np.float32] = rows / np.maximum(norms, np.float32(1e-12))[:, None]
    return scaled


def _codes(data: Interactions, split: csr_array) -> Ints:
    """Return a number for each pair of a split."""
    rows = np.repeat(np.arange(data.n_users), np.diff(split.indptr))
    return rows * data.n_items + split.indices


def _densities(pairs: dict[str, Floats]) -> Iterator[Series]:
    every = np.concatenate(list(pairs.values()))
    edges = np.linspace(every.min(), max(every.max(), every.min() + 1e-6), BINS + 1)
    for kind, values in pairs.items():
        density, _ = np.histogram(values, edges, density=True)
        yield Series(kind, edges[:-1].tolist(), density.tolist())
