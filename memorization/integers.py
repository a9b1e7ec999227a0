"""Checks of integer arguments: integers of any library pass, a bool or a float never does."""

import math
import operator
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from jaxtyping import Int64

from memorization.errors import InputError

__all__ = ["as_integer", "as_number", "check_integer", "check_integers", "check_seed", "edges_of"]


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


def as_number(value: Any) -> float:
    """The value as a float where it is one number of any library; NaN where it is a bool, a text or an array.

    Examples:
        >>> as_number(3), as_number("3"), as_number([3])
        (3.0, nan, nan)
    """
    if isinstance(value, (bool, str, bytes, bytearray)) or "bool" in str(getattr(value, "dtype", "")):
        return math.nan
    try:
        return math.nan if getattr(value, "ndim", 0) else float(value)
    except (TypeError, ValueError, OverflowError, RuntimeError):
        return math.nan


def check_seed(seed: Any) -> int:
    """A seed that came from the caller, as an int in [0, 2^32), which every generator takes.

    Raises:
        InputError: it is no integer, or out of range.
    """
    whole = check_integer("seed", seed, at_least=0)
    if whole >= 2**32:
        raise InputError(f"seed must be below 2^32; it is {seed}.")
    return whole


def check_integer(name: str, value: Any, *, at_least: int | None = 1, besides: str = "") -> int:
    """An argument as an int, after checking that it is an integer and not too small.

    Args:
        name: of the argument, for the message.
        value: what came.
        at_least: the smallest that is legal; None: any integer is.
        besides: what else the argument may be, for the message: 'None', '"auto"'.

    Raises:
        InputError: it is no integer, or too small.

    Examples:
        >>> check_integer("limit", 10)
        10
    """
    whole = as_integer(value)
    if whole is None or (at_least is not None and whole < at_least):
        other = f"{besides} or " if besides else ""
        bound = "" if at_least is None else f" of at least {at_least}"
        came = repr(value) if whole is None else str(whole)
        raise InputError(f"{name} must be {other}an integer{bound}; it is {came}.")
    return whole


def check_integers(
    name: str, values: Any, *, at_least: int | None = None, different: bool = True, besides: str = ""
) -> list[int]:
    """Several integer arguments as ints; at least one and, where `different`, no two equal.

    Raises:
        InputError: there is none, one is no integer or too small, or two are equal.

    Examples:
        >>> import numpy as np
        >>> check_integers("seeds", np.arange(3))
        [0, 1, 2]
    """
    given = list(values) if isinstance(values, Iterable) and not isinstance(values, str) else values
    whole = [as_integer(value) for value in given] if isinstance(given, list) else []
    found = [number for number in whole if number is not None and (at_least is None or number >= at_least)]
    if not found or len(found) < len(whole) or (different and len(set(found)) < len(found)):
        other = f"{besides} or " if besides else ""
        bound, kind = "" if at_least is None else f" of at least {at_least}", "different " if different else ""
        raise InputError(f"{name} must be {other}{kind}integers{bound}, at least one; got {given!r}.")
    return found


def edges_of(lengths: Sequence[int] | np.ndarray) -> Int64[np.ndarray, " edge"]:
    """Where pieces of these lengths begin when laid end to end, and where the last one ends.

    Examples:
        >>> edges_of([2, 3]).tolist()
        [0, 2, 5]
    """
    return np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
