"""Tables that are written some rows at a time, because they may not fit into memory."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["Chunks", "write_csv", "write_parquet"]


@dataclass(frozen=True, slots=True)
class Chunks:
    """A table in parts, each of which becomes a row group of its file.

    Attributes:
        read: begins to read the parts, which have the same columns.
        alike: cells of a column are of one kind in all parts, and none is missing.
    """

    read: "Callable[[], Iterator[pd.DataFrame]]"
    alike: bool


def write_parquet(table: Chunks, path: Path) -> None:
    """Write a .parquet file, which pandas reads as it reads one that was written whole."""
    import pyarrow
    import pyarrow.parquet

    kinds = {} if table.alike else _kinds(table)
    writer: Any = None
    try:
        for chunk in table.read():
            part = _as_kinds(chunk, kinds)
            if writer is None:
                schema = pyarrow.Schema.from_pandas(part, preserve_index=False)
                for k, field in enumerate(schema):
                    if pyarrow.types.is_null(field.type):  # nothing yet, and texts or nothing at all later
                        schema = schema.set(k, field.with_type(pyarrow.string()))
                writer = pyarrow.parquet.ParquetWriter(path, schema)
            writer.write_table(pyarrow.Table.from_pandas(part, schema=schema, preserve_index=False))
    finally:
        if writer is not None:
            writer.close()


def write_csv(table: Chunks, path: Path) -> None:
    """Write a .csv file, as of a table that is written whole."""
    for k, chunk in enumerate(table.read()):
        chunk.to_csv(path, mode="a", header=not k, index=False, lineterminator="\n")


def _kinds(table: Chunks) -> dict[str, Any]:
    """The dtype that holds the cells of a column in all parts, where parts differ in it."""
    found: dict[str, set[str]] = {}
    for chunk in table.read():
        for name in chunk.columns:
            cells = chunk[name]
            found.setdefault(name, set()).add("nothing" if cells.isna().all() else _named(cells))
    return {name: _common(kinds - {"nothing"}) for name, kinds in found.items() if len(kinds) > 1}


def _named(cells: "pd.Series[Any]") -> str:
    return {"i": "Int64", "u": "Int64", "f": "float64", "b": "boolean"}.get(cells.dtype.kind, "object")


def _common(kinds: set[str]) -> str:
    if len(kinds) == 1:
        return next(iter(kinds))
    return "float64" if kinds == {"Int64", "float64"} else "object"


def _as_kinds(chunk: "pd.DataFrame", kinds: dict[str, Any]) -> "pd.DataFrame":
    for name, kind in kinds.items():
        cells = chunk[name]
        if kind == "object":
            chunk[name] = [None if missing else str(cell) for cell, missing in zip(cells, cells.isna(), strict=True)]
        else:
            chunk[name] = cells.astype(kind)
    return chunk
