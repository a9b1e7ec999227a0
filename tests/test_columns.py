"""The user's columns: ids of rows, columns that are kept, previews; and the forms in which samples come."""

import gzip
import io
import json
import sys

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from memorization import (
    CodeLengths,
    UniformModel,
    compress_bits,
    load,
    read_samples,
    unintended_memorization,
)
from memorization.cli import app
from memorization.errors import InputError
from memorization.results import About, one_kind, preview, quoted, visible, with_about
from memorization.samples.beside import OWN_COLUMNS, check_keep
from memorization.samples.tables import Columns

ROWS = [
    {"text": "To be", "uid": "a7", "source": "web", "year": 1603},
    {"text": "   ", "uid": None, "source": "web", "year": 0},
    {"text": "or not", "uid": "b2", "source": None, "year": None},
    {"text": "to be", "uid": "c9", "source": "book", "year": 1604},
]
KEEP = {"id_column": "uid", "keep": ["source", "year"]}


def write(path, rows=ROWS):
    kind = path.name.removesuffix(".gz").rpartition(".")[2]
    if kind == "jsonl":
        content = "".join(json.dumps(row) + "\n" for row in rows)
    elif kind == "json":
        content = json.dumps(rows)
    elif kind == "csv":
        content = pd.DataFrame(rows).astype({"year": "Int64"}).to_csv(index=False)
    else:
        pd.DataFrame(rows).to_parquet(path)
        return path
    path.write_bytes(gzip.compress(content.encode()) if path.suffix == ".gz" else content.encode())
    return path


# --- Where they come from


@pytest.mark.parametrize("name", ["a.jsonl", "a.json", "a.csv", "a.parquet", "a.jsonl.gz", "a.json.gz", "A.CSV.GZ"])
def test_files_give_ids_and_columns(tmp_path, name):
    found = read_samples(write(tmp_path / name.lower()).rename(tmp_path / name), **KEEP)
    assert found.texts == ["To be", "or not", "to be"]
    assert found.row_ids == ("a7", "b2", "c9")
    assert found.kept == {"source": ("web", None, "book"), "year": (1603, None, 1604)}
    assert found.index.tolist() == [0, 2, 3]  # blank rows are counted


def test_tables_give_ids_and_columns():
    import datasets
    import pyarrow

    frame = pd.DataFrame(ROWS)
    columns = {name: [row[name] for row in ROWS] for name in ROWS[0]}
    forms = [ROWS, tuple(ROWS), frame, columns, pyarrow.table(columns), datasets.Dataset.from_list(ROWS)]
    for form in forms:
        found = read_samples(form, **KEEP)
        assert (found.texts, found.row_ids) == (["To be", "or not", "to be"], ("a7", "b2", "c9"))
        assert found.kept == {"source": ("web", None, "book"), "year": (1603, None, 1604)}
        assert found.index.tolist() == [0, 2, 3]
    assert read_samples(frame["text"]).texts == ["To be", "or not", "to be"]


def test_whatever_is_a_table_by_protocol_is_read():
    class Table:  # as polars, duckdb and others are
        columns = ("text", "uid")

        def __arrow_c_stream__(self, requested_schema=None):
            import pyarrow

            return pyarrow.table({"text": ["To be", "or"], "uid": [1, 2]}).__arrow_c_stream__(requested_schema)

    assert read_samples(Table(), id_column="uid").row_ids == (1, 2)


def test_parts_keep_what_belongs_to_them():
    found = read_samples(ROWS, **KEEP)
    assert found.first(2).row_ids == ("a7", "b2")
    assert found.first(2).kept == {"source": ("web", None), "year": (1603, None)}
    left = found.leave_out([2])
    assert (left.row_ids, left.kept["year"]) == (("a7", "c9"), (1603, 1604))
    assert left.about == found.about.take([0, 2])
    assert found.as_measured(left.record()).row_ids == ("a7", "c9")
    assert read_samples(ROWS, limit=1, **KEEP).row_ids == ("a7",)
    assert read_samples(ROWS, groups=["x", "x", "x", "y"], **KEEP).row_ids == ("a7", "b2", "c9")


