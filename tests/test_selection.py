"""Which samples are memorized: a target that memorized known ones, one that memorized none, and what cannot be told."""

import math
from functools import cache

import numpy as np
import pytest
from planted import Iid, Memorizer, zipf
from scipy.stats import kstest

from memorization import load, unintended_memorization
from memorization.errors import InputError, NothingSelectedWarning
from memorization.unintended import Memorization

pytestmark = pytest.mark.usefixtures("no_type_checker")  # which takes longer than the simulations

V, S, N, N_CONTROL = 64, 16, 40, 80
SOURCE, OTHER = Iid(zipf(V)), Iid(0.8 * zipf(V) + 0.2 / V)


def measured(n_memorized: int, seed: int, n_control: int = N_CONTROL) -> Memorization:
    """Samples of which the first so many are memorized, by a target whose generic part is the source itself."""
    rng = np.random.default_rng(seed)
    samples, control = (SOURCE.draw(n, S, rng) for n in (N, n_control))
    target = Memorizer(samples[:n_memorized], SOURCE) if n_memorized else OTHER
    return unintended_memorization(target, SOURCE, samples, control=control, first_token=0, progress=False)


@cache
def half_memorized() -> Memorization:
    return measured(20, seed=0)


def test_what_was_memorized_is_selected_and_told():
    result = half_memorized()
    chosen = result.memorized()
    assert chosen[:20].all()
    assert chosen[20:].sum() <= 3
    assert (result.q_values[chosen] <= 0.05).all()
    assert result.memorized(min_bits=1e6).sum() == 0
    assert (result.bits[result.memorized(min_bits=20)] >= 20).all()
    assert result.set_p_value < 0.001
    assert f"memorized    {chosen.sum()} of 40 samples at FDR 5 %" in repr(result)


def test_the_tables_hold_the_evidence_and_the_control_has_its_own(tmp_path):
    result = half_memorized()
    table, control = result.to_pandas(), result.control.to_pandas()
    assert table["p_value"].min() == pytest.approx(1 / 81)
    np.testing.assert_array_equal(table["q_value"] <= 0.05, result.memorized())
    np.testing.assert_array_equal(control["oracle_bits"] - control["target_bits"], control["signed_bits"])
    assert len(control) == N_CONTROL
    result.save(tmp_path / "out")
    assert (tmp_path / "out" / "control.parquet").exists()
    np.testing.assert_array_equal(load(tmp_path / "out").q_values, result.q_values)


@pytest.mark.filterwarnings("ignore::memorization.errors.MeasurementWarning")  # one null in a hundred warns
@pytest.mark.parametrize("n_trials", [10, pytest.param(200, marks=pytest.mark.slow)])
def test_false_discoveries_are_as_rare_as_they_are_said_to_be(n_trials):
    """Ten of forty memorized, and none: the share of wrong ones among the selected, the power, and the null's p."""
    wrong, power, false_alarms, p_values = [], [], [], []
    for seed in range(n_trials):
        chosen = measured(10, seed, n_control=199).memorized()
        wrong.append(chosen[10:].sum() / max(1, chosen.sum()))
        power.append(chosen[:10].mean())
        null = measured(0, seed)
        false_alarms.append(null.memorized().any())
        p_values.append(null.set_p_value)
    stderr = np.std(wrong, ddof=1) / np.sqrt(n_trials)
    assert np.mean(wrong) <= 0.05 + 2 * stderr
    assert np.mean(power) > 0.95
    assert np.mean(false_alarms) <= 0.05 + 2 * np.sqrt(0.05 * 0.95 / n_trials)
    assert kstest(p_values, "uniform").pvalue > 0.01
    print(f"FDR {np.mean(wrong):.3f}, power {np.mean(power):.3f}, null selects {np.mean(false_alarms):.3f}")


def test_none_selected_is_not_none_memorized():
    """One known by heart of forty: 80 control samples never select fewer than ten, and a larger control does."""
    one = measured(1, seed=2)
    assert one.signed_bits[0] > one.control.signed_bits.max()
    with pytest.warns(
        NothingSelectedWarning, match=r"fewer than 10 memorized ones of 40 .*; 799 different control samples would"
    ):
        assert not one.memorized().any()
    assert "cannot tell which samples: 80 control samples came, with which fewer than 10 memorized" in repr(one)
    assert measured(1, seed=2, n_control=799).memorized()[0]


def test_none_selected_by_a_control_that_would_have_shown_one_is_none(recwarn):
    none = measured(0, seed=3, n_control=799)
    assert not none.memorized().any()
    assert "0 of 40 samples at FDR 5 %; for all" in repr(none)
    assert not [w for w in recwarn if issubclass(w.category, NothingSelectedWarning)]


