"""From intervals to code lengths: the only file that knows constriction.

constriction's range coder takes probabilities, not intervals. A family of three symbols - what lies left of the
interval, the interval, what lies right of it - with float32 weights one below each width makes it use exactly that
interval: its own quantisation adds one cell to each of the three, and its scale is then exactly 1. All widths are
integers below 2^24, which float32 holds exactly.
"""

import math
from collections.abc import Sequence

import constriction
import numpy as np
from jaxtyping import Float32, Float64, UInt32

from memorization.coding.intervals import GRID, TokenCode

_WORD_BITS, _STATE_BITS = 32, 64  # of constriction's default range coder
_FAMILY = constriction.stream.model.Categorical(perfect=False)


def coded_bits(codes: Sequence[TokenCode]) -> Float64[np.ndarray, " sample"]:
    """Bits that a range coder spends on each sample, each coded on its own by a fresh coder.

    Args:
        codes: the code of each sample's tokens; every ideal bit count must be finite.

    Returns:
        Bits, float64, to a fraction of a bit: 32 for each word put out, and what the coder's 64-bit range has narrowed
            by since.

    Guarantees:
        Includes the coder's own truncation: at most 0.006 bits a step, 1.3e-4 in the mean, and up to 2 bits where a run
        of near-certain tokens follows a surprising one.
    """
    encoder = constriction.stream.queue.RangeEncoder()
    bits = np.empty(len(codes))
    for i, code in enumerate(codes):
        encoder.clear()
        _encode(encoder, code)
        n_words, (_, width) = encoder.pos()
        bits[i] = _WORD_BITS * n_words + _STATE_BITS - math.log2(width + 1)
    return bits


def encode(code: TokenCode) -> UInt32[np.ndarray, " word"]:
    """The compressed words of one sample, for checking a decoder against; how a file holds them is not decided yet."""
    encoder = constriction.stream.queue.RangeEncoder()
    _encode(encoder, code)
    words: np.ndarray = encoder.get_compressed()
    return words


def _encode(encoder: "constriction.stream.queue.RangeEncoder", code: TokenCode) -> None:
    weights = _weights(code)
    encoder.encode(np.ones(len(weights), dtype=np.int32), _FAMILY, weights)


def _weights(code: TokenCode) -> Float32[np.ndarray, "step 3"]:
    widths = np.stack([code.left, code.frequency, GRID - code.left - code.frequency], axis=1)
    # constriction takes negative weights without a word and then decodes other symbols.
    if widths.size and widths.min() < 1:
        raise AssertionError(f"an interval leaves the grid: {widths[widths.min(axis=1).argmin()].tolist()}.")
    return (widths - 1).astype(np.float32)
