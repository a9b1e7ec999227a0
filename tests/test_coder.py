"""Intervals to coded bits and to words: as long as the ideal bits say, and every stream decodes."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import constriction
import numpy as np
import pytest
import reference
import torch
from numpy.testing import assert_allclose, assert_array_equal

from memorization.coding.coder import _weights, coded_bits, encode
from memorization.coding.intervals import GRID, TokenCode, code_tokens

VOCAB_SIZES = [2, 256, 2048, 50_257, 151_936, 262_144]
LENGTHS = [1, 2, 15, 64, 256]


@dataclass
class Sample:
    """Tokens, each with the row of logits that predicts it."""

    logits: np.ndarray
    rows: np.ndarray
    ids: np.ndarray

    def __post_init__(self) -> None:
        logits = torch.from_numpy(self.logits)
        self.code = code_tokens(logits, torch.from_numpy(self.rows), torch.from_numpy(self.ids))

    def ideal_bits(self) -> np.ndarray:
        """Of each token, from the reference, which is asked once for tokens that repeat."""
        asked, which = np.unique(np.stack([self.rows, self.ids]), axis=1, return_inverse=True)
        return reference.ideal_bits(self.logits[asked[0]], asked[1])[which.ravel()]

    def decodes(self) -> bool:
        return reference.decode(encode(self.code), self.logits, self.rows.tolist()) == self.ids.tolist()


def random_rows(rng: np.random.Generator, kind: str, n_rows: int, vocab_size: int) -> np.ndarray:
    noise = rng.standard_normal((n_rows, vocab_size))
    if kind == "flat":
        return (0.01 * noise).astype(np.float32)
    if kind == "realistic":  # Zipf's law, with each context's own preferences
        return (2 * noise - np.log(1 + rng.permuted(np.tile(np.arange(vocab_size), (n_rows, 1)), axis=1))).astype(
            np.float32
        )
    if kind == "peaked":
        noise[np.arange(n_rows), rng.integers(0, vocab_size, n_rows)] += rng.uniform(15, 40, n_rows)
    return noise.astype(np.float32)


def drawn_sample(rng: np.random.Generator, kind: str, vocab_size: int, n_tokens: int) -> Sample:
    """Tokens drawn from the model's own probabilities."""
    logits = random_rows(rng, kind, 3, vocab_size)
    p = np.exp(logits - logits.max(axis=1, keepdims=True), dtype=np.float64).cumsum(axis=1)
    rows = rng.integers(0, 3, n_tokens)
    ids = np.array([np.searchsorted(p[row], rng.uniform(0, p[row, -1])) for row in rows])
    return Sample(logits, rows, ids)


def planted_rows(rng: np.random.Generator, vocab_size: int, bits: Sequence[float]) -> tuple[np.ndarray, np.ndarray]:
    """For each number of bits a row of logits and the token that costs so many. The first and the last token are among them."""
    ids = rng.integers(0, vocab_size, len(bits))
    ids[:2] = [0, vocab_size - 1]
    noise = rng.standard_normal((len(bits), vocab_size))
    return np.stack([reference.plant(row, own, b) for row, own, b in zip(noise, ids, bits, strict=True)]), ids


def planted_sample(rng: np.random.Generator, bits: float, vocab_size: int, n_tokens: int) -> Sample:
    logits, ids = planted_rows(rng, vocab_size, [bits] * 3)
    rows = rng.integers(0, 3, n_tokens)
    return Sample(logits, rows, ids[rows])


# --- coded against ideal --------------------------------------------------------------------------------------------------------------


def tolerance(ideal_bits: float, n_tokens: int) -> float:
    return 1e-3 * ideal_bits + 0.1 + 1e-4 * n_tokens


def test_sixty_four_uniform_tokens_of_2048_are_coded_in_704_bits():
    rng = np.random.default_rng(0)
    sample = Sample(np.zeros((1, 2048), np.float32), np.zeros(64, np.int64), rng.integers(0, 2048, 64))
    assert sample.code.ideal_bits.sum() == 704.0
    assert abs(coded_bits([sample.code])[0] - 704) < 0.05
    assert sample.decodes()


