"""`oracle="base-of-target"`: the base under an adapter as the oracle, in the one model that is loaded."""

import contextlib
import functools
import inspect
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

import torch

from memorization.errors import InputError
from memorization.measure.folders import ADAPTER, has
from memorization.measure.opening import BASE_OF_TARGET, OpenModel, model_record, open_model
from memorization.measure.probe import Forward, probe
from memorization.measure.wrappers import declared_vocab_size

P = ParamSpec("P")
R = TypeVar("R")
# How verbs call what `open_model` takes, where they call it otherwise.
_OPTIONS = {
    "tokenizer": ("target_tokenizer", "tokenizer"),
    "revision": ("target_revision", "revision"),
    **{name: (name,) for name in ("device", "dtype", "trust_remote_code", "allow_pickle", "max_length", "progress")},
}


def asks_for_base(oracle: Any) -> bool:
    """Whether the oracle, or one of several, is the base of the target."""
    return any(isinstance(one, str) and one == BASE_OF_TARGET for one in _each(oracle))


def _each(oracle: Any) -> list[Any]:
    return list(oracle) if isinstance(oracle, (list, tuple)) else [oracle]


@contextlib.contextmanager
def open_base(target: OpenModel) -> Iterator[OpenModel]:
    """The base of an open adapter, in the same model: it is switched off in each call, and on again after it.

    Raises:
        InputError: the target is no adapter, or its base is not what is left when the adapter is switched off.
    """
    name, adapter = target.record["name"], target.record.get("adapter")
    if not adapter:
        raise _no_adapter(name)
    if adapter["not_base"] is not None:
        raise InputError(
            f'oracle="{BASE_OF_TARGET}" cannot be had of {name}: {adapter["not_base"]}. Switched off, it is not the '
            f"base. Pass the base itself as the oracle{_named(adapter)}."
        )
    assert isinstance(target.logits, Forward)
    base = adapter["base"] or f"base of {name}"
    forward = target.logits.without_adapters(base)
    with torch.no_grad():
        declared = declared_vocab_size(forward.model)
        vocab_size, probed = probe(forward, target.device, declared, target.max_length, base)
    record = {
        **model_record(forward.model, base, adapter["base_revision"], target.device, without_adapters=True),
        "unexpected_weights": target.record.get("unexpected_weights"),
        "probe": probed,
        "vocab_size": vocab_size,
        "base_of": name,
    }
    try:
        yield OpenModel(forward, vocab_size, target.max_length, target.device, target.tokenizer, record)
    finally:
        forward.is_open = False


def _no_adapter(name: str) -> InputError:
    return InputError(
        f'oracle="{BASE_OF_TARGET}" measures a PEFT adapter switched on and off, and the target {name} has none: '
        "expected is a folder with adapter_config.json, or a PeftModel in memory. Pass the oracle's own folder or name."
    )


def _named(adapter: dict[str, Any]) -> str:
    return f" ({adapter['base']})" if adapter["base"] else ""


def with_base_of_target(function: Callable[P, R]) -> Callable[P, R]:
    """Let a verb with `target` and `oracle` take "base-of-target" as an oracle: it gets both as open models."""
    signature = inspect.signature(function)

    @functools.wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            bound = signature.bind(*args, **kwargs)
        except TypeError:  # the verb itself says what is wrong
            return function(*args, **kwargs)
        given = bound.arguments
        if not asks_for_base(given.get("oracle")):
            return function(*args, **kwargs)
        target, options = given["target"], _options(given)
        if isinstance(target, (str, os.PathLike)):
            folder = Path(os.path.expanduser(str(target)))
            if has(folder / "config.json") and not has(folder / ADAPTER):
                raise _no_adapter(str(target))
        elif not callable(target) and not isinstance(target, OpenModel):
            raise InputError(
                f'oracle="{BASE_OF_TARGET}" needs the target as a model, since it is asked with its adapter switched '
                f"off; a {type(target).__name__} came."
            )
        with open_model(target, **options) as opened, open_base(opened) as base:
            oracles = [base if asks_for_base(one) else one for one in _each(given["oracle"])]
            given["oracle"] = oracles if isinstance(given["oracle"], (list, tuple)) else oracles[0]
            given["target"] = opened
            for name in (*_OPTIONS["tokenizer"], *_OPTIONS["revision"]):
                given.pop(name, None)  # the target is open, with its tokenizer
            return function(*bound.args, **bound.kwargs)

    return call


def _options(given: dict[str, Any]) -> dict[str, Any]:
    """What the call says of its target, as `open_model` takes it."""
    return {option: given[name] for option, names in _OPTIONS.items() for name in names if name in given}
