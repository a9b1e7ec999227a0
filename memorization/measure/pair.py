"""The same samples under two models: one charge of the first token, and one named model in memory at a time."""

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal, TypeAlias

import numpy as np
from jaxtyping import Float64

from memorization.errors import InputError, ResultError
from memorization.measure.batches import BatchSize
from memorization.measure.code_lengths import CodeLengths, measure, tokenize
from memorization.measure.context import Charge, FirstToken, eos_in_front, resolve_first_token, warn_of_chat_marker
from memorization.measure.evidence import settle_first_token
from memorization.measure.fingerprint import same_model
from memorization.measure.opening import DeviceLike, DTypeLike, ModelLike, OpenModel, UniformModel, open_model
from memorization.measure.passes import check_windows, window_of
from memorization.measure.tokenizers import TokenizerLike, load_tokenizer, tokenizer_record
from memorization.samples import Samples, check_same_answers, counted_by, part_in_words

Pair: TypeAlias = tuple[CodeLengths, CodeLengths]  # target, oracle
_ROLES = ("target", "oracle")


def measure_pair(
    target: ModelLike | CodeLengths,
    oracle: ModelLike | CodeLengths,
    sets: Sequence[Samples],
    *,
    tokenizers: tuple[TokenizerLike | None, TokenizerLike | None],
    revisions: tuple[str | None, str | None],
    first_token: str | int,
    max_length: int | None,
    stride: int | None,
    batch_size: BatchSize,
    device: DeviceLike | None,
    dtype: DTypeLike | None,
    trust_remote_code: bool,
    on_lossy_text: Literal["raise", "skip"],
    progress: bool,
    allow_pickle: bool,
    with_target: Callable[[OpenModel, list[CodeLengths]], None] | None = None,
    oracle_as: CodeLengths | None = None,
) -> list[Pair]:
    """Code lengths of each set of samples under both models; a model may be saved CodeLengths of the first set.

    `with_target` is called while the target is open, with its code lengths: for what else is asked of it. It is called
    again where the oracle reads the samples without a BOS and the target does not, for then the target is measured
    again, with a first token that costs both the same. `oracle_as`: what "auto" came to for the oracle elsewhere, which
    holds here.

    Raises:
        InputError: samples, tokenizers and first-token rule do not go together.
        ResultError: the CodeLengths are not of these samples.
    """
    max_length, stride, batch_size = check_windows(max_length, stride, batch_size)
    models: dict[str, Any] = dict(zip(_ROLES, (target, oracle), strict=True))
    revision = dict(zip(_ROLES, revisions, strict=True))
    named = [role for role, model in models.items() if isinstance(model, (str, os.PathLike))]
    tokenizer = load_tokenizers(models, tokenizers, revision, trust_remote_code)
    tokenized, rules, charge = _prepare(models, tokenizer, sets, first_token, on_lossy_text)
    measured = {role: [model] for role, model in models.items() if isinstance(model, CodeLengths)}
    settled: dict[str, FirstToken] = {}
    if oracle_as is not None and first_token == "auto":
        settled["oracle"] = FirstToken.from_record(oracle_as.settings["first_token"])

    def measure_role(role: str, rule: FirstToken, charge: Charge | None) -> FirstToken:
        """Measure a model; returns the first token that its own evidence, or the charge of the other, comes to."""
        with open_model(
            models[role],
            tokenizer=tokenizer[role],
            device=device,
            dtype=dtype if role in named or not named else None,
            revision=revision[role],
            trust_remote_code=trust_remote_code,
            allow_pickle=allow_pickle,
            max_length=max_length,
            progress=progress,
        ) as opened:
            asked = dict(zip(("max_length", "stride"), window_of(max_length, stride, opened.max_length), strict=True))
            if role not in settled:
                rule = settle_first_token(
                    rule, opened, tokenized[0][role], charge=charge, batch_size=batch_size, **asked
                )
            warn_of_chat_marker(rule, tokenizer[role], tokenized[0][role])
            # One size for both where the first token is coded uniformly: the tokenizer's, or without one the width of
            # the target.
            shared = [done[0].settings["uniform_vocab_size"] for done in measured.values() if rule.charge == "uniform"]
            measured[role] = [
                measure(
                    opened,
                    part[role],
                    rule,
                    uniform_vocab_size=shared[0] if shared else None,
                    max_length=max_length,
                    stride=stride,
                    batch_size=batch_size,
                    progress=progress and (f"control, {role}" if i else role),
                )
                for i, part in enumerate(tokenized)
            ]
            if with_target is not None and role == "target":
                with_target(opened, measured[role])
        return rule

    for role in tokenizer:
        settled[role] = measure_role(role, settled.get(role, rules[role]), charge)
        if not _all_prompted(tokenized, measured):
            charge = charge or ("uniform" if settled[role].charge == "uniform" else None)
    for role, rule in settled.items():
        if charge is not None and rule.charge != charge:  # one that keeps its BOS was measured before one that does not
            settled[role] = measure_role(role, rule.charged(charge), charge)
    return list(zip(measured["target"], measured["oracle"], strict=True))


