"""The estimators: the capacity of each model size from its runs, and the weighted sum of these with its error."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float64, Int64

from memorization.capacity.runs import Estimator
from memorization.errors import InputError
from memorization.results import counted

# A set that holds less than this many times what a model memorized may be what limits it, not the model: at data bits
# near capacity the measured bits fall about 10 % short (arXiv:2505.24832, section 3).
PLATEAU_INFORMATION = 1.25
_NEAR_MAXIMUM = 0.1  # the same 10 %: data-set sizes of which noise decides which is the maximum
_TIED = 3.0  # standard errors: four equal means lie further apart in under 2 % of cases
_BIAS_DRAWS = 4_000  # puts the standard error of a simulated bias below 2 % of it
_RATIO_DRAWS = 40_000  # puts the coverage of a 95 % interval within 0.2 % of it

RULES = {
    "given": "the mean of its rows, each a maximum as given",
    "maximum": "its maximum over data-set sizes",
    "plateau": "its mean over the data-set sizes on the plateau",
}


@dataclass(frozen=True, slots=True)
class Cells:
    """The runs of one model size by data-set size: mean and squared deviations of memorized bits over the seeds."""

    n_samples: Float64[np.ndarray, " cell"]
    n_runs: Int64[np.ndarray, " cell"]
    mean_bits: Float64[np.ndarray, " cell"]
    squares: Float64[np.ndarray, " cell"]
    on_plateau: Bool[np.ndarray, " cell"]


@dataclass(frozen=True, slots=True)
class Held:
    """Capacity of one model size in bits, and what its own runs say of the error."""

    bits: float
    stderr_bits: float
    df: int


def cells_of(runs: "Mapping[str, np.ndarray]", of_size: np.ndarray, ceiling_bits: np.ndarray) -> Cells:
    """The runs of one model size, grouped by data-set size."""
    bits = runs["memorized_bits"][of_size]
    # Unknown numbers of samples, all NaN, are one cell.
    n_samples, first, cell, n_runs = np.unique(
        runs["n_samples"][of_size], return_index=True, return_inverse=True, return_counts=True
    )
    # Added in an order of their own, so that the order of the rows moves no last digit.
    order = np.argsort(bits)
    mean = np.bincount(cell[order], bits[order]) / n_runs
    squares = np.bincount(cell[order], (bits - mean[cell])[order] ** 2)
    on_plateau = ceiling_bits[of_size][first] >= PLATEAU_INFORMATION * mean.max()
    return Cells(n_samples, n_runs, mean, squares, on_plateau)


def capacity_rule(
    groups: list[Cells], sizes: np.ndarray, estimator: Estimator, seq_len: int | None, vocab_size: int | None
) -> Literal["given", "maximum", "plateau"]:
    """How a size's capacity is computed from its runs: one rule for all sizes."""
    given = bool(np.isnan(groups[0].n_samples).all())
    if estimator == "plateau" and (given or seq_len is None or vocab_size is None):
        raise InputError(
            'estimator "plateau" must know the information in each data set: pass n_samples, seq_len and vocab_size, '
            'or take "mean".'
        )
    if given:
        return "given"
    if estimator == "max":
        return "maximum"
    short = [m for m, cells in enumerate(groups) if cells.on_plateau.sum() < 2]
    if not short:
        return "plateau"
    if estimator != "plateau":
        return "maximum"
    assert seq_len is not None
    assert vocab_size is not None
    cells, size = groups[short[0]], sizes[short[0]]
    needed = PLATEAU_INFORMATION * float(cells.mean_bits.max())
    least = math.ceil(needed / (seq_len * math.log2(vocab_size)))
    there = ", ".join(f"{n:,.0f}" for n in cells.n_samples)
    raise InputError(
        f'estimator "plateau" needs two data-set sizes for each model size that hold at least {needed:,.0f} bits '
        f"(1.25 x the largest mean of memorized bits); the model of {size:,} parameters has {cells.on_plateau.sum()}, "
        f"with n_samples {there}. Add runs of more than "
        f'{counted(least, "sample")}, or take estimator "max".'
    )


def plateau_capacity(cells: Cells) -> Held:
    """The mean over the data-set sizes on the plateau."""
    on = cells.on_plateau
    means, n_runs = cells.mean_bits[on], cells.n_runs[on]
    bits = float(means.mean())
    df = int(n_runs.sum()) - 1
    variance = float(cells.squares[on].sum() + n_runs @ (means - bits) ** 2) / df
    return Held(bits, math.sqrt(variance * float((1 / n_runs).sum())) / len(means), df)


def largest_capacity(cells: Cells) -> Held:
    """The largest mean over seeds of any data-set size."""
    best = int(np.argmax(cells.mean_bits))
    near = _near_maximum(cells)
    df = int((cells.n_runs[near] - 1).sum())
    variance = float(cells.squares[near].sum()) / df if df else math.nan
    return Held(float(cells.mean_bits[best]), math.sqrt(variance / cells.n_runs[best]), df)


def _near_maximum(cells: Cells) -> Bool[np.ndarray, " cell"]:
    """The data-set sizes whose mean is so close to the maximum that noise decides which it is.

    A data set whose information is the limit, where known, scatters less.
    """
    top = cells.mean_bits.max()
    near = cells.mean_bits >= top - _NEAR_MAXIMUM * abs(top)
    return near & cells.on_plateau | (cells.mean_bits == top) if cells.on_plateau.any() else near


