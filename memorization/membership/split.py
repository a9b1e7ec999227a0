"""Is the split of members and non-members sound? Samples in both, and word counts that tell them apart without any model."""

import math
import warnings
from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool

from memorization.errors import InputError, SplitLeakWarning
from memorization.samples import Samples, read_samples
from memorization.stats.levels import check_level, with_interval
from memorization.stats.ranking import auc_with_interval

_FOLDS = 5


def check_disjoint(members: Any, nonmembers: Any) -> None:
    """Raise where a sample is both a member and a non-member, which no attack can tell apart.

    Args:
        members: samples, as `compress_bits` takes them.
        nonmembers: likewise, texts or ids like the members.

    Raises:
        InputError: naming the first sample that is in both, and how many are.

    Examples:
        >>> check_disjoint(["seen"], ["unseen"])
    """
    _check_disjoint(*_read_both(members, nonmembers))


@dataclass(frozen=True, slots=True)
class BagOfWords:
    """How well word counts alone tell members from non-members.

    Attributes:
        auc: of out-of-fold log odds; 0.5 where the split is sound.
        auc_interval: its lower and upper end, at interval_level.
        interval_level: of auc_interval.
        n_members: samples.
        n_nonmembers: samples.
        n_words: different words, or token ids.
    """

    auc: float
    auc_interval: tuple[float, float]
    interval_level: float
    n_members: int
    n_nonmembers: int
    n_words: int

    @property
    def leaks(self) -> bool:
        """Whether the lower end of the interval is above 0.5."""
        return self.auc_interval[0] > 0.5


def bag_of_words_auc(members: Any, nonmembers: Any, *, interval: float = 0.95, seed: int = 0) -> BagOfWords:
    """AUC of telling members from non-members by word counts alone, without any model: 0.5 where the split is sound.

    Logistic regression (L2, C = 1) on counts of words, or of token ids, in 5-fold stratified cross-validation: each sample is ranked by a
    classifier that was trained without it. Where that works, members and non-members differ in topic, date or source, and an
    attack may find that instead of memorization.

    Args:
        members: samples, as `compress_bits` takes them; at least 5.
        nonmembers: likewise, texts or ids like the members.
        interval: level of the interval.
        seed: of the folds and the bootstrap.

    Returns:
        The AUC and its interval.

    Raises:
        InputError: too few samples, a sample that is in both sets, texts against ids; or scikit-learn is not installed.

    Warns:
        SplitLeakWarning: the lower end of the interval is above 0.5.

    Guarantees:
        Out-of-fold ranks are not independent: each sample also trained the classifiers of four folds. So the bootstrap's standard error is
        multiplied by 1.5 = sqrt(1 + 5/4), Nadeau and Bengio's correction for five folds. Of 200 random splits of one source (20 and
        60 samples of each; 80 of 200), 1 to 1.5 % were warned of; without the correction 5 to 10 %.

    Source:
        Meeus et al., arXiv:2406.17975; Das et al., arXiv:2406.16201; Nadeau and Bengio, doi:10.1023/A:1024068626366.
    """
    check_level(interval)
    member, counts = _word_counts(*_read_both(members, nonmembers))
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import StratifiedKFold, cross_val_predict

    log_odds = cross_val_predict(
        LogisticRegression(solver="liblinear", random_state=seed),  # quick on sparse counts that are not scaled
        counts,
        member,
        cv=StratifiedKFold(_FOLDS, shuffle=True, random_state=seed),
        method="decision_function",
    )
    n_members = int(member.sum())
    n_nonmembers = len(member) - n_members
    auc, ends = auc_with_interval(
        log_odds[member], log_odds[~member], interval=interval, stretch=math.sqrt(1 + _FOLDS / (_FOLDS - 1)), seed=seed
    )
    result = BagOfWords(auc, ends, interval, n_members, n_nonmembers, int(counts.shape[1]))
    if result.leaks:
        warnings.warn(
            f"the split leaks: word counts alone tell members from non-members with an AUC of {with_interval(auc, ends)}, so an attack "
            "that succeeds may have found the split, not memorization. Draw both from one source at random, or compare with an attack on a "
            "model that has seen neither.",
            SplitLeakWarning,
            stacklevel=2,
        )
    return result


def _word_counts(members: Samples, nonmembers: Samples) -> tuple[Bool[np.ndarray, " sample"], Any]:
    """Which samples are members, and the sparse matrix of counts: a row a sample, a column a word."""
    try:
        from sklearn.feature_extraction.text import CountVectorizer
    except ImportError as error:
        raise InputError(
            f'bag_of_words_auc needs scikit-learn, which is not installed ({error}): pip install "lm-memorization[audit]"'
        ) from error
    _check_disjoint(members, nonmembers)
    sizes = [len(members), len(nonmembers)]
    if min(sizes) < _FOLDS:
        raise InputError(
            f"{_FOLDS} folds need at least {_FOLDS} samples of each kind; there are {sizes[0]} members and {sizes[1]} non-members"
        )
    # Words of one letter count; ids are words as they are.
    is_text = members.texts is not None
    counter = CountVectorizer(token_pattern=r"(?u)\b\w+\b") if is_text else CountVectorizer(analyzer=tuple)
    try:
        counts = counter.fit_transform([*_keys(members), *_keys(nonmembers)])
    except ValueError as error:
        raise InputError(f"the samples hold no word to tell them by ({error})") from error
    return np.repeat([True, False], sizes), counts


def _read_both(members: Any, nonmembers: Any) -> tuple[Samples, Samples]:
    read = read_samples(members), read_samples(nonmembers)
    if (read[0].texts is None) != (read[1].texts is None):
        kinds = ["token ids" if part.texts is None else "texts" for part in read]
        raise InputError(f"members are {kinds[0]} and non-members {kinds[1]}: pass texts for both, or ids for both")
    return read


def _keys(samples: Samples) -> list[Any]:
    """Texts, or tuples of ids."""
    return samples.texts if samples.texts is not None else [tuple(ids.tolist()) for ids in samples.ids or ()]


def _check_disjoint(members: Samples, nonmembers: Samples) -> None:
    where: Mapping[Hashable, int] = {key: i for i, key in reversed(list(enumerate(_keys(nonmembers))))}
    both = [(i, where[key], key) for i, key in enumerate(_keys(members)) if key in where]
    if both:
        i, j, key = both[0]
        raise InputError(
            f"member {i} is also non-member {j}: {repr(key)[:80]} ({len(both)} of {len(members)} members are in both). Leave such samples "
            "out of both sets: the model has seen them, whatever they are called"
        )
