"""The pass of extraction: what a model reads of each sample, and which tokens it gives back."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float64, Int64

from memorization.errors import ImpossibleTokenError, InputError
from memorization.extraction.decoding import Decoding
from memorization.extraction.rates import NAMES, SETS, long_enough
from memorization.measure.batches import BatchSize
from memorization.measure.code_lengths import tokenize
from memorization.measure.context import FirstToken, Sequences, check_ids, resolve_first_token, sequences_of
from memorization.measure.evidence import settle_first_token
from memorization.measure.opening import OpenModel
from memorization.measure.passes import Window, places_predicted, read_windows
from memorization.measure.probe import remedy_of_nan
from memorization.results import counted
from memorization.samples import Samples

__all__ = [
    "Read",
    "TokensGiven",
    "asked",
    "documents_of",
    "examples_of",
    "read_as",
    "tokenized",
    "tokens_given",
    "under_oracle",
]

_N_EXAMPLES, _MOST_GENERATED = 10, 50  # samples, and tokens of each


class Read(NamedTuple):
    """Samples as a model is to read them."""

    samples: Samples
    sequences: Sequences  # what the model reads of each, and what of it is to be given back
    n_cut: int  # samples of which the window holds the beginning alone


def tokenized(
    model: OpenModel, raw: Samples, first: FirstToken, on_lossy_text: Literal["raise", "skip"], which: str
) -> Samples:
    """The samples in the model's tokens, which it knows."""
    try:
        samples = tokenize(raw, model.tokenizer, on_lossy_text=on_lossy_text)
        check_ids(samples, model.vocab_size, first, model.record["name"])
    except InputError as error:
        raise type(error)(f"{SETS[which]}: {error}") from error
    return samples


def read_as(model: OpenModel, samples: Samples, first: FirstToken, which: str, least: int | None) -> Read:
    """What is read of samples; where `least` tokens of each are enough, those longer than the window are cut to it."""
    try:
        # For "skip" as for "uniform": the first token is there, and nothing before it.
        sequences = sequences_of(samples, first.charged("uniform") if first.charge == "skip" else first)
    except InputError as error:
        raise type(error)(f"{SETS[which]}: {error}") from error
    if model.max_length is None:
        return Read(samples, sequences, 0)
    window = model.max_length + 1  # the last token is predicted and not read
    whole = [len(ids) for ids in sequences.read]
    for k, i in enumerate(samples.index.tolist()):
        n_needed = whole[k] if least is None else _n_needed(sequences, k, least)
        if whole[k] > window and n_needed > window:
            raise InputError(
                f"{NAMES[which]} {i} needs {counted(n_needed - 1, 'position')}, and {model.record['name']} or its "
                "tokenizer takes "
                f"{model.max_length}. "
                + (
                    "Pass suffix_tokens: then the beginning of the sample is enough. Or leave longer samples out."
                    if least is None
                    else "Pass a smaller prefix or suffix."
                )
            )
        if whole[k] > window:
            sequences.read[k], sequences.scored[k] = sequences.read[k][:window], sequences.scored[k][:window]
            n_left = sequences.apart[k] + int(np.count_nonzero(sequences.scored[k]))
            sequences.coded[k] = sequences.coded[k][:n_left]
    return Read(samples, sequences, sum(n > window for n in whole))


def asked(model: OpenModel, samples: Samples, first: FirstToken, which: str, least: int, suffix: int | None) -> Read:
    """What is read of the samples of at least so many tokens, as by `read_as`; refused where there is none."""
    part = read_as(model, samples, first, which, suffix and least)
    n_tokens = np.array([len(ids) for ids in part.sequences.coded])
    return without_short(part, part.samples.index[~long_enough(which, n_tokens, least)].tolist())


def without_short(part: Read, positions: Sequence[int]) -> Read:
    """All but the samples at these positions of the input."""
    keep = np.flatnonzero(~np.isin(part.samples.index, positions)).tolist()
    sequences = Sequences(*([of[k] for k in keep] for of in part.sequences))
    return Read(part.samples.without_short(positions), sequences, part.n_cut)


def _n_needed(sequences: Sequences, k: int, least: int) -> int:
    """Tokens of what is read until so many of the sample have come; all of them where it has fewer."""
    places = np.flatnonzero(sequences.scored[k])
    last = least - sequences.apart[k] - 1
    if last < 0:
        return 0
    return int(places[last]) + 1 if last < len(places) else len(sequences.read[k])


class TokensGiven(NamedTuple):
    """What a model says of the tokens of samples, given the true tokens before each, all samples in turn."""

    correct: Bool[np.ndarray, " token"]  # whether it is the arg max
    bits: Float64[np.ndarray, " token"]  # -log2 of the probability with which it is drawn


