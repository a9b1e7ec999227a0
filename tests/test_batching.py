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


class HasStatisticsOfTheBatch(Counting):
    """Like a normalisation over the rows at each position."""

    def strength(self, ids: Tensor) -> Tensor:
        return (ids + 1) / (ids + 1.0).mean(dim=0)


SAMPLES = [[1, 2, 3, 5], list(range(1, 15)), [4, 5, 6, 9], list(range(2, 16)), [3, 3, 3, 3]]


@pytest.mark.parametrize(
    ("model", "batching", "largest"),
    [
        (Counting(), "any", 5),
        (ChoosesByLength(), "equal lengths", 3),
        (HasExpertsOfACapacity(), "one at a time", 1),
        (SharesByRows(), "one at a time", 1),
        (HasStatisticsOfTheBatch(), "one at a time", 1),
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


def rope_that_grows(kind: str) -> nn.Module:
    """A tiny model of transformers that takes other frequencies for a batch longer than 16 tokens."""
    from transformers import LlamaConfig, LlamaForCausalLM, Phi3Config, Phi3ForCausalLM

    size = {
        "vocab_size": V,
        "hidden_size": 16,
        "intermediate_size": 16,
        "num_hidden_layers": 1,
        "initializer_range": 0.5,
    }
    size |= {"num_attention_heads": 2, "pad_token_id": 0, "bos_token_id": 0, "eos_token_id": 0}
    torch.manual_seed(0)
    if kind == "dynamic":
        scaling = {"rope_type": "dynamic", "factor": 8.0, "rope_theta": 10_000.0}
        return LlamaForCausalLM(LlamaConfig(**size, max_position_embeddings=16, rope_scaling=scaling)).eval()
    scaling = {"rope_type": "longrope", "short_factor": [1.0] * 4, "long_factor": [8.0] * 4, "rope_theta": 10_000.0}
    config = Phi3Config(
        **size, max_position_embeddings=64, original_max_position_embeddings=16, rope_scaling=scaling
    )  # fmt: skip
    return Phi3ForCausalLM(config).eval()


class WithoutALimit(nn.Module):
    """A model whose configuration is out of sight: else texts would be cut at the 16 positions of the dynamic one."""

    def __init__(self, model: nn.Module):
        super().__init__()
        self.inside = [model]  # as its own module it would be found

    def forward(self, ids: Tensor) -> Tensor:
        return self.inside[0](ids, use_cache=False).logits


@pytest.mark.parametrize("kind", ["dynamic", "longrope"])
def test_rope_that_depends_on_the_padded_length_is_caught(kind):
    model = WithoutALimit(rope_that_grows(kind))
    samples = [[(3 * k + n) % V for k in range(n)] for n in (5, 30, 8, 30, 5)]
    how = {"first_token": 0, "progress": False}
    alone = [compress_bits(model, [ids], **how).ideal_bits[0] for ids in samples]
    found = compress_bits(model, samples, **how)
    assert found.settings["batching"] == "equal lengths"
    np.testing.assert_allclose(found.ideal_bits, alone, rtol=0, atol=1e-3)
    short = compress_bits(model, [ids for ids in samples if len(ids) < 10], **how)  # below the limit no batch meets it
    assert (short.settings["batching"], short.settings["largest_batch"]) == ("any", 3)


def test_the_trial_costs_one_window_and_leaves_the_order_as_it_was():
    model = ChoosesByLength()
    samples = [[k % V] * n for k, n in enumerate((14, 4, 9, 14, 4, 9, 14))]
    found = compress_bits(model, samples, first_token=0, batch_size=2, progress=False)
    assert found.n_tokens.tolist() == [len(ids) for ids in samples]
    assert found.token_ids.tolist() == [token for ids in samples for token in ids]
    assert found.settings["batches"]["n_padding_tokens"] == 0


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
