"""Capacity: the paper's printed figures, planted capacities and what intervals cover, the ceiling, and every refusal."""

import dataclasses
import itertools
import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from saved_folders import as_saved_by_0_1_0

from memorization.capacity import Capacity, fit_capacity, information_ceiling_bits
from memorization.capacity.estimators import cells_of
from memorization.errors import InputError, MeasurementWarning, NotConvergedWarning, ResultError

# arXiv:2505.24832, table 1: layers, d, parameters, capacity in float32 and in bfloat16, as printed.
TABLE = np.array(
    [
        (1, 32, 80352, 3.39e5, 3.16e5),
        (1, 64, 185280, 7.27e5, 6.93e5),
        (1, 128, 468864, 1.71e6, 1.69e6),
        (1, 256, 1330944, 4.15e6, 3.83e6),
        (2, 32, 93056, 3.87e5, 3.31e5),
        (2, 64, 235264, 9.60e5, 9.27e5),
        (2, 128, 667136, 2.66e6, 2.60e6),
        (2, 256, 2120704, 8.49e6, 7.76e6),
        (4, 32, 118464, 4.65e5, 3.99e5),
        (4, 64, 335232, 1.34e6, 1.14e6),
        (4, 128, 1063680, 4.02e6, 3.75e6),
        (4, 256, 3700224, 1.36e7, 1.30e7),
        (8, 32, 169280, 5.12e5, 4.85e5),
        (8, 64, 535168, 2.05e6, 1.71e6),
        (8, 128, 1856768, 7.23e6, 6.49e6),
        (8, 256, 6859264, 2.71e7, 2.51e7),
    ]
)
WIDE = TABLE[:, 1] >= 64
ESTIMATORS = ("max", "plateau", "slope", "slope_origin", "mean")
PLANTED = 3.6
NOISE = 0.06  # bits per parameter between seeds, as measured
SEQ_LEN, VOCAB_SIZE = 64, 2048
DATA = {"seq_len": SEQ_LEN, "vocab_size": VOCAB_SIZE}
SIZES = np.geomspace(20_000, 160_000, 6).astype(np.int64)


def planted(draw, *, sizes=SIZES, shares=(0.5, 1, 2, 3, 4, 8), n_seeds=3, noise=NOISE, seq_len=SEQ_LEN):
    """Runs of models that hold 3.6 bits per parameter, or all there is: columns by name."""
    params, share, seed = (a.ravel() for a in np.meshgrid(sizes, shares, np.arange(n_seeds), indexing="ij"))
    sample_bits = seq_len * math.log2(VOCAB_SIZE)
    n_samples = np.ceil(share * PLANTED * params / sample_bits)
    held = params * (PLANTED + noise * draw.standard_normal(len(params)))
    bits = np.minimum(held, n_samples * (sample_bits - np.log2(n_samples)))
    return {"n_params": params, "memorized_bits": bits, "n_samples": n_samples, "seed": seed}


def fit(runs, **options) -> Capacity:
    return fit_capacity(**{**runs, **DATA, **options})


def refused(message: str, **options) -> None:
    runs = {"n_params": [100, 200, 300], "memorized_bits": [360.0, 720.0, 1080.0]}
    with pytest.raises(InputError, match=message):
        fit_capacity(**{**runs, **options})


# --- the paper's figures


def test_headline_of_the_paper_is_a_slope_with_intercept():
    """3.64 bits per parameter: the printed capacities in bfloat16 of the models with d >= 64."""
    params, bits = TABLE[WIDE, 2].astype(int), TABLE[WIDE, 4]
    slope = fit_capacity(params, bits, estimator="slope", convention="paper")
    assert slope.bits_per_param == pytest.approx(3.6428, abs=5e-5)
    assert slope.bits_per_param == pytest.approx(np.polyfit(params, bits, 1)[0], rel=1e-9)
    origin = fit_capacity(params, bits, estimator="slope_origin", convention="paper")
    assert origin.bits_per_param == pytest.approx(3.602, abs=5e-4)
    assert math.isnan(slope.bias)  # the rows are maxima of unknown noise


def test_printed_means():
    bfloat16 = fit_capacity(TABLE[:, 2].astype(int), TABLE[:, 4], estimator="mean", convention="paper")
    float32 = fit_capacity(TABLE[:, 2].astype(int), TABLE[:, 3], estimator="mean", convention="paper")
    assert (round(bfloat16.bits_per_param, 2), round(bfloat16.stderr, 2)) == (3.51, 0.08)
    assert (round(float32.bits_per_param, 2), round(float32.stderr, 2)) == (3.83, 0.08)
    # Student's quantile of 15 degrees of freedom is 2.1314.
    assert bfloat16.interval[1] - bfloat16.bits_per_param == pytest.approx(2.1314 * bfloat16.stderr, rel=1e-4)
    assert bfloat16.interval[0] + bfloat16.interval[1] == pytest.approx(2 * bfloat16.bits_per_param)
    assert round(bfloat16.scatter * bfloat16.bits_per_param, 2) == 0.32


