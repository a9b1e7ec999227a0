"""Uniform random tokens: data without structure, of which nothing can be known but by memorizing it."""

import torch
from jaxtyping import Int
from torch import Tensor

from memorization.lab.builders import stream

__all__ = ["random_tokens"]


def random_tokens(n_samples: int, seq_len: int, vocab_size: int, seed: int) -> Int[Tensor, "sample position"]:
    """Uniform random token ids, int64, (n_samples, seq_len); a smaller set is the beginning of a larger one.

    Examples:
        >>> bool((random_tokens(2, 4, 16, seed=0) == random_tokens(3, 4, 16, seed=0)[:2]).all())
        True
    """
    generator = torch.Generator().manual_seed(stream("data", seed))
    return torch.randint(vocab_size, (n_samples, seq_len), generator=generator)
