"""Which columns of `Rarity` are correlated, and why a correlation is unknown."""

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Shaped

from memorization.results import counted
from memorization.stats.levels import Interval
from memorization.stats.ranks import FEWEST_PAIRS, RankCorrelation, partial_spearman, spearman

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


def correlation_table(
    columns: Mapping[str, Shaped[np.ndarray, " sample"]],
    *,
    lengths_vary: bool,
    level: float,
    groups: Shaped[np.ndarray, " sample"] | None,
) -> "pd.DataFrame":
    """A row a pair of columns: of, with, rho, low, high, p_value, n, and the reason where rho is NaN.

    A partial correlation is of "signed_bits_given_oracle_bits": a pair is there once. `groups` are documents.
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
            found = partial_spearman(*sides.values(), level=level, groups=groups)
            reason = f"ranks of {given} determine those of one side" if math.isnan(found.rho) else ""
        elif not reason:
            found = spearman(*sides.values(), level=level, groups=groups)
        name = f"{of}_given_{given}" if given else of
        rows.append((name, other, found.rho, *found.interval, found.p_value, n, reason))
    return pd.DataFrame(rows, columns=list(COLUMNS))


def _why_unknown(sides: Mapping[str, Shaped[np.ndarray, " sample"]], fewest: int) -> str:
    for name, values in sides.items():
        if len(values) < fewest:
            return f"there are {counted(len(values), 'different sample')}, and it takes {fewest}"
        if np.isnan(values).any():
            return (
                f"{name} is unknown for {counted(np.isnan(values).sum(), 'sample')}, of which the oracle's bits are 0"
            )
        if (values != values[0]).any():
            continue
        if not name.endswith("_duplicates"):
            return f"{name} is {values[0]:g} for every sample"
        kind = "near duplicate" if name.startswith("near") else "duplicate"
        return f"no sample has a {kind}" if values[0] < 2 else f"every sample comes {values[0]} times"
    return ""
