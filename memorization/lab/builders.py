"""Builders of models: seeded weights, the check that a builder can be trained, and what tells one from another."""

import hashlib
import math
import re
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor, nn

from memorization.errors import InputError, ModelError, NotCausalError
from memorization.lab.architectures.counting import ParamCounts, count_params
from memorization.measure.failures import first_line
from memorization.measure.opening import open_model

__all__ = [
    "Builder",
    "KnownBuilder",
    "build_seeded",
    "known_builder",
    "list_of_builders",
    "logits_of",
    "name_of",
    "stream",
]

Builder = Callable[[int, int], nn.Module]

# Of torch's global generator, of which there is one for all threads. A builder may seed another: it holds it already.
_GENERATOR = threading.RLock()
_ROWS = 2  # samples of a probe
_DIGITS = 3
_PROJECTIONS = 3


@dataclass(frozen=True, slots=True)
class KnownBuilder:
    """A builder that was found fit: called with (vocab_size, seq_len), it gives a causal model of that many logits.

    Attributes:
        build: the builder; of models that return a dict or a tuple, one of models that return their logits.
        identity: its name, and a digest of what its models compute; see `known_builder`.
        params: how many parameters its models have.
    """

    build: Builder
    identity: str
    params: ParamCounts

    @property
    def name(self) -> str:
        """The identity without its digest, for people to read."""
        return self.identity.rsplit(" ", 1)[0]


def build_seeded(build: Builder, vocab_size: int, seq_len: int, seed: int) -> nn.Module:
    """A new model with the weights of this seed; torch's global generator stays as it was."""
    model: nn.Module = _seeded(build, vocab_size, seq_len, seed)
    return model


def _seeded(build: Builder, vocab_size: int, seq_len: int, seed: int) -> Any:
    """Whatever a builder returns, which may be no model."""
    with _GENERATOR, torch.random.fork_rng(devices=[]):
        torch.manual_seed(stream("weights", seed))
        return build(vocab_size, seq_len)


def stream(purpose: str, seed: int) -> int:
    """A seed of its own for each purpose: the same weights must not always meet the same data."""
    return int.from_bytes(hashlib.sha256(f"{purpose} {seed}".encode()).digest()[:7], "big")


def logits_of(output: Any) -> Any:
    """The logits in what a model returns: the tensor, the object's `.logits`, a dict's "logits", a tuple's first."""
    if hasattr(output, "logits"):
        return output.logits
    if isinstance(output, Mapping):
        return output.get("logits", output)
    return output[0] if isinstance(output, tuple | list) and output else output


