"""What a control set of unseen samples says about memU: the null, intervals, and when not to believe the number."""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float64

if TYPE_CHECKING:
    from memorization.compression import CodeLengths

QUANTILES = (0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99)
_RESAMPLES = 9_999
_DRAWS = 50_000_000  # a bootstrap of more draws than this takes over a second, and resamples of large sets scatter little anyway


@dataclass(frozen=True, slots=True, eq=False)
class Control:
    """memU of samples that neither model has seen: what "memorized nothing" looks like with this pair of models.

    Attributes:
        bits: memU of each control sample, from coded lengths, as defined for the samples, float64.
        signed_bits: H(x | oracle) - H(x | target) of each control sample, float64.
        mean: of signed_bits.
        quantiles: of signed_bits, at 1, 5, 25, 50, 75, 95 and 99 %, by their share (0.01 to 0.99).
        net_bits: (mean signed bits of the samples - that of the control) x number of samples: memU without what the target simply does
            better.
        net_interval: 95 % bootstrap interval of net_bits over both sets; NaN where a set has one sample.
        mean_interval: 95 % bootstrap interval of `mean`; NaN for one sample.
        target: code lengths of the control under the target.
        oracle: under the oracle.
    """

    bits: Float64[np.ndarray, " control"]
    signed_bits: Float64[np.ndarray, " control"]
    mean: float
    quantiles: dict[float, float]
    net_bits: float
    net_interval: tuple[float, float]
    mean_interval: tuple[float, float]
    target: "CodeLengths" = field(repr=False)
    oracle: "CodeLengths" = field(repr=False)

    @property
    def mean_bits(self) -> float:
        """Mean memU of the control samples: what memU shows where nothing was memorized."""
        return float(self.bits.mean())


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
