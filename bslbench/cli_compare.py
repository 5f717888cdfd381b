"""The commands `compare`, `pack`, `unpack` and `verify`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bslbench.errors import ConfigError
from bslbench.options import Catalog, Data, Jobs, Results, Threads, report_of

if TYPE_CHECKING:
    from bslbench.engine.pack import Pack


def pack(
    grid: Annotated[str, typer.Argument(help="Grid in the results, all of it finished.")],
    out: Annotated[
        Path | None, typer.Option("--out", help="File to write; default GRID.zip in its folder.")
    ] = None,
    results: Results = Path("results"),
) -> None:
    """Put a grid's settings, versions, metrics and ranks into one file with checksums."""
    from bslbench.engine.pack import pack_grid
    from bslbench.engine.store import sha256
    from bslbench.files import write_atomically

    path = out or results / grid / f"{grid}.zip"
    if path.suffix != ".zip":
        raise ConfigError(f"--out {path}: a pack's name ends in .zip")
    content = pack_grid(results, grid)
    write_atomically(path, content)
    print(f"{path}: {len(content):,} bytes, sha256 {sha256(content)}")


def unpack(
    file: Annotated[Path, typer.Argument(help="A pack, FILE.zip.")],
    results: Results = Path("results"),
) -> None:
    """Put a pack's grid and its runs into the results, as if they had been made here."""
    held = _read(file)
    held.unpack(results, held.grid)
    print(f"{len(held.cells)} runs; next: {report_of(held.grid, results)}")


def compare(
    loss: Annotated[str, typer.Argument(help="The new loss: my_loss.py:MyLoss, or a name.")],
    against: Annotated[
        str, typer.Option("--against", help="A tuned grid in the results, or a pack, FILE.zip.")
    ],
    name: Annotated[
        str | None, typer.Option("--name", help="Name in the results; default from both.")
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show the budget and about how long it takes.")
    ] = False,
    jobs: Jobs = None,
    threads: Threads = None,
    results: Results = Path("results"),
    data: Data = None,
    catalog: Catalog = None,
) -> None:
    """Tune a new loss like those of a study, run the same seeds, and test it against them."""
    from rich.console import Console

    from bslbench.catalog import load_catalog
    from bslbench.config import Grid
    from bslbench.engine.executors import executor_for
    from bslbench.engine.inputs import Options
    from bslbench.engine.machine import tell_of_compiling
    from bslbench.engine.store import Store
    from bslbench.engine.tuning.against import join, open_pack, rival
    from bslbench.engine.tuning.contenders import contenders
    from bslbench.engine.tuning.ledger import Ledger
    from bslbench.engine.tuning.outcome import final_grid
    from bslbench.engine.tuning.plan import plan
    from bslbench.engine.tuning.search import Budget
    from bslbench.files import write_atomically
    from bslbench.report.render import render
    from bslbench.report.tuning import latex_row
    from bslbench.studies import carry_out, show
    from bslbench.toml import validated
    from bslbench.training import Interrupted

    known = load_catalog(catalog)
    how = Options(data, known)
    store = Store(results)
    console = Console(stderr=True)
    tell_of_compiling(console.print)
    held = open_pack(against, results)
    console.print(f"against {held.where}", highlight=False, markup=False)
    name = name or f"{loss.rpartition(':')[2]}-against-{held.grid}"
    name = validated(Grid, {"name": name}, "--name").name
    study, rounds, seeds = rival(held, loss, name, data, known)
    ledger = Ledger(results / name)
    known_here = {asked.rpartition(":")[2] for part in ledger.asked() for asked in part}
    if known_here - {loss.rpartition(":")[2]}:
        raise ConfigError(f"{ledger.folder} has another study; give another --name")
    entered = contenders(study, data, known)
    ledger.check(study, entered)
    final = final_grid(study, seeds, ledger.folder)
    with console.status("probing") as shown:
        probing = shown.update if dry_run else None
        budget, text = plan(study, entered, Budget(rounds), final, ledger, how, jobs or 1, probing)
    console.print(text, highlight=False, markup=False, soft_wrap=True)
    if dry_run:
        return
    execute = executor_for(None, jobs=jobs, threads=threads)
    try:
        cells = carry_out(study, entered, budget, final, store, execute, how, console)
    except Interrupted:
        console.print("interrupted: all trials are kept; the same command goes on from there")
        raise typer.Exit(130) from None
    root = ledger.folder / "compared"
    join(held, study, cells, store, root)
    table = show(root, name, ledger.folder)
    row = latex_row(table, entered[0].name)
    write_atomically(ledger.folder / "row.tex", row)
    print(render(table, "console"), end="")
    print(f"\n{ledger.folder / 'row.tex'}: {row}", end="")
    print(f"all of it: bslbench report --results {root} --grid {name}")


def verify(
    file: Annotated[Path, typer.Argument(help="A pack, FILE.zip.")],
    sample: Annotated[
        int, typer.Option("--sample", min=1, help="Runs to make again, drawn at random.")
    ] = 3,
    seed: Annotated[
        int | None, typer.Option("--seed", min=0, help="Of the draw; default another each time.")
    ] = None,
    threads: Threads = None,
    data: Data = None,
    catalog: Catalog = None,
) -> None:
    """Check a pack: its metrics from its ranks, and some of its runs made again."""
    from secrets import randbelow
    from tempfile import TemporaryDirectory

    from rich.console import Console
    from tabulate import tabulate

    from bslbench.catalog import load_catalog
    from bslbench.engine.inputs import Options
    from bslbench.engine.machine import set_threads
    from bslbench.engine.verify import check_metrics, rerun

    if threads:
        set_threads(threads)
    held = _read(file)
    drawn = randbelow(10**6) if seed is None else seed
    how = Options(data, load_catalog(catalog))
    with Console(stderr=True).status("reading") as shown, TemporaryDirectory() as folder:
        held.unpack(Path(folder), held.grid)
        check_metrics(held, Path(folder))
        checks = list(rerun(held, Path(folder), sample, drawn, how, shown.update))
    rows = [
        {
            "run": check.cell.id,
            "stated": f"{check.stated:.6f}",
            "made here": f"{check.found:.6f}",
            "band": "" if check.band is None else f"{check.band:.6f}",
            "verdict": check.verdict,
        }
        for check in checks
    ]
    print(tabulate(rows, "keys", "simple", disable_numparse=True))
    print(
        f"\n{len(held.cells)} runs: metrics follow from the ranks, tables from these; "
        f"{len(checks)} made again (--seed {drawn}), Recall@20"
    )
    verdicts = {check.verdict for check in checks}
    if "differs" in verdicts:
        raise typer.Exit(1)
    if "cannot be told" in verdicts or not checks:
        raise typer.Exit(4)


def _read(file: Path) -> "Pack":
    from bslbench.engine.tuning.against import open_pack

    if file.suffix != ".zip":
        raise ConfigError(f"{file}: a pack's name ends in .zip")
    return open_pack(str(file), Path())
