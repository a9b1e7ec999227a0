"""Extraction against a decoder that really decodes; models whose continuations are known; what intervals cover; refusals."""

import dataclasses
import json
import math
import re
import sys
from itertools import pairwise
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from saved_folders import as_saved_by_0_1_0
from torch import Tensor, nn

from memorization import UniformModel
from memorization.errors import (
    FirstTokenWarning,
    ImpossibleTokenError,
    InputError,
    LossyTextError,
    ModelError,
    ResultError,
)
from memorization.extraction import Extraction, ExtractionRate, extract
from memorization.lab.architectures import Architecture
from memorization.lab.random_tokens import random_tokens
from memorization.lab.stack import train_stack


def gives_back(model, context: list[int], sample: list[int], prefix: int, suffix: int | None = None) -> bool:
    """Greedy decoding, one token at a time, alone in its batch, until a token is wrong. Knows nothing of the library."""
    text = sample[:prefix]
    for true in sample[prefix:] if suffix is None else sample[prefix : prefix + suffix]:
        with torch.no_grad():
            output = model(torch.tensor([[*context, *text]]))
        logits = getattr(output, "logits", output)[0, -1].tolist()
        text.append(logits.index(max(logits)))  # the first of equal ones
        if text[-1] != true:
            return False
    return True


def continuation(model, ids: list[int], length: int) -> list[int]:
    """The ids and what greedy decoding adds to them, up to a length."""
    ids = list(ids)
    while len(ids) < length:
        with torch.no_grad():
            output = model(torch.tensor([ids]))
        logits = getattr(output, "logits", output)[0, -1].tolist()
        ids.append(logits.index(max(logits)))
    return ids


def check_by_decoding(model, context: list[int], samples: list[list[int]], found: Extraction) -> list[bool]:
    """Every sample and every prefix length; returns what came out, so that a test can see that both answers occur."""
    seen = []
    suffix = found.settings["suffix_tokens"]
    shortest = min(len(sample) for sample in samples)
    for prefix in range(1, shortest + 1 - (suffix or 1)):
        expected = [gives_back(model, context, sample, prefix, suffix) for sample in samples]
        assert found.extracted(prefix).tolist() == expected, prefix
        assert found.rate(prefix).member_rate == pytest.approx(np.mean(expected))
        seen += expected
    if suffix is None:
        for i, sample in enumerate(samples):
            needed = int(found.prefix_needed[i])
            assert needed == len(sample) or gives_back(model, context, sample, needed)
            assert needed <= 1 or not gives_back(model, context, sample, needed - 1)
    return seen


class Pairs:
    """A bigram model with random logits."""

    def __init__(self, seed: int, vocab_size: int = 6):
        draws = np.random.default_rng(seed)
        self.logits = torch.from_numpy(draws.normal(size=(vocab_size, vocab_size))).float()

    def __call__(self, ids: Tensor) -> Tensor:
        return self.logits[ids]


class Constant:
    """The same logits everywhere."""

    def __init__(self, logits: Tensor):
        self.logits = logits

    def __call__(self, ids: Tensor) -> Tensor:
        return self.logits.expand(*ids.shape, len(self.logits))


def partly_greedy(model, vocab_size: int, n: int, length: int, seed: int) -> list[list[int]]:
    """Samples that greedy decoding continues from some token on, some of them with a wrong token later."""
    draws = np.random.default_rng(seed)
    samples = []
    for _ in range(n):
        sample = continuation(model, draws.integers(vocab_size, size=draws.integers(1, length)).tolist(), length)
        if draws.random() < 0.3:
            sample[draws.integers(length)] = int(draws.integers(vocab_size))
        samples.append(sample)
    return samples


def counts_on(ids: Tensor) -> Tensor:
    """Whatever was last, plus one."""
    return nn.functional.one_hot((ids + 1) % 16, 16).float()


# --- against a decoder that decodes


@pytest.mark.parametrize("suffix_tokens", [None, 1, 3])
@pytest.mark.parametrize("seed", range(3))
def test_bigram_models_by_decoding(seed, suffix_tokens):
    model = Pairs(seed)
    samples = partly_greedy(model, 6, 30, 9, seed)
    found = extract(model, samples, prefix_tokens=(1,), suffix_tokens=suffix_tokens, batch_size=7)
    seen = check_by_decoding(model, [], samples, found)
    assert 20 < sum(seen) < len(seen) - 20


@pytest.mark.parametrize("first_token", ["uniform", 0, 7])
def test_a_transformer_by_decoding(tiny_gpt2, first_token):
    context = [] if first_token == "uniform" else [first_token]
    draws = np.random.default_rng(4)
    samples = []
    for n_free in (1, 1, 4, 7, 11):
        start = draws.integers(300, size=n_free).tolist()
        samples.append(continuation(tiny_gpt2, [*context, *start], len(context) + 11)[len(context) :])
    samples[1][5] = 3
    samples[2][-1] = 3
    found = extract(tiny_gpt2, samples, prefix_tokens=(1, 2), first_token=first_token)
    seen = check_by_decoding(tiny_gpt2, context, samples, found)
    assert 10 < sum(seen) < len(seen) - 10


@pytest.fixture(scope="module")
def half_memorized():
    """A transformer that has learned some of its samples by heart, some of them from a longer prefix, and some not yet."""
    seen, unseen = random_tokens(80, 16, 64, seed=0), random_tokens(80, 16, 64, seed=1)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = Architecture("gpt2", width=16)(64, 16)
    train_stack([model], [seen], context=0, steps=120, batch_size=80, peak_lrs=[0.02], seeds=[0])
    return model, seen, unseen


