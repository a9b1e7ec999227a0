"""Rows of tables, columns and data sets in memory: their cells in order, null ones included.

What does not fit is refused by its place: nothing is cut, shifted or left out here.
"""

import difflib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from memorization.errors import InputError
from memorization.results import counted
from memorization.results.visible import visible
from memorization.samples.token_ids import is_int, is_tensor, kind_of, quote, shorten, to_numpy

IDS = "input_ids"
MASK, LABELS = "attention_mask", "labels"  # columns of tokenized data that say which ids are padding


class Row(NamedTuple):
    """A cell, and what stands in the columns beside it that tell padding, the document and the prompt; else None."""

    cell: Any
    mask: Any = None
    labels: Any = None
    group: Any = None
    prompt: Any = None
    row_id: Any = None
    kept: tuple[Any, ...] = ()


class NotThere(NamedTuple):
    """In place of a cell: the row has no such column, but these."""

    names: tuple[str, ...]


class Columns(NamedTuple):
    """The column of the samples, and by the argument that names them the columns beside it."""

    cell: Any
    groups: str | None = None
    prompt_column: str | None = None
    id_column: str | None = None
    keep: tuple[str, ...] = ()

    @property
    def needed(self) -> list[tuple[str, str]]:
        """The columns beside the samples' of which each row needs a cell, with the arguments that name them."""
        named = {"groups": self.groups, "prompt_column": self.prompt_column, "id_column": self.id_column}
        return [(argument, name) for argument, name in named.items() if name is not None]

    @property
    def asked(self) -> list[tuple[str, str]]:
        """All columns beside the samples', with the arguments that name them."""
        return [*self.needed, *(("keep", name) for name in self.keep)]

    @property
    def beside(self) -> list[str]:
        """All columns beside the samples', each once."""
        return list(dict.fromkeys(name for _, name in self.asked))


def rows_of_table(table: Any, columns: Columns) -> Iterator[Row] | None:
    """The rows of a data set, a table or a column in memory; None where this is none of them.

    Raises:
        InputError: the column is not there, or a row does not fit; with the place.
    """
    name = type(table).__name__
    package = {kind.__module__.split(".")[0] for kind in type(table).__mro__}
    if "pandas" in package and hasattr(table, "isna"):
        if hasattr(table, "columns"):
            names = list(table.columns)
            keys = columns_read(f"the {name}", columns, names)
            cells = [_pandas_cells(table[part]) for part in keys]
            return (
                row_of(f"the {name}", dict(zip(keys, row, strict=True)), columns) for row in zip(*cells, strict=True)
            )
        if not hasattr(table, "tolist"):
            return None
        check_no_columns(f"a {name}, which is one column", columns)
        return map(Row, _pandas_cells(table))
    if hasattr(table, "column_names") and not hasattr(table, "schema"):
        return rows_of_dataset(table, columns)
    arrow = _as_arrow(table)
    if arrow is None:
        return None
    if not hasattr(arrow, "schema"):
        check_no_columns(f"a {name}, which is one column", columns)
        return map(Row, arrow.to_pylist())
    columns_read(f"the {name}", columns, arrow.schema.names)
    return arrow_rows(f"the {name}", arrow, columns)


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


def rows_of_dataset(dataset: Any, columns: Columns) -> Iterator[Row]:
    """The rows of a `datasets.Dataset`, or of one that streams."""
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
        check_column("the data set", columns.cell, names)
        check_beside("the data set", columns, names)
        if hasattr(dataset, "select_columns"):
            kept = (columns.cell, MASK, LABELS, *columns.beside)
            dataset = dataset.select_columns([name for name in names if name in kept])
    return _dataset_rows(dataset, columns)


def _dataset_rows(dataset: Any, columns: Columns) -> Iterator[Row]:
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
        yield row_of(f"row {i} of the data set", row, columns)
        i += 1


def rows_of_columns(table: Mapping[str, Any], columns: Columns) -> Iterator[Row]:
    """Rows of columns by name, as a tokenizer returns them; `input_ids` where there is no column of texts."""
    where = f"the {type(table).__name__}"
    if columns.cell == "text" and "text" not in table and IDS in table:
        columns = columns._replace(cell=IDS)
    column = columns.cell
    check_column(where, column, list(table))
    check_beside(where, columns, list(table))
    beside = list(dict.fromkeys(name for name in (column, MASK, LABELS, *columns.beside) if name in table))
    cells = {name: to_numpy(table[name]) if is_tensor(table[name]) else table[name] for name in beside}
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
                f"{where} has {counted(len(cells[column]), 'row')} in {column!r} and {len(cells[name])} in "
                f"{name!r}: each row "
                "needs both."
            )
    for i in range(len(cells[column])):
        yield row_of(where, {name: cell[i] for name, cell in cells.items() if cell is not None}, columns)


def rows_of_dicts(rows: Any, columns: Columns) -> Iterator[Row] | None:
    """The rows of a list of objects; None where this is no such list.

    Raises:
        InputError: some are objects and others are not, or a row has no such column.
    """
    if not isinstance(rows, Sequence) or isinstance(rows, (str, bytes)) or not len(rows):
        return None
    if not isinstance(rows[0], Mapping):
        return None
    if columns.cell not in rows[0] and {"role", "content"} <= set(rows[0]):
        raise InputError(
            "one list of messages came: conversations are a list of such lists. Pass [messages] with messages=True."
        )
    if columns.cell == "text" and "text" not in rows[0] and IDS in rows[0]:
        columns = columns._replace(cell=IDS)
    return _rows_of_dicts(rows, columns)


