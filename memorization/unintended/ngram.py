"""What needs no further model: an n-gram code of the control, and mixtures of codes token by token."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64, Int64

__all__ = ["Tokens", "best_weights", "mixture_bits", "ngram_bits"]

TOKENS_READ = 200_000  # of the control, that counts and weights are taken from
_FOLDS = 5
_STEPS = 40


@dataclass(frozen=True, slots=True)
class Tokens:
    """Token ids of samples, one sample after the other; sample i owns ids[offsets[i]:offsets[i + 1]]."""

    ids: Int64[np.ndarray, " token"]
    offsets: Int64[np.ndarray, " edge"]

    def folds(self, n_folds: int) -> Int64[np.ndarray, " token"]:
        """The fold of each token: its sample's number, modulo n_folds."""
        return np.repeat(np.arange(len(self.offsets) - 1) % n_folds, np.diff(self.offsets))

    def grams(self, vocab_size: int) -> list[Int64[np.ndarray, " token"]]:
        """One number for each token with no, one and two tokens before it; divided by vocab_size, for these alone."""
        start = np.zeros(len(self.ids), dtype=bool)
        start[self.offsets[:-1]] = True
        before = np.where(start, vocab_size, np.concatenate([self.ids[:1], self.ids[:-1]]))
        earlier = np.where(start, vocab_size, np.concatenate([before[:1], before[:-1]]))
        return [self.ids, before * vocab_size + self.ids, (earlier * (vocab_size + 1) + before) * vocab_size + self.ids]


def ngram_bits(
    control: Tokens, samples: Tokens, vocab_size: int
) -> tuple[Float64[np.ndarray, " control_token"], Float64[np.ndarray, " token"]]:
    """Bits of each token under an interpolated n-gram code (Witten and Bell) of the control, of order 2.

    Cross-fitted: control samples are coded by counts of the other folds, and samples by the same counts in turn, so
    that both are coded by counts of equal size. Counts are of the control's first 200,000 tokens.

    Args:
        control: at least two samples.
        samples: in the same tokens.
        vocab_size: above every id.

    Returns:
        Bits of the control's tokens, and of the samples'.

    Source:
        Witten and Bell, IEEE Trans. Inf. Theory 37 (1991), method C; Chen and Goodman, Computer Speech and Language 13
        (1999), section 2.5.
    """
    n_folds = min(_FOLDS, len(control.offsets) - 1)
    theirs, ours = control.grams(vocab_size), samples.grams(vocab_size)
    fold_of_theirs, fold_of_ours = control.folds(n_folds), samples.folds(n_folds)
    read = np.arange(len(control.ids)) < TOKENS_READ
    bits = np.empty(len(control.ids)), np.empty(len(samples.ids))
    for fold in range(n_folds):
        counted = read & (fold_of_theirs != fold)
        code = [_Counts(grams[counted], vocab_size) for grams in theirs]
        for out, coded, chosen in zip(bits, (theirs, ours), (fold_of_theirs, fold_of_ours), strict=True):
            out[chosen == fold] = _bits(code, [grams[chosen == fold] for grams in coded], vocab_size)
    return bits


class _Counts:
    """How often each gram was seen, and after each context how many tokens and how many different ones."""

    def __init__(self, grams: Int64[np.ndarray, " token"], vocab_size: int) -> None:
        self.grams, self.times = np.unique(grams, return_counts=True)
        self.contexts, first = np.unique(self.grams // vocab_size, return_index=True)
        self.kinds = np.diff(np.append(first, len(self.grams)))
        self.tokens = np.add.reduceat(self.times, first) if len(first) else first


def _bits(code: list[_Counts], grams: list[np.ndarray], vocab_size: int) -> Float64[np.ndarray, " token"]:
    p = np.full(len(grams[0]), 1 / vocab_size)
    for counts, keys in zip(code, grams, strict=True):
        contexts = keys // vocab_size
        tokens = _look_up(counts.contexts, counts.tokens, contexts)
        kinds = _look_up(counts.contexts, counts.kinds, contexts)
        times = _look_up(counts.grams, counts.times, keys)
        p = np.where(tokens > 0, (times + kinds * p) / np.maximum(tokens + kinds, 1), p)
    return np.asarray(-np.log2(p))


def _look_up(keys: np.ndarray, values: np.ndarray, asked: np.ndarray) -> np.ndarray:
    """The value of each key that was asked for, 0 where it is not there."""
    if not len(keys):
        return np.zeros(len(asked), dtype=np.int64)
    place = np.minimum(np.searchsorted(keys, asked), len(keys) - 1)
    return np.where(keys[place] == asked, values[place], 0)


def mixture_bits(
    bits: Sequence[Float64[np.ndarray, " token"]], weights: Sequence[float] | Float64[np.ndarray, " code"]
) -> Float64[np.ndarray, " token"]:
    """Bits of each token under a mixture of codes: -log2 of the weighted mean of their probabilities.

    Examples:
        >>> import numpy as np
        >>> mixture_bits([np.array([1.0]), np.array([3.0])], [0.5, 0.5]).round(4).tolist()
        [1.6781]
    """
    least = np.min(bits, axis=0)
    total = sum(weight * np.exp2(least - one) for weight, one in zip(weights, bits, strict=True))
    return np.asarray(least - np.log2(total))


def best_weights(bits: Sequence[Float64[np.ndarray, " token"]]) -> Float64[np.ndarray, " code"]:
    """Weights of the mixture that codes these tokens in the fewest bits, by expectation maximization."""
    p = np.exp2(np.min(bits, axis=0) - np.array(bits))
    weights = np.full(len(bits), 1 / len(bits))
    for _ in range(_STEPS):
        share = weights[:, None] * p
        weights = (share / share.sum(axis=0)).mean(axis=1)
    return weights