def test_a_trained_transformer_by_decoding(half_memorized):
    model, seen, unseen = half_memorized
    found = extract(model, seen, unseen, prefix_tokens=(1, 2, 8, 15), first_token=0)
    few = dataclasses.replace(
        found,
        member_correct=found.member_correct[: 24 * 16],
        member_bits=found.member_bits[: 24 * 16],
        member_offsets=found.member_offsets[:25],
    )
    check_by_decoding(model, [0], seen[:24].tolist(), few)
    unseen_by_decoding = [gives_back(model, [0], sample, 15) for sample in unseen.tolist()]
    assert found.heldout_extracted(15).tolist() == unseen_by_decoding
    assert found.heldout_prefix_needed.min() > 8
    # The fixture is what it says: some are extracted at once, some from a longer prefix only, some not.
    at_2, at_8, at_15 = (found.rate(prefix).member_rate for prefix in (2, 8, 15))
    assert 0.05 < at_2 < at_8 < at_15 < 1
    assert found.rate(8).excess_interval[0] > 0.1
    # Members that come out further than any held-out sample have the least p-value that there is.
    table = found.samples_to_pandas()
    ours, theirs = table[table["member"]], table[~table["member"]]
    recited, others = (part["n_tokens"] - part["prefix_needed"] for part in (ours, theirs))
    expected = [(1 + sum(others >= one)) / (1 + len(others)) for one in recited]
    np.testing.assert_allclose(ours["p_value"], expected)
    assert (ours["q_value"][recited > others.max()] < 0.05).all()
    assert theirs[["p_value", "q_value"]].isna().all(axis=None)
    alone = extract(model, seen[:4], prefix_tokens=(8,), first_token=0).samples_to_pandas()
    assert alone[["p_value", "q_value"]].isna().all(axis=None)


# --- closed forms


def test_a_perfect_memorizer_gives_back_everything():
    """It looks up what it has read: the next token of the sample that begins so."""
    samples = random_tokens(20, 12, 50, seed=3).tolist()
    assert len({tuple(sample[:1]) for sample in samples}) < 20  # one token is not enough to know which
    assert len({tuple(sample[:2]) for sample in samples}) == 20
    after = {tuple(sample[:k]): sample[k] for sample in samples for k in range(12)}

    def model(ids: Tensor) -> Tensor:
        logits = torch.zeros(*ids.shape, 50)
        for row, place in np.ndindex(*ids.shape):
            token = after.get(tuple(ids[row, : place + 1].tolist()))
            if token is not None:
                logits[row, place, token] = 10
        return logits

    found = extract(model, samples, random_tokens(20, 12, 50, seed=4), prefix_tokens=(2, 6, 11))
    assert [row.member_rate for row in found.rates] == [1, 1, 1]
    assert found.prefix_needed.max() == 2
    assert [row.heldout_rate for row in found.rates[:2]] == [0, 0]
    assert found.rates[0].excess == 1


def test_of_equal_logits_the_lowest_id_comes():
    samples = [[3, 0, 0, 0], [0, 0, 0, 0], [0, 0, 0, 1], [1, 1, 1, 1], [0, 2, 0, 0]]
    for model in (UniformModel(4), Constant(torch.full((4,), -7.5))):
        found = extract(model, samples, prefix_tokens=(1, 2, 3))
        assert found.prefix_needed.tolist() == [1, 1, 4, 4, 2]
        assert [row.member_rate for row in found.rates] == [0.4, 0.6, 0.6]
    # Two of four share the largest logit.
    found = extract(Constant(torch.tensor([0.0, 1, 1, 0])), [[0, 1, 1], [0, 2, 2]], prefix_tokens=(1,))
    assert found.prefix_needed.tolist() == [1, 3]


@pytest.mark.parametrize("first_token", ["uniform", 0])
@pytest.mark.parametrize("wrong", range(6))
def test_a_model_that_gets_one_token_wrong(wrong, first_token):
    """The token at position k comes out only where it is given: k + 1 tokens are needed, and enough."""
    sample, context = [5, 6, 7, 8, 9, 10], [] if first_token == "uniform" else [0]

    def model(ids: Tensor) -> Tensor:
        place = torch.arange(ids.shape[1]) + 1 - len(context)  # of the token that is predicted
        true = 5 + place
        true[place == wrong] = 1
        return nn.functional.one_hot(true.clamp(0, 15), 16).float().expand(*ids.shape, 16)

    found = extract(model, [sample], prefix_tokens=(1, 2, 3, 4, 5), first_token=first_token)
    # Without a context nothing predicts the first token, so one is needed at least.
    assert found.prefix_needed.tolist() == [wrong + 1]
    assert [bool(found.extracted(prefix)[0]) for prefix in range(1, 6)] == [
        prefix >= wrong + 1 for prefix in range(1, 6)
    ]
    assert found.member_correct.tolist() == [k != wrong and (k > 0 or first_token == 0) for k in range(6)]
    check_by_decoding(model, context, [sample], found)


def test_nothing_is_needed_where_the_context_brings_everything():
    found = extract(counts_on, [[1, 2, 3], [2, 3, 4]], prefix_tokens=(1,), first_token=0)
    assert found.prefix_needed.tolist() == [0, 1]
    assert extract(counts_on, [[1, 2, 3]], prefix_tokens=(1,)).prefix_needed.tolist() == [1]


def test_a_suffix_of_some_tokens():
    sample = [1, 2, 3, 9, 10, 11, 5, 6]  # wrong: position 3 and 6, and the first, which follows nothing
    for suffix, expected in {
        1: [True, True, False, True, True, False, True],
        2: [True, False, False, True, False, False],
        3: [False, False, False, False, False],
        5: [False, False, False],
        None: [False, False, False, False, False, False, True],
    }.items():
        found = extract(counts_on, [sample], prefix_tokens=(1,), suffix_tokens=suffix)
        assert [bool(found.extracted(prefix)[0]) for prefix in range(1, len(expected) + 1)] == expected, suffix
        with pytest.raises(InputError, match="too few for a prefix"):
            found.extracted(len(expected) + 1)
        assert found.prefix_needed.tolist() == [7]  # of the whole rest, whatever the suffix


