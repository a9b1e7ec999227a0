"""Least squares of the three constants, their covariance, and whether the points determine them at all."""

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Float64

Errors = Literal["linearised", "bootstrap"]

_RESAMPLES = 400  # puts the standard error of a standard error at 4 % of it
_STEPS = 200  # of one fit; those of planted laws take under 20
_ILL_CONDITIONED = 1e6  # of a Jacobian with columns of unit length; planted laws that come back have 2 to 60
_NO_EFFECT = 0.01  # p-value of the F test from which F1 is taken to follow the ratio


@dataclass(frozen=True, slots=True, eq=False)
class FittedConstants:
    """c1, c2 and c3 of one least-squares fit, their covariance, the scatter of F1, and why not to trust them, if so."""

    constants: Float64[np.ndarray, " constant"]
    covariance: Float64[np.ndarray, "constant constant"]
    residual: float
    why_not_identified: str


def fit_constants(
    x: Float64[np.ndarray, " point"],
    f1: Float64[np.ndarray, " point"],
    weight: Float64[np.ndarray, " point"],
    errors: Errors,
) -> FittedConstants:
    """Least squares of the law at the ratios x. F1 may lie outside [0, 1]: what is fitted is the unclipped form.

    Raises:
        InputError: no fit has finite constants.
    """
    unit = float(np.median(x))  # so that the three constants are of similar size
    u, w = x / unit, weight / weight.mean()
    solution, ended = _least_squares(u, f1, w, _start(u, f1, w))
    jacobian = _weighted_jacobian(solution, u, f1, np.sqrt(w))
    residuals = f1 - f1_at(solution, u)
    squares, df = float(w @ residuals**2), len(x) - 3
    scatter = math.sqrt(squares / df)
    unknown = np.full((3, 3), np.nan)
    why = _degenerate(jacobian, ended) or _without_effect(f1, w, squares)
    covariance = unknown
    if not why:
        linearised = np.linalg.inv(jacobian.T @ jacobian) * scatter**2
        covariance = linearised if errors == "linearised" else _bootstrap(solution, u, w, residuals, jacobian)
        why = _undetermined(solution, covariance, df)
    scale = np.array([1.0, 1 / unit, unit])
    in_units = unknown if why else covariance * np.outer(scale, scale)
    return FittedConstants(solution * scale, in_units, scatter, why)


def f1_at(
    constants: Float64[np.ndarray, " constant"], x: Float64[np.ndarray, "*shape"]
) -> Float64[np.ndarray, "*shape"]:
    """F1 at the ratios x, not clipped."""
    from scipy.special import expit

    c1, c2, c3 = constants
    return np.asarray(0.5 * (1 + c1 * expit(c2 * (x + c3))))


def _jacobian(
    c: Float64[np.ndarray, " constant"], u: Float64[np.ndarray, " point"]
) -> Float64[np.ndarray, "point constant"]:
    from scipy.special import expit

    z = c[1] * (u + c[2])
    slope = c[0] * expit(z) * expit(-z)
    return np.asarray(0.5 * np.stack([expit(z), slope * (u + c[2]), slope * c[1]], axis=1))


def _start(
    u: Float64[np.ndarray, " point"], f1: Float64[np.ndarray, " point"], w: Float64[np.ndarray, " point"]
) -> Float64[np.ndarray, " constant"]:
    """The best of a grid of middles and widths; c1 is linear given the two, so it is solved for."""
    from scipy.special import expit

    places = np.unique(u)
    widths = np.geomspace(np.diff(places).min(), places[-1] - places[0], 12)
    middles = np.quantile(places, np.linspace(0, 1, 9))
    sign, width, middle = (a.ravel() for a in np.meshgrid([-1.0, 1.0], widths, middles, indexing="ij"))
    c2 = sign / width
    half = 0.5 * expit(c2[:, None] * (u - middle[:, None]))
    c1 = half @ (w * (f1 - 0.5)) / np.maximum(half**2 @ w, 1e-300)  # a sigmoid of 0 everywhere explains nothing
    squares = (f1 - 0.5 - c1[:, None] * half) ** 2 @ w
    best = int(np.argmin(squares))
    return np.array([c1[best], c2[best], -middle[best]])


