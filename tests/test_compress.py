"""Compressed data come back, or an error by its name; and take no more room than their ideal bits and a header."""

import io
import math
import sys
from dataclasses import replace

import numpy as np
import pytest
import reference
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from memorization import UniformModel, cli, compress, compress_bits, decompress, open_model
from memorization.codec.container import FORMAT_VERSION, KINDS, MAGIC, Container, Entry, digest, pack, unpack
from memorization.codec.parts import data_digest
from memorization.coding.intervals import GRID
from memorization.coding.streams import Reader, interval_bits, write
from memorization.coding.tables import NoCodeError, Tables, _cells, _refinements
from memorization.errors import ContainerError, ImpossibleTokenError, InputError, NotReproducedError, OtherModelError
from memorization.measure.incremental import Reading, way_of
from memorization.measure.probe import Forward

RANDOM = np.random.default_rng(0)
DOCUMENTS = [
    b"How many bits does it take to write down what nobody has written?",
    "Die Straße nach Übersee ist gesperrt; größer wird’s nicht.",
    "吾輩は猫である。名前はまだ無い。",
    "学而时习之，不亦说乎？有朋自远方来。",
    b"def f(x):\n\treturn x ** 2  # tabs, and no end of line",
    "  spaces  and\r\nlines\n\n\n",
    RANDOM.bytes(50),
    b"\xff\xfe broken \xc3( UTF-8",
    "",
    b"",
    "🙂 The house met again." * 2,
    [5, 0, 299, 17, 17, 17],
    [0, 0, 4],  # begins with the context token
    [],
]


@pytest.fixture(scope="module")
def opened(model_folder):
    with open_model(model_folder) as model:
        yield model


@pytest.fixture(scope="module")
def blob(opened) -> bytes:
    return compress(opened, DOCUMENTS, first_token="bos", progress=False)


# --- what comes back


def test_documents_of_all_kinds_come_back_as_they_were(opened, blob):
    found = decompress(opened, blob, progress=False)
    assert found == DOCUMENTS
    assert [type(one) for one in found] == [type(one) for one in DOCUMENTS]


@pytest.mark.parametrize("data", [b"one", "one", [7, 1], [], "", b"", [[]], ["one"], [b"", [3]], "\ud800 alone"])
def test_one_sample_comes_back_as_one_and_a_list_as_a_list(opened, data):
    assert decompress(opened, compress(opened, data, progress=False), progress=False) == data


def test_arrays_tensors_and_buffers_come_back_as_lists_and_bytes(opened):
    ids = np.array([[3, 1, 4], [1, 5, 9]])
    for data in (ids, torch.tensor(ids), list(ids)):
        assert decompress(opened, compress(opened, data, progress=False), progress=False) == ids.tolist()
    assert decompress(opened, compress(opened, ids[0], progress=False), progress=False) == [3, 1, 4]
    assert decompress(opened, memoryview(compress(opened, bytearray(b"one"), progress=False))) == b"one"


class Bigrams(torch.nn.Module):
    """Which token follows which in the documents, so that each of them is worth coding."""

    def __init__(self, rows: list[list[int]]):
        super().__init__()
        counts = torch.full((300, 300), 0.01)
        for row in rows:
            for before, after in zip([0, *row], row, strict=False):
                counts[before, after] += 1
        self.logits = torch.nn.Parameter(counts.log())

    def forward(self, ids):
        return self.logits[ids]


def test_a_sample_takes_its_ideal_bits_a_header_and_8_bytes(bpe_tokenizer):
    """Texts of five languages, in one stream."""
    texts = [one if isinstance(one, str) else one.decode() for one in [*DOCUMENTS[:6], DOCUMENTS[10]]]
    model = Bigrams(bpe_tokenizer(texts)["input_ids"])
    packed = compress(model, texts, tokenizer=bpe_tokenizer, progress=False)
    assert decompress(model, packed, tokenizer=bpe_tokenizer, progress=False) == texts
    held = unpack(packed)
    assert not any(entry.raw for entry in held.entries)
    ideal = compress_bits(model, texts, tokenizer=bpe_tokenizer, first_token="bos", progress=False).ideal_bits.sum()
    assert ideal / 8 - 1 < len(held.stream) <= ideal / 8 + 5  # to keep: 8
    assert len(packed) - len(held.stream) < 200