@given(st.lists(st.lists(st.booleans(), min_size=2, max_size=9), min_size=1, max_size=5), st.integers(1, 3))
def test_rates_follow_from_the_tokens(samples, suffix):
    for asked in (None, suffix):
        found = counted(samples, suffix_tokens=asked)
        needed = [max([0, *(k + 1 for k, right in enumerate(sample) if not right)]) for sample in samples]
        assert found.prefix_needed.tolist() == needed
        for prefix in range(1, min(map(len, samples)) + 1 - (asked or 1)):
            ends = [len(sample) if asked is None else prefix + asked for sample in samples]
            by_hand = [all(sample[prefix:end]) for sample, end in zip(samples, ends, strict=True)]
            assert found.extracted(prefix).tolist() == by_hand
            if asked is None:
                assert by_hand == [prefix >= k for k in needed]


def test_a_longer_prefix_never_extracts_less():
    model = Pairs(8)
    found = extract(model, partly_greedy(model, 6, 40, 12, 8), prefix_tokens=tuple(range(1, 12)))
    assert all(one.member_rate <= other.member_rate for one, other in pairwise(found.rates))
    assert found.rates[0].member_rate < found.rates[-1].member_rate


# --- batches, padding, precision


@pytest.mark.parametrize("batch_size", ["auto", 1, 2, 5])
def test_samples_of_any_length_in_any_company(tiny_gpt2, batch_size):
    draws = np.random.default_rng(0)
    lengths = [3, 30, 3, 17, 5, 29, 4]
    samples = [continuation(tiny_gpt2, draws.integers(300, size=min(n - 1, 6)).tolist(), n) for n in lengths]
    samples[3][10] = samples[5][28] = 1
    found = extract(
        tiny_gpt2, samples, samples_of_zeros := [[0] * 4, [0] * 20], prefix_tokens=(2,), batch_size=batch_size
    )
    assert np.diff(found.member_offsets).tolist() == lengths
    for i, sample in enumerate(samples):
        alone = extract(tiny_gpt2, [sample], prefix_tokens=(2,), batch_size=1)
        part = found.member_correct[found.member_offsets[i] : found.member_offsets[i + 1]]
        assert part.tolist() == alone.member_correct.tolist()
    alone = extract(tiny_gpt2, samples_of_zeros, prefix_tokens=(2,), batch_size=1)
    assert alone.member_correct.tolist() == found.heldout_correct.tolist()
    assert len(set(found.prefix_needed.tolist())) > 3
    backwards = extract(tiny_gpt2, samples[::-1], prefix_tokens=(2,), batch_size=batch_size)
    assert backwards.prefix_needed.tolist() == found.prefix_needed.tolist()[::-1]


def test_a_batch_holds_as_many_as_asked():
    sizes = []

    def model(ids: Tensor) -> Tensor:
        sizes.append(len(ids))
        return counts_on(ids)

    samples = [[1, 2, 3]] * 5
    # After the first batch of several, one of its windows is read alone: whether a model minds company.
    for batch_size, expected in ((1, [1] * 5), (2, [2, 1, 2, 1]), ("auto", [5, 1])):
        sizes.clear()
        extract(model, samples, prefix_tokens=(1,), batch_size=batch_size)
        assert sizes[-len(expected) :] == expected  # those before are checks of the model
        assert len(sizes) <= len(expected) + 5


def test_the_model_is_left_as_it_came(tiny_gpt2):
    import copy

    model = copy.deepcopy(tiny_gpt2).train()
    model.transformer.h[0].eval()
    modes = [module.training for module in model.modules()]
    found = extract(model, [[1, 2, 3]], prefix_tokens=(1,))
    assert [module.training for module in model.modules()] == modes
    assert found.prefix_needed.tolist() == extract(tiny_gpt2, [[1, 2, 3]], prefix_tokens=(1,)).prefix_needed.tolist()


def test_half_precision_is_compared_as_it_is():
    """In bfloat16 1 and 1.001 are one number, so the lower id comes; in float32 the larger."""
    logits = torch.tensor([1.0, 1.001])
    for dtype, needed in ((torch.float32, [3, 1]), (torch.bfloat16, [1, 3])):
        found = extract(Constant(logits.to(dtype)), [[0, 0, 0], [1, 1, 1]], prefix_tokens=(1,))
        assert found.prefix_needed.tolist() == needed


def test_masked_tokens_are_no_mistake():
    """-inf for all but one is a certain model; all -inf, +inf and NaN are none."""
    logits = torch.full((16, 16), -math.inf)
    logits[torch.arange(16), (torch.arange(16) + 1) % 16] = 0.0
    assert extract(lambda ids: logits[ids], [[1, 2, 3]], prefix_tokens=(1,)).prefix_needed.tolist() == [1]
    for value in (math.nan, math.inf, -math.inf):
        broken = logits.clone()
        broken[8] = value  # first asked in the held-out sample, at its last token
        with pytest.raises(
            ImpossibleTokenError, match=r"predict position 3 of control sample 1 are NaN, \+inf, or all -inf"
        ):
            extract(
                lambda ids, b=broken: b[ids], [[1, 2, 3]], [[3, 2, 1], [6, 7, 8, 9]], prefix_tokens=(1,), first_token=0
            )
        # Behind the end of a sample nothing is asked, though the padding is read.
        broken[0] = value
        extract(lambda ids, b=broken: b[ids], [[1, 2, 3], [1, 2, 3, 4, 5]], prefix_tokens=(1,))


def test_a_model_of_few_positions():
    """It takes as many inputs as the samples need, and no more: fewer than the check for causality would like."""

    def model(ids: Tensor) -> Tensor:
        assert ids.shape[1] <= 3
        return counts_on(ids)

    assert extract(model, [[1, 2, 3, 4], [5, 6, 8]], prefix_tokens=(1,)).prefix_needed.tolist() == [1, 3]
    assert extract(model, [[1, 2, 3]], prefix_tokens=(1,), first_token=0).prefix_needed.tolist() == [0]


# --- first tokens and texts