@pytest.mark.parametrize(
    "vocab_size", [1, 2, 3, 4, 5, 6, 7, 46 * 46 - 1, 46 * 46, 46 * 46 + 1, 46 * 46 + 46, 46 * 46 + 47]
)
@pytest.mark.parametrize("spread", [0.0, 3.0, 30.0])
def test_every_layout_of_buckets_is_coded_and_decodes(vocab_size, spread):
    """Whole buckets, a last one of one token, a last one that lacks one; every token of it, or 200 with both ends."""
    rng = np.random.default_rng(vocab_size)
    logits = (spread * rng.standard_normal((2, vocab_size))).astype(np.float32)
    ids = np.concatenate([[0, vocab_size - 1], rng.choice(vocab_size, min(vocab_size, 198), replace=False)])
    sample = Sample(logits, rng.integers(0, 2, len(ids)), ids)
    ideal = sample.ideal_bits().sum()
    assert abs(coded_bits([sample.code])[0] - ideal) <= tolerance(ideal, len(ids))
    assert sample.decodes()


@pytest.mark.parametrize("kind", ["flat", "realistic", "peaked", 1e-5, 20.0, 30.0, 60.0])
@pytest.mark.parametrize("vocab_size", VOCAB_SIZES)
def test_coded_bits_are_the_ideal_bits(vocab_size, kind):
    rng = np.random.default_rng(vocab_size)
    draw = drawn_sample if isinstance(kind, str) else planted_sample
    for n_tokens in LENGTHS:
        sample = draw(rng, kind, vocab_size, n_tokens)
        token_bits = sample.ideal_bits()
        if not isinstance(kind, str):
            assert_allclose(token_bits, kind, rtol=1e-4)
        ideal = token_bits.sum()
        assert abs(sample.code.ideal_bits.sum() - ideal) <= 1e-6 * ideal
        assert abs(coded_bits([sample.code])[0] - ideal) <= tolerance(ideal, n_tokens)
        assert sample.decodes()


@pytest.mark.parametrize("vocab_size", [50_257, 151_936, 262_144])
def test_no_token_of_a_flat_distribution_is_favoured(vocab_size):
    """A sample of one token over and over, at either end of buckets: what rounding does to it adds up."""
    width = math.isqrt(vocab_size - 1) + 1
    for own in (0, width - 1, width, vocab_size - 1):
        sample = Sample(np.zeros((1, vocab_size), np.float32), np.zeros(256, np.int64), np.full(256, own))
        assert sample.decodes()
        assert abs(coded_bits([sample.code])[0] - 256 * math.log2(vocab_size)) <= 0.1 + 1e-4 * 256


@pytest.mark.parametrize("bits", [12.0, 15.9, 16.1, 24.0, 36.0, 48.1, 100.0, 150.0, 200.0, 1000.0])
@pytest.mark.parametrize("rivals_in", ["the same bucket", "another bucket"])
def test_improbable_tokens_are_charged_in_full_at_either_stage(bits, rivals_in):
    """Either side of where refinements begin and are split, and where the bucket's mass is 0 in float32."""
    rng = np.random.default_rng(int(bits))
    row = rng.standard_normal(2048)
    own, in_bucket = 7 * 46 + 3, np.arange(2048) // 46 == 7
    row[~in_bucket if rivals_in == "the same bucket" else in_bucket] -= 900
    sample = Sample(reference.plant(row, own, bits)[None], np.zeros(32, np.int64), np.full(32, own))
    ideal = sample.ideal_bits().sum()
    assert_allclose(ideal, 32 * bits, rtol=1e-4)
    assert abs(coded_bits([sample.code])[0] - ideal) <= 1e-4 * ideal + 0.05
    assert sample.decodes()


@pytest.mark.parametrize("masked", ["half of every bucket", "whole buckets"])
def test_impossible_rivals_cost_nothing_and_decode(masked):
    rng = np.random.default_rng(5)
    logits = (3 * rng.standard_normal((2, 2500))).astype(np.float32)
    allowed = np.arange(2500) % 2 == 0 if masked == "half of every bucket" else np.arange(2500) // 50 % 2 == 0
    logits[:, ~allowed] = -np.inf
    sample = Sample(logits, rng.integers(0, 2, 64), rng.choice(np.flatnonzero(allowed), 64))
    ideal = sample.ideal_bits().sum()
    assert abs(coded_bits([sample.code])[0] - ideal) <= tolerance(ideal, 64)
    assert sample.decodes()


