"""Tables of extraction: a row a sample, and a row a token."""

import math
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Bool, Float64, Int64

from memorization.extraction.decoding import tries
from memorization.extraction.rates import NAMES, documents_of_both
from memorization.results import About, Result, with_about
from memorization.stats.significance import conformal_p_values, q_of_p_values

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["TOKEN_COLUMNS", "SampleTables"]

TOKEN_COLUMNS = ("bits", "oracle_bits")


class SampleTables(Result):
    """What `Extraction` says of each sample and of each token."""

    __slots__ = ()

    settings: dict[str, Any]
    member_bits: Float64[np.ndarray, " member_token"] | None
    member_groups: tuple[str, ...] | None
    heldout_groups: tuple[str, ...] | None
    member_about: About | None
    heldout_about: About | None

    def samples_to_pandas(self) -> "pd.DataFrame":
        """One row a sample, members first: member, sample (its position in the input), n_tokens, prefix_needed.

        And suffix_bits after the shortest prefix reported, and the tries that are needed for probability 1/2, where
        they are known. And p_value, the share of held-out samples, the member itself counted, of which as many last
        tokens or more come out right (n_tokens - prefix_needed), with q_value, the lowest false discovery rate at which
        it is selected. NaN for held-out samples, which members are compared with, and where there are none. Last, how
        the sample begins, and the columns that were kept; id stands behind sample.
        """
        import pandas as pd

        sets = zip(("members", "heldout"), (self.prefix_needed, self.heldout_prefix_needed), strict=True)
        tables = []
        for which, needed in sets:
            offsets = self._part(which)[1]
            columns = {"sample": self._index(which), "n_tokens": np.diff(offsets), "prefix_needed": needed}
            if (groups := self.member_groups if which == "members" else self.heldout_groups) is not None:
                columns["group"] = np.array(groups, dtype=object)
            tables.append(pd.DataFrame({"member": np.full(len(needed), which == "members"), **columns}))
        recited = [(table["n_tokens"] - table["prefix_needed"]).to_numpy(np.float64) for table in tables]
        none = np.full(len(recited[1]), math.nan)
        of_both = documents_of_both((self.member_groups, self.heldout_groups), (len(recited[0]), len(none)))
        p = conformal_p_values(*recited, groups=of_both) if len(none) else np.full(len(recited[0]), math.nan)
        q = q_of_p_values(p) if len(none) else p
        more = {"p_value": np.concatenate([p, none]), "q_value": np.concatenate([q, none])}
        if self.member_bits is not None and self.settings["prefix_tokens"]:
            shortest = self.settings["prefix_tokens"][0]
            bits = np.concatenate([self.suffix_bits(shortest), self.heldout_suffix_bits(shortest)])
            more |= {"suffix_bits": bits, "tries": tries(bits)}
        about = About.joined((self.member_about, self.heldout_about), (len(recited[0]), len(none)))
        return with_about(pd.concat(tables, ignore_index=True).assign(**more), about)

    def tokens_to_pandas(self) -> "pd.DataFrame":
        """One row a token, members first: member, sample (position in the input), position (in the sample), correct."""
        import pandas as pd

        tables = []
        for which in NAMES:
            correct, offsets = self._part(which)
            n_tokens = np.diff(offsets)
            position = np.arange(len(correct)) - np.repeat(offsets[:-1], n_tokens)
            columns = {"sample": np.repeat(self._index(which), n_tokens), "position": position, "correct": correct}
            for name, values in zip(TOKEN_COLUMNS, self._bits_of(which), strict=True):
                columns |= {} if values is None else {name: values}
            tables.append(pd.DataFrame({"member": np.full(len(correct), which == "members"), **columns}))
        return pd.concat(tables, ignore_index=True)

    @property
    def prefix_needed(self) -> Int64[np.ndarray, " member"]:
        """Of each member the fewest leading tokens from which all later ones come out right."""
        raise NotImplementedError

    @property
    def heldout_prefix_needed(self) -> Int64[np.ndarray, " heldout"]:
        """The same of each held-out sample."""
        raise NotImplementedError

    def suffix_bits(self, prefix_tokens: int) -> Float64[np.ndarray, " member"]:
        """Of each member the bits of what follows a prefix."""
        raise NotImplementedError

    def heldout_suffix_bits(self, prefix_tokens: int) -> Float64[np.ndarray, " heldout"]:
        """The same of each held-out sample."""
        raise NotImplementedError

    def _part(self, which: str) -> tuple[Bool[np.ndarray, " token"], Int64[np.ndarray, " edge"]]:
        raise NotImplementedError

    def _index(self, which: str) -> Int64[np.ndarray, " sample"]:
        raise NotImplementedError

    def _bits_of(self, which: str) -> tuple[Float64[np.ndarray, " token"] | None, ...]:
        raise NotImplementedError
