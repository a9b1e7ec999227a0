"""Bits of bytes: every tokenizer's tokens cover the bytes of the text, each byte once, and their bits add up."""

import copy
import math

import numpy as np
import pytest
import torch
from conftest import SENTENCES, VOCAB_SIZE
from hypothesis import given, settings
from hypothesis import strategies as st

from memorization import CodeLengths, UniformModel, compress_bits
from memorization.errors import InputError
from memorization.measure.byte_bits import byte_bits, character_edges, token_edges
from memorization.measure.foreign_tokenizers import adopted
from memorization.samples import read_samples

TEXTS = ["The house met again.", "naïve — 雪", "𝄞 a\u0301 \ufffd", " two  spaces ", "a"]


def byte_level_bpe(vocab_size: int):
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    inner = Tokenizer(models.BPE())
    inner.pre_tokenizer, inner.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size, special_tokens=["<|é end|>"], initial_alphabet=alphabet, show_progress=False
    )
    inner.train_from_iterator([*SENTENCES, *TEXTS] * 3, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=inner, bos_token="<|é end|>", clean_up_tokenization_spaces=False)


def like_llama_2():
    """Spaces written as low lines, one put in front, and bytes where characters are unknown."""
    from tokenizers import Tokenizer, decoders, models, normalizers
    from transformers import PreTrainedTokenizerFast

    words = [f"<0x{i:02X}>" for i in range(256)] + ["▁", *"abehostuT.", "é", "th", "▁th", "he", "the"]
    merges = [("t", "h"), ("▁", "th"), ("h", "e"), ("t", "he")]
    vocab = {word: i for i, word in enumerate(["<unk>", *words])}
    inner = Tokenizer(models.BPE(vocab, merges, unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    inner.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    inner.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    return PreTrainedTokenizerFast(tokenizer_object=inner, unk_token="<unk>", clean_up_tokenization_spaces=False)


def like_tiktoken():
    import tiktoken

    pieces = [*(bytes([i]) for i in range(256)), b"\x9b\xaa", b"n\xc3", b"th", b"the", b" th", b"\xe2\x80"]
    ranks = {piece: i for i, piece in enumerate(pieces)}
    return tiktoken.Encoding("few", pat_str=r"[\s\S]+", mergeable_ranks=ranks, special_tokens={"<|end|>": 300})


def words_joined_by_spaces():
    """Nobody's token holds the space: decoding puts it there."""
    known: dict[str, int] = {}
    names: list[str] = []

    def encode(text: str) -> list[int]:
        for word in text.split(" "):
            if word not in known:
                known[word] = len(names)
                names.append(word)
        return [known[word] for word in text.split(" ")]

    return encode, lambda ids: " ".join(names[i] for i in ids)


STRICT = (lambda text: list(text.encode()), lambda ids: bytes(ids).decode())
LENIENT = (lambda text: list(text.encode()), lambda ids: bytes(ids).decode(errors="replace"))
CHARACTERS = (lambda text: [ord(c) for c in text], lambda ids: "".join(map(chr, ids)))
MAKERS = {
    "byte level": lambda: byte_level_bpe(320),
    "byte level, tokenizers": lambda: byte_level_bpe(280).backend_tokenizer,
    "sentencepiece": like_llama_2,
    "tiktoken": like_tiktoken,
    "bytes, strict": lambda: STRICT,
    "bytes, lenient": lambda: LENIENT,
    "characters": lambda: CHARACTERS,
    "words": words_joined_by_spaces,
}


@pytest.fixture(scope="module", params=MAKERS)
def tokenizer(request):
    if request.param == "tiktoken":
        pytest.importorskip("tiktoken")
    return adopted(MAKERS[request.param]())


@given(text=st.text(min_size=1, max_size=30), seed=st.integers(0, 2**32 - 1))
@settings(max_examples=30)
def test_bits_of_bytes_add_up_for_every_tokenizer(tokenizer, text, seed):
    try:
        samples = read_samples([text]).tokenize(tokenizer)
    except InputError:  # not given back: such texts are never measured
        return
    ids = samples.ids[0]
    (edges,) = token_edges([text], [ids], tokenizer)
    n_bytes = len(text.encode())
    assert edges[0] == 0
    assert edges[-1] == n_bytes
    assert (np.diff(edges) >= 0).all()
    bits = np.random.default_rng(seed).exponential(3, len(ids))
    found = byte_bits(bits, np.stack([edges[:-1], edges[1:]], axis=1), n_bytes)
    assert found.shape == (n_bytes,)
    assert abs(found.sum() - bits.sum()) < 1e-9
    # What stands before a token is what its bytes begin behind.
    for k in range(1, len(ids)):
        try:
            whole = tokenizer.decode(ids[:k].tolist()).rstrip("\ufffd")
        except UnicodeDecodeError:
            continue
        if text.startswith(whole):
            assert edges[k] >= len(whole.encode())


@given(text=st.text(min_size=1, max_size=40))
@settings(max_examples=60)
def test_a_byte_level_token_covers_its_own_bytes(bpe_tokenizer, text):
    ids = np.array(bpe_tokenizer(text, add_special_tokens=False)["input_ids"])
    (edges,) = token_edges([text], [ids], bpe_tokenizer)
    offsets = bpe_tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)["offset_mapping"]
    at = character_edges(text)
    for (start, end), low, high in zip(offsets, edges[:-1], edges[1:], strict=True):
        assert low < high
        assert at[start] <= low
        assert high <= at[end]


def test_characters_that_tokens_cut():
    pytest.importorskip("tiktoken")
    encoding = adopted(like_tiktoken())
    text = "né雪the"  # n C3 | A9 | E9 | 9B AA | the
    ids = np.array(encoding.encode(text))
    (edges,) = token_edges([text], [ids], encoding)
    assert edges.tolist() == [0, 2, 3, 4, 6, 9]
    assert byte_bits(np.array([2.0, 5, 7, 1, 3]), np.stack([edges[:-1], edges[1:]], 1), 9).tolist() == [
        *(1.0, 1.0, 5.0, 7.0, 0.5, 0.5, 1.0, 1.0, 1.0)
    ]


@pytest.mark.parametrize("pair", [STRICT, LENIENT], ids=["strict", "lenient"])
def test_a_part_of_a_character_that_decodes_to_nothing_goes_to_the_whole_character(pair):
    own = adopted(pair)
    (edges,) = token_edges(["a雪b"], [np.array(list("a雪b".encode()))], own)
    assert edges.tolist() == [0, 1, 1, 1, 4, 5]
    found = byte_bits(np.array([1.0, 2, 3, 4, 5]), np.stack([edges[:-1], edges[1:]], 1), 5)
    assert found.tolist() == [1.0, 3.0, 3.0, 3.0, 5.0]


def test_a_space_that_no_token_holds_goes_to_the_word_behind_it():
    own = adopted(words_joined_by_spaces())
    (edges,) = token_edges(["to be or"], [np.array(own.encode("to be or"))], own)
    assert edges.tolist() == [0, 2, 5, 8]


def test_a_space_that_the_tokenizer_puts_in_front_counts_for_nothing():
    own = like_llama_2()
    ids = own("the é", add_special_tokens=False)["input_ids"]
    assert own.convert_ids_to_tokens(ids)[0].startswith("▁")
    (edges,) = token_edges(["the é"], [np.array(ids)], own)
    assert edges[0] == 0
    assert edges[-1] == 6


def test_a_special_token_in_a_text_covers_its_name():
    own = byte_level_bpe(280)
    text = "a<|é end|>b"
    ids = np.array(own(text, add_special_tokens=False)["input_ids"])
    (edges,) = token_edges([text], [ids], own)
    assert edges.tolist() == [0, 1, 11, 12]


def test_bits_of_tokens_that_cover_nothing():
    places = np.array([[0, 0], [0, 2], [2, 2], [2, 2], [2, 3], [3, 3]])
    assert byte_bits(np.array([1.0, 2, 4, 8, 16, 32]), places, 3).tolist() == [1.5, 1.5, 60.0]
    assert byte_bits(np.array([6.0]), np.array([[0, 0]]), 3).tolist() == [2.0, 2.0, 2.0]
    assert np.isnan(byte_bits(np.zeros(0), np.zeros((0, 2), np.int64), 2)).all()
    gap = byte_bits(np.array([1.0, 2.0]), np.array([[0, 1], [2, 3]]), 4)
    np.testing.assert_array_equal(gap, [1.0, math.nan, 2.0, math.nan])


@given(st.text(max_size=30))
@settings(max_examples=30)
def test_bytes_before_each_character(text):
    assert character_edges(text).tolist() == [len(text[:k].encode()) for k in range(len(text) + 1)]


# --- CodeLengths


def table(seed: int, size: int = VOCAB_SIZE):
    logits = 2 * torch.randn(size, size, generator=torch.Generator().manual_seed(seed))
    return lambda ids: logits[ids]


@pytest.fixture(scope="module")
def lengths(bpe_tokenizer) -> CodeLengths:
    return compress_bits(table(0), TEXTS, tokenizer=bpe_tokenizer, progress=False)


def test_bits_by_byte_add_up_to_the_sample(lengths):
    for i, text in enumerate(TEXTS):
        found = lengths.bits_by_byte(i)
        assert len(found) == len(text.encode())
        assert abs(found.sum() - lengths.ideal_bits[i]) < 1e-9


def test_a_first_token_that_is_left_out_has_no_bits(bpe_tokenizer):
    skipped = compress_bits(table(0), TEXTS[:2], tokenizer=bpe_tokenizer, first_token="skip", progress=False)
    for i in range(2):
        found = skipped.bits_by_byte(i)
        first = len(bpe_tokenizer.decode(bpe_tokenizer(TEXTS[i])["input_ids"][:1]))
        assert np.isnan(found).tolist() == [k < first for k in range(len(found))]
        assert abs(np.nansum(found) - skipped.ideal_bits[i]) < 1e-9


def test_saved_and_loaded(lengths, tmp_path):
    lengths.save(tmp_path)
    again = CodeLengths.load(tmp_path)
    np.testing.assert_array_equal(again.token_bytes, lengths.token_bytes)
    np.testing.assert_array_equal(again.bits_by_byte(1), lengths.bits_by_byte(1))
    assert {"start_byte", "end_byte"} <= set(again.tokens_to_pandas())


def test_what_is_not_known_is_said(lengths, tmp_path):
    of_ids = compress_bits(UniformModel(16), [[1, 2, 3]], progress=False)
    of_ids.save(tmp_path)
    for one in (of_ids, CodeLengths.load(tmp_path)):
        assert one.token_bytes is None
        assert "start_byte" not in one.tokens_to_pandas()
        with pytest.raises(InputError, match="it is not known which bytes the tokens cover: the samples came as token"):
            one.bits_by_byte(0)
    for i in (-1, len(TEXTS)):
        with pytest.raises(InputError, match=rf"sample {i} was asked for, and there are 5, counted from 0"):
            lengths.bits_by_byte(i)


def test_a_tokenizer_that_shows_no_pieces(bpe_tokenizer):
    """It decodes whole texts alone, as one does that keeps them in a list."""
    kept = {}

    def encode(text):
        if len(text) > 1:
            kept[tuple(text.encode())] = text
        return list(text.encode())

    pair = (encode, lambda ids: kept.get(tuple(ids), "?"))
    lengths = compress_bits(UniformModel(256), ["two", "ab"], tokenizer=pair, first_token="uniform", progress=False)
    assert (lengths.token_bytes == -1).all()
    with pytest.raises(InputError, match="sample 1 cover: the tokenizer does not give its text back piece by piece"):
        lengths.bits_by_byte(1)
    assert copy.copy(lengths).ideal_bits.tolist() == [24.0, 16.0]
