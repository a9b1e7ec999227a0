"""How windows are put together: both bounds, padding that pays, what is recorded; and nothing of it in the results."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from memorization import audit, compress_bits, unintended_memorization
from memorization.errors import InputError
from memorization.extraction import extract
from memorization.measure import open_model
from memorization.measure.batches import Bounds, n_together
from memorization.membership import audit_membership, token_moments

V = 16


class Watched(nn.Module):
    """A bigram model that remembers the shapes it was given."""

    def __init__(self, seed: int = 0):
        super().__init__()
        self.table = nn.Parameter(torch.randn(V, V, generator=torch.Generator().manual_seed(seed)))
        self.shapes: list[tuple[int, ...]] = []

    def forward(self, ids: Tensor) -> Tensor:
        self.shapes.append(tuple(ids.shape))
        return self.table[ids]


def samples_of(*lengths: int) -> list[list[int]]:
    rng = np.random.default_rng(0)
    return [rng.integers(1, V, size=n).tolist() for n in lengths]


def cut(lengths: list[int], bounds: Bounds) -> list[list[int]]:
    """Batches of windows from long to short."""
    batches, start = [], 0
    while start < len(lengths):
        n = n_together(iter(lengths[start:]), bounds)
        batches.append(lengths[start : start + n])
        start += n
    return batches


@given(
    lengths=st.lists(st.integers(1, 40), min_size=1, max_size=60).map(lambda some: sorted(some, reverse=True)),
    windows=st.none() | st.integers(1, 9),
    tokens=st.none() | st.integers(40, 300),
    padding=st.none() | st.integers(0, 50),
)
def test_batches_hold_every_bound_and_end_no_earlier(lengths, windows, tokens, padding):
    batches = cut(lengths, Bounds(windows, tokens, padding))
    assert [n for batch in batches for n in batch] == lengths

    def within(batch: list[int]) -> bool:
        padded = len(batch) * batch[0]
        return (
            (windows is None or len(batch) <= windows)
            and (tokens is None or padded <= tokens)
            and (padding is None or padded - sum(batch) <= padding)
        )

    assert all(map(within, batches))
    assert not any(within([*batch, after[0]]) for batch, after in pairwise(batches))


@pytest.mark.parametrize("setup", [25, 100])
def test_padding_of_one_forward_pass_is_about_the_best_cut(setup):
    """Tokens and passes counted, against the best fixed size; dynamic programming gives the best of all cuts."""
    rng = np.random.default_rng(1)
    kinds = {
        "even": rng.integers(6, 37, size=400),
        "log-normal": np.clip(np.exp(rng.normal(4, 0.8, size=400)), 4, 600).astype(int),
        "mixture": np.concatenate([rng.integers(6, 37, size=300), rng.integers(300, 600, size=12)]),
    }
    for name, some in kinds.items():
        lengths = sorted(some.tolist(), reverse=True)

        def cost(batches: list[list[int]]) -> int:
            return sum(setup + len(batch) * batch[0] for batch in batches)

        ours = cost(cut(lengths, Bounds(None, 16 * setup, setup)))
        fixed = min(cost(cut(lengths, Bounds(n, None, None))) for n in (1, 2, 4, 8, 16, 32, 64))
        best = [0.0] + [np.inf] * len(lengths)
        for stop in range(1, len(lengths) + 1):
            best[stop] = min(best[k] + setup + (stop - k) * lengths[k] for k in range(max(0, stop - 200), stop))
        assert ours <= 1.02 * fixed, name
        assert ours <= 1.06 * best[-1], name  # 6 % is what the bound on tokens costs, a pass for every 16 of its price


def test_both_bounds_hold():
    model = Watched()
    samples = samples_of(*[20] * 5, *[6] * 20, *[3] * 9)
    for batch_size, max_batch_tokens, most in (("auto", 40, None), (4, None, 4), (4, 40, 4), (64, 20, None)):
        model.shapes.clear()
        found = compress_bits(
            model, samples, first_token=0, batch_size=batch_size, max_batch_tokens=max_batch_tokens, progress=False
        )
        for rows, n in model.shapes:
            assert most is None or rows <= most
            assert max_batch_tokens is None or rows * n <= max_batch_tokens
        assert found.settings["largest_batch"] > 1 or max_batch_tokens == 20
        assert found.settings["batch_size"] == batch_size
        assert found.settings["max_batch_tokens"] == max_batch_tokens


def test_a_bound_on_tokens_is_checked(no_type_checker):
    for bad in (0, -3, 2.5, True, "many"):
        with pytest.raises(InputError, match=r"max_batch_tokens must be"):
            compress_bits(Watched(), samples_of(4), first_token=0, max_batch_tokens=bad)
    compress_bits(Watched(), samples_of(30), first_token=0, max_batch_tokens=30, progress=False)
    with pytest.raises(InputError, match=r"max_batch_tokens=29 is less than one window of 30 tokens.*max_length"):
        compress_bits(Watched(), samples_of(30), first_token=0, max_batch_tokens=29, progress=False)
    compress_bits(Watched(), samples_of(30), first_token=0, max_batch_tokens=29, max_length=29, progress=False)


def test_what_is_recorded_is_what_the_model_was_given():
    model = Watched()
    samples = samples_of(30, 29, 12, 11, 11, 3, 3, 2)
    with open_model(model) as opened:
        for batch_size, max_batch_tokens in (("auto", None), (3, None), ("auto", 40), (1, None)):
            opened.indifferent.append((99, 1))  # no window is asked for a second time
            model.shapes.clear()
            found = compress_bits(
                opened, samples, first_token=0, batch_size=batch_size, max_batch_tokens=max_batch_tokens
            )
            n_tokens = sum(rows * n for rows, n in model.shapes)
            assert found.settings["batches"] == {
                "n_batches": len(model.shapes),
                "n_tokens": n_tokens,
                "n_padding_tokens": n_tokens - sum(map(len, samples)),
            }


def test_a_model_is_tried_once_for_the_lengths_that_it_was_tried_with():
    model = Watched()
    with open_model(model) as opened:
        counts = []
        for samples in (samples_of(9, 9, 4), samples_of(8, 8, 5), samples_of(10, 9, 4), samples_of(9, 9, 3)):
            model.shapes.clear()
            compress_bits(opened, samples, first_token=0, batch_size=3)
            counts.append(len(model.shapes))
    assert counts == [2, 1, 2, 2]  # the second lies within the first; the others have a longer and a shorter window


@pytest.mark.parametrize("max_length", [None, 16])
def test_results_do_not_depend_on_the_batches(tiny_gpt2, max_length):
    rng = np.random.default_rng(3)
    samples = [rng.integers(0, 200, size=n).tolist() for n in rng.permutation([2, 3, 5, 9, 17, 18, 30, 31, 40, 50])]
    alone = compress_bits(tiny_gpt2, samples, first_token=0, max_length=max_length, batch_size=1, progress=False)
    assert alone.n_tokens.tolist() == [len(ids) for ids in samples]
    for how in ({}, {"batch_size": 8}, {"max_batch_tokens": 64}, {"max_batch_tokens": 100, "batch_size": 3}):
        found = compress_bits(tiny_gpt2, samples, first_token=0, max_length=max_length, progress=False, **how)
        np.testing.assert_allclose(found.token_bits, alone.token_bits, rtol=0, atol=1e-4)
        np.testing.assert_allclose(found.bits, alone.bits, rtol=0, atol=0.05)
        assert found.token_ids.tolist() == alone.token_ids.tolist()
        assert found.settings["largest_batch"] > 1


@pytest.mark.filterwarnings("ignore::memorization.errors.MeasurementWarning")
def test_every_function_hands_the_bound_on():
    model, oracle = Watched(), Watched(1)
    samples, control = samples_of(*[9] * 12), samples_of(*[10] * 12)
    how = {"max_batch_tokens": 80, "progress": False}
    calls = {
        "unintended_memorization": lambda: unintended_memorization(model, oracle, samples, **how),
        "audit_membership": lambda: audit_membership(model, samples, control, **how),
        "extract": lambda: extract(model, samples, prefix_tokens=(4,), **how),
        "token_moments": lambda: token_moments(model, compress_bits(model, samples, **how), **how),
        "audit": lambda: audit(model, oracle, samples, control, **how),
    }
    for name, call in calls.items():
        model.shapes.clear()
        call()
        held = [rows * n for rows, n in model.shapes if rows > 1]
        assert held, name
        assert max(held) <= 80, name
