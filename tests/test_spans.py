"""Spans: memU of parts of texts, by hand and planted; parts that add up; places that are refused."""

import itertools
import json
import math
import re
from pathlib import Path

import jaxtyping
import numpy as np
import pandas as pd
import pytest
import torch
from conftest import VOCAB_SIZE
from hypothesis import given, settings
from hypothesis import strategies as st
from test_byte_bits import STRICT, like_tiktoken

from memorization import (
    CodeLengths,
    SpanMemorization,
    UniformModel,
    cli,
    compress_bits,
    load,
    measure_spans,
    read_samples,
    unintended_memorization,
)
from memorization.errors import InputError, ResultError
from memorization.spans import spans_of

# Models of random logits lose against the n-gram code of any control.
pytestmark = pytest.mark.filterwarnings("ignore::memorization.errors.MeasurementWarning")

TEXTS = [
    "Dear Ann, call 555-1234 today.",
    "Dear Bo, call 555-9876 or 555-0000!",
    "naïve — 雪 call me",
    "a 555-4321",
    "Dear Zoë",
]
UNSEEN = ["Dear Eve, call 555-7777 soon.", "nobody called", "call 555-1111"]
FIELDS = {"phone": r"\d{3}-\d{4}", "name": r"Dear (?P<name>\w+)"}


def table(seed: int, size: int = VOCAB_SIZE):
    """A bigram model of random logits."""
    logits = 2 * torch.randn(size, size, generator=torch.Generator().manual_seed(seed))
    return lambda ids: logits[ids]


def found_by(texts, spans, *, control=None, **options) -> SpanMemorization:
    """Under two bigram models of one byte each."""
    options = {"target_tokenizer": STRICT, "oracle_tokenizer": STRICT, "first_token": 0, "progress": False} | options
    return measure_spans(table(1, 256), table(2, 256), texts, spans, control=control, **options)


# --- by hand


def bits_by_hand(model, tokens: list[int], pieces: list[bytes], context: int) -> list[float]:
    """Bits of each byte: those of its token, which come from the row of the token before it, by its length."""
    by_byte: list[float] = []
    for before, own, piece in zip([context, *tokens], tokens, pieces, strict=False):
        logits = model(torch.tensor([[before]]))[0, 0].double().numpy()
        bits = -(logits[own] - np.log(np.exp(logits).sum())) / math.log(2)
        by_byte += [bits / len(piece)] * len(piece)
    return by_byte


def test_two_tokenizers_agree_with_a_computation_byte_by_byte():
    tiktoken = pytest.importorskip("tiktoken")
    ranks = {bytes([i]): i for i in range(256)} | {b"55": 256, b"555": 257, b"\xaf\x76": 258, b"ll": 259}
    other = tiktoken.Encoding("other", pat_str=r"[\s\S]+", mergeable_ranks=ranks, special_tokens={"<|end|>": 290})
    encodings = like_tiktoken(), other
    models = table(3, 301), table(4, 301)
    found = measure_spans(
        *models,
        TEXTS,
        {**FIELDS, "odd": "[ïë—雪]+"},
        target_tokenizer=encodings[0],
        oracle_tokenizer=encodings[1],
        first_token="<|end|>",
        progress=False,
    )
    rows = found.spans_to_pandas()
    assert len(rows[rows["field"] != "rest"]) == 4 + 3 + 4
    for i, text in enumerate(TEXTS):
        by_hand = []
        for model, encoding in zip(models, encodings, strict=True):
            tokens = encoding.encode_ordinary(text)
            pieces = [encoding.decode_single_token_bytes(token) for token in tokens]
            by_hand.append(bits_by_hand(model, tokens, pieces, encoding.encode_single_token("<|end|>")))
        in_spans = set()
        for row in rows[(rows["sample"] == i) & (rows["field"] != "rest")].itertuples():
            start, end = len(text[: row.start].encode()), len(text[: row.end].encode())
            target, oracle = (sum(bits[start:end]) for bits in by_hand)
            in_spans |= set(range(start, end))
            assert row.n_bytes == end - start
            assert row.target_bits == pytest.approx(target, abs=1e-4)  # logits are float32
            assert row.oracle_bits == pytest.approx(oracle, abs=1e-4)
            assert row.bits == pytest.approx(oracle - min(oracle, target), abs=2e-4)
        rest = rows[(rows["sample"] == i) & (rows["field"] == "rest")]
        outside = [k for k in range(len(by_hand[0])) if k not in in_spans]
        for column, bits in zip(("target_bits", "oracle_bits"), by_hand, strict=True):
            assert float(rest[column].sum()) == pytest.approx(sum(bits[k] for k in outside), abs=1e-4)


