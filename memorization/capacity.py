"""How many bits a model can hold: memorized bits of training runs to bits per parameter, by named estimators with intervals."""

import math
import os
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from jaxtyping import Bool, Float64, Int64

from memorization.errors import InputError, MeasurementWarning, ResultError
from memorization.records import read_json, read_table, versions, write_json, write_tables

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

Estimator = Literal["max", "plateau", "slope", "slope_origin", "mean"]
Convention = Literal["start", "strict", "paper"]

_ESTIMATORS = ("max", "plateau", "slope", "slope_origin", "mean")
_CONVENTIONS = ("start", "strict", "paper")
# A set that holds less than this many times what a model memorized may be what limits it, not the model: at data bits near
# capacity the measured bits fall about 10 % short (arXiv:2505.24832, section 3).
_PLATEAU_INFORMATION = 1.25
_NEAR_MAXIMUM = 0.1  # the same 10 %: data-set sizes of which noise decides which is the maximum
_TIED = 3.0  # standard errors: four equal means lie further apart in under 2 % of cases
_BIAS_DRAWS = 4_000  # puts the standard error of a simulated bias below 2 % of it
_RATIO_DRAWS = 40_000  # puts the coverage of a 95 % interval within 0.2 % of it
_FIGURES = ("bits_per_param", "stderr", "gain_per_doubling", "bias")
_FACTS = ("converged", "estimator", "convention", "seq_len", "vocab_size", "settings")
_CURVE = ("n_params", "n_samples", "seed", "steps", "memorized_bits")
_SIZES = ("n_params", "n_non_embedding_params", "capacity_bits")


