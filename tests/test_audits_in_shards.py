"""Attacks and audits of samples that are measured shard by shard: the numbers of all at once, also after a stop."""

import json
import warnings

import numpy as np
import pandas as pd
import pytest
import torch

import memorization.samples.shards as shards_module
from memorization import audit, audit_membership, cli, extract, load, scan_samples
from memorization.errors import FirstTokenWarning, InputError, MeasurementWarning, ResultError
from memorization.measure.shard_files import UNFINISHED, ShardRun

VOCAB = 300
pytestmark = [pytest.mark.filterwarnings("ignore::memorization.errors.MeasurementWarning")]


@pytest.fixture(autouse=True)
def short_shards(monkeypatch):
    """Sixteen samples a shard."""
    monkeypatch.setattr(shards_module, "SAMPLES_A_SHARD", 16)


class Stopped(Exception):
    """What stops a run here."""


@pytest.fixture
def stop_after(monkeypatch):
    """Stop a run after so many shards; returns the list of those that were measured."""
    put, counted = ShardRun.put_tables, []

    def stop(n, error=Stopped):
        def counting_put(self, of, k, *kept):
            if len(counted) == n:
                raise error
            put(self, of, k, *kept)
            counted.append((of, k))

        counted.clear()
        monkeypatch.setattr(ShardRun, "put_tables", counting_put)
        return counted

    return stop


def model(seed, scale=1.0):
    """Logits by the last token: no batch can change them in any digit."""
    table = scale * torch.randn(VOCAB, VOCAB, generator=torch.Generator().manual_seed(seed))
    return lambda ids: table[ids]


def rows(n, seed, length=20):
    return np.random.default_rng(seed).integers(1, VOCAB, size=(n, length)).tolist()


def texts(n, seed):
    draw = np.random.default_rng(seed)
    words = ["ox", "gold", "senate", "of", "the", "to", "we", "never", "and", "war", "peace", "treaty"]
    return [" ".join(draw.choice(words, size=14)) + f" {seed} {i}" for i in range(n)]


def write(path, lines):
    path.write_text("".join(json.dumps({"text": line, "uid": f"u{i}"}) + "\n" for i, line in enumerate(lines)))
    return path


def same_attacks(ours, theirs):
    assert list(ours.attacks) == list(theirs.attacks)
    for name, found in ours.attacks.items():
        other = theirs.attacks[name]
        assert np.array_equal(found.member_scores, other.member_scores), name
        assert np.array_equal(found.nonmember_scores, other.nonmember_scores), name
        assert np.array_equal(found.member_index, other.member_index), name
        assert found.member_about == other.member_about
    pd.testing.assert_frame_equal(ours.to_pandas(), theirs.to_pandas())
    assert ours.bag_of_words == theirs.bag_of_words


