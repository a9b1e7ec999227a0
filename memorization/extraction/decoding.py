"""How a continuation is sampled, and how likely the true one is: tries until it comes out, and the worst window."""

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Float64, Int64
from torch import Tensor

from memorization.coding.intervals import code_tokens
from memorization.errors import InputError
from memorization.integers import as_number, check_integer

__all__ = ["Decoding", "check_probability", "least_bits", "tries", "worst_windows"]

_CHUNK = 1 << 22  # logits at once, in float64


@dataclass(frozen=True, slots=True)
class Decoding:
    """A way to sample: logits over the temperature, then the top k, then the nucleus of probability top_p.

    Attributes:
        temperature: at least 0, where the largest logit is taken, of equal ones the first.
        top_k: tokens that are left, and those as likely as the last of them; None is all.
        top_p: of what is then left, the likeliest tokens that together reach this probability; 1 is all.
    """

    temperature: float = 1.0
    top_k: int | None = None
    top_p: float = 1.0

    @classmethod
    def checked(cls, temperature: Any, top_k: Any, top_p: Any) -> "Decoding":
        """What the caller asked for.

        Raises:
            InputError: a temperature that is negative or no number, a top_k below 1, a top_p outside (0, 1].
        """
        heat, nucleus = as_number(temperature), 1.0 if top_p is None else as_number(top_p)
        if not 0 <= heat < math.inf:
            raise InputError(f"temperature must be a number of at least 0; it is {temperature!r}.")
        if not 0 < nucleus <= 1:
            raise InputError(f"top_p must lie above 0 and be 1 at most, 1 for all tokens; it is {top_p!r}.")
        return cls(heat, None if top_k is None else check_integer("top_k", top_k, besides="None"), nucleus)

    def describe(self) -> str:
        """In words."""
        parts = [f"temperature {self.temperature:g}"]
        parts += [] if self.top_k is None else [f"top k {self.top_k}"]
        parts += [] if self.top_p == 1 else [f"top p {self.top_p:g}"]
        return ", ".join(parts)

    def token_bits(
        self, logits: Float[Tensor, "row vocab"], rows: Int64[np.ndarray, " token"], ids: Int64[np.ndarray, " token"]
    ) -> Float64[np.ndarray, " token"]:
        """-log2 of the probability with which each token is drawn, given its row of logits; inf where it never is."""
        if self == Decoding():
            return code_tokens(logits, torch.from_numpy(rows), torch.from_numpy(ids)).ideal_bits
        step = max(1, _CHUNK // logits.shape[1])
        parts = [
            self._bits(logits[torch.from_numpy(rows[i : i + step]).to(logits.device)], ids[i : i + step])
            for i in range(0, len(rows), step)
        ]
        return np.concatenate(parts) if parts else np.zeros(0)

    def _bits(
        self, logits: Float[Tensor, "token vocab"], ids: Int64[np.ndarray, " token"]
    ) -> Float64[np.ndarray, " token"]:
        own = torch.from_numpy(ids)[:, None]
        scores = logits.cpu().double()
        if self.temperature == 0:
            greedy = scores.argmax(dim=1, keepdim=True) == own
            return np.where(greedy[:, 0].numpy(), 0.0, math.inf)
        scores = (scores - scores.amax(dim=1, keepdim=True)) / self.temperature
        if self.top_k is not None and self.top_k < scores.shape[1]:
            last = scores.topk(self.top_k, dim=1).values[:, -1:]
            scores = scores.masked_fill(scores < last, -math.inf)
        if self.top_p < 1:
            # As transformers' TopPLogitsWarper: those are left out that together, from the least likely on, reach
            # 1 - top_p at most; the likeliest stays.
            ascending, order = scores.sort(dim=1, stable=True)
            out = ascending.softmax(dim=1).cumsum(dim=1) <= 1 - self.top_p
            out[:, -1] = False
            scores = scores.masked_fill(torch.zeros_like(out).scatter(1, order, out), -math.inf)
        bits = (scores.logsumexp(dim=1) - scores.gather(1, own)[:, 0]) / math.log(2)
        return np.asarray(bits.clamp(min=0).numpy())


def check_probability(p: Any) -> float:
    """A probability with which something is to come out.

    Raises:
        InputError: it is not between 0 and 1.
    """
    value = as_number(p)
    if not 0 < value < 1:
        raise InputError(f"p must lie between 0 and 1, such as 0.5: with which it is to come out; it is {p!r}.")
    return value


def tries(bits: Float64[np.ndarray, "*shape"], p: float = 0.5) -> Float64[np.ndarray, "*shape"]:
    """How often one must sample so that a suffix comes out at least once with probability p.

    Args:
        bits: -log2 of the probability p_z that one sampled continuation is the suffix.
        p: between 0 and 1.

    Returns:
        n(p) = ln(1 - p) / ln(1 - p_z), at least 1; inf where p_z is 0, or where it does not fit a float.

    Raises:
        InputError: a probability outside (0, 1).

    Examples:
        >>> import numpy as np
        >>> tries(np.array([0.0, 1.0, 10.0, np.inf])).round(1).tolist()
        [1.0, 1.0, 709.4, inf]

    Source:
        Hayes et al., "Measuring memorization through probabilistic discoverable extraction", arXiv:2410.19482.
    """
    p = check_probability(p)
    p_z = np.exp2(-np.asarray(bits, dtype=np.float64))
    with np.errstate(divide="ignore", over="ignore"):
        return np.asarray(np.maximum(1.0, np.log1p(-p) / np.log1p(-p_z) * np.ones_like(p_z)))


def least_bits(n_tries: float | int, p: float = 0.5) -> float:
    """Bits up to which a suffix comes out within n tries with probability p: -log2(1 - (1 - p)^(1/n)).

    Examples:
        >>> import numpy as np
        >>> round(least_bits(1, 0.5), 6), tries(np.array([least_bits(1000, 0.1)]), 0.1).round(3).tolist()
        (1.0, [1000.0])
    """
    return float(-np.log2(-np.expm1(np.log1p(-p) / n_tries)))


def worst_windows(
    token_bits: Float64[np.ndarray, " token"], offsets: Int64[np.ndarray, " edge"], suffix_tokens: int
) -> tuple[Int64[np.ndarray, " sample"], Float64[np.ndarray, " sample"]]:
    """The run of so many tokens of each sample that is the likeliest to come out, given all before it.

    Args:
        token_bits: of each token, float64, one sample after the other, such as `CodeLengths.token_bits`; inf where it
            is never drawn.
        offsets: sample i owns the tokens offsets[i] to offsets[i + 1], int64.
        suffix_tokens: length of the run.

    Returns:
        Position of the first token of the run in its sample, and the bits of the run; -1 and inf for a sample that has
        fewer tokens.

    Raises:
        InputError: a length below 1.

    Examples:
        >>> import numpy as np
        >>> start, bits = worst_windows(np.array([4.0, 1.0, 2.0, 9.0, 5.0]), np.array([0, 4, 5]), 2)
        >>> start.tolist(), bits.tolist()
        ([1, -1], [3.0, inf])

    Source:
        Cooper et al., "Extracting memorized pieces of (copyrighted) books from open-weight language models",
        arXiv:2505.12546.
    """
    n = check_integer("suffix_tokens", suffix_tokens)
    starts, found = np.full(len(offsets) - 1, -1), np.full(len(offsets) - 1, math.inf)
    for i, (a, b) in enumerate(pairwise(offsets.tolist())):
        if b - a < n:
            continue
        windows = np.lib.stride_tricks.sliding_window_view(token_bits[a:b], n).sum(axis=1)
        starts[i] = int(windows.argmin())
        found[i] = windows[starts[i]]
    return starts, found
