"""What every result is: saved and loaded by one rule, and drawn by a picture of its name."""

import importlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar, cast

from memorization.pictures import draw
from memorization.results.chunks import Chunks
from memorization.results.folder import Contents, folder_path, write
from memorization.results.kinds import KINDS, kind_of
from memorization.results.read_only import ReadOnly
from memorization.results.saved import Saved

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

__all__ = ["Pictured", "Result", "load"]

R = TypeVar("R", bound="Result")


class Pictured(ReadOnly):
    """What has a picture in `memorization.report`."""

    __slots__ = ()

    def plot(self, ax: "Axes | None" = None, **options: Any) -> "Axes":
        """Draw the picture of this result; `memorization.report` holds one for each kind, with its options.

        Args:
            ax: matplotlib Axes to draw on; None makes a figure, reached as `ax.figure`.
            options: as the picture takes them.

        Returns:
            The Axes.
        """
        return draw(self, ax, **options)


class Result(Pictured):
    """What the functions of this library return: numbers with their settings, which can be saved, loaded and drawn.

    Arrays are read-only. Two results are equal only if they are the same object: compare their numbers.

    Examples:
        >>> import tempfile
        >>> from memorization import UniformModel, compress_bits, load
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     compress_bits(UniformModel(2048), [list(range(64))]).save(folder)
        ...     type(load(folder)).__name__
        'CodeLengths'
    """

    __slots__ = ()

    _row_tables: ClassVar[tuple[str, ...]] = ()  # tables of the folder with a row a sample, or a part of one

    def save(self, folder: str | os.PathLike[str], *, overwrite: bool | None = None, csv: bool = False) -> None:
        """Write this result into a folder, which is made where needed; `load` reads it back.

        Args:
            folder: files in it that belong to no saved result stay.
            overwrite: True replaces the result that the folder holds: of the old one nothing is left, its parts and
                what commands drew of them included. False refuses. None replaces it with a warning, as version 0.1.0
                did without one; the next version will refuse.
            csv: write tables with a row a sample as .csv, too: UTF-8, an empty cell where nothing is known. `load`
                reads the others.

        Raises:
            ResultError: the folder holds a saved result, and overwrite is False; or a settings.json that no result has
                written.

        Guarantees:
            Killed at any moment, the folder holds the old result or the new one. Two processes that save into one
            folder at the same time leave the result of one of them, or a folder that `load` refuses; never a mixture.
        """
        write(self._contents(csv), folder_path(folder), overwrite)

    @classmethod
    def load(cls: type[R], folder: str | os.PathLike[str]) -> R:
        """Read what `save` wrote, here or in version 0.1.0.

        Raises:
            ResultError: the folder holds no result of this kind, or one that is damaged or mixed with another.
        """
        return Saved.open(folder_path(folder), cls.__name__).read(cls)

    def _contents(self, csv: bool = False) -> Contents:
        as_csv = self._row_tables if csv else ()
        # What parts hold of each sample stands in the tables of the whole, where it has any.
        parts = {name: part._contents(csv and not as_csv) for name, part in self._parts().items()}
        return Contents(kind_of(self), self._facts(), self._tables, parts, self._write_more, as_csv)

    def _tables(self) -> "Mapping[str, pd.DataFrame | Chunks]":
        """The tables of a folder, by the names of their files without ending."""
        return {}

    def _facts(self) -> Mapping[str, Any]:
        """What stands in settings.json."""
        raise NotImplementedError

    def _parts(self) -> "Mapping[str, Result]":
        """Results that lie in folders of their own, by their paths."""
        return {}

    def _write_more(self, folder: Path) -> None:
        """Write what is neither table nor part into an empty folder."""

    @classmethod
    def _from_saved(cls: type[R], saved: "Saved") -> R:
        """The result of what was saved."""
        raise NotImplementedError


def _class_of(kind: str) -> type[Result]:
    return cast(type[Result], getattr(importlib.import_module(KINDS[kind]), kind))


def load(folder: str | os.PathLike[str]) -> Result:
    """Read a saved result of whatever kind: what `.save(folder)` of a result, or a command, wrote.

    Args:
        folder: that holds settings.json.

    Returns:
        A result of the class that was saved.

    Raises:
        ResultError: the folder holds no saved result, or one that is damaged or mixed with another.

    Examples:
        >>> import tempfile
        >>> from memorization import UniformModel, compress_bits, load
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     compress_bits(UniformModel(2048), [list(range(64))]).save(folder)
        ...     load(folder).ideal_bits.tolist()
        [704.0]
    """
    saved = Saved.open(folder_path(folder))
    return saved.read(_class_of(saved.kind))
