"""Do two columns rank alike? Spearman's correlation with an interval, and a permutation test within groups."""

import math
from typing import NamedTuple

import numpy as np
from jaxtyping import Shaped

from memorization.stats.levels import Interval

__all__ = ["FEWEST_PAIRS", "PERMUTATIONS", "RankCorrelation", "permutation_trend", "spearman"]

FEWEST_PAIRS = 4  # the standard error of Spearman's correlation divides by n - 3
PERMUTATIONS = 9_999
_BATCH_DRAWS = 1_000_000  # of permutations: held in memory


class RankCorrelation(NamedTuple):
    """Spearman's rho, its interval, and its two-sided p-value."""

    rho: float
    interval: Interval
    p_value: float


def spearman(x: Shaped[np.ndarray, " pair"], y: Shaped[np.ndarray, " pair"], *, level: float) -> RankCorrelation:
    """Spearman's rank correlation of at least four pairs, of which neither side is constant.

    The interval is Bonett and Wright's: on the scale of Fisher's z the standard error is sqrt((1 + rho^2 / 2) / (n -
    3)). At rho = 1 and -1 that says nothing of the next pairs, and the interval is unknown.

    Source:
        Bonett and Wright, doi:10.1007/BF02294183.
    """
    from scipy.special import ndtri
    from scipy.stats import spearmanr

    rho, p_value = map(float, spearmanr(x, y))
    if abs(rho) > 1 - 1e-12:
        return RankCorrelation(rho, Interval.unknown(), p_value)
    reach = ndtri((1 + level) / 2) * math.sqrt((1 + rho**2 / 2) / (len(x) - 3))
    low, high = np.tanh(np.arctanh(rho) + reach * np.array([-1, 1]))
    return RankCorrelation(rho, Interval(float(low), float(high)), p_value)


def permutation_trend(
    x: Shaped[np.ndarray, " pair"], y: Shaped[np.ndarray, " pair"], group: Shaped[np.ndarray, " pair"]
) -> tuple[float, float]:
    """Spearman's rho over all pairs, and the share of permutations within groups that have as large a one.

    What differs between groups does not count as evidence: x is permuted within each group alone.

    Returns:
        rho, NaN where a side is constant, and the one-sided p-value, at least 1 / (1 + PERMUTATIONS).

    Examples:
        >>> import numpy as np
        >>> rho, p_value = permutation_trend(np.arange(9), np.arange(9) ** 2, np.zeros(9))
        >>> round(rho, 6), p_value < 0.001
        (1.0, True)
    """
    from scipy.stats import rankdata

    doses, ranks = (rankdata(values) - (len(values) + 1) / 2 for values in (x, y))
    scale = math.sqrt((doses @ doses) * (ranks @ ranks))
    groups = [(doses[group == one], ranks[group == one]) for one in np.unique(group)]
    draws = np.random.default_rng(0)
    as_large, observed = 0, float(doses @ ranks)
    batch = max(1, _BATCH_DRAWS // len(doses))
    for begin in range(0, PERMUTATIONS, batch):
        rows = min(batch, PERMUTATIONS - begin)
        sums = sum(draws.permuted(np.tile(dose, (rows, 1)), axis=1) @ rank for dose, rank in groups)
        as_large += int(np.sum(sums >= observed - 1e-9 * scale))  # equal sums may differ in the last bit
    rho = observed / scale if scale > 0 else math.nan
    return rho, (1 + as_large) / (1 + PERMUTATIONS)
