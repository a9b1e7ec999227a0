"""Texts longer than the window: what later windows lose because the context token stands before the first alone."""

import math

import numpy as np

from memorization.errors import FirstTokenWarning, ImpossibleTokenError, warn
from memorization.measure.batches import BatchSize
from memorization.measure.context import FirstToken, LaterWindows, Sequences
from memorization.measure.opening import OpenModel
from memorization.measure.passes import Window, score, windows

__all__ = ["ask_later_windows", "clearly_dearer_without", "warn_of_later_windows"]

_WINDOWS_ASKED = 8
_STANDARD_ERRORS = 4  # that the mean difference of the tokens must lie above 0
_DEARER_BITS = 0.1  # a token: more than the context that the context token displaces is worth


def ask_later_windows(
    model: OpenModel, sequences: list[np.ndarray], context: int, max_length: int, stride: int
) -> tuple[LaterWindows, bool] | None:
    """Bits of a few later windows both ways, and whether the context token in front of them is clearly worth its place.

    None where no text is longer than the window, or where a window has a token of probability 0.
    """
    later = _some_later(sequences, max_length, stride)
    if not later:
        return None
    both = [_bits(model, sequences, later, token, max_length, stride) for token in (context, None)]
    if both[0] is None or both[1] is None:
        return None
    with_it, without = np.concatenate(both[0]), np.concatenate(both[1])
    found = LaterWindows(len(later), len(with_it), float(with_it.mean()), float(without.mean()))
    return found, clearly_dearer_without(with_it, without)


def warn_of_later_windows(
    model: OpenModel,
    sequences: Sequences,
    token_bits: list[np.ndarray],
    first: FirstToken,
    max_length: int | None,
    stride: int | None,
) -> None:
    """Warn where later windows of long texts, which lack the context token, would be cheaper with it.

    `token_bits` are of the coded tokens of each sequence. Models that always saw it first in training (Gemma, Llama)
    code badly without it. A few windows are asked again.
    """
    if first.context is None or first.later_windows is not None:  # asked before, and decided
        return
    if max_length is None or stride is None or max_length < 2:
        return
    later = _some_later(sequences.read, max_length, stride, sequences.scored)
    bits = _bits(model, sequences.read, later, first.context, max_length, stride) if later else None
    if bits is None:
        return
    parts, same = [], []
    for (i, _, stop, n_new), own in zip(later, bits, strict=True):
        flags = sequences.scored[i][stop + 1 - n_new : stop + 1]
        start = sequences.apart[i] + int(np.count_nonzero(sequences.scored[i][: stop + 1 - n_new]))
        parts.append(token_bits[i][start : start + int(np.count_nonzero(flags))])  # of the window
        same.append(own[flags])
    without, with_it = np.concatenate(parts), np.concatenate(same)
    if clearly_dearer_without(with_it, without):
        name = repr(first.token) if first.token is not None else f"id {first.id}"
        warn(
            f"{_n_long(sequences.read, max_length)} texts are longer than the window of {max_length} tokens, and the "
            f"context token ({name}) stands before their first window only. With it before the later ones, too, their "
            f"tokens would cost {with_it.mean():.3g} bits in place of {without.mean():.3g} ({len(later)} windows "
            f"asked): the model has likely always seen it first. Cut long texts into samples of at most {max_length} "
            "tokens, or read these bits as too many"
            + ('; first_token="auto" puts it before each window.' if first.rule == "bos" else "."),
            FirstTokenWarning,
        )


def clearly_dearer_without(with_it: np.ndarray, without: np.ndarray) -> bool:
    """Whether tokens of later windows cost clearly more without the context token."""
    dearer = without - with_it
    by_chance = _STANDARD_ERRORS * float(dearer.std()) / math.sqrt(len(dearer))
    return bool(dearer.mean() > max(_DEARER_BITS, by_chance))


def _n_long(sequences: list[np.ndarray], max_length: int) -> int:
    return sum(len(sequence) - 1 > max_length for sequence in sequences)


def _some_later(
    sequences: list[np.ndarray], max_length: int, stride: int, scored: list[np.ndarray] | None = None
) -> list[Window]:
    """A few windows after the first, of those with a token that is scored."""
    long = [i for i, sequence in enumerate(sequences) if len(sequence) - 1 > max_length]
    later = [(i, *span) for i in long for span in windows(len(sequences[i]), max_length, stride)[1:]]
    if scored is not None:
        later = [span for span in later if scored[span[0]][span[2] + 1 - span[3] : span[2] + 1].any()]
    return later[:: max(1, len(later) // _WINDOWS_ASKED)][:_WINDOWS_ASKED]


def _bits(
    model: OpenModel,
    sequences: list[np.ndarray],
    later: list[Window],
    context: int | None,
    max_length: int,
    stride: int,
) -> list[np.ndarray] | None:
    """Bits of each window's new tokens, `context` in place of its first input; None where a token is impossible."""
    found: dict[int, np.ndarray] = {}
    pieces = [sequences[i][start : stop + 1].copy() for i, start, stop, _ in later]
    for piece in pieces if context is not None else []:
        piece[0] = context
    try:
        score(
            model,
            pieces,
            max_length=max_length,
            stride=stride,
            batch_size=BatchSize(1),
            name_token=lambda *_: "a window",
            on_scored=lambda k, code: found.update({k: code.ideal_bits}),
            progress=False,
        )
    except ImpossibleTokenError:  # of a window that nobody asked for
        return None
    return [found[k][-n_new:] for k, (*_, n_new) in enumerate(later)]