@dataclass(frozen=True, slots=True, eq=False)
class Capacity:
    """Bits that models of one kind can hold per parameter, with what that number was computed from.

    Attributes:
        bits_per_param: the estimate, in bits per parameter, all embeddings counted.
        stderr: its standard error; NaN where one run a size cannot tell.
        interval: its lower and upper end, at the level that settings["interval_level"] holds; NaN with stderr.
        capacity_bits: of each model size, in bits: what settings["capacity_of_size"] says.
        n_params: of each model size, ascending.
        n_non_embedding_params: of each model size; NaN where not given.
        curve: one row a run: n_params, n_samples, seed, steps, memorized_bits; missing where not given.
        converged: whether training longer would not raise the bits; None where nobody knows, as after `fit_capacity`.
        gain_per_doubling: relative growth of bits per parameter over the last doubling of training steps; NaN where unknown.
        estimator: "max", "plateau", "slope", "slope_origin" or "mean"; see `fit_capacity`.
        convention: which tokens' bits were counted: "start", "strict" or "paper"; see `information_ceiling_bits`.
        bias: bits per parameter by which taking maxima over noisy means overstates the estimate, by simulation; not subtracted. 0 where
            no maximum was taken, NaN where one was and the noise is unknown.
        seq_len: tokens of a sample; None where not given.
        vocab_size: None where not given.
        settings: what was decided for the caller.
    """

    bits_per_param: float
    stderr: float
    interval: tuple[float, float]
    capacity_bits: Float64[np.ndarray, " size"]
    n_params: Int64[np.ndarray, " size"]
    n_non_embedding_params: Float64[np.ndarray, " size"]
    curve: "pd.DataFrame"
    converged: bool | None
    gain_per_doubling: float
    estimator: Estimator
    convention: Convention
    bias: float = math.nan
    seq_len: int | None = None
    vocab_size: int | None = None
    settings: dict[str, Any] = field(default_factory=dict)

    @property
    def scatter(self) -> float:
        """Standard deviation of bits per parameter between model sizes, relative to their mean; NaN for one size."""
        ratios = self.capacity_bits / self.n_params
        return float(ratios.std(ddof=1) / ratios.mean()) if len(ratios) > 1 else math.nan

    def exponent(self) -> tuple[float, tuple[float, float]]:
        """Exponent b of capacity = a x parameters^b, with its t interval, by least squares of the logarithms.

        1 where every parameter holds the same number of bits. NaN for fewer than three model sizes, or a capacity that is not positive.
        """
        if len(self.n_params) < 3 or self.capacity_bits.min() <= 0:
            return math.nan, (math.nan, math.nan)
        log_params, log_bits = np.log(self.n_params), np.log(self.capacity_bits)
        weights = _slope_weights(log_params)
        exponent = float(weights @ log_bits)
        residuals = log_bits - log_bits.mean() - exponent * (log_params - log_params.mean())
        df = len(log_bits) - 2
        stderr = math.sqrt(residuals @ residuals / df * (weights @ weights))
        half = _t_quantile(df, self.settings.get("interval_level", 0.95)) * stderr
        return exponent, (exponent - half, exponent + half)

    def to_pandas(self) -> "pd.DataFrame":
        """One row a model size: both counts of parameters, capacity in bits, and bits per parameter of either count."""
        import pandas as pd

        rest = np.where(self.n_non_embedding_params > 0, self.n_non_embedding_params, np.nan)
        return pd.DataFrame(
            {
                "n_params": self.n_params,
                "n_non_embedding_params": self.n_non_embedding_params,
                "capacity_bits": self.capacity_bits,
                "bits_per_param": self.capacity_bits / self.n_params,
                "bits_per_non_embedding_param": self.capacity_bits / rest,
            }
        )

    def save(self, folder: str | os.PathLike[str]) -> None:
        """Write a folder: capacity.parquet (a row a model size), curve.parquet (a row a run), settings.json (the rest)."""
        folder = Path(folder)
        write_tables(folder, {"capacity": self.to_pandas(), "curve": self.curve})
        figures: dict[str, Any] = {name: _none_for_nan(getattr(self, name)) for name in _FIGURES}
        figures["interval"] = [_none_for_nan(end) for end in self.interval]
        write_json(folder / "settings.json", "Capacity", {**figures, **{name: getattr(self, name) for name in _FACTS}})

    @classmethod
    def load(cls, folder: str | os.PathLike[str]) -> "Capacity":
        """Read what `save` wrote.

        Raises:
            ResultError: the folder holds no Capacity, or a damaged one.
        """
        folder = Path(folder)
        saved = read_json(folder / "settings.json", "Capacity")
        missing = {*_FIGURES, *_FACTS, "interval"} - set(saved)
        if missing:
            raise ResultError(f"{folder} is damaged: settings.json lacks {', '.join(sorted(missing))}")
        sizes, curve = read_table(folder, "capacity", _SIZES), read_table(folder, "curve", _CURVE)
        if set(sizes["n_params"]) != set(curve["n_params"]):
            raise ResultError(f"{folder} is damaged: its tables hold different model sizes")
        low, high = (_nan_for_none(end) for end in saved["interval"])
        return cls(
            interval=(low, high),
            capacity_bits=sizes["capacity_bits"].to_numpy(np.float64),
            n_params=sizes["n_params"].to_numpy(np.int64),
            n_non_embedding_params=sizes["n_non_embedding_params"].to_numpy(np.float64),
            curve=curve,
            **{name: _nan_for_none(saved[name]) for name in _FIGURES},
            **{name: saved[name] for name in _FACTS},
        )

    def plot(self, ax: "Axes | None" = None) -> "Axes":
        """Memorized bits against data-set size, a line a model size; see `memorization.report.plots.plot_capacity`."""
        from memorization.report.plots import plot_capacity

        return plot_capacity(self, ax)

    def __repr__(self) -> str:
        level = f"{100 * self.settings.get('interval_level', 0.95):g} % interval"
        interval = f"[{self.interval[0]:.4g}, {self.interval[1]:.4g}]"
        known = f"{self.stderr:.2g}; {level} {interval}"
        sizes = self.to_pandas()
        lines = [
            f"Capacity {self.bits_per_param:.4g} bits per parameter ({len(sizes)} model sizes, {len(self.curve):,} runs)",
            f"  estimator    {self.estimator}; a size's capacity is {self.settings.get('capacity_of_size', 'not recorded')}",
            f"  convention   {self.convention}",
            f"  stderr       {'unknown: too few runs to tell' if math.isnan(self.stderr) else known}",
        ]
        if self.bias != 0:
            bias = "unknown" if math.isnan(self.bias) else f"{self.bias:+.2g} bits per parameter, not subtracted"
            lines.append(f"  bias         {bias}: a maximum over noisy means is too high")
        lines += [f"  convergence  {self.convergence}"]
        exponent, (low, high) = self.exponent()
        if not math.isnan(exponent):
            lines.append(f"  exponent     {exponent:.3f} [{low:.3f}, {high:.3f}] of capacity in parameters")
        lines.append(
            f"{'n_params':>14}{'non-embedding':>15}{'capacity_bits':>15}{'bits/param':>12}{'bits/non-emb.':>15}"
        )
        for n_params, rest, bits, per_param, per_rest in sizes.itertuples(index=False):
            known_rest = ("unknown", "unknown") if math.isnan(rest) else (f"{rest:,.0f}", f"{per_rest:.3f}")
            lines.append(f"{n_params:>14,}{known_rest[0]:>15}{bits:>15,.0f}{per_param:>12.3f}{known_rest[1]:>15}")
        return "\n".join(lines)

    @property
    def convergence(self) -> str:
        """What is known of whether longer training would raise the bits, in words."""
        growth = (
            "" if math.isnan(self.gain_per_doubling) else f" {100 * self.gain_per_doubling:.1f} % per doubling of steps"
        )
        if self.converged is None:
            return "unknown: an undertrained model looks like one of low capacity"
        if self.converged:
            return f"converged:{growth}" if growth else "converged"
        return (
            f"lower bound: memorized bits still grow{growth}" if growth else "lower bound: training had not converged"
        )