def test_what_stands_before_the_first_token(bpe_tokenizer):
    model = Pairs(5, vocab_size=300)
    after = lambda token: int(model.logits[token].argmax())  # noqa: E731
    sample = [after(7), after(after(7)), after(after(after(7)))]
    for first_token, needed in {7: 0, 8: 1, "uniform": 1, "skip": 1, "bos": 1}.items():
        found = extract(model, [sample], prefix_tokens=(1,), first_token=first_token, tokenizer=bpe_tokenizer)
        assert found.prefix_needed.tolist() == [needed], first_token
        assert found.member_offsets.tolist() == [0, 3]
        assert found.settings["first_token"]["rule"] == (first_token if isinstance(first_token, str) else "token")
    assert extract(model, [sample], prefix_tokens=(1,)).settings["first_token"]["rule"] == "uniform"
    found = extract(model, [sample], prefix_tokens=(1,), tokenizer=bpe_tokenizer)
    assert found.settings["first_token"]["rule"] == "bos"


def test_ids_that_begin_with_the_bos_bring_their_own_context(tiny_gpt2, bpe_tokenizer):
    samples = [continuation(tiny_gpt2, [0, 5, 9], 9), continuation(tiny_gpt2, [0, 5, 9, 8, 8, 8], 9)]
    own = extract(tiny_gpt2, samples, prefix_tokens=(2, 5), tokenizer=bpe_tokenizer)
    given_ = extract(tiny_gpt2, [sample[1:] for sample in samples], prefix_tokens=(2, 5), tokenizer=bpe_tokenizer)
    assert own.member_offsets.tolist() == given_.member_offsets.tolist() == [0, 8, 16]
    assert own.member_correct.tolist() == given_.member_correct.tolist()
    assert [row.member_rate for row in own.rates] == [0.5, 1.0]


def test_texts_are_tokenized(tiny_gpt2, bpe_tokenizer, model_folder, tmp_path):
    texts = ["The house met and adjourned.", "How many bits does it take?", "naïve — 雪"]
    ids = [bpe_tokenizer(text)["input_ids"] for text in texts]
    found = extract(tiny_gpt2, texts[:2], texts[2:], prefix_tokens=(1, 3), tokenizer=bpe_tokenizer)
    by_ids = extract(tiny_gpt2, ids[:2], ids[2:], prefix_tokens=(1, 3), first_token=0)
    assert found.member_correct.tolist() == by_ids.member_correct.tolist()
    assert found.heldout_correct.tolist() == by_ids.heldout_correct.tolist()
    pd.DataFrame({"words": [*texts[:2], "The model"]}).to_csv(tmp_path / "members.csv", index=False)
    pd.DataFrame({"words": [texts[2], "The model"]}).to_csv(tmp_path / "heldout.csv", index=False)
    # A text that is in both files, but behind the limit in one of them.
    options = {"prefix_tokens": (1, 3), "text_column": "words", "limit": 2, "progress": False}
    with pytest.raises(InputError, match="has no column 'text': it has words"):
        extract(model_folder, tmp_path / "members.csv", prefix_tokens=(1, 3))
    by_name = extract(model_folder, tmp_path / "members.csv", tmp_path / "heldout.csv", **options)
    assert by_name.member_correct.tolist() == found.member_correct.tolist()
    assert by_name.settings["heldout"]["n_samples"] == 2
    with pytest.raises(InputError, match=r"sample 2 is also control sample 1: 'The model' \(1 of 3"):
        extract(model_folder, tmp_path / "members.csv", tmp_path / "heldout.csv", **options | {"limit": 3})


class Letters:
    """One id a character, capitals lost."""

    bos_token_id = None

    def __call__(self, texts, **_):
        return {"input_ids": [[ord(x) - 97 for x in text.lower()] for text in texts]}

    def decode(self, ids, **_):
        return "".join(chr(97 + i) for i in ids)

    def get_vocab(self):
        return {chr(97 + i): i for i in range(16)}

    def convert_ids_to_tokens(self, i):
        return chr(97 + i)

    def __len__(self):
        return 16


def test_lossy_texts_keep_their_numbers():
    options = {"prefix_tokens": (2,), "tokenizer": Letters()}
    with pytest.raises(LossyTextError, match="control: 1 of 2 texts do not survive"):
        extract(counts_on, ["abc"], ["aCb", "cba"], **options)
    found = extract(counts_on, ["aBc", "abd", "abcd", "Abc"], ["aaa", "cBa", "abc"], on_lossy_text="skip", **options)
    table = found.samples_to_pandas()
    assert table["sample"].tolist() == [1, 2, 0, 2]
    assert table["member"].tolist() == [True, True, False, False]
    assert table["n_tokens"].tolist() == [3, 4, 3, 3]
    assert table["prefix_needed"].tolist() == [3, 1, 3, 1]
    with pytest.raises(InputError, match="sample 1 has 3 tokens, too few for a prefix of 3"):
        found.rate(3)
    found = extract(counts_on, ["abcd"], ["aBcde", "abcdef", "ab"], on_lossy_text="skip", **options)
    assert (found.settings["heldout"]["lossy_skipped"], found.settings["heldout"]["too_short"]) == ([0], [2])
    assert found.samples_to_pandas()["sample"].tolist() == [0, 1]


def test_a_bos_of_the_chat_template_is_warned_of():
    tokenizer = Letters()
    tokenizer.bos_token_id, tokenizer.chat_template = 0, "a: {{ text }}"
    with pytest.warns(FirstTokenWarning, match="the BOS 'a' is the chat template's marker"):
        extract(counts_on, ["bcd"], prefix_tokens=(1,), tokenizer=tokenizer)


# --- negative controls


def test_a_model_that_saw_neither_extracts_from_both_alike():
    """Samples of one kind, of which a model can guess the rest: what it gives back is no memory of them."""

    def drawn(n: int, seed: int) -> Tensor:
        """Each counts on, with a slip now and then."""
        generator = torch.Generator().manual_seed(seed)
        steps = 1 + (torch.rand((n, 12), generator=generator) < 0.06).long()
        return torch.unique((torch.randint(16, (n, 1), generator=generator) + steps.cumsum(1)) % 16, dim=0)

    train = drawn(300, 0)
    taken = {tuple(row) for row in train.tolist()}
    fresh = [row for row in drawn(500, 1).tolist() if tuple(row) not in taken]
    draws = np.random.default_rng(0).permutation(len(fresh))
    members, heldout = [fresh[i] for i in draws[:100]], [fresh[i] for i in draws[100:200]]
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = Architecture("gpt2", width=16)(16, 12)
    train_stack([model], [train], context=0, steps=120, batch_size=64, peak_lrs=[0.02], seeds=[0])
    for row in extract(model, members, heldout, prefix_tokens=(6, 8, 10), first_token=0).rates:
        assert row.member_rate > 0.2  # a member's rate alone would be taken for memorization
        assert row.excess_interval[0] < 0 < row.excess_interval[1]


