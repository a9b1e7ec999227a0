"""From logits and tokens to intervals on the coder's integer grid and to ideal bits. The library's hot path.

The code of one token
---------------------
An entropy coder takes up the interval of the coded symbol, which lies on a grid of 2^24 cells; the first and
the last cell are guards that no symbol owns. The vocabulary is cut into contiguous buckets of ``ceil(sqrt(V))`` tokens,
and a token is coded in two stages: its bucket, then its place in the bucket. Either stage gives symbol i of n the
frequency ``floor(weight_i * ((2^24 - 2 - n) / total)) + 1``. The slack, fewer than n cells, goes to a symbol that has
more than half of the grid, else one cell each to the first ones. Two small alphabets instead of one large one keep the
cost of a certain token at about 2 sqrt(V) / 2^24 * 1.44 bits instead of V / 2^24 * 1.44.

Rounding up charges too little for unlikely symbols. So where a frequency is below 2^12 the symbol is followed by
refinements: k more intervals, which together have probability r = p * 2^24 / frequency and leave the rest of their
cells empty; k = ceil(log2(1/r) / 12), and each begins at cell 1 and is round(r^(1/k) * 2^24) cells wide. The decoder
knows p, hence knows that they are there; reading the empty part proves corruption.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from jaxtyping import Bool, Float, Float64, Int64
from torch import Tensor

from memorization.integers import edges_of

GRID_BITS = 24  # constriction keeps 24-bit probabilities
GRID = 1 << GRID_BITS
# floor + 1 moves a frequency f by at most 1/f: 3.5e-4 bits at 2^12, for a symbol that costs 12 bits. A refinement costs
# another step of the coder, so refining more frequent symbols would gain
# nothing.
REFINE_BELOW = 1 << 12
# A refinement of probability 2^-12 or more has a frequency of 4096 or more, so that rounding moves it by 1.8e-4 bits at
# most.
BITS_PER_REFINEMENT = 12.0
# One chunk of float32 logits (8 MiB) stays in a processor's last cache over the three passes that are made over it, and
# keeps its threads busy for longer than it takes to start them; a GPU wants more rows at once.
CHUNK_ELEMENTS = {"cpu": 1 << 21, "cuda": 1 << 26}
# torch splits operations on more elements than this among a processor's threads, which does not pay for the O(sqrt V)
# columns.
UNSPLIT_ELEMENTS = 1 << 15
# Logits masked with a huge negative number instead of -inf (finfo.min; float16's -65504 is 94,502 bits) mean
# probability 0.
MOST_BITS = 65_536.0
_LN2 = math.log(2.0)
_NOT_LARGEST, _LARGEST, _ONE_OF_EQUALS = 0.0, 1.0, 2.0  # what the logit of a token is; of equal ones the first counts


@dataclass(frozen=True, slots=True, eq=False)
class TokenCode:
    """The code of consecutive tokens: intervals for the coder, and ideal bits.

    Attributes:
        ideal_bits: -log2 p of each token, float64. NaN where the logits are NaN or +inf, inf where p is 0: such a token
            has no code, and its intervals mean nothing.
        n_steps: intervals that each token takes, int64.
        left: left edge of each interval on the grid of 2^24 cells, int64, at least 1.
        frequency: width of each interval, int64, at least 1; left + frequency is at most 2^24 - 1.
        greedy: whether each token is the arg max of its logits, of equal ones the first, bool.
    """

    ideal_bits: Float64[np.ndarray, " token"]
    n_steps: Int64[np.ndarray, " token"]
    left: Int64[np.ndarray, " step"]
    frequency: Int64[np.ndarray, " step"]
    greedy: Bool[np.ndarray, " token"]

    def split(self, n_tokens: Sequence[int]) -> "list[TokenCode]":
        """The code of the first n_tokens[0] tokens, of the next n_tokens[1], and so on."""
        token_edges = edges_of(n_tokens)
        step_edges = edges_of(self.n_steps)[token_edges]
        return [
            TokenCode(self.ideal_bits[a:b], self.n_steps[a:b], self.left[c:d], self.frequency[c:d], self.greedy[a:b])
            for (a, b), (c, d) in zip(pairwise(token_edges), pairwise(step_edges), strict=True)
        ]

    @staticmethod
    def concatenate(codes: "list[TokenCode]") -> "TokenCode":
        """The code of the tokens of several runs, one after the other."""
        return TokenCode(
            np.concatenate([c.ideal_bits for c in codes]),
            np.concatenate([c.n_steps for c in codes]),
            np.concatenate([c.left for c in codes]),
            np.concatenate([c.frequency for c in codes]),
            np.concatenate([c.greedy for c in codes]),
        )


def bucket_width(vocab_size: int) -> int:
    """Tokens in a bucket; the last bucket may hold fewer."""
    return math.isqrt(vocab_size - 1) + 1


def code_tokens(
    logits: Float[Tensor, "row vocab"], rows: Int64[Tensor, " token"], ids: Int64[Tensor, " token"]
) -> TokenCode:
    """Intervals and ideal bits of tokens under the softmax of their rows of logits.

    Args:
        logits: any floating dtype, on any device. Read chunk by chunk in float32; no second copy of it is made.
        rows: for each token, the row of `logits` that predicts it, int64, on the CPU.
        ids: the tokens, int64 in [0, vocab), on the CPU.

    Returns:
        The code of the tokens in the order given, on the CPU.

    Guarantees:
        Ideal bits are exact to float32 rounding of single probabilities, also for tokens of 1e-7 bits, where 1 - p is
        what counts. The coded length (32-bit words of a coder fed with the intervals) is within 0.1 bits + 1e-4
        bits a token of it, beside the truncation of the coder itself.
    """
    vocab_size = logits.shape[1]
    if logits.is_cuda:
        chunk_rows = max(1, CHUNK_ELEMENTS["cuda"] // vocab_size)
    else:
        chunk_rows = max(1, min(CHUNK_ELEMENTS["cpu"] // vocab_size, UNSPLIT_ELEMENTS // bucket_width(vocab_size)))
    buffer = torch.empty((min(chunk_rows, len(rows)), vocab_size), dtype=torch.float32, device=logits.device)
    parts = []
    for start in range(0, len(rows), chunk_rows):
        chunk = rows[start : start + chunk_rows]
        first, last = int(chunk[0]), int(chunk[-1])
        contiguous = last - first + 1 == len(chunk) and bool((chunk[1:] > chunk[:-1]).all())
        chunk_logits = logits[first : last + 1] if contiguous else logits[chunk.to(logits.device)]
        parts.append(_code_chunk(chunk_logits, ids[start : start + chunk_rows].to(logits.device), buffer[: len(chunk)]))
    return _assemble(torch.cat(parts, dim=1).cpu().numpy())


def code_uniformly(ids: Int64[np.ndarray, " token"], vocab_size: int) -> list[TokenCode]:
    """The code of tokens under the uniform distribution: what `code_tokens` gives for logits of 0.

    Equal tokens share one code, and no pass over the vocabulary is made. None is greedy: nobody was asked.
    """
    distinct, which = np.unique(ids, return_inverse=True)
    width = bucket_width(vocab_size)
    sizes = torch.full((-(-vocab_size // width),), float(width), dtype=torch.float64)
    sizes[-1] = vocab_size - width * (len(sizes) - 1)
    chunk = max(1, UNSPLIT_ELEMENTS // width)
    parts = []
    for start in range(0, len(distinct), chunk):
        bucket, place, _, exists = _places(torch.from_numpy(distinct[start : start + chunk]), vocab_size)
        inner = torch.zeros(exists.shape, dtype=torch.float64).masked_fill(~exists, -math.inf)
        row_max = torch.zeros((len(inner), 1), dtype=torch.float64)
        parts.append(_stages(sizes.expand(len(inner), -1), inner, row_max, bucket, place, exists))
    columns = torch.cat(parts, dim=1)
    columns[1] = _NOT_LARGEST
    table = _assemble(columns.numpy()).split([1] * len(distinct))
    return [table[k] for k in which]


def _code_chunk(
    logits: Float[Tensor, "token vocab"], ids: Int64[Tensor, " token"], buffer: Float[Tensor, "token vocab"]
) -> Float64[Tensor, "8 token"]:
    """Ideal bits and greedy; then for either stage left, frequency and log2 p. The one pass over all logits is here."""
    vocab_size, width = logits.shape[1], bucket_width(logits.shape[1])
    row_max = logits.amax(dim=1, keepdim=True).float()
    torch.sub(logits, row_max, out=buffer).exp_()
    n_whole = vocab_size // width
    bucket_mass = buffer[:, : n_whole * width].view(-1, n_whole, width).sum(dim=2)
    if n_whole * width < vocab_size:
        bucket_mass = torch.cat([bucket_mass, buffer[:, n_whole * width :].sum(dim=1, keepdim=True)], dim=1)

    bucket, place, columns, exists = _places(ids, vocab_size)
    inner = logits.gather(1, columns.clamp(max=vocab_size - 1)).masked_fill(~exists, -math.inf)
    if logits.device.type == "mps":  # Apple's GPUs have no float64
        bucket_mass, inner, row_max, bucket, place, exists = (
            t.cpu() for t in (bucket_mass, inner, row_max, bucket, place, exists)
        )
    found = _stages(bucket_mass.double(), inner.double(), row_max.double(), bucket, place, exists)
    equals = (found[1] == _ONE_OF_EQUALS).nonzero()[:, 0]
    if len(equals):
        chosen = equals.to(logits.device)
        found[1, equals] = (logits[chosen].argmax(dim=1) == ids[chosen]).to(found.device, found.dtype)
    return found


def _places(ids: Int64[Tensor, " token"], vocab_size: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Each token's bucket and place in it, the ids that the bucket has room for, and which of these are tokens."""
    width = bucket_width(vocab_size)
    bucket, place = ids[:, None] // width, ids[:, None] % width
    columns = bucket * width + torch.arange(width, device=ids.device)
    return bucket, place, columns, columns < vocab_size