class TestAttacks:
    @pytest.mark.parametrize("with_oracle", [False, True])
    @pytest.mark.parametrize("kind", ["ids", "texts", "documents"])
    def test_they_are_those_of_all_at_once(self, kind, with_oracle, bpe_tokenizer, tmp_path):
        make = texts if kind == "texts" else rows
        how = {"oracle": model(2) if with_oracle else None, "seed": 3, "progress": False}
        if kind == "texts":
            how |= {"target_tokenizer": bpe_tokenizer, "oracle_tokenizer": bpe_tokenizer if with_oracle else None}
        if kind == "documents":
            how["groups"] = ([f"a{i // 3}" for i in range(40)], [f"b{i // 2}" for i in range(50)])
        sets = make(40, 0), make(50, 1)
        at_once = audit_membership(model(1), *sets, **how)
        assert ("zlib" in at_once.attacks, "reference" in at_once.attacks) == (kind == "texts", with_oracle)
        stored = audit_membership(model(1), *sets, store=tmp_path / "out", **how)
        same_attacks(at_once, stored)
        assert not (tmp_path / "out" / UNFINISHED).exists()
        same_attacks(stored, load(tmp_path / "out"))

    @pytest.mark.parametrize("n", [0, 2, 5])
    def test_after_a_stop_they_go_on(self, n, tmp_path, stop_after):
        sets, how = (rows(40, 0), rows(40, 1)), {"progress": False, "store": tmp_path / "out"}
        stop_after(n)
        with pytest.raises(Stopped):
            audit_membership(model(1), *sets, **how)
        measured = stop_after(None)
        found = audit_membership(model(1), *sets, **how)
        assert len(measured) == 6 - n
        same_attacks(audit_membership(model(1), *sets, progress=False), found)

    def test_another_option_of_the_attacks_is_another_run(self, tmp_path, stop_after):
        sets, how = (rows(40, 0), rows(40, 1)), {"progress": False, "store": tmp_path / "out"}
        stop_after(2)
        with pytest.raises(Stopped):
            audit_membership(model(1), *sets, **how)
        with pytest.raises(ResultError, match=r"k_percent was '20\.0' and is now '40\.0'"):
            audit_membership(model(1), *sets, k_percent=40.0, **how)

    def test_what_is_in_both_sets_is_refused(self, tmp_path):
        seen, unseen = rows(40, 0), rows(40, 1)
        with pytest.raises(InputError, match="sample 33 is also control sample 20"):
            audit_membership(model(1), seen, [*unseen[:20], seen[33], *unseen[20:]], store=tmp_path / "out")
        labels = [f"a{i // 3}" for i in range(40)]
        with pytest.raises(InputError, match="document"):
            audit_membership(model(1), seen, unseen, groups=(labels, labels), store=tmp_path / "out")
        with pytest.raises(InputError, match="texts"):
            audit_membership(model(1), seen, texts(40, 1), store=tmp_path / "out")
        with pytest.raises(InputError, match="at least two control samples"):
            audit_membership(model(1), seen, unseen[:1], store=tmp_path / "out")

    def test_data_of_one_shard_are_saved_as_well(self, tmp_path):
        found = audit_membership(model(1), rows(9, 0), rows(9, 1), store=tmp_path / "out", progress=False)
        same_attacks(found, load(tmp_path / "out"))
        with pytest.raises(ResultError, match="overwrite"):
            audit_membership(model(1), rows(9, 0), rows(9, 1), store=tmp_path / "out")


def same_audits(ours, theirs):
    assert ours.figures() == pytest.approx(theirs.figures(), nan_ok=True, rel=1e-9)
    assert ours.sentences() == theirs.sentences()
    assert ours.doubts() == theirs.doubts()
    assert [check.outcome for check in ours.checks] == [check.outcome for check in theirs.checks]
    assert ours.records().equals(theirs.records())
    assert ours.warnings == theirs.warnings
    assert ours.missing == theirs.missing


POLICY = ["extracted > 0", "memorized_share > 0.5"]


