"""Which tokens an identifier is charged with, so that the probabilities of all strings of its format add up to 1.

The strings of a format are told apart by what a model would have to write after one fixed beginning. That beginning is
the tokens of the text before the identifier, as far as they are the same whatever string stands there. Which those are,
other draws of the format in the same place tell, and never the identifier itself: else the beginning would depend on
it, and several beginnings have a probability of 1 each.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np

from memorization.errors import InputError
from memorization.identifiers.finding import Place
from memorization.identifiers.formats import UniformTokens
from memorization.results import counted
from memorization.samples.round_trip import decode, encode

__all__ = ["Charge", "Spans", "spans_of_canaries", "spans_of_places"]

# Draws that say where the common beginning ends, beside one for each character that may come first. Tokens that a share
# q of the strings change escape them with a probability below (1 - q)^16; an identifier among these cannot be told.
_N_PROBES = 16
_SLACK = 4  # tokens that an identifier may need more than each of the probes
_PLACES_AT_ONCE = 64


@dataclass(frozen=True, slots=True)
class Charge:
    """The tokens that a model reads, and the number of the last ones that the identifier is charged with."""

    ids: np.ndarray
    n_charged: int


@dataclass(frozen=True, slots=True)
class Spans:
    """What an identifier, and fresh draws in its place, are charged with; None where it cannot be told."""

    own: Charge | None
    draws: list[Charge | None]


def spans_of_places(
    places: Sequence[Place], tokenizer: Any, *, n_draws: int, window: int | None, generator: np.random.Generator
) -> Iterator[Spans]:
    """The spans of identifiers in texts, in their order.

    Args:
        places: of the identifiers.
        tokenizer: gives texts back.
        n_draws: fresh draws in the place of each.
        window: tokens that the model reads at most.
        generator: of the draws.

    Raises:
        InputError: identifiers longer than the window.
    """
    for first in range(0, len(places), _PLACES_AT_ONCE):
        part = places[first : first + _PLACES_AT_ONCE]
        strings = [
            [
                one.found,
                *(one.format.draw(one.found, generator) for _ in range(n_draws)),
                *one.format.probes(one.found, _N_PROBES, generator),
            ]
            for one in part
        ]
        texts = [place.with_another(string) for place, own in zip(part, strings, strict=True) for string in own]
        rows = iter(encode(tokenizer, texts)[0])
        for place, own in zip(part, strings, strict=True):
            yield _spans(place, own, list(islice(rows, len(own))), 1 + n_draws, tokenizer, window)


def _spans(
    place: Place, strings: list[str], rows: list[list[int]], n_charged: int, tokenizer: Any, window: int | None
) -> Spans:
    """The first `n_charged` of the strings are the identifier and its draws, the others probes."""
    format_, probes = place.format, rows[n_charged:]
    before = place.text[: place.at] + place.found[: format_.n_given]  # what stands before the random part

    def end_of(k: int, near: int) -> int | None:
        return _n_tokens_of(place.text[: place.at] + strings[k], rows[k], tokenizer, near)

    whole = _n_tokens_of(before, probes[0], tokenizer, len(probes[0]) // 2)
    if whole is None:
        return Spans(None, [None] * (n_charged - 1))
    # The token that holds the last character before the random part may hold some of that part as well.
    boundary = whole if decode(tokenizer, probes[0][:whole]) == before or not whole else whole - 1
    for probe in probes[1:]:
        boundary = next(
            (i for i in range(min(boundary, len(probe))) if probe[i] != probes[0][i]), min(boundary, len(probe))
        )
    begins = probes[0][:boundary]
    start = 0
    if window is not None and boundary + len(place.found.encode()) + _SLACK > window:
        ends = [end for k in range(n_charged, len(rows)) if (end := end_of(k, boundary)) is not None]
        needed = max(ends, default=boundary) - boundary + _SLACK
        if needed > window:
            raise _too_long(format_.name, needed - _SLACK, window)
        start = max(0, boundary - (window - needed))

    def charge(k: int) -> Charge | None:
        end = end_of(k, boundary + 1) if rows[k][:boundary] == begins else None
        if end is None or (window is not None and end - start > window):
            return None
        return Charge(np.asarray(rows[k][start:end], dtype=np.int64), end - boundary)

    return Spans(charge(0), [charge(k) for k in range(1, n_charged)])


def _n_tokens_of(begins: str, ids: list[int], tokenizer: Any, near: int) -> int | None:
    """The fewest tokens whose text begins so, looked for from `near` on; None where all of them do not.

    More tokens begin with what fewer begin with, so this is where the answer turns from no to yes.
    """

    def holds(k: int) -> bool:
        return decode(tokenizer, ids[:k]).startswith(begins)

    if not begins:
        return 0
    low, high = _bracket(holds, min(max(near, 1), len(ids)), len(ids))
    if high is None:
        return None
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if holds(middle) else (middle, high)
    return high


def _bracket(holds: Callable[[int], bool], near: int, most: int) -> tuple[int, int | None]:
    """Two numbers between which the answer turns: no at the first, or 0, and yes at the second."""
    step = 1
    if holds(near):
        low = near - step
        high = near
        while low > 0 and holds(low):
            high, step = low, step * 2
            low = max(0, low - step)
        return low, high
    low = near
    while low < most:
        high = min(low + step, most)
        if holds(high):
            return low, high
        low, step = high, step * 2
    return low, None


def spans_of_canaries(
    samples: Sequence[np.ndarray],
    canaries: UniformTokens,
    *,
    n_draws: int,
    window: int | None,
    generator: np.random.Generator,
) -> Iterator[Spans]:
    """The spans of canaries of token ids, which end their samples and share no token with what stands before them.

    Raises:
        InputError: canaries longer than the window.
    """
    if window is not None and canaries.length > window:
        raise _too_long(canaries.name, canaries.length, window)
    for ids in samples:
        context = ids[: len(ids) - canaries.length][
            len(ids) - window if window is not None and len(ids) > window else 0 :
        ]
        drawn = generator.integers(canaries.vocab_size, size=(n_draws, canaries.length))
        own, *draws = (
            Charge(np.concatenate([context, canary]), canaries.length)
            for canary in (ids[len(ids) - canaries.length :], *drawn)
        )
        yield Spans(own, list(draws))


def _too_long(name: str, n_tokens: int, window: int) -> InputError:
    return InputError(
        f"identifiers of the format {name} take up to {counted(n_tokens, 'token')}, and the window holds {window}: "
        "their "
        "probability cannot be read in one pass. Pass a larger max_length, where the model has "
        "more positions."
    )
