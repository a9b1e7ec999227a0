"""Capacity on random tokens: bits recomputed by hand, rounds and rates as promised, and runs that survive being killed."""

import itertools
import json
import math
import os
import signal
import subprocess
import sys
import time
import uuid
import warnings
from functools import partial

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

from memorization import compress_bits
from memorization.capacity import Capacity, information_ceiling_bits
from memorization.errors import InputError, MeasurementWarning, ModelError, NotConvergedWarning, ResultError
from memorization.lab import builders
from memorization.lab import cells as lab_cells
from memorization.lab.architectures import Architecture, FreeLogits, most_saved_bits, quantize_weights
from memorization.lab.capacity import experiment, runs
from memorization.lab.capacity.experiment import capacity_bits_per_param
from memorization.lab.cells import Cell
from memorization.lab.compiled import train_compiled
from memorization.lab.random_tokens import random_tokens
from memorization.lab.stack import train_stack
from memorization.lab.store import Store

V, S = 16, 8
WIDTHS = (4, 6)
SEEDS = (0, 1)
SMALL = {"vocab_size": 4, "seq_len": 6, "n_samples": [16], "steps": 30, "peak_lr": 0.3}


class Table(nn.Module):
    """A distribution for each position: 24 parameters at V = 4, S = 6, with a closed-form best fit."""

    def __init__(self, vocab_size: int, seq_len: int, scale: float = 1.0) -> None:
        super().__init__()
        self.table = nn.Parameter(torch.zeros(seq_len, vocab_size))
        self.scale = scale

    def forward(self, ids):
        return (self.scale * self.table)[: ids.shape[1]].expand(*ids.shape, -1)


class Fragile(Table):
    """NaN for one token where a weight exceeds the limit, as an overflow gives at too high a rate."""

    limit = 1.0

    def forward(self, ids):
        first = torch.arange(self.table.shape[1]) == 0
        return torch.where(first & (self.table.abs().max() > self.limit), torch.nan, super().forward(ids))


def gpt2(width: int) -> Architecture:
    return Architecture("gpt2", width=width, heads=1)


def measured(build, **options) -> Capacity:
    """Convergence is a test of its own."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", MeasurementWarning)
        return capacity_bits_per_param(build, **{"progress": False, "device": "cpu", **options})


def table_bits(n_samples: int, seed: int, seq_len: int = 6, vocab_size: int = 4) -> float:
    """What a `Table` holds at best: log2 V less the entropy of each position's tokens."""
    ids = random_tokens(n_samples, seq_len, vocab_size, seed).numpy()
    shares = np.stack([np.bincount(column, minlength=vocab_size) for column in ids.T]) / n_samples
    entropy = -np.sum(shares * np.log2(np.where(shares > 0, shares, 1)))
    return float(n_samples * (seq_len * math.log2(vocab_size) - entropy))


def cells(store) -> list[dict]:
    """The runs that a store keeps, each with what determined it."""
    kept = [json.loads(path.read_text(encoding="utf-8")) for path in (store / "cells").iterdir()]
    return [{**each["cell"], **each["result"]} for each in kept]


@pytest.fixture
def trained_models(monkeypatch) -> list[int]:
    """How many models each training stacked, in order."""
    counts: list[int] = []

    def counting(models, *arguments, **options):
        counts.append(len(models))
        return train_stack(models, *arguments, **options)

    def counting_compiled(model, *arguments, **options):
        counts.append(1)
        return train_compiled(model, *arguments, **options)

    monkeypatch.setattr(lab_cells, "train_stack", counting)
    monkeypatch.setattr(lab_cells, "train_compiled", counting_compiled)
    return counts


EXPERIMENT = {
    "vocab_size": V,
    "seq_len": S,
    "n_samples": [40, 130],
    "seeds": SEEDS,
    "steps": 40,
    "peak_lr": 0.05,
}


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return tmp_path_factory.mktemp("uninterrupted")


@pytest.fixture(scope="module")
def two_sizes(place) -> Capacity:
    before = torch.get_rng_state()
    result = measured([gpt2(width) for width in WIDTHS], **EXPERIMENT, store=place)
    assert torch.equal(torch.get_rng_state(), before)
    return result


# --- the bits


def test_bits_are_those_of_a_model_trained_and_scored_anew(two_sizes, place):
    """One cell, trained without the others of its stack, scored by a log-softmax in float64."""
    determined_by = {"n_params": 348, "n_samples": 130, "seed": 1, "steps": 40, "peak_lr": 0.05}
    (cell,) = [run for run in cells(place) if determined_by.items() <= run.items()]
    with torch.random.fork_rng():
        torch.manual_seed(builders.stream("weights", 1))
        model = gpt2(4)(V, S)
    ids = random_tokens(130, S, V, seed=1)
    order = builders.stream("order", 1)
    options = {"context": 0, "steps": 40, "batch_size": two_sizes.settings["batch_size"][0]}
    train_stack([model], [ids], peak_lrs=[0.05], seeds=[order], weight_decay=0.05, soap=True, **options)
    inputs = torch.cat([torch.zeros_like(ids[:, :1]), ids[:, :-1]], dim=1)
    with torch.no_grad():
        nats = -model(inputs).double().log_softmax(-1).gather(2, ids[..., None])[..., 0]
    saved = math.log2(V) - nats / math.log(2)
    # Rounding moves this by 0.1 % or less; another order of the samples, or other weights, by 5 % or more.
    assert cell["memorized_bits"] == pytest.approx(float(saved.sum()), rel=3e-3)
    assert cell["memorized_bits_strict"] == pytest.approx(float(saved[:, 1:].sum()), rel=3e-3)
    assert float(saved.sum()) > 20


