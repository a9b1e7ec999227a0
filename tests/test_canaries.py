"""Canaries: closed forms, models that know a training set by heart, a real training, negative controls, resuming, errors."""

import dataclasses
import itertools
import json
import math
import shutil
from collections import Counter
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from saved_folders import as_saved_by_0_1_0
from scipy import stats

from memorization import UniformModel
from memorization.errors import InputError, MeasurementWarning, ModelError, ResultError
from memorization.lab import cells as lab_cells
from memorization.lab.architectures import Architecture
from memorization.lab.builders import build_seeded, stream
from memorization.lab.canaries import (
    DoseResponse,
    canary_dose_response,
    dose_response,
    insert_canaries,
    make_canaries,
)
from memorization.lab.canaries.checks import different_counts
from memorization.lab.canaries.result import assemble, warn_of_faults
from memorization.lab.random_tokens import random_tokens
from memorization.lab.stack import train_stack

VOCAB, SEQ_LEN = 64, 16
INFORMATION = 96.0
BUILD = Architecture("gpt2", width=32)
COUNTS = (1, 4, 16, 64)
OPTIONS = {
    "vocab_size": VOCAB,
    "repetitions": COUNTS,
    "n_canaries": 8,
    "epochs": 2,
    "batch_size": 16,
    "peak_lr": 0.02,
    "progress": False,
}
TIMES = np.repeat([0, *COUNTS], 8)


@pytest.fixture(scope="module")
def background() -> torch.Tensor:
    return random_tokens(400, SEQ_LEN, VOCAB, seed=5)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return tmp_path_factory.mktemp("canaries")


@pytest.fixture(scope="module")
def trained(background, place) -> DoseResponse:
    return canary_dose_response(BUILD, background, store=place, **OPTIONS)


class ByHeart:
    """The empirical distribution of a training set: after each beginning of a row, what follows it there, and how often."""

    def __init__(self, rows: torch.Tensor, vocab_size: int) -> None:
        self._rows, self._vocab_size = rows, vocab_size

    def __call__(self, ids: torch.Tensor) -> torch.Tensor:
        """Reads a context token and then a sample."""
        counts = torch.full((*ids.shape, self._vocab_size), 1e-7)
        for i, t in itertools.product(*map(range, ids.shape)):
            begins_alike = (self._rows[:, :t] == ids[i, 1 : t + 1]).all(1)
            counts[i, t] += torch.bincount(self._rows[begins_alike, t], minlength=self._vocab_size)
        return counts.log()


class Lookup:
    """Knows rows by their beginnings: gives each right next token a probability, the others share the rest alike."""

    def __init__(self, rows: torch.Tensor, probability: torch.Tensor) -> None:
        self._rows, self._probability = rows, probability

    def __call__(self, ids: torch.Tensor) -> torch.Tensor:
        """Reads a context token and then a sample; of the first token it knows nothing."""
        found = torch.full((*ids.shape, VOCAB), 1 / VOCAB)
        for i, t in itertools.product(range(len(ids)), range(1, ids.shape[1])):
            for k in (self._rows[:, :t] == ids[i, 1 : t + 1]).all(1).nonzero().flatten():
                right = self._probability[k, t]
                found[i, t] = (1 - right) / (VOCAB - 1)
                found[i, t, self._rows[k, t]] = right
        return found.log()


def table(**columns) -> pd.DataFrame:
    """A canaries' table of these columns; the others are what they would be."""
    n = len(columns["repetitions"])
    bits = np.asarray(columns.get("signed_bits", np.zeros(n)), dtype=float)
    whole = {"run": np.zeros(n, dtype=int), "canary": np.arange(n), "bits": bits.clip(min=0)}
    whole |= {"signed_bits": bits, "ideal_signed_bits": bits, "second_half_bits": np.full(n, 9.0)}
    return pd.DataFrame(whole | columns)


SETTINGS = {
    "seq_len": 4,
    "vocab_size": 4,
    "information_bits": 8.0,
    "n_training_samples": 64,
    "training": None,
    "first_token": {"asked": 0, "rule": "token", "id": 0, "token": None},
    "model": "m",
    "n_canaries": 4,
}


# --- Closed forms


def test_a_training_set_known_by_heart_shows_all_but_which_sample_it_is(background):
    """p of a canary is its share of the training set, so memU is n log2 V - log2(rows / repetitions) exactly."""
    canaries = make_canaries(12, SEQ_LEN, VOCAB, seed=3)
    times = np.repeat([0, 1, 3, 8], 3)
    rows = insert_canaries(background[:100], canaries, times)
    known = dose_response(ByHeart(rows, VOCAB), canaries, times, vocab_size=VOCAB, first_token=0, progress=False)
    known = assemble(known.canaries, {**known.settings, "n_training_samples": len(rows)})
    seen = known.to_pandas().set_index("repetitions").loc[1:]
    assert len(rows) == 136
    for repetitions, row in seen.iterrows():
        assert row.mean_bits == pytest.approx(96 - math.log2(136 / repetitions), abs=0.1)
        assert row.by_heart_bits == pytest.approx(96 - math.log2(136 / repetitions))
        assert row.information_share == row.mean_bits / 96
        assert row.likely_share == row.greedy_share == 1
    control = known.canaries[known.canaries["repetitions"] == 0]
    assert (control["bits"] == 0).all()
    assert (control["second_half_bits"] > 40).all()
    assert known.to_pandas()[["likely_share", "greedy_share"]].loc[0].tolist() == [0, 0]
    assert known.to_pandas()["by_heart_bits"].isna().tolist() == [True, False, False, False]
    assert known.trend_p_value < 0.001
    assert known.max_excess_bits == pytest.approx(-math.log2(136 / 8), abs=0.1)


