"""Do two columns rank alike? Spearman's correlation with an interval, and a permutation test within groups."""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Shaped

from memorization.errors import InputError
from memorization.stats.levels import Interval

__all__ = ["FEWEST_PAIRS", "PERMUTATIONS", "RankCorrelation", "partial_spearman", "permutation_trend", "spearman"]

FEWEST_PAIRS = 4  # the standard error of Spearman's correlation divides by n - 3
PERMUTATIONS = 9_999
_BATCH_DRAWS = 1_000_000  # of permutations: held in memory
_NO_REST = 1e-9  # of the variance of ranks: what is left of a side that the given one determines
_BLOCKS = 40  # of groups, one of which is left out at a time
_CERTAIN = 1 - 1e-12


class RankCorrelation(NamedTuple):
    """Spearman's rho, its interval, and its two-sided p-value."""

    rho: float
    interval: Interval
    p_value: float


def spearman(
    x: Shaped[np.ndarray, " pair"],
    y: Shaped[np.ndarray, " pair"],
    *,
    level: float,
    groups: Shaped[np.ndarray, " of_pair"] | None = None,
) -> RankCorrelation:
    """Spearman's rank correlation of at least four pairs, of which neither side is constant.

    The interval is Bonett and Wright's: on the scale of Fisher's z the standard error is sqrt((1 + rho^2 / 2) / (n -
    3)). At rho = 1 and -1 that says nothing of the next pairs, and the interval is unknown.

    With groups, a label a pair, whole groups are what is independent. On the same scale the error is then that of
    leaving out one of 40 blocks of groups at a time (each group, where there are fewer), with Student's quantile.
    Unknown of fewer than three groups.

    Source:
        Bonett and Wright, doi:10.1007/BF02294183.
    """
    from scipy.special import ndtri
    from scipy.stats import spearmanr

    rho, p_value = map(float, spearmanr(x, y))
    if groups is not None:
        return _of_groups(_rho, (x, y), rho, groups, level)
    if abs(rho) > _CERTAIN:
        return RankCorrelation(rho, Interval.unknown(), p_value)
    reach = ndtri((1 + level) / 2) * math.sqrt((1 + rho**2 / 2) / (len(x) - 3))
    return RankCorrelation(rho, _around(rho, reach), p_value)


def partial_spearman(
    x: Shaped[np.ndarray, " pair"],
    y: Shaped[np.ndarray, " pair"],
    given: Shaped[np.ndarray, " pair"],
    *,
    level: float,
    groups: Shaped[np.ndarray, " of_pair"] | None = None,
) -> RankCorrelation:
    """Rank correlation of x and y at equal z: that of their ranks, with what the ranks of z say of each taken out.

    At least five pairs, and no constant side. NaN where the ranks of z leave nothing of a side. One degree of freedom
    less than `spearman`, for z. What is taken out is a straight line in the ranks of z. Groups as there.

    Examples:
        >>> import numpy as np
        >>> z = np.arange(100.0)
        >>> x, y = z + 30 * np.sin(z), z + 30 * np.cos(7 * z)
        >>> found = partial_spearman(x, y, z, level=0.95)
        >>> spearman(x, y, level=0.95).rho > 0.5, found.interval[0] < 0 < found.interval[1]
        (True, True)

    Source:
        Kendall, doi:10.1093/biomet/32.3-4.277, for ranks; the interval is Bonett and Wright's, doi:10.1007/BF02294183.
    """
    from scipy.special import ndtri, stdtr

    rho = _rho(x, y, given)
    if math.isnan(rho):
        return RankCorrelation(rho, Interval.unknown(), math.nan)
    if groups is not None:
        return _of_groups(_rho, (x, y, given), rho, groups, level)
    if abs(rho) > _CERTAIN:
        return RankCorrelation(rho, Interval.unknown(), 0.0)
    degrees = len(x) - 3
    p_value = 2 * float(stdtr(degrees, -abs(rho) * math.sqrt(degrees / (1 - rho**2))))
    reach = ndtri((1 + level) / 2) * math.sqrt((1 + rho**2 / 2) / (len(x) - 4))
    return RankCorrelation(rho, _around(rho, reach), p_value)


def _rho(x: np.ndarray, y: np.ndarray, given: np.ndarray | None = None) -> float:
    """Spearman's rho, of what `given` leaves of the ranks; NaN where nothing is left of a side."""
    from scipy.stats import rankdata

    ranks = [rankdata(side) - (len(side) + 1) / 2 for side in (x, y)]
    rest = ranks
    if given is not None:
        third = rankdata(given) - (len(given) + 1) / 2
        square = max(third @ third, 1e-300)
        rest = [side - third * (side @ third) / square for side in ranks]
    if any(one @ one <= _NO_REST * (side @ side) for one, side in zip(rest, ranks, strict=True)):
        return math.nan
    return float((rest[0] @ rest[1]) / math.sqrt((rest[0] @ rest[0]) * (rest[1] @ rest[1])))


def _of_groups(
    estimate: Callable[..., float], sides: Sequence[np.ndarray], rho: float, groups: np.ndarray, level: float
) -> RankCorrelation:
    """The correlation with the error of leaving out blocks of groups, on the scale of Fisher's z."""
    from scipy.special import stdtr, stdtrit

    if len(groups) != len(sides[0]):
        raise InputError(f"groups needs one label for each of the {len(sides[0])} pairs; it has {len(groups)}.")
    place = np.unique(groups, return_inverse=True)[1]
    n_groups = int(place.max()) + 1
    n_blocks = min(_BLOCKS, n_groups)
    if abs(rho) > _CERTAIN or n_blocks < 3:
        return RankCorrelation(rho, Interval.unknown(), math.nan)
    block = np.random.default_rng(0).permutation(n_groups)[place] % n_blocks
    left = np.array([estimate(*(side[block != one] for side in sides)) for one in range(n_blocks)])
    z = np.arctanh(np.clip(left, -_CERTAIN, _CERTAIN))
    error = math.sqrt((n_blocks - 1) / n_blocks * float(((z - z.mean()) ** 2).sum()))
    if not math.isfinite(error) or not error:
        return RankCorrelation(rho, Interval.unknown(), math.nan)
    degrees = n_blocks - 1
    p_value = 2 * float(stdtr(degrees, -abs(math.atanh(rho)) / error))
    return RankCorrelation(rho, _around(rho, error * float(stdtrit(degrees, (1 + level) / 2))), p_value)


def _around(rho: float, reach: float) -> Interval:
    """From rho to both sides, by so much on the scale of Fisher's z."""
    return Interval(math.tanh(math.atanh(rho) - reach), math.tanh(math.atanh(rho) + reach))


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