def bias_bits_of_maxima(groups: list[Cells], params: Float64[np.ndarray, " size"]) -> Float64[np.ndarray, " size"]:
    """Expected excess of each size's maximum of noisy means, by a parametric bootstrap.

    Means of the data-set sizes that compete are shrunk by the share of their variance that is noise, then drawn with
    the noise between seeds of all sizes. The documentation's page on capacity says why.
    """
    near = [_near_maximum(cells) for cells in groups]
    squares = sum(float(cells.squares[k].sum()) / p**2 for cells, k, p in zip(groups, near, params, strict=True))
    df = sum(int((cells.n_runs[k] - 1).sum()) for cells, k in zip(groups, near, strict=True))
    variance = squares / df if df else math.nan
    means, runs = [], []
    for cells, k, p in zip(groups, near, params, strict=True):
        best = int(np.argmax(cells.mean_bits))
        reach = _TIED * p * np.sqrt(variance * (1 / cells.n_runs + 1 / cells.n_runs[best]))
        tied = k & ~(cells.mean_bits[best] - cells.mean_bits > reach)
        means.append(cells.mean_bits[tied] / p)
        runs.append(cells.n_runs[tied])
    observed = sum(float(((mean - mean.mean()) ** 2).sum()) for mean in means)
    expected = variance * sum(float((1 / n).sum()) * (1 - 1 / len(n)) for n in runs)
    signal = max(0.0, 1 - expected / observed) if observed > 0 else 0.0
    draws = np.random.default_rng(0)
    bias = np.zeros(len(groups))
    for m, (cells, mean, n) in enumerate(zip(groups, means, runs, strict=True)):
        if len(cells.mean_bits) > 1:  # otherwise no maximum was taken
            centres = signal * (mean - mean.mean())
            noise = draws.standard_normal((_BIAS_DRAWS, len(mean))) * np.sqrt(variance / n)
            # The noise of the largest has mean 0: taking it off leaves less error of the simulation, and no bias below
            # 0.
            bias[m] = ((centres + noise).max(axis=1) - (centres + noise)[:, np.argmax(centres)]).mean()
    return bias * params


def weights_of(params: Float64[np.ndarray, " size"], estimator: Estimator) -> Float64[np.ndarray, " size"]:
    """The weight of each capacity in the estimate, which is their weighted sum."""
    if estimator == "slope":
        return slope_weights(params)
    if estimator == "slope_origin":
        return np.asarray(params / (params @ params))
    return 1 / (len(params) * params)


def slope_weights(x: Float64[np.ndarray, " size"]) -> Float64[np.ndarray, " size"]:
    """The weight of each y in the least-squares slope over x."""
    centred = x - x.mean()
    return np.asarray(centred / (centred @ centred))


def _basis(params: Float64[np.ndarray, " size"], estimator: Estimator) -> Float64[np.ndarray, "size column"]:
    """The regressors of bits per parameter, on which each capacity has equal noise: a constant, and intercept / P."""
    constant, intercept = np.ones_like(params), params.min() / params
    columns = [constant, intercept] if estimator == "slope" else [constant]
    return np.asarray(np.linalg.qr(np.stack(columns, axis=1))[0])


def stderr_over_sizes(
    capacity_bits: Float64[np.ndarray, " size"], params: Float64[np.ndarray, " size"], estimator: Estimator
) -> float:
    """Standard error of the weighted sum of capacities, from the residuals of bits per parameter."""
    basis, ratios = _basis(params, estimator), capacity_bits / params
    residuals = ratios - basis @ (basis.T @ ratios)
    noise = float(np.linalg.norm(residuals)) / math.sqrt(len(params) - basis.shape[1])
    return noise * float(np.linalg.norm(weights_of(params, estimator) * params))


@lru_cache(maxsize=16)  # a simulation study asks for the same again and again
def error_quantile(params: tuple[float, ...], estimator: Estimator, level: float) -> float:
    """Half the width of the interval in standard errors."""
    sizes = np.array(params)
    basis, effect = _basis(sizes, estimator), weights_of(sizes, estimator) * sizes
    df = len(sizes) - basis.shape[1]
    if estimator not in ("slope", "slope_origin"):
        return t_quantile(df, level)
    # Ordinary least squares under noise that grows with P is not independent of the weighted residuals. So its ratio to
    # the error is not Student's (whose 95 % interval covers 97.5 %), but the ratio's distribution depends on the
    # parameters alone.
    noise = np.random.default_rng(0).standard_normal((_RATIO_DRAWS, len(sizes)))
    residuals = noise - (noise @ basis) @ basis.T
    ratio = (noise @ effect) / (np.linalg.norm(residuals, axis=1) / math.sqrt(df) * np.linalg.norm(effect))
    return float(np.quantile(np.abs(ratio), level))


def t_quantile(df: int, level: float) -> float:
    """Half the width of a t interval in standard errors; NaN without degrees of freedom."""
    from scipy.special import stdtrit

    return float(stdtrit(df, (1 + level) / 2)) if df else math.nan
