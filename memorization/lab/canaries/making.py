"""Canaries made, and hidden in a training set."""

import torch
from jaxtyping import Int64
from torch import Tensor

from memorization.errors import InputError
from memorization.integers import check_integer
from memorization.lab.builders import stream
from memorization.lab.canaries.checks import repetitions_of, token_rows
from memorization.lab.random_tokens import random_tokens
from memorization.stats.arrays import ArrayLike

__all__ = ["insert_canaries", "make_canaries"]


def make_canaries(n_canaries: int, seq_len: int, vocab_size: int, *, seed: int = 0) -> Int64[Tensor, "canary position"]:
    """Random token samples of exactly seq_len x log2(vocab_size) bits of information each, int64 (n_canaries, seq_len).

    Nothing predicts them but having seen them. A smaller set is the beginning of a larger one.

    Args:
        n_canaries: how many, those of the control included.
        seq_len: tokens of each, at least 2.
        vocab_size: ids are drawn uniformly from [0, vocab_size).
        seed: of the draw. `random_tokens` with the same seed draws others.

    Returns:
        Token ids, int64, (n_canaries, seq_len).

    Raises:
        InputError: a number out of range.

    Examples:
        >>> canaries = make_canaries(3, seq_len=16, vocab_size=256)
        >>> canaries.shape, bool((canaries[:2] == make_canaries(2, 16, 256)).all())
        (torch.Size([3, 16]), True)
    """
    n_canaries, seq_len = check_integer("n_canaries", n_canaries), check_integer("seq_len", seq_len, at_least=2)
    vocab_size, seed = check_integer("vocab_size", vocab_size, at_least=2), check_integer("seed", seed, at_least=None)
    return random_tokens(n_canaries, seq_len, vocab_size, seed=stream("canaries", seed))


def insert_canaries(
    background: ArrayLike, canaries: ArrayLike, repetitions: ArrayLike
) -> Int64[Tensor, "sample position"]:
    """The training set with canary i in it repetitions[i] times.

    The background's rows come first, then the canaries': shuffle them in training.

    Args:
        background: int64 token ids (sample, position), a tensor or an array.
        canaries: int64 (canary, position), of the same length.
        repetitions: one number a canary; 0 leaves it out, for the control.

    Returns:
        int64, (background samples + sum of repetitions, position).

    Raises:
        InputError: samples of two lengths, or not one number a canary.

    Examples:
        >>> insert_canaries([[1, 2]], [[3, 4], [5, 6], [7, 8]], [2, 1, 0]).tolist()
        [[1, 2], [3, 4], [3, 4], [5, 6]]
    """
    rows, own = token_rows("background", background), token_rows("canaries", canaries)
    times = repetitions_of(repetitions, len(own))
    if rows.shape[1] != own.shape[1]:
        raise InputError(
            f"background and canaries must have one length; their samples have {rows.shape[1]} and {own.shape[1]} "
            "tokens."
        )
    return torch.cat([rows, own.repeat_interleave(torch.from_numpy(times), dim=0)])
