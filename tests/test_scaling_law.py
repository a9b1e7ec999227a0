"""The scaling law of membership inference: the published one, planted constants and what intervals cover, and every refusal."""

import dataclasses
import math
import warnings

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from saved_folders import as_saved_by_0_1_0
from scipy.optimize import curve_fit
from scipy.stats import t as student

from memorization import MIScalingLaw, fit_mi_scaling_law
from memorization.errors import ExtrapolationWarning, InputError, MeasurementWarning, NotIdentifiedWarning, ResultError

# arXiv:2505.24832, table 2: parameters, samples of 64 tokens, F1 predicted by the paper, F1 observed.
TABLE = np.array(
    [
        (1_556_075_200, 170_654_583, 0.55, 0.5461),
        (1_556_075_200, 76_795_021, 0.75, 0.7108),
        (1_556_075_200, 18_851_574, 0.95, 0.9585),
        (123_702_528, 13_566_442, 0.55, 0.5344),
        (123_702_528, 6_104_935, 0.75, 0.6569),
        (123_702_528, 1_498_634, 0.95, 0.9798),
    ]
)
GRID = np.geomspace(5e-4, 0.5, 20)  # data / parameters
PUBLISHED, OTHER = (1.34, -33.14, -0.034), (1.0, 0.05, -30.0)
NOISE = 0.014


def law_by_hand(constants, x):
    c1, c2, c3 = constants
    return np.array([0.5 * (1 + c1 / (1 + math.exp(-c2 * (v + c3)))) for v in x])


def clipped_by_hand(constants, x):
    return np.clip(law_by_hand(constants, x), 0.5, 1)


def anywhere(law: MIScalingLaw) -> MIScalingLaw:
    """With points wherever it is asked."""
    return dataclasses.replace(law, settings={**law.settings, "ratios": [0.0, math.inf]})


def fit(f1, ratio=GRID, **options) -> MIScalingLaw:
    """With a capacity of 1000, so that the ratio is not the data-set size."""
    capacity = np.full(len(ratio), 1000.0)
    return fit_mi_scaling_law(capacity, 1000 * np.asarray(ratio), f1, **options)


# --- the published law


def test_published_law_predicts_table_2():
    law = MIScalingLaw.published()
    np.testing.assert_allclose(law.predict(TABLE[:, 0], TABLE[:, 1]), TABLE[:, 2], atol=0.003)


def test_published_law_inverts_to_table_2():
    law = MIScalingLaw.published()
    np.testing.assert_allclose(law.dataset_size(TABLE[:, 0], TABLE[:, 2]), TABLE[:, 1], rtol=0.03)


def test_unrounded_constants_give_the_sizes_of_table_2_to_one_sample():
    law = dataclasses.replace(MIScalingLaw.published(), c1=1.34048, c2=-33.1363, c3=-0.033678)
    np.testing.assert_allclose(law.dataset_size(TABLE[:, 0], TABLE[:, 2]), TABLE[:, 1], rtol=1e-4)


def test_fit_to_table_2_gives_the_published_constants():
    law = fit_mi_scaling_law(TABLE[:, 0], TABLE[:, 1], TABLE[:, 2])
    np.testing.assert_allclose([law.c1, law.c2, law.c3], [1.34048, -33.1363, -0.033678], rtol=1e-4)


def test_the_formula_as_printed_rises_to_1_006():
    """Which is why it is not what `published` returns."""
    printed = [law_by_hand((1.34, -0.034, -33.14), [p / d])[0] for p, d in TABLE[:3, :2]]
    assert printed[0] > printed[1] > printed[2]
    assert law_by_hand((1.34, -0.034, -33.14), [0.0])[0] == pytest.approx(1.006, abs=5e-4)
    assert law_by_hand(PUBLISHED, [0.0])[0] == pytest.approx(1.006, abs=5e-4)


def test_published_units_and_unknown_errors():
    law = MIScalingLaw.published()
    assert (law.c1, law.c2, law.c3) == PUBLISHED
    assert (law.covariate, law.capacity_unit, law.dataset_unit) == (
        "data/capacity",
        "parameters",
        "samples of 64 tokens",
    )
    assert np.isnan(law.stderr).all()
    assert np.isnan(law.covariance).all()
    assert np.isnan(law.interval()).all()
    assert math.isnan(law.residual)
    assert law.points is None


