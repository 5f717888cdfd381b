"""What figures call their panels and lines."""

from collections.abc import Iterable, Mapping

from bslbench.config import REFERENCE
from bslbench.report.choose import Case
from bslbench.report.levels import noise_text
from bslbench.report.results import Results


def losses_in_order(results: Results) -> tuple[str, ...]:
    """Return the trained losses in the order of the grid, so that all figures colour them alike."""
    return tuple(
        dict.fromkeys(run.key.loss for run in results.runs if run.key.backbone != REFERENCE)
    )


def titles(cases: Iterable[Case]) -> Mapping[Case, str]:
    """Return what a panel of each case is called: only what tells it from the others' panels."""
    cases = list(cases)
    datasets = {case.dataset for case in cases}
    made = {}
    for case in cases:
        place = case.backbone if len(datasets) == 1 else f"{case.backbone} on {case.dataset}"
        noise = noise_text(dict(case.noise))
        made[case] = f"{place}, {noise}" if noise else place
    return made


def of_the_best(others: int) -> str:
    """Return the end of a caption: that other settings were left out, if any were."""
    return (
        f"; of each loss the settings best on the selection split, {others} others left out."
        if others
        else "."
    )