# --- intervals


def counted(members, heldout=(), suffix_tokens=None, level=0.95, prefix_tokens=(1,)) -> Extraction:
    """A result from what is right of each sample; the settings that matter."""
    sides = []
    for side in (members, heldout):
        correct = np.array([right for sample in side for right in sample], dtype=bool)
        offsets = np.cumsum([0, *map(len, side)]).astype(np.int64)
        sides += [correct, offsets]
    records = [{"n_samples": len(side), "lossy_skipped": []} for side in (members, heldout)]
    settings = {
        "prefix_tokens": list(prefix_tokens),
        "suffix_tokens": suffix_tokens,
        "interval_level": level,
        "first_token": {"asked": 0, "rule": "token", "id": 0, "token": None},
        "members": records[0],
        "heldout": records[1] if len(heldout) else None,
        "model": {"name": "m", "class": "m", "n_params": None, "dtype": None, "device": "cpu"},
    }
    return Extraction(*sides, settings)


def of_counts(k: int, n: int, k_heldout: int, n_heldout: int, level: float = 0.95) -> ExtractionRate:
    """Rates where k of n members and k_heldout of n_heldout others are extracted."""
    sides = [[[True, i < some] for i in range(out_of)] for some, out_of in ((k, n), (k_heldout, n_heldout))]
    return counted(*sides, level=level).rate(1)


@pytest.mark.parametrize("level", [0.5, 0.95, 0.999])
@pytest.mark.parametrize(("k", "n"), [(0, 1), (1, 1), (0, 30), (1, 30), (13, 30), (29, 30), (30, 30), (3, 10_000)])
def test_clopper_and_pearson_as_scipy_has_them(k, n, level):
    from scipy.stats import binomtest

    expected = binomtest(k, n).proportion_ci(level, method="exact")
    for row in (of_counts(k, n, 0, 0, level), of_counts(k, n, k, n, level)):
        assert row.member_interval == pytest.approx(tuple(expected))
    assert row.heldout_interval == row.member_interval
    assert (row.member_rate, row.heldout_rate) == (k / n, k / n)


def test_the_interval_of_the_excess_by_hand():
    from scipy.stats import binomtest

    row = of_counts(18, 20, 3, 50)
    (low, high), (low_heldout, high_heldout) = (
        tuple(binomtest(k, n).proportion_ci(0.95, method="exact")) for k, n in ((18, 20), (3, 50))
    )
    assert row.excess == pytest.approx(0.84)
    assert row.excess_interval[0] == pytest.approx(0.84 - math.sqrt((0.9 - low) ** 2 + (high_heldout - 0.06) ** 2))
    assert row.excess_interval[1] == pytest.approx(0.84 + math.sqrt((high - 0.9) ** 2 + (0.06 - low_heldout) ** 2))
    turned = of_counts(3, 50, 18, 20)
    assert turned.excess == pytest.approx(-row.excess)
    assert turned.excess_interval == pytest.approx((-row.excess_interval[1], -row.excess_interval[0]))


@pytest.mark.usefixtures("no_type_checker")
@pytest.mark.parametrize(("n", "n_heldout"), [(20, 20), (60, 40), (30, 90)])
def test_the_interval_of_the_excess_covers(n, n_heldout):
    """Exact: the probability of all outcomes whose interval holds the truth."""
    from scipy.stats import binom

    counts, others = np.arange(n + 1), np.arange(n_heldout + 1)
    ends = np.array([[of_counts(k, n, j, n_heldout).excess_interval for j in others] for k in counts])
    assert (ends[..., 0] >= -1).all()
    assert (ends[..., 1] <= 1).all()
    for rate in (0.001, 0.05, 0.3, 0.7, 0.95, 0.99):
        for other in (0.0003, 0.02, 0.3):
            truth = rate - other
            holds = (ends[..., 0] <= truth) & (truth <= ends[..., 1])
            outcome = binom.pmf(counts, n, rate)[:, None] * binom.pmf(others, n_heldout, other)
            assert (outcome * holds).sum() >= 0.93, (rate, other)
            if 0.1 < rate < 0.9 and other > 0.1:
                assert (outcome * holds).sum() < 0.985  # not so wide that it says nothing


def test_what_is_unknown_is_nan():
    row = counted([[True, True], [True, False]]).rate(1)
    assert (row.n_members, row.member_rate, row.n_heldout) == (2, 0.5, 0)
    unknown = [row.heldout_rate, row.excess, *row.heldout_interval, *row.excess_interval]
    assert all(map(math.isnan, unknown))
    table = counted([[True, True], [True, False]]).to_pandas()
    assert (
        table.loc[0, ["heldout_rate", "heldout_low", "heldout_high", "excess", "excess_low", "excess_high"]]
        .isna()
        .all()
    )


def test_a_wider_level_and_fewer_samples_widen():
    narrow, wide, few = of_counts(30, 60, 6, 60), of_counts(30, 60, 6, 60, 0.99), of_counts(5, 10, 1, 10)
    for other in (wide, few):
        assert other.excess == narrow.excess
        for name in ("member_interval", "heldout_interval", "excess_interval"):
            (low, high), (other_low, other_high) = getattr(narrow, name), getattr(other, name)
            assert other_low < low < high < other_high


# --- the result


@pytest.fixture
def found() -> Extraction:
    members, heldout = [[1, 2, 3, 4], [1, 2, 9, 10, 11], [7, 6, 5, 4]], [[1, 2, 3, 5], [2, 2, 2, 2]]
    return extract(counts_on, members, heldout, prefix_tokens=(3, 1), first_token=0)


