"""Uniform random tokens: data without structure, of which nothing can be known but by memorizing it."""

import torch
from jaxtyping import Int
from torch import Tensor

from memorization.integers import check_integer
from memorization.lab.builders import stream

__all__ = ["random_tokens"]


def random_tokens(n_samples: int, seq_len: int, vocab_size: int, seed: int) -> Int[Tensor, "sample position"]:
    """Uniform random token ids, int64, (n_samples, seq_len); a smaller set is the beginning of a larger one.

    Args:
        n_samples: how many.
        seq_len: tokens of each.
        vocab_size: ids are drawn uniformly from [0, vocab_size).
        seed: of the draw.

    Returns:
        Token ids, int64, (n_samples, seq_len): seq_len x log2(vocab_size) bits a sample.

    Raises:
        InputError: something else than integers, or fewer than one sample, token or id.

    Examples:
        >>> bool((random_tokens(2, 4, 16, seed=0) == random_tokens(3, 4, 16, seed=0)[:2]).all())
        True
    """
    rows, length = check_integer("n_samples", n_samples), check_integer("seq_len", seq_len)
    vocab_size, seed = check_integer("vocab_size", vocab_size), check_integer("seed", seed, at_least=None)
    generator = torch.Generator().manual_seed(stream("data", seed))
    return torch.randint(vocab_size, (rows, length), generator=generator)