# --- planted capacities


@pytest.mark.usefixtures("no_type_checker")
@pytest.mark.parametrize("n_trials", [100, pytest.param(5000, marks=pytest.mark.slow)])
def test_intervals_cover_what_was_planted(n_trials, record_property):
    """Within two standard errors of a covering share of 95 %."""
    covering = dict.fromkeys(ESTIMATORS[1:], 0)
    for number in range(n_trials):
        runs = planted(np.random.default_rng([2, number]))
        for estimator in covering:
            # With several sizes a plateau has the interval of the mean; with one that of its runs.
            some = slice(18) if estimator == "plateau" else slice(None)
            low, high = fit({name: column[some] for name, column in runs.items()}, estimator=estimator).interval
            covering[estimator] += low <= PLANTED <= high
    shares = {estimator: count / n_trials for estimator, count in covering.items()}
    record_property("coverage", shares)
    print(shares)
    reach = 2 * math.sqrt(0.95 * 0.05 / n_trials)
    assert all(abs(share - 0.95) <= reach for share in shares.values()), shares


@pytest.mark.parametrize("n_trials", [100, pytest.param(4000, marks=pytest.mark.slow)])
@pytest.mark.parametrize("with_intercept", [True, False])
def test_error_of_a_slope_is_of_noise_that_grows_with_the_model(with_intercept, n_trials):
    """The standard deviation of slopes of many noisy capacities against the mean variance; ordinary least squares gives too little."""
    draw, params = np.random.default_rng(3), SIZES.astype(float)
    estimator = "slope" if with_intercept else "slope_origin"
    results, ordinary = [], []
    for _ in range(n_trials):
        bits = params * (PLANTED + 0.1 * draw.standard_normal(len(params)))
        results.append(fit_capacity(SIZES, bits, estimator=estimator))
        design = np.stack([params, np.full(len(params), float(with_intercept))], axis=1)
        _, _, rank, _ = np.linalg.lstsq(design, bits)
        spread = ((params - with_intercept * params.mean()) ** 2).sum()
        residual = ((bits - design @ np.linalg.lstsq(design, bits)[0]) ** 2).sum()
        ordinary.append(residual / (len(params) - rank) / spread)
    true = np.std([result.bits_per_param for result in results])
    assert math.sqrt(np.mean([result.stderr**2 for result in results])) == pytest.approx(
        true,
        rel=2.8 / math.sqrt(2 * n_trials),  # a standard deviation of n is known to 1 in sqrt(2 n)
    )
    assert math.sqrt(np.mean(ordinary)) < 0.85 * true


@pytest.mark.usefixtures("no_type_checker")
@pytest.mark.parametrize("n_trials", [100, pytest.param(3000, marks=pytest.mark.slow)])
@pytest.mark.parametrize("n_sizes", [1, 5])
@pytest.mark.parametrize("ends", [False, True])
def test_bias_of_a_maximum_is_what_simulations_show(n_sizes, ends, n_trials):
    """A flat plateau, and one whose last sizes sag by 0.1 and 0.3 bits per parameter."""
    fits = []
    for number in range(n_trials):
        runs = planted(np.random.default_rng([4, number]), sizes=SIZES[:n_sizes])
        if ends:
            for sag, nth in ((0.1, 4), (0.3, 5)):
                last = np.arange(len(runs["seed"])) // 3 % 6 == nth
                runs["memorized_bits"] = runs["memorized_bits"] - sag * last * runs["n_params"]
        fits.append(fit(runs, estimator="max"))
    excess = np.mean([result.bits_per_param for result in fits]) - PLANTED
    bias = np.mean([result.bias for result in fits])
    print(f"excess {excess:.4f}, simulated {bias:.4f} bits per parameter")
    assert excess > 0.015
    assert 0.65 * excess < bias < 1.1 * excess  # as the docstring says: 70 to 90 %


def test_a_lone_maximum_has_no_bias():
    """Without other data-set sizes nothing was picked; where one stands out by far, nothing but it could be."""
    runs = planted(np.random.default_rng(5), shares=(2,))
    assert fit(runs).bias == 0
    assert fit_capacity(runs["n_params"], runs["memorized_bits"], n_samples=runs["n_samples"]).bias == 0
    two = planted(np.random.default_rng(5), shares=(0.5, 2))
    assert abs(fit(two).bias) < 0.003
    assert "bias         +0 bits per parameter" in repr(fit(runs))


def test_maximum_is_over_data_sets_and_not_over_seeds():
    result = fit_capacity([10] * 4, [30.0, 34.0, 20.0, 40.0], n_samples=[1, 1, 2, 2], seed=[0, 1, 0, 1])
    assert result.capacity_bits.tolist() == [32.0]
    assert result.bits_per_param == 3.2


