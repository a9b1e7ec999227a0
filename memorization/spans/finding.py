"""Where named parts of texts stand: by regular expressions, or by places that come with the samples."""

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from itertools import islice
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from memorization.errors import InputError
from memorization.integers import as_integer
from memorization.samples import Samples
from memorization.samples.files import named_as_file, rows_of_file
from memorization.samples.tables import Columns, rows_of_columns, rows_of_table
from memorization.samples.token_ids import kind_of, quote

__all__ = ["REST", "Place", "SpansLike", "as_columns", "expressions_of", "find", "places_of_columns"]

REST = "rest"  # what stands in no span
SpansLike: TypeAlias = "Mapping[str, str | re.Pattern[str]] | str"


class Place(NamedTuple):
    """A span: the sample (its row among those measured), its name, its first character and the one after its last."""

    row: int
    name: str
    start: int
    end: int


def expressions_of(spans: Any) -> dict[str, "re.Pattern[str]"]:
    """The regular expression of each name, compiled.

    Raises:
        InputError: no name, a name that is none, or an expression that is not valid.
    """
    if not isinstance(spans, Mapping) or not spans:
        raise InputError(
            'spans must map names to regular expressions, such as {"phone": r"\\d{3}-\\d{4}"}, or name the column of '
            f'the samples that holds lists of {{"name", "start", "end"}}; it is {kind_of(spans)}.'
        )
    found = {}
    for name, expression in spans.items():
        _check_name(name, "spans")
        if not isinstance(expression, (str, re.Pattern)) or isinstance(getattr(expression, "pattern", ""), bytes):
            raise InputError(f"the span {name!r} must be a regular expression of text; it is {kind_of(expression)}.")
        try:
            found[name] = re.compile(expression)
        except re.error as error:
            raise InputError(
                f"the regular expression of the span {name!r} is not valid: {error}. It is {expression!r}; signs such "
                "as ( [ * + ? . stand for themselves behind a backslash."
            ) from error
        _group_of(name, found[name])
    return found


def _check_name(name: Any, where: str) -> None:
    if not isinstance(name, str) or not name.strip():
        raise InputError(f"{where}: a span has a name, a text that is not blank; it is {name!r}.")
    if name == REST:
        raise InputError(f"{where}: {REST!r} is the name of what stands in no span. Give the span another name.")


def _group_of(name: str, pattern: "re.Pattern[str]") -> int | str:
    """What of a match is the span: the group of the span's name, the only named one, or all of it."""
    groups = list(pattern.groupindex)
    if name in groups:
        return name
    if len(groups) > 1:
        raise InputError(
            f"the regular expression of the span {name!r} has the named groups {', '.join(groups)}: call the one that "
            f"is the span {name}, or leave one."
        )
    return groups[0] if groups else 0


def find(expressions: Mapping[str, "re.Pattern[str]"], samples: Samples, of: str) -> list[Place]:
    """Every match of each expression, sample by sample; `of` names the samples in messages.

    Raises:
        InputError: an expression matches the empty string, or the whole of every text; matches overlap.
    """
    assert samples.texts is not None
    found: list[Place] = []
    for name, pattern in expressions.items():
        group, n_whole = _group_of(name, pattern), 0
        for row, text in enumerate(samples.texts):
            for match in pattern.finditer(text):
                start, end = match.span(group)
                if start < 0:  # a group that took no part in the match
                    continue
                if start == end:
                    raise InputError(
                        f"the regular expression of the span {name!r}, {pattern.pattern!r}, matches the empty string, "
                        f"first in sample {samples.index[row]} of the {of} at character {start}: a span has at least "
                        "one character. Write + for *, or {1,5} for {0,5}."
                    )
                n_whole += end - start == len(text)
                found.append(Place(row, name, start, end))
        if n_whole == len(samples.texts):
            raise InputError(
                f"the regular expression of the span {name!r}, {pattern.pattern!r}, matches the whole of every text of "
                f"the {of}: that is what unintended_memorization measures. Describe a part."
            )
    return _ordered(found, samples, of)


def _ordered(places: Iterable[Place], samples: Samples, of: str) -> list[Place]:
    """The places sample by sample, those of one name checked to lie apart."""
    found = sorted(places)
    last: dict[str, Place] = {}
    for place in found:
        before = last.get(place.name)
        if before is not None and before.row == place.row and place.start < before.end:
            raise InputError(
                f"two spans of the name {place.name!r} overlap in sample {samples.index[place.row]} of the {of}: "
                f"characters {before.start} to {before.end} and {place.start} to {place.end}. Bits would count twice; "
                "give one of them another name."
            )
        last[place.name] = place
    return sorted(found, key=lambda place: (place.row, place.start, place.end, place.name))


