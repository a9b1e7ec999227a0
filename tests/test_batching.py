"""Models whose answer depends on what shares their batch, and long texts whose later windows lack the context token."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from memorization import compress_bits
from memorization.errors import FirstTokenWarning, MeasurementWarning
from memorization.membership import token_moments

V = 16


class Counting(nn.Module):
    """Prefers the next id; how strongly, the batch decides."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))

    def strength(self, ids: Tensor) -> Tensor:
        return torch.full(ids.shape, 2.0)

    def forward(self, ids: Tensor) -> Tensor:
        return nn.functional.one_hot((ids + 1) % V, V) * self.strength(ids)[..., None]


class ChoosesByLength(Counting):
    """Like LongRoPE: another table for the whole batch as soon as its padded length passes a limit."""

    def strength(self, ids: Tensor) -> Tensor:
        return torch.full(ids.shape, 2.0 if ids.shape[1] <= 12 else 0.5)


class HasExpertsOfACapacity(Counting):
    """The first rows of a batch fill the experts up; the others go without."""

    def strength(self, ids: Tensor) -> Tensor:
        return torch.where(torch.arange(len(ids)) < 1, 2.0, 0.0)[:, None].expand(ids.shape)


class SharesByRows(Counting):
    def strength(self, ids: Tensor) -> Tensor:
        return torch.full(ids.shape, 2.0 / len(ids))


SAMPLES = [[1, 2, 3, 5], list(range(1, 15)), [4, 5, 6, 9], list(range(2, 16)), [3, 3, 3, 3]]


@pytest.mark.parametrize(
    ("model", "batching", "largest"),
    [
        (Counting(), "any", 5),
        (ChoosesByLength(), "equal lengths", 3),
        (HasExpertsOfACapacity(), "one at a time", 1),
        (SharesByRows(), "one at a time", 1),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, nn.Module) else str(value),
)
@pytest.mark.parametrize("batch_size", ["auto", 4])
def test_bits_are_those_of_each_sample_alone(model, batching, largest, batch_size):
    alone = [compress_bits(model, [ids], first_token=0, progress=False).ideal_bits[0] for ids in SAMPLES]
    found = compress_bits(model, SAMPLES, first_token=0, batch_size=batch_size, progress=False)
    np.testing.assert_allclose(found.ideal_bits, alone, rtol=0, atol=1e-4)
    assert found.settings["batching"] == batching
    assert found.settings["largest_batch"] == min(largest, 4 if batch_size == 4 else 5)
    token_moments(model, found, batch_size=batch_size, progress=False)  # would be refused if it read other bits


def test_lengths_that_do_not_meet_the_limit_share_batches():
    found = compress_bits(ChoosesByLength(), [[1, 2], [3, 4, 5], [6]], first_token=0, progress=False)
    assert (found.settings["batching"], found.settings["largest_batch"]) == ("any", 3)


def test_equal_lengths_are_tried_too():
    samples = [[1, 2, 3], [4, 5, 6], [7, 8, 9]]
    found = compress_bits(HasExpertsOfACapacity(), samples, first_token=0, progress=False)
    assert found.settings["batching"] == "one at a time"
    alone = [compress_bits(Counting(), [ids], first_token=0, progress=False).ideal_bits[0] for ids in samples]
    assert found.ideal_bits == pytest.approx(alone)


class NeedsTheBOS(Counting):
    """Knows what comes next where the window begins with the BOS 0, and nothing elsewhere."""

    def strength(self, ids: Tensor) -> Tensor:
        return torch.where(ids[:, :1] == 0, 9.0, 0.0).expand(ids.shape)


LONG = [(k + 3) % V for k in range(80)]  # no window of 8 begins with 0


@pytest.mark.parametrize("stride", [None, 8])
def test_later_windows_without_the_context_token_are_warned_of(stride):
    with pytest.warns(
        FirstTokenWarning, match=r"1 texts are longer than the window of 8 tokens.* in place of 4 "
    ) as caught:
        found = compress_bits(NeedsTheBOS(), [LONG, [1, 2]], first_token=0, max_length=8, stride=stride, progress=False)
    assert [w.filename for w in caught] == [__file__]
    assert found.token_bits[8:40] == pytest.approx([math.log2(V)] * 32)  # the numbers are as they were


def test_no_warning_where_it_makes_no_difference(recwarn):
    compress_bits(Counting(), [LONG], first_token=0, max_length=8, progress=False)
    compress_bits(NeedsTheBOS(), [LONG[:8]], first_token=0, max_length=8, progress=False)
    compress_bits(NeedsTheBOS(), [LONG], first_token="uniform", max_length=8, progress=False)
    assert not [w for w in recwarn if issubclass(w.category, MeasurementWarning)]