@pytest.mark.parametrize("first_token", ["skip", "uniform"])
def test_a_perfect_memorizer_that_is_told_which_canary_reaches_the_ceiling(first_token):
    """The first token, told or priced alike for both models, says which; 15 tokens of 6 bits remain."""
    canaries = make_canaries(6, SEQ_LEN, VOCAB, seed=1)
    canaries[:, 0] = torch.arange(6)
    told = ByHeart(torch.nn.functional.pad(canaries, (1, 0)), VOCAB)  # it reads no context token: shift its rows

    def model(ids: torch.Tensor) -> torch.Tensor:
        return told(torch.nn.functional.pad(ids, (2, 0)))[:, 2:]

    times = [5, 5, 5, 9, 9, 9]
    known = dose_response(model, canaries, times, vocab_size=VOCAB, first_token=first_token, progress=False)
    assert known.information_bits == 90
    np.testing.assert_allclose(known.canaries["bits"], 90, atol=0.1)
    assert known.max_excess_bits < 0.1
    assert known.to_pandas()["likely_share"].tolist() == [1, 1]
    assert known.to_pandas()["greedy_share"].tolist() == [1, 1]


@pytest.mark.parametrize("vocab_size", [64, 1000])
def test_a_model_that_knows_nothing_shows_nothing_exactly(vocab_size):
    canaries = make_canaries(6, SEQ_LEN, vocab_size)
    times = [0, 0, 1, 1, 2, 2]
    nothing = dose_response(UniformModel(vocab_size), canaries, times, vocab_size=vocab_size, first_token=0)
    assert nothing.information_bits == SEQ_LEN * math.log2(vocab_size)
    for column in ("bits", "signed_bits", "ideal_signed_bits"):
        assert (nothing.canaries[column] == 0).all()
    assert nothing.max_excess_bits == -nothing.information_bits
    assert math.isnan(nothing.trend)
    assert nothing.trend_p_value == 1
    assert "all canaries cost the same" in repr(nothing)


def test_over_all_strings_the_gain_has_mean_one_and_never_exceeds_exposure():
    """Kraft's equality, from which the 2^-k of the control follows; and rank x probability <= 1 (Carlini et al.)."""
    every = torch.tensor(list(itertools.product(range(4), repeat=4)))
    model = build_seeded(Architecture("gpt2", width=8), 4, 4, seed=0)
    train_stack([model], [every[::7]], context=0, steps=100, batch_size=16, peak_lrs=[0.03], seeds=[0])
    times = np.where(np.arange(256) % 7 == 0, 1, 2)
    found = dose_response(model, every, times, vocab_size=4, first_token=0, progress=False)
    signed = found.canaries["ideal_signed_bits"].to_numpy()
    assert found.information_bits == 8
    assert np.mean(2.0**signed) == pytest.approx(1, abs=1e-5)
    rank = (signed[None] >= signed[:, None]).sum(1)
    exposure = 8 - np.log2(rank)
    assert (signed <= exposure + 1e-9).all()
    assert signed.max() > 1  # it has learned something to speak of


def test_each_row_of_the_table():
    canaries = table(
        repetitions=[0, 0, 4, 4], signed_bits=[-6.0, 1.0, 5.0, 7.0], second_half_bits=[6.0, 1.01, 1.0, 0.2]
    )
    found = assemble(canaries, SETTINGS).to_pandas()
    assert found["repetitions"].tolist() == [0, 4]
    assert found["n_canaries"].tolist() == [2, 2]
    assert found["mean_bits"].tolist() == [0.5, 6]
    assert found["mean_signed_bits"].tolist() == [-2.5, 6]
    assert found["information_share"].tolist() == [0.0625, 0.75]
    assert found["likely_share"].tolist() == [0, 1]
    assert found["median_tries"].tolist() == pytest.approx([2**3.505, 2**0.6])
    assert found["greedy_share"].isna().all()  # of a table without it
    assert found["by_heart_bits"][1] == 8 - math.log2(64 / 4)
    assert (found["low"] <= found["mean_bits"]).all()
    assert (found["high"] >= found["mean_bits"]).all()
    assert found[["low", "high"]].loc[1].tolist() == pytest.approx([6 - 12.70620, 6 + 12.70620])  # Student's, 1 df


# --- Greedy decoding and probability