def test_bits_of_a_closed_form():
    """All that a table of frequencies can hold, and no more; independent weights, data and orders by seed."""
    result = measured(Table, **{**SMALL, "steps": 300})
    last = result.curve[result.curve["steps"] == 300]
    expected = [table_bits(16, seed) for seed in SEEDS]
    assert last["memorized_bits"].tolist() == pytest.approx(expected, rel=1e-2)
    assert all(last["memorized_bits"] < expected)
    assert expected[0] != pytest.approx(expected[1], rel=0.05)


@pytest.mark.usefixtures("no_type_checker")
def test_the_whole_measurement_on_a_model_of_known_capacity(tmp_path):
    """Free logits: bits, maximum, plateau, verdict and what is still to come, all within a hundredth of the closed form."""
    options = {"vocab_size": 8, "seq_len": 12, "n_samples": [24, 48], "steps": 1200, "batch_size": 48, "peak_lr": 0.3}
    options["store"] = tmp_path
    result = measured(FreeLogits, **options)
    known = {n: [most_saved_bits(random_tokens(n, 12, 8, seed), 8) for seed in SEEDS] for n in (24, 48)}
    assert most_saved_bits(random_tokens(24, 12, 8, 1), 8) == pytest.approx(table_bits(24, 1, 12, 8))
    last = result.curve[result.curve["steps"] == 1200].sort_values(["n_samples", "seed"])
    np.testing.assert_allclose(last["memorized_bits"], [bits for n in (24, 48) for bits in known[n]], rtol=0.01)
    largest = max(np.mean(known[n]) for n in known) / result.n_params[0]
    assert result.n_params.tolist() == [96]
    assert result.bits_per_param == pytest.approx(largest, rel=0.01)
    assert result.converged is True
    assert result.settings["growth"]["remaining"] < 0.01
    plateau = measured(FreeLogits, **options, estimator="plateau")
    assert plateau.bits_per_param == pytest.approx(np.mean(list(known.values())) / 96, rel=0.01)


def test_never_more_than_the_information_there_is(two_sizes):
    ceiling = information_ceiling_bits(two_sizes.curve["n_samples"].to_numpy(), S, V)
    assert (two_sizes.curve["memorized_bits"] < ceiling).all()
    # One sample of many tokens: a large enough model comes near the ceiling and does not cross it.
    one = measured(lambda v, s: Table(v, s), vocab_size=4, seq_len=99, n_samples=[12], steps=80, peak_lr=1.0, seeds=[0])
    held = one.curve["memorized_bits"].max()
    assert held == pytest.approx(table_bits(12, 0, 99), rel=0.02)
    assert held <= float(information_ceiling_bits(12, 99, 4))


def test_an_untrained_model_holds_nothing(recwarn):
    """One step at a rate of nothing; its random logits cost a little."""
    result = capacity_bits_per_param(
        gpt2(4), vocab_size=V, seq_len=S, n_samples=[90], steps=1, peak_lr=1e-9, progress=False, device="cpu"
    )
    assert abs(result.bits_per_param) < 0.02
    assert result.curve["steps"].tolist() == [1, 1]
    assert math.isnan(result.gain_per_doubling)
    assert [str(w.message) for w in recwarn if w.category is NotConvergedWarning] == [
        "lower bound: training had not converged, after 1 step."
    ]


def test_growth_from_nothing_is_unknown():
    result = measured(gpt2(4), vocab_size=V, seq_len=S, n_samples=[90], steps=5, peak_lr=1e-9, seeds=[0])
    assert result.curve["steps"].tolist() == [1, 2, 5]
    assert result.capacity_bits[0] < 0  # random logits are worse than uniform ones
    assert math.isnan(result.gain_per_doubling)
    assert result.converged is False


def test_conventions_count_the_same_runs(two_sizes, place, trained_models):
    builders = [gpt2(width) for width in WIDTHS]
    strict = measured(builders, **EXPERIMENT, store=place, convention="strict")
    paper = measured(builders, **EXPERIMENT, store=place, convention="paper", estimator="mean")
    assert trained_models == []
    kept = {(c["n_params"], c["n_samples"], c["seed"], c["steps"], c["memorized_bits"]): c for c in cells(place)}
    by_hand = [kept[tuple(row)]["memorized_bits_strict"] for row in two_sizes.curve.itertuples(index=False)]
    assert strict.curve["memorized_bits"].tolist() == by_hand
    np.testing.assert_allclose(paper.curve["memorized_bits"], strict.curve["memorized_bits"] * S / (S - 1), rtol=1e-12)
    assert (strict.convention, paper.convention, paper.estimator) == ("strict", "paper", "mean")
    first_tokens = two_sizes.curve["memorized_bits"] - strict.curve["memorized_bits"]
    assert 0 < first_tokens.max() < 130 * math.log2(V)


