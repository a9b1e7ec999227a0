"""Whatever holds samples: texts, token ids, arrays, data sets and files are read in order, whole, and counted."""

import csv
import hashlib
import json
import time
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import datasets
import jaxtyping
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import torch
import transformers
from hypothesis import example, given, settings
from hypothesis import strategies as st

from memorization import CodeLengths, UniformModel, compress_bits
from memorization.errors import InputError, LossyTextError, MeasurementWarning
from memorization.samples import Samples, positions_measured, read_samples
from memorization.samples.files import rows_of_file
from memorization.samples.tables import Columns

TEXTS = ["To be,", "or not\tto be", "naïve — 雪 🙂", "  leading and trailing  ", "a"]


def ids_of(samples: Samples) -> list[list[int]]:
    assert samples.texts is None
    assert samples.ids is not None
    assert all(ids.dtype == np.int64 and ids.ndim == 1 for ids in samples.ids)
    return [ids.tolist() for ids in samples.ids]


# --- in memory


def test_a_str_is_one_text():
    samples = read_samples("To be,\nor not to be.")
    assert samples.texts == ["To be,\nor not to be."]
    assert samples.source == "one text"
    assert samples.index.tolist() == [0]
    assert samples.ids_sha256 is None


@pytest.mark.parametrize("container", [list, tuple, np.array, lambda texts: np.array(texts, dtype=object)])
def test_texts_keep_their_order(container):
    samples = read_samples(container(TEXTS))
    assert samples.texts == TEXTS
    assert samples.index.tolist() == [0, 1, 2, 3, 4]
    assert samples.n_bytes.tolist() == [len(text.encode("utf-8")) for text in TEXTS]
    assert samples.n_bytes.dtype == np.int64


def test_bytes_are_those_of_utf8():
    assert read_samples(["a", "é", "雪", "🙂"]).n_bytes.tolist() == [1, 2, 3, 4]


def test_a_text_that_merely_mentions_a_file_is_a_text(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("notes.md").write_text("not read")
    with pytest.warns(MeasurementWarning, match="'notes.md' is measured as a text of 8 bytes"):
        assert read_samples("notes.md").texts == ["notes.md"]
    assert read_samples("see notes.txt for more").texts == ["see notes.txt for more"]
    assert read_samples(["notes.txt"]).texts == ["notes.txt"]


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        ([[3, 1, 2], [0]], [[3, 1, 2], [0]]),
        (((3, 1, 2), (0,)), [[3, 1, 2], [0]]),
        ([np.array([3, 1], dtype=np.uint16), np.array([2], dtype=np.int8)], [[3, 1], [2]]),
        ([torch.tensor([3, 1], dtype=torch.int32), torch.tensor([2])], [[3, 1], [2]]),
        ([[np.int32(3), 1], [2]], [[3, 1], [2]]),
        ([range(3), range(2)], [[0, 1, 2], [0, 1]]),
        ([3, 1, 2], [[3, 1, 2]]),
        ((3, 1, 2), [[3, 1, 2]]),
        ([np.int64(3), np.uint8(1)], [[3, 1]]),
        (range(4), [[0, 1, 2, 3]]),
        (np.array([3, 1, 2]), [[3, 1, 2]]),
        (np.array([3, 1, 2], dtype=np.uint16), [[3, 1, 2]]),
        (np.array([[3, 1], [2, 0]], dtype=np.int32), [[3, 1], [2, 0]]),
        (np.array([[3, 1], [2]], dtype=object), [[3, 1], [2]]),
        (np.arange(12).reshape(3, 4)[:, ::2], [[0, 2], [4, 6], [8, 10]]),
        (torch.tensor([3, 1, 2]), [[3, 1, 2]]),
        (torch.tensor([[3, 1], [2, 0]], dtype=torch.uint8), [[3, 1], [2, 0]]),
        (torch.arange(6).reshape(2, 3).T, [[0, 3], [1, 4], [2, 5]]),
    ],
)
def test_token_ids_of_every_kind(rows, expected):
    samples = read_samples(rows)
    assert ids_of(samples) == expected
    assert samples.n_bytes.tolist() == [-1] * len(expected)
    assert samples.texts_sha256 is None


def test_an_array_is_copied_and_not_watched():
    array = np.array([[1, 2], [3, 4]])
    samples = read_samples(array)
    array[:] = 0
    assert ids_of(samples) == [[1, 2], [3, 4]]


# --- data sets


