"""How much of the negatives the worst case of the theory looks at, by temperature."""

from collections import defaultdict

from bslbench.report.best import chosen
from bslbench.report.claims.identities import N_USERS, cosines, usable_model
from bslbench.report.figures.chart import Chart, Nothing, Panel, Series
from bslbench.report.figures.words import losses_in_order, titles
from bslbench.report.results import Results
from bslbench.theory import effective_size, worst_case

TAUS = (0.02, 0.03, 0.05, 0.08, 0.12, 0.2, 0.3, 0.5, 1.0)


def worst_case_size(results: Results) -> Chart:
    """Return the effective size of the worst-case distribution over the temperature.

    Raises
    ------
    Nothing
        If no run has kept a model that was trained on cosines.
    """
    kept = chosen(results)
    names = titles(kept)
    panels: defaultdict[str, list[Series]] = defaultdict(list)
    for case, runs in kept.items():
        for model in [path for run in runs if (path := usable_model(results, run))][:1]:
            scores = cosines(model)
            sizes = [effective_size(worst_case(scores, tau)).mean() for tau in TAUS]
            share = [float(size) / scores.shape[1] for size in sizes]
            panels[names[case]].append(Series(case.loss, TAUS, share))
    if not panels:
        raise Nothing(
            "no finished run has kept a model trained on cosines: train with --save-model"
        )
    return Chart(
        "theory",
        "temperature",
        "effective size, share of the items",
        tuple(Panel(title, tuple(series)) for title, series in panels.items()),
        x_scale="log",
        caption=(
            f"Effective sample size of the worst-case distribution over all items, mean of "
            f"{N_USERS} users, on the first seed with a kept model."
        ),
        order=losses_in_order(results),
    )
