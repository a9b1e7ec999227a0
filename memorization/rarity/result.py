"""Which samples are memorized: memU of each sample beside its TF-IDF and its duplicates, and how their ranks correlate."""

import math
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float64, Int64

from memorization.errors import InputError, ResultError
from memorization.membership.metrics import check_level
from memorization.models import load_tokenizer, tokenizer_record
from memorization.rarity.correlations import COLUMNS, correlation_table
from memorization.rarity.duplicates import check_near_options, count_duplicates, sample_keys
from memorization.rarity.tfidf import as_tokens, mean_bits
from memorization.records import read_json, read_table, versions, write_json, write_tables
from memorization.samples import Samples, read_samples
from memorization.unintended import Memorization

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

_PREVIEW = 60  # characters of a sample in a table
_PREVIEW_IDS = 12  # without a tokenizer
_WORDS = {
    "signed_bits": "memU",
    "signed_bits_per_token": "memU a token",
    "tfidf_bits": "TF-IDF",
    "exact_duplicates": "exact duplicates",
    "near_duplicates": "near duplicates",
    "n_tokens": "length",
}


@dataclass(frozen=True, slots=True, eq=False)
class Rarity:
    """memU of samples beside the rarity of their tokens and their duplicates in the training set, in the order of the samples.

    Attributes:
        signed_bits: memU, H(x | oracle) - H(x | target), not clipped, in bits a sample, float64; or the bits that were given.
        tfidf_bits: bits a token, float64, as `tfidf_bits` gives them.
        exact_duplicates: training samples that equal the sample, itself included where it is one, int64.
        near_duplicates: training samples that resemble it, those that equal it included, int64.
        n_tokens: tokens of the sample, int64.
        correlations: Spearman's rank correlations, one row each: of, with (names of columns), rho, low, high (its interval at
            settings["interval_level"]), p_value (two-sided), n (different samples), reason (empty where rho is known, else why it is NaN).
        index: position of each sample in the input, int64; differs from its place here where lossy texts were skipped.
        previews: how each sample begins: text, or ids without a tokenizer.
        settings: what was decided, by the caller or for the caller.
    """

    signed_bits: Float64[np.ndarray, " sample"]
    tfidf_bits: Float64[np.ndarray, " sample"]
    exact_duplicates: Int64[np.ndarray, " sample"]
    near_duplicates: Int64[np.ndarray, " sample"]
    n_tokens: Int64[np.ndarray, " sample"]
    correlations: "pd.DataFrame"
    index: Int64[np.ndarray, " sample"]
    previews: list[str]
    settings: dict[str, Any]

    @property
    def signed_bits_per_token(self) -> Float64[np.ndarray, " sample"]:
        """memU in bits a token."""
        return np.asarray(self.signed_bits / self.n_tokens)

    @property
    def lengths_vary(self) -> bool:
        """Whether the longest sample has over 10 % more tokens than the shortest: then bits a sample follow the length, too."""
        return lengths_vary(self.n_tokens)

    def top(self, k: int = 20) -> "pd.DataFrame":
        """The k samples of most memU in bits a sample, the first first; of equal ones the earlier. Columns as in `to_pandas`."""
        if k < 1:
            raise InputError(f"k must be at least 1; it is {k}")
        return self.to_pandas().iloc[np.argsort(-self.signed_bits, kind="stable")[:k]].reset_index(drop=True)

    def to_pandas(self) -> "pd.DataFrame":
        """One row a sample: sample (its position in the input), memU in bits a sample and a token, rarity, and how it begins."""
        import pandas as pd

        return pd.DataFrame(
            {
                "sample": self.index,
                "signed_bits": self.signed_bits,
                "signed_bits_per_token": self.signed_bits_per_token,
                "tfidf_bits": self.tfidf_bits,
                "exact_duplicates": self.exact_duplicates,
                "near_duplicates": self.near_duplicates,
                "n_tokens": self.n_tokens,
                "preview": self.previews,
            }
        )

    def save(self, folder: str | os.PathLike[str]) -> None:
        """Write a folder: rarity.parquet (a row a sample), correlations.parquet (a row a pair), settings.json."""
        write_tables(folder, {"rarity": self.to_pandas(), "correlations": self.correlations})
        write_json(Path(folder) / "settings.json", "Rarity", self.settings)

    @classmethod
    def load(cls, folder: str | os.PathLike[str]) -> "Rarity":
        """Read what `save` wrote.

        Raises:
            ResultError: the folder holds no Rarity, or a damaged one.
        """
        settings = read_json(Path(folder) / "settings.json", "Rarity")
        bits, counts = ("signed_bits", "tfidf_bits"), ("exact_duplicates", "near_duplicates", "n_tokens")
        table = read_table(folder, "rarity", ("sample", *bits, *counts, "preview"))
        n_samples = settings["samples"]["n_samples"]
        if len(table) != n_samples:
            raise ResultError(f"{folder} is damaged: rarity.parquet has {len(table)} rows for {n_samples} samples")
        return cls(
            **{name: table[name].to_numpy(np.float64) for name in bits},
            **{name: table[name].to_numpy(np.int64) for name in counts},
            correlations=read_table(folder, "correlations", COLUMNS),
            index=table["sample"].to_numpy(np.int64),
            previews=table["preview"].tolist(),
            settings=settings,
        )

    def plot(self, ax: "Axes | None" = None) -> "Axes":
        """memU against TF-IDF, a dot a sample; see `memorization.report.which_samples.plot_rarity`."""
        from memorization.report.which_samples import plot_rarity

        return plot_rarity(self, ax)

    def __len__(self) -> int:
        return len(self.signed_bits)

    def __repr__(self) -> str:
        memu, tfidf, settings = self.signed_bits, self.tfidf_bits, self.settings
        n_copied, n_near = (
            int((self.exact_duplicates > 1).sum()),
            int((self.near_duplicates > self.exact_duplicates).sum()),
        )
        lines = [
            f"Rarity of {len(self):,} samples in a training set of {settings['training_set']['n_samples']:,}",
            f"  memU         {memu.mean():,.2f} bits a sample in the mean, {memu.min():,.2f} to {memu.max():,.2f} (signed)",
            f"  TF-IDF       {tfidf.mean():.2f} bits a token in the mean, {tfidf.min():.2f} to {tfidf.max():.2f}",
            f"  duplicates   {n_copied:,} samples come more than once there; {n_near:,} resemble one that differs (Jaccard similarity of "
            f"{settings['shingle_tokens']}-token runs at least {settings['near']:g})",
            f"  rank correlations (Spearman) of {self.correlations['n'][0]:,} different samples, "
            f"{100 * settings['interval_level']:g} % intervals",
            *self._correlations_in_words(),
        ]
        if self.lengths_vary:
            lines.append(
                f"    samples have {self.n_tokens.min()} to {self.n_tokens.max()} tokens: memU grows with the length, so read memU a token"
            )
        lines.append("  most memorized")
        for row in self.top(5).itertuples():
            copies = f"{row.exact_duplicates} exact, {row.near_duplicates} near"
            lines.append(
                f"    sample {row.sample:<7} {row.signed_bits:8,.1f} bits  TF-IDF {row.tfidf_bits:6.2f}  {copies}  {row.preview!r}"
            )
        return "\n".join(lines)

    def _correlations_in_words(self) -> Iterator[str]:
        for row in self.correlations.itertuples(index=False):
            of, other, rho, low, high, p_value, _, reason = row
            name = f"    {_WORDS[of]} with {_WORDS[other]}".ljust(38)
            ends = "interval unknown" if math.isnan(low) else f"[{low:+.2f}, {high:+.2f}]"
            p = f"p = {p_value:.1g}" if p_value else "p < 1e-300"
            yield f"{name} " + (f"unknown: {reason}" if reason else f"{rho:+.2f} {ends}, {p}")