def test_dataset_texts_with_blank_and_null_rows():
    data = datasets.Dataset.from_dict({"text": ["a", None, "", " \n", "b"], "other": [1, 2, 3, 4, 5]})
    samples = read_samples(data)
    assert samples.texts == ["a", "b"]
    assert samples.n_blank_skipped == 3
    assert samples.source == "datasets.Dataset"


def test_dataset_of_ids_in_a_named_column():
    data = datasets.Dataset.from_dict({"input_ids": [[1, 2], [3]], "text": ["no", "no"]})
    assert ids_of(read_samples(data, text_column="input_ids")) == [[1, 2], [3]]


def test_columns_of_a_dataset():
    data = datasets.Dataset.from_dict({"text": ["a", "b"], "input_ids": [[1, 2], [3]]})
    assert read_samples(data["text"]).texts == ["a", "b"]
    assert read_samples(data["text"], limit=1).texts == ["a"]
    assert ids_of(read_samples(data["input_ids"])) == [[1, 2], [3]]


@pytest.mark.parametrize("kind", ["torch", "numpy"])
def test_dataset_with_a_format(kind):
    data = datasets.Dataset.from_dict({"input_ids": [[1, 2], [3, 4]]}).with_format(kind)
    assert ids_of(read_samples(data, text_column="input_ids")) == [[1, 2], [3, 4]]


def test_streamed_dataset():
    data = datasets.Dataset.from_dict({"text": TEXTS}).to_iterable_dataset()
    samples = read_samples(data, limit=2)
    assert samples.texts == TEXTS[:2]
    assert samples.source == "datasets.IterableDataset"


# --- files


def both(path: Path) -> list:
    return [path, str(path)]


def test_txt_one_sample_a_line(tmp_path):
    path = tmp_path / "a.txt"
    path.write_bytes("\ufefffirst\r\n\r\nsecond \n   \nthird\x0bpart\u2028part\nlast".encode())
    for given_as in both(path):
        samples = read_samples(given_as)
        # Neither the byte order mark nor line ends belong to a text; spaces do, and so do the signs that only str.splitlines splits at.
        assert samples.texts == ["first", "second ", "third\x0bpart\u2028part", "last"]
        assert samples.n_blank_skipped == 2
        assert samples.source == str(path)
        assert samples.index.tolist() == [0, 2, 4, 5]  # a blank line is a row too
        assert samples.blank_skipped == (1, 3)


def test_txt_ending_in_capitals(tmp_path):
    path = tmp_path / "A.TXT"
    path.write_text("one\ntwo\n", encoding="utf-8")
    assert read_samples(str(path)).texts == ["one", "two"]


def test_jsonl(tmp_path):
    path = tmp_path / "a.jsonl"
    rows = [{"text": "one"}, {"text": None}, {"text": ""}, {"other": 1, "text": "two\nlines\r\n"}, {"text": "雪"}]
    lines = [json.dumps(rows[0]), "", *(json.dumps(row) for row in rows[1:]), "  "]
    path.write_bytes(b"\xef\xbb\xbf" + "\r\n".join(lines).encode())
    for given_as in both(path):
        samples = read_samples(given_as)
        assert samples.texts == ["one", "two\nlines\r\n", "雪"]
        assert samples.n_blank_skipped == 4


