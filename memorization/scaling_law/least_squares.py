"""Least squares of a form's constants, their covariance, and whether the points determine them at all."""

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Float64

from memorization.scaling_law.forms import Curve, clipped

Errors = Literal["linearised", "bootstrap"]

_RESAMPLES = 400  # puts the standard error of a standard error at 4 % of it
_STEPS = 200  # of one fit; those of planted laws take under 20
_ILL_CONDITIONED = 1e6  # of a Jacobian with columns of unit length; planted laws that come back have 2 to 60
_NO_EFFECT = 0.01  # p-value of the F test from which F1 is taken to follow the ratio
_AT_THE_CLIP = 1e-9  # F1 as near to 1 as this is free to fall, so it is not clipped


@dataclass(frozen=True, slots=True, eq=False)
class FittedConstants:
    """Constants of one least-squares fit, their covariance, the scatter of F1, and why not to trust them, if so."""

    constants: Float64[np.ndarray, " constant"]
    covariance: Float64[np.ndarray, "constant constant"]
    residual: float
    why_not_identified: str


def fit_constants(
    curve: Curve,
    x: Float64[np.ndarray, " point"],
    f1: Float64[np.ndarray, " point"],
    weight: Float64[np.ndarray, " point"],
    errors: Errors,
) -> FittedConstants:
    """Least squares of the curve, clipped to [0.5, 1] as predictions are, at the ratios x. F1 may lie outside."""
    unit = float(np.median(x))  # so that the constants are of similar size
    u, w = x / unit, weight / weight.mean()
    solution, ended = _best(curve, u, f1, w)
    jacobian = _weighted_jacobian(solution, curve, u, f1, np.sqrt(w))
    residuals = f1 - _f1(curve, solution, u)
    squares, df = float(w @ residuals**2), len(x) - len(solution)
    scatter = math.sqrt(squares / df)
    constants, scale = curve.from_free(solution, unit)
    unknown = np.full((len(solution), len(solution)), np.nan)
    why = _degenerate(jacobian, ended) or _without_effect(f1, w, squares, len(solution))
    covariance = unknown
    if not why:
        linearised = np.linalg.inv(jacobian.T @ jacobian) * scatter**2
        free = linearised if errors == "linearised" else _bootstrap(curve, solution, u, w, residuals, jacobian)
        covariance = free * np.outer(scale, scale)
        why = _undetermined(curve, constants, covariance, df)
    return FittedConstants(constants, unknown if why else covariance, scatter, why)


def constants_of(
    curve: Curve,
    x: Float64[np.ndarray, " point"],
    f1: Float64[np.ndarray, " point"],
    weight: Float64[np.ndarray, " point"],
) -> Float64[np.ndarray, " constant"]:
    """The constants alone."""
    unit = float(np.median(x))
    return curve.from_free(_best(curve, x / unit, f1, weight / weight.mean())[0], unit)[0]


def _f1(
    curve: Curve, free: Float64[np.ndarray, " constant"], u: Float64[np.ndarray, " point"]
) -> Float64[np.ndarray, " point"]:
    return clipped(curve.f1(curve.from_free(free, 1.0)[0], u))


def _best(
    curve: Curve,
    u: Float64[np.ndarray, " point"],
    f1: Float64[np.ndarray, " point"],
    w: Float64[np.ndarray, " point"],
) -> tuple[Float64[np.ndarray, " constant"], bool]:
    """The free coordinates of least squares, and whether that search came to an end.

    What is clipped has no slope, so a search may stop too early there: several start, one of them from where the curve
    without the clip fits best.
    """
    starts = curve.starts(u, f1, w)
    starts.append(_least_squares(curve, u, f1, w, starts[0], clip=False)[0])
    found = [_least_squares(curve, u, f1, w, start) for start in starts]
    squares = [float(w @ (_f1(curve, free, u) - f1) ** 2) for free, _ in found]
    return found[int(np.argmin(squares))]


def _least_squares(
    curve: Curve,
    u: Float64[np.ndarray, " point"],
    f1: Float64[np.ndarray, " point"],
    w: Float64[np.ndarray, " point"],
    start: Float64[np.ndarray, " constant"],
    *,
    clip: bool = True,
) -> tuple[Float64[np.ndarray, " constant"], bool]:
    """Free coordinates, and whether the search came to an end: along a valley of equally good laws it does not."""
    from scipy.optimize import least_squares

    # The scale of each constant is fixed at the start: one that follows the Jacobian breaks down where a column of it
    # vanishes.
    size = np.maximum(np.abs(start), 1e-3)
    given = {"args": (curve, u, f1, np.sqrt(w), clip), "x_scale": size, "max_nfev": _STEPS}
    found = least_squares(_differences, start, _weighted_jacobian, method="lm", **given)
    finite = bool(np.isfinite(found.x).all())
    return np.asarray(found.x if finite else start), finite and found.status > 0