def rarity(
    memorized: Any,
    samples: Any,
    training_set: Any = None,
    *,
    tokenizer: Any = None,
    near: float = 0.8,
    shingle_tokens: int = 5,
    n_permutations: int = 128,
    seed: int = 0,
    interval: float = 0.95,
) -> Rarity:
    """Which samples are memorized: does memU, in bits, rank like the rarity of their tokens, or like the number of their duplicates?

    Args:
        memorized: a `Memorization` of the samples, of which the signed bits count; or bits, one a sample.
        samples: those that were measured, as `compress_bits` takes them.
        training_set: what the target was trained on, repeats included; None is the samples themselves.
        tokenizer: for texts, best that of the target: an object, or the folder or name to load one from. For ids it decodes previews.
        near: as for `duplicate_counts`, as the next three; on tokens here.
        shingle_tokens: tokens of a shingle.
        n_permutations: of the MinHash.
        seed: of the permutations.
        interval: level of the intervals of the rank correlations.

    Returns:
        A row a sample, and Spearman's correlations of memU with TF-IDF and with the numbers of exact and near duplicates. Where the longest
        sample has over 10 % more tokens than the shortest, also those of memU a token, and of memU and TF-IDF with the length: memU in
        bits a sample grows with the length, whatever is in a sample.

    Raises:
        InputError: texts without a tokenizer, bits that are not finite or not one a sample, options out of range, or datasketch is not
            installed.
        ResultError: the Memorization is of other samples.

    Guarantees:
        Equal samples count once in the correlations: a model gives copies the same bits, and counted n times they would be taken for n
        observations. So where memU is drawn at random p-values are uniform, and 95 % intervals covered in 94 to 97 % of 2,000 trials (rho 0
        to 0.95, 10 to 300 samples). Near duplicates are not independent either, and are counted as if they were: read p-values of
        sets full of them as too small.

    Examples:
        >>> samples = [[1, 1], [1, 2], [2, 2], [3, 1], [3, 4], [1, 1]]
        >>> result = rarity([0.0, 2.0, 2.5, 3.0, 9.0, 0.0], samples)
        >>> result.tfidf_bits.round(2).tolist(), result.exact_duplicates.tolist()
        ([0.0, 0.5, 1.0, 0.79, 2.08, 0.0], [2, 1, 1, 1, 1, 2])
        >>> float(round(result.correlations["rho"][0], 2)), int(result.correlations["n"][0])
        (0.9, 5)

    Source:
        Morris et al., arXiv:2505.24832, section 4; Bonett and Wright, doi:10.1007/BF02294183 (intervals).
    """
    check_level(interval)
    check_near_options(near, shingle_tokens, n_permutations, seed)
    read = read_samples(samples)
    if isinstance(memorized, Memorization):
        read, bits = _same_samples(memorized, read), memorized.signed_bits
    else:
        bits = _bits(memorized, len(read))
    tokenizer = load_tokenizer(tokenizer)
    own = as_tokens(read, tokenizer, "sample")
    training = own if training_set is None else as_tokens(read_samples(training_set), tokenizer, "training sample")
    counts = count_duplicates(
        own, training, near=near, shingle_tokens=shingle_tokens, n_permutations=n_permutations, seed=seed
    )
    n_tokens = np.array([len(ids) for ids in own.ids or ()], dtype=np.int64)
    columns: dict[str, np.ndarray] = {
        "signed_bits": bits,
        "tfidf_bits": mean_bits(own, training),
        "exact_duplicates": counts.exact,
        "near_duplicates": counts.near,
        "n_tokens": n_tokens,
    }
    one_of_each = list({key: i for i, key in enumerate(sample_keys(own))}.values())
    compared = columns | {"signed_bits_per_token": bits / n_tokens}
    different = {name: values[one_of_each] for name, values in compared.items()}
    return Rarity(
        **columns,
        correlations=correlation_table(different, lengths_vary=lengths_vary(n_tokens), interval=interval),
        index=read.index,
        previews=list(_previews(own, tokenizer)),
        settings={
            "interval_level": interval,
            "near": float(near),
            "shingle_tokens": int(shingle_tokens),  # a numpy integer is no JSON
            "n_permutations": int(n_permutations),
            "seed": int(seed),
            "samples": own.record(),
            "training_set": training.record(),
            "tokenizer": tokenizer_record(tokenizer),
            "versions": versions(),
        },
    )


