"""What is trained to find a capacity: models of one size, and their data."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch

from memorization.capacity import EXPECTED_BITS_PER_PARAM, PLATEAU_INFORMATION, information_ceiling_bits
from memorization.errors import InputError, ModelError
from memorization.lab.architectures import ParamCounts, count_params
from memorization.lab.builders import Builder, build_seeded, identity_of

__all__ = ["Size", "size_of"]


@dataclass(frozen=True, slots=True)
class Size:
    """One model size: how to build it, and what it is trained on."""

    build: Builder
    identity: str
    params: ParamCounts
    n_samples: tuple[int, ...]
    batch_size: int


def size_of(
    build: Builder,
    vocab_size: int,
    seq_len: int,
    n_samples: Literal["auto"] | Sequence[int],
    batch_size: Literal["auto"] | int,
    data_multiples: Sequence[int | float],
) -> Size:
    """Build a model once to see what it is; choose its data sets and its batch."""
    model = build_seeded(build, vocab_size, seq_len, seed=0)
    params = count_params(model)
    if params.trainable == 0:
        raise ModelError("the builder's model has no trainable parameter, so it can hold nothing")
    with torch.no_grad():
        output = model(torch.zeros(2, seq_len, dtype=torch.int64))
    shape = tuple(getattr(output, "logits", output).shape)
    if shape != (2, seq_len, vocab_size):
        raise ModelError(
            f"the builder's model must map ids of shape (2, {seq_len}) to logits of shape (2, {seq_len}, {vocab_size}); "
            f"their shape is {shape}"
        )
    expected = EXPECTED_BITS_PER_PARAM * params.trainable
    sample_bits = seq_len * math.log2(vocab_size)
    if n_samples != "auto" and (not n_samples or min(n_samples) < 1):
        raise InputError(f'n_samples must be "auto" or numbers of at least 1; got {list(n_samples)}')
    if not data_multiples or min(data_multiples) <= 0:
        raise InputError(f"data_multiples must be above 0, at least one; got {list(data_multiples)}")
    automatic = sorted({max(1, round(multiple * expected / sample_bits)) for multiple in data_multiples})
    grid = automatic if n_samples == "auto" else sorted(set(n_samples))
    held = float(information_ceiling_bits(grid, seq_len, vocab_size).max())
    if held < PLATEAU_INFORMATION * expected:
        least = math.ceil(PLATEAU_INFORMATION * expected / sample_bits)
        # N (b - log2 N) is largest at N = 2^b / e, where it is N log2 e.
        most = 2 ** min(sample_bits, 500.0) / math.e * math.log2(math.e)
        hopeless = "; no number of samples so short will do: take a larger seq_len"
        longer = "" if most >= PLATEAU_INFORMATION * expected else hopeless
        raise InputError(
            f"n_samples={grid} are too few for a plateau: they hold at most {held:,.0f} bits, and {params.trainable:,} "
            f"parameters are expected to hold {expected:,.0f}; the largest set must have more than {least} samples, "
            f"better {2 * least} and more{longer}"
        )
    batch = max(1, round(expected / sample_bits / 2)) if batch_size == "auto" else batch_size
    return Size(build, identity_of(build, model), params, tuple(grid), batch)