def test_what_the_tokenizer_does_not_give_back_is_stored_as_it_is(blob):
    raw = [entry.raw for entry in unpack(blob).entries]
    assert raw[6:10] == [True] * 4  # random bytes, broken UTF-8, empty texts
    assert not raw[0]
    assert raw[11:] == [True, False, False]  # six ids of 1 or 2 bytes; two that the model expects; none


@pytest.mark.parametrize(
    ("data", "packing"), [(RANDOM.bytes(40_000) * 2, "lzma"), (b"\xff" + b"ab" * 12, "zlib"), (b"\xff\x00", "plain")]
)
def test_raw_data_are_packed_where_that_is_shorter(opened, data, packing):
    packed = compress(opened, data, progress=False)
    assert unpack(packed).packing == packing
    assert decompress(opened, packed, progress=False) == data


def test_what_the_model_makes_longer_is_stored_as_it_is(opened):
    """Sixty zeros: zlib takes 11 bytes, and a random model some 60."""
    held = unpack(compress(opened, b"0" * 60, progress=False))
    assert held.entries == (Entry("bytes", True, False, 60),)
    assert held.stream == b""
    assert held.stream == b""


def test_what_has_probability_0_is_stored_as_it_is():
    def no_odd_tokens(ids):
        logits = torch.zeros(*ids.shape, 8)
        logits[..., 1::2] = -math.inf
        return logits

    data = [[0, 2, 4] * 8, [0, 3]]
    packed = compress(no_odd_tokens, data, progress=False)
    assert [entry.raw for entry in unpack(packed).entries] == [False, True]
    assert decompress(no_odd_tokens, packed, progress=False) == data


# --- how the model reads


def test_windows_are_those_of_compress_bits(opened):
    ids = np.random.default_rng(1).integers(0, 300, 40).tolist()
    reading, bits = Reading(opened, way_of(opened), 0, 8), []
    for token in ids:
        row = reading.row()
        bits.append(float(reference.ideal_bits(row[None].numpy(), np.array([token]))[0]))
        reading.read(token)
    known = compress_bits(opened, [ids], first_token=0, max_length=8, progress=False)
    last = len(ids) % 4 or 4  # of a window that compress_bits begins earlier
    np.testing.assert_allclose(bits[:-last], known.token_bits[:-last], atol=1e-3)
    packed = compress(opened, ids, first_token=0, max_length=8, progress=False)
    assert unpack(packed).max_length == 8
    assert decompress(opened, packed, progress=False) == ids


@pytest.mark.parametrize("max_length", [1, 2, 3])
def test_the_shortest_windows_work(opened, max_length):
    packed = compress(opened, [7, 8, 9, 1, 2], max_length=max_length, progress=False)
    assert decompress(opened, packed, progress=False) == [7, 8, 9, 1, 2]


def test_without_a_state_a_window_begins_with_more_than_half_of_the_last_one():
    read = []

    def echo(ids):
        read.append(ids[0].tolist())
        return torch.zeros(*ids.shape, 32)

    with open_model(echo) as model:
        read.clear()  # what it was asked when it was opened
        reading = Reading(model, "prefix", None, 4)
        for token in range(1, 8):
            reading.read(token)
            reading.row()
    assert read == [[1], [1, 2], [1, 2, 3], [1, 2, 3, 4], [3, 4, 5], [3, 4, 5, 6], [5, 6, 7]]


def test_a_state_that_gives_other_logits_is_not_used(tiny_gpt2, monkeypatch):
    with open_model(tiny_gpt2) as model:
        assert way_of(model) == "state"
        monkeypatch.setattr(Forward, "step", lambda self, ids, state: (self(ids), {"state": "forgets"}))
        assert way_of(model) == "prefix"
        monkeypatch.setattr(Forward, "step", lambda self, ids, state: (self(ids), {}))
        assert way_of(model) == "prefix"