def test_a_quantized_target_is_measured_again():
    """What is left of the bits when the trained weights are rounded: much at 8 bits, little at 2."""
    model = gpt2(8)(V, S)
    ids = random_tokens(60, S, V, seed=0)
    train_stack([model], [ids], context=0, steps=300, batch_size=30, peak_lrs=[0.03], seeds=[0])

    def held(target: nn.Module) -> float:
        return ids.numel() * math.log2(V) - compress_bits(target, ids, first_token=0, progress=False).total_bits

    exact, eight, two = held(model), held(quantize_weights(model, 8)), held(quantize_weights(model, 2))
    assert exact > 300
    assert eight == pytest.approx(exact, rel=0.1)
    assert two < exact / 2


# --- rounds


def by_hand(curve: pd.DataFrame) -> pd.DataFrame:
    """Capacity of each number of steps and model size: the maximum over data sets of the mean over seeds."""
    means = curve.groupby(["steps", "n_params", "n_samples"])["memorized_bits"].mean()
    return means.groupby(["steps", "n_params"]).max().unstack()


def gain_by_hand(curve: pd.DataFrame, n_params: int, steps: int) -> float:
    """Mean growth of runs to twice the steps: of sets that hold 1.25 times the largest mean of bits, and of that one."""
    of_size = curve[curve["n_params"] == n_params]
    table = of_size.pivot(index=["n_samples", "seed"], columns="steps", values="memorized_bits")
    held = table[2 * steps].groupby("n_samples").mean()
    free = [n for n in held.index if information_ceiling_bits(n, S, V) >= 1.25 * held.max() or held[n] == held.max()]
    chosen = table.loc[free]
    return float(np.exp(np.log(chosen[2 * steps] / chosen[steps]).mean()) - 1)


def test_three_rounds_lead_to_the_steps_asked_for(two_sizes):
    curve = two_sizes.curve
    assert curve["steps"].unique().tolist() == [10, 20, 40]
    whole = set(itertools.product([10, 20, 40], two_sizes.n_params, [40, 130], SEEDS))
    assert set(curve[["steps", "n_params", "n_samples", "seed"]].itertuples(index=False, name=None)) == whole
    assert len(curve) == len(whole)
    assert list(two_sizes.n_params) == [348, 666]  # (V + S) x width more than what no embedding is
    assert list(two_sizes.n_non_embedding_params) == [252, 522]
    capacity = by_hand(curve)
    np.testing.assert_allclose(two_sizes.capacity_bits, capacity.loc[40])
    per_param = (capacity / capacity.columns).max(axis=1)
    rounds = two_sizes.settings["rounds"]
    assert [one["steps"] for one in rounds] == [10, 20, 40]
    assert rounds[-1]["bits_per_param"] == two_sizes.bits_per_param
    assert rounds[-1]["bits_per_param"] <= per_param[40]
    gains = [max(gain_by_hand(curve, n, steps) for n in two_sizes.n_params) for steps in (10, 20)]
    assert [one["gain_per_doubling"] for one in rounds] == [None, *map(pytest.approx, gains)]
    assert two_sizes.gain_per_doubling == pytest.approx(gains[-1])
    assert two_sizes.converged is False


def test_gains_are_per_doubling_whatever_the_rounds():
    """7, 15 and 30 steps: the first two are 1.1 doublings apart."""
    result = measured(Table, **{**SMALL, "peak_lr": 0.05})
    bits = np.log(result.curve.pivot(index="seed", columns="steps", values="memorized_bits"))
    assert bits.columns.tolist() == [7, 15, 30]
    first = math.exp(((bits[15] - bits[7]) / math.log2(15 / 7)).mean()) - 1
    assert result.settings["rounds"][1]["gain_per_doubling"] == pytest.approx(first)
    assert result.gain_per_doubling == pytest.approx(math.exp((bits[30] - bits[15]).mean()) - 1)
    assert result.settings["growth"]["gain_stderr"] == pytest.approx((bits[30] - bits[15]).std(ddof=1) / 2**0.5)
    assert first > 0.2


@pytest.mark.usefixtures("no_type_checker")
def test_convergence_is_that_little_remains(recwarn):
    """A table reaches its best fit; after 5, 10 and 20 steps it does not yet."""
    options = {**SMALL, "progress": False, "device": "cpu"}
    done = capacity_bits_per_param(Table, **{**options, "steps": 1600, "batch_size": 16})
    assert done.converged is True
    assert done.settings["growth"]["remaining_high"] < 0.02
    assert "1,000 times the steps would bring at most" in done.convergence
    assert not recwarn.list
    with pytest.warns(NotConvergedWarning) as caught:
        short = capacity_bits_per_param(Table, **{**options, "steps": 20, "peak_lr": 0.05})
    assert short.converged is False
    percent, error = 100 * short.gain_per_doubling, 100 * short.settings["growth"]["gain_stderr"]
    words = (
        f"lower bound: memorized bits still grow {percent:.1f} ± {error:.1f} % per doubling of steps, after 20 steps."
    )
    assert [str(warning.message) for warning in caught] == [words]
    assert repr(short).startswith("Capacity at least 0.")
    assert " bits per parameter after 20 steps (1 model size" in repr(short)


def test_what_must_be_held_whole_is_looked_at():
    """Half of the 3.6 bits a parameter: 3 samples of 12 bits fill 31 of 86 bits; a table without context cannot hold them."""
    options = {**SMALL, "n_samples": [3, 40], "steps": 400, "progress": False, "device": "cpu", "seeds": [0]}
    words = (
        r"3 samples fill about half of the 24 parameters and should be held whole; [0-9.]+ % of their information is"
    )
    with pytest.warns(NotConvergedWarning), pytest.warns(MeasurementWarning, match=words):
        result = capacity_bits_per_param(Table, **options)
    (found,) = result.settings["held_whole"]
    assert found["n_samples"] == 3
    assert found["shares"] == pytest.approx([table_bits(3, 0) / (3 * (12 - math.log2(3)))], rel=0.05)