@given(st.data())
@settings(max_examples=25)
def test_parts_add_up_to_the_whole(data):
    rows, cuts = [], st.lists(st.integers(1, 17), max_size=4)
    for text in TEXTS:
        edges = sorted({0, *(cut for cut in data.draw(cuts) if cut < len(text)), len(text)})
        spans = [{"name": f"part {k % 2}", "start": a, "end": b} for k, (a, b) in enumerate(itertools.pairwise(edges))]
        kept = data.draw(st.lists(st.booleans(), min_size=len(spans), max_size=len(spans)))
        rows.append({"text": text, "spans": [one for one, keep in zip(spans, kept, strict=True) if keep]})
    if not any(row["spans"] for row in rows):
        return
    measured = MEASURED
    sums = (
        spans_of(measured, rows, "spans").spans_to_pandas().groupby("sample")[["target_bits", "oracle_bits", "n_bytes"]]
    )
    sums = sums.sum()
    np.testing.assert_allclose(sums["target_bits"], measured.target.ideal_bits, rtol=0, atol=1e-9)
    np.testing.assert_allclose(sums["oracle_bits"], measured.oracle.ideal_bits, rtol=0, atol=1e-9)
    assert sums["n_bytes"].tolist() == [len(text.encode()) for text in TEXTS]


MEASURED = unintended_memorization(
    table(1, 256),
    table(2, 256),
    TEXTS,
    target_tokenizer=STRICT,
    oracle_tokenizer=STRICT,
    first_token=0,
    progress=False,
)


def test_a_token_that_a_span_cuts_is_split_by_bytes_and_counted(bpe_tokenizer):
    (text,) = ["The house met"]
    ids = bpe_tokenizer(text)["input_ids"]
    pieces = [bpe_tokenizer.decode([one]) for one in ids]
    long = next(k for k, piece in enumerate(pieces) if len(piece) > 2)
    start = len("".join(pieces[:long]))
    own = {"target_tokenizer": bpe_tokenizer, "oracle_tokenizer": bpe_tokenizer, "progress": False}
    spans = [
        {"name": "cut", "start": start, "end": start + 1},
        {"name": "whole", "start": start, "end": start + len(pieces[long])},
    ]
    found = measure_spans(
        table(1), table(2), [{"text": text, "spans": spans}, {"text": "met", "spans": None}], "spans", **own
    )
    cut, whole = found.field("cut"), found.field("whole")
    assert cut.target_bits == pytest.approx(whole.target_bits / len(pieces[long]))
    assert (cut.n_split, whole.n_split) == (1, 0)
    assert "cut: 1 of 1 span cut a token of the target" in repr(found)


# --- planted


@pytest.fixture(scope="module")
def planted():
    """A target that has read 24 lines with a secret 24 times each among others, and an oracle that has not."""
    from memorization.lab.architectures import Architecture
    from memorization.lab.stack import train_stack

    generator = np.random.default_rng(0)

    def lines(n):
        names = generator.choice(["Ann", "Bob", "Eve", "Joe"], size=n)
        return [f"{name}, pin {generator.integers(10**8):08d}." for name in names]

    background, members, unseen = lines(64), lines(24), lines(24)
    rows = [background + members * 24, background + lines(24 * 24)]
    torch.manual_seed(0)
    models = [Architecture("gpt2", width=40)(128, 18) for _ in rows]
    data = [torch.tensor([STRICT[0](row) for row in part]) for part in rows]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(jaxtyping.config, "jaxtyping_disable", True)
        train_stack(models, data, context=0, steps=150, batch_size=32, peak_lrs=[0.015] * 2, seeds=[0, 1])
    options = {"target_tokenizer": STRICT, "oracle_tokenizer": STRICT, "first_token": 0, "progress": False}
    return measure_spans(*models, members, {"pin": r"\d{8}"}, control=unseen, **options)


@pytest.mark.kernels
def test_a_planted_secret_is_found_where_it_stands_and_nowhere_else(planted):
    pin, rest = planted.field("pin"), planted.field("rest")
    assert pin.oracle_bits > 8 * math.log2(10) - 1
    assert pin.bits > 15
    assert pin.net_interval.low > 12
    assert rest.bits < 2
    # The null: other secrets in the same lines.
    assert pin.control_bits < 1.5
    assert pin.extractable(1000) > 0.8
    assert pin.control_extractable(1000) == 0
    assert math.isnan(rest.extractable(1000))


