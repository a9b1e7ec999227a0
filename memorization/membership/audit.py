"""`audit_membership`: all attacks on one model, samples against control samples, with a check of the split."""

import warnings
from dataclasses import replace
from typing import Any, Literal

import numpy as np
from jaxtyping import Float64

from memorization.errors import InputError, UnequalSetsWarning
from memorization.integers import check_seed
from memorization.measure.base_of_target import with_base_of_target
from memorization.measure.code_lengths import CodeLengths, measure_sets
from memorization.measure.near_copies import warn_of_near_copies
from memorization.measure.opening import DeviceLike, DTypeLike, ModelLike, OpenModel, open_model
from memorization.measure.pair import measure_pair
from memorization.measure.passes import check_windows
from memorization.measure.tokenizers import TokenizerLike
from memorization.membership.attacks import (
    check_k_percent,
    loss_attack,
    min_k_attack,
    min_k_plus_plus_attack,
    token_moments,
    zlib_attack,
)
from memorization.membership.metrics import membership_metrics
from memorization.membership.result import Membership, MembershipAudit
from memorization.membership.split import BagOfWords, bag_of_words_auc
from memorization.renamed import renamed_keywords
from memorization.results import versions
from memorization.samples import (
    GroupsLike,
    Samples,
    SamplesLike,
    check_disjoint,
    check_documents,
    groups_of_both,
    read_samples,
)
from memorization.stats.levels import check_level
from memorization.stats.significance import conformal_p_values
from memorization.unintended import Memorization
from memorization.unintended.means import labels_of, labels_of_both
from memorization.unintended.measure import memorization_of

_SHORT = 10  # of a kind: fewer cannot be split into folds for the check of the split, which then says nothing