def test_one_size_takes_the_error_from_its_seeds():
    """Two seeds at one data-set size: the textbook standard error, Student's quantile of one degree of freedom."""
    result = fit_capacity([10, 10], [30.0, 34.0], n_samples=[5, 5])
    assert result.stderr == pytest.approx(0.2)
    assert result.interval[1] == pytest.approx(3.2 + 12.7062 * 0.2)
    given_maxima = fit_capacity([10, 10], [30.0, 34.0], estimator="mean")
    assert (given_maxima.bits_per_param, given_maxima.stderr) == (result.bits_per_param, result.stderr)


def test_one_size_takes_the_error_from_all_runs_on_the_plateau():
    """Two data-set sizes x two seeds beyond 1.25 times what was memorized, one before: sd of four runs / sqrt(4), 3 degrees."""
    bits = np.array([3000.0, 3200.0, 3100.0, 3300.0])
    result = fit_capacity(
        [1000] * 6, [*bits, 704.0, 704.0], n_samples=[8, 8, 10, 10, 1, 1], seed=[0, 1] * 3, **DATA, estimator="plateau"
    )
    assert result.bits_per_param == pytest.approx(3.15)
    assert result.stderr == pytest.approx(bits.std(ddof=1) / 2 / 1000)
    assert result.interval[1] - 3.15 == pytest.approx(3.18245 * result.stderr, rel=1e-5)
    assert result.bias == 0


def test_a_maximum_has_the_error_of_its_own_number_of_runs():
    """Two runs of mean 302 and four of mean 309.5: squares (8 + 35) on 1 + 3 degrees of freedom, the mean of four runs."""
    bits, seeds = [300.0, 304.0, 306.0, 308.0, 310.0, 314.0], [0, 1, 0, 1, 2, 3]
    result = fit_capacity([100] * 6, bits, n_samples=[20, 20, 30, 30, 30, 30], seed=seeds)
    assert result.bits_per_param == pytest.approx(3.095)
    assert result.stderr == pytest.approx(math.sqrt(43 / 4 / 4) / 100)


def test_just_enough_information_is_on_the_plateau():
    runs = {"memorized_bits": np.array([100.0, 100.0, 100.0]), "n_samples": np.array([1.0, 2.0, 3.0])}
    cells = cells_of(runs, np.ones(3, dtype=bool), np.array([124.9, 125.0, 200.0]))  # 1.25 times 100
    assert cells.on_plateau.tolist() == [False, True, True]


def test_the_level_goes_by_its_old_name_too():
    with pytest.warns(DeprecationWarning, match="interval of fit_capacity is now level"):
        old = fit_capacity([1, 2, 3], [3.0, 7.0, 10.0], interval=0.5)
    assert old.interval == fit_capacity([1, 2, 3], [3.0, 7.0, 10.0], level=0.5).interval
    assert old.settings["interval_level"] == 0.5


def test_a_plateau_of_unequal_numbers_of_runs():
    """One run of 700 bits, and three of 704, 708 and 712: means 700 and 708, variance (32 + 16 + 3 x 16) / 3 = 32 around 704."""
    result = fit_capacity(
        [100] * 4,
        [700.0, 704.0, 708.0, 712.0],
        n_samples=[20, 30, 30, 30],
        seed=[0, 0, 1, 2],
        **DATA,
        estimator="plateau",
    )
    assert result.bits_per_param == pytest.approx(7.04)
    assert result.stderr == pytest.approx(math.sqrt(32 * (1 + 1 / 3)) / 2 / 100)
    half = 3.18245 * result.stderr  # Student's t, 3 degrees of freedom
    assert result.interval == pytest.approx((7.04 - half, 7.04 + half), rel=1e-5)


@pytest.mark.parametrize(("n_samples", "on_plateau"), [(6, True), (5, False)])
def test_plateau_begins_at_1_25_times_the_memorized_bits(n_samples, on_plateau):
    """6 samples hold 4,208 bits, 5 hold 3,508, and 1.25 x 3,000 lies between."""
    options = {**DATA, "n_samples": [n_samples, 40], "estimator": "mean"}
    result = fit_capacity([1000, 1000], [2800.0, 3000.0], **options)
    assert result.bits_per_param == pytest.approx(2.9 if on_plateau else 3.0)
    assert ("plateau" in result.settings["capacity_of_size"]) == on_plateau


@pytest.mark.parametrize("estimator", ["max", "slope_origin", "mean"])
def test_one_run_cannot_tell_its_error(estimator):
    result = fit_capacity([1000], [3600.0], n_samples=[10], estimator=estimator)
    assert result.bits_per_param == pytest.approx(3.6)
    assert math.isnan(result.stderr)
    assert np.isnan(result.interval).all()
    assert math.isnan(result.scatter)
    assert "stderr       unknown: too few runs to tell" in repr(result)


def test_one_seed_leaves_the_bias_unknown():
    result = fit(planted(np.random.default_rng(6), n_seeds=1))
    assert math.isnan(result.bias)
    assert result.stderr > 0  # between sizes
    assert "bias         unknown" in repr(result)