def test_prompts_messages_and_ids_too():
    rows = [{"q": "2 + 2 =", "a": " 4", "n": i} for i in range(2)]
    found = read_samples(rows, text_column="a", prompt_column="q", id_column="n", keep=["q"])
    assert (found.row_ids, found.kept["q"], found.about.previews) == ((0, 1), ("2 + 2 =",) * 2, (" 4", " 4"))
    talk = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Ho"}]
    found = read_samples([{"messages": talk, "n": 7}], messages=True, id_column="n")
    assert (found.row_ids, found.about.previews) == ((7,), ("Ho",))
    rows = [{"input_ids": [5, 6, 0], "attention_mask": [1, 1, 0], "n": 3}]
    found = read_samples(rows, id_column="n")
    assert (found.ids[0].tolist(), found.row_ids, found.about.previews) == ([5, 6], (3,), ("5 6",))
    with pytest.raises(InputError, match=r"one list of messages came.*Pass \[messages\]"):
        read_samples(talk, messages=True)


def test_a_json_file_is_a_list(tmp_path):
    path = tmp_path / "a.json"
    for content, expected in (('["To be", null, "or"]', [0, 2]), ("[[1, 2], [3]]", [0, 1])):
        path.write_text(content)
        assert read_samples(path).index.tolist() == expected
    for content, message in (
        ('{"text": "a"}', "holds a object, and a .json file of samples holds a list"),
        ('{"text": "a"}\n{"text": "b"}', "Then call the file .jsonl"),
        ('[{"text": "a"}, "b"]', "row 1 is a str, and other rows are objects"),
        ('[{"text": "a", "text": "b"}]', "row 0 has the key 'text' more than once"),
        ("[7]", "must be a text or a list of token ids"),
    ):
        path.write_text(content)
        with pytest.raises(InputError, match=message):
            read_samples(path)


def test_a_packed_file_that_was_cut_is_refused(tmp_path):
    path = write(tmp_path / "a.jsonl.gz", ROWS * 100)
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(InputError, match="cannot be read: Compressed file ended"):
        read_samples(path)
    path.write_bytes(b"no gzip")
    with pytest.raises(InputError, match="cannot be read: Not a gzipped file"):
        read_samples(path)
    packed = tmp_path / "b.jsonl"
    packed.write_bytes(gzip.compress(b'{"text": "a"}\n'))
    with pytest.raises(InputError, match=r"begins like gzip. Give the file the ending .gz"):
        read_samples(packed)


def test_an_open_file_is_jsonl_or_lines(tmp_path):
    assert read_samples(io.BytesIO(b"To be\n\nor not\n")).index.tolist() == [0, 2]
    assert read_samples(io.StringIO("To be\r\nor not")).texts == ["To be", "or not"]
    found = read_samples(io.BytesIO(b'\n{"text": "To be", "uid": 4}\n'), id_column="uid")
    assert (found.texts, found.row_ids, found.index.tolist()) == (["To be"], (4,), [1])
    with write(tmp_path / "a.jsonl").open("rb") as file:
        assert read_samples(file, **KEEP).source.endswith("a.jsonl")
    with pytest.raises(InputError, match="id_column='uid' names a column, and the samples come from"):
        read_samples(io.BytesIO(b"To be\n"), id_column="uid")
    with pytest.raises(InputError, match="is packed by gzip"):
        read_samples(io.BytesIO(gzip.compress(b"To be\n")))
    with pytest.raises(InputError, match="line 2 is not JSON"):
        read_samples(io.BytesIO(b'{"text": "a"}\nand\n'))
    with (tmp_path / "w").open("w") as file, pytest.raises(InputError, match="cannot be read"):
        read_samples(file)


