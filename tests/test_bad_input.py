"""Bad input gets a sentence: what was expected, what came, where, what to try. Each at the boundary, with its legal neighbour."""

import gzip
import json
import lzma
import shutil
from collections.abc import Callable

import datasets
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from torch import Tensor, nn

from memorization import UniformModel, compress_bits, unintended_memorization
from memorization.errors import (
    ImpossibleTokenError,
    InputError,
    LossyTextError,
    MeasurementWarning,
    ModelError,
    NotCausalError,
)
from memorization.measure import open_model
from memorization.membership import audit_membership, bag_of_words_auc, membership_metrics
from memorization.rarity import duplicate_counts
from memorization.samples import read_samples

UNIFORM = UniformModel(10)


def refused(samples, message: str, **options) -> None:
    with pytest.raises(InputError, match=message):
        compress_bits(UNIFORM, samples, **options)


# --- samples


@pytest.mark.parametrize("empty", [[], (), np.array([], dtype=object)])
def test_empty_list(empty):
    refused(empty, "samples is empty: there is nothing to measure")


@pytest.mark.parametrize("shape", [(0,), (0, 5), (5, 0)])
@pytest.mark.parametrize("make", [np.zeros, torch.zeros])
def test_empty_array(make, shape):
    array = make(shape, dtype=torch.int64 if make is torch.zeros else np.int64)
    refused(array, rf"an array of shape \[{', '.join(map(str, shape))}\]: there is nothing to measure")


def test_empty_text():
    refused(["a", ""], "sample 1 is empty: it has no bits to measure")
    refused("", "sample 0 is empty")


@pytest.mark.parametrize("row", [[], np.array([], dtype=np.int64), torch.tensor([], dtype=torch.int64)])
def test_empty_list_of_ids(row):
    refused([[1, 2], row], r"sample 1 (is empty|must be a flat list of at least one token id)")


@pytest.mark.parametrize("limit", [0, -1])
def test_limit(limit):
    refused([[1]], rf"limit must be None or an integer of at least 1; it is {limit}", limit=limit)
    assert len(compress_bits(UNIFORM, [[1], [2]], limit=1)) == 1


@pytest.mark.parametrize(
    ("samples", "message"),
    [
        (["a", [1, 2]], r"all texts or all token ids; sample 0 is str 'a' and sample 1 is list '\[1, 2\]'"),
        ([[1, 2], "a"], r"all texts or all token ids; sample 0 is list '\[1, 2\]' and sample 1 is str 'a'"),
        ([1, "a"], r"all texts or all token ids; sample 0 is int '1' and sample 1 is str 'a'"),
        (["a", None], r"all texts or all token ids; sample 0 is str 'a' and sample 1 is NoneType 'None'"),
        ([[1], None], r"sample 1 must be a text or a list of token ids; it is NoneType"),
        ([[1, 2], 3], r"sample 1 must be a text or a list of token ids; it is int '3'"),
        ([[1, 2.0]], r"token ids must be integers; sample 0 has float '2.0' at position 1"),
        ([[1], [2, True]], r"token ids must be integers; sample 1 has bool 'True' at position 1"),
        ([[1, "2"]], r"token ids must be integers; sample 0 has str '2' at position 1"),
        ([[[1, 2]]], r"token ids must be integers; sample 0 has list"),
        ([np.ones((2, 2), dtype=int)], r"sample 0 must be a flat list .* int64 array of shape \[2, 2\]"),
        ([np.ones(2)], r"sample 0 must be a flat list .* float64 array of shape \[2\]"),
        ([torch.ones(2)], r"sample 0 must be a flat list .* float32 array of shape \[2\]"),
        (np.ones((2, 2)), r"must be 1-D or 2-D and of an integer dtype; this one is 2-D float64"),
        (np.ones((2, 2), dtype=bool), r"must be 1-D or 2-D and of an integer dtype; this one is 2-D bool"),
        (np.ones((2, 2, 2), dtype=int), r"must be 1-D or 2-D and of an integer dtype; this one is 3-D int64"),
        (np.array(3), r"must be 1-D or 2-D and of an integer dtype; this one is 0-D int64"),
        (torch.ones(2, dtype=torch.bfloat16), r"must be 1-D or 2-D and of an integer dtype; this one is 1-D float32"),
        (b"bytes", r"bytes came, and which text they are depends on their encoding: pass \.decode\('utf-8'\)"),
        (bytearray(b"a"), r"bytearray came, and which text they are depends on their encoding"),
        (["a", b"bytes"], r"sample 1 is bytes, and which text it is depends on its encoding"),
        ([b"bytes"], r"sample 0 is bytes, and which text it is depends on its encoding"),
        (np.array([b"a"]), r"sample 0 is bytes_, and which text it is depends on its encoding"),
        ({"text": "a"}, r"column 'text' of the dict must be a list of texts or of id lists; it is str 'a'"),
        ({"body": ["a"]}, r"the dict has no column 'text': it has body"),
        ({1, 2}, r"samples must be a text, .* a set came\. It has no order: pass sorted\(samples\)"),
        (iter(["a"]), r"samples must be a text, .* a list_iterator came\. Pass list\(samples\)"),
        ((text for text in ["a"]), r"samples must be a text, .* a generator came\. Pass list\(samples\)"),
        (None, r"samples must be a text, .* a NoneType came"),
        (3, r"samples must be a text, .* a int came"),
        (pd.Series([1, 2]), r"sample 0 must be a text or a list of token ids; it is int '1'"),
        (pd.Series([None, 1.5]), r"sample 1 must be a text or a list of token ids; it is float '1.5'"),
        ([[1], [2, -100, 3]], r"sample 1 holds -100 at position 1: that marks what a loss leaves out, and is no token"),
        ([[1], [2**63]], r"sample 1 holds the number 9223372036854775808, which is no token id of any model"),
        (np.array([2**63], dtype=np.uint64), r"sample 0 holds the number 9223372036854775808"),
        (
            torch.zeros((2, 2), dtype=torch.int64).to_sparse(),
            r"a tensor of layout torch.sparse_coo on cpu cannot be read",
        ),
        (torch.zeros(2, dtype=torch.int64, device="meta"), r"a tensor of layout torch.strided on meta cannot be read"),
        (["a", "b\ud800"], r"sample 1 is not valid Unicode: character 1 is the lone surrogate '\\ud800'"),
    ],
)
def test_mixed_and_wrong_types(samples, message):
    refused(samples, message)


def test_a_long_wrong_value_is_not_quoted_in_full():
    with pytest.raises(InputError) as caught:
        compress_bits(UNIFORM, [[1], "x" * 10_000])
    assert len(str(caught.value)) < 400


# --- files and data sets


@pytest.mark.parametrize("ending", [".txt", ".jsonl", ".csv", ".parquet", ".TXT"])
def test_missing_file(tmp_path, ending):
    path = tmp_path / f"missing{ending}"
    refused(
        str(path), r"there is no file .*missing.* If this is a text to be measured, pass \[\".*missing.*\"\], a list"
    )
    with pytest.raises(InputError, match="there is no file") as caught:
        compress_bits(UNIFORM, path)
    assert "text to be measured" not in str(caught.value)  # a Path is no text
    assert read_samples([str(path)]).texts == [str(path)]


