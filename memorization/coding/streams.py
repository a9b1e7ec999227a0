"""From intervals to the bytes of a stream, and back symbol by symbol: beside `coder.py` what knows constriction.

Two entropy coders are at hand, and a stream is read by the one that wrote it. A range coder is a queue: it writes as it
goes. ANS is a stack: the last interval is encoded first, so that the first one is decoded first.
"""

from collections.abc import Sequence
from typing import Literal

import constriction
import numpy as np
from jaxtyping import Float32, Int64

from memorization.coding.intervals import GRID
from memorization.coding.tables import Interval, NoCodeError

__all__ = ["CODERS", "DEFAULT_CODER", "CoderName", "Reader", "interval_bits", "write"]

CoderName = Literal["range", "ans"]
CODERS: tuple[CoderName, ...] = ("range", "ans")  # by the number that a container holds, less 1
DEFAULT_CODER: CoderName = "range"
_Categorical = constriction.stream.model.Categorical
_FAMILY = _Categorical(perfect=False)
_WORD = np.dtype("<u4")


def interval_bits(intervals: Sequence[Interval]) -> float:
    """Bits that the intervals take: log2 of the grid over each width, summed."""
    widths = np.array([width for _, width in intervals], dtype=np.float64)
    return float(np.log2(GRID / widths).sum())


def write(intervals: Sequence[Interval], coder: CoderName = DEFAULT_CODER) -> bytes:
    """The stream of intervals (left edge and width on the grid of 2^24 cells), in the order in which they are read.

    Guarantees:
        At most 8 bytes more than the intervals' bits, and 0.02 bits an interval. Words are little-endian; zeros at the
        end of the last one are left away.

    Examples:
        >>> len(write([(1, 1 << 23)] * 80))
        12
    """
    weights = _weights(intervals)
    ones = np.ones(len(weights), dtype=np.int32)
    if coder == "range":
        encoder = constriction.stream.queue.RangeEncoder()
        encoder.encode(ones, _FAMILY, weights)
    else:
        encoder = constriction.stream.stack.AnsCoder()
        encoder.encode_reverse(ones, _FAMILY, weights)
    stream: bytes = np.asarray(encoder.get_compressed()).astype(_WORD).tobytes()
    return stream[: max(len(stream.rstrip(b"\0")), len(stream) - 3)]


class Reader:
    """Reads the symbols of a stream that `write` made with the same coder."""

    def __init__(self, stream: bytes, coder: CoderName = DEFAULT_CODER):
        words = np.frombuffer(stream + b"\0" * (-len(stream) % 4), dtype=_WORD).astype(np.uint32)
        if coder == "range":
            self._decoder = constriction.stream.queue.RangeDecoder(words)
        else:
            self._decoder = constriction.stream.stack.AnsCoder(words)

    def read(self, cells: Int64[np.ndarray, " symbol"]) -> int:
        """The next symbol, given how many cells each of them owns, 2^24 - 2 together.

        Raises:
            NoCodeError: a guard was read, which no symbol owns.
        """
        weights = np.zeros(len(cells) + 2, dtype=np.float32)  # constriction adds a cell to each
        weights[1:-1] = cells - 1
        try:
            symbol = int(self._decoder.decode(_Categorical(weights, perfect=False))) - 1
        except AssertionError as error:  # the range coder's word for data that no encoder writes
            raise NoCodeError(str(error)) from error
        if not 0 <= symbol < len(cells):
            raise NoCodeError("a guard was read")
        return symbol

    def is_at_end(self) -> bool:
        """Whether what was read may have been all; a range coder cannot always tell."""
        if isinstance(self._decoder, constriction.stream.stack.AnsCoder):
            return bool(self._decoder.is_empty())
        return bool(self._decoder.maybe_exhausted())


def _weights(intervals: Sequence[Interval]) -> Float32[np.ndarray, "step 3"]:
    """What lies left of an interval, the interval, and what lies right of it: see `memorization.coding.coder`."""
    edges = np.array(intervals, dtype=np.int64).reshape(-1, 2)
    cells = np.stack([edges[:, 0], edges[:, 1], GRID - edges[:, 0] - edges[:, 1]], axis=1)
    if cells.size and cells.min() < 1:
        raise AssertionError(f"an interval leaves the grid: {cells[cells.min(axis=1).argmin()].tolist()}.")
    return (cells - 1).astype(np.float32)
