"""How capacity grows with training: the gain of a doubling with its error, and what longer training may still bring."""

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float64

from memorization.capacity.estimators import PLATEAU_INFORMATION
from memorization.capacity.runs import Convention, information_ceiling_bits

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["CONVERGED_GAIN", "MORE_STEPS", "Growth", "growth", "longer", "series"]

# Converged: what remains is, at its upper end, below this share. A single doubling cannot show it: gains of two
# seeds are off by as much.
CONVERGED_GAIN = 0.02
# Exponents of the law that are tried: at the least it is a straight line in the logarithm of the steps, which has no
# limit. So what remains is counted to an end that could be reached.
_EXPONENTS = np.geomspace(0.005, 4.0, 200)
MORE_STEPS = 1000
_MOST_ROUNDS = 4  # the last ones: the law is not that of the beginning
_LEVEL = 0.99  # and not 95 %: a sweep looks after each round, and ends at the first yes
_ROUNDING = 1e-6  # of float32 bits, relative: runs without scatter have it
_MOST_REMAINING = 0.25  # of what is held: an upper end beyond it says nothing


@dataclass(frozen=True, slots=True)
class Growth:
    """What the rounds of one model size say of longer training, as shares of what is held after the last.

    Attributes:
        gain: growth over the last doubling of the steps; NaN where unknown, as are all others.
        gain_stderr: its standard error, from the scatter between runs.
        remaining: what a thousand times the steps would still bring, by the law; NaN where it is not identified.
        remaining_high: the upper end of its 99 % interval; infinite where there is none.
        expected: what the law, fitted without the last round, expected that round to bring, as a share of the round
            before.
        expected_stderr: its standard error, that of a new mean included.
    """

    gain: float = math.nan
    gain_stderr: float = math.nan
    remaining: float = math.nan
    remaining_high: float = math.inf
    expected: float = math.nan
    expected_stderr: float = math.nan

    @property
    def converged(self) -> bool:
        """Whether what remains is below 2 % at its upper end."""
        return self.remaining_high < CONVERGED_GAIN

    def record(self) -> dict[str, Any]:
        """The same as JSON; None where unknown or without end."""
        return {name: value if math.isfinite(value := getattr(self, name)) else None for name in self.__slots__}


def growth(steps: Float64[np.ndarray, " round"], bits: Float64[np.ndarray, "series round"]) -> Growth:
    """Gain, remainder and back-test of runs that were made for more and more steps.

    The law is bits = level of the series x (1 - a x steps^-b), with one a and one b for all series; a series is a data
    set of a seed. Its interval is the union, over all exponents b
    that fit the runs, of the intervals of a at that exponent (a profile likelihood, with F's threshold). Noise is
    what the series scatter by around the law; it needs two series at least.

    Args:
        steps: of the rounds, ascending.
        bits: memorized by each series in each round.

    Examples:
        Without noise, the law 1,000 x (1 - 8 / steps) is found.

        >>> steps = np.array([100.0, 200, 400, 800, 1600])
        >>> held = np.outer([1000.0, 1100.0], 1 - 8 / steps)
        >>> found = growth(steps, held)
        >>> round(found.remaining, 3), found.converged
        (0.005, True)
    """
    n_series, n_rounds = bits.shape
    if n_rounds < 2 or n_series < 1 or not (np.isfinite(bits).all() and bits.min() > 0):
        return Growth()
    steps, bits = steps[-_MOST_ROUNDS:], bits[:, -_MOST_ROUNDS:]
    n_rounds = len(steps)
    ratios = np.log(bits[:, -1] / bits[:, -2]) / math.log2(steps[-1] / steps[-2])
    gain = float(np.expm1(ratios.mean()))
    if n_series < 2:
        return Growth(gain)
    of_series = float(ratios.std(ddof=1)) / math.sqrt(n_series)
    if n_rounds < 3:
        return Growth(gain, of_series)
    remaining, high = _remaining(steps, bits)
    expected, stderr = _expected(steps, bits) if n_rounds > 3 else (math.nan, math.nan)
    return Growth(gain, of_series, remaining, high, expected, stderr)


def longer(
    steps: Float64[np.ndarray, " round"], bits: Float64[np.ndarray, "series round"], times: float
) -> tuple[float, float, float]:
    """What so many times the steps would bring by the law of `growth`, and the ends of its 99 % interval.

    Shares of what is held after the last round; NaN where that law is not identified.
    """
    if math.isnan(growth(steps, bits).remaining):
        return math.nan, math.nan, math.nan
    fits = _fits(steps[-_MOST_ROUNDS:], bits[:, -_MOST_ROUNDS:])
    return _ends(fits, 1 - times**-_EXPONENTS)


