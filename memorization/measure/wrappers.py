"""What lies inside a model that is wrapped: its module, its configuration, its limits; and where its weights are."""

from collections.abc import Iterator
from typing import Any

import torch
from torch import nn

from memorization.errors import ModelError
from memorization.integers import as_integer


def unwrapped(model: nn.Module) -> nn.Module:
    """The module inside torch.compile, DataParallel and DistributedDataParallel, which leave its logits as they are."""
    while True:
        inner = model._modules.get("_orig_mod")
        if inner is None and isinstance(model, (nn.DataParallel, nn.parallel.DistributedDataParallel)):
            inner = model.module
        if not isinstance(inner, nn.Module):
            return model
        model = inner


def declared_vocab_size(model: Any) -> int | None:
    """Tokens that the model says it knows; None where nothing says so."""
    return _first_positive(model, ("vocab_size",))


def position_limit(model: Any) -> int | None:
    """Positions that the model says it takes; None where nothing says so."""
    return _first_positive(model, ("max_position_embeddings", "block_size"))


def _first_positive(model: Any, names: tuple[str, ...]) -> int | None:
    for config in _configs(model):
        for name in names:
            value = as_integer(config.get(name) if isinstance(config, dict) else getattr(config, name, None))
            if value is not None and value > 0:
                return value
    return None


def _configs(model: Any) -> Iterator[Any]:
    """Configurations, the outermost first. That of a text model inside a larger one speaks for it."""
    modules = unwrapped(model).modules() if isinstance(model, nn.Module) else [model]
    for module in modules:
        config = getattr(module, "config", None)
        if config is not None:
            yield config.get_text_config() if hasattr(config, "get_text_config") else config


def where_it_lies(model: nn.Module, name: str) -> tuple[torch.device, bool]:
    """The device on which a module takes its ids, and whether it lies there in one piece, so that it can be moved.

    Raises:
        ModelError: its weights are nowhere: on the meta device, with nothing that brings them.
    """
    tensors = [*model.parameters(), *model.buffers()]
    places = {tensor.device for tensor in tensors}
    hooks = [hook for module in model.modules() if (hook := getattr(module, "_hf_hook", None)) is not None]
    real = [tensor.device for tensor in tensors if not tensor.is_meta]
    if len(real) < len(tensors) and not hooks:
        raise ModelError(
            f"{name} has weights on the meta device, which hold no values. Load them first, as from_pretrained() and "
            "load_state_dict(..., assign=True) do."
        )
    runs_on = [device for hook in hooks if (device := getattr(hook, "execution_device", None)) is not None]
    home = real[0] if real else torch.device(runs_on[0]) if runs_on else torch.device("cpu")
    return home, len(places) <= 1 and not any(getattr(hook, "offload", False) for hook in hooks)