def test_greedy_decoding_writes_out_what_is_less_likely_than_not():
    """Of p = 0.4 a token the rest has p = 0.4^8, and each token is the likeliest: greedy decoding writes it all out.

    One token of p = 0.01, below the 0.0157 of any other, stops it: from there on a longer prefix is needed.
    """
    canaries = make_canaries(8, SEQ_LEN, VOCAB, seed=2)
    canaries[:, 0] = 1 + torch.arange(8)  # the first token tells which comes
    probability = torch.full((8, SEQ_LEN), 0.4)
    probability[2:4, 12] = 0.01
    probability[4:6] = 0.95
    times = [4, 4, 5, 5, 6, 6, 0, 0]
    model = Lookup(canaries[:6], probability)
    found = dose_response(model, canaries, times, vocab_size=VOCAB, first_token=0, progress=False)
    seen = found.canaries.groupby("repetitions")
    for repetitions, bits in ((4, -8 * math.log2(0.4)), (5, -7 * math.log2(0.4) - math.log2(0.01))):
        np.testing.assert_allclose(seen.get_group(repetitions)["second_half_bits"], bits, rtol=1e-4)
    np.testing.assert_allclose(found.canaries["second_half_probability"][:2], 0.4**8, rtol=1e-4)
    assert found.canaries["prefix_needed"][:6].tolist() == [1, 1, 13, 13, 1, 1]
    assert (found.canaries["prefix_needed"][6:] > 8).all()  # the control, of which it knows nothing
    shares = found.to_pandas().set_index("repetitions")
    assert shares["greedy_share"].to_dict() == {0: 0, 4: 1, 5: 0, 6: 1}
    assert shares["likely_share"].to_dict() == {0: 0, 4: 0, 5: 0, 6: 1}
    assert shares["recited_share"].equals(shares["likely_share"])
    assert shares["median_tries"][4] == pytest.approx(0.4**-8, rel=1e-4)
    assert shares["median_tries"][6] == pytest.approx(0.95**-8, rel=1e-4)
    assert shares["median_tries"][0] == pytest.approx(64.0**8)


def test_the_second_half_of_an_odd_number_of_tokens_is_the_shorter_one():
    """Seven tokens: the last three, after the first four."""
    canaries = make_canaries(4, 7, VOCAB, seed=0)
    canaries[:, 0] = 1 + torch.arange(4)  # 0 is what a model that knows nothing would take
    probability = torch.full((4, 7), 0.9)
    probability[0, 3] = probability[1, 4] = 0.01
    model = Lookup(canaries, probability)
    found = dose_response(model, canaries, [1, 1, 2, 2], vocab_size=VOCAB, first_token=0, progress=False).canaries
    assert found["prefix_needed"].tolist() == [4, 5, 1, 1]
    assert found["greedy"].tolist() == [1, 0, 1, 1]
    assert found["second_half_bits"][0] == pytest.approx(-3 * math.log2(0.9), rel=1e-4)


def test_what_is_likelier_than_not_is_always_written_out(trained):
    likely = trained.canaries[trained.canaries["second_half_probability"] > 0.5]
    assert len(likely) > 8
    assert (likely["greedy"] == 1).all()
    assert (trained.canaries.query("repetitions == 0")["greedy"] == 0).all()


def test_a_probability_below_any_float_is_no_warning():
    found = assemble(table(repetitions=[0, 0, 4, 4], second_half_bits=[1100.0, 1100.0, 3.0, 5.0]), SETTINGS)
    assert found.to_pandas()["median_tries"].tolist() == [math.inf, 16]


def test_what_an_earlier_version_saved_does_not_know_about_greedy_decoding(tmp_path):
    old = DoseResponse.load(Path(__file__).parent / "fixtures" / "results_0_1_0" / "DoseResponse")
    assert old.canaries[["prefix_needed", "greedy"]].isna().all().all()
    assert old.to_pandas()["greedy_share"].isna().all()
    assert old.to_pandas()["likely_share"].notna().all()
    assert "  greedy       unknown: an earlier version measured, which did not look; measure again" in repr(old)
    plt.close(old.plot().figure)
    old.save(tmp_path / "again")
    assert repr(DoseResponse.load(tmp_path / "again")) == repr(old)


def test_seeds_that_an_earlier_version_finished_are_kept_and_unknown(trained, background, place, tmp_path):
    shutil.copytree(place, tmp_path / "store")
    first = next(
        path
        for path in (tmp_path / "store" / "cells").iterdir()
        if json.loads(path.read_text("utf-8"))["cell"]["seed"] == 0
    )
    content = json.loads(first.read_text("utf-8"))
    del content["result"]["columns"]["prefix_needed"]
    first.write_text(json.dumps(content), "utf-8")
    mixed = canary_dose_response(BUILD, background, store=tmp_path / "store", **OPTIONS)
    unknown = mixed.canaries["greedy"].isna()
    assert (unknown == (mixed.canaries["run"] == 0)).all()
    assert mixed.canaries["signed_bits"].equals(trained.canaries["signed_bits"])
    assert mixed.to_pandas()["greedy_share"].isna().all()
    assert "greedy       unknown" in repr(mixed)
    assert "greedy       unknown" not in repr(trained)


# --- The trend


def test_the_trend_is_spearmans():
    draws = np.random.default_rng(0)
    times = np.repeat([0, 1, 2, 5], 6)
    bits = draws.normal(size=24) + times.clip(max=1)
    found = assemble(table(repetitions=times, signed_bits=bits), SETTINGS)
    expected = stats.spearmanr(times, bits, alternative="greater")
    assert found.trend == pytest.approx(expected.statistic)
    assert found.trend_p_value == pytest.approx(expected.pvalue, rel=0.5, abs=0.003)
    falling = assemble(table(repetitions=times, signed_bits=-bits), SETTINGS)
    assert falling.trend == pytest.approx(-expected.statistic)
    assert falling.trend_p_value > 0.9


