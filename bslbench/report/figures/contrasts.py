"""What BSL has over SL, by the contrasts that were fixed beforehand."""

from bslbench.report.claims.ablation import BASELINE, CONTRASTS, contrasts
from bslbench.report.claims.common import Loaded
from bslbench.report.figures.chart import Chart, Nothing, Panel, Series
from bslbench.report.levels import CLEAN_NAME
from bslbench.report.results import Results


def contrast_bars(results: Results, metric: str) -> Chart:
    """Return the relative gain of each contrast over `sl`, a panel for each place.

    Raises
    ------
    Nothing
        If no contrast can be compared with `sl`.
    """
    panels = []
    for place, found in contrasts(Loaded(results.folder, results.grid), metric):
        gains = [one.relative for one in found.values()]
        lows, highs = zip(*(one.relative_interval for one in found.values()), strict=True)
        series = Series(
            f"over {BASELINE}",
            [list(CONTRASTS).index(name) for name in found],
            [100 * gain for gain in gains],
            error=(
                [100 * (gain - low) for gain, low in zip(gains, lows, strict=True)],
                [100 * (high - gain) for gain, high in zip(gains, highs, strict=True)],
            ),
        )
        noise = "" if place.noise == CLEAN_NAME else f", {place.noise}"
        panels.append(Panel(f"{place.backbone} on {place.dataset}{noise}", (series,)))
    if not panels:
        raise Nothing(f"no contrast that can be compared with {BASELINE}")
    return Chart(
        "contrasts",
        "",
        f"{metric} over {BASELINE}, %",
        tuple(panels),
        kind="bars",
        x_scale="names",
        x_names=tuple(CONTRASTS),
        caption=(
            f"What BSL has over {BASELINE}, each at its best settings on the selection split, of "
            f"those with as many seeds as any: relative difference of {metric} on test, bars: 95 % "
            "interval over seeds and users."
        ),
    )
