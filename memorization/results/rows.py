"""Results with a row a sample: parts of them, their rows one by one, and how a notebook shows them."""

import html
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, TypeVar, overload

import numpy as np
from jaxtyping import Int64

from memorization.errors import InputError
from memorization.results import counted
from memorization.results.chunks import Chunks
from memorization.results.result import Result
from memorization.results.visible import visible

if TYPE_CHECKING:
    import pandas as pd

    from memorization.results.about import About

__all__ = ["Rows", "column_of", "places_of"]

Self = TypeVar("Self", bound="Rows")

_SHOWN = 10  # rows in a notebook


class Rows(Result):
    """What results with a row a sample share. `len` is the number of samples."""

    __slots__ = ()

    def to_pandas(self) -> "pd.DataFrame":
        """One row a sample."""
        raise NotImplementedError

    def __len__(self) -> int:
        raise NotImplementedError

    def _of_places(self: Self, places: Int64[np.ndarray, " kept"]) -> Self:
        """The result of the samples at these places."""
        raise NotImplementedError

    @overload
    def __getitem__(self, part: int) -> dict[str, Any]: ...

    @overload
    def __getitem__(self: Self, part: Any) -> Self: ...

    def __getitem__(self: Self, part: Any) -> "Self | dict[str, Any]":
        """A part of the samples as a result of the same kind, or one row.

        Args:
            part: a slice; a truth value a sample, as a list, an array or a column of a table; or places in this result,
                counted from 0, none of them twice. One integer gives the row of one sample.

        Raises:
            InputError: a mask of another length, places that are not there, or no sample left.

        Examples:
            >>> from memorization import UniformModel, compress_bits
            >>> lengths = compress_bits(UniformModel(256), [[1, 2, 3], [4], [5, 6]])
            >>> lengths[lengths.n_tokens > 1].ideal_bits.tolist(), lengths[-1]["sample"], len(lengths[:2])
            ([24.0, 16.0], 2, 2)
        """
        if isinstance(part, (int, np.integer)) and not isinstance(part, (bool, np.bool_)):
            return self._row(int(part))
        places = places_of(part, len(self))
        return self._of_places(places)

    def _row(self, place: int) -> dict[str, Any]:
        if not -len(self) <= place < len(self):
            raise InputError(f"sample {place} was asked for, and there are {len(self)}, counted from 0.")
        if not self._in_files:
            return self._records()[place].copy()
        place %= len(self)
        return _plain_records(self._rows(place, place + 1))[0]

    def __iter__(self) -> Iterator[dict[str, Any]]:
        """The rows of `to_pandas`, each as a dict."""
        if not self._in_files:
            return (row.copy() for row in self._records())
        return (row for ends in self._row_ranges() for row in _plain_records(self._rows(*ends)))

    @property
    def _in_files(self) -> bool:
        """Whether what stands beside the samples is left in files."""
        return False

    def _row_ranges(self) -> list[tuple[int, int]]:
        """First and last + 1 row of each part of the table that is in memory at a time: of all, where all may be."""
        return [(0, len(self))]

    def _rows(self, low: int, high: int) -> "pd.DataFrame":
        """The rows of `to_pandas` from `low` up to `high`."""
        return self.to_pandas().iloc[low:high]

    def _table(self) -> "pd.DataFrame | Chunks":
        """The table as it is written."""
        if not self._in_files:
            return self.to_pandas()
        return Chunks(lambda: (self._rows(*ends) for ends in self._row_ranges()), alike=False)

    def _records(self) -> list[dict[str, Any]]:
        return self._once("records of rows", lambda: _plain_records(self.to_pandas()))

    def _first_shown(self) -> tuple[str, "pd.DataFrame"]:
        """The rows that a notebook shows, and what they are."""
        return "the first samples", self._rows(0, min(_SHOWN, len(self)))

    def _repr_html_(self) -> str:
        """What a notebook shows: the figures, and some rows. Texts in it can do nothing but be read."""
        told, table = self._first_shown()
        lines = "\n".join(visible(line) for line in repr(self).splitlines())
        for name in table.columns:
            if table[name].dtype.kind not in "iufb":
                table[name] = [visible(cell, 60) if isinstance(cell, str) else cell for cell in table[name]]
        rows = table.rename(columns=lambda name: visible(name)).to_html(
            escape=True, float_format=lambda value: f"{value:,.4g}", border=0, na_rep="", notebook=False
        )
        return f"<pre>{html.escape(lines)}</pre>\n<p>{told}, {len(table):,} of {len(self):,}</p>\n{rows}"