def recurrent(kind: str) -> torch.nn.Module:
    import transformers

    with torch.random.fork_rng():
        torch.manual_seed(0)
        if kind == "mamba":
            config = transformers.MambaConfig(
                vocab_size=64, hidden_size=16, state_size=4, num_hidden_layers=1, bos_token_id=0, eos_token_id=0
            )
            return transformers.MambaForCausalLM(config).eval()
        config = transformers.RwkvConfig(
            vocab_size=64, hidden_size=16, num_hidden_layers=2, context_length=32, bos_token_id=0, eos_token_id=0
        )
        return transformers.RwkvForCausalLM(config).eval()


@pytest.mark.parametrize("kind", ["mamba", "rwkv"])
def test_models_with_a_state_read_one_token_a_step(kind):
    ids = [[5, 3, 5, 3, 60], [1]]
    with open_model(recurrent(kind)) as model:
        assert way_of(model) == "state"
        assert decompress(model, compress(model, ids, progress=False), progress=False) == ids


def test_models_without_a_state_read_their_window_anew(opened):
    assert way_of(opened) == "state"
    with open_model(UniformModel(4)) as uniform:
        assert way_of(uniform) == "prefix"
        assert unpack(compress(uniform, [1, 2], progress=False)).max_length == 1024


def test_the_first_token_is_given_the_context_or_uniform(opened):
    ids = [7, 8]
    for asked, context in (("bos", 0), (5, 5), ("uniform", None)):
        packed = compress(opened, ids, first_token=asked, progress=False)
        assert unpack(packed).context == context
        assert decompress(opened, packed, progress=False) == ids
    with pytest.raises(InputError, match="it could not be decoded"):
        compress(opened, ids, first_token="skip", progress=False)
    with pytest.raises(InputError, match=r"the context token has id 300, outside the model's vocabulary \[0, 300\)"):
        compress(opened, ids, first_token=300, progress=False)


@pytest.mark.parametrize("wanted", [0, None])
def test_auto_takes_what_needs_the_fewest_bits(bpe_tokenizer, wanted):
    """A model that knows what comes next only after the BOS, or only without it."""

    def knows(ids):
        logits = torch.nn.functional.one_hot((ids + 1) % 300, 300).float()
        return 6 * logits * ((ids[:, :1, None] == 0) == (wanted == 0))

    data = [[5, 6, 7, 8, 9, 10, 11, 12] * 3]
    packed = compress(knows, data, tokenizer=bpe_tokenizer, progress=False)
    assert unpack(packed).context == wanted
    assert decompress(knows, packed, progress=False) == data
    assert unpack(compress(knows, [[0, 1, 2]], tokenizer=bpe_tokenizer, progress=False)).context == 0
    assert unpack(compress(knows, data, progress=False)).context is None  # no tokenizer: nothing to try


# --- what goes wrong


