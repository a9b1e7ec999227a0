"""The gap law: F1 of a loss threshold from how far the code lengths of members and others lie apart."""

from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np
from jaxtyping import Float64

from memorization.errors import InputError
from memorization.scaling_law.points import numbers_of
from memorization.stats.arrays import ArrayLike

if TYPE_CHECKING:
    from typing import TypeAlias

    class _HasBits(Protocol):  # of CodeLengths, which are of a floor above
        @property
        def ideal_bits(self) -> np.ndarray: ...

    BitsLike: TypeAlias = ArrayLike | _HasBits
else:
    BitsLike = Any  # what else comes is refused in words

__all__ = ["GapLaw", "f1_of_gap", "gap_law"]


class GapLaw(NamedTuple):
    """F1 that the gap law gives, and the three numbers it comes from, in bits a sample.

    Attributes:
        f1: of a threshold at the median of as many members as others; 0.5 at chance.
        gap_bits: mean bits of the others less those of the members.
        member_sd_bits: standard deviation of the members' bits.
        other_sd_bits: that of the others.
    """

    f1: float
    gap_bits: float
    member_sd_bits: float
    other_sd_bits: float


def gap_law(members: BitsLike, others: BitsLike) -> GapLaw:
    """F1 of a loss threshold from the bits of members and of others: Phi(gap / (sd of members + sd of others)).

    Two normals and the point where as many members lie above as others below: no constant is fitted. What size, data
    and training do to F1 they do through the gap.

    Args:
        members: bits of samples the model was trained on, or their `CodeLengths`; of a `Memorization` its `target`, of
            a `Membership` its member_scores with the sign turned.
        others: those of samples it was not trained on, such as `control.target` of a `Memorization`.

    Returns:
        F1, and the gap and standard deviations (of n - 1) in bits a sample.

    Raises:
        InputError: fewer than two samples on a side, or bits that are not finite.

    Guarantees:
        Exact where both sides are normal, whatever their spreads. For 14 GPT-2s trained on 384 to 8,192 samples of text
        (`benchmarks/gap_law.py`) it was off by 0.0055 (root mean square), where counting samples makes 0.010. Bits far
        from normal, such as a few others in the thousands, are not what it is about.

    Examples:
        >>> gap_law([90.0, 110.0], [110.0, 130.0]).gap_bits
        20.0
        >>> round(gap_law([90.0, 110.0], [110.0, 130.0]).f1, 4)  # Phi(20 / (2 * 14.142))
        0.7602

    Source:
        Yeom et al., arXiv:1709.01604, section 3: what an attacker gains is a function of the generalization error.
    """
    bits = {name: _bits(name, values) for name, values in (("members", members), ("others", others))}
    gap = float(bits["others"].mean() - bits["members"].mean())
    spreads = [float(bits[name].std(ddof=1)) for name in ("members", "others")]
    return GapLaw(f1_of_gap(gap, *spreads).item(), gap, *spreads)


def f1_of_gap(
    gap_bits: ArrayLike, member_sd_bits: ArrayLike, other_sd_bits: ArrayLike
) -> Float64[np.ndarray, "*shape"]:
    """The gap law of numbers that are already there, such as the columns of a table: one F1 a row; NaN stays NaN.

    Args:
        gap_bits: mean bits of others less mean bits of members.
        member_sd_bits: standard deviation of the members' bits.
        other_sd_bits: of the others'; the three are broadcast.

    Returns:
        F1, float64, between 0.5 and 1.

    Raises:
        InputError: a standard deviation below 0.

    Examples:
        >>> f1_of_gap([0.0, 20.0], 10.0, 10.0).round(4).tolist()
        [0.5, 0.8413]
    """
    from scipy.special import ndtr

    gap = numbers_of("gap_bits", gap_bits)
    spreads = [numbers_of("member_sd_bits", member_sd_bits), numbers_of("other_sd_bits", other_sd_bits)]
    if any((spread < 0).any() for spread in spreads):
        raise InputError("standard deviations must not be below 0: are they variances or gaps?")
    together = spreads[0] + spreads[1]
    with np.errstate(divide="ignore", invalid="ignore"):
        # Where neither side spreads, a gap of any size tells all and none tells nothing.
        return np.asarray(ndtr(np.where(gap == 0, 0.0 * together, gap / together)))


def _bits(name: str, values: Any) -> Float64[np.ndarray, " sample"]:
    bits = numbers_of(name, getattr(values, "ideal_bits", values))
    if bits.ndim != 1 or len(bits) < 2:
        raise InputError(f"{name} must be a flat array of bits, at least 2 samples; its shape is {list(bits.shape)}.")
    wrong = np.flatnonzero(~np.isfinite(bits))
    if len(wrong):
        raise InputError(f"bits of {name} must be finite; sample {wrong[0]} has {bits[wrong[0]]} ({len(wrong)} such).")
    return bits
