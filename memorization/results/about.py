"""What stands beside the numbers of each sample in every table: the user's id, how it begins, the user's columns."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from memorization.errors import InputError
from memorization.results.column_files import ColumnFiles

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["About", "about_of", "check_kept", "one_kind", "with_about"]

_INT64 = 2**63  # integers from here on, and below -2^63, stay texts: no table holds them


@dataclass(frozen=True, slots=True)
class About:
    """Of each sample what its owner knows it by, in the order of the samples.

    Attributes:
        previews: how each begins, harmless to print (`results.visible`).
        row_ids: int or str, none of them twice; None where no ids were given.
        kept: the user's columns by their names: a tuple each, of int, float, bool or str, None where a row has nothing.
    """

    previews: tuple[str, ...]
    row_ids: tuple[Any, ...] | None = None
    kept: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.previews)

    def take(self, places: Sequence[int] | np.ndarray) -> "About":
        """What stands beside the samples at these places, in this order."""
        chosen = [int(place) for place in places]

        def of(values: Sequence[Any]) -> tuple[Any, ...]:
            return tuple(values[place] for place in chosen)

        ids = None if self.row_ids is None else of(self.row_ids)
        return About(of(self.previews), ids, {name: of(values) for name, values in self.kept.items()})

    @classmethod
    def joined(cls, sets: "Sequence[About | None]", counts: Sequence[int]) -> "About | None":
        """One set after the other; what one of them lacks is None there.

        Args:
            sets: what stands beside the samples of each.
            counts: samples of each.

        Returns:
            None where nothing is known of a set that has samples.
        """
        parts = [part or cls(()) for part in sets]
        if [len(part) for part in parts] != list(counts):
            return None
        names = list(dict.fromkeys(name for part in parts for name in part.kept))
        ids = None
        if any(part.row_ids is not None for part in parts):
            ids = one_kind([one for part in parts for one in part.row_ids or (None,) * len(part)])
        kept = {
            name: one_kind([one for part in parts for one in part.kept.get(name, (None,) * len(part))])
            for name in names
        }
        return cls(tuple(one for part in parts for one in part.previews), ids, kept)

    @classmethod
    def of_table(cls, table: "pd.DataFrame") -> "About | None":
        """What a saved table holds: the user's columns are those behind `preview`. None in tables without previews."""
        names = list(table.columns)
        if "preview" not in names:
            return None
        kept = {str(name): _plain(table[name]) for name in names[names.index("preview") + 1 :]}
        return cls(_plain(table["preview"]), _plain(table["id"]) if "id" in names else None, kept)


def about_of(columns: ColumnFiles, start: int, stop: int) -> About | None:
    """What a saved table of samples holds beside the numbers of these rows; None in tables without previews."""
    names = columns.names
    if "preview" not in names:
        return None
    own = [name for name in ("id",) if name in names]
    return About.of_table(columns.frame([*own, *names[names.index("preview") :]], start, stop))


def with_about(table: "pd.DataFrame", about: About | None) -> "pd.DataFrame":
    """The table with `id` behind `sample`, and with `preview` and the user's columns at its end.

    Args:
        table: a row a sample, with the column `sample`.
        about: None of results that an earlier version saved, to which nothing is added.
    """
    if about is None:
        return table
    if about.row_ids is not None:
        table.insert(list(table.columns).index("sample") + 1, "id", _column(about.row_ids, table))
    table["preview"] = _column(about.previews, table)
    for name, values in about.kept.items():
        table[name] = _column(values, table)
    return table


def one_kind(values: Sequence[Any]) -> tuple[Any, ...]:
    """Cells of one column as a table holds them: all integers, all floats, all truth values, or all texts.

    A null or a NaN is None. Cells of several kinds become texts, lists and objects those of JSON.

    Examples:
        >>> one_kind([1, None, 2]), one_kind([1, "a"]), one_kind([1, 2.5]), one_kind([{"a": 1}])
        ((1, None, 2), ('1', 'a'), (1.0, 2.5), ('{"a": 1}',))
    """
    cells = [_scalar(value) for value in values]
    kinds = {type(cell) for cell in cells if cell is not None}
    if kinds <= {int} and all(cell is None or -_INT64 <= cell < _INT64 for cell in cells):
        return tuple(cells)
    if kinds == {float} or (kinds == {int, float} and all(cell is None or abs(cell) < 2**53 for cell in cells)):
        return tuple(None if cell is None else float(cell) for cell in cells)
    if len(kinds) == 1 and kinds <= {bool, str}:
        return tuple(cells)
    return tuple(None if cell is None else _text(cell) for cell in cells)


def check_kept(about: About | None, names: Sequence[str], what: str) -> None:
    """Refuse a column of the user's that a table has a column of its own for.

    Raises:
        InputError: naming it.
    """
    for name in () if about is None else about.kept:
        if name in names:
            raise InputError(
                f"keep names {name!r}, and {what} has a column of that name: it would stand there twice. Rename the "
                "column in the data."
            )


def _scalar(value: Any) -> Any:
    if isinstance(value, np.generic):
        value = value.item()
    if value is None or (isinstance(value, float) and value != value) or type(value).__name__ in ("NaTType", "NAType"):
        return None
    if isinstance(value, str) and not value.isascii():  # no table holds a lone surrogate
        return value.encode("utf-8", "backslashreplace").decode("utf-8")
    return value


def _text(cell: Any) -> str:
    if isinstance(cell, str):
        return cell
    if isinstance(cell, np.ndarray):
        cell = cell.tolist()
    if isinstance(cell, (Mapping, list, tuple, bool)):
        return json.dumps(cell, ensure_ascii=False, default=str)
    return str(cell)


def _plain(series: "pd.Series[Any]") -> tuple[Any, ...]:
    """Cells of a column of a table as Python has them, None where there is none."""
    return tuple(None if null else cell for cell, null in zip(series.tolist(), series.isna().tolist(), strict=True))


def _column(values: Sequence[Any], table: "pd.DataFrame") -> "pd.Series[Any]":
    import pandas as pd

    kinds, gaps = {type(value) for value in values if value is not None}, None in values
    dtype: Any = object
    if kinds == {int}:
        dtype = "Int64" if gaps else np.int64
    elif kinds == {bool}:
        dtype = "boolean" if gaps else np.bool_
    elif kinds == {float}:
        dtype = np.float64
    return pd.Series(list(values), dtype=dtype, index=table.index)
