"""Rows of tables, columns and data sets in memory: their cells in order, null ones included.

What does not fit is refused by its place: nothing is cut, shifted or left out here.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from memorization.errors import InputError
from memorization.samples.token_ids import is_int, is_tensor, kind_of, quote, shorten, to_numpy

IDS = "input_ids"
MASK, LABELS = "attention_mask", "labels"  # columns of tokenized data that say which ids are padding


class Row(NamedTuple):
    """A cell, and what stands in the columns beside it that tell padding and the document; None where there is none."""

    cell: Any
    mask: Any = None
    labels: Any = None
    group: Any = None


def rows_of_table(table: Any, column: str, groups: str | None = None) -> Iterator[Row] | None:
    """The rows of a data set, a table or a column in memory; None where this is none of them.

    Raises:
        InputError: the column is not there, or a row does not fit; with the place.
    """
    name = type(table).__name__
    package = {kind.__module__.split(".")[0] for kind in type(table).__mro__}
    if "pandas" in package and hasattr(table, "isna"):
        if hasattr(table, "columns"):
            names = list(table.columns)
            keys = columns_read(f"the {name}", column, names, groups)
            cells = [_pandas_cells(table[part]) for part in keys]
            return (
                row_of(f"the {name}", dict(zip(keys, row, strict=True)), column, groups)
                for row in zip(*cells, strict=True)
            )
        if not hasattr(table, "tolist"):
            return None
        check_no_groups(f"a {name}, which is one column", groups)
        return map(Row, _pandas_cells(table))
    if hasattr(table, "column_names") and not hasattr(table, "schema"):
        return _read_dataset(table, column, groups)
    arrow = _as_arrow(table)
    if arrow is None:
        return None
    if not hasattr(arrow, "schema"):
        check_no_groups(f"a {name}, which is one column", groups)
        return map(Row, arrow.to_pylist())
    columns_read(f"the {name}", column, arrow.schema.names, groups)
    return arrow_rows(f"the {name}", arrow, column, groups)


def _pandas_cells(series: Any) -> list[Any]:
    return [None if null else cell for cell, null in zip(series.tolist(), series.isna().tolist(), strict=True)]


def _as_arrow(table: Any) -> Any:
    """A pyarrow Table, RecordBatch or Array, or an object that exports itself as one (polars, duckdb); else None."""
    kind = type(table)
    if kind.__module__.split(".")[0] == "pyarrow" and hasattr(table, "to_pylist"):
        return table
    if not any(hasattr(table, name) for name in ("__arrow_c_stream__", "__arrow_c_array__")):
        return None
    import pyarrow

    try:
        return (
            pyarrow.table(table)
            if hasattr(table, "columns") or hasattr(table, "schema")
            else pyarrow.chunked_array(table)
        )
    except (pyarrow.ArrowException, TypeError, ValueError, AttributeError) as error:
        raise InputError(
            f"the {kind.__name__} cannot be read as a table ({error}). Pass its column as a list."
        ) from error


def _read_dataset(dataset: Any, column: str, groups: str | None) -> Iterator[Row]:
    form = getattr(dataset, "format", None)
    if isinstance(form, Mapping) and form.get("type") != "custom":  # a format may hide columns; a transform makes them
        dataset = dataset.with_format(None)
    names = dataset.column_names
    if isinstance(names, Mapping):
        raise InputError(
            f"a {type(dataset).__name__} came, with splits {', '.join(names)}: pass one of them, such as "
            f"data[{next(iter(names), 'train')!r}]."
        )
    if names is not None:  # a streamed data set may not know its columns
        check_column("the data set", column, names)
        check_groups_column("the data set", groups, names)
        if hasattr(dataset, "select_columns"):
            dataset = dataset.select_columns([name for name in names if name in (column, MASK, LABELS, groups)])
    return _dataset_rows(dataset, column, groups)


def _dataset_rows(dataset: Any, column: str, groups: str | None) -> Iterator[Row]:
    rows, i = iter(dataset), 0
    while True:
        try:
            row = next(rows)
        except StopIteration:
            return
        except Exception as error:
            raise InputError(
                f"row {i} of the data set cannot be read: {type(error).__name__}: {shorten(str(error))}."
            ) from error
        if not isinstance(row, Mapping):
            raise InputError(
                f"row {i} of the data set must map names of columns to cells; it is a {type(row).__name__}. "
                "Pass data.with_format(None), or the column as a list."
            )
        yield row_of(f"row {i} of the data set", row, column, groups)
        i += 1


def rows_of_columns(columns: Mapping[str, Any], column: str, groups: str | None = None) -> Iterator[Row]:
    """Rows of columns by name, as a tokenizer returns them; `input_ids` where there is no column of texts."""
    where = f"the {type(columns).__name__}"
    column = IDS if column == "text" and "text" not in columns and IDS in columns else column
    check_column(where, column, list(columns))
    check_groups_column(where, groups, list(columns))
    beside = list(
        dict.fromkeys(name for name in (column, MASK, LABELS, groups) if name is not None and name in columns)
    )
    cells = {name: to_numpy(columns[name]) if is_tensor(columns[name]) else columns[name] for name in beside}
    if isinstance(cells[column], str) or not isinstance(cells[column], (Sequence, np.ndarray)):
        raise InputError(
            f"column {column!r} of {where} must be a list of texts or of id lists; it is {kind_of(cells[column])}. A "
            "single text is passed as it is, and files and tables have names of their own."
        )
    if len(cells[column]) and all(is_int(x) for x in cells[column]):  # one sample
        cells = {name: [cell] for name, cell in cells.items()}
    for name in beside:
        if cells[name] is not None and not isinstance(cells[name], (Sequence, np.ndarray)):
            raise InputError(f"column {name!r} of {where} must be a list; it is {kind_of(cells[name])}.")
        if cells[name] is not None and len(cells[name]) != len(cells[column]):
            raise InputError(
                f"{where} has {len(cells[column])} rows in {column!r} and {len(cells[name])} in {name!r}: each row "
                "needs both."
            )
    for i in range(len(cells[column])):
        yield row_of(where, {name: cell[i] for name, cell in cells.items() if cell is not None}, column, groups)


def arrow_rows(where: object, batch: Any, column: str, groups: str | None = None) -> Iterator[Row]:
    """The rows of a pyarrow Table or RecordBatch."""
    from pyarrow import types

    names = batch.schema.names
    kind = batch.schema.field(names.index(column)).type
    if types.is_binary(kind) or types.is_large_binary(kind) or types.is_fixed_size_binary(kind):
        raise InputError(
            f"column {column!r} of {where} is {kind}: bytes, with no word of their encoding. Write it as strings "
            "(pyarrow: column.cast('string'); Spark: spark.sql.parquet.binaryAsString)."
        )
    columns = [batch.column(names.index(column)).to_pylist()]
    for name in (MASK, LABELS):
        beside = name in names and name != column and not types.is_string(kind)
        columns.append(batch.column(names.index(name)).to_pylist() if beside else [None] * batch.num_rows)
    if groups is not None:
        columns.append(batch.column(names.index(groups)).to_pylist())
    return map(Row, *columns)


def row_of(where: str, cells: Mapping[str, Any], column: str, groups: str | None = None) -> Row:
    """The cell of a row, and those beside it that tell padding and the document."""
    if column not in cells:
        check_column(where, column, list(cells))
    if groups not in cells:
        check_groups_column(where, groups, list(cells))
    if column == IDS and isinstance(cells[column], str) and cells[column].strip():
        raise InputError(
            f"{where} has a text in column {IDS!r}, where token ids are expected: {quote(cells[column])}. A CSV file "
            "holds texts alone; ids are read from .jsonl, .parquet and tables whose cells are lists."
        )
    mask, labels = (None if name == column else cells.get(name) for name in (MASK, LABELS))
    return Row(cells[column], mask, labels, None if groups is None else cells[groups])


def columns_read(where: object, column: str, names: Sequence[Any], groups: str | None = None) -> list[str]:
    """The column and those beside it that tell padding and the document, after checking that each is there once."""
    check_column(where, column, names)
    check_groups_column(where, groups, names)
    beside = [name for name in (MASK, LABELS) if name in names and name != column]
    for name in beside:
        if list(names).count(name) > 1:
            raise InputError(
                f"{where} has {list(names).count(name)} columns named {name!r}: which of them belongs to {column!r}?"
            )
    more = [] if groups is None or groups in (column, *beside) else [groups]
    return [column, *beside, *more]


def is_blank(cell: Any) -> bool:
    """Whether a cell is null, or holds nothing but white space."""
    return cell is None or (isinstance(cell, float) and cell != cell) or (isinstance(cell, str) and not cell.strip())


def check_no_groups(where: str, groups: str | None) -> None:
    """Refuse the name of a column of documents where samples come without columns."""
    if groups is not None:
        raise InputError(
            f"groups={groups!r} names a column, and the samples come from {where}: pass the labels themselves, one a "
            "sample, or samples with such a column: a table, .jsonl, .csv or .parquet."
        )


def check_groups_column(where: object, groups: str | None, names: Sequence[Any]) -> None:
    """Refuse columns among which that of the documents is not, or is more than once."""
    if groups is not None and list(names).count(groups) != 1:
        had = ", ".join(shorten(str(name)) for name in names) or "none"
        how_many = "no column" if groups not in names else f"{list(names).count(groups)} columns named"
        raise InputError(f"{where} has {how_many} {groups!r}, which groups names: it has {had}.")


def check_column(where: object, column: str, names: Sequence[Any]) -> None:
    """Refuse columns among which this one is not, or is more than once."""
    if column not in names:
        had = ", ".join(shorten(str(name)) for name in names) or "none"
        raise InputError(f"{where} has no column {column!r}: it has {had}. Name the column with text_column.")
    if list(names).count(column) > 1:
        raise InputError(
            f"{where} has {list(names).count(column)} columns named {column!r}: which of them holds the samples?"
        )
