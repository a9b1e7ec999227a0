"""Slow and independent: ideal bits in float64, and a decoder that knows only the words, the logits and the documented rule.

Nothing here comes from the library. The rule is the one that the docstring of memorization/coding/intervals.py states.

One thing cannot be independent: a decoder needs the encoder's probabilities to the last bit. So the masses of buckets
and the weights of places are made with the same torch functions, exp and sum, in float32 over the vocabulary and in
float64 inside a bucket. What is built on them - the integer tables, which symbols are refined, how often and how far -
is written anew, in numpy.
"""

import math
from collections.abc import Sequence
from decimal import Decimal, localcontext

import constriction
import numpy as np
import torch
from jaxtyping import Float, Float32, Float64, Int, Int64, UInt32

GRID = 2**24
LN2 = math.log(2.0)


class Corruption(Exception):
    """The words are not what an encoder writes under these logits."""


def ideal_bits(
    logits: Float[np.ndarray, "token vocab"], ids: Int[np.ndarray, " token"]
) -> Float64[np.ndarray, " token"]:
    """-log2 p of each token under its row of logits: log2(1 + sum over the others of exp(l_i - l_x)), in float64.

    The form keeps tokens of any smallness exact: p itself never occurs, so nothing is subtracted from 1.
    """
    nats = np.empty(len(ids))
    for token, (row, own) in enumerate(zip(logits, ids, strict=True)):
        gaps = np.delete(row, own).astype(np.float64) - np.float64(row[own])
        largest = gaps.max(initial=-math.inf)
        if largest <= 0:
            nats[token] = math.log1p(np.exp(gaps).sum())
        else:
            nats[token] = largest + math.log(math.exp(-largest) + np.exp(gaps - largest).sum())
    return nats / LN2


def exact_bits(logits: Sequence[float], own: int) -> Decimal:
    """-log2 p of one token to some 50 digits, from the definition."""
    with localcontext() as context:
        context.prec = 60
        weights = [Decimal(logit).exp() for logit in logits]
        return (sum(weights, Decimal(0)) / weights[own]).ln() / Decimal(2).ln()


def plant(row: Float64[np.ndarray, " vocab"], own: int, bits: float) -> Float32[np.ndarray, " vocab"]:
    """The row with one logit set so that its token has `bits` ideal bits, up to the rounding of that logit to float32."""
    others = np.delete(row.astype(np.float32).astype(np.float64), own)
    largest = others.max()
    log_sum = largest + math.log(np.exp(others - largest).sum())
    planted = row.astype(np.float32)
    # p = 2^-bits means that the others have exp(own) * (2^bits - 1) together.
    planted[own] = log_sum - bits * LN2 - math.log(-math.expm1(-bits * LN2))
    return planted


def frequencies(weights: Float64[np.ndarray, " symbol"]) -> Int64[np.ndarray, " symbol"]:
    """Cells of each symbol of a stage: floor(weight * (free / total)) + 1, the slack to one that has over half, or one each."""
    free = GRID - 2 - len(weights)
    cells = np.floor(weights * (free / weights.sum())).astype(np.int64) + 1
    slack = GRID - 2 - cells.sum()
    if cells.max() > GRID // 2:
        cells[np.argmax(cells)] += slack
    else:
        cells[:slack] += 1
    return cells


class RowTables:
    """The tables that one row of logits gives: of its buckets and, made when asked for, of the places in each."""

    def __init__(self, row: Float32[np.ndarray, " vocab"]) -> None:
        self.width = math.ceil(math.sqrt(len(row)))
        self.row = row
        self.row_max = float(row.max())
        exps = (torch.from_numpy(row) - self.row_max).exp()
        masses = np.array([float(part.sum()) for part in exps.split(self.width)])
        self.log2_mass = math.log2(masses.sum())
        self.buckets = frequencies(masses)
        self.bucket_model = _guarded(self.buckets)
        self._places: dict[int, PlaceTable] = {}

    def places(self, bucket: int) -> "PlaceTable":
        if bucket not in self._places:
            self._places[bucket] = PlaceTable(self.row[bucket * self.width : (bucket + 1) * self.width])
        return self._places[bucket]

    def log2_p_bucket(self, bucket: int) -> float:
        """From the logits in the bucket, since its float32 mass is 0 from 104 nats below the row's maximum."""
        places = self.places(bucket)
        return (places.largest - self.row_max) / LN2 + places.log2_mass - self.log2_mass


