"""How many windows share a batch: what the caller and the memory allow, and how much padding a pass is worth."""

import math
from collections.abc import Iterable
from typing import Any, Literal, NamedTuple

import torch
from torch import nn

from memorization.integers import check_integer
from memorization.measure.opening import OpenModel

__all__ = ["BatchSize", "Bounds", "bounds_of", "check_batch_size", "n_together"]

# "auto" batches: logits of at most 256 MiB (CPU) or a tenth of the memory (GPU), since a forward pass holds a few times
# as much beside them; and so few tokens that the activations of a wide model with a small vocabulary fit as well.
_CPU_LOGITS_BYTES = 1 << 28
_GPU_LOGITS_SHARE = 0.1
_MOST_TOKENS = {"cpu": 1 << 14, "cuda": 1 << 17}

# What a forward pass costs beside its tokens, in tokens: the weights are read from memory once, which takes as long as
# to multiply some tens of tokens with them (a GPU: some hundreds); and each module is started, which takes as long as
# so many multiply-adds. A token costs one of these a parameter, and what does not depend on the parameters.
_READING_WEIGHTS_TOKENS = {"cpu": 25, "cuda": 300}
_STARTING_A_MODULE = {"cpu": 1.5e6, "cuda": 4e9}
_TOKEN_WITHOUT_PARAMETERS = 1e5
# A batch of 16 times what the pass costs beside is at most 6 % dearer than the largest, and smaller ones stay in a
# processor's cache.
_TOKENS_A_SETUP = 16


class BatchSize(NamedTuple):
    """What the caller lets a batch hold; both bounds hold."""

    windows: int | Literal["auto"] = "auto"
    tokens: int | None = (
        None  # with the padding; None: what the memory holds where `windows` is "auto", else any number
    )

    def record(self) -> dict[str, Any]:
        """For the settings of a result."""
        return {"batch_size": self.windows, "max_batch_tokens": self.tokens}


class Bounds(NamedTuple):
    """The most that a batch may hold, and the padding it may have; None where there is no limit."""

    windows: int | None
    tokens: int | None
    padding: int | None


def check_batch_size(batch_size: Any, max_batch_tokens: Any = None) -> BatchSize:
    """Samples a forward pass, "auto" or an integer of at least 1; and tokens, an integer of at least 1 or None."""
    if isinstance(batch_size, BatchSize):
        return batch_size
    tokens = None if max_batch_tokens is None else check_integer("max_batch_tokens", max_batch_tokens, besides="None")
    if isinstance(batch_size, str) and batch_size == "auto":
        return BatchSize("auto", tokens)
    return BatchSize(check_integer("batch_size", batch_size, besides='"auto"'), tokens)


def bounds_of(model: OpenModel, batch_size: BatchSize) -> Bounds:
    """What a batch may hold. An "auto" batch ends where a larger one would not pay."""
    if batch_size.windows != "auto":
        return Bounds(batch_size.windows, batch_size.tokens, None)
    most, setup = batch_size.tokens or _tokens_in_memory(model), _setup_tokens(model)
    tokens = max(1, int(min(most, _TOKENS_A_SETUP * setup)))
    return Bounds(None, tokens, int(min(setup, tokens / _TOKENS_A_SETUP)))


def n_together(lengths: Iterable[int], bounds: Bounds) -> int:
    """How many of the next windows, whose lengths come from long to short, share a batch; one at least.

    It ends before its padding costs more than another forward pass. Where lengths fall evenly, no other cut costs less.

    Examples:
        >>> n_together([9, 9, 8, 5, 2], Bounds(windows=None, tokens=100, padding=6))
        4
    """
    longest = padding = n = 0
    for length in lengths:
        longest = longest or length
        padding += longest - length
        over = (
            bounds.windows is not None and n + 1 > bounds.windows,
            bounds.tokens is not None and (n + 1) * longest > bounds.tokens,
            bounds.padding is not None and padding > bounds.padding,
        )
        if n and any(over):
            break
        n += 1
    return n


def _setup_tokens(model: OpenModel) -> float:
    """What a forward pass costs beside its tokens, in tokens; inf where the model does not show its modules."""
    module = getattr(model.logits, "model", None)
    if not isinstance(module, nn.Module):
        return math.inf
    kind = "cuda" if model.device.type == "cuda" else "cpu"
    n_parameters = model.record["n_params"] or 0
    n_modules = sum(not any(True for _ in one.children()) for one in module.modules())
    started = n_modules * _STARTING_A_MODULE[kind] / (n_parameters + _TOKEN_WITHOUT_PARAMETERS)
    return _READING_WEIGHTS_TOKENS[kind] + started


def _tokens_in_memory(model: OpenModel) -> int:
    if model.device.type == "cuda":
        logits_bytes = int(torch.cuda.get_device_properties(model.device).total_memory * _GPU_LOGITS_SHARE)
        return min(_MOST_TOKENS["cuda"], logits_bytes // 4 // model.vocab_size)
    return min(_MOST_TOKENS["cpu"], _CPU_LOGITS_BYTES // 4 // model.vocab_size)
