"""Losses ranked over many places: datasets x backbones.

A mean of Recall over datasets says more of the datasets than of the losses; mean ranks do not
(Demsar, Statistical Comparisons of Classifiers over Multiple Data Sets, JMLR 2006). Neither levels
of noise nor splits of one dataset are places: they share their data, so that their ranks say much
the same again, and with enough of them any difference would be a critical one.
"""

import math
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

import numpy as np
import numpy.typing as npt
from scipy.stats import friedmanchisquare, rankdata, studentized_range

from bslbench.config import UNTRAINED
from bslbench.evaluation.metrics import METRICS, parse_metric
from bslbench.evaluation.statistics import CONFIDENCE
from bslbench.report.best import Case
from bslbench.report.claims.common import Loaded, overall
from bslbench.report.levels import CLEAN_NAME, noise_text
from bslbench.report.results import PRIMARY
from bslbench.report.table import GAP, Column, Entry, Table
from bslbench.report.verdict.rules import base_of

FEWEST = 6
"""Places below which ranks tell nothing."""


@dataclass(frozen=True)
class Ranking:
    """How losses rank by one metric.

    Attributes
    ----------
    losses
        By name.
    ranks
        [n_places, n_losses], 1 the best, equal ones share their mean. Splits of one dataset are one
        place, with their mean ranks.
    left_out
        The places where a loss has no value.
    """

    metric: str
    losses: tuple[str, ...]
    ranks: npt.NDArray[np.float64]
    left_out: tuple[str, ...]

    @classmethod
    def of(cls, loaded: Loaded, metric: str, noise: str) -> "Ranking":
        """Rank the losses that have a backbone by their means over seeds at one level of noise."""
        values = overall(loaded.values(metric))
        means: defaultdict[tuple[str, str], dict[str, float]] = defaultdict(dict)
        for case, runs in loaded.cases():
            if case.backbone not in UNTRAINED and _noise(case) == noise:
                mean = fmean(values.get(run.id, math.nan) for run in runs)
                means[case.dataset, case.backbone][case.loss] = mean
        losses = tuple(dict.fromkeys(loss for own in means.values() for loss in own))
        table = np.array([[own.get(loss, math.nan) for loss in losses] for own in means.values()])
        table = table.reshape(len(means), len(losses))
        whole = ~np.isnan(table).any(axis=1)
        sign = -1 if METRICS[parse_metric(metric)[0]].higher_is_better else 1
        each = rankdata(sign * table[whole], axis=1)
        left_out = [", ".join(place) for place, kept in zip(means, whole, strict=True) if not kept]
        # Splits of one dataset share its pairs, and rank alike.
        places = [(base_of(dataset), backbone) for dataset, backbone in means]
        own = [place for place, kept in zip(places, whole, strict=True) if kept]
        ranks = [each[[p == place for p in own]].mean(0) for place in dict.fromkeys(own)]
        return cls(metric, losses, np.reshape(ranks, (len(ranks), len(losses))), tuple(left_out))

    @property
    def tells(self) -> bool:
        """Whether there are places enough, and more than two losses."""
        return len(self.ranks) >= FEWEST and len(self.losses) > 2

    @property
    def critical_difference(self) -> float:
        """The difference of mean ranks that is significant at 5 % (Nemenyi; Demsar, section 3.2.2).

        Examples
        --------
        >>> four = Ranking("Recall@20", ("a", "b", "c", "d"), np.ones((14, 4)), ())
        >>> round(four.critical_difference, 2)  # Demsar's example has 1.25
        1.25
        """
        n_places, n_losses = self.ranks.shape
        q = studentized_range.ppf(CONFIDENCE, n_losses, math.inf) / math.sqrt(2)
        return float(q * math.sqrt(n_losses * (n_losses + 1) / (6 * n_places)))

    def entries(self, loss: str) -> Iterator[Entry]:
        """Yield the mean rank, with its interval, and at how many places the loss is the best."""
        own = self.ranks[:, self.losses.index(loss)] if loss in self.losses else np.empty(0)
        if not len(own):
            yield from (Entry(text=GAP), Entry(text=GAP))
            return
        mean, half = float(own.mean()), self.critical_difference / 2 if self.tells else 0.0
        yield Entry(mean, interval=(mean - half, mean + half) if self.tells else None)
        yield Entry(int((own == self.ranks.min(axis=1)).sum()))

    def notes(self) -> Iterator[str]:
        """Yield what the ranks tell, and which places do not count."""
        n_places = len(self.ranks)
        if self.tells:
            yield (
                f"{self.metric}: {n_places} places; mean ranks {self.critical_difference:.2f} "
                "apart differ (Nemenyi, 5 %): their intervals do not overlap; any difference: "
                f"p {friedmanchisquare(*self.ranks.T).pvalue:.2g} (Friedman)"
            )
        elif len(self.losses) > 2:
            yield f"{self.metric}: too few to rank: {n_places} of at least {FEWEST} places"
        else:
            yield f"{self.metric}: two losses are compared by report --table significance"
        if self.left_out:
            yield f"{self.metric}: without a value of each loss: {'; '.join(self.left_out)}"


def ranking_table(results: Path, grid: str, metrics: Sequence[str] | None = None) -> Table:
    """Return the mean rank of each loss over datasets and backbones, by each metric.

    Clean runs alone are ranked if there are any, else each level of noise apart. Of each loss the
    settings best on the selection split stand for it, at each place its own. Only places with all
    losses count, and references and what was trained elsewhere are left out.

    Parameters
    ----------
    results, grid, metrics
        As in `bslbench.report.main_table.main_table`.

    Raises
    ------
    ConfigError
        If there is no such grid or metric.
    DataError
        If a file is damaged.
    """
    loaded = Loaded(results, grid)
    asked = list(dict.fromkeys(metrics or PRIMARY))
    loaded.results.scores(asked)
    trained = [case for case in loaded.kept if case.backbone not in UNTRAINED]
    levels = list(dict.fromkeys(map(_noise, trained)))
    noisy = [level for level in levels if level != CLEAN_NAME]
    ranked, said = noisy, "no clean runs: each level of noise is ranked apart:"
    if CLEAN_NAME in levels:
        ranked, said = [CLEAN_NAME], "clean runs alone are ranked, not those at"
    notes = [f"{said} {'; '.join(noisy)}"] if noisy else []
    found = {level: [Ranking.of(loaded, metric, level) for metric in asked] for level in ranked}
    columns = [Column("noise"), Column("loss")]
    for metric in asked:
        columns.append(Column("mean rank", metric, ".2f", better="lower"))
        columns.append(Column("best at", metric, "d", align="right"))
    notes += [
        note if level == CLEAN_NAME else f"{level}, {note}"
        for level, own in found.items()
        for one in own
        for note in one.notes()
    ]
    return loaded.table(
        "ranking",
        columns,
        [
            [level, loss, *(e for one in own for e in one.entries(loss))]
            for level, own in found.items()
            for loss in own[0].losses
        ],
        title="mean ranks",
        notes=notes,
    )


def _noise(case: Case) -> str:
    return noise_text(dict(case.noise)) or CLEAN_NAME