class PlaceTable:
    """The table of the places in one bucket."""

    def __init__(self, logits: Float32[np.ndarray, " place"]) -> None:
        self.logits = logits.astype(np.float64)
        self.largest = float(self.logits.max())
        if self.largest == -math.inf:
            raise Corruption("a bucket of impossible tokens was read")
        weights = (torch.from_numpy(self.logits) - self.largest).exp().numpy()
        self.log2_mass = math.log2(weights.sum())
        self.frequencies = frequencies(weights)
        self.model = _guarded(self.frequencies)

    def log2_p(self, place: int) -> float:
        """Of a place, given the bucket."""
        return (float(self.logits[place]) - self.largest) / LN2 - self.log2_mass


def decode(
    words: UInt32[np.ndarray, " word"], logits: Float32[np.ndarray, "row vocab"], rows: Sequence[int]
) -> list[int]:
    """The tokens in compressed words, the i-th of them coded under the softmax of logits[rows[i]].

    Raises:
        Corruption: a guard, the empty part of a refinement or an impossible token was read, or words are left over.
    """
    decoder = constriction.stream.stack.AnsCoder(words)
    made: dict[int, RowTables] = {}
    tokens = []
    for i in rows:
        if i not in made:
            made[i] = RowTables(logits[i])
        tables = made[i]
        bucket = _read(decoder, tables.bucket_model, len(tables.buckets))
        _read_refinements(decoder, int(tables.buckets[bucket]), tables.log2_p_bucket(bucket))
        places = tables.places(bucket)
        place = _read(decoder, places.model, len(places.frequencies))
        _read_refinements(decoder, int(places.frequencies[place]), places.log2_p(place))
        tokens.append(bucket * tables.width + place)
    if decoder.get_compressed().tolist() != [0, 1]:
        raise Corruption("something else is left than what a coder begins with")
    return tokens


def _model(table: Int64[np.ndarray, " symbol"]) -> constriction.stream.model.Categorical:
    """An entropy model of exactly these cells. constriction adds one cell to each weight, so one is taken off before."""
    assert table.sum() == GRID
    assert table.min() >= 1
    return constriction.stream.model.Categorical((table - 1).astype(np.float32), perfect=False)


def _guarded(cells: Int64[np.ndarray, " symbol"]) -> constriction.stream.model.Categorical:
    return _model(np.concatenate([[1], cells, [1]]))


def _read(
    decoder: constriction.stream.stack.AnsCoder, model: constriction.stream.model.Categorical, n_symbols: int
) -> int:
    """The next symbol, counted from the first one after the guard."""
    try:
        symbol = int(decoder.decode(model)) - 1
    except AssertionError as error:  # constriction's own check: the words lie outside of every interval
        raise Corruption(str(error)) from error
    if not 0 <= symbol < n_symbols:
        raise Corruption("cells were read that no symbol owns")
    return symbol


def _read_refinements(decoder: constriction.stream.stack.AnsCoder, frequency: int, log2_p: float) -> None:
    """After a frequency below 2^12: intervals of at least 2^-12, all alike, which together have p * 2^24 / frequency."""
    if frequency >= 2**12:
        return
    if log2_p == -math.inf:
        raise Corruption("an impossible token was read")
    log2_r = min(0.0, log2_p + 24 - math.log2(frequency))
    n_refinements = math.ceil(-log2_r / 12)
    for _ in range(n_refinements):
        cells = min(max(round(2 ** (log2_r / n_refinements) * GRID), 1), GRID - 2)
        # The guard, the refinement, and all the rest, which is empty.
        _read(decoder, _model(np.array([1, cells, GRID - 1 - cells])), 1)