def test_long_rounds_take_the_rate_of_the_round_before(tmp_path, monkeypatch):
    """And half of it where a set has fallen: here the rate of the short round, 30, breaks what it had learned."""
    monkeypatch.setattr(experiment, "TWO_RATES", 10)
    monkeypatch.setattr(runs, "TWO_RATES", 10)
    options = {**SMALL, "steps": 80, "store": tmp_path}
    result = measured(Table, **options)
    tried = {(run["steps"], run["peak_lr"]) for run in cells(tmp_path)}
    (best,) = {one["best_lrs"][0] for one in result.settings["rounds"]}
    assert tried == {(10, 0.3), (10, 0.15), (20, best), (40, best), (80, best)}
    assert len(result.curve) == 6  # the short round is no round
    assert result.bias == 0 or math.isnan(result.bias)

    before = runs.train_round

    def fallen(grid, steps, hot, earlier, *rest):
        if earlier is not None:
            for run in earlier.kept:
                run["memorized_bits"] *= 2
        return before(grid, steps, hot, earlier, *rest)

    monkeypatch.setattr(experiment, "train_round", fallen)
    other = measured(Table, **{**options, "store": tmp_path / "fallen"})
    again = {(run["steps"], run["peak_lr"]) for run in cells(tmp_path / "fallen")}
    assert again == tried | {(steps, best / 2) for steps in (40, 80)}
    assert {one["best_lrs"][0] for one in other.settings["rounds"]} == {best}


@pytest.mark.usefixtures("no_type_checker")
def test_automatic_rounds_double_until_converged(tmp_path, monkeypatch):
    monkeypatch.setattr(runs, "FIRST_STEPS", 100)
    options = {**SMALL, "steps": "auto", "budget_seconds": None, "peak_lr": 0.5, "batch_size": 16}
    result = measured(Table, **options, store=tmp_path)
    steps = [one["steps"] for one in result.settings["rounds"]]
    assert steps == [100 * 2**doublings for doublings in range(len(steps))]
    assert 3 <= len(steps) <= 6
    assert result.converged is True
    monkeypatch.setattr(experiment, "LAST_STEPS", 200)
    short = measured(Table, **{**options, "peak_lr": 0.001}, store=tmp_path)
    assert [one["steps"] for one in short.settings["rounds"]] == [100, 200]
    assert short.converged is False
    assert "ut short" not in repr(short)


def test_a_budget_ends_rounds_and_takes_nothing_away(tmp_path, monkeypatch):
    """Seconds are as the store says: 0.02 a step of each run, so rounds of 100 and 200 steps fit and one of 400 does not."""
    monkeypatch.setattr(runs, "FIRST_STEPS", 100)
    monkeypatch.setattr(runs.Grid, "seconds_a_step", lambda *_: 0.08)
    put = Store.put
    monkeypatch.setattr(
        Store, "put", lambda self, cell, result: put(self, cell, {**result, "seconds": 0.02 * cell["steps"]})
    )
    options = {**SMALL, "steps": "auto", "peak_lr": 0.02, "store": tmp_path}
    n_runs, expected = 4, {}
    expected[1] = n_runs * 2.0
    expected[2] = expected[1] + n_runs * 4.0
    expected[3] = expected[2] + n_runs * 8.0
    for budget, n_rounds in [(23.9, 1), (24.0, 2), (55.9, 2), (56.0, 3)]:
        result = measured(Table, **options, budget_seconds=budget)
        assert [one["steps"] for one in result.settings["rounds"]] == [100, 200, 400][:n_rounds]
        assert result.settings["seconds"] == pytest.approx(expected[n_rounds])
        assert repr(result).startswith(f"Cut short by a budget of {budget:.0f} s: a faster machine would have trained")
        assert len(result.curve) == 2 * n_rounds
    grid = {(run["steps"], run["seed"]): 0 for run in cells(tmp_path)}
    assert set(grid) == set(itertools.product([100, 200, 400], SEEDS))
    for run in cells(tmp_path):
        grid[run["steps"], run["seed"]] += 1
    assert set(grid.values()) == {2}  # both rates


@pytest.mark.parametrize(
    ("seconds_a_step", "first"), [(0.001, 750), (2 / 749, 375), (0.01, 187), (0.02, 93), (4 / 94, 93)]
)
def test_the_first_round_is_shorter_where_the_budget_is(seconds_a_step, first, tmp_path, monkeypatch):
    monkeypatch.setattr(runs.Grid, "seconds_a_step", lambda *_: seconds_a_step)

    def stop(grid, steps, *_):
        raise Stop(steps)

    monkeypatch.setattr(experiment, "train_round", stop)
    options = {**SMALL, "steps": "auto", "store": tmp_path}
    for budget in (4.0, 400.0):  # decided once for a store
        with pytest.raises(Stop, match=f"^{first}$"):
            measured(Table, **options, budget_seconds=budget)


class Stop(Exception):
    """Ends a call where a test has seen enough."""


