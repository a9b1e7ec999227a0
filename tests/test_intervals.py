"""Logits to ideal bits and to intervals on the coder's grid. That the intervals decode is shown in test_coder.py."""

import math

import numpy as np
import pytest
import reference
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.testing import assert_allclose, assert_array_equal

from memorization.coding import intervals
from memorization.coding.intervals import GRID, TokenCode, bucket_width, code_tokens, code_uniformly

# Exponentials and their sums over the vocabulary are made in float32, so that p is known to about 1e-6 of itself.
BITS_TOLERANCE = 2e-6
SQUARE = 46 * 46


def code(logits, ids, rows=None) -> TokenCode:
    """The code of tokens; the i-th is predicted by row i unless `rows` says otherwise."""
    rows = np.arange(len(ids)) if rows is None else np.asarray(rows)
    return code_tokens(torch.as_tensor(logits), torch.from_numpy(rows), torch.as_tensor(ids, dtype=torch.int64))


def one_bits(row, own: int) -> float:
    return float(code(torch.as_tensor(row, dtype=torch.float32)[None], [own]).ideal_bits[0])


def assert_same_code(a: TokenCode, b: TokenCode) -> None:
    for field in ("ideal_bits", "n_steps", "left", "frequency"):
        assert_array_equal(getattr(a, field), getattr(b, field), err_msg=field)


def random_logits(seed: int, n_rows: int, vocab_size: int, spread: float) -> np.ndarray:
    return (np.random.default_rng(seed).standard_normal((n_rows, vocab_size)) * spread).astype(np.float32)


# --- the reference itself -----------------------------------------------------------------------------------------------------------


@settings(max_examples=25)
@given(st.lists(st.floats(-100, 100, width=32), min_size=2, max_size=12), st.data())
def test_the_reference_agrees_with_sixty_digits(row, data):
    own = data.draw(st.integers(0, len(row) - 1))
    bits = reference.ideal_bits(np.array([row]), np.array([own]))[0]
    assert_allclose(bits, float(reference.exact_bits(row, own)), rtol=1e-12)


@pytest.mark.parametrize("bits", [1e-7, 1e-5, 0.5, 20.0, 60.0, 200.0])
def test_planted_tokens_have_the_bits_that_were_asked_for(bits):
    row = reference.plant(np.random.default_rng(0).standard_normal(40), 7, bits)
    assert_allclose(float(reference.exact_bits(row.tolist(), 7)), bits, rtol=1e-5)


