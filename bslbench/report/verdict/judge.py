"""From findings to a verdict on each claim."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from bslbench.report.levels import CLEAN
from bslbench.report.parts import listed
from bslbench.report.verdict.findings import Finding, decided, not_told
from bslbench.report.verdict.measures import MEASURES
from bslbench.report.verdict.noisy import levels
from bslbench.report.verdict.pool import Place, Pool
from bslbench.report.verdict.rules import Claim, Rules, base_of

Judgement = Literal["holds", "does not hold", "mixed", "cannot be told"]


@dataclass(frozen=True)
class Verdict:
    """What a claim comes to over all places.

    Attributes
    ----------
    findings
        By place.
    missing
        What it would take to judge, where it cannot be told.
    """

    claim: Claim
    judgement: Judgement
    findings: tuple[Finding, ...]
    missing: tuple[str, ...]

    @property
    def counts(self) -> str:
        """How many places came to what, in words."""
        found = Counter(finding.state for finding in self.findings)
        words = [f"{n} {state}" for state, n in found.items()]
        return ", ".join(words) or "not tested"


def judge(pool: Pool, rules: Rules) -> Iterator[Verdict]:
    """Yield the verdict on each claim, in the order of the rules."""
    for claim in rules.claim:
        places = pool.places([claim.loss, *claim.against])
        measured = (_finding(pool, rules, claim, place) for place in places)
        yield verdict(claim, [finding for finding in measured if finding], rules.datasets)


def _finding(pool: Pool, rules: Rules, claim: Claim, place: Place) -> Finding | None:
    """Return what a claim comes to at a place; None where it was not tested."""
    measure = MEASURES[claim.measure]
    if claim.measure != "equal":  # which asks for opponents at another score than their own
        pool = pool.declared()
    found = measure(_compared(pool, rules, claim, place), rules, claim, place)
    if found is None and measure(pool, rules, claim, place):
        against = listed(claim.against) if claim.against else "the law"
        return decided(place, [not_told(against, "runs of one size")])
    return found


def _compared(pool: Pool, rules: Rules, claim: Claim, place: Place) -> Pool:
    """Return the runs that may be held against each other; identities are of one model."""
    if claim.tolerance is not None:
        return pool
    noises = levels(pool, place, claim).values() if claim.axis else [CLEAN]
    seeds = rules.seeds_for(claim, place.dataset)
    losses = [claim.loss, *claim.against]
    return pool.alike(place, losses, noises, claim.where, seeds=seeds)


def verdict(claim: Claim, findings: Sequence[Finding], datasets: int) -> Verdict:
    """Return what the findings at all places come to.

    Parameters
    ----------
    datasets
        On how many different ones a claim must have been tested.
    """
    states = [finding.state for finding in findings]
    n_against = states.count("absent") + states.count("reversed")
    n_datasets = len({base_of(finding.place.dataset) for finding in findings})
    missing = [
        f"{finding.place.dataset}, {finding.place.backbone}: {text}"
        for finding in findings
        for text in finding.missing
    ]
    if n_datasets < datasets:
        more = datasets - n_datasets
        missing.insert(0, f"{more} more dataset{'s' * (more > 1)}")
        return Verdict(claim, "cannot be told", tuple(findings), tuple(missing))
    if all(state == "there" for state in states):
        return Verdict(claim, "holds", tuple(findings), ())
    if 2 * n_against >= len(states):
        return Verdict(claim, "does not hold", tuple(findings), ())
    mixed = "there" in states and n_against > 0
    return Verdict(claim, "mixed" if mixed else "cannot be told", tuple(findings), tuple(missing))