def information_ceiling_bits(
    n_samples: Any, seq_len: int, vocab_size: int, convention: Convention = "start"
) -> Float64[np.ndarray, "*shape"]:
    """Bits that a model can hold at most of n_samples distinct uniform random samples, whatever its size.

    A model spends at least the entropy of the samples' empirical distribution on each, log2 N bits for N distinct ones (the order of the
    samples cannot be stored), so of their N S log2 V bits it saves at most N (S log2 V - log2 N). Duplicates have less entropy
    and raise the ceiling. The floor is 0, for more samples than there are different ones.

    Args:
        n_samples: samples of the data set, one or many.
        seq_len: S, tokens of a sample.
        vocab_size: V.
        convention: "start" counts all S tokens. "strict" leaves out each first token and so what it saves at least: with H1 the entropy of
            the empirical first tokens, the ceiling is N ((S - 1) log2 V - log2 N + H1). No data are at hand, so H1 is replaced by
            its bound min(log2 V, log2 N), which makes it the smaller of the `start` ceiling and N (S - 1) log2 V. "paper" is strict
            x S / (S - 1): it may exceed the information there is in the samples.

    Returns:
        Bits, float64, in the shape of n_samples.

    Raises:
        InputError: seq_len, vocab_size, convention or a number of samples that cannot be.

    Examples:
        >>> float(information_ceiling_bits(8, seq_len=4, vocab_size=2))  # 8 x (4 - 3)
        8.0

    Source:
        arXiv:2505.24832, section 3.1; the ceiling is Gibbs' inequality.
    """
    _check_protocol(seq_len, vocab_size, convention)
    samples = np.asarray(n_samples, dtype=np.float64)
    if not (np.isfinite(samples).all() and (samples >= 1).all()):
        raise InputError(f"n_samples must be at least 1 everywhere; it is {n_samples!r}")
    sample_bits = seq_len * math.log2(vocab_size)
    start = np.asarray(samples * np.maximum(sample_bits - np.log2(samples), 0.0))
    if convention == "start":
        return start
    strict = np.minimum(start, samples * (seq_len - 1) * math.log2(vocab_size))
    return np.asarray(strict if convention == "strict" else strict * seq_len / (seq_len - 1))


