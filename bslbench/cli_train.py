"""The commands `train` and `status`."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from bslbench import options
from bslbench.errors import ConfigError
from bslbench.options import Catalog, Data, Jobs, Results, Threads


class Only(StrEnum):
    """Which unfinished cells `train` takes."""

    failed = "failed"
    missing = "missing"


class Kind(StrEnum):
    """Where `train` runs cells."""

    inline = "inline"
    processes = "processes"
    ray = "ray"


def train(
    grid: Annotated[
        str | None, typer.Option("--grid", help="A grid by name (bslbench list grids) or file.")
    ] = None,
    datasets: Annotated[
        list[str] | None, typer.Option("--dataset", help="Dataset, repeatable.")
    ] = None,
    backbones: Annotated[
        list[str] | None, typer.Option("--backbone", help="Backbone, repeatable.")
    ] = None,
    losses: Annotated[
        list[str] | None,
        typer.Option("--loss", help="By name or my_loss.py:MyLoss, repeatable; or all."),
    ] = None,
    references: Annotated[
        list[str] | None, typer.Option("--reference", help="Reference row, repeatable.")
    ] = None,
    noise: Annotated[
        list[str] | None,
        typer.Option("--noise", help="A level such as pos=0.2,neg=5, or clean; repeatable."),
    ] = None,
    valid_noise: Annotated[
        list[str] | None,
        typer.Option("--valid-noise", help="Validation labels: clean, or the same as train."),
    ] = None,
    seeds: Annotated[
        str | None, typer.Option("--seeds", help="How many (3), or which (0,7,9; one: 7,).")
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", help="[LOSS.]KEY=VALUE, or KEY=A,B for an axis; repeatable."),
    ] = None,
    selection: Annotated[
        str | None, typer.Option("--selection", help="Best epoch picked on 'valid' or 'test'.")
    ] = None,
    eval_users: Annotated[
        int | None,
        typer.Option("--eval-users", min=1, help="Evaluate a sample of so many users."),
    ] = None,
    presets: Annotated[
        str | None,
        typer.Option("--presets", help="published, fast, thorough, tuned, FILE.toml or none."),
    ] = None,
    name: Annotated[
        str | None, typer.Option("--name", help="Name in the results; default the grid's or adhoc.")
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show what there is to do and how long it takes.")
    ] = False,
    available: Annotated[
        bool,
        typer.Option("--at-hand", help="Leave out datasets that are not here; --dry-run does too."),
    ] = False,
    only: Annotated[
        Only | None, typer.Option("--only", help="Only cells that failed, or were never finished.")
    ] = None,
    limit: Annotated[int | None, typer.Option("--limit", min=1, help="At most N cells.")] = None,
    shard: Annotated[
        str | None, typer.Option("--shard", help="I/N: the I-th of N parts of the grid.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Train finished cells again.")] = False,
    fail_fast: Annotated[
        bool, typer.Option("--fail-fast", help="Stop at the first failure; states are kept.")
    ] = False,
    jobs: Jobs = None,
    threads: Threads = None,
    timeout: Annotated[
        float | None, typer.Option("--timeout", min=1, help="Seconds after which a cell fails.")
    ] = None,
    executor: Annotated[
        Kind | None, typer.Option("--executor", help="Default: processes if --jobs, else inline.")
    ] = None,
    ray_address: Annotated[
        str | None, typer.Option("--ray-address", help="A Ray cluster; else one is started here.")
    ] = None,
    gpus_per_run: Annotated[
        float, typer.Option("--gpus-per-run", min=0, help="GPUs that Ray reserves for a cell.")
    ] = 0.0,
    save_model: Annotated[
        bool, typer.Option("--save-model", help="Keep the embeddings as model.safetensors.")
    ] = False,
    keep_every: Annotated[
        float, typer.Option("--keep-every", min=0, help="Seconds between two kept states.")
    ] = 30.0,
    profile: Annotated[
        bool, typer.Option("--profile", help="Show where the time of the grid's runs went.")
    ] = False,
    results: Results = Path("results"),
    data: Data = None,
    catalog: Catalog = None,
) -> None:
    """Train a grid; finished cells are skipped, a run that was cut off goes on."""
    from rich.console import Console
    from tabulate import tabulate

    from bslbench.catalog import load_catalog
    from bslbench.config import Grid
    from bslbench.engine.executors import executor_for
    from bslbench.engine.grid import at_hand, expand, find_grid
    from bslbench.engine.inputs import Options
    from bslbench.engine.machine import set_threads, tell_of_compiling
    from bslbench.engine.presets import taken_from
    from bslbench.engine.running import Part, run_grid
    from bslbench.engine.store import Store
    from bslbench.losses import LOSSES
    from bslbench.progress import watcher
    from bslbench.toml import validated
    from bslbench.training import Interrupted

    base = find_grid(grid) if grid else Grid()
    losses = options.each(losses, LOSSES)
    changes: dict[str, Any] = {
        "datasets": datasets,
        "backbones": backbones,
        "losses": losses,
        "references": references,
        "noise": noise,
        "valid_noise": valid_noise,
        "seeds": options.seeds(seeds) if seeds else None,
        "selection": selection,
        "eval_users": eval_users,
        "name": name,
    }
    content = base.model_dump() | {key: value for key, value in changes.items() if value}
    if settings:
        entered = [*content["losses"], *content["references"]]
        content["override"] = [*content["override"], *options.overrides(settings, entered)]
    if presets:
        content["presets"] = {"published": True, "none": False}.get(presets, presets)
    asked = validated(Grid, content, "command line")
    execute = executor_for(
        executor.value if executor else None,
        jobs=jobs,
        threads=threads,
        timeout=timeout,
        ray_address=ray_address,
        gpus_per_run=gpus_per_run,
    )
    part = Part(only.value if only else None, limit, options.shard(shard) if shard else (1, 1))
    known = load_catalog(catalog)
    console = Console(stderr=True)
    if available or dry_run:
        asked, missing = at_hand(asked, data, known)
        for dataset in missing:
            console.print(f"{dataset}: not here, its cells are left out", highlight=False)
    cells = expand(asked, data, known)
    if presets and isinstance(asked.presets, str) and not taken_from(cells, asked.presets):
        raise ConfigError(
            f"--presets {presets}: nothing in it is for a cell of grid '{asked.name}'"
        )
    if any(cell.loss == "bsl" and cell.loss_params.get("n_pos") == 1 for cell in cells):
        console.print("bsl with n_pos=1 pools nothing: it is bsl_reweight, and sl where rho is 1")
    store = Store(results)
    store.check_free(asked.name)
    how = Options(data, known, save_model, force, keep_every)
    tell_of_compiling(console.print)
    if dry_run:
        from bslbench.engine.plan import plan

        if threads := getattr(execute, "threads", None):  # a worker's, which a probe has no more of
            set_threads(threads)
        with console.status("probing") as shown:
            rows, summary = plan(cells, store, how, part, jobs or 1, shown.update)
        print(tabulate(rows, "keys", "simple", disable_numparse=True))
        print(summary)
        return
    if not force:
        store.check_kept(asked.name)
    try:
        with watcher(console) as shown:
            outcome = run_grid(
                asked.name,
                cells,
                store,
                shown,
                execute,
                options=how,
                part=part,
                fail_fast=fail_fast,
            )
    except Interrupted:
        again = "the same command, without --force," if force else "the same command"
        console.print(f"interrupted: states are kept; {again} goes on from there")
        raise typer.Exit(130) from None
    if profile:
        from bslbench.report.profile import profile as profile_of

        print(profile_of(store.run(cell.id) for cell in part.of(cells)))
    left = f", {outcome.left} left" if outcome.left else ""
    print(
        f"{outcome.total} cells: {outcome.finished} trained, {outcome.skipped} already done, "
        f"{len(outcome.failed)} failed{left}; next: {options.report_of(asked.name, results)}"
    )
    for cell_id, reason in outcome.failed.items():
        print(f"  {cell_id}: {reason}")
    if outcome.failed:
        raise typer.Exit(1)


def status(
    grid: Annotated[
        str | None, typer.Option("--grid", help="Grid or study in the results; default all.")
    ] = None,
    results: Results = Path("results"),
) -> None:
    """Show what is done, running, cut off, failed and missing, from the results folder alone."""
    from bslbench.engine.status import overview

    print(overview(results, grid))
