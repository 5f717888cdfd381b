"""The commands `data add`, `data show` and `data export`."""

import shlex
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bslbench import options
from bslbench.options import Catalog, Data, MinRating, Names

if TYPE_CHECKING:
    from bslbench.own.facts import Facts
    from bslbench.own.split import How

data = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode=None,
    help="Interactions of your own: add them, look at them, give their split to other tools.",
)

Column = Annotated[str | None, typer.Option(help="Its column; default a usual name.")]


class Split(StrEnum):
    """How `data add` splits."""

    time = "time"
    random = "random"
    leave_one_out = "leave-one-out"


class Format(StrEnum):
    """What `data export` writes."""

    parquet = "parquet"
    recbole = "recbole"
    lenskit = "lenskit"


class Selection(StrEnum):
    """Whether validation pairs are held out."""

    valid = "valid"
    test = "test"


@data.command(epilog="Example: bslbench data add shop orders.parquet --user customer --item sku")
def add(
    name: Annotated[str, typer.Argument(help="What to call the dataset.")],
    files: Annotated[list[Path], typer.Argument(help="CSV, TSV, Parquet or .inter, also .gz.")],
    user: Column = None,
    item: Column = None,
    time: Column = None,
    rating: Column = None,
    min_rating: MinRating = None,
    names: Names = None,
    k_core: Annotated[
        int, typer.Option("--k-core", min=1, help="Users and items keep at least N pairs.")
    ] = 1,
    split: Annotated[
        Split | None, typer.Option("--split", help="Default: time if there is one, else random.")
    ] = None,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Of what the split draws.")] = 0,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show what it would be; write nothing.")
    ] = False,
    force: Annotated[
        bool, typer.Option("--force", help="Replace a dataset of yours of that name.")
    ] = False,
    folder: Data = None,
    catalog: Catalog = None,
) -> None:
    """Add a dataset: read, clean, split, show what it is like, write it and catalogue it."""
    from bslbench.catalog import LOCAL, data_dir
    from bslbench.own.add import check_name, prepare, write
    from bslbench.own.facts import Facts

    where, entries = data_dir(folder), catalog or LOCAL
    check_name(name, where, entries, force=force or dry_run)
    columns = options.columns(user, item, time, rating, min_rating, names)
    how: How | None = split.value if split else None
    own = prepare(name, files, columns, k_core=k_core, how=how, seed=seed)
    tally = [f"{count:,} {what}" for what, count in own.pairs.tally.items()]
    print(", ".join(tally))
    sizes = len(own.ids.users), len(own.ids.items)
    facts = Facts.of_pairs(own.pairs.users, own.pairs.items, own.parts, sizes)
    _show(own.title, facts)
    if dry_run:
        return
    write(own, where, entries, force=force)
    print(f"written to {where / name}, entered in {entries}")
    place = {"--data": folder, "--catalog": catalog}
    said = [text for option, path in place.items() if path for text in (option, str(path))]
    again = shlex.join(["--dataset", name, *said])
    print(f"next: bslbench train {again} --loss sl --loss bpr --reference popularity")


@data.command(epilog="Example: bslbench data show synthetic")
def show(
    name: Annotated[str, typer.Argument(help="Dataset, with modifiers if it has some.")],
    folder: Data = None,
    catalog: Catalog = None,
) -> None:
    """Show what a dataset is like, what to be warned of, and its most popular items."""
    from bslbench.catalog import get, load_catalog, split_name
    from bslbench.data.ids import ids_of
    from bslbench.data.load import load
    from bslbench.own.facts import Facts, popular

    known = load_catalog(catalog)
    loaded = load(name, folder, known)
    ids = ids_of(known, name, loaded, folder)
    _show(get(known, split_name(name)[0]).title, Facts.of(loaded))
    print(f"most popular: {', '.join(popular(loaded, ids))}")
    print(f"fingerprint {loaded.fingerprint}")


@data.command(epilog="Example: bslbench data export synthetic --format recbole --out synthetic")
def export(
    name: Annotated[str, typer.Argument(help="Dataset, with modifiers if it has some.")],
    fmt: Annotated[Format, typer.Option("--format", help="For which tool.")] = Format.parquet,
    out: Annotated[
        Path | None, typer.Option("--out", help="Folder; default the dataset's name.")
    ] = None,
    selection: Annotated[
        Selection,
        typer.Option("--selection", help="valid holds out what runs hold out; test does not."),
    ] = Selection.valid,
    force: Annotated[
        bool, typer.Option("--force", help="Replace an export that is there.")
    ] = False,
    folder: Data = None,
    catalog: Catalog = None,
) -> None:
    """Write the exact split that runs see, so that any other tool can be held to it."""
    from bslbench.catalog import load_catalog
    from bslbench.data.ids import ids_of
    from bslbench.data.load import load
    from bslbench.data.splits import hold_out
    from bslbench.own.export import export as write

    known = load_catalog(catalog)
    loaded = load(name, folder, known)
    ids = ids_of(known, name, loaded, folder)
    where = out or Path("".join(c if c.isalnum() or c in "-_." else "_" for c in name))
    split = hold_out(loaded, selection.value)
    write(split, ids, fmt.value, where, force=force)
    counts = f"{split.train.nnz:,} train, {split.valid.nnz:,} valid, {split.test.nnz:,} test pairs"
    print(f"{where}: {counts}")


def _show(title: str, facts: "Facts") -> None:
    print(title)
    for line in facts.lines():
        print(f"  {line}")
    for line in facts.warnings():
        print(f"warning: {line}")