def test_p_values_are_exact_for_few_canaries():
    """Of 6 ways to give two of four canaries more repetitions, one has as large a correlation."""
    found = assemble(table(repetitions=[0, 0, 3, 3], signed_bits=[1.0, 2.0, 3.0, 4.0]), SETTINGS)
    assert found.trend_p_value == pytest.approx(1 / 6, abs=0.02)


def test_p_values_are_uniform_where_nothing_rises():
    draws = np.random.default_rng(1)
    times = np.repeat([0, 1, 8], 4)
    p = [
        assemble(table(repetitions=times, signed_bits=draws.normal(size=12)), SETTINGS).trend_p_value
        for _ in range(200)
    ]
    assert stats.kstest(p, "uniform").pvalue > 0.01


def test_a_difference_between_two_models_is_no_trend():
    """All canaries of the second model cost less, and it has the higher counts: nothing rises within either."""
    bits = np.tile([1.0, 2.0, 1.0, 2.0], 2) + np.repeat([0.0, 50.0], 4)
    canaries = table(repetitions=[0, 0, 1, 1, 10, 10, 20, 20], signed_bits=bits, run=np.repeat([0, 1], 4))
    apart = assemble(canaries, SETTINGS)
    assert apart.trend > 0.7
    assert apart.trend_p_value > 0.5
    pooled = assemble(canaries.assign(run=0), SETTINGS)
    assert pooled.trend_p_value < 0.05


# --- A real training


@pytest.mark.kernels
def test_memory_rises_with_repetitions_up_to_the_ceiling(trained):
    found = trained.to_pandas()
    assert found["repetitions"].tolist() == [0, *COUNTS]
    assert (found["n_canaries"] == 16).all()
    assert trained.information_bits == INFORMATION
    spread = trained.canaries.groupby("repetitions")["signed_bits"].sem().to_numpy()
    steps = np.diff(found["mean_signed_bits"])
    assert (steps > -2 * np.hypot(spread[1:], spread[:-1])).all()
    assert found["mean_bits"].iloc[0] < 1.44
    assert found["mean_signed_bits"].iloc[0] < 0
    top = found.iloc[-1]
    assert top.by_heart_bits == pytest.approx(96 - math.log2((400 + 8 * 85) / 64))
    assert top.by_heart_bits - 3 < top.mean_bits < top.by_heart_bits + 1
    assert top.likely_share > 0.8
    assert top.greedy_share >= top.likely_share
    assert trained.trend > 0.8
    assert trained.trend_p_value == 1e-4
    assert trained.max_excess_bits <= 1
    assert (trained.canaries["bits"] == trained.canaries["signed_bits"].clip(lower=0)).all()


def test_every_figure_is_that_of_a_model_trained_and_scored_anew(trained, background):
    """With torch's own log-softmax, in float64, one canary at a time."""
    seed = 1
    canaries = make_canaries(40, SEQ_LEN, VOCAB, seed=seed)
    rows = torch.cat(
        [background, *(canary[None].repeat(times, 1) for canary, times in zip(canaries, TIMES, strict=True))]
    )
    model = build_seeded(BUILD, VOCAB, SEQ_LEN, seed)
    steps = math.ceil(2 * len(rows) / 16)
    order = stream("order", seed)
    train_stack([model], [rows], context=0, steps=steps, batch_size=16, peak_lrs=[0.02], seeds=[order])
    mine = trained.canaries[trained.canaries["run"] == 1]
    assert mine["repetitions"].tolist() == TIMES.tolist()
    for canary, row in zip(canaries, mine.itertuples(), strict=True):
        with torch.no_grad():
            logits = model(torch.cat([torch.zeros(1, dtype=torch.int64), canary[:-1]])[None])[0].double()
        bits = -logits.log_softmax(-1)[range(SEQ_LEN), canary] / math.log(2)
        # Two trainings, one of them stacked, agree up to the rounding of float32 that 135 steps have carried on.
        assert row.ideal_signed_bits == pytest.approx(96 - float(bits.sum()), abs=0.5)
        assert row.second_half_bits == pytest.approx(float(bits[8:].sum()), abs=0.5)
        assert row.signed_bits == pytest.approx(row.ideal_signed_bits, abs=0.2)
        assert row.p_value == pytest.approx(2.0 ** -max(0.0, row.ideal_signed_bits))
    chosen = trained.canaries["q_value"] <= 0.05
    assert chosen[trained.canaries["repetitions"] >= 50].all()
    assert not chosen[trained.canaries["repetitions"] == 0].any()