def test_a_budget_too_short_says_how_long_it_takes(monkeypatch):
    monkeypatch.setattr(runs.Grid, "seconds_a_step", lambda *_: 0.1)
    words = "a budget of 9 s cannot finish the shortest round: 8 runs of 93 steps take about 9 s, one run about 1.2 s;"
    with pytest.raises(InputError, match=words):
        measured(Table, **{**SMALL, "n_samples": [12, 16], "steps": "auto", "budget_seconds": 9.2})


def test_the_time_of_a_step_is_measured():
    with pytest.raises(InputError, match="a budget of 0 s cannot finish the shortest round: 4 runs of 93 steps take"):
        measured(Table, **{**SMALL, "steps": "auto", "budget_seconds": 1e-4})


def test_one_seed_has_no_error():
    result = measured(Table, **{**SMALL, "seeds": [3]})
    assert math.isnan(result.stderr)
    assert np.isnan(result.interval).all()
    assert result.settings["seeds"] == [3]
    assert not math.isnan(measured(Table, **SMALL).stderr)


# --- sizes, rates, precision


def test_several_sizes_have_an_exponent():
    builders = [partial(Table, scale=1.0), lambda v, s: Wide(v, s, 2), lambda v, s: Wide(v, s, 4)]
    result = measured(builders, **{**SMALL, "n_samples": [100], "steps": 15}, estimator="slope_origin")
    assert result.n_params.tolist() == [24, 48, 96]
    assert result.n_non_embedding_params.tolist() == [24, 48, 96]
    exponent, (low, high) = result.exponent()
    logs = np.polyfit(np.log(result.n_params), np.log(result.capacity_bits), 1)
    assert exponent == pytest.approx(logs[0])
    assert low < exponent < high
    assert result.estimator == "slope_origin"


class Wide(nn.Module):
    """A Table whose parameters are shared out: as many bits, more of them to count."""

    def __init__(self, vocab_size: int, seq_len: int, parts: int) -> None:
        super().__init__()
        self.parts = nn.ModuleList(Table(vocab_size, seq_len) for _ in range(parts))

    def forward(self, ids):
        return sum(part(ids) for part in self.parts)


def test_frozen_parameters_do_not_count():
    def build(vocab_size: int, seq_len: int) -> nn.Module:
        model = Wide(vocab_size, seq_len, 3)
        model.parts[0].requires_grad_(False)
        return model

    result = measured(build, **{**SMALL, "n_samples": [40]})
    assert result.n_params.tolist() == [48]
    assert np.isnan(result.n_non_embedding_params).all()
    assert result.settings["parameters"] == [{"total": 72, "non_embedding": 72, "trainable": 48}]


@pytest.mark.parametrize(("scale", "beyond"), [(0.3, 0.32), (200.0, 0.0025)])
def test_the_pilot_widens_until_the_best_rate_lies_inside(scale, beyond, tmp_path):
    """Steps do not see the scale of a loss, so logits of 0.3 x weights want three times the rate."""
    options = {**SMALL, "seeds": [0], "peak_lr": "auto"}
    result = measured(partial(Table, scale=scale), **options, store=tmp_path)
    best = result.settings["rounds"][0]["best_lrs"][0]
    pilot = {run["peak_lr"]: run["memorized_bits"] for run in cells(tmp_path) if run["steps"] == 7}
    hottest = max(pilot, key=pilot.get)
    assert min(pilot) < hottest < max(pilot)
    assert best in (hottest, hottest / 2)
    assert (max(pilot) > beyond) if scale < 1 else (min(pilot) < beyond)


def test_a_pilot_that_diverges_everywhere_goes_colder(tmp_path):
    def build(vocab_size: int, seq_len: int) -> nn.Module:
        model = Fragile(vocab_size, seq_len, scale=2000.0)
        model.limit = 2e-3
        return model

    result = measured(build, **{**SMALL, "seeds": [0], "peak_lr": "auto"}, store=tmp_path)
    pilot = {run["peak_lr"]: run["memorized_bits"] for run in cells(tmp_path) if run["steps"] == 7}
    assert all(pilot[rate] is None for rate in pilot if rate >= 0.01)
    assert result.settings["rounds"][0]["best_lrs"][0] < 0.0025
    assert result.bits_per_param > 0


def test_where_both_rates_diverge_colder_ones_are_tried(tmp_path):
    """Only for the data sets that need it; a set's better rate counts, for all seeds the same."""
    result = measured(Fragile, **{**SMALL, "n_samples": [16, 60], "steps": 60, "peak_lr": 1.0}, store=tmp_path)
    runs = [run for run in cells(tmp_path) if run["steps"] == 15]
    rates = sorted({run["peak_lr"] for run in runs}, reverse=True)
    assert rates == [0.5**halvings for halvings in range(len(rates))]
    assert all(run["memorized_bits"] is None for run in runs if run["peak_lr"] == 1.0)
    assert all(run["memorized_bits"] is not None for run in runs if run["peak_lr"] == rates[-1])
    assert result.bits_per_param > 0
    first = result.curve[result.curve["steps"] == 15]
    for n_samples, group in first.groupby("n_samples"):
        of_rate = {
            rate: [r["memorized_bits"] for r in runs if (r["n_samples"], r["peak_lr"]) == (n_samples, rate)]
            for rate in rates
        }
        whole = [bits for bits in of_rate.values() if bits and None not in bits]
        assert sorted(group["memorized_bits"]) == sorted(max(whole, key=sum))