def test_a_bfloat16_model_is_decoded_from_its_own_logits():
    rng = np.random.default_rng(6)
    logits = torch.from_numpy(random_rows(rng, "realistic", 4, 2048)).bfloat16()
    rows, ids = rng.integers(0, 4, 64), rng.integers(0, 2048, 64)
    code = code_tokens(logits, torch.from_numpy(rows), torch.from_numpy(ids))
    upcast = logits.float().numpy()
    ideal = reference.ideal_bits(upcast[rows], ids).sum()
    assert abs(coded_bits([code])[0] - ideal) <= tolerance(ideal, 64)
    assert reference.decode(encode(code), upcast, rows.tolist()) == ids.tolist()


# --- the coder's own rounding -------------------------------------------------------------------------------------------------------


def test_rounding_of_mixtures_is_bounded():
    """A few surprising tokens and many near-certain ones: in a range coder truncation costs up to 1.3 bits there."""
    rng = np.random.default_rng(7)
    over_ideal, over_intervals, of_a_range_coder = [], [], []
    for vocab_size in (256, 2048, 50_257):
        surprising, certain = rng.uniform(8, 60, 12), 10 ** rng.uniform(-7, -2, 12)
        logits, ids = planted_rows(rng, vocab_size, [*surprising, *certain])
        tokens = Sample(logits, np.arange(24), ids).code.split([1] * 24)
        for _ in range(130):
            rows = np.concatenate(
                [rng.integers(0, 12, rng.integers(1, 9)), rng.integers(12, 24, rng.integers(63, 256))]
            )
            code = TokenCode.concatenate([tokens[row] for row in rows])
            coded = coded_bits([code])[0]
            over_ideal.append(coded - code.ideal_bits.sum())
            over_intervals.append(coded - (24 - np.log2(code.frequency)).sum())
            of_a_range_coder.append(bits_of_a_range_coder(code) - (24 - np.log2(code.frequency)).sum())
            assert reference.decode(encode(code), logits, rows.tolist()) == ids[rows].tolist()
    found = {
        "coded over ideal bits": over_ideal,
        "coded over the intervals' bits": over_intervals,
        "a range coder over the intervals' bits": of_a_range_coder,
    }
    for name, bits in found.items():
        print(
            f"{name}, {len(bits)} mixtures: mean {np.mean(bits):.4f}, 99 % {np.quantile(bits, 0.99):.3f}, "
            f"max {np.max(bits):.3f}, min {np.min(bits):.4f} bits"
        )
    assert np.abs(over_intervals).max() <= 0.01
    assert np.abs(over_ideal).max() <= 0.1
    assert np.max(of_a_range_coder) > 1


def bits_of_a_range_coder(code: TokenCode) -> float:
    encoder, weights = constriction.stream.queue.RangeEncoder(), _weights(code)
    encoder.encode(np.ones(len(weights), dtype=np.int32), constriction.stream.model.Categorical(perfect=False), weights)
    n_words, (_, width) = encoder.pos()
    return 32 * n_words + 64 - math.log2(width + 1)


# --- many samples ---------------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def codes() -> list[TokenCode]:
    rng = np.random.default_rng(8)
    return [drawn_sample(rng, "realistic", 500, n_tokens).code for n_tokens in (1, 7, 30, 200, 30, 2)]


def test_each_sample_is_coded_on_its_own(codes):
    alone = np.concatenate([coded_bits([code]) for code in codes])
    assert_array_equal(coded_bits(codes), alone)
    order = [3, 0, 5, 1, 4, 2]
    assert_array_equal(coded_bits([codes[i] for i in order]), alone[order])


def test_coded_bits_add_up(codes):
    whole = TokenCode.concatenate(codes)
    assert_allclose(coded_bits([whole])[0], coded_bits(codes).sum(), atol=1e-3 * len(whole.left))


