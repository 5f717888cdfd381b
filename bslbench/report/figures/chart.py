"""What a figure is: panels of series, as plain numbers.

A figure in a few lines; `bslbench.report.figures.draw.save` draws it:

>>> line = Series("sl", x=(0.05, 0.1, 0.2), y=(0.06, 0.07, 0.065), best=1)
>>> chart = Chart("tau", "tau", "Recall@20", (Panel("mf on yelp2018", (line,)),), x_scale="log")
>>> chart.labels
('sl',)
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from bslbench.errors import ConfigError


class Nothing(ConfigError):
    """A figure that would be empty; its text says why."""


@dataclass(frozen=True)
class Series:
    """One line, or one colour of bars.

    Attributes
    ----------
    label
        What the legend calls it.
    x, y
        Its points.
    error
        Half of the 95 % interval of each y, NaN for one seed, or how far it reaches down and up;
        None where there is none.
    each
        Lines drawn thin behind it, such as one per seed, as (x, y).
    best
        Index of the point that is marked.
    note
        Written at that point.
    """

    label: str
    x: Sequence[float]
    y: Sequence[float]
    error: Sequence[float] | tuple[Sequence[float], Sequence[float]] | None = None
    each: Sequence[tuple[Sequence[float], Sequence[float]]] = ()
    best: int | None = None
    note: str = ""


@dataclass(frozen=True)
class Panel:
    """One set of axes; `x_label` and `y_label` where they differ from the chart's."""

    title: str
    series: Sequence[Series]
    x_label: str = ""
    y_label: str = ""


@dataclass(frozen=True)
class Chart:
    """A figure, ready to be drawn.

    Attributes
    ----------
    name
        What commands and files call it.
    x_label, y_label
        Of every panel that has none of its own.
    panels
        Drawn side by side, three in a row.
    kind
        ``lines`` with markers at their points, ``curves`` without, ``steps`` and ``bars``.
    x_scale
        ``linear``, ``log``, or ``names``: x counts `x_names`.
    caption
        What a paper would write beneath.
    order
        Labels that share colours with other charts, in their order; others follow.
    """

    name: str
    x_label: str
    y_label: str
    panels: Sequence[Panel]
    kind: Literal["lines", "curves", "steps", "bars"] = "lines"
    x_scale: Literal["linear", "log", "names"] = "linear"
    x_names: Sequence[str] = ()
    caption: str = ""
    order: Sequence[str] = ()

    @property
    def labels(self) -> tuple[str, ...]:
        """The labels of all series, in the order that their colours follow."""
        own = [series.label for panel in self.panels for series in panel.series]
        return tuple(dict.fromkeys([*self.order, *own]))