def test_jsonl_of_ids(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text('{"input_ids": [5, 0, 7]}\n{"input_ids": null}\n{"input_ids": [1]}\n', encoding="utf-8")
    samples = read_samples(path, text_column="input_ids")
    assert ids_of(samples) == [[5, 0, 7], [1]]
    assert samples.n_blank_skipped == 1


def test_csv_with_quoted_line_ends(tmp_path):
    path = tmp_path / "a.csv"
    path.write_bytes(b'\xef\xbb\xbfid,text\r\n1,"two\r\nlines, ""quoted"""\r\n2,\r\n3,plain\r\n4,""\r\n')
    for given_as in both(path):
        samples = read_samples(given_as)
        assert samples.texts == ['two\r\nlines, "quoted"', "plain"]
        assert samples.n_blank_skipped == 2


def test_blank_lines_of_a_csv_are_counted(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text('text\none\n\n""\ntwo\n\n', encoding="utf-8")
    samples = read_samples(path)
    assert samples.texts == ["one", "two"]
    assert samples.n_blank_skipped == 3


def test_csv_cells_of_any_size_leave_no_global_setting(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("text\n" + "x" * 200_000 + "\nshort\n", encoding="utf-8")
    before = csv.field_size_limit()
    assert [len(text) for text in read_samples(path).texts] == [200_000, 5]
    assert [len(text) for text in read_samples(path, limit=1).texts] == [200_000]
    assert csv.field_size_limit() == before


@pytest.mark.parametrize("row_group", [1, 100])
def test_parquet_texts(tmp_path, row_group):
    path = tmp_path / "a.parquet"
    pd.DataFrame({"other": range(4), "text": ["one", None, " ", "two\n"]}).to_parquet(path, row_group_size=row_group)
    for given_as in both(path):
        samples = read_samples(given_as)
        assert samples.texts == ["one", "two\n"]
        assert samples.n_blank_skipped == 2


def test_parquet_ids(tmp_path):
    path = tmp_path / "a.parquet"
    pd.DataFrame({"ids": [[1, 2], None, [3]]}).to_parquet(path)
    samples = read_samples(path, text_column="ids")
    assert ids_of(samples) == [[1, 2], [3]]
    assert samples.n_blank_skipped == 1


def test_limit_counts_samples_and_not_rows(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("\none\n\n\ntwo\nthree\n", encoding="utf-8")
    samples = read_samples(path, limit=2)
    assert samples.texts == ["one", "two"]
    assert samples.n_blank_skipped == 3
    assert read_samples(path, limit=99).texts == ["one", "two", "three"]
    assert read_samples(TEXTS, limit=1).texts == TEXTS[:1]
    assert ids_of(read_samples(np.arange(6).reshape(3, 2), limit=2)) == [[0, 1], [2, 3]]


# --- fingerprints


def test_fingerprint_is_a_documented_hash():
    """SHA-256 over length (8 bytes, little-endian) and content of each sample, computed here a second time."""

    def sha256(parts: list[bytes]) -> str:
        return hashlib.sha256(b"".join(len(part).to_bytes(8, "little") + part for part in parts)).hexdigest()

    assert read_samples(["雪", "ab"]).texts_sha256 == sha256(["雪".encode(), b"ab"])
    assert read_samples([[1, 258], [3]]).ids_sha256 == sha256(
        [b"\1\0\0\0\0\0\0\0\2\1\0\0\0\0\0\0", b"\3\0\0\0\0\0\0\0"]
    )


@pytest.mark.parametrize("other", [["b", "a"], ["ab"], ["a", "b", "b"], ["a", "B"], ["", "ab"][1:], ["a", "b "]])
def test_fingerprint_of_texts_tells_order_and_boundaries(other):
    assert read_samples(["a", "b"]).texts_sha256 != read_samples(other).texts_sha256


@pytest.mark.parametrize("other", [[[3], [1, 2]], [[1], [2, 3]], [[1, 2, 3]], [[1, 2], [3], [3]], [[1, 2], [4]]])
def test_fingerprint_of_ids_tells_order_and_boundaries(other):
    assert read_samples([[1, 2], [3]]).ids_sha256 != read_samples(other).ids_sha256


def test_fingerprint_does_not_depend_on_the_container(tmp_path):
    pd.DataFrame({"text": TEXTS, "ids": [[1, 2]] * 5}).to_parquet(tmp_path / "a.parquet")
    data = datasets.Dataset.from_dict({"text": TEXTS})
    by_texts = {read_samples(s).texts_sha256 for s in (TEXTS, tuple(TEXTS), data, tmp_path / "a.parquet")}
    assert len(by_texts) == 1
    ids = [[[1, 2]] * 5, np.array([[1, 2]] * 5, dtype=np.int16), torch.tensor([[1, 2]] * 5)]
    by_ids = {read_samples(s).ids_sha256 for s in ids}
    by_ids.add(read_samples(tmp_path / "a.parquet", text_column="ids").ids_sha256)
    assert len(by_ids) == 1


def test_record_is_json_and_names_the_source():
    record = read_samples([[1, 2], [3]]).record()
    assert json.loads(json.dumps(record)) == record
    assert record["source"] == "list of 2"
    assert record["n_samples"] == 2


# --- tokens of texts


class Reversible:
    """Code points as ids. A tilde is lost, and 'X' comes back as 'x'."""

    def __call__(self, texts, *, add_special_tokens, return_attention_mask, verbose):
        assert add_special_tokens is False
        return {"input_ids": [[ord(c) for c in text if c != "~"] for text in texts]}

    def decode(self, ids, *, skip_special_tokens, clean_up_tokenization_spaces):
        assert not skip_special_tokens
        assert not clean_up_tokenization_spaces
        return "".join(map(chr, ids)).replace("X", "x")


def test_tokenize_keeps_texts_and_gives_ids():
    samples = read_samples(["ab", "c"]).tokenize(Reversible())
    assert [ids.tolist() for ids in samples.ids] == [[97, 98], [99]]
    assert samples.texts == ["ab", "c"]
    assert samples.ids_sha256 == read_samples([[97, 98], [99]]).ids_sha256


def test_ids_need_no_tokenizer():
    samples = read_samples([[5, 6]])
    assert samples.tokenize(None) is samples


def test_lossy_text_is_refused_by_name():
    with pytest.raises(LossyTextError, match=r"2 of 4 texts do not survive .* Reversible: sample 1 is 'X', and .* 'x'"):
        read_samples(["a", "X", "b~", "c"]).tokenize(Reversible())


def test_lossy_text_is_skipped_and_counted():
    samples = read_samples(["a", "X", "雪", "~", "c"]).tokenize(Reversible(), on_lossy_text="skip")
    assert samples.texts == ["a", "雪", "c"]
    assert [ids.tolist() for ids in samples.ids] == [[97], [0x96EA], [99]]
    assert samples.index.tolist() == [0, 2, 4]
    assert samples.lossy_skipped == (1, 3)
    assert samples.n_bytes.tolist() == [1, 3, 1]
    assert samples.record()["lossy_skipped"] == [1, 3]
    assert samples.texts_sha256 == read_samples(["a", "雪", "c"]).texts_sha256


def test_nothing_left_after_skipping():
    with pytest.raises(InputError, match="none of the 2 texts survives the tokenizer"):
        read_samples(["X", "~"]).tokenize(Reversible(), on_lossy_text="skip")


def test_on_lossy_text_has_two_values(monkeypatch):
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)  # a user has no type checker
    with pytest.raises(InputError, match=r'on_lossy_text must be "raise" or "skip"; it is \'warn\''):
        read_samples(["a"]).tokenize(Reversible(), on_lossy_text="warn")


def test_a_tokenizer_that_refuses_some_texts():
    class Particular(Reversible):
        def __call__(self, texts, **options):
            if any("?" in text for text in texts):
                raise RuntimeError("no token for '?'")
            return super().__call__(texts, **options)

    with pytest.raises(
        LossyTextError, match=r"1 of 3 texts .* sample 1 is 'b\?', and the tokenizer refuses it \(Runtime"
    ):
        read_samples(["a", "b?", "c"]).tokenize(Particular())
    samples = read_samples(["a", "b?", "X", "c"]).tokenize(Particular(), on_lossy_text="skip")
    assert samples.texts == ["a", "c"]
    assert samples.lossy_skipped == (1, 2)
    with pytest.raises(
        InputError, match="the tokenizer Particular refuses each of the 2 texts; of the first it says Runtime"
    ):
        read_samples(["?", "b?"]).tokenize(Particular(), on_lossy_text="skip")


@pytest.mark.parametrize(
    ("text", "back", "words"),
    [
        (
            "the house met again. " * 10 + "cafe\u0301 and more",
            "the house met again. " * 10 + "caf\xe9 and more",
            r"'house met again\. cafe\\u0301 and more', .* is \.\.\.'house met again\. caf\\xe9 and more' \(they differ from "
            r"character 213 on: U\+0065 U\+0301 U\+0020 came, U\+00E9 U\+0020 U\+0061 comes back\)",
        ),
        (
            "ab ",
            "ab",
            r"'ab ', and .* is 'ab' \(they differ from character 2 on: U\+0020 came, no character comes back",
        ),
        ("a\rb", "a\nb", r"'a\\rb', and .* is 'a\\nb'"),
    ],
)
def test_the_message_shows_where_two_texts_differ(text, back, words):
    class Fixed(Reversible):
        def decode(self, ids, **options):
            return back

    with pytest.raises(LossyTextError, match=words):
        read_samples([text]).tokenize(Fixed())


# --- read once


def test_samples_are_returned_as_they_are():
    samples = read_samples(TEXTS)
    assert read_samples(samples) is samples
    assert read_samples(samples, limit=5) is samples
    assert read_samples(samples, text_column="other") is samples
    assert read_samples(samples, limit=2).texts == TEXTS[:2]


@pytest.mark.parametrize("limit", [1, 2, 3, 99])
def test_a_limit_on_samples_is_the_limit_on_the_file(tmp_path, limit):
    path = tmp_path / "a.txt"
    path.write_text("\none\n\ntwo\nX\n\nthree\n", encoding="utf-8")
    cut, direct = read_samples(read_samples(path), limit=limit), read_samples(path, limit=limit)
    assert cut.texts == direct.texts
    assert cut.index.tolist() == direct.index.tolist()
    skipped = read_samples(path).tokenize(Reversible(), on_lossy_text="skip")
    assert skipped.index.tolist() == [1, 3, 6]
    assert skipped.first(2).lossy_skipped == ()
    assert skipped.first(2).index.tolist() == [1, 3]


def test_what_is_computed_from_samples_is_computed_once(monkeypatch):
    samples = read_samples(["ab", "c"]).tokenize(Reversible())
    before = [samples.record(), samples.index, samples.n_bytes, samples.texts_sha256, samples.ids_sha256]
    monkeypatch.setattr(hashlib, "sha256", lambda: pytest.fail("hashed again"))
    after = [samples.record(), samples.index, samples.n_bytes, samples.texts_sha256, samples.ids_sha256]
    assert before[0] == after[0]
    assert all(a is b for a, b in zip(before[1:], after[1:], strict=True))
    assert not samples.index.flags.writeable


def test_many_lossy_texts_take_no_longer_than_few():
    """Their positions were once worked out anew for each of them: a minute and a half for a million texts."""
    texts = ["X"] * 20_000 + ["a"]
    start = time.perf_counter()
    assert len(read_samples(texts).tokenize(Reversible(), on_lossy_text="skip")) == 1
    assert time.perf_counter() - start < 2


# --- positions: the rows of the input


@pytest.mark.parametrize("kind", ["txt", "jsonl", "csv", "parquet", "dataset", "stream", "frame", "arrow"])
@pytest.mark.parametrize("limit", [None, 2])
def test_index_joins_back_to_the_rows_of_the_input(tmp_path, kind, limit):
    rows = [None, "a", "", "X", " ", None, "b", "c"]
    lines = ["" if row is None else row for row in rows]
    path = tmp_path / f"rows.{kind}"
    if kind == "txt":
        path.write_text("\n".join(lines), encoding="utf-8")
    elif kind == "jsonl":
        path.write_text("".join(json.dumps({"text": row}) + "\n" for row in rows), encoding="utf-8")
    elif kind == "csv":
        path.write_text("text\n" + "\n".join(lines), encoding="utf-8")
    elif kind == "parquet":
        pd.DataFrame({"text": rows}).to_parquet(path)
    in_memory = {
        "dataset": lambda: datasets.Dataset.from_dict({"text": rows}),
        "stream": lambda: datasets.Dataset.from_dict({"text": rows}).to_iterable_dataset(),
        "frame": lambda: pd.DataFrame({"text": rows}, index=range(100, 108)),
        "arrow": lambda: pa.table({"text": rows}),
    }
    given_as = in_memory[kind]() if kind in in_memory else path
    samples = read_samples(given_as, limit=limit).tokenize(Reversible(), on_lossy_text="skip")
    assert samples.texts == [rows[i] for i in samples.index]
    assert samples.texts == (["a"] if limit else ["a", "b", "c"])
    assert samples.record()["blank_skipped"] == ([0, 2] if limit else [0, 2, 4, 5])
    assert samples.record()["lossy_skipped"] == [3]


def test_positions_of_a_saved_result(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text('{"text": null}\n{"text": [1]}\n\n{"text": [2, 3]}\n', encoding="utf-8")
    compress_bits(UniformModel(8), path, progress=False).save(tmp_path / "result")
    found = CodeLengths.load(tmp_path / "result")
    assert found.index.tolist() == found.to_pandas()["sample"].tolist() == [1, 3]


def test_a_record_of_the_last_version_is_still_understood(tmp_path):
    """It counted lossy texts among the rows that are not blank, and did not say where blank ones were."""
    record = {"n_samples": 2, "n_blank_skipped": 1, "lossy_skipped": [1]}
    assert positions_measured(2, record).tolist() == [0, 2]
    path = tmp_path / "a.txt"
    path.write_text("\na\nX\nb\n", encoding="utf-8")
    assert read_samples(path).as_measured(record).texts == ["a", "b"]
    assert read_samples(path).as_measured(record).lossy_skipped == (2,)
    assert read_samples(path).as_measured(read_samples(path).record()).texts == ["a", "X", "b"]


# --- tables and columns in memory


TABLES = [
    pa.table({"text": TEXTS, "more": range(5)}),
    pa.RecordBatch.from_pydict({"text": TEXTS}),
    pa.table({"text": pa.chunked_array([TEXTS[:2], TEXTS[2:]])}),
    pa.table({"text": pa.array(TEXTS).dictionary_encode()}),
    pa.array(TEXTS),
    pa.chunked_array([TEXTS[:2], TEXTS[2:]]),
    pd.DataFrame({"more": range(5), "text": TEXTS}),
    pd.DataFrame({"text": TEXTS}).convert_dtypes(),
    pd.Series(TEXTS, index=list("abcde")),
    {"text": TEXTS, "more": [1] * 5},
    {"text": np.array(TEXTS, dtype=object)},
]


@pytest.mark.parametrize("table", TABLES, ids=lambda table: type(table).__name__)
def test_tables_and_columns(table):
    samples = read_samples(table)
    assert samples.texts == TEXTS
    assert type(table).__name__ in samples.source
    assert read_samples(table, limit=2).texts == TEXTS[:2]


@pytest.mark.parametrize("make", [pa.table, pd.DataFrame, datasets.Dataset.from_dict, lambda columns: columns])
def test_token_ids_of_tables(make):
    table = make({"ids": [[1, 2], None, [3]], "labels": [0, 1, 1]})
    samples = read_samples(table, text_column="ids")
    assert ids_of(samples) == [[1, 2], [3]]
    assert samples.index.tolist() == [0, 2]


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (pa.table({"body": ["a"]}), "the Table has no column 'text': it has body"),
        (pa.table([["a"], ["b"]], names=["text", "text"]), "the Table has 2 columns named 'text': which of them"),
        (pa.table({"text": pa.array([b"a"])}), "column 'text' of the Table is binary: bytes"),
        (pa.table({"text": [{"a": 1}]}), "sample 0 must be a text or a list of token ids; it is dict"),
        (pd.DataFrame({"body": ["a"]}), "the DataFrame has no column 'text': it has body"),
        (pd.DataFrame([["a", "b"]], columns=["text", "text"]), "the DataFrame has 2 columns named 'text'"),
        (pd.DataFrame({0: ["a"]}), "the DataFrame has no column 'text': it has 0"),
        (pd.DataFrame({"text": [1, 2]}), "sample 0 must be a text or a list of token ids; it is int '1'"),
        (pd.DataFrame({"text": [None, "a", 5]}), "sample 1 is str 'a' and sample 2 is int '5'"),
        (
            {"input_ids": [[1]], "attention_mask": 1},
            "column 'attention_mask' of the dict must be a list; it is int '1'",
        ),
        ({"input_ids": [[1], [2]], "attention_mask": [[1]]}, "2 rows in 'input_ids' and 1 in 'attention_mask'"),
    ],
)
def test_tables_refused(table, message):
    with pytest.raises(InputError, match=message):
        read_samples(table)


def test_a_table_that_exports_itself_to_arrow():
    """As those of polars and duckdb do."""
    narwhals = pytest.importorskip("narwhals")
    table = narwhals.from_native(pa.table({"text": TEXTS, "more": range(5)}))
    assert read_samples(table).texts == TEXTS
    with pytest.raises(InputError, match=r"a LazyFrame came\. Pass what its collect\(\) gives"):
        read_samples(table.lazy())
    with pytest.raises(InputError, match="the DataFrame has no column 'body': it has text, more"):
        read_samples(table, text_column="body")


def test_a_stream_that_does_not_know_its_columns(tmp_path):
    data = datasets.Dataset.from_dict({"content": ["a", "b"]}).to_iterable_dataset().map(lambda row: row)
    assert data.column_names is None
    with pytest.raises(InputError, match="row 0 of the data set has no column 'text': it has content"):
        read_samples(data)
    assert read_samples(data, text_column="content").texts == ["a", "b"]

    def broken(row):
        raise RuntimeError("the disk is gone")

    with pytest.raises(InputError, match="row 0 of the data set cannot be read: RuntimeError: the disk is gone"):
        read_samples(data.map(broken), text_column="content")


@pytest.mark.parametrize("kind", ["pandas", "arrow"])
def test_rows_that_are_tables_themselves(kind):
    data = datasets.Dataset.from_dict({"text": ["a", "b"]}).with_format(kind)
    assert read_samples(data).texts == ["a", "b"]
    data = data.with_format(None).to_iterable_dataset().with_format(kind)
    with pytest.raises(
        InputError, match=r"row 0 of the data set must map names of columns to cells; .*with_format\(None\)"
    ):
        read_samples(data)
    assert read_samples(data.with_format(None)).texts == ["a", "b"]


def test_a_format_hides_no_column_and_a_transform_is_kept():
    data = datasets.Dataset.from_dict({"text": ["a"], "input_ids": [[1, 0]], "attention_mask": [[1, 0]]})
    shown = data.with_format("torch", columns=["input_ids"])
    assert ids_of(read_samples(shown, text_column="input_ids")) == [[1]]
    assert read_samples(shown).texts == ["a"]
    loud = data.with_transform(lambda rows: {"text": [f"{text}!" for text in rows["text"]]})
    assert read_samples(loud).texts == ["a!"]


def test_other_sequences_and_readers():
    assert read_samples(deque(TEXTS), limit=2).texts == TEXTS[:2]
    batch = pa.RecordBatch.from_pydict({"text": TEXTS})
    assert read_samples(pa.RecordBatchReader.from_batches(batch.schema, [batch])).texts == TEXTS


# --- padding


class Padding:
    """Ids need no tokenizer; this one is at hand, and names its tokens."""

    pad_token = "<pad>"

    def __init__(self, pad, **others):
        self.pad_token_id = pad
        self.bos_token_id = self.eos_token_id = self.unk_token_id = None
        vars(self).update(others)


MASKED = {
    "input_ids": [[7, 8, 0, 0], [0, 9, 5, 6], [1, 2, 3, 4]],
    "attention_mask": [[1, 1, 0, 0], [0, 1, 1, 1], [1] * 4],
}
UNPADDED = [[7, 8], [9, 5, 6], [1, 2, 3, 4]]


@pytest.mark.parametrize(
    "make",
    [
        lambda columns: columns,
        lambda columns: {name: torch.tensor(rows) for name, rows in columns.items()},
        lambda columns: {name: np.array(rows) for name, rows in columns.items()},
        transformers.BatchEncoding,
        datasets.Dataset.from_dict,
        lambda columns: datasets.Dataset.from_dict(columns).with_format("torch"),
        lambda columns: datasets.Dataset.from_dict(columns).to_iterable_dataset(),
        pa.table,
        pd.DataFrame,
        lambda columns: np.ma.array(columns["input_ids"], mask=np.array(columns["attention_mask"]) == 0),
    ],
)
def test_a_mask_says_what_is_padding(make):
    samples = read_samples(make(MASKED), text_column="input_ids")
    assert ids_of(samples) == UNPADDED
    assert samples.n_padding_removed == samples.record()["n_padding_removed"] == 3
    assert samples.tokenize(Padding(7)) is samples  # who brings a mask has said which ids are padding


@pytest.mark.parametrize("kind", ["jsonl", "parquet"])
def test_a_mask_in_a_file(tmp_path, kind):
    path = tmp_path / f"a.{kind}"
    table = pd.DataFrame(MASKED)
    table.to_parquet(path) if kind == "parquet" else table.to_json(path, orient="records", lines=True)
    assert ids_of(read_samples(path, text_column="input_ids")) == UNPADDED


def test_one_encoded_text():
    assert ids_of(read_samples({"input_ids": [7, 8, 0], "attention_mask": [1, 1, 0]})) == [[7, 8]]
    assert read_samples({"input_ids": [[7, 8, 0]]}).n_padding_removed is None


@pytest.mark.parametrize(
    ("mask", "message"),
    [
        ([[1, 0, 1]], "the attention mask of sample 0 is 0 at position 1, between ids at which it is 1"),
        ([[1, 1]], r"the attention mask of sample 0 has shape \[2\], and its ids \[3\]"),
        ([[0, 0, 0]], "sample 0 is all padding: its attention mask has no 1"),
        ([[1, 2, 0]], r"the attention mask of sample 0 must hold 0 and 1; it is \[1, 2, 0\]"),
    ],
)
def test_masks_refused(mask, message):
    with pytest.raises(InputError, match=message):
        read_samples({"input_ids": [[5, 6, 7]], "attention_mask": mask})
    assert ids_of(read_samples({"input_ids": [[5, 6, 7]], "attention_mask": [[True, True, False]]})) == [[5, 6]]


@pytest.mark.parametrize(
    ("labels", "ids", "counted"),
    [
        ([5, 6, -100], [5, 6], None),  # what stands behind is never read
        ([-100, -100, 7], [5, 6, 7], [False, False, True]),
        ([-100, 6, 7], [5, 6, 7], [False, True, True]),
        ([-100, 6, -100], [5, 6], [False, True]),
        ([5, 6, 7], [5, 6, 7], None),
        ([1, 0], [5, 6, 7], None),
        (1, [5, 6, 7], None),
    ],
)
def test_labels_tell_what_is_counted(labels, ids, counted):
    """Labels of -100 at the start may be a prompt that is left out of the loss."""
    read = read_samples({"input_ids": [[5, 6, 7]], "labels": [labels]})
    assert ids_of(read) == [ids]
    assert (None if read.counted is None else read.counted[0].tolist()) == counted
    assert read.conditional == (None if counted is None else "labels")


def test_labels_that_may_be_padding_are_refused():
    with pytest.raises(InputError, match="sample 0 has labels of -100 at its first 2 positions"):
        read_samples({"input_ids": [[0, 0, 7]], "labels": [[-100, -100, 7]]})


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ([[1, 2], [3, 0]], "sample 1 ends with 1 times id 0, the tokenizer's pad token '<pad>' \\(1 of 2 samples"),
        ([[0, 0, 2], [3, 4, 0]], "sample 0 begins with 2 times id 0, .* \\(2 of 2 samples"),
        ([[0, 0]], "sample 0 begins with 2 times id 0"),
    ],
)
def test_ids_that_end_in_the_pad_token_are_refused(rows, words):
    with pytest.raises(InputError, match=words):
        read_samples(rows).tokenize(Padding(0, eos_token_id=2))
    legal = read_samples([[1, 0, 2]])
    assert legal.tokenize(Padding(0)) is legal  # in the middle it is no padding
    for tokenizer in (Padding(None), Padding(9), None):
        assert ids_of(read_samples(rows).tokenize(tokenizer)) == rows