def load_tokenizers(
    models: dict[str, Any],
    asked: tuple[Any, Any],
    revision: dict[str, str | None],
    trust_remote_code: bool,
) -> dict[str, Any]:
    """The tokenizer of each model that is to be measured, None where there is none."""
    tokenizer: dict[str, Any] = {}
    for (role, model), own in zip(models.items(), asked, strict=True):
        if isinstance(model, CodeLengths):
            continue
        if isinstance(model, OpenModel) and own is None:
            tokenizer[role] = model.tokenizer
            continue
        named = isinstance(model, (str, os.PathLike))
        tokenizer[role] = load_tokenizer(
            model if own is None and named else own,
            required=own is not None,
            revision=revision[role] if own is None else None,
            trust_remote_code=trust_remote_code,
        )
    for role, own in tokenizer.items():  # a uniform model has the other's tokens where it has none of its own
        if own is None and _is_uniform(models[role]):
            tokenizer[role] = next((other for other in tokenizer.values() if other is not None), None)
    return tokenizer


def _is_uniform(model: Any) -> bool:
    kind = model.record["class"] if isinstance(model, OpenModel) else type(model).__name__
    return bool(kind == UniformModel.__name__)


def _prepare(
    models: dict[str, Any],
    tokenizer: dict[str, Any],
    sets: Sequence[Samples],
    first_token: str | int,
    on_lossy_text: Literal["raise", "skip"],
) -> tuple[list[dict[str, Samples]], dict[str, FirstToken], Charge | None]:
    """Each set in the tokens of each model, the models' first tokens and what these cost, checked to fit together."""
    given = {role: model for role, model in models.items() if isinstance(model, CodeLengths)}
    for lengths in given.values():  # what was left out there is left out here
        sets = [part.as_measured(lengths.settings["samples"]) for part in sets]
    tokenized = [tokenize_for(tokenizer, part, on_lossy_text) for part in sets]
    records = [tokenizer_record(own) for own in tokenizer.values()]
    records += [lengths.settings["tokenizer"] for lengths in given.values()]
    given_hashes = {lengths.settings["samples"]["ids_sha256"] for lengths in given.values()}
    two_tokenizers = any(len(given_hashes | {own.ids_sha256 for own in part.values()}) > 1 for part in tokenized)
    if sets[0].texts is None and len({record["vocab_sha256"] for record in records if record is not None}) == 2:
        raise InputError(
            "the samples are token ids, and target and oracle have different tokenizers: ids mean other texts to "
            "each. Pass the texts."
        )
    for role, lengths in given.items():
        check_measured(lengths.settings["samples"], sets[0], f"the {role}'s CodeLengths are")
        for own in tokenized[0].values():
            if len(own) < len(sets[0]):
                raise ResultError(
                    f"the {role}'s CodeLengths hold samples that the other model's tokenizer does not give back, the "
                    f"first is sample {min(set(sets[0].index) - set(own.index))}: leave them out of the samples, and "
                    "measure both."
                )
    sizes = {lengths.settings["uniform_vocab_size"] for lengths in given.values()}
    if len(sizes) == 2 and all(lengths.settings["first_token"]["rule"] == "uniform" for lengths in given.values()):
        raise ResultError(
            f"the CodeLengths price a uniform first token at log2 of {min(sizes)} and of {max(sizes)} tokens, so they "
            "differ where the models may not. Measure both with one tokenizer, or with another first_token."
        )
    rules = _rules(first_token, tokenizer, given)
    if two_tokenizers and sets[0].conditional == "messages":
        for part in tokenized:
            check_same_answers(list(part.values()), list(tokenizer.values()))
    if _all_prompted(tokenized, {role: [lengths] for role, lengths in given.items()}):
        return tokenized, rules, None
    if two_tokenizers and first_token == "auto":  # the first token needs a context: the EOS where there is no BOS
        rules |= {role: eos_in_front(rules[role], own) for role, own in tokenizer.items()}
    return tokenized, rules, _one_charge(first_token, rules, given, two_tokenizers)