# --- reading a law


def test_predictions_are_clipped_and_take_shapes():
    law = anywhere(MIScalingLaw.published())
    assert law.predict(1e9, 1).item() == 1.0
    assert law.predict(1e6, 1e12).item() == 0.5
    assert law.predict([[1e6], [1e7]], [1e4, 1e5, 1e6]).shape == (2, 3)
    below = dataclasses.replace(law, c1=-0.5)
    assert below.predict(1e6, 1e3).item() == 0.5


def test_predictions_beyond_the_points_say_so():
    law = MIScalingLaw.published()
    assert law.ratios == (0.012, 0.11)
    with pytest.warns(ExtrapolationWarning, match=r"ratio of 4\.46 is extrapolated: .* from 0\.012 to 0\.11"):
        assert law.predict(7e9, 2e12 / 64).item() == 0.5
    with pytest.warns(ExtrapolationWarning, match=r"ratio of 1e-05 \(2 such\)"):
        law.predict(1e9, [1e4, 5e7, 1e12])
    assert law.within_points(1e9, [1e4, 5e7, 1e12]).tolist() == [False, True, False]
    assert law.curve([1e-5, 10.0]).tolist() == [1.0, 0.5]  # the formula, for pictures
    # The outermost points belong to what was fitted, however their ratio rounds.
    capacity = np.array([3.0, 7.0, 11.0, 13.0, 17.0])
    own = fit_mi_scaling_law(capacity, 0.1 * capacity * np.arange(1, 6), [0.95, 0.9, 0.7, 0.6, 0.55], form="hill")
    assert own.ratios == pytest.approx((0.1, 0.5))
    assert own.within_points(100 * capacity, 10 * capacity * np.arange(1, 6)).all()
    assert not own.within_points(1.0, [0.0999, 0.501]).any()
    unknown = dataclasses.replace(law, settings={})
    assert np.isnan(unknown.ratios).all()
    assert not unknown.within_points(1e9, 5e7)
    unknown.predict(1e9, 1e12)  # no warning: nothing is known of its points


@pytest.mark.parametrize(("constants", "covariate"), [(PUBLISHED, "data/capacity"), (OTHER, "capacity/data")])
@given(share=st.floats(0.01, 0.99), capacity=st.floats(1e3, 1e12))
def test_dataset_size_inverts_predict(constants, covariate, share, capacity):
    law = dataclasses.replace(
        anywhere(MIScalingLaw.published()), covariate=covariate, **dict(zip(("c1", "c2", "c3"), constants, strict=True))
    )
    # From the formula: the ratios 0 and infinity bound what F1 there is.
    at_zero = law_by_hand(constants, [0.0])[0]
    ends = sorted([min(1.0, at_zero), 0.5 if constants[1] < 0 else 0.5 * (1 + constants[0])])
    f1 = ends[0] + share * (ends[1] - ends[0])
    size = law.dataset_size(capacity, f1)
    assert size > 0
    assert law.predict(capacity, size).item() == pytest.approx(f1, abs=1e-9)


def test_f1_that_the_law_does_not_have():
    law = MIScalingLaw.published()
    for f1 in (0.5, 0.3, 1.0, 1.2, math.nan):
        with pytest.raises(InputError, match=r"an F1 above 0\.5 and below 1 where it can be inverted"):
            law.dataset_size(1e6, f1)
    with pytest.raises(InputError, match=r"0\.4 came \(entry 1\)"):
        law.dataset_size(1e6, [0.6, 0.4])
    low = dataclasses.replace(law, c1=1.0)  # 0.5 (1 + sigmoid(1.12676)) at most
    highest = law_by_hand((1.0, -33.14, -0.034), [0.0])[0]
    assert low.dataset_size(1e6, highest - 1e-6) > 0
    with pytest.raises(InputError, match=r"above 0\.5 and below 0\.8776"):
        low.dataset_size(1e6, highest)
    # With capacity / data, infinite data leave more than chance.
    floor = dataclasses.replace(law, covariate="capacity/data", c1=1.0, c2=0.05, c3=-30.0)
    with pytest.raises(InputError, match=r"above 0\.5912 and below 1"):
        floor.dataset_size(1e6, 0.55)


