"""Verdicts as tables, and as a page with the rules' own words."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from bslbench.errors import ConfigError
from bslbench.report.render import render
from bslbench.report.table import GAP, Column, Entry, Like, Table
from bslbench.report.tuning import standings
from bslbench.report.verdict.findings import Finding
from bslbench.report.verdict.judge import Verdict, judge
from bslbench.report.verdict.pool import Pool
from bslbench.report.verdict.rules import Rules


@dataclass(frozen=True)
class Judged:
    """All verdicts on some grids' results, and what they were made from."""

    rules: Rules
    pool: Pool
    verdicts: tuple[Verdict, ...]


def judged(results: Path, grids: Sequence[str], rules: Rules) -> Judged:
    """Judge all claims by the results of some grids; without any named, by all there are.

    Raises
    ------
    ConfigError
        If a grid that was named, or every one, was made under older rules, or there is none.
    """
    known = sorted(file.parent.name for file in results.glob("*/grid.toml"))
    pool = Pool(results, list(dict.fromkeys(grids or known)), rules)
    if pool.refused and (grids or not pool.grids):
        grid, run = next(iter(pool.refused.items()))
        raise ConfigError(
            f"{results / grid}: {run} was made under older rules than version {rules.version}; "
            "train it again to judge by these"
        )
    if not pool.grids:
        raise ConfigError(f"no results in {results}; train first: bslbench train --grid quick")
    return Judged(rules, pool, tuple(judge(pool, rules)))


def summary_table(found: Judged) -> Table:
    """Return a row for each claim."""
    rows: list[list[Like]] = [
        [
            Entry(text=str(verdict.claim.rule)),
            verdict.claim.name,
            verdict.judgement,
            verdict.counts,
            "; ".join(verdict.missing) or "",
        ]
        for verdict in found.verdicts
    ]
    return Table.of(
        "verdict",
        [Column(name) for name in ("rule", "claim", "verdict", "places", "missing")],
        rows,
        title=f"verdict by rules of version {found.rules.version}",
        problems=_problems(found),
        notes=[
            "places: dataset x backbone; a claim holds if its gain is there at each of them; "
            "it does not hold if the gain is absent or reversed at half of them or more; nothing "
            f"is told on fewer than {found.rules.datasets} datasets"
        ],
        footer=_footer(found.pool),
    )


def details_table(found: Judged) -> Table:
    """Return a row for each claim and place."""
    columns = [
        Column("claim"),
        Column("verdict", only="csv"),
        Column("dataset"),
        Column("backbone"),
        Column("gain over"),
        Column("seeds", spec="d", align="right"),
        Column("gain"),
        Column("low", only="csv"),
        Column("high", only="csv"),
        Column("p", spec=".2g", align="right"),
        Column("gain is"),
        Column("notes"),
    ]
    rows = [
        [f"{verdict.claim.rule} {verdict.claim.name}", verdict.judgement, *_row(finding)]
        for verdict in found.verdicts
        for finding in verdict.findings
    ]
    return Table.of(
        "places",
        columns,
        rows,
        title="by dataset and backbone",
        sections=True,
        notes=[
            "gain: positive if the claim is right, with its 95 % interval, over the opponent that "
            "decides; relative for metrics and shares (interval over seeds and users for metrics, "
            "over seeds for shares); of log Recall@20 per unit of noise for slopes (over seeds and "
            "users); in logarithms for the variance and as a correlation for the temperature (over "
            "seeds)",
            "p: paired t-test over seeds, not adjusted: the words rest on the intervals",
        ],
    )


def _row(finding: Finding) -> Iterator[Like]:
    gain = finding.gain
    yield from finding.place
    notes = "; ".join((*finding.missing, *finding.notes))
    yield gain.against
    yield Entry(gain.n_seeds) if gain.n_seeds else ""
    if gain.spec and gain.value == gain.value:
        texts = [format(value, gain.spec) for value in (gain.value, gain.low, gain.high)]
        shown = texts[0] + (f" [{texts[1]}, {texts[2]}]" if gain.low == gain.low else "")
        yield Entry(gain.value, text=shown)
    else:
        yield Entry(text=GAP)
    yield from (gain.low, gain.high, gain.p, finding.state, notes)


def _problems(found: Judged) -> Iterator[str]:
    for reason, n in found.pool.left_out.items():
        yield f"left out: {n} run{'s' * (n > 1)} {reason}"
    for grid in found.pool.refused:
        yield f"refused: grid {grid}, made under older rules than version {found.rules.version}"


def _footer(pool: Pool) -> Iterator[str]:
    yield f"grids: {', '.join(pool.grids)}; {len(pool.runs)} runs"
    data = dict.fromkeys((run.dataset, str(run.fields.get("fingerprint", ""))) for run in pool.runs)
    if data:
        yield f"data {', '.join(f'{name} {fingerprint[:12]}' for name, fingerprint in data)}"


def page(found: Judged) -> str:
    """Return all of it in Markdown: verdicts, places, each rule in its own words, and studies."""
    folder = found.pool.folder
    studies = [grid for grid in found.pool.grids if (folder / grid / "trials.csv").is_file()]
    tables = "\n".join(render(standings(folder, grid), "markdown") for grid in studies)
    rules = "\n".join(
        f"- **{claim.rule}, {claim.name}.** {' '.join(claim.text.split())}"
        for claim in found.rules.claim
    )
    return (
        "# Findings\n\n"
        "Made by `bslbench verdict --write` from results and rules alone; what is written here by "
        'hand is lost. How each claim is measured: [protocol.md](protocol.md), "Verdicts".\n\n'
        f"{render(summary_table(found), 'markdown')}\n"
        f"{render(details_table(found), 'markdown')}\n"
        f"## The rules, version {found.rules.version}\n\n{rules}\n"
        + (f"\n## Losses after equal tuning\n\n{tables}" if tables else "")
    )