def test_too_small_a_control_says_how_many_are_needed():
    few = measured(20, seed=1, n_control=18)
    assert "cannot tell which samples" in repr(few)
    with pytest.raises(InputError, match=r"18 control samples came, so .* below 1/19 .* takes 19 different control"):
        few.memorized()
    with pytest.raises(InputError, match="at least 19 different control samples"):
        unintended_memorization(OTHER, SOURCE, SOURCE.draw(4, S, np.random.default_rng(0)), first_token=0).memorized()


def test_control_samples_that_are_equal_count_once_and_both_numbers_are_said():
    rng = np.random.default_rng(0)
    samples, control = SOURCE.draw(20, S, rng), SOURCE.draw(9, S, rng)
    twice = np.concatenate([control, control])
    few = unintended_memorization(OTHER, SOURCE, samples, control=twice, first_token=0, progress=False)
    with pytest.raises(InputError, match="18 control samples came, 9 of them different, so no p-value is below 1/10"):
        few.memorized()


@pytest.mark.parametrize(("n_samples", "n_control"), [(24, 1), (3, 3), (1, 8)])
def test_a_p_value_that_cannot_be_small_tells_nothing(n_samples, n_control):
    """All are known by heart, and no mixture of so few could show it: 1 of 25, of 20, of 9."""
    rng = np.random.default_rng(0)
    samples, control = SOURCE.draw(n_samples, S, rng), SOURCE.draw(n_control, S, rng)
    found = unintended_memorization(
        Memorizer(samples, SOURCE), SOURCE, samples, control=control, first_token=0, progress=False
    )
    least = 1 / math.comb(n_samples + n_control, n_control)
    assert found.set_p_value == pytest.approx(least, rel=0.2)
    assert not found._no_set_p_value_below(least)  # at the edge it can be told
    assert f"is below {least:.2g}" in found._no_set_p_value_below(0.999 * least)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"fdr": 5.0}, "fdr must be a number between 0 and 1"),
        ({"min_bits": float("nan")}, "min_bits must be a number of bits"),
    ],
)
def test_what_no_selection_can_be_made_with(options, message):
    with pytest.raises(InputError, match=message):
        half_memorized().memorized(**options)


@pytest.mark.filterwarnings("ignore::memorization.errors.MeasurementWarning")
def test_a_text_that_comes_again_is_no_further_evidence():
    """Neither set was seen. Each sample stands there ten times: p is that of one of each, and intervals are as wide."""
    rng = np.random.default_rng(0)
    samples, control = SOURCE.draw(20, S, rng), SOURCE.draw(N_CONTROL, S, rng)
    once, ten_times, twice_unseen = (
        unintended_memorization(OTHER, SOURCE, ours, control=theirs, first_token=0, progress=False)
        for ours, theirs in (
            (samples, control),
            (np.repeat(samples, 10, axis=0), control),
            (samples, np.repeat(control, 2, axis=0)),
        )
    )
    assert ten_times.set_p_value == twice_unseen.set_p_value == once.set_p_value
    np.testing.assert_allclose(ten_times.interval, once.interval)
    np.testing.assert_allclose(np.array(ten_times.control.net_interval) / 10, once.control.net_interval)
    np.testing.assert_allclose(twice_unseen.control.net_interval, once.control.net_interval)
    np.testing.assert_allclose(ten_times.p_values[::10], once.p_values)
    np.testing.assert_allclose(twice_unseen.p_values, once.p_values, atol=1 / N_CONTROL)
    assert (twice_unseen.p_values >= once.p_values - 1e-12).all()
    assert ten_times.n_independent == 20
    assert ten_times.groups is None
    assert "180 of 200 samples are the same as an earlier one" in repr(ten_times)


@pytest.mark.filterwarnings("ignore::memorization.errors.MeasurementWarning")
@pytest.mark.parametrize("n_trials", [20, pytest.param(300, marks=pytest.mark.slow)])
def test_the_choice_among_oracles_is_paid_for(n_trials):
    """Five oracles as good as each other, each wrong in its own way, and the best on the control is taken: a null."""
    p_values = []
    for seed in range(n_trials):
        rng = np.random.default_rng(seed)
        samples, control = SOURCE.draw(200, S, rng), SOURCE.draw(50, S, rng)
        oracles = [Iid(zipf(V) * rng.permutation(np.repeat([0.5, 1.5], V // 2))) for _ in range(5)]
        found = unintended_memorization(SOURCE, oracles, samples, control=control, first_token=0, progress=False)
        p_values.append(found.set_p_value)
    print(f"p <= 0.05 in {np.mean(np.array(p_values) <= 0.05):.3f}")
    assert np.mean(np.array(p_values) <= 0.05) <= 0.05 + 2 * np.sqrt(0.05 * 0.95 / n_trials)


def test_none_found_says_how_rare_the_memorized_ones_may_be():
    none = measured(0, seed=3)
    assert "memorized ones that are up to 8.8 % of all may be missing among 40 samples" in none.ladder.reason
