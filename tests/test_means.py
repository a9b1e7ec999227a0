"""Intervals of means: closed forms, what every one must do, and how often they hold the truth."""

import math

import numpy as np
import pytest
import scipy.stats
from hypothesis import assume, given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from memorization.errors import InputError
from memorization.stats.means import difference_interval, mean_interval

LEVELS = st.sampled_from([0.01, 0.5, 0.9, 0.95, 0.99, 0.9999])
VALUES = arrays(np.float64, st.integers(2, 30), elements=st.integers(-6, 6).map(float))
LABELS = st.integers(0, 3)


def test_of_symmetric_values_it_is_students():
    values = np.array([1.0, 2.0, 3.0, 5.0, 6.0, 7.0])
    expected = scipy.stats.t.interval(0.9, 5, loc=4, scale=scipy.stats.sem(values))
    assert mean_interval(values, level=0.9) == pytest.approx(expected)


def test_of_skewed_values_the_ends_solve_halls_equation():
    """t of the true mean, transformed, is Student's quantile at either end; here neither end is held back."""
    values = np.random.default_rng(0).gamma(3.0, size=40)
    n, mean, skewness = 40, values.mean(), scipy.stats.skew(values) / math.sqrt(40)
    low, high = mean_interval(values)
    t = (mean - np.array([low, high])) / scipy.stats.sem(values)
    transformed = t + skewness * t**2 / 3 + skewness**2 * t**3 / 27 + skewness / 6
    quantile = scipy.stats.t.ppf(0.975, (n - 1) * (1 - skewness**2))
    assert skewness * quantile < 9 / 8
    np.testing.assert_allclose(transformed, [quantile, -quantile])
    assert high - mean > mean - low > 0


def test_one_value_that_is_not_zero_says_more_the_more_zeros_there_are():
    """The far end of Hall's transformation would come back to the mean when one value holds all of the scatter."""
    above = [(mean_interval(np.eye(n)[0]).high - 1 / n) * n for n in (4, 8, 16, 64)]
    assert min(above) > 4 * 3.1  # standard errors, each 1 / n: about 4 t, t being that of 2.9 degrees of freedom
    assert mean_interval(np.eye(16)[0]).high == pytest.approx(0.91397, abs=1e-5)


@given(VALUES, LEVELS)
def test_the_mean_lies_within(values, level):
    interval = mean_interval(values, level=level)
    assert float(values.mean()) in interval
    wider = mean_interval(values, level=(1 + level) / 2)
    slack = 1e-12 * np.abs(values).max()
    assert wider.low <= interval.low + slack
    assert interval.high - slack <= wider.high


@given(VALUES, st.sampled_from([1e-200, 0.1, 3.0, 1e200]), st.sampled_from([-40.0, 0.0, 7.0]))
def test_scale_shift_sign_and_order_move_the_ends_alike(values, scale, shift):
    ends = np.array(mean_interval(values))
    slack = 1e-6 * max(1.0, np.abs(ends).max())  # what one ulp of a value can do to the skewness
    np.testing.assert_allclose(np.array(mean_interval(scale * values)) / scale, ends, rtol=0, atol=slack)
    np.testing.assert_allclose(np.array(mean_interval(values + shift)) - shift, ends, rtol=0, atol=slack)
    np.testing.assert_allclose(mean_interval(-values), -ends[::-1], rtol=0, atol=slack)
    np.testing.assert_allclose(mean_interval(values[::-1].copy()), ends, rtol=0, atol=slack)


@given(VALUES, VALUES, LEVELS)
def test_the_difference_lies_within_and_turns_round(first, second, level):
    found = difference_interval(first, second, level=level)
    assert float(first.mean()) - float(second.mean()) in found
    assert difference_interval(second, first, level=level) == pytest.approx((-found.high, -found.low))


def test_the_difference_from_equal_values_is_the_interval_of_the_mean():
    values = np.random.default_rng(0).lognormal(size=20)
    assert difference_interval(values, np.full(9, 3.0)) == pytest.approx(np.array(mean_interval(values)) - 3)