def fit_capacity(
    n_params: Any,
    memorized_bits: Any,
    *,
    n_samples: Any = None,
    seed: Any = None,
    n_non_embedding_params: Any = None,
    seq_len: int | None = None,
    vocab_size: int | None = None,
    estimator: Estimator = "max",
    convention: Convention = "start",
    interval: float = 0.95,
) -> Capacity:
    """Bits per parameter from the memorized bits of training runs, one row a run.

    Each model size first gets one capacity. With n_samples=None: the mean of its rows, each a maximum already. For `max`: the
    maximum over data-set sizes of the mean over seeds. Otherwise: the mean over the data-set sizes on the plateau, those whose
    information (`information_ceiling_bits`) is at least 1.25 times the largest mean of memorized bits. `slope`, `slope_origin` and
    `mean` fall back to the maximum for all sizes where one has fewer than two data-set sizes on its plateau, or seq_len, vocab_size are
    not given; settings["capacity_of_size"] says which it was.

    The noise of a capacity grows with the model: bits per parameter scatter alike at all sizes. So the standard errors of all estimators,
    each a weighted sum of capacities, are taken from residuals weighted by 1 / parameters; the usual ones of a slope are too small.
    Intervals are t intervals; those of a slope take the quantile of the ratio by simulation, as Student's would be too wide. For one
    model size the error comes from the runs: the seeds (`max`), or all runs on the plateau.

    `bias` is a parametric bootstrap over the data-set sizes whose mean is within 10 % and three standard errors of their size's
    maximum (and on the plateau, where the information is known). Their means are shrunk towards each model size's mean by the share of
    their variance that is noise, and the excess of the maximum of noisy means over the largest is averaged over draws with a fixed seed.
    The noise is that between seeds, in bits per parameter, of all sizes. Measured means scatter more than true ones, so unshrunk the
    maximum would stand out too much and the bias come out at under half; set equal they would exaggerate it where a curve falls. In
    simulations this gives 70 to 90 % of the true excess.

    Args:
        n_params: of each run's model, all embeddings counted; equal numbers are one model size.
        memorized_bits: of each run, over its whole data set, in bits. May be negative.
        n_samples: samples of each run's data set; None where each row is already a maximum over data-set sizes.
        seed: of each run, for the table and to refuse runs given twice; None counts every row as another seed.
        n_non_embedding_params: of each run's model.
        seq_len: tokens of a sample; with vocab_size and n_samples, rows are checked against the information in the data.
        vocab_size: tokens to choose from.
        estimator: "max" and "mean" and "plateau" are the mean over model sizes of bits per parameter, of different capacities (see above);
            "slope" the least-squares slope of capacity over parameters, with intercept; "slope_origin" through the origin.
        convention: of the given numbers, which are not converted: "start" (all tokens), "strict" (first tokens left out), "paper" (strict x
            S / (S - 1)).
        interval: level of the interval.

    Returns:
        The estimate with its standard error, interval and bias; NaN where the rows cannot tell.

    Raises:
        InputError: rows or options that cannot be, or too few sizes for the estimator.

    Warns:
        MeasurementWarning: a run has more bits than a set of distinct samples lets a model save.

    Guarantees:
        The order of the rows does not matter. Bits times a and parameters times b give the estimate times a / b.

    Examples:
        >>> from memorization.capacity import fit_capacity
        >>> result = fit_capacity([1000, 2000, 4000], [3600, 7200, 14400], estimator="slope")
        >>> round(result.bits_per_param, 6), round(result.exponent()[0], 6)
        (3.6, 1.0)

    Source:
        arXiv:2505.24832, section 3 and table 1, whose 3.51 and 3.83 are `mean` and whose 3.64 is `slope` over the rows with d >= 64.
    """
    _check_options(estimator, convention, interval, seq_len, vocab_size)
    runs = _read_runs(n_params, memorized_bits, n_samples, seed, n_non_embedding_params)
    ceiling_bits = _ceiling_of_runs(runs, seq_len, vocab_size, convention)
    sizes, first = np.unique(runs["n_params"], return_index=True)
    if estimator == "slope" and len(sizes) < 3:
        raise InputError(
            f'estimator "slope" needs at least 3 model sizes (line and error); there are {len(sizes)}: take "slope_origin" or "mean"'
        )
    groups = [_cells(runs, runs["n_params"] == size, ceiling_bits) for size in sizes]
    rule = _capacity_rule(groups, sizes, estimator, seq_len, vocab_size)
    held = [_plateau_capacity(cells) if rule == "plateau" else _largest_capacity(cells) for cells in groups]
    capacity_bits = np.array([one.bits for one in held])
    params = sizes.astype(np.float64)
    weights = _weights(params, estimator)
    estimate = float(weights @ capacity_bits)
    if len(sizes) == 1:
        stderr, t = held[0].stderr_bits / float(params[0]), _t_quantile(held[0].df, interval)
    else:
        stderr = _stderr_over_sizes(capacity_bits, params, estimator)
        t = _error_quantile(tuple(params.tolist()), estimator, interval)
    bias = math.nan if rule == "given" else 0.0
    if rule == "maximum":
        bias = float(weights @ _bias_bits_of_maxima(groups, params))
    return Capacity(
        bits_per_param=estimate,
        stderr=stderr,
        interval=(estimate - t * stderr, estimate + t * stderr),
        capacity_bits=capacity_bits,
        n_params=sizes,
        n_non_embedding_params=runs["n_non_embedding_params"][first],
        curve=_curve(runs),
        converged=None,
        gain_per_doubling=math.nan,
        estimator=estimator,
        convention=convention,
        bias=bias,
        seq_len=seq_len,
        vocab_size=vocab_size,
        settings={"capacity_of_size": _RULES[rule], "interval_level": interval, "versions": versions()},
    )


