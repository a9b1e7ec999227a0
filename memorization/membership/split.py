"""Is the split of samples and control sound? Whether word counts alone tell them apart."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float64

from memorization.errors import InputError, SplitLeakWarning, warn
from memorization.integers import check_seed
from memorization.renamed import renamed_keywords
from memorization.results import ReadOnly, counted
from memorization.samples import (
    GroupsLike,
    Samples,
    SamplesLike,
    check_disjoint,
    check_documents,
    codes_of,
    groups_of_both,
    read_samples,
    sample_keys,
)
from memorization.stats.levels import Interval, check_level, with_interval
from memorization.stats.ranking import auc_with_interval

_FOLDS = 5


@dataclass(frozen=True, slots=True)
class BagOfWords(ReadOnly):
    """How well word counts alone tell samples from control samples.

    Attributes:
        auc: of out-of-fold log odds; 0.5 where the split is sound.
        auc_interval: its lower and upper end, at interval_level.
        interval_level: of auc_interval.
        n_members: samples.
        n_nonmembers: control samples.
        n_words: different words, or token ids.
    """

    auc: float
    auc_interval: Interval
    interval_level: float
    n_members: int
    n_nonmembers: int
    n_words: int

    @property
    def leaks(self) -> bool:
        """Whether the lower end of the interval is above 0.5."""
        return self.auc_interval[0] > 0.5


@renamed_keywords(members="samples", nonmembers="control", interval="level")
def bag_of_words_auc(
    samples: SamplesLike,
    control: SamplesLike,
    *,
    groups: str | tuple[GroupsLike, GroupsLike] | None = None,
    level: float = 0.95,
    seed: int = 0,
) -> BagOfWords:
    """AUC of telling samples from control samples by word counts alone: 0.5 where the split is sound.

    Logistic regression (L2, C = 1) on counts of words, or of token ids, in 5-fold stratified cross-validation: each
    sample is ranked by a classifier that was trained without it. Where that works, the two sets differ in topic, date
    or source, and an attack may find that instead of memorization.

    Args:
        samples: of the training data, as `compress_bits` takes them; at least 5.
        control: samples that are not in the training data, texts or ids like `samples`; at least 5.
        groups: which document each sample is of: a column of both, or a pair of labels: those of the samples, and those
            of the control; at least 5 documents of each. Folds and intervals are then of whole documents, none of which
            may be on both sides. None: what `Samples` carry, else each sample is on its own, and equal ones together.
        level: of the interval.
        seed: of the folds and the bootstrap.

    Returns:
        The AUC and its interval.

    Raises:
        InputError: too few samples or documents, a sample or document that is in both sets, texts against ids; or
            scikit-learn is not installed.

    Warns:
        SplitLeakWarning: the lower end of the interval is above 0.5.

    Guarantees:
        Out-of-fold ranks are not independent: each sample also trained the classifiers of four folds. So the
        bootstrap's standard error is multiplied by 1.5 = sqrt(1 + 5/4), Nadeau and Bengio's correction for five folds.
        Of 200 random splits of one source (20 and 60 samples of each; 80 of 200), 1 to 1.5 % were warned of; without
        the correction 5 to 10 %. Of 200 splits of 12 and 12 documents of 6 samples, each document with words of its
        own, none was with groups, and all were without.

    Examples:
        Two sets of the same words cannot be told apart by them.

        >>> found = bag_of_words_auc(["the house met"] * 8, ["met the house"] * 8)
        >>> found.n_words, found.leaks
        (3, False)

    Source:
        Meeus et al., arXiv:2406.17975; Das et al., arXiv:2406.16201; Nadeau and Bengio, doi:10.1023/A:1024068626366.
    """
    level, seed = check_level(level), check_seed(seed)
    of = groups_of_both(groups)
    ours, theirs = read_samples(samples, groups=of[0]), read_samples(control, groups=of[1])
    member, counts = _word_counts(ours, theirs)
    documents = None
    if ours.groups is not None and theirs.groups is not None:
        documents = codes_of(ours.groups), codes_of(theirs.groups)
    else:
        documents = _equal_ones(ours, theirs)
    log_odds = _log_odds(member, counts, documents, seed)
    auc, ends = auc_with_interval(
        log_odds[member],
        log_odds[~member],
        level=level,
        stretch=math.sqrt(1 + _FOLDS / (_FOLDS - 1)),
        seed=seed,
        documents=documents,
    )
    result = BagOfWords(auc, ends, level, len(ours), len(theirs), int(counts.shape[1]))
    if result.leaks:
        warn(
            "the split leaks: word counts alone tell samples from control samples with an AUC of "
            f"{with_interval(auc, ends)}, so an attack that succeeds may have found the split, not memorization. Draw "
            "both from one source at random, or compare with an attack on a model that has seen neither.",
            SplitLeakWarning,
        )
    return result


def _equal_ones(samples: Samples, control: Samples) -> tuple[np.ndarray, np.ndarray] | None:
    """The same number for equal samples of a kind; None where none are, or too few differ for the folds.

    A text that stands in two folds would be known by its words, and look like a leak.
    """
    numbers = []
    for part in (samples, control):
        known: dict[Any, int] = {}
        numbers.append(np.array([known.setdefault(key, len(known)) for key in sample_keys(part)], dtype=np.int64))
    n_different = [int(of.max()) + 1 for of in numbers]
    if n_different == [len(samples), len(control)] or min(n_different) < _FOLDS:
        return None
    return numbers[0], numbers[1]


def _log_odds(
    member: Bool[np.ndarray, " sample"], counts: Any, documents: tuple[np.ndarray, np.ndarray] | None, seed: int
) -> Float64[np.ndarray, " sample"]:
    """Of each sample, by a classifier that has not seen it, nor anything of its document."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold, cross_val_predict

    folds = StratifiedKFold if documents is None else StratifiedGroupKFold
    found: np.ndarray = cross_val_predict(
        LogisticRegression(solver="liblinear", random_state=seed),  # quick on sparse counts that are not scaled
        counts,
        member,
        cv=folds(_FOLDS, shuffle=True, random_state=seed),
        groups=None if documents is None else np.concatenate([documents[0], documents[0].max() + 1 + documents[1]]),
        method="decision_function",
    )
    return found


def _word_counts(samples: Samples, control: Samples) -> tuple[Bool[np.ndarray, " sample"], Any]:
    """Which samples are members, and the sparse matrix of counts: a row a sample, a column a word."""
    try:
        from sklearn.feature_extraction.text import CountVectorizer
    except ImportError as error:
        raise InputError(
            f"bag_of_words_auc needs scikit-learn, which is not installed ({error}): "
            'pip install "lm-memorization[audit]".'
        ) from error
    check_disjoint(samples, control)
    sizes = [len(samples), len(control)]
    if min(sizes) < _FOLDS:
        raise InputError(
            f"{_FOLDS} folds need at least {counted(_FOLDS, 'sample')} of each kind; there are "
            f"{counted(sizes[0], 'sample')} and {sizes[1]} "
            "control samples."
        )
    for part, name in ((samples, "samples"), (control, "control samples")):
        if part.groups is not None:
            check_documents(part.groups, name, at_least=_FOLDS)
    # Words of one letter count; ids are words as they are.
    is_text = samples.texts is not None
    counter = CountVectorizer(token_pattern=r"(?u)\b\w+\b") if is_text else CountVectorizer(analyzer=tuple)
    try:
        counts = counter.fit_transform([*sample_keys(samples), *sample_keys(control)])
    except ValueError as error:
        raise InputError(f"the samples hold no word to tell them by ({error}).") from error
    return np.repeat([True, False], sizes), counts
