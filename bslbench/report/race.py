"""The report of a race: the answer, the final runs, the rungs, and what to know about them."""

import html
import math
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path

from bslbench.engine.race.agreement import agreement
from bslbench.engine.race.heats import Heat
from bslbench.engine.race.plan import shortenings
from bslbench.engine.race.race import Outcome
from bslbench.engine.status import span
from bslbench.engine.tuning.space import Range
from bslbench.evaluation.metrics import per_user
from bslbench.evaluation.ranks import Ranks
from bslbench.report.choice import settings
from bslbench.report.html import html_table
from bslbench.report.page import page_of
from bslbench.report.render import render
from bslbench.report.table import Column, Entry, Like, Table
from bslbench.report.tables import main_table

Section = tuple[str, Table | Sequence[str]]
"""A heading, and a table or some lines."""


def sections(outcome: Outcome, results: Path, out: Path) -> list[Section]:
    """Return what a report says after the answer.

    Parameters
    ----------
    results
        The results folder, which has the final runs.
    out
        Where the embeddings are.
    """
    run = outcome.shown
    recall = per_user(Ranks.load(run.file("ranks.npz")), "Recall", 20).mean()
    given = [
        f"{out / 'evaluated'}: run {run.folder.name}, Recall@20 {recall:.4f} on test, the best "
        "seed of the pick on validation",
        f"{out / 'deploy'}: the same settings, trained on all interactions, not measured",
    ]
    return [
        ("Final runs", main_table(results, outcome.record.race.name)),
        ("The race", rungs(outcome)),
        ("What to know", list(notes(outcome))),
        ("Embeddings", given),
    ]


def title(outcome: Outcome) -> str:
    """Return what a report is called."""
    return f"Which loss for {outcome.record.race.dataset}"


def markdown(outcome: Outcome, answer: str, parts: Sequence[Section]) -> str:
    """Return a report as Markdown."""
    texts = [f"# {title(outcome)}", answer]
    for heading, content in parts:
        texts.append(f"## {heading}")
        if isinstance(content, Table):
            texts.append(render(content, "markdown"))
        else:
            texts.append("\n".join(f"- {line}" for line in content))
    return "\n\n".join(text.rstrip("\n") for text in texts) + "\n"


def page(outcome: Outcome, answer: str, parts: Sequence[Section]) -> str:
    """Return a report as one HTML page."""
    body = [f"<p>{html.escape(answer)}</p>"]
    for heading, content in parts:
        body.append(f"<h2>{html.escape(heading)}</h2>")
        if isinstance(content, Table):
            body.append(html_table(content))
        else:
            lines = "".join(f"<li>{html.escape(line)}</li>" for line in content)
            body.append(f"<ul>{lines}</ul>")
    return page_of(title(outcome), body)


def rungs(outcome: Outcome) -> Table:
    """Return the best Recall@20 on valid of each loss and reference on each rung."""
    heats = outcome.heats
    names = [*heats[-1].losses(), *heats[0].entered]
    columns = [Column("loss or reference"), *(_column(heat) for heat in heats)]
    rows: list[list[Like]] = [
        [name, *(_best(heat, name) for heat in heats)] for name in dict.fromkeys(names)
    ]
    tried = ", ".join(f"{heat.settings} on {heat.rung.share}" for heat in heats)
    return Table.of(
        "rungs",
        columns,
        rows,
        title=f"{outcome.record.race.name}: the rungs",
        says="valid Recall@20 of the best setting, by share of the users",
        notes=[
            f"settings of each: {tried}; each {outcome.record.plan.epochs} epochs",
            *agreements(outcome),
        ],
    )


def _column(heat: Heat) -> Column:
    return Column(f"{heat.rung.share} ({heat.rung.users:,} users)", better="higher")


def _best(heat: Heat, name: str) -> Entry | None:
    best = heat.best(name)
    return Entry(best[0].score) if best else None


def agreements(outcome: Outcome) -> Iterator[str]:
    """Yield how far each rung agrees with the one before."""
    for before, after in pairwise(outcome.heats):
        found = agreement(before, after)
        texts = [
            f"{n} {what} {tau:.2f}"
            for n, what, tau in (
                (found.n_settings, "settings", found.settings),
                (found.n_losses, "losses", found.losses),
            )
            if not math.isnan(tau)
        ]
        shares = f"{before.rung.share} and {after.rung.share}"
        yield (
            f"agreement of ranks between {shares} (Kendall's tau, of what both have tried): "
            + (", ".join(texts) or "too little was tried on both")
        )


def notes(outcome: Outcome) -> Iterator[str]:
    """Yield what else there is to know, a line each."""
    plan, spent = outcome.record.plan, outcome.spent
    over = spent > outcome.budget
    yield (
        f"{span(spent)} of a budget of {span(outcome.budget)}"
        + (": more than was asked for, since every phase has its least to do" if over else "")
    )
    for number, heat in enumerate(outcome.heats):
        done = outcome.record.done[f"rung-{number}"]
        if done < heat.rung.rounds:
            yield f"on {heat.rung.share} time allowed {done} of {heat.rung.rounds} settings of each"
    yield from shortenings(outcome.record.race, plan)
    yield from (f"without {name}: {reason}" for name, reason in plan.left_out.items())
    yield from (f"{name} failed: {reason}" for name, reason in outcome.finals.failed.items())
    for heat in outcome.heats:
        yield from (f"without {name}: {reason}" for name, reason in heat.fallen().items())
    pick = outcome.pick
    space = outcome.heats[-1].entered[pick.name].space
    for name, value in pick.params.items():
        entry = space[name]
        if isinstance(entry, Range) and entry.side(value):
            yield f"{name} {value:g} lies on an edge of what was tried, {entry}: look beyond it"
    if eval_users := pick.cells[0].eval_users:
        yield f"Recall and NDCG are those of a sample of {eval_users:,} users"
    yield "settings: " + "; ".join(
        f"{final.name}: {settings(final)}"
        for final in [*outcome.finals.losses, *outcome.finals.references]
        if final.params
    )
