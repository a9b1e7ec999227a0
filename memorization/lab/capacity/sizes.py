"""What is trained to find a capacity: models of one size, and their data."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch

from memorization.capacity import EXPECTED_BITS_PER_PARAM, PLATEAU_INFORMATION, information_ceiling_bits
from memorization.errors import InputError
from memorization.lab.architectures import ParamCounts
from memorization.lab.builders import Builder, known_builder
from memorization.lab.cells import stackable

__all__ = ["PRECISIONS", "Size", "size_of"]

# Of weights, and of autocast.
PRECISIONS = {
    "float32": (torch.float32, None),
    "bfloat16": (torch.bfloat16, None),
    "autocast": (torch.float32, torch.bfloat16),
}


@dataclass(frozen=True, slots=True)
class Size:
    """One model size: how to build it, and what it is trained on."""

    build: Builder
    identity: str
    params: ParamCounts
    n_samples: tuple[int, ...]
    batch_size: int
    stacked: bool  # whether vmap runs its models


def size_of(
    build: Builder,
    vocab_size: int,
    seq_len: int,
    n_samples: Literal["auto"] | Sequence[int],
    batch_size: Literal["auto"] | int,
    data_multiples: Sequence[int | float],
    device: torch.device,
    dtype: str,
) -> Size:
    """See what a builder makes; choose its data sets and its batch."""
    known = known_builder(build, vocab_size, seq_len)
    params = known.params
    expected = EXPECTED_BITS_PER_PARAM * params.trainable
    sample_bits = seq_len * math.log2(vocab_size)
    if n_samples != "auto" and (not n_samples or min(n_samples) < 1):
        raise InputError(f'n_samples must be "auto" or numbers of at least 1; got {list(n_samples)}.')
    if not data_multiples or min(data_multiples) <= 0:
        raise InputError(f"data_multiples must be above 0, at least one; got {list(data_multiples)}.")
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
            f"better {2 * least} and more{longer}."
        )
    batch = max(1, round(expected / sample_bits / 2)) if batch_size == "auto" else batch_size
    stacked = stackable(build, vocab_size, seq_len, device, *PRECISIONS[dtype])
    return Size(build, known.identity, params, tuple(grid), batch, stacked)