@given(VALUES)
def test_groups_of_one_are_no_groups(values):
    alone = mean_interval(values, groups=np.array([f"document {i}" for i in range(len(values))]))
    assert alone == pytest.approx(tuple(mean_interval(values)), rel=1e-9, abs=1e-9)


@given(st.lists(st.tuples(st.integers(-6, 6).map(float), LABELS), min_size=2, max_size=30), LEVELS)
def test_the_mean_lies_within_by_groups_too(rows, level):
    values, groups = (np.array(column) for column in zip(*rows, strict=True))
    assume(len(set(groups)) > 1)
    assert float(values.mean()) in mean_interval(values, level=level, groups=groups)


def test_groups_of_one_size_are_as_good_as_their_means():
    """A jackknife by group of equal groups: the interval of the groups' means, however often each value is repeated."""
    means = np.random.default_rng(0).lognormal(size=9)
    whole = mean_interval(np.repeat(means, 5), groups=np.repeat(np.arange(9), 5))
    assert whole == pytest.approx(tuple(mean_interval(means)))
    assert whole.high - whole.low > 2 * np.ptp(mean_interval(np.repeat(means, 5)))


def test_groups_of_several_sizes_by_leaving_out_each():
    """The error is that of a jackknife, whose formula here needs no residuals."""
    rng = np.random.default_rng(1)
    groups = np.repeat(np.arange(6), [1, 2, 3, 9, 4, 5])
    values = rng.normal(size=24) + rng.normal(size=6)[groups]
    left_out = np.array([values[groups != one].mean() for one in range(6)])
    moves = values.mean() - left_out
    error = math.sqrt(5 / 6 * np.sum(moves**2))
    skewness = np.sum(moves**3) / np.sum(moves**2) ** 1.5
    shares = np.bincount(groups) / 24
    t = scipy.stats.t.ppf(0.975, (1 / np.sum(shares**2) - 1) * (1 - skewness**2))
    near = values.mean() - np.sign(skewness) * error * 3 / abs(skewness) * (
        np.cbrt(1 + abs(skewness) * (t - abs(skewness) / 6)) - 1
    )
    assert mean_interval(values, groups=groups)[0 if skewness > 0 else 1] == pytest.approx(near)


def test_what_nothing_is_known_of():
    values = np.random.default_rng(0).normal(size=6)
    assert not mean_interval(values[:1]).is_known
    assert not mean_interval(values[:0]).is_known
    assert not mean_interval(values, groups=np.zeros(6)).is_known
    assert not mean_interval(np.array([1.0, math.nan, 2.0])).is_known
    assert not mean_interval(np.array([1.0, math.inf, 2.0])).is_known
    for sets in ((values, values[:1]), (values[:0], values)):
        assert not difference_interval(*sets).is_known
    with pytest.raises(InputError, match=r"one label for each of the 6 values; it has 5"):
        mean_interval(values, groups=np.zeros(5))
    with pytest.raises(InputError, match=r"one label for each of the 6 values; it has 4"):
        difference_interval(values, values, groups=(np.arange(6), np.arange(4)))


