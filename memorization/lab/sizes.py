"""What is trained to find a capacity: models of one size, their data, and the seeds of both."""

import hashlib
import inspect
import math
import re
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import torch
from jaxtyping import Int
from torch import Tensor, nn

from memorization.capacity import information_ceiling_bits
from memorization.errors import InputError, ModelError
from memorization.lab.architectures import ParamCounts, count_params

__all__ = ["Builder", "Size", "build_seeded", "builder_identity", "random_tokens", "size_of", "stream"]

Builder = Callable[[int, int], nn.Module]

_GENERATOR = threading.Lock()  # torch's global one, of which there is one for all threads

# Bits per parameter that GPT-2 style models hold (arXiv:2505.24832, table 1): where to look for the plateau.
EXPECTED_BITS_PER_PARAM = 3.6
# A set that holds less than this many times the capacity may be what limits a model.
PLATEAU_INFORMATION = 1.25


@dataclass(frozen=True, slots=True)
class Size:
    """One model size: how to build it, and what it is trained on."""

    build: Builder
    identity: str
    params: ParamCounts
    n_samples: tuple[int, ...]
    batch_size: int


def size_of(
    build: Builder,
    vocab_size: int,
    seq_len: int,
    n_samples: Literal["auto"] | Sequence[int],
    batch_size: Literal["auto"] | int,
    data_multiples: Sequence[int | float],
) -> Size:
    """Build a model once to see what it is; choose its data sets and its batch."""
    model = build_seeded(build, vocab_size, seq_len, seed=0)
    params = count_params(model)
    if params.trainable == 0:
        raise ModelError("the builder's model has no trainable parameter, so it can hold nothing")
    with torch.no_grad():
        output = model(torch.zeros(2, seq_len, dtype=torch.int64))
    shape = tuple(getattr(output, "logits", output).shape)
    if shape != (2, seq_len, vocab_size):
        raise ModelError(
            f"the builder's model must map ids of shape (2, {seq_len}) to logits of shape (2, {seq_len}, {vocab_size}); "
            f"their shape is {shape}"
        )
    expected = EXPECTED_BITS_PER_PARAM * params.trainable
    sample_bits = seq_len * math.log2(vocab_size)
    if n_samples != "auto" and (not n_samples or min(n_samples) < 1):
        raise InputError(f'n_samples must be "auto" or numbers of at least 1; got {list(n_samples)}')
    if not data_multiples or min(data_multiples) <= 0:
        raise InputError(f"data_multiples must be above 0, at least one; got {list(data_multiples)}")
    automatic = sorted({max(1, round(multiple * expected / sample_bits)) for multiple in data_multiples})
    grid = automatic if n_samples == "auto" else sorted(set(n_samples))
    held = float(information_ceiling_bits(grid, seq_len, vocab_size).max())
    if held < PLATEAU_INFORMATION * expected:
        least = math.ceil(PLATEAU_INFORMATION * expected / sample_bits)
        # N (b - log2 N) is largest at N = 2^b / e, where it is N log2 e.
        most = 2 ** min(sample_bits, 500.0) / math.e * math.log2(math.e)
        hopeless = "; no number of samples so short will do: take a larger seq_len"
        longer = "" if most >= PLATEAU_INFORMATION * expected else hopeless
        raise InputError(
            f"n_samples={grid} are too few for a plateau: they hold at most {held:,.0f} bits, and {params.trainable:,} "
            f"parameters are expected to hold {expected:,.0f}; the largest set must have more than {least} samples, "
            f"better {2 * least} and more{longer}"
        )
    batch = max(1, round(expected / sample_bits / 2)) if batch_size == "auto" else batch_size
    return Size(build, _identity(build, model), params, tuple(grid), batch)


def random_tokens(n_samples: int, seq_len: int, vocab_size: int, seed: int) -> Int[Tensor, "sample position"]:
    """Uniform random token ids, int64, (n_samples, seq_len); a smaller set is the beginning of a larger one.

    Examples:
        >>> bool((random_tokens(2, 4, 16, seed=0) == random_tokens(3, 4, 16, seed=0)[:2]).all())
        True
    """
    generator = torch.Generator().manual_seed(stream("data", seed))
    return torch.randint(vocab_size, (n_samples, seq_len), generator=generator)


def build_seeded(build: Builder, vocab_size: int, seq_len: int, seed: int) -> nn.Module:
    """A new model with the weights of this seed; torch's global generator stays as it was."""
    with _GENERATOR, torch.random.fork_rng(devices=[]):
        torch.manual_seed(stream("weights", seed))
        return build(vocab_size, seq_len)


def stream(purpose: str, seed: int) -> int:
    """A seed of its own for each purpose: the same weights must not always meet the same data."""
    return int.from_bytes(hashlib.sha256(f"{purpose} {seed}".encode()).digest()[:7], "big")


def builder_identity(build: Builder, vocab_size: int, seq_len: int) -> str:
    """What tells a builder from another one, the same in each process."""
    return _identity(build, build_seeded(build, vocab_size, seq_len, seed=0))


def _identity(build: Builder, model: nn.Module) -> str:
    """What tells a builder from another one: its repr if it has one of its own, else its name, source, values and modules."""
    address = r" at 0x[0-9A-Fa-f]+"  # another one in each process
    if not (repr(build).startswith("<") or re.search(address, repr(build))):
        return repr(build)
    function, values = build, list[Any]()
    if isinstance(build, partial):
        function, values = build.func, [build.args, build.keywords]
    if inspect.isfunction(function):
        values += [function.__defaults__, function.__kwdefaults__, inspect.getclosurevars(function).nonlocals]
    try:
        source = inspect.getsource(function)
    except (OSError, TypeError):  # typed at a prompt, or an object
        source = ""
    shapes = [(name, tuple(p.shape), p.requires_grad) for name, p in model.named_parameters()]
    facts = re.sub(address, "", f"{source}\n{values}\n{model}\n{shapes}")
    name = getattr(function, "__qualname__", type(function).__qualname__)
    return f"{name} {hashlib.sha256(facts.encode()).hexdigest()[:12]}"