def _rows_of_dicts(rows: Sequence[Any], columns: Columns) -> Iterator[Row]:
    for i, row in enumerate(rows):
        if not isinstance(row, Mapping):
            raise InputError(f"row {i} must map names of columns to cells, as row 0 does; it is {kind_of(row)}.")
        yield row_of(f"row {i} of the list", row, columns)


def arrow_rows(where: object, batch: Any, columns: Columns) -> Iterator[Row]:
    """The rows of a pyarrow Table or RecordBatch."""
    from pyarrow import types

    names, column = batch.schema.names, columns.cell
    kind = batch.schema.field(names.index(column)).type
    if types.is_binary(kind) or types.is_large_binary(kind) or types.is_fixed_size_binary(kind):
        raise InputError(
            f"column {column!r} of {where} is {kind}: bytes, with no word of their encoding. Write it as strings "
            "(pyarrow: column.cast('string'); Spark: spark.sql.parquet.binaryAsString)."
        )
    empty = [None] * batch.num_rows
    cells = [batch.column(names.index(column)).to_pylist()]
    for name in (MASK, LABELS):
        beside = name in names and name != column and not types.is_string(kind)
        cells.append(batch.column(names.index(name)).to_pylist() if beside else empty)
    for asked in (columns.groups, columns.prompt_column, columns.id_column):
        cells.append(empty if asked is None else batch.column(names.index(asked)).to_pylist())
    kept = [batch.column(names.index(asked)).to_pylist() for asked in columns.keep]
    return map(Row, *cells, zip(*kept, strict=True) if kept else [()] * batch.num_rows)


def row_of(where: str, cells: Mapping[str, Any], columns: Columns) -> Row:
    """The cell of a row, and those beside it."""
    column = columns.cell
    if column not in cells:
        check_column(where, column, list(cells))
    if any(name not in cells for _, name in columns.needed):
        check_beside(where, columns._replace(keep=()), list(cells))
    if column == IDS and isinstance(cells[column], str) and cells[column].strip():
        raise InputError(
            f"{where} has a text in column {IDS!r}, where token ids are expected: {quote(cells[column])}. A CSV file "
            "holds texts alone; ids are read from .jsonl, .parquet and tables whose cells are lists."
        )
    mask, labels = (None if name == column else cells.get(name) for name in (MASK, LABELS))
    group, prompt, row_id = (
        None if name is None else cells[name] for name in (columns.groups, columns.prompt_column, columns.id_column)
    )
    # A row of .jsonl may lack what others have; where all do, `_from_rows` refuses.
    kept = tuple(cells[name] if name in cells else NotThere(tuple(cells)) for name in columns.keep)
    return Row(cells[column], mask, labels, group, prompt, row_id, kept)


def columns_read(where: object, columns: Columns, names: Sequence[Any]) -> list[str]:
    """The columns to read: those asked for and those that tell padding, after checking that each is there once."""
    check_column(where, columns.cell, names)
    check_beside(where, columns, names)
    beside = [name for name in (MASK, LABELS) if name in names and name != columns.cell]
    for name in beside:
        if list(names).count(name) > 1:
            raise InputError(
                f"{where} has {list(names).count(name)} columns named {name!r}: which of them belongs to "
                f"{columns.cell!r}?"
            )
    return list(dict.fromkeys([columns.cell, *beside, *columns.beside]))


def is_blank(cell: Any) -> bool:
    """Whether a cell is null, or holds nothing but white space."""
    return cell is None or (isinstance(cell, float) and cell != cell) or (isinstance(cell, str) and not cell.strip())


def check_no_columns(where: str, columns: Columns) -> None:
    """Refuse the name of a column beside the samples' where samples come without columns."""
    for argument, name in columns.asked:
        remedy = "pass the labels themselves, one a sample, or " if argument == "groups" else "pass "
        raise InputError(
            f"{argument}={name!r} names a column, and the samples come from {where}: {remedy}samples with such a "
            "column: a table, .jsonl, .csv or .parquet."
        )


def check_beside(where: object, columns: Columns, names: Sequence[Any]) -> None:
    """Refuse columns among which one that is asked for beside the samples' is not, or is more than once."""
    for argument, asked in columns.asked:
        if list(names).count(asked) != 1:
            how_many = "no column" if asked not in names else f"{list(names).count(asked)} columns named"
            raise InputError(
                f"{where} has {how_many} {asked!r}, which {argument} names: it has {listed(names)}."
                f"{near(asked, names) if asked not in names else ''}"
            )


def check_column(where: object, column: str, names: Sequence[Any]) -> None:
    """Refuse columns among which this one is not, or is more than once."""
    if column not in names:
        raise InputError(f"{where} has no column {column!r}: it has {listed(names)}. Name the column with text_column.")
    if list(names).count(column) > 1:
        raise InputError(
            f"{where} has {list(names).count(column)} columns named {column!r}: which of them holds the samples?"
        )


def listed(names: Sequence[Any]) -> str:
    """Names of columns in words."""
    return ", ".join(visible(shorten(str(name))) for name in names) or "none"


def near(asked: str, names: Sequence[Any]) -> str:
    """A sentence about the columns whose names are nearly this one; empty where there are none."""
    by_folded = {str(name).casefold(): str(name) for name in names}
    found = [by_folded[one] for one in difflib.get_close_matches(asked.casefold(), by_folded)]
    return f" Did you mean {' or '.join(map(repr, found))}?" if found else ""