def test_sizes_that_cannot_be():
    law = MIScalingLaw.published()
    for call in (law.predict, law.dataset_size):
        with pytest.raises(InputError, match="capacity must be finite and above 0; row 1 is -3"):
            call([1.0, -3.0], 0.7)
    with pytest.raises(InputError, match="dataset_size must be finite and above 0; row 0 is 0"):
        law.predict(1.0, 0)
    for level in (0.0, 1.0, 95.0):
        with pytest.raises(InputError, match="level must lie between 0 and 1"):
            law.interval(level)


# --- planted constants


@pytest.mark.usefixtures("no_type_checker")
@pytest.mark.parametrize(
    ("constants", "covariate", "grid"), [(PUBLISHED, "data/capacity", GRID), (OTHER, "capacity/data", 1 / GRID)]
)
def test_intervals_cover_planted_constants(constants, covariate, grid):
    """Around a law that is clipped at 1, as the published one is; the scatter goes beyond. 200 trials of 20 sizes."""
    noise = np.random.default_rng(5).normal(scale=NOISE, size=(200, len(grid)))
    truth = clipped_by_hand(constants, grid)
    assert (truth + noise).max() > 1.0
    covered, estimates = [], []
    for row in noise:
        law = fit(truth + row, ratio=grid if covariate == "data/capacity" else 1 / grid, covariate=covariate)
        low, high = law.interval().T
        covered.append((low <= constants) & (constants <= high))
        estimates.append((law.c1, law.c2, law.c3))
    share = np.mean(covered, axis=0)
    print(f"{covariate}: 95 % intervals cover {share} of 200")
    assert (share >= 0.90).all()
    assert (share <= 0.99).all()
    np.testing.assert_allclose(np.median(estimates, axis=0), constants, rtol=0.05)


@pytest.mark.usefixtures("no_type_checker")
@pytest.mark.parametrize("errors", ["linearised", "bootstrap"])
def test_whole_call_covers_planted_constants(errors):
    """c1 = 1.2, whose F1 of at most 0.953 stays below 1; the bootstrap's refits take time, so fewer trials."""
    constants, half = (1.2, -33.14, -0.034), student.ppf(0.975, 17)
    truth, draw, covered = law_by_hand(constants, GRID), np.random.default_rng(1), []
    for _ in range(60 if errors == "linearised" else 2):
        law = fit(np.minimum(truth + draw.normal(scale=NOISE, size=20), 1), errors=errors)
        values = np.array([law.c1, law.c2, law.c3])
        covered.append(np.abs(values - constants) <= half * law.stderr)
        ends = law.interval()
        np.testing.assert_allclose(ends.mean(axis=1), values, rtol=1e-9)
        np.testing.assert_allclose(ends[:, 1] - values, half * law.stderr)
        np.testing.assert_allclose(np.sqrt(np.diag(law.covariance)), law.stderr)
        assert law.residual == pytest.approx(NOISE, rel=0.6)
    assert np.mean(covered) >= 0.9


@pytest.mark.parametrize(("constants", "covariate"), [(PUBLISHED, "data/capacity"), (OTHER, "capacity/data")])
def test_exact_points_give_the_constants_back(constants, covariate):
    ratio = GRID[GRID > 2e-3] if covariate == "data/capacity" else 1 / GRID
    truth = np.minimum(law_by_hand(constants, ratio), 1)
    sizes = (np.full(len(ratio), 500.0), 500 * ratio) if covariate == "data/capacity" else (500 * ratio, 500.0)
    if covariate == "capacity/data":
        sizes = (sizes[0], np.full(len(ratio), 500.0))
    law = fit_mi_scaling_law(*sizes, truth, covariate=covariate)
    np.testing.assert_allclose([law.c1, law.c2, law.c3], constants, rtol=1e-6)
    assert (law.stderr < 1e-4 * np.abs(constants)).all()
    assert law.residual < 1e-8


