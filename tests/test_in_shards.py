"""Measuring into a folder: the same numbers shard by shard as at once, kept through any stop, and none of another run."""

import errno
import json
import random
import threading

import numpy as np
import pandas as pd
import pytest
import torch

import memorization.measure.result as result_module
import memorization.samples.shards as shards_module
from memorization import (
    CodeLengths,
    Memorization,
    UniformModel,
    compress_bits,
    load,
    read_samples,
    scan_samples,
    unintended_memorization,
)
from memorization.errors import InputError, MeasurementWarning, NotSavedError, ResultError, UnfinishedError
from memorization.measure import in_shards, shard_files, shared
from memorization.measure.shard_files import UNFINISHED, ShardRun

WORDS = ["to", "be", "or", "not", "that", "is", "the", "question", "whether", "nobler", "suffer", "slings", "arrows"]
# Random models are poor oracles, and say so.
pytestmark = [
    pytest.mark.filterwarnings(f"ignore::memorization.errors.{name}")
    for name in ("WeakOracleWarning", "LengthMismatchWarning")
]
PER_TOKEN = ("token_ids", "token_greedy", "token_bytes", "token_offsets", "n_tokens", "n_bytes", "index")


@pytest.fixture(autouse=True)
def short_shards(monkeypatch):
    """Eight samples a shard."""
    monkeypatch.setattr(shards_module, "SAMPLES_A_SHARD", 8)


@pytest.fixture(params=[False, True], ids=["in memory", "in files"])
def tokens_stay_in_files(request, monkeypatch):
    """Results are opened as those of many tokens are, or as those of few."""
    if request.param:
        monkeypatch.setattr(result_module, "MOST_TOKENS", 0)
        monkeypatch.setattr(result_module, "_TOKENS_A_PIECE", 30)
        monkeypatch.setattr(result_module, "_ROWS", 5)
    return request.param


def texts(n, seed=0):
    draw = random.Random(seed)
    return [" ".join(draw.choices(WORDS, k=draw.randint(1, 9))) + f" {seed}.{i}" for i in range(n)]


def table_of(n, seed=0):
    """Rows with an id, a column of several kinds, and a blank row now and then."""
    rows = [{"text": text, "uid": f"u{i}", "year": i if i % 3 else None} for i, text in enumerate(texts(n, seed))]
    for i in range(5, n, 11):
        rows[i]["text"] = " "
    return rows


