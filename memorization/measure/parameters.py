"""How many parameters a model has. The one place that says how they are counted, and which of them are embeddings."""

import math
from collections.abc import Collection, Iterable
from typing import Any

from torch import Tensor, nn


def n_params(model: nn.Module, among: Collection[int] | None = None) -> int:
    """All parameters: a shared one (a tied output head) counts once, a packed one as what it stands for.

    `among`: only those with these id()s.
    """
    return sum(_numel(p) for p in model.parameters() if among is None or id(p) in among) + _n_packed(model.modules())


def n_non_embedding_params(model: nn.Module, among: Collection[int] | None = None) -> int:
    """Parameters outside nn.Embedding modules (tokens, positions) and the output head that transformers names."""
    tables = [module for module in model.modules() if isinstance(module, nn.Embedding)]
    find_head = getattr(model, "get_output_embeddings", None)
    head = find_head() if callable(find_head) else None
    heads = [head] if isinstance(head, nn.Module) else []
    embedding = {id(p) for module in (*tables, *heads) for p in module.parameters()}
    in_heads = {id(module) for head in heads for module in head.modules()}
    body = [module for module in model.modules() if id(module) not in in_heads]
    counted = [p for p in model.parameters() if id(p) not in embedding and (among is None or id(p) in among)]
    return sum(_numel(p) for p in counted) + _n_packed(body)


def uncounted(model: nn.Module) -> str | None:
    """The first module whose packed parameters cannot be counted; None if all can."""
    for name, module in model.named_modules():
        packed_alone = hasattr(module, "_packed_params") and not hasattr(module, "_weight_bias")
        if packed_alone or hasattr(module, "_all_weight_values") or "qweight" in module._buffers:
            return f"{name} ({type(module).__name__})"
    return None


def _numel(parameter: Tensor) -> int:
    """Elements of a parameter; of bitsandbytes, which packs two 4-bit weights in a byte, as many as it stands for."""
    shape = getattr(getattr(parameter, "quant_state", None), "shape", None)
    if shape is not None:
        return math.prod(shape)
    return parameter.numel() * (2 * parameter.element_size() if type(parameter).__name__ == "Params4bit" else 1)


def _n_packed(modules: Iterable[nn.Module]) -> int:
    """Weights and biases that torch's quantized modules keep in packed form, where they are no parameters."""
    count = 0
    for module in modules:
        packed: Any = getattr(module, "_weight_bias", None)
        if packed is not None and not any(hasattr(child, "_weight_bias") for child in module.children()):
            count += sum(tensor.numel() for tensor in packed() if tensor is not None)
    return count
