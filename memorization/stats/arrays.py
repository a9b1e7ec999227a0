"""What functions of numbers take: lists, arrays of numpy and torch, columns of tables."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from typing import TypeAlias

    import numpy.typing as npt

    ArrayLike: TypeAlias = npt.ArrayLike
else:
    ArrayLike = Any  # what is no array is refused by the functions, in words

__all__ = ["ArrayLike"]
