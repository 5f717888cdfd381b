import itertools
import math
import random

import numpy as np
import pytest
from scipy import stats

from benchmarks.coverage import coverage, simulated
from bslbench.evaluation.statistics import (
    RESAMPLES,
    Spread,
    estimate,
    holm,
    seeds_needed,
    told,
)
from bslbench.kernels.resample import resampled_means
from tests.fixtures import on_threads

RNG = np.random.default_rng(5)
SMALL = RNG.normal(0.3, 1, (3, 1)) + RNG.normal(0, 1, 7) + RNG.normal(0, 1, (3, 7))


def test_the_kernel_draws_as_many_users_as_there_are_and_weighs_them_so():
    weights = resampled_means(np.eye(7), 500, key=3) * 7  # how often each user is drawn
    assert np.array_equal(weights, weights.round()) and np.array_equal(weights.sum(1), [7] * 500)
    assert abs(weights.mean() - 1) < 1e-12 and abs(weights.var() - 6 / 7) < 0.05
    means = resampled_means(SMALL.T, 500, key=3)
    for r, s in itertools.product(range(500), range(3)):
        slow = sum(weights[r, u] * SMALL[s, u] for u in range(7)) / 7
        assert means[r, s] == pytest.approx(slow, abs=1e-14)


def test_resamples_are_the_same_in_any_company_and_on_any_number_of_threads():
    values = RNG.random((1000, 5))
    with on_threads(1):
        alone = [resampled_means(values[:, [c]], 50, key=1)[:, 0] for c in range(5)]
    for threads in (2, 4):
        with on_threads(threads):
            assert np.array_equal(np.stack(alone, axis=1), resampled_means(values, 50, key=1))
    assert not np.array_equal(alone[0], resampled_means(values, 50, key=2)[:, 0])


def test_mean_squares_equal_a_double_loop():
    n, m = SMALL.shape
    cells = list(itertools.product(range(n), range(m)))
    total = sum(SMALL[s, u] for s, u in cells) / (n * m)
    seeds = [sum(SMALL[s, u] for u in range(m)) / m for s in range(n)]
    users = [sum(SMALL[s, u] for s in range(n)) / n for u in range(m)]
    spread = Spread.of(SMALL)
    assert spread.seeds == pytest.approx(m * sum((x - total) ** 2 for x in seeds) / (n - 1))
    assert spread.users == pytest.approx(n * sum((x - total) ** 2 for x in users) / (m - 1))
    rest = sum((SMALL[s, u] - seeds[s] - users[u] + total) ** 2 for s, u in cells)
    assert spread.rest == pytest.approx(rest / ((n - 1) * (m - 1)))


def test_the_standard_error_is_that_of_means_over_new_seeds_and_users():
    means, errors = [], []
    for run in range(1500):
        values = simulated(np.random.default_rng(run), 4, 30, share=0.5)
        means.append(values.mean())
        errors.append(Spread.of(values).error()[0])
    assert np.mean(np.square(errors)) == pytest.approx(np.var(means), rel=0.1)


def test_p_is_that_of_scipys_paired_t_test():
    a, b = RNG.random((6, 40)), RNG.random((6, 40))
    expected = stats.ttest_rel(a.mean(1), b.mean(1)).pvalue
    assert estimate(a - b).p == pytest.approx(expected, rel=1e-12)


def test_without_users_it_is_scipys_t_interval():
    values = RNG.random(6)
    found = estimate(values[:, None])
    low, high = stats.t.interval(0.95, 5, values.mean(), stats.sem(values))
    assert (found.low, found.high) == pytest.approx((low, high), rel=1e-12)
    assert found.p == pytest.approx(stats.ttest_1samp(values, 0).pvalue, rel=1e-12)


def test_with_many_users_and_equal_seeds_it_is_scipys_bootstrap_over_users():
    """Seeds that differ in nothing, as those of EASE: all the variance is that of the users."""
    users = RNG.exponential(size=400)
    found = estimate(np.tile(users, (5, 1)))
    expected = stats.bootstrap(
        (users,), np.mean, n_resamples=10_000, method="percentile", rng=1
    ).confidence_interval
    width = expected.high - expected.low
    assert found.low == pytest.approx(expected.low, abs=0.03 * width)
    assert found.high == pytest.approx(expected.high, abs=0.03 * width)
    assert math.isnan(found.p)  # as many repeats of one value are no test