def series(
    curve: "pd.DataFrame", n_params: int, seq_len: int, vocab_size: int, convention: Convention
) -> tuple[Float64[np.ndarray, " round"], Float64[np.ndarray, "series round"]]:
    """What `growth` takes, of one model size: from the sets that the data do not limit, and that of the capacity.

    Args:
        curve: as in `Capacity`: n_params, n_samples, seed, steps, memorized_bits of each run.
        n_params: of the size.
        seq_len: tokens of a sample.
        vocab_size: number of tokens.
        convention: which tokens' bits are counted.

    Returns:
        The steps of the rounds, ascending; the bits of each data set and seed in each.
    """
    of_size = curve[curve["n_params"] == n_params]
    table = of_size.pivot_table(index=["n_samples", "seed"], columns="steps", values="memorized_bits")
    held = table.iloc[:, -1].groupby(level="n_samples").mean()
    ceiling = information_ceiling_bits(held.index.to_numpy(np.float64), seq_len, vocab_size, convention)
    # With the set of which most is held, which the capacity is read off, whatever limits it.
    counted = held.index[(ceiling >= PLATEAU_INFORMATION * held.max()) | (held == held.max())]
    chosen = table[table.index.get_level_values("n_samples").isin(counted)]
    return chosen.columns.to_numpy(np.float64), chosen.to_numpy(np.float64)


@dataclass(frozen=True, slots=True)
class _Fits:
    """The law at each exponent, of bits as shares of a series' mean: 1 + slope (x - mean), x = -(steps / last)^-b."""

    slope: Float64[np.ndarray, " exponent"]
    variance: Float64[np.ndarray, " exponent"]  # of the slope, over the noise's
    squares: Float64[np.ndarray, " exponent"]  # left over
    mean: Float64[np.ndarray, " exponent"]  # of x
    df: int

    def growth(
        self, slope: Float64[np.ndarray, " exponent"], reach: Float64[np.ndarray, " exponent"]
    ) -> Float64[np.ndarray, " exponent"]:
        """Growth over a range of x, as a share of what is held after the last steps."""
        held = 1 - slope * (1 + self.mean)
        return np.where(held > 0, slope * reach / np.where(held > 0, held, 1.0), np.inf)


def _fits(steps: Float64[np.ndarray, " round"], bits: Float64[np.ndarray, "series round"]) -> _Fits:
    n_series, n_rounds = bits.shape
    x = -((steps / steps[-1]) ** -_EXPONENTS[:, None])
    mean = x.mean(1)
    x = x - mean[:, None]
    own = bits / bits.mean(1, keepdims=True) - 1
    xx = n_series * (x**2).sum(1)
    slope = (x @ own.sum(0)) / xx
    squares = np.maximum((own**2).sum() - slope**2 * xx, 0.0)
    return _Fits(slope, 1 / xx, squares, mean, n_series * (n_rounds - 1) - 2)


def _remaining(steps: Float64[np.ndarray, " round"], bits: Float64[np.ndarray, "series round"]) -> tuple[float, float]:
    """What remains, and the upper end of its interval."""
    fits = _fits(steps, bits)
    best, _, high = _ends(fits, 1 - MORE_STEPS**-_EXPONENTS)
    if high > _MOST_REMAINING:
        return math.nan, math.inf
    return max(0.0, best), max(0.0, high)


def _expected(steps: Float64[np.ndarray, " round"], bits: Float64[np.ndarray, "series round"]) -> tuple[float, float]:
    """What the rounds before expected of the last, as growth over the one before it, and its standard error."""
    fits = _fits(steps[:-1], bits[:, :-1])
    best, low, high = _ends(fits, 1 - (steps[-1] / steps[-2]) ** -_EXPONENTS)
    of_law = (high - low) / 2 / math.sqrt(_threshold(fits))
    # Added as they are: a round that came out high raises both the law and what the next is compared with.
    return best, of_law + math.sqrt(_noise(fits) * 2 / len(bits))


def _ends(fits: _Fits, reach: Float64[np.ndarray, " exponent"]) -> tuple[float, float, float]:
    """Growth over a range of x by the best law, and the ends of its interval over all laws that fit."""
    best = int(np.argmin(fits.squares))
    slack = _threshold(fits) * _noise(fits) - (fits.squares - fits.squares[best])
    half, fit = np.sqrt(np.maximum(slack, 0.0) * fits.variance), slack >= 0
    low, high = (fits.growth(fits.slope + sign * half, reach)[fit] for sign in (-1, 1))
    return float(fits.growth(fits.slope, reach)[best]), float(low.min()), float(high.max())


def _noise(fits: _Fits) -> float:
    """Variance of a run around the law."""
    return max(float(fits.squares.min()) / fits.df, _ROUNDING**2)


def _threshold(fits: _Fits) -> float:
    """Of the squares by which a law may be worse than the best, in variances."""
    from scipy.special import fdtri

    return float(fdtri(1, fits.df, _LEVEL))