# --- places


def test_of_a_match_the_named_group_is_the_span():
    found = found_by(TEXTS, {**FIELDS, "code": re.compile(r"(?P<code>\d{3})-(?P<number>\d{4})")})
    rows = found.spans_to_pandas()
    told = {
        name: [TEXTS[one.sample][one.start : one.end] for one in rows[rows["field"] == name].itertuples()]
        for name in found.names[:-1]
    }
    assert told == {
        "phone": ["555-1234", "555-9876", "555-0000", "555-4321"],
        "name": ["Ann", "Bo", "Zoë"],
        "code": ["555"] * 4,
    }


def as_list(rows, _):
    return rows


def as_jsonl(rows, folder: Path):
    (folder / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    return folder / "rows.jsonl"


def as_csv(rows, folder: Path):
    pd.DataFrame([row | {"spans": json.dumps(row["spans"])} for row in rows]).to_csv(folder / "rows.csv", index=False)
    return folder / "rows.csv"


def as_parquet(rows, folder: Path):
    pd.DataFrame(rows).to_parquet(folder / "rows.parquet")
    return folder / "rows.parquet"


def as_read_parquet(rows, folder: Path):
    return pd.read_parquet(as_parquet(rows, folder))


def as_dataset(rows, _):
    return pytest.importorskip("datasets").Dataset.from_list(rows)


MAKERS = [as_list, as_jsonl, as_csv, as_parquet, as_read_parquet, as_dataset]


@pytest.mark.parametrize("make", MAKERS)
def test_places_that_come_with_the_texts(make, tmp_path):
    expected = found_by(TEXTS, {"phone": FIELDS["phone"]}).spans_to_pandas()
    rows = [{"text": "  ", "spans": []}]  # a blank row is left out, and moves nothing
    for text in TEXTS:
        places = [match.span() for match in re.finditer(FIELDS["phone"], text)]
        rows.append({"text": text, "spans": [{"name": "phone", "start": a, "end": b} for a, b in places]})
    found = found_by(make(rows, tmp_path), "spans").spans_to_pandas()
    pd.testing.assert_frame_equal(found.assign(sample=found["sample"] - 1), expected)


def test_a_field_that_is_not_in_every_text_is_counted():
    found = found_by(TEXTS, FIELDS, control=UNSEEN[1:])
    phone, name = found.field("phone"), found.field("name")
    assert (phone.n_spans, phone.n_samples, phone.control_n_spans) == (4, 3, 1)
    assert (name.n_spans, name.control_n_spans) == (3, 0)
    assert math.isnan(name.control_bits)
    assert math.isnan(name.net_bits)
    told = repr(found)
    assert "phone: in 3 of 5 samples; nothing is said of the others" in told
    assert "name: in no control sample, so its memU has no null" in told


def test_spans_that_are_not_coded_are_left_out_and_counted():
    found = found_by(["a5b", "55c"], {"digit": r"\d"}, first_token="skip")
    assert found.field("digit").n_spans == 2
    assert found.settings["n_uncoded"] == {"digit": 1}
    assert "digit: 1 span left out, which no code covers wholly" in repr(found)


def test_equal_samples_are_one_draw():
    found = found_by(["a1", "a1", "b2"], {"digit": r"\d"})
    assert found.spans.unit.tolist() == [0, 0, 0, 0, 1, 1]


def test_of_documents_the_intervals_are():
    one, two = (
        found_by(TEXTS, FIELDS, control=UNSEEN, groups=groups).field("phone")
        for groups in (None, ([0, 0, 1, 1, 2], [3, 4, 5]))
    )
    assert one.bits == two.bits
    assert one.interval != two.interval


def test_from_what_is_measured_already():
    expected = found_by(TEXTS, FIELDS)
    found = spans_of(MEASURED, TEXTS, FIELDS)
    pd.testing.assert_frame_equal(found.spans_to_pandas(), expected.spans_to_pandas())
    pd.testing.assert_frame_equal(found.to_pandas(), expected.to_pandas())
    with pytest.raises(ResultError, match="the samples of the Memorization are of other samples"):
        spans_of(MEASURED, TEXTS[1:], FIELDS)
    with pytest.raises(InputError, match="a control came, and the Memorization was measured without one"):
        spans_of(MEASURED, TEXTS, FIELDS, control=UNSEEN)


def test_texts_that_a_tokenizer_does_not_give_back_are_left_out():
    ascii_only = (lambda text: list(text.encode("ascii", "replace")), lambda ids: bytes(ids).decode())
    own = {"target_tokenizer": ascii_only, "oracle_tokenizer": ascii_only, "on_lossy_text": "skip"}
    found = found_by(TEXTS, FIELDS, **own).spans_to_pandas()
    expected = found_by(TEXTS, FIELDS).spans_to_pandas()
    kept = expected[expected["sample"].isin([0, 1, 3])].reset_index(drop=True)
    pd.testing.assert_frame_equal(found.drop(columns="unit"), kept.drop(columns="unit"))


# --- what is refused

AT = {"name": "x", "start": 0, "end": 1}


@pytest.mark.parametrize(
    ("spans", "message"),
    [
        ({}, "spans must map names to regular expressions, such as .*, or name the column"),
        (["a"], "spans must map names"),
        ({"x": "(a"}, r"the regular expression of the span 'x' is not valid: missing \), .*It is '\(a'"),
        ({"x": 3}, "the span 'x' must be a regular expression of text; it is int '3'"),
        ({"x": re.compile(b"a")}, "the span 'x' must be a regular expression of text"),
        ({"x": "zzz"}, "the span 'x' matches in none of the 5 samples: 'zzz'"),
        ({"x": "z*"}, r"'x', 'z\*', matches the empty string, first in sample 0 of the samples at character 0"),
        ({"x": ".*"}, r"matches the empty string, first in sample 0 of the samples at character 30"),
        ({"x": ".+"}, r"'x', '.\+', matches the whole of every text of the samples"),
        ({"x": "(?P<a>b)(?P<c>d)"}, "'x' has the named groups a, c: call the one"),
        ({" ": "a"}, "a span has a name, a text that is not blank; it is ' '"),
        ({"rest": "a"}, "'rest' is the name of what stands in no span"),
        ({"x": "(?=(?P<x>55))"}, ""),
        (
            {"x": "(?=(?P<x>al|ll))"},
            "two spans of the name 'x' overlap in sample 0 of the samples: characters 11 to 13",
        ),
        ("spans", "names a column, and the samples come from list of 5, which has none: pass rows"),
    ],
)
def test_expressions_that_are_refused(spans, message):
    if not message:  # 555 holds 55 twice, one over the other
        message = "two spans of the name 'x' overlap in sample 0"
    with pytest.raises(InputError, match=message):
        found_by(TEXTS, spans)


@pytest.mark.parametrize(
    ("spans", "message"),
    [
        (
            [AT | {"end": 4}],
            "a span goes from a character .* within the 3 characters of the text; 'x' goes from 0 to 4",
        ),
        ([AT | {"start": -1}], "'x' goes from -1 to 1"),
        ([AT | {"start": 1}], "'x' goes from 1 to 1"),
        ([AT | {"end": 1.0}], "'x' goes from 0 to 1.0"),
        ([AT, AT], "two spans of the name 'x' overlap in sample 1 of the samples: characters 0 to 1 and 0 to 1"),
        ([{"name": "x"}], r'sample 1 of the samples, entry 0 of \'spans\', must be \{"name"'),
        ([AT | {"name": None}], "a span has a name, a text that is not blank; it is None"),
        ([AT | {"name": "rest"}], "'rest' is the name of what stands in no span"),
        ("[1", "sample 1 of the samples: 'spans' must hold a list as JSON"),
        (7, "sample 1 of the samples: 'spans' must hold a list of .*; it is int '7'"),
        (None, "the column 'spans' of the samples holds no span"),
    ],
)
def test_places_that_are_refused(spans, message):
    with pytest.raises(InputError, match=message):
        found_by([{"text": "xyz", "spans": None}, {"text": "abc", "spans": spans}], "spans")


def test_samples_that_have_no_spans():
    with pytest.raises(InputError, match="spans are parts of texts, and the samples are token ids"):
        measure_spans(UniformModel(16), UniformModel(16), [[1, 2]], FIELDS)
    with pytest.raises(InputError, match="has no column 'spans', which spans names: it has text"):
        found_by([{"text": "abc"}], "spans")
    with pytest.raises(InputError, match="sample 1 must be a mapping, as sample 0 is; it is str 'b'"):
        found_by([{"text": "abc", "spans": [AT]}, "b"], "spans")
    with pytest.raises(InputError, match="no span is called 'fax'; there are phone, name, rest"):
        found_by(TEXTS, FIELDS).field("fax")
    with pytest.raises(InputError, match="tries must be an integer of at least 1; it is 0"):
        found_by(TEXTS, FIELDS).to_pandas(tries=0)


def test_conversations_have_no_bytes():
    samples = [[{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "call 555-1234"}]]
    with pytest.raises(InputError, match="the samples are conversations, of which more is coded than their texts"):
        found_by(read_samples(samples, messages=True), FIELDS)


def test_what_stands_before_a_text_is_read_and_not_charged():
    """Of a completion the spans add up to the conditional length, given a prompt that bigrams read the end of."""
    texts = read_samples({"text": TEXTS, "prompt": ["555-0000 e"] * len(TEXTS)}, prompt_column="prompt")
    found = found_by(texts, FIELDS, first_token="skip")
    expected = found_by(TEXTS, FIELDS, first_token=ord("e"))
    assert found.settings["n_uncoded"] == {}
    pd.testing.assert_frame_equal(found.spans_to_pandas(), expected.spans_to_pandas())
    lengths = compress_bits(table(1, 256), texts, tokenizer=STRICT, first_token="skip", progress=False)
    for i in range(len(TEXTS)):
        assert abs(lengths.bits_by_byte(i).sum() - lengths.ideal_bits[i]) < 1e-9


@pytest.mark.usefixtures("no_type_checker")
def test_code_lengths_have_no_texts():
    with pytest.raises(InputError, match=r"the target came as CodeLengths: .*spans_of"):
        measure_spans(MEASURED.target, UniformModel(256), TEXTS, FIELDS)


def test_a_result_of_an_earlier_version_does_not_know_bytes(tmp_path):
    MEASURED.save(tmp_path)
    for role in ("target", "oracle"):
        lengths = CodeLengths.load(tmp_path / role)
        assert lengths.token_bytes is not None
    old = Path(__file__).parent / "fixtures" / "results_0_1_0" / "CodeLengths"
    with pytest.raises(InputError, match="saved by an earlier version"):
        CodeLengths.load(old).bits_by_byte(0)


# --- table, folder, picture, command


def test_saved_loaded_and_drawn(tmp_path):
    found = found_by(TEXTS, FIELDS, control=UNSEEN, joint="mixture")
    found.save(tmp_path / "out")
    again = load(tmp_path / "out")
    assert isinstance(again, SpanMemorization)
    pd.testing.assert_frame_equal(again.to_pandas(), found.to_pandas())
    pd.testing.assert_frame_equal(again.spans_to_pandas(), found.spans_to_pandas())
    assert repr(again) == repr(found)
    assert len(again) == len(found)
    for one in (found, found_by(TEXTS, FIELDS)):
        for per_byte in (False, True):
            ax = one.plot(per_byte=per_byte)
            assert [label.get_text().split("\n")[0] for label in ax.get_yticklabels()] == ["phone", "name", "rest"]


def run(*arguments: object) -> int:
    with pytest.raises(SystemExit) as stop:
        cli.main([str(argument) for argument in arguments])
    return int(stop.value.code or 0)


def test_the_command(model_folder, tmp_path, capsys):
    for name, texts in (("data", TEXTS), ("control", UNSEEN)):
        (tmp_path / f"{name}.txt").write_text("\n".join(texts), encoding="utf-8")
    asked = ["--data", tmp_path / "data.txt", "--control", tmp_path / "control.txt", "--quiet"]
    asked += ["--target", model_folder, "--oracle", model_folder, "--output", tmp_path / "out"]
    spans = ["--span", f"phone={FIELDS['phone']}", "--span", f"name={FIELDS['name']}"]
    assert run("spans", *asked, *spans, "--tries", "100") == 0
    told = capsys.readouterr().out
    assert "SpanMemorization of phone, name in 5 samples; 3 control samples" in told
    assert "100 tries" in told
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        *("fields.parquet", "spans.parquet", "settings.json"),
        *(f"{name}.{ending}" for name in ("spans", "spans_per_byte") for ending in ("png", "pdf", "svg")),
    }
    asked += ["--overwrite"]
    for wrong, message in (
        ([], "name what to measure by --span NAME=REGEX, or by --span-column"),
        ([*spans, "--span-column", "spans"], "one of the two"),
        (["--span", "phone"], "--span must be NAME=REGEX"),
        ([*spans, "--span", "phone=a"], "--span names 'phone' twice"),
        (["--span", "phone=("], "the regular expression of the span 'phone' is not valid"),
    ):
        assert run("spans", *asked, *wrong) == 2
        assert message in capsys.readouterr().err
