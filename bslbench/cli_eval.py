"""The command `eval`: metrics of a run that is there, or of what was trained elsewhere."""

import sys
from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bslbench.errors import ConfigError
from bslbench.options import Catalog, Data, Results, number, report_of

if TYPE_CHECKING:
    from bslbench.evaluation.ranks import Ranks


class Score(StrEnum):
    """What ranks embeddings."""

    cosine = "cosine"
    inner = "inner"


class Selection(StrEnum):
    """Whether validation pairs are held out of train."""

    valid = "valid"
    test = "test"


def evaluate(
    run: Annotated[
        str | None, typer.Argument(help="Run id, the beginning of one, or its folder.")
    ] = None,
    users: Annotated[
        Path | None, typer.Option("--users", help="Embeddings of the users, .npy, .safetensors.")
    ] = None,
    items: Annotated[Path | None, typer.Option("--items", help="Embeddings of the items.")] = None,
    score: Annotated[
        Score | None, typer.Option("--score", help="How the embeddings score.")
    ] = None,
    lists: Annotated[
        Path | None,
        typer.Option("--lists", help="User, item, rank: CSV, Parquet or a TREC run file."),
    ] = None,
    dataset: Annotated[
        str | None, typer.Option("--dataset", help="What they were trained on.")
    ] = None,
    selection: Annotated[
        Selection | None,
        typer.Option("--selection", help="test: nothing is held out as valid; default valid."),
    ] = None,
    name: Annotated[
        str | None, typer.Option("--name", help="Keep it as a run of this name.")
    ] = None,
    grid: Annotated[
        str | None, typer.Option("--grid", help="The grid it joins; default adhoc.")
    ] = None,
    k: Annotated[str, typer.Option("--k", help="Cut-offs, 1 to 100.")] = "5,10,20,50",
    metric: Annotated[
        list[str] | None, typer.Option("--metric", help="Metric, repeatable; default all.")
    ] = None,
    results: Results = Path("results"),
    data: Data = None,
    catalog: Catalog = None,
) -> None:
    """Compute any metric up to cut-off 100, of a run, or of embeddings or lists from elsewhere."""
    from bslbench.engine.store import Store
    from bslbench.evaluation.ranks import Ranks

    foreign = [option for option in (users, items, lists) if option is not None]
    cutoffs = [number(part, "--k") for part in k.split(",")]
    if run is not None:
        if foreign or dataset or score or selection or name or grid:
            raise ConfigError("a run is what it is: --k, --metric and --results go with it")
        found = Store(results).find(run, "ranks.npz", "no finished run")
        _show(found.folder.name, Ranks.load(found.file("ranks.npz")), cutoffs, metric)
        return
    if not foreign:
        raise ConfigError("name a run, or --users and --items, or --lists")
    if dataset is None:
        raise ConfigError("say which --dataset the files are of")
    if lists is not None and (users or items or score):
        raise ConfigError("--lists stands alone: lists have no embeddings and no score")
    if lists is None and not (users and items and score):
        raise ConfigError("embeddings need --users, --items and --score cosine or inner")
    if grid and not name:
        raise ConfigError("--grid needs a --name for the row")

    from bslbench.catalog import load_catalog
    from bslbench.data.ids import ids_of
    from bslbench.data.load import load
    from bslbench.data.splits import hold_out
    from bslbench.engine.external import ReadEmbeddings, ReadLists
    from bslbench.engine.machine import tell_of_compiling

    tell_of_compiling()
    known = load_catalog(catalog)
    loaded = load(dataset, data, known)
    selection = selection or Selection.valid
    made: ReadEmbeddings | ReadLists
    if users and items and score:
        made = ReadEmbeddings.read(users, items, score.value, loaded)
    elif lists:
        made = ReadLists.read(lists, ids_of(known, dataset, loaded, data))
    if name is None:
        ranks = made(hold_out(loaded, selection.value), "test")
        _show(dataset, ranks, cutoffs, metric)
    else:
        from bslbench.config import Grid
        from bslbench.engine.cell import run_cell
        from bslbench.engine.external import external_cell
        from bslbench.engine.inputs import Options
        from bslbench.toml import validated

        row = validated(Grid, {"name": name}, "--name").name
        table = validated(Grid, {"name": grid or "adhoc"}, "--grid").name
        cell = external_cell(row, made, loaded, selection.value)
        store = Store(results)
        store.check_joins(table, cell)
        run_cell(cell, store, Options(data, known), ranker=made)
        store.add_to_grid(table, cell)
        ranks = Ranks.load(store.run(cell.id).file("ranks.npz"))
        _show(cell.id, ranks, cutoffs, metric)
        print(f"next: {report_of(table, results)}")
    if isinstance(made, ReadLists) and (n_without := made.n_without(ranks.users)):
        print(f"{n_without} users have no list and count with 0", file=sys.stderr)


def _show(
    title: str, ranks: "Ranks", cutoffs: Sequence[int], metrics: Sequence[str] | None
) -> None:
    from tabulate import tabulate

    from bslbench.evaluation.metrics import METRICS, summary

    values = summary(ranks, cutoffs, tuple(metrics or METRICS))
    table = {name: [name] for name, _, _ in values}
    for name, _, value in values:
        table[name].append(f"{value:.5f}")
    print(tabulate(list(table.values()), ["test", *(f"@{c}" for c in cutoffs)], "simple"))
    print(f"\n{title}: {len(ranks.users)} users, {ranks.n_skipped} skipped")
