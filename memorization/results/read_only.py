"""Frozen dataclasses of numbers: read-only arrays, `Interval`s, and figures that are worked out once."""

import dataclasses
import weakref
from collections.abc import Callable
from typing import Any, TypeVar, cast

import numpy as np

from memorization.stats.levels import Interval

__all__ = ["ReadOnly"]

T = TypeVar("T")

_REMEMBERED: "weakref.WeakKeyDictionary[ReadOnly, dict[str, Any]]" = weakref.WeakKeyDictionary()


class ReadOnly:
    """What the dataclasses of measurements share: read-only arrays, and intervals that are `Interval`s."""

    __slots__ = ("__weakref__",)

    def __post_init__(self) -> None:
        for field in dataclasses.fields(cast(Any, self)):
            value = getattr(self, field.name)
            if isinstance(value, np.ndarray):
                view = value.view()  # of the same memory: whoever made the array may go on writing to it
                view.flags.writeable = False
                object.__setattr__(self, field.name, view)
            elif field.name.endswith("interval") and type(value) is tuple:
                object.__setattr__(self, field.name, Interval(*value))
            elif field.name.endswith("interval") and isinstance(value, dict):
                object.__setattr__(self, field.name, {key: Interval(*ends) for key, ends in value.items()})

    def _once(self, name: str, work: Callable[[], T]) -> T:
        """What `work` gives, worked out when first asked for and remembered as long as this object lives."""
        known = _REMEMBERED.setdefault(self, {})
        if name not in known:
            known[name] = work()
        return cast(T, known[name])
