"""What needs no further model: an n-gram code of the control, and mixtures of codes token by token."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64, Int64, Shaped

__all__ = [
    "NGramCode",
    "Tokens",
    "best_step",
    "best_weights",
    "continued_bits",
    "copy_bits",
    "folds_of",
    "mixture_bits",
    "ngram_bits",
    "skip_bits",
]

TOKENS_READ = 200_000  # of the control, that counts and weights are taken from
_FOLDS = 5
_STEPS = 40
_FARTHEST, _AGREEING = 256, 4  # tokens back, and that agree at the most, of what comes again
_LONGEST, _LEAST = 1000.0, 2.0**-6


@dataclass(frozen=True, slots=True)
class Tokens:
    """Token ids of samples, one sample after the other; sample i owns ids[offsets[i]:offsets[i + 1]].

    Samples of one document fall into one fold: what knows a part of a document knows something of the rest.
    """

    ids: Int64[np.ndarray, " token"]
    offsets: Int64[np.ndarray, " edge"]
    documents: Shaped[np.ndarray, " sample"] | None = None

    @property
    def n_documents(self) -> int:
        """Documents, or samples where each is on its own."""
        return len(self.offsets) - 1 if self.documents is None else len(np.unique(self.documents))

    def folds(self, n_folds: int) -> Int64[np.ndarray, " token"]:
        """The fold of each token: its document's number, modulo n_folds."""
        return np.repeat(folds_of(self.documents, len(self.offsets) - 1, n_folds), np.diff(self.offsets))

    def before(self, places: int, vocab_size: int) -> Int64[np.ndarray, " token"]:
        """The token so many places before each one, vocab_size where the sample has not begun."""
        place = np.arange(len(self.ids)) - np.repeat(self.offsets[:-1], np.diff(self.offsets))
        return np.where(place < places, vocab_size, np.roll(self.ids, places))

    def grams(self, vocab_size: int) -> list[Int64[np.ndarray, " token"]]:
        """One number for each token with no, one and two tokens before it; divided by vocab_size, for these alone."""
        last, earlier = (self.before(places, vocab_size) for places in (1, 2))
        return [self.ids, last * vocab_size + self.ids, (earlier * (vocab_size + 1) + last) * vocab_size + self.ids]


def folds_of(
    documents: Shaped[np.ndarray, " sample"] | None, n_samples: int, n_folds: int
) -> Int64[np.ndarray, " sample"]:
    """The fold of each sample: its document's number, or its own, modulo n_folds."""
    number = np.arange(n_samples) if documents is None else np.unique(documents, return_inverse=True)[1]
    return np.asarray(number % n_folds)


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
    code = NGramCode(control, vocab_size)
    return code.of_control, code.bits(samples, samples.folds(code.n_folds))


class NGramCode:
    """The code of `ngram_bits`, for samples of which only some are in memory at a time.

    Attributes:
        n_folds: of control and samples.
        of_control: bits of the control's tokens.
    """

    def __init__(self, control: Tokens, vocab_size: int) -> None:
        self._code = _CrossFitted(control, control.grams(vocab_size), vocab_size)
        self._vocab_size = vocab_size
        self.n_folds = self._code.n_folds
        self.of_control = self._code.of_control

    def bits(self, samples: Tokens, fold: Int64[np.ndarray, " token"]) -> Float64[np.ndarray, " token"]:
        """Bits of the tokens of samples of these folds (`folds_of`)."""
        return self._code.bits(samples.grams(self._vocab_size), fold)


def skip_bits(control: Tokens, places: int, vocab_size: int) -> Float64[np.ndarray, " control_token"]:
    """The same for the control alone, given the one token so many places before: for structure of longer reach."""
    pairs = control.before(places, vocab_size) * vocab_size + control.ids
    return _CrossFitted(control, [control.ids, pairs], vocab_size).of_control