def test_a_folder_is_no_file(tmp_path):
    (tmp_path / "folder.txt").mkdir()
    refused(
        str(tmp_path / "folder.txt"),
        r"folder\.txt is a folder, .* pass one of the files in it, or pass the texts of all",
    )
    refused(tmp_path / "folder.txt", r"folder\.txt is a folder")


def test_a_long_text_that_ends_like_a_file():
    text = "I wrote it all down. " * 400 + "See notes.txt"
    with pytest.raises(InputError, match="there is no file I wrote it all down") as caught:
        read_samples(text)
    assert len(str(caught.value)) < 400
    assert read_samples([text]).texts == [text]


def test_a_path_of_another_kind(tmp_path):
    (tmp_path / "notes.md").write_text("x")
    refused(tmp_path / "notes.md", r"notes.md must end in \.txt, \.jsonl, \.json, \.csv, \.parquet")


def write(path, kind, column):
    table = pd.DataFrame({column: ["one", "two"], "more": [1, 2]})
    if kind == "jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in table.to_dict("records")), encoding="utf-8")
    else:
        getattr(table, f"to_{kind}")(path, index=False)
    return path


@pytest.mark.parametrize("kind", ["jsonl", "csv", "parquet"])
def test_file_without_the_column(tmp_path, kind):
    path = write(tmp_path / f"a.{kind}", kind, "body")
    refused(path, r"has no column 'text': it has body, more\. Name the column with text_column")
    refused(path, r"has no column 'bodY': it has body, more", text_column="bodY")
    assert read_samples(path, text_column="body").texts == ["one", "two"]


def test_jsonl_names_the_line(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text('{"text": "a"}\n\n{"body": "b"}\n', encoding="utf-8")
    refused(path, r"a\.jsonl, line 3 has no column 'text': it has body")
    path.write_text('{"text": "a"}\n{"text": \n', encoding="utf-8")
    refused(path, r"a\.jsonl, line 2 is not JSON .*; \.jsonl holds one object a line")
    path.write_text('["a", "b"]\n', encoding="utf-8")
    refused(path, r"line 1 has no column 'text': it is a list")
    path.write_text('{"text": 5}\n', encoding="utf-8")
    refused(path, r"sample 0 must be a text or a list of token ids; it is int '5'")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("text\nTo be, or not\n", r"a\.csv, line 2: the row has 2 cells, and the header names 1 \(text\)"),
        ("id,text\n1,a\n2,b,c\n", r"a\.csv, line 3: the row has 3 cells, and the header names 2 \(id, text\)"),
        ("id,text\n1,a\n2\n", r"a\.csv, line 3: the row has 1 cell, and the header names 2"),
        ('id,text\n1,"two\nlines"\n2\n', r"a\.csv, line 4: the row has 1 cell"),
        ("text,n\na,1,\n", r"a\.csv, line 2: the row has 3 cells"),
        ('text\n"He said \\"stay\\" and left"\n', r"a\.csv, the row that begins in line 2 is not CSV \(',' expected"),
        ('text\nfirst\n"second\nthird\n', r"a\.csv, the row that begins in line 3 is not CSV \(unexpected end"),
        (
            "text\none\rpart\n",
            r"a\.csv, the row that begins in line 2 is not CSV \(new-line character seen in unquoted",
        ),
        ("text,n,text\na,1,b\n", r"a\.csv has 2 columns named 'text': which of them holds the samples\?"),
        ("text;n\na;1\n", r"a\.csv has no column 'text': it has text;n"),
        ("", r"a\.csv has no column 'text': it has none"),
    ],
)
def test_csv_rows_that_do_not_fit(tmp_path, content, message):
    (tmp_path / "a.csv").write_bytes(content.encode())
    refused(tmp_path / "a.csv", message)


@pytest.mark.parametrize(
    ("content", "texts"),
    [
        ('text\n"To be, or not"\n', ["To be, or not"]),
        ('id,text\n1,a\n2,"b,c"\n', ["a", "b,c"]),
        ('id,text\n1,a\n\n2,""\n', ["a"]),
        ('text\n"He said ""stay"" and left"\n', ['He said "stay" and left']),
        ('text\nfirst\n"second\nthird"\n', ["first", "second\nthird"]),
        ('text\n"one\rpart"\n', ["one\rpart"]),
        ('text\nsay "no"\n', ['say "no"']),
        ("text,n,n\na,1,2\n", ["a"]),
        ("text\r\n a \r\n", [" a "]),
        ("text\nnull\nNA\nnan\n", ["null", "NA", "nan"]),
        ("text\na", ["a"]),
    ],
)
def test_csv_rows_that_do(tmp_path, content, texts):
    (tmp_path / "a.csv").write_bytes(content.encode())
    assert read_samples(tmp_path / "a.csv").texts == texts


def test_a_limit_ends_before_the_row_that_does_not_fit(tmp_path):
    (tmp_path / "a.csv").write_text("text\none\ntwo\nthree, four\n")
    assert read_samples(tmp_path / "a.csv", limit=2).texts == ["one", "two"]
    with pytest.raises(InputError, match="line 4"):
        read_samples(tmp_path / "a.csv", limit=3)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('"a text"', "line 2 has no column 'text': it is a str\\. A line of .jsonl is an object"),
        ("5", "line 2 has no column 'text': it is a int"),
        ("null", "line 2 has no column 'text': it is a NoneType"),
        ("{}", "line 2 has no column 'text': it has none"),
        ('{"text": "a", "text": "b"}', "line 2 has the key 'text' more than once"),
        ('{"text": "a"} {"text": "b"}', "line 2 is not JSON"),
        ("[" * 100_000, "line 2 is not JSON"),
        ('{"text": "\\ud800"}', "sample 1 is not valid Unicode"),
        ('{"text": ["a", "b"]}', "sample 0 is str 'first' and sample 1 is list"),
        ('{"text": NaN, "n": ' + "9" * 5000 + "}", "line 2 is not JSON"),
    ],
)
def test_jsonl_lines_that_do_not_fit(tmp_path, line, message):
    (tmp_path / "a.jsonl").write_text(f'{{"text": "first"}}\n{line}\n')
    refused(tmp_path / "a.jsonl", message)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("text\nfoo\n".encode("utf-16"), "It begins like UTF-16"),
        ("text\nfoo\n".encode("utf-32"), "It begins like UTF-32"),
        ("text\nfoo\n".encode("utf-16-le"), "line 1 has a NUL beside each character, as UTF-16 has"),
        ("text\nfoo\n".encode("utf-16-be"), "line 1 has a NUL beside each character, as UTF-16 has"),
        (gzip.compress(b"text\nfoo\n", mtime=0), "It begins like gzip. Give the file the ending .gz"),
        (lzma.compress(b"text\nfoo\n"), "It begins like xz. Unpack the file first"),
        (b"PAR1\n\xff", "line 2 is not UTF-8 text .* It begins like parquet"),
    ],
)
@pytest.mark.parametrize("ending", ["txt", "csv", "jsonl"])
def test_files_of_another_kind_than_their_ending(tmp_path, content, ending, message):
    (tmp_path / f"a.{ending}").write_bytes(content)
    if ending != "txt" and content.startswith(b"PAR1"):
        message = "has no column|is not JSON"  # said of the first line, which is text
    refused(tmp_path / f"a.{ending}", message)