def _stages(
    bucket_mass: Float64[Tensor, "token bucket"],
    inner: Float64[Tensor, "token place"],
    row_max: Float64[Tensor, "token 1"],
    bucket: Int64[Tensor, "token 1"],
    place: Int64[Tensor, "token 1"],
    exists: Bool[Tensor, "token place"],
) -> Float64[Tensor, "8 token"]:
    """What `_code_chunk` returns, from columns of which there are O(sqrt V), so that float64 is affordable."""
    own_logit = inner.gather(1, place)
    inner_max = inner.amax(dim=1, keepdim=True)
    inner_max = torch.where(inner_max == -math.inf, row_max, inner_max)
    inner_mass = (inner - inner_max).exp()
    inner_total = inner_mass.sum(dim=1, keepdim=True)
    # Relative to exp(row_max): all tokens but the coded one. Leaving the token out, instead of subtracting it
    # afterwards, is what keeps a token of 1e-7 bits exact.
    rest_of_bucket = inner_mass.scatter(1, place, 0.0).sum(dim=1, keepdim=True) * (inner_max - row_max).exp()
    others = bucket_mass.scatter(1, bucket, 0.0).sum(dim=1, keepdim=True) + rest_of_bucket
    gap = row_max - own_logit
    total = others + (-gap).exp()
    log2_total = torch.where(total > 1.5, total.log2(), (others + torch.expm1(-gap)).log1p() / _LN2)
    ideal_bits = gap / _LN2 + log2_total
    ideal_bits = ideal_bits.masked_fill(ideal_bits > MOST_BITS, math.inf)
    # A bucket that holds a logit equal to the largest weighs 1 at least.
    before = torch.arange(bucket_mass.shape[1], device=bucket.device) < bucket
    in_bucket = torch.arange(inner.shape[1], device=place.device) < place
    equal = ((bucket_mass >= 1) & before).any(dim=1, keepdim=True)
    equal |= ((inner == row_max) & in_bucket).any(dim=1, keepdim=True)
    greedy = torch.where(gap == 0, torch.where(equal, _ONE_OF_EQUALS, _LARGEST), _NOT_LARGEST)

    # Both from what a decoder knows when it needs them: the bucket's from all but the place in it. From a log-sum-exp
    # of the bucket, since its mass relative to the row's largest token underflows in float32 at 104 nats.
    log2_p_bucket = (inner_max - row_max) / _LN2 + inner_total.log2() - bucket_mass.sum(dim=1, keepdim=True).log2()
    log2_p_inner = (own_logit - inner_max) / _LN2 - inner_total.log2()
    left_bucket, frequency_bucket = _on_grid(bucket_mass, bucket, before)
    left_inner, frequency_inner = _on_grid(inner_mass, place, in_bucket, exists)
    stages = (left_bucket, frequency_bucket, log2_p_bucket, left_inner, frequency_inner, log2_p_inner)
    return torch.cat([ideal_bits, greedy.double(), *stages], dim=1).T


