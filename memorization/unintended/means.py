"""Means of memU with their intervals: the same names for samples and for control samples."""

import numpy as np
from jaxtyping import Float64, Shaped

from memorization.results import ReadOnly
from memorization.stats.levels import Interval
from memorization.stats.means import mean_interval

__all__ = ["Means"]


class Means(ReadOnly):
    """What samples and control share: mean memU and mean signed bits, in bits a sample, each with its interval."""

    __slots__ = ()

    bits: Float64[np.ndarray, " sample"]
    signed_bits: Float64[np.ndarray, " sample"]
    groups: tuple[str, ...] | None

    @property
    def documents(self) -> Shaped[np.ndarray, " sample"] | None:
        """`groups` as an array, which intervals take; None where each sample is on its own."""
        return None if self.groups is None else self._once("documents", lambda: np.asarray(self.groups))

    @property
    def n_independent(self) -> int:
        """Documents, or samples where each is on its own."""
        return len(self.bits) if self.groups is None else len({*self.groups})

    @property
    def unit(self) -> str:
        """What is independent, in words: "samples" or "documents"."""
        return "samples" if self.groups is None else "documents"

    @property
    def mean_bits(self) -> float:
        """Mean memU, in bits a sample; of control samples, what memU shows where nothing was memorized."""
        return float(self.bits.mean())

    @property
    def interval(self) -> Interval:
        """95 % interval of `mean_bits`, at least 0 where no sample is below 0; NaN for one sample."""
        return self._once("interval", self._interval)

    def _interval(self) -> Interval:
        low, high = mean_interval(self.bits, groups=self.documents)
        return Interval(max(low, 0.0) if self.bits.min() >= 0 else low, high)

    @property
    def mean_signed_bits(self) -> float:
        """Mean of signed_bits, in bits a sample."""
        return float(self.signed_bits.mean())

    @property
    def signed_interval(self) -> Interval:
        """95 % interval of `mean_signed_bits`; NaN for one sample."""
        return self._once("signed_interval", lambda: mean_interval(self.signed_bits, groups=self.documents))
