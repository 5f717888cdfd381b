"""Search spaces: what a loss declares as `space`, read, drawn from and widened."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)

from bslbench.config import Scalar
from bslbench.errors import ConfigError, suggest

Kind = Literal["log", "linear", "int", "log_int"]
Params = Mapping[str, Scalar]

DIGITS = 4
"""Significant digits of a drawn number: what a table can show is what was trained."""

EDGE = 0.05
"""A value is on an edge of its range if it lies within this share of it, on the range's scale."""

WIDER = 0.25
"""An edge moves by this share of the range as declared, on the range's scale."""


@dataclass(frozen=True)
class Range:
    """An interval, searched on a linear or a logarithmic scale.

    Examples
    --------
    >>> Range("log", 0.01, 1.0).at(0.5)
    0.1
    >>> Range("int", 1, 4).at(0.99)
    4
    """

    kind: Kind
    low: float
    high: float

    @property
    def whole(self) -> bool:
        """Whether values are whole numbers."""
        return self.kind.endswith("int")

    @property
    def log(self) -> bool:
        """Whether the scale is logarithmic."""
        return self.kind.startswith("log")

    def at(self, u: float) -> Scalar:
        """Return the value at `u`, 0 for the low and 1 for the high end."""
        low, high = self._bounds()
        return self.rounded(self._value(low + u * (high - low)))

    def rounded(self, value: Scalar) -> Scalar:
        """Return a drawn value with few digits, within the range."""
        number = float(value)
        if self.whole:
            return int(min(max(round(number), self.low), self.high))
        return min(max(float(f"{number:.{DIGITS}g}"), self.low), self.high)

    def side(self, value: Scalar) -> Literal[-1, 0, 1]:
        """Return -1 for a value on the low edge, 1 for one on the high edge, else 0."""
        low, high = self._scaled(self.low), self._scaled(self.high)
        place = (self._scaled(float(value)) - low) / (high - low)
        return -1 if place <= EDGE else 1 if place >= 1 - EDGE else 0

    def widened(self, side: Literal[-1, 1], declared: "Range") -> "Range":
        """Return the range with its low (-1) or high (1) edge moved outward."""
        first, last = declared._bounds()
        edge = self._value(self._bounds()[side > 0] + side * WIDER * (last - first))
        if self.whole:
            edge = math.floor(edge) if side < 0 else math.ceil(edge)
            edge = max(edge, 1) if self.log else edge
        else:
            edge = float(f"{edge:.{DIGITS}g}")
        return replace(self, low=edge) if side < 0 else replace(self, high=edge)

    def distribution(self) -> BaseDistribution:
        """Return the range as Optuna writes it."""
        if self.whole:
            return IntDistribution(int(self.low), int(self.high), log=self.log)
        return FloatDistribution(self.low, self.high, log=self.log)

    def __str__(self) -> str:
        return f"{self.low:g} to {self.high:g}" + (", log" if self.log else "")

    def _bounds(self) -> tuple[float, float]:
        """Return the ends on the range's own scale; whole numbers have half of one on each side."""
        if not self.whole:
            return self._scaled(self.low), self._scaled(self.high)
        return self._scaled(self.low - 0.5), self._scaled(self.high + 0.5)

    def _scaled(self, value: float) -> float:
        return math.log(value) if self.log else value

    def _value(self, scaled: float) -> float:
        return math.exp(scaled) if self.log else scaled


@dataclass(frozen=True)
class Choice:
    """One of a few values without order."""

    options: tuple[Scalar, ...]

    def at(self, u: float) -> Scalar:
        """Return the option that the share `u` of the whole list falls on."""
        return self.options[min(int(u * len(self.options)), len(self.options) - 1)]

    def rounded(self, value: Scalar) -> Scalar:
        """Return the value."""
        return value

    def distribution(self) -> BaseDistribution:
        """Return the choice as Optuna writes it."""
        return CategoricalDistribution(self.options)

    def __str__(self) -> str:
        return " or ".join(map(str, self.options))


Dimension = Range | Choice
Space = Mapping[str, Dimension]


def read(declared: Any, where: str) -> dict[str, Dimension]:
    """Return a space as a class declares it (`bslbench.losses.base.Loss.space`).

    Raises
    ------
    ConfigError
        Naming the class and the parameter whose declaration is not of the known forms.
    """
    if not isinstance(declared, Mapping):
        raise ConfigError(f"{where}: space is not a dict")
    return {
        str(name): _dimension(entry, f"{where}: space: {name}") for name, entry in declared.items()
    }


def _dimension(entry: Any, where: str) -> Dimension:
    if not (isinstance(entry, tuple) and len(entry) > 2):
        raise ConfigError(
            f"{where}: {entry!r} is neither (kind, low, high) nor ('choice', value, value, ...)"
        )
    kind, *values = entry
    if kind == "choice":
        return Choice(tuple(values))
    kinds = get_args(Kind)
    if kind not in kinds:
        raise ConfigError(f"{where}: no kind '{kind}'{suggest(str(kind), [*kinds, 'choice'])}")
    number = int if kind.endswith("int") else int | float
    if len(values) > 2 or not all(
        isinstance(value, number) and not isinstance(value, bool) and math.isfinite(value)
        for value in values
    ):
        raise ConfigError(f"{where}: {entry!r} is not a kind and two numbers of it, low and high")
    low, high = values
    if low >= high:
        raise ConfigError(f"{where}: {low!r} is not below {high!r}")
    if kind.startswith("log") and low <= 0:
        raise ConfigError(f"{where}: a logarithmic range starts above 0, not at {low!r}")
    return Range(kind, low, high)


COMMON: Space = {
    "lr": Range("log", 1e-4, 3e-2),
    "l2": Range("log", 1e-6, 1e-1),
    "dropout": Range("linear", 0.0, 0.5),
}
"""What every loss is tuned over."""

OPEN: Space = {
    "n_negatives": Range("log_int", 1, 1024),
    "score": Choice(("cosine", "inner")),
    "scale": Range("log", 1.0, 100.0),
}
"""What a study can open for every loss; else a loss has its own default. `score` is both scores."""

SLOTS = (*COMMON, *OPEN)
"""Places of the common parameters in a quasi-random point; a loss's own come after these."""
