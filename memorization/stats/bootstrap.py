"""Bootstrap intervals of means and of their differences."""

from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float64

if TYPE_CHECKING:
    pass


_RESAMPLES = 9_999

_DRAWS = 50_000_000  # a bootstrap of more draws than this takes over a second, and resamples of large sets scatter little anyway


def mean_interval(*groups: Float64[np.ndarray, " _"]) -> tuple[float, float]:
    """95 % percentile bootstrap interval of a mean, or of the first group's mean minus the second's.

    Resamples are drawn from a fixed seed, so the same samples give the same interval.

    Returns:
        Lower and upper end in the unit of the values; NaN where a group has fewer than two.

    Examples:
        >>> import numpy as np
        >>> low, high = mean_interval(np.arange(101.0))
        >>> low < 50 < high
        True
    """
    if min(len(group) for group in groups) < 2:
        return (float("nan"), float("nan"))
    from scipy.stats import bootstrap

    n_values = sum(len(group) for group in groups)
    result = bootstrap(
        groups,
        _difference if len(groups) == 2 else np.mean,
        n_resamples=int(np.clip(_DRAWS // n_values, 199, _RESAMPLES)),
        batch=max(1, 1_000_000 // n_values),  # a batch of resamples is held in memory
        vectorized=True,
        method="percentile",
        rng=np.random.default_rng(0),
    )
    interval = result.confidence_interval
    return (float(interval.low), float(interval.high))


def _difference(first: np.ndarray, second: np.ndarray, axis: int = -1) -> np.ndarray:
    return np.asarray(first.mean(axis=axis) - second.mean(axis=axis))
