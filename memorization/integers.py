"""Checks of integer arguments: integers of any library pass, a bool or a float never does."""

import operator
from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Int64

from memorization.errors import InputError

__all__ = ["as_integer", "check_integer", "edges_of"]


def as_integer(value: Any) -> int | None:
    """The value as an int where it is an integer of any library; None for a bool, a float, a text.

    Examples:
        >>> import numpy as np
        >>> as_integer(np.int64(3)), as_integer(True), as_integer(3.0)
        (3, None, None)
    """
    if isinstance(value, bool) or "bool" in str(getattr(value, "dtype", "")):
        return None
    try:
        return operator.index(value)
    except (TypeError, ValueError, RuntimeError):  # torch's tensors raise what they like
        return None


def check_integer(name: str, value: Any, *, at_least: int = 1, besides: str = "") -> int:
    """An argument as an int, after checking that it is an integer and not too small.

    Args:
        name: of the argument, for the message.
        value: what came.
        at_least: the smallest that is legal.
        besides: what else the argument may be, for the message: 'None', '"auto"'.

    Raises:
        InputError: it is no integer, or too small.

    Examples:
        >>> check_integer("limit", 10)
        10
    """
    whole = as_integer(value)
    if whole is None or whole < at_least:
        other = f"{besides} or " if besides else ""
        came = repr(value) if whole is None else str(whole)
        raise InputError(f"{name} must be {other}an integer of at least {at_least}; it is {came}.")
    return whole


def edges_of(lengths: Sequence[int] | np.ndarray) -> Int64[np.ndarray, " edge"]:
    """Where pieces of these lengths begin when laid end to end, and where the last one ends.

    Examples:
        >>> edges_of([2, 3]).tolist()
        [0, 2, 5]
    """
    return np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