def tokens_given(
    model: OpenModel,
    part: Read,
    which: str,
    decoding: Decoding,
    batch_size: BatchSize,
    progress: bool | str,
) -> TokensGiven:
    """Of each token; one that is given nothing counts as wrong, and is never drawn."""
    sequences = part.sequences
    found = [np.zeros(len(ids), dtype=bool) for ids in sequences.coded]
    bits = [np.full(len(ids), math.inf) for ids in sequences.coded]
    asked = [k for k, own in enumerate(sequences.scored) if own.any()]

    def read(logits: torch.Tensor, rows: np.ndarray, ids: np.ndarray, batch: list[Window]) -> list[TokensGiven]:
        largest, greedy = logits.max(dim=-1)  # of equal ones the first, as torch.argmax
        edges = np.cumsum([n_new for *_, n_new in batch])[:-1]
        wrong = np.split(~largest.isfinite().cpu().numpy()[rows], edges)
        for (i, *_), piece, places in zip(batch, wrong, places_predicted(logits, rows, batch), strict=True):
            for j in np.flatnonzero(piece)[:1]:
                k = asked[i]
                position = sequences.apart[k] + int(np.count_nonzero(sequences.scored[k][: places[j]]))
                where = f"position {position} of {NAMES[which]} {part.samples.index[k]}"
                raise ImpossibleTokenError(
                    f"the logits of {model.record['name']} that predict {where} are NaN, +inf, or all -inf: there is "
                    f"no largest one. {remedy_of_nan(logits.element_size() < 4)}"
                )
        correct = np.split(greedy.cpu().numpy()[rows] == ids, edges)
        drawn = np.split(decoding.token_bits(logits, rows, ids), edges)
        return [TokensGiven(*of_sample) for of_sample in zip(correct, drawn, strict=True)]

    def keep(i: int, parts: list[TokensGiven]) -> None:
        k = asked[i]  # one window a sample: it fits
        found[k][sequences.apart[k] :], bits[k][sequences.apart[k] :] = parts[0]

    read_windows(
        model,
        [sequences.read[k] for k in asked],
        max_length=None,
        stride=None,
        batch_size=batch_size,
        read=read,
        on_read=keep,
        progress=progress,
        scored=[sequences.scored[k] for k in asked],
    )
    return TokensGiven(np.concatenate(found), np.concatenate(bits))


def under_oracle(
    oracle: OpenModel,
    raw: Mapping[str, Samples],
    by_target: Mapping[str, Read],
    first_token: str | int,
    least: int | None,
    decoding: Decoding,
    on_lossy_text: Literal["raise", "skip"],
    batch_size: BatchSize,
    progress: bool,
) -> dict[str, TokensGiven]:
    """The same tokens under an oracle.

    Raises:
        InputError: it has other tokens.
    """
    first = resolve_first_token(first_token, oracle.tokenizer)
    parts = {which: tokenized(oracle, part, first, on_lossy_text, which) for which, part in raw.items()}
    first = settle_first_token(
        first, oracle, parts["members"], max_length=oracle.max_length, stride=None, batch_size=batch_size
    )
    found = {}
    for which, part in parts.items():
        read = without_short(read_as(oracle, part, first, which, least), by_target[which].samples.too_short)
        ours, theirs = read.sequences.coded, by_target[which].sequences.coded
        if len(ours) != len(theirs) or any(not np.array_equal(a, b) for a, b in zip(ours, theirs, strict=True)):
            raise InputError(
                f"the oracle {oracle.record['name']} cuts the {SETS[which]} into other tokens than the target, or "
                "takes other lengths: a suffix is then another one. Give an oracle with the target's tokenizer."
            )
        found[which] = tokens_given(oracle, read, which, decoding, batch_size, progress and f"oracle, {which}")
    return found


def documents_of(part: Read) -> tuple[str, ...] | None:
    """The document of each sample; where these are not known, a label that equal samples share, if there are any."""
    if part.samples.groups is not None:
        return part.samples.groups
    number: dict[bytes, int] = {}
    labels = tuple(str(number.setdefault(ids.tobytes(), len(number))) for ids in part.sequences.read)
    return labels if len(number) < len(labels) else None


def examples_of(
    model: OpenModel,
    sequences: Sequences,
    index: Int64[np.ndarray, " sample"],
    given: TokensGiven,
    prefix: int,
    suffix: int | None,
) -> list[dict[str, Any]]:
    """The samples that come out most easily: prefix, true suffix, greedy continuation and log2 of its probability.

    The one place where tokens are generated, greedily, 50 at most: from the first one on that is not the true one.
    """
    coded, n_tokens = sequences.coded, [len(ids) for ids in sequences.coded]
    edges = np.cumsum([0, *n_tokens])
    stop = [n if suffix is None else prefix + suffix for n in n_tokens]
    own = np.array([given.bits[a + prefix : a + end].sum() for a, end in zip(edges[:-1], stop, strict=True)])
    examples = []
    for k in np.argsort(own, kind="stable")[:_N_EXAMPLES].tolist():
        apart, n_new = sequences.apart[k], stop[k] - prefix
        places = np.flatnonzero(sequences.scored[k])[max(prefix - apart, 0) :][:n_new]
        n_before = int(places[0]) if len(places) else 0
        # From something, without gaps, within one window: else there is no continuation to compare.
        whole = n_before > 0 and len(places) == n_new and places[-1] - places[0] + 1 == n_new
        whole = whole and (model.max_length is None or len(sequences.read[k]) <= model.max_length + 1)
        wrong = np.flatnonzero(~given.correct[edges[k] + prefix : edges[k] + stop[k]])
        n_right = int(wrong[0]) if len(wrong) else n_new
        read = sequences.read[k][: n_before + n_right].tolist()
        with torch.no_grad():
            for _ in range(min(n_new - n_right, _MOST_GENERATED) if whole else 0):
                logits = model.logits(torch.tensor([read], device=model.device))
                read.append(int(logits[0, -1].argmax()))
        examples.append(
            {
                "sample": int(index[k]),
                "prefix": _shown(model, coded[k][:prefix]),
                "suffix": _shown(model, coded[k][prefix : stop[k]]),
                "greedy": _shown(model, np.array(read[n_before:], dtype=np.int64)) if whole else None,
                "log2_probability": -float(own[k]),
            }
        )
    return examples


def _shown(model: OpenModel, ids: np.ndarray) -> Any:
    return ids.tolist() if model.tokenizer is None else model.tokenizer.decode(ids.tolist())