@pytest.mark.parametrize("factor", [1e-9, 1e9])
def test_units_change_the_constants_as_units_do(factor):
    noisy = law_by_hand((1.2, -33.14, -0.034), GRID) + np.random.default_rng(2).normal(scale=0.01, size=20)
    one, other = fit(noisy), fit(noisy, ratio=GRID * factor)
    np.testing.assert_allclose([other.c1, other.c2 * factor, other.c3 / factor], [one.c1, one.c2, one.c3], rtol=1e-5)
    np.testing.assert_allclose(other.stderr * [1, factor, 1 / factor], one.stderr, rtol=1e-4)
    assert other.residual == pytest.approx(one.residual)


def test_order_of_rows_does_not_matter():
    noisy = law_by_hand((1.2, -33.14, -0.034), GRID) + np.random.default_rng(2).normal(scale=0.01, size=20)
    order = np.random.default_rng(3).permutation(20)
    one, other = fit(noisy), fit(noisy[order], ratio=GRID[order])
    np.testing.assert_allclose([other.c1, other.c2, other.c3], [one.c1, one.c2, one.c3], rtol=1e-6)


def test_one_capacity_for_all():
    f1 = law_by_hand((1.2, -33.14, -0.034), GRID)
    one, other = fit_mi_scaling_law(1000, 1000 * GRID, f1), fit(f1)
    assert (one.c1, one.c2, one.c3) == (other.c1, other.c2, other.c3)
    assert one.points["capacity"].tolist() == [1000.0] * 20


def test_covariance_against_a_derivative_by_differences():
    noisy = law_by_hand((1.2, -33.14, -0.034), GRID) + np.random.default_rng(4).normal(scale=0.01, size=20)
    weights = np.linspace(1, 5, 20)
    law = fit(noisy, weights=weights)
    c = np.array([law.c1, law.c2, law.c3])
    columns = []
    for k in range(3):
        step = np.zeros(3)
        step[k] = 1e-5 * abs(c[k])
        columns.append((law_by_hand(c + step, GRID) - law_by_hand(c - step, GRID)) / (2 * step[k]))
    jacobian, residuals = np.stack(columns, axis=1), noisy - law_by_hand(c, GRID)
    information = jacobian.T @ (weights[:, None] * jacobian)
    expected = np.linalg.inv(information) * (weights @ residuals**2) / 17
    np.testing.assert_allclose(law.covariance, expected, rtol=1e-5)
    assert law.residual == pytest.approx(math.sqrt((weights / weights.mean()) @ residuals**2 / 17))
    # Least squares: no direction lowers the weighted sum.
    np.testing.assert_allclose(jacobian.T @ (weights * residuals) * np.abs(c), 0, atol=1e-6)


def test_weights_count():
    f1 = law_by_hand((1.2, -33.14, -0.034), GRID)
    spoiled = f1.copy()
    spoiled[8] -= 0.05
    equal, twice = fit(spoiled), fit(spoiled, weights=np.full(20, 7.0))
    np.testing.assert_allclose(twice.stderr, equal.stderr)
    light = fit(spoiled, weights=np.where(np.arange(20) == 8, 1e-6, 1.0))
    assert abs(light.c1 - 1.2) < 1e-4 < abs(equal.c1 - 1.2)
    assert equal.points["weight"].tolist() == [1.0] * 20
    assert (equal.settings["weighted"], light.settings["weighted"]) == (False, True)