class _LogitsAlone(nn.Module):
    """A model that returns a dict or a tuple, returning its logits."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, ids: Int[Tensor, "batch position"]) -> Any:
        return logits_of(self.model(ids))


def _with_logits_alone(build: Builder, vocab_size: int, seq_len: int) -> nn.Module:
    return _LogitsAlone(build(vocab_size, seq_len))


def list_of_builders(name: str, given: Any) -> list[Builder]:
    """One builder or several, as a list.

    Raises:
        InputError: there is none among them.
    """
    builders = [given] if callable(given) else list(given) if isinstance(given, Sequence) else [given]
    if not builders:
        raise InputError(f"{name} is an empty list; give one builder for each model size.")
    for builder in builders:
        if not callable(builder):
            raise InputError(
                f"{name} must be a function of (vocab_size, seq_len) that returns a new torch.nn.Module, or a list of "
                f"such; a {type(builder).__name__} came."
            )
    return builders


def known_builder(build: Builder, vocab_size: int, seq_len: int) -> KnownBuilder:
    """Build a few models and look at them, before anything is trained.

    The identity is made of what the model computes, not of how it is written. It changes with the builder's name, with
    the shapes of the parameters and what of them is frozen, with the initial weights, and with logits or gradients, as
    the model is built and with its weights moved, that differ by a thousandth or more: a changed activation, class,
    global or forward. A renamed attribute, a comment or another file do not change it. Rounding makes it the same on
    another machine: of a thousand float32 models fewer than ten come out otherwise there, and are then trained again.

    Raises:
        InputError: the builder's own.
        ModelError: the builder fails, or what it builds cannot be trained or measured: says what came and what to try.
        NotCausalError: a later token moves an earlier logit.
    """
    name = name_of(build)
    model, other = (_built(build, name, vocab_size, seq_len, seed) for seed in (0, 1))
    _check_new(name, model, other)
    ids = _probe_ids(vocab_size, seq_len)
    with _left_as_it_was(model):
        _logits(model, name, torch.zeros_like(ids), vocab_size)  # a model of another vocabulary has token 0, too
        for training in (True, False):
            logits = _logits(model.train(training), name, ids, vocab_size)
            again = _logits(model, name, ids, vocab_size)
            if training and not torch.allclose(logits, again, rtol=0, atol=0, equal_nan=True):
                raise ModelError(
                    "the model gives other logits each time it runs in training mode; set its dropout to 0."
                )
        with torch.no_grad():
            packed = model(ids.to(next(model.parameters()).device))
    params = count_params(model)
    if isinstance(packed, Mapping | tuple | list) and not hasattr(packed, "logits"):
        build, model = partial(_with_logits_alone, build), _LogitsAlone(model)
    try:
        with open_model(model, max_length=seq_len, progress=False):
            pass  # refuses what is not causal
    except NotCausalError as error:
        raise NotCausalError(f"the builder's model cannot be measured: {error}") from error
    with _left_as_it_was(model):
        digest = _digest(model, ids)
    return KnownBuilder(build, f"{name} {digest}", params)


@contextmanager
def _left_as_it_was(model: nn.Module) -> Iterator[None]:
    """A model may hold what is not its own: a frozen base that all models of a builder share."""
    modes = [(module, module.training) for module in model.modules()]
    tensors = [(tensor, tensor.detach().clone()) for tensor in (*model.parameters(), *model.buffers())]
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training
        with torch.no_grad():
            for tensor, before in tensors:
                tensor.copy_(before)


def name_of(build: Builder) -> str:
    """Its repr if it has one of its own, else its qualified name."""
    if isinstance(build, partial):
        return f"partial({name_of(build.func)})"
    if isinstance(build, nn.Module) or repr(build).startswith("<") or re.search(" at 0x[0-9A-Fa-f]+", repr(build)):
        return getattr(build, "__qualname__", type(build).__qualname__)
    return repr(build)


def _built(build: Builder, name: str, vocab_size: int, seq_len: int, seed: int) -> nn.Module:
    wanted = "a builder is a function of (vocab_size, seq_len) that returns a new torch.nn.Module"
    if isinstance(build, nn.Module):
        raise ModelError(
            f"a model, {name}, came in place of a builder; {wanted}. Pass the function that makes it: "
            f"lambda vocab_size, seq_len: {name}(...)."
        )
    try:
        model = _seeded(build, vocab_size, seq_len, seed)
    except (InputError, ModelError):  # an Architecture says it better
        raise
    except Exception as error:
        raise ModelError(
            f"the builder {name} failed when it was called with ({vocab_size}, {seq_len}): {type(error).__name__}: "
            f"{first_line(error).rstrip('.')}. Here {wanted}."
        ) from error
    if not isinstance(model, nn.Module):
        raise ModelError(f"the builder {name} returned a {type(model).__name__}; {wanted}.")
    return model


def _check_new(name: str, first: nn.Module, second: nn.Module) -> None:
    """Two models of one builder share nothing that is trained; a frozen base they may share."""
    trained = {id(parameter) for parameter in first.parameters() if parameter.requires_grad}
    if not trained:
        raise ModelError("the builder's model has no trainable parameter, so it can hold nothing.")
    if any(id(parameter) in trained for parameter in second.parameters()):
        raise ModelError(
            f"the builder {name} returns the same model each time, or models that share trainable parameters: all "
            "runs would train one model. Make a new one in each call."
        )


def _probe_ids(vocab_size: int, seq_len: int) -> Int[Tensor, "sample position"]:
    return torch.randint(vocab_size, (_ROWS, seq_len), generator=torch.Generator().manual_seed(0))


@torch.no_grad()
def _logits(model: nn.Module, name: str, ids: Int[Tensor, "sample position"], vocab_size: int) -> Tensor:
    n_samples, seq_len = ids.shape
    device = next(model.parameters()).device
    try:
        logits: Any = logits_of(model(ids.to(device)))
    except (InputError, ModelError):
        raise
    except Exception as error:
        raise ModelError(
            f"the model of builder {name} failed on {n_samples} x {seq_len} token ids below {vocab_size}: "
            f"{type(error).__name__}: {first_line(error).rstrip('.')}. Has it positions for {seq_len} tokens, and "
            "does it use the vocab_size that it is called with?"
        ) from error
    shape = (n_samples, seq_len, vocab_size)
    words = f"the builder's model must map ids of shape ({n_samples}, {seq_len}) to logits of shape {shape}; "
    if not isinstance(logits, Tensor):
        raise ModelError(
            f"{words}it returned a {type(logits).__name__}. Return the logits alone, first in a tuple, or as "
            "`logits` of an object or a dict."
        )
    if tuple(logits.shape) != shape:
        raise ModelError(
            f"{words}their shape is {tuple(logits.shape)}. Does it use the vocab_size and seq_len that it is called "
            "with?"
        )
    if not logits.is_floating_point():
        raise ModelError(f"{words}they are {logits.dtype}, and must be floating-point numbers.")
    return logits


def _digest(model: nn.Module, ids: Int[Tensor, "sample position"]) -> str:
    """Twelve hexadecimal digits of what a model is made of and what it computes."""
    parts = [(tuple(p.shape), p.requires_grad, str(p.dtype)) for p in model.parameters()]
    buffers = [(tuple(b.shape), str(b.dtype)) for b in model.buffers()]
    figures = [*_figures(model.eval(), ids), *_figures(model.train(), ids)]
    with torch.no_grad():
        for index, parameter in enumerate(model.parameters()):
            # Off its start, where much can cancel: a head of zeros hides all that is below it.
            if parameter.is_floating_point():
                noise = torch.randn(parameter.shape, generator=torch.Generator().manual_seed(index)).to(parameter)
                parameter.add_(noise * 0.5 / max(1, parameter.shape[-1] if parameter.dim() else 1) ** 0.5)
    figures += [*_figures(model.eval(), ids), *_figures(model.train(), ids)]
    return hashlib.sha256(repr((parts, buffers, figures)).encode()).hexdigest()[:12]


def _figures(model: nn.Module, ids: Int[Tensor, "sample position"]) -> list[str]:
    """Sizes and projections of the logits and of the gradients of a cross-entropy, rounded to thousandths."""
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    device = trained[0].device
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        logits = logits_of(model(ids.to(device)))
        found = _rounded(logits)
        if not logits.requires_grad:
            return found
        nats = nn.functional.cross_entropy(logits.flatten(0, 1).float(), ids.to(device).flatten())
        gradients = torch.autograd.grad(nats, trained, allow_unused=True)
    used = [str(gradient is not None) for gradient in gradients]
    return [*found, *used, *_rounded(torch.cat([g.flatten().float() for g in gradients if g is not None]))]


def _rounded(values: Tensor) -> list[str]:
    """The log2 of a tensor's size, and its scaled cosines with fixed vectors of random signs, rounded.

    The cosines are multiplied by the root of the length.
    """
    flat = values.detach().to("cpu", torch.float64).flatten()
    finite = flat.isfinite()
    flat = torch.where(finite, flat, 0.0)
    norm = float(flat.norm())
    if norm == 0:
        return ["0", str(int(finite.sum()))]
    signs = torch.randint(2, (_PROJECTIONS, len(flat)), generator=torch.Generator().manual_seed(1)).double() * 2 - 1
    cosines = (signs @ flat / norm).tolist()
    figures = [
        f"{round(figure, _DIGITS) + 0.0:.{_DIGITS}f}" for figure in (math.log2(norm / len(flat) ** 0.5), *cosines)
    ]
    return [*figures, str(int(finite.sum()))]
