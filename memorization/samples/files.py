"""Rows of files: the lines of a text or the cells of a column, in order, blank and null ones included.

What does not fit is refused by its place: nothing is cut, shifted or left out here.
"""

import csv
import gzip
import json
import os
import threading
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import chain, islice
from pathlib import Path
from typing import Any, TypeGuard

from memorization.errors import InputError, MeasurementWarning, warn
from memorization.samples.tables import (
    LABELS,
    MASK,
    Columns,
    Row,
    arrow_rows,
    check_beside,
    check_column,
    check_no_columns,
    columns_read,
    row_of,
)
from memorization.samples.token_ids import shorten

_PACKED = ".gz"
_LINES = (".txt", ".jsonl", ".json", ".csv")  # and these as .gz
FILE_KINDS = (*_LINES, ".parquet", *(kind + _PACKED for kind in _LINES))
_LONGEST_NAME = 255  # bytes of a file's name, on most systems
_CHUNK = 1000  # rows of a CSV file that are parsed at a time
_FIELD_LIMIT = threading.Lock()


def named_as_file(samples: Any) -> "TypeGuard[str | os.PathLike[str]]":
    """Whether this is a Path, or a str that ends as a file of samples does."""
    return isinstance(samples, os.PathLike) or (isinstance(samples, str) and samples.lower().endswith(FILE_KINDS))


def warn_of_file_names(texts: Sequence[Any]) -> None:
    """Warn where each text of a list is the name of a file of samples: what the files hold may be meant."""
    if all(isinstance(text, str) and text.lower().endswith(FILE_KINDS) and os.path.exists(text) for text in texts):
        warn(
            f"each text of the list is the name of an existing file, the first is {texts[0]}. The names are measured, "
            "not what the files hold. To measure that, pass one file by itself, or the texts of all as one list.",
            MeasurementWarning,
        )


def rows_of_file(name: str | os.PathLike[str], columns: Columns) -> Iterator[Row]:
    """The rows of a .txt, .jsonl, .json, .csv or .parquet file, or of one of these but the last that gzip has packed.

    Raises:
        InputError: there is no such file, it is of another kind, or a row does not fit; with the place.
    """
    path = Path(name)
    kind = next((kind for kind in FILE_KINDS if path.name.lower().endswith(kind)), None)
    if kind is None or path.name.lower() == kind:
        told = f"{', '.join((*_LINES, '.parquet'))} or, all but the last, in one of these and {_PACKED}"
        raise InputError(f"{name} must end in {told} to be read as samples.")
    _check_exists(name, path)
    if kind == ".parquet":
        yield from _read_parquet(path, columns)
        return
    try:
        with gzip.open(path) if kind.endswith(_PACKED) else path.open("rb") as file:
            yield from _READERS[kind.removesuffix(_PACKED)](path, _decoded(path, file), columns)
    except (OSError, EOFError, zlib.error) as error:  # the last two: a packed file that was cut or changed
        raise InputError(f"{path} cannot be read: {getattr(error, 'strerror', None) or error}.") from error


STDIN = "standard input"


def is_stream(samples: Any) -> bool:
    """Whether this is an open file, or what is piped in."""
    return hasattr(samples, "readline") and hasattr(samples, "read")