def test_a_generator_is_refused_with_a_hint():
    with pytest.raises(InputError, match=r"a generator came. Pass list\(samples\)"):
        read_samples(text for text in ["a"])


# --- What is refused


@pytest.mark.parametrize(
    ("change", "options", "message"),
    [
        ({"uid": "a7"}, KEEP, "rows 0 and 3 have the same id, 'a7' in column 'uid' \\(2 of 3 rows share theirs\\)"),
        ({"uid": " "}, KEEP, "row 3 has no id: its column 'uid' is empty \\(1 of 3 rows\\)"),
        ({"uid": 1.5}, KEEP, "the id of row 3 must be a text or an integer; in column 'uid' it is float"),
        ({"uid": True}, KEEP, "the id of row 3 must be a text or an integer"),
        ({}, {"keep": ["Sorce"]}, "has no column 'Sorce', which keep names.* Did you mean 'source'?"),
        ({}, {"id_column": "UID"}, "has no column 'UID', which id_column names: it has text, .*Did you mean 'uid'?"),
        ({}, {"keep": ["bits"]}, "keep names 'bits', and tables of results have a column 'bits' of their own"),
        ({}, {"keep": ["id"]}, 'or pass id_column="id" where it names each row'),
    ],
)
def test_bad_columns_are_refused(change, options, message):
    rows = [*ROWS[:3], ROWS[3] | change]
    for form in (rows, {name: [row[name] for row in rows] for name in rows[0]}):
        with pytest.raises(InputError, match=message):
            read_samples(form, **options)


def test_names_of_columns_are_texts():
    with pytest.raises(InputError, match="keep must be a list of names of columns"):
        check_keep(7, Columns("text"))
    with pytest.raises(InputError, match="id_column must be the name of one column"):
        check_keep((), Columns("text", id_column=["a", "b"]))
    assert check_keep("source", Columns("text")).keep == ("source",)


def test_a_frame_names_the_column_that_is_nearly_so():
    with pytest.raises(InputError, match="no column 'yaer', which keep names: it has text, uid, source, year"):
        read_samples(pd.DataFrame(ROWS), keep=["yaer"])
    with pytest.raises(InputError, match="keep='source' names a column, and the samples come from a list"):
        read_samples(["a"], keep=["source"])


def test_a_row_of_jsonl_may_lack_a_kept_column_but_no_id(tmp_path):
    rows = [{"text": "a", "uid": 1, "source": "web"}, {"text": "b", "uid": 2}]
    assert read_samples(write(tmp_path / "a.jsonl", rows), **{**KEEP, "keep": ["source"]}).kept == {
        "source": ("web", None)
    }
    with pytest.raises(InputError, match="line 2 has no column 'uid', which id_column names"):
        read_samples(write(tmp_path / "b.jsonl", [rows[0], {"text": "b"}]), id_column="uid")


def test_what_is_there_already_is_not_kept_twice():
    rows = [{"text": "a", "id": 1, "group": "x"}, {"text": "b", "id": 2, "group": "y"}]
    found = read_samples(rows, id_column="id", groups="group", keep=["id", "group"])
    assert (found.row_ids, found.groups, found.kept) == ((1, 2), ("x", "y"), None)


# --- Kinds of cells


def test_cells_become_one_kind():
    assert one_kind([1, None, float("nan")]) == (1, None, None)
    assert one_kind([True, None]) == (True, None)
    assert one_kind([np.int64(1), np.float64(0.5)]) == (1.0, 0.5)
    assert one_kind([1, "a"]) == ("1", "a")
    assert one_kind([True, 1]) == ("true", "1")
    assert one_kind([[1, 2], np.array([3])]) == ("[1, 2]", "[3]")
    assert one_kind([2**63, 1]) == (str(2**63), "1")
    assert one_kind([2**60, 0.5]) == (str(2**60), "0.5")  # as floats, they would not be what they are
    assert one_kind(["\ud800"]) == ("\\ud800",)
    assert one_kind([pd.NaT, pd.NA]) == (None, None)