_RULES = {
    "given": "the mean of its rows, each a maximum as given",
    "maximum": "its maximum over data-set sizes",
    "plateau": "its mean over the data-set sizes on the plateau",
}


@dataclass(frozen=True, slots=True)
class _Cells:
    """The runs of one model size by data-set size: mean and squared deviations of memorized bits over the seeds."""

    n_samples: Float64[np.ndarray, " cell"]
    n_runs: Int64[np.ndarray, " cell"]
    mean_bits: Float64[np.ndarray, " cell"]
    squares: Float64[np.ndarray, " cell"]
    on_plateau: Bool[np.ndarray, " cell"]


@dataclass(frozen=True, slots=True)
class _Held:
    """Capacity of one model size in bits, and what its own runs say of the error."""

    bits: float
    stderr_bits: float
    df: int


def _cells(runs: "Mapping[str, np.ndarray]", of_size: np.ndarray, ceiling_bits: np.ndarray) -> _Cells:
    bits = runs["memorized_bits"][of_size]
    # Unknown numbers of samples, all NaN, are one cell.
    n_samples, first, cell, n_runs = np.unique(
        runs["n_samples"][of_size], return_index=True, return_inverse=True, return_counts=True
    )
    # Added in an order of their own, so that the order of the rows moves no last digit.
    order = np.argsort(bits)
    mean = np.bincount(cell[order], bits[order]) / n_runs
    squares = np.bincount(cell[order], (bits - mean[cell])[order] ** 2)
    on_plateau = ceiling_bits[of_size][first] >= _PLATEAU_INFORMATION * mean.max()
    return _Cells(n_samples, n_runs, mean, squares, on_plateau)


