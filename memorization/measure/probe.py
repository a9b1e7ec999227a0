"""A probe of eight tokens: the width of a model's logits, whether it is causal, and what tells it from others."""

import contextlib
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from memorization.errors import ImpossibleTokenError, ModelError, NotCausalError
from memorization.measure.adapters import n_virtual_tokens, switched_off
from memorization.measure.failures import first_line
from memorization.measure.fingerprint import probe_record
from memorization.measure.wrappers import unwrapped

_LENGTH = 8


class Forward:
    """Ids to logits, for as long as the model is open.

    transformers models are told not to keep a key-value cache, which would be memory for nothing. Of a tuple the first
    part is read as the logits, of a mapping the one of that name.
    """

    _around: Callable[[Any], contextlib.AbstractContextManager[None]] | None = None

    def __init__(self, model: Callable[..., Any], name: str, place: torch.device | None = None):
        self.model, self._name, self._place = model, name, place
        # Tokens that an adapter puts in front have logits, too, and would be put there at every step.
        self._n_in_front = n_virtual_tokens(model)
        self._options = {"use_cache": False} if _is_of_transformers(model) and not self._n_in_front else {}
        self.is_open = True

    def without_adapters(self, name: str) -> "Forward":
        """The same model with its adapters switched off in each call."""
        forward = Forward(self.model, name, self._place)
        forward._n_in_front, forward._around = 0, switched_off
        return forward

    @property
    def may_keep_state(self) -> bool:
        """Whether the model can be asked for its key-value cache or recurrent state: it is one of transformers."""
        return bool(self._options)

    def __call__(self, ids: Tensor) -> Tensor:
        """Logits, or what the model returned in their place."""
        found: Tensor = _logits_in(self._output(ids, **self._options))
        return found[:, self._n_in_front :] if self._n_in_front else found

    def step(self, ids: Tensor, state: Mapping[str, Any]) -> tuple[Tensor, dict[str, Any]]:
        """Logits of ids that come after what the state has read, and the state that has read them, too; {} before all.

        The state is empty where the model returned none.
        """
        output = self._output(ids, use_cache=True, **state)
        found: Tensor = _logits_in(output)
        kept = {name: getattr(output, name, None) for name in ("past_key_values", "cache_params", "state")}
        return found, {name: value for name, value in kept.items() if value is not None}

    def _output(self, ids: Tensor, **options: Any) -> Any:
        if not self.is_open:
            raise ModelError(
                f"{self._name} was opened in a block that has ended, and its mode and device are its owner's again. "
                "Measure inside the block: with open_model(...) as model."
            )
        around = contextlib.nullcontext() if self._around is None else self._around(self.model)
        with around, self._place if self._place is not None else contextlib.nullcontext():
            return self.model(ids, **options)


def _logits_in(output: Any) -> Any:
    if isinstance(output, Mapping) and "logits" in output:
        return output["logits"]
    if isinstance(output, (tuple, list)) and output and not hasattr(output, "logits"):
        return output[0] if isinstance(output[0], Tensor) and output[0].dim() == 3 else output
    return getattr(output, "logits", output)


def _is_of_transformers(model: Any) -> bool:
    """Whether its forward takes use_cache: a transformers model, compiled or with an adapter or not."""
    transformers, peft = sys.modules.get("transformers"), sys.modules.get("peft")
    if not isinstance(model, nn.Module) or transformers is None:
        return False
    model = unwrapped(model)
    if peft is not None and isinstance(model, peft.PeftModel):
        model = model.get_base_model()
    return isinstance(model, transformers.PreTrainedModel)


def probe(
    forward: Callable[[Tensor], Tensor], device: torch.device, declared: int | None, max_length: int | None, name: str
) -> tuple[int, dict[str, Any] | None]:
    """Width and digest of the logits, after checking their shape and that they do not depend on later tokens.

    A model that fails on eight tokens may have fewer positions: it is tried with four, two and one before it is
    refused.

    Raises:
        ModelError: it fails, returns no logits, or gives other logits to the same ids each time.
        NotCausalError: a later token moved an earlier logit.
        ImpossibleTokenError: not one of its logits is a number.
    """
    ids, first = _first_logits(forward, device, declared, max_length, name)
    if first.is_meta:
        raise ModelError(f"{name} returned logits on the meta device, which hold no values. Load its weights first.")
    if not bool(first.isfinite().any()):
        raise ImpossibleTokenError(
            f"the logits of {name} are NaN or infinite at all of {ids.shape[1]} tokens that it was tried with: no "
            "code length exists. "
            f"{remedy_of_nan(first.element_size() < 4)}"
        )
    _check_logits(first, name)
    _check_causal(lambda tried: forward(tried.to(device)), ids, first, declared, name)
    width = int(first.shape[2])
    if declared is None:  # ids of 0 and 1 tell little
        wide = _ids(width, ids.shape[1])
        with contextlib.suppress(Exception):  # it may know fewer tokens than it has logits
            told = forward(wide.to(device))
            if told.shape == first.shape:
                ids, first = wide, told
    return width, probe_record(ids, first)


def _ids(vocab_size: int, length: int) -> Tensor:
    """The same tokens for the same vocabulary; fewer of them are the first of them."""
    ids = torch.randint(vocab_size, (1, _LENGTH), generator=torch.Generator().manual_seed(0))[:, :length].clone()
    ids[0, -1] = 0
    return ids