def test_your_own_training_gives_the_same(trained, background):
    canaries = make_canaries(40, SEQ_LEN, VOCAB, seed=0)
    model = build_seeded(BUILD, VOCAB, SEQ_LEN, 0)
    rows = insert_canaries(background, canaries, TIMES)
    order = stream("order", 0)
    train_stack([model], [rows], context=0, steps=135, batch_size=16, peak_lrs=[0.02], seeds=[order])
    own = dose_response(model, canaries, TIMES, vocab_size=VOCAB, first_token=0, progress=False)
    mine = trained.canaries[trained.canaries["run"] == 0]
    np.testing.assert_allclose(own.canaries["signed_bits"], mine["signed_bits"], atol=0.5)
    assert own.settings["n_training_samples"] is None
    assert own.to_pandas()["by_heart_bits"].isna().all()
    assert own.settings["training"] is None
    assert own.to_pandas()["greedy_share"].iloc[[0, -1]].tolist() == [0, 1]
    written = canaries[:, :8]  # greedy decoding itself, token by token
    with torch.no_grad():
        for _ in range(8):
            read = torch.nn.functional.pad(written, (1, 0))
            written = torch.cat([written, model(read)[:, -1].argmax(-1, keepdim=True)], dim=1)
    assert (written == canaries).all(1).tolist() == (own.canaries["greedy"] == 1).tolist()


@pytest.mark.kernels
def test_a_model_that_was_not_trained_on_them_shows_no_trend(background):
    model = build_seeded(BUILD, VOCAB, SEQ_LEN, 0)
    train_stack([model], [background], context=0, steps=200, batch_size=16, peak_lrs=[0.02], seeds=[0])
    canaries = make_canaries(40, SEQ_LEN, VOCAB, seed=0)
    unseen = dose_response(model, canaries, TIMES, vocab_size=VOCAB, first_token=0, progress=False)
    assert unseen.trend_p_value > 0.01
    assert unseen.canaries["bits"].mean() < 1.44  # in expectation, whatever the model
    # At most 0 in expectation (Kraft, and Jensen), so a mean of n lies above 4 of its standard errors in less than one
    # case of 10,000.
    scatter = unseen.canaries["signed_bits"].std()
    assert unseen.canaries["signed_bits"].mean() < 4 * scatter / len(TIMES) ** 0.5
    assert (unseen.to_pandas()["mean_signed_bits"] < 4 * scatter / 8**0.5).all()
    assert (unseen.to_pandas()[["greedy_share", "likely_share"]] == 0).all().all()


def test_seeds_have_canaries_and_weights_of_their_own(trained):
    first, second = (trained.canaries[trained.canaries["run"] == run]["signed_bits"].to_numpy() for run in (0, 1))
    assert not np.isclose(first, second).any()


def test_the_global_generator_stays_where_it_was(background):
    before = torch.random.get_rng_state()
    canary_dose_response(BUILD, background[:20], **{**OPTIONS, "repetitions": [1], "seeds": [0], "epochs": 0.1})
    assert torch.equal(torch.random.get_rng_state(), before)


# --- Finished seeds are kept


def test_a_finished_seed_is_not_trained_again(trained, background, place, monkeypatch):
    def no_training(*args, **kwargs):
        raise AssertionError("trained again")

    monkeypatch.setattr(lab_cells, "train_stack", no_training)
    again = canary_dose_response(BUILD, background, store=place, **OPTIONS)
    pd.testing.assert_frame_equal(again.canaries, trained.canaries, check_exact=True)
    assert again.settings == trained.settings
    assert repr(again) == repr(trained)
    for other in ({"peak_lr": 0.01}, {"epochs": 1}, {"batch_size": 8}, {"seeds": [2]}):
        with pytest.raises(AssertionError, match="trained again"):
            canary_dose_response(BUILD, background, store=place, **{**OPTIONS, **other})
    with pytest.raises(AssertionError, match="trained again"):
        canary_dose_response(Architecture("gpt2", width=16), background, store=place, **OPTIONS)


def test_a_killed_run_goes_on_and_trains_only_what_is_missing(trained, background, tmp_path, monkeypatch):
    stacks = []

    def counted_training(models, *args, **kwargs):
        stacks.append(len(models))
        return train_stack(models, *args, **kwargs)

    monkeypatch.setattr(lab_cells, "train_stack", counted_training)
    canary_dose_response(BUILD, background, store=tmp_path, seeds=[1], **OPTIONS)
    whole = canary_dose_response(BUILD, background, store=tmp_path, **OPTIONS)
    assert stacks == [1, 1]
    np.testing.assert_allclose(whole.canaries["signed_bits"], trained.canaries["signed_bits"], atol=0.5)


def test_a_store_of_another_experiment_is_refused(trained, background, place):
    with pytest.raises(ResultError, match="background_sha256 is"):
        canary_dose_response(BUILD, background[1:], store=place, **OPTIONS)
    with pytest.raises(ResultError, match="n_canaries is 8 there and 4 here"):
        canary_dose_response(BUILD, background, store=place, **{**OPTIONS, "n_canaries": 4})


def test_a_diverged_training_says_so_and_the_other_seeds_are_kept(background, tmp_path, monkeypatch):
    def diverges_first(models, *args, **kwargs):
        done = train_stack(models, *args, **kwargs)
        return dataclasses.replace(done, diverged_at=torch.tensor([3, -1])) if len(models) == 2 else done

    options = {**OPTIONS, "epochs": 0.1, "store": tmp_path}
    with monkeypatch.context() as patch:
        patch.setattr(lab_cells, "train_stack", diverges_first)
        with pytest.raises(
            ModelError, match=r"seed 0 diverged at step 3 of 7 with peak_lr=0\.02; give a lower peak_lr, such as 0\.005"
        ):
            canary_dose_response(BUILD, background, **options)
    with monkeypatch.context() as patch:
        patch.setattr(lab_cells, "train_stack", lambda *_, **__: pytest.fail("seed 1 was finished"))
        canary_dose_response(BUILD, background, seeds=[1], **options)