def copy_bits(control: Tokens, vocab_size: int) -> Float64[np.ndarray, " control_token"]:
    """Bits of each token under a code that goes on as the sample went on before: for what comes again in a sample.

    Of the places before, up to 256 tokens back, the one whose past agrees for longest with the latest tokens says what
    comes next, the nearest of several. How often that is right, by the length of what agrees, is taken from the other
    folds.

    Examples:
        >>> again = np.tile(np.arange(10), 8).reshape(4, 20)
        >>> bits = copy_bits(Tokens(again.ravel(), np.arange(0, 81, 20)), 16).reshape(4, 20)
        >>> bool(bits[:, 12:].max() < 1 < 3 < bits[:, :10].min())
        True
    """
    n = len(control.ids)
    place = np.arange(n) - np.repeat(control.offsets[:-1], np.diff(control.offsets))
    longest, says = np.zeros(n, dtype=np.int64), np.full(n, -1)
    for lag in range(1, min(_FARTHEST, int(place.max(initial=0))) + 1):
        same = (place >= lag) & (control.ids == np.roll(control.ids, lag))
        # How many tokens agree, up to this one.
        run = np.arange(n) - np.maximum.accumulate(np.where(same, -1, np.arange(n)))
        before = np.where(place > lag, np.minimum(np.roll(run, 1), _AGREEING), 0)
        better = before > longest
        longest[better], says[better] = before[better], np.roll(control.ids, lag)[better]
    right, fold = says == control.ids, control.folds(min(_FOLDS, control.n_documents))
    read = np.arange(n) < TOKENS_READ
    p = np.full(n, 1 / vocab_size)
    for one in range(int(fold.max(initial=0)) + 1):
        fitted = read & (fold != one)
        for length in range(1, _AGREEING + 1):
            own, others = (fold == one) & (longest == length), fitted & (longest == length)
            share = (right[others].sum() + 1) / (others.sum() + 2)
            p[own] = np.where(right[own], share, (1 - share) / max(vocab_size - 1, 1))
    return np.asarray(-np.log2(p))


class _CrossFitted:
    """A code by counts of grams of the control, for each fold by those of the other folds."""

    def __init__(self, control: Tokens, grams: list[np.ndarray], vocab_size: int) -> None:
        self._vocab_size, self.n_folds = vocab_size, min(_FOLDS, control.n_documents)
        fold, read = control.folds(self.n_folds), np.arange(len(control.ids)) < TOKENS_READ
        self._counts = [[_Counts(one[read & (fold != k)], vocab_size) for one in grams] for k in range(self.n_folds)]
        self.of_control = self.bits(grams, fold)

    def bits(self, grams: list[np.ndarray], fold: Int64[np.ndarray, " token"]) -> Float64[np.ndarray, " token"]:
        """Bits of tokens by their grams and their folds."""
        out = np.empty(len(fold))
        for k, counts in enumerate(self._counts):
            own = fold == k
            out[own] = _bits(counts, [one[own] for one in grams], self._vocab_size)
        return out


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


def best_step(codes: Sequence[Float64[np.ndarray, " token"]]) -> float:
    """How far to continue from the second code through the first one, so that these tokens cost the fewest bits."""
    bits, others = codes
    ratio = np.exp2(bits - others)
    longest = min(1 / max(float(ratio.max()) - 1, 1e-9), _LONGEST)
    steps = np.append(0.0, np.geomspace(1e-3, 0.95, 30) * longest)
    return float(max(steps, key=lambda step: float(np.log2(1 + step * (1 - ratio)).mean())))


def continued_bits(codes: Sequence[Float64[np.ndarray, " token"]], step: float) -> Float64[np.ndarray, " token"]:
    """Bits under p + step (p - q): what the first code, p, does better than the other, q, done more.

    Two codes that lack the same thing in different amounts, such as two mixtures with noise, agree nearly, and no
    mixture of them is better than the better one; continuing from the worse one through the better one is. Where p is
    the true distribution, the mean of q / p is 1 and no step helps. It is no code: it need not be positive everywhere.

    Examples:
        >>> import numpy as np
        >>> continued_bits([np.array([1.0]), np.array([2.0])], 0.5).round(4).tolist()
        [0.6781]
    """
    bits, others = codes
    return np.asarray(bits - np.log2(np.maximum(1 + step * (1 - np.exp2(bits - others)), _LEAST)))
