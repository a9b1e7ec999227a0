"""How many parameters a model has. The one place that says how they are counted, and which of them are embeddings."""

import math
from collections.abc import Collection, Iterable, Iterator
from typing import Any

from torch import Tensor, nn

from memorization.integers import as_integer


def n_params(model: nn.Module, among: Collection[int] | None = None) -> int:
    """All parameters: a shared one (a tied output head) counts once, a packed one as what it stands for.

    `among`: only those with these id()s.
    """
    again = set(_counted_again(model))
    counted = [p for p in model.parameters() if id(p) not in again and (among is None or id(p) in among)]
    return sum(_numel(p) for p in counted) + _n_packed(model.modules())


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
        no_sizes = "qweight" in module._buffers and _n_in_buffers(module) is None
        if packed_alone or hasattr(module, "_all_weight_values") or no_sizes:
            return f"{name} ({type(module).__name__})"
    return None


def _n_in_buffers(module: nn.Module) -> int | None:
    """What the layers of GPTQ and AWQ stand for, which are buffers with several weights in an integer."""
    for sizes in (("in_features", "out_features"), ("infeatures", "outfeatures")):
        n_in, n_out = (as_integer(getattr(module, size, None)) for size in sizes)
        if n_in is not None and n_out is not None:
            bias = module._buffers.get("bias")
            return n_in * n_out + (0 if bias is None else bias.numel())
    return None


def _counted_again(model: nn.Module) -> Iterator[int]:
    """The id()s of parameters that are another one's, though offloading has made two of them."""
    for module in model.modules():
        tied = getattr(module, "all_tied_weights_keys", None)  # of transformers: the name of a copy, and of what it is
        if not isinstance(tied, dict) or not tied:
            continue
        parameters = dict(module.named_parameters(remove_duplicate=False))
        for copy, source in tied.items():
            one, other = parameters.get(copy), parameters.get(source)
            if one is not None and other is not None and one is not other and (one.is_meta or other.is_meta):
                yield id(one)


def _numel(parameter: Tensor) -> int:
    """Elements of a parameter; of bitsandbytes, which packs two 4-bit weights in a byte, as many as it stands for."""
    shape = getattr(getattr(parameter, "quant_state", None), "shape", None)
    if shape is not None:
        return math.prod(shape)
    return parameter.numel() * (2 * parameter.element_size() if type(parameter).__name__ == "Params4bit" else 1)


def _n_packed(modules: Iterable[nn.Module]) -> int:
    """Weights and biases that quantized modules keep in packed form, where they are no parameters."""
    count = 0
    for module in modules:
        if "qweight" in module._buffers:
            count += _n_in_buffers(module) or 0
        packed: Any = getattr(module, "_weight_bias", None)
        if packed is not None and not any(hasattr(child, "_weight_bias") for child in module.children()):
            count += sum(tensor.numel() for tensor in packed() if tensor is not None)
    return count
