"""Whatever holds samples: texts, token ids, arrays, data sets and files are read in order, whole, and counted."""

import csv
import hashlib
import json
from pathlib import Path

import datasets
import jaxtyping
import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from memorization.errors import InputError, LossyTextError, MeasurementWarning
from memorization.samples import Samples, read_samples

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


@given(texts=st.lists(st.text(st.characters(exclude_categories=["Cs"]), min_size=1).filter(str.strip), min_size=1))
@example(texts=["\r", "a\rb", "x\x00y", '"', "a\n\nb", "\ufeffbom"])
@settings(max_examples=40, deadline=None)
def test_any_text_survives_jsonl_csv_and_parquet(tmp_path_factory, texts):
    texts = [text for text in texts if text.strip()]
    folder = tmp_path_factory.mktemp("roundtrip")
    with (folder / "a.jsonl").open("w", encoding="utf-8") as file:
        file.writelines(json.dumps({"text": text}, ensure_ascii=False) + "\n" for text in texts)
    pd.DataFrame({"text": texts}).to_parquet(folder / "a.parquet")
    with (folder / "a.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, quoting=csv.QUOTE_ALL)
        writer.writerows([["text"], *([text] for text in texts)])
    for name in ("a.jsonl", "a.parquet", "a.csv"):
        assert read_samples(folder / name).texts == texts, name


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
