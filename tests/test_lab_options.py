"""Numbers that the lab, the capacity and membership take: those of numpy and torch as well as Python's; nothing else, and in time."""

import json
from contextlib import nullcontext

import numpy as np
import pytest
import torch

from memorization import capacity_bits_per_param, fit_capacity
from memorization.capacity import information_ceiling_bits
from memorization.errors import InputError, MeasurementWarning
from memorization.integers import check_integers
from memorization.lab import cells as lab_cells
from memorization.lab import training as lab_training
from memorization.lab.architectures import Architecture, solve_width
from memorization.lab.canaries import canary_dose_response, dose_response, make_canaries
from memorization.lab.options import check_positive
from memorization.lab.quickstart import run_quickstart
from memorization.lab.random_tokens import random_tokens
from memorization.lab.stack import train_stack
from memorization.lab.text import text_sweep
from memorization.lab.training import train
from memorization.measure.opening import UniformModel, open_model
from memorization.membership import audit_membership, bag_of_words_auc, membership_metrics

V, S = 16, 8
BUILD = Architecture("gpt2", width=4)
ROWS = torch.randint(V, (300, S), generator=torch.Generator().manual_seed(0))

pytestmark = pytest.mark.usefixtures("no_type_checker")  # which would refuse what a user's Python does not


def capacity(**options):
    given = {"vocab_size": V, "seq_len": S, "n_samples": [100], "seeds": [0], "steps": 2, "batch_size": 4}
    return capacity_bits_per_param(BUILD, progress=False, **{"peak_lr": 1e-6, **given, **options})


def sweep(**options):
    given = {"vocab_size": V, "seq_len": S, "n_samples": [32], "n_test": 32, "seeds": [0], "steps": 2, "batch_size": 4}
    oracle = {"oracle_batch_size": 64, "oracle_epochs": 1, "folds": 2, "prefix_tokens": [4]}
    return text_sweep(BUILD, ROWS, progress=False, **{"peak_lr": 1e-4, **given, **oracle, **options})


def canaries(**options):
    given = {"vocab_size": V, "repetitions": [1], "n_canaries": 2, "seeds": [0], "epochs": 1, "batch_size": 32}
    return canary_dose_response(BUILD, ROWS[:60], progress=False, **{"peak_lr": 1e-5, **given, **options})


def doses(**options):
    given = {"vocab_size": V, "repetitions": [0, 0, 1, 1], "batch_size": 2, **options}
    return dose_response(UniformModel(V), make_canaries(4, S, V), first_token=0, progress=False, **given)


def one_model(**options):
    given = {"context": 0, "steps": 2, "batch_size": 4, "seed": 0, "warmup_steps": 1, **options}
    return train(BUILD(V, S), ROWS, peak_lr=1e-4, progress=False, **given)


def stack(**options):
    given = {"context": 0, "steps": 2, "batch_size": 4, "seeds": [0, 1], "warmup_steps": 1, **options}
    return train_stack([BUILD(V, S), BUILD(V, S)], [ROWS, ROWS], peak_lrs=[1e-4, 1e-4], **given)


def quickstart(**options):
    return run_quickstart("never-written", **options)


def fitted(**options):
    return fit_capacity([10], [36.0], **{"seq_len": S, "vocab_size": V, **options})


def ceiling(**options):
    return information_ceiling_bits(100, **{"seq_len": S, "vocab_size": V, **options})


def made(**options):
    return make_canaries(**{"n_canaries": 2, "seq_len": S, "vocab_size": V, **options})


def random(**options):
    return random_tokens(**{"n_samples": 2, "seq_len": S, "vocab_size": V, "seed": 0, **options})


def width(**options):
    return solve_width("gpt2", **{"n_params": 400, "vocab_size": V, "seq_len": S, "heads": 2, **options})


def opened(**options):
    with open_model(UniformModel(V), **options) as model:
        return model


def built(**options):
    return Architecture("gpt2", **{"layers": 1, "width": 4, "heads": 2, **options})


def metrics(**options):
    return membership_metrics([1.0, 2.0], [0.0, 1.0], **options)


def words(**options):
    return bag_of_words_auc(["a b"] * 10, ["c d"] * 10, **options)


def audit(**options):
    return audit_membership(UniformModel(V), [[1, 2], [3, 4]], [[5, 6], [7, 8]], progress=False, **options)


ONE = {
    opened: ["max_length"],
    metrics: ["seed"],
    words: ["seed"],
    audit: ["seed", "limit", "max_length", "stride", "batch_size"],
    capacity: ["vocab_size", "seq_len", "steps", "batch_size"],
    sweep: ["vocab_size", "seq_len", "n_test", "steps", "batch_size", "oracle_batch_size", "folds"],
    canaries: ["vocab_size", "n_canaries", "batch_size"],
    doses: ["vocab_size", "batch_size"],
    one_model: ["context", "steps", "batch_size", "seed", "warmup_steps"],
    stack: ["context", "steps", "batch_size", "warmup_steps"],
    quickstart: ["seed"],
    fitted: ["seq_len", "vocab_size"],
    ceiling: ["seq_len", "vocab_size"],
    made: ["n_canaries", "seq_len", "vocab_size", "seed"],
    random: ["n_samples", "seq_len", "vocab_size", "seed"],
    width: ["n_params", "vocab_size", "seq_len", "heads"],
    built: ["layers", "width", "heads"],
}
SEVERAL = {
    capacity: ["n_samples", "seeds"],
    sweep: ["n_samples", "seeds", "prefix_tokens"],
    canaries: ["repetitions", "seeds"],
    stack: ["seeds"],
}
REAL = {
    capacity: ["peak_lr", "budget_seconds"],
    sweep: ["peak_lr", "oracle_epochs", "bits_per_param"],
    canaries: ["peak_lr", "epochs"],
}


