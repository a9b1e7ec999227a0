"""Spearman's rank correlation with an interval, and which of the columns of `Rarity` are correlated."""

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Shaped

if TYPE_CHECKING:
    import pandas as pd

COLUMNS = ("of", "with", "rho", "low", "high", "p_value", "n", "reason")
_RARITIES = ("tfidf_bits", "exact_duplicates", "near_duplicates")
_PAIRS = tuple(("signed_bits", rarity) for rarity in _RARITIES)
# Bits grow with the length, whatever is in a sample. These say how much of the first three that may be.
_LENGTH_PAIRS = (
    *(("signed_bits_per_token", rarity) for rarity in _RARITIES),
    ("signed_bits", "n_tokens"),
    ("tfidf_bits", "n_tokens"),
)
_FEWEST = 4  # the standard error divides by n - 3


def correlation_table(
    columns: Mapping[str, Shaped[np.ndarray, " sample"]], *, lengths_vary: bool, interval: float
) -> "pd.DataFrame":
    """A row a pair of columns: of, with, rho, low, high, p_value, n, and the reason where rho is NaN."""
    import pandas as pd

    rows = []
    for of, other in (*_PAIRS, *(_LENGTH_PAIRS if lengths_vary else ())):
        n = len(columns[of])
        reason = _why_unknown({name: columns[name] for name in (of, other)})
        figures = (math.nan,) * 4 if reason else rank_correlation(columns[of], columns[other], interval=interval)
        rows.append((of, other, *figures, n, reason))
    return pd.DataFrame(rows, columns=list(COLUMNS))


def rank_correlation(
    x: Shaped[np.ndarray, " sample"], y: Shaped[np.ndarray, " sample"], *, interval: float
) -> tuple[float, float, float, float]:
    """Spearman's rho, the ends of its interval and its two-sided p-value, of at least four pairs of which neither side is constant.

    The interval is Bonett and Wright's (doi:10.1007/BF02294183): on the scale of Fisher's z the standard error is sqrt((1 + rho^2 / 2) /
    (n - 3)). At rho = 1 and -1 that says nothing of the next samples: NaN.
    """
    from scipy.special import ndtri
    from scipy.stats import spearmanr

    rho, p_value = map(float, spearmanr(x, y))
    if abs(rho) > 1 - 1e-12:
        return rho, math.nan, math.nan, p_value
    reach = ndtri((1 + interval) / 2) * math.sqrt((1 + rho**2 / 2) / (len(x) - 3))
    low, high = np.tanh(np.arctanh(rho) + reach * np.array([-1, 1]))
    return rho, float(low), float(high), p_value


def _why_unknown(pair: Mapping[str, Shaped[np.ndarray, " sample"]]) -> str:
    for name, values in pair.items():
        if len(values) < _FEWEST:
            return f"there are {len(values)} different samples, and it takes {_FEWEST}"
        if (values != values[0]).any():
            continue
        if not name.endswith("_duplicates"):
            return f"{name} is {values[0]:g} for every sample"
        kind = "near duplicate" if name.startswith("near") else "duplicate"
        return f"no sample has a {kind}" if values[0] < 2 else f"every sample comes {values[0]} times"
    return ""
