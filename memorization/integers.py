"""Integers that a caller hands over: numpy's and torch's are as good as Python's; a bool or a float is a slip."""

import operator
from typing import Any

from memorization.errors import InputError

__all__ = ["as_integer", "check_integer"]


def as_integer(value: Any) -> int | None:
    """The value as an int where it is an integer of any library, None where it is something else: a bool, a float, a text.

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
    """An integer that came from the caller, as an int.

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