def lengths_vary(n_tokens: Int64[np.ndarray, " sample"]) -> bool:
    """Whether the longest sample has over 10 % more tokens than the shortest."""
    return bool(10 * n_tokens.max() > 11 * n_tokens.min())


def _same_samples(memorized: Memorization, read: Samples) -> Samples:
    """The samples without the lossy ones that were not measured, checked to be those that were."""
    measured = memorized.target.settings["samples"]
    read = read.leave_out(measured["lossy_skipped"]) if measured["lossy_skipped"] else read
    kind = "ids_sha256" if read.texts is None else "texts_sha256"
    if getattr(read, kind) != measured[kind]:
        raise ResultError(
            f"the Memorization is of other samples: {measured['n_samples']} from {measured['source']} were measured, and {len(read)} from "
            f"{read.source} came (compared by fingerprint, order included; texts with texts, ids with ids). Pass the same samples"
        )
    return read


def _bits(values: Any, n_samples: int) -> Float64[np.ndarray, " sample"]:
    try:
        bits = np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise InputError(f"memorized must be a Memorization, or a flat array of bits, one a sample: {error}") from error
    if bits.shape != (n_samples,):
        raise InputError(
            f"memorized holds bits, one a sample: {n_samples} samples came, and bits of shape {list(bits.shape)}"
        )
    wrong = np.flatnonzero(~np.isfinite(bits))
    if len(wrong):
        raise InputError(f"bits must be finite; that of sample {wrong[0]} is {bits[wrong[0]]} ({len(wrong)} such)")
    return bits


def _previews(samples: Samples, tokenizer: Any) -> Iterator[str]:
    """How each sample begins, in a few words."""
    for i, ids in enumerate(samples.ids or ()):
        if samples.texts is not None:
            text, whole = samples.texts[i][:_PREVIEW], len(samples.texts[i]) <= _PREVIEW
        elif tokenizer is not None:  # a token is rarely less than a character
            text = tokenizer.decode(ids[:_PREVIEW])
            text, whole = text[:_PREVIEW], len(text) <= _PREVIEW and len(ids) <= _PREVIEW
        else:
            text, whole = " ".join(map(str, ids[:_PREVIEW_IDS].tolist())), len(ids) <= _PREVIEW_IDS
        yield text if whole else f"{text} ..."
