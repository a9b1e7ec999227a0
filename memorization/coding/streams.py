"""From intervals to the bytes of a stream, and back symbol by symbol: beside `coder.py` what knows constriction.

The coder is the one that measures: a stack, into which the last interval goes first, so that the first comes out first.
"""

from collections.abc import Sequence

import constriction
import numpy as np
from jaxtyping import Float32, Int64

from memorization.coding.intervals import GRID
from memorization.coding.tables import Interval, NoCodeError

__all__ = ["Reader", "interval_bits", "write"]

_Categorical = constriction.stream.model.Categorical
_FAMILY = _Categorical(perfect=False)
_WORD = np.dtype("<u4")  # the last word of a stream is the highest of the coder's state


def interval_bits(intervals: Sequence[Interval]) -> float:
    """Bits that the intervals take: log2 of the grid over each width, summed."""
    widths = np.array([width for _, width in intervals], dtype=np.float64)
    return float(np.log2(GRID / widths).sum())


def write(intervals: Sequence[Interval]) -> bytes:
    """The stream of intervals (left edge and width on the grid of 2^24 cells), in the order in which they are read.

    Guarantees:
        At most 32 bits more than `interval_bits`. A stream does not say where it ends, and can be read on.

    Examples:
        >>> len(write([(1 << 22, 1 << 23)] * 80)) <= 14  # 80 bits
        True
    """
    weights = _weights(intervals)
    stack = constriction.stream.stack.AnsCoder()
    stack.encode_reverse(np.ones(len(weights), dtype=np.int32), _FAMILY, weights)
    stream: bytes = np.asarray(stack.get_compressed()).astype(_WORD).tobytes()
    return stream[: max(len(stream.rstrip(b"\0")), len(stream) - 3)]


class Reader:
    """Reads the symbols of a stream that `write` made."""

    def __init__(self, stream: bytes):
        words = np.frombuffer(stream + b"\0" * (-len(stream) % 4), dtype=_WORD).astype(np.uint32)
        self._decoder = constriction.stream.stack.AnsCoder(words)

    def read(self, cells: Int64[np.ndarray, " symbol"]) -> int:
        """The next symbol, given how many cells each of them owns, 2^24 - 2 together.

        Raises:
            NoCodeError: a guard was read, which no symbol owns.
        """
        weights = np.zeros(len(cells) + 2, dtype=np.float32)  # constriction adds a cell to each
        weights[1:-1] = cells - 1
        symbol = int(self._decoder.decode(_Categorical(weights, perfect=False))) - 1
        if not 0 <= symbol < len(cells):
            raise NoCodeError("a guard was read")
        return symbol


def _weights(intervals: Sequence[Interval]) -> Float32[np.ndarray, "step 3"]:
    """What lies left of an interval, the interval, and what lies right of it: see `memorization.coding.coder`."""
    edges = np.array(intervals, dtype=np.int64).reshape(-1, 2)
    cells = np.stack([edges[:, 0], edges[:, 1], GRID - edges[:, 0] - edges[:, 1]], axis=1)
    if cells.size and cells.min() < 1:
        raise AssertionError(f"an interval leaves the grid: {cells[cells.min(axis=1).argmin()].tolist()}.")
    return (cells - 1).astype(np.float32)
