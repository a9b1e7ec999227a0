"""One row of logits as integer tables: what an encoder and a decoder need that see one token at a time.

The code is that of `memorization.coding.intervals`, which the documentation describes: two stages on a grid of 2^24
cells, and refinements of what is unlikely. There only the interval of a token that is known is made, for many tokens at
once and in float32; here all of a stage's cells are, in float64, since a decoder learns the token from them.
"""

import math
from collections.abc import Callable

import numpy as np
from jaxtyping import Float, Float64, Int64
from torch import Tensor

from memorization.coding.intervals import BITS_PER_REFINEMENT, GRID, GRID_BITS, MOST_BITS, REFINE_BELOW, bucket_width
from memorization.errors import ImpossibleTokenError

__all__ = ["Interval", "NoCodeError", "Tables"]

Interval = tuple[int, int]  # left edge and width, in cells
_LN2 = math.log(2.0)


class NoCodeError(ArithmeticError):
    """A token of probability 0 has no interval; or what was read no encoder writes."""


class Tables:
    """The cells of the buckets and, once a bucket is known, of the places in it.

    A pure function of the row: float64 on the CPU, by numpy, on one thread. Equal rows give equal tables.

    Args:
        logits: one row, of any floating dtype and on any device.

    Raises:
        ImpossibleTokenError: a logit is NaN or +inf, or all are -inf.
    """

    def __init__(self, logits: Float[Tensor, " vocab"]):
        row = logits.detach().cpu().double().numpy()
        self.vocab_size, self.width = len(row), bucket_width(len(row))
        largest = float(row.max())
        if not math.isfinite(largest):
            raise ImpossibleTokenError(f"the largest of a row of logits is {largest}: they give no probabilities.")
        whole = np.full(-(-len(row) // self.width) * self.width, -math.inf)
        whole[: len(row)] = row - largest
        self._inside: Float64[np.ndarray, "bucket place"] = whole.reshape(-1, self.width)
        masses = np.exp(self._inside).sum(axis=1)
        self._cells = _cells(masses)
        self._log2_total = math.log2(masses.sum())

    def intervals(self, token: int) -> list[Interval]:
        """The intervals that code a token, in order.

        Raises:
            NoCodeError: it has probability 0, or costs more than 65,536 bits, which masks amount to.
        """
        if not 0 <= token < self.vocab_size:
            raise NoCodeError(f"token {token} of {self.vocab_size}")
        bucket, place = divmod(token, self.width)
        log2_p, places = self._bucket(bucket), self._places(bucket)
        log2_p_place = places.log2_p(place)
        if not -(log2_p + log2_p_place) <= MOST_BITS:
            raise NoCodeError(f"token {token} has probability 0")
        found = [_interval(self._cells, bucket)]
        found += [(1, width) for width in _refinements(int(self._cells[bucket]), log2_p)]
        found.append(_interval(places.cells, place))
        return found + [(1, width) for width in _refinements(int(places.cells[place]), log2_p_place)]

    def token(self, read: Callable[[Int64[np.ndarray, " symbol"]], int]) -> int:
        """The token that comes next, by a function that reads the next symbol of a stream, given the cells of each.

        Raises:
            NoCodeError: no encoder writes what was read.
        """
        bucket = read(self._cells)
        log2_p = self._bucket(bucket)
        _read_refinements(read, int(self._cells[bucket]), log2_p)
        places = self._places(bucket)
        place = read(places.cells)
        _read_refinements(read, int(places.cells[place]), places.log2_p(place))
        return bucket * self.width + place

    def _places(self, bucket: int) -> "_Places":
        first = bucket * self.width
        return _Places(self._inside[bucket][: min(self.width, self.vocab_size - first)])

    def _bucket(self, bucket: int) -> float:
        """log2 p of a bucket, from its logits: its mass may underflow."""
        inside = self._inside[bucket]
        largest = float(inside.max())
        if largest == -math.inf:
            raise NoCodeError(f"bucket {bucket} has probability 0")
        return largest / _LN2 + math.log2(np.exp(inside - largest).sum()) - self._log2_total


class _Places:
    """The cells of the tokens in one bucket."""

    def __init__(self, inside: Float64[np.ndarray, " place"]):
        self._shifted = inside - inside.max()
        weights = np.exp(self._shifted)
        self.cells = _cells(weights)
        self._log2_total = math.log2(weights.sum())

    def log2_p(self, place: int) -> float:
        """Of a place, given the bucket."""
        return float(self._shifted[place]) / _LN2 - self._log2_total


def _cells(weights: Float64[np.ndarray, " symbol"]) -> Int64[np.ndarray, " symbol"]:
    """How many cells each symbol of a stage owns: at least 1, and 2^24 - 2 together."""
    cells = np.floor(weights * ((GRID - 2 - len(weights)) / weights.sum())).astype(np.int64) + 1
    slack = int(GRID - 2 - cells.sum())
    largest = int(weights.argmax())
    if cells[largest] > GRID // 2:
        cells[largest] += slack
    else:
        cells[:slack] += 1
    return cells


def _interval(cells: Int64[np.ndarray, " symbol"], symbol: int) -> Interval:
    return 1 + int(cells[:symbol].sum()), int(cells[symbol])


def _refinements(cells: int, log2_p: float) -> list[int]:
    """Widths of the intervals, each from cell 1 on, that follow a symbol of few cells: together they correct its price.

    Raises:
        NoCodeError: the symbol has probability 0.
    """
    if cells >= REFINE_BELOW:
        return []
    log2_r = min(0.0, log2_p + GRID_BITS - math.log2(cells))
    if -log2_r > 2 * MOST_BITS:
        raise NoCodeError("a symbol has probability 0")
    n = math.ceil(-log2_r / BITS_PER_REFINEMENT)
    return [min(max(round(2 ** (log2_r / max(n, 1)) * GRID), 1), GRID - 2)] * n


def _read_refinements(read: Callable[[Int64[np.ndarray, " symbol"]], int], cells: int, log2_p: float) -> None:
    for width in _refinements(cells, log2_p):
        if read(np.array([width, GRID - 2 - width])) != 0:
            raise NoCodeError("empty cells were read")
