"""Control samples that are nearly copies of samples: unseen in name only, they hide what was memorized."""

import math
from collections.abc import Callable, Iterable
from typing import TypeAlias

import numpy as np
from jaxtyping import Bool, Float64, Int64, UInt64

from memorization.errors import NearCopiesWarning, warn
from memorization.integers import edges_of
from memorization.measure.result import CodeLengths
from memorization.results import counted

__all__ = ["bits_of_hardest", "near_copies", "warn_of_near_copies", "warn_of_near_copies_in"]

Tokens: TypeAlias = tuple[
    Int64[np.ndarray, " token"], Int64[np.ndarray, " edge"]
]  # ids of samples, and where each begins

_BITS_OF_TEXT = 2.0  # of a token of text, or fewer of a letter: what a poor model needs more for is not in the text
_COVERED = 0.8  # of a sample's tokens
_CHANCE_BITS = 13.0  # runs are so long that a place of the control is found by chance once in 2^13
_MOST_BITS = 64.0
_HARDEST = 0.9  # of control samples: these at least the model does not know by heart
_ASKED = 4096  # control samples, evenly spread
_NAMED = 5


def warn_of_near_copies(samples: CodeLengths, control: CodeLengths) -> None:
    """Warn where control samples are nearly copies of samples.

    Args:
        samples: code lengths of the samples under one model, best the oracle.
        control: of the control under the same.
    """
    asked = np.unique(np.linspace(0, len(control) - 1, min(_ASKED, len(control))).round().astype(np.int64))
    some = control if len(asked) == len(control) else control[asked]
    found = near_copies(
        lambda: ((piece.token_ids, piece.token_offsets) for piece in samples.pieces()),
        (some.token_ids, some.token_offsets),
        bits_per_token=bits_of_hardest(some.token_bits, some.token_offsets),
    )
    warn_of_near_copies_in(some.index, found)


def warn_of_near_copies_in(index: Int64[np.ndarray, " control"], found: Bool[np.ndarray, " control"]) -> None:
    """The warning, by the rows of the control samples that were asked and which of them are near copies."""
    if not found.any():
        return
    rows = index[found].tolist()
    named = ", ".join(map(str, rows[:_NAMED])) + (", ..." if len(rows) > _NAMED else "")
    are = f"row {named}) is nearly a copy" if len(rows) == 1 else f"rows {named}) are nearly copies"
    warn(
        f"{counted(len(rows), 'control sample')} of {len(found):,} ({are} of samples: what was memorized of these is "
        "seen there too, and taken for what unseen text shows. Take near copies out of the control, or out of "
        "both sets.",
        NearCopiesWarning,
    )


def bits_of_hardest(token_bits: Float64[np.ndarray, " token"], edges: Int64[np.ndarray, " edge"]) -> float:
    """Bits a token of the harder control samples, which the model does not know by heart, whatever else it does."""
    capped = np.minimum(token_bits, _MOST_BITS)  # what cannot be sampled at all has infinitely many
    bits = np.diff(np.concatenate([[0.0], np.cumsum(capped)])[edges])
    return float(np.quantile(bits / np.maximum(np.diff(edges), 1), _HARDEST))


def near_copies(
    samples: Callable[[], Iterable[Tokens]], control: Tokens, *, bits_per_token: float = math.inf
) -> Bool[np.ndarray, " control"]:
    """Which control samples have at least 80 % of their tokens in runs that stand in samples as well, word for word.

    A run is long enough not to be found by chance: the more tokens the samples have, and the fewer bits a token costs
    (2 at most), the longer; of a million tokens 17. So text of a template, which a model knows without having seen it,
    is no near copy. Of a sample that is shorter than a run nothing is said.

    Args:
        samples: tokens of the samples, a part at a time, from the beginning each time it is called.
        control: tokens of the control.
        bits_per_token: what a token of such text costs a model that has not seen it. Above 2, the same is said.

    Returns:
        One truth value a control sample.

    Examples:
        >>> import numpy as np
        >>> seen, edges = np.arange(100), np.array([0, 100])
        >>> control = np.concatenate([np.arange(40, 60), [7], np.arange(60, 80), np.arange(200, 220)])
        >>> near_copies(lambda: [(seen, edges)], (control, np.array([0, 41, 61])), bits_per_token=8.0).tolist()
        [True, False]

    Source: Touvron et al., arXiv:2307.09288, appendix A.6, for the share of tokens in runs that both texts have.
    """
    n_tokens = sum(len(ids) for ids, _ in samples())
    ids, edges = control
    lengths = np.diff(edges)
    none = np.zeros(len(lengths), dtype=bool)
    if not bits_per_token > 0 or not n_tokens:
        return none
    run = math.ceil((math.log2(n_tokens) + _CHANCE_BITS) / min(bits_per_token, _BITS_OF_TEXT))
    begins, keys = _runs(control, run)
    if not len(keys):
        return none
    different, which = np.unique(keys, return_inverse=True)
    seen = np.zeros(len(different), dtype=bool)
    for part in samples():
        _, theirs = _runs(part, run)
        places = np.searchsorted(different, theirs)
        places[places == len(different)] = 0
        seen[places[different[places] == theirs]] = True
    steps = np.zeros(len(ids) + 1, dtype=np.int64)
    shared = begins[seen[which]]
    np.add.at(steps, shared, 1)
    np.add.at(steps, shared + run, -1)
    covered = edges_of((np.cumsum(steps[:-1]) > 0).astype(np.int64))
    return np.asarray(covered[edges[1:]] - covered[edges[:-1]] >= _COVERED * np.maximum(lengths, 1))


def _runs(tokens: Tokens, n: int) -> tuple[Int64[np.ndarray, " run"], UInt64[np.ndarray, " run"]]:
    """Where each run of n tokens of one sample begins, and a number for it, the same for equal ones."""
    ids, edges = tokens
    last = np.repeat(edges[1:], np.diff(edges)) - n
    begins = np.flatnonzero(np.arange(len(ids)) <= last)
    mixed = _mixed(ids.astype(np.uint64))
    keys = np.zeros(len(begins), dtype=np.uint64)
    for k in range(n):
        keys = _mixed(keys * np.uint64(0x9E3779B97F4A7C15) + mixed[begins + k])
    return begins, keys


def _mixed(numbers: UInt64[np.ndarray, " _"]) -> UInt64[np.ndarray, " _"]:
    """Each of 2^64 numbers as another one, with all bits mixed."""
    numbers = (numbers ^ (numbers >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    numbers = (numbers ^ (numbers >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return np.asarray(numbers ^ (numbers >> np.uint64(31)))