def test_a_rate_that_diverges(background):
    with pytest.raises(ModelError, match=r"diverged at step \d+ of 135 with peak_lr=1e\+30"):
        canary_dose_response(BUILD, background, **{**OPTIONS, "peak_lr": 1e30, "seeds": [0]})


# --- Making and inserting


@given(
    st.integers(1, 4).flatmap(
        lambda n: st.tuples(
            st.lists(st.lists(st.integers(0, 3), min_size=2, max_size=2), min_size=1, max_size=6),
            st.lists(st.lists(st.integers(0, 3), min_size=2, max_size=2), min_size=n, max_size=n),
            st.lists(st.integers(0, 5), min_size=n, max_size=n),
        )
    )
)
def test_inserted_rows_are_the_background_and_each_canary_as_often_as_asked(case):
    background, canaries, times = case
    rows = insert_canaries(torch.tensor(background), np.array(canaries), times)
    expected = Counter(map(tuple, background))
    for canary, repetitions in zip(canaries, times, strict=True):
        expected[tuple(canary)] += repetitions
    assert Counter(map(tuple, rows.tolist())) == +expected
    assert rows[: len(background)].tolist() == background
    assert rows.dtype == torch.int64


def test_canaries_are_uniform_nested_and_not_the_data_of_the_same_seed():
    canaries = make_canaries(500, SEQ_LEN, VOCAB, seed=4)
    assert canaries.shape == (500, SEQ_LEN)
    assert stats.chisquare(torch.bincount(canaries.flatten(), minlength=VOCAB).numpy()).pvalue > 0.001
    assert torch.equal(make_canaries(7, SEQ_LEN, VOCAB, seed=4), canaries[:7])
    assert not torch.equal(make_canaries(7, SEQ_LEN, VOCAB, seed=5), canaries[:7])
    assert not torch.equal(random_tokens(7, SEQ_LEN, VOCAB, seed=4), canaries[:7])


# --- When not to believe it


@pytest.mark.kernels
def test_a_control_that_was_trained_on_is_found_out(background):
    canaries = make_canaries(8, SEQ_LEN, VOCAB, seed=3)
    leaky = ByHeart(insert_canaries(background[:50], canaries, [0, 0, 1, 0, 1, 1, 1, 1]), VOCAB)
    with pytest.warns(
        MeasurementWarning, match=r"control canary 2 is coded 90\.\d bits below uniform.*unseen canaries"
    ):
        dose_response(leaky, canaries, [0] * 4 + [1] * 4, vocab_size=VOCAB, first_token=0, progress=False)


def test_canaries_of_fewer_tokens_than_said_are_found_out():
    """Drawn from 16 of 64 ids, which any model that has seen some of them learns."""
    canaries = make_canaries(8, SEQ_LEN, 16, seed=3)

    def knows_the_16(ids: torch.Tensor) -> torch.Tensor:
        return torch.where(torch.arange(64) < 16, 0.0, -9.0).expand(*ids.shape, 64)

    with pytest.warns(MeasurementWarning, match="not drawn uniformly from"):
        dose_response(knows_the_16, canaries, [0] * 4 + [1] * 4, vocab_size=64, first_token=0, progress=False)
    fine = dose_response(knows_the_16, canaries, [0] * 4 + [1] * 4, vocab_size=16, first_token=0, progress=False)
    assert fine.information_bits == 64  # a wider model does no harm
    assert fine.max_excess_bits < 1


@pytest.mark.parametrize(("bits", "warns"), [(8.9, False), (9.1, True)])
def test_memory_above_all_information_is_a_fault(bits, warns, recwarn):
    result = assemble(table(repetitions=[1, 1, 2, 2], signed_bits=[0.0, 1.0, 2.0, bits]), SETTINGS)
    assert result.max_excess_bits == pytest.approx(bits - 8)
    warn_of_faults(result)
    assert [str(w.message)[:59] for w in recwarn] == warns * [
        "a canary's memU is 1.10 bits above all the information it h"
    ]


@pytest.mark.parametrize(("bits", "warns"), [(10.9, False), (11.1, True)])
def test_the_control_may_be_lucky_once_in_a_thousand(bits, warns, recwarn):
    """2 control canaries: log2(2 / 0.001) = 10.97 bits."""
    settings = {**SETTINGS, "information_bits": 20.0}
    warn_of_faults(assemble(table(repetitions=[0, 0, 2, 2], signed_bits=[bits, 1.0, 19.0, 19.0]), settings))
    assert len(recwarn) == warns


# --- Named models with a tokenizer


def test_a_folder_with_its_bos(model_folder):
    canaries = make_canaries(6, SEQ_LEN, 300, seed=0)
    assert (canaries[:, 0] != 0).all()
    found = dose_response(str(model_folder), canaries, [0, 0, 0, 1, 1, 1], vocab_size=300, progress=False)
    assert found.settings["first_token"]["rule"] == "bos"
    assert found.information_bits == SEQ_LEN * math.log2(300)
    assert found.canaries["signed_bits"].max() < 0
    canaries[2, 0] = 0
    with pytest.raises(InputError, match=r"canary 2 begins with the BOS.* pass the id as first_token=0"):
        dose_response(str(model_folder), canaries, [0, 0, 0, 1, 1, 1], vocab_size=300, progress=False)
    again = dose_response(
        str(model_folder), canaries, [0, 0, 0, 1, 1, 1], vocab_size=300, first_token=0, progress=False
    )
    np.testing.assert_allclose(again.canaries["signed_bits"].drop(2), found.canaries["signed_bits"].drop(2), atol=0.05)


