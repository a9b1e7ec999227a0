"""The result of `which_samples`: memU of each sample, its TF-IDF and duplicates, and how their ranks correlate."""

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from jaxtyping import Float64, Int64

from memorization.errors import InputError
from memorization.rarity.correlations import COLUMNS
from memorization.results import About, Result, Saved, counted, quoted, with_about

if TYPE_CHECKING:
    import pandas as pd


_WORDS = {
    "signed_bits": "memU",
    "signed_bits_per_token": "memU a token",
    "signed_bits_given_oracle_bits": "memU given the oracle's bits",
    "tfidf_bits": "TF-IDF",
    "exact_duplicates": "exact duplicates",
    "near_duplicates": "near duplicates",
    "n_tokens": "length",
    "oracle_bits": "the oracle's bits",
    "share_memorized": "share memorized",
}


@dataclass(frozen=True, slots=True, eq=False)
class Rarity(Result):
    """memU of samples beside the rarity of their tokens and their number of duplicates, in the order of the samples.

    A saved folder holds rarity.parquet (a row a sample), correlations.parquet (a row a pair) and settings.json.

    Attributes:
        signed_bits: memU, H(x | oracle) - H(x | target), not clipped, in bits a sample, float64; or the bits that were
            given.
        oracle_bits: H(x | oracle), in bits a sample, float64: all that a model can memorize of the sample beyond what
            the oracle knows. NaN where bits came without those of an oracle.
        tfidf_bits: bits a token, float64, as `tfidf_bits` gives them.
        exact_duplicates: training samples that equal the sample, itself included where it is one, int64.
        near_duplicates: training samples that resemble it, those that equal it included, int64.
        n_tokens: tokens of the sample, int64.
        correlations: Spearman's rank correlations, one row each: of, with (names of columns), rho, low, high (its
            interval at settings["interval_level"]), p_value (two-sided), n (different samples), reason (empty where rho
            is known, else why it is NaN). Partial ones, the oracle's bits held fixed, are of
            signed_bits_given_oracle_bits.
        index: position of each sample in the input, int64; differs from its place here where lossy texts were skipped.
        previews: how each sample begins: text, or ids without a tokenizer; harmless to print.
        settings: what was decided, by the caller or for the caller.
        about: the same with the id of each sample and the columns that were kept; None of an earlier version.

    Examples:
        >>> from memorization import which_samples
        >>> found = which_samples([0.0, 2.0, 9.0], [[1, 1], [1, 2], [3, 4]])
        >>> found.top(1)["sample"].tolist()
        [2]
    """

    signed_bits: Float64[np.ndarray, " sample"]
    oracle_bits: Float64[np.ndarray, " sample"]
    tfidf_bits: Float64[np.ndarray, " sample"]
    exact_duplicates: Int64[np.ndarray, " sample"]
    near_duplicates: Int64[np.ndarray, " sample"]
    n_tokens: Int64[np.ndarray, " sample"]
    correlations: "pd.DataFrame"
    index: Int64[np.ndarray, " sample"]
    previews: list[str]
    settings: dict[str, Any]
    about: About | None = None

    @property
    def signed_bits_per_token(self) -> Float64[np.ndarray, " sample"]:
        """memU in bits a token."""
        return np.asarray(self.signed_bits / self.n_tokens)

    @property
    def share_memorized(self) -> Float64[np.ndarray, " sample"]:
        """memU over the oracle's bits, signed: 1 where the target knows the sample by heart. NaN where unknown."""
        return share_memorized(self.signed_bits, self.oracle_bits)

    @property
    def lengths_vary(self) -> bool:
        """Whether the longest sample has over 10 % more tokens than the shortest, so that bits follow the length."""
        return lengths_vary(self.n_tokens)

    def top(self, k: int = 20) -> "pd.DataFrame":
        """The k most memorized samples, in bits a sample, highest first, with the columns of `to_pandas`.

        Args:
            k: how many.

        Returns:
            One row a sample.

        Raises:
            InputError: k is below 1.
        """
        if k < 1:
            raise InputError(f"k must be at least 1; it is {k}.")
        return self.to_pandas().iloc[np.argsort(-self.signed_bits, kind="stable")[:k]].reset_index(drop=True)

    def to_pandas(self) -> "pd.DataFrame":
        """One row a sample: sample (position in the input), memU and its share, rarity, first words.

        And id behind sample, and the columns that were kept at the end, where `read_samples` was told of them.
        """
        import pandas as pd

        table = pd.DataFrame(
            {
                "sample": self.index,
                "signed_bits": self.signed_bits,
                "signed_bits_per_token": self.signed_bits_per_token,
                "oracle_bits": self.oracle_bits,
                "share_memorized": self.share_memorized,
                "tfidf_bits": self.tfidf_bits,
                "exact_duplicates": self.exact_duplicates,
                "near_duplicates": self.near_duplicates,
                "n_tokens": self.n_tokens,
            }
        )
        return with_about(table, replace(self.about or About(()), previews=tuple(self.previews)))

    _row_tables: ClassVar[tuple[str, ...]] = ("rarity",)

    def _tables(self) -> "dict[str, pd.DataFrame]":
        return {"rarity": self.to_pandas(), "correlations": self.correlations}

    def _facts(self) -> dict[str, Any]:
        return self.settings

    @classmethod
    def _from_saved(cls, saved: Saved) -> "Rarity":
        bits, counts = ("signed_bits", "tfidf_bits"), ("exact_duplicates", "near_duplicates", "n_tokens")
        table = saved.table("rarity", ("sample", *bits, *counts, "preview"), optional=("oracle_bits",))
        settings = saved.need("samples", "training_set", "interval_level", "shingle_tokens", "near")
        n_samples = settings["samples"]["n_samples"]
        if len(table) != n_samples:
            raise saved.damaged(f"rarity.parquet has {counted(len(table), 'row')} for {counted(n_samples, 'sample')}")
        unknown = np.full(len(table), math.nan)  # in what 0.1.0 saved
        return cls(
            **{name: table[name].to_numpy(np.float64) for name in bits},
            oracle_bits=table["oracle_bits"].to_numpy(np.float64) if "oracle_bits" in table else unknown,
            **{name: table[name].to_numpy(np.int64) for name in counts},
            correlations=saved.table("correlations", COLUMNS),
            index=table["sample"].to_numpy(np.int64),
            previews=table["preview"].tolist(),
            settings=settings,
            about=saved.about("rarity"),
        )

    def __len__(self) -> int:
        return len(self.signed_bits)

    def __repr__(self) -> str:
        memu, tfidf, settings = self.signed_bits, self.tfidf_bits, self.settings
        n_copied, n_near = (
            int((self.exact_duplicates > 1).sum()),
            int((self.near_duplicates > self.exact_duplicates).sum()),
        )
        n_documents = settings.get("n_documents")
        of_documents = "" if n_documents is None else f" of {counted(n_documents, 'document')}"
        lines = [
            f"Rarity of {counted(len(self), 'sample')} in a training set of {settings['training_set']['n_samples']:,}",
            f"  memU         {memu.mean():,.2f} bits a sample in the mean, {memu.min():,.2f} to {memu.max():,.2f} "
            "(signed)",
            self._share_in_words(),
            f"  TF-IDF       {tfidf.mean():.2f} bits a token in the mean, {tfidf.min():.2f} to {tfidf.max():.2f}",
            f"  duplicates   {n_copied:,} samples come more than once there; {n_near:,} resemble one that differs "
            f"(Jaccard similarity of {settings['shingle_tokens']}-token runs at least {settings['near']:g})",
            f"  rank correlations (Spearman) of {counted(self.correlations['n'][0], 'different sample')}, "
            f"{100 * settings['interval_level']:g} % intervals{of_documents}",
            *self._correlations_in_words(),
        ]
        if self.lengths_vary:
            lines.append(
                f"    samples have {self.n_tokens.min()} to {self.n_tokens.max()} tokens: memU grows with the length, "
                "so read memU a token"
            )
        lines.append("  most memorized")
        for row in self.top(5).itertuples():
            copies = f"{row.exact_duplicates} exact, {row.near_duplicates} near"
            lines.append(
                f"    sample {row.sample:<7} {row.signed_bits:8,.1f} bits  TF-IDF {row.tfidf_bits:6.2f}  {copies}  "
                f"{quoted(row.preview)}"
            )
        return "\n".join(lines)

    def _share_in_words(self) -> str:
        share = self.share_memorized[~np.isnan(self.share_memorized)]
        if not len(share):
            return "  share        unknown: bits came without those of the oracle; pass a Memorization, or oracle_bits"
        low, high = 100 * share.min(), 100 * share.max()
        return f"  share        {100 * share.mean():.1f} % of the oracle's bits in the mean, {low:.1f} to {high:.1f} %"

    def _correlations_in_words(self) -> Iterator[str]:
        rows = list(self.correlations.itertuples(index=False))
        names = [f"    {_WORDS[of]} with {_WORDS[other]}" for of, other, *_ in rows]
        width = max(38, *map(len, names))
        for name, row in zip(names, rows, strict=True):
            _, _, rho, low, high, p_value, _, reason = row
            ends = "interval unknown" if math.isnan(low) else f"[{low:+.2f}, {high:+.2f}]"
            p = f"p = {p_value:.1g}" if p_value else "p < 1e-300"
            yield f"{name:<{width}} " + (f"unknown: {reason}" if reason else f"{rho:+.2f} {ends}, {p}")


def share_memorized(
    signed_bits: Float64[np.ndarray, " sample"], oracle_bits: Float64[np.ndarray, " sample"]
) -> Float64[np.ndarray, " sample"]:
    """Signed memU over the oracle's bits; NaN where these are unknown, or 0: there was nothing to memorize."""
    return np.asarray(signed_bits / np.where(oracle_bits > 0, oracle_bits, math.nan))


def lengths_vary(n_tokens: Int64[np.ndarray, " sample"]) -> bool:
    """Whether the longest sample has over 10 % more tokens than the shortest."""
    return bool(10 * n_tokens.max() > 11 * n_tokens.min())