def as_columns(samples: Any) -> Any:
    """A list of rows, each a mapping, as columns by name; whatever else comes as it is."""
    if not (isinstance(samples, (list, tuple)) and samples and isinstance(samples[0], Mapping)):
        return samples
    for i, row in enumerate(samples):
        if not isinstance(row, Mapping):
            raise InputError(f"sample {i} must be a mapping, as sample 0 is; it is {kind_of(row)}.")
    names = dict.fromkeys(name for row in samples for name in row)
    return {name: [row.get(name) for row in samples] for name in names}


def places_of_columns(source: Any, column: str, text_column: str, samples: Samples, of: str) -> list[Place]:
    """The places that stand in a column beside the texts.

    Args:
        source: what the samples were read from: a file, a table, or columns.
        column: of lists of {"name", "start", "end"}, in characters of the text.
        text_column: of the texts.
        samples: that were read from there.
        of: what they are called in messages.

    Raises:
        InputError: there is no such column, or a place is none; with the sample.
    """
    assert samples.texts is not None
    cells = _cells(source, column, text_column, samples, of)
    found = []
    for row, i in enumerate(samples.index.tolist()):
        where = f"sample {i} of the {of}"
        for k, span in enumerate(_spans_of_cell(cells[i], column, where)):
            found.append(_place(span, row, samples.texts[row], f"{where}, entry {k} of {column!r}"))
    return _ordered(found, samples, of)


def _cells(source: Any, column: str, text_column: str, samples: Samples, of: str) -> list[Any]:
    """The column, a cell for each row of the input up to the last sample."""
    columns = Columns(text_column, groups=column)  # a cell beside the text, whatever it holds
    if isinstance(source, Samples):
        rows = None
    elif named_as_file(source):
        rows = None if str(source).lower().endswith(".txt") else rows_of_file(source, columns)
    else:
        rows = rows_of_table(source, columns)
        if rows is None and isinstance(source, Mapping):
            rows = rows_of_columns(source, columns)
    if rows is None:
        raise InputError(
            f"spans={column!r} names a column, and the {of} come from {samples.source}, which has none: pass rows "
            '({"text": ..., "spans": [...]}), a table or a file that has it, or map names to regular expressions.'
        )
    try:
        return [row.group for row in islice(rows, int(samples.index[-1]) + 1)]
    except InputError as error:  # texts were read from there before, so it is this column that is not as expected
        raise InputError(str(error).replace("which groups names", "which spans names")) from error


def _spans_of_cell(cell: Any, column: str, where: str) -> Sequence[Any]:
    if isinstance(cell, str):  # as CSV has it
        try:
            cell = json.loads(cell) if cell.strip() else None
        except ValueError as error:
            raise InputError(f"{where}: {column!r} must hold a list as JSON; it is {quote(cell)}.") from error
    if cell is None or (isinstance(cell, float) and cell != cell):
        return ()
    if isinstance(cell, Mapping) and cell and all(isinstance(one, (list, np.ndarray)) for one in cell.values()):
        return [dict(zip(cell, row, strict=True)) for row in zip(*cell.values(), strict=True)]  # as `datasets` turns it
    if isinstance(cell, np.ndarray):
        cell = cell.tolist()
    if not isinstance(cell, (list, tuple)):
        raise InputError(f'{where}: {column!r} must hold a list of {{"name", "start", "end"}}; it is {kind_of(cell)}.')
    return cell


def _place(span: Any, row: int, text: str, where: str) -> Place:
    if not isinstance(span, Mapping) or not {"name", "start", "end"} <= set(span):
        raise InputError(f'{where}, must be {{"name": ..., "start": ..., "end": ...}}; it is {kind_of(span)}.')
    _check_name(span["name"], where)
    start, end = as_integer(span["start"]), as_integer(span["end"])
    if start is None or end is None or not 0 <= start < end <= len(text):
        raise InputError(
            f"{where}: a span goes from a character (counted from 0) to the one after its last, within the "
            f"{len(text)} characters of the text; {span['name']!r} goes from {span['start']!r} to {span['end']!r}."
        )
    return Place(row, span["name"], start, end)