@pytest.fixture
def nothing_trains(monkeypatch):
    monkeypatch.setattr(lab_cells, "train_stack", lambda *_, **__: pytest.fail("trained"))
    monkeypatch.setattr(lab_training, "trained", lambda *_, **__: pytest.fail("trained"))


def each(options):
    return [pytest.param(call, name, id=f"{call.__name__}-{name}") for call, names in options.items() for name in names]


@pytest.mark.usefixtures("nothing_trains")
@pytest.mark.parametrize("other", [True, np.True_, 2.0, np.float64(2), torch.tensor(2.0), "2"], ids=repr)
@pytest.mark.parametrize(("call", "name"), each(ONE))
def test_what_is_no_integer_is_refused_before_anything_is_trained(call, name, other):
    with pytest.raises(InputError, match=rf"^{name} must be .*integer.*it is .*\.$"):
        call(**{name: other})


@pytest.mark.usefixtures("nothing_trains")
@pytest.mark.parametrize("other", [[True], [2.0], ["2"], "2", np.array([2.0]), torch.tensor([True]), 2], ids=repr)
@pytest.mark.parametrize(("call", "name"), each(SEVERAL))
def test_what_are_no_integers_is_refused_before_anything_is_trained(call, name, other):
    if (call, name) == (canaries, "repetitions") and isinstance(other, int):
        pytest.skip("one count may come alone")
    with pytest.raises(InputError, match=rf"{name} must be .*integer"):
        call(**{name: other})


@pytest.mark.usefixtures("nothing_trains")
@pytest.mark.parametrize("other", [True, np.True_, "fast", 0, float("nan"), [1]], ids=repr)
@pytest.mark.parametrize(("call", "name"), each(REAL))
def test_what_is_no_number_is_refused_before_anything_is_trained(call, name, other):
    with pytest.raises(InputError, match=rf"^{name} must be .*a number above 0; it is .*\.$"):
        call(**{name: other})


PLAIN = {
    capacity: {"vocab_size": V, "seq_len": S, "n_samples": [100, 50], "seeds": [3, 1], "steps": 3, "batch_size": 4},
    sweep: {
        "vocab_size": V,
        "seq_len": S,
        "n_samples": [64, 32],
        "n_test": 32,
        "seeds": [3, 1],
        "steps": 3,
        "batch_size": 4,
        "oracle_batch_size": 32,
        "folds": 2,
        "prefix_tokens": [2, 4],
    },
    canaries: {"vocab_size": V, "repetitions": [1, 2], "n_canaries": 2, "seeds": [3, 1], "batch_size": 32},
}


@pytest.mark.parametrize("of", [np.array, torch.tensor], ids=["numpy", "torch"])
@pytest.mark.parametrize("call", PLAIN, ids=lambda call: call.__name__)
def test_integers_of_other_libraries_measure_the_same_and_are_saved(call, of, tmp_path):
    with pytest.warns(MeasurementWarning) if call is capacity else nullcontext():
        plain, other = (call(**given) for given in (PLAIN[call], {k: of(v) for k, v in PLAIN[call].items()}))
    other.save(tmp_path / "other")
    plain.save(tmp_path / "plain")
    found, expected = (
        json.loads((tmp_path / name / "settings.json").read_text(encoding="utf-8")) for name in ("other", "plain")
    )
    assert _without_times(found) == _without_times(expected)


def _without_times(facts):
    """Settings without wall seconds, and without digests of tables that hold them."""
    if isinstance(facts, dict):
        return {k: _without_times(v) for k, v in facts.items() if "seconds" not in k and k != "digests"}
    return [_without_times(value) for value in facts] if isinstance(facts, list) else facts


@pytest.mark.parametrize("of", [np.int64, np.uint8, torch.tensor], ids=lambda of: of.__name__)
def test_an_architecture_is_the_same_whatever_library_its_sizes_come_from(of):
    found = Architecture("gpt2", layers=of(1), width=of(8), heads=of(2))
    assert repr(found) == "Architecture('gpt2', layers=1, width=8, heads=2)"
    assert solve_width("gpt2", of(200), vocab_size=of(V), seq_len=of(S)) == solve_width(
        "gpt2", 200, vocab_size=V, seq_len=S
    )


def test_integers_in_their_order_and_equal_ones_where_they_may_be():
    assert check_integers("n", (3, np.int8(1), torch.tensor(2))) == [3, 1, 2]
    assert check_integers("n", [2, 2], different=False) == [2, 2]
    assert all(type(number) is int for number in check_integers("n", np.arange(3)))
    with pytest.raises(InputError, match=r"n must be different integers, at least one; got \[2, 2\]"):
        check_integers("n", [2, 2])


@pytest.mark.parametrize("number", [2, 2.0, np.float32(2), np.int64(2), torch.tensor(2.0), torch.tensor(2)], ids=repr)
def test_a_number_above_0_of_any_library(number):
    found = check_positive("rate", number)
    assert found == 2.0
    assert type(found) is float


@pytest.mark.parametrize("share", [True, "20", 0, 101, float("nan"), None], ids=repr)
def test_a_share_outside_0_to_100_percent(share):
    with pytest.raises(InputError, match=r"k_percent must lie above 0 and at most at 100; it is .*\.$"):
        audit(k_percent=share)


def test_an_audit_with_numpy_numbers_is_saved(tmp_path):
    found = audit(seed=np.int64(3), limit=np.int32(2), batch_size=torch.tensor(2), k_percent=np.float32(50))
    found.save(tmp_path / "audit")
    assert json.loads((tmp_path / "audit" / "settings.json").read_text(encoding="utf-8"))["settings"]["seed"] == 3
