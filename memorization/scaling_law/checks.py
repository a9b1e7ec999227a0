"""What a fit is worth: chi-square against the noise of counting, and the error on a model size left out."""

import math
from typing import NamedTuple

import numpy as np
from jaxtyping import Float64

from memorization.errors import InputError
from memorization.scaling_law.forms import Curve, clipped
from memorization.scaling_law.least_squares import constants_of
from memorization.scaling_law.points import check_points

__all__ = ["LackOfFit", "f1_variance", "lack_of_fit", "left_out_residual"]

_ROUNDS = 3  # of fits, each weighted by the noise at the last one's F1; constants stand still after two
_FEW = 10  # samples on the wrong side, 5 of either kind, below which a square over its variance has no chi-square


class LackOfFit(NamedTuple):
    """Chi-square of a form against the noise of counting samples.

    Attributes:
        chi_square: the smallest that any constants of the form reach.
        df: degrees of freedom: points that tell something, less constants.
        p_value: of a chi-square as large or larger, were the form the truth.
    """

    chi_square: float
    df: int
    p_value: float


def f1_variance(
    f1: Float64[np.ndarray, "*shape"], n_evaluated: Float64[np.ndarray, "*shape"]
) -> Float64[np.ndarray, "*shape"]:
    """Variance of an F1 measured at the pooled median of n_evaluated samples, half of them members.

    F1 (1 - F1) / (n_evaluated - 1). The share of members below the threshold varies as a binomial of n_evaluated / 2,
    and so does that of the others; but the threshold moves until both together are half of all, which takes the share
    g_m / (g_m + g_o) of either error out, g being the densities there. What is left is F1 (1 - F1) (g_m^2 + g_o^2) /
    (g_m + g_o)^2 over n_evaluated / 2: with equal densities the variance of accuracy over n_evaluated samples. At
    chance it is the hypergeometric's, exactly. Spreads of 1 : 2 make it 11 % larger.
    """
    return np.asarray(f1 * (1 - f1) / (n_evaluated - 1))


def lack_of_fit(
    curve: Curve,
    x: Float64[np.ndarray, " point"],
    f1: Float64[np.ndarray, " point"],
    n_evaluated: Float64[np.ndarray, " point"],
) -> LackOfFit:
    """Chi-square, after a fit with the noise of counting as weights.

    Points where the law and F1 both leave fewer than 10 samples on the wrong side are left out, and that many are taken
    for granted in the variance of the others: squares of smaller counts have no chi-square.
    """
    highest = 1 - np.minimum(_FEW / n_evaluated, 0.5)
    weight = np.ones(len(x))
    for _ in range(_ROUNDS):
        law = clipped(curve.f1(constants_of(curve, x, f1, weight), x))
        weight = 1 / f1_variance(np.minimum(law, highest), n_evaluated)
    tell = (law < highest) | (f1 < highest)
    df = int(tell.sum()) - len(curve.names)
    chi_square = float((weight * (f1 - law) ** 2)[tell].sum())
    if df < 1:
        return LackOfFit(math.nan, max(df, 0), math.nan)
    from scipy.special import chdtrc

    return LackOfFit(chi_square, df, float(chdtrc(df, chi_square)))


def left_out_residual(
    curve: Curve,
    capacity: Float64[np.ndarray, " point"],
    x: Float64[np.ndarray, " point"],
    f1: Float64[np.ndarray, " point"],
    weight: Float64[np.ndarray, " point"],
) -> float:
    """Root mean square of F1 around the law that was fitted without the models of that capacity.

    NaN where there is one capacity, or where the others do not make a law.
    """
    sizes = np.unique(capacity)
    if len(sizes) < 2:
        return math.nan
    squares = 0.0
    for size in sizes:
        out = capacity == size
        try:
            check_points(x[~out], f1[~out], len(curve.names))
        except InputError:
            return math.nan
        law = curve.f1(constants_of(curve, x[~out], f1[~out], weight[~out]), x[out])
        squares += float(weight[out] @ (f1[out] - clipped(law)) ** 2)
    return math.sqrt(squares / weight.sum())
