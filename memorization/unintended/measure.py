"""`unintended_memorization`: measure a target and an oracle, and subtract."""

import math
import os
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
from jaxtyping import Float64

from memorization.coding.joint import JointCode, MixedCode
from memorization.errors import InputError
from memorization.measure.agreement import alike, warn_of_one_model
from memorization.measure.base_of_target import with_base_of_target
from memorization.measure.batches import check_batch_size
from memorization.measure.code_lengths import CodeLengths
from memorization.measure.opening import DeviceLike, DTypeLike, ModelLike
from memorization.measure.pair import (
    Pair,
    check_same_samples,
    control_pair,
    differ_in_tokens,
)
from memorization.measure.scans import Scan, check_apart_in_shards, survey
from memorization.measure.shard_files import free_folder, save_measured
from memorization.measure.shared import Sharing
from memorization.measure.tokenizers import TokenizerLike
from memorization.results import counted, describe_model, versions
from memorization.samples import (
    GroupsLike,
    Samples,
    SampleShards,
    SamplesLike,
    check_apart,
    check_documents,
    groups_of_both,
    labels_of,
    read_samples,
    scan_samples,
)
from memorization.samples.disjoint import check_disjoint
from memorization.unintended.doubts import warn_of_doubts
from memorization.unintended.joint import as_one, holds, with_count
from memorization.unintended.ladder import COPY
from memorization.unintended.means import sample_keys
from memorization.unintended.pairs import Measured, Models
from memorization.unintended.result import Memorization, combined