@renamed_keywords(members="samples", nonmembers="control", interval="level")
@with_base_of_target
def audit_membership(
    target: ModelLike,
    samples: SamplesLike,
    control: SamplesLike,
    *,
    oracle: ModelLike | None = None,
    target_tokenizer: TokenizerLike | None = None,
    oracle_tokenizer: TokenizerLike | None = None,
    target_revision: str | None = None,
    oracle_revision: str | None = None,
    first_token: str | int = "auto",
    max_length: int | None = None,
    stride: int | None = None,
    batch_size: int | Literal["auto"] = "auto",
    max_batch_tokens: int | None = None,
    device: DeviceLike | None = None,
    dtype: DTypeLike | None = None,
    trust_remote_code: bool = False,
    text_column: str = "text",
    groups: str | tuple[GroupsLike, GroupsLike] | None = None,
    limit: int | None = None,
    on_lossy_text: Literal["raise", "skip"] = "raise",
    progress: bool = True,
    allow_pickle: bool = False,
    k_percent: float = 20.0,
    level: float = 0.95,
    seed: int = 0,
) -> MembershipAudit:
    """AUC, F1 and TPR of every attack on one model: can its samples be told from a control it has not seen?

    Args:
        target: the model under audit, as for `compress_bits`. It is loaded once, and so is the oracle.
        samples: of its training data: the members.
        control: samples drawn like `samples` that it has not seen: the non-members.
        oracle: a model that has seen neither, for the reference attack, or "base-of-target", as for
            `unintended_memorization`; None leaves that attack out.
        target_tokenizer: this and all that follow, up to `allow_pickle`, are as for `unintended_memorization`.
        oracle_tokenizer: None is the oracle's own where it is named.
        target_revision: of a hub model.
        oracle_revision: of a hub model.
        first_token: what stands before the first token; with "auto" the samples decide for the control as well. With
            "skip" min_k_plus_plus is left out.
        max_length: inputs a window holds.
        stride: new tokens of each window after the first.
        batch_size: samples a forward pass.
        max_batch_tokens: tokens a forward pass, padding counted, at most.
        device: where to measure.
        dtype: of the weights of models loaded here.
        trust_remote_code: run code that a checkpoint brings.
        text_column: column of a file or data set.
        groups: which document each sample is of: a column of both, or a pair of labels: those of the samples, and those
            of the control. Intervals and folds are then of whole documents, since samples of one document are no
            independent draws. None: what `Samples` carry, else each sample is on its own.
        limit: only the first so many samples, and control samples.
        on_lossy_text: "raise" or "skip" texts that a tokenizer does not give back.
        progress: a bar on stderr.
        allow_pickle: load pickled weights, which can run code.
        k_percent: of min_k and min_k_plus_plus: share of each sample's tokens.
        level: of the intervals.
        seed: of bootstraps and folds.

    Returns:
        What each attack achieves. The check of the split needs scikit-learn (extra `audit`) and 10 samples of each
        kind.

    Raises:
        InputError: a sample that is also a control sample, a document on both sides, only one document, or options that
            cannot be used together.
        ModelError: as for `compress_bits`.

    Warns:
        NearCopiesWarning: control samples are nearly copies of samples.
        SplitLeakWarning: word counts alone tell samples from control samples.
        UnequalSetsWarning: the sets differ in size, so F1 is computed on equally many of both.

    Guarantees:
        Each model is loaded once, and comes back as it was: mode, device, weights.

    Examples:
        A model that knows nothing finds nobody.

        >>> from memorization import UniformModel
        >>> audit = audit_membership(UniformModel(16), [[1, 2], [3, 4]], [[5, 6], [7, 8]])
        >>> {name: found.auc for name, found in audit.attacks.items()}
        {'loss': 0.5, 'min_k': 0.5, 'min_k_plus_plus': 0.5}

    Source: Morris et al., arXiv:2505.24832, section 5; the attacks' own papers stand with each of them.
    """
    level, seed = check_level(level), check_seed(seed)
    max_length, stride, batches = check_windows(max_length, stride, batch_size, max_batch_tokens)
    k_percent = check_k_percent(k_percent)
    if isinstance(oracle, CodeLengths):
        raise InputError(
            "oracle must be a model here: CodeLengths are of one set, and an attack needs both. Pass the model."
        )
    sets = _both(samples, control, text_column, limit, groups)
    memorized: Memorization | None = None
    moments: list[tuple[np.ndarray, np.ndarray]] = []

    def ask_again(model: OpenModel, lengths: list[CodeLengths]) -> None:
        if lengths[0].settings["first_token"]["rule"] != "skip":
            moments[:] = [
                token_moments(model, part, samples=own, **batches.record(), progress=progress)
                for part, own in zip(lengths, sets, strict=True)
            ]

    if oracle is None:
        with open_model(
            target,
            tokenizer=target_tokenizer,
            device=device,
            dtype=dtype,
            revision=target_revision,
            trust_remote_code=trust_remote_code,
            allow_pickle=allow_pickle,
            max_length=max_length,
            progress=progress,
        ) as opened:
            lengths = measure_sets(
                opened,
                sets,
                first_token=first_token,
                max_length=max_length,
                stride=stride,
                batch_size=batches,
                on_lossy_text=on_lossy_text,
                progress=progress,
            )
            ask_again(opened, lengths)
        warn_of_near_copies(*lengths)
    else:
        pairs = measure_pair(
            target,
            oracle,
            sets,
            tokenizers=(target_tokenizer, oracle_tokenizer),
            revisions=(target_revision, oracle_revision),
            first_token=first_token,
            max_length=max_length,
            stride=stride,
            batch_size=batches,
            device=device,
            dtype=dtype,
            trust_remote_code=trust_remote_code,
            on_lossy_text=on_lossy_text,
            progress=progress,
            allow_pickle=allow_pickle,
            with_target=ask_again,
        )
        memorized = memorization_of(pairs, joint="max")
        assert memorized.control is not None
        lengths = [memorized.target, memorized.control.target]
    return attacks_on(lengths, memorized, sets, moments, k_percent=k_percent, level=level, seed=seed)


