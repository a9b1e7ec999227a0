"""A level, an interval that holds at it, and a value with its interval in words."""

import math
from typing import Any, NamedTuple

from memorization.errors import InputError
from memorization.integers import as_number

__all__ = ["Interval", "check_level", "with_interval"]


class Interval(NamedTuple):
    """Lower and upper end of an interval, in the unit of what it is about; NaN where it is unknown.

    Examples:
        >>> f"{Interval(0.25, 1.5):.2f}"
        '[0.25, 1.50]'
        >>> f"{Interval.unknown():.2f}"
        '[unknown]'
    """

    low: float
    high: float

    @classmethod
    def unknown(cls) -> "Interval":
        """The interval of which nothing is known."""
        return cls(math.nan, math.nan)

    @property
    def is_known(self) -> bool:
        """Whether both ends are numbers."""
        return not (math.isnan(self.low) or math.isnan(self.high))

    def __contains__(self, value: object) -> bool:
        """Whether a value lies in it, ends included."""
        return isinstance(value, (int, float)) and self.low <= value <= self.high

    def __format__(self, spec: str) -> str:
        return f"[{self.low:{spec}}, {self.high:{spec}}]" if self.is_known else "[unknown]"


def check_level(level: Any, name: str = "level") -> float:
    """The level of an interval as a float, refused outside (0, 1).

    Raises:
        InputError: it is no number between 0 and 1.
    """
    value = as_number(level)
    if not 0 < value < 1:
        raise InputError(f"{name} must be a number between 0 and 1, such as 0.95; it is {level!r}.")
    return value


def with_interval(value: float, interval: tuple[float, float], spec: str = ".4g") -> str:
    """A value and its interval in words.

    Examples:
        >>> with_interval(0.75, (0.5, 1.0))
        '0.75 [0.5, 1]'
    """
    return f"{value:{spec}} {Interval(*interval):{spec}}"