@pytest.mark.usefixtures("no_type_checker")
def test_bootstrap_agrees_where_scatter_is_even_and_differs_where_it_is_not():
    draw, truth = np.random.default_rng(6), law_by_hand((1.2, -33.14, -0.034), GRID)
    # Alternating signs leave the bootstrap's residuals as spread as the linearised ones take them to be.
    even = truth + 0.01 * draw.choice([-1.0, 1.0], 20)
    lin, boot = fit(even), fit(even, errors="bootstrap")
    assert (lin.c1, lin.c2, lin.c3) == (boot.c1, boot.c2, boot.c3)
    assert (boot.stderr / lin.stderr > 0.7).all()
    assert (boot.stderr / lin.stderr < 1.7).all()  # leverage corrected, so rather too wide
    again = fit(even, errors="bootstrap")
    assert again.stderr.tolist() == boot.stderr.tolist()
    # All the scatter in the fall: the others say nothing of the error of c2.
    uneven = truth + np.where((GRID > 0.01) & (GRID < 0.1), 0.02, 0.001) * draw.choice([-1.0, 1.0], 20)
    assert fit(uneven, errors="bootstrap").stderr[1] > 1.15 * fit(uneven).stderr[1]


def test_bootstrap_draws_residuals_that_leverage_has_not_shrunk():
    """The refits by another optimiser: the law plus residuals / (1 - leverage) of random sign, of which the eight points have much."""
    x = np.array([0.002, 0.01, 0.02, 0.03, 0.04, 0.05, 0.08, 0.2])
    noisy = law_by_hand((1.0, -60.0, -0.034), x) + 0.005 * np.array([1, -1, 1, 1, -1, -1, 1, -1])
    law = fit(noisy, x, errors="bootstrap")
    c = np.array([law.c1, law.c2, law.c3])
    steps = np.diag(1e-5 * np.abs(c))
    jacobian = np.stack([(law_by_hand(c + s, x) - law_by_hand(c - s, x)) / (2 * s.sum()) for s in steps], axis=1)
    leverage = (np.linalg.qr(jacobian)[0] ** 2).sum(axis=1)
    assert leverage.max() > 0.6
    free = (noisy - law_by_hand(c, x)) / (1 - leverage)
    signs = np.random.default_rng(1).choice([-1.0, 1.0], (400, 8))
    refits = [curve_fit(lambda x, *c: law_by_hand(c, x), x, law_by_hand(c, x) + free * sign, c)[0] for sign in signs]
    low, high = np.quantile(refits, [0.1587, 0.8413], axis=0)
    np.testing.assert_allclose(law.stderr, (high - low) / 2, rtol=0.25)


@pytest.mark.usefixtures("no_type_checker")
def test_bootstrap_is_not_drowned_by_a_few_refits_that_run_away():
    """F1 of 600 members, binomial: with plain squares of the refits this draw's c1 had an error above 1, and the law was refused."""
    truth = law_by_hand((1.2, -33.14, -0.034), GRID)
    f1 = np.random.default_rng(11).binomial(600, truth) / 600
    law, linearised = fit(f1, errors="bootstrap"), fit(f1)
    assert (law.stderr < 3 * linearised.stderr).all()
    np.testing.assert_allclose(np.sqrt(np.diag(law.covariance)), law.stderr)


# --- not identified


@pytest.mark.usefixtures("no_type_checker")
@pytest.mark.parametrize("level", [0.5, 0.75, 0.98])
@pytest.mark.parametrize("errors", ["linearised", "bootstrap"])
def test_f1_that_only_scatters(level, errors):
    draw = np.random.default_rng(7)
    for _ in range(8 if errors == "linearised" else 1):
        f1 = np.clip(level + draw.normal(scale=NOISE, size=20), 0, 1)
        with pytest.warns(NotIdentifiedWarning, match="not identified: .*Add data-set sizes on both sides"):
            law = fit(f1, errors=errors)
        assert np.isnan(law.stderr).all()
        assert np.isnan(law.covariance).all()
        assert np.isnan(law.interval()).all()
        assert np.isfinite([law.c1, law.c2, law.c3, law.residual]).all()
        assert "NOT IDENTIFIED" in repr(law)
        assert law.settings["not_identified"]


def test_one_end_of_the_curve():
    """An exponential is a sigmoid's far end: c1 exp(c2 c3) is all that shows, however exact the points."""
    with pytest.warns(NotIdentifiedWarning, match="the points see one end of the curve only"):
        law = fit(0.5 + 0.4 * np.exp(-30 * GRID))
    assert np.isnan(law.stderr).all()