def test_without_the_information_capacities_are_maxima():
    runs = planted(np.random.default_rng(7))
    most = fit_capacity(**runs, estimator="max")
    mean = fit_capacity(**runs, estimator="mean")
    assert mean.settings["capacity_of_size"] == "its maximum over data-set sizes"
    assert (mean.bits_per_param, mean.interval, mean.bias) == (most.bits_per_param, most.interval, most.bias)
    assert fit(runs, estimator="mean").bias == 0
    slope = fit_capacity(**runs, estimator="slope")
    assert slope.capacity_bits.tolist() == most.capacity_bits.tolist()


@pytest.mark.parametrize("level", [0.5, 0.99])
def test_level_of_the_interval(level):
    runs = planted(np.random.default_rng(8))
    for estimator in ESTIMATORS:
        wide, result = fit(runs, estimator=estimator), fit(runs, estimator=estimator, level=level)
        assert (result.interval[1] - result.interval[0] > wide.interval[1] - wide.interval[0]) == (level > 0.95)
        assert f"{100 * level:g} % interval [" in repr(result)


# --- properties


@given(st.sampled_from(ESTIMATORS), st.integers(0, 2**32 - 1))
def test_order_of_the_rows_does_not_matter(estimator, seed):
    draw = np.random.default_rng(seed)
    runs = planted(draw)
    order = draw.permutation(len(runs["seed"]))
    one, other = fit(runs, estimator=estimator), fit({k: v[order] for k, v in runs.items()}, estimator=estimator)
    for name in ("bits_per_param", "stderr", "interval", "bias"):
        assert getattr(one, name) == getattr(other, name)
    assert one.capacity_bits.tolist() == other.capacity_bits.tolist()
    assert other.curve["memorized_bits"].tolist() == runs["memorized_bits"][order].tolist()


@given(st.sampled_from(("max", "slope", "slope_origin", "mean")), st.floats(1e-6, 1e6), st.integers(1, 10_000))
def test_scaling(estimator, factor, times):
    """Twice the bits are twice the bits per parameter, and so for the parameters."""
    runs = planted(np.random.default_rng(9))
    one = fit_capacity(**runs, estimator=estimator)
    scaled = {"n_params": runs["n_params"] * times, "memorized_bits": runs["memorized_bits"] * factor}
    other = fit_capacity(**{**runs, **scaled}, estimator=estimator)
    for name in ("bits_per_param", "stderr", "interval", "bias"):
        assert getattr(other, name) == pytest.approx(np.array(getattr(one, name)) * factor / times, rel=1e-6)
    assert other.exponent()[0] == pytest.approx(one.exponent()[0], rel=1e-6)


# --- exponent and scatter


def test_exponent_of_a_power_law():
    params = np.array([100, 1000, 10_000, 100_000])
    exponent, (low, high) = fit_capacity(params, 5.0 * params**0.9).exponent()
    assert exponent == pytest.approx(0.9)
    assert low == pytest.approx(high, abs=1e-6)


def test_exponent_has_a_t_interval():
    """Against scipy's regression of the paper's table."""
    from scipy.stats import linregress, t

    exponent, (low, high) = fit_capacity(TABLE[:, 2].astype(int), TABLE[:, 4]).exponent()
    line = linregress(np.log(TABLE[:, 2]), np.log(TABLE[:, 4]))
    assert exponent == pytest.approx(line.slope)
    assert high - low == pytest.approx(2 * t.ppf(0.975, 14) * line.stderr)
    assert low < 1 < high


def test_exponent_needs_three_sizes_and_positive_capacities():
    assert not math.isnan(fit_capacity([1, 2, 3], [1.0, 2.0, 3.0]).exponent()[0])
    for bits in ([1.0, 2.0], [0.0, 1.0, 2.0]):
        exponent, interval = fit_capacity(np.arange(len(bits)) + 1, bits).exponent()
        assert np.isnan([exponent, *interval]).all()


def test_scatter():
    assert fit_capacity([10, 100], [30.0, 500.0]).scatter == pytest.approx(np.std([3, 5], ddof=1) / 4)


# --- the ceiling


