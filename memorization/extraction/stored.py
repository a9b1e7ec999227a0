"""Extraction from code lengths that were measured already: no model is run."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float64, Int64

from memorization.errors import InputError
from memorization.extraction.decoding import Decoding
from memorization.extraction.rates import FEWEST_SUFFIX, known, long_enough
from memorization.extraction.result import Extraction
from memorization.integers import edges_of
from memorization.measure.code_lengths import CodeLengths
from memorization.measure.pair import differ_in_tokens
from memorization.results import About, versions
from memorization.unintended import Memorization
from memorization.unintended.means import sample_keys

__all__ = ["FEWEST_TOKENS", "PREFIXES", "Recited", "extraction_of", "recited"]

PREFIXES = (8, 16, 32)
FEWEST_TOKENS = PREFIXES[0] + FEWEST_SUFFIX


class _Stored(NamedTuple):
    """What is known of the tokens of one set."""

    correct: np.ndarray
    offsets: np.ndarray
    bits: np.ndarray
    oracle_bits: np.ndarray | None
    groups: tuple[str, ...] | None
    about: About | None
    record: dict[str, Any]


def extraction_of(
    memorization: Memorization,
    *,
    prefix_tokens: Sequence[int] | None = None,
    fewest_suffix_tokens: int = FEWEST_SUFFIX,
    level: float = 0.95,
    examples: Sequence[Mapping[str, object]] = (),
) -> Extraction:
    """Share of samples that the target gives back, greedily and by sampling, from what `unintended_memorization` kept.

    Bits are those of sampling at temperature 1, and whether greedy decoding gives a token was noted beside them.

    Args:
        memorization: a measured one; its control are the held-out samples.
        prefix_tokens: lengths of the prefixes; None is 8, 16 and 32, and 0, the prompt alone, where samples have
            prompts. Those are reported that leave a suffix in every sample that is long enough for the shortest.
        fewest_suffix_tokens: samples with fewer tokens after the shortest prefix are left out, and counted:
            settings["members"]["too_short"].
        level: of the intervals.
        examples: for settings["examples"].

    Returns:
        The same as `extract`. The suffix is the whole rest of each sample, read in the windows of the measurement where
        it is longer than one.

    Raises:
        InputError: code lengths of an earlier version, which do not say what greedy decoding gives, or measured with
            first_token="skip"; no sample, or no control sample, is long enough.

    Examples:
        >>> import torch
        >>> from memorization import UniformModel, unintended_memorization
        >>> counts = lambda ids: 9 * torch.nn.functional.one_hot((ids + 1) % 64, 64).float()
        >>> found = unintended_memorization(counts, UniformModel(64), [list(range(20)), [5] * 20])
        >>> extraction_of(found).extracted(8).tolist()
        [True, False]
    """
    prompted = memorization.target.settings["samples"].get("conditional") is not None
    prefixes = sorted(prefix_tokens or ((0, *PREFIXES) if prompted else PREFIXES))
    ours, control = (memorization.target, memorization.oracle, memorization.groups), memorization.control
    least = prefixes[0] + fewest_suffix_tokens
    members = _stored(*ours, least, "members")
    heldout = None
    if control is not None:
        heldout = _stored(control.target, control.oracle, control.groups, least, "heldout")
    lengths = np.concatenate([np.diff(one.offsets) for one in (members, heldout) if one is not None])
    used = [prefix for prefix in prefixes if prefix + fewest_suffix_tokens <= lengths.min()]
    settings = {
        "prefix_tokens": used,
        "prefix_tokens_left_out": [prefix for prefix in prefixes if prefix not in used],
        "interval_level": level,
        "examples": list(examples),
    }
    return _assembled(memorization, members, heldout, settings)


def _assembled(
    memorization: Memorization, members: _Stored, heldout: _Stored | None, settings: dict[str, Any]
) -> Extraction:
    nothing, target = np.zeros(0), memorization.target.settings
    by_oracle = members.oracle_bits is not None
    return Extraction(
        member_correct=members.correct,
        member_offsets=members.offsets,
        heldout_correct=nothing.astype(bool) if heldout is None else heldout.correct,
        heldout_offsets=edges_of([]) if heldout is None else heldout.offsets,
        member_bits=members.bits,
        heldout_bits=nothing if heldout is None else heldout.bits,
        member_oracle_bits=members.oracle_bits,
        heldout_oracle_bits=None if not by_oracle else nothing if heldout is None else heldout.oracle_bits,
        member_groups=members.groups,
        heldout_groups=None if heldout is None else heldout.groups,
        member_about=members.about,
        heldout_about=None if heldout is None else heldout.about,
        settings={
            **settings,
            "suffix_tokens": None,
            "decoding": asdict(Decoding.checked(1.0, None, 1.0)),
            "first_token": target["first_token"],
            "batch_size": target["batch_size"],
            "max_batch_tokens": target.get("max_batch_tokens"),
            "n_cut": {"members": 0, "heldout": 0},
            "members": members.record,
            "heldout": None if heldout is None else heldout.record,
            "groups": memorization.groups is not None,
            "model": target["model"],
            "oracle": memorization.oracle.settings["model"] if by_oracle else None,
            "tokenizer": target["tokenizer"],
            "versions": versions(),
        },
    )


def _stored(
    lengths: CodeLengths, oracle: CodeLengths, groups: tuple[str, ...] | None, least: int, which: str
) -> _Stored:
    """What is stored of the samples that have so many tokens at least."""
    if lengths.token_greedy is None:
        raise InputError(
            "these code lengths were saved by an earlier version, and do not say which tokens greedy decoding gives: "
            "measure again, or use extract, which runs the model."
        )
    if lengths.settings["first_token"]["rule"] == "skip":
        raise InputError('first_token="skip" leaves the first token out of the code lengths, and a prefix needs it.')
    enough = long_enough(which, lengths.n_tokens, least)
    tokens = np.repeat(enough, lengths.n_tokens)
    own = None if differ_in_tokens(lengths, oracle) else oracle.token_bits[tokens]
    if groups is None:
        number: dict[Any, int] = {}
        labels = [str(number.setdefault(key, len(number))) for key in sample_keys(lengths)]
        groups = tuple(labels) if len(number) < len(labels) else None
    record = lengths.settings["samples"]
    return _Stored(
        correct=lengths.token_greedy[tokens],
        offsets=edges_of(lengths.n_tokens[enough]),
        bits=lengths.token_bits[tokens],
        oracle_bits=own,
        groups=None if groups is None else tuple(np.asarray(groups, dtype=object)[enough]),
        about=None if lengths.about is None else lengths.about.take(np.flatnonzero(enough)),
        record={
            **record,
            "n_samples": int(enough.sum()),
            "too_short": lengths.index[~enough].tolist(),
        },
    )


class Recited(NamedTuple):
    """What comes out of each sample of a set, given the longest prefix that leaves it a suffix.

    Attributes:
        prefix: tokens given, int64: one of the prefixes asked for.
        greedy: whether greedy decoding gives all the rest, bool.
        bits: -log2 of the probability that one sampled continuation is the rest, float64.
    """

    prefix: Int64[np.ndarray, " sample"]
    greedy: Bool[np.ndarray, " sample"]
    bits: Float64[np.ndarray, " sample"]


def recited(extraction: Extraction) -> tuple[Recited, Recited]:
    """Of members and held-out samples of an `extraction_of`, whose rates are of prefixes that suit all of them."""
    settings = extraction.settings
    prefixes = np.array(sorted({*settings["prefix_tokens"], *settings["prefix_tokens_left_out"]}), dtype=np.int64)

    def of(offsets: np.ndarray, needed: np.ndarray, bits: np.ndarray) -> Recited:
        n_tokens = np.diff(offsets)
        prefix = prefixes[np.maximum(np.searchsorted(prefixes, n_tokens - FEWEST_SUFFIX, side="right") - 1, 0)]
        starts = offsets[:-1] + prefix
        own = np.array([bits[a:b].sum() for a, b in zip(starts, offsets[1:], strict=True)], dtype=np.float64)
        return Recited(prefix, needed <= prefix, own)

    return (
        of(extraction.member_offsets, extraction.prefix_needed, known(extraction.member_bits)),
        of(extraction.heldout_offsets, extraction.heldout_prefix_needed, known(extraction.heldout_bits)),
    )
