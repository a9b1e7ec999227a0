"""Whether a model's answer depends on the batch, and what a batch may hold if so."""

from collections.abc import Callable
from typing import Literal, TypeAlias

import numpy as np
import torch
from torch import Tensor

from memorization.coding.intervals import code_tokens
from memorization.measure.opening import OpenModel, UniformModel

__all__ = ["Batching", "Trial"]

# "any": windows of any length side by side, padded on the right; "equal lengths": no padding; "one at a time": no
# company at all.
Batching: TypeAlias = Literal["any", "equal lengths", "one at a time"]

# Mean difference in bits a token that is rounding: another batch has kernels sum in another order. Float32 on a CPU
# stays below 1e-5.
_ROUNDING_BITS = {"float32": 1e-4, "float64": 1e-4}
_ROUNDING_BITS_ELSEWHERE = 0.05  # half precision, quantized weights
_ROUNDING_BITS_CUDA = 1e-3


class Trial:
    """Whether a window says the same in company as alone, found on the first batch that mixes lengths, once a model.

    Some models choose by the padded length (LongRoPE and dynamic RoPE take other frequencies for a whole batch that is
    long), look at the padding, or share something between rows (experts with a capacity, statistics of the batch). Any
    of these shows where the longest window that has company meets the shortest one, which is run alone as well. That is
    all it costs: the batch is measured anyway.
    """

    def __init__(self, model: OpenModel, logits: Callable[[OpenModel, Tensor], Tensor]):
        """`logits`: of a batch, in the caller's words where it fails."""
        self.batching: Batching = "any"
        self.has_company = False  # whether a batch with several windows has come
        self._model, self._logits = model, logits

    def covers(self, longest: int, shortest: int) -> bool:
        """Whether windows of these lengths, in inputs, need no trial any more."""
        if self.batching != "any" or self._model.record["class"] == UniformModel.__name__:
            return True
        return any(shortest >= short and longest <= long for long, short in self._model.indifferent)

    def passed(self, inputs: np.ndarray, own: np.ndarray, logits: Tensor) -> bool:
        """Whether a batch says what its last row says alone; if not, `batching` is from now on what does.

        Args:
            inputs: ids of the batch, int64 (window, position), longest window first, padded on the right.
            own: the tokens that the last row predicts, as many as it has inputs.
            logits: of the batch.
        """
        n, longest = len(own), inputs.shape[1]
        if self.covers(longest, n):
            return True
        alone = self._bits(inputs[-1:, :n], own)
        if _agree(self._model, alone, _bits_of(logits[-1], own)):
            self._model.indifferent.append((longest, n))
            return True
        same_length = longest > n and _agree(self._model, alone, self._bits(inputs[[0, -1], :n], own))
        self.batching = "equal lengths" if same_length else "one at a time"
        return False

    def _bits(self, inputs: np.ndarray, own: np.ndarray) -> np.ndarray:
        """Bits of each token of the last row; empty where the model returns no logits, which reading a batch says."""
        found = self._logits(self._model, torch.from_numpy(inputs).to(self._model.device))
        if tuple(getattr(found, "shape", ())) != (*inputs.shape, self._model.vocab_size):
            return np.zeros(0)
        return _bits_of(found[-1], own)


def _bits_of(logits: Tensor, own: np.ndarray) -> np.ndarray:
    """Bits of each token of a row."""
    return code_tokens(logits[: len(own)], torch.arange(len(own)), torch.from_numpy(own.astype(np.int64))).ideal_bits


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
