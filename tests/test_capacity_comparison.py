"""Several architectures by one protocol: the table, its ratios, its picture, and what is refused."""

import math

import numpy as np
import pytest

from memorization import Capacity, CapacityComparison, capacity_bits_per_param, compare_capacities, fit_capacity, load
from memorization.errors import InputError, ModelError
from memorization.lab.architectures import Architecture, FreeLogits, solve_width

SHAPE = {"vocab_size": 16, "seq_len": 8}
BRIEF = {"data_multiples": (2,), "steps": 8, "peak_lr": 0.05, "progress": False}


def capacity(n_params: int, *bits_per_param: float) -> Capacity:
    n_seeds = len(bits_per_param)
    return fit_capacity(
        [n_params] * n_seeds,
        [each * n_params for each in bits_per_param],
        n_samples=[1000] * n_seeds,
        seed=list(range(n_seeds)),
        seq_len=8,
        vocab_size=16,
    )


def planted() -> CapacityComparison:
    mine, gpt2, alone = capacity(1000, 2.4, 2.6), capacity(1010, 2.9, 3.1), capacity(990, 1.0)
    return CapacityComparison(
        {"mine": mine, "gpt2": gpt2, "alone": alone}, {"mine": "gpt2", "gpt2": "gpt2", "alone": "gpt2"}
    )


def test_the_ratio_to_gpt2_has_the_error_of_a_quotient():
    found = planted()
    ratio, stderr = found.ratio("mine")
    assert ratio == pytest.approx(2.5 / 3.0)
    # Standard errors 0.1 each: by differentials of x / y.
    assert stderr == pytest.approx(math.sqrt((0.1 / 3.0) ** 2 + (2.5 * 0.1 / 9.0) ** 2))
    assert found.ratio("gpt2") == (1.0, 0.0)
    assert found.ratio("alone")[0] == pytest.approx(1 / 3)
    assert math.isnan(found.ratio("alone")[1])  # one seed
    assert np.isnan(CapacityComparison({"mine": found["mine"]}).ratio("mine")).all()


@pytest.mark.usefixtures("no_type_checker")
def test_the_error_of_a_ratio_is_that_of_many_measurements():
    random = np.random.default_rng(0)
    ratios, errors = [], []
    for _ in range(1000):
        mine, gpt2 = (capacity(1000, *(mean + 0.1 * random.standard_normal(4))) for mean in (2.0, 3.0))
        ratio, error = CapacityComparison({"a": mine, "b": gpt2}, {"a": "b"}).ratio("a")
        ratios.append(ratio)
        errors.append(error**2)
    assert np.std(ratios) == pytest.approx(math.sqrt(np.mean(errors)), rel=0.08)


def test_what_is_printed_and_drawn():
    found = planted()
    lines = str(found).splitlines()
    assert lines[0].startswith("Capacities of 3 architectures by one protocol (start convention; 95 % intervals")
    assert "at least 2.500 [" in lines[2]
    assert lines[2].endswith("0.833 \u00b1 0.043")
    assert lines[3].endswith("1 (itself)")
    assert lines[4].endswith("0.333")
    assert "of GPT-2" not in str(CapacityComparison({"mine": found["mine"]}))
    labels = [label.get_text() for label in found.plot().get_yticklabels()]
    assert labels == [
        "alone\n990 parameters",
        "mine\n1,000 parameters",
        "gpt2\n1,010 parameters",
    ]  # the best at the top


def test_saved_and_loaded(tmp_path):
    found = planted()
    found.save(tmp_path / "out")
    again = load(tmp_path / "out")
    assert repr(again) == repr(found)
    assert again["mine"].curve.equals(found["mine"].curve)
    assert Capacity.load(tmp_path / "out" / "architecture-1").bits_per_param == found["gpt2"].bits_per_param


@pytest.mark.filterwarnings("ignore::memorization.errors.NotConvergedWarning")
@pytest.mark.filterwarnings("ignore::memorization.errors.MeasurementWarning")
def test_each_is_measured_as_alone_and_gpt2_of_equal_size_beside_it(tmp_path):
    builders = [FreeLogits, Architecture("lstm", width=4)]
    found = compare_capacities(
        builders, names=["free", "lstm"], anchor=True, store=tmp_path / "runs", seeds=(0,), **SHAPE, **BRIEF
    )
    equal = {name: solve_width("gpt2", int(found[name].n_params[0]), **SHAPE) for name in ("free", "lstm")}
    for name, build in equal.items():
        assert found[found.anchors[name]].settings["models"] == [repr(build)]
    assert list(found.capacities)[:2] == ["free", "lstm"]
    assert set(found.anchors) == set(found.capacities)
    alone = capacity_bits_per_param(builders[1], seeds=(0,), **SHAPE, **BRIEF)
    assert found["lstm"].bits_per_param == alone.bits_per_param
    kept = list((tmp_path / "runs" / "cells").iterdir())
    assert len(kept) == 2 * sum(len(each.curve) for each in found.capacities.values())  # at two rates


@pytest.mark.filterwarnings("ignore::memorization.errors.NotConvergedWarning")
def test_gpt2_itself_is_its_own_anchor():
    gpt2 = solve_width("gpt2", 300, **SHAPE)
    found = compare_capacities([gpt2], names=["mine"], anchor=True, seeds=(0,), **SHAPE, **BRIEF)
    assert dict(found.anchors) == {"mine": "mine"}
    assert list(found.capacities) == ["mine"]


@pytest.mark.parametrize(
    ("builders", "names", "error", "message"),
    [
        ([FreeLogits, FreeLogits], None, InputError, "two architectures are called FreeLogits.*names="),
        ([FreeLogits, Architecture("gru", width=4)], ["a", "a"], InputError, "two architectures are called a:"),
        ([FreeLogits], ["a", "b"], InputError, "one name for each of the 1 architectures; there are 2"),
        ([FreeLogits], "a", InputError, "names must be a list of one text for each architecture; 'a' came"),
        ([FreeLogits], [""], InputError, "names must be a list of one text for each architecture"),
        ([], None, InputError, "build_models is an empty list"),
        ([FreeLogits, 3], None, InputError, "build_models must be a function"),
        ([FreeLogits, lambda vocab_size: None], None, ModelError, "failed when it was called with"),
    ],
)
def test_what_cannot_be_compared_is_refused_before_anything_is_trained(
    builders, names, error, message, monkeypatch, no_type_checker
):
    for trainer in ("train_stack", "train_compiled"):
        monkeypatch.setattr(f"memorization.lab.cells.{trainer}", lambda *_, **__: pytest.fail("trained"))
    with pytest.raises(error, match=message):
        compare_capacities(builders, names=names, **SHAPE, **BRIEF)
