"""Which columns of `Rarity` are correlated, and why a correlation is unknown."""

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Shaped

from memorization.stats.ranks import FEWEST_PAIRS, spearman

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


def correlation_table(
    columns: Mapping[str, Shaped[np.ndarray, " sample"]], *, lengths_vary: bool, level: float
) -> "pd.DataFrame":
    """A row a pair of columns: of, with, rho, low, high, p_value, n, and the reason where rho is NaN."""
    import pandas as pd

    rows = []
    for of, other in (*_PAIRS, *(_LENGTH_PAIRS if lengths_vary else ())):
        n = len(columns[of])
        reason = _why_unknown({name: columns[name] for name in (of, other)})
        if reason:
            rows.append((of, other, *(math.nan,) * 4, n, reason))
            continue
        found = spearman(columns[of], columns[other], level=level)
        rows.append((of, other, found.rho, *found.interval, found.p_value, n, reason))
    return pd.DataFrame(rows, columns=list(COLUMNS))


def _why_unknown(pair: Mapping[str, Shaped[np.ndarray, " sample"]]) -> str:
    for name, values in pair.items():
        if len(values) < FEWEST_PAIRS:
            return f"there are {len(values)} different samples, and it takes {FEWEST_PAIRS}"
        if (values != values[0]).any():
            continue
        if not name.endswith("_duplicates"):
            return f"{name} is {values[0]:g} for every sample"
        kind = "near duplicate" if name.startswith("near") else "duplicate"
        return f"no sample has a {kind}" if values[0] < 2 else f"every sample comes {values[0]} times"
    return ""
