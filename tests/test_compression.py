"""compress_bits: closed forms, the first token, batches, results that can be kept."""

import dataclasses
import itertools
import json
import math
import warnings

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from saved_folders import as_saved_by_0_1_0
from torch import Tensor

from memorization import CodeLengths, UniformModel, compress_bits, unintended_memorization
from memorization.errors import FirstTokenWarning, InputError, LossyTextError, ResultError


def near_ideal(lengths: CodeLengths) -> bool:
    """The bound of the coder: 0.1 % + 0.1 bits + 1e-4 bits a token."""
    bound = 1e-3 * lengths.ideal_bits + 0.1 + 1e-4 * lengths.n_tokens
    return bool((np.abs(lengths.bits - lengths.ideal_bits) <= bound).all())


# --- closed forms


@pytest.mark.parametrize("vocab_size", [1, 2, 3, 10, 256, 2048, 50_257])
@pytest.mark.parametrize("first_token", ["uniform", "skip", 0])
def test_a_uniform_model_costs_log2_v_a_token_exactly(vocab_size, first_token):
    samples = [np.random.default_rng(n).integers(0, vocab_size, n).tolist() for n in (2, 64, 17)]
    lengths = compress_bits(UniformModel(vocab_size), samples, first_token=first_token)
    coded = [n - (first_token == "skip") for n in (2, 64, 17)]
    assert lengths.n_tokens.tolist() == coded
    np.testing.assert_allclose(lengths.token_bits, math.log2(vocab_size), rtol=1e-15)
    np.testing.assert_allclose(lengths.ideal_bits, np.array(coded) * math.log2(vocab_size), rtol=1e-14)
    np.testing.assert_allclose(lengths.bits, lengths.ideal_bits, atol=0.05)


def test_704_bits():
    """V = 2,048, S = 64: the paper's synthetic sample."""
    lengths = compress_bits(UniformModel(2048), np.arange(640).reshape(10, 64))
    assert lengths.ideal_bits.tolist() == [704.0] * 10
    assert (np.abs(lengths.bits - 704) < 0.05).all()
    assert lengths.bits_per_token == pytest.approx(11, abs=1e-3)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_bigram_model_reaches_its_entropy(dtype):
    rng = np.random.default_rng(0)
    vocab_size, n_samples, length = 12, 300, 64
    transition = rng.dirichlet(np.full(vocab_size, 0.4), size=vocab_size)
    transition = 0.98 * transition + 0.02 / vocab_size
    stationary = np.linalg.matrix_power(transition, 500)[0]
    surprise = -np.log2(transition)
    entropy = float(stationary @ (transition * surprise).sum(axis=1))

    samples = np.empty((n_samples, length), dtype=np.int64)
    samples[:, 0] = rng.choice(vocab_size, n_samples, p=stationary)
    for t in range(1, length):
        thresholds = transition[samples[:, t - 1]].cumsum(axis=1)
        samples[:, t] = (rng.random((n_samples, 1)) > thresholds).sum(axis=1).clip(max=vocab_size - 1)

    table = torch.from_numpy(np.log(transition)).to(dtype)
    lengths = compress_bits(lambda ids: table[ids], samples)
    expected = np.concatenate(
        [np.full((n_samples, 1), np.log2(vocab_size)), surprise[samples[:, :-1], samples[:, 1:]]], 1
    )
    np.testing.assert_allclose(lengths.token_bits.reshape(expected.shape), expected, atol=1e-6)
    assert near_ideal(lengths)

    per_sample = (lengths.ideal_bits - np.log2(vocab_size)) / (length - 1)
    stderr = per_sample.std(ddof=1) / np.sqrt(n_samples)
    assert stderr < 0.02
    assert abs(per_sample.mean() - entropy) < 4 * stderr
    coded = (lengths.bits - np.log2(vocab_size)) / (length - 1)
    assert abs(coded.mean() - entropy) < 4 * stderr + 0.002


