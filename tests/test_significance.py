"""Which samples, or whether any: what holds where nothing is memorized, and what is found where something is planted."""

import math

import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from memorization.errors import InputError
from memorization.stats.significance import (
    conformal_p_values,
    controls_needed,
    fewest_selected,
    mean_log2_e_value,
    p_of_e_values,
    permutation_p_value,
    q_of_e_values,
    q_of_p_values,
    selected,
)

pytestmark = pytest.mark.usefixtures("no_type_checker")  # which takes longer than the simulations

TRIALS = [500, pytest.param(5_000, marks=pytest.mark.slow)]
FDR = 0.05


def above(share: float, n_trials: int) -> float:
    """What a share of trials exceeds by chance in 1 of 700 tests."""
    return share + 3 * math.sqrt(share * (1 - share) / n_trials)


def false_share(chosen, is_null) -> float:
    return (chosen & is_null).sum() / max(1, chosen.sum())


# --- p-values against a control


@given(
    arrays(np.float64, st.integers(1, 9), elements=st.integers(-3, 3).map(float)),
    arrays(np.float64, st.integers(0, 9), elements=st.integers(-3, 3).map(float)),
)
def test_conformal_p_values_count_the_controls_at_or_above(samples, control):
    expected = [(1 + sum(one >= sample for one in control)) / (1 + len(control)) for sample in samples]
    assert conformal_p_values(samples, control).tolist() == pytest.approx(expected)


def test_what_is_not_known_is_never_evidence():
    p_values = conformal_p_values(np.array([2.0, math.nan]), np.array([math.nan, 1.0]))
    assert p_values.tolist() == pytest.approx([2 / 3, math.nan], nan_ok=True)
    assert conformal_p_values(np.array([2.0]), np.array([])).tolist() == [1]
    assert p_of_e_values(np.array([math.nan, -math.inf, 1e6])).tolist() == pytest.approx([math.nan, 1, 0], nan_ok=True)
    assert q_of_p_values(np.array([math.nan, 1e-9])).tolist() == pytest.approx([1, 2e-9])
    assert math.isnan(mean_log2_e_value(np.array([])))
    assert math.isnan(mean_log2_e_value(np.array([1.0, math.nan])))


@given(st.lists(st.integers(0, 3).map(float), min_size=2, max_size=7))
def test_conformal_p_values_of_exchangeable_scores_are_at_most_u_with_probability_at_most_u(scores):
    """Exact: each score takes the sample's place in turn, ties included."""
    values = np.array(scores)
    p_values = [conformal_p_values(values[[i]], np.delete(values, i))[0] for i in range(len(values))]
    assert all(np.mean(np.array(p_values) <= u + 1e-12) <= u + 1e-12 for u in p_values)


# --- e-values


@given(arrays(np.float64, st.integers(1, 20), elements=st.floats(0, 1)))
def test_bits_over_an_exact_oracle_are_e_values(weights):
    """Exact: any distribution of a target, also one that sums to less than 1, over strings that are drawn uniformly."""
    probability = weights / max(1.0, weights.sum())
    with np.errstate(divide="ignore"):
        log2_e = np.log2(probability * len(weights))
    assert np.mean(np.exp2(log2_e)) <= 1 + 1e-12
    p_values = p_of_e_values(log2_e)
    np.testing.assert_array_equal(p_values, p_of_e_values(np.maximum(log2_e, 0)))
    assert all(np.mean(p_values <= u) <= u + 1e-12 for u in p_values)


@given(arrays(np.float64, st.integers(1, 20), elements=st.floats(-50, 50)))
def test_the_mean_of_e_values(log2_e):
    assert mean_log2_e_value(log2_e) == pytest.approx(math.log2(np.mean(np.exp2(log2_e))), abs=1e-9)
    assert mean_log2_e_value(log2_e + 5_000) == pytest.approx(mean_log2_e_value(log2_e) + 5_000)


# --- Selection


@given(arrays(np.float64, st.integers(1, 30), elements=st.floats(0, 1)))
def test_q_values_are_scipys(p_values):
    np.testing.assert_allclose(q_of_p_values(p_values), scipy.stats.false_discovery_control(p_values), atol=1e-300)
    with np.errstate(divide="ignore"):
        np.testing.assert_allclose(q_of_e_values(-np.log2(p_values)), q_of_p_values(p_values))