def test_a_nul_is_a_character(tmp_path):
    (tmp_path / "a.txt").write_bytes(b"a\0b\n\0\n")
    assert read_samples(tmp_path / "a.txt").texts == ["a\0b", "\0"]


@pytest.mark.parametrize("beside", ["attention_mask", "labels"])
@pytest.mark.parametrize("kind", ["parquet", "Table", "DataFrame", "jsonl"])
def test_columns_that_tell_padding_are_there_once(tmp_path, kind, beside):
    names, cells = ["input_ids", beside, beside], [[7, 8], [1, 0], [1, 1]]
    table = pa.Table.from_arrays([pa.array([cell]) for cell in cells], names=names)
    samples = tmp_path / f"a.{kind}"
    if kind == "parquet":
        pq.write_table(table, samples)
    elif kind == "jsonl":
        pairs = zip(names, cells, strict=True)
        samples.write_text("{" + ", ".join(f'"{name}": {cell}' for name, cell in pairs) + "}\n")
    else:
        samples = table if kind == "Table" else pd.DataFrame([cells], columns=names)
    refused(samples, f"2 columns named '{beside}'|the key '{beside}' more than once", text_column="input_ids")


@pytest.mark.parametrize("name", ["attention_mask", "labels"])
@pytest.mark.parametrize("cell", [[1, [1], 0], "110", [None, 1, 0], {"a": 1}])
def test_what_is_no_mask(name, cell):
    data = {"input_ids": [[5, 6, 7]], name: [cell]}
    if name == "attention_mask" or cell == [1, [1], 0]:
        with pytest.raises(InputError, match=f"the {name.replace('_', ' ')} of sample 0"):
            read_samples(data)
    else:  # labels of another kind, such as the class of a text, tell nothing of padding
        assert len(read_samples(data)) == 1


def test_ids_that_are_masked_in_a_list():
    rows = [np.ma.masked_array([5, 6, 0], mask=[0, 0, 1]), np.ma.masked_array([7, 8])]
    refused(rows, "sample 0 is a masked array, and some of its ids are masked")
    assert [ids.tolist() for ids in read_samples(rows[1:]).ids] == [[7, 8]]


@pytest.mark.parametrize("kind", ["csv", "DataFrame", "jsonl"])
def test_ids_that_were_written_as_text(tmp_path, kind):
    samples = tmp_path / f"a.{kind}"
    if kind == "csv":
        samples.write_text('input_ids\n"[1, 2]"\n')
    elif kind == "jsonl":
        samples.write_text('{"input_ids": "[1, 2]"}\n')
    else:
        samples = pd.DataFrame({"input_ids": ["[1, 2]"]})
    refused(
        samples, r"has a text in column 'input_ids', where token ids are expected: '\[1, 2\]'", text_column="input_ids"
    )


def test_names_of_files_in_a_list_are_warned_of(tmp_path):
    names = [str(tmp_path / name) for name in ("a.txt", "b.csv")]
    for name in names:
        (tmp_path / name).write_text("text\n")
    with pytest.warns(MeasurementWarning, match="each text of the list is the name of an existing file, the first is"):
        assert read_samples(names).texts == names
    assert read_samples([*names, "a text"]).texts[-1] == "a text"


def test_a_column_has_one_name(tmp_path, no_type_checker):
    (tmp_path / "a.jsonl").write_text('{"text": "a"}\n')
    refused(tmp_path / "a.jsonl", r"text_column must be the name of one column; it is \['text'\]", text_column=["text"])


def test_a_limit_beyond_all_counts():
    assert len(read_samples(["a", "b"], limit=2**70)) == 2


def test_jsonl_objects_may_repeat_what_is_not_read(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"text": "a", "n": 1, "n": 2, "deep": {"text": 1, "text": 2}}\n{"text": NaN}\n')
    assert read_samples(tmp_path / "a.jsonl").texts == ["a"]


@pytest.mark.parametrize("limit", [True, 1.5, 2.0, "3", np.float64(1), np.True_])
@pytest.mark.usefixtures("no_type_checker")
def test_a_limit_that_is_no_integer(limit):
    refused([[1], [2]], "limit must be None or an integer of at least 1; it is", limit=limit)
    assert len(read_samples([[1], [2]], limit=np.int64(1))) == len(read_samples([[1], [2]], limit=np.uint8(1))) == 1


@pytest.mark.parametrize("make", [str, lambda path: path])
def test_a_path_is_never_cut(tmp_path, make):
    path = tmp_path / ("long folder name " * 9) / ("deep" * 20) / "the_file_i_meant.jsonl"
    with pytest.raises(InputError, match="there is no file") as caught:
        read_samples(make(path))
    assert str(path) in str(caught.value)


def test_a_parquet_file_damaged_behind_its_footer(tmp_path):
    path = tmp_path / "a.parquet"
    pd.DataFrame({"text": ["abc" * 100] * 1000}).to_parquet(path, compression=None)
    content = bytearray(path.read_bytes())
    content[4:204] = b"\xff" * 200
    path.write_bytes(bytes(content))
    refused(path, r"a\.parquet is damaged: its rows after row 0 cannot be read")


def test_a_folder_of_parquet_parts(tmp_path):
    folder = tmp_path / "parts.parquet"
    folder.mkdir()
    (folder / "_SUCCESS").touch()
    pd.DataFrame({"text": ["b"]}).to_parquet(folder / "part-1.parquet")
    pd.DataFrame({"text": ["a"]}).to_parquet(folder / "part-0.parquet")
    refused(folder, r"parts\.parquet is a folder, .* pyarrow\.parquet\.read_table\(folder\)")
    assert read_samples(pq.read_table(folder)).texts == ["a", "b"]  # as the message says


@pytest.mark.parametrize("kind", [pa.binary(), pa.large_binary(), pa.binary(1)])
def test_a_parquet_column_of_bytes(tmp_path, kind):
    pq.write_table(pa.table({"text": pa.array([b"a"], kind)}), tmp_path / "a.parquet")
    refused(
        tmp_path / "a.parquet", r"column 'text' of .*a\.parquet is .*binary.*: bytes, with no word of their encoding"
    )
    pq.write_table(pa.table({"text": pa.array(["a"], pa.large_string())}), tmp_path / "a.parquet")
    assert read_samples(tmp_path / "a.parquet").texts == ["a"]


