"""The commands `choose` and `recommend`."""

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from time import monotonic
from typing import TYPE_CHECKING, Annotated

import typer

from bslbench import options
from bslbench.errors import ConfigError
from bslbench.options import Catalog, Data, MinRating, Names, Results

if TYPE_CHECKING:
    from rich.console import Console

    from bslbench.engine.race.heats import Means
    from bslbench.engine.race.record import Record
    from bslbench.engine.race.source import Source
    from bslbench.engine.race.today import Today
    from bslbench.own.add import Own
    from bslbench.progress import LiveWatcher, PlainWatcher, StudyWatcher

MOST_JOBS = 8
"""Runs at a time, unless more are asked for."""


def choose(
    files: Annotated[
        list[Path] | None, typer.Argument(help="Your interactions: CSV, TSV, Parquet or .inter.")
    ] = None,
    dataset: Annotated[
        str | None, typer.Option("--dataset", help="A dataset that is known, instead of files.")
    ] = None,
    user: Annotated[str | None, typer.Option("--user", help="Column of the files.")] = None,
    item: Annotated[str | None, typer.Option("--item", help="Column of the files.")] = None,
    time: Annotated[str | None, typer.Option("--time", help="Column of the files.")] = None,
    rating: Annotated[str | None, typer.Option("--rating", help="Column of the files.")] = None,
    min_rating: MinRating = None,
    names: Names = None,
    budget: Annotated[str, typer.Option("--budget", help="Time in all: 90s, 30m, 4h.")] = "30m",
    losses: Annotated[
        list[str] | None,
        typer.Option("--loss", help="Loss by name or my_loss.py:MyLoss, repeatable."),
    ] = None,
    backbone: Annotated[str, typer.Option("--backbone", help="Backbone.")] = "mf",
    against: Annotated[
        Path | None,
        typer.Option("--against", help="What you recommend today: user, item, rank."),
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", help="KEY=VALUE that is not tuned, for all losses; repeatable."),
    ] = None,
    seeds: Annotated[int, typer.Option("--seeds", min=2, help="Final seeds, at most.")] = 10,
    name: Annotated[
        str | None, typer.Option("--name", help="Name in the results; default from the data.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", help="Report and embeddings; default in the results.")
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show what there is to do and how long it takes.")
    ] = False,
    jobs: Annotated[
        int | None,
        typer.Option("--jobs", min=1, help="Runs at a time; default one per core, at most 8."),
    ] = None,
    results: Results = Path("results"),
    data: Data = None,
    catalog: Catalog = None,
) -> None:
    """Answer which loss to train with: a race within a budget, a verdict, embeddings."""
    begun = monotonic()
    from rich.console import Console

    from bslbench.catalog import LOCAL, data_dir, load_catalog
    from bslbench.config import Grid
    from bslbench.data.load import load
    from bslbench.engine.executors import executor_for
    from bslbench.engine.inputs import Options
    from bslbench.engine.machine import n_cores, set_threads
    from bslbench.engine.race import prepare
    from bslbench.engine.race.clock import Clock, Timed
    from bslbench.engine.race.heats import Means
    from bslbench.engine.race.ladder import SHORT_LIST, Race
    from bslbench.engine.race.plan import described
    from bslbench.engine.race.record import Folder
    from bslbench.engine.race.settings import fixed
    from bslbench.engine.race.source import Source, name_of
    from bslbench.engine.race.today import Today
    from bslbench.engine.status import span
    from bslbench.engine.store import Store
    from bslbench.files import locked
    from bslbench.toml import validated

    if bool(files) == bool(dataset):
        raise ConfigError("name files of interactions, or a --dataset, one of the two")
    said = user, item, time, rating, min_rating, names
    if dataset and any(option is not None for option in said):
        raise ConfigError(
            "--user, --item, --time, --rating, --min-rating and --columns are columns of files"
        )
    columns = options.columns(*said)
    seconds, jobs = options.seconds(budget), jobs or min(n_cores(), MOST_JOBS)
    called = dataset or name or name_of(files or [])
    title = name or "choose-" + "".join(c if c.isalnum() else "-" for c in called)
    validated(Grid, {"name": title}, "--name")
    entering = list(dict.fromkeys(losses or SHORT_LIST))
    plugins = prepare.plugins(entering, backbone)
    given = options.settings(settings or [])
    held_fixed = fixed(given, [plugins[loss] for loss in entering], plugins[backbone])
    console = Console(stderr=True)
    set_threads(max(1, n_cores() // jobs))
    with TemporaryDirectory() as aside, ExitStack() as held:
        kept = results / title / "race"
        root = Path(aside) if dry_run else kept
        place, entries, own, loaded = data, catalog, None, None
        if files:
            source = Source(called, files, columns, kept, data_dir(data), catalog or LOCAL)
            own = _read(source, console)
            if own and dry_run:
                source = replace(source, folder=root, data=root, catalog=root / LOCAL)
            place, entries = source.data, source.catalog
        else:
            # Before anything is kept: what is unknown leaves nothing behind.
            loaded = load(called, place, load_catalog(entries))
        held.enter_context(locked(root, 0))
        clock = Clock(root / "clock", begun)
        clock.keep()
        if own:
            source.enter(own)
            clock.keep()
        how = Options(place, load_catalog(entries))
        if loaded is None:
            loaded = load(called, how.data, how.catalog)
        race = Race(
            name=title,
            dataset=loaded.name,
            fingerprint=loaded.fingerprint,
            backbone=backbone,
            losses=entering,
            sources={asked: plugin.source for asked, plugin in plugins.items() if plugin.source},
            set=held_fixed,
        )
        today = Today.read(against, loaded, how) if against else None
        if today:
            _show(console, *(f"warning: {line}" for line in today.warnings()))
        folder = Folder(root)
        with console.status("probing") as shown:

            def tell(text: str) -> None:
                shown.update(text)
                clock.keep()

            make = partial(prepare.planned, race, how, seconds, jobs, seeds, tell)
            known = Folder(kept).read(race) if dry_run else None
            record = known or prepare.begun(race, folder, make)
            clock.keep()
        jobs = min(jobs, record.plan.jobs)
        set_threads(max(1, n_cores() // jobs))
        plan = described(race, record.plan, jobs)
        if dry_run:
            print(plan)
            if known:
                print(f"begun before: {span(Clock(kept / 'clock').before)} are spent")
        else:
            _show(console, plan)
            execute = Timed(executor_for(jobs=jobs), clock)
            watch = partial(_trials, console), partial(_runs, console)
            means = Means(Store(results), folder, execute, how, seconds, *watch)
            _run(record, means, seeds, jobs, today, out or results / title, console)


def _read(source: "Source", console: "Console") -> "Own | None":
    """Return the data of files, unless they have been entered, and show what they are like."""
    from bslbench.own.facts import Facts

    with console.status("reading"):
        own = source.read()
    if own:
        pairs = own.pairs
        sizes = len(own.ids.users), len(own.ids.items)
        facts = Facts.of_pairs(pairs.users, pairs.items, own.parts, sizes)
        lines = [", ".join(f"{count:,} {what}" for what, count in pairs.tally.items()), own.title]
        lines += [f"  {line}" for line in facts.lines()]
        lines += [f"warning: {line}" for line in facts.warnings()]
        _show(console, *lines)
    return own


def _show(console: "Console", *lines: str) -> None:
    for line in lines:
        console.print(line, highlight=False, markup=False, soft_wrap=True)


def _run(
    record: "Record",
    means: "Means",
    seeds: int,
    jobs: int,
    today: "Today | None",
    out: Path,
    console: "Console",
) -> None:
    """Run the race to its end, and write what it leaves."""
    from bslbench.engine.machine import n_cores, set_threads
    from bslbench.engine.race.race import leave, run_race
    from bslbench.files import write_atomically
    from bslbench.report.choice import verdict
    from bslbench.report.race import markdown, page, sections
    from bslbench.training import Interrupted

    name, store, clock = record.race.name, means.store, means.execute.clock
    idle = False
    try:
        lists = {today.cell.loss: today.run(store, means.options)} if today else {}
        outcome = run_race(record, means, seeds, jobs)
        if today:
            store.add_to_grid(name, today.cell)
        set_threads(n_cores())
        with console.status("writing the embeddings") as shown:
            outcome = leave(outcome, means, out, shown.update)
        idle = outcome.idle
        found = verdict(outcome, lists)
        parts = sections(outcome, store.root, out)
        write_atomically(out / "report.md", markdown(outcome, found.text, parts))
        write_atomically(out / "report.html", page(outcome, found.text, parts))
    except Interrupted:
        console.print("interrupted: all is kept; the same command goes on from there")
        raise typer.Exit(130) from None
    finally:
        if idle:
            clock.forget()
        clock.keep()
    print(found.text)
    print(f"more in {out / 'report.md'}; next: bslbench recommend --run {out / 'deploy'} --user ID")


@contextmanager
def _trials(console: "Console") -> Iterator["StudyWatcher"]:
    from bslbench.progress import StudyWatcher, watcher

    with watcher(console, "trials") as shown:
        yield StudyWatcher(shown)


@contextmanager
def _runs(console: "Console", titles: Mapping[str, str]) -> Iterator["LiveWatcher | PlainWatcher"]:
    from bslbench.progress import watcher

    with watcher(console, "runs") as shown:
        shown.titles |= titles
        yield shown


def recommend(
    run: Annotated[
        str, typer.Option("--run", help="Folder of embeddings, or a run that has kept its model.")
    ],
    user: Annotated[
        str | None, typer.Option("--user", help="As the data call it; its list is shown.")
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", help="All users' lists go to this file, .csv or .parquet."),
    ] = None,
    k: Annotated[int, typer.Option("-k", min=1, help="How many items.")] = 20,
    results: Results = Path("results"),
    data: Data = None,
    catalog: Catalog = None,
) -> None:
    """Tell what a model recommends to a user, or to all of them, without what they have already."""
    from rich.console import Console
    from tabulate import tabulate

    from bslbench.catalog import load_catalog
    from bslbench.engine.embeddings import find_run, of_run, read
    from bslbench.engine.inputs import Options
    from bslbench.engine.lists import recommend as recommended
    from bslbench.engine.lists import write_lists
    from bslbench.engine.machine import tell_of_compiling

    if (user is None) == (out is None):
        raise ConfigError("say --user ID to see one list, or --out FILE for those of all users")
    if (Path(run) / "about.json").exists():
        model = read(Path(run))
    else:
        how = Options(data, load_catalog(catalog))
        model, _, _ = of_run(find_run(run, results), how)
    if out:
        console = Console(stderr=True)
        tell_of_compiling(console.print)
        with console.status("ranking"):
            n_users = write_lists(model, k, out)
        print(f"the lists of {n_users:,} users are in {out}")
        return
    best = enumerate(recommended(model, str(user), k), 1)
    rows = [(place, item, f"{score:.4f}") for place, (item, score) in best]
    print(tabulate(rows, ["", "item", model.about["score"]], "simple", disable_numparse=True))