@pytest.mark.parametrize("role", ["bos", "eos", "unk"])
def test_a_pad_token_of_two_meanings_is_warned_of(role):
    tokenizer = Padding(0, **{f"{role}_token_id": 0})
    with pytest.warns(MeasurementWarning, match=f"sample 1 ends with 2 times id 0, .* its {role.upper()} token too"):
        read_samples([[0, 2, 0], [3, 0, 0]]).tokenize(tokenizer)
    read_samples([[0, 2, 0], [3, 0]]).tokenize(tokenizer)  # a single one may be meant


# --- a file holds what the list holds


LINES = st.text(st.characters(exclude_categories=["Cs"]), min_size=1) | st.text(
    st.sampled_from("a ,;\"'\r\n\t\x00\x0b\x0c\x1c\x85\u2028\u2029\ufeff\u0301雪🙂\\"), min_size=1
)


@given(texts=st.lists(LINES.filter(str.strip), min_size=1, max_size=8))
@example(texts=["progress 1 %\rprogress 2 %\rdone", " next "])
@example(texts=["a, b", 'say "no"', '"', "\ufeffbom", "x\x00y", "\x85a", "a\u2028b", "a\x1cb"])
@example(texts=["\ufeff\ufeffa"])
@settings(max_examples=60, deadline=None)
def test_a_file_of_each_kind_equals_the_list_it_was_written_from(tmp_path_factory, texts):
    folder = tmp_path_factory.mktemp("same")
    lines = [text.replace("\n", " ").removesuffix("\r") or "a" for text in texts]
    lines = [line if line.strip() else "a" for line in lines]
    (folder / "a.txt").write_bytes(b"\xef\xbb\xbf" + "".join(f"{line}\n" for line in lines).encode())
    (folder / "windows.txt").write_bytes(("\ufeff" + "\r\n".join(lines)).encode())
    with (folder / "a.jsonl").open("w", encoding="utf-8", newline="\n") as file:
        file.writelines(json.dumps({"id": 1, "text": text}, ensure_ascii=False) + "\n" for text in texts)
    with (folder / "a.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, quoting=csv.QUOTE_ALL)
        writer.writerows([["text", "n"], *([text, "1"] for text in texts)])
    pd.DataFrame({"text": texts}).to_parquet(folder / "a.parquet")
    for name in ("a.txt", "windows.txt"):
        assert read_samples(folder / name).texts == read_samples(lines).texts, name
    for name in ("a.jsonl", "a.csv", "a.parquet"):
        samples = read_samples(folder / name)
        assert samples.texts == read_samples(texts).texts, name
        assert samples.texts_sha256 == read_samples(texts).texts_sha256


@pytest.mark.parametrize("separator", ["\r", "\x0b", "\x0c", "\x1c", "\x1d", "\x1e", "\x85", "\u2028", "\u2029"])
def test_only_line_feeds_end_a_line(tmp_path, separator):
    path = tmp_path / "a.txt"
    path.write_bytes(f"one{separator}part\ntwo\r\nthree\r\r\nfour{separator}".encode())
    assert read_samples(path).texts == [f"one{separator}part", "two", "three\r", f"four{separator}"]


def test_csv_is_read_in_threads(tmp_path):
    """The limit on a cell's size belongs to the process; it is never raised while a reader waits."""
    path = tmp_path / "a.csv"
    path.write_text("text\n" + ("x" * 200_000 + "\n") * 3, encoding="utf-8")
    before = csv.field_size_limit()
    rows = rows_of_file(path, Columns("text"))
    next(rows)
    assert csv.field_size_limit() == before
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda _: len(read_samples(path)), range(16)))
    assert found == [3] * 16
    assert csv.field_size_limit() == before