# --- ideal bits ---------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("vocab_size", [1, 2, 3, 256, 2048, SQUARE - 1, SQUARE, SQUARE + 1, 50_257])
def test_equal_logits_cost_log2_of_the_vocabulary(vocab_size):
    ids = [0, vocab_size // 2, vocab_size - 1]
    bits = code(torch.full((3, vocab_size), 3.7), ids).ideal_bits
    assert_allclose(bits, math.log2(vocab_size), rtol=1e-15, atol=1e-15)


def test_sixty_four_uniform_tokens_of_2048_are_704_bits_exactly():
    ids = np.random.default_rng(0).integers(0, 2048, 64)
    assert code(torch.zeros(64, 2048), ids).ideal_bits.sum() == 704.0


@settings(max_examples=150)
@given(
    vocab_size=st.integers(2, 70),
    dtype=st.sampled_from([torch.float32, torch.bfloat16, torch.float16, torch.float64]),
    data=st.data(),
)
def test_ideal_bits_equal_the_reference(vocab_size, dtype, data):
    values = data.draw(arrays(np.float32, (3, vocab_size), elements=st.floats(-100, 100, width=32)))
    ids = data.draw(arrays(np.int64, 3, elements=st.integers(0, vocab_size - 1)))
    logits = torch.from_numpy(values).to(dtype)
    expected = reference.ideal_bits(logits.double().numpy(), ids)
    assert_allclose(code(logits, ids).ideal_bits, expected, rtol=BITS_TOLERANCE, atol=BITS_TOLERANCE * 1e-9)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("spread", [0.02, 2.0, 30.0])
@pytest.mark.parametrize("vocab_size", [256, 2048, SQUARE + 1, 50_257])
def test_ideal_bits_equal_the_reference_at_real_vocabularies(vocab_size, spread, dtype):
    logits = torch.from_numpy(random_logits(vocab_size, 6, vocab_size, spread)).clamp(-100, 100).to(dtype)
    likely = logits[:3].argmax(dim=1)
    ids = np.concatenate([likely.numpy(), [0, vocab_size // 3, vocab_size - 1]])
    bits = code(logits, ids).ideal_bits
    assert_allclose(bits, reference.ideal_bits(logits.double().numpy(), ids), rtol=BITS_TOLERANCE)


@settings(max_examples=60)
@given(st.integers(2, 300), st.integers(-1000, 1000), st.integers(0, 2**32 - 1))
def test_a_constant_on_all_logits_changes_nothing(vocab_size, shift, seed):
    rng = np.random.default_rng(seed)
    # Multiples of 1/64 below 2^17 of them: float32 adds the constant without rounding.
    logits = torch.from_numpy(rng.integers(-6400, 6401, (4, vocab_size)) / 64).float()
    ids = rng.integers(0, vocab_size, 4)
    assert_same_code(code(logits + shift, ids), code(logits, ids))


@pytest.mark.parametrize("rivals_in", ["the same bucket", "another bucket", "all buckets"])
@pytest.mark.parametrize("bits", [1e-9, 1e-7, 1e-5, 1e-3, 0.4, 0.6, 1.0])
@pytest.mark.parametrize("vocab_size", [2, 256, 50_257])
def test_near_certain_tokens_keep_their_digits(vocab_size, bits, rivals_in):
    """1 - p is what counts. Taking the token's own term out of a sum of all would be 72 % off at 1e-7 bits."""
    width = bucket_width(vocab_size)
    own = width - 1
    row = np.random.default_rng(1).standard_normal(vocab_size)
    if rivals_in == "the same bucket":
        row[width:] = -200
    elif rivals_in == "another bucket" and vocab_size > 2:
        row[:width] = -200
    row = reference.plant(row, own, bits)
    expected = reference.ideal_bits(row[None], np.array([own]))[0]
    assert_allclose(expected, bits, rtol=1e-4)
    assert_allclose(one_bits(row, own), expected, rtol=1e-5)


@pytest.mark.parametrize("rivals_in", ["the same bucket", "another bucket", "all buckets"])
@pytest.mark.parametrize("bits", [24.0, 60.0, 149.0, 151.0, 300.0, 5000.0])
def test_surprising_tokens_keep_their_digits(bits, rivals_in):
    """exp(-104) is 0 in float32: 150 bits below the most likely token, only logarithms are left."""
    vocab_size, own = 2048, 100
    width = bucket_width(vocab_size)
    bucket = own // width
    row = np.random.default_rng(2).standard_normal(vocab_size)
    in_bucket = np.arange(vocab_size) // width == bucket
    if rivals_in == "the same bucket":
        row[~in_bucket] = -4000
    elif rivals_in == "another bucket":
        row[in_bucket] = -4000
    row = reference.plant(row, own, bits)
    expected = reference.ideal_bits(row[None], np.array([own]))[0]
    assert_allclose(expected, bits, rtol=1e-4)
    assert_allclose(one_bits(row, own), expected, rtol=1e-7)


def test_ideal_bits_do_not_depend_on_where_the_vocabulary_is_cut():
    """The same distribution, its tokens dealt to other buckets and places."""
    logits = random_logits(3, 5, 2048, 8.0)
    ids = np.array([0, 1, 44, 45, 2047])
    deal = np.random.default_rng(3).permutation(2048)
    assert_allclose(
        code(logits[:, deal], np.argsort(deal)[ids]).ideal_bits, code(logits, ids).ideal_bits, rtol=BITS_TOLERANCE
    )


# --- infinities ---------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("masked", ["places of the own bucket", "whole buckets", "all but the token"])
def test_minus_infinity_elsewhere_is_legal(masked):
    row = random_logits(4, 1, 400, 3.0)[0]  # 20 buckets of 20
    own = 47
    if masked == "places of the own bucket":
        row[40:45] = -np.inf
    elif masked == "whole buckets":
        row[:40] = row[380:] = -np.inf
    else:
        row[np.arange(400) != own] = -np.inf
    left = np.flatnonzero(np.isfinite(row))
    expected = reference.ideal_bits(row[None, left], np.flatnonzero(left == own))[0]
    assert_allclose(one_bits(row, own), expected, rtol=BITS_TOLERANCE)


@pytest.mark.parametrize("empty_bucket", [False, True])
def test_a_token_at_minus_infinity_has_infinite_bits(empty_bucket):
    row = random_logits(5, 1, 400, 3.0)[0]
    row[40 : 60 if empty_bucket else 48] = -np.inf
    assert one_bits(row, 47) == math.inf


def test_a_token_masked_with_the_smallest_float_has_infinite_bits_too():
    """Many models mask with finfo.min instead of minus infinity: no code of 10^38 bits can be written."""
    assert one_bits([0.0, torch.finfo(torch.float32).min], 1) == math.inf


@pytest.mark.parametrize("where", [47, 45, 300], ids=["the token", "its bucket", "another bucket"])
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_nan_and_plus_infinity_anywhere_in_the_row_give_nan(value, where):
    row = random_logits(6, 1, 400, 3.0)[0]
    row[where] = value
    assert math.isnan(one_bits(row, 47))


def test_a_row_of_minus_infinity_gives_nan():
    assert math.isnan(one_bits(np.full(400, -np.inf), 47))


def test_tokens_without_a_code_leave_their_neighbours_alone():
    logits = random_logits(7, 5, 400, 20.0)
    ids = np.array([1, 2, 3, 4, 5])
    good = code(logits, ids).split([1] * 5)
    broken = logits.copy()
    broken[1, 2], broken[3, 100] = -np.inf, np.nan
    parts = code(broken, ids).split([1] * 5)
    assert [np.isfinite(part.ideal_bits[0]) for part in parts] == [True, False, True, False, True]
    for i in (0, 2, 4):
        assert_same_code(parts[i], good[i])
    assert all(len(part.left) == part.n_steps[0] for part in parts)


# --- the grid -----------------------------------------------------------------------------------------------------------------------


def test_bucket_width_is_the_square_root_rounded_up():
    for root in [*range(1, 60), 225, 390, 512]:
        assert bucket_width(root * root) == root
        assert bucket_width(root * root + 1) == root + 1
        assert bucket_width((root - 1) * root + 1) == root


def tile_the_grid(left: np.ndarray, frequency: np.ndarray) -> bool:
    """Whether intervals, in order of their symbols, cover all cells but the first and the last, none of them twice."""
    edges = np.concatenate([left, [GRID - 1]])
    return edges[0] == 1 and bool((frequency >= 1).all()) and bool((left + frequency == edges[1:]).all())


def on_grid(weights: np.ndarray, n_missing: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Left edge and frequency of every symbol; `n_missing` places are those that the last bucket does not have."""
    n = len(weights)
    padded = torch.from_numpy(np.concatenate([weights, np.zeros(n_missing)]))
    exists = torch.arange(n + n_missing) < n
    symbol = torch.arange(n)[:, None]
    before = torch.arange(n + n_missing) < symbol
    left, frequency = intervals._on_grid(padded.repeat(n, 1), symbol, before, exists.repeat(n, 1))
    return left.squeeze(1).numpy(), frequency.squeeze(1).numpy()


@settings(max_examples=100)
@given(arrays(np.float64, st.integers(1, 600), elements=st.floats(0, 1)), st.integers(0, 5))
def test_integer_tables_tile_the_grid(weights, n_missing):
    """Any weights: zeros, ties, 1e-300."""
    weights[len(weights) // 2] += 0.5  # a softmax always has a term of that order
    left, frequency = on_grid(weights, n_missing)
    assert tile_the_grid(left, frequency)
    assert frequency.sum() == GRID - 2


@settings(max_examples=100)
@given(arrays(np.int64, st.integers(1, 600), elements=st.integers(0, 2**20)), st.integers(0, 5))
def test_integer_tables_equal_the_reference(weights, n_missing):
    """Weights whose sum is exact in any order, so that no rounding excuses a difference."""
    weights[-1] += 1
    _, frequency = on_grid(weights.astype(np.float64), n_missing)
    assert_array_equal(frequency, reference.frequencies(weights.astype(np.float64)))


def test_the_slack_of_a_flat_table_is_dealt_out_one_cell_each():
    _, frequency = on_grid(np.full(512, 3.0))  # (2^24 - 2 - 512) / 512 is 0.004 below an integer: a slack of 510
    assert_array_equal(frequency, np.repeat([GRID // 512, GRID // 512 - 1], [510, 2]))


def test_the_slack_goes_to_a_symbol_of_more_than_half():
    _, frequency = on_grid(np.array([1.0, 1.0, 30.0, 1.0, 1.0, 1.0]))
    assert len(set(frequency[[0, 1, 3, 4, 5]])) == 1
    assert frequency[2] == GRID - 2 - 5 * frequency[0]


@pytest.mark.parametrize("vocab_size", [1, 2, 3, 4, 5, 7, 48, 49, 50, 300, SQUARE, SQUARE + 1])
def test_all_tokens_of_a_vocabulary_tile_the_grid(vocab_size):
    """Flat enough that nothing is refined: the first step is the bucket, the second the place in it."""
    logits = random_logits(8, 1, vocab_size, 0.5)
    whole = code(logits, np.arange(vocab_size), rows=np.zeros(vocab_size, dtype=np.int64))
    assert (whole.n_steps == 2).all()
    left, frequency = whole.left.reshape(-1, 2), whole.frequency.reshape(-1, 2)
    bucket = np.arange(vocab_size) // bucket_width(vocab_size)
    firsts = np.flatnonzero(np.diff(bucket, prepend=-1))
    assert_array_equal(left[:, 0], left[firsts, 0][bucket])
    assert_array_equal(frequency[:, 0], frequency[firsts, 0][bucket])
    assert tile_the_grid(left[firsts, 0], frequency[firsts, 0])
    for b in range(len(firsts)):
        assert tile_the_grid(left[bucket == b, 1], frequency[bucket == b, 1])
    # Two intervals after one another have about the probability of the token.
    charged = 48 - np.log2(frequency).sum(axis=1)
    assert_allclose(charged, whole.ideal_bits, atol=1e-3)


@settings(max_examples=60)
@given(st.integers(1, 3000), st.floats(0, 100), st.integers(0, 2**32 - 1))
def test_every_interval_lies_between_the_guards_and_together_they_charge_the_ideal_bits(vocab_size, spread, seed):
    rng = np.random.default_rng(seed)
    logits = rng.uniform(-spread, spread, (8, vocab_size)).astype(np.float32)
    whole = code(logits, rng.integers(0, vocab_size, 8))
    assert whole.left.min() >= 1
    assert whole.frequency.min() >= 1
    assert (whole.left + whole.frequency).max() <= GRID - 1
    for token in whole.split([1] * 8):
        charged = (24 - np.log2(token.frequency)).sum()
        # Rounding to cells: 1.44 / 2^12 for each of two frequencies, 1.44 / 2^13 for each refinement of 12 bits.
        assert abs(charged - token.ideal_bits[0]) < 1e-3 + 2e-5 * token.ideal_bits[0]


# --- rows, chunks and layouts ---------------------------------------------------------------------------------------------------------


def test_rows_may_come_in_any_order_and_repeatedly():
    logits = random_logits(9, 12, 500, 10.0)
    rng = np.random.default_rng(9)
    rows, ids = rng.integers(0, 12, 40), rng.integers(0, 500, 40)
    scattered = code(logits, ids, rows=rows).split([1] * 40)
    for i in range(40):
        assert_same_code(scattered[i], code(logits[rows[i] : rows[i] + 1], ids[i : i + 1]))


@pytest.mark.parametrize("rows", [[2, 3, 4, 5], [5, 4, 3, 2], [2, 2, 5], [2, 4, 3, 5], [1, 3, 5], [0]])
def test_runs_of_rows_that_only_look_contiguous(rows):
    logits = random_logits(10, 7, 300, 10.0)
    ids = np.arange(len(rows)) * 7
    assert_same_code(code(logits, ids, rows=rows), code(logits[rows], ids))


@pytest.mark.parametrize("n_elements", [1, 401, 3 * 401, 7 * 401 + 5, 1 << 30])
@pytest.mark.parametrize("in_order", [True, False])
def test_the_size_of_chunks_changes_nothing(monkeypatch, n_elements, in_order):
    logits = random_logits(11, 50, 401, 10.0)
    rng = np.random.default_rng(11)
    rows = np.arange(50) if in_order else rng.permutation(50)
    ids = rng.integers(0, 401, 50)
    expected = code(logits, ids, rows=rows)
    monkeypatch.setitem(intervals.CHUNK_ELEMENTS, "cpu", n_elements)
    assert_same_code(code(logits, ids, rows=rows), expected)


def test_views_are_read_as_they_are_and_left_as_they_were():
    logits = torch.from_numpy(random_logits(12, 6, 350, 10.0))
    ids = np.arange(6) * 50
    expected = code(logits, ids)
    for view in (logits.T.contiguous().T, torch.cat([logits, logits], dim=1)[:, :350], logits.repeat(2, 1)[6:]):
        before = view.clone()
        assert_same_code(code(view, ids), expected)
        assert torch.equal(view, before)
    assert_same_code(code(logits[:1].expand(6, -1), ids), code(logits[:1].repeat(6, 1), ids))


def test_split_and_concatenate_undo_each_other():
    logits = random_logits(13, 30, 400, 40.0)
    whole = code(logits, np.arange(30) * 13)
    assert (whole.n_steps > 2).any()
    parts = whole.split([1, 0, 9, 20])
    assert [len(part.ideal_bits) for part in parts] == [1, 0, 9, 20]
    assert all(part.n_steps.sum() == len(part.left) == len(part.frequency) for part in parts)
    assert_same_code(TokenCode.concatenate(parts), whole)


@pytest.mark.parametrize("vocab_size", [1, 2, 3, 16, 17, 1000, 50_257])
def test_a_uniform_code_is_that_of_logits_of_0(vocab_size):
    """The same cells, to the last one, without a pass over the vocabulary."""
    ids = np.array([0, vocab_size - 1, vocab_size // 2, 0, vocab_size // 3])
    expected = code_tokens(torch.zeros(1, 1).expand(5, vocab_size), torch.arange(5), torch.from_numpy(ids))
    found = TokenCode.concatenate(code_uniformly(ids, vocab_size))
    for name in ("ideal_bits", "n_steps", "left", "frequency"):
        assert_array_equal(getattr(found, name), getattr(expected, name))


def test_a_token_masked_with_the_least_float16_has_no_code():
    """float16's -65504 is 94,502 bits: a mask, not a probability. A token of 60,000 bits is one."""
    logits = torch.tensor([[0.0, -65504.0, -60_000 * math.log(2)]])
    bits = code_tokens(logits, torch.zeros(2, dtype=torch.int64), torch.tensor([1, 2])).ideal_bits
    assert bits[0] == math.inf
    assert bits[1] == pytest.approx(60_000)


def test_the_slack_where_the_largest_has_just_half_of_the_grid():
    """A rule of the format at equality: 2^23 cells are not *more* than half, so the two cells left go to the first symbols."""
    weights = torch.tensor([[8_388_607.25, 2_796_200.5, 2_796_201.5, 2_796_200.75]], dtype=torch.float64)
    assert weights.sum().item() == GRID - 2 - 4  # each weight is in cells, of which what is left of the point is kept
    exists = torch.ones(1, 4, dtype=torch.bool)
    found = [intervals._on_grid(weights, torch.tensor([[k]]), exists)[1].item() for k in range(4)]
    assert found == [GRID / 2 + 1, 2_796_202, 2_796_202, 2_796_201]


def test_the_symbol_with_just_the_frequency_that_needs_no_refinement():
    """A rule of the format at equality: a bucket of 2^12 cells is followed by its place, one of 4095 by a refinement first."""
    columns = np.array(
        [[12.5] * 2, [0.0] * 2, [1.0] * 2, [4096.0, 4095.0], [-12.5] * 2, [1.0] * 2, [GRID - 4.0] * 2, [0.0] * 2]
    )
    found = intervals._assemble(columns)
    assert found.n_steps.tolist() == [2, 3]
    assert found.frequency[:2].tolist() == [4096, GRID - 4]
    assert found.frequency[3] == round(2.0**-12.5 * GRID / 4095 * GRID)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("vocab_size", [2, 3, 16, 17, 1000])
def test_greedy_is_the_first_of_the_largest(vocab_size, dtype):
    """Logits that are whole numbers have many equal ones, within a bucket and across buckets."""
    generator = torch.Generator().manual_seed(vocab_size)
    for n_values in (1, 2, 6, 40):
        logits = torch.randint(n_values, (200, vocab_size), generator=generator).to(dtype)
        largest = (logits == logits.amax(1, keepdim=True)).int()
        for ids in (
            largest.argmax(1),
            vocab_size - 1 - largest.flip(1).argmax(1),
            (largest.argmax(1) + 1) % vocab_size,
        ):
            found = code_tokens(logits, torch.arange(200), ids).greedy
            assert found.tolist() == (largest.argmax(1) == ids).tolist()


def test_no_token_without_a_code_is_greedy():
    logits = torch.tensor([[math.nan, 0.0], [-math.inf, -math.inf], [-math.inf, 0.0]])
    assert code_tokens(logits, torch.arange(3), torch.tensor([0, 0, 0])).greedy.tolist() == [False] * 3


def test_greedy_goes_with_its_tokens_when_codes_are_split_and_put_together():
    logits = torch.eye(4)
    code = code_tokens(logits, torch.arange(4), torch.tensor([0, 0, 2, 0]))
    assert [part.greedy.tolist() for part in code.split([1, 3])] == [[True], [False, True, False]]
    assert TokenCode.concatenate(code.split([1, 3])).greedy.tolist() == [True, False, True, False]
    assert not any(one.greedy.any() for one in code_uniformly(np.arange(4), 4))
