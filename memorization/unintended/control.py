"""What a control set of unseen samples says about memU: the null, intervals, and when not to believe the number."""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float64

from memorization.measure.pair import ideal_signed_bits
from memorization.results import ReadOnly
from memorization.stats.bootstrap import mean_interval
from memorization.stats.levels import Interval

if TYPE_CHECKING:
    from memorization.measure.code_lengths import CodeLengths

QUANTILES = (0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99)


@dataclass(frozen=True, slots=True, eq=False)
class Control(ReadOnly):
    """memU of samples that neither model has seen: what "memorized nothing" looks like with this pair of models.

    Attributes:
        bits: memU of each control sample, from coded lengths, as defined for the samples, float64.
        signed_bits: H(x | oracle) - H(x | target) of each control sample, float64.
        mean: of signed_bits.
        quantiles: of signed_bits, at 1, 5, 25, 50, 75, 95 and 99 %, by their share (0.01 to 0.99).
        net_bits: (mean signed bits of the samples - that of the control) x number of samples: memU without what the
            target simply does better.
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
    net_interval: Interval
    mean_interval: Interval
    target: "CodeLengths" = field(repr=False)
    oracle: "CodeLengths" = field(repr=False)

    @property
    def ideal_signed_bits(self) -> Float64[np.ndarray, " control"]:
        """The signed difference of each control sample from -log2 p, as `Memorization.ideal_signed_bits`."""
        return ideal_signed_bits(self.target, self.oracle)

    @property
    def mean_bits(self) -> float:
        """Mean memU of the control samples: what memU shows where nothing was memorized."""
        return float(self.bits.mean())

    @property
    def interval(self) -> Interval:
        """95 % bootstrap interval of `mean_bits`; NaN for one sample."""
        return self._once("interval", lambda: mean_interval(self.bits))

    @property
    def mean_signed_bits(self) -> float:
        """Mean of signed_bits: `mean` by the name that it has in `Memorization`."""
        return self.mean

    @property
    def signed_interval(self) -> Interval:
        """95 % bootstrap interval of `mean_signed_bits`: `mean_interval` by the name that it has in `Memorization`."""
        return self.mean_interval
