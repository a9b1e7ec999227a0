"""Means of memU with their intervals: the same names for samples and for control samples."""

import hashlib
from itertools import pairwise, repeat

import numpy as np
from jaxtyping import Float64, Int64, Shaped, UInt64

from memorization.measure.code_lengths import CodeLengths
from memorization.measure.rows import in_pieces
from memorization.results import About, ReadOnly
from memorization.stats.levels import Interval
from memorization.stats.means import mean_interval

__all__ = ["Means", "equal_samples", "labels_of_both", "sample_keys"]


class Means(ReadOnly):
    """What samples and control share: mean memU and mean signed bits, in bits a sample, each with its interval."""

    __slots__ = ()

    bits: Float64[np.ndarray, " sample"]
    signed_bits: Float64[np.ndarray, " sample"]
    groups: tuple[str, ...] | None
    target: CodeLengths

    @property
    def about(self) -> About | None:
        """How each sample begins, its id and the columns that were kept; None of what an earlier version saved."""
        return self.target.about

    @property
    def documents(self) -> Shaped[np.ndarray, " sample"] | None:
        """Labels of what is independent, which intervals take: documents, or equal samples; None where all differ."""
        return self._once("documents", lambda: labels_of(self.groups, self.target))

    @property
    def first_of_each(self) -> Int64[np.ndarray, " different"]:
        """Positions of the samples that are not the same as an earlier one."""
        return self._once("first", lambda: np.sort(np.unique(self.equal, return_index=True)[1]))

    @property
    def equal(self) -> Int64[np.ndarray, " sample"]:
        """The same number for equal samples, counted from 0."""
        return equal_samples(self.target)

    @property
    def n_independent(self) -> int:
        """Documents, or different samples where each is on its own."""
        return len(self.bits) if self.documents is None else len(np.unique(self.documents))

    @property
    def unit(self) -> str:
        """What is independent, in words: "samples" or "documents"."""
        return "samples" if self.groups is None else "documents"

    @property
    def mean_bits(self) -> float:
        """Mean memU, in bits a sample; of control samples, what memU shows where nothing was memorized."""
        return float(self.bits.mean())

    @property
    def interval(self) -> Interval:
        """95 % interval of `mean_bits`, at least 0 where no sample is below 0; NaN for one sample."""
        return self._once("interval", self._interval)

    def _interval(self) -> Interval:
        low, high = mean_interval(self.bits, groups=self.documents)
        return Interval(max(low, 0.0) if self.bits.min() >= 0 else low, high)

    @property
    def mean_signed_bits(self) -> float:
        """Mean of signed_bits, in bits a sample."""
        return float(self.signed_bits.mean())

    @property
    def signed_interval(self) -> Interval:
        """95 % interval of `mean_signed_bits`; NaN for one sample."""
        return self._once("signed_interval", lambda: mean_interval(self.signed_bits, groups=self.documents))


def labels_of(groups: tuple[str, ...] | None, lengths: CodeLengths) -> Shaped[np.ndarray, " sample"] | None:
    """What makes samples dependent: their documents where these are known, else that some are equal.

    Returns:
        A label a sample; None where all samples are on their own.
    """
    if groups is not None:
        return np.asarray(groups)
    equal = equal_samples(lengths)
    return equal if int(equal.max(initial=-1)) + 1 < len(equal) else None


def labels_of_both(
    ours: Shaped[np.ndarray, " sample"] | None, theirs: Shaped[np.ndarray, " control"] | None, n_each: tuple[int, int]
) -> tuple[np.ndarray, np.ndarray] | None:
    """Labels of samples and control, where either has some; None where all are on their own."""
    if ours is None and theirs is None:
        return None
    return (
        np.arange(n_each[0]) if ours is None else ours,
        np.arange(n_each[1]) if theirs is None else theirs,
    )


def sample_keys(lengths: CodeLengths) -> UInt64[np.ndarray, " sample"]:
    """A number for each sample, the same for equal ones: those with the same coded tokens and the same read before.

    Others have different ones but for one pair in 10^19.
    """
    return lengths._once("keys of samples", lambda: _keys(lengths))


def _keys(lengths: CodeLengths) -> UInt64[np.ndarray, " sample"]:
    given = lengths.settings["samples"].get("conditional")
    keys = np.empty(len(lengths), dtype=np.uint64)
    for part, (piece,) in in_pieces(lengths):
        ids = piece.token_ids
        prompts = given["prompts"][part] if given else repeat("", len(piece))
        digests = (
            hashlib.blake2b(ids[a:b].tobytes() + prompt.encode(), digest_size=8).digest()
            for (a, b), prompt in zip(pairwise(piece.token_offsets.tolist()), prompts, strict=True)
        )
        keys[part] = np.frombuffer(b"".join(digests), dtype="<u8")
    return keys


def equal_samples(lengths: CodeLengths) -> Int64[np.ndarray, " sample"]:
    """The same number for equal samples, counted from 0 in the order in which they come first."""
    return lengths._once("equal samples", lambda: _numbered(sample_keys(lengths)))


def _numbered(keys: UInt64[np.ndarray, " sample"]) -> Int64[np.ndarray, " sample"]:
    _, first, place = np.unique(keys, return_index=True, return_inverse=True)
    number = np.empty(len(first), dtype=np.int64)
    number[np.argsort(first)] = np.arange(len(first))
    return np.asarray(number[place])
