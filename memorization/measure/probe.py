"""Eight tokens that show what a model is: the width of its logits, and whether it is causal."""

import sys
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from memorization.errors import ModelError, NotCausalError
from memorization.measure.failures import first_line

_PROBE_LENGTH = 8


def forward_of(model: Any) -> Callable[[Tensor], Tensor]:
    """Ids to logits. transformers models are told not to keep a key-value cache, which would be memory for nothing."""
    transformers = sys.modules.get("transformers")
    options = {"use_cache": False} if transformers and isinstance(model, transformers.PreTrainedModel) else {}

    def logits(ids: Tensor) -> Tensor:
        output = model(ids, **options)
        found: Tensor = getattr(output, "logits", output)
        return found

    return logits


def probe(
    forward: Callable[[Tensor], Tensor], device: torch.device, declared: int | None, max_length: int | None, name: str
) -> int:
    """Width of the logits, after checking their shape and that they do not depend on later tokens."""
    length = min(_PROBE_LENGTH, max_length or _PROBE_LENGTH)
    ids = torch.randint(declared or 2, (1, length), generator=torch.Generator().manual_seed(0))
    ids[0, -1] = 0
    other = ids.clone()
    other[0, -1] = (declared or 2) - 1
    try:
        first, second = forward(ids.to(device)), forward(other.to(device))
    except Exception as error:
        raise ModelError(
            f"{name} failed on {length} token ids of shape {tuple(ids.shape)}: {first_line(error)}. It must map int64 ids (batch, "
            "position) to logits. If it takes fewer positions than that, pass max_length."
        ) from error
    if (
        not isinstance(first, Tensor)
        or first.dim() != 3
        or first.shape[:2] != ids.shape
        or not first.is_floating_point()
    ):
        raise wrong_shape(name, tuple(ids.shape), first, declared)
    before, after = first[0, :-1].float(), second[0, :-1].float()
    moved = torch.where(before == after, 0.0, (after - before).abs()).amax(dim=-1)  # -inf twice is no move
    # Kernels may sum in another order when the last token changes: a mixture of experts moves by 1.5e-6 of the spread in float32, an
    # untrained bidirectional model by 1e-3 or more.
    spread = float(before[before.isfinite()].std(correction=0)) if length > 1 else 0.0
    tolerance = (2e-2 if first.element_size() < 4 else 1e-4) * spread + 1e-6
    if bool((moved > tolerance).any()):
        position = int((moved > tolerance).nonzero()[0])
        raise NotCausalError(
            f"{name} is not causal: changing the token at position {length - 1} moved the logits at position {position} by "
            f"{float(moved[position]):.3g}. Its probabilities define no code. Is it a masked language model, or is its causal mask off?"
        )
    return int(first.shape[2])


def wrong_shape(name: str, ids_shape: Sequence[int], logits: Any, vocab_size: int | None) -> ModelError:
    """The error for what is not logits."""
    expected = f"({ids_shape[0]}, {ids_shape[1]}, {vocab_size or 'vocabulary'})"
    got = f"{tuple(logits.shape)} {logits.dtype}" if isinstance(logits, Tensor) else type(logits).__name__
    return ModelError(
        f"{name} must map int64 ids of shape {tuple(ids_shape)} to floating-point logits {expected}, or to an object with .logits; "
        f"it returned {got}"
    )