def test_every_corruption_is_an_error_by_name(opened, blob):
    rng, outcomes = np.random.default_rng(2), []
    corrupted = []
    for bit in rng.choice(8 * len(blob), 40, replace=False).tolist():
        changed = bytearray(blob)
        changed[bit // 8] ^= 1 << bit % 8
        corrupted.append(bytes(changed))
    corrupted += [blob[:n] for n in [0, 1, 4, 5, *rng.integers(6, len(blob), 14).tolist()]]
    corrupted += [blob + b"\0", blob[1:]]
    for one in corrupted:
        with pytest.raises(ContainerError) as raised:
            decompress(opened, one, progress=False)
        outcomes.append(str(raised.value))
    assert len(outcomes) == 60
    assert {text.split(":")[0] for text in outcomes} >= {
        "the compressed data are damaged",
        "the compressed data are cut short",
    }


def test_another_model_dtype_vocabulary_or_tokenizer_is_refused(opened, blob, model_folder, tiny_gpt2, bpe_tokenizer):
    from copy import deepcopy

    from transformers import PreTrainedTokenizerFast

    other = deepcopy(tiny_gpt2)
    with torch.no_grad():
        other.transformer.h[0].mlp.c_fc.weight.mul_(1.001)
    with pytest.raises(OtherModelError, match="compressed with another model: its fingerprint begins with"):
        decompress(other, blob, tokenizer=bpe_tokenizer, progress=False)
    with pytest.raises(OtherModelError, match=r"weights in float32, .* are in bfloat16.*pass dtype='float32'"):
        decompress(model_folder, blob, dtype="bfloat16", progress=False)
    with pytest.raises(OtherModelError, match="in float32, and those of UniformModel"):
        decompress(UniformModel(300), blob, tokenizer=bpe_tokenizer, progress=False)
    with pytest.raises(OtherModelError, match="came without a tokenizer"):
        decompress(tiny_gpt2, blob, progress=False)
    with pytest.raises(OtherModelError, match="compressed with another model"):
        decompress(UniformModel(300), compress(UniformModel(299), [1]), progress=False)
    more = deepcopy(bpe_tokenizer)
    more.add_tokens(["another"])
    assert isinstance(more, PreTrainedTokenizerFast)
    with pytest.raises(OtherModelError, match="compressed with another tokenizer"):
        decompress(tiny_gpt2, blob, tokenizer=more, progress=False)
    ids = compress(opened, [[4, 5]], progress=False)
    assert decompress(tiny_gpt2, ids, progress=False) == [[4, 5]]  # no tokenizer is needed


def test_another_format_version_is_refused(opened, blob):
    changed = blob[: len(MAGIC)] + bytes([FORMAT_VERSION + 1]) + blob[len(MAGIC) + 1 : -16]
    with pytest.raises(ContainerError, match="format version 2, and this version of lm-memorization reads 1"):
        decompress(opened, changed + digest(changed), progress=False)


class Drifting:
    """A model whose logits move after so many calls, in a digit that no fingerprint sees."""

    def __init__(self, after: int, by: float):
        self.calls, self.after, self.by = 0, after, by

    def __call__(self, ids):
        self.calls += 1
        place = torch.arange(ids.shape[1], dtype=torch.float32)[:, None] + torch.arange(16)
        moved = self.by * (self.calls > self.after) * torch.arange(16) * (ids.shape[1] > 8)
        return (torch.sin(place) / 2 + moved).expand(len(ids), -1, -1)


def test_a_model_that_does_not_repeat_itself_compresses_nothing():
    ids = np.random.default_rng(3).integers(0, 16, 60).tolist()
    with pytest.raises(NotReproducedError, match=r"not the same to the last digit each time\. Nothing is returned"):
        compress(Drifting(80, 0.3), ids, progress=False)


def test_other_kernels_than_when_it_was_compressed_are_an_error_and_no_other_data():
    ids = np.random.default_rng(3).integers(0, 16, 60).tolist()
    packed = compress(Drifting(10_000, 0.0), ids, progress=False)
    for by in (1e-3, 0.1, 1.0):
        with pytest.raises(NotReproducedError, match=r"the versions are the same .*another processor"):
            decompress(Drifting(0, by), packed, progress=False)
    held = unpack(packed)
    elsewhere = pack(replace(held, written_by="lm-memorization 0.2.0, torch 9.9, transformers 9.9, cuda"))
    with pytest.raises(NotReproducedError, match=r"compressed with lm-memorization 0\.2\.0.*cuda; here is .*cpu"):
        decompress(Drifting(0, 0.1), elsewhere, progress=False)


def test_threads_are_those_of_the_encoder_and_come_back(opened, monkeypatch):
    packed = pack(replace(unpack(compress(opened, [1, 2, 3], progress=False)), n_threads=2))
    before, asked = torch.get_num_threads(), []
    monkeypatch.setattr("torch.set_num_threads", asked.append)
    assert decompress(opened, packed, progress=False) == [1, 2, 3]
    assert asked == [2, before]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (7, "data must be bytes, a text, token ids, or a list of these; a int '7' came"),
        ([1, 300], r"token ids must lie in \[0, 300\); 1 do not, the first is 300 in sample 0 at position 1"),
        ([[1], [-1]], r"the first is -1 in sample 1 at position 0"),
        ([1.5], "sample 0 must be a text or a list of token ids; it is float"),
        ([1, "x"], "token ids must be integers; sample 0 has str 'x' at position 1"),
    ],
)
def test_bad_data_are_refused_by_name(opened, data, message):
    with pytest.raises(InputError, match=message):
        compress(opened, data, progress=False)