def test_of_two_rates_the_better_counts_and_leads_the_next_round(two_sizes, place):
    for size, n_params in enumerate(two_sizes.n_params.tolist()):
        hot = 0.05
        for one in two_sizes.settings["rounds"]:
            runs = [c for c in cells(place) if (c["n_params"], c["steps"]) == (n_params, one["steps"])]
            totals = {rate: sum(r["memorized_bits"] for r in runs if r["peak_lr"] == rate) for rate in (hot, hot / 2)}
            assert {run["peak_lr"] for run in runs} == set(totals)
            hot = max(totals, key=totals.get)
            assert one["best_lrs"][size] == hot
            kept = two_sizes.curve[
                (two_sizes.curve["n_params"] == n_params) & (two_sizes.curve["steps"] == one["steps"])
            ]
            for n_samples, group in kept.groupby("n_samples"):
                sums = [
                    sum(r["memorized_bits"] for r in runs if (r["peak_lr"], r["n_samples"]) == (rate, n_samples))
                    for rate in totals
                ]
                assert group["memorized_bits"].sum() == pytest.approx(max(sums))


@pytest.mark.parametrize(
    ("peak_lr", "words"),
    [
        (
            1.0,
            "training on 16 samples diverged at every learning rate from 1 to 0.0625, in 7 steps; give a lower peak_lr",
        ),
        ("auto", "training diverged at every learning rate from 0.32 to .*; check the model's loss"),
    ],
)
def test_where_all_rates_diverge_the_model_is_at_fault(peak_lr, words):
    def build(vocab_size: int, seq_len: int) -> nn.Module:
        model = Fragile(vocab_size, seq_len)
        model.limit = -1.0
        return model

    with pytest.raises(ModelError, match=words):
        measured(build, **{**SMALL, "peak_lr": peak_lr})


def test_a_model_that_its_last_step_breaks_has_diverged():
    """Losses are seen before each update; a single step of one sample has no other."""
    protocol = runs.Protocol(vocab_size=4, seq_len=6, dtype="float32", device="cpu")
    stack = [Cell("fragile", 24, 16, 0, peak_lr, steps=1, batch_size=4) for peak_lr in (2.0, 0.5)]
    hot, cold = runs.train_and_measure(Fragile, False, False, protocol, stack, lambda n_steps: None)
    assert (hot["memorized_bits"], hot["diverged_at"]) == (None, 1)
    assert cold["memorized_bits"] is not None


@pytest.mark.parametrize("dtype", ["bfloat16", "autocast"])
def test_narrow_arithmetic_runs(dtype, two_sizes):
    options = {**EXPERIMENT, "n_samples": [90], "seeds": [0], "dtype": dtype}
    result = measured(gpt2(4), **options)
    assert result.settings["dtype"] == dtype
    exact = two_sizes.capacity_bits[0] / 348
    assert 0.5 * exact < result.bits_per_param < 1.5 * exact


def test_automatic_data_sets_are_multiples_of_what_is_expected():
    """Width 6: 666 parameters x 3.6 bits in samples of 32 bits are 75 samples; the batch is as many, in eights."""
    result = measured(
        gpt2(6), vocab_size=V, seq_len=S, steps=1, peak_lr=1e-3, seeds=[0], data_multiples=[2.0, 0.5, 4.0]
    )
    expected = 3.6 * result.n_params[0] / 32
    assert result.settings["n_samples"] == [[round(expected / 2), round(2 * expected), round(4 * expected)]]
    assert result.settings["batch_size"] == [72]
    assert result.settings["tokens_trained_a_run"] == [72 * S]
    small = measured(Table, **{**SMALL, "steps": 1})
    assert small.settings["batch_size"] == [round(3.6 * 24 / 12)]


# --- the store


def test_a_second_call_trains_nothing(two_sizes, place, trained_models):
    again = measured([gpt2(width) for width in WIDTHS], **EXPERIMENT, store=place)
    assert trained_models == []
    pd.testing.assert_frame_equal(again.curve, two_sizes.curve)
    assert repr(again) == repr(two_sizes)
    assert again.settings["seconds"] == two_sizes.settings["seconds"]


def test_more_seeds_train_only_what_is_new(trained_models, tmp_path):
    measured(Table, **SMALL, store=tmp_path)
    assert trained_models == [4, 4, 4]
    more = measured(Table, **{**SMALL, "seeds": [0, 1, 2]}, store=tmp_path)
    assert trained_models == [4, 4, 4, 2, 2, 2]
    assert len(more.curve) == 9


def test_a_store_of_another_experiment_is_refused(tmp_path):
    measured(Table, **SMALL, store=tmp_path)
    with pytest.raises(ResultError, match="belongs to another experiment: seq_len is 6 there and 7 here"):
        measured(Table, **{**SMALL, "seq_len": 7}, store=tmp_path)
    with pytest.raises(
        ResultError, match="belongs to another experiment: dtype is 'float32' there and 'autocast' here"
    ):
        measured(Table, **SMALL, dtype="autocast", store=tmp_path)


def test_a_store_keeps_builders_apart(tmp_path, trained_models):
    """Another model of the same parameters does not take over its runs, nor they its."""
    one = measured(Table, **SMALL, store=tmp_path)
    other = measured(lambda v, s: Table(v, s, 2.0), **SMALL, store=tmp_path)
    assert trained_models == [4] * 6
    assert one.settings["models"] != other.settings["models"]
    pd.testing.assert_frame_equal(measured(Table, **SMALL, store=tmp_path).curve, one.curve)
    assert trained_models == [4] * 6


