"""Whether a model's answer depends on the batch, and what a batch may hold if so."""

from collections.abc import Callable, Sequence
from typing import Literal, TypeAlias

import numpy as np
import torch
from torch import Tensor

from memorization.coding.intervals import code_tokens
from memorization.measure.opening import OpenModel, UniformModel

__all__ = ["Batching", "batching_of"]

# "any": windows of any length side by side, padded on the right; "equal lengths": no padding; "one at a time": no
# company at all.
Batching: TypeAlias = Literal["any", "equal lengths", "one at a time"]

# Mean difference in bits a token that is rounding: another batch has kernels sum in another order. Float32 on a CPU
# stays below 1e-5.
_ROUNDING_BITS = {"float32": 1e-4, "float64": 1e-4}
_ROUNDING_BITS_ELSEWHERE = 0.05  # half precision, quantized weights
_ROUNDING_BITS_CUDA = 1e-3


def batching_of(
    model: OpenModel, longest: np.ndarray, shortest: np.ndarray, logits: Callable[[OpenModel, Tensor], Tensor]
) -> Batching:
    """What a batch may hold, found by a trial: the shortest window alone, and beside the longest of its batch.

    Some models choose by the padded length (LongRoPE and dynamic RoPE take other frequencies for a whole batch that is
    long), look at the padding, or share something between rows (experts with a capacity, statistics of the batch). Any
    of these shows where the two lengths meet, and costs nothing where they do not.

    Args:
        model: opened.
        longest: ids of a window, with the token that follows it as the last.
        shortest: the same of the shortest one.
        logits: of a batch, in the caller's words where it fails.
    """
    if model.record["class"] == UniformModel.__name__:
        return "any"
    alone = _bits(model, [shortest], logits)
    if _agree(model, alone, _bits(model, [longest, shortest], logits)):
        return "any"
    same_length = longest[: len(shortest)]
    if len(longest) > len(shortest) and _agree(model, alone, _bits(model, [same_length, shortest], logits)):
        return "equal lengths"
    return "one at a time"


def _bits(model: OpenModel, windows: Sequence[np.ndarray], logits: Callable[[OpenModel, Tensor], Tensor]) -> np.ndarray:
    """Bits of each token of the last window, given those before it; empty where the model returns no logits."""
    inputs = np.zeros((len(windows), max(len(ids) for ids in windows) - 1), dtype=np.int64)
    for row, ids in enumerate(windows):
        inputs[row, : len(ids) - 1] = ids[:-1]
    own = torch.from_numpy(windows[-1][1:].astype(np.int64))
    with torch.no_grad():
        found = logits(model, torch.from_numpy(inputs).to(model.device))
        if tuple(getattr(found, "shape", ())) != (*inputs.shape, model.vocab_size):
            return np.zeros(0)  # reading the first batch says so
        return code_tokens(found[-1, : len(own)], torch.arange(len(own)), own).ideal_bits


def _agree(model: OpenModel, one: np.ndarray, other: np.ndarray) -> bool:
    if one.shape != other.shape:
        return True
    finite = np.isfinite(one) & np.isfinite(other)
    if not finite.any():
        return True
    dtype = model.record["dtype"] or "float32"
    rounding = _ROUNDING_BITS.get(dtype, _ROUNDING_BITS_ELSEWHERE)
    if model.device.type != "cpu":
        rounding = max(rounding, _ROUNDING_BITS_CUDA)
    return bool(np.abs(one[finite] - other[finite]).mean() <= rounding)