def test_tables(found):
    table = found.to_pandas()
    assert list(table.columns) == [
        "prefix_tokens",
        "n_members",
        "member_rate",
        "member_low",
        "member_high",
        "n_heldout",
        "heldout_rate",
        "heldout_low",
        "heldout_high",
        "excess",
        "excess_low",
        "excess_high",
    ]
    assert table["prefix_tokens"].tolist() == [1, 3]
    assert table["member_rate"].tolist() == pytest.approx([1 / 3, 2 / 3])
    assert table["heldout_rate"].tolist() == [0, 0]
    assert table["excess"].tolist() == pytest.approx([1 / 3, 2 / 3])
    assert table["n_members"].tolist() == [3, 3]
    assert table["n_heldout"].tolist() == [2, 2]
    row = found.rate(3)
    assert table.loc[1, ["member_low", "member_high"]].tolist() == list(row.member_interval)
    assert table.loc[1, ["heldout_low", "heldout_high"]].tolist() == list(row.heldout_interval)
    assert table.loc[1, ["excess_low", "excess_high"]].tolist() == list(row.excess_interval)
    samples = found.samples_to_pandas()
    assert samples.drop(columns=["p_value", "q_value", "suffix_bits", "tries", "preview"]).to_dict("list") == {
        "member": [True] * 3 + [False] * 2,
        "sample": [0, 1, 2, 0, 1],
        "n_tokens": [4, 5, 4, 4, 4],
        "prefix_needed": [0, 3, 4, 4, 4],
    }
    assert found.rates == [found.rate(1), found.rate(3)]


def test_repr(found):
    words = repr(found)
    lines = words.splitlines()
    assert lines[0].startswith(
        "Extraction of 3 members and 2 held-out samples: share given back exactly by greedy decoding; 95 %"
    )
    assert re.match(
        r"  3 tokens     0\.667 \[0\.0943, 0\.992\] +0 \[0, 0\.842\] +0\.667 \[-0\.351, 0\.992\]$", lines[3]
    )
    assert "suffix       the whole rest of each sample" in words
    assert "context      id 0 before the first token" in words
    assert "generalization" not in words
    alone = repr(
        extract(counts_on, [[1, 2, 3, 4]], prefix_tokens=(1,), suffix_tokens=2, tokenizer=Letters(), first_token="b")
    )
    assert "Extraction of 1 member: share" in alone
    assert "no held-out samples: some of this may be generalization" in alone
    assert "suffix       2 tokens" in alone
    assert "context      'b' (id 1) before the first token" in alone
    assert "excess" not in alone
    assert "context      none before" in repr(extract(counts_on, [[1, 2]], prefix_tokens=(1,)))


def test_settings_record_what_was_decided(no_type_checker, tiny_gpt2, bpe_tokenizer):
    found = extract(
        tiny_gpt2, [[1] * 32, [2] * 33], prefix_tokens="auto", tokenizer=bpe_tokenizer, batch_size=np.int64(4)
    )
    settings = json.loads(json.dumps(found.settings))
    assert settings["prefix_tokens"] == [8, 16]
    assert settings["prefix_tokens_left_out"] == [32]
    first = settings["first_token"]
    assert (first["asked"], first["rule"], first["id"], first["token"]) == ("auto", "bos", 0, "<|endoftext|>")
    assert settings["suffix_tokens"] is None
    assert settings["interval_level"] == 0.95
    assert settings["batch_size"] == 4
    assert settings["heldout"] is None
    assert settings["members"]["source"] == "list of 2"
    assert settings["model"]["n_params"] == sum(p.numel() for p in tiny_gpt2.parameters())
    assert settings["tokenizer"]["vocab_size"] == len(bpe_tokenizer)
    assert settings["versions"]["torch"] == torch.__version__


@pytest.mark.filterwarnings("ignore::memorization.errors.NearCopiesWarning")
def test_default_prefixes_follow_the_shortest_sample():
    def used(lengths, heldout=None, suffix_tokens=None):
        ids = lambda sizes, token: [[token, *range(n - 1)] for n in sizes]  # noqa: E731
        others = None if heldout is None else ids(heldout, 3)
        found = extract(UniformModel(64), ids(lengths, 2), others, suffix_tokens=suffix_tokens)
        return found.settings["prefix_tokens"]

    assert used([40, 41]) == [8, 16, 32]
    assert used([40, 39]) == [8, 16]
    assert used([40], heldout=[24]) == [8, 16]
    assert used([40], heldout=[23]) == [8]
    assert used([16]) == [8]
    assert used([40, 15]) == [8, 16, 32]  # a sample too short for any shortens the prefix of no other
    assert used([33], suffix_tokens=1) == [8, 16, 32]
    assert used([33], suffix_tokens=2) == [8, 16]
    assert used([64], suffix_tokens=48) == [8, 16]
    with pytest.raises(InputError, match=r"samples of at least 16 tokens, .* the longest of 2 samples has 15\."):
        used([15, 8])
    with pytest.raises(InputError, match=r"samples of at least 16 tokens, .* the longest of 1 control sample has 5\."):
        used([40], heldout=[5])
    with pytest.raises(InputError, match=r"samples of at least 34 tokens, .* the longest of 1 sample has 33\."):
        used([33], suffix_tokens=26)