def test_ids_of_a_csv_are_numbers_where_all_are_written_as_such(tmp_path):
    path = tmp_path / "a.csv"
    for cells, ids in (((1, 20), (1, 20)), (("007", "8"), ("007", "8")), (("1.0", "2"), ("1.0", "2"))):
        path.write_text("text,uid,x\n" + "".join(f"t{i},{one},{i}.5\n" for i, one in enumerate(cells)))
        found = read_samples(path, id_column="uid", keep=["x"])
        assert (found.row_ids, found.kept["x"]) == (ids, (0.5, 1.5))
    path.write_text("text,x\na,nan\nb,1\n")
    assert read_samples(path, keep=["x"]).kept["x"] == ("nan", "1")


# --- What is printed


def test_previews_are_harmless():
    nasty = "a\nb\tc\r\x1b[31mred\x1b]0;title\x07 \u202eback\u2066 \x00 \ud800 \u2028 \u3000wide\xa0"
    shown = visible(nasty)
    assert shown.isprintable()
    assert shown == ("a\\nb\\tc\\r\\x1b[31mred\\x1b]0;title\\x07 \\u202eback\\u2066 \\x00 \\ud800 \\u2028  wide ")
    assert visible("שלום नमस्ते 漢字 é 👩\u200d🚀") == "שלום नमस्ते 漢字 é 👩\u200d🚀"  # words of any script stay
    assert len(visible("e" + 50 * "\u0301")) < 8
    assert preview("x" * 41) == "x" * 40 + "..."
    assert preview("x" * 40) == "x" * 40
    assert quoted("it's") == '"it\'s"'
    assert visible("<b>") == "<b>"  # pages escape it themselves


# --- Tables


def lengths_of(rows=ROWS, **more):
    return compress_bits(UniformModel(256), read_samples(rows, **KEEP), tokenizer=Bytes(), progress=False, **more)


class Bytes:
    """A byte is a token."""

    name_or_path = "bytes"
    vocab_size = 256
    bos_token_id = eos_token_id = None

    def __len__(self):
        return 256

    def __call__(self, texts, add_special_tokens=False, **_):
        return {"input_ids": [list(text.encode()) for text in texts]}

    def encode(self, text, add_special_tokens=False):
        return list(text.encode())

    def decode(self, ids, **_):
        return bytes(ids).decode()

    def get_vocab(self):
        return {str(i): i for i in range(256)}


def test_tables_have_id_preview_and_columns_and_come_back(tmp_path):
    found = lengths_of()
    table = found.to_pandas()
    assert list(table.columns) == [
        "sample",
        "id",
        "bits",
        "ideal_bits",
        "n_tokens",
        "n_bytes",
        "preview",
        "source",
        "year",
    ]
    assert table["sample"].tolist() == [0, 2, 3]
    assert table["id"].tolist() == ["a7", "b2", "c9"]
    assert table["preview"].tolist() == ["To be", "or not", "to be"]
    assert str(table["year"].dtype) == "Int64"
    found.save(tmp_path / "one")
    again = CodeLengths.load(tmp_path / "one")
    assert again.about == found.about
    pd.testing.assert_frame_equal(again.to_pandas(), table)
    joined = pd.DataFrame(ROWS).merge(table[["id", "bits"]], left_on="uid", right_on="id")
    assert len(joined) == 3