def _capacity_rule(
    groups: list[_Cells], sizes: np.ndarray, estimator: Estimator, seq_len: int | None, vocab_size: int | None
) -> Literal["given", "maximum", "plateau"]:
    """What a size's capacity is, one rule for all sizes."""
    given = bool(np.isnan(groups[0].n_samples).all())
    if estimator == "plateau" and (given or seq_len is None or vocab_size is None):
        raise InputError(
            'estimator "plateau" must know the information in each data set: pass n_samples, seq_len and vocab_size, or take "mean"'
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
    needed = _PLATEAU_INFORMATION * float(cells.mean_bits.max())
    least = math.ceil(needed / (seq_len * math.log2(vocab_size)))
    there = ", ".join(f"{n:,.0f}" for n in cells.n_samples)
    raise InputError(
        f'estimator "plateau" needs two data-set sizes for each model size that hold at least {needed:,.0f} bits (1.25 x the largest mean '
        f"of memorized bits); the model of {size:,} parameters has {cells.on_plateau.sum()}, with n_samples {there}. Add runs of more than "
        f'{least:,} samples, or take estimator "max"'
    )


def _plateau_capacity(cells: _Cells) -> _Held:
    on = cells.on_plateau
    means, n_runs = cells.mean_bits[on], cells.n_runs[on]
    bits = float(means.mean())
    df = int(n_runs.sum()) - 1
    variance = float(cells.squares[on].sum() + n_runs @ (means - bits) ** 2) / df
    return _Held(bits, math.sqrt(variance * float((1 / n_runs).sum())) / len(means), df)


def _largest_capacity(cells: _Cells) -> _Held:
    best = int(np.argmax(cells.mean_bits))
    near = _near_maximum(cells)
    df = int((cells.n_runs[near] - 1).sum())
    variance = float(cells.squares[near].sum()) / df if df else math.nan
    return _Held(float(cells.mean_bits[best]), math.sqrt(variance / cells.n_runs[best]), df)


def _near_maximum(cells: _Cells) -> Bool[np.ndarray, " cell"]:
    """The data-set sizes of which noise decides which is the maximum. One that its information limits, where known, scatters less."""
    top = cells.mean_bits.max()
    near = cells.mean_bits >= top - _NEAR_MAXIMUM * abs(top)
    return near & cells.on_plateau | (cells.mean_bits == top) if cells.on_plateau.any() else near


def _bias_bits_of_maxima(groups: list[_Cells], params: Float64[np.ndarray, " size"]) -> Float64[np.ndarray, " size"]:
    """Expected excess of each size's maximum of noisy means, simulated; see `fit_capacity`."""
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
            noisy = centres + draws.standard_normal((_BIAS_DRAWS, len(mean))) * np.sqrt(variance / n)
            bias[m] = noisy.max(axis=1).mean() - centres.max()
    return bias * params


def _weights(params: Float64[np.ndarray, " size"], estimator: Estimator) -> Float64[np.ndarray, " size"]:
    """What each capacity counts in the estimate, which is their weighted sum."""
    if estimator == "slope":
        return _slope_weights(params)
    if estimator == "slope_origin":
        return np.asarray(params / (params @ params))
    return 1 / (len(params) * params)


def _slope_weights(x: Float64[np.ndarray, " size"]) -> Float64[np.ndarray, " size"]:
    centred = x - x.mean()
    return np.asarray(centred / (centred @ centred))


def _basis(params: Float64[np.ndarray, " size"], estimator: Estimator) -> Float64[np.ndarray, "size column"]:
    """What the estimator's line spans in bits per parameter, where each capacity has the same noise: a constant, and intercept / P."""
    constant, intercept = np.ones_like(params), params.min() / params
    columns = [constant, intercept] if estimator == "slope" else [constant]
    return np.asarray(np.linalg.qr(np.stack(columns, axis=1))[0])


def _stderr_over_sizes(
    capacity_bits: Float64[np.ndarray, " size"], params: Float64[np.ndarray, " size"], estimator: Estimator
) -> float:
    """Standard error of the weighted sum of capacities, from the residuals of bits per parameter."""
    basis, ratios = _basis(params, estimator), capacity_bits / params
    residuals = ratios - basis @ (basis.T @ ratios)
    noise = float(np.linalg.norm(residuals)) / math.sqrt(len(params) - basis.shape[1])
    return noise * float(np.linalg.norm(_weights(params, estimator) * params))


@lru_cache(maxsize=16)  # a simulation study asks for the same again and again
def _error_quantile(params: tuple[float, ...], estimator: Estimator, level: float) -> float:
    """How many standard errors the interval reaches to either side."""
    sizes = np.array(params)
    basis, effect = _basis(sizes, estimator), _weights(sizes, estimator) * sizes
    df = len(sizes) - basis.shape[1]
    if estimator not in ("slope", "slope_origin"):
        return _t_quantile(df, level)
    # Ordinary least squares under noise that grows with P is not independent of the weighted residuals. So its ratio to the error is not
    # Student's (whose 95 % interval covers 97.5 %), but the ratio's distribution depends on the parameters alone.
    noise = np.random.default_rng(0).standard_normal((_RATIO_DRAWS, len(sizes)))
    residuals = noise - (noise @ basis) @ basis.T
    ratio = (noise @ effect) / (np.linalg.norm(residuals, axis=1) / math.sqrt(df) * np.linalg.norm(effect))
    return float(np.quantile(np.abs(ratio), level))


def _t_quantile(df: int, level: float) -> float:
    from scipy.special import stdtrit

    return float(stdtrit(df, (1 + level) / 2)) if df else math.nan


def _check_options(
    estimator: str, convention: str, interval: float, seq_len: int | None, vocab_size: int | None
) -> None:
    if estimator not in _ESTIMATORS:
        raise InputError(f"estimator must be one of {', '.join(_ESTIMATORS)}; it is {estimator!r}")
    if not 0 < interval < 1:
        raise InputError(f"interval is a level between 0 and 1, such as 0.95; it is {interval}")
    _check_protocol(seq_len, vocab_size, convention)


def _check_protocol(seq_len: int | None, vocab_size: int | None, convention: str) -> None:
    if convention not in _CONVENTIONS:
        raise InputError(f"convention must be one of {', '.join(_CONVENTIONS)}; it is {convention!r}")
    least = 1 if convention == "start" else 2
    if seq_len is not None and seq_len < least:
        raise InputError(f'seq_len must be at least {least} with convention "{convention}"; it is {seq_len}')
    if vocab_size is not None and vocab_size < 2:
        raise InputError(f"vocab_size must be at least 2: a vocabulary of one token holds no bits; it is {vocab_size}")


def _read_runs(
    n_params: Any,
    memorized_bits: Any,
    n_samples: Any,
    seed: Any,
    n_non_embedding_params: Any,
) -> dict[str, np.ndarray]:
    """The columns of the runs, checked; float64 with NaN where a column may be missing."""
    runs = {
        "n_params": _whole_column("n_params", n_params, least=1),
        "memorized_bits": _column("memorized_bits", memorized_bits),
    }
    n_runs = len(runs["n_params"])
    optional = {"n_samples": (n_samples, 1), "n_non_embedding_params": (n_non_embedding_params, 0)}
    for name, (values, least) in optional.items():
        missing = np.full(n_runs, np.nan)
        runs[name] = missing if values is None else _whole_column(name, values, least=least).astype(np.float64)
    if seed is not None:
        runs["seed"] = _whole_column("seed", seed, least=None)
    for name, column in runs.items():
        if len(column) != n_runs:
            raise InputError(
                f"all columns hold one entry a run: n_params has {n_runs}, {name} has {len(column)}. "
                "Repeat what is the same for several runs"
            )
    _check_rows(runs)
    return runs


def _column(name: str, values: Any) -> Float64[np.ndarray, " run"]:
    try:
        column = np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise InputError(f"{name} must be a flat array of numbers, one a run: {error}") from error
    if column.ndim != 1:
        raise InputError(f"{name} must be a flat array, one entry a run; its shape is {list(column.shape)}")
    if not len(column):
        raise InputError(f"{name} is empty: there are no runs to fit")
    wrong = np.flatnonzero(~np.isfinite(column))
    if len(wrong):
        raise InputError(
            f"{name} must be finite; row {wrong[0]} is {column[wrong[0]]} ({len(wrong)} such). Leave failed runs out"
        )
    return column


def _whole_column(name: str, values: Any, *, least: int | None) -> Int64[np.ndarray, " run"]:
    column = _column(name, values)
    wrong = np.flatnonzero((column != np.floor(column)) | (column < (-np.inf if least is None else least)))
    if len(wrong):
        bound = "" if least is None else f" of at least {least}"
        raise InputError(f"{name} must be whole numbers{bound}; row {wrong[0]} is {column[wrong[0]]:g}")
    # Not by way of float64, which rounds what is above 2^53, as seeds may be.
    return np.asarray(values).astype(np.int64)


def _check_rows(runs: "Mapping[str, np.ndarray]") -> None:
    params, rest = runs["n_params"], runs["n_non_embedding_params"]
    wrong = np.flatnonzero(rest > params)
    if len(wrong):
        row = wrong[0]
        raise InputError(
            f"n_params counts all parameters, so n_non_embedding_params cannot exceed it; row {row} has {rest[row]:,.0f} of {params[row]:,}"
        )
    _, first, size = np.unique(params, return_index=True, return_inverse=True)
    wrong = np.flatnonzero(rest != rest[first][size]) if not np.isnan(rest).any() else wrong
    if len(wrong):
        row, other = wrong[0], first[size[wrong[0]]]
        raise InputError(
            f"rows {other} and {row} both have {params[row]:,} parameters, but {rest[other]:,.0f} and {rest[row]:,.0f} of them that are no "
            "embeddings: equal n_params are taken for one model size. Fit one kind of model at a time"
        )
    if "seed" in runs:
        seen: dict[tuple[float, ...], int] = {}
        for row, run in enumerate(zip(params, runs["n_samples"], runs["seed"], strict=True)):
            key = tuple(-1 if value != value else value for value in run)
            if seen.setdefault(key, row) != row:
                raise InputError(
                    f"rows {seen[key]} and {row} are the same run: {run[0]:,} parameters, "
                    f"{'' if key[1] < 0 else f'{run[1]:,.0f} samples, '}seed {run[2]}. Twice counted it would make the error look smaller"
                )


def _ceiling_of_runs(
    runs: "Mapping[str, np.ndarray]", seq_len: int | None, vocab_size: int | None, convention: Convention
) -> Float64[np.ndarray, " run"]:
    """Information in the data set of each run, NaN where unknown; no run may have memorized more bits than its tokens have."""
    n_samples, bits = runs["n_samples"], runs["memorized_bits"]
    if seq_len is None or vocab_size is None or np.isnan(n_samples).any():
        return np.full(len(bits), np.nan)
    counted = seq_len - 1 if convention == "strict" else seq_len
    wrong = np.flatnonzero(bits > n_samples * counted * math.log2(vocab_size) * (1 + 1e-6))  # 1e-6: float32 sums
    if len(wrong):
        row = wrong[0]
        all_bits = n_samples[row] * counted * math.log2(vocab_size)
        raise InputError(
            f"row {row} ({runs['n_params'][row]:,} parameters) has memorized {bits[row]:,.1f} bits, but {n_samples[row]:,.0f} samples of "
            f"{counted} counted tokens have {all_bits:,.1f} in all (vocab_size {vocab_size:,}). Are these bits, of this data set, and is "
            f'convention "{convention}" theirs?'
        )
    ceiling_bits = information_ceiling_bits(n_samples, seq_len, vocab_size, convention)
    above = np.flatnonzero(bits > 1.001 * ceiling_bits)
    if len(above):
        row = above[0]
        warnings.warn(
            f"row {row} ({runs['n_params'][row]:,} parameters) has memorized {bits[row]:,.1f} bits; {n_samples[row]:,.0f} distinct samples "
            f"let a model save {ceiling_bits[row]:,.1f} ({len(above)} such rows). Do samples repeat, does their order reach the model, or "
            "are seq_len, vocab_size or convention others?",
            MeasurementWarning,
            stacklevel=3,
        )
    return ceiling_bits


def _curve(runs: "Mapping[str, np.ndarray]") -> "pd.DataFrame":
    import pandas as pd

    n_runs = len(runs["n_params"])
    unknown = pd.array([pd.NA] * n_runs, dtype="Int64")
    known = not np.isnan(runs["n_samples"]).any()
    columns = {
        "n_params": runs["n_params"],
        "n_samples": pd.array(runs["n_samples"].astype(np.int64), dtype="Int64") if known else unknown,
        "seed": pd.array(runs["seed"], dtype="Int64") if "seed" in runs else unknown,
        "steps": unknown,
        "memorized_bits": runs["memorized_bits"],
    }
    return pd.DataFrame({name: columns[name] for name in _CURVE})


def _none_for_nan(value: float) -> float | None:
    """NaN is no JSON: null stands for what is not known."""
    return None if math.isnan(value) else value


def _nan_for_none(value: Any) -> Any:
    return math.nan if value is None else value
