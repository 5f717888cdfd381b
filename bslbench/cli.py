"""The commands: parse, call, show. Heavy imports stand inside the command that needs them."""

import os
import sys
import warnings
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from bslbench import __version__
from bslbench.cli_check import check
from bslbench.cli_choose import choose, recommend
from bslbench.cli_compare import compare, pack, unpack, verify
from bslbench.cli_data import data
from bslbench.cli_eval import evaluate
from bslbench.cli_report import report
from bslbench.cli_train import status, train
from bslbench.cli_tune import tune
from bslbench.cli_verdict import verdict
from bslbench.errors import BslbenchError, ConfigError, DownloadError
from bslbench.options import Catalog, Data

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)


class Kind(StrEnum):
    """What `list` can show."""

    datasets = "datasets"
    losses = "losses"
    backbones = "backbones"
    references = "references"
    settings = "settings"
    grids = "grids"


app.add_typer(data, name="data")


def _version(asked: bool) -> None:
    if asked:
        print(f"bslbench {__version__}")
        raise typer.Exit


@app.callback(epilog="Start with: bslbench train --grid quick && bslbench report")
def common(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version.", callback=_version, is_eager=True)
    ] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
) -> None:
    """Which loss function should a recommender be trained with? Same protocol, every loss."""


@app.command(epilog="Example: bslbench download yelp2018 gowalla")
def download(
    names: Annotated[list[str] | None, typer.Argument(help="Datasets of the catalog.")] = None,
    everything: Annotated[bool, typer.Option("--all", help="Every dataset.")] = False,
    source: Annotated[
        Path | None, typer.Option("--from", help="Copy from DIR/<dataset>/<file>, checked too.")
    ] = None,
    mirror: Annotated[
        str | None, typer.Option("--mirror", help="Fetch from URL/<dataset>/<file> instead.")
    ] = None,
    packs: Annotated[
        bool, typer.Option("--packs", help="The packs of results on them instead of the data.")
    ] = False,
    force: Annotated[bool, typer.Option("--force", help="Fetch again what is there.")] = False,
    data: Data = None,
    catalog: Catalog = None,
) -> None:
    """Fetch datasets: resumed where cut off, verified by size and checksum."""
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

    from bslbench import catalog as catalogs
    from bslbench.download import download as fetch

    if source and mirror:
        raise ConfigError("--from copies and --mirror fetches: say one of them")
    if everything and names:
        raise ConfigError("--all is every dataset: name none beside it")
    known = catalogs.load_catalog(catalog)
    wanted = list(known) if everything else names or []
    if not wanted:
        raise ConfigError("name a dataset (bslbench list datasets), or say --all")
    specs = [catalogs.get(known, name) for name in dict.fromkeys(wanted)]
    if packs:
        specs = [spec.of_packs for spec in specs]
        if lacking := [spec.name for spec in specs if not spec.packs]:
            raise ConfigError(f"the catalog has no packs of {', '.join(lacking)}")
    folder = catalogs.data_dir(data)
    columns = TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn()
    failures = []
    with Progress(*columns, console=Console(stderr=True), transient=True) as bars:
        tasks: dict[str, Any] = {}

        def show(file: str, done: int, total: int | None) -> None:
            if file not in tasks:
                tasks[file] = bars.add_task(file, total=total)
            bars.update(tasks[file], completed=done, total=total)

        for spec in specs:
            try:
                fetched = fetch(
                    spec, folder, source=source, mirror=mirror, force=force, progress=show
                )
            except DownloadError as error:
                failures.append(f"{spec.name}: {error}")
                continue
            size = sum(path.stat().st_size for path in fetched)
            news = f"{len(fetched)} files, {size:,} bytes" if fetched else "already there"
            bars.console.print(f"{spec.name}: {news}", highlight=False)
            if packs:
                for file in spec.downloads:
                    bars.console.print(f"  {spec.path(file, folder)}", highlight=False)
            elif fetched:
                bars.console.print(f"  licence: {spec.licence}", highlight=False)
    if failures:
        raise DownloadError("; ".join(failures))


EXAMPLE = "Example: bslbench train --dataset yelp2018 --loss sl --set tau=0.08,0.11 --jobs 2"
app.command(epilog=EXAMPLE)(train)
TUNE = "Example: bslbench tune --dataset synthetic --loss sl --loss bsl --trials 20 --set epochs=20"
app.command(epilog=TUNE)(tune)
app.command(epilog="Example: bslbench compare my_loss.py:MyLoss --against movielens-mf")(compare)
app.command(epilog="Example: bslbench pack mine")(pack)
app.command(epilog="Example: bslbench unpack results/movielens-mf/movielens-mf.zip")(unpack)
app.command(epilog="Example: bslbench verify movielens-mf.zip --sample 3")(verify)
app.command(epilog="Example: bslbench choose orders.parquet --user customer --budget 30m")(choose)
app.command(epilog="Example: bslbench recommend --run results/choose-orders/deploy --user 42")(
    recommend
)
app.command(epilog="Example: bslbench status --grid quick")(status)
app.command(epilog="Example: bslbench check --grid gate --baseline benchmarks/gate.toml")(check)
app.command(epilog="Example: bslbench verdict --write docs/findings.md")(verdict)


app.command(name="eval", epilog="Example: bslbench eval synthetic-mf-sl-s0 --k 1,3,100")(evaluate)
app.command(epilog="Example: bslbench report --grid quick --out table.tex")(report)


@app.command(name="list", epilog="Example: bslbench list losses")
def show_list(
    kind: Annotated[Kind, typer.Argument(help="What to list.")],
    data: Data = None,
    catalog: Catalog = None,
) -> None:
    """Show the datasets, losses, backbones, references, settings or grids that are known."""
    from bslbench.report import listing

    if kind is Kind.datasets:
        print(listing.datasets(data, catalog))
    else:
        print(getattr(listing, kind.value)())


def main() -> None:
    """Run the command line; an error of ours is one line and its exit code."""
    arguments = sys.argv[1:]
    if arguments[:1] == ["--version"]:
        print(f"bslbench {__version__}")
        return
    # A hint of numpy's that an array was written by Python 2: it would stand beside the one line.
    warnings.filterwarnings("ignore", "Reading `.npy`", UserWarning)
    try:
        app()
    except BslbenchError as error:
        if "--debug" in arguments:
            raise
        print(f"error: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