# --- Saved, shown, drawn


def test_save_and_load(trained, tmp_path):
    trained.save(tmp_path)
    loaded = DoseResponse.load(tmp_path)
    pd.testing.assert_frame_equal(loaded.canaries, trained.canaries, check_exact=True)
    pd.testing.assert_frame_equal(loaded.to_pandas(), trained.to_pandas(), check_exact=True)
    assert loaded.settings == trained.settings
    assert (loaded.trend, loaded.trend_p_value) == (trained.trend, trained.trend_p_value)
    assert repr(loaded) == repr(trained)
    saved = pd.read_parquet(tmp_path / "dose_response.parquet")
    pd.testing.assert_frame_equal(saved, trained.to_pandas(), check_exact=True)
    as_saved_by_0_1_0(tmp_path)
    trained.canaries.iloc[1:].to_parquet(tmp_path / "canaries.parquet")
    with pytest.raises(ResultError, match=r"canaries\.parquet has 79 rows for 80 canaries"):
        DoseResponse.load(tmp_path)
    with pytest.raises(ResultError, match="holds no saved DoseResponse"):
        DoseResponse.load(tmp_path / "nowhere")


def test_the_repr_has_a_line_a_count_and_what_to_know(trained):
    lines = repr(trained).splitlines()
    assert lines[0] == "DoseResponse of 80 canaries in 2 trainings: 16 of 64 tokens, 96.0 bits of information each"
    assert [line.split()[0] for line in lines[2:7]] == ["0,", "1", "4", "16", "64"]
    assert lines[2].split()[1:3] == ["control", "16"]
    assert lines[2].endswith("-")
    top = trained.to_pandas().iloc[-1]
    assert f"{top.mean_bits:.1f} [{top.low:.1f}, {top.high:.1f}]" in lines[6]
    assert lines[6].endswith("91.9")
    assert "p <= 0.0001" in lines[7]
    assert f"  ceiling      {-trained.max_excess_bits:.1f} bits above" in lines[8]
    assert "135 steps of 16 samples (epochs: 2), peak_lr 0.02; 1,080 samples" in lines[9]
    assert len(trained) == 80
    alone = assemble(table(repetitions=[1, 1, 2, 2]), SETTINGS)
    assert "control      none" in repr(alone)
    assert "training" not in repr(alone)


def test_the_picture_shows_every_canary_the_means_and_the_ceiling(trained):
    ax = trained.plot()
    dots = np.concatenate([line.get_ydata() for line in ax.lines if line.get_marker() in (".", "x", "v")])
    np.testing.assert_allclose(np.sort(dots), np.sort(trained.canaries["signed_bits"]))
    written = trained.canaries.query("greedy == 1")["signed_bits"]
    crosses = np.concatenate([line.get_ydata() for line in ax.lines if line.get_marker() == "x"])
    np.testing.assert_allclose(np.sort(crosses), np.sort(written))
    assert [label.get_text() for label in ax.get_xticklabels()] == ["0\n(control)", "1", "4", "16", "64"]
    means = [container.lines[0].get_ydata() for container in ax.containers]
    np.testing.assert_allclose(np.sort(np.concatenate(means)), np.sort(trained.to_pandas()["mean_bits"]))
    by_label = {line.get_label(): line.get_ydata() for line in ax.lines}
    assert list(by_label["information of a canary: 96.0 bits"]) == [96, 96]
    np.testing.assert_allclose(by_label["training set known by heart"], trained.to_pandas()["by_heart_bits"][1:])
    labels = [text.get_text() for text in ax.get_legend().get_texts()]
    assert set(labels) == {
        "80 canaries",
        f"{len(written)} of them: greedy decoding writes them out",
        "mean memU, 95 % interval",
        "information of a canary: 96.0 bits",
        "training set known by heart",
    }
    assert ax.get_ylim()[1] > 96
    plt.close(ax.figure)


def test_the_picture_without_control_and_with_canaries_far_below():
    _, ax = plt.subplots()
    canaries = table(repetitions=[3, 3, 9, 9], signed_bits=[-500.0, -2.0, 7.0, 8.0])
    result = assemble(canaries, {**SETTINGS, "n_training_samples": None})
    assert result.plot(ax) is ax
    assert [label.get_text() for label in ax.get_xticklabels()] == ["3", "9"]
    marked = [line.get_ydata() for line in ax.lines if line.get_marker() == "v" and len(line.get_ydata())]
    assert len(marked) == 1
    assert ax.get_ylim()[0] < marked[0][0] < 0
    assert ax.get_ylim()[0] > -20
    assert len(ax.get_legend().get_texts()) == 3
    plt.close(ax.figure)
    one = assemble(table(repetitions=[0, 0, 9, 9], signed_bits=[0.0, 1.0, 7.0, 8.0]), SETTINGS).plot()
    assert one.get_ylim()[0] == -0.05 * 8
    plt.close(one.figure)


