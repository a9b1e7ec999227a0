"""Two models, the same samples: roles that can be exchanged, shards that add up, models that are told apart."""

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from memorization import compress_bits, unintended_memorization
from memorization.errors import ResultError, SameModelWarning
from memorization.measure import open_model
from memorization.samples import read_samples

V = 16
SAMPLES = [[1, 2, 3], [4, 5], [6, 7, 8, 9], [1, 1]]
CONTROL = [[9, 8, 7], [2, 2]]


class Table(nn.Module):
    """Next-token logits of a table; two of them have one class and one name."""

    def __init__(self, seed: int):
        super().__init__()
        self.table = nn.Parameter(torch.randn(V, V, generator=torch.Generator().manual_seed(seed)))

    def forward(self, ids: Tensor) -> Tensor:
        return self.table[ids]


pytestmark = pytest.mark.filterwarnings("ignore::memorization.errors.WeakOracleWarning")


def test_roles_exchanged_change_the_sign():
    one, other = Table(0), Table(1)
    there = unintended_memorization(one, other, SAMPLES, control=CONTROL, first_token=0, progress=False)
    back = unintended_memorization(other, one, SAMPLES, control=CONTROL, first_token=0, progress=False)
    np.testing.assert_array_equal(there.signed_bits, -back.signed_bits)
    np.testing.assert_array_equal(there.ideal_signed_bits, -back.ideal_signed_bits)
    np.testing.assert_array_equal(there.joint_bits, back.joint_bits)
    np.testing.assert_array_equal(there.control.ideal_signed_bits, -back.control.ideal_signed_bits)
    np.testing.assert_array_equal(there.target.token_bits, back.oracle.token_bits)


def test_shards_add_up():
    whole = compress_bits(Table(0), SAMPLES, first_token=0, progress=False)
    parts = [compress_bits(Table(0), part, first_token=0, progress=False) for part in (SAMPLES[:1], SAMPLES[1:])]
    for name in ("bits", "ideal_bits", "n_tokens", "token_bits", "token_ids"):
        np.testing.assert_allclose(
            getattr(whole, name), np.concatenate([getattr(part, name) for part in parts]), rtol=0, atol=1e-5
        )


def test_a_control_under_another_model_of_the_same_name_is_refused():
    target, oracle, other = Table(0), Table(1), Table(2)
    ours = [compress_bits(model, SAMPLES, first_token=0, progress=False) for model in (target, oracle)]
    theirs = [compress_bits(model, CONTROL, first_token=0, progress=False) for model in (target, other)]
    assert ours[1].settings["model"]["name"] == theirs[1].settings["model"]["name"] == "Table"
    with pytest.raises(ResultError, match="the control's oracle is another model"):
        unintended_memorization(*ours, SAMPLES, control=theirs)


def test_open_models_and_read_samples_are_measured_as_they_are():
    plain = unintended_memorization(Table(0), Table(1), SAMPLES, first_token=0, progress=False)
    with open_model(Table(0)) as target, open_model(Table(1)) as oracle:
        found = unintended_memorization(target, oracle, read_samples(SAMPLES), first_token=0, progress=False)
    np.testing.assert_array_equal(found.signed_bits, plain.signed_bits)
    assert found.target.settings == plain.target.settings


def test_one_model_in_both_roles_is_warned_of():
    model = Table(0)
    with pytest.warns(SameModelWarning, match=r"target \(Table\) and oracle \(Table\).* they are one model") as caught:
        unintended_memorization(model, model, SAMPLES, first_token=0, progress=False)
    assert [w.filename for w in caught] == [__file__]
    saved = compress_bits(Table(0), SAMPLES, first_token=0, progress=False)
    with pytest.warns(SameModelWarning):
        unintended_memorization(model, saved, SAMPLES, progress=False)


def test_models_that_differ_by_a_ten_thousandth_of_a_bit_are_two():
    target, oracle = Table(0), Table(0)
    with torch.no_grad():
        oracle.table += 2e-4 * Table(1).table
    found = unintended_memorization(
        target, oracle, SAMPLES, first_token=0, progress=False
    )  # a warning is an error here
    assert 1e-5 < np.abs(found.target.token_bits - found.oracle.token_bits).max() < 1e-3
