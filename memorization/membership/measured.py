"""The attacks on what was measured, and what they need of each sample while its tokens are in memory."""

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from jaxtyping import Float64

from memorization.errors import InputError, UnequalSetsWarning
from memorization.measure.batches import BatchSize
from memorization.measure.code_lengths import CodeLengths
from memorization.measure.opening import OpenModel
from memorization.membership.attacks import (
    loss_attack,
    min_k_attack,
    min_k_plus_plus_attack,
    token_moments,
    zlib_attack,
)
from memorization.membership.metrics import membership_metrics
from memorization.membership.result import Membership, MembershipAudit
from memorization.membership.split import BagOfWords, bag_of_words_auc
from memorization.results import versions
from memorization.samples import Samples
from memorization.stats.significance import conformal_p_values
from memorization.unintended import Memorization
from memorization.unintended.means import labels_of, labels_of_both

__all__ = ["MOST_FOR_WORDS", "attacks_on", "scores_of"]

Scores = dict[str, Float64[np.ndarray, " _"]]

_SHORT = 10  # of a kind: fewer cannot be split into folds for the check of the split, which then says nothing
MOST_FOR_WORDS = 5000  # of a kind, for the same check of samples that are read in shards


def scores_of(
    lengths: CodeLengths,
    samples: Samples,
    *,
    k_percent: float,
    model: OpenModel | None = None,
    batches: BatchSize | None = None,
    progress: bool = False,
) -> Scores:
    """Scores of attacks that need the tokens or the texts of each sample.

    Args:
        lengths: of the samples, under the target.
        samples: as they were read.
        k_percent: as for `audit_membership`.
        model: the target, open, for min_k_plus_plus; None leaves that out.
        batches: samples and tokens a forward pass.
        progress: a bar on stderr.

    Returns:
        An array with an entry a sample for each attack that can be made.
    """
    found = {}
    if samples.texts is not None:
        found["zlib"] = zlib_attack(lengths, samples)
    found["min_k"] = min_k_attack(lengths, k_percent=k_percent)
    if model is not None and lengths.settings["first_token"]["rule"] != "skip":
        how = {} if batches is None else batches.record()
        moments = token_moments(model, lengths, samples=samples, **how, progress=progress)
        found["min_k_plus_plus"] = min_k_plus_plus_attack(lengths, *moments, k_percent=k_percent)
    return found


def attacks_on(
    lengths: Sequence[CodeLengths],
    memorized: Memorization | None,
    scores: Sequence[Mapping[str, Float64[np.ndarray, " _"]]],
    documents: Sequence[tuple[str, ...] | None],
    words: Sequence[Samples],
    *,
    k_percent: float = 20.0,
    level: float = 0.95,
    seed: int = 0,
) -> MembershipAudit:
    """All attacks that can be made with what was measured: no model is run.

    Args:
        lengths: of samples and of control samples, under the target.
        memorized: the same under target and oracle; None leaves the reference attack out.
        scores: of both, by `scores_of`.
        documents: of both: which document each sample is of, or None.
        words: both, or some of both, for the check of the split.
        k_percent: as for `audit_membership`, as are all that follow.
        level: of the intervals.
        seed: of bootstraps and folds.

    Returns:
        What each attack achieves.
    """
    all_scores = {"loss": [loss_attack(part) for part in lengths]}
    if memorized is not None and memorized.control is not None:
        all_scores["reference"] = [memorized.ideal_signed_bits, memorized.control.ideal_signed_bits]
    all_scores |= {name: [of_set[name] for of_set in scores] for name in scores[0]}
    bag_of_words, why = _bag_of_words(words, level, seed)
    measured, windows = lengths[0].settings, ("max_length", "stride", "batch_size", "max_batch_tokens")
    return MembershipAudit(
        attacks=_metrics(all_scores, lengths, documents, level, seed),
        bag_of_words=bag_of_words,
        settings={
            "target": measured["model"],
            "oracle": None if memorized is None else memorized.oracle.settings["model"],
            "first_token": measured["first_token"],
            "members": measured["samples"],
            "nonmembers": lengths[1].settings["samples"],
            "windows": {name: measured.get(name) for name in windows},
            "k_percent": k_percent,
            "seed": seed,
            "why_no_bag_of_words": why,
            "versions": versions(),
        },
    )


def _metrics(
    scores: dict[str, list[Float64[np.ndarray, " _"]]],
    lengths: Sequence[CodeLengths],
    documents: Sequence[tuple[str, ...] | None],
    level: float,
    seed: int,
) -> dict[str, Membership]:
    """Metrics of each attack; a warning of unequal sets is given once."""
    groups: Any = None if None in documents else tuple(documents)
    equal = _equal_ones(lengths) if groups is None else None
    found = {}
    for k, (name, pair) in enumerate(scores.items()):
        with warnings.catch_warnings():
            if k:
                warnings.simplefilter("ignore", UnequalSetsWarning)
            one = membership_metrics(*pair, groups=groups or equal, level=level, seed=seed)
        if equal is not None:
            # A member that comes again is one text, compared with each different non-member once.
            of_each = np.arange(len(one.member_scores)), equal[1][one.nonmember_index]
            one = replace(
                one,
                member_p_values=conformal_p_values(one.member_scores, one.nonmember_scores, groups=of_each),
                settings={**one.settings, "equal_samples": True},
            )
        abouts = [
            None if part.about is None else part.about.take(places)
            for part, places in zip(lengths, (one.member_index, one.nonmember_index), strict=True)
        ]
        found[name] = replace(
            one,
            member_about=abouts[0],
            nonmember_about=abouts[1],
            member_index=lengths[0].index[one.member_index],
            nonmember_index=lengths[1].index[one.nonmember_index],
        )
    return found


def _equal_ones(lengths: Sequence[CodeLengths]) -> tuple[np.ndarray, np.ndarray] | None:
    """Labels by which equal samples are one draw; None where none are equal, or all of a kind."""
    ours, theirs = (labels_of(None, part) for part in lengths)
    labels = labels_of_both(ours, theirs, (len(lengths[0]), len(lengths[1])))
    if labels is None or min(len(np.unique(of)) for of in labels) < 2:
        return None
    return labels[0], -1 - labels[1]  # no label is of both: none of the texts is


def _bag_of_words(sets: Sequence[Samples], level: float, seed: int) -> tuple[BagOfWords | None, str | None]:
    fewest = min(map(len, sets))
    if fewest < _SHORT:
        return None, f"it needs {_SHORT} samples of each kind, and there are {fewest}"
    documents = [len({*part.groups}) for part in sets if part.groups is not None]
    if documents and min(documents) < _SHORT:
        return None, f"it needs {_SHORT} documents of each kind, and there are {min(documents)}"
    try:
        import sklearn  # noqa: F401
    except ImportError:
        return None, 'it needs scikit-learn: pip install "lm-memorization[audit]"'
    try:
        return bag_of_words_auc(*sets, level=level, seed=seed), None
    except InputError as error:  # texts without a single word
        return None, str(error)
