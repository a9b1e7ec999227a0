"""From intervals to the bytes of a stream, and back symbol by symbol: beside `coder.py` what knows constriction.

Two entropy coders are at hand, and a stream is read by the one that wrote it. A range coder is a queue: it writes as it
goes. ANS is a stack: the last interval is encoded first, so that the first one is decoded first.
"""

from collections.abc import Sequence
from typing import Any, Literal

import constriction
import numpy as np
from jaxtyping import Float32, Int64, UInt32

from memorization.coding.intervals import GRID
from memorization.coding.tables import Interval, NoCodeError

__all__ = ["CODERS", "DEFAULT_CODER", "CoderName", "Reader", "interval_bits", "write"]

CoderName = Literal["range", "ans"]
CODERS: tuple[CoderName, ...] = ("range", "ans")  # by the number that a container holds, less 1
DEFAULT_CODER: CoderName = "range"
_Categorical = constriction.stream.model.Categorical
_FAMILY = _Categorical(perfect=False)
# Of the words of a stream: a range coder's are the digits of a number, of ANS the last one is the highest.
_WORDS = {"range": np.dtype(">u4"), "ans": np.dtype("<u4")}
_MOST_CUT = 7  # bytes that the end of a range coder's stream may do without


def interval_bits(intervals: Sequence[Interval]) -> float:
    """Bits that the intervals take: log2 of the grid over each width, summed."""
    widths = np.array([width for _, width in intervals], dtype=np.float64)
    return float(np.log2(GRID / widths).sum())


def write(intervals: Sequence[Interval], coder: CoderName = DEFAULT_CODER) -> bytes:
    """The stream of intervals (left edge and width on the grid of 2^24 cells), in the order in which they are read.

    Guarantees:
        A range coder takes at most 8 bits more than `interval_bits`, and 0.006 bits an interval (1.3e-4 in the mean);
            ANS
        at most 32 bits more. A stream does not say where it ends, and can be read on.

    Examples:
        >>> len(write([(1 << 22, 1 << 23)] * 80)) <= 11  # 80 bits
        True
    """
    weights = _weights(intervals)
    ones = np.ones(len(weights), dtype=np.int32)
    if coder == "range":
        encoder = constriction.stream.queue.RangeEncoder()
        encoder.encode(ones, _FAMILY, weights)
        return _shortest(_bytes_of(encoder, coder), weights)
    stack = constriction.stream.stack.AnsCoder()
    stack.encode_reverse(ones, _FAMILY, weights)
    stream = _bytes_of(stack, coder)
    return stream[: max(len(stream.rstrip(b"\0")), len(stream) - 3)]


def _bytes_of(encoder: Any, coder: CoderName) -> bytes:
    found: bytes = np.asarray(encoder.get_compressed()).astype(_WORDS[coder]).tobytes()
    return found


def _words_of(stream: bytes, coder: CoderName) -> UInt32[np.ndarray, " word"]:
    return np.frombuffer(stream + b"\0" * (-len(stream) % 4), dtype=_WORDS[coder]).astype(np.uint32)


def _shortest(stream: bytes, weights: Float32[np.ndarray, "step 3"]) -> bytes:
    """The fewest bytes that, with zeros behind them, still lie in the last interval: the coder ends with a whole word.

    Each is tried by decoding.
    """
    found = stream
    for n in range(len(stream) - 1, max(len(stream) - 1 - _MOST_CUT, -1), -1):
        below = int.from_bytes(stream[:n], "big")
        for number in (below, below + 1):
            if number < 1 << 8 * n and _decodes(number.to_bytes(n, "big"), weights):
                found = number.to_bytes(n, "big")
    return found


def _decodes(stream: bytes, weights: Float32[np.ndarray, "step 3"]) -> bool:
    decoder = constriction.stream.queue.RangeDecoder(_words_of(stream, "range"))
    try:
        return bool((decoder.decode(_FAMILY, weights) == 1).all())
    except AssertionError:  # its word for data that no encoder writes
        return False


class Reader:
    """Reads the symbols of a stream that `write` made with the same coder."""

    def __init__(self, stream: bytes, coder: CoderName = DEFAULT_CODER):
        words = _words_of(stream, coder)
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


def _weights(intervals: Sequence[Interval]) -> Float32[np.ndarray, "step 3"]:
    """What lies left of an interval, the interval, and what lies right of it: see `memorization.coding.coder`."""
    edges = np.array(intervals, dtype=np.int64).reshape(-1, 2)
    cells = np.stack([edges[:, 0], edges[:, 1], GRID - edges[:, 0] - edges[:, 1]], axis=1)
    if cells.size and cells.min() < 1:
        raise AssertionError(f"an interval leaves the grid: {cells[cells.min(axis=1).argmin()].tolist()}.")
    return (cells - 1).astype(np.float32)
