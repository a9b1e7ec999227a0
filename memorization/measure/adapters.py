"""A PEFT adapter on its base, in one module: what is whose, what was trained, and whether the base is still there."""

import contextlib
import os
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from torch import Tensor, nn

from memorization.measure.folders import read_json
from memorization.measure.parameters import n_params
from memorization.measure.wrappers import declared_vocab_size, unwrapped

# Starts of LoRA that leave the base's weights as they are. Others (PiSSA, OLoRA, CorDA, LoftQ) take from the base what
# they put into the adapter, so that the base alone is another model afterwards.
_HARMLESS_STARTS = ("gaussian", "eva", "orthogonal", "default")


class Parts(NamedTuple):
    """The tensors of a base and of the adapters that are active on it; parameters by their id().

    Attributes:
        base_state: what the base's own state_dict holds, under its own names and in its order.
        adapter_state: tensors of the active adapters, which are numbered in place of their names.
        base: parameters of the base.
        used: parameters of the base with its active adapters: without copies that an adapter replaces.
        trained: parameters of the active adapters.
    """

    base_state: dict[str, Any]
    adapter_state: dict[str, Any]
    base: frozenset[int]
    used: frozenset[int]
    trained: frozenset[int]


def carrier_of(model: Any) -> Any:
    """The module that carries adapters: a PeftModel, or a transformers model that loaded them; None for all others."""
    peft = sys.modules.get("peft")
    if peft is None or not isinstance(model, nn.Module):
        return None
    module: Any = unwrapped(model)
    if isinstance(module, peft.PeftModel) or getattr(module, "_hf_peft_config_loaded", False):
        return module
    return None


def base_of_carrier(carrier: Any) -> Any:
    """The base's module. Adapters such as LoRA have put their layers into it."""
    return carrier.get_base_model() if hasattr(carrier, "get_base_model") else carrier


def active_adapters(carrier: Any) -> list[str]:
    """Names of the adapters that are active."""
    active = carrier.active_adapters
    names = active() if callable(active) else active
    return [names] if isinstance(names, str) else list(names)


@contextlib.contextmanager
def switched_off(model: Any) -> Iterator[None]:
    """The base alone, for as long as the block lasts."""
    carrier = carrier_of(model)
    if hasattr(carrier, "disable_adapter"):
        with carrier.disable_adapter():
            yield
        return
    carrier.disable_adapters()
    try:
        yield
    finally:
        carrier.enable_adapters()


def n_virtual_tokens(model: Any) -> int:
    """Tokens that an adapter puts in front of what is read, so that logits come for them, too (prompt tuning)."""
    carrier = carrier_of(model)
    if carrier is None:
        return 0
    configs = [carrier.peft_config[name] for name in active_adapters(carrier)]
    prompts = ("PROMPT_TUNING", "P_TUNING", "MULTITASK_PROMPT_TUNING")
    return sum(int(config.num_virtual_tokens) for config in configs if _kind(config) in prompts)


def parts_of(carrier: Any) -> Parts:
    """Which tensor is of the base, and which of the adapters that are active."""
    base, active = base_of_carrier(carrier), active_adapters(carrier)
    inner = _wrappers(base)
    base_state: dict[str, Any] = {}
    added: dict[str, Any] = {}
    for key, value in base.state_dict(keep_vars=True).items():
        name = _name_in_base(key, inner)
        (added if name is None else base_state)[key if name is None else name] = value
    if base is not carrier:  # prompts stand beside the base, which is in there, too
        of_base = {id(value) for value in base_state.values()}
        more = carrier.state_dict(keep_vars=True)
        added |= {key: more[key] for key in more if key.startswith("prompt_encoder.") and id(more[key]) not in of_base}
    ours = {key: value for key, value in added.items() if any(name in key.split(".") for name in active)}
    number = {name: str(i) for i, name in enumerate(active)}
    of_base = {id(value) for value in base_state.values() if isinstance(value, nn.Parameter)}
    trained = {id(value) for value in ours.values() if isinstance(value, nn.Parameter)}
    return Parts(
        base_state=base_state,
        adapter_state={".".join(number.get(p, p) for p in key.split(".")): value for key, value in ours.items()},
        base=frozenset(of_base),
        used=frozenset((of_base - _replaced(base, active)) | trained),
        trained=frozenset(trained),
    )


def _wrappers(base: nn.Module) -> dict[str, str]:
    """The modules that adapters have put around one of the base's, and what that is called in each."""
    from peft.tuners.tuners_utils import BaseTunerLayer
    from peft.utils.other import AuxiliaryTrainingWrapper

    found = {}
    for name, module in base.named_modules(remove_duplicate=False):
        if isinstance(module, BaseTunerLayer) and hasattr(module, "base_layer"):
            found[name] = "base_layer"
        elif isinstance(module, AuxiliaryTrainingWrapper):
            found[name] = "token_adapter" if hasattr(module, "token_adapter") else "original_module"
    return found


