"""What a race leaves to be used: the embeddings that were measured, and those of all data."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from bslbench.config import Cell
from bslbench.data.load import load
from bslbench.engine.cell import trained
from bslbench.engine.embeddings import READ_BACK, Embeddings, called, of_run
from bslbench.engine.inputs import Options
from bslbench.engine.refit import everything, refit
from bslbench.engine.store import Run
from bslbench.evaluation.metrics import per_user
from bslbench.evaluation.ranks import Ranks

FILES = """- `users.npy`, `items.npy`, both also in `model.safetensors`: a row for each, float32
- `user_ids.npy`, `item_ids.npy`: what the rows are called
- `about.json`: `score` says how a user's row and an item's are scored: by `{score}`"""


def write_evaluated(run: Run, options: Options, folder: Path) -> bool:
    """Write the embeddings of a finished run, with all it takes to find its Recall@20 again.

    Returns whether there was anything to write.
    """
    model, cell, data = of_run(run, options)
    ranks = Ranks.load(run.file("ranks.npz"))
    recall = float(per_user(ranks, "Recall", 20).mean())
    about = _about("evaluated", cell, run) | {"Recall@20": recall}
    if _there(folder, about):
        return False
    readme = f"""# Embeddings, evaluated

{_what(cell)}, fitted to the train split of {cell.dataset}: Recall@20 on test
{recall:.4f} (run `{cell.id}`). To be measured, not deployed: they have never seen the
interactions of valid and test; `deploy/` has.

{FILES.format(score=about["score"])}
- `split.npz`: row u of `seen_*` (CSR) lists the items that are left out of user u's ranking;
  `test_users`, and row n of `test_*`, what is to be found for the n-th of them

Recall@20 again, with numpy alone, but for rounding:

```python
{READ_BACK}```
"""
    wanted = data.test[ranks.users]
    replace(model, about=about).write(folder, readme, (ranks.users, wanted))
    return True


def write_deployed(
    run: Run, options: Options, folder: Path, state: Run, stop: Callable[[], bool]
) -> bool:
    """Train a finished run once more on all interactions, and write what comes out.

    Returns whether there was anything to write.

    Raises
    ------
    Interrupted
        If `stop` said so; what was trained is kept.
    """
    _, cell, _ = of_run(run, options)
    about = _about("deploy", cell, run)
    if _there(folder, about):
        return False
    data = load(cell.dataset, options.data, options.catalog)
    best = about["best_epoch"]
    tables = refit(cell, best, data, state, options.keep_every, stop)
    users, items = (table.numpy() for table in tables)
    readme = f"""# Embeddings, to deploy

{_what(cell)}, fitted to *all* interactions of {cell.dataset}, train, valid and test, for
{best + 1} of {trained(cell).epochs} epochs, as was best for run `{cell.id}`. No figure is known of
them: there is nothing left to measure them on. `evaluated/` has been measured.

{FILES.format(score=about["score"])}
- `split.npz`: row u of `seen_*` (CSR) lists all items that user u has
"""
    user_ids, item_ids = called(data, options)
    model = Embeddings(users, items, user_ids, item_ids, everything(data), about)
    model.write(folder, readme)
    state.file("state.pt").unlink(missing_ok=True)
    return True


def _what(cell: Cell) -> str:
    settings = ", ".join(f"{name} {value}" for name, value in cell.loss_params.items())
    return f"{cell.backbone} trained with {cell.loss}" + (f" ({settings})" if settings else "")


def _about(kind: str, cell: Cell, run: Run) -> dict[str, Any]:
    return {
        "kind": kind,
        "score": trained(cell).score_test,
        "run": run.folder.name,
        "best_epoch": int(run.info()["outcome"]["best_epoch"]),
        "dataset": cell.dataset,
        "fingerprint": cell.fingerprint,
    }


def _there(folder: Path, about: dict[str, Any]) -> bool:
    """Tell whether the folder has been written before, whole."""
    try:
        return bool(json.loads((folder / "about.json").read_bytes()) == about)
    except (OSError, ValueError):
        return False
