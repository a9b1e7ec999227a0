"""A model whose capacity is known: free logits for each position, without context."""

import math

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

__all__ = ["FreeLogits", "most_saved_bits"]


class FreeLogits(nn.Module):
    """S x V logits that are free parameters: the same distribution of a position in every sample.

    It is its own builder. What it can save at best is known (`most_saved_bits`), so a measurement of capacity can be
    checked on it from end to end.

    Args:
        vocab_size: V, number of tokens.
        seq_len: S, positions.
    """

    def __init__(self, vocab_size: int, seq_len: int):
        super().__init__()
        self.table = nn.Parameter(torch.zeros(seq_len, vocab_size))

    def forward(self, ids: Int[Tensor, "batch position"]) -> Float[Tensor, "batch position vocab"]:
        """Logits of the token at each position."""
        return self.table[: ids.shape[1]].expand(*ids.shape, -1)


def most_saved_bits(ids: Int[Tensor, "sample position"], vocab_size: int) -> float:
    """The most bits, against log2 V a token, that any distribution of single positions saves on these samples.

    N times the sum over positions of log2 V less the entropy of the position's tokens (Gibbs' inequality).

    Examples:
        Two samples that agree in one position of two: 2 x 3 bits there, 2 x (3 - 1) in the other.

        >>> import torch
        >>> most_saved_bits(torch.tensor([[5, 1], [5, 2]]), vocab_size=8)
        10.0
    """
    n_samples, seq_len = ids.shape
    shares = torch.stack([torch.bincount(column, minlength=vocab_size) for column in ids.T]).double() / n_samples
    entropy = float(-torch.xlogy(shares, shares).sum()) / math.log(2)
    return n_samples * (seq_len * math.log2(vocab_size) - entropy)
