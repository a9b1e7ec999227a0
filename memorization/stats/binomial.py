"""Shares: Clopper and Pearson's interval of one, also of draws in groups, and Newcombe's of the difference of two."""

import math

import numpy as np
from jaxtyping import Bool, Shaped

from memorization.stats.levels import Interval

__all__ = ["clopper_pearson", "korn_graubard", "newcombe", "share_above", "share_below"]


def clopper_pearson(k: int, n: int, level: float) -> Interval:
    """Interval of a share of which k of n independent draws were seen: covers at least at its level.

    Returns:
        Ends from 0 to 1; unknown where n is 0.

    Examples:
        >>> f"{clopper_pearson(0, 5, 0.95):.3f}"
        '[0.000, 0.522]'

    Source:
        Clopper and Pearson, doi:10.1093/biomet/26.4.404.
    """
    tail = (1 - level) / 2
    return Interval(share_above(k, n, tail), share_below(k, n, tail)) if n else Interval.unknown()


def korn_graubard(hits: Bool[np.ndarray, " draw"], groups: Shaped[np.ndarray, " draw"], level: float) -> Interval:
    """Interval of a share where draws of one group are alike: Clopper and Pearson's, of as many as they amount to.

    The scatter between the groups says how many independent draws have it; where all draws agree, there are as many as
    groups.

    Examples:
        Forty draws, and only four of them independent:

        >>> import numpy as np
        >>> f"{korn_graubard(np.zeros(40, dtype=bool), np.repeat(np.arange(4), 10), 0.95):.3f}"
        '[0.000, 0.602]'

    Source:
        Korn and Graubard, "Confidence intervals for proportions with small expected number of positive counts estimated
        from survey data", Survey Methodology 24 (1998).
    """
    from scipy.stats import t

    n, which = len(hits), np.unique(groups, return_inverse=True)[1]
    n_groups = int(which.max(initial=-1)) + 1
    if n_groups < 2:
        return Interval.unknown()
    p = float(np.mean(hits))
    of_groups = np.bincount(which, weights=hits - p)
    variance = n_groups / (n_groups - 1) * float(np.square(of_groups).sum()) / n**2
    amounts_to = float(n_groups)
    if 0 < p < 1:
        wider = (t.ppf((1 + level) / 2, n - 1) / t.ppf((1 + level) / 2, n_groups - 1)) ** 2
        amounts_to = min(n, max(1.0, p * (1 - p) / variance * wider)) if variance > 0 else n_groups
    tail = (1 - level) / 2
    return Interval(share_above(p * amounts_to, amounts_to, tail), share_below(p * amounts_to, amounts_to, tail))


def share_above(k: int | float, n: int | float, tail: float) -> float:
    """The lower limit of the share: were it the truth, k or more of n would come with probability `tail`."""
    from scipy.special import betaincinv

    return float(betaincinv(k, n - k + 1, tail)) if k else 0.0


def share_below(k: int | float, n: int | float, tail: float) -> float:
    """The upper limit of the share: were it the truth, k or fewer of n would come with probability `tail`."""
    from scipy.special import betaincinv

    return float(betaincinv(k + 1, n - k, 1 - tail)) if k < n else 1.0


def newcombe(one: float, one_interval: Interval, other: float, other_interval: Interval) -> Interval:
    """Interval of one share minus another: the distances of either from its own ends, squared and added as errors are.

    Examples:
        >>> newcombe(0.5, Interval(0.2, 0.8), 0.5, Interval(0.1, 0.9))
        Interval(low=-0.5, high=0.5)

    Source:
        Newcombe, doi:10.1002/(SICI)1097-0258(19980430)17:8<873::AID-SIM779>3.0.CO;2-I, method 10.
    """
    low = one - other - math.hypot(one - one_interval.low, other_interval.high - other)
    high = one - other + math.hypot(one_interval.high - one, other - other_interval.low)
    return Interval(low, high)