@pytest.mark.parametrize("value", [0.0, 0.1, -1e300])
def test_equal_values_have_an_interval_of_no_width(value):
    assert mean_interval(np.full(16, value)) == pytest.approx((value, value))
    assert mean_interval(np.full(16, value), groups=np.arange(16) // 4) == pytest.approx((value, value))


def clipped(share):
    shift = -scipy.stats.norm.ppf(share)
    mean = shift * (1 - share) + scipy.stats.norm.pdf(shift)
    return lambda rng, n: np.maximum(0, rng.normal(shift, 1, n)), mean


LAWS = {
    "normal": (lambda rng, n: rng.normal(size=n), 0.0),
    "clipped 20": clipped(0.2),
    "clipped 50": clipped(0.5),
    "clipped 80": clipped(0.8),
    "log-normal": (lambda rng, n: rng.lognormal(size=n), math.exp(0.5)),
}
# Of 20,000 trials, in per cent; 93 to 97 is aimed at from n = 16. A percentile bootstrap covers "clipped 80" in 79 at 16.
COVERAGE = {
    "normal": {8: 95.3, 16: 94.9, 32: 95.0, 96: 94.8},
    "clipped 20": {8: 96.5, 16: 96.3, 32: 95.7, 96: 95.0},
    "clipped 50": {8: 97.1, 16: 97.5, 32: 96.3, 96: 95.4},
    "clipped 80": {8: 80.2, 16: 93.6, 32: 97.2, 96: 96.4},
    "log-normal": {8: 90.1, 16: 91.8, 32: 92.7, 96: 93.6},
}
TRIALS = [600, pytest.param(6_000, marks=pytest.mark.slow)]


def covers(interval, truth) -> bool:
    return interval.low <= truth <= interval.high


def near(expected: float, n_trials: int) -> object:
    """A share of trials, within three standard errors and what the expected figure itself is uncertain by."""
    return pytest.approx(expected, abs=3 * math.sqrt(expected * (1 - expected) / n_trials) + 0.003)


@pytest.mark.usefixtures("no_type_checker")  # which takes longer than the intervals
@pytest.mark.parametrize("n_trials", TRIALS)
@pytest.mark.parametrize("n", [8, 16, 32, 96])
@pytest.mark.parametrize("law", LAWS)
def test_coverage(law, n, n_trials):
    draw, truth = LAWS[law]
    rng = np.random.default_rng(n)
    found = np.mean([covers(mean_interval(draw(rng, n)), truth) for _ in range(n_trials)])
    assert found == near(COVERAGE[law][n] / 100, n_trials)


@pytest.mark.usefixtures("no_type_checker")  # which takes longer than the intervals
@pytest.mark.parametrize("n_trials", TRIALS)
@pytest.mark.parametrize(("n_groups", "expected"), [(3, 0.95), (5, 0.95), (16, 0.95), (32, 0.945)])
@pytest.mark.parametrize("clip", [False, True])
def test_coverage_of_groups(n_groups, expected, clip, n_trials):
    """Groups of about six values that share half of their variance: about 16, 32, 96 and 192 values."""
    rng = np.random.default_rng(n_groups)
    truth = math.sqrt(2) * clipped(0.5)[1] if clip else 0.0
    by_groups, as_if_independent = 0, 0
    for _ in range(n_trials):
        groups = np.repeat(np.arange(n_groups), 1 + rng.poisson(5, n_groups))
        values = rng.normal(size=n_groups)[groups] + rng.normal(size=len(groups))
        values = np.maximum(0, values) if clip else values
        by_groups += covers(mean_interval(values, groups=groups), truth)
        as_if_independent += covers(mean_interval(values), truth)
    reach = 3 * math.sqrt(0.95 * 0.05 / n_trials)
    assert 0.93 - reach <= by_groups / n_trials <= 0.97 + reach
    assert as_if_independent / n_trials < 0.85


@pytest.mark.usefixtures("no_type_checker")  # which takes longer than the intervals
@pytest.mark.parametrize("n_trials", TRIALS)
@pytest.mark.parametrize("n", [16, 32, 96])
@pytest.mark.parametrize("laws", [("normal", "normal"), ("clipped 50", "clipped 50"), ("clipped 20", "clipped 80")])
def test_coverage_of_a_difference(laws, n, n_trials):
    """200 samples against a smaller control."""
    (draw, mean), (draw_other, mean_other) = (LAWS[law] for law in laws)
    rng = np.random.default_rng(n)
    pairs = ((draw(rng, 200), draw_other(rng, n)) for _ in range(n_trials))
    found = np.mean([covers(difference_interval(*pair), mean - mean_other) for pair in pairs])
    reach = 3 * math.sqrt(0.95 * 0.05 / n_trials)
    assert 0.93 - reach <= found <= 0.975 + reach
