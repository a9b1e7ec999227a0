"""Estimates with errors: golden values, and what every interval must do."""

import math

import numpy as np
import pytest
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st

from memorization.membership import membership_metrics
from memorization.stats.binomial import clopper_pearson, newcombe
from memorization.stats.levels import Interval
from memorization.stats.means import difference_interval, mean_interval
from memorization.stats.ranking import best_accuracy_interval, logit_interval, tpr_interval
from memorization.stats.ranks import spearman

LEVELS = st.sampled_from([0.5, 0.9, 0.95, 0.99])
COUNTS = st.integers(1, 40).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n)))


def test_the_interval_of_tpr_has_half_of_each_tail_for_the_threshold():
    """30 of 40 members are above all non-members and 10 below, so only the members' own half of the tails is left."""
    members = np.repeat([0.0, 200.0], [10, 30])
    found = tpr_interval(members, np.arange(1.0, 101.0), 0.05, 0.95)
    assert found == pytest.approx((scipy.stats.beta.ppf(0.0125, 30, 11), scipy.stats.beta.ppf(0.9875, 31, 10)))
    assert found == pytest.approx((0.56560, 0.88598), abs=1e-5)


def test_the_interval_of_best_accuracy_is_smirnovs():
    """D of two samples of 50 exceeds sqrt(ln(2 / 0.05) / 50) = 0.2716 with probability 0.05 at most; accuracy is (1 + D) / 2."""
    assert best_accuracy_interval(0.8, 50, 0.95) == pytest.approx((0.66419, 0.93581), abs=1e-5)


def test_the_interval_on_the_logit_scale_by_hand():
    """logit 0.8 = 1.38629; the three resamples have sd 0.1, which is 0.1 / (0.8 x 0.2) = 0.625 on the scale of logits."""
    ends = [1 / (1 + math.exp(-(math.log(4) + sign * 1.959964 * 0.625))) for sign in (-1, 1)]
    assert logit_interval(0.8, np.array([0.7, 0.8, 0.9]), 10, 0.95) == pytest.approx(ends)


def test_two_sets_are_resampled_each_on_its_own():
    """Drawn in step, a set would not differ from itself: two means of the same scatter differ by sqrt(2) times as much as one."""
    values = np.random.default_rng(0).normal(size=200)
    one, two = mean_interval(values), difference_interval(values, values)
    assert (two.high - two.low) / (one.high - one.low) == pytest.approx(math.sqrt(2), rel=0.05)


@given(COUNTS, COUNTS, LEVELS)
def test_intervals_of_shares_contain_them(one, other, level):
    shares, ends = [k / n for k, n in (one, other)], [clopper_pearson(*counts, level) for counts in (one, other)]
    assert all(share in interval for share, interval in zip(shares, ends, strict=True))
    difference = newcombe(shares[0], ends[0], shares[1], ends[1])
    assert shares[0] - shares[1] in difference
    turned = newcombe(shares[1], ends[1], shares[0], ends[0])
    assert turned == pytest.approx((-difference.high, -difference.low))


def test_a_share_of_none_is_unknown():
    assert not clopper_pearson(0, 0, 0.95).is_known


SCORES = st.lists(st.integers(-4, 4).map(float), min_size=4, max_size=12)


@given(SCORES, SCORES)
def test_intervals_contain_their_estimates(ours, theirs):
    n = min(len(ours), len(theirs))
    found = membership_metrics(ours[:n], theirs[:n])
    for name in ("f1", "auc", "best_accuracy"):
        interval = Interval(*getattr(found, f"{name}_interval"))
        value = getattr(found, name)
        assert not interval.is_known or interval.low - 1e-12 <= value <= interval.high + 1e-12
    x, y = np.array(ours[:n]), np.array(theirs[:n])
    if len(set(x)) > 1 and len(set(y)) > 1:
        rho, interval, _ = spearman(x, y, level=0.95)
        assert not interval.is_known or rho in interval


def test_a_wider_level_is_a_wider_interval():
    values = np.random.default_rng(0).normal(size=30)
    narrow, wide = mean_interval(values, level=0.5), mean_interval(values, level=0.99)
    assert wide.low < narrow.low < values.mean() < narrow.high < wide.high
    assert difference_interval(values, values + 1).high < 0 < mean_interval(values + 1).low
    assert not mean_interval(values[:1]).is_known
    assert math.isnan(difference_interval(values, values[:1]).low)