@pytest.mark.parametrize("content", [b"", b"not parquet at all", b"PAR1" + b"\0" * 40 + b"PAR1"])
def test_broken_parquet(tmp_path, content):
    (tmp_path / "a.parquet").write_bytes(content)
    refused(tmp_path / "a.parquet", r"a\.parquet is not a parquet file")


@pytest.mark.parametrize("ending", [".txt", ".jsonl", ".csv"])
def test_a_file_that_is_not_utf8(tmp_path, ending):
    (tmp_path / f"a{ending}").write_bytes("text\ncafé\n".encode("latin-1"))
    with pytest.raises(
        InputError, match=rf"a\{ending}, line 1 is not JSON|a\{ending}, line 2 is not UTF-8 text \(byte 3 of"
    ):
        read_samples(tmp_path / f"a{ending}")
    (tmp_path / f"a{ending}").write_bytes("text\na\n".encode("utf-16"))
    with pytest.raises(InputError, match=r"line 1 is not UTF-8 text .*It begins like UTF-16\. Convert"):
        read_samples(tmp_path / f"a{ending}")


@pytest.mark.parametrize(
    ("name", "content"), [("a.txt", " \n\n"), ("a.csv", "text\n\n  \n"), ("a.jsonl", '{"text": null}\n\n')]
)
def test_a_file_of_blank_lines(tmp_path, name, content):
    (tmp_path / name).write_text(content)
    refused(tmp_path / name, r"holds no sample \(2 blank rows\)")
    (tmp_path / "empty.txt").write_text("")
    refused(tmp_path / "empty.txt", r"holds no sample \(0 blank rows\)")


def test_datasets_refused():
    data = datasets.Dataset.from_dict({"body": ["a"]})
    refused(data, r"the data set has no column 'text': it has body")
    refused(
        datasets.DatasetDict(train=data, test=data),
        r"a DatasetDict came, with splits train, test: pass one .*\['train'\]",
    )


# --- ids, tokenizers, the first token


@pytest.mark.parametrize(
    ("samples", "message"),
    [
        (
            [[0, 9], [3, 10]],
            r"must lie in \[0, 10\); 1 do not, the first is 10 in sample 1 at position 1\. Were they made with",
        ),
        ([[0, 9], [-1, 3]], r"must lie in \[0, 10\); 1 do not, the first is -1 in sample 1 at position 0"),
        ([[0, 9], [3], [11, 12, 1]], r"must lie in \[0, 10\); 2 do not, the first is 11 in sample 2 at position 0"),
        ([[2**62]], r"the first is 4611686018427387904 in sample 0"),
        ([[10]], r"the first is 10 in sample 0 at position 0"),
    ],
)
@pytest.mark.parametrize("first_token", ["uniform", 0])
def test_ids_out_of_range(samples, message, first_token):
    refused(samples, message, first_token=first_token)
    compress_bits(UNIFORM, [[0, 9]], first_token=first_token)


def test_ids_out_of_range_are_named_by_their_place_in_the_input(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"text": [1]}\n\n{"text": [2, 10]}\n')
    refused(tmp_path / "a.jsonl", "the first is 10 in sample 2 at position 1")  # row 1 is blank


def test_ids_of_padding_rows_are_no_symbols_of_a_uniform_code(bpe_tokenizer):
    """Logits of 512, a tokenizer of 300: id 300 is coded by the model, but not by a code over the tokenizer's symbols."""
    size = len(bpe_tokenizer)
    with pytest.raises(InputError, match=rf"must lie in \[0, {size}\)"):
        compress_bits(UniformModel(512), [[size]], tokenizer=bpe_tokenizer, first_token="uniform")
    assert compress_bits(UniformModel(512), [[size]], tokenizer=bpe_tokenizer).ideal_bits.tolist() == [9.0]


def test_a_single_token_with_skip():
    refused([[1, 2], [3]], r'sample 1 has a single token and first_token="skip" leaves it out', first_token="skip")
    assert compress_bits(UNIFORM, [[3]]).n_tokens.tolist() == [1]


def test_a_lone_bos(bpe_tokenizer):
    with pytest.raises(InputError, match="sample 1 has a single token and it is the BOS: nothing is left to code"):
        compress_bits(UniformModel(300), [[5], [0]], tokenizer=bpe_tokenizer)


@pytest.mark.parametrize("first_token", [10, -1])
def test_context_token_out_of_range(first_token):
    refused(
        [[1]],
        rf"the context token has id {first_token}, outside the model's vocabulary \[0, 10\)",
        first_token=first_token,
    )


def test_first_token_that_is_none(bpe_tokenizer):
    refused([[1]], r'first_token="bos" needs a tokenizer that has a BOS token; none is at hand', first_token="bos")
    refused([[1]], r"first_token='<s>' is neither a rule .* none is at hand, pass the id", first_token="<s>")
    refused(
        ["a"],
        r"first_token='<s>' is neither a rule .* nor a token of the tokenizer",
        first_token="<s>",
        tokenizer=bpe_tokenizer,
    )
    without = type(bpe_tokenizer)(tokenizer_object=bpe_tokenizer.backend_tokenizer)
    refused(["a"], r"needs a tokenizer that has a BOS token; this one has none", first_token="bos", tokenizer=without)


def test_texts_without_a_tokenizer():
    refused(["a"], r"the samples are texts, and no tokenizer is at hand: pass tokenizer=")
    with pytest.raises(InputError, match="no tokenizer is at hand"):
        unintended_memorization(UNIFORM, UNIFORM, ["a"])


def test_a_text_that_does_not_survive(bpe_tokenizer):
    from tokenizers.normalizers import Lowercase

    backend = type(bpe_tokenizer.backend_tokenizer).from_str(bpe_tokenizer.backend_tokenizer.to_str())
    backend.normalizer = Lowercase()
    lossy = type(bpe_tokenizer)(tokenizer_object=backend)
    with pytest.raises(
        LossyTextError, match=r"1 of 2 texts .* sample 1 is 'B', and decode\(encode\(it\)\) is 'b'.*on_lossy_text"
    ):
        compress_bits(UniformModel(300), ["a", "B"], tokenizer=lossy)
    with pytest.raises(InputError, match="none of the 1 texts survives"):
        compress_bits(UniformModel(300), ["B"], tokenizer=lossy, on_lossy_text="skip")


# --- windows and batches


class Short(nn.Module):
    """Six positions at most, and its configuration says so."""

    def __init__(self):
        super().__init__()
        self.config = type("Config", (), {"max_position_embeddings": 6, "vocab_size": 10})()
        self.weight = nn.Parameter(torch.zeros(10))

    def forward(self, ids: Tensor) -> Tensor:
        assert ids.shape[1] <= 6
        return self.weight.expand(*ids.shape, 10)


def test_max_length_range():
    refused([[1, 2]], "max_length must be None or an integer of at least 1; it is 0", max_length=0)
    assert compress_bits(UNIFORM, [[1, 2]], max_length=1).settings["max_length"] == 1
    with pytest.raises(
        InputError, match="max_length=7 is more than the 6 positions that the model or its tokenizer takes"
    ):
        compress_bits(Short(), [[1, 2]], max_length=7)
    assert compress_bits(Short(), [[1, 2] * 9], max_length=6).settings["max_length"] == 6