def _name_in_base(key: str, inner: Mapping[str, str]) -> str | None:
    """A tensor's name in the base as it is without adapters; None for what adapters have added."""
    path, kept = "", []
    for part in key.split("."):
        if path not in inner:
            kept.append(part)
        elif part != inner[path]:
            return None
        path = f"{path}.{part}" if path else part
    return ".".join(kept)


def _replaced(base: nn.Module, active: list[str]) -> set[int]:
    """Parameters of the base in whose place an active adapter has its own (modules_to_save)."""
    from peft.utils.other import ModulesToSaveWrapper

    wrappers = [module for module in base.modules() if isinstance(module, ModulesToSaveWrapper)]
    return {
        id(parameter)
        for module in wrappers
        if any(name in module.modules_to_save for name in active)
        for parameter in module.original_module.parameters()
    }


def n_trained_params(carrier: Any, parts: Parts, placed: Mapping[str, Any] | None) -> int:
    """Parameters that were trained: the active adapters', and those of the base that training could or did move."""
    base = base_of_carrier(carrier)
    outside = carrier if hasattr(carrier, "prompt_encoder") else base  # prompts stand beside the base
    moved = [*trained_in_base(parts).values(), *(parts.base_state[name] for name in (placed or {}).get("brought", ()))]
    return n_params(outside, parts.trained | {id(value) for value in moved})


def trained_in_base(parts: Parts) -> dict[str, Tensor]:
    """Parameters of the base that training is free to move."""
    return {
        name: value
        for name, value in parts.base_state.items()
        if isinstance(value, nn.Parameter) and value.requires_grad
    }


def _kind(config: Any) -> str:
    kind = config.peft_type
    return str(getattr(kind, "value", kind))


def adapter_record(carrier: Any, parts: Parts, placed: Mapping[str, Any] | None) -> dict[str, Any]:
    """What is known of the active adapters; `placed` is what loading them from a folder has found.

    "not_base" says why the model with its adapters switched off is not the base; None where it is, as far as is known.
    """
    active = active_adapters(carrier)
    configs = [carrier.peft_config[name] for name in active]
    every = [*configs, *carrier.peft_config.values()]  # one that was added later may not name its base
    named = next((config.base_model_name_or_path for config in every if config.base_model_name_or_path), None)
    return {
        "type": ", ".join(sorted({_kind(config) for config in configs})),
        "active": active,
        "base": placed["base"] if placed else named,
        "base_revision": placed["base_revision"] if placed else next((config.revision for config in configs), None),
        "not_base": _why_switched(carrier) or (placed["not_base"] if placed else _why_changed(carrier, parts, configs)),
    }


def _why_switched(carrier: Any) -> str | None:
    from peft.tuners.tuners_utils import BaseTunerLayer

    layers = [module for module in carrier.modules() if isinstance(module, BaseTunerLayer)]
    if any(layer.disable_adapters for layer in layers):
        return "its adapter is switched off already: switch it on (enable_adapter_layers())"
    if any(layer.merged for layer in layers):
        return (
            "its adapter is merged into the base's weights, and taking it out again (unmerge_adapter()) gives them "
            "back up to rounding alone"
        )
    return None


def _why_changed(carrier: Any, parts: Parts, configs: list[Any]) -> str | None:
    """Why the base under adapters in memory, of which nobody knows what it was, is not the one that they name."""
    for config in configs:
        bias, start = getattr(config, "bias", "none"), getattr(config, "init_lora_weights", True)
        if bias not in (None, "none"):
            return f"its adapter trains biases of the base (bias={bias!r})"
        if isinstance(start, str) and start.lower() not in _HARMLESS_STARTS:
            return f"its adapter has changed the base's weights when it was made (init_lora_weights={start!r})"
    free = trained_in_base(parts)
    if free:
        return (
            f"{len(free)} weights of its base are free to be trained (requires_grad), the first is {next(iter(free))}, "
            "so they may not be the base's any more"
        )
    named = configs[0].base_model_name_or_path if configs else None
    size, was = declared_vocab_size(carrier), _vocab_size_of(named, configs[0].revision) if named else None
    if size is not None and was is not None and size != was:
        return f"its base has {size} tokens, and {named} has {was}: its embeddings were resized"
    return None


def _vocab_size_of(base: str, revision: str | None) -> int | None:
    """Tokens of a named model, as far as files here say it."""
    file = Path(base) / "config.json"
    if not os.path.isdir(base):
        from huggingface_hub import try_to_load_from_cache

        with contextlib.suppress(ValueError):  # no name that the hub has
            found = try_to_load_from_cache(base, "config.json", revision=revision)
            file = Path(found) if isinstance(found, str) else file
    size = read_json(file).get("vocab_size") if file.is_file() else None
    return size if isinstance(size, int) else None
