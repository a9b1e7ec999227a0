"""Rounding of trained weights to few bits, to measure again what the model still holds."""

import copy

import torch
from jaxtyping import Float
from torch import Tensor, nn

from memorization.errors import InputError

_BITS = (8, 4, 2)


def quantize_weights(model: nn.Module, bits: int) -> nn.Module:
    """A copy of `model` whose matrices hold at most 2^bits different values in each row.

    Round to nearest, without data. A row with largest magnitude m gets the 2^bits values +-m/n, +-3m/n, ..., +-m with
    n = 2^bits - 1: symmetric, evenly spaced, the ends exact. None of them is 0 (of an odd number of values, one of the
    2^bits would go unused: a quarter of all at 2 bits), but rows of zeros stay zeros.

    Effective size: bits + 32 / (row length) a weight, 32 being the float32 scale of the row; for rows of 8 and 256
    weights 6 and 2.125 bits at bits=2. Parameters of one dimension (biases, norms) stay as they are, at 32 bits each.
    The copy keeps its dtype: it computes as the original does, with rounded numbers.

    Args:
        model: any module of floating-point parameters.
        bits: 8, 4 or 2, a weight.

    Returns:
        The copy, on the same device, in the same train/eval state; parameters that were shared are shared still. A row
        is an index of the first dimension: an output of nn.Linear, a token of nn.Embedding.

    Raises:
        InputError: `bits` is none of 8, 4, 2.

    Guarantees:
        `model` is not changed. The error of a weight is at most m / (2^bits - 1), up to rounding in the weight's dtype.

    Examples:
        >>> import torch
        >>> linear = torch.nn.Linear(4, 1, bias=False)
        >>> with torch.no_grad():
        ...     _ = linear.weight.copy_(torch.tensor([[0.1, -0.9, 2.5, 3.0]]))
        >>> quantize_weights(linear, 2).weight.tolist()
        [[1.0, -1.0, 3.0, 3.0]]
    """
    if bits not in _BITS:
        raise InputError(f"bits must be one of {', '.join(map(str, _BITS))}; it is {bits!r}.")
    quantized = copy.deepcopy(model)
    with torch.no_grad():
        for parameter in quantized.parameters():
            if parameter.dim() > 1:
                parameter.copy_(_rounded(parameter.flatten(1).float(), bits).view_as(parameter))
    return quantized


def _rounded(rows: Float[Tensor, "row weight"], bits: int) -> Float[Tensor, "row weight"]:
    """Each weight at the nearest of its row's values."""
    n_steps = 2**bits - 1
    largest = rows.abs().amax(1, keepdim=True)
    # From 0 for -largest to n_steps for +largest. A row of zeros divides by 1 and is multiplied by 0.
    level = ((rows / torch.where(largest > 0, largest, 1.0) + 1) * (n_steps / 2)).round().clamp(0, n_steps)
    return (2 * level - n_steps) / n_steps * largest