def _all_prompted(tokenized: list[dict[str, Samples]], measured: Mapping[str, list[CodeLengths]]) -> bool:
    """Whether no sample has a first token to charge, because something is read before what is counted."""
    records = [lengths.settings["samples"] for done in measured.values() for lengths in done]
    return all(part.all_prompted for parts in tokenized for part in parts.values()) and all(
        (record.get("conditional") or {}).get("n_samples_prompted") == record["n_samples"] for record in records
    )


def control_pair(control: Any, pair: Pair) -> Pair:
    """The control's CodeLengths under the models of a pair of CodeLengths, checked to be theirs."""
    if not (
        isinstance(control, Sequence)
        and len(control) == 2
        and all(isinstance(lengths, CodeLengths) for lengths in control)
    ):
        raise InputError(
            "a model was given as CodeLengths, so control must be the pair (target, oracle) of the control's "
            "CodeLengths."
        )
    target, oracle = control
    check_same_samples(target, oracle, "the control under the target")
    for role, ours, theirs in zip(_ROLES, pair, (target, oracle), strict=True):
        a, b = ours.settings["model"], theirs.settings["model"]
        if not same_model(a, b):
            raise ResultError(f"the control's {role} is another model ({b['name']}) than the samples' ({a['name']}).")
        if len({counted_by(lengths.settings["samples"]) for lengths in (ours, theirs)}) == 2:
            raise ResultError("samples and control are not counted in one way. Measure both with prompts, or without.")
        rules = [FirstToken.from_record(lengths.settings["first_token"]) for lengths in (ours, theirs)]
        if rules[0].every_window != rules[1].every_window:
            raise ResultError(
                f"under the {role}, {'samples' if rules[0].every_window else 'control'} were read with the context "
                "token in front of each later window, and the other set was not. Pass the models, so that the samples "
                "decide for both sets, or measure both again with one named first_token."
            )
        if rules[0].charge != rules[1].charge or rules[0].context != rules[1].context:
            named = rules[0].token or rules[0].id if rules[0].rule == "token" else rules[0].rule
            raise ResultError(
                f"the control's {role} was measured with another first-token rule than the samples' "
                f"({rules[1].rule} in place of {rules[0].rule}). Measure the control again with first_token={named!r}."
            )
    return target, oracle


def differ_in_tokens(target: CodeLengths, oracle: CodeLengths) -> bool:
    """Whether two models coded the samples in different tokens (the same bytes, then)."""
    return bool(target.settings["samples"]["ids_sha256"] != oracle.settings["samples"]["ids_sha256"])


def token_count_bits(lengths: CodeLengths) -> Float64[np.ndarray, " sample"]:
    """What it takes to say how many tokens each sample has: Elias gamma, 2 floor(log2 n) + 1 bits."""
    return np.asarray(2 * np.floor(np.log2(lengths.n_tokens)) + 1)


def ideal_signed_bits(target: CodeLengths, oracle: CodeLengths) -> Float64[np.ndarray, " sample"]:
    """H(x | oracle) - H(x | target) of each sample from -log2 p, token counts included where tokenizers differ."""
    signed = oracle.ideal_bits - target.ideal_bits
    if differ_in_tokens(target, oracle):
        signed = signed + token_count_bits(oracle) - token_count_bits(target)
    return np.asarray(signed)


def check_same_samples(lengths: CodeLengths, others: CodeLengths, name: str) -> None:
    """Raise ResultError where CodeLengths are of other samples than `others`."""
    ours, theirs = lengths.settings["samples"], others.settings["samples"]
    by_texts = ours["texts_sha256"] is not None and ours["texts_sha256"] == theirs["texts_sha256"]
    if not by_texts and ours["ids_sha256"] != theirs["ids_sha256"]:
        told = _other_samples(f"{name} are", ours, theirs["source"], theirs["n_samples"], counted_by(theirs))
        raise ResultError(told)


def check_measured(record: Mapping[str, Any], samples: Samples, name: str) -> None:
    """Raise ResultError where samples are not those of a measurement with this record (`Samples.record`)."""
    kind = "ids_sha256" if samples.texts is None else "texts_sha256"
    if record[kind] != getattr(samples, kind):
        raise ResultError(_other_samples(name, record, samples.source, len(samples), samples.conditional))


# What lengths are of, by what says so (`Samples.conditional`).
_COUNTED = {
    None: "all of each sample is counted",
    "prompt": "each sample is counted given its prompt",
    "messages": "what the assistant says is counted, given the rest",
    "labels": "what has a label is counted, given the rest",
}


