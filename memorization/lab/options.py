"""Numbers that a caller of the lab hands over, which are not integers: rates, passes, seconds."""

import math
import numbers
from typing import Any

import numpy as np

from memorization.errors import InputError

__all__ = ["check_positive"]


def check_positive(name: str, value: Any, *, besides: str = "", or_zero: bool = False) -> float:
    """A finite number above 0 that came from the caller, of any library, as a float.

    Args:
        name: of the argument, for the message.
        value: what came.
        besides: what else the argument may be, for the message: '"auto"'.
        or_zero: 0 is legal, too.

    Raises:
        InputError: it is no number, not finite, or not above 0.

    Examples:
        >>> check_positive("peak_lr", 0.5)
        0.5
    """
    array = np.asarray(value) if isinstance(value, numbers.Number) or hasattr(value, "dtype") else np.array("")
    number = float(array) if array.ndim == 0 and array.dtype.kind in "iuf" else math.nan
    if not (0 < number < math.inf or (or_zero and number == 0)):
        other = f"{besides} or " if besides else ""
        raise InputError(f"{name} must be {other}a number {'of at least' if or_zero else 'above'} 0; it is {value!r}.")
    return number