def _first_logits(
    forward: Callable[[Tensor], Tensor], device: torch.device, declared: int | None, max_length: int | None, name: str
) -> tuple[Tensor, Tensor]:
    length = longest = min(_LENGTH, max_length or _LENGTH)
    failure: Exception | None = None
    while length:
        ids = _ids(declared or 2, length)
        try:
            logits = forward(ids.to(device))
        except Exception as error:
            failure = failure or error
            length //= 2
            continue
        if (
            not isinstance(logits, Tensor)
            or logits.dim() != 3
            or logits.shape[:2] != ids.shape
            or not logits.is_floating_point()
            or logits.element_size() < 2  # float8, with which torch cannot compute
        ):
            raise wrong_shape(name, tuple(ids.shape), logits, declared)
        return ids, logits
    raise ModelError(
        f"{name} failed on {longest} token ids of shape {(1, longest)}: {first_line(failure).rstrip('.')}. It must "
        "map int64 ids (batch, position) to logits. If it takes fewer positions than that, pass max_length."
    ) from failure


def _check_logits(first: Tensor, name: str) -> None:
    """Refuse probabilities: read as logits, they make another model."""
    rows = first.detach().double()
    told = not bool((rows == rows[..., :1]).all() or ((rows == 0) | (rows == 1)).all())  # even, or ones and zeros
    if not told or bool((rows < 0).any()):
        return
    if bool(((rows.sum(-1) - 1).abs() < (1e-2 if first.element_size() < 4 else 1e-4)).all()):
        raise ModelError(
            f"{name} returned probabilities: at each position they are at least 0 and add up to 1. Expected are "
            "logits; the logarithms of the probabilities are logits, too."
        )


def _again(forward: Callable[[Tensor], Tensor], tried: Tensor, first: Tensor, name: str) -> Tensor:
    """Logits of other ids, of the shape that the first had."""
    try:
        logits = forward(tried)
    except Exception as error:
        raise ModelError(
            f"{name} failed on the token ids {tried[0].tolist()}: {first_line(error)}. It took others. Does its "
            "configuration (vocab_size) name more tokens than it knows?"
        ) from error
    if getattr(logits, "shape", None) != first.shape:
        raise wrong_shape(name, tuple(tried.shape), logits, first.shape[2])
    return logits


def _check_causal(
    forward: Callable[[Tensor], Tensor], ids: Tensor, first: Tensor, declared: int | None, name: str
) -> None:
    length = ids.shape[1]
    # Kernels may sum in another order when the last token changes: a mixture of experts moves by 1.5e-6 of the spread
    # in float32, an untrained bidirectional model by 1e-3 or more.
    finite = first[first.isfinite()].float()
    tolerance = (2e-2 if first.element_size() < 4 else 1e-4) * float(finite.std(correction=0)) + 1e-6

    def moved(tried: Tensor, upto: int) -> tuple[int, float] | None:
        """The first position of `upto` whose logits are others with these ids, and by how much."""
        before, after = first[0, :upto].float(), _again(forward, tried, first, name)[0, :upto].float()
        by = torch.where(before == after, 0.0, (after - before).abs()).amax(dim=-1)  # -inf twice is no move
        over = (by > tolerance).nonzero()
        return (int(over[0]), float(by[int(over[0])])) if len(over) else None

    other = ids.clone()
    other[0, -1] = (declared or 2) - 1
    found = moved(other, length - 1) if length > 1 else None
    if found is None and length > 1:
        return
    again = moved(ids, length)  # is it the last token, or chance?
    if again is not None:
        raise ModelError(
            f"{name} gives other logits to the same ids each time: the second time those at position {again[0]} had "
            f"moved by {again[1]:.3g}. Its output is random, or it keeps a state between calls, and defines no code. "
            "Is dropout on? Put the model into eval mode; dropout in a function call needs training=self.training, "
            "or p=0."
        )
    if found is not None:
        raise NotCausalError(
            f"{name} is not causal: changing the token at position {length - 1} moved the logits at position "
            f"{found[0]} by {found[1]:.3g}. Its probabilities define no code. Is it a masked language model, or is "
            "its causal mask off? Activations that are quantized by one scale for all tokens do the same, and so does "
            "bitsandbytes in 8 bits, which looks for outliers in all tokens: llm_int8_threshold=0.0 turns that off."
        )


def remedy_of_nan(half: bool) -> str:
    """What to try where logits are not finite."""
    if half:
        return (
            'A float16 overflow is a common cause: try dtype="float32" for a model loaded by name, or convert the '
            "model with its float()."
        )
    return "Are its weights damaged, or is a position masked with -inf?"


def wrong_shape(name: str, ids_shape: Sequence[int], logits: Any, vocab_size: int | None) -> ModelError:
    """The error for what is not logits."""
    rows, length = ids_shape
    expected = f"({rows}, {length}, {vocab_size or 'vocabulary'})"
    hint = ""
    if isinstance(logits, Tensor):
        got = f"{tuple(logits.shape)} {logits.dtype}"
        if logits.dim() == 3 and logits.shape[:2] == (rows, 1) and length > 1:
            hint = " It seems to predict the last position alone; all of them are needed."
    else:
        got = type(logits).__name__
        if hasattr(logits, "last_hidden_state"):
            hint = " It has no output head: pass the model that has one, such as a transformers ...ForCausalLM."
        if isinstance(logits, (tuple, list)):
            got += f" of {', '.join(type(part).__name__ for part in logits) or 'nothing'}"
            hint = " Of a tuple, the first part must be the logits."
    return ModelError(
        f"{name} must map int64 ids of shape {tuple(ids_shape)} to floating-point logits {expected}, or to an object "
        f"with .logits; it returned {got}.{hint}"
    )