class TestAudits:
    @pytest.mark.parametrize("redact", [False, True])
    def test_they_are_those_of_all_at_once(self, redact, bpe_tokenizer, tmp_path):
        sets = [write(tmp_path / f"{k}.jsonl", texts(60 - 20 * k, k)) for k in (0, 1)]
        how = {"target_tokenizer": bpe_tokenizer, "oracle_tokenizer": bpe_tokenizer, "progress": False}
        how |= {"fail_on": POLICY, "redact": redact, "spans": {"number": r"[0-9]+$"}}
        at_once = audit(model(1, 3.0), model(2), *sets, **how)
        stored = audit(model(1, 3.0), model(2), *sets, store=tmp_path / "out", **how)
        same_audits(at_once, stored)
        same_audits(stored, load(tmp_path / "out"))
        assert stored.spans.to_pandas().equals(at_once.spans.to_pandas())
        assert stored.rarity.to_pandas().equals(at_once.rarity.to_pandas())
        assert stored.extraction.settings["examples"] == at_once.extraction.settings["examples"]
        assert bool(at_once.extraction.settings["examples"]) != redact

    def test_after_a_stop_they_go_on(self, tmp_path, stop_after):
        sets, how = (rows(40, 0), rows(40, 1)), {"progress": False, "store": tmp_path / "out", "fail_on": POLICY}
        stop_after(7)
        with pytest.raises(Stopped):
            audit(model(1, 3.0), model(2), *sets, **how)
        measured = stop_after(None)
        found = audit(model(1, 3.0), model(2), *sets, **how)
        assert len(measured) == 12 - 7
        same_audits(audit(model(1, 3.0), model(2), *sets, fail_on=POLICY, progress=False), found)

    def test_a_doubt_from_the_beginning_is_there_at_the_end(self, bpe_tokenizer, tmp_path, stop_after):
        """The warning is given when the first samples are looked at, and the run that ends is another one."""
        sets, plain, bos = (texts(40, 0), texts(40, 1)), model(1, 0.1), bpe_tokenizer.bos_token_id
        better_without = lambda ids: plain(ids) * (1 + 29 * (ids[:, :1, None] == bos))  # noqa: E731
        how = {"target_tokenizer": bpe_tokenizer, "oracle_tokenizer": bpe_tokenizer, "progress": False}

        def kinds(found):
            return {kind for kind, _ in found.warnings}

        stop_after(3)
        with pytest.raises(Stopped):
            audit(better_without, model(2), *sets, store=tmp_path / "out", **how)
        stop_after(None)
        with pytest.warns(FirstTokenWarning, match="likely trained without a BOS"):
            found = audit(better_without, model(2), *sets, store=tmp_path / "out", **how)
        assert "FirstTokenWarning" in kinds(found)
        assert kinds(found) == kinds(audit(better_without, model(2), *sets, **how))

    def test_redacted_shards_hold_no_text(self, bpe_tokenizer, tmp_path, stop_after):
        sets = texts(40, 0), texts(40, 1)
        how = {"target_tokenizer": bpe_tokenizer, "oracle_tokenizer": bpe_tokenizer, "progress": False}
        stop_after(4)
        with pytest.raises(Stopped):
            audit(model(1), model(2), *sets, redact=True, store=tmp_path / "out", **how)
        tables = sorted((tmp_path / "out" / UNFINISHED).rglob("*.samples.parquet"))
        assert tables
        for table in tables:
            assert {*pd.read_parquet(table)["preview"]} <= {"", "(hidden)"}
        with pytest.raises(ResultError, match="redact was 'True' and is now 'False'"):  # nor the other way round
            audit(model(1), model(2), *sets, store=tmp_path / "out", **how)

    def test_scans_are_taken(self, bpe_tokenizer, tmp_path):
        how = {"target_tokenizer": bpe_tokenizer, "oracle_tokenizer": bpe_tokenizer, "progress": False}
        files = [write(tmp_path / f"{k}.jsonl", texts(40, k)) for k in (0, 1)]
        scans = [scan_samples(file, id_column="uid") for file in files]
        found = audit(model(1), model(2), *scans, store=tmp_path / "out", spans={"number": r"[0-9]+$"}, **how)
        assert found.records()["id"].tolist()[:2] == ["u0", "u1"]
        assert found.spans.field("number").n_spans == 40


def same_extraction(ours, theirs):
    for name in (
        "member_correct",
        "member_offsets",
        "heldout_correct",
        "heldout_offsets",
        "member_bits",
        "heldout_bits",
    ):
        assert np.array_equal(getattr(ours, name), getattr(theirs, name)), name
    for name in ("member_oracle_bits", "heldout_oracle_bits"):
        one, other = getattr(ours, name), getattr(theirs, name)
        assert (one is None and other is None) or np.array_equal(one, other), name
    assert ours.member_about == theirs.member_about
    assert ours.member_groups == theirs.member_groups
    assert repr(ours) == repr(theirs)
    examples = [[{**one, "log2_probability": None} for one in found.settings["examples"]] for found in (ours, theirs)]
    assert examples[0] == examples[1]  # -inf is null in a saved result
    for name in ("prefix_tokens", "first_token", "n_cut", "decoding"):
        assert ours.settings[name] == theirs.settings[name], name
    records = [{**one.settings["members"], "source": None, "rows": None} for one in (ours, theirs)]
    assert records[0] == records[1]


