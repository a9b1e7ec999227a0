"""memU of code lengths whose tokens stay in files: the same to the last figure, and never read as a whole."""

import json
import warnings

import numpy as np
import pandas as pd
import pytest
import torch

import memorization.measure.result as stored
from memorization import Memorization, UniformModel, load, unintended_memorization
from memorization.errors import MeasurementWarning
from memorization.measure.result import StoredLengths
from memorization.results.column_files import ColumnFiles
from memorization.samples import read_samples, shards

V, N, N_CONTROL, MOST = 16, 60, 24, 80  # MOST: tokens of the samples that are read at once


def table_model(seed):
    logits = torch.from_numpy(np.random.default_rng(seed).normal(size=(V, V)).astype(np.float32))
    logits += 1.5 * torch.eye(V).roll(1, 1)
    return lambda ids: logits[ids]


def drawn(n, seed):
    rng = np.random.default_rng(seed)
    samples = [rng.integers(0, V, rng.integers(2, 16)).tolist() for _ in range(n)]
    return samples[:-5] + samples[:5]  # of which some come again


def rows_of(samples):
    return [
        {"input_ids": ids, "name": f"row {k}", "source": "ab"[k % 2], "year": None if k % 7 else k, "book": f"{k // 3}"}
        for k, ids in enumerate(samples)
    ]


def measured(samples=None, *, groups=None, n_oracles=2, **options):
    """Of few samples, in memory, or as `options` say."""
    rows = rows_of(drawn(N, 0)) if samples is None else samples
    control = [{**row, "book": f"unseen {row['book']}"} for row in rows_of(drawn(N_CONTROL, 1))]
    if not isinstance(rows, (str, shards.SampleShards)):
        how = {"text_column": "input_ids", "id_column": "name", "keep": ["source", "year"], "groups": groups}
        rows, control = read_samples(rows, **how), read_samples(control, **how)
    oracles = [table_model(1), table_model(2), UniformModel(V)][:n_oracles]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", MeasurementWarning)
        return unintended_memorization(table_model(0), oracles, rows, control=control, progress=False, **options)


pytestmark = pytest.mark.usefixtures("no_type_checker")


@pytest.fixture
def small_parts(monkeypatch):
    """Tokens are left in files however few there are, and read so many at a time."""
    monkeypatch.setattr(stored, "MOST_TOKENS", 0)
    monkeypatch.setattr(stored, "_TOKENS_A_PIECE", MOST)
    monkeypatch.setattr(stored, "_ROWS", 7)
    read = ColumnFiles.read

    def checked(self, names, start=0, stop=None):
        path = self._groups[0][0]
        n = (len(self) if stop is None else stop) - start
        if path.name.endswith("tokens.parquet") and "control" not in str(path):
            assert n <= MOST, f"{n} tokens are read at once"
        return read(self, names, start, stop)

    monkeypatch.setattr(ColumnFiles, "read", checked)


def assert_same(one: Memorization, other: Memorization) -> None:
    """All that they say, to the last figure."""
    assert isinstance(one.target, StoredLengths)
    assert not isinstance(other.target, StoredLengths)
    assert repr(one) == repr(other)
    assert json.dumps(one.summary()) == json.dumps(other.summary())
    assert repr(one.ladder) == repr(other.ladder)
    pd.testing.assert_frame_equal(one.ladder.to_pandas(), other.ladder.to_pandas(), rtol=1e-12)
    for ours, theirs in zip(one.ladder.rungs, other.ladder.rungs, strict=True):
        assert (ours.bits is None) == (theirs.bits is None)
        if ours.bits is not None:
            np.testing.assert_allclose(ours.bits, theirs.bits, rtol=1e-12)
    pd.testing.assert_frame_equal(one.to_pandas(), other.to_pandas())
    for repeats in (False, True):
        pd.testing.assert_frame_equal(
            one.top(9, repeats=repeats), other.top(9, repeats=repeats), check_dtype=False, check_index_type=False
        )
    pd.testing.assert_frame_equal(one.by("source"), other.by("source"))
    np.testing.assert_array_equal(one.memorized(0.9), other.memorized(0.9))
    np.testing.assert_array_equal(one.equal, other.equal)
    np.testing.assert_array_equal(one.first_of_each, other.first_of_each)
    assert list(map(str, one)) == list(map(str, other))
    assert [str(one[k]) for k in (-3, 11)] == [str(other[k]) for k in (-3, 11)]
    assert repr(one[::3]) == repr(other[::3])
    assert one._repr_html_() == other._repr_html_()


@pytest.mark.parametrize(
    ("groups", "options"),
    [
        (None, {}),
        ("book", {}),
        (None, {"joint": "switch"}),
        (None, {"joint": "mixture", "n_oracles": 3}),
        (None, {"combine": "mixture"}),
    ],
)
def test_what_stays_in_files_says_the_same(tmp_path, request, groups, options):
    whole = measured(groups=groups, **options)
    whole.save(tmp_path / "whole")
    request.getfixturevalue("small_parts")
    found = load(tmp_path / "whole")
    assert_same(found, whole)
    found.save(tmp_path / "again", csv=True)
    again = load(tmp_path / "again")
    assert repr(again) == repr(whole)
    assert (tmp_path / "again" / "memorization.csv").read_text() == whole.to_pandas().to_csv(index=False)
    for name in ("memorization", "target/tokens", "target/samples"):
        ours, theirs = (pd.read_parquet(tmp_path / folder / f"{name}.parquet") for folder in ("again", "whole"))
        pd.testing.assert_frame_equal(ours, theirs)


@pytest.mark.parametrize("options", [{}, {"combine": "switch"}])
def test_shard_by_shard_says_the_same(tmp_path, small_parts, monkeypatch, options):
    samples = tmp_path / "samples.jsonl"
    samples.write_text("".join(json.dumps(row) + "\n" for row in rows_of(drawn(N, 0))))
    control = tmp_path / "control.jsonl"
    control.write_text("".join(json.dumps(row) + "\n" for row in rows_of(drawn(N_CONTROL, 1))))
    how = {"text_column": "input_ids", "control": str(control), "progress": False, "first_token": 0, **options}
    models = table_model(0), [table_model(1), table_model(2)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", MeasurementWarning)
        whole = unintended_memorization(*models, str(samples), **how)
        monkeypatch.setattr(shards, "SAMPLES_A_SHARD", 13)
        found = unintended_memorization(*models, str(samples), store=tmp_path / "store", **how)
    assert isinstance(found.target, StoredLengths)
    assert json.dumps(found.summary()) == json.dumps(whole.summary())
    pd.testing.assert_frame_equal(found.to_pandas(), whole.to_pandas())
    pd.testing.assert_frame_equal(found.ladder.to_pandas(), whole.ladder.to_pandas(), rtol=1e-12)


def test_one_sample_is_drawn_without_the_others(tmp_path, request):
    whole = measured()
    whole.save(tmp_path / "whole")
    request.getfixturevalue("small_parts")
    found = load(tmp_path / "whole")
    drawings = [one.plot_tokens(7) for one in (found, whole)]
    for ours, theirs in zip(*(ax.lines for ax in drawings), strict=True):
        np.testing.assert_array_equal(ours.get_ydata(), theirs.get_ydata())
    assert drawings[0].get_xlabel() == drawings[1].get_xlabel()
