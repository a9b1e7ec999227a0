"""Texts longer than the window: what later windows lose because the context token stands before the first alone."""

import math

import numpy as np

from memorization.errors import FirstTokenWarning, ImpossibleTokenError, warn
from memorization.measure.context import FirstToken
from memorization.measure.opening import OpenModel
from memorization.measure.passes import score, windows

__all__ = ["warn_of_later_windows"]

_WINDOWS_ASKED_AGAIN = 8
_STANDARD_ERRORS = 4  # that the mean difference of the tokens must lie above 0
_DEARER_BITS = 0.1  # a token: more than the context that the context token displaces is worth


def warn_of_later_windows(
    model: OpenModel,
    sequences: list[np.ndarray],
    token_bits: list[np.ndarray],
    first: FirstToken,
    max_length: int | None,
    stride: int | None,
) -> None:
    """Warn where later windows of long texts, which lack the context token, would be cheaper with it.

    Models that always saw it first in training (Gemma, Llama) code badly without it. A few windows are asked again.
    """
    if first.id is None or max_length is None or stride is None or max_length < 2:
        return
    long = [i for i, sequence in enumerate(sequences) if len(sequence) - 1 > max_length]
    later = [(i, *span) for i in long for span in windows(len(sequences[i]), max_length, stride)[1:]]
    later = later[:: max(1, len(later) // _WINDOWS_ASKED_AGAIN)][:_WINDOWS_ASKED_AGAIN]
    if not later:
        return
    found: dict[int, np.ndarray] = {}
    try:
        score(
            model,
            [np.concatenate([[first.id], sequences[i][start + 1 : stop + 1]]) for i, start, stop, _ in later],
            max_length=max_length,
            stride=stride,
            batch_size=1,
            name_token=lambda *_: "a window",
            on_scored=lambda k, code: found.update({k: code.ideal_bits}),
            progress=False,
        )
    except ImpossibleTokenError:  # of a window that nobody asked for
        return
    with_it = np.concatenate([found[k][-n_new:] for k, (*_, n_new) in enumerate(later)])
    without = []
    for i, _, stop, n_new in later:
        end = stop + 1 - (len(sequences[i]) - len(token_bits[i]))  # of the window, among the coded tokens
        without.append(token_bits[i][end - n_new : end])
    dearer = np.concatenate(without) - with_it
    bits = float(np.concatenate(without).mean()), float(with_it.mean())
    by_chance = _STANDARD_ERRORS * float(dearer.std()) / math.sqrt(len(dearer))
    if dearer.mean() > max(_DEARER_BITS, by_chance):
        name = repr(first.token) if first.token is not None else f"id {first.id}"
        warn(
            f"{len(long)} texts are longer than the window of {max_length} tokens, and the context token ({name}) "
            "stands before their first window only. With it before the later ones, too, their tokens would cost "
            f"{bits[1]:.3g} bits in place of {bits[0]:.3g} ({len(later)} windows asked): the model has likely always "
            f"seen it first. Cut long texts into samples of at most {max_length} tokens, or read these bits as too "
            "many.",
            FirstTokenWarning,
        )
