"""Checks of what canary functions are given, made before anything is trained."""

from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
from jaxtyping import Int64
from torch import Tensor

from memorization.errors import InputError
from memorization.integers import as_integer
from memorization.stats.arrays import ArrayLike

_LEAST = 2  # canaries of a count: one has no spread


def token_rows(name: str, values: ArrayLike, vocab_size: int | None = None) -> Int64[Tensor, "sample position"]:
    """Token ids as int64 on the CPU, checked."""
    try:
        ids = torch.as_tensor(values).cpu()
    except (TypeError, ValueError, RuntimeError) as error:
        raise InputError(f"{name} must be token ids of shape (sample, position): {error}.") from error
    if ids.dim() != 2 or ids.is_floating_point() or ids.is_complex() or ids.dtype == torch.bool:
        raise InputError(
            f"{name} must be integer token ids of shape (sample, position); it is {ids.dtype} of shape "
            f"{tuple(ids.shape)}."
        )
    if len(ids) < 1 or ids.shape[1] < 2:
        raise InputError(f"{name} must hold a sample, and two tokens a sample; its shape is {tuple(ids.shape)}.")
    ids = ids.to(torch.int64)
    if vocab_size is not None:
        wrong = ((ids < 0) | (ids >= vocab_size)).nonzero()
        if len(wrong):
            sample, position = wrong[0].tolist()
            raise InputError(
                f"token ids of {name} must lie in [0, {vocab_size}); {len(wrong)} do not, the first is "
                f"{ids[sample, position]} in sample {sample} at position {position}. Were they made with another "
                "tokenizer?"
            )
    return ids


def repetitions_of(repetitions: ArrayLike, n_canaries: int) -> Int64[np.ndarray, " canary"]:
    """Repetitions of each canary, after checking that they are integers of 0 or more."""
    times = np.asarray(repetitions)
    if times.shape != (n_canaries,):
        raise InputError(
            f"repetitions must be one number a canary: there are {n_canaries} canaries, and repetitions of shape "
            f"{times.shape}."
        )
    if times.dtype.kind not in "iu":
        raise InputError(f"repetitions must be integers; they are {times.dtype}.")
    if times.min() < 0:
        first = int(np.flatnonzero(times < 0)[0])
        raise InputError(f"repetitions must be 0 or more; that of canary {first} is {times[first]}.")
    return times.astype(np.int64)


def check_canaries(canaries: Int64[Tensor, "canary position"], times: Int64[np.ndarray, " canary"]) -> None:
    """Refuse repetitions that can show no trend, and canaries that are equal to others."""
    counts, numbers = np.unique(times, return_counts=True)
    if len(counts) < 2:
        raise InputError(
            f"all canaries have {counts[0]} repetitions; two different counts are needed, best with 0 (the control) "
            "among them."
        )
    if numbers.min() < _LEAST:
        raise InputError(
            f"each count needs at least {_LEAST} canaries; {counts[numbers.argmin()]} repetitions have {numbers.min()}."
        )
    places: dict[tuple[int, ...], int] = {}
    for i, canary in enumerate(map(tuple, canaries.tolist())):
        first = places.setdefault(canary, i)
        if first < i:
            raise InputError(
                f"canaries {first} and {i} are equal, so their repetitions are not what they seem; make canaries of "
                "more tokens, or of a larger vocabulary."
            )


def different_counts(repetitions: Any) -> list[int]:
    """Numbers of repetitions in ascending order, after checking them."""
    given = list(repetitions) if isinstance(repetitions, Iterable) else [repetitions]
    counts = [number for number in map(as_integer, given) if number is not None and number >= 1]
    if not counts or len(set(counts)) < len(given):
        raise InputError(
            f"repetitions must be different positive integers, at least one; got {given}. The control, 0, is always "
            "there."
        )
    return sorted(counts)
