"""All attacks on one model, and what each achieves: members against non-members, with the control of the split beside it."""

import warnings
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from jaxtyping import Float64

from memorization.disjoint import check_disjoint
from memorization.errors import InputError, UnequalSetsWarning
from memorization.measure.code_lengths import compress_bits
from memorization.membership.attacks import (
    check_k_percent,
    loss_attack,
    min_k_attack,
    min_k_plus_plus_attack,
    token_moments,
    zlib_attack,
)
from memorization.membership.metrics import membership_metrics
from memorization.membership.result import Membership
from memorization.membership.split import BagOfWords, bag_of_words_auc
from memorization.results import versions
from memorization.samples import read_samples
from memorization.stats.levels import check_level
from memorization.unintended import unintended_memorization

if TYPE_CHECKING:
    pass

from memorization.membership.result import MembershipAudit

_SHORT = 10  # of a kind: fewer cannot be split into folds for the control of the split, which then says nothing


def audit_membership(
    target: Any,
    members: Any,
    nonmembers: Any,
    *,
    oracle: Any = None,
    target_tokenizer: Any = None,
    oracle_tokenizer: Any = None,
    target_revision: str | None = None,
    oracle_revision: str | None = None,
    first_token: str | int = "auto",
    max_length: int | None = None,
    stride: int | None = None,
    batch_size: int | Literal["auto"] = "auto",
    device: str | torch.device | None = None,
    dtype: str | torch.dtype | None = None,
    trust_remote_code: bool = False,
    text_column: str = "text",
    limit: int | None = None,
    on_lossy_text: Literal["raise", "skip"] = "raise",
    progress: bool = True,
    allow_pickle: bool = False,
    k_percent: float = 20.0,
    interval: float = 0.95,
    seed: int = 0,
) -> MembershipAudit:
    """Every attack of this package on one model: AUC, F1 and TPR of telling its members from samples that it has not seen.

    Args:
        target: the model under audit, as for `compress_bits`.
        members: samples of its training data.
        nonmembers: samples drawn like the members that it has not seen.
        oracle: a model that has seen neither, for the reference attack; None leaves that attack out.
        target_tokenizer: as for `unintended_memorization`, as all that follow up to `allow_pickle`.
        oracle_tokenizer: likewise.
        target_revision: likewise.
        oracle_revision: likewise.
        first_token: likewise. With "skip" min_k_plus_plus is left out.
        max_length: likewise.
        stride: likewise.
        batch_size: likewise.
        device: likewise.
        dtype: likewise.
        trust_remote_code: likewise.
        text_column: likewise.
        limit: only the first so many of the members and of the non-members.
        on_lossy_text: likewise.
        progress: likewise.
        allow_pickle: likewise.
        k_percent: of min_k and min_k_plus_plus: share of each sample's tokens.
        interval: level of the intervals.
        seed: of bootstraps and folds.

    Returns:
        What each attack achieves. The control of the split needs scikit-learn (extra `audit`) and 10 samples of each kind.

    Raises:
        InputError: a sample that is both a member and a non-member, or options that cannot be used together.
        ModelError: as for `compress_bits`.

    Warns:
        SplitLeakWarning: word counts alone tell members from non-members.
        UnequalSetsWarning: the sets differ in size, so F1 is computed on as many of both.

    Examples:
        A model that knows nothing finds nobody.

        >>> from memorization import UniformModel
        >>> audit = audit_membership(UniformModel(16), [[1, 2], [3, 4]], [[5, 6], [7, 8]])
        >>> {name: found.auc for name, found in audit.attacks.items()}
        {'loss': 0.5, 'min_k': 0.5, 'min_k_plus_plus': 0.5}

    Source: Morris et al., arXiv:2505.24832, section 5; the attacks' own papers stand with each of them.
    """
    check_level(interval)
    check_k_percent(k_percent)
    ours = read_samples(members, text_column=text_column, limit=limit)
    theirs = read_samples(nonmembers, text_column=text_column, limit=limit)
    sets = [part.texts if part.texts is not None else part.ids for part in (ours, theirs)]
    for name, part in (("members", ours), ("non-members", theirs)):
        if len(part) < 2:
            raise InputError(
                f"membership needs at least two {name}, to rank them and to say how sure that is; there is {len(part)}"
            )
    check_disjoint(*sets)
    reference: list[Float64[np.ndarray, " _"]] | None = None
    if oracle is None:
        lengths = [
            compress_bits(
                target,
                part,
                tokenizer=target_tokenizer,
                revision=target_revision,
                first_token=first_token,
                max_length=max_length,
                stride=stride,
                batch_size=batch_size,
                device=device,
                dtype=dtype,
                trust_remote_code=trust_remote_code,
                on_lossy_text=on_lossy_text,
                progress=progress,
                allow_pickle=allow_pickle,
            )
            for part in sets
        ]
        oracle_record = None
    else:
        memorized = unintended_memorization(
            target,
            oracle,
            sets[0],
            control=sets[1],
            target_tokenizer=target_tokenizer,
            oracle_tokenizer=oracle_tokenizer,
            target_revision=target_revision,
            oracle_revision=oracle_revision,
            first_token=first_token,
            max_length=max_length,
            stride=stride,
            batch_size=batch_size,
            device=device,
            dtype=dtype,
            trust_remote_code=trust_remote_code,
            on_lossy_text=on_lossy_text,
            progress=progress,
            allow_pickle=allow_pickle,
        )
        assert memorized.control is not None
        lengths = [memorized.target, memorized.control.target]
        reference = [memorized.signed_bits, memorized.control.signed_bits]
        oracle_record = memorized.oracle.settings["model"]
    scores = {"loss": [loss_attack(part) for part in lengths]}
    if reference is not None:
        scores["reference"] = reference
    if ours.texts is not None:
        scores["zlib"] = [zlib_attack(part, own) for part, own in zip(lengths, sets, strict=True)]
    scores["min_k"] = [min_k_attack(part, k_percent=k_percent) for part in lengths]
    if lengths[0].settings["first_token"]["rule"] != "skip":
        scores["min_k_plus_plus"] = [
            min_k_plus_plus_attack(
                part,
                *token_moments(
                    target,
                    part,
                    device=device,
                    dtype=dtype,
                    revision=target_revision,
                    trust_remote_code=trust_remote_code,
                    allow_pickle=allow_pickle,
                    batch_size=batch_size,
                    progress=progress,
                ),
                k_percent=k_percent,
            )
            for part in lengths
        ]
    words, why = _bag_of_words(sets, interval, seed)
    return MembershipAudit(
        attacks=_metrics(scores, interval, seed),
        bag_of_words=words,
        settings={
            "target": lengths[0].settings["model"],
            "oracle": oracle_record,
            "first_token": lengths[0].settings["first_token"],
            "members": ours.record(),
            "nonmembers": theirs.record(),
            "windows": {name: lengths[0].settings[name] for name in ("max_length", "stride", "batch_size")},
            "k_percent": k_percent,
            "seed": seed,
            "why_no_bag_of_words": why,
            "versions": versions(),
        },
    )


def _metrics(scores: dict[str, list[Float64[np.ndarray, " _"]]], interval: float, seed: int) -> dict[str, Membership]:
    """Metrics of each attack; that the sets differ in size is said once."""
    found = {}
    for k, (name, pair) in enumerate(scores.items()):
        with warnings.catch_warnings():
            if k:
                warnings.simplefilter("ignore", UnequalSetsWarning)
            found[name] = membership_metrics(*pair, interval=interval, seed=seed)
    return found


def _bag_of_words(sets: list[Any], interval: float, seed: int) -> tuple[BagOfWords | None, str | None]:
    fewest = min(map(len, sets))
    if fewest < _SHORT:
        return None, f"it needs {_SHORT} samples of each kind, and there are {fewest}"
    try:
        import sklearn  # noqa: F401
    except ImportError:
        return None, 'it needs scikit-learn: pip install "lm-memorization[audit]"'
    try:
        return bag_of_words_auc(*sets, interval=interval, seed=seed), None
    except InputError as error:  # texts without a single word
        return None, str(error)