# --- Errors


def change(tensor: torch.Tensor, i: int, j: int, value: int) -> torch.Tensor:
    tensor = tensor.clone()
    tensor[i, j] = value
    return tensor


ROWS = random_tokens(20, SEQ_LEN, VOCAB, seed=0)


@pytest.mark.parametrize(
    ("background", "options", "message"),
    [
        (ROWS.float(), {}, r"background must be integer token ids .*; it is torch.float32 of shape \(20, 16\)"),
        (ROWS[0], {}, r"background must be integer token ids .*of shape \(16,\)"),
        (ROWS > 3, {}, "background must be integer token ids .*torch.bool"),
        (ROWS[:0], {}, r"background must hold a sample, and two tokens a sample; its shape is \(0, 16\)"),
        (ROWS[:, :1], {}, r"two tokens a sample; its shape is \(20, 1\)"),
        ("text", {}, "background must be token ids of shape"),
        (change(ROWS, 3, 5, 64), {}, r"must lie in \[0, 64\); 1 do not, the first is 64 in sample 3 at position 5"),
        (change(ROWS, 3, 5, -1), {}, "1 do not, the first is -1 in sample 3 at position 5"),
        (ROWS, {"vocab_size": 1}, "vocab_size must be an integer of at least 2"),
        (ROWS, {"repetitions": []}, r"different positive integers, at least one; got \[\]"),
        (ROWS, {"repetitions": [0, 1]}, r"different positive integers, at least one; got \[0, 1\]"),
        (ROWS, {"repetitions": [1, 1]}, r"different positive integers, at least one; got \[1, 1\]"),
        (ROWS, {"repetitions": [True]}, "different positive integers"),
        (ROWS, {"n_canaries": 1}, "n_canaries must be an integer of at least 2; it is 1"),
        (ROWS, {"seeds": []}, "seeds must be different integers"),
        (ROWS, {"seeds": [1, 1]}, r"seeds must be different integers, at least one; got \[1, 1\]"),
        (ROWS, {"epochs": 0}, "epochs must be a number above 0; it is 0"),
        (ROWS, {"epochs": math.inf}, "epochs must be a number above 0; it is inf"),
        (ROWS, {"batch_size": 0}, "batch_size must be an integer of at least 1; it is 0"),
        (ROWS, {"peak_lr": 0.0}, "peak_lr must be a number above 0; it is 0"),
    ],
)
def test_what_cannot_be_trained(background, options, message):
    with pytest.raises(InputError, match=message):
        canary_dose_response(BUILD, background, **{**OPTIONS, **options})


@pytest.mark.parametrize("repetitions", [[1.0, 2.0], ["1"]])
def test_counts_are_whole_numbers(repetitions):
    with pytest.raises(InputError, match="must be different positive integers"):
        different_counts(repetitions)


def test_a_builder_of_another_width():
    with pytest.raises(ModelError, match=r"logits of shape \(2, 16, 64\); their shape is \(2, 16, 32\)"):
        canary_dose_response(lambda _, seq_len: BUILD(32, seq_len), ROWS % 32, **OPTIONS)


CANARIES = make_canaries(4, SEQ_LEN, VOCAB)


@pytest.mark.parametrize(
    ("canaries", "times", "message"),
    [
        (CANARIES, [0, 0, 1], r"there are 4 canaries, and repetitions of shape \(3,\)"),
        (CANARIES, [0, 0, 1.0, 1.0], "repetitions must be integers; they are float64"),
        (CANARIES, [False, False, True, True], "repetitions must be integers; they are bool"),
        (CANARIES, [0, 0, -1, 1], "must be 0 or more; that of canary 2 is -1"),
        (CANARIES, [3, 3, 3, 3], "all canaries have 3 repetitions; two different counts are needed"),
        (CANARIES, [0, 0, 0, 5], "each count needs at least 2 canaries; 5 repetitions have 1"),
        (CANARIES[[0, 1, 2, 1]], [0, 0, 1, 1], "canaries 1 and 3 are equal"),
        (change(CANARIES, 1, 0, 99), [0, 0, 1, 1], "token ids of canaries must lie in .*the first is 99 in sample 1"),
    ],
)
def test_canaries_that_cannot_be_measured(canaries, times, message):
    with pytest.raises(InputError, match=message):
        dose_response(UniformModel(VOCAB), canaries, times, vocab_size=VOCAB, progress=False)


def test_a_target_of_a_smaller_vocabulary():
    with pytest.raises(ModelError, match="has logits for 32 tokens, and vocab_size=64"):
        dose_response(UniformModel(32), CANARIES % 32, [0, 0, 1, 1], vocab_size=64, first_token=0, progress=False)


def test_canaries_of_another_length_are_not_inserted():
    with pytest.raises(InputError, match="samples have 16 and 8 tokens"):
        insert_canaries(ROWS, CANARIES[:, :8], [1, 1, 1, 1])


@pytest.mark.parametrize("options", [(0, 8, 8), (2, 1, 8), (2, 8, 1)])
def test_canaries_that_cannot_be_made(options):
    with pytest.raises(InputError, match=r"(n_canaries|seq_len|vocab_size) must be an integer of at least"):
        make_canaries(*options)