@pytest.mark.parametrize("gap", [1.0, 12.0, 20.0, 34.0])
def test_a_perfect_memorizer(gap):
    """A model that knows what comes next, by `gap` nats: log2(1 + (V - 1) e^-gap) bits a token, however little that is."""
    vocab_size = 500
    samples = np.random.default_rng(1).permutation(vocab_size)[:120].reshape(3, 40)
    following = torch.zeros(vocab_size, dtype=torch.int64)
    for row in torch.from_numpy(samples):
        following[row[:-1]] = row[1:]

    def memorizer(ids: Tensor) -> Tensor:
        return gap * torch.nn.functional.one_hot(following[ids], vocab_size).float()

    lengths = compress_bits(memorizer, samples, first_token="skip")
    exact = math.log1p((vocab_size - 1) * math.exp(-gap)) / math.log(2)
    np.testing.assert_allclose(lengths.token_bits, exact, rtol=1e-5)
    np.testing.assert_allclose(lengths.ideal_bits, 39 * exact, rtol=1e-5)
    assert near_ideal(lengths)
    if gap == 34.0:
        assert 0 < lengths.ideal_bits[0] < 1e-9
        assert lengths.bits[0] < 0.01


def test_a_confidently_wrong_model_is_charged_in_full():
    """45 nats against each token: log2(V - 1 + e^45) bits a token, far beyond what a 24-bit grid can say in one step."""
    vocab_size = 64

    def wrong(ids: Tensor) -> Tensor:
        return -45 * torch.nn.functional.one_hot((ids + 1) % vocab_size, vocab_size).float()

    lengths = compress_bits(wrong, [list(range(33))], first_token="skip")
    exact = (45 + math.log(63 + math.exp(-45))) / math.log(2)
    np.testing.assert_allclose(lengths.token_bits, exact, rtol=1e-6)
    assert near_ideal(lengths)


def test_shifted_logits_are_the_same_model():
    table = torch.from_numpy(np.random.default_rng(2).normal(size=(20, 20)).astype(np.float32))
    samples = [np.random.default_rng(3).integers(0, 20, 50).tolist()]
    plain = compress_bits(lambda ids: table[ids], samples)
    shifted = compress_bits(lambda ids: table[ids] + 1000 * (ids[..., None] - 5.0), samples)
    np.testing.assert_allclose(shifted.token_bits, plain.token_bits, atol=3e-3)  # float32 keeps 5e-4 of 15,000
    doubled = compress_bits(lambda ids: table[ids] + 8 * (ids[..., None] - 5.0), samples)
    np.testing.assert_allclose(doubled.token_bits, plain.token_bits, atol=1e-4)


def test_an_object_with_logits():
    class Output:
        def __init__(self, logits):
            self.logits = logits

    table = torch.from_numpy(np.random.default_rng(4).normal(size=(7, 7)).astype(np.float32))
    samples = [[1, 2, 3, 4]]
    wrapped = compress_bits(lambda ids: Output(table[ids]), samples)
    assert wrapped.token_bits.tolist() == compress_bits(lambda ids: table[ids], samples).token_bits.tolist()


def test_half_precision_logits_are_read_in_float32():
    """A bfloat16 log-softmax would turn a token of 0.0015 bits into one of exactly 0."""

    def peaked(ids: Tensor) -> Tensor:
        return 11.0 * torch.nn.functional.one_hot((ids + 1) % 64, 64).to(torch.bfloat16)

    lengths = compress_bits(peaked, [list(range(40))], first_token="skip")
    np.testing.assert_allclose(lengths.token_bits, math.log1p(63 * math.exp(-11)) / math.log(2), rtol=1e-5)


# --- totals and tables