def write(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


@pytest.fixture
def target():
    """Logits by the last token: no batch can change them in any digit."""
    table = torch.randn(300, 300, generator=torch.Generator().manual_seed(1)) * 2
    return lambda ids: table[ids]


@pytest.fixture
def oracle():
    table = torch.randn(300, 300, generator=torch.Generator().manual_seed(2))
    return lambda ids: table[ids]


def assert_same(ours, theirs):
    """Equal in every number and every word, but for the sizes of batches."""
    for name in ("bits", "ideal_bits", "token_bits", *PER_TOKEN):
        assert np.array_equal(getattr(ours, name), getattr(theirs, name)), name
    assert ours.about == theirs.about
    different = {name for name in ours.settings if ours.settings[name] != theirs.settings[name]}
    assert different <= {"largest_batch", "batches", "samples"}
    records = [{**one.settings["samples"], "source": None} for one in (ours, theirs)]
    assert records[0] == records[1]


class TestTheSameNumbers:
    def test_of_a_file_with_ids_columns_and_blank_rows(self, target, bpe_tokenizer, tmp_path, tokens_stay_in_files):
        file = write(tmp_path / "data.jsonl", table_of(50))
        how = {"id_column": "uid", "keep": ["year"]}
        at_once = compress_bits(target, read_samples(file, **how), tokenizer=bpe_tokenizer)
        scan = scan_samples(file, **how)
        assert [len(shard) for shard in scan] == [8] * 5 + [5]
        stored = compress_bits(target, scan, tokenizer=bpe_tokenizer, store=tmp_path / "out")
        assert (type(stored) is CodeLengths) != tokens_stay_in_files
        assert_same(at_once, stored)
        assert at_once.to_pandas().equals(stored.to_pandas())
        assert at_once.by("year").equals(stored.by("year"))
        assert not (tmp_path / "out" / UNFINISHED).exists()

    @pytest.mark.parametrize("first_token", ["uniform", "skip", 0])
    def test_of_ids(self, target, tmp_path, first_token):
        draw = np.random.default_rng(0)
        rows = [draw.integers(1, 300, draw.integers(2, 9)).tolist() for _ in range(30)]
        at_once = compress_bits(target, rows, first_token=first_token)
        stored = compress_bits(target, rows, first_token=first_token, store=tmp_path / "out")
        assert_same(at_once, stored)

    def test_of_prompts_and_labels(self, target, bpe_tokenizer, tmp_path):
        rows = [{"text": text, "prompt": other} for text, other in zip(texts(20), texts(20, 1), strict=True)]
        how = {"prompt_column": "prompt"}
        file = write(tmp_path / "data.jsonl", rows)
        at_once = compress_bits(target, read_samples(file, **how), tokenizer=bpe_tokenizer)
        stored = compress_bits(target, scan_samples(file, **how), tokenizer=bpe_tokenizer, store=tmp_path / "out")
        assert_same(at_once, stored)
        labelled = [{"input_ids": [1, 2, 3, 4], "labels": [-100, -100, 3, 4]} for _ in range(20)]
        at_once = compress_bits(target, read_samples(labelled))
        assert_same(at_once, compress_bits(target, scan_samples(labelled), store=tmp_path / "labelled"))

    def test_of_long_documents_in_windows(self, target, tmp_path):
        rows = [np.random.default_rng(i).integers(1, 300, 100 + i).tolist() for i in range(10)]
        how = {"max_length": 16, "stride": 8}
        assert_same(compress_bits(target, rows, **how), compress_bits(target, rows, store=tmp_path / "out", **how))

    def test_texts_that_a_tokenizer_loses_are_left_out(self, target, bpe_tokenizer, tmp_path, monkeypatch):
        from memorization.samples import round_trip

        lost = texts(30)[9]
        encode = round_trip.encode_exactly

        def encode_badly(tokenizer, rows, name):
            ids, lossy = encode(tokenizer, rows, name)
            return ids, lossy | {k: round_trip.Lossy(name, lost, "x") for k, row in enumerate(rows) if row == lost}

        monkeypatch.setattr("memorization.samples.samples.encode_exactly", encode_badly)
        how = {"tokenizer": bpe_tokenizer, "on_lossy_text": "skip"}
        at_once = compress_bits(target, texts(30), **how)
        assert at_once.settings["samples"]["lossy_skipped"] == [9]
        assert_same(at_once, compress_bits(target, texts(30), store=tmp_path / "out", **how))

    @pytest.mark.parametrize("joint", ["max", "switch"])
    def test_of_memu_with_a_control(self, target, oracle, bpe_tokenizer, tmp_path, joint, tokens_stay_in_files):
        seen, unseen = table_of(60), table_of(40, seed=1)
        files = [write(tmp_path / f"{k}.jsonl", rows) for k, rows in enumerate((seen, unseen))]
        how = {"target_tokenizer": bpe_tokenizer, "oracle_tokenizer": bpe_tokenizer, "joint": joint}
        at_once = unintended_memorization(target, oracle, files[0], control=files[1], **how)
        stored = unintended_memorization(target, oracle, files[0], control=files[1], store=tmp_path / "out", **how)
        for role in ("target", "oracle"):
            assert_same(getattr(at_once, role), getattr(stored, role))
            assert_same(getattr(at_once.control, role), getattr(stored.control, role))
        assert repr(at_once) == repr(stored)
        assert at_once.summary() == stored.summary()
        assert at_once.to_pandas().equals(stored.to_pandas())
        # Means of rungs are summed piece by piece.
        pd.testing.assert_frame_equal(at_once.ladder.to_pandas(), stored.ladder.to_pandas(), rtol=1e-9)

    def test_of_several_oracles_and_documents(self, target, oracle, tmp_path):
        draw = np.random.default_rng(0)
        seen, unseen = ([draw.integers(1, 300, 5).tolist() for _ in range(30)] for _ in range(2))
        groups = ([f"a{i // 2}" for i in range(30)], [f"b{i // 3}" for i in range(30)])
        how = {"control": unseen, "groups": groups, "combine": "best"}
        oracles = [oracle, UniformModel(300)]
        at_once = unintended_memorization(target, oracles, seen, **how)
        stored = unintended_memorization(target, oracles, seen, store=tmp_path / "out", **how)
        assert repr(at_once) == repr(stored)
        assert stored.groups == at_once.groups
        assert len(stored.other_oracles) == 1

    def test_what_stands_in_front_is_asked_of_samples_from_all_shards(self, bpe_tokenizer, tiny_gpt2, tmp_path):
        at_once = compress_bits(tiny_gpt2, texts(60), tokenizer=bpe_tokenizer)
        stored = compress_bits(tiny_gpt2, texts(60), tokenizer=bpe_tokenizer, store=tmp_path / "out")
        evidence = [one.settings["first_token"]["evidence"] for one in (at_once, stored)]
        assert evidence[0]["n_samples"] == evidence[1]["n_samples"] == 60
        assert evidence[0]["bits_with"] == pytest.approx(evidence[1]["bits_with"], abs=1e-5)
        assert np.allclose(at_once.ideal_bits, stored.ideal_bits, atol=1e-4)

    def test_a_single_shard_is_measured_at_once_and_saved(self, target, tmp_path):
        rows = [[1, 2, 3], [4, 5]]
        stored = compress_bits(target, rows, store=tmp_path / "out")
        assert_same(compress_bits(target, rows), stored)
        assert_same(load(tmp_path / "out"), stored)
        assert "rows" not in stored.settings["samples"]


class Stopped(Exception):
    """As a kill is: nothing of ours runs after it."""


@pytest.fixture
def stop_after(monkeypatch):
    """Stop a run after so many shards; returns what counts the shards that were measured."""
    put, counted = ShardRun.put, []

    def stop(n, error=Stopped):
        def counting_put(self, of, k, *kept):
            if n is not None and len(counted) == n:
                raise error
            put(self, of, k, *kept)
            counted.append((of, k))

        counted.clear()
        monkeypatch.setattr(ShardRun, "put", counting_put)
        return counted

    return stop


class TestAfterAStop:
    @pytest.mark.parametrize("n", [0, 1, 5, 9])
    def test_the_same_call_goes_on(self, target, oracle, tmp_path, stop_after, n):
        seen, unseen = (np.random.default_rng(k).integers(1, 300, (30, 6)) for k in (0, 1))
        whole = unintended_memorization(target, oracle, seen, control=unseen, store=tmp_path / "whole")
        stop_after(n)
        with pytest.raises(Stopped):
            unintended_memorization(target, oracle, seen, control=unseen, store=tmp_path / "out")
        measured = stop_after(None)
        again = unintended_memorization(target, oracle, seen, control=unseen, store=tmp_path / "out")
        assert len(measured) == 16 - n
        names = sorted(path.relative_to(tmp_path / "out") for path in (tmp_path / "out").rglob("*.parquet"))
        assert names
        for name in names:  # bit for bit
            assert (tmp_path / "out" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes(), name
        assert repr(whole) == repr(again)

    def test_batches_do_not_depend_on_where_a_run_was_stopped(self, bpe_tokenizer, tiny_gpt2, tmp_path, stop_after):
        """A real model, whose last digits depend on what shares a batch."""
        how = {"tokenizer": bpe_tokenizer, "first_token": "bos"}
        compress_bits(tiny_gpt2, texts(60), store=tmp_path / "whole", **how)
        stop_after(3)
        with pytest.raises(Stopped):
            compress_bits(tiny_gpt2, texts(60), store=tmp_path / "out", **how)
        stop_after(None)
        compress_bits(tiny_gpt2, texts(60), store=tmp_path / "out", **how)
        for name in ("samples.parquet", "tokens.parquet"):
            assert (tmp_path / "out" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()

    def test_what_is_decided_once_is_not_asked_again(self, bpe_tokenizer, tiny_gpt2, tmp_path, stop_after, monkeypatch):
        how = {"tokenizer": bpe_tokenizer, "store": tmp_path / "out"}
        stop_after(2)
        with pytest.raises(Stopped):
            compress_bits(tiny_gpt2, texts(40), **how)
        stop_after(None)
        monkeypatch.setattr(
            "memorization.measure.code_lengths.settle_first_token", lambda *_, **__: pytest.fail("asked")
        )
        assert len(compress_bits(tiny_gpt2, texts(40), **how)) == 40

    def test_a_half_written_shard_is_made_again(self, target, tmp_path, stop_after):
        rows = np.random.default_rng(0).integers(1, 300, (40, 6))
        stop_after(4)
        with pytest.raises(Stopped):
            compress_bits(target, rows, store=tmp_path / "out")
        there = tmp_path / "out" / UNFINISHED / "samples" / "model"
        cut = there / "000001.tokens.parquet"
        cut.write_bytes(cut.read_bytes()[:50])
        (there / "000002.json").write_text('{"sizes"')
        measured = stop_after(None)
        assert_same(compress_bits(target, rows), compress_bits(target, rows, store=tmp_path / "out"))
        assert [k for _, k in measured] == [1, 2, 4]

    @pytest.mark.parametrize(
        ("change", "told"),
        [
            ({"samples": np.random.default_rng(9).integers(1, 300, (30, 6))}, "the samples differ from shard 0 on"),
            ({"first_token": 5}, "first_token was 'auto' and is now '5'"),
            ({"max_length": 3}, "max_length was None and is now '3'"),
        ],
    )
    def test_another_run_is_refused_by_what_differs(self, target, tmp_path, stop_after, change, told):
        call = {"samples": np.random.default_rng(0).integers(1, 300, (30, 6)), "store": tmp_path / "out"}
        stop_after(2)
        with pytest.raises(Stopped):
            compress_bits(target, **call)
        stop_after(None)
        with pytest.raises(ResultError, match=told):
            compress_bits(target, **(call | change))
        call |= change
        stored = compress_bits(target, overwrite=True, **call)
        assert_same(compress_bits(target, **{name: call[name] for name in call if name != "store"}), stored)

    def test_samples_appended_later_are_told_by_their_shard(self, target, tmp_path, stop_after):
        rows = np.random.default_rng(0).integers(1, 300, (30, 6))
        stop_after(2)
        with pytest.raises(Stopped):
            compress_bits(target, rows[:24], store=tmp_path / "out")
        with pytest.raises(ResultError, match="the samples differ in length"):
            compress_bits(target, rows, store=tmp_path / "out")

    def test_other_weights_under_one_name_are_refused(
        self, model_folder, tiny_gpt2, bpe_tokenizer, tmp_path, stop_after
    ):
        from transformers import GPT2LMHeadModel

        folder = tmp_path / "model"
        tiny_gpt2.save_pretrained(folder)
        bpe_tokenizer.save_pretrained(folder)
        stop_after(2)
        with pytest.raises(Stopped):
            compress_bits(folder, texts(30), store=tmp_path / "out")
        stop_after(None)
        GPT2LMHeadModel(tiny_gpt2.config).save_pretrained(folder)
        with pytest.raises(ResultError, match="the model was"):
            compress_bits(folder, texts(30), store=tmp_path / "out")

    def test_another_model_in_memory_is_refused(self, tiny_gpt2, bpe_tokenizer, tmp_path, stop_after):
        how = {"tokenizer": bpe_tokenizer, "store": tmp_path / "out"}
        stop_after(2)
        with pytest.raises(Stopped):
            compress_bits(tiny_gpt2, texts(30), **how)
        stop_after(None)
        other = type(tiny_gpt2)(tiny_gpt2.config)
        with pytest.raises(ResultError, match="is not the model that the finished shards were measured with"):
            compress_bits(other, texts(30), **how)

    def test_another_tokenizer_is_refused(self, tiny_gpt2, bpe_tokenizer, tmp_path, stop_after):
        import copy

        stop_after(2)
        with pytest.raises(Stopped):
            compress_bits(tiny_gpt2, texts(30), tokenizer=bpe_tokenizer, store=tmp_path / "out")
        stop_after(None)
        other = copy.deepcopy(bpe_tokenizer)
        other.add_tokens(["slings"])
        with pytest.raises(ResultError, match="it has another tokenizer"):
            compress_bits(tiny_gpt2, texts(30), tokenizer=other, store=tmp_path / "out")

    def test_another_version_of_torch_is_refused(self, target, tmp_path, stop_after, monkeypatch):
        rows = np.random.default_rng(0).integers(1, 300, (30, 6))
        stop_after(2)
        with pytest.raises(Stopped):
            compress_bits(target, rows, store=tmp_path / "out")
        stop_after(None)
        monkeypatch.setattr(in_shards, "versions", lambda: {"lm-memorization": "9", "torch": "2", "transformers": "5"})
        with pytest.raises(ResultError, match=r"the version of lm-memorization was '.*' and is now '9'"):
            compress_bits(target, rows, store=tmp_path / "out")

    def test_a_full_disk_keeps_what_is_finished(self, target, tmp_path, stop_after):
        rows = np.random.default_rng(0).integers(1, 300, (30, 6))
        stop_after(2, OSError(errno.ENOSPC, "No space left on device"))
        with pytest.raises(NotSavedError, match=r"No space left.*kept in .*\.unfinished: make room"):
            compress_bits(target, rows, store=tmp_path / "out")
        measured = stop_after(None)
        compress_bits(target, rows, store=tmp_path / "out")
        assert len(measured) == 2

    def test_an_old_result_stays_until_the_new_one_is_whole(self, target, oracle, tmp_path, stop_after):
        rows = np.random.default_rng(0).integers(1, 300, (30, 6))
        old = compress_bits(oracle, rows, store=tmp_path / "out")
        with pytest.raises(ResultError, match="holds a saved result"):
            compress_bits(target, rows, store=tmp_path / "out")
        stop_after(3)
        with pytest.raises(Stopped):
            compress_bits(target, rows, store=tmp_path / "out", overwrite=True)
        assert_same(old, CodeLengths.load(tmp_path / "out"))
        measured = stop_after(None)
        new = compress_bits(target, rows, store=tmp_path / "out", overwrite=True)
        assert len(measured) == 1
        assert_same(compress_bits(target, rows), new)

    def test_stopped_between_saving_and_cleaning_up_it_needs_no_leave_to_overwrite(self, target, tmp_path, monkeypatch):
        rows = np.random.default_rng(0).integers(1, 300, (30, 6))

        def stop(*_, **__):
            raise Stopped

        with monkeypatch.context() as patched:
            patched.setattr(ShardRun, "remove", stop)
            with pytest.raises(Stopped):
                compress_bits(target, rows, store=tmp_path / "out")
        assert_same(compress_bits(target, rows), CodeLengths.load(tmp_path / "out"))
        again = compress_bits(target, rows, store=tmp_path / "out")
        assert_same(compress_bits(target, rows), again)
        assert not (tmp_path / "out" / UNFINISHED).exists()
        with pytest.raises(ResultError, match="holds a saved result"):
            compress_bits(target, rows, store=tmp_path / "out")


class TestSharing:
    @pytest.fixture(autouse=True)
    def short_waits(self, monkeypatch):
        for module in (in_shards, shard_files):
            monkeypatch.setattr(module, "_WAIT_SECONDS", 0.01)

    @pytest.fixture
    def measured(self, monkeypatch):
        """The shards that were measured, in order."""
        put, found = ShardRun.put, []

        def counting(self, of, k, *kept):
            found.append((of, k))
            put(self, of, k, *kept)

        monkeypatch.setattr(ShardRun, "put", counting)
        return found

    def test_two_at_once_measure_each_shard_once_and_both_have_the_result(
        self, target, tmp_path, monkeypatch, measured
    ):
        rows = np.random.default_rng(0).integers(1, 300, (80, 6))
        both, saved, found = threading.Barrier(2), [], []
        score, save = shared.score_shards, CodeLengths.save

        def scored(*arguments, **options):
            both.wait(30)
            score(*arguments, **options)

        monkeypatch.setattr("memorization.measure.compress.score_shards", scored)
        monkeypatch.setattr(CodeLengths, "save", lambda *how, **more: [saved.append(1), save(*how, **more)])
        call = lambda: found.append(compress_bits(target, rows, store=tmp_path / "out", progress=False))  # noqa: E731
        threads = [threading.Thread(target=call) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        assert sorted(measured) == [("samples/model", k) for k in range(10)]
        assert len(saved) == 1
        assert not (tmp_path / "out" / UNFINISHED).exists()
        whole = compress_bits(target, rows)
        assert len(found) == 2
        for lengths in found:
            assert_same(whole, lengths)

    def test_shards_measure_their_share_and_the_last_has_the_result(self, target, tmp_path, measured):
        call = {"samples": np.random.default_rng(0).integers(1, 300, (40, 6)), "store": tmp_path / "out"}
        says = r"shard 2/3 has measured its share; 3 of 5 parts of the data are missing\. .* without a shard"
        for _ in range(2):
            with pytest.raises(UnfinishedError, match=says):
                compress_bits(target, **call, shard="2/3")
        assert [k for _, k in measured] == [1, 4]
        with pytest.raises(UnfinishedError, match="shard 1/3 has measured its share; 1 of 5"):
            compress_bits(target, **call, shard="1/3")
        assert_same(compress_bits(target, call["samples"]), compress_bits(target, **call, shard="3/3"))
        assert [k for _, k in measured] == [1, 4, 0, 3, 2]

    def test_a_share_is_of_all_sets_and_models_and_the_same_call_measures_the_rest(
        self, target, oracle, tmp_path, measured
    ):
        rows = np.random.default_rng(0).integers(1, 300, (60, 6))
        call = {"samples": rows[:24], "control": rows[24:], "store": tmp_path / "out"}
        with pytest.raises(UnfinishedError, match="shard 1/2 has measured its share; 8 of 16"):
            unintended_memorization(target, oracle, **call, shard="1/2")
        both = [
            f"samples/{role} 0, samples/{role} 2, control/{role} 1, control/{role} 3" for role in ("target", "oracle")
        ]
        assert ", ".join(f"{of} {k}" for of, k in measured) == ", ".join(both)
        stored = unintended_memorization(target, oracle, **call)
        assert len(set(measured)) == len(measured) == 16
        at_once = unintended_memorization(target, oracle, rows[:24], control=rows[24:])
        assert np.array_equal(stored.bits, at_once.bits)

    def test_one_part_is_of_one_shard_alone(self, target, tmp_path):
        rows = np.random.default_rng(0).integers(1, 300, (5, 6))
        with pytest.raises(UnfinishedError, match="shard 2/2 has measured its share; 1 of 1"):
            compress_bits(target, rows, store=tmp_path / "out", shard="2/2")
        assert_same(compress_bits(target, rows), compress_bits(target, rows, store=tmp_path / "out", shard="1/2"))

    @pytest.mark.parametrize(
        ("how", "told"),
        [
            ({"shard": "1/2"}, 'shard="1/2" measures into a folder that all processes see: pass store=FOLDER'),
            ({"engine": "ray"}, 'engine="ray" measures into a folder that all processes see: pass store=FOLDER'),
            ({"shard": "3/2", "store": "out"}, "shard must be k/n with 1 <= k <= n"),
            ({"address": "auto"}, 'address is of a Ray cluster: pass engine="ray", too'),
        ],
    )
    def test_what_cannot_be_shared_is_refused(self, target, oracle, how, told):
        with pytest.raises(InputError, match=told):
            compress_bits(target, [[1, 2, 3]], **how)
        with pytest.raises(InputError, match=told):
            unintended_memorization(target, oracle, [[1, 2, 3]], **how)

    def test_an_engine_that_there_is_not_is_refused(self):
        with pytest.raises(InputError, match='engine must be "local" or "ray"; it is \'dask\''):
            shared.Sharing.of(None, "dask", None, "out")


class TestWhatIsRead:
    def test_a_folder_of_files(self, target, tmp_path):
        folder = tmp_path / "data"
        folder.mkdir()
        rows = np.random.default_rng(0).integers(1, 300, (30, 6)).tolist()
        write(folder / "b.jsonl", [{"input_ids": row} for row in rows[20:]])
        write(folder / "a.jsonl", [{"input_ids": row} for row in rows[:20]])
        stored = compress_bits(target, folder, text_column="input_ids", store=tmp_path / "out")
        assert np.array_equal(stored.ideal_bits, compress_bits(target, rows).ideal_bits)
        (tmp_path / "empty").mkdir()
        with pytest.raises(InputError, match="a folder without a"):
            scan_samples(tmp_path / "empty")

    def test_data_sets_in_memory_and_streamed(self, target, tmp_path):
        from datasets import Dataset

        rows = np.random.default_rng(0).integers(1, 300, (30, 6)).tolist()
        data = Dataset.from_dict({"input_ids": rows})
        whole = compress_bits(target, rows)
        for k, one in enumerate((data, data.to_iterable_dataset())):
            stored = compress_bits(target, one, text_column="input_ids", store=tmp_path / str(k))
            assert np.array_equal(stored.ideal_bits, whole.ideal_bits)
            assert compress_bits(
                target, one, text_column="input_ids", limit=11, store=tmp_path / f"{k}b"
            ).n_tokens.sum()

    def test_what_begins_anew_is_read_and_a_generator_is_not(self, target, tmp_path):
        rows = np.random.default_rng(0).integers(1, 300, (30, 6)).tolist()

        class Corpus:
            def __iter__(self):
                return iter(rows)

        stored = compress_bits(target, Corpus(), store=tmp_path / "out")
        assert np.array_equal(stored.ideal_bits, compress_bits(target, rows).ideal_bits)
        with pytest.raises(InputError, match=r"a generator came, which can be read once.*\.jsonl"):
            compress_bits(target, (row for row in rows), store=tmp_path / "other")

    def test_without_a_store_shards_are_refused(self, target):
        with pytest.raises(InputError, match="pass store=FOLDER"):
            compress_bits(target, scan_samples([[1, 2]]))

    def test_data_that_change_while_they_are_read_are_refused(self, target, tmp_path):
        class Growing:
            begun = 0

            def __iter__(self):
                self.begun += 1
                return iter([[1, 2, 3 + (i > 20 and self.begun > 1)] for i in range(30)])

        with pytest.raises(InputError, match="the samples have changed while they were read, from row 16 on"):
            compress_bits(target, Growing(), store=tmp_path / "out")

    def test_ids_that_two_rows_of_two_shards_share_are_refused(self, tmp_path, target):
        rows = [{"input_ids": [1, 2], "uid": i % 20} for i in range(30)]
        scan = scan_samples(write(tmp_path / "a.jsonl", rows), text_column="input_ids", id_column="uid")
        with pytest.raises(InputError, match=r"rows 0 and 20 have the same id, 0 \(20 of 30 rows"):
            compress_bits(target, scan, store=tmp_path / "out")

    def test_a_sample_of_both_sets_is_refused(self, target, oracle, tmp_path):
        rows = np.random.default_rng(0).integers(1, 300, (60, 6)).tolist()
        with pytest.raises(InputError, match=r"sample 3 is also control sample 26 \(2 of 30 samples"):
            unintended_memorization(
                target, oracle, rows[:30], control=[*rows[30:55], rows[17], rows[3]], store=tmp_path / "out"
            )


class TestStoredLengths:
    @pytest.fixture
    def both(self, target, bpe_tokenizer, tmp_path, monkeypatch):
        file = write(tmp_path / "data.jsonl", table_of(60))
        how = {"id_column": "uid", "keep": ["year"]}
        in_memory = compress_bits(target, read_samples(file, **how), tokenizer=bpe_tokenizer)
        in_memory.save(tmp_path / "saved")
        monkeypatch.setattr(result_module, "MOST_TOKENS", 0)
        monkeypatch.setattr(result_module, "_TOKENS_A_PIECE", 30)
        monkeypatch.setattr(result_module, "_ROWS", 7)
        return in_memory, CodeLengths.load(tmp_path / "saved")

    @pytest.mark.parametrize(
        "part", [slice(3, 20), slice(None, None, -1), [40, 2, 3], np.arange(55) % 3 == 0, slice(0, None, 9)]
    )
    def test_parts_are_those_of_the_whole(self, both, part):
        in_memory, stored = both
        assert_same(in_memory[part], stored[part])
        assert type(stored[part]) is CodeLengths

    def test_pieces_are_all_samples_in_order(self, both):
        in_memory, stored = both
        pieces = list(stored.pieces())
        assert len(pieces) > 5
        assert all(len(piece) == 1 or piece.n_tokens.sum() <= 30 for piece in pieces)
        assert np.array_equal(np.concatenate([piece.token_bits for piece in pieces]), in_memory.token_bits)
        assert np.concatenate([piece.index for piece in pieces]).tolist() == in_memory.index.tolist()

    def test_saved_again_it_is_the_same(self, both, tmp_path):
        in_memory, stored = both
        stored.save(tmp_path / "again", csv=True)
        in_memory.save(tmp_path / "other", csv=True)
        assert (tmp_path / "again/samples.csv").read_text() == (tmp_path / "other/samples.csv").read_text()
        assert_same(in_memory, CodeLengths.load(tmp_path / "again"))

    def test_a_file_that_was_replaced_is_not_read(self, both, tmp_path):
        in_memory, stored = both
        in_memory[:10].save(tmp_path / "saved", overwrite=True)
        with pytest.raises(ResultError, match="has been replaced since it was opened: load the result again"):
            stored.token_bits  # noqa: B018

    def test_a_damaged_file_is_refused(self, both, tmp_path):
        path = tmp_path / "saved" / "tokens.parquet"
        path.write_bytes(path.read_bytes()[:-20])
        with pytest.raises(ResultError, match="cannot be read"):
            CodeLengths.load(tmp_path / "saved")


def test_each_warning_comes_once_for_all_shards(target, bpe_tokenizer, tmp_path, monkeypatch):
    from memorization.errors import warn

    measure = in_shards.measure

    def warning(*args, **kwargs):
        warn(f"doubtful: {len(args[1])}", MeasurementWarning)
        return measure(*args, **kwargs)

    monkeypatch.setattr(in_shards, "measure", warning)
    with pytest.warns(MeasurementWarning, match="doubtful") as caught:
        compress_bits(target, texts(40), tokenizer=bpe_tokenizer, store=tmp_path / "out")
    assert sum("doubtful" in str(one.message) for one in caught) == 1


def test_a_result_that_cannot_be_saved_is_kept_elsewhere(target, tmp_path, monkeypatch):
    save = CodeLengths.save

    def full(self, folder, **how):
        if str(folder) == str(tmp_path / "out"):
            raise OSError(errno.ENOSPC, "No space left on device")
        save(self, folder, **how)

    monkeypatch.setattr(CodeLengths, "save", full)
    with pytest.raises(NotSavedError, match="what was measured is in ") as caught:
        compress_bits(target, [[1, 2, 3]], store=tmp_path / "out")
    assert len(load(str(caught.value).rpartition(" ")[2])) == 1


def test_memorization_is_a_memorization(target, oracle, tmp_path):
    rows = np.random.default_rng(0).integers(1, 300, (30, 6))
    assert type(unintended_memorization(target, oracle, rows, store=tmp_path / "out")) is Memorization
