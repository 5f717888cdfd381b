"""What values per seed and user can tell: an interval, a test, a word, and what it would take.

Both seeds and users are samples: another seed trains another model, another user judges it
otherwise. Values x [n seeds, m users], such as paired differences of Recall@20, are read as

    x_su = mean + seed_s + user_u + rest_su

and the interval is for the mean over the seeds and users that might have been drawn.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import numpy as np
import numpy.typing as npt
from scipy.special import ndtri, stdtr, stdtrit

from bslbench.kernels.resample import resampled_means
from bslbench.seeding import key_of

FloatArray = npt.NDArray[np.float64]
Word = Literal["there", "absent", "cannot be told"]

SMALLEST_EFFECT = 0.005
"""Relative difference from which on one is of interest."""

CONFIDENCE = 0.95
RESAMPLES = 10_000
POWER = 0.9
"""How often what is called findable is found."""

MANY = 10_000
"""Seeds beyond which nobody trains more."""


@dataclass(frozen=True)
class Spread:
    """Mean squares of the two-way analysis of variance of values [n_seeds, n_users].

    Attributes
    ----------
    seeds, users
        n_users times the variance of the seeds' means, n_seeds times that of the users' means.
    rest
        What neither explains.
    """

    n_seeds: int
    n_users: int
    seeds: float
    users: float
    rest: float

    @classmethod
    def of(cls, values: FloatArray) -> "Spread":
        """Analyse values [n_seeds, n_users], at least two seeds; one user stands for no users."""
        n, m = values.shape
        by_seed = values.mean(1)
        if m == 1:
            return cls(n, 1, float(by_seed.var(ddof=1)), 0.0, 0.0)
        by_user = values.mean(0)
        rest = values - by_seed[:, None] - by_user + values.mean()
        return cls(
            n,
            m,
            m * float(by_seed.var(ddof=1)),
            n * float(by_user.var(ddof=1)),
            float(np.square(rest).sum()) / ((n - 1) * (m - 1)),
        )

    def with_seeds(self, n_seeds: int) -> "Spread":
        """Return what is to be expected of another number of seeds."""
        of_users = max(0.0, self.users - self.rest) / self.n_seeds
        seeds, users = max(self.seeds, self.rest), n_seeds * of_users + self.rest
        return Spread(n_seeds, self.n_users, seeds, users, self.rest)

    def error(self) -> tuple[float, float]:
        """Return the standard error of the mean and its degrees of freedom.

        The variance of the mean is (seeds + users - rest) / (n m), without bias; the degrees of
        freedom are Satterthwaite's (Biometrics Bulletin 1946): n - 1 where seeds decide, many
        where users do.
        """
        n, m = self.n_seeds, self.n_users
        parts = [(self.seeds, n - 1), (self.users, m - 1), (-self.rest, (n - 1) * (m - 1))]
        total = self.seeds + self.users - self.rest
        if total <= self.rest:  # neither seeds nor users differ by more than the rest makes them
            parts, total = [(self.rest, (n - 1) * (m - 1))], self.rest
        if total == 0:
            return 0.0, math.inf
        freedom = total**2 / sum(square**2 / df for square, df in parts if df)
        return math.sqrt(total / (n * m)), freedom


@dataclass(frozen=True)
class Estimate:
    """A mean over seeds and users, and how well it is known.

    Attributes
    ----------
    low, high
        Its interval.
    p
        Of the two-sided t-test over the seeds' means, n - 1 degrees of freedom: the probability
        of such values if the mean were zero. NaN where all seeds say the same.
    spread
        What the interval is made from.
    """

    mean: float
    low: float
    high: float
    p: float
    spread: Spread


def estimate(values: npt.ArrayLike, resampled: FloatArray | None = None) -> Estimate:
    """Return the mean of values [n_seeds, n_users] and its interval over both.

    The interval has the shape of a crossed bootstrap, which resamples seeds and users together
    (Owen, Annals of Applied Statistics 2007). Its own width would not do: with five seeds it
    covers 85 % instead of 95. So its quantiles, in units of its standard deviation, are scaled to
    the standard error of `Spread` and widened as a t distribution is wider than a normal one. One
    user stands for values that have no users: then it is the t interval over seeds.

    Parameters
    ----------
    values
        Of at least two seeds.
    resampled
        Means of each seed's values over resampled users [RESAMPLES, n_seeds], if at hand.
    """
    x = np.asarray(values, dtype=np.float64)
    mean, spread = float(x.mean()), Spread.of(x)
    error, freedom = spread.error()
    tail = (1 - CONFIDENCE) / 2
    shape = np.array([-1.0, 1.0]) * -ndtri(tail)
    if x.shape[1] > 1 and error > 0:
        if resampled is None:
            resampled = resampled_means(x.T, RESAMPLES, USERS)
        means = np.take_along_axis(resampled, _drawn_seeds(len(x)), axis=1).mean(1)
        shape = np.quantile((means - means.mean()) / means.std(), [tail, 1 - tail])
    wider = -stdtrit(freedom, tail) / -ndtri(tail)
    low, high = mean + shape * error * wider
    return Estimate(mean, float(low), float(high), _t_test(x.mean(1)), spread)


USERS = key_of(0, "bootstrap users")


@lru_cache(maxsize=8)
def _drawn_seeds(n: int) -> npt.NDArray[np.int64]:
    """Return which seeds each resample takes, [RESAMPLES, n]: the same ones for all values."""
    raw = np.random.PCG64(key_of(0, "bootstrap seeds", n)).random_raw(RESAMPLES * n)
    return ((raw >> np.uint64(32)) * np.uint64(n) >> np.uint64(32)).astype(int).reshape(-1, n)


def _t_test(by_seed: FloatArray) -> float:
    n, mean, sd = len(by_seed), float(by_seed.mean()), float(by_seed.std(ddof=1))
    if sd <= 1e-12 * abs(mean):  # equal but for rounding: as many repeats of one value
        return math.nan
    return float(2 * stdtr(n - 1, -abs(mean) / (sd / math.sqrt(n))))


def told(low: float, high: float, smallest: float, *, directed: bool = False) -> Word:
    """Return whether a difference with this interval is there.

    Parameters
    ----------
    smallest
        The smallest difference of interest, in the units of the interval.
    directed
        Whether the question is for a gain: what lies below the smallest gain of interest is
        absent, however far below.

    Examples
    --------
    >>> told(0.1, 0.3, 0.5), told(-0.2, 0.3, 0.5), told(-0.2, 0.9, 0.5), told(-9.0, 0.3, 0.5)
    ('there', 'absent', 'cannot be told', 'cannot be told')
    >>> told(-9.0, 0.3, 0.5, directed=True)
    'absent'
    """
    if low > 0 or high < 0:
        return "there"
    if high < smallest and (directed or low > -smallest):
        return "absent"
    return "cannot be told"


def seeds_needed(found: Estimate, smallest: float, *, directed: bool = False) -> int | None:
    """Return with how many seeds it could be told nine times in ten, were all as estimated.

    None if no number of seeds would do: then users are too few, or the difference lies just at
    the smallest of interest.
    """
    gap = abs(found.mean)
    room = smallest - (found.mean if directed else gap)

    def tells(n: int) -> bool:
        error, freedom = found.spread.with_seeds(n).error()
        margin = -stdtrit(freedom, (1 - CONFIDENCE) / 2) + ndtri(POWER)
        return bool(max(gap, room) > margin * error)

    if not tells(MANY):
        return None
    low, high = 1, MANY  # too few, enough
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if tells(middle) else (middle, high)
    return high


def smallest_p(n_seeds: int) -> float:
    """Return the smallest p that n paired seeds allow whatever their distribution, by sign flips.

    Examples
    --------
    >>> smallest_p(5)
    0.0625
    """
    return 2.0 ** (1 - n_seeds)


def holm(p: Sequence[float]) -> list[float]:
    """Return p-values adjusted for their number (Holm, Scandinavian J. of Statistics 1979).

    NaN stands for a comparison that has none and does not count.

    Examples
    --------
    >>> holm([0.03, 0.01, math.nan])
    [0.03, 0.02, nan]
    """
    order = sorted((value, i) for i, value in enumerate(p) if not math.isnan(value))
    adjusted, least = list(p), 0.0
    for rank, (value, i) in enumerate(order):
        least = max(least, min(1.0, (len(order) - rank) * value))
        adjusted[i] = least
    return adjusted