def _on_grid(
    weights: Float64[Tensor, "token symbol"],
    symbol: Int64[Tensor, "token 1"],
    before: Bool[Tensor, "token symbol"],
    exists: Bool[Tensor, "token symbol"] | None = None,
) -> tuple[Float64[Tensor, "token 1"], Float64[Tensor, "token 1"]]:
    """Left edge and frequency of one symbol of each row, integers in float64: exact, and summed in any order.

    `before`: the symbols that come before it. `exists`: None where all do.
    """
    n = weights.shape[1] if exists is None else exists.sum(dim=1, keepdim=True)
    frequencies = (weights * ((GRID - 2 - n) / weights.sum(dim=1, keepdim=True))).floor_().add_(1.0)
    if exists is not None:
        frequencies *= exists
    slack = GRID - 2 - frequencies.sum(dim=1, keepdim=True)
    frequency = frequencies.gather(1, symbol)
    left = (frequencies * before).sum(dim=1, keepdim=True)
    # To a symbol of more than half: certain tokens stay cheap, and it moves by 1e-4 bits at most. The largest symbol of
    # a flat table it would make up to 1.6 % larger (0.044 bits a token at V = 262,144, two stages). Of what lies left,
    # only a sum that holds that symbol is more than half.
    half = GRID / 2
    to_one = frequencies.amax(dim=1, keepdim=True) > half
    frequency_gains = torch.where(to_one, slack * (frequency > half), (symbol < slack).to(slack.dtype))
    left_gains = torch.where(to_one, slack * (left > half), torch.minimum(symbol.to(slack.dtype), slack))
    return 1.0 + left + left_gains, frequency + frequency_gains


