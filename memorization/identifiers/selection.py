"""Which of many e-values or p-values count as discoveries: false discovery rates."""

import numpy as np
from jaxtyping import Float64

__all__ = ["q_of_e_values", "q_of_p_values"]


def q_of_e_values(log2_e: Float64[np.ndarray, " test"]) -> Float64[np.ndarray, " test"]:
    """The lowest false discovery rate at which e-BH selects each test; 1 at the most, and for NaN.

    Args:
        log2_e: base-2 logarithms of e-values, under any dependence.

    Examples:
        >>> q_of_e_values(np.array([10.0, 5.0, -3.0])).round(3).tolist()
        [0.003, 0.047, 1.0]

    Source:
        Wang and Ramdas, "False discovery rate control with e-values", arXiv:2009.02824.
    """
    return _stepped_up(-np.nan_to_num(log2_e, nan=-np.inf, neginf=-np.inf))


def q_of_p_values(p_values: Float64[np.ndarray, " test"]) -> Float64[np.ndarray, " test"]:
    """The lowest false discovery rate at which Benjamini and Hochberg's procedure selects each test; 1 for NaN.

    Examples:
        >>> q_of_p_values(np.array([0.01, 0.04, 0.9])).round(3).tolist()
        [0.03, 0.06, 0.9]
    """
    with np.errstate(divide="ignore"):
        return _stepped_up(np.log2(np.nan_to_num(p_values, nan=1.0)))


def _stepped_up(log2_p: np.ndarray) -> Float64[np.ndarray, " test"]:
    """min over k >= rank of n p_(k) / k, from base-2 logarithms of p, which may be above 0."""
    n = len(log2_p)
    order = np.argsort(log2_p, kind="stable")
    log2_q = log2_p[order] + np.log2(n) - np.log2(np.arange(1, n + 1))
    q = np.empty(n)
    q[order] = np.exp2(np.minimum(np.minimum.accumulate(log2_q[::-1])[::-1], 0.0))
    return q