@pytest.mark.usefixtures("no_type_checker")
def test_bad_calls_are_refused_by_name(opened):
    with pytest.raises(InputError, match="no tokenizer is at hand: pass tokenizer="):
        compress(UniformModel(4), "text")
    with pytest.raises(InputError, match="decompress takes the bytes that compress returned; a str came"):
        decompress(opened, "text")  # type: ignore[arg-type]
    with pytest.raises(ContainerError, match=r"not made by compress.* they begin with 74 65 78 74"):
        decompress(opened, b"text")
    with pytest.raises(InputError, match=r"max_length=65 is more than the 64 positions"):
        compress(opened, [1], max_length=65)

    def nan_later(ids):
        return torch.zeros(*ids.shape, 4) + (math.nan if ids.shape[1] > 8 else 0.0)

    with pytest.raises(ImpossibleTokenError, match="the largest of a row of logits is nan"):
        compress(nan_later, [1] * 12, progress=False)


# --- the container


names = st.text(max_size=20)
sixteen = st.binary(min_size=16, max_size=16)
numbers = st.integers(0, 2**40)
# The container is made in the test: types are executed when it is made, which draws at random.
containers = st.fixed_dictionaries(
    {
        "path": st.sampled_from(("prefix", "state")),
        "n_threads": numbers,
        "dtype": st.sampled_from(("", "float32", "bfloat16")),
        "model": sixteen,
        "tokenizer": sixteen,
        "vocab_size": numbers,
        "context": st.none() | numbers,
        "max_length": st.none() | st.integers(1, 2**40),
        "written_by": names,
        "several": st.booleans(),
        "entries": st.lists(st.tuples(st.sampled_from(KINDS), st.booleans(), st.booleans(), numbers), max_size=5),
        "data_digest": sixteen,
        "packing": st.sampled_from(("plain", "zlib", "lzma")),
        "raw": st.binary(max_size=20),
        "stream": st.binary(max_size=20),
    }
)


@given(containers)
@settings(max_examples=50)
def test_a_container_is_read_as_it_was_written(fields):
    held = Container(**{**fields, "entries": tuple(Entry(*entry) for entry in fields["entries"])})
    assert unpack(pack(held)) == held


def test_a_container_is_laid_out_as_documented():
    held = Container(
        *("state", 2, "float32", b"m" * 16, b"t" * 16, 49_152, 0, 8192, "here", True),
        *((Entry("str", False, True, 300), Entry("ids", True, False, 5)), b"d" * 16, "zlib", b"raw", b"stream"),
    )
    head = b"\x8aLMZ\x01"
    rest = (
        b"\x01\x02\x07float32" + b"m" * 16 + b"t" * 16 + b"\x80\x80\x03\x01\x80\x40\x04here\x01\x02"
        b"\x09\xac\x02\x06\x05" + b"d" * 16 + b"\x01\x03rawstream"
    )
    start = head + bytes([len(rest) + 16]) + rest
    assert pack(held) == start + digest(start)


def test_the_digest_of_the_data_is_the_documented_one():
    told = b"\x01b\x01xs\x02\xc3\xa9i\x03\xac\x02\x05"
    assert data_digest([b"x", "é", [300, 5]], True) == digest(told)
    assert data_digest(["x"], False) not in (data_digest(["x"], True), data_digest([b"x"], False))


@pytest.mark.parametrize("rest", [b"\x02\x00", b"\x01\x80", b"\x01\x02\xff\x01short"])
def test_a_container_with_a_sound_checksum_and_unknown_fields_is_refused(rest):
    start = MAGIC + bytes([FORMAT_VERSION, len(rest) + 16]) + rest
    with pytest.raises(ContainerError):
        unpack(start + digest(start))


# --- tables and streams