@pytest.mark.parametrize(
    ("stride", "message"),
    [
        (0, "stride must be None or an integer of at least 1; it is 0"),
        (-1, "stride must be None or an integer of at least 1; it is -1"),
        (7, r"stride must lie in \[1, max_length\] = \[1, 6\]; it is 7"),
    ],
)
def test_stride_range(stride, message):
    refused([[1, 2]], message, max_length=6, stride=stride)
    with pytest.raises(InputError, match=message):
        compress_bits(Short(), [[1, 2]], stride=stride)


@pytest.mark.parametrize("stride", [1, 6])
def test_stride_at_its_ends(stride):
    assert compress_bits(Short(), [[1, 2] * 9], stride=stride).settings["stride"] == stride


def test_stride_without_windows():
    refused([[1, 2]], r"stride=3 needs windows, and this model has no length limit: pass max_length as well", stride=3)


@pytest.mark.parametrize("batch_size", [0, -1])
def test_batch_size_range(batch_size):
    refused(
        [[1, 2]], rf'batch_size must be "auto" or an integer of at least 1; it is {batch_size}', batch_size=batch_size
    )


@pytest.mark.usefixtures("no_type_checker")
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"on_lossy_text": "warn"}, r'on_lossy_text must be "raise" or "skip"; it is \'warn\''),
        ({"batch_size": "large"}, r"batch_size must be \"auto\" or an integer of at least 1; it is 'large'"),
        ({"batch_size": 2.5}, r"batch_size must be \"auto\" or an integer of at least 1; it is 2\.5"),
        ({"batch_size": 2.0}, r"batch_size must be \"auto\" or an integer of at least 1; it is 2\.0"),
        ({"batch_size": None}, r"batch_size must be \"auto\" or an integer of at least 1; it is None"),
        ({"batch_size": True}, r"batch_size must be \"auto\" or an integer of at least 1; it is True"),
        ({"batch_size": np.bool_(True)}, r"batch_size must be \"auto\" or an integer of at least 1; it is "),
        ({"batch_size": np.float64(2)}, r"batch_size must be \"auto\" or an integer of at least 1; it is "),
        ({"max_length": 2.5}, r"max_length must be None or an integer of at least 1; it is 2\.5"),
        ({"max_length": True}, r"max_length must be None or an integer of at least 1; it is True"),
        ({"max_length": 4, "stride": 1.5}, r"stride must be None or an integer of at least 1; it is 1\.5"),
        ({"max_length": 4, "stride": True}, r"stride must be None or an integer of at least 1; it is True"),
        ({"limit": 1.5}, r"limit must be None or an integer of at least 1; it is 1\.5"),
        ({"limit": True}, r"limit must be None or an integer of at least 1; it is True"),
        ({"first_token": 0.0}, r"first_token must be auto, bos, uniform, skip, a token or its id; it is 0\.0"),
        ({"first_token": None}, r"first_token must be auto, bos, uniform, skip, a token or its id; it is None"),
        ({"first_token": np.bool_(True)}, r"first_token must be auto, bos, uniform, skip, a token or its id; it is "),
    ],
)
def test_options_of_a_wrong_kind(options, message, bpe_tokenizer):
    with pytest.raises(InputError, match=message):
        compress_bits(UniformModel(300), ["ab"], tokenizer=bpe_tokenizer, **options)


@pytest.mark.usefixtures("no_type_checker")
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"joint": "min"}, r'joint must be "max", "mixture" or "switch"; it is \'min\''),
        ({"baseline": "gzip"}, r"baseline must be \"uniform\" or CodeLengths under a third model; it is 'gzip'"),
        ({"baseline": np.ones(1)}, r"baseline must be \"uniform\" or CodeLengths under a third model"),
    ],
)
def test_options_of_memu(options, message):
    with pytest.raises(InputError, match=message):
        unintended_memorization(UNIFORM, UNIFORM, [[1, 2]], **options)


def test_a_uniform_model_has_symbols():
    with pytest.raises(InputError, match="vocab_size must be an integer of at least 1; it is 0"):
        UniformModel(0)
    assert compress_bits(UniformModel(1), [[0, 0]]).ideal_bits.tolist() == [0.0]


# --- what a model returns


@pytest.mark.parametrize(
    ("dtype", "remedy"),
    [(torch.float32, "Are its weights damaged"), (torch.float16, r"A float16 overflow .*its float\(\)")],
)
@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_nan_and_infinity(value, dtype, remedy):
    """Float16 is named as the cause only where the logits are half as wide as float32."""

    def broken(ids: Tensor) -> Tensor:
        logits = torch.zeros(*ids.shape, 10, dtype=dtype)
        logits[ids == 7, 2] = value
        return logits

    where = r"broken that predict position 2 of sample 1 \(coded tokens counted from 0\) are NaN, \+inf, or all -inf"
    with pytest.raises(ImpossibleTokenError, match=f"{where}.*{remedy}"):
        compress_bits(broken, [[1, 2, 3], [1, 7, 5], [7]])
    compress_bits(broken, [[1, 2, 3], [1, 5, 7], [7]])  # no token of a sample is predicted from there


def test_probabilities_are_no_logits():
    """Read as logits they make another model, nearly a uniform one."""
    table = torch.randn(10, 10, generator=torch.Generator().manual_seed(0))
    for dtype in (torch.float32, torch.float64, torch.float16):
        with pytest.raises(
            ModelError, match="returned probabilities: at each position they are at least 0 and add up to 1"
        ):
            compress_bits(lambda ids, dtype=dtype: table[ids].softmax(-1).to(dtype), [[1, 2]])
    logits, logarithms = (
        compress_bits(model, [[1, 2]]) for model in (lambda ids: table[ids], lambda ids: table[ids].log_softmax(-1))
    )
    np.testing.assert_allclose(logits.ideal_bits, logarithms.ideal_bits, atol=1e-5)
    even = compress_bits(lambda ids: torch.full((*ids.shape, 10), 0.1), [[1, 2]])
    np.testing.assert_allclose(even.ideal_bits, 2 * np.log2(10))


class Fickle(nn.Module):
    """Fails, or changes, where it is asked again."""

    def __init__(self, after: Callable[[Tensor], Tensor]):
        super().__init__()
        self.after, self.asked = after, False

    def forward(self, ids: Tensor) -> Tensor:
        if self.asked:
            return self.after(ids)
        self.asked = True
        return torch.zeros(*ids.shape, 10)


@pytest.mark.parametrize(
    ("after", "message"),
    [
        (lambda ids: torch.zeros(*ids.shape, 11), r"floating-point logits \(1, 8, 10\).*it returned \(1, 8, 11\)"),
        (lambda ids: None, "it returned NoneType"),
        (lambda ids: nn.functional.embedding(ids + 10, torch.zeros(10, 10)), r"failed on the token ids \[.*vocab_size"),
    ],
)
def test_models_that_change_between_calls(after, message, no_type_checker):
    with pytest.raises(ModelError, match=message):
        compress_bits(Fickle(after), [[1, 2, 3]])


