"""What is known: datasets, losses, backbones, references, settings and grids, as plain text."""

import inspect
from pathlib import Path
from typing import Any, get_args

from tabulate import tabulate

from bslbench.backbones import BACKBONES
from bslbench.catalog import data_dir, load_catalog, missing_files
from bslbench.config import OF_THE_LOSS, Grid, TrainSettings
from bslbench.data.load import describe
from bslbench.engine.grid import GRIDS
from bslbench.losses import LOSSES, Loss
from bslbench.plugins import Plugin, find
from bslbench.references import REFERENCES


def datasets(data: Path | None = None, catalog: Path | None = None) -> str:
    """Return a table of the catalog: what is on disk, and the statistics of what is."""
    known = load_catalog(catalog)
    rows: list[Any] = []
    for name, spec in known.items():
        if missing_files(spec, data_dir(data)):
            counts = {split: file.pairs for split, file in spec.files.items()}
            expected = {"users": spec.n_users, "items": spec.n_items} | counts
            rows.append({"dataset": name, "on disk": "no"} | expected | {"title": spec.title})
        else:
            found = describe(name, data, known)
            place = "yes" if spec.files else "embedded"
            rows.append({"dataset": name, "on disk": place} | found | {"title": spec.title})
    columns = ["dataset", "on disk", "users", "items", "train", "valid", "test", "density"]
    columns += ["per_user_median", "per_user_max", "repeated_rows", "title"]
    table = [[row.get(column) for column in columns] for row in rows]
    heads = [column.replace("_", " ") for column in columns]
    return tabulate(table, heads, intfmt=",", floatfmt=".4g", missingval="")


def losses() -> str:
    """Return each loss with its formula, its hyper-parameters' defaults, its source and status."""
    blocks = []
    for name, loss in LOSSES.items():
        lines = [
            name,
            loss.formula,
            "  ".join([*_defaults(name), _shape(loss)]),
            loss.source,
            f"{loss.status}: {loss.evidence}",
        ]
        blocks.append("\n  ".join(lines))
    return "\n\n".join(blocks)


def losses_as_markdown() -> str:
    """Return the table of ``docs/losses.md``, a row per loss."""
    heads = ["name", "formula", "hyper-parameters", "scores", "paper", "status"]
    rows = [
        [
            f"`{name}`",
            f"`{loss.formula}`",
            ", ".join(f"`{default}`" for default in _defaults(name)),
            _shape(loss),
            loss.source,
            f"**{loss.status}**: {loss.evidence}",
        ]
        for name, loss in LOSSES.items()
    ]
    # No column is padded to the longest formula: a line would be as long as all of them.
    lines = [heads, ["---"] * len(heads), *rows]
    return "".join("| " + " | ".join(x.replace("|", "\\|") for x in y) + " |\n" for y in lines)


def _defaults(name: str) -> list[str]:
    """Return the hyper-parameters of a loss with their defaults."""
    parameters = find(name, LOSSES, "loss").parameters()
    return [f"{key}={parameter.default}" for key, parameter in parameters.items()]


def _shape(loss: type[Loss]) -> str:
    """Return what scores a loss takes by default, and how many negatives."""
    if "negatives" in loss.needs:
        return f"{loss.score} scores, M = {loss.n_negatives}"
    return f"{loss.score} scores, {'all items' if 'all_items' in loss.needs else 'no negatives'}"


def backbones() -> str:
    """Return each backbone with its hyper-parameters' defaults and its source."""
    rows: list[Any] = []
    for name, backbone in BACKBONES.items():
        parameters = find(name, BACKBONES, "backbone").parameters()
        defaults = "  ".join(f"{key}={p.default}" for key, p in parameters.items())
        rows.append(
            [
                name,
                inspect.cleandoc(backbone.__doc__ or "").splitlines()[0],
                defaults,
                backbone.source,
            ]
        )
    return tabulate(rows, ["backbone", "", "hyper-parameters", "source"])


def references() -> str:
    """Return each reference recommender with its formula, defaults and source."""
    blocks = []
    for name, reference in REFERENCES.items():
        parameters = Plugin(name, reference).parameters()
        lines = [
            name,
            reference.formula,
            "  ".join(f"{key}={p.default}" for key, p in parameters.items()),
            reference.source,
        ]
        blocks.append("\n  ".join(line for line in lines if line))
    return "\n\n".join(blocks)


def settings() -> str:
    """Return each setting of training with its values, its default and its meaning."""
    rows = []
    for name, field in TrainSettings.model_fields.items():
        default = str(field.default).lower().removesuffix(".0")  # as in TOML
        if name in OF_THE_LOSS:
            default = "the loss's own"
        rows.append([name, _values(field.annotation), default, field.description])
    return tabulate(rows, ["setting", "values", "default", ""], disable_numparse=True)


def _values(kind: Any) -> str:
    """Return what a field may be: its choices, or the name of its type."""
    choices = [choice for choice in get_args(kind) if choice is not type(None)]
    named = choices or [kind]
    return " | ".join(c if isinstance(c, str) else c.__name__ for c in named)


def grids() -> str:
    """Return each grid that comes with the package, with its description."""
    rows = [[path.stem, Grid.from_toml(path).description] for path in sorted(GRIDS.glob("*.toml"))]
    return tabulate(rows, ["grid", ""])
