"""How results come to their pictures without knowing them: what draws is handed in here, by the package."""

from collections.abc import Callable
from typing import Any

__all__ = ["draw", "pictures_from"]

_draw: Callable[..., Any] | None = None


def pictures_from(draw: Callable[..., Any]) -> None:
    """Hand in how results are drawn. The package does so when it is imported; results know no pictures themselves."""
    global _draw
    _draw = draw


def draw(result: Any, *args: Any, **options: Any) -> Any:
    """The picture of a result, by what was handed in."""
    assert _draw is not None, "the package hands the pictures in"
    return _draw(result, *args, **options)
