"""What tells one model from another: a digest of its weights."""

import hashlib

import torch
from torch import nn

_VALUES = 4096  # of each tensor, evenly spread: reading all of a large model would take longer than a measurement


def weights_sha256(model: nn.Module) -> str:
    """Names, shapes, dtypes and an even spread of the values of all parameters and buffers."""
    digest = hashlib.sha256()
    for name, tensor in model.state_dict().items():
        flat = tensor.detach().flatten()
        step = max(1, len(flat) // _VALUES)
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype};".encode())
        digest.update(flat[::step].to("cpu", torch.float64).numpy().tobytes())
    return digest.hexdigest()