def test_totals_add_up(tiny_gpt2, bpe_tokenizer):
    texts = ["The house met.", "naïve 雪", "And adjourned, and the house met again."]
    lengths = compress_bits(tiny_gpt2, texts, tokenizer=bpe_tokenizer)
    assert len(lengths) == 3
    assert lengths.n_bytes.tolist() == [14, 10, 39]
    assert lengths.n_tokens.tolist() == [len(bpe_tokenizer(t, add_special_tokens=False)["input_ids"]) for t in texts]
    assert lengths.token_offsets.tolist() == [0, *np.cumsum(lengths.n_tokens)]
    by_sample = np.add.reduceat(lengths.token_bits, lengths.token_offsets[:-1])
    np.testing.assert_allclose(by_sample, lengths.ideal_bits, rtol=1e-12)
    assert lengths.total_bits == pytest.approx(sum(lengths.bits))
    assert lengths.bits_per_token == pytest.approx(sum(lengths.bits) / sum(lengths.n_tokens))
    assert lengths.bits_per_byte == pytest.approx(sum(lengths.bits) / 63)
    ids = [i for t in texts for i in bpe_tokenizer(t, add_special_tokens=False)["input_ids"]]
    assert lengths.token_ids.tolist() == ids
    assert {getattr(lengths, name).dtype for name in ("bits", "ideal_bits", "token_bits")} == {np.dtype("float64")}
    assert {getattr(lengths, name).dtype for name in ("n_tokens", "n_bytes", "token_ids")} == {np.dtype("int64")}


def test_tables(tiny_gpt2):
    lengths = compress_bits(tiny_gpt2, [[1, 2, 3], [4], [5, 6]], first_token=0)
    table, tokens = lengths.to_pandas(), lengths.tokens_to_pandas()
    assert table.columns.tolist() == ["sample", "bits", "ideal_bits", "n_tokens", "n_bytes", "preview"]
    assert table["sample"].tolist() == [0, 1, 2]
    assert table["bits"].tolist() == lengths.bits.tolist()
    assert tokens.columns.tolist() == ["sample", "position", "token_id", "bits", "greedy"]
    assert tokens["sample"].tolist() == [0, 0, 0, 1, 2, 2]
    assert tokens["position"].tolist() == [0, 1, 2, 0, 0, 1]
    assert tokens["token_id"].tolist() == [1, 2, 3, 4, 5, 6]
    summed = tokens.groupby("sample")["bits"].sum()
    np.testing.assert_allclose(summed, table["ideal_bits"], rtol=1e-12)
    assert summed.sum() == pytest.approx(lengths.ideal_bits.sum(), rel=1e-12)


def test_bits_per_byte_is_unknown_where_bytes_are():
    assert math.isnan(compress_bits(UniformModel(4), [[1, 2]]).bits_per_byte)
    letters = Letters()
    assert math.isnan(compress_bits(UniformModel(27), ["ab"], tokenizer=letters, first_token="skip").bits_per_byte)
    assert compress_bits(UniformModel(27), ["ab"], tokenizer=letters).bits_per_byte == pytest.approx(
        math.log2(27), abs=0.05
    )


def test_a_result_is_frozen():
    lengths = compress_bits(UniformModel(4), [[1, 2]])
    with pytest.raises(dataclasses.FrozenInstanceError):
        lengths.bits = np.zeros(1)


# --- the first token


class Letters:
    """a to z are 1 to 26. Lower case only, when `lower`: other texts do not survive."""

    def __init__(self, *, bos: int | None = 0, chat_template: str | None = None, lower: bool = False):
        self.bos_token_id, self.chat_template, self.lower = bos, chat_template, lower
        self.vocabulary = {"<bos>": 0, **{chr(96 + i): i for i in range(1, 27)}}

    def __len__(self):
        return len(self.vocabulary)

    def __call__(self, texts, **_):
        return {"input_ids": [[self.vocabulary[c] for c in (t.lower() if self.lower else t)] for t in texts]}

    def decode(self, ids, **_):
        return "".join(self.convert_ids_to_tokens(i) for i in ids)

    def get_vocab(self):
        return dict(self.vocabulary)

    def convert_ids_to_tokens(self, i):
        return list(self.vocabulary)[i] if i < len(self.vocabulary) else None