def _least_squares(
    u: Float64[np.ndarray, " point"],
    f1: Float64[np.ndarray, " point"],
    w: Float64[np.ndarray, " point"],
    start: Float64[np.ndarray, " constant"],
) -> tuple[Float64[np.ndarray, " constant"], bool]:
    """The constants, and whether the search came to an end: along a valley of equally good laws it does not."""
    from scipy.optimize import least_squares

    # The scale of each constant is fixed at the start: one that follows the Jacobian breaks down where a column of it
    # vanishes.
    size = np.maximum(np.abs(start), 1e-3)
    given = {"args": (u, f1, np.sqrt(w)), "x_scale": size, "max_nfev": _STEPS}
    found = least_squares(_differences, start, _weighted_jacobian, method="lm", **given)
    finite = bool(np.isfinite(found.x).all())
    return np.asarray(found.x if finite else start), finite and found.status > 0


def _differences(c: np.ndarray, u: np.ndarray, f1: np.ndarray, root: np.ndarray) -> np.ndarray:
    return np.asarray(root * (f1_at(c, u) - f1))


def _weighted_jacobian(c: np.ndarray, u: np.ndarray, _: np.ndarray, root: np.ndarray) -> np.ndarray:
    return np.asarray(root[:, None] * _jacobian(c, u))


def _degenerate(jacobian: Float64[np.ndarray, "point constant"], ended: bool) -> str:
    length = np.linalg.norm(jacobian, axis=0)
    if not (np.isfinite(length).all() and (length > 0).all()):
        return "at the solution F1 does not depend on all three constants"
    if not ended or np.linalg.cond(jacobian / length) > _ILL_CONDITIONED:
        return "the points see one end of the curve only, where a change of one constant makes up for another's"
    return ""


def _without_effect(f1: Float64[np.ndarray, " point"], w: Float64[np.ndarray, " point"], squares: float) -> str:
    from scipy.special import fdtrc

    flat = float(w @ (f1 - w @ f1 / w.sum()) ** 2)
    df = len(f1) - 3
    statistic = (flat - squares) / 2 / max(squares / df, 1e-300)
    if statistic > 0 and fdtrc(2, df, statistic) < _NO_EFFECT:
        return ""
    return f"F1 (mean {w @ f1 / w.sum():.3f}) does not change with the ratio by more than its scatter"


def _undetermined(
    constants: Float64[np.ndarray, " constant"], covariance: Float64[np.ndarray, "constant constant"], df: int
) -> str:
    """Why c1 or c2 may be 0, which would be no law at all; empty where their intervals exclude 0.

    Where they hold 0, the linearisation that made the intervals does not hold.
    """
    from scipy.special import stdtrit

    half = stdtrit(df, 0.975) * np.sqrt(np.diag(covariance))
    open_ended = [name for name, c, h in zip(("c1", "c2"), constants, half, strict=False) if not abs(c) > h]
    return f"the 95 % interval of {' and of '.join(open_ended)} holds 0" if open_ended else ""


def _bootstrap(
    constants: Float64[np.ndarray, " constant"],
    u: Float64[np.ndarray, " point"],
    w: Float64[np.ndarray, " point"],
    residuals: Float64[np.ndarray, " point"],
    jacobian: Float64[np.ndarray, "point constant"],
) -> Float64[np.ndarray, "constant constant"]:
    """Covariance of refits to the law plus residuals of random sign, each divided by 1 - leverage of its point."""
    leverage = (np.linalg.qr(jacobian)[0] ** 2).sum(axis=1)
    free = residuals / np.maximum(1 - leverage, 1e-3)  # a point of leverage 1 has no residual to speak of
    signs = np.random.default_rng(0).choice([-1.0, 1.0], (_RESAMPLES, len(u)))
    law = f1_at(constants, u)
    refits = np.array([_least_squares(u, law + free * sign, w, constants)[0] for sign in signs])
    # Few refits run away along a valley, and their squares would drown all others: those beyond 4 standard deviations
    # are left out, of which a normal has 0.006 %. 15.87 and 84.13 % are one standard deviation either side of the
    # middle.
    low, middle, high = np.quantile(refits, [0.1587, 0.5, 0.8413], axis=0)
    near = refits[(np.abs(refits - middle) <= 2 * (high - low)).all(axis=1)]
    return np.asarray(np.cov(near.T))
