"""The theory's identities on the models that a grid has kept."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from bslbench.engine.embeddings import read_tables
from bslbench.errors import ConfigError
from bslbench.report.claims.common import CASE, Loaded, names
from bslbench.report.results import Results, Run
from bslbench.report.table import Column, Like, Table
from bslbench.seeding import key_of
from bslbench.theory import ATOMS, FloatArray, check

TAUS = (0.05, 0.1, 0.2, 0.3, 0.5)
N_USERS = 100
"""Users whose scores are looked at, against all items in random order."""


def theory_table(folder: Path, grid: str, metrics: Sequence[str] | None = None) -> Table:
    """Return the dualities' errors, the expansion and the worst case's size by temperature.

    Of each case the first seed of its best settings that has kept its model and was trained on
    cosines: the theory speaks of bounded scores.

    Parameters
    ----------
    folder, grid
        As in `bslbench.report.tables.main_table`.
    metrics
        Must be None.

    Raises
    ------
    ConfigError
        If metrics are asked for, or no run has kept such a model.
    """
    if metrics:
        raise ConfigError("the table 'theory' has no metrics: leave out --metric")
    loaded = Loaded(folder, grid)
    rows: list[list[Like]] = []
    for case, runs in loaded.cases():
        usable = [(run, model) for run in runs if (model := usable_model(loaded.results, run))]
        for run, model in usable[:1]:
            scores = cosines(model)
            for tau in TAUS:
                found = check(scores, tau)
                rows.append(
                    [
                        *names(case),
                        *(f"{run.seed}", tau, found.penalised, found.constrained, found.eta),
                        *(found.exact, found.expanded, found.remainder, found.effective),
                    ]
                )
    if not rows:
        raise ConfigError(
            f"no finished run of grid '{grid}' has kept a model trained on cosines: "
            "train with --save-model"
        )
    return loaded.table(
        "theory",
        [
            *CASE,
            Column("seed"),
            Column("tau", spec="g"),
            Column("penalised", "error of the duality", ".1e"),
            Column("constrained", "error of the duality", ".1e"),
            Column("eta"),
            Column("exact", "tau log E exp(f/tau)", ".5f"),
            Column("expansion", "tau log E exp(f/tau)", ".5f"),
            Column("remainder", "tau log E exp(f/tau)", "+.5f"),
            Column("effective size", spec=".2%"),
        ],
        rows,
        title="the theory, checked",
        says=f"cosines of {N_USERS} users with all items",
        notes=[
            f"errors: solver against closed form, the largest of 4 users with {ATOMS} random "
            "negatives each; to hold, below 1e-5",
            "eta: KL divergence of the worst-case distribution from the uniform one; effective "
            "size: its effective sample size as a share of the items",
            "whether the best temperature falls with false negatives as it should: the table "
            "temperature",
        ],
    )


def usable_model(results: Results, run: Run) -> Path | None:
    """Return the model that a run has kept, if it was trained on cosines."""
    model = results.folder / "runs" / run.id / "model.safetensors"
    return model if run.fields.get("score_train") == "cosine" and model.is_file() else None


def cosines(model: Path) -> FloatArray:
    """Return the cosines of some users with all items, both in random order, [n, I]."""
    rng = np.random.default_rng(key_of(0, "theory"))
    users, items = (_unit(rng.permutation(table)) for table in read_tables(model))
    scores: FloatArray = users[:N_USERS] @ items.T
    return scores


def _unit(rows: FloatArray) -> FloatArray:
    rows = rows.astype(np.float64)
    units: FloatArray = rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)
    return units