def test_nothing_costs_nothing():
    nothing = TokenCode(
        np.zeros(0), np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0, bool)
    )
    assert coded_bits([]).shape == (0,)
    assert_allclose(coded_bits([nothing]), [0.0], atol=1e-12)
    assert encode(nothing).tolist() == [0, 1]  # what a coder begins with
    assert reference.decode(encode(nothing), np.zeros((1, 5), np.float32), []) == []


@pytest.mark.parametrize("n_tokens", [1, 3, 4, 5, 8, 100, 1000])
def test_coded_bits_are_those_of_the_words(n_tokens):
    """Eight bits a token: the words hold them, and at most the two words more that a stream begins and ends with."""
    rng = np.random.default_rng(9)
    sample = Sample(np.zeros((1, 256), np.float32), np.zeros(n_tokens, np.int64), rng.integers(0, 256, n_tokens))
    coded = coded_bits([sample.code])[0]
    assert_allclose(coded, 8 * n_tokens, rtol=1e-4, atol=0.01)
    assert coded - 1 <= 32 * len(encode(sample.code)) <= coded + 64


# --- damage ---------------------------------------------------------------------------------------------------------------------------


def flip(words: np.ndarray, bit: int) -> np.ndarray:
    damaged = words.copy()
    damaged[bit // 32] ^= np.uint32(1 << (31 - bit % 32))
    return damaged


def read_damaged(sample: Sample, words: np.ndarray) -> str:
    try:
        tokens = reference.decode(words, sample.logits, sample.rows.tolist())
    except reference.Corruption:
        return "detected"
    return "unnoticed" if tokens == sample.ids.tolist() else "other tokens"


@pytest.mark.parametrize("kind", ["flat", "realistic", 30.0])
def test_a_flipped_bit_is_detected(kind):
    """A decoder led astray does not end in the state that the coder began with; one flip in 2^32 may."""
    rng = np.random.default_rng(10)
    draw = drawn_sample if isinstance(kind, str) else planted_sample
    sample = draw(rng, kind, 256 if kind == "flat" else 2048, 48)
    words = encode(sample.code)
    for bit in rng.choice(32 * len(words), 200, replace=False).tolist():
        assert read_damaged(sample, flip(words, bit)) == "detected", bit


def test_missing_and_additional_words_are_detected():
    sample = drawn_sample(np.random.default_rng(11), "realistic", 2048, 48)
    words = encode(sample.code)
    assert read_damaged(sample, words) == "unnoticed"  # nothing is damaged yet
    assert read_damaged(sample, words[:-2]) == read_damaged(sample, words[2:]) == "detected"
    assert read_damaged(sample, np.append(words, words[:2])) == "detected"


def interval(left: int, frequency: int) -> TokenCode:
    return TokenCode(np.zeros(1), np.ones(1, np.int64), np.array([left]), np.array([frequency]), np.zeros(1, bool))


@pytest.mark.parametrize(
    ("left", "frequency"), [(0, 5), (5, 0), (-1, 7), (5, -1), (GRID - 5, 5), (1, GRID), (1, GRID - 1)]
)
def test_intervals_that_leave_the_grid_are_refused(left, frequency):
    """constriction would take them and decode something else."""
    with pytest.raises(AssertionError, match="an interval leaves the grid"):
        coded_bits([interval(left, frequency)])
    with pytest.raises(AssertionError, match="an interval leaves the grid"):
        encode(interval(left, frequency))


@pytest.mark.parametrize(("left", "frequency"), [(1, 1), (1, GRID - 2), (GRID - 2, 1), (GRID // 2, 12345)])
def test_the_widest_and_the_narrowest_interval_cost_what_they_say(left, frequency):
    code = interval(left, frequency)
    assert _weights(code).sum() == GRID - 3
    assert_allclose(coded_bits([code]), [24 - math.log2(frequency)], atol=1e-6)
    decoder = constriction.stream.stack.AnsCoder(encode(code))
    table = np.array([left, frequency, GRID - left - frequency])
    assert decoder.decode(constriction.stream.model.Categorical((table - 1).astype(np.float32), perfect=False)) == 1
