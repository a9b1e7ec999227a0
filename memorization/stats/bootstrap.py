"""Bootstrap intervals of a mean, and of the difference of two means."""

import numpy as np
from jaxtyping import Float64

from memorization.stats.levels import Interval

__all__ = ["difference_interval", "mean_interval", "n_resamples"]

_RESAMPLES = 9_999
_FEWEST_RESAMPLES = 199
# a bootstrap of more draws than this takes over a second, and resamples of large sets scatter little anyway
_DRAWS = 50_000_000
_BATCH_DRAWS = 1_000_000  # held in memory at a time


def mean_interval(values: Float64[np.ndarray, " _"], *, level: float = 0.95) -> Interval:
    """Percentile bootstrap interval of a mean.

    Resamples are drawn from a fixed seed, so the same values give the same interval.

    Args:
        values: independent draws, in any unit.
        level: of the interval.

    Returns:
        Lower and upper end in the unit of the values; unknown of fewer than two.

    Examples:
        >>> import numpy as np
        >>> 50 in mean_interval(np.arange(101.0))
        True
    """
    return _interval((values,), level)


def difference_interval(
    first: Float64[np.ndarray, " _"], second: Float64[np.ndarray, " _"], *, level: float = 0.95
) -> Interval:
    """Percentile bootstrap interval of the mean of one set minus the mean of another, each resampled on its own."""
    return _interval((first, second), level)


def _interval(groups: tuple[np.ndarray, ...], level: float) -> Interval:
    if min(len(group) for group in groups) < 2:
        return Interval.unknown()
    from scipy.stats import bootstrap

    n_values = sum(len(group) for group in groups)
    ends = bootstrap(
        groups,
        _difference if len(groups) == 2 else np.mean,
        n_resamples=n_resamples(n_values, _RESAMPLES),
        batch=max(1, _BATCH_DRAWS // n_values),
        vectorized=True,
        method="percentile",
        confidence_level=level,
        rng=np.random.default_rng(0),
    ).confidence_interval
    return Interval(float(ends.low), float(ends.high))


def n_resamples(n_values: int, most: int) -> int:
    """The number of resamples that a bootstrap of so many values draws: `most`, or what takes about a second."""
    return int(np.clip(_DRAWS // n_values, _FEWEST_RESAMPLES, most))


def _difference(first: np.ndarray, second: np.ndarray, axis: int = -1) -> np.ndarray:
    return np.asarray(first.mean(axis=axis) - second.mean(axis=axis))
