"""From intervals to code lengths: the only file that knows constriction.

constriction's coder takes probabilities, not intervals. A family of three symbols - what lies left of the interval, the
interval, what lies right of it - with float32 weights one below each width makes it use exactly that interval: its own
quantisation adds one cell to each of the three, and its scale is then exactly 1. All widths are integers below 2^24,
which float32 holds exactly.

The coder is range asymmetric numeral systems: a stack, so what is put in last comes out first, and samples are put in
backwards.
"""

import math
from collections.abc import Sequence

import constriction
import numpy as np
from jaxtyping import Float32, Float64, UInt32

from memorization.coding.intervals import GRID, TokenCode

_WORD_BITS = 32  # of constriction's default coder
_FAMILY = constriction.stream.model.Categorical(perfect=False)
# What a coder begins with: a state of 2^32, the least that a full one has. Into an empty one, whose state is 0, a
# symbol of any probability goes for as good as nothing.
_BEGIN = np.array([0, 1], dtype=np.uint32)
_BEGIN_BITS = 32


def coded_bits(codes: Sequence[TokenCode]) -> Float64[np.ndarray, " sample"]:
    """Bits that the coder spends on each sample, each coded on its own by a fresh coder.

    Args:
        codes: the code of each sample's tokens; every ideal bit count must be finite.

    Returns:
        Bits, float64, to a fraction of a bit: 32 for each word put out, and what the coder's 64-bit state has grown by
            since.

    Guarantees:
        Includes the coder's own rounding, which is below 0.01 bits for any sample.
    """
    bits = np.empty(len(codes))
    for i, code in enumerate(codes):
        n_words, state = _coder(code).pos()
        bits[i] = _WORD_BITS * n_words + math.log2(state) - _BEGIN_BITS
    return bits


def encode(code: TokenCode) -> UInt32[np.ndarray, " word"]:
    """The compressed words of one sample: the ones that its bits fill, and one for what the coder begins with."""
    words: np.ndarray = _coder(code).get_compressed()
    return words


def _coder(code: TokenCode) -> "constriction.stream.stack.AnsCoder":
    coder = constriction.stream.stack.AnsCoder(_BEGIN)
    weights = _weights(code)
    coder.encode_reverse(np.ones(len(weights), dtype=np.int32), _FAMILY, weights)
    return coder


def _weights(code: TokenCode) -> Float32[np.ndarray, "step 3"]:
    right = GRID - code.left - code.frequency
    widths = np.empty((len(right), 3), dtype=np.float32)  # which holds integers below 2^24 exactly
    widths[:, 0], widths[:, 1], widths[:, 2] = code.left, code.frequency, right
    # constriction takes negative weights without a word and then decodes other symbols.
    if widths.size and widths.min() < 1:
        raise AssertionError(
            f"an interval leaves the grid: {widths[widths.min(axis=1).argmin()].astype(int).tolist()}."
        )
    widths -= 1
    return widths
