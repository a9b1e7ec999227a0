"""The curves that F1 may follow: value, derivative, start of a fit and inverse of each form."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Float64

__all__ = ["CURVES", "Curve", "Form"]

Form = Literal["logistic", "hill", "probit"]

Constants = Float64[np.ndarray, " constant"]
Ratios = Float64[np.ndarray, "*shape"]
Points = Float64[np.ndarray, " point"]
Jacobian = Float64[np.ndarray, "point constant"]


@dataclass(frozen=True, slots=True)
class Curve:
    """One form: F1 at ratios x from constants, before it is clipped to [0.5, 1].

    A fit searches in free coordinates, which a change of the ratio's unit shifts or scales, and which may be any real
    numbers: for the logistic its constants, for the others log r0 and k.

    Attributes:
        names: of the constants, in their order.
        formula: of F1.
        f1: from constants and ratios.
        inverse: the ratio of an F1 strictly between those of ratios 0 and infinity.
        from_free: constants of free coordinates, where x was divided by `unit`, and the derivative of each constant by
            its coordinate.
        jacobian: of F1 by the free coordinates.
        starts: free coordinates from which to search.
    """

    names: tuple[str, ...]
    formula: str
    f1: Callable[[Constants, Ratios], Ratios]
    inverse: Callable[[Constants, Ratios], Ratios]
    from_free: Callable[[Constants, float], tuple[Constants, Constants]]
    jacobian: Callable[[Constants, Points], Jacobian]
    starts: Callable[[Points, Points, Points], list[Constants]]


def clipped(f1: Ratios) -> Ratios:
    """F1 as `predict` gives it."""
    return np.asarray(np.clip(f1, 0.5, 1.0))


# --- logistic: 1/2 (1 + c1 sigmoid(c2 (x + c3)))


def _logistic(c: Constants, x: Ratios) -> Ratios:
    from scipy.special import expit

    return np.asarray(0.5 * (1 + c[0] * expit(c[1] * (x + c[2]))))


def _logistic_inverse(c: Constants, f1: Ratios) -> Ratios:
    share = (2 * f1 - 1) / c[0]
    return np.asarray(np.log(share / (1 - share)) / c[1] - c[2])


def _logistic_from_free(free: Constants, unit: float) -> tuple[Constants, Constants]:
    scale = np.array([1.0, 1 / unit, unit])
    return free * scale, scale


def _logistic_jacobian(c: Constants, u: Points) -> Jacobian:
    from scipy.special import expit

    z = c[1] * (u + c[2])
    slope = c[0] * expit(z) * expit(-z)
    return np.asarray(0.5 * np.stack([expit(z), slope * (u + c[2]), slope * c[1]], axis=1))


def _logistic_starts(u: Points, f1: Points, w: Points) -> list[Constants]:
    """The best of a grid of middles and widths, by F1 as it is and by F1 clipped.

    c1 is linear given the two, so it is solved for: from all points, and from those that are not stuck at 1.
    """
    from scipy.special import expit

    places = np.unique(u)
    widths = np.geomspace(np.diff(places).min(), places[-1] - places[0], 12)
    middles = np.quantile(places, np.linspace(0, 1, 9))
    sign, width, middle = (a.ravel() for a in np.meshgrid([-1.0, 1.0], widths, middles, indexing="ij"))
    c2 = sign / width
    half = 0.5 * expit(c2[:, None] * (u - middle[:, None]))
    found = []
    for used, clip in ((w, False), (w * (f1 < 1), True)):
        c1 = half @ (used * (f1 - 0.5)) / np.maximum(half**2 @ used, 1e-300)  # a sigmoid of 0 explains nothing
        law = 0.5 + c1[:, None] * half
        best = int(np.argmin((f1 - (clipped(law) if clip else law)) ** 2 @ w))
        found.append(np.array([c1[best], c2[best], -middle[best]]))
    return found


# --- Hill and probit: F1 as a function of v = k log(x / r0)


def _of_logs(f1_at: Callable[[Ratios], Ratios]) -> Callable[[Constants, Ratios], Ratios]:
    def f1(c: Constants, x: Ratios) -> Ratios:
        with np.errstate(divide="ignore"):  # the ratio 0, whose F1 is the limit
            return f1_at(np.asarray(c[1] * (np.log(x) - np.log(c[0]))))

    return f1


def _from_logs(free: Constants, unit: float) -> tuple[Constants, Constants]:
    r0 = unit * np.exp(np.clip(free[0], -300.0, 300.0))  # a search that runs away stays a number
    return np.array([r0, free[1]]), np.array([r0, 1.0])


def _log_jacobian(slope_at: Callable[[Points], Points]) -> Callable[[Constants, Points], Jacobian]:
    def jacobian(free: Constants, u: Points) -> Jacobian:
        distance = np.log(u) - free[0]
        slope = slope_at(free[1] * distance)
        return np.asarray(np.stack([-free[1] * slope, distance * slope], axis=1))

    return jacobian


def _log_starts(f1_at: Callable[[Ratios], Ratios]) -> Callable[[Points, Points, Points], list[Constants]]:
    def starts(u: Points, f1: Points, w: Points) -> list[Constants]:
        """The best of a grid of places and exponents of either sign."""
        logs, exponents = np.log(u), np.geomspace(0.1, 20, 16)
        places = np.linspace(logs.min() - 1, logs.max() + 1, 25)
        place, k = (a.ravel() for a in np.meshgrid(places, np.concatenate([exponents, -exponents]), indexing="ij"))
        squares = (f1 - f1_at(k[:, None] * (logs - place[:, None]))) ** 2 @ w
        best = int(np.argmin(squares))
        return [np.array([place[best], k[best]])]

    return starts


def _hill(v: Ratios) -> Ratios:
    from scipy.special import expit

    return np.asarray(0.5 * (1 + expit(-v)))


def _hill_slope(v: Points) -> Points:
    from scipy.special import expit

    return np.asarray(-0.5 * expit(v) * expit(-v))


def _hill_inverse(c: Constants, f1: Ratios) -> Ratios:
    share = 2 * f1 - 1
    return np.asarray(c[0] * (1 / share - 1) ** (1 / c[1]))


def _probit(v: Ratios) -> Ratios:
    from scipy.special import ndtr

    return np.asarray(ndtr(np.exp(np.minimum(-v, 700.0))))


def _probit_slope(v: Points) -> Points:
    z = np.exp(np.minimum(-v, 300.0))  # beyond, the normal's density is 0 and its square would overflow
    return np.asarray(-z * np.exp(-0.5 * z**2) / np.sqrt(2 * np.pi))


def _probit_inverse(c: Constants, f1: Ratios) -> Ratios:
    from scipy.special import ndtri

    return np.asarray(c[0] * ndtri(f1) ** (-1 / c[1]))


CURVES: dict[Form, Curve] = {
    "logistic": Curve(
        names=("c1", "c2", "c3"),
        formula="1/2 (1 + c1 sigmoid(c2 (x + c3)))",
        f1=_logistic,
        inverse=_logistic_inverse,
        from_free=_logistic_from_free,
        jacobian=_logistic_jacobian,
        starts=_logistic_starts,
    ),
    "hill": Curve(
        names=("r0", "k"),
        formula="1/2 (1 + 1 / (1 + (x / r0)^k))",
        f1=_of_logs(_hill),
        inverse=_hill_inverse,
        from_free=_from_logs,
        jacobian=_log_jacobian(_hill_slope),
        starts=_log_starts(_hill),
    ),
    "probit": Curve(
        names=("r0", "k"),
        formula="Phi((r0 / x)^k)",
        f1=_of_logs(_probit),
        inverse=_probit_inverse,
        from_free=_from_logs,
        jacobian=_log_jacobian(_probit_slope),
        starts=_log_starts(_probit),
    ),
}