def test_probability_zero():
    def masked(ids: Tensor) -> Tensor:
        logits = torch.zeros(*ids.shape, 10)
        logits[..., 2] = -torch.inf
        return logits

    with pytest.raises(
        ImpossibleTokenError, match=r"masked gives probability 0 to position 1 of sample 1 \(coded tokens"
    ):
        compress_bits(masked, [[1, 3, 3], [1, 2, 5]])
    # -inf elsewhere is legal: nine symbols are left. A token that no prediction has to name is legal too.
    assert compress_bits(masked, [[2, 3, 4]], first_token="skip").ideal_bits[0] == pytest.approx(2 * np.log2(9))


def test_the_earliest_impossible_position_is_named():
    def masked(ids: Tensor) -> Tensor:
        return torch.zeros(*ids.shape, 10).masked_fill(torch.arange(10) == 2, -torch.inf)

    with pytest.raises(ImpossibleTokenError, match="position 3 of sample 0 "):
        compress_bits(masked, [[1, 1, 1, 2, 1, 2, 2]])


@pytest.mark.parametrize(
    ("logits", "got"),
    [
        (lambda ids: torch.zeros(ids.shape[0], 10), r"\(1, 10\) torch.float32"),
        (lambda ids: torch.zeros(ids.shape[0], ids.shape[1] - 1, 10), r"\(1, 7, 10\) torch.float32"),
        (lambda ids: torch.zeros(ids.shape[1], ids.shape[0], 10), r"\(8, 1, 10\) torch.float32"),
        (lambda ids: torch.zeros(*ids.shape, 10, dtype=torch.int64), r"\(1, 8, 10\) torch.int64"),
        (lambda ids: torch.zeros(*ids.shape), r"\(1, 8\) torch.float32"),
        (lambda ids: np.zeros((*ids.shape, 10)), "ndarray"),
        (
            lambda ids: (torch.zeros(()), torch.zeros(*ids.shape, 10)),
            r"tuple of Tensor, Tensor\. Of a tuple, the first part",
        ),
        (lambda ids: (), "tuple of nothing"),
        (lambda ids: {"loss": 0.0}, "dict"),
        (
            lambda ids: torch.zeros(1, 1, 10),
            r"\(1, 1, 10\) torch.float32\. It seems to predict the last position alone",
        ),
        (lambda ids: None, "NoneType"),
    ],
)
@pytest.mark.usefixtures("no_type_checker")
def test_wrong_shapes(logits, got):
    message = (
        rf"must map int64 ids of shape \(1, 8\) to floating-point logits \(1, 8, vocabulary\), .*it returned {got}"
    )
    with pytest.raises(ModelError, match=message):
        compress_bits(logits, [[1, 2]])


@pytest.mark.parametrize(
    "wrong",
    [
        lambda ids: torch.zeros(*ids.shape, 11),
        lambda ids: torch.zeros(ids.shape[0], ids.shape[1] + 1, 10),
        lambda ids: torch.zeros(1, ids.shape[1], 10),
        lambda ids: None,
    ],
)
@pytest.mark.usefixtures("no_type_checker")
def test_wrong_shapes_that_show_later(wrong):
    def model(ids: Tensor):
        return torch.zeros(*ids.shape, 10) if ids.shape == (1, 8) else wrong(ids)

    with pytest.raises(ModelError, match=r"must map int64 ids of shape \(2, 3\) to floating-point logits \(2, 3, 10\)"):
        compress_bits(model, [[1, 2, 3], [4, 5, 6]], first_token=0)


def test_a_model_that_fails():
    def fails(ids: Tensor) -> Tensor:
        raise KeyError("no such thing")

    with pytest.raises(
        ModelError, match=r"fails failed on 8 token ids of shape \(1, 8\): .*no such thing.* must map int64 ids"
    ):
        compress_bits(fails, [[1, 2]])


@pytest.mark.usefixtures("no_type_checker")
def test_what_is_no_model():
    with pytest.raises(
        ModelError, match=r"a model must be a name, a folder, a torch module or a callable .*; a int came"
    ):
        compress_bits(3, [[1, 2]])
    with pytest.raises(ModelError, match="a list came"):
        unintended_memorization([UNIFORM], UNIFORM, [[1, 2]])


# --- causality


class Bidirectional(nn.Module):
    """A masked language model in small: every position attends to every other."""

    def __init__(self, causal: bool):
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.embedding = nn.Embedding(10, 16)
            layer = nn.TransformerEncoderLayer(16, 2, 32, batch_first=True)
            self.body = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
            self.head = nn.Linear(16, 10)
        self.causal = causal

    def forward(self, ids: Tensor) -> Tensor:
        mask = nn.Transformer.generate_square_subsequent_mask(ids.shape[1]) if self.causal else None
        return self.head(self.body(self.embedding(ids), mask=mask, is_causal=self.causal))


def test_a_bidirectional_model_is_refused():
    message = r"Bidirectional is not causal: changing the token at position 7 moved the logits at position 0 by .*masked language model"
    with pytest.raises(NotCausalError, match=message):
        compress_bits(Bidirectional(causal=False), [[1, 2]])
    compress_bits(Bidirectional(causal=True), [[1, 2]])


def test_bert_is_refused():
    from transformers import BertConfig, BertForMaskedLM

    sizes = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        bert = BertForMaskedLM(BertConfig(vocab_size=200, max_position_embeddings=32, initializer_range=0.1, **sizes))
    with pytest.raises(NotCausalError, match="BertForMaskedLM is not causal"):
        compress_bits(bert, [[1, 2]])


@pytest.mark.parametrize("ahead", [1, 2, 7])
def test_peeking_ahead_is_refused(ahead):
    table = torch.from_numpy(np.random.default_rng(0).normal(size=(10, 10))).float()

    def peeks(ids: Tensor) -> Tensor:
        return table[ids] + table[ids.roll(-ahead, dims=1)]

    # The roll brings the last token to position 7 - ahead.
    with pytest.raises(NotCausalError, match=rf"peeks is not causal: .* moved the logits at position {7 - ahead} "):
        compress_bits(peeks, [[1, 2]])


def test_a_short_window_is_probed_at_its_length():
    def peeks(ids: Tensor) -> Tensor:
        assert ids.shape[1] <= 3
        return torch.nn.functional.one_hot(ids.roll(-1, dims=1), 10).float()

    with pytest.raises(NotCausalError, match=r"changing the token at position 2 moved the logits at position 1 "):
        compress_bits(peeks, [[1, 2]], max_length=3)