@pytest.mark.parametrize("n_samples", [1, 2, 3, 100, 5000])
def test_ceiling_is_what_a_perfect_memorizer_saves(n_samples):
    """A model that gives each of N distinct samples 1 / N; its first tokens cost their empirical entropy."""
    seq_len, vocab_size = 4, 16
    draw = np.random.default_rng(n_samples)
    ids = draw.permutation(vocab_size**seq_len)[:n_samples]
    _, counts = np.unique(ids // vocab_size ** (seq_len - 1), return_counts=True)
    first_bits = counts @ np.log2(n_samples / counts)  # all first tokens
    start = n_samples * seq_len * 4 - n_samples * np.log2(n_samples)
    strict = n_samples * (seq_len - 1) * 4 - (n_samples * np.log2(n_samples) - first_bits)
    assert information_ceiling_bits(n_samples, seq_len, vocab_size) == pytest.approx(start)
    bound = float(information_ceiling_bits(n_samples, seq_len, vocab_size, "strict"))
    assert strict <= bound * (1 + 1e-12)
    assert bound - strict <= 2 * vocab_size  # (V - 1) / (2 ln 2) bits expected
    paper = information_ceiling_bits(n_samples, seq_len, vocab_size, "paper")
    assert paper == pytest.approx(bound * 4 / 3)


def test_ceiling_at_its_ends():
    assert information_ceiling_bits([1, 8, 16, 99], 4, 2).tolist() == [4, 8, 0, 0]
    assert information_ceiling_bits([1, 2, 8], 4, 2, "strict").tolist() == [3, 6, 8]
    assert information_ceiling_bits(1, 64, 2048, "paper") == 704  # one sample: 63 x 11 x 64 / 63
    assert information_ceiling_bits(100, 64, 2048, "paper") > information_ceiling_bits(100, 64, 2048)
    for n_samples in (0, math.nan, [5, -1]):
        with pytest.raises(InputError, match="n_samples must be at least 1 everywhere"):
            information_ceiling_bits(n_samples, 4, 2)


@pytest.mark.parametrize(("convention", "n_tokens"), [("start", 64), ("strict", 63), ("paper", 64)])
def test_no_run_holds_more_bits_than_its_tokens(convention, n_tokens):
    options = {"n_samples": [1], **DATA, "convention": convention}
    total = n_tokens * 11
    fit_capacity([100], [total * (1 + 9e-7)], **options)  # float32 sums
    with pytest.raises(
        InputError, match=rf"row 0 \(100 parameters\) has memorized .* 1 samples of {n_tokens} counted .*{total}\.0 in"
    ):
        fit_capacity([100], [total * (1 + 2e-6)], **options)


def test_more_than_distinct_samples_allow_is_a_warning():
    ceiling = information_ceiling_bits(100, 64, 2048)
    options = {"n_samples": [100, 100], **DATA}
    fit_capacity([5000, 6000], [ceiling, 1.0009 * ceiling], **options)
    with pytest.warns(
        MeasurementWarning, match=r"row 1 \(6,000 parameters\) has memorized 69,8.*let a model save 69,7"
    ):
        fit_capacity([5000, 6000], [ceiling, 1.0011 * ceiling], **options)


def test_ceiling_of_strict_bits_is_that_of_strict():
    """Two samples cannot hold 63 tokens twice and a bit more, which `start` allows."""
    options = {"n_samples": [2], **DATA}
    fit_capacity([1000], [1400.0], **options)
    with pytest.raises(InputError, match='convention "strict" theirs'):
        fit_capacity([1000], [1400.0], **options, convention="strict")


def test_ceiling_of_paper_bits_is_that_of_paper():
    """Which 10,000 samples of 64 tokens reach 1.6 % above `start`'s, where bits of another convention would be warned of."""
    ceiling = information_ceiling_bits(10_000, 64, 2048, "paper")
    fit_capacity([2_000_000], [ceiling], n_samples=[10_000], **DATA, convention="paper")
    with pytest.warns(MeasurementWarning, match=r"\(1 such rows\)"):
        fit_capacity([2_000_000], [ceiling], n_samples=[10_000], **DATA)


# --- refusals


@pytest.mark.usefixtures("no_type_checker")
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"estimator": "median"}, "estimator must be one of max, plateau, slope, slope_origin, mean; it is 'median'"),
        ({"convention": "end"}, "convention must be one of start, strict, paper; it is 'end'"),
        ({"level": 0}, "level must be a number between 0 and 1, such as 0.95; it is 0"),
        ({"level": 1}, "level must be a number between 0 and 1"),
        ({"level": 95}, "level must be a number between 0 and 1"),
        ({"level": math.nan}, "level must be a number between 0 and 1"),
        ({"seq_len": 0}, 'seq_len must be at least 1 with convention "start"; it is 0'),
        ({"seq_len": 1, "convention": "strict"}, 'seq_len must be at least 2 with convention "strict"; it is 1'),
        ({"seq_len": 1, "convention": "paper"}, 'seq_len must be at least 2 with convention "paper"'),
        ({"vocab_size": 1}, "vocab_size must be .* of at least 2; it is 1"),
        ({"n_params": ["a", "b", "c"]}, "n_params must be a flat array of numbers"),
        ({"n_params": [[1], [2], [3]]}, r"n_params must be a flat array, one entry a run; its shape is \[3, 1\]"),
        ({"n_params": 5}, r"n_params must be a flat array, one entry a run; its shape is \[\]"),
        ({"n_params": [], "memorized_bits": []}, "n_params is empty: there are no runs to fit"),
        ({"n_params": [100, 0, 300]}, "n_params must be whole numbers of at least 1; row 1 is 0"),
        ({"n_params": [100, 200, 2.5]}, "n_params must be whole numbers of at least 1; row 2 is 2.5"),
        ({"n_params": [-100, 200, 300]}, "n_params must be whole numbers of at least 1; row 0 is -100"),
        ({"n_params": [100, math.nan, 300]}, r"n_params must be finite; row 1 is nan \(1 such\)"),
        ({"memorized_bits": [1, math.inf, math.nan]}, r"memorized_bits must be finite; row 1 is inf \(2 such\)"),
        ({"memorized_bits": [1.0, 2.0]}, "n_params has 3, memorized_bits has 2"),
        ({"n_samples": [1, 2, 3, 4]}, "n_params has 3, n_samples has 4"),
        ({"n_samples": [1, 0, 3]}, "n_samples must be whole numbers of at least 1; row 1 is 0"),
        ({"seed": [0, 1]}, "n_params has 3, seed has 2"),
        ({"seed": [0, 0.5, 1]}, "seed must be whole numbers; row 1 is 0.5"),
        ({"n_non_embedding_params": [50]}, "n_params has 3, n_non_embedding_params has 1"),
        ({"n_non_embedding_params": [50, -1, 50]}, "n_non_embedding_params must be whole numbers of at least 0"),
        ({"n_non_embedding_params": [50, 201, 50]}, "cannot exceed it; row 1 has 201 of 200"),
        ({"n_params": [100, 100, 200], "n_non_embedding_params": [50, 60, 50]}, "rows 0 and 1 both have 100 param"),
        ({"n_params": [100, 200, 200], "seed": [1, 1, 1]}, "rows 1 and 2 are the same run: 200 parameters, seed 1"),
        (
            {"n_params": [100, 200, 200], "seed": [1, 1, 1], "n_samples": [2, 4, 4]},
            "rows 1 and 2 are the same run: 200 parameters, 4 samples, seed 1",
        ),
        ({"n_params": [100, 100, 200], "estimator": "slope"}, 'slope" needs at least 3 model sizes .* there are 2'),
        ({"estimator": "plateau"}, "pass n_samples, seq_len and vocab_size"),
        ({"estimator": "plateau", **DATA}, "pass n_samples, seq_len and vocab_size"),
        ({"estimator": "plateau", "n_samples": [9, 9, 9], "seq_len": 64}, "pass n_samples, seq_len and vocab_size"),
        (
            {"estimator": "plateau", "n_samples": [9, 9, 9], **DATA},
            r"at least 450 bits .* the model of 100 parameters has 1, with n_samples 9\. Add runs of more than 1 sample",
        ),
    ],
)
def test_what_cannot_be_is_refused(options, message):
    refused(message, **options)