class TestExtraction:
    @pytest.mark.parametrize("with_oracle", [False, True])
    @pytest.mark.parametrize("kind", ["ids", "texts", "short ones", "no control", "to a suffix"])
    def test_it_is_that_of_all_at_once(self, kind, with_oracle, bpe_tokenizer, tmp_path):
        how = {"oracle": model(2, 3.0) if with_oracle else None, "progress": False}
        sets = rows(40, 0), rows(50, 1)
        if kind == "texts":
            sets = texts(40, 0), texts(50, 1)
            how["tokenizer"] = bpe_tokenizer
        if kind == "short ones":  # all of one shard among them
            sets = [row[:9] if 16 <= i < 35 else row for i, row in enumerate(sets[0])], sets[1]
        if kind == "no control":
            sets = sets[:1]
        if kind == "to a suffix":
            how |= {"prefix_tokens": [4, 6], "suffix_tokens": 3, "temperature": 0.7, "top_k": 40}
        at_once = extract(model(1, 3.0), *sets, **how)
        stored = extract(model(1, 3.0), *sets, store=tmp_path / "out", **how)
        same_extraction(at_once, stored)
        same_extraction(stored, load(tmp_path / "out"))
        assert not (tmp_path / "out" / UNFINISHED).exists()

    def test_after_a_stop_it_goes_on(self, tmp_path, stop_after):
        sets, how = (rows(40, 0), rows(40, 1)), {"progress": False, "oracle": model(2)}
        stop_after(5)
        with pytest.raises(Stopped):
            extract(model(1), *sets, store=tmp_path / "out", **how)
        measured = stop_after(None)
        found = extract(model(1), *sets, store=tmp_path / "out", **how)
        assert len(measured) == 12 - 5
        same_extraction(extract(model(1), *sets, **how), found)

    def test_an_oracle_with_other_tokens_is_refused(self, bpe_tokenizer, tmp_path):
        letters = (lambda text: list(text.encode()), lambda ids: bytes(ids).decode())
        how = {"tokenizer": bpe_tokenizer, "oracle_tokenizer": letters, "progress": False, "prefix_tokens": [2]}
        for store in (None, tmp_path / "out"):
            with pytest.raises(InputError, match="into other tokens than the target"):
                extract(model(1), texts(40, 0), oracle=model(2), store=store, **how)

    def test_nothing_but_short_samples_is_refused_as_at_once(self, tmp_path):
        for store in (None, tmp_path / "out"):
            with pytest.raises(InputError, match="samples of at least 16 tokens"):
                extract(model(1), rows(40, 0, 9), store=store, progress=False)


class TestCommands:
    @pytest.fixture
    def call(self, model_folder, tmp_path):
        files = [write(tmp_path / f"{k}.jsonl", texts(40, k)) for k in (0, 1)]

        def run(command, *more):
            common = ["--target", model_folder, "--data", files[0], "--control", files[1], "--quiet"]
            with pytest.raises(SystemExit) as ended:
                cli.main([command, *map(str, [*common, "--output", tmp_path / "out", *more])])
            return ended.value.code or 0

        return run

    @pytest.mark.parametrize("command", ["attack", "extract", "audit"])
    def test_interrupted_they_say_what_is_kept_and_go_on(
        self, command, call, model_folder, tmp_path, stop_after, capsys
    ):
        more = ["--oracle", model_folder] if command == "audit" else []
        stop_after(2, KeyboardInterrupt)
        assert call(command, *more) == 130
        assert "shards that are finished are kept" in capsys.readouterr().err
        measured = stop_after(None)
        assert call(command, *more) == 0
        assert len(measured) == (12 if command == "audit" else 6) - 2
        assert call(command, *more) == 2  # there is a result now
        if command == "audit":
            assert load(tmp_path / "out").settings["command"].startswith("memorization audit")
            assert (tmp_path / "out" / "report.html").is_file()

    @pytest.mark.parametrize("command", ["attack", "extract", "audit"])
    def test_shards_share_the_work(self, command, call, model_folder, tmp_path, capsys):
        more = ["--oracle", model_folder] if command == "audit" else []
        assert call(command, "--shard", "1/2", *more) == 0
        assert "shard 1/2 has measured its share" in capsys.readouterr().out
        assert call(command, "--shard", "2/2", *more) == 0
        assert (tmp_path / "out" / "settings.json").is_file()


def test_warnings_are_errors_where_they_are_asked_to_be(tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("error", MeasurementWarning)
        with pytest.raises(MeasurementWarning):
            audit(model(1), model(1), rows(40, 0), rows(40, 1), store=tmp_path / "out", progress=False)