@pytest.mark.parametrize(("share", "causal"), [(1e-5, True), (1e-2, False)])
def test_noise_of_kernels_is_no_dependence(share, causal):
    """Of the spread of the logits: a hundred-thousandth is summation order, a hundredth is a leak."""
    table = torch.from_numpy(np.random.default_rng(1).normal(size=(10, 10))).float()

    def leaks(ids: Tensor) -> Tensor:
        return table[ids] + share * torch.sin(1 + ids.sum(dim=1))[:, None, None]

    if causal:
        compress_bits(leaks, [[1, 2]])
    else:
        with pytest.raises(NotCausalError):
            compress_bits(leaks, [[1, 2]])


class Experts(nn.Module):
    """Causal, with tokens grouped by expert: a change of the last token changes the shapes that all others are computed in."""

    def __init__(self):
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.embedding = nn.Embedding(50, 64)
            self.router = nn.Linear(64, 3)
            self.experts = nn.ModuleList(
                nn.Sequential(nn.Linear(64, 256), nn.GELU(), nn.Linear(256, 64)) for _ in range(3)
            )
            self.head = nn.Linear(64, 50)

    def forward(self, ids: Tensor) -> Tensor:
        hidden = self.embedding(ids).cumsum(dim=1)
        flat, out = hidden.flatten(0, 1), torch.zeros_like(hidden).flatten(0, 1)
        chosen = self.router(flat).argmax(dim=-1)
        for i, expert in enumerate(self.experts):
            rows = (chosen == i).nonzero()[:, 0]
            out.index_add_(0, rows, expert(flat[rows]))
        return self.head(out.view_as(hidden))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_experts_are_causal(dtype):
    lengths = compress_bits(Experts().to(dtype), [[1, 2, 3], [4, 5]])
    assert np.isfinite(lengths.bits).all()


# --- folders, names, the network


@pytest.fixture
def folder(model_folder, tmp_path):
    return shutil.copytree(model_folder, tmp_path / "model")


def test_a_folder_without_a_model(tmp_path):
    with pytest.raises(
        ModelError, match=r"is no model folder: it has no config\.json\. Expected .* save_pretrained\(\)"
    ):
        compress_bits(tmp_path, [[1, 2]])
    (tmp_path / "model.pt").write_bytes(b"x")
    with pytest.raises(ModelError, match="for the file of a torch module, build the module, load the file into it"):
        compress_bits(tmp_path / "model.pt", [[1, 2]])


def test_a_folder_without_weights(folder):
    (folder / "model.safetensors").unlink()
    with pytest.raises(
        ModelError, match=r"holds no \.safetensors weights\. Expected is a folder made by save_pretrained\(\)"
    ):
        compress_bits(folder, [[1, 2]])


def test_a_folder_with_damaged_weights(folder):
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(ModelError, match=r"could not be loaded|safetensors"):
        compress_bits(folder, [[1, 2]])


def test_pickled_weights_are_refused_unless_asked_for(folder, tiny_gpt2):
    (folder / "model.safetensors").unlink()
    torch.save(tiny_gpt2.state_dict(), folder / "pytorch_model.bin")
    message = r"Pickled ones can run code when they are loaded, so they are refused; .* pass allow_pickle=True"
    with pytest.raises(ModelError, match=message):
        compress_bits(folder, [[1, 2, 3]])
    with pytest.raises(ModelError, match=message):
        unintended_memorization(UniformModel(300), folder, [[1, 2, 3]])
    asked_for = compress_bits(folder, [[1, 2, 3]], allow_pickle=True)
    assert asked_for.ideal_bits[0] == pytest.approx(
        compress_bits(tiny_gpt2, [[1, 2, 3]], first_token="bos", tokenizer=folder).ideal_bits[0], abs=1e-4
    )


@pytest.mark.parametrize("asked_for", [False, True])
def test_what_a_name_on_the_hub_may_do(monkeypatch, asked_for):
    """A hub name cannot be looked into beforehand: neither pickled weights nor code, unless asked for, also without a network."""
    import transformers

    options = {}

    def from_pretrained(name, **given):
        options.update(given)
        raise OSError(f"{name} does not appear to have a file named model.safetensors")

    monkeypatch.setattr(transformers.AutoModelForCausalLM, "from_pretrained", from_pretrained)
    with pytest.raises(ModelError, match=r"has no safetensors weights\. .* pass allow_pickle=True"):
        compress_bits("someone/model", [[1, 2]], allow_pickle=asked_for, trust_remote_code=asked_for, revision="v1")
    assert options["trust_remote_code"] is asked_for
    assert options.get("use_safetensors") is (None if asked_for else True)
    assert options["revision"] == "v1"


def test_a_folder_without_a_tokenizer(folder):
    for file in list(folder.iterdir()):
        if file.name.startswith(("tokenizer", "special_tokens", "vocab", "merges")):
            file.unlink()
    with pytest.raises(InputError, match="the samples are texts, and no tokenizer is at hand"):
        compress_bits(folder, ["a"])
    assert compress_bits(folder, [[1, 2]]).settings["tokenizer"] is None
    with pytest.raises(
        ModelError, match="holds no tokenizer: expected is a folder made by the tokenizer's save_pretrained"
    ):
        compress_bits(folder, ["a"], tokenizer=folder)


def test_dtype_that_is_none(folder):
    with pytest.raises(
        InputError, match=r"dtype must be a torch dtype or its name, such as float32 or bfloat16; it is 'float33'"
    ):
        compress_bits(folder, [[1, 2]], dtype="float33")
    with pytest.raises(InputError, match="it is 'nn'"):
        compress_bits(folder, [[1, 2]], dtype="nn")


def test_dtype_of_a_model_in_memory(tiny_gpt2):
    with pytest.raises(
        InputError, match=r"dtype='bfloat16' applies to models loaded by name; this GPT2LMHeadModel is in memory"
    ):
        compress_bits(tiny_gpt2, [[1, 2]], dtype="bfloat16")
    with pytest.raises(InputError, match="applies to models loaded by name"):
        unintended_memorization(tiny_gpt2, tiny_gpt2, [[1, 2]], dtype=torch.float64)


@pytest.mark.parametrize("name", ["nobody/no-such-model-here", "no-such-model-here"])
def test_no_network(name):
    """The tests run with HF_HUB_OFFLINE=1."""
    with pytest.raises(ModelError) as caught:
        compress_bits(name, [[1, 2]])
    message = str(caught.value)
    assert message.startswith(
        f"{name!r} is neither a folder here nor a model that the hub delivered: check the spelling and the network"
    )
    assert "\n" not in message
    with pytest.raises(ModelError, match="is neither a folder here nor"):
        compress_bits(UNIFORM, ["a"], tokenizer=name)