def test_what_is_just_legal():
    params, bits = [100, 200, 300], [-5.0, 720.0, 1080.0]
    assert fit_capacity(params, bits, n_non_embedding_params=[0, 200, 300]).capacity_bits[0] == -5
    assert fit_capacity(params, bits, seq_len=1, vocab_size=2).seq_len == 1
    assert fit_capacity(params, bits, seq_len=2, convention="strict", estimator="slope").convention == "strict"
    assert fit_capacity([100, 100], [1.0, 2.0], n_samples=[1, 2], seed=[0, 0]).capacity_bits.tolist() == [2]
    large = [2**62 + 1, 2**62 + 2, -1]
    assert fit_capacity([7, 7, 7], bits, seed=large).curve["seed"].tolist() == large


# --- the result


@pytest.fixture(scope="module")
def complete() -> Capacity:
    """As the lab makes one: every field known."""
    runs = planted(np.random.default_rng(10))
    result = fit(runs, n_non_embedding_params=runs["n_params"] // 2)
    curve = result.curve.assign(steps=pd.array([6000] * len(result.curve), dtype="Int64"))
    return dataclasses.replace(result, curve=curve, converged=False, gain_per_doubling=0.042)


def same(one: Capacity, other: Capacity) -> None:
    pd.testing.assert_frame_equal(one.curve, other.curve)
    for name in (f.name for f in dataclasses.fields(Capacity) if f.name != "curve"):
        np.testing.assert_equal(getattr(one, name), getattr(other, name), name)  # NaN equals NaN


def test_save_and_load(complete, tmp_path):
    bare = fit_capacity([1000], [3600.0])
    for name, result in {"complete": complete, "bare": bare}.items():
        result.save(tmp_path / name)
        loaded = Capacity.load(str(tmp_path / name))
        same(loaded, result)
        assert repr(loaded) == repr(result)
    assert "NaN" not in (tmp_path / "bare" / "settings.json").read_text(encoding="utf-8")


def test_damaged_folders(complete, tmp_path):
    with pytest.raises(ResultError, match="holds no saved Capacity"):
        Capacity.load(tmp_path)
    complete.save(tmp_path)
    as_saved_by_0_1_0(tmp_path)
    complete.curve[complete.curve["n_params"] > 20_000].to_parquet(tmp_path / "curve.parquet")
    with pytest.raises(ResultError, match="is damaged: its tables hold different model sizes"):
        Capacity.load(tmp_path)
    complete.curve.drop(columns="steps").to_parquet(tmp_path / "curve.parquet")
    with pytest.raises(ResultError, match=r"curve\.parquet cannot be read"):
        Capacity.load(tmp_path)
    settings = tmp_path / "settings.json"
    settings.write_text(settings.read_text(encoding="utf-8").replace('"bias"', '"bios"'), encoding="utf-8")
    with pytest.raises(ResultError, match=r"is damaged: settings\.json lacks bias"):
        Capacity.load(tmp_path)


def test_tables(complete):
    table = complete.to_pandas()
    assert table["n_params"].tolist() == SIZES.tolist()
    np.testing.assert_allclose(table["bits_per_param"], complete.capacity_bits / SIZES)
    np.testing.assert_allclose(table["bits_per_non_embedding_param"], complete.capacity_bits / (SIZES // 2))
    assert complete.curve.columns.tolist() == ["n_params", "n_samples", "seed", "steps", "memorized_bits"]
    bare = fit_capacity([1000], [3600.0])
    assert bare.curve[["n_samples", "seed", "steps"]].isna().all(axis=None)
    assert bare.to_pandas()["bits_per_non_embedding_param"].isna().all()
    none_left = fit_capacity([1000], [3600.0], n_non_embedding_params=[0]).to_pandas()
    assert none_left["n_non_embedding_params"].tolist() == [0]
    assert none_left["bits_per_non_embedding_param"].isna().all()


def test_repr(complete):
    words = repr(complete)
    known = f"{complete.bits_per_param:.4g} bits per parameter"
    assert f"Capacity at least {known} after so many steps (6 model sizes, 108 runs)" in words
    assert f"Capacity {known} (6 model sizes, 108 runs)" in repr(dataclasses.replace(complete, converged=True))
    assert "estimator    max; a size's capacity is its maximum over data-set sizes" in words
    assert "convention   start" in words
    assert f"{complete.bias:+.2g} bits per parameter, not subtracted" in words
    assert "lower bound: memorized bits still grow 4.2 % per doubling of steps" in words
    assert f"{SIZES[0]:,}" in words
    assert f"{complete.capacity_bits[0]:,.0f}" in words
    assert f"{complete.stderr:.2g}; 95 % interval [{complete.interval[0]:.4g}, {complete.interval[1]:.4g}]" in words


@pytest.mark.parametrize(
    ("converged", "gain", "words"),
    [
        (None, math.nan, "unknown: an undertrained model looks like one of low capacity"),
        (True, math.nan, "converged"),
        (True, 0.004, "converged: 0.4 % per doubling of steps"),
        (False, math.nan, "lower bound: training had not converged"),
    ],
)
def test_convergence_in_words(complete, converged, gain, words):
    assert dataclasses.replace(complete, converged=converged, gain_per_doubling=gain).convergence == words


def test_the_lab_can_warn_that_training_was_short():
    assert issubclass(NotConvergedWarning, MeasurementWarning)


# --- pictures


@pytest.fixture
def axes():
    import matplotlib.pyplot as plt

    figure, ax = plt.subplots()
    yield ax
    plt.close(figure)


def labels(ax) -> list[str]:
    return [text.get_text() for text in ax.get_legend().get_texts()]


def test_picture_of_curves(complete, axes):
    assert complete.plot(axes) is axes
    assert (axes.get_xscale(), axes.get_yscale()) == ("log", "linear")
    sizes = [f"{n:,} parameters: {b / n:.2f} bits each" for n, b in zip(SIZES, complete.capacity_bits, strict=True)]
    others = {"one run", "capacity of a size", "3.6, as published for GPT-2", "all there is to memorize"}
    assert [label for label in labels(axes) if label not in others] == sizes[::-1]
    assert set(labels(axes)) == {*sizes, *others}
    assert "lower bound: memorized bits still grow 4.2 % per doubling of steps" in axes.get_title(loc="left")
    lines = {line.get_label(): line for line in axes.lines}
    runs = complete.curve[complete.curve["n_params"] == SIZES[0]]
    np.testing.assert_allclose(
        lines[sizes[0]].get_ydata(), runs.groupby("n_samples")["memorized_bits"].mean() / SIZES[0]
    )
    ceiling = lines["all there is to memorize"]
    np.testing.assert_allclose(ceiling.get_ydata(), information_ceiling_bits(ceiling.get_xdata(), **DATA) / SIZES[0])
    flat = [line.get_ydata()[0] for line in axes.lines if line.get_linestyle() == ":"]
    assert flat == (complete.capacity_bits / SIZES)[::-1].tolist()
    assert list(lines["3.6, as published for GPT-2"].get_ydata()) == [3.6, 3.6]
    axes.figure.canvas.draw()


@pytest.fixture
def in_rounds() -> Capacity:
    """As the lab makes one: the runs of three rounds, of which the result is the last; one size has run for longer."""
    result = fit(planted(np.random.default_rng(12), sizes=SIZES[:2]))
    shares = {750: 0.6, 1500: 0.8, 3000: 1.0}
    curve = pd.concat(
        [
            result.curve.assign(steps=steps, memorized_bits=share * result.curve["memorized_bits"])
            for steps, share in shares.items()
        ]
    )
    curve.loc[curve["n_params"] == SIZES[1], "steps"] *= 2
    rounds = [{"steps": steps, "bits_per_param": 3.6 * share} for steps, share in shares.items()]
    return dataclasses.replace(
        result, curve=curve.astype(result.curve.dtypes), settings={**result.settings, "rounds": rounds}
    )


def test_repr_of_rounds(in_rounds, complete):
    line = "  rounds       750 steps 2.16, 1,500 steps 2.88, 3,000 steps 3.60 bits per parameter"
    assert line in repr(in_rounds).splitlines()
    assert "rounds" not in repr(complete)


def test_picture_shows_the_last_round_and_the_earlier_ones_faintly(in_rounds, axes):
    in_rounds.plot(axes)
    assert len(labels(axes)) == 7
    assert "after fewer steps" in labels(axes)
    for n_params, most in zip(SIZES[:2], (3000, 6000), strict=True):
        runs = in_rounds.curve[in_rounds.curve["n_params"] == n_params]
        last = runs[runs["steps"] == most]
        (line,) = [one for one in axes.lines if str(one.get_label()).startswith(f"{n_params:,} parameters")]
        means = last.groupby("n_samples")["memorized_bits"].mean() / n_params
        np.testing.assert_allclose(line.get_ydata(), means)
        of_size = [one for one in axes.lines if np.array_equal(one.get_color(), line.get_color()) and one is not line]
        dots = [one for one in of_size if one.get_marker() == "."]
        assert [len(one.get_ydata()) for one in dots] == [len(last)]
        np.testing.assert_allclose(np.sort(dots[0].get_ydata()), np.sort(last["memorized_bits"] / n_params))
        faint = [one for one in of_size if one.get_linestyle() == "-" and one.get_marker() == "None"]
        np.testing.assert_allclose([one.get_ydata() for one in faint], [0.6 * means, 0.8 * means])
        assert all(one.get_alpha() < 0.5 and one.get_linewidth() < line.get_linewidth() for one in faint)


@pytest.mark.parametrize("span", [1.0, 1.5, 4.0, 30.0, 1e3, 1e4])
def test_ticks_are_plain_numbers_apart(span, axes):
    """At least two, at most ten on an axis; no powers such as 3x10^1, and none over another."""
    n_samples = np.unique(np.round(np.geomspace(40, 40 * span, 5))).astype(int)
    fit_capacity([500] * len(n_samples), 30.0 * n_samples, n_samples=n_samples).plot(axes)
    axes.figure.canvas.draw()
    for axis, (low, high), end in ((axes.xaxis, axes.get_xlim(), "x"), (axes.yaxis, axes.get_ylim(), "y")):
        shown = [tick for tick in axis.get_major_ticks() if low <= tick.get_loc() <= high]
        words = [tick.label1.get_text() for tick in shown]
        assert 2 <= len(words) <= 10, words
        assert [float(word.replace(",", "")) for word in words] == pytest.approx([tick.get_loc() for tick in shown])
        assert not axis.get_minorticklocs().size
        boxes = sorted(getattr(tick.label1.get_window_extent(), f"interval{end}").tolist() for tick in shown)
        assert all(before[1] < after[0] for before, after in itertools.pairwise(boxes)), words


def test_picture_without_the_information_has_no_ceiling(axes):
    runs = planted(np.random.default_rng(11))
    fit_capacity(**runs).plot(axes)
    assert "all there is to memorize" not in labels(axes)
    assert "lower bound" not in axes.get_title(loc="left")


@pytest.mark.parametrize("estimator", ["slope", "mean"])
def test_picture_of_given_maxima(axes, estimator):
    result = fit_capacity(TABLE[:, 2].astype(int), TABLE[:, 4], estimator=estimator)
    result.plot(axes)
    dots, line = axes.lines
    np.testing.assert_allclose(dots.get_ydata(), result.capacity_bits)
    fitted = np.polyfit(TABLE[:, 2], TABLE[:, 4], 1) if estimator == "slope" else (result.bits_per_param, 0)
    np.testing.assert_allclose(line.get_ydata(), np.polyval(fitted, line.get_xdata()), rtol=1e-6)
    assert f"{result.bits_per_param:.2f} bits per parameter ({estimator}; 95 % interval" in axes.get_title(loc="left")


def test_picture_of_one_run(axes):
    fit_capacity([1000], [3600.0]).plot(axes)
    assert "error unknown" in axes.get_title(loc="left")
    axes.figure.canvas.draw()
