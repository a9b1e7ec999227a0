"""The user's own columns beside samples: an id that names each row, and columns that tables keep."""

from collections import Counter
from collections.abc import Sequence, Set
from typing import Any

from memorization.errors import InputError
from memorization.results import counted
from memorization.results.about import one_kind
from memorization.results.visible import visible
from memorization.samples.tables import Columns, NotThere, Row, is_blank, listed, near
from memorization.samples.token_ids import kind_of

__all__ = ["OWN_COLUMNS", "check_keep", "kept_of", "row_ids_of"]

# Columns of the tables of samples: a column of the user's by such a name would stand in one of them twice.
OWN_COLUMNS = frozenset(
    (
        *("sample", "id", "group", "preview", "copies", "member", "score", "p_value", "q_value"),
        *("bits", "signed_bits", "ideal_bits", "ideal_signed_bits", "joint_bits", "mem_bits", "intended_bits"),
        *("target_bits", "oracle_bits", "target_n_tokens", "oracle_n_tokens", "n_tokens", "n_bytes"),
        *("prefix_needed", "suffix_bits", "tries", "signed_bits_per_token", "share_memorized"),
        *("tfidf_bits", "exact_duplicates", "near_duplicates", "memorized", "extracted", "extraction_bits"),
    )
)


def check_keep(keep: Any, columns: Columns) -> Columns:
    """The columns with those that are to be kept, each once; one that the table has as `id` or `group` is not repeated.

    Raises:
        InputError: `keep` names no columns, or one that tables have a column of their own for.
    """
    if columns.id_column is not None and not isinstance(columns.id_column, str):
        raise InputError(
            f"id_column must be the name of one column; it is {kind_of(columns.id_column)}. Ids that are at hand as a "
            "list become a column beside the texts: pass a table of both."
        )
    names = [keep] if isinstance(keep, str) else keep
    if not isinstance(names, (Sequence, Set)) or not all(isinstance(name, str) for name in names):
        raise InputError(f'keep must be a list of names of columns, such as ["source", "year"]; it is {kind_of(keep)}.')
    there = {"id": columns.id_column, "group": columns.groups}
    names = [name for name in dict.fromkeys(names) if name not in there or there[name] != name]
    for name in names:
        if name in OWN_COLUMNS:
            raise InputError(
                f"keep names {name!r}, and tables of results have a column {name!r} of their own: it would stand there "
                "twice. Rename the column in the data"
                + (f', or pass id_column="{name}" where it names each row.' if name == "id" else ".")
            )
    return columns._replace(keep=tuple(names))


def row_ids_of(
    rows: Sequence[Row], index: Sequence[int], columns: Columns, *, are_texts: bool
) -> tuple[Any, ...] | None:
    """The id of each row, all int or all str.

    An id that two rows have is refused: what is joined by it would give each of them the numbers of both.

    Args:
        rows: that hold samples.
        index: their positions in the input.
        columns: where id_column may be None.
        are_texts: the file holds texts alone (.csv), so that ids may be integers where all are written as such.

    Raises:
        InputError: a row without an id, one that is neither a text nor an integer, or two rows with one id.
    """
    name = columns.id_column
    if name is None:
        return None
    missing = [i for i, row in zip(index, rows, strict=True) if is_blank(row.row_id)]
    if missing:
        raise InputError(
            f"row {missing[0]} has no id: its column {name!r} is empty ({len(missing)} of "
            f"{counted(len(rows), 'row')}). Each "
            "row needs its own; or leave id_column out: the column sample of every table is the row's position."
        )
    cells = [_id(row.row_id, i, name) for i, row in zip(index, rows, strict=True)]
    ids = _numbers(cells, floats=False) if are_texts else one_kind(cells)
    seen: dict[Any, int] = {}
    for i, one in zip(index, ids, strict=True):
        if (first := seen.setdefault(one, i)) != i:
            n_shared = sum(n for n in Counter(ids).values() if n > 1)
            raise InputError(
                f"rows {first} and {i} have the same id, {visible(repr(one), 60)} in column {name!r} ({n_shared} of "
                f"{counted(len(ids), 'row')} share theirs): tables that are joined by it would mix them up. Make "
                "the ids unique; "
                f'or leave id_column out, where the column sample tells rows apart, and pass keep=["{name}"].'
            )
    return ids


def kept_of(
    rows: Sequence[Row], columns: Columns, source: str, *, are_texts: bool
) -> dict[str, tuple[Any, ...]] | None:
    """The columns that are kept, by name, each of one kind; None where none are.

    Raises:
        InputError: no row has such a column.
    """
    if not columns.keep:
        return None
    kept = {}
    for k, name in enumerate(columns.keep):
        cells = [row.kept[k] for row in rows]
        if all(isinstance(cell, NotThere) for cell in cells):
            names = list(dict.fromkeys(one for cell in cells for one in cell.names))
            raise InputError(
                f"{source} has no column {name!r}, which keep names, in any of its {counted(len(rows), 'row')}: it has "
                f"{listed(names)}.{near(name, names)}"
            )
        cells = [None if isinstance(cell, NotThere) else cell for cell in cells]
        kept[name] = _numbers(cells, floats=True) if are_texts else one_kind(cells)
    return kept


def _id(cell: Any, i: int, name: str) -> Any:
    if isinstance(cell, float) and cell.is_integer():  # a column of integers with a null is one of floats in pandas
        return int(cell)
    if isinstance(cell, (bool, float, bytes, list, dict, tuple)):
        raise InputError(f"the id of row {i} must be a text or an integer; in column {name!r} it is {kind_of(cell)}.")
    return cell if isinstance(cell, (int, str)) else str(cell)


def _numbers(cells: Sequence[str | None], *, floats: bool) -> tuple[Any, ...]:
    """Cells of a file of texts as numbers, where all of them are written as numbers are; an empty cell is None."""
    filled = [cell for cell in cells if cell is not None and not is_blank(cell)]
    for kind in (int, float) if floats else (int,):
        if filled and all(_is_written(cell, kind) for cell in filled):
            return one_kind([None if cell is None or is_blank(cell) else kind(cell) for cell in cells])
    return one_kind([None if cell == "" else cell for cell in cells])


def _is_written(cell: Any, kind: type) -> bool:
    """Whether a cell is a number, and no code with zeros in front such as 007."""
    try:
        number = kind(cell)
    except ValueError:
        return False
    return str(number) == cell if kind is int else cell.lstrip("+-")[:1].isdecimal()