@pytest.fixture
def folder_with_code(folder, tmp_path, monkeypatch):
    """A checkpoint that brings its own code, and that code leaves a trace when it runs."""
    import transformers.dynamic_module_utils

    monkeypatch.setattr(transformers.dynamic_module_utils, "HF_MODULES_CACHE", str(tmp_path / "modules"))
    monkeypatch.syspath_prepend(str(tmp_path / "modules"))
    config = json.loads((folder / "config.json").read_text())
    config |= {
        "model_type": "ours",
        "architectures": ["OurModel"],
        "auto_map": {"AutoConfig": "ours.OurConfig", "AutoModelForCausalLM": "ours.OurModel"},
    }
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "ours.py").write_text(
        f"open({str(tmp_path / 'trace')!r}, 'w').close()\n"
        "from transformers import GPT2Config, GPT2LMHeadModel\n"
        "class OurConfig(GPT2Config):\n    model_type = 'ours'\n"
        "class OurModel(GPT2LMHeadModel):\n    config_class = OurConfig\n"
    )
    return folder


def test_remote_code_is_never_run_by_default(folder_with_code, tmp_path):
    with pytest.raises(
        ModelError, match="brings its own Python code, which is not run unless you pass trust_remote_code=True"
    ):
        compress_bits(folder_with_code, [[1, 2]])
    with pytest.raises(ModelError, match="brings its own Python code"):
        unintended_memorization(UniformModel(300), folder_with_code, [[1, 2]])
    assert not (tmp_path / "trace").exists()


def test_remote_code_runs_when_asked_for(folder_with_code, tmp_path, tiny_gpt2):
    lengths = compress_bits(folder_with_code, [[1, 2, 3]], trust_remote_code=True, first_token=0)
    assert (tmp_path / "trace").exists()
    expected = compress_bits(tiny_gpt2, [[1, 2, 3]], first_token=0)
    assert lengths.ideal_bits[0] == pytest.approx(expected.ideal_bits[0], abs=1e-4)


def test_samples_are_checked_before_the_model_is_loaded():
    """A wrong file should not cost the download of a model."""
    with pytest.raises(InputError, match="samples is empty"):
        compress_bits("nobody/no-such-model-here", [])
    with pytest.raises(InputError, match="samples is empty"):
        unintended_memorization("nobody/no-such-model-here", "nobody/no-such-model-here", [])


def test_a_checkpoint_without_its_output_head_is_refused(tmp_path):
    from transformers import LlamaConfig, LlamaModel

    config = LlamaConfig(
        vocab_size=32,
        hidden_size=8,
        intermediate_size=8,
        num_hidden_layers=1,
        num_attention_heads=1,
        tie_word_embeddings=False,
    )
    LlamaModel(config).save_pretrained(tmp_path)
    with pytest.raises(ModelError, match=r"lacks 1 of the weights of a LlamaForCausalLM, the first is lm_head\.weight"):
        compress_bits(str(tmp_path), [[1, 2]])


@pytest.mark.parametrize("device", ["banana", "cuda:77"])
@pytest.mark.parametrize("model", [torch.nn.Embedding(8, 8), lambda ids: torch.zeros(*ids.shape, 8)])
def test_a_device_that_is_not_there_is_named(model, device):
    with pytest.raises(InputError, match=f"device='{device}' cannot be used here"):
        compress_bits(model, [[1, 2]], device=device)


def test_a_truth_value_is_no_context_token():
    with pytest.raises(InputError, match="first_token must be auto"):
        compress_bits(UNIFORM, [[1, 2]], first_token=True)


def test_a_text_that_names_a_folder_is_measured_with_a_warning(tmp_path):
    with (
        pytest.warns(MeasurementWarning, match="is measured as a text"),
        pytest.raises(InputError, match="no tokenizer"),
    ):
        compress_bits(UNIFORM, str(tmp_path))


def test_memu_names_the_tokenizer_argument_that_is_missing(model_folder):
    with pytest.raises(InputError, match="pass oracle_tokenizer="):
        unintended_memorization(str(model_folder), lambda ids: torch.zeros(*ids.shape, 300), ["a"])


def test_a_uniform_oracle_shares_the_targets_tokenizer(model_folder):
    result = unintended_memorization(str(model_folder), UniformModel(300), ["The house met again."])
    assert result.oracle.ideal_bits[0] == pytest.approx(np.log2(300) * result.target.n_tokens[0])
    assert result.oracle.settings["first_token"]["rule"] == "bos"


@pytest.mark.usefixtures("no_type_checker")
@pytest.mark.parametrize("device", ["meta", torch.device("meta"), ["cpu"], 0.5])
def test_devices_that_are_none_leave_the_model_as_it_is(device):
    model = nn.Embedding(10, 10)
    with pytest.raises(InputError, match="cannot be used"):
        compress_bits(model, [[1, 2]], device=device)
    assert compress_bits(model, [[1, 2]]).total_bits > 0  # its weights are there


@pytest.mark.usefixtures("no_type_checker")
@pytest.mark.parametrize("value", [2.0, "2", True, np.bool_(True), np.float64(2), [2], np.array([2]), 2j, b"2", 0, -1])
def test_a_length_that_is_no_integer_is_refused_wherever_a_model_is_opened(value):
    with pytest.raises(InputError, match="max_length must be None or an integer of at least 1"):
        open_model(UNIFORM, max_length=value).__enter__()
    with pytest.raises(InputError, match="max_length must be None or an integer of at least 1"):
        audit_membership(UNIFORM, [[1, 2], [3, 4]], [[5, 6], [7, 8]], max_length=value)


@pytest.mark.usefixtures("no_type_checker")
@pytest.mark.parametrize(
    "value", [2.0, "2", True, np.bool_(True), [2], np.array([2]), None, -1, 2**32, torch.tensor(2.0)]
)
def test_seeds_that_are_none(value):
    sets = [[1, 2], [3, 4]], [[5, 6], [7, 8]]
    with pytest.raises(InputError, match="seed must be"):
        audit_membership(UNIFORM, *sets, seed=value)
    with pytest.raises(InputError, match="seed must be"):
        membership_metrics([1.0, 2.0], [3.0, 4.0], seed=value)
    with pytest.raises(InputError, match="seed must be"):
        bag_of_words_auc(*sets, seed=value)


@pytest.mark.parametrize("value", [np.uint8(3), torch.tensor(3), np.array(3), 3])
def test_seeds_of_any_library_are_one_seed(value, no_type_checker):
    metrics = [membership_metrics([3.0, 2.0, 2.0], [1.0, 2.5, 0.0], seed=seed) for seed in (3, value)]
    assert metrics[0].settings["seed"] == metrics[1].settings["seed"]
    assert metrics[0].f1_interval == metrics[1].f1_interval


@pytest.mark.usefixtures("no_type_checker")
@pytest.mark.parametrize("value", ["20", True, np.bool_(True), [20], np.array([20.0]), None, 2j, b"20", "0.5", np.nan])
def test_shares_and_levels_that_are_no_numbers(value):
    sets = [[1, 2], [3, 4]], [[5, 6], [7, 8]]
    with pytest.raises(InputError, match="k_percent must lie above 0"):
        audit_membership(UNIFORM, *sets, k_percent=value)
    with pytest.raises(InputError, match="level must be a number between 0 and 1"):
        audit_membership(UNIFORM, *sets, level=value)
    with pytest.raises(InputError, match="near must be a Jaccard similarity above 0"):
        duplicate_counts(sets[0], near=value)
