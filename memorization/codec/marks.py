"""What a container says of its model, and whether the one at hand is the same."""

from typing import Any

import torch

from memorization.codec.container import DIGEST_BYTES, Container, digest
from memorization.errors import OtherModelError
from memorization.measure.opening import OpenModel
from memorization.measure.tokenizers import tokenizer_record
from memorization.results import versions

__all__ = ["NO_TOKENIZER", "check_model", "here", "model_mark", "tokenizer_mark", "why_not_reproduced"]

NO_TOKENIZER = bytes(DIGEST_BYTES)
_SHOWN = 4  # bytes of a digest that a message shows


def model_mark(model: OpenModel) -> bytes:
    """16 bytes of the weights where there are any, else of a few logits."""
    told = model.record["fingerprint"] or model.fingerprint or model.record["name"]
    return digest(str(told).encode())


def tokenizer_mark(tokenizer: Any) -> bytes:
    """16 bytes of the vocabulary; zeros where there is no tokenizer."""
    record = tokenizer_record(tokenizer)
    return NO_TOKENIZER if record is None else digest(record["vocab_sha256"].encode())


def check_model(model: OpenModel, held: Container) -> None:
    """Refuse another model than the one that compressed.

    Raises:
        OtherModelError: another dtype, other weights, another vocabulary; or no tokenizer where one is needed.
    """
    name, dtype = model.record["name"], model.record["dtype"] or ""
    if dtype != held.dtype:
        raise OtherModelError(
            f"the data were compressed with weights in {held.dtype or 'no dtype'}, and those of {name} are in "
            f"{dtype or 'no dtype'}. For a model loaded by name pass dtype={held.dtype!r}; else convert it."
        )
    own, needed = model_mark(model), held.tokenizer
    if own != held.model or model.vocab_size != held.vocab_size:
        raise OtherModelError(
            f"the data were compressed with another model: its fingerprint begins with {held.model[:_SHOWN].hex()}, "
            f"that of {name} with {own[:_SHOWN].hex()}. Decoding needs the very weights."
        )
    if needed != NO_TOKENIZER and model.tokenizer is None:
        raise OtherModelError(
            f"the data hold texts, and {name} came without a tokenizer. Pass tokenizer=, the one that compressed them."
        )
    if needed not in (NO_TOKENIZER, tokenizer_mark(model.tokenizer)):
        raise OtherModelError(
            f"the data were compressed with another tokenizer: its fingerprint begins with {needed[:_SHOWN].hex()}, "
            f"that of {name} with {tokenizer_mark(model.tokenizer)[:_SHOWN].hex()}. Pass tokenizer=."
        )


def here(model: OpenModel) -> str:
    """Versions and device, which may move the last digits of logits."""
    found = versions()
    names = ("lm-memorization", "torch", "transformers")
    capability = torch.backends.cpu.get_cpu_capability() if model.device.type == "cpu" else ""
    device = f"{model.device.type} {capability}".strip()
    return ", ".join([*(f"{name} {found[name]}" for name in names), device])


def why_not_reproduced(model: OpenModel, held: Container) -> str:
    """Why what was decoded is not what was compressed."""
    now = here(model)
    told = (
        f"the versions are the same ({now}), so it is another processor, or other settings of its kernels"
        if held.written_by == now
        else f"compressed with {held.written_by}; here is {now}"
    )
    return (
        f"what was decoded with {model.record['name']} is not what was compressed, and is not returned: the model's "
        f"logits are not the same to the last digit as they were then; {told}. Decompress where it was compressed, or "
        "with the same versions on a machine of the same kind."
    )
