"""The learning rate at which most is coded in few steps."""

import math
from collections.abc import Callable, Mapping, Sequence

from memorization.errors import DivergedError

__all__ = ["best_rate"]


def best_rate(
    rates: Sequence[float],
    saved_bits_at: Callable[[Sequence[float]], Mapping[float, float | None]],
    *,
    widen: int,
    of: str = "training",
) -> float:
    """The best of some rates, of a range that is widened until the best lies inside, at most `widen` times.

    Args:
        rates: to begin with.
        saved_bits_at: bits that short trainings save at each of these rates, the more the better; None where one
            diverged.
        widen: how often; 0 takes the range as it is.
        of: what is trained, for the error.

    Raises:
        DivergedError: training diverged at every rate.

    Examples:
        >>> best_rate([4.0, 2.0], lambda rates: {rate: -abs(rate - 1.0) for rate in rates}, widen=3)
        1.0
    """
    saved: dict[float, float] = {}
    new = list(rates)
    for _ in range(1 + widen):
        found = saved_bits_at([rate for rate in new if rate not in saved])
        saved |= {rate: -math.inf if bits is None else bits for rate, bits in found.items()}
        best = max(saved, key=lambda rate: saved[rate])
        if saved[best] == -math.inf:
            new = [min(saved) / 2, min(saved) / 4]
        elif best in (min(saved), max(saved)):
            new = [best / 2 if best == min(saved) else best * 2]
        else:
            break
    if saved[best] == -math.inf:
        raise DivergedError(
            f"{of} diverged at every learning rate from {max(saved):g} to {min(saved):g}; check the model's loss, or "
            "give another builder."
        )
    return best