def test_short_samples_are_left_out_and_counted_as_in_an_audit():
    """Rows stay those of the input, with their groups; the figures are those of the long ones alone."""
    long, short = [list(range(k, k + 24)) for k in (1, 9, 20, 30)], [[5, 6, 7], list(range(40, 55))]
    unseen = [[60 - k for k in range(n)] for n in (15, 24, 2, 23)]
    members = [long[0], short[0], long[1], long[2], short[1], long[3]]
    labels = list("aabbcc"), list("xyxz")
    found = extract(counts_to_64, members, unseen, groups=labels, oracle=UniformModel(64))
    alone = extract(counts_to_64, long, unseen[1::2], oracle=UniformModel(64))
    assert found.settings["members"]["too_short"] == [1, 4]
    assert found.settings["heldout"]["too_short"] == [0, 2]
    assert found.settings["prefix_tokens"] == alone.settings["prefix_tokens"] == [8]
    assert found.samples_to_pandas()["sample"].tolist() == [0, 2, 3, 5, 1, 3]
    assert (found.member_groups, found.heldout_groups) == (tuple("abbc"), ("y", "z"))
    assert found.prefix_needed.tolist() == alone.prefix_needed.tolist()
    assert found.member_oracle_bits.tolist() == alone.member_oracle_bits.tolist()
    assert "left out     2 of 6 members: too short to ask" in repr(found)
    assert "left out     2 of 4 held-out samples: too short to ask" in repr(found)
    assert "left out" not in repr(alone)
    asked = extract(counts_to_64, members, prefix_tokens=(2, 10))  # named ones: the longest of them, and a token
    assert asked.settings["members"]["too_short"] == [1]


def counts_to_64(ids):
    return torch.nn.functional.one_hot((ids + 1) % 64, 64).float()


def test_a_result_is_frozen(found):
    with pytest.raises(dataclasses.FrozenInstanceError):
        found.settings = {}
    with pytest.raises(dataclasses.FrozenInstanceError):
        found.rates[0].excess = 1.0


@pytest.mark.parametrize("heldout", [True, False])
def test_what_was_saved_comes_back(found, tmp_path, heldout):
    if not heldout:
        found = extract(
            counts_on, ["abc", "aBc", "bcdf"], tokenizer=Letters(), prefix_tokens=(1, 2), on_lossy_text="skip"
        )
    found.save(tmp_path / "deep" / "folder")
    loaded = Extraction.load(str(tmp_path / "deep" / "folder"))
    for field in dataclasses.fields(Extraction):
        ours, theirs = getattr(found, field.name), getattr(loaded, field.name)
        if field.name == "settings" or field.name.endswith("about"):
            assert ours == theirs
        elif ours is None:
            assert theirs is None
        else:
            assert ours.dtype == theirs.dtype, field.name
            assert ours.tolist() == theirs.tolist(), field.name
    assert repr(loaded) == repr(found)
    pd.testing.assert_frame_equal(loaded.samples_to_pandas(), found.samples_to_pandas())
    pd.testing.assert_frame_equal(pd.read_parquet(tmp_path / "deep" / "folder" / "rates.parquet"), found.to_pandas())
    assert loaded.rate(2).member_rate == found.rate(2).member_rate


def damage(folder, how):
    if how.startswith("no "):
        (folder / how[3:]).unlink()
    elif how.startswith("cut "):
        file = folder / how[4:]
        file.write_bytes(file.read_bytes()[:-30])
    elif how == "token":
        pd.read_parquet(folder / "tokens.parquet").iloc[:-1].to_parquet(folder / "tokens.parquet")
    elif how == "column":
        pd.read_parquet(folder / "samples.parquet").drop(columns="n_tokens").to_parquet(folder / "samples.parquet")
    elif how in ("order", "empty", "member"):
        table = pd.read_parquet(folder / "samples.parquet")
        if how == "order":
            table = table.iloc[::-1]
        elif how == "empty":
            table["n_tokens"] = [0, 9, 4, 4, 4]
        else:
            table.loc[2, "member"] = False
        table.to_parquet(folder / "samples.parquet")
    else:
        content = json.loads((folder / "settings.json").read_text(encoding="utf-8"))
        if how == "kind":
            content["kind"] = "CodeLengths"
        else:
            del content["prefix_tokens"], content["model"]
        (folder / "settings.json").write_text(json.dumps(content))


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("no settings.json", "holds no saved Extraction: settings.json cannot be read"),
        ("no samples.parquet", "samples.parquet cannot be read"),
        ("no tokens.parquet", "tokens.parquet cannot be read"),
        ("cut settings.json", "holds no saved Extraction"),
        ("cut samples.parquet", "samples.parquet cannot be read"),
        ("cut tokens.parquet", "tokens.parquet cannot be read"),
        ("token", "is damaged: its samples have 21 tokens, tokens.parquet holds 20"),
        ("empty", "is damaged: its samples have 21 tokens, tokens.parquet holds 21"),
        ("column", "samples.parquet cannot be read"),
        ("order", "is damaged: samples.parquet should hold 3 members and then 2 held-out samples"),
        ("member", "is damaged: samples.parquet should hold 3 members and then 2 held-out samples"),
        ("kind", "holds a CodeLengths, not a Extraction"),
        ("keys", "is damaged: settings.json lacks model, prefix_tokens"),
    ],
)
def test_a_damaged_folder_is_an_error(found, tmp_path, how, message):
    found.save(tmp_path)
    as_saved_by_0_1_0(tmp_path)
    damage(tmp_path, how)
    with pytest.raises(ResultError, match=message):
        Extraction.load(tmp_path)


def test_picture(found, tmp_path):
    import matplotlib.pyplot as plt

    figure, ax = plt.subplots()
    try:
        assert found.plot(ax) is ax
        assert ax.get_yscale() == "log"
        lines = {line.get_label(): line for line in ax.lines}
        np.testing.assert_allclose(lines["members (n = 3)"].get_ydata(), [1 / 3, 2 / 3])
        # Of none extracted what is known is the upper end.
        none = [line for line in ax.lines if line.get_marker() == "v" and len(line.get_xdata())]
        assert [line.get_ydata().tolist() for line in none] == [[found.rate(1).heldout_interval[1]] * 2]
        assert [text.get_text() for text in ax.get_legend().get_texts()] == [
            "members (n = 3)",
            "held-out samples (n = 2)",
            "none extracted: upper end of the interval",
        ]
        assert [label.get_text() for label in ax.get_xticklabels()] == ["1", "3"]
        low, high = ax.get_ylim()
        assert 0 < low < 1 / 3 < 1 < high
        figure.canvas.draw()
    finally:
        plt.close(figure)
    alone = extract(counts_on, [[1, 2, 3]], prefix_tokens=(1,)).plot()
    try:
        assert [text.get_text() for text in alone.get_legend().get_texts()] == ["members (n = 1)"]
        alone.figure.canvas.draw()
    finally:
        plt.close(alone.figure)