PAIRS = np.random.default_rng(6).normal(scale=2.0, size=(40, 40))


def pair_model(ids: Tensor) -> Tensor:
    """The next token depends on the last alone: token_bits tell which token stood before."""
    return torch.from_numpy(PAIRS).float()[ids]


def pair_bits(*tokens: int) -> list[float]:
    """Bits of all tokens but the first, each given the one before."""
    nats = [np.log(np.exp(PAIRS[a]).sum()) - PAIRS[a, b] for a, b in itertools.pairwise(tokens)]
    return [float(x / np.log(2)) for x in nats]


LOG_27 = math.log2(27)


@pytest.mark.parametrize(
    ("first_token", "bos", "rule", "token_id", "expected"),
    [
        ("auto", 0, "bos", 0, pair_bits(0, 3, 1, 2)),
        ("auto", None, "uniform", None, [LOG_27, *pair_bits(3, 1, 2)]),
        ("bos", 0, "bos", 0, pair_bits(0, 3, 1, 2)),
        ("bos", 5, "bos", 5, pair_bits(5, 3, 1, 2)),
        ("uniform", 0, "uniform", None, [LOG_27, *pair_bits(3, 1, 2)]),
        ("skip", 0, "skip", None, pair_bits(3, 1, 2)),
        (7, 0, "token", 7, pair_bits(7, 3, 1, 2)),
        (30, 0, "token", 30, pair_bits(30, 3, 1, 2)),
        ("e", 0, "token", 5, pair_bits(5, 3, 1, 2)),
        ("<bos>", None, "token", 0, pair_bits(0, 3, 1, 2)),
    ],
)
def test_what_the_first_token_is_coded_with(first_token, bos, rule, token_id, expected):
    lengths = compress_bits(pair_model, ["cab"], tokenizer=Letters(bos=bos), first_token=first_token)
    np.testing.assert_allclose(lengths.token_bits, expected, atol=1e-5)
    assert lengths.n_tokens.tolist() == [len(expected)]
    assert lengths.token_ids.tolist() == [3, 1, 2][-len(expected) :]
    record = lengths.settings["first_token"]
    assert (record["asked"], record["rule"], record["id"]) == (first_token, rule, token_id)
    words = {"bos": "bos: given", "uniform": "uniform: log2", "skip": "skip: left out", "token": "given"}[rule]
    assert f"first token  {words}" in repr(lengths)
    if token_id == 0:
        assert "'<bos>' (id 0)" in repr(lengths)


def test_ids_without_a_tokenizer_are_coded_uniformly():
    lengths = compress_bits(pair_model, [[3, 1, 2]])
    np.testing.assert_allclose(lengths.token_bits, [math.log2(40), *pair_bits(3, 1, 2)], atol=1e-5)
    record = lengths.settings["first_token"]
    assert (record["asked"], record["rule"], record["id"], record["evidence"]) == ("auto", "uniform", None, None)
    np.testing.assert_allclose(
        compress_bits(pair_model, [[3, 1]], first_token=9).token_bits, pair_bits(9, 3, 1), atol=1e-5
    )


def test_ids_that_begin_with_the_bos_bring_their_own_context():
    lengths = compress_bits(pair_model, [[0, 3, 1], [3, 1], [3, 0], [0, 0, 3]], tokenizer=Letters(bos=0))
    expected = [pair_bits(0, 3, 1), pair_bits(0, 3, 1), pair_bits(0, 3, 0), pair_bits(0, 0, 3)]
    np.testing.assert_allclose(lengths.token_bits, np.concatenate(expected), atol=1e-5)
    assert lengths.n_tokens.tolist() == [2, 2, 2, 2]
    assert lengths.token_ids.tolist() == [3, 1, 3, 1, 3, 0, 0, 3]


