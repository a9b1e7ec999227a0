"""A model that reads one token at a time: what a decoder, which does not know the next one, can do as well.

A batched pass gives other last digits than reading token by token, and a decoder needs every digit. So both sides of
`compress` and `decompress` read as this file does: batch 1, one token a step, and the same steps in the same order.
"""

from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from memorization.errors import ModelError
from memorization.measure.failures import first_line
from memorization.measure.opening import OpenModel
from memorization.measure.probe import Forward, wrong_shape

__all__ = ["LONGEST_PREFIX", "Path", "Reading", "way_of"]

# How a model reads the next token: with its own key-value cache or recurrent state, or all of the window anew.
Path = Literal["prefix", "state"]
LONGEST_PREFIX = 1024  # inputs of a window where all of it is read anew and nothing limits it
_TRIED = 4  # tokens by which the two ways are compared
# Parts of the spread of the logits by which the ways may differ: kernels sum in another order.
_NOISE = {"full": 1e-3, "half": 5e-2}


def way_of(model: OpenModel) -> Path:
    """How the model is to read: "state" where it keeps one and gives the same logits with it as in one pass."""
    forward = model.logits
    if not (isinstance(forward, Forward) and forward.may_keep_state):
        return "prefix"
    ids = torch.arange(min(_TRIED, model.max_length or _TRIED)) % model.vocab_size
    with torch.no_grad():
        whole = forward(ids[None].to(model.device))[0].double()
        state: dict[str, Any] = {}
        for i, token in enumerate(ids):
            try:
                logits, state = forward.step(token.view(1, 1).to(model.device), state)
                row = logits[0, -1].double()
            except Exception:  # whatever a model raises that takes no state after all
                return "prefix"
            if not state or row.shape != whole[i].shape or not _alike(row, whole[i], logits.element_size() < 4):
                return "prefix"
    return "state"


def _alike(row: Tensor, other: Tensor, half: bool) -> bool:
    spread = float(other[other.isfinite()].std(correction=0))
    apart = torch.where(row == other, 0.0, (row - other).abs())  # -inf twice is no difference
    return bool((apart <= _NOISE["half" if half else "full"] * spread + 1e-6).all())


class Reading:
    """What a model has read of one sample, in windows of at most `max_length` inputs.

    When a window is full, the next one begins with its last `max_length - max_length // 2` inputs and goes on, so that
    a token is predicted from more than half a window: the windows of `compress_bits` and its default stride, but for
    the last one.

    Args:
        model: an open model.
        path: how it reads; the same on both sides.
        context: id of the token in front; None where nothing stands there.
        max_length: inputs a window holds at most; None for no limit.
    """

    def __init__(self, model: OpenModel, path: Path, context: int | None, max_length: int | None):
        self._model, self._path, self._max_length = model, path, max_length
        self._held: list[int] = []  # inputs of the window that were read
        self._next: list[int] = [] if context is None else [context]
        self._state: dict[str, Any] = {}
        self._row: Tensor | None = None

    def read(self, token: int) -> None:
        """Take a token for the next input; the model is asked when `row` is."""
        self._next.append(token)

    def row(self) -> Float[Tensor, " vocab"] | None:
        """Logits of what comes next; None where nothing was read."""
        for token in self._next:
            if self._max_length is not None and len(self._held) >= self._max_length:
                self._begin_again()
            self._row = self._step(token)
        self._next = []
        return self._row

    def _begin_again(self) -> None:
        assert self._max_length is not None
        kept = self._max_length - max(1, self._max_length // 2)  # the next input comes on top
        tail = self._held[len(self._held) - kept :]
        self._held, self._state = [], {}
        if self._path == "prefix":
            self._held = tail
            return
        for token in tail:
            self._step(token)

    @torch.no_grad()
    def _step(self, token: int) -> Float[Tensor, " vocab"]:
        self._held.append(token)
        forward, state = self._model.logits, self._path == "state"
        ids = torch.tensor([[token] if state else self._held], device=self._model.device)
        try:
            if state and isinstance(forward, Forward):
                logits, self._state = forward.step(ids, self._state)
            else:
                logits = forward(ids)
        except Exception as error:
            raise ModelError(
                f"{self._model.record['name']} failed on input {len(self._held)} of a window: "
                f"{first_line(error).rstrip('.')}. If it takes fewer, pass max_length."
            ) from error
        if logits.shape != (1, ids.shape[1], self._model.vocab_size):
            raise wrong_shape(self._model.record["name"], tuple(ids.shape), logits, self._model.vocab_size)
        return logits[0, -1]