def test_noise_that_leaves_c1_open():
    """The upper half of the fall is missing."""
    tail = np.geomspace(0.09, 0.5, 8)
    draw = np.random.default_rng(8)
    f1 = law_by_hand(PUBLISHED, tail) + draw.normal(scale=0.01, size=8)
    with pytest.warns(NotIdentifiedWarning, match=r"the 95 % interval of c1|one end of the curve|by more than its"):
        fit(f1, ratio=tail)


def test_the_warning_is_a_measurement_warning():
    assert issubclass(NotIdentifiedWarning, MeasurementWarning)


# --- refusals


@pytest.mark.usefixtures("no_type_checker")
@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"f1": [0.9, 0.8, 1.11, 0.6, -0.11]},
            r"f1 must lie in \[0, 1\], or within 0\.1 of it .*; row 2 is 1\.11 \(2 such\)",
        ),
        ({"f1": [0.9, 0.8, math.nan, 0.6, 0.5]}, "row 2 is nan"),
        ({"f1": ["a", 0.8, 0.7, 0.6, 0.5]}, "f1 must be numbers"),
        ({"f1": [0.9, 0.8]}, r"f1 has 2, capacity has the shape \[5\]"),
        ({"f1": [[0.9, 0.8, 0.7, 0.6, 0.5]]}, "all columns are flat"),
        ({"capacity": [1, 2]}, r"f1 has 5, capacity has the shape \[2\]"),
        ({"capacity": [1, 1, 0, 1, 1]}, "capacity must be finite and above 0; row 2 is 0"),
        ({"dataset_size": [1, 2, 3, -4, 5]}, "dataset_size must be finite and above 0; row 3 is -4"),
        ({"dataset_size": [1, 2, math.inf, 4, math.nan]}, r"row 2 is inf \(2 such\)"),
        ({"dataset_size": [1, 2, 3, 4]}, r"dataset_size has the shape \[4\]"),
        ({"dataset_size": 3}, r"dataset_size has the shape \[\]"),
        ({"weights": [1, 1, 1, 1]}, r"weights?.* has the shape \[4\]"),
        ({"weights": [1, 1, 1, 0, 1]}, "weights must be finite and above 0; row 3 is 0"),
        ({"covariate": "ratio"}, "covariate must be .*it is 'ratio'"),
        ({"errors": "jackknife"}, "errors must be .*it is 'jackknife'"),
        ({"capacity": [1] * 3, "dataset_size": [1, 2, 3], "f1": [0.9, 0.7, 0.5]}, "at least 4 points; there are 3"),
        ({"dataset_size": [1, 1, 2, 2, 2]}, "at least 3 different ratios .* these 5 points have 2"),
        ({"f1": [0.5] * 5}, r"F1 is 0\.5 at every point.*Add smaller data sets"),
        ({"f1": [1.0] * 5}, r"F1 is 1 at every point.*Add larger data sets"),
        ({"capacity": [], "dataset_size": [], "f1": []}, "at least 4 points; there are 0"),
    ],
)
def test_what_cannot_be_is_refused(options, message):
    runs = {"capacity": [1.0] * 5, "dataset_size": [1.0, 2, 3, 4, 5], "f1": [0.95, 0.9, 0.7, 0.6, 0.55]}
    with pytest.raises(InputError, match=message):
        fit_mi_scaling_law(**{**runs, **options})


def test_what_is_just_legal():
    """Four points, three ratios, F1 of exactly 0.5 and 1."""
    law = fit_mi_scaling_law([1.0] * 4, [1.0, 2, 3, 3], [1, 0.75, 0.5, 0.5])
    assert law.predict(1, 2).item() == pytest.approx(0.75, abs=0.01)


def test_simulated_f1_may_lie_a_little_outside():
    f1 = law_by_hand((1.2, -33.14, -0.034), GRID)
    f1[0], f1[-1] = 1.1, -0.1
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotIdentifiedWarning)  # two such outliers leave little of the fall
        law = fit(f1)
    assert law.points["f1"].tolist() == f1.tolist()


# --- the result


@pytest.fixture
def fitted() -> MIScalingLaw:
    noisy = law_by_hand((1.2, -33.14, -0.034), GRID) + np.random.default_rng(9).normal(scale=0.01, size=20)
    return fit(noisy, capacity_unit="parameters", dataset_unit="samples of 32 tokens")


