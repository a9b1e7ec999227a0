"""Code lengths of samples under an open model: the last steps of whatever measures."""

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np

from memorization.coding.coder import coded_bits
from memorization.coding.intervals import TokenCode, code_uniformly
from memorization.errors import InputError
from memorization.integers import edges_of
from memorization.measure.batches import BatchSize
from memorization.measure.byte_bits import coded_bytes
from memorization.measure.context import (
    FirstToken,
    Sequences,
    check_ids,
    resolve_first_token,
    sequences_of,
    warn_of_chat_marker,
)
from memorization.measure.evidence import settle_first_token
from memorization.measure.later_windows import warn_of_later_windows
from memorization.measure.opening import OpenModel
from memorization.measure.passes import score, window_of
from memorization.measure.result import CodeLengths
from memorization.measure.tokenizers import tokenizer_record, vocabulary_size
from memorization.results import versions
from memorization.samples import Samples

__all__ = ["CodeLengths", "measure", "measure_sets", "tokenize"]


def measure_sets(
    model: OpenModel,
    sets: Sequence[Samples],
    *,
    first_token: str | int,
    max_length: int | None,
    stride: int | None,
    batch_size: BatchSize,
    on_lossy_text: Literal["raise", "skip"],
    progress: bool,
) -> list[CodeLengths]:
    """Code lengths of each set under one open model. Where `first_token` is "auto", the first set decides for all.

    The options are those that `check_windows` returns.
    """
    tokenized = [tokenize(part, model.tokenizer, on_lossy_text=on_lossy_text) for part in sets]
    windows = window_of(max_length, stride, model.max_length)
    first = settle_first_token(
        resolve_first_token(first_token, model.tokenizer),
        model,
        tokenized[0],
        max_length=windows[0],
        stride=windows[1],
        batch_size=batch_size,
    )
    warn_of_chat_marker(first, model.tokenizer, tokenized[0])
    return [
        measure(model, part, first, max_length=max_length, stride=stride, batch_size=batch_size, progress=progress)
        for part in tokenized
    ]


def tokenize(
    samples: Samples, tokenizer: Any, *, on_lossy_text: Literal["raise", "skip"], argument: str = "tokenizer"
) -> Samples:
    """Token ids of samples, which need a tokenizer (named by `argument`) where they are texts."""
    if samples.texts is not None and tokenizer is None:
        raise InputError(
            f"the samples are texts, and no tokenizer is at hand: pass {argument}= (the object, or the folder or name "
            "it can be loaded from), or hand over lists of token ids."
        )
    return samples.tokenize(tokenizer, on_lossy_text=on_lossy_text)


def measure(
    model: OpenModel,
    samples: Samples,
    first: FirstToken,
    *,
    uniform_vocab_size: int | None = None,
    max_length: int | None,
    stride: int | None,
    batch_size: BatchSize,
    progress: bool | str,
) -> CodeLengths:
    """Code lengths of tokenized samples under an open model: the last step of `compress_bits`.

    The options are those that `check_windows` returns.
    """
    max_length, stride = window_of(max_length, stride, model.max_length)
    windows: dict[str, Any] = {"max_length": max_length, "stride": stride}
    if uniform_vocab_size is None:
        uniform_vocab_size = (model.tokenizer is not None and vocabulary_size(model.tokenizer)) or model.vocab_size
    codable = min(model.vocab_size, uniform_vocab_size) if first.charge == "uniform" else model.vocab_size
    check_ids(samples, codable, first, model.record["name"])
    coded = (sequences := sequences_of(samples, first, max_length)).coded
    heads = _coded_apart(model, samples, sequences, first, uniform_vocab_size, batch_size)
    bits, token_bits, greedy = np.zeros(len(coded)), [np.zeros(0)] * len(coded), [np.zeros(0, bool)] * len(coded)
    scored = [i for i, mask in enumerate(sequences.scored) if mask.any()]

    def name_token(k: int, position: int) -> str:
        i = scored[k]
        place = sequences.apart[i] + int(np.count_nonzero(sequences.scored[i][:position]))
        return f"position {place} of sample {samples.index[i]} (coded tokens counted from 0)"

    def keep(k: int, code: TokenCode) -> None:
        i = scored[k]
        whole = TokenCode.concatenate([heads[i], code]) if i in heads else code
        bits[i], token_bits[i], greedy[i] = coded_bits([whole])[0], whole.ideal_bits, whole.greedy

    batches = score(
        model,
        [sequences.read[i] for i in scored],
        **windows,
        batch_size=batch_size,
        name_token=name_token,
        on_scored=keep,
        progress=progress,
        later_context=first.context if first.every_window else None,
        scored=[sequences.scored[i] for i in scored],
    )
    for i in heads.keys() - scored:  # samples of a single token
        bits[i], token_bits[i], greedy[i] = coded_bits([heads[i]])[0], heads[i].ideal_bits, heads[i].greedy
    warn_of_later_windows(model, sequences, token_bits, first, max_length, stride)
    n_tokens = np.array([len(ids) for ids in coded], dtype=np.int64)
    return CodeLengths(
        bits=bits,
        ideal_bits=np.array([b.sum() for b in token_bits]),
        n_tokens=n_tokens,
        n_bytes=samples.n_bytes,
        token_bits=np.concatenate(token_bits),
        token_offsets=edges_of(n_tokens),
        settings={
            "first_token": first.record(),
            "uniform_vocab_size": uniform_vocab_size,
            **windows,
            **batch_size.record(),
            **batches.record(),
            "samples": samples.record(),
            "model": model.record,
            "tokenizer": tokenizer_record(model.tokenizer),
            "versions": versions(),
        },
        token_ids=np.concatenate(coded),
        token_bytes=coded_bytes(samples, coded, model.tokenizer),
        token_greedy=np.concatenate(greedy),
        about=samples.about,
    )


def _coded_apart(
    model: OpenModel,
    samples: Samples,
    sequences: Sequences,
    first: FirstToken,
    uniform_vocab_size: int,
    batch_size: BatchSize,
) -> dict[int, TokenCode]:
    """Codes of the first tokens that the pass over the samples does not give: uniform, or given the context alone."""
    chosen, coded = [i for i, one in enumerate(sequences.apart) if one], sequences.coded
    found: dict[int, TokenCode] = {}
    if chosen and first.charge == "uniform":
        codes = code_uniformly(np.array([coded[i][0] for i in chosen]), uniform_vocab_size)
        found.update(zip(chosen, codes, strict=True))
    elif chosen:
        score(
            model,
            [np.array([first.id, coded[i][0]]) for i in chosen],
            max_length=None,
            stride=None,
            batch_size=batch_size,
            name_token=lambda k, _: f"position 0 of sample {samples.index[chosen[k]]} (coded tokens counted from 0)",
            on_scored=lambda k, code: found.update({chosen[k]: code}),
            progress=False,
        )
    return found
