"""What `check` has found, as a table and as annotations of a GitHub workflow."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import fmean, stdev

from bslbench.report.baseline import Baseline
from bslbench.report.check import LEVEL, Finding, exit_code
from bslbench.report.parts import key_columns
from bslbench.report.results import Key
from bslbench.report.table import Column, Entry, Like, Table


def check_table(
    findings: Sequence[Finding], baseline: Baseline, grid: str, path: Path, tolerance: float
) -> Table:
    """Return a row for each group."""
    keys = [_key(finding) for finding in findings]
    names = key_columns(keys)
    columns = [
        Column("dataset"),
        *names,
        Column("baseline"),
        Column("now"),
        Column("change", spec="+.2%", align="right"),
        Column("p", spec=".2g", align="right"),
        Column("finds drops of", spec=".2%", align="right"),
        Column("outcome"),
    ]
    shown = [column.name for column in names]
    n_compared = sum(finding.state in ("fine", "worse") for finding in findings)
    return Table.of(
        "check",
        columns,
        [_row(finding, shown) for finding in findings],
        title=f"{grid} against {path}",
        sections=True,
        says=f"{baseline.metric} on test",
        notes=[
            f"worse: dropped by more than {tolerance:.2%}, and p of a one-sided t-test, its spread "
            f"that of the baseline's seeds, at most {LEVEL}",
            f"p adjusted by Holm for {n_compared} groups; finds drops of: the smallest that is "
            "found nine times in ten",
            summary(findings),
        ],
        footer=[f"baseline of protocol {baseline.protocol}, bslbench {baseline.bslbench}"],
    )


def summary(findings: Sequence[Finding]) -> str:
    """Return how many groups came to what, and the exit code."""
    words = {"worse": "worse", "cannot tell": "cannot be told", "fine": "fine", "new": "new"}
    counts = {word: sum(f.state == state for f in findings) for state, word in words.items()}
    said = ", ".join(f"{n} {word}" for word, n in counts.items() if n)
    return f"{len(findings)} groups: {said} (exit code {exit_code(findings)})"


def annotations(findings: Sequence[Finding], baseline: Baseline) -> str:
    """Return what GitHub shows beside a workflow's run: an error per group that is worse, a warning
    per group that cannot be told or is new, and a notice that sums up.
    """
    lines = []
    for finding in findings:
        name = finding.group.name
        if finding.state == "worse":
            lines.append(_annotation("error", f"{name}: {_change(finding, baseline)}"))
        elif finding.note:
            lines.append(_annotation("warning", f"{name}: {finding.note}"))
    lines.append(_annotation("notice", summary(findings)))
    return "".join(f"{line}\n" for line in lines)


def _change(finding: Finding, baseline: Baseline) -> str:
    return (
        f"{baseline.metric} {fmean(finding.group.values):.4f} -> {fmean(finding.values):.4f} "
        f"({finding.change:+.2%}, p {finding.p:.2g})"
    )


def _annotation(level: str, message: str) -> str:
    escaped = message.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")
    return f"::{level} title=bslbench check::{escaped}"


def _key(finding: Finding) -> Key:
    group = finding.group
    return Key(group.backbone, group.loss, group.settings, group.noise)


def _row(finding: Finding, names: Sequence[str]) -> Iterator[Like]:
    group = finding.group
    yield from (group.dataset, *(getattr(group, name) for name in names))
    yield _mean(() if finding.state == "new" else group.values)
    yield _mean(finding.values or (group.values if finding.state == "new" else ()))
    yield from (finding.change, finding.p, finding.findable)
    yield finding.state + (f": {finding.note}" if finding.note else "")


def _mean(values: Sequence[float]) -> Like:
    if not values:
        return None
    return Entry(fmean(values), stdev(values) if len(values) > 1 else None)