@with_base_of_target
def unintended_memorization(
    target: ModelLike | CodeLengths,
    oracle: ModelLike | CodeLengths | Sequence[ModelLike | CodeLengths],
    samples: SamplesLike | SampleShards,
    *,
    joint: JointCode = "max",
    combine: Literal["best"] | MixedCode = "best",
    control: SamplesLike | SampleShards | Sequence[CodeLengths] | None = None,
    baseline: Literal["uniform"] | CodeLengths = "uniform",
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
    limit: int | None = None,
    groups: GroupsLike | tuple[GroupsLike, GroupsLike] | None = None,
    on_lossy_text: Literal["raise", "skip"] = "raise",
    progress: bool = True,
    allow_pickle: bool = False,
    store: str | os.PathLike[str] | None = None,
    overwrite: bool = False,
    shard: str | None = None,
    engine: Literal["local", "ray"] = "local",
    address: str | None = None,
) -> Memorization:
    """Bits of each sample that the target has memorized beyond what the oracle knows of such text.

    memU(x) = H(x | oracle) - H(x | oracle, target). Positive is memorized. The measurement is as good as the oracle:
    one that has itself memorized x hides memorization of x; one that is too weak shows the target's generalization as
    memorization (pass a `control`).

    Args:
        target: the model under audit, as for `compress_bits`, or saved `CodeLengths` of the same samples.
        oracle: the best available model of such text, which has not seen the samples; or saved `CodeLengths`; or a list
            of such oracles, see `combine`. "base-of-target": the base under a target that is a PEFT adapter, in the
            model that is loaded.
        samples: as for `compress_bits`.
        joint: "max" is the paper's estimator, clipped at 0; "mixture" is a proper code, never below -1 bit; "switch" is
            a code that may change models at every token, never below -2 bits.
        combine: what several oracles come to. "best": memU is against the one with the fewest bits on the control,
            which is then needed. "mixture" and "switch": against all of them as one code, which is never more than
            log2 k (and 1) bits a sample above the best of k oracles, and may be below; none of them may have seen the
            samples. All are rungs of `Memorization.ladder`.
        control: samples drawn like `samples` that neither model has seen. Where a model is given as CodeLengths: the
            pair (target, oracle) of the control's CodeLengths; of several oracles, (target, oracle, oracle, ...).
        baseline: H(x) for mem and memI: "uniform" is n_tokens x log2 of the vocabulary size; or CodeLengths under a
            third model.
        target_tokenizer: None is the model's own where the model is named.
        oracle_tokenizer: the same for the oracle, or for every one of a list. The tokenizers may differ where samples
            are texts.
        target_revision: of a hub model.
        oracle_revision: of a hub model, or of every one of a list.
        first_token: as for `compress_bits`, one rule for both models. With "auto" each model reads in front of the
            samples what it was trained with, by its own bits of them, and the control is read like them. The first
            token costs both the same: given the BOS where each reads it, else log2 of the vocabulary size; with two
            tokenizers, given the BOS.
        max_length: this and all that follow are as for `compress_bits`.
        stride: new tokens of each window after the first.
        batch_size: samples a forward pass.
        max_batch_tokens: tokens a forward pass, padding counted, at most.
        device: where to measure.
        dtype: of the weights of models loaded here.
        trust_remote_code: run code that a checkpoint brings.
        text_column: column of a file or data set.
        limit: only the first so many samples, and control samples.
        groups: which document each sample is of: a column of samples and control, or a pair of labels: those of the
            samples, and those of the control; without a control, a column or the labels of the samples. Intervals,
            p-values and the verdict are then of whole documents, none of which may be on both sides.
        on_lossy_text: "raise" or "skip" texts that a tokenizer does not give back; skipped for one model is skipped for
            both.
        progress: a bar on stderr.
        allow_pickle: load pickled weights, which can run code.
        store: folder to measure into, shard by shard, as for `compress_bits`: resumable, and of any size. The result is
            saved there.
        overwrite: as for `compress_bits`, and so are
        shard: a fixed share,
        engine: who measures into the `store`,
        address: and where.

    Returns:
        memU and what it is made of, in the order of the samples.

    Raises:
        InputError: samples or options that cannot be used together; a sample that is also in the control.
        ResultError: CodeLengths of other samples.
        ModelError: as for `compress_bits`.

    Warns:
        SameModelWarning: target and oracle give every token the same bits.
        WeakOracleWarning: the target, or an n-gram code of the control, codes unseen text in fewer bits than the
            oracle.
        SeenByOracleWarning: the oracle needs fewer bits a token for the samples than for the control.
        NearCopiesWarning: control samples are nearly copies of samples.
        LengthMismatchWarning: samples and control differ in length by over 10 %, in the mean or in the spread, beyond
            chance.

    Guarantees:
        Both models code the same tokens (or, with two tokenizers, the same bytes) under one first-token rule. One model
        is in memory at a time where both are named.

    Examples:
        >>> from memorization import UniformModel, unintended_memorization
        >>> result = unintended_memorization(UniformModel(16), UniformModel(16), [[1, 2, 3]])
        >>> result.ideal_bits.tolist(), result.control is None
        ([0.0], True)

    Source:
        Morris et al., arXiv:2505.24832, section 2.3.
    """
    if joint not in ("max", "mixture", "switch"):
        raise InputError(f'joint must be "max", "mixture" or "switch"; it is {joint!r}.')
    if not (isinstance(baseline, str) and baseline == "uniform") and not isinstance(baseline, CodeLengths):
        raise InputError(f'baseline must be "uniform" or CodeLengths under a third model; it is {baseline!r}.')
    oracles = _check_oracles(oracle, control, combine)
    lengths_given = any(isinstance(model, CodeLengths) for model in (target, *oracles))
    of = _groups_of_sets(groups, control)
    how = {
        "first_token": first_token,
        "max_length": max_length,
        "stride": stride,
        "batch_size": check_batch_size(batch_size, max_batch_tokens),
        "device": device,
        "dtype": dtype,
        "trust_remote_code": trust_remote_code,
        "on_lossy_text": on_lossy_text,
        "progress": progress,
        "allow_pickle": allow_pickle,
    }
    tokenizers, revisions = (target_tokenizer, oracle_tokenizer), (target_revision, oracle_revision)
    models = Models(target, oracles, tokenizers, revisions, how)
    as_result = partial(_concluded, joint=joint, combine=combine, baseline=baseline)
    sharing = Sharing.of(shard, engine, address, store)
    folder = None if store is None else free_folder(store, overwrite=overwrite)
    places = list(zip([samples] if control is None or lengths_given else [samples, control], of, strict=False))
    if folder is not None and not lengths_given:
        shards = [scan_samples(place, text_column=text_column, limit=limit, groups=own) for place, own in places]
        scans = [survey(name, part) for name, part in zip(("samples", "control"), shards, strict=False)]
        if sharing.share.n > 1 or any(len(scan.digests) > 1 for scan in scans):
            return _in_shards(models, scans, folder, overwrite, as_result, sharing)
        sets = [part.only() for part in shards]
    else:
        sets = [
            read_samples(cast(SamplesLike, place), text_column=text_column, limit=limit, groups=own)
            for place, own in places
        ]
    if len(sets) > 1:
        check_disjoint(*sets)
    measured = models.pairs(sets)
    read = [part.as_measured(pair[0].settings["samples"]) for part, pair in zip(sets, measured[0], strict=True)]
    documents = [part.groups for part in read]
    measured = [list(map(_with_columns, pairs, read)) for pairs in measured]
    if control is not None and lengths_given:
        _add_control(measured, control)
        documents.append(_labels_of_lengths(of[1], measured[0][1][0]))
    result = as_result(measured, documents)
    if folder is not None:
        save_measured(result, folder, overwrite=overwrite)
    return result