@pytest.mark.parametrize("n_trials", TRIALS)
@pytest.mark.parametrize("clip", [False, True])
def test_false_discoveries_among_samples_that_share_a_control(clip, n_trials):
    """80 samples not seen and 20 memorized, 150 controls; then 100 not seen."""
    rng = np.random.default_rng(0)
    false, found, any_of_none = [], [], []
    is_null = np.arange(100) < 80
    for _ in range(n_trials):
        samples, control = rng.normal(size=100), rng.normal(size=150)
        if clip:
            samples, control = np.maximum(0, samples), np.maximum(0, control)
        any_of_none.append(selected(q_of_p_values(conformal_p_values(samples, control)), FDR).any())
        chosen = selected(q_of_p_values(conformal_p_values(samples + np.where(is_null, 0, 3.5), control)), FDR)
        false.append(false_share(chosen, is_null))
        found.append(chosen[~is_null].mean())
    assert np.mean(any_of_none) <= above(FDR, n_trials)
    assert np.mean(false) <= 0.8 * FDR + 3 * np.std(false) / math.sqrt(n_trials)  # 80 of 100 are null
    assert np.mean(found) > 0.6
    assert np.mean(false) > 0.02  # the share is used, so that twice as many would be seen


def all_at_once(rng, n):
    """Every e-value is 1 / FDR with probability FDR: e-BH is wrong exactly that often."""
    return np.full(n, 1 / FDR if rng.uniform() < FDR else 0.0)


def some_at_a_time(rng, n):
    """k at random are n / (k FDR), just enough to be selected, k being drawn so that each e-value has mean 1."""
    if rng.uniform() >= FDR:
        return np.zeros(n)
    k = rng.integers(1, n + 1)
    return np.where(rng.permutation(n) < k, n / (k * FDR), 0.0)


def of_one_normal(rng, n):
    """Likelihood ratios of one normal draw, half of them of its mirror image."""
    sigma = rng.choice([0.3, 0.6, 1.0])
    z = rng.normal() * np.where(np.arange(n) % 2, 1, -1)
    return np.exp(sigma * z - sigma**2 / 2)


@pytest.mark.parametrize("n_trials", [2_000, pytest.param(20_000, marks=pytest.mark.slow)])
@pytest.mark.parametrize("law", [all_at_once, some_at_a_time, of_one_normal])
def test_e_values_select_under_any_dependence(law, n_trials):
    """All null; and with 10 planted that are as large as can be, or small, which move the edge for the others."""
    rng = np.random.default_rng(0)
    is_null = np.arange(50) < 40
    wrong, false, means = [], [], []
    for _ in range(n_trials):
        e_values = law(rng, 50)
        means.append(e_values.mean())
        planted = np.where(is_null, e_values, rng.choice([1e9, 30.0]))
        with np.errstate(divide="ignore"):
            wrong.append(selected(q_of_e_values(np.log2(e_values)), FDR).any())
            false.append(false_share(selected(q_of_e_values(np.log2(planted)), FDR), is_null))
    assert np.mean(means) == pytest.approx(1, abs=4 * np.std(means) / math.sqrt(n_trials))  # they are e-values
    assert np.mean(wrong) <= above(FDR, n_trials)
    assert np.mean(false) <= FDR + 3 * np.std(false) / math.sqrt(n_trials)
    if law is not of_one_normal:
        assert np.mean(wrong) > 0.03  # the dependence is adversarial


# --- One p-value for all


@settings(max_examples=25)
@given(
    arrays(np.float64, st.integers(1, 4), elements=st.integers(0, 3).map(float)),
    arrays(np.float64, st.integers(1, 4), elements=st.integers(0, 3).map(float)),
    st.sampled_from([0.0, 1e6]),
)
def test_the_permutation_p_value_of_few_is_that_of_all_ways(samples, control, shift):
    from itertools import combinations

    pooled, n = np.concatenate([samples, control]), len(samples)
    sums = [pooled[list(chosen)].sum() for chosen in combinations(range(len(pooled)), n)]
    expected = np.mean(np.array(sums) >= samples.sum())  # the mean difference rises with the sum of the samples
    assert permutation_p_value(samples + shift, control + shift) == pytest.approx(expected, abs=0.02)


