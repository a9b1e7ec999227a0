"""What is trained to find a capacity: models of one size, and their data."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch

from memorization.capacity import EXPECTED_BITS_PER_PARAM, PLATEAU_INFORMATION, information_ceiling_bits
from memorization.errors import InputError
from memorization.integers import check_integer, check_integers
from memorization.lab.architectures import ParamCounts
from memorization.lab.builders import Builder, build_seeded, known_builder
from memorization.lab.cells import stackable
from memorization.lab.compiled import can_compile
from memorization.lab.options import check_positive

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
    compiled: bool  # whether compiled code trains them

    @property
    def expected_bits(self) -> float:
        """What the parameters hold at 3.6 bits each."""
        return EXPECTED_BITS_PER_PARAM * self.params.trainable

    @property
    def n_params(self) -> int:
        """Parameters that are trained: what a size is known by."""
        return self.params.trainable


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
    build, params = known.build, known.params
    expected = EXPECTED_BITS_PER_PARAM * params.trainable
    sample_bits = seq_len * math.log2(vocab_size)
    multiples = [check_positive("each of data_multiples", multiple) for multiple in data_multiples]
    if not multiples:
        raise InputError("data_multiples is empty; give one at least.")
    if isinstance(n_samples, str) and n_samples == "auto":
        grid = sorted({max(1, round(multiple * expected / sample_bits)) for multiple in multiples})
    else:
        grid = sorted(set(check_integers("n_samples", n_samples, at_least=1, different=False, besides='"auto"')))
    held = float(information_ceiling_bits(grid, seq_len, vocab_size).max())
    if held < PLATEAU_INFORMATION * expected:
        least = math.ceil(PLATEAU_INFORMATION * expected / sample_bits)
        # N (b - log2 N) is largest at N = 2^b / e, where it is N log2 e.
        most = 2 ** min(sample_bits, 500.0) / math.e * math.log2(math.e)
        hopeless = "; samples this short can never hold enough: take a larger seq_len"
        larger = ": pass larger n_samples" if n_samples != "auto" else ": pass larger data_multiples"
        remedy = larger if most >= PLATEAU_INFORMATION * expected else hopeless
        raise InputError(
            f"data sets of {' and '.join(map(str, grid))} samples are too few for a plateau: they hold at most "
            f"{held:,.0f} bits, and {params.trainable:,} parameters are expected to hold {expected:,.0f}; the largest "
            f"set must have more than {least:,} samples, better {2 * least:,} and more{remedy}."
        )
    wanted = 1 if batch_size == "auto" else check_integer("batch_size", batch_size, besides='"auto"')
    batch = _batch(expected / sample_bits) if batch_size == "auto" else wanted
    compiled = can_compile(build_seeded(build, vocab_size, seq_len, 0).to(device, PRECISIONS[dtype][0]))
    compiled = compiled and dtype == "float32"
    stacked = not compiled and stackable(build, vocab_size, seq_len, device, *PRECISIONS[dtype])
    return Size(build, known.identity, params, tuple(grid), batch, stacked, compiled)


def _batch(n_filling: float) -> int:
    """A quarter of the set that holds four times the expected capacity; in eights, which is what vectors hold."""
    return 8 * round(n_filling / 8) if n_filling >= 8 else max(1, round(n_filling))
