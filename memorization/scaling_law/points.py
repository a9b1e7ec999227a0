"""The points of a fit: columns checked, and the ratio that the law is about."""

from typing import Literal

import numpy as np
from jaxtyping import Float64

from memorization.errors import InputError
from memorization.stats.arrays import ArrayLike

Covariate = Literal["data/capacity", "capacity/data"]

_BEYOND = 0.1  # F1 simulated from the published law, which reaches 1.006, lies above 1 by as much and its scatter


def ratios_of(
    capacity: Float64[np.ndarray, "*shape"], dataset_size: Float64[np.ndarray, "*other"], covariate: Covariate
) -> Float64[np.ndarray, "*common"]:
    """x of the law."""
    return np.asarray(dataset_size / capacity if covariate == "data/capacity" else capacity / dataset_size)


def sizes_of(name: str, values: ArrayLike) -> Float64[np.ndarray, "*shape"]:
    """Sizes as float64, finite and above 0."""
    sizes = numbers_of(name, values)
    wrong = np.flatnonzero(~(np.isfinite(sizes) & (sizes > 0)))
    if len(wrong):
        raise InputError(
            f"{name} must be finite and above 0; row {wrong[0]} is {sizes.flat[wrong[0]]:g} ({len(wrong)} such)."
        )
    return sizes


def numbers_of(name: str, values: ArrayLike) -> Float64[np.ndarray, "*shape"]:
    """Anything array-like as float64."""
    try:
        return np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise InputError(f"{name} must be numbers: {error}.") from error


def read_points(
    capacity: ArrayLike,
    dataset_size: ArrayLike,
    f1: ArrayLike,
    weights: ArrayLike | None,
    n_evaluated: ArrayLike | None,
) -> "dict[str, Float64[np.ndarray, ' point']]":
    """The columns of the points, checked."""
    share = numbers_of("f1", f1)
    columns = {"capacity": sizes_of("capacity", capacity), "dataset_size": sizes_of("dataset_size", dataset_size)}
    columns |= {"f1": share, "weight": np.ones(share.shape) if weights is None else sizes_of("weights", weights)}
    if n_evaluated is not None:
        columns["n_evaluated"] = sizes_of("n_evaluated", n_evaluated)
    for name in ("capacity", "n_evaluated"):
        if name in columns and columns[name].ndim == 0:
            columns[name] = np.full(share.shape, columns[name])
    for name, column in columns.items():
        if column.ndim != 1 or len(column) != share.size:
            raise InputError(
                f"all columns are flat, one entry a trained model: f1 has {share.size}, {name} has the shape "
                f"{list(column.shape)}."
            )
    wrong = np.flatnonzero(~((share >= -_BEYOND) & (share <= 1 + _BEYOND)))
    if len(wrong):
        raise InputError(
            f"f1 must lie in [0, 1], or within {_BEYOND:g} of it if simulated; row {wrong[0]} is {share[wrong[0]]:g} "
            f"({len(wrong)} such). Are these percent, or runs that failed?"
        )
    few = np.flatnonzero(columns.get("n_evaluated", np.array([2.0])) < 2)
    if len(few):
        raise InputError(
            f"n_evaluated counts the members and non-members that F1 was measured on, so it is 2 or more; row {few[0]} "
            f"is {columns['n_evaluated'][few[0]]:g} ({len(few)} such)."
        )
    return columns


def check_points(x: Float64[np.ndarray, " point"], f1: Float64[np.ndarray, " point"], n_constants: int) -> None:
    """Refuse points that so many constants cannot be fitted to."""
    in_words = {2: "two", 3: "three"}[n_constants]
    if len(x) < n_constants + 1:
        raise InputError(
            f"the law has {in_words} constants and a scatter, which takes at least {n_constants + 1} points; there are "
            f"{len(x)}."
        )
    n_ratios = len(np.unique(x))
    if n_ratios < n_constants:
        raise InputError(
            f"the law needs at least {n_constants} different ratios of data-set size and capacity; these {len(x)} "
            f"points have {n_ratios}."
        )
    if np.ptp(f1) < 1e-12:
        raise InputError(
            f"F1 is {f1[0]:g} at every point, so there is no fall to fit. Add "
            + ("smaller" if f1[0] < 0.75 else "larger")
            + " data sets, or models of another size."
        )