@pytest.mark.parametrize("n_trials", [200, pytest.param(2_000, marks=pytest.mark.slow)])
def test_one_p_value_for_all_is_uniform_where_nothing_is_memorized(n_trials):
    rng = np.random.default_rng(0)
    p_values = [permutation_p_value(rng.lognormal(size=30), rng.lognormal(size=12)) for _ in range(n_trials)]
    assert scipy.stats.kstest(p_values, "uniform").pvalue > 0.01
    clipped = [permutation_p_value(*np.split(rng.normal(size=42).clip(0), [30])) for _ in range(n_trials)]
    assert all(np.mean(np.array(clipped) <= u) <= above(u, n_trials) for u in (0.01, 0.05, 0.2, 0.5))
    planted = [permutation_p_value(rng.normal(1, 1, 30), rng.normal(size=12)) for _ in range(50)]
    assert np.mean(np.array(planted) < 0.05) > 0.8


def test_whole_groups_change_sides():
    """Six samples a document that share half of their variance: mixed one by one, chance looks like evidence."""
    rng = np.random.default_rng(0)
    labels = (np.repeat(np.arange(12), 6), np.repeat(np.arange(8), 6))
    by_groups, one_by_one = [], []
    for _ in range(200):
        sets = [rng.normal(size=1 + of.max())[of] + rng.normal(size=len(of)) for of in labels]
        by_groups.append(permutation_p_value(*sets, groups=labels))
        one_by_one.append(permutation_p_value(*sets))
    assert scipy.stats.kstest(by_groups, "uniform").pvalue > 0.01
    assert np.mean(np.array(one_by_one) <= 0.05) > 0.12


def test_groups_of_one_are_no_groups_and_units_do_not_matter():
    rng = np.random.default_rng(1)
    samples, control = rng.normal(1, 1, 4), rng.normal(size=5)
    alone = permutation_p_value(samples, control)
    names = (np.array(list("abcd")), np.array(list("abcde")))
    assert permutation_p_value(samples, control, groups=names) == alone
    assert permutation_p_value(samples * 1e9, control * 1e9) == alone


def test_the_least_p_value_of_many_and_what_has_none():
    rng = np.random.default_rng(0)
    assert permutation_p_value(rng.normal(9, 1, 30), rng.normal(size=30)) == 1e-4
    assert permutation_p_value(np.zeros(30), np.zeros(30)) == 1
    assert math.isnan(permutation_p_value(np.array([]), np.ones(3)))
    assert math.isnan(permutation_p_value(np.ones(3), np.array([1.0, math.nan])))
    with pytest.raises(InputError, match=r"one label for each of the 3 control; it has 2"):
        permutation_p_value(np.ones(2), np.ones(3), groups=(np.arange(2), np.arange(2)))


# --- How many controls


@given(st.integers(1, 400), st.sampled_from([0.01, 0.05, 0.1, 0.2, 0.5]), st.sampled_from([0.01, 0.07, 0.29, 0.5, 1.0]))
def test_with_as_many_controls_as_needed_something_is_selected_and_with_one_fewer_nothing(n, fdr, share):
    n_controls = controls_needed(n, fdr=fdr, expected_share=share)
    n_high = max(1, math.floor(share * n + 1e-9))
    samples = np.where(np.arange(n) < n_high, 1.0, -1.0)

    def n_selected(m):
        return selected(q_of_p_values(conformal_p_values(samples, np.zeros(m))), fdr).sum()

    assert n_selected(n_controls) == n_high
    assert n_controls == 0 or n_selected(n_controls - 1) == 0
    fewest = fewest_selected(n, -math.log2(n_controls + 1), fdr=fdr)
    assert fewest <= n_high
    for k in {max(0, fewest - 1), fewest}:  # samples above every control
        samples = np.where(np.arange(n) < k, 1.0, -1.0)
        assert n_selected(n_controls) == (k if k >= fewest else 0)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: controls_needed(0), "n_samples"),
        (lambda: controls_needed(5, fdr=5), r"fdr must be a number between 0 and 1, such as 0\.05; it is 5\."),
        (
            lambda: controls_needed(5, expected_share=0),
            r"expected_share must be a number above 0 and at most 1; it is 0\.",
        ),
    ],
)
def test_bad_numbers_of_controls(call, message):
    with pytest.raises(InputError, match=message):
        call()
