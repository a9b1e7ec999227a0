"""Exact code length of samples under a causal language model: `compress_bits` and its last steps."""

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np

from memorization.coding.coder import coded_bits
from memorization.coding.intervals import TokenCode, code_uniformly
from memorization.errors import InputError
from memorization.integers import edges_of
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
from memorization.measure.opening import DeviceLike, DTypeLike, ModelLike, OpenModel, open_model
from memorization.measure.passes import check_windows, score, window_of
from memorization.measure.result import CodeLengths
from memorization.measure.tokenizers import TokenizerLike, tokenizer_record, vocabulary_size
from memorization.results import versions
from memorization.samples import Samples, SamplesLike, read_samples

__all__ = ["CodeLengths", "compress_bits", "measure", "measure_sets", "tokenize"]


def compress_bits(
    model: ModelLike,
    samples: SamplesLike,
    *,
    tokenizer: TokenizerLike | None = None,
    first_token: str | int = "auto",
    max_length: int | None = None,
    stride: int | None = None,
    batch_size: int | Literal["auto"] = "auto",
    device: DeviceLike | None = None,
    dtype: DTypeLike | None = None,
    revision: str | None = None,
    trust_remote_code: bool = False,
    text_column: str = "text",
    limit: int | None = None,
    on_lossy_text: Literal["raise", "skip"] = "raise",
    progress: bool = True,
    allow_pickle: bool = False,
) -> CodeLengths:
    """Code length in bits of each sample under a causal language model, by entropy coding of its token probabilities.

    Args:
        model: hub id or folder, a transformers model, any torch module or callable from int64 ids (batch, position) to
            logits (batch, position, vocabulary) or to an object with `.logits`, or `UniformModel(vocab_size)`.
        samples: a text, texts, lists or arrays of token ids, a `datasets.Dataset`, a file (.txt, .jsonl, .csv,
            .parquet), or what `read_samples` made of one: with prompts, lengths are of what follows them.
        tokenizer: object, name or folder; None is the model's own where the model is named.
        first_token: what stands in front of a sample, and what its first token costs. "bos": the tokenizer's BOS stands
            in front, is not coded, and the first token is coded given it; an id or a token: the same with that token;
            "uniform": nothing, and log2 of the vocabulary size; "skip": nothing, and the first token is left out.
            "auto" is bos where the tokenizer has one, unless the model codes the samples in clearly fewer bits without:
            a few dozen are asked both ways. Later windows of long samples get the BOS in front by the same evidence.
            Without a BOS it is uniform.
        max_length: inputs a window holds, the context token included; None is the model's limit.
        stride: new tokens of each window after the first, for samples longer than a window; None is max_length // 2.
        batch_size: samples (windows) a forward pass; "auto" fits it to the memory.
        device: None is where the model lies; a GPU if there is one for models loaded here.
        dtype: of the weights of models loaded here; None is the checkpoint's own. Logits are always read in float32.
        revision: of a hub model.
        trust_remote_code: run code that the checkpoint brings.
        text_column: column of a file or data set.
        limit: only the first so many samples.
        on_lossy_text: "raise" on texts that the tokenizer does not give back byte for byte, or "skip" and count them.
        progress: a bar on stderr for what takes longer than a second.
        allow_pickle: load pickled weights, which can run code.

    Returns:
        Code lengths in the order of the samples.

    Raises:
        InputError: samples or options that cannot be used.
        LossyTextError: a text that its tokenizer does not give back.
        ModelError: a model that cannot be loaded or returns no logits; NotCausalError where later tokens move earlier
            logits; ImpossibleTokenError for NaN logits or a coded token of probability 0.

    Warns:
        FirstTokenWarning: what stands in front is likely not what the model was trained with; or "auto" left the BOS.

    Guarantees:
        Each token is coded exactly once. On a CPU in float32, a sample of up to 256 tokens has the same ideal bits
        within 1e-3 and the same coded bits within 0.05 alone, in any batch and in any order. The model comes back as it
        was: mode, device, weights.

    Examples:
        >>> from memorization import UniformModel, compress_bits
        >>> lengths = compress_bits(UniformModel(2048), [list(range(64))])
        >>> lengths.ideal_bits.tolist(), abs(lengths.total_bits - 704) < 0.05
        ([704.0], True)

    Source:
        Morris et al., "How much do language models memorize?", arXiv:2505.24832, section 2.3: H(x | m) = -log2 p_m(x).
    """
    max_length, stride, batch_size = check_windows(max_length, stride, batch_size)
    raw = read_samples(samples, text_column=text_column, limit=limit)
    with open_model(
        model,
        tokenizer=tokenizer,
        device=device,
        dtype=dtype,
        revision=revision,
        trust_remote_code=trust_remote_code,
        allow_pickle=allow_pickle,
        max_length=max_length,
        progress=progress,
    ) as opened:
        return measure_sets(
            opened,
            [raw],
            first_token=first_token,
            max_length=max_length,
            stride=stride,
            batch_size=batch_size,
            on_lossy_text=on_lossy_text,
            progress=progress,
        )[0]


def measure_sets(
    model: OpenModel,
    sets: Sequence[Samples],
    *,
    first_token: str | int,
    max_length: int | None,
    stride: int | None,
    batch_size: int | Literal["auto"],
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
    batch_size: int | Literal["auto"],
    progress: bool | str,
) -> CodeLengths:
    """Code lengths of tokenized samples under an open model: the last step of `compress_bits`.

    The options are those that `check_windows` returns.
    """
    max_length, stride = window_of(max_length, stride, model.max_length)
    windows: dict[str, Any] = {"max_length": max_length, "stride": stride, "batch_size": batch_size}
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
            "largest_batch": batches.largest,
            "batching": batches.batching,
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
    batch_size: int | Literal["auto"],
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