def _other_samples(name: str, ours: Mapping[str, Any], source: str, n_samples: int, by: str | None) -> str:
    had = counted_by(ours)
    if had != by:
        return f"{name} of other samples: there, {_COUNTED[had]}; here, {_COUNTED[by]}. Measure both in one way."
    return (
        f"{name} of other samples: {ours['n_samples']} from {ours['source']}{part_in_words(ours)} were measured, and "
        f"{n_samples} from {source} came (compared by fingerprint, order included; texts with texts, ids with ids). "
        "Measure again, or pass the same samples."
    )


def tokenize_for(
    tokenizer: dict[str, Any], samples: Samples, on_lossy_text: Literal["raise", "skip"]
) -> dict[str, Samples]:
    """The samples in each live model's tokens; what one tokenizer does not give back is left out for both."""
    done: dict[int, Samples] = {}  # by tokenizer: one for both models reads the samples once
    for role, own in tokenizer.items():
        if id(own) not in done:
            done[id(own)] = tokenize(samples, own, on_lossy_text=on_lossy_text, argument=f"{role}_tokenizer")
    parts = {role: done[id(own)] for role, own in tokenizer.items()}
    dropped = {i for part in parts.values() for i in part.lossy_skipped}
    return {role: part.leave_out(dropped) for role, part in parts.items()}


def _rules(asked: str | int, tokenizer: dict[str, Any], given: dict[str, CodeLengths]) -> dict[str, FirstToken]:
    """The first token of each model by itself, before any is asked what it was trained with."""
    rules = {role: FirstToken.from_record(lengths.settings["first_token"]) for role, lengths in given.items()}
    for role, own in tokenizer.items():
        first = next(iter(rules.values())) if asked == "auto" and given else None
        if first is None:
            rules[role] = resolve_first_token(asked, own)
        elif first.rule == "token" and first.id is not None:  # named when it was measured, so it holds for both
            rules[role] = resolve_first_token(first.token or first.id, own)
        elif first.charge == "given":
            rules[role] = replace(resolve_first_token("bos", own), asked=asked)
        else:
            by_itself = resolve_first_token(asked, own)
            rules[role] = by_itself if by_itself.rule == "bos" else FirstToken(asked, first.rule, None, None)
    return rules


def _one_charge(
    asked: str | int, rules: dict[str, FirstToken], given: dict[str, CodeLengths], two_tokenizers: bool
) -> Charge | None:
    """What the first token costs under both models, with two tokenizers one that covers the same bytes.

    None where what the models say of their BOS decides it.
    """
    measured = {role: rule for role, rule in rules.items() if role in given}
    charges = {rule.charge for rule in (measured if asked == "auto" and given else rules).values()}
    own_context = asked == "auto" and len(given) == 1 and all(rule.rule != "token" for rule in measured.values())
    ids = set() if own_context else {rule.id for rule in rules.values() if rule.in_front}
    if asked == "auto" and not given and len(charges) == 2 and not two_tokenizers:
        return "uniform"
    if len(charges) == 2 or (not two_tokenizers and len(ids - {None}) == 2):
        raise InputError(_two_rules(rules, given))
    charge = next(iter(charges))
    if two_tokenizers and (charge != "given" or not isinstance(asked, str)):
        raise InputError(
            "target and oracle have different tokenizers, so their first tokens cover different bytes: only "
            'first_token="bos" (where both have one) or a token that both know, such as "<|endoftext|>", is allowed; '
            f"it came to {charge}."
            + (" Or pass both as models: their first tokens are then given a BOS each." if given else "")
        )
    return charge if asked == "auto" and (given or two_tokenizers) else None


def _two_rules(rules: dict[str, FirstToken], given: dict[str, CodeLengths]) -> str:
    told = " and ".join(f"{role}: {rule.rule} {rule.token or rule.id or ''}".rstrip() for role, rule in rules.items())
    if len(given) < len(rules):
        return (
            f"both models must be measured with one first-token rule ({told}). Pass first_token, and where CodeLengths "
            "were measured with another rule, measure them again."
        )
    left = next((role for role, rule in rules.items() if rule.asked == "auto" and rule.charge == "uniform"), None)
    return (
        f"both models must be measured with one first-token rule ({told}). "
        + (f'With first_token="auto", each was asked by itself, and the {left} reads no BOS. ' if left else "")
        + "Pass one of the two, or both, as a model: what the first token costs is then settled for both. Or measure "
        'both again with one named rule: first_token="bos" if both were trained with it in front, else '
        'first_token="uniform".'
    )