def rows_of_stream(stream: Any, columns: Columns) -> Iterator[Row]:
    """The rows of an open file: those of .jsonl where the first line that is not blank begins with {, else its lines.

    Raises:
        InputError: a row does not fit, with the place; or the file is open for writing.
    """
    name = name_of_stream(stream)
    try:
        lines = iter(stream)
        if hasattr(stream, "encoding"):  # opened as text
            lines = (line.encode("utf-8", "surrogatepass") for line in lines)
        begin = []
        for line in lines:
            begin.append(line)
            if line.strip(b"\xef\xbb\xbf \t\r\n"):
                break
        is_jsonl = bool(begin) and begin[-1].lstrip(b"\xef\xbb\xbf \t").startswith(b"{")
        if begin and begin[-1].startswith(b"\x1f\x8b"):
            raise InputError(f"{name} is packed by gzip. Unpack it first: gzip -dc FILE | memorization ...")
        reader = _read_jsonl if is_jsonl else _read_txt
        yield from reader(name, _decoded(name, chain(begin, lines)), columns)
    except (OSError, ValueError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{name} cannot be read: {error}.") from error


def name_of_stream(stream: Any) -> str:
    """What an open file is called."""
    name = getattr(stream, "name", None)
    return STDIN if name in (0, "<stdin>") else str(name) if isinstance(name, str) else f"a {type(stream).__name__}"


def _read_txt(path: Path | str, lines: Iterator[str], columns: Columns) -> Iterator[Row]:
    check_no_columns(f"{path}, which has lines", columns)
    # Only \n and \r\n end a line. A \r elsewhere is part of the text, and so are U+2028, \x0b, \x85.
    yield from (Row(line[:-2] if line.endswith("\r\n") else line.removesuffix("\n")) for line in lines)


def _read_json(path: Path | str, lines: Iterator[str], columns: Columns) -> Iterator[Row]:
    try:
        rows = json.loads("".join(lines), object_pairs_hook=_Object)
    except (ValueError, RecursionError) as error:
        if isinstance(error, InputError):
            raise
        hint = " Are these objects one a line? Then call the file .jsonl." if "Extra data" in str(error) else ""
        raise InputError(f"{path} is not JSON ({error}).{hint}") from error
    if not isinstance(rows, list):
        kind = type(rows).__name__.lstrip("_").lower()
        raise InputError(
            f"{path} holds a {kind}, and a .json file of samples holds a list: of objects, such as "
            f'[{{"{columns.cell}": "To be"}}], of texts, or of lists of token ids. Objects one a line are .jsonl.'
        )
    objects = [isinstance(row, Mapping) for row in rows if row is not None]
    if not any(objects):
        check_no_columns(f"{path}, a list of texts or ids", columns)
    for i, row in enumerate(rows):
        where = f"{path}, row {i}"
        if isinstance(row, _Object):
            _check_repeated(where, row, columns)
            yield row_of(where, row, columns)
        elif any(objects) and row is not None:
            raise InputError(f"{where} is a {type(row).__name__}, and other rows are objects: all must be of one kind.")
        else:
            yield Row(row)


def _check_exists(name: str | os.PathLike[str], path: Path) -> None:
    try:
        exists, is_folder = path.is_file(), path.is_dir()
    except (OSError, ValueError):  # longer than a name may be, or with a NUL: a text that happens to end like a file
        exists = is_folder = False
    if is_folder:
        how = (
            "read them into a table and pass that, for instance pyarrow.parquet.read_table(folder)"
            if path.suffix.lower() == ".parquet"
            else "pass the texts of all as a list"
        )
        raise InputError(
            f"{name} is a folder, and samples are read from one file: pass one of the files in it, or {how}."
        )
    if exists:
        return
    if isinstance(name, str):
        whole = "\n" not in name and all(len(part.encode()) <= _LONGEST_NAME for part in path.parts)
        shown = name if whole else shorten(name)  # a path is never cut: what one looks for is its end
        raise InputError(f'there is no file {shown}. If this is a text to be measured, pass ["{shown}"], a list.')
    raise InputError(f"there is no file {name}.")


# How files of other kinds begin, and what to do with them.
_OTHER_KINDS = {
    b"\xff\xfe\0\0": "It begins like UTF-32. Convert the file to UTF-8 first.",
    b"\xff\xfe": "It begins like UTF-16. Convert the file to UTF-8 first.",
    b"\xfe\xff": "It begins like UTF-16. Convert the file to UTF-8 first.",
    b"\x1f\x8b": "It begins like gzip. Give the file the ending .gz behind its own, or unpack it.",
    b"PK\x03\x04": "It begins like a zip archive. Unpack the file first.",
    b"\x28\xb5\x2f\xfd": "It begins like Zstandard. Unpack the file first.",
    b"BZh": "It begins like bzip2. Unpack the file first.",
    b"\xfd7zXZ": "It begins like xz. Unpack the file first.",
    b"PAR1": "It begins like parquet. Give the file the ending .parquet.",
}


def _looks_like(start: bytes) -> str:
    """What a file that is not UTF-8 seems to be, by its first bytes; with the remedy."""
    return next((told for magic, told in _OTHER_KINDS.items() if start.startswith(magic)), _CONVERT)


_CONVERT = "Convert the file to UTF-8 first."


def _decoded(path: Path | str, file: Iterable[bytes]) -> Iterator[str]:
    """The lines of a file, line feeds included, which alone end them here; without a byte order mark."""
    start = b""
    for number, line in enumerate(file, 1):
        start = start or line[:8]
        if number == 1 and len(line) > 4 and 0 in line and {0} in (set(line[::2]), set(line[1::2])):
            raise InputError(f"{path}, line 1 has a NUL beside each character, as UTF-16 has. {_CONVERT}.")
        try:
            yield (line.removeprefix(b"\xef\xbb\xbf") if number == 1 else line).decode("utf-8")
        except UnicodeDecodeError as error:
            raise InputError(
                f"{path}, line {number} is not UTF-8 text (byte {error.start} of it: {error.reason}). "
                f"{_looks_like(start)}."
            ) from error


_WHAT = {"groups": "the document", "prompt_column": "the prompt", "id_column": "the id", "keep": "kept"}


class _Object(dict[str, Any]):
    """A JSON object that remembers which of its keys came twice."""

    def __init__(self, pairs: list[tuple[str, Any]]) -> None:
        super().__init__(pairs)
        names = [name for name, _ in pairs]
        self.repeated = {name for name in names if names.count(name) > 1} if len(names) > len(self) else set()


def _check_repeated(where: str, row: _Object, columns: Columns) -> None:
    """Refuse an object with two values of a column that is read."""
    column = columns.cell
    if column in row.repeated:
        raise InputError(f"{where} has the key {column!r} more than once: which of its values is the sample?")
    for argument, name in columns.asked:
        if name in row.repeated:
            raise InputError(f"{where} has the key {name!r} more than once: which of its values is {_WHAT[argument]}?")
    if not isinstance(row.get(column), str) and (again := row.repeated & {MASK, LABELS}):
        raise InputError(f"{where} has the key {min(again)!r} more than once: which of its values is meant?")


def _read_jsonl(path: Path | str, lines: Iterator[str], columns: Columns) -> Iterator[Row]:
    column = columns.cell
    for number, line in enumerate(lines, 1):
        if not line.strip():
            yield Row(None)
            continue
        where = f"{path}, line {number}"
        try:
            row = json.loads(line, object_pairs_hook=_Object)
        except (ValueError, RecursionError) as error:  # ValueError: no JSON, or an integer of thousands of digits
            raise InputError(f"{where} is not JSON ({error}); .jsonl holds one object a line.") from error
        if not isinstance(row, _Object):
            raise InputError(
                f"{where} has no column {column!r}: it is a {type(row).__name__}. A line of .jsonl is an object, "
                f'such as {{"{column}": "To be"}}.'
            )
        _check_repeated(where, row, columns)
        yield row_of(where, row, columns)


def _read_csv(path: Path | str, lines: Iterator[str], columns: Columns) -> Iterator[Row]:
    rows = _csv_rows(path, csv.reader(lines, strict=True))
    _, names = next(rows, (1, []))
    check_column(path, columns.cell, names)
    check_beside(path, columns, names)
    places = {name: names.index(name) for name in (columns.cell, *columns.beside)}
    for number, row in rows:
        if not row:
            yield Row(None)
            continue
        if len(row) != len(names):
            raise InputError(
                f"{path}, line {number}: the row has {_count(len(row), 'cell')}, and the header names {len(names)} "
                f"({', '.join(map(shorten, names))}). A text that holds a comma must stand in double quotes, with "
                "each double quote of its own written twice, as Python's csv.writer and DataFrame.to_csv write it; "
                "or use .jsonl."
            )
        cells = {name: row[place] for name, place in places.items()}
        yield row_of(f"{path}, line {number}", cells, columns)


def _csv_rows(path: Path | str, reader: Any) -> Iterator[tuple[int, list[str]]]:
    """Each row with the line in which it begins."""
    ended = False
    while not ended:
        chunk: list[tuple[int, list[str]]] = []
        failed: InputError | None = None
        # Cells of over 131,072 characters are refused unless a setting of the whole process is raised. It is raised
        # while rows are parsed and never while this generator waits. It is a C long, which has 32 bits on Windows.
        with _FIELD_LIMIT:
            before = csv.field_size_limit(2**31 - 1)
            begins = reader.line_num + 1
            try:
                for row in islice(reader, _CHUNK):
                    chunk.append((begins, row))
                    begins = reader.line_num + 1
            except InputError as error:
                failed = error
            except csv.Error as error:
                failed = InputError(
                    f"{path}, the row that begins in line {begins} is not CSV ({error}). A text that holds a double "
                    "quote, a comma or a line end must stand in double quotes, with each double quote of its own "
                    "written twice."
                )
                failed.__cause__ = error
            finally:
                csv.field_size_limit(before)
        yield from chunk  # first what came before the fault: with a limit it may be enough
        if failed is not None:
            raise failed
        ended = len(chunk) < _CHUNK


def _read_parquet(path: Path, columns: Columns) -> Iterator[Row]:
    import pyarrow
    import pyarrow.parquet

    n_read = 0
    try:
        file = pyarrow.parquet.ParquetFile(path)
    except (pyarrow.ArrowException, OSError) as error:
        raise InputError(f"{path} is not a parquet file: {error}.") from error
    with file:
        batches = file.iter_batches(columns=columns_read(path, columns, file.schema_arrow.names))
        while True:
            try:
                batch = next(batches, None)
                rows = [] if batch is None else list(arrow_rows(path, batch, columns))
            except (pyarrow.ArrowException, OSError, UnicodeDecodeError) as error:
                raise InputError(f"{path} is damaged: its rows after row {n_read} cannot be read ({error}).") from error
            if batch is None:
                return
            yield from rows
            n_read += len(rows)


def _count(n: int, name: str) -> str:
    return f"{n} {name}" if n == 1 else f"{n} {name}s"


_READERS: dict[str, Callable[[Path, Iterator[str], Columns], Iterator[Row]]] = {
    ".txt": _read_txt,
    ".jsonl": _read_jsonl,
    ".json": _read_json,
    ".csv": _read_csv,
}
