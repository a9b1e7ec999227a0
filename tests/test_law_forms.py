"""Forms of the membership law, the clip inside the fit, and what a fit is worth: lack of fit, and a size left out."""

import dataclasses
import math
import warnings

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import chi2, norm

from memorization import MIScalingLaw, fit_mi_scaling_law
from memorization.errors import InputError, NotIdentifiedWarning, ResultError
from memorization.scaling_law.checks import f1_variance
from memorization.scaling_law.forms import CURVES

RATIO = np.geomspace(2e-3, 0.5, 14)  # data / capacity
PLANTED = {"logistic": (1.2, -33.14, -0.034), "hill": (0.03, 2.0), "probit": (0.02, 1.4)}
FORMS, TWO = list(PLANTED), ["hill", "probit"]


def by_hand(form, constants, x):
    if form == "logistic":
        c1, c2, c3 = constants
        return np.clip([0.5 * (1 + c1 / (1 + math.exp(-c2 * (v + c3)))) for v in x], 0.5, 1)
    r0, k = constants
    if form == "hill":
        return np.array([0.5 * (1 + 1 / (1 + (v / r0) ** k)) for v in x])
    return np.array([norm.cdf((r0 / v) ** k) for v in x])


def fit(f1, form, ratio=RATIO, **options) -> MIScalingLaw:
    return fit_mi_scaling_law(1000.0, 1000 * ratio, f1, form=form, **options)