def attacks_on(
    lengths: list[CodeLengths],
    memorized: Memorization | None,
    sets: list[Samples],
    moments: list[tuple[np.ndarray, np.ndarray]],
    *,
    k_percent: float = 20.0,
    level: float = 0.95,
    seed: int = 0,
) -> MembershipAudit:
    """All attacks that can be made with what was measured: no model is run.

    Args:
        lengths: of samples and of control samples, under the target.
        memorized: the same under target and oracle; None leaves the reference attack out.
        sets: samples and control samples, as they were read.
        moments: of both, by `token_moments`; empty leaves min_k_plus_plus out.
        k_percent: as for `audit_membership`, as are all that follow.
        level: of the intervals.
        seed: of bootstraps and folds.

    Returns:
        What each attack achieves.
    """
    scores = _scores(lengths, memorized, sets, moments, k_percent)
    words, why = _bag_of_words(sets, level, seed)
    measured, windows = lengths[0].settings, ("max_length", "stride", "batch_size", "max_batch_tokens")
    return MembershipAudit(
        attacks=_metrics(scores, lengths, sets, level, seed),
        bag_of_words=words,
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


def _both(
    samples: SamplesLike, control: SamplesLike, text_column: str, limit: int | None, groups: Any
) -> list[Samples]:
    """Samples and control samples, after checking that there are enough of both and that none is in both."""
    sets = [
        read_samples(part, text_column=text_column, limit=limit, groups=of)
        for part, of in zip((samples, control), groups_of_both(groups), strict=True)
    ]
    for name, part in zip(("samples", "control samples"), sets, strict=True):
        if len(part) < 2:
            raise InputError(
                f"membership needs at least two {name}, to rank them and to say how sure that is; there is {len(part)}."
            )
        if part.groups is not None:
            check_documents(part.groups, name)
    check_disjoint(*sets)
    return sets


def _scores(
    lengths: list[CodeLengths],
    memorized: Memorization | None,
    sets: list[Samples],
    moments: list[tuple[np.ndarray, np.ndarray]],
    k_percent: float,
) -> dict[str, list[Float64[np.ndarray, " _"]]]:
    """Scores of samples and of control samples, for each attack that can be made, in the order of the table."""
    scores = {"loss": [loss_attack(part) for part in lengths]}
    if memorized is not None and memorized.control is not None:
        scores["reference"] = [memorized.ideal_signed_bits, memorized.control.ideal_signed_bits]
    if sets[0].texts is not None:
        scores["zlib"] = [zlib_attack(part, own) for part, own in zip(lengths, sets, strict=True)]
    scores["min_k"] = [min_k_attack(part, k_percent=k_percent) for part in lengths]
    if moments:
        scores["min_k_plus_plus"] = [
            min_k_plus_plus_attack(part, *own, k_percent=k_percent) for part, own in zip(lengths, moments, strict=True)
        ]
    return scores


def _metrics(
    scores: dict[str, list[Float64[np.ndarray, " _"]]],
    lengths: list[CodeLengths],
    sets: list[Samples],
    level: float,
    seed: int,
) -> dict[str, Membership]:
    """Metrics of each attack; a warning of unequal sets is given once."""
    # Of the samples that were measured: a tokenizer may have left some out.
    ours, theirs = (own.as_measured(part.settings["samples"]).groups for part, own in zip(lengths, sets, strict=True))
    groups: Any = None if ours is None or theirs is None else (ours, theirs)
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


def _equal_ones(lengths: list[CodeLengths]) -> tuple[np.ndarray, np.ndarray] | None:
    """Labels by which equal samples are one draw; None where none are equal, or all of a kind."""
    ours, theirs = (labels_of(None, part) for part in lengths)
    labels = labels_of_both(ours, theirs, (len(lengths[0]), len(lengths[1])))
    if labels is None or min(len(np.unique(of)) for of in labels) < 2:
        return None
    return labels[0], -1 - labels[1]  # no label is of both: none of the texts is


def _bag_of_words(sets: list[Samples], level: float, seed: int) -> tuple[BagOfWords | None, str | None]:
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