def _differences(
    free: np.ndarray, curve: Curve, u: np.ndarray, f1: np.ndarray, root: np.ndarray, clip: bool
) -> np.ndarray:
    law = curve.f1(curve.from_free(free, 1.0)[0], u)
    return np.asarray(root * ((clipped(law) if clip else law) - f1))


def _weighted_jacobian(
    free: np.ndarray, curve: Curve, u: np.ndarray, _: np.ndarray, root: np.ndarray, clip: bool = True
) -> np.ndarray:
    law = curve.f1(curve.from_free(free, 1.0)[0], u)
    moves = (law >= 0.5 - _AT_THE_CLIP) & (law <= 1 + _AT_THE_CLIP) if clip else np.ones(len(u), bool)
    return np.asarray((root * moves)[:, None] * curve.jacobian(free, u))


def _degenerate(jacobian: Float64[np.ndarray, "point constant"], ended: bool) -> str:
    length = np.linalg.norm(jacobian, axis=0)
    if not (np.isfinite(length).all() and (length > 0).all()):
        return f"at the solution F1 does not depend on all {len(length)} constants"
    if not ended or np.linalg.cond(jacobian / length) > _ILL_CONDITIONED:
        return "the points see one end of the curve only, where a change of one constant makes up for another's"
    return ""


def _without_effect(
    f1: Float64[np.ndarray, " point"], w: Float64[np.ndarray, " point"], squares: float, n_constants: int
) -> str:
    from scipy.special import fdtrc

    flat = float(w @ (f1 - w @ f1 / w.sum()) ** 2)
    df = len(f1) - n_constants
    statistic = (flat - squares) / (n_constants - 1) / max(squares / df, 1e-300)
    if statistic > 0 and fdtrc(n_constants - 1, df, statistic) < _NO_EFFECT:
        return ""
    return f"F1 (mean {w @ f1 / w.sum():.3f}) does not change with the ratio by more than its scatter"


def _undetermined(
    curve: Curve,
    constants: Float64[np.ndarray, " constant"],
    covariance: Float64[np.ndarray, "constant constant"],
    df: int,
) -> str:
    """Why a constant may be 0 that makes it no law at all; empty where their intervals exclude 0.

    Where they hold 0, the linearisation that made the intervals does not hold. c3, the place of the fall, may be 0.
    """
    from scipy.special import stdtrit

    half = stdtrit(df, 0.975) * np.sqrt(np.diag(covariance))
    needed = zip(curve.names, constants, half, strict=True)
    open_ended = [name for name, c, h in needed if name != "c3" and not abs(c) > h]
    return f"the 95 % interval of {' and of '.join(open_ended)} holds 0" if open_ended else ""


def _bootstrap(
    curve: Curve,
    free: Float64[np.ndarray, " constant"],
    u: Float64[np.ndarray, " point"],
    w: Float64[np.ndarray, " point"],
    residuals: Float64[np.ndarray, " point"],
    jacobian: Float64[np.ndarray, "point constant"],
) -> Float64[np.ndarray, "constant constant"]:
    """Covariance of refits to the law plus residuals of random sign, each divided by 1 - leverage of its point."""
    leverage = (np.linalg.qr(jacobian)[0] ** 2).sum(axis=1)
    scatter = residuals / np.maximum(1 - leverage, 1e-3)  # a point of leverage 1 has no residual to speak of
    signs = np.random.default_rng(0).choice([-1.0, 1.0], (_RESAMPLES, len(u)))
    law = _f1(curve, free, u)
    refits = np.array([_least_squares(curve, u, law + scatter * sign, w, free)[0] for sign in signs])
    # Few refits run away along a valley, and their squares would drown all others: those beyond 4 standard deviations
    # are left out, of which a normal has 0.006 %. 15.87 and 84.13 % are one standard deviation either side of the
    # middle.
    low, middle, high = np.quantile(refits, [0.1587, 0.5, 0.8413], axis=0)
    near = refits[(np.abs(refits - middle) <= 2 * (high - low)).all(axis=1)]
    return np.asarray(np.cov(near.T))