def test_repr_shows_units_and_errors(fitted):
    words = repr(fitted)
    assert "x            data-set size (samples of 32 tokens) / capacity (parameters)" in words
    assert f"c2           {fitted.c2:.5g} (+- {fitted.stderr[1]:.2g}; 95 % interval [" in words
    assert f"20 points, F1 scatters by {fitted.residual:.2g}" in words
    published = repr(MIScalingLaw.published())
    assert "data-set size (samples of 64 tokens) / capacity (parameters)" in published
    assert "c1           1.34 (standard error unknown)" in published
    assert "corrected" in published
    turned = dataclasses.replace(fitted, covariate="capacity/data")
    assert "capacity (parameters) / data-set size (samples of 32 tokens)" in repr(turned)


def test_table(fitted):
    table = fitted.to_pandas().set_index("constant")
    assert table["value"].tolist() == [fitted.c1, fitted.c2, fitted.c3]
    np.testing.assert_allclose(table.loc["c1", "covariance_c2"], fitted.covariance[0, 1])
    np.testing.assert_allclose(table[["low", "high"]], fitted.interval())


def test_save_and_load(fitted, tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        open_law = fit(np.clip(0.5 + np.random.default_rng(1).normal(scale=0.01, size=20), 0, 1))
    for name, law in {"fitted": fitted, "published": MIScalingLaw.published(), "open": open_law}.items():
        law.save(tmp_path / name)
        loaded = MIScalingLaw.load(str(tmp_path / name))
        assert repr(loaded) == repr(law)
        for entry in (f.name for f in dataclasses.fields(MIScalingLaw) if f.name != "points"):
            np.testing.assert_equal(getattr(loaded, entry), getattr(law, entry), entry)
        if law.points is None:
            assert loaded.points is None
        else:
            pd.testing.assert_frame_equal(loaded.points, law.points)
        assert "NaN" not in (tmp_path / name / "settings.json").read_text(encoding="utf-8")


def test_damaged_folders(fitted, tmp_path):
    with pytest.raises(ResultError, match="holds no saved MIScalingLaw"):
        MIScalingLaw.load(tmp_path)
    fitted.save(tmp_path)
    as_saved_by_0_1_0(tmp_path)
    fitted.to_pandas().iloc[:2].to_parquet(tmp_path / "law.parquet")
    with pytest.raises(ResultError, match=r"law\.parquet must have the rows c1, c2, c3"):
        MIScalingLaw.load(tmp_path)
    settings = tmp_path / "settings.json"
    settings.write_text(settings.read_text(encoding="utf-8").replace('"residual"', '"rest"'), encoding="utf-8")
    with pytest.raises(ResultError, match=r"settings\.json lacks residual"):
        MIScalingLaw.load(tmp_path)


@pytest.mark.parametrize("which", ["fitted", "published", "turned"])
def test_picture(fitted, which):
    import matplotlib.pyplot as plt

    turned = fit_mi_scaling_law(1000 / GRID, [1000.0] * 20, law_by_hand(OTHER, 1 / GRID), covariate="capacity/data")
    law = {"fitted": fitted, "published": MIScalingLaw.published(), "turned": turned}[which]
    figure, ax = plt.subplots()
    try:
        assert law.plot(ax) is ax
        lines = {line.get_label().split(":")[0]: line for line in ax.lines}
        curve = lines["law"]
        constants = (law.c1, law.c2, law.c3)
        drawn = curve.get_ydata()
        if which == "published":  # dotted where it has no points
            drawn = np.where(np.isnan(drawn), lines["no points"].get_ydata(), drawn)
        np.testing.assert_allclose(drawn, np.clip(law_by_hand(constants, curve.get_xdata()), 0.5, 1))
        assert drawn.max() > 0.9
        assert drawn.min() < 0.6
        assert ("20 trained models" in lines) == (which != "published")
        assert ax.get_xlabel() == law.ratio_in_words
        figure.canvas.draw()
    finally:
        plt.close(figure)