def test_only_the_bos_rule_takes_a_first_id_for_context():
    """Random ids may begin with the id that was named as context: then it is coded, given itself."""
    ids = [[0, 3, 1]]
    np.testing.assert_allclose(
        compress_bits(pair_model, ids, first_token=0).token_bits, pair_bits(0, 0, 3, 1), atol=1e-5
    )
    with_tokenizer = compress_bits(pair_model, ids, tokenizer=Letters(bos=0), first_token="uniform")
    np.testing.assert_allclose(with_tokenizer.token_bits, [LOG_27, *pair_bits(0, 3, 1)], atol=1e-5)
    named = compress_bits(pair_model, ids, tokenizer=Letters(bos=0), first_token="<bos>")
    np.testing.assert_allclose(named.token_bits, pair_bits(0, 0, 3, 1), atol=1e-5)


def test_a_text_that_begins_with_the_bos_is_text(tiny_gpt2, bpe_tokenizer):
    lengths = compress_bits(tiny_gpt2, ["<|endoftext|>a"], tokenizer=bpe_tokenizer)
    assert lengths.token_ids.tolist()[0] == bpe_tokenizer.bos_token_id
    assert lengths.n_tokens.tolist() == [2]


def test_no_special_token_is_added(tiny_gpt2, bpe_tokenizer):
    from tokenizers.processors import TemplateProcessing

    eager = type(bpe_tokenizer)(
        tokenizer_object=type(bpe_tokenizer.backend_tokenizer).from_str(bpe_tokenizer.backend_tokenizer.to_str()),
        bos_token="<|endoftext|>",
        eos_token="<|endoftext|>",
    )
    eager.backend_tokenizer.post_processor = TemplateProcessing(
        single="<|endoftext|> $A <|endoftext|>", special_tokens=[("<|endoftext|>", 0)]
    )
    assert eager("ab")["input_ids"][0] == eager("ab")["input_ids"][-1] == 0
    plain, added = (compress_bits(tiny_gpt2, ["ab"], tokenizer=t) for t in (bpe_tokenizer, eager))
    assert added.token_ids.tolist() == plain.token_ids.tolist()
    assert 0 not in added.token_ids
    assert added.token_bits.tolist() == plain.token_bits.tolist()


@pytest.mark.parametrize("first_token", ["auto", "bos"])
def test_a_bos_of_the_chat_template_is_warned_of(first_token):
    chatty = Letters(chat_template="{{ '<bos>' + message }}")
    with pytest.warns(FirstTokenWarning, match=r"the BOS '<bos>' is the chat template's marker.*<\|endoftext\|>"):
        compress_bits(pair_model, ["ab"], tokenizer=chatty, first_token=first_token)


def test_a_named_token_is_not_warned_of():
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        compress_bits(pair_model, ["ab"], tokenizer=Letters(chat_template="<bos>"), first_token="<bos>")
        compress_bits(pair_model, ["ab"], tokenizer=Letters(chat_template="<bos>"), first_token="uniform")
        compress_bits(pair_model, ["ab"], tokenizer=Letters(chat_template="<other>"))
    assert not caught


def test_padded_embeddings():
    """Logits wider than the tokenizer: padding stays in the softmax, a uniform first token has the tokenizer's size."""
    lengths = compress_bits(UniformModel(32), ["cab"], tokenizer=Letters(bos=None))
    np.testing.assert_allclose(lengths.token_bits, [math.log2(27), 5, 5], rtol=1e-12)
    assert lengths.settings["uniform_vocab_size"] == 27
    assert lengths.settings["model"]["vocab_size"] == 32
    without = compress_bits(UniformModel(32), [[3, 1, 2]])
    np.testing.assert_allclose(without.token_bits, [5, 5, 5])


