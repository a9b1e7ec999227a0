"""Builders of models: seeded weights, and what tells a builder from another."""

import hashlib
import inspect
import re
import threading
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import nn

__all__ = ["Builder", "build_seeded", "builder_identity", "identity_of", "stream"]

Builder = Callable[[int, int], nn.Module]

_GENERATOR = threading.Lock()  # torch's global one, of which there is one for all threads


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
    return identity_of(build, build_seeded(build, vocab_size, seq_len, seed=0))


def identity_of(build: Builder, model: nn.Module) -> str:
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
