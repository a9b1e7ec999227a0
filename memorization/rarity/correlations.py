"""Which columns of `Rarity` are correlated, and why a correlation is unknown."""

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Shaped

from memorization.stats.levels import Interval
from memorization.stats.ranks import FEWEST_PAIRS, RankCorrelation, spearman

if TYPE_CHECKING:
    import pandas as pd

COLUMNS = ("of", "with", "rho", "low", "high", "p_value", "n", "reason")
_RARITIES = ("tfidf_bits", "exact_duplicates", "near_duplicates")
_PAIRS = tuple(("signed_bits", rarity, "") for rarity in _RARITIES)
# Bits grow with the length, whatever is in a sample. These say how much of the first three that may be.
_LENGTH_PAIRS = (
    *(("signed_bits_per_token", rarity, "") for rarity in _RARITIES),
    ("signed_bits", "n_tokens", ""),
    ("tfidf_bits", "n_tokens", ""),
)
# So they do with what there is to memorize: where all of it is memorized, memU is the oracle's bits.
_ORACLE_PAIRS = (
    ("signed_bits", "oracle_bits", ""),
    *(("share_memorized", rarity, "") for rarity in _RARITIES),
    *(("signed_bits", rarity, "oracle_bits") for rarity in _RARITIES),
)
_FEWEST_WITH_GIVEN = FEWEST_PAIRS + 1  # one degree of freedom goes to what is given
_NO_REST = 1e-9  # of the variance of ranks: what is left of a side that the given one determines


def correlation_table(
    columns: Mapping[str, Shaped[np.ndarray, " sample"]], *, lengths_vary: bool, level: float
) -> "pd.DataFrame":
    """A row a pair of columns: of, with, rho, low, high, p_value, n, and the reason where rho is NaN.

    A partial correlation is of "signed_bits_given_oracle_bits": a pair is there once.
    """
    import pandas as pd

    rows = []
    oracle_pairs = _ORACLE_PAIRS if "oracle_bits" in columns else ()
    for of, other, given in (*_PAIRS, *(_LENGTH_PAIRS if lengths_vary else ()), *oracle_pairs):
        n = len(columns[of])
        sides = {name: columns[name] for name in (of, other, given) if name}
        reason = _why_unknown(sides, _FEWEST_WITH_GIVEN if given else FEWEST_PAIRS)
        found = RankCorrelation(math.nan, Interval.unknown(), math.nan)
        if not reason and given:
            found = partial_spearman(*sides.values(), level=level)
            reason = f"ranks of {given} determine those of one side" if math.isnan(found.rho) else ""
        elif not reason:
            found = spearman(*sides.values(), level=level)
        name = f"{of}_given_{given}" if given else of
        rows.append((name, other, found.rho, *found.interval, found.p_value, n, reason))
    return pd.DataFrame(rows, columns=list(COLUMNS))


def partial_spearman(
    x: Shaped[np.ndarray, " pair"], y: Shaped[np.ndarray, " pair"], given: Shaped[np.ndarray, " pair"], *, level: float
) -> RankCorrelation:
    """Rank correlation of x and y at equal z: that of their ranks, with what the ranks of z say of each taken out.

    At least five pairs, and no constant side. NaN where the ranks of z leave nothing of a side. One degree of freedom
    less than `spearman`, for z. What is taken out is a straight line in the ranks of z.

    Examples:
        >>> z = np.arange(100.0)
        >>> x, y = z + 30 * np.sin(z), z + 30 * np.cos(7 * z)
        >>> found = partial_spearman(x, y, z, level=0.95)
        >>> spearman(x, y, level=0.95).rho > 0.5, found.interval[0] < 0 < found.interval[1]
        (True, True)

    Source:
        Kendall, doi:10.1093/biomet/32.3-4.277, for ranks; the interval is Bonett and Wright's, doi:10.1007/BF02294183.
    """
    from scipy.special import ndtri, stdtr
    from scipy.stats import rankdata

    ranks = [rankdata(side) - (len(side) + 1) / 2 for side in (x, y, given)]
    taken = [side - ranks[2] * (side @ ranks[2]) / (ranks[2] @ ranks[2]) for side in ranks[:2]]
    if any(rest @ rest < _NO_REST * (side @ side) for rest, side in zip(taken, ranks, strict=False)):
        return RankCorrelation(math.nan, Interval.unknown(), math.nan)
    rho = float((taken[0] @ taken[1]) / math.sqrt((taken[0] @ taken[0]) * (taken[1] @ taken[1])))
    if abs(rho) > 1 - 1e-12:
        return RankCorrelation(rho, Interval.unknown(), 0.0)
    degrees = len(x) - 3
    p_value = 2 * float(stdtr(degrees, -abs(rho) * math.sqrt(degrees / (1 - rho**2))))
    reach = ndtri((1 + level) / 2) * math.sqrt((1 + rho**2 / 2) / (len(x) - 4))
    low, high = np.tanh(np.arctanh(rho) + reach * np.array([-1, 1]))
    return RankCorrelation(rho, Interval(float(low), float(high)), p_value)


def _why_unknown(sides: Mapping[str, Shaped[np.ndarray, " sample"]], fewest: int) -> str:
    for name, values in sides.items():
        if len(values) < fewest:
            return f"there are {len(values)} different samples, and it takes {fewest}"
        if np.isnan(values).any():
            return f"{name} is unknown for {np.isnan(values).sum()} samples, of which the oracle's bits are 0"
        if (values != values[0]).any():
            continue
        if not name.endswith("_duplicates"):
            return f"{name} is {values[0]:g} for every sample"
        kind = "near duplicate" if name.startswith("near") else "duplicate"
        return f"no sample has a {kind}" if values[0] < 2 else f"every sample comes {values[0]} times"
    return ""
