"""Rates of extraction at one prefix length, and what they are made of."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float64, Int64

from memorization.errors import InputError
from memorization.integers import as_number
from memorization.results import ReadOnly, counted
from memorization.stats.binomial import clopper_pearson, korn_graubard
from memorization.stats.levels import Interval, with_interval

NAMES = {"members": "sample", "heldout": "control sample"}
SETS = {"members": "samples", "heldout": "control"}
FEWEST_SUFFIX = 8  # tokens, where nobody asked for others: a shorter one comes out by chance


@dataclass(frozen=True, slots=True)
class ExtractionRate(ReadOnly):
    """Share of the samples that a prefix of one length extracts.

    Rates and their intervals are NaN where there are no samples.

    Attributes:
        prefix_tokens: length of the prefix.
        n_members: samples of the training data.
        member_rate: share of them extracted, from 0 to 1.
        member_interval: its lower and upper end.
        n_heldout: samples that the model has not seen; 0 where none were given.
        heldout_rate: share of them that come out all the same: generalization, not memorization.
        heldout_interval: its ends.
        excess: member_rate - heldout_rate, from -1 to 1.
        excess_interval: its ends.
    """

    prefix_tokens: int
    n_members: int
    member_rate: float
    member_interval: Interval
    n_heldout: int
    heldout_rate: float
    heldout_interval: Interval
    excess: float
    excess_interval: Interval


def check_tries(n_tries: Any) -> float:
    """How often is sampled.

    Raises:
        InputError: less often than once.
    """
    value = as_number(n_tries)
    if not 1 <= value < math.inf:
        raise InputError(f"n_tries must be a number of at least 1: how often is sampled; it is {n_tries!r}.")
    return value


def known(bits: Float64[np.ndarray, " token"] | None) -> Float64[np.ndarray, " token"]:
    """Bits of tokens, refused where a result has none."""
    if bits is None:
        raise InputError("this result was saved by an earlier version, which knew no probabilities: run extract again.")
    return bits


def prefix_needed(
    correct: Bool[np.ndarray, " token"], offsets: Int64[np.ndarray, " edge"]
) -> Int64[np.ndarray, " sample"]:
    """1 + the position of the last token that is wrong, 0 where none is."""
    if len(offsets) == 1:  # no sample: reduceat wants one
        return np.zeros(0, dtype=np.int64)
    position = np.arange(len(correct)) - np.repeat(offsets[:-1], np.diff(offsets))
    return np.maximum.reduceat(np.where(correct, 0, position + 1), offsets[:-1]).astype(np.int64)


def check_long_enough(which: str, index: np.ndarray, n_tokens: np.ndarray, prefix: int, suffix: int | None) -> None:
    """Refuse a prefix that leaves a sample without the suffix, naming the first one."""
    short = np.flatnonzero(n_tokens < prefix + (suffix or 1))
    if len(short):
        rest = "a suffix" if suffix is None else f"a suffix of {suffix}"
        has = counted(int(n_tokens[short[0]]), "token")
        raise InputError(
            f"{NAMES[which]} {index[short[0]]} has {has}, too few for a prefix of {prefix} and {rest} ({len(short)} "
            f"of {counted(len(n_tokens), 'sample')} "
            f"{'is' if len(short) == 1 else 'are'} as short). Pass a smaller prefix_tokens"
            f"{'' if suffix is None else ' or suffix_tokens'}, or leave short samples out."
        )


def long_enough(which: str, n_tokens: Int64[np.ndarray, " sample"], least: int) -> Bool[np.ndarray, " sample"]:
    """Which samples have so many tokens, enough for a prefix and a suffix; refused where none has.

    Others are left out, and counted: of a sample that is all prefix there is nothing to give back.
    """
    enough = n_tokens >= least
    if not enough.any():
        raise InputError(
            f"extraction needs samples of at least {counted(least, 'token')}, a prefix and a suffix, and the longest "
            f"of {counted(len(n_tokens), NAMES[which])} has {n_tokens.max()}."
        )
    return np.asarray(enough)


def share(
    extracted: Bool[np.ndarray, " sample"], level: float, groups: tuple[str, ...] | None = None
) -> tuple[float, Interval]:
    """Share of the samples, with Clopper and Pearson's interval; of documents, or of equal samples, where there are."""
    n, k = len(extracted), int(extracted.sum())
    if groups is not None:
        return k / n, korn_graubard(extracted, np.asarray(groups), level)
    return (k / n if n else math.nan), clopper_pearson(k, n, level)


def documents_of_both(
    labels: tuple[tuple[str, ...] | None, tuple[str, ...] | None], n_each: tuple[int, int]
) -> tuple[np.ndarray, np.ndarray] | None:
    """Labels of members and held-out samples, where either has some; None where all are on their own."""
    if labels == (None, None):
        return None
    ours, theirs = (
        np.arange(n).astype(str) if of is None else np.array(of) for of, n in zip(labels, n_each, strict=True)
    )
    return ours, theirs


def line_of(name: str, row: ExtractionRate, with_heldout: bool) -> str:
    """A row of the printed table."""
    line = f"  {name:<13}{with_interval(row.member_rate, row.member_interval, '.3g'):<28}"
    if with_heldout:
        line += f"{with_interval(row.heldout_rate, row.heldout_interval, '.3g'):<28}"
        line += with_interval(row.excess, row.excess_interval, ".3g")
    return line