def test_the_limit_of_the_tokenizer_where_the_model_has_none(bpe_tokenizer):
    text = "Fellow citizens of the senate " * 8
    n_tokens = len(bpe_tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"])
    assert n_tokens > 64
    lengths = compress_bits(UniformModel(300), [text], tokenizer=bpe_tokenizer)
    assert (lengths.settings["max_length"], lengths.settings["stride"]) == (64, 32)
    assert lengths.n_tokens.tolist() == [n_tokens]
    unlimited = type(bpe_tokenizer)(tokenizer_object=bpe_tokenizer.backend_tokenizer)
    assert unlimited.model_max_length > 1e29
    assert compress_bits(UniformModel(300), ["a"], tokenizer=unlimited).settings["max_length"] is None


def test_a_tokenizer_that_would_truncate_or_pad_does_not(bpe_tokenizer):
    backend = type(bpe_tokenizer.backend_tokenizer).from_str(bpe_tokenizer.backend_tokenizer.to_str())
    backend.enable_truncation(5)
    backend.enable_padding(length=70)
    cutting = type(bpe_tokenizer)(tokenizer_object=backend, pad_token="<|endoftext|>")
    texts = ["Fellow citizens of the senate", "a"]
    expected = [len(bpe_tokenizer(text, add_special_tokens=False)["input_ids"]) for text in texts]
    assert compress_bits(UniformModel(300), texts, tokenizer=cutting).n_tokens.tolist() == expected


# --- batches, order, padding


@pytest.fixture(scope="module")
def alone(tiny_gpt2):
    """Twelve samples of 1 to 256 ids, one longer than the positions of the model, each measured alone."""
    rng = np.random.default_rng(7)
    samples = [rng.integers(0, 300, n).tolist() for n in (2, 3, 5, 9, 17, 33, 40, 64, 64, 100, 256, 1)]
    return samples, [compress_bits(tiny_gpt2, [sample], batch_size=1) for sample in samples]


@given(
    order=st.permutations(range(12)), batch_size=st.one_of(st.just("auto"), st.integers(1, 13)), n=st.integers(1, 12)
)
@settings(max_examples=25)
def test_a_sample_costs_the_same_in_any_company(tiny_gpt2, alone, order, batch_size, n):
    samples, expected = alone
    order = order[:n]
    lengths = compress_bits(tiny_gpt2, [samples[i] for i in order], batch_size=batch_size)
    for k, i in enumerate(order):
        assert lengths.ideal_bits[k] == pytest.approx(expected[i].ideal_bits[0], abs=1e-3)
        assert lengths.bits[k] == pytest.approx(expected[i].bits[0], abs=0.05)
        own = lengths.token_bits[lengths.token_offsets[k] : lengths.token_offsets[k + 1]]
        np.testing.assert_allclose(own, expected[i].token_bits, atol=1e-4)
        assert lengths.token_ids[lengths.token_offsets[k] : lengths.token_offsets[k + 1]].tolist() == samples[i]


def test_padding_is_not_scored(tiny_gpt2):
    """One long sample makes 60 positions of padding in the others; ids equal to the padding are coded nevertheless."""
    samples = [[0, 0, 0], [5, 0], list(range(1, 64))]
    together = compress_bits(tiny_gpt2, samples, batch_size=3)
    assert together.n_tokens.tolist() == [3, 2, 63]
    for i, sample in enumerate(samples):
        assert together.ideal_bits[i] == pytest.approx(compress_bits(tiny_gpt2, [sample]).ideal_bits[0], abs=1e-3)


# --- texts that do not survive


def test_lossy_texts_are_refused_or_skipped(tmp_path):
    texts = ["abc", "Abc", "zz", "ABC"]
    letters = Letters(lower=True)
    with pytest.raises(LossyTextError, match=r"2 of 4 texts do not survive .*sample 1 is 'Abc'"):
        compress_bits(pair_model, texts, tokenizer=letters)
    lengths = compress_bits(pair_model, texts, tokenizer=letters, on_lossy_text="skip")
    plain = compress_bits(pair_model, ["abc", "zz"], tokenizer=letters)
    assert lengths.bits.tolist() == plain.bits.tolist()
    assert lengths.n_bytes.tolist() == [3, 2]
    assert lengths.settings["samples"]["lossy_skipped"] == [1, 3]
    assert lengths.index.tolist() == [0, 2]
    assert lengths.to_pandas()["sample"].tolist() == [0, 2]
    assert lengths.tokens_to_pandas()["sample"].tolist() == [0, 0, 0, 2, 2]
    lengths.save(tmp_path)
    assert CodeLengths.load(tmp_path).to_pandas()["sample"].tolist() == [0, 2]


def test_a_lowercasing_tokenizer_of_transformers(tiny_gpt2, bpe_tokenizer):
    from tokenizers.normalizers import Lowercase

    lossy = type(bpe_tokenizer)(
        tokenizer_object=type(bpe_tokenizer.backend_tokenizer).from_str(bpe_tokenizer.backend_tokenizer.to_str()),
        bos_token="<|endoftext|>",
    )
    lossy.backend_tokenizer.normalizer = Lowercase()
    texts = ["the house", "The House", "again"]
    with pytest.raises(LossyTextError, match=r"1 of 3 texts .*sample 1 is 'The House', .* is 'the house'"):
        compress_bits(tiny_gpt2, texts, tokenizer=lossy)
    lengths = compress_bits(tiny_gpt2, texts, tokenizer=lossy, on_lossy_text="skip")
    assert lengths.settings["samples"]["lossy_skipped"] == [1]
    assert lengths.n_bytes.tolist() == [9, 5]


# --- files, limits, records


def test_a_file_is_measured_like_its_texts(tiny_gpt2, bpe_tokenizer, tmp_path):
    texts = ["The house met.", "again", "bits"]
    pd.DataFrame({"body": [texts[0], None, *texts[1:]]}).to_parquet(tmp_path / "a.parquet")
    from_list = compress_bits(tiny_gpt2, texts, tokenizer=bpe_tokenizer)
    from_file = compress_bits(tiny_gpt2, tmp_path / "a.parquet", tokenizer=bpe_tokenizer, text_column="body")
    assert from_file.bits.tolist() == from_list.bits.tolist()
    assert from_file.settings["samples"]["n_blank_skipped"] == 1
    assert from_file.settings["samples"]["source"] == str(tmp_path / "a.parquet")
    two = compress_bits(tiny_gpt2, str(tmp_path / "a.parquet"), tokenizer=bpe_tokenizer, text_column="body", limit=2)
    np.testing.assert_allclose(two.ideal_bits, from_list.ideal_bits[:2], atol=1e-3)


def test_settings_record_what_was_decided(tiny_gpt2, bpe_tokenizer):
    settings_ = compress_bits(tiny_gpt2, ["The house"], tokenizer=bpe_tokenizer, stride=16).settings
    assert json.loads(json.dumps(settings_)) == settings_
    assert (settings_["max_length"], settings_["stride"], settings_["batch_size"]) == (64, 16, "auto")
    assert settings_["uniform_vocab_size"] == len(bpe_tokenizer)
    assert settings_["tokenizer"]["vocab_size"] == len(bpe_tokenizer)
    assert {"python", "torch", "numpy", "constriction", "transformers", "lm-memorization"} <= set(settings_["versions"])
    assert settings_["model"]["class"] == "GPT2LMHeadModel"


def test_repr_shows_the_numbers(tiny_gpt2, bpe_tokenizer):
    lengths = compress_bits(tiny_gpt2, ["The house met.", "again"], tokenizer=bpe_tokenizer)
    text = repr(lengths)
    assert f"CodeLengths of 2 samples, {lengths.n_tokens.sum()} tokens, 19 bytes" in text
    assert f"{lengths.total_bits:,.2f} bits" in text
    assert f"{lengths.ideal_bits.sum():,.2f} bits (-log2 p)" in text
    assert "GPT2LMHeadModel" in text


# --- save and load


@pytest.fixture
def saved(tiny_gpt2, bpe_tokenizer, tmp_path):
    lengths = compress_bits(tiny_gpt2, ["The house met.", "naïve", "a"], tokenizer=bpe_tokenizer)
    lengths.save(tmp_path / "deep" / "folder")
    return lengths, tmp_path / "deep" / "folder"


def test_what_was_saved_comes_back(saved):
    lengths, folder = saved
    loaded = CodeLengths.load(str(folder))
    for field in dataclasses.fields(CodeLengths):
        ours, theirs = getattr(lengths, field.name), getattr(loaded, field.name)
        if field.name in ("settings", "about"):
            assert ours == theirs
        else:
            assert ours.dtype == theirs.dtype, field.name
            assert ours.tolist() == theirs.tolist(), field.name
    assert repr(loaded) == repr(lengths)
    assert not [file.name for file in folder.iterdir() if file.name.startswith(".")]


def test_saving_twice_overwrites(saved):
    _, folder = saved
    other = compress_bits(UniformModel(8), [[1, 2]])
    with pytest.raises(ResultError, match="pass overwrite=True to replace it, or another folder"):
        other.save(folder, overwrite=False)
    with pytest.warns(FutureWarning, match="the CodeLengths that .* holds is replaced. Pass overwrite=True to say so"):
        other.save(folder)
    assert CodeLengths.load(folder).bits.tolist() == other.bits.tolist()


def damage(folder, how):
    if how.startswith("no "):
        (folder / how[3:]).unlink()
    elif how.startswith("cut "):
        file = folder / how[4:]
        file.write_bytes(file.read_bytes()[:-30])
    elif how == "column":
        pd.read_parquet(folder / "samples.parquet").drop(columns="bits").to_parquet(folder / "samples.parquet")
    elif how == "rows":
        pd.read_parquet(folder / "tokens.parquet").iloc[:-1].to_parquet(folder / "tokens.parquet")
    elif how == "list":
        (folder / "settings.json").write_text("[]")
    else:
        content = json.loads((folder / "settings.json").read_text(encoding="utf-8"))
        content |= {"kind": {"kind": "Memorization"}, "format": {"format": 99}}[how]
        (folder / "settings.json").write_text(json.dumps(content))


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("no settings.json", "holds no saved CodeLengths: settings.json cannot be read"),
        ("no samples.parquet", "samples.parquet cannot be read"),
        ("no tokens.parquet", "tokens.parquet cannot be read"),
        ("cut settings.json", "holds no saved CodeLengths: settings.json cannot be read"),
        ("cut samples.parquet", "samples.parquet cannot be read"),
        ("cut tokens.parquet", "tokens.parquet cannot be read"),
        ("rows", r"is damaged: its samples have \d+ tokens, tokens.parquet holds \d+"),
        ("column", "samples.parquet cannot be read: No match .*bits"),
        ("list", "holds no saved CodeLengths: settings.json holds no object"),
        ("kind", "holds a Memorization, not a CodeLengths"),
        (
            "format",
            r"has format 99, a format that this version does not read \(it reads 1 and 2\): load it with the version that saved it",
        ),
    ],
)
def test_a_damaged_folder_is_an_error(saved, how, message):
    _, folder = saved
    as_saved_by_0_1_0(folder)
    damage(folder, how)
    with pytest.raises(ResultError, match=message):
        CodeLengths.load(folder)


def test_a_folder_that_is_none():
    with pytest.raises(ResultError, match="holds no saved CodeLengths"):
        CodeLengths.load("/no/such/folder")


def test_input_error_is_a_value_error():
    """Who catches ValueError catches what the library refuses."""
    assert issubclass(InputError, ValueError)
    assert issubclass(LossyTextError, InputError)
    assert issubclass(ResultError, ValueError)


def test_one_of_a_kind_is_told_in_the_singular():
    one = compress_bits(UniformModel(16), [[3]], progress=False)
    assert repr(one).startswith("CodeLengths of 1 sample, 1 token")
    pair = unintended_memorization(UniformModel(16), UniformModel(16), [[3]], control=[[4]], progress=False)
    assert repr(pair).startswith("Memorization of 1 sample\n")
    assert "1 unseen sample\n" in repr(pair)