def scaled(scale: float):
    return lambda vocab_size, seq_len: Table(vocab_size, seq_len, scale)


@pytest.mark.parametrize("make", [scaled, lambda scale: partial(Table, scale=scale)], ids=["closure", "partial"])
def test_builders_are_known_by_the_values_they_hold(make, tmp_path, trained_models):
    """The modules look the same, and the functions lie elsewhere in each process."""
    measured(make(1.0), **SMALL, store=tmp_path)
    n_trainings = len(trained_models)
    measured(make(1.0), **SMALL, store=tmp_path)
    assert len(trained_models) == n_trainings
    measured(make(2.0), **SMALL, store=tmp_path)
    assert len(trained_models) > n_trainings


def test_a_store_may_be_a_url(trained_models):
    place = f"memory://{uuid.uuid4().hex}"
    first = measured(Table, **SMALL, store=place)
    second = measured(Table, **SMALL, store=place)
    assert trained_models == [4, 4, 4]
    pd.testing.assert_frame_equal(first.curve, second.curve)


KILLED = f"""
import sys, warnings
import torch
torch.set_num_threads(1)
warnings.simplefilter("ignore")
from memorization.lab.architectures import Architecture
from memorization.lab.capacity.experiment import capacity_bits_per_param
builders = [Architecture("gpt2", width=width, heads=1) for width in {WIDTHS}]
capacity_bits_per_param(builders, **{EXPERIMENT}, store=sys.argv[1], progress=False, device="cpu")
"""


def test_a_killed_run_goes_on_where_it_was(two_sizes, place, tmp_path, trained_models):
    """SIGKILL after the first of six stacks is kept: the rest gives the same figures, and no kept run is made again."""
    folder = tmp_path / "store" / "cells"
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen([sys.executable, "-c", KILLED, str(folder.parent)], env=environment)
    a_stack, n_cells = 8, len(cells(place))
    try:
        deadline = time.monotonic() + 120
        while not folder.is_dir() or len(list(folder.iterdir())) < a_stack:
            assert process.poll() is None, "ended before it was killed"
            assert time.monotonic() < deadline
            time.sleep(0.005)
    finally:
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
    before = {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}
    assert a_stack <= len(before) < n_cells

    resumed = measured([gpt2(width) for width in WIDTHS], **EXPERIMENT, store=folder.parent)
    assert sum(trained_models) == n_cells - len(before)
    assert {name: (folder / name).stat().st_mtime_ns for name in before} == before
    assert resumed.bits_per_param == two_sizes.bits_per_param
    pd.testing.assert_frame_equal(resumed.curve, two_sizes.curve, check_exact=True)
    assert {path.name for path in folder.iterdir()} == {path.name for path in (place / "cells").iterdir()}


# --- refusals


@pytest.mark.usefixtures("no_type_checker")
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"vocab_size": 1}, "vocab_size must be an integer of at least 2; it is 1"),
        ({"seq_len": 0}, "seq_len must be an integer of at least 1; it is 0"),
        ({"seq_len": 1, "convention": "strict"}, 'seq_len must be at least 2 with convention "strict"; it is 1'),
        ({"convention": "end"}, "convention must be one of start, strict, paper; it is 'end'"),
        ({"estimator": "median"}, "estimator must be one of max, plateau, slope, slope_origin, mean; it is 'median'"),
        (
            {"estimator": "slope"},
            r'estimator "slope" needs 3 model sizes; there are 1: give more builders, or take "mean"',
        ),
        ({"seeds": []}, r"seeds must be different integers, at least one; got \[\]"),
        ({"seeds": [0, 1, 0]}, r"seeds must be different integers, at least one; got \[0, 1, 0\]"),
        ({"steps": 0}, 'steps must be "auto" or an integer of at least 1; it is 0'),
        ({"dtype": "float16"}, "dtype must be one of float32, bfloat16, autocast; got 'float16'"),
        ({"budget_seconds": 0}, r"budget_seconds must be None \(no limit\) or a number above 0; it is 0"),
        ({"budget_seconds": math.nan}, "budget_seconds must be .* a number above 0; it is nan"),
        ({"peak_lr": 0.0}, 'peak_lr must be "auto" or a number above 0; it is 0.0'),
        ({"peak_lr": math.inf}, 'peak_lr must be "auto" or a number above 0; it is inf'),
        ({"batch_size": 0}, 'batch_size must be "auto" or an integer of at least 1; it is 0'),
        ({"n_samples": []}, r'n_samples must be "auto" or integers of at least 1, at least one; got \[\]'),
        ({"n_samples": [0, 16]}, r'n_samples must be "auto" or integers of at least 1, at least one; got \[0, 16\]'),
        ({"n_samples": "auto", "data_multiples": []}, "data_multiples is empty; give one at least"),
        (
            {"n_samples": "auto", "data_multiples": [1, 0]},
            "each of data_multiples must be a number above 0; it is 0",
        ),
        (
            {"n_samples": [2, 9]},
            "data sets of 2 and 9 samples are too few for a plateau: they hold at most 79 bits, and 24 parameters are "
            "expected to hold 86; the largest set must have more than 9 samples, better 18 and more: pass larger "
            "n_samples[.]$",
        ),
        (
            {"n_samples": "auto", "seq_len": 2},
            "are too few for a plateau: .*; samples this short can never hold enough: take a larger seq_len",
        ),
    ],
)
def test_what_cannot_be_is_refused(options, message):
    with pytest.raises(InputError, match=message):
        measured(Table, **{**SMALL, **options})


