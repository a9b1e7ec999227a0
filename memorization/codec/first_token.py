"""What stands in front of each sample: a compressor may try, and writes down what it took."""

import math
from typing import Any

import numpy as np
import torch

from memorization.codec.parts import Part
from memorization.coding.intervals import code_tokens
from memorization.errors import InputError
from memorization.measure.context import resolve_first_token
from memorization.measure.opening import OpenModel

__all__ = ["context_of"]

_SAMPLES_TRIED, _TOKENS_TRIED = 2, 32
# What separates documents in the training of GPT-2 and of many after it, also where a chat model names others as its
# BOS and EOS: in front of 140 bytes of prose SmolLM2's BOS costs 30 bits more.
_SEPARATOR = "<|endoftext|>"


def context_of(asked: str | int, model: OpenModel, parts: list[Part], max_length: int | None) -> int | None:
    """Id of the token in front of each sample; None: nothing, and the first token costs log2 of the vocabulary size.

    Raises:
        InputError: a rule that cannot be decoded, or a token that the model does not have.
    """
    if asked == "skip":
        raise InputError('first_token="skip" leaves the first token out, and it could not be decoded. Pass "uniform".')
    if asked == "auto":
        return _cheapest(model, parts, max_length)
    context = resolve_first_token(asked, model.tokenizer).context
    if context is not None and not 0 <= context < model.vocab_size:
        raise InputError(f"the context token has id {context}, outside the model's vocabulary [0, {model.vocab_size}).")
    return context


def _cheapest(model: OpenModel, parts: list[Part], max_length: int | None) -> int | None:
    """Of the BOS, the EOS, the separator and nothing, what codes the beginnings of the first samples in fewest bits."""
    candidates = _candidates(model.tokenizer, model.vocab_size)
    n_most = _TOKENS_TRIED if max_length is None else min(_TOKENS_TRIED, max_length)
    tried = [part.ids[:n_most] for part in parts if part.ids and part.ids[0] not in candidates][:_SAMPLES_TRIED]
    if not candidates or not tried:
        return candidates[0] if candidates else None
    bits = {context: sum(_bits(model, context, ids) for ids in tried) for context in [*candidates, None]}
    return min(bits, key=lambda context: bits[context])


def _candidates(tokenizer: Any, vocab_size: int) -> list[int]:
    separator = tokenizer.get_vocab().get(_SEPARATOR) if tokenizer is not None else None
    ids = [getattr(tokenizer, "bos_token_id", None), getattr(tokenizer, "eos_token_id", None), separator]
    return list(dict.fromkeys(token for token in ids if isinstance(token, int) and 0 <= token < vocab_size))


@torch.no_grad()
def _bits(model: OpenModel, context: int | None, ids: list[int]) -> float:
    """Ideal bits of a beginning after a context token or nothing; infinite where the model says no number."""
    read, coded = ([*ids[:-1]], ids[1:]) if context is None else ([context, *ids[:-1]], ids)
    first = math.log2(model.vocab_size) if context is None else 0.0
    if not coded:
        return first
    logits = model.logits(torch.tensor([read], device=model.device))[0]
    found = code_tokens(logits, torch.arange(len(coded)), torch.tensor(coded)).ideal_bits.sum()
    return first + (float(found) if np.isfinite(found) else math.inf)