def _in_shards(
    models: Models, scans: list[Scan], folder: Path, overwrite: bool, as_result: Any, sharing: Sharing
) -> Memorization:
    """Measure shard by shard into a folder, and open the result that is saved there."""
    if len(scans) > 1:
        check_apart_in_shards(*scans)

    def result_of(measured: Measured, _: Any) -> Memorization:
        return as_result(measured, [scan.documents(pair[0]) for scan, pair in zip(scans, measured[0], strict=True)])

    models.pairs_in_shards(scans, folder, result_of, overwrite=overwrite, sharing=sharing)
    return Memorization.load(folder)


def _concluded(
    measured: Measured,
    documents: list[tuple[str, ...] | None],
    *,
    joint: JointCode,
    combine: Literal["best"] | MixedCode,
    baseline: Literal["uniform"] | CodeLengths,
) -> Memorization:
    """The result, against the best of the oracles, or against all of them as one code."""
    has_control = len(measured[0]) > 1
    first, others = _best_first(measured) if has_control else (measured[0], measured[1:])
    if combine != "best":
        first, others = _mixed([first, *others], combine)
    return memorization_of(first, others, joint=joint, combine=combine, baseline=baseline, groups=documents)


def _with_columns(pair: Pair, samples: Samples) -> Pair:
    """The pair with the ids and columns that the samples carry, which saved CodeLengths may lack."""
    target, oracle = pair
    if (samples.row_ids is None and samples.kept is None) or target.about == samples.about:
        return pair
    return target._changed(about=samples.about), oracle


def _groups_of_sets(groups: Any, control: Any) -> tuple[Any, Any]:
    """What `groups` says of the samples and of the control."""
    return (groups, None) if control is None else groups_of_both(groups)


def _labels_of_lengths(groups: Any, lengths: CodeLengths) -> tuple[str, ...] | None:
    """Documents of a control that came as CodeLengths."""
    if groups is None:
        return None
    if isinstance(groups, str):
        raise InputError(
            f"groups={groups!r} names a column, and the control came as CodeLengths, which have none: pass a pair of "
            "labels, those of the samples and those of the control samples."
        )
    return labels_of(groups, len(lengths), of="control samples")


def _checked(groups: Sequence[tuple[str, ...] | None]) -> Sequence[tuple[str, ...] | None]:
    """Documents of samples and control: of both or of neither, at least two each, none on both sides."""
    known = [labels for labels in groups if labels is not None]
    if not known:
        return ()
    if len(known) < len(groups):
        which = "samples" if groups[0] is None else "control"
        raise InputError(f"groups are missing for the {which}: say which document each sample of both sets is of.")
    for labels, name in zip(known, ("samples", "control samples"), strict=False):
        check_documents(labels, name)
    if len(known) == 2:
        check_apart(known[0], known[1])
    return known


def _check_oracles(oracle: Any, control: Any, combine: Any) -> list[Any]:
    """The oracles given, one or several."""
    if combine not in ("best", "mixture", "switch"):
        raise InputError(f'combine must be "best", "mixture" or "switch"; it is {combine!r}.')
    oracles = list(oracle) if isinstance(oracle, (list, tuple)) else [oracle]
    if not oracles:
        raise InputError("oracle is an empty list: pass at least one model of such text that has not seen the samples.")
    if len(oracles) > 1 and control is None and combine == "best":
        raise InputError(
            f"{len(oracles)} oracles came and no control, by which the best of them is chosen: pass control= (samples "
            "like these that no model here has seen), or one oracle."
        )
    if len(oracles) == 1 and combine != "best":
        raise InputError(f'combine="{combine}" makes one oracle of several, and one came: pass a list of oracles.')
    return oracles


