"""The command `tune`."""

from pathlib import Path
from typing import Annotated

import typer

from bslbench import options
from bslbench.errors import ConfigError
from bslbench.options import Catalog, Data, Jobs, Results, Threads


def tune(
    dataset: Annotated[str, typer.Option("--dataset", help="Dataset.")],
    losses: Annotated[
        list[str] | None,
        typer.Option(
            "--loss", "--losses", help="Loss by name or my_loss.py:MyLoss, repeatable; or all."
        ),
    ] = None,
    backbone: Annotated[str, typer.Option("--backbone", help="Backbone.")] = "mf",
    references: Annotated[
        list[str] | None,
        typer.Option("--reference", help="Reference row of the final table, repeatable."),
    ] = None,
    noise: Annotated[
        str, typer.Option("--noise", help="A level such as pos=0.2; one study for each level.")
    ] = "",
    valid_noise: Annotated[
        str,
        typer.Option("--valid-noise", help="Labels that select: clean, or the same as train."),
    ] = "clean",
    trials: Annotated[
        int | None, typer.Option("--trials", min=1, help="Trials of each loss.")
    ] = None,
    budget: Annotated[
        str | None,
        typer.Option("--budget", help="Training in all, shared equally: 90s, 30m, 4h."),
    ] = None,
    seeds: Annotated[
        str, typer.Option("--seeds", help="Final runs: how many (5), or which (0,7,9).")
    ] = "5",
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", help="[LOSS.]KEY=VALUE that is not tuned; repeatable."),
    ] = None,
    opened: Annotated[
        list[str] | None,
        typer.Option("--open", help="Tune n_negatives, score or scale too; repeatable."),
    ] = None,
    name: Annotated[
        str | None, typer.Option("--name", help="Name in the results; default from the data.")
    ] = None,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Of the study's own draws.")] = 0,
    startup: Annotated[
        int, typer.Option("--startup", min=1, help="Trials at the same points for all losses.")
    ] = 8,
    lag: Annotated[
        int, typer.Option("--lag", min=1, help="Trials of one loss that may run side by side.")
    ] = 2,
    prune: Annotated[
        bool, typer.Option("--prune/--no-prune", help="Give up trials below their loss's median.")
    ] = True,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show the spaces and about how long it takes.")
    ] = False,
    jobs: Jobs = None,
    threads: Threads = None,
    results: Results = Path("results"),
    data: Data = None,
    catalog: Catalog = None,
) -> None:
    """Tune losses at equal effort, then run the best of each with fresh seeds."""
    from rich.console import Console

    from bslbench.catalog import load_catalog
    from bslbench.config import Grid
    from bslbench.engine.executors import executor_for
    from bslbench.engine.inputs import Options
    from bslbench.engine.machine import tell_of_compiling
    from bslbench.engine.store import Store
    from bslbench.engine.tuning.contenders import contenders
    from bslbench.engine.tuning.ledger import Ledger
    from bslbench.engine.tuning.outcome import TUNED, final_grid
    from bslbench.engine.tuning.plan import plan
    from bslbench.engine.tuning.search import Budget
    from bslbench.engine.tuning.study import Study
    from bslbench.losses import LOSSES
    from bslbench.report.render import render
    from bslbench.studies import carry_out, show
    from bslbench.toml import validated
    from bslbench.training import Interrupted

    if (trials is None) == (budget is None):
        raise ConfigError("say how far to go, by one of --trials N and --budget 30m")
    fixed = options.settings(settings or [])
    if axis := next((key for key, value in fixed.items() if isinstance(value, list)), ""):
        raise ConfigError(f"--set {axis}: a study holds one value fixed; left out, it is tuned")
    where = "-".join(filter(None, (dataset, backbone, noise)))
    name = name or "tune-" + "".join(c if c.isalnum() or c in "._" else "-" for c in where)
    name = validated(Grid, {"name": name}, "--name").name
    ledger = Ledger(results / name)
    known_losses, known_references = ledger.asked()
    asked = options.each(losses, LOSSES)
    content = {
        "name": name,
        "dataset": dataset,
        "backbone": backbone,
        "losses": list(dict.fromkeys([*known_losses, *asked])),
        "references": list(dict.fromkeys([*known_references, *(references or [])])),
        "set": fixed,
        "open": opened or [],
        "noise": noise,
        "valid_noise": valid_noise,
        "seed": seed,
        "startup": startup,
        "lag": lag,
        "prune": prune,
    }
    study = validated(Study, content, "command line")
    known = load_catalog(catalog)
    how = Options(data, known)
    entered = contenders(study, data, known)
    ledger.check(study, entered)
    final = final_grid(study, options.seeds(seeds), ledger.folder)
    limit = Budget(trials, options.seconds(budget) if budget else None)
    console = Console(stderr=True)
    tell_of_compiling(console.print)
    with console.status("probing") as shown:
        probing = shown.update if dry_run or budget else None
        limit, text = plan(study, entered, limit, final, ledger, how, jobs or 1, probing)
    console.print(text, highlight=False, markup=False, soft_wrap=True)
    if dry_run:
        return
    execute = executor_for(None, jobs=jobs, threads=threads)
    try:
        carry_out(study, entered, limit, final, Store(results), execute, how, console)
    except Interrupted:
        console.print("interrupted: all trials are kept; the same command goes on from there")
        raise typer.Exit(130) from None
    print(render(show(results, name, ledger.folder), "console"), end="")
    print(f"\nnext: bslbench train --presets {ledger.folder / TUNED} --dataset {dataset!r} ...")