def _assemble(columns: Float64[np.ndarray, "8 token"]) -> TokenCode:
    """Bucket, its refinements, place, its refinements: as one list of steps."""
    ideal_bits, greedy, *stages = columns
    finite = np.isfinite(ideal_bits)
    lefts, frequencies, repeats = [], [], []
    for left, frequency, log2_p in (stages[:3], stages[3:]):
        left, frequency = np.where(finite, left, 1), np.where(finite, frequency, 1)
        log2_r = np.where(
            finite & (frequency < REFINE_BELOW), np.minimum(0.0, log2_p + GRID_BITS - np.log2(frequency)), 0.0
        )
        n_refinements = np.ceil(-log2_r / BITS_PER_REFINEMENT)
        refinement = np.rint(np.exp2(log2_r / np.maximum(n_refinements, 1)) * GRID).clip(1, GRID - 2)
        lefts += [left, np.ones_like(left)]
        frequencies += [frequency, refinement]
        repeats += [np.ones_like(left), n_refinements]
    n_repeats = np.stack(repeats, axis=1).astype(np.int64)
    flat = n_repeats.ravel()
    return TokenCode(
        ideal_bits=np.ascontiguousarray(ideal_bits),
        n_steps=n_repeats.sum(axis=1),
        left=np.repeat(np.stack(lefts, axis=1).ravel(), flat).astype(np.int64),
        frequency=np.repeat(np.stack(frequencies, axis=1).ravel(), flat).astype(np.int64),
        greedy=greedy == _LARGEST,
    )