@pytest.mark.usefixtures("no_type_checker")
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"engine": "slurm"}, 'engine must be "local", "ray" or an Engine; it is \'slurm\''),
        *(
            ({"shard": shard}, rf"shard must be k/n with 1 <= k <= n, as in 2/8; it is {shard!r}")
            for shard in ("0/2", "3/2", "2", "a/b", "", 2)
        ),
        ({"shard": "1/2", "budget_seconds": 9, "steps": "auto"}, "budget_seconds is of one process on one machine"),
    ],
)
def test_engines_and_shares_that_cannot_be(options, message):
    with pytest.raises(InputError, match=message):
        measured(Table, **{**SMALL, **options})


def test_builders_are_checked():
    with pytest.raises(InputError, match="build_model is an empty list; give one builder for each model size"):
        measured([], **SMALL)
    with pytest.raises(InputError, match=r"a number of parameters of its own, .*; got \[24, 48, 24\]"):
        measured([Table, partial(Wide, parts=2), partial(Table, scale=2.0)], **{**SMALL, "n_samples": [40]})
    with pytest.raises(InputError, match='estimator "slope" needs 3 model sizes; there are 2'):
        measured([Table, partial(Wide, parts=2)], **{**SMALL, "n_samples": [40]}, estimator="slope")
    wide = r"must map ids of shape \(2, 6\) to logits of shape \(2, 6, 4\); their shape is \(2, 6, 5\)"
    with pytest.raises(ModelError, match=wide):
        measured(lambda v, s: Table(v + 1, s), **SMALL)
    with pytest.raises(ModelError, match="the builder's model has no trainable parameter, so it can hold nothing"):
        measured(lambda v, s: Table(v, s).requires_grad_(False), **SMALL)
    with pytest.raises(ModelError, match="set its dropout to 0"):
        measured(lambda v, s: nn.Sequential(gpt2(4)(v, s), nn.Dropout(0.5)), **{**SMALL, "n_samples": [999]})


def test_just_enough_samples_are_legal():
    """1.25 x 3.6 bits x 24 parameters are 108 bits: 12 samples hold 12 x (12 - 3.58) = 101, 13 hold 13 x (12 - 3.70) = 107.9."""
    with pytest.raises(InputError, match="too few for a plateau: they hold at most 108 bits"):
        measured(Table, **{**SMALL, "n_samples": [13]})
    assert measured(Table, **{**SMALL, "n_samples": [14], "steps": 1}).settings["n_samples"] == [[14]]


def test_a_smaller_set_is_the_beginning_of_a_larger_one():
    large = random_tokens(500, S, V, seed=1)
    assert torch.equal(random_tokens(20, S, V, seed=1), large[:20])
    assert not torch.equal(random_tokens(20, S, V, seed=2), large[:20])
    counts = torch.bincount(large.flatten(), minlength=V)
    assert ((counts - 250).abs() < 5 * 250**0.5).all()


def adapters_on_one_base(vocab_size: int, seq_len: int):
    """A builder whose models all hold the same frozen module, as adapters of one checkpoint do."""
    base = Architecture("gpt2", width=8)(vocab_size, seq_len).requires_grad_(False)

    class Adapted(nn.Module):
        def __init__(self, vocab_size, seq_len):
            super().__init__()
            self.base = base
            self.adapter = nn.Linear(vocab_size, vocab_size)

        def forward(self, ids):
            return self.adapter(self.base(ids))

    return Adapted


@pytest.mark.usefixtures("no_type_checker")
@pytest.mark.parametrize(
    "build", [Architecture("gpt2", width=8), adapters_on_one_base(16, 8)], ids=["gpt2", "shared base"]
)
def test_threads_change_nothing_but_the_time(build, trained_models):
    options = {"vocab_size": 16, "seq_len": 8, "n_samples": [200], "steps": 40, "peak_lr": 0.05, "seeds": range(4)}
    single = measured(build, **options)
    compiled = single.settings["compiled"] == [True]
    assert trained_models == ([1] * 24 if compiled else [8, 8, 8])
    torch.set_num_threads(2)
    try:
        double = measured(build, **options)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(1)
    assert trained_models == ([1] * 48 if compiled else [8, 8, 8, 4, 4, 4, 4, 4, 4])
    np.testing.assert_allclose(double.curve["memorized_bits"], single.curve["memorized_bits"], rtol=1e-3, atol=0.5)


def test_a_stack_that_fails_stops_the_others(monkeypatch):
    steps_done: list[int] = []

    def failing(models, data, *, seeds, on_steps, **options):
        if builders.stream("order", 0) in seeds:
            raise ZeroDivisionError("broken")
        return train_stack(models, data, seeds=seeds, on_steps=lambda n: (steps_done.append(n), on_steps(n)), **options)

    monkeypatch.setattr(lab_cells, "train_stack", failing)
    torch.set_num_threads(2)
    try:
        with pytest.raises(ZeroDivisionError, match="broken"):
            measured(Table, **{**SMALL, "steps": 400_000, "seeds": range(2)})
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(1)
    assert sum(steps_done) < 50_000