def rows(vocab_size: int) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(vocab_size)
    noise = torch.randn((3, vocab_size), generator=generator)
    peaked = torch.zeros(vocab_size)
    peaked[vocab_size // 2] = 90.0
    return [torch.zeros(vocab_size), noise[0], 8 * noise[1], 60 * noise[2], peaked, (20 * noise[0]).bfloat16()]


@pytest.mark.parametrize("vocab_size", [1, 2, 3, 256, 50_257, 151_936])
def test_streams_give_the_tokens_back_in_their_ideal_bits(vocab_size):
    rng = np.random.default_rng(vocab_size)
    logits = rows(vocab_size)
    drawn = [(row, token) for row in logits for token in [*rng.integers(0, vocab_size, 3).tolist(), int(row.argmax())]]
    tables = [Tables(row) for row, _ in drawn]
    intervals = [step for made, (_, token) in zip(tables, drawn, strict=True) for step in made.intervals(token)]
    stream = write(intervals)
    reader = Reader(stream)
    assert [made.token(reader.read) for made in tables] == [token for _, token in drawn]
    ideal = sum(reference.ideal_bits(row[None].float().numpy(), np.array([token]))[0] for row, token in drawn)
    assert abs(interval_bits(intervals) - ideal) < 0.1 + 1e-3 * ideal
    assert 8 * len(stream) - interval_bits(intervals) <= 32


@given(st.lists(st.floats(-100, 100, width=32), min_size=1, max_size=40))
@settings(max_examples=100)
def test_every_token_has_an_interval_and_a_stage_fills_the_grid(logits):
    tables = Tables(torch.tensor(logits))
    seen = []

    def first(cells):
        seen.append(cells)
        return 0

    tables.token(first)
    for cells in seen:
        assert cells.sum() == GRID - 2
        assert cells.min() >= 1
    for token in range(len(logits)):
        steps = iter(tables.intervals(token))

        def read(cells, steps=steps):
            left, width = next(steps)
            edges = 1 + np.concatenate([[0], np.cumsum(cells)])
            symbol = int(np.searchsorted(edges, left))
            assert (edges[symbol], cells[symbol]) == (left, width)
            return symbol

        assert tables.token(read) == token


def test_a_stream_takes_four_bytes_more_at_most():
    """Also where nothing is coded or all is certain."""
    rng, over = np.random.default_rng(4), []
    for _ in range(100):
        widths = rng.integers(1, GRID - 3, int(rng.integers(1, 12)))
        intervals = [(int(rng.integers(1, GRID - width)), int(width)) for width in widths]
        stream = write(intervals)
        reader = Reader(stream)
        for left, width in intervals:
            cells = np.array([left - 1, width, GRID - 1 - left - width])
            assert reader.read(cells[cells > 0]) == (left > 1)
        over.append(8 * len(stream) - interval_bits(intervals))
    assert max(over) <= 32
    assert np.mean(over) < 28
    assert write([]) == b""
    assert len(write([(1, GRID - 2)] * 5)) == 1


@pytest.mark.parametrize("n", [1, 2, 17, 390])
def test_cells_are_those_of_the_documented_rule(n):
    rng = np.random.default_rng(n)
    for weights in (
        np.ones(n),
        rng.random(n),
        np.exp(8 * rng.normal(size=n)),
        np.eye(n)[-1],
        np.append(np.zeros(n), 1.0),
    ):
        assert _cells(weights).tolist() == reference.frequencies(weights).tolist()


def test_symbols_whose_cells_are_fewer_than_their_probability_have_no_refinements():
    assert _refinements(1000, math.log2(1001 / GRID)) == []
    assert _refinements(1000, math.log2(1000 / GRID)) == []
    assert _refinements(1000, math.log2(500 / GRID)) == [GRID // 2]
    assert _refinements(1, math.log2(0.5 / GRID) - 24) == [round(2 ** (-25 / 3) * GRID)] * 3
    assert _refinements(1 << 12, -30.0) == []


def test_equal_rows_give_equal_tables_wherever_they_lie_in_memory():
    row = torch.randn(50_257, generator=torch.Generator().manual_seed(0))
    for offset in range(5):
        moved = torch.empty(50_257 + offset)[offset:]
        moved.copy_(row)
        assert Tables(moved).intervals(1234) == Tables(row).intervals(1234)


def test_impossible_tokens_have_no_code():
    masked = torch.tensor([0.0, -math.inf, 0.0, -math.inf, -math.inf, 0.0])  # the bucket of ids 3 to 5 has one token
    for token in (1, 3, 6, -1):
        with pytest.raises(NoCodeError):
            Tables(masked).intervals(token)
    with pytest.raises(NoCodeError):
        Tables(torch.tensor([0.0, 0.0, -1e5])).intervals(2)
    for bad in (math.nan, math.inf):
        with pytest.raises(ImpossibleTokenError):
            Tables(torch.tensor([0.0, bad]))
    with pytest.raises(ImpossibleTokenError):
        Tables(torch.full((3,), -math.inf))


# --- the command line


def run(*arguments: object) -> int:
    with pytest.raises(SystemExit) as stop:
        cli.main([str(argument) for argument in arguments])
    return int(stop.value.code or 0)


def test_files_come_back_from_the_command_line(model_folder, tmp_path, capsys):
    source, packed, found = (tmp_path / name for name in ("source", "packed", "found"))
    source.write_bytes(DOCUMENTS[0])
    assert run("compress", "--target", model_folder, "--data", source, "--output", packed) == 0
    printed = capsys.readouterr()
    assert printed.out == ""
    assert f"memorization: {len(DOCUMENTS[0])} bytes in {packed.stat().st_size}, " in printed.err
    command = ["decompress", "--target", model_folder, "--data", packed, "--output", found, "--quiet"]
    assert run(*command) == 0
    assert found.read_bytes() == DOCUMENTS[0]
    assert run(*command) == 2
    assert f"--output {found} is there already: name another file, or pass --overwrite" in capsys.readouterr().err
    packed.write_bytes(packed.read_bytes()[:-1])
    assert run(*command, "--overwrite") == 2
    assert "the compressed data are cut short" in capsys.readouterr().err
    assert found.read_bytes() == DOCUMENTS[0]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["found", "packed", "source"]


class Piped:
    """Standard input or output, with a buffer of bytes."""

    def __init__(self, data: bytes = b"", terminal: bool = False):
        self.buffer, self.terminal = io.BytesIO(data), terminal

    def isatty(self) -> bool:
        return self.terminal

    def flush(self) -> None:
        pass


def test_pipes_come_back_from_the_command_line(model_folder, tmp_path, monkeypatch, capsys):
    for command, data in (("compress", DOCUMENTS[4]), ("decompress", None)):
        out = Piped()
        monkeypatch.setattr(sys, "stdin", Piped(packed if data is None else data))
        monkeypatch.setattr(sys, "stdout", out)
        assert run(command, "--target", model_folder, "--quiet") == 0
        packed = out.buffer.getvalue()
    assert packed == DOCUMENTS[4]
    monkeypatch.setattr(sys, "stdout", Piped(terminal=True))
    assert run("compress", "--target", model_folder) == 2
    assert "compressed data are not written to a terminal: name a file with --output" in capsys.readouterr().err
    (tmp_path / "samples").write_bytes(compress(str(model_folder), ["a", "b"], progress=False))
    assert run("decompress", "--target", model_folder, "--data", tmp_path / "samples") == 2
    assert "several samples, which make no file" in capsys.readouterr().err
    for bad, message in (
        (("--data", tmp_path / "missing"), "missing cannot be read: No such file"),
        (("--output", tmp_path), "is a folder: name a file"),
        (("--output", tmp_path / "no" / "where"), "there is no folder"),
    ):
        assert run("decompress", "--target", model_folder, *bad) == 2
        assert message in capsys.readouterr().err


def test_packed_samples_that_are_none_are_named(opened):
    """By a writer who makes sound checksums."""
    blob = compress(opened, [b"\xff" * 40] * 3, progress=False)
    held = unpack(blob)
    assert held.packing != "plain"
    for damage in (held.raw[:-3], held.raw[:5] + b"\x00\x01" + held.raw[7:], b""):
        with pytest.raises((ContainerError, NotReproducedError)):
            decompress(opened, pack(replace(held, raw=damage)), progress=False)