@pytest.mark.filterwarnings("ignore::memorization.errors.WeakOracleWarning")
def test_memorization_and_its_control_have_them_too(tmp_path):
    unseen = [{**row, "uid": f"u{i}", "text": f"un {i}!", "year": i} for i, row in enumerate(ROWS)]
    found = unintended_memorization(
        UniformModel(256), UniformModel(256), read_samples(ROWS, **KEEP), control=read_samples(unseen, **KEEP),
        target_tokenizer=Bytes(), oracle_tokenizer=Bytes(), progress=False,
    )  # fmt: skip
    assert found.to_pandas()["id"].tolist() == ["a7", "b2", "c9"]
    assert found.control.to_pandas()["id"].tolist() == ["u0", "u1", "u2", "u3"]
    found.save(tmp_path, csv=True)
    for part, again in ((found, load(tmp_path)), (found.control, load(tmp_path).control)):
        pd.testing.assert_frame_equal(part.to_pandas(), again.to_pandas())
    for name, part in (("memorization", found), ("control", found.control)):
        written = pd.read_csv(tmp_path / f"{name}.csv")
        assert written["id"].tolist() == part.to_pandas()["id"].tolist()
        assert np.array_equal(written["bits"], part.bits)
    assert not list(tmp_path.glob("*/*.csv"))


def test_saved_lengths_get_the_columns_of_the_samples_that_come_with_them():
    plain = compress_bits(UniformModel(256), [row["text"] for row in ROWS if row["uid"]], tokenizer=Bytes())
    assert "id" not in plain.to_pandas()
    found = unintended_memorization(
        plain, UniformModel(256), read_samples(ROWS, **KEEP), oracle_tokenizer=Bytes(), progress=False
    )
    assert found.to_pandas()["id"].tolist() == ["a7", "b2", "c9"]
    assert found.by("source")["n"].tolist() == [1, 1, 1]


def test_a_csv_that_was_changed_is_no_damage_and_goes_with_its_result(tmp_path):
    found = lengths_of()
    found.save(tmp_path, csv=True)
    (tmp_path / "samples.csv").write_text("opened and saved by another program")
    assert len(load(tmp_path)) == 3
    found.save(tmp_path, overwrite=True)
    assert not (tmp_path / "samples.csv").exists()  # it would be of another result


def test_own_columns_of_tables_are_refused_as_kept_ones():
    """Whatever a table of samples has must be in the list, or a user's column could hide it."""
    found = unintended_memorization(
        UniformModel(64), UniformModel(64), [[1, 2], [3, 4]], control=[[5, 6], [7, 8]], progress=False
    )
    from memorization import audit_membership, extract, which_samples

    ids = ([[1, 2, 3], [3, 4, 5]], [[5, 6, 7], [7, 8, 9]])
    attack = next(iter(audit_membership(UniformModel(64), *ids, progress=False).attacks.values()))
    tables = [
        *(found.to_pandas(), found.control.to_pandas(), found.target.to_pandas(), attack.samples_to_pandas()),
        extract(UniformModel(64), *ids, prefix_tokens=[1], progress=False).samples_to_pandas(),
        which_samples([1.0, 2.0], ids[0]).to_pandas(),
    ]
    assert {name for table in tables for name in table.columns} <= OWN_COLUMNS


def likes_small_ids(ids):
    """Scores differ, so that samples change places where they are ranked."""
    import torch

    return torch.linspace(5, 0, 64).expand(*ids.shape, 64)