def at_the_pooled_median(f1, n, draw):
    """F1 of n samples, half of them members, whose scores are two normals of one spread."""
    found = []
    for distance in 2 * norm.ppf(np.minimum(f1, 1 - 1e-12)):
        members, others = draw.normal(size=n // 2), draw.normal(size=n // 2) + distance
        threshold = np.partition(np.concatenate([members, others]), n // 2 - 1)[n // 2 - 1]
        found.append((members <= threshold).mean())
    return np.array(found)


# --- the forms


@pytest.mark.parametrize("form", FORMS)
def test_exact_points_give_the_constants_back(form):
    law = fit(by_hand(form, PLANTED[form], RATIO), form)
    np.testing.assert_allclose(list(law.constants.values()), PLANTED[form], rtol=1e-6)
    np.testing.assert_allclose(law.predict(7.0, 7 * RATIO), by_hand(form, PLANTED[form], RATIO), atol=1e-9)
    assert law.residual < 1e-8
    assert set(law.constants) == ({"c1", "c2", "c3"} if form == "logistic" else {"r0", "k"})
    others = {"c1", "c2", "c3", "r0", "k"} - set(law.constants)
    assert np.isnan([getattr(law, name) for name in others]).all()


@pytest.mark.parametrize("form", TWO)
def test_the_ratio_turned_over_is_the_same_curve(form):
    f1 = by_hand(form, PLANTED[form], RATIO) + np.random.default_rng(0).normal(scale=0.01, size=14)
    one, other = fit(f1, form), fit(f1, form, covariate="capacity/data")
    assert other.r0 == pytest.approx(1 / one.r0, rel=1e-5)
    assert other.k == pytest.approx(-one.k, rel=1e-5)
    assert other.residual == pytest.approx(one.residual)
    assert other.stderr[1] == pytest.approx(one.stderr[1], rel=1e-3)
    np.testing.assert_allclose(other.dataset_size(1000, [0.6, 0.9]), one.dataset_size(1000, [0.6, 0.9]), rtol=1e-5)


@pytest.mark.parametrize("form", TWO)
def test_r0_is_where_the_docstring_says(form):
    law = fit(by_hand(form, PLANTED[form], RATIO), form)
    assert law.curve(law.r0).item() == pytest.approx(0.75 if form == "hill" else norm.cdf(1))


@pytest.mark.parametrize("form", TWO)
@pytest.mark.parametrize("covariate", ["data/capacity", "capacity/data"])
@given(f1=st.floats(0.501, 0.999), capacity=st.floats(1.0, 1e12))
def test_dataset_size_inverts_predict(form, covariate, f1, capacity):
    k = 1.4 if covariate == "data/capacity" else -1.4
    law = dataclasses.replace(
        MIScalingLaw.published(), form=form, r0=0.02, k=k, covariate=covariate, settings={"ratios": [0, math.inf]}
    )
    assert law.predict(capacity, law.dataset_size(capacity, f1)).item() == pytest.approx(f1, abs=1e-9)
    assert law.dataset_size(capacity, f1 - 5e-4) > law.dataset_size(capacity, f1)  # F1 falls as the data grow


@pytest.mark.parametrize("form", TWO)
def test_from_certainty_to_chance(form):
    law = fit(by_hand(form, PLANTED[form], RATIO), form)
    np.testing.assert_allclose(law.curve([1e-12, 1e12]), [1, 0.5])
    for f1 in (0.5, 1.0, math.nan):
        with pytest.raises(InputError, match=r"above 0\.5 and below 1 where it can be inverted"):
            law.dataset_size(1.0, f1)


@pytest.mark.parametrize("form", TWO)
@pytest.mark.parametrize("factor", [1e-9, 1e9])
def test_units_change_r0_only(form, factor):
    f1 = by_hand(form, PLANTED[form], RATIO) + np.random.default_rng(1).normal(scale=0.01, size=14)
    one, other = fit(f1, form), fit(f1, form, ratio=RATIO * factor)
    assert other.r0 == pytest.approx(one.r0 * factor, rel=1e-6)
    assert other.k == pytest.approx(one.k, rel=1e-6)
    np.testing.assert_allclose(other.stderr, one.stderr * [factor, 1], rtol=1e-4)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("covariate", ["data/capacity", "capacity/data"])
def test_derivatives_are_those_of_the_curve(form, covariate):
    curve, u = CURVES[form], RATIO / np.median(RATIO)
    free = np.array([1.2, -0.9, -0.7]) if form == "logistic" else np.array([-0.3, 1.7])
    free = free * (1 if covariate == "data/capacity" else -1)
    step = 1e-6
    for place in range(len(free)):
        moved = [
            curve.f1(curve.from_free(free + sign * step * np.eye(len(free))[place], 1.0)[0], u) for sign in (1, -1)
        ]
        np.testing.assert_allclose(curve.jacobian(free, u)[:, place], (moved[0] - moved[1]) / (2 * step), atol=1e-8)
    # And of the constants by the free coordinates, in units.
    constants, scale = curve.from_free(free, 5.0)
    for place in range(len(free)):
        moved = curve.from_free(free + step * np.eye(len(free))[place], 5.0)[0] - constants
        assert moved[place] / step == pytest.approx(scale[place], rel=1e-5)


@pytest.mark.usefixtures("no_type_checker")
@pytest.mark.parametrize("form", TWO)
@pytest.mark.parametrize("errors", ["linearised", "bootstrap"])
def test_intervals_cover_planted_constants(form, errors):
    trials, truth, draw = (
        100 if errors == "linearised" else 3,
        by_hand(form, PLANTED[form], RATIO),
        np.random.default_rng(2),
    )
    covered = []
    for _ in range(trials):
        law = fit(np.clip(truth + draw.normal(scale=0.014, size=14), 0, 1.1), form, errors=errors)
        low, high = law.interval().T
        covered.append((low <= PLANTED[form]) & (PLANTED[form] <= high))
    share = np.mean(covered, axis=0)
    assert (share >= (0.9 if errors == "linearised" else 0.6)).all()
    assert errors == "bootstrap" or (share <= 0.99).all()


@pytest.mark.parametrize("form", TWO)
@pytest.mark.parametrize("level", [0.5, 0.75])
def test_f1_that_only_scatters_is_not_identified(form, level):
    draw = np.random.default_rng(3)
    for _ in range(5):
        with pytest.warns(NotIdentifiedWarning, match="not identified"):
            law = fit(level + draw.normal(scale=0.014, size=14), form)
        assert np.isnan(law.stderr).all()
        assert np.isnan(law.covariance).all()
        assert "NOT IDENTIFIED" in repr(law)


def test_two_constants_need_fewer_points():
    law = fit_mi_scaling_law(1.0, [1.0, 2, 2], [0.9, 0.7, 0.701], form="hill")
    assert law.interval().shape == (2, 2)
    with pytest.raises(InputError, match="two constants and a scatter, which takes at least 3 points; there are 2"):
        fit_mi_scaling_law(1.0, [1.0, 2], [0.9, 0.7], form="hill")
    with pytest.raises(InputError, match=r"at least 2 different ratios .* these 3 points have 1"):
        fit_mi_scaling_law(1.0, [2.0, 2, 2], [0.9, 0.7, 0.72], form="probit")


@pytest.mark.usefixtures("no_type_checker")
def test_no_such_form():
    with pytest.raises(InputError, match="form must be one of logistic, hill, probit; it is 'sigmoid'"):
        fit(by_hand("hill", PLANTED["hill"], RATIO), "sigmoid")


# --- the clip


def test_f1_stuck_at_1_does_not_move_the_law():
    """The unclipped sigmoid has to stay below 1 there, which draws c1 down to 1.30 and leaves a scatter of 0.004."""
    constants = (1.34, -33.14, -0.034)  # 1.006 without data
    ratio = np.concatenate([np.geomspace(1e-6, 1e-3, 30), RATIO])
    law = fit(by_hand("logistic", constants, ratio), "logistic", ratio=ratio)
    np.testing.assert_allclose([law.c1, law.c2, law.c3], constants, rtol=1e-5)
    # A sigmoid that would be 1.2 without data: fits of what is not clipped are off by 0.03.
    steep = (1.8, -40.0, -0.02)
    law = fit(by_hand("logistic", steep, RATIO), "logistic")
    np.testing.assert_allclose([law.c1, law.c2, law.c3], steep, rtol=1e-4)


def test_what_is_fitted_is_what_is_predicted():
    noisy = by_hand("logistic", (1.8, -40.0, -0.02), RATIO) + np.random.default_rng(4).normal(scale=0.01, size=14)
    law = fit(noisy, "logistic")
    off = noisy - law.predict(1000.0, 1000 * RATIO)
    assert law.residual == pytest.approx(math.sqrt(off @ off / 11))
    for name in law.constants:  # and no other constants are better
        for factor in (0.97, 1.03):
            moved = dataclasses.replace(law, **{name: getattr(law, name) * factor})
            worse = noisy - moved.predict(1000.0, 1000 * RATIO)
            assert worse @ worse > off @ off


# --- lack of fit


def test_the_variance_of_f1_at_the_pooled_median():
    """By simulation: normals of one spread, at chance (where it is the hypergeometric's) and away from it."""
    draw = np.random.default_rng(5)
    for f1 in (0.5, 0.7, 0.9):
        found = at_the_pooled_median(np.full(20_000, f1), 100, draw)
        variance = f1_variance(np.array(f1), np.array(100.0)).item()
        assert found.var() == pytest.approx(variance, rel=0.05)  # its own standard error is 1 %
        assert found.mean() == pytest.approx(f1, abs=0.005)
    assert f1_variance(np.array(0.5), np.array(100.0)) == 0.25 / 99


@pytest.mark.usefixtures("no_type_checker")
def test_chi_square_of_the_truth_is_a_chi_square():
    """60 fits of each form: no more are refused at 5 % than a binomial allows, and the median is where it belongs."""
    draw = np.random.default_rng(6)
    for form in FORMS:
        truth = by_hand(form, PLANTED[form], RATIO)
        found = [fit(at_the_pooled_median(truth, 1000, draw), form, n_evaluated=1000).lack_of_fit() for _ in range(60)]
        p_values = np.array([each.p_value for each in found])
        assert (p_values < 0.05).mean() < 0.05 + 4 * math.sqrt(0.05 * 0.95 / 60)
        assert 0.3 < np.median(p_values) < 0.7
        assert np.mean([each.chi_square / each.df for each in found]) == pytest.approx(1, abs=0.2)


def test_another_form_than_the_truth_lacks_fit():
    truth = by_hand("probit", PLANTED["probit"], RATIO)
    f1 = at_the_pooled_median(truth, 20_000, np.random.default_rng(7))
    assert fit(f1, "probit", n_evaluated=20_000).lack_of_fit().p_value > 0.001
    wrong = fit(f1, "hill", n_evaluated=np.full(14, 20_000))
    assert wrong.lack_of_fit().p_value < 1e-6
    few = fit(f1, "hill", n_evaluated=50)  # that few samples could not tell
    assert few.lack_of_fit().p_value > 0.5
    assert list(few.constants.values()) == list(wrong.constants.values())
    # The p-value is that of the chi-square.
    chi_square, df, p_value = wrong.lack_of_fit()
    assert p_value == pytest.approx(chi2.sf(chi_square, df))


def test_points_stuck_at_1_do_not_count():
    ratio = np.concatenate([np.geomspace(1e-6, 1e-5, 6), RATIO])
    f1 = np.concatenate([np.ones(6), by_hand("hill", PLANTED["hill"], RATIO)])
    few = int((1000 * (1 - by_hand("hill", PLANTED["hill"], RATIO)) < 10).sum())
    assert 0 < few < 5
    assert fit(f1, "hill", ratio=ratio, n_evaluated=1000).lack_of_fit().df == 14 - few - 2
    spoiled = np.where(np.arange(20) == 3, 0.9, f1)  # the law says 1 there, and 100 samples of 1000 are wrong
    assert fit(spoiled, "hill", ratio=ratio, n_evaluated=1000).lack_of_fit().p_value < 1e-9


def test_lack_of_fit_without_the_number_of_samples():
    law = fit(by_hand("hill", PLANTED["hill"], RATIO), "hill")
    for unknown in (law, MIScalingLaw.published()):
        with pytest.raises(
            InputError, match=r"needs the number of samples .* pass n_evaluated= .* to fit_mi_scaling_law"
        ):
            unknown.lack_of_fit()
        assert "lack of fit" not in repr(unknown)


@pytest.mark.parametrize(
    ("n_evaluated", "message"),
    [
        (1, r"n_evaluated counts the members and non-members .* row 0 is 1 \(14 such\)"),
        (0, "n_evaluated must be finite and above 0"),
        ([100.0] * 13, r"n_evaluated has the shape \[13\]"),
        ([100.0] * 13 + [math.nan], "n_evaluated must be finite and above 0; row 13 is nan"),
    ],
)
def test_numbers_of_samples_that_cannot_be(n_evaluated, message):
    with pytest.raises(InputError, match=message):
        fit(by_hand("hill", PLANTED["hill"], RATIO), "hill", n_evaluated=n_evaluated)


def test_no_degree_of_freedom_is_left():
    sizes, f1 = [1.0, 2, 3, 30], [1.0, 0.999, 0.99, 0.6]
    for n_evaluated in (8, 100):  # of 8 samples none tells anything; of 100 the last point alone
        law = fit_mi_scaling_law(1.0, sizes, f1, form="hill", n_evaluated=n_evaluated)
        chi_square, df, p_value = law.lack_of_fit()
        assert df == 0
        assert math.isnan(chi_square)
        assert math.isnan(p_value)
        assert "lack of fit  cannot tell" in repr(law)
    assert fit_mi_scaling_law(1.0, sizes, f1, form="hill", n_evaluated=100_000).lack_of_fit().df == 2


# --- a size left out


def test_a_size_left_out_by_hand():
    capacity = np.repeat([1.0, 10.0, 100.0], 5)
    ratio = np.tile(np.geomspace(0.005, 0.2, 5), 3) * np.repeat([1.0, 1.1, 0.9], 5)
    shift = np.repeat([1.0, 1.5, 0.7], 5)  # sizes that do not lie on one curve
    f1 = by_hand("hill", PLANTED["hill"], ratio * shift)
    weights = np.linspace(1, 2, 15)
    law = fit_mi_scaling_law(capacity, ratio * capacity, f1, form="hill", weights=weights)
    squares = 0.0
    for size in (1.0, 10.0, 100.0):
        out = capacity == size
        rest = fit_mi_scaling_law(
            capacity[~out], (ratio * capacity)[~out], f1[~out], form="hill", weights=weights[~out]
        )
        squares += weights[out] @ (f1[out] - rest.curve(ratio[out])) ** 2
    assert law.left_out_residual == pytest.approx(math.sqrt(squares / weights.sum()))
    assert law.left_out_residual > 1.2 * law.residual  # new sizes are worse than the fit looks
    assert f"models of a size not fitted lie off by {law.left_out_residual:.2g}" in repr(law)


def test_one_size_leaves_nothing_out():
    law = fit(by_hand("hill", PLANTED["hill"], RATIO), "hill")
    assert math.isnan(law.left_out_residual)
    assert "left out" not in repr(law)
    few = fit_mi_scaling_law([1.0, 1, 1, 2], [0.01, 0.03, 0.1, 0.04], [0.95, 0.75, 0.541, 0.846], form="hill")
    assert math.isnan(few.left_out_residual)  # without the first size one point is left, which makes no law


# --- the result


@pytest.mark.parametrize("form", FORMS)
def test_save_and_load(form, tmp_path):
    f1 = at_the_pooled_median(by_hand(form, PLANTED[form], RATIO), 1000, np.random.default_rng(8))
    law = fit_mi_scaling_law(
        np.repeat([1.0, 2.0], 7), np.repeat([1.0, 2.0], 7) * RATIO, f1, form=form, n_evaluated=1000
    )
    law.save(tmp_path / form)
    loaded = MIScalingLaw.load(tmp_path / form)
    assert repr(loaded) == repr(law)
    assert "lack of fit  chi-square" in repr(law)
    for entry in (f.name for f in dataclasses.fields(MIScalingLaw) if f.name != "points"):
        np.testing.assert_equal(getattr(loaded, entry), getattr(law, entry), entry)
    pd.testing.assert_frame_equal(loaded.points, law.points)
    assert loaded.points["n_evaluated"].tolist() == [1000.0] * 14
    assert loaded.lack_of_fit() == law.lack_of_fit()
    assert loaded.ratios == law.ratios
    assert law.to_pandas()["constant"].tolist() == list(law.constants)
    np.testing.assert_allclose(law.to_pandas()[[f"covariance_{name}" for name in law.constants]], law.covariance)


def test_lack_of_fit_that_is_unknown_is_saved_as_such(tmp_path):
    law = fit_mi_scaling_law(1.0, [1.0, 2, 3, 30], [1.0, 0.999, 0.99, 0.6], form="hill", n_evaluated=100)
    law.save(tmp_path)
    assert math.isnan(MIScalingLaw.load(tmp_path).lack_of_fit().p_value)
    assert "NaN" not in (tmp_path / "settings.json").read_text(encoding="utf-8")


def test_a_form_that_is_none_is_damage(tmp_path):
    fit(by_hand("hill", PLANTED["hill"], RATIO), "hill").save(tmp_path)
    settings = tmp_path / "settings.json"
    settings.write_text(
        settings.read_text(encoding="utf-8").replace('"form": "hill"', '"form": "spline"'), encoding="utf-8"
    )
    with pytest.raises(ResultError, match="form must be one of logistic, hill, probit; it is 'spline'"):
        MIScalingLaw.load(tmp_path)


@pytest.mark.parametrize("form", TWO)
@pytest.mark.parametrize("unit", ["bits", "parameters", "watts"])
def test_picture(form, unit):
    import matplotlib.pyplot as plt

    law = fit(by_hand(form, PLANTED[form], RATIO), form, capacity_unit=unit)
    figure, ax = plt.subplots()
    try:
        law.plot(ax)
        lines = {line.get_label().split(":")[0]: line for line in ax.lines}
        curve = lines[f"{form} law"]
        np.testing.assert_allclose(curve.get_ydata(), by_hand(form, PLANTED[form], curve.get_xdata()))
        ceiling = {name: line for name, line in lines.items() if name.startswith("ceiling")}
        if unit == "watts":
            assert not ceiling
        else:
            (label, line), bits = ceiling.popitem(), 1 if unit == "bits" else 3.6
            assert label == "ceiling of any attack" + ("" if unit == "bits" else " at 3.6 bits a parameter")
            information = bits / line.get_xdata()
            limits = np.sqrt([information * math.log(2) / 2, 1 - 0.5**information])
            np.testing.assert_allclose(line.get_ydata(), 0.5 + 0.5 * limits.min(axis=0))
        figure.canvas.draw()
        assert dataclasses.replace(law, points=None).plot().lines[0].get_ydata().max() > 0.98
    finally:
        plt.close("all")


def test_the_picture_of_the_published_law_shows_where_it_has_no_points():
    import matplotlib.pyplot as plt

    try:
        lines = {line.get_label().split(":")[0]: line for line in MIScalingLaw.published().plot().lines}
        inside = ~np.isnan(lines["law"].get_ydata())
        x = lines["law"].get_xdata()
        assert (inside == ((x >= 0.012) & (x <= 0.11))).all()
        assert (inside == np.isnan(lines["no points"].get_ydata())).all()
    finally:
        plt.close("all")


def test_no_warning_where_all_is_well():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for form in FORMS:
            fit(by_hand(form, PLANTED[form], RATIO), form, n_evaluated=1000)