def test_the_shape_is_that_of_a_crossed_bootstrap_by_a_double_loop():
    """Quantiles of both, each in its own standard deviations, on a case with a long tail."""
    values = np.array([[0.0, 0.0, 9.0, 1.0], [0.0, 1.0, 7.0, 0.0], [1.0, 0.0, 2.0, 0.0]])
    draws, drawn = random.Random(2), []
    for _ in range(RESAMPLES):
        seeds, users = draws.choices(range(3), k=3), draws.choices(range(4), k=4)
        drawn.append(sum(values[s, u] for s in seeds for u in users) / 12)
    slow = (np.quantile(drawn, [0.025, 0.975]) - np.mean(drawn)) / np.std(drawn)
    found = estimate(values)
    error, freedom = found.spread.error()
    wider = stats.t.isf(0.025, freedom) / stats.norm.isf(0.025)
    shape = (np.array([found.low, found.high]) - found.mean) / (error * wider)
    assert shape == pytest.approx(slow, abs=0.06)
    assert -slow[0] < 1.8 < 2.1 < slow[1]  # skewed, so that a symmetric shape would not pass


@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_intervals_cover_with_five_seeds(share):
    """A percentile interval would cover 85 % at share 1. `benchmarks.coverage` runs 2,000."""
    held, _ = coverage(n_runs=250, n_seeds=5, n_users=60, share=share)
    assert 0.91 <= held <= 0.985


def test_no_difference_at_all_is_absent():
    found = estimate(np.zeros((3, 8)))
    assert (found.mean, found.low, found.high) == (0, 0, 0) and math.isnan(found.p)
    assert told(found.low, found.high, 0.1) == "absent"


def test_nothing_can_be_told_from_what_is_not_a_number():
    assert told(math.nan, math.nan, 0.1) == "cannot be told"


def with_moments(n, mean, sd):
    values = np.linspace(-1, 1, n)
    return mean + sd * (values - values.mean()) / values.std(ddof=1)


@pytest.mark.parametrize(("mean", "needed"), [(0.5, 10), (-0.5, 10), (0.0, 10), (0.25, 32)])
def test_seeds_needed(mean, needed):
    """A gain of 0.5 % at a seed sd of 0.3 % per arm takes ten seeds, nine times in ten."""
    found = estimate(with_moments(5, mean, 0.3 * math.sqrt(2))[:, None])
    assert seeds_needed(found, 0.5) == needed


def test_seeds_needed_finds_it_as_often_as_it_says():
    draws = np.random.default_rng(0).normal(0.5, 0.3 * math.sqrt(2), (20_000, 10))
    error = draws.std(1, ddof=1) / math.sqrt(10)
    there = np.abs(draws.mean(1)) > stats.t.isf(0.025, 9) * error
    assert 0.9 <= there.mean() <= 0.94


def test_no_seeds_help_where_users_are_too_few():
    users = RNG.normal(0.1, 1, 50)
    found = estimate(users + RNG.normal(0, 0.01, (5, 50)))
    assert seeds_needed(found, 0.05) is None


def test_a_loss_far_below_is_an_absent_gain():
    found = estimate(with_moments(5, -2.0, 2.0)[:, None])
    assert told(found.low, found.high, 0.5) == "cannot be told"
    assert told(found.low, found.high, 0.5, directed=True) == "absent"
    assert seeds_needed(found, 0.5, directed=True) < seeds_needed(found, 0.5)


def test_holm_equals_its_definition():
    """The adjusted p is the smallest level at which the step-down procedure rejects."""
    p = [0.011, 0.02, 0.9, 0.013, 0.02, math.nan, 0.3]
    numbers = sorted(x for x in p if not math.isnan(x))

    def rejected(level):
        reject = set()
        for step, value in enumerate(numbers):
            if value > level / (len(numbers) - step):
                break
            reject.add(value)
        return reject

    for value, adjusted in zip(p, holm(p), strict=True):
        if math.isnan(value):
            assert math.isnan(adjusted)
        else:
            assert value in rejected(adjusted + 1e-9)
            assert adjusted == 1 or value not in rejected(adjusted - 1e-9)