def test_tables_of_attacks_and_extraction_have_them(tmp_path):
    from memorization import audit_membership, extract, load

    rows = [{"input_ids": [i, 9 + i * i % 7, 50], "n": 10 * i, "source": "ab"[i % 2]} for i in range(6)]
    seen, unseen = (read_samples(part, id_column="n", keep=["source"]) for part in (rows[:3], rows[3:]))
    audit = audit_membership(likes_small_ids, seen, unseen, progress=False)
    audit.save(tmp_path / "attack", csv=True)
    found = extract(UniformModel(64), seen, unseen, prefix_tokens=[1], progress=False)
    found.save(tmp_path / "extract", csv=True)
    for name, one in audit.attacks.items():
        table = one.samples_to_pandas()
        assert sorted(table["id"].tolist()) == [0, 10, 20, 30, 40, 50]
        assert all(table["id"] == 10 * table["sample"] + 30 * ~table["member"])
        assert all(table["preview"].str.split(" ").str[0].astype(int) * 10 == table["id"])
        assert all(table["source"] == ["ab"[i // 10 % 2] for i in table["id"]])
        again = load(tmp_path / "attack").attacks[name].samples_to_pandas()
        pd.testing.assert_frame_equal(again, table)
        assert pd.read_csv(tmp_path / "attack" / name / "scores.csv")["id"].tolist() == table["id"].tolist()
    table = found.samples_to_pandas()
    assert table["id"].tolist() == [0, 10, 20, 30, 40, 50]
    assert table["source"].tolist() == list("ababab")
    pd.testing.assert_frame_equal(load(tmp_path / "extract").samples_to_pandas(), table)
    assert (tmp_path / "extract" / "samples.csv").exists()


def test_folders_of_earlier_versions_have_no_such_columns(tmp_path):
    import dataclasses

    found = dataclasses.replace(lengths_of(), about=None)
    found.save(tmp_path)
    again = CodeLengths.load(tmp_path)
    assert again.about is None
    assert list(again.to_pandas().columns) == ["sample", "bits", "ideal_bits", "n_tokens", "n_bytes"]
    assert with_about(pd.DataFrame({"sample": [0]}), None).columns.tolist() == ["sample"]


def test_sets_with_unlike_columns_are_joined():
    ours = About(("a",), ("x",), {"source": ("web",)})
    both = About.joined([ours, About(("b", "c"))], [1, 2])
    assert both == About(("a", "b", "c"), ("x", None, None), {"source": ("web", None, None)})
    assert About.joined([ours, None], [1, 0]) == ours
    assert About.joined([ours, None], [1, 3]) is None


def test_tables_of_rarity_spans_and_identifiers_have_them(tiny_gpt2, bpe_tokenizer, tmp_path):
    from memorization import audit_identifiers, measure_spans, which_samples
    from memorization.identifiers.result import OWN_COLUMNS as OF_IDENTIFIERS
    from memorization.spans.result import OWN_COLUMNS as OF_SPANS

    rows = [
        {"text": f"key 5d41402abc4b2a76b9719d911017c59{i} is number {i}", "uid": f"u{i}", "source": "web"} for i in "ab"
    ]
    rows.insert(1, {"text": "", "uid": "", "source": ""})
    samples = read_samples(rows, id_column="uid", keep=["source"])
    spans = measure_spans(
        tiny_gpt2, UniformModel(300), samples, {"key": "[0-9a-f]{32}"}, target_tokenizer=bpe_tokenizer,
        oracle_tokenizer=bpe_tokenizer, progress=False,
    )  # fmt: skip
    found = audit_identifiers(tiny_gpt2, samples, "[0-9a-f]{32}", tokenizer=bpe_tokenizer, n_draws=2, progress=False)
    rare = which_samples([1.0, 2.0], samples, tokenizer=bpe_tokenizer)
    tables = {
        "spans": (spans, lambda one: one.spans_to_pandas(), OF_SPANS),
        "identifiers": (found, lambda one: one.to_pandas(), OF_IDENTIFIERS),
        "rarity": (rare, lambda one: one.to_pandas(), ()),
    }
    for name, (result, table_of, own) in tables.items():
        table = table_of(result)
        assert set(zip(table["sample"], table["id"], strict=True)) == {(0, "ua"), (2, "ub")}
        assert (table["source"] == "web").all()
        assert table["preview"].str.startswith("key 5d41402abc4b2a76b9719d91").all()
        assert set(table.columns) - {"source"} <= OWN_COLUMNS | set(own)
        result.save(tmp_path / name, csv=True)
        pd.testing.assert_frame_equal(table_of(load(tmp_path / name)), table)
        assert pd.read_csv(tmp_path / name / f"{name}.csv")["id"].tolist() == table["id"].tolist()
    twice = read_samples([{**row, "start": 1} for row in rows], keep=["start"])
    with pytest.raises(InputError, match="keep names 'start', and the table of identifiers has a column of that name"):
        audit_identifiers(tiny_gpt2, twice, "[0-9a-f]{32}", tokenizer=bpe_tokenizer)
    with pytest.raises(InputError, match="and the table of spans has a column of that name"):
        measure_spans(tiny_gpt2, UniformModel(300), twice, {"key": "x"}, target_tokenizer=bpe_tokenizer)


@pytest.mark.filterwarnings("ignore")
def test_a_redacted_audit_shows_no_beginnings():
    from memorization import audit

    data = [[(7 * i + k * k) % 64 for k in range(20)] for i in range(12)]
    for redact in (False, True):
        found = audit(UniformModel(64), UniformModel(64), data[:6], data[6:], redact=redact, progress=False)
        measured = found.memorization
        tables = [measured.to_pandas(), measured.control.to_pandas(), measured.target.to_pandas()]
        tables += [measured.oracle.to_pandas(), found.rarity.to_pandas()]
        tables += [one.samples_to_pandas() for one in found.membership.attacks.values()]
        for table in tables:
            assert (table["preview"] == "").all() is np.bool_(redact)


# --- The command line


def run(*words, stdin=None):
    return CliRunner().invoke(app, [str(word) for word in words], input=stdin)


def test_commands_keep_columns_and_write_csv(model_folder, tmp_path):
    data = write(tmp_path / "a.jsonl", [{**row, "text": f"sample number {i}"} for i, row in enumerate(ROWS) if i != 1])
    said = run(
        "bits", "--target", model_folder, "--data", data, "--id-column", "uid", "--keep", "source, year", "--csv",
        "--output", tmp_path / "out", "--quiet",
    )  # fmt: skip
    assert said.exit_code == 0, said.output
    table = pd.read_csv(tmp_path / "out" / "samples.csv")
    assert table["id"].tolist() == ["a7", "b2", "c9"]
    assert table["source"].fillna("").tolist() == ["web", "", "book"]


def test_standard_input(model_folder, tmp_path, monkeypatch):
    lines = '{"text": "sample number one", "uid": 4}\n'
    words = ["bits", "--target", model_folder, "--data", "-", "--id-column", "uid", "--output", tmp_path, "--quiet"]
    said = run(*words, stdin=lines)
    assert said.exit_code == 0, said.output
    assert load(tmp_path).to_pandas()["id"].tolist() == [4]
    both = run(
        *("measure", "--target", model_folder, "--oracle", model_folder, "--data", "-", "--control", "-"),
        *("--output", tmp_path / "b"),
        stdin=lines,
    )
    assert both.exit_code != 0
    assert "standard input can be read once" in str(both.exception) + both.output
    assert sys.stdin is not None


def test_identifiers_spans_and_rarity_have_the_users_columns_too(model_folder, tmp_path):
    """One way for all commands: the id behind sample, the kept columns at the end, a .csv beside the .parquet."""
    rows = [
        {"text": f"the pin of {k} is {k * 7919 % 10**6:06d}", "uid": f"u{k}", "source": "ab"[k % 2]} for k in range(6)
    ]
    data = tmp_path / "data.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    columns = ["--id-column", "uid", "--keep", "source", "--csv", "--quiet"]
    models = ["--target", model_folder, "--oracle", model_folder]
    for name, table, options in (
        ("identifiers", "identifiers", ["--target", model_folder, "--format", "digits6", "--draws", "0"]),
        ("spans", "spans", [*models, "--span", "pin=[0-9]{6}"]),
        ("rarity", "rarity", models),
    ):
        words = [name, *options, "--data", data, "--first-token", "bos", "--output", tmp_path / name, *columns]
        said = run(*words)
        assert said.exit_code == 0, said.output
        found = pd.read_csv(tmp_path / name / f"{table}.csv")
        assert found["id"].tolist() == [f"u{k}" for k in found["sample"]], name
        assert found["source"].tolist() == ["ab"[k % 2] for k in found["sample"]], name