def places_of(part: Any, n: int) -> Int64[np.ndarray, " kept"]:
    """The places that a slice, a mask or a list of places chooses from n samples.

    Raises:
        InputError: a mask of another length, places that are not there or come twice, or none.
    """
    if isinstance(part, slice):
        places = np.arange(n, dtype=np.int64)[part]
    else:
        asked = _array(part)
        if asked.dtype.kind == "b":
            if asked.shape != (n,):
                raise InputError(
                    f"a mask must have one truth value for each of the {counted(n, 'sample')}; it has {len(asked)}."
                )
            places = np.flatnonzero(asked)
        else:
            if asked.ndim != 1 or asked.dtype.kind not in "iu":
                raise InputError(
                    "a part of a result is a slice, a mask of truth values or a list of places, such as result[:10] or "
                    f"result[result.bits > 20]; {visible(repr(part), 60)} came."
                )
            wrong = asked[(asked < -n) | (asked >= n)]
            if len(wrong):
                raise InputError(f"sample {wrong[0]} was asked for, and there are {n}, counted from 0.")
            places = np.where(asked < 0, asked + n, asked).astype(np.int64)
            if len(np.unique(places)) < len(places):
                raise InputError("places must differ: a sample that comes twice would count twice.")
    if not len(places):
        raise InputError(f"none of the {counted(n, 'sample')} is left in this part, so there is nothing to say of it.")
    return places.astype(np.int64)


def _array(part: Any) -> np.ndarray:
    if hasattr(part, "isna") and getattr(part, "dtype", None) is not None and part.isna().any():
        raise InputError(
            "a mask must say of each sample whether it is in the part, and is missing for some: fill it in, for "
            "instance with mask.fillna(False)."
        )
    try:
        asked = np.asarray(part.to_numpy() if hasattr(part, "to_numpy") else part)
        if asked.dtype.kind == "O" and asked.ndim == 1 and all(isinstance(one, (bool, np.bool_)) for one in asked):
            asked = asked.astype(bool)
    except (TypeError, ValueError) as error:
        raise InputError(f"a part of a result is a slice, a mask or a list of places ({error}).") from error
    return asked.astype(np.int64) if asked.size == 0 and asked.ndim == 1 else asked


def column_of(about: "About | None", groups: tuple[str, ...] | None, name: str) -> tuple[Any, ...]:
    """A kept column, or the documents as `group`, a cell a sample.

    Raises:
        InputError: no column of this name was kept.
    """
    from difflib import get_close_matches

    kept: Mapping[str, tuple[Any, ...]] = {} if about is None else about.kept
    known = {**({} if groups is None else {"group": groups}), **kept}
    if name in known:
        return known[name]
    told = f"it has {', '.join(map(visible, known))}" if known else "none were kept"
    close = [] if not isinstance(name, str) else get_close_matches(name, known)
    hint = f" Did you mean {close[0]!r}?" if close else ""
    raise InputError(
        f"there is no kept column {visible(repr(name), 60)}: {told}.{hint} Columns of the data are kept by "
        f'read_samples(..., keep=["{name}"]), or --keep {name}.'
    )


def _plain_records(table: "pd.DataFrame") -> list[dict[str, Any]]:
    import pandas as pd

    names = [str(name) for name in table.columns]
    columns = [[None if cell is pd.NA else cell for cell in table[name].tolist()] for name in table.columns]
    return [dict(zip(names, cells, strict=True)) for cells in zip(*columns, strict=True)]