def _add_control(measured: list[list[Pair]], control: Any) -> None:
    """The control's CodeLengths, checked to be of the same models, to each oracle's pair of the samples'."""
    n = len(measured) + 1
    if len(measured) > 1 and not (isinstance(control, Sequence) and not isinstance(control, str) and len(control) == n):
        raise InputError(
            f"a model was given as CodeLengths, so control must be the CodeLengths of the control under the target and "
            f"each of the {len(measured)} oracles: (target, oracle, ...), {n} in all."
        )
    for k, pairs in enumerate(measured):
        pairs.append(control_pair(control if len(measured) == 1 else (control[0], control[k + 1]), pairs[0]))
    ours, theirs = (lengths[0] for lengths in measured[0])
    if ours.settings["first_token"]["rule"] != "skip" and not differ_in_tokens(*measured[0][0]):
        both = np.flatnonzero(np.isin(sample_keys(ours), sample_keys(theirs)))
        if len(both):
            raise InputError(
                f"sample {ours.index[both[0]]} is also in the control ({len(both)} of "
                f"{counted(len(ours), 'sample')} are): leave "
                "such samples out of both sets."
            )


def _best_first(measured: list[list[Pair]]) -> tuple[list[Pair], list[list[Pair]]]:
    """The pairs of the oracle with the fewest bits on the control, the target itself last of all; and the others'."""
    if len(measured) == 1:
        return measured[0], []
    counted = {"token_count_code": _differ(measured)}

    def bits(pairs: list[Pair]) -> tuple[bool, float]:
        _, oracle = pairs[1]
        is_target = alike([pair[0] for pair in pairs], [pair[1] for pair in pairs], COPY)
        return is_target, float(with_count(oracle.bits, oracle, counted).mean())

    first, *others = sorted(measured, key=bits)
    return first, others


def _mixed(measured: list[list[Pair]], code: MixedCode) -> tuple[list[Pair], list[list[Pair]]]:
    """The pairs of all oracles as one, and those of each."""
    for pairs in measured:
        if alike([pair[0] for pair in pairs], [pair[1] for pair in pairs], COPY):
            raise InputError(
                f"the oracle {pairs[0][1].settings['model']['name']} is the target, or nearly: in a mixture it hides "
                'what the target has memorized. Leave it out, or pass combine="best", which puts it last.'
            )
    mixed = [(pairs[0][0], as_one([pair[1] for pair in pairs], code)) for pairs in zip(*measured, strict=True)]
    return mixed, measured


def memorization_of(
    pairs: Sequence[Pair],
    others: Sequence[Sequence[Pair]] = (),
    *,
    joint: JointCode,
    combine: Literal["best"] | MixedCode = "best",
    baseline: Literal["uniform"] | CodeLengths = "uniform",
    groups: Sequence[tuple[str, ...] | None] = (),
) -> Memorization:
    """memU and its warnings, from two code lengths of the samples and two of the control, by further oracles too."""
    settings = {
        "joint": joint,
        "combine": combine,
        "baseline": "uniform" if isinstance(baseline, str) else describe_model(baseline.settings["model"]),
        "token_count_code": "Elias gamma" if _differ([pairs, *others]) else None,
        "has_control": len(pairs) > 1,
        "versions": versions(),
    }
    ours = pairs[0][0].settings["model"]
    if holds(pairs[0][1].settings["model"], ours):
        raise InputError(
            f"the target ({ours['name']}) is a member of the oracle ({pairs[0][1].settings['model']['name']}): that "
            "hides what it has memorized. Leave it out."
        )
    further = [(pairs[0][1], pairs[1][1]) for pairs in others if len(pairs) > 1]
    warn_of_one_model(pairs)
    result = combined(pairs, settings, _baseline_bits(baseline, pairs[0][0], settings), further, _checked(groups))
    warn_of_doubts(result)
    return result


def _differ(measured: Sequence[Sequence[Pair]]) -> bool:
    return any(differ_in_tokens(*pairs[0]) for pairs in measured)


def _baseline_bits(
    baseline: str | CodeLengths, target: CodeLengths, settings: dict[str, Any]
) -> Float64[np.ndarray, " sample"]:
    """H(x) of each sample, with the code of the token count where the target's length has it, so that it cancels."""
    if isinstance(baseline, CodeLengths):
        check_same_samples(baseline, target, "the baseline")
        return with_count(baseline.bits, baseline, settings)
    return with_count(target.n_tokens * math.log2(target.settings["uniform_vocab_size"]), target, settings)