# --- refusals


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"prefix_tokens": ()},
            r'prefix_tokens must be "auto" or a list of prefix lengths, such as \[8, 16\]; it is \(\)',
        ),
        ({"prefix_tokens": 8}, 'prefix_tokens must be "auto" or a list .*it is 8'),
        ({"prefix_tokens": "8"}, "prefix_tokens must be .*it is '8'"),
        ({"prefix_tokens": (0,)}, "each of prefix_tokens must be an integer of at least 1; it is 0"),
        ({"prefix_tokens": (2, -1)}, "each of prefix_tokens must be an integer of at least 1; it is -1"),
        ({"prefix_tokens": (True,)}, "each of prefix_tokens must be an integer of at least 1; it is True"),
        ({"prefix_tokens": (1.0,)}, r"each of prefix_tokens must be an integer of at least 1; it is 1\.0"),
        ({"prefix_tokens": (2, 1, 2)}, "prefix_tokens names 2 twice"),
        (
            {"prefix_tokens": (5,)},
            r"samples of at least 6 tokens, a prefix and a suffix, and the longest of 3 samples has 5\.",
        ),
        ({"prefix_tokens": (1, 5)}, "samples of at least 6 tokens"),
        ({"suffix_tokens": 4, "prefix_tokens": (2,)}, "samples of at least 6 tokens"),
        (
            {"control": [[1, 3], [1, 2]], "prefix_tokens": (2,)},
            r"samples of at least 3 tokens, a prefix and a suffix, and the longest of 2 control samples has 2\.",
        ),
        ({"suffix_tokens": 0}, "suffix_tokens must be None or an integer of at least 1; it is 0"),
        ({"suffix_tokens": True}, "suffix_tokens must be None or an integer of at least 1; it is True"),
        ({"batch_size": 0}, 'batch_size must be "auto" or an integer of at least 1; it is 0'),
        ({"batch_size": "all"}, "batch_size must be \"auto\" or an integer of at least 1; it is 'all'"),
        ({"level": 1.0}, r"level must be a number between 0 and 1, such as 0\.95; it is 1\.0"),
        ({"control": [[4, 4], [7, 6, 5, 4]]}, r"sample 2 is also control sample 1: \(7, 6, 5, 4\) \(1 of 3"),
        ({"control": ["text"]}, "samples are token ids and control samples texts"),
        ({"control": []}, "samples is empty"),
        (
            {"control": [[1, 2, 3], [1, 16, 3]]},
            r"control: token ids must lie in \[0, 16\); .* 16 in sample 1 at position 1",
        ),
        ({"first_token": 16}, "samples: the context token has id 16, outside"),
        ({"first_token": "x"}, "first_token='x' is neither a rule"),
        ({"samples": ["text"]}, "samples: the samples are texts, and no tokenizer is at hand"),
        ({"dtype": "float32"}, "dtype='float32' applies to models loaded by name"),
    ],
)
def test_what_cannot_be_is_refused(no_type_checker, options, message):
    members = [[1, 2, 3, 4], [1, 2, 9, 10, 11], [7, 6, 5, 4]]
    with pytest.raises(InputError, match=message):
        extract(counts_on, **{"samples": members, "prefix_tokens": (1,), **options})


def test_at_the_boundaries_it_is_not_refused(no_type_checker):
    found = extract(counts_on, [[1, 2, 3, 4], [5, 6, 7]], [[7, 6, 5]], prefix_tokens=range(1, 3), suffix_tokens=1)
    assert found.settings["prefix_tokens"] == [1, 2]
    for prefix in (0, -1, True):
        with pytest.raises(InputError, match="prefix_tokens must be an integer of at least 1"):
            found.rate(prefix)
    assert found.rate(np.int64(2)) == found.rate(2)
    with pytest.raises(InputError, match="sample 1 has 3 tokens, too few for a prefix of 3"):
        found.rate(3)


def test_a_single_token_is_too_short():
    for first_token in ("uniform", "skip", 0):
        with pytest.raises(InputError, match=r"the longest of 2 samples has 1\."):
            extract(counts_on, [[2], [1]], prefix_tokens=(1,), first_token=first_token)
        found = extract(counts_on, [[1, 2], [1]], prefix_tokens=(1,), first_token=first_token)
        assert found.settings["members"]["too_short"] == [1]


def test_samples_longer_than_the_window(tiny_gpt2, bpe_tokenizer):
    """64 positions: a context token and 63 of the sample predict the last of 64; without it 64 predict a 65th."""
    for first_token, longest in (("uniform", 65), (0, 64)):
        extract(tiny_gpt2, [[1] * longest], prefix_tokens=(1,), first_token=first_token)
        with pytest.raises(
            InputError,
            match=r"control sample 1 needs 65 positions, and GPT2LMHeadModel or its tokenizer takes 64\. Pass suffix_tokens",
        ):
            extract(tiny_gpt2, [[1] * 9], [[2], [1] * (longest + 1)], prefix_tokens=(1,), first_token=first_token)


def test_what_is_no_model_is_refused():
    with pytest.raises(ModelError, match="must map int64 ids"):
        extract(lambda ids: ids, [[1, 2]], prefix_tokens=(1,))
    shared = SimpleNamespace(calls=0)

    def shrinks(ids: Tensor) -> Tensor:
        shared.calls += 1
        return torch.zeros(*ids.shape, 4 if shared.calls < 3 else 3)

    with pytest.raises(ModelError, match="it returned"):
        extract(shrinks, [[1, 2]], prefix_tokens=(1,))


def test_scipy_stats_stays_away():
    """Intervals need betaincinv only; scipy.stats takes a second to load."""
    import subprocess

    code = (
        "import sys; from memorization.extraction import extract; import torch;"
        "r = extract(lambda ids: torch.zeros(*ids.shape, 4), [[1, 2]], [[2, 3]], prefix_tokens=(1,)); repr(r);"
        "print([m for m in ('scipy.stats', 'scipy.optimize', 'transformers', 'matplotlib') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
