"""`unintended_memorization`: measure a target and an oracle, and subtract."""

import math
from collections.abc import Sequence
from typing import Literal

import numpy as np
from jaxtyping import Float64

from memorization.coding.joint import JointCode
from memorization.errors import InputError, LengthMismatchWarning, WeakOracleWarning, warn
from memorization.measure.code_lengths import CodeLengths
from memorization.measure.opening import DeviceLike, DTypeLike, ModelLike
from memorization.measure.pair import Pair, check_same_samples, control_pair, differ_in_tokens, measure_pair
from memorization.measure.tokenizers import TokenizerLike
from memorization.results import describe_model, versions
from memorization.samples import Samples, SamplesLike, read_samples
from memorization.unintended.result import Memorization, combine, with_count

_LENGTH_MISMATCH = 0.1  # relative difference of mean lengths from which net memU compares unlike things


def unintended_memorization(
    target: ModelLike | CodeLengths,
    oracle: ModelLike | CodeLengths,
    samples: SamplesLike,
    *,
    joint: JointCode = "max",
    control: SamplesLike | Sequence[CodeLengths] | None = None,
    baseline: Literal["uniform"] | CodeLengths = "uniform",
    target_tokenizer: TokenizerLike | None = None,
    oracle_tokenizer: TokenizerLike | None = None,
    target_revision: str | None = None,
    oracle_revision: str | None = None,
    first_token: str | int = "auto",
    max_length: int | None = None,
    stride: int | None = None,
    batch_size: int | Literal["auto"] = "auto",
    device: DeviceLike | None = None,
    dtype: DTypeLike | None = None,
    trust_remote_code: bool = False,
    text_column: str = "text",
    limit: int | None = None,
    on_lossy_text: Literal["raise", "skip"] = "raise",
    progress: bool = True,
    allow_pickle: bool = False,
) -> Memorization:
    """Bits of each sample that the target has memorized beyond what the oracle knows of such text.

    memU(x) = H(x | oracle) - H(x | oracle, target). Positive is memorized. The measurement is as good as the oracle:
    one that has itself memorized x hides memorization of x; one that is too weak shows the target's generalization as
    memorization (pass a `control`).

    Args:
        target: the model under audit, as for `compress_bits`, or saved `CodeLengths` of the same samples.
        oracle: the best available model of such text, which has not seen the samples; or saved `CodeLengths`.
        samples: as for `compress_bits`.
        joint: "max" is the paper's estimator, clipped at 0; "mixture" is a proper code, never below -1 bit.
        control: samples drawn like `samples` that neither model has seen. Where a model is given as CodeLengths: the
            pair (target, oracle) of the control's CodeLengths.
        baseline: H(x) for mem and memI: "uniform" is n_tokens x log2 of the vocabulary size; or CodeLengths under a
            third model.
        target_tokenizer: None is the model's own where the model is named.
        oracle_tokenizer: the same for the oracle. The tokenizers may differ where samples are texts.
        target_revision: of a hub model.
        oracle_revision: of a hub model.
        first_token: one rule for both models, as for `compress_bits`; "auto" is bos only if both have one, else uniform
            for both.
        max_length: this and all that follow are as for `compress_bits`.
        stride: new tokens of each window after the first.
        batch_size: samples a forward pass.
        device: where to measure.
        dtype: of the weights of models loaded here.
        trust_remote_code: run code that a checkpoint brings.
        text_column: column of a file or data set.
        limit: only the first so many samples, and control samples.
        on_lossy_text: "raise" or "skip" texts that a tokenizer does not give back; skipped for one model is skipped for
            both.
        progress: a bar on stderr.
        allow_pickle: load pickled weights, which can run code.

    Returns:
        memU and what it is made of, in the order of the samples.

    Raises:
        InputError: samples or options that cannot be used together.
        ResultError: CodeLengths of other samples.
        ModelError: as for `compress_bits`.

    Warns:
        SameModelWarning: target and oracle give every token the same bits.
        WeakOracleWarning: the target codes unseen text in fewer bits than the oracle.
        LengthMismatchWarning: samples and control differ in mean length by over 10 %.

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
    if joint not in ("max", "mixture"):
        raise InputError(f'joint must be "max" or "mixture"; it is {joint!r}.')
    if not (isinstance(baseline, str) and baseline == "uniform") and not isinstance(baseline, CodeLengths):
        raise InputError(f'baseline must be "uniform" or CodeLengths under a third model; it is {baseline!r}.')
    sets: list[Samples] = [read_samples(samples, text_column=text_column, limit=limit)]
    given_control = isinstance(target, CodeLengths) or isinstance(oracle, CodeLengths)
    if control is not None and not given_control:
        sets.append(read_samples(control, text_column=text_column, limit=limit))
    pairs = measure_pair(
        target,
        oracle,
        sets,
        tokenizers=(target_tokenizer, oracle_tokenizer),
        revisions=(target_revision, oracle_revision),
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
    if control is not None and given_control:
        pairs.append(control_pair(control, pairs[0]))
    return memorization_of(pairs, joint=joint, baseline=baseline)


def memorization_of(
    pairs: Sequence[Pair], *, joint: JointCode, baseline: Literal["uniform"] | CodeLengths = "uniform"
) -> Memorization:
    """memU and its warnings, from two code lengths of the samples and two of the control."""
    settings = {
        "joint": joint,
        "baseline": "uniform" if isinstance(baseline, str) else describe_model(baseline.settings["model"]),
        "token_count_code": "Elias gamma" if differ_in_tokens(*pairs[0]) else None,
        "has_control": len(pairs) > 1,
        "versions": versions(),
    }
    result = combine(pairs, settings, _baseline_bits(baseline, pairs[0]))
    _warn(result)
    return result


def _baseline_bits(baseline: str | CodeLengths, pair: Pair) -> Float64[np.ndarray, " sample"]:
    """H(x) of each sample, with the code of the token count where the target's length has it, so that it cancels."""
    counted = {"token_count_code": differ_in_tokens(*pair)}
    if isinstance(baseline, CodeLengths):
        check_same_samples(baseline, pair[0], "the baseline")
        return with_count(baseline.bits, baseline, counted)
    target = pair[0]
    return with_count(target.n_tokens * math.log2(target.settings["uniform_vocab_size"]), target, counted)


def _warn(result: Memorization) -> None:
    control = result.control
    if control is None:
        return
    if control.mean_interval[0] > 0:
        low, high = control.mean_interval
        warn(
            f"the oracle is too weak: the target codes unseen text in {control.mean:.2f} bits a sample fewer (95 % "
            f"interval {low:.2f} to {high:.2f}), so memU includes generalization. Take a stronger oracle, or read net "
            "memU.",
            WeakOracleWarning,
        )
    ours, theirs = float(result.target.n_tokens.mean()), float(control.target.n_tokens.mean())
    if abs(ours - theirs) > _LENGTH_MISMATCH * ours:
        warn(
            f"samples have {ours:.1f} tokens in the mean, control samples {theirs:.1f}: net memU compares unlike "
            "things. Draw the control like the samples, of the same length.",
            LengthMismatchWarning,
        )
