"""What lies inside a model that is wrapped: its module, its configuration, its limits; and where its weights are."""

import contextlib
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

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

    Of a model that is spread over several devices it is that of the input embedding.

    Raises:
        ModelError: its weights are nowhere: on the meta device, with nothing that brings them.
    """
    tensors = [*model.parameters(), *model.buffers()]
    places = {tensor.device for tensor in tensors}
    hooks = [hook for module in model.modules() for hook in _hooks(module)]
    if any(tensor.is_meta for tensor in tensors) and not hooks:
        raise ModelError(
            f"{name} has weights on the meta device, which hold no values. Load them first, as from_pretrained() and "
            "load_state_dict(..., assign=True) do."
        )
    movable = len(places) <= 1 and not any(getattr(hook, "offload", False) for hook in hooks)
    for module in (_input_embedding(model), model):
        if module is not None:
            real = next((p.device for p in (*module.parameters(), *module.buffers()) if not p.is_meta), None)
            home = real or runs_on(module)
            if home is not None:
                return home, movable
    return torch.device("cpu"), movable


def runs_on(module: nn.Module) -> torch.device | None:
    """The device to which accelerate brings an offloaded module, or the first of its parts; None where nothing says."""
    hooks = (hook for part in module.modules() for hook in _hooks(part))
    devices = (device for hook in hooks if (device := getattr(hook, "execution_device", None)) is not None)
    return next((torch.device(device) for device in devices), None)


def _input_embedding(model: nn.Module) -> nn.Module | None:
    find = getattr(unwrapped(model), "get_input_embeddings", None)
    with contextlib.suppress(NotImplementedError, AttributeError):  # transformers models that cannot tell
        found = find() if callable(find) else None
        return found if isinstance(found, nn.Module) else None
    return None


def _hooks(module: nn.Module) -> list[Any]:
    """What accelerate does around a module's call: brings its weights, moves its inputs."""
    hook = getattr(module, "_hf_hook", None)
    return [] if hook is None else list(getattr(hook, "hooks", [hook]))


def offloaded(model: nn.Module) -> dict[int, Callable[[], Tensor]]:
    """How to read each tensor of which only the shape is in memory (accelerate's offloading), by its id()."""
    found: dict[int, Callable[[], Tensor]] = {}
    for module in model.modules():
        for hook in _hooks(module):
            kept = getattr(hook, "weights_map", None)
            if kept is None:
                continue
            deep = bool(getattr(hook, "place_submodules", False))
            for name, tensor in (*module.named_parameters(recurse=deep), *module.named_buffers(recurse=deep)):
                if tensor.is_meta:
                    found[id(tensor)] = partial(kept.__getitem__, name)
    return found
