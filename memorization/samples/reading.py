"""`read_samples`: samples from texts, token ids, files, tables and data sets."""

import os
import sys
from collections.abc import Hashable, Iterable, Mapping, Sequence, Set
from dataclasses import replace
from itertools import islice
from typing import IO, TYPE_CHECKING, Any, Protocol, cast

import numpy as np

from memorization.errors import InputError, MeasurementWarning, warn
from memorization.integers import check_integer
from memorization.samples.beside import check_keep, kept_of, row_ids_of
from memorization.samples.conversations import conversation_of
from memorization.samples.files import (
    FILE_KINDS,
    is_stream,
    name_of_stream,
    named_as_file,
    rows_of_file,
    rows_of_stream,
    warn_of_file_names,
)
from memorization.samples.groups import GroupsLike, label_of, labels_of
from memorization.samples.masks import check_completions, with_masks, with_prompts
from memorization.samples.samples import Samples
from memorization.samples.tables import (
    MASK,
    Columns,
    Row,
    check_no_columns,
    is_blank,
    rows_of_columns,
    rows_of_dicts,
    rows_of_table,
)
from memorization.samples.token_ids import check_unicode, id_array, is_int, is_tensor, kind_of, to_numpy

if TYPE_CHECKING:
    from typing import TypeAlias

    import torch

    class _Dataset(Protocol):  # of datasets, pyarrow
        @property
        def column_names(self) -> Any: ...

    class _Table(Protocol):  # of pandas, polars
        @property
        def columns(self) -> Any: ...

    class _Column(Protocol):
        def to_list(self) -> list[Any]: ...

    # What `read_samples` takes; every function that measures samples takes all of it.
    SamplesLike: TypeAlias = (
        "Samples | str | os.PathLike[str] | Sequence[Any] | np.ndarray[Any, Any] | torch.Tensor | Mapping[str, Any]"
        " | IO[bytes] | IO[str] | _Dataset | _Table | _Column"
    )
else:
    SamplesLike = Any  # what else comes is refused by `read_samples`, in words

_LONGEST_NAME = 255  # of a file, on most systems
_TEXT_TABLES = (".csv", ".csv.gz")  # files in which every cell is a text


def read_samples(
    samples: SamplesLike,
    *,
    text_column: str = "text",
    limit: int | None = None,
    groups: GroupsLike | None = None,
    prompt_column: str | None = None,
    messages: bool = False,
    id_column: str | None = None,
    keep: Sequence[str] = (),
) -> Samples:
    """Samples from whatever holds them.

    Args:
        samples: a text, a list of texts, a list of id lists, a 1-D (one sample) or 2-D (a row a sample) integer array
            or tensor, a table or column of pandas, polars or pyarrow, a `datasets.Dataset`, columns or a list of rows
            by name such as {"input_ids": ...}, a file, or `Samples` that were read before. A Path is a file; a str is a
            file when it ends in .txt (one sample a line), .jsonl, .json (a list), .csv, one of these and .gz, or
            .parquet. Of an open file, such as `sys.stdin`, lines are .jsonl where they begin with {, else texts. A flat
            list of ints is one sample.
        text_column: column of a file or data set; it holds texts, or lists of token ids.
        limit: only the first so many samples.
        groups: which document each sample is of: a column of the file or data set, or a label for each row of the
            input. Samples of one document are no independent draws. None: what `Samples` carry already.
        prompt_column: column of a file or data set with what stands before each sample: the model reads it, and
            lengths are of the sample given it. Texts beside texts, ids beside ids.
        messages: samples are conversations, lists of {"role": ..., "content": ...}, in a list or in the column that
            `text_column` names, by default "messages". The tokenizer's chat template is applied, and lengths are of
            what the assistant says, given all before it.
        id_column: column of a file or data set with an id of each row, a text or an integer that no other row has: the
            column `id` of every table of samples, by which it is joined to your own.
        keep: columns of a file or data set that every table of samples gets as well, such as ["source", "year"].

    Returns:
        The samples in the order in which they came; `Samples` themselves where they came and no limit cuts them.

    Raises:
        InputError: nothing to measure, or something that is neither text nor token ids; it names the place.

    Examples:
        >>> read_samples(["To be", "or not"]).n_bytes.tolist()
        [5, 6]
        >>> read_samples(["To be", "or not", "Call me"], groups=[1, 1, 2]).groups
        ('1', '1', '2')
        >>> table = {"text": ["To be", "or not"], "uid": ["a", "b"], "play": ["Hamlet", "Hamlet"]}
        >>> samples = read_samples(table, id_column="uid", keep=["play"])
        >>> samples.row_ids, samples.kept
        (('a', 'b'), {'play': ('Hamlet', 'Hamlet')})
    """
    limit = None if limit is None else min(check_integer("limit", limit, besides="None"), sys.maxsize)
    columns = columns_of(text_column, groups, prompt_column, messages, id_column, keep)
    read = _read(samples, columns, limit, messages)
    if groups is None or columns.groups is not None:
        return read
    rows = read.index
    n_rows = len(read) + len(read.blank_skipped) + len(read.lossy_skipped)
    labels = labels_of(groups, n_rows, at_least=limit is not None)
    return replace(read, groups=tuple(labels[i] for i in rows))


def columns_of(text_column: Any, groups: Any, prompt_column: Any, messages: Any, id_column: Any, keep: Any) -> Columns:
    """The columns that `read_samples` is told of, checked."""
    if not isinstance(text_column, Hashable):
        raise InputError(f"text_column must be the name of one column; it is {text_column!r}.")
    _check_prompts(text_column, prompt_column, messages)
    column = "messages" if messages and text_column == "text" else text_column
    columns = Columns(column, groups if isinstance(groups, str) else None, prompt_column, id_column)
    return check_keep(keep, columns)


def _check_prompts(text_column: Any, prompt_column: Any, messages: Any) -> None:
    if not isinstance(messages, bool):
        raise InputError(
            f"messages must be True or False; it is {messages!r}. A column of conversations is named by text_column."
        )
    if prompt_column is None:
        return
    if not isinstance(prompt_column, str):
        raise InputError(f"prompt_column must be the name of one column; it is {prompt_column!r}.")
    if messages:
        raise InputError(
            f"messages hold their own prompts: pass messages=True or prompt_column={prompt_column!r}, not both."
        )
    if prompt_column == text_column:
        raise InputError(
            f"prompt_column={prompt_column!r} is the column of the samples themselves: name another, or the samples' "
            "with text_column."
        )


def _read(samples: SamplesLike, columns: Columns, limit: int | None, messages: bool) -> Samples:
    """Samples, and what columns beside them hold."""
    if isinstance(samples, Samples):
        check_no_columns("Samples that were read before", columns)
        if messages and samples.conditional != "messages":
            raise InputError("messages=True came with Samples that were read before as something else.")
        return samples if limit is None else samples.first(limit)
    if named_as_file(samples):
        return samples_of_rows(rows_of_file(samples, columns), str(samples), columns, messages, limit=limit)
    if is_stream(samples):
        name = name_of_stream(samples)
        return samples_of_rows(rows_of_stream(samples, columns), name, columns, messages, limit=limit)
    if isinstance(samples, str):
        check_no_columns("one text", columns)
        if len(samples) < _LONGEST_NAME and os.path.exists(samples):
            warn(
                f"{samples!r} is measured as a text of {len(samples.encode())} bytes, though a file or folder has that "
                f"name. A file of samples ends in {', '.join(FILE_KINDS)}, or comes as a Path.",
                MeasurementWarning,
            )
        if messages:
            conversation_of(samples, 0)  # refuses it
        return _from_list([samples], "one text", limit)
    kind = type(samples)
    if (rows := rows_of_table(samples, columns)) is not None:
        return samples_of_rows(rows, f"{kind.__module__.split('.')[0]}.{kind.__name__}", columns, messages, limit=limit)
    if isinstance(samples, Mapping):
        return samples_of_rows(
            rows_of_columns(samples, columns), f"columns of a {kind.__name__}", columns, messages, limit=limit
        )
    if (dicts := rows_of_dicts(samples, columns)) is not None:
        return samples_of_rows(dicts, f"list of {len(cast(Sequence[Any], samples))}", columns, messages, limit=limit)
    check_no_columns("a list or an array, which has no columns", columns)
    if isinstance(samples, (bytes, bytearray, memoryview)):
        raise InputError(
            f"{kind.__name__} came, and which text they are depends on their encoding: pass .decode('utf-8')."
        )
    if messages and isinstance(samples, Sequence):
        return samples_of_rows(map(Row, samples), f"list of {len(samples)}", columns, messages, limit=limit)
    if isinstance(samples, (np.ndarray, Sequence)) or is_tensor(samples):
        return _from_sequence(samples, limit)
    raise _unreadable(samples)


def _unreadable(samples: Any) -> InputError:
    """The error for an object that holds no samples."""
    remedy = "Turn it into a list of texts first, such as table['text'].tolist()."
    if hasattr(samples, "collect"):
        remedy = "Pass what its collect() gives."
    elif isinstance(samples, Set):
        remedy = "It has no order: pass sorted(samples), a list."
    elif type(samples).__name__ == "SampleShards":
        remedy = "scan_samples is for what measures into a folder: pass store=FOLDER, or read_samples of the same."
    elif hasattr(samples, "__iter__"):
        remedy = "Pass list(samples)."
    return InputError(
        "samples must be a text, a list of texts, a list of id lists, an integer array, a table, a datasets.Dataset "
        f"or a file; a {type(samples).__name__} came. {remedy}"
    )


def _from_sequence(samples: Any, limit: int | None) -> Samples:
    if is_tensor(samples):
        samples = list(samples.unbind()) if getattr(samples, "is_nested", False) else to_numpy(samples)
    if isinstance(samples, np.ma.MaskedArray) and samples.ndim in (1, 2) and samples.dtype.kind in "iu":
        columns = {"input_ids": np.atleast_2d(samples.data), MASK: np.atleast_2d(~np.ma.getmaskarray(samples))}
        rows = rows_of_columns(columns, Columns("input_ids"))
        return samples_of_rows(rows, f"masked array {list(samples.shape)}", Columns("input_ids"), limit=limit)
    if isinstance(samples, np.ndarray) and samples.dtype.kind not in "OSU":
        if samples.dtype.kind not in "iu" or samples.ndim not in (1, 2):
            raise InputError(
                f"an array of token ids must be 1-D or 2-D and of an integer dtype; this one is {samples.ndim}-D "
                f"{samples.dtype}."
            )
        if samples.size == 0:
            raise InputError(f"samples is an array of shape {list(samples.shape)}: there is nothing to measure.")
        return _from_list(list(np.atleast_2d(samples)), f"array {list(samples.shape)}", limit)
    samples = list(np.atleast_1d(samples)) if isinstance(samples, np.ndarray) else samples
    if len(samples) == 0:
        raise InputError("samples is empty: there is nothing to measure.")
    if all(is_int(x) for x in samples):
        return _from_list([samples], "one list of ids", limit)
    warn_of_file_names(samples)
    return _from_list(samples, f"list of {len(samples)}", limit)


def _from_list(rows: Sequence[Any], source: str, limit: int | None, index: Sequence[int] | None = None) -> Samples:
    """Rows of a list: all texts or all token ids, none empty. `index` names them in messages."""
    rows = list(islice(rows, limit))
    index = range(len(rows)) if index is None else index
    texts = isinstance(rows[0], str)
    for i, row in zip(index, rows, strict=True):
        if isinstance(row, (bytes, bytearray, memoryview)):
            raise InputError(
                f"sample {i} is {type(row).__name__}, and which text it is depends on its encoding: pass "
                ".decode('utf-8')."
            )
        if isinstance(row, str) != texts:
            raise InputError(
                f"samples must be all texts or all token ids; sample {index[0]} is {kind_of(rows[0])} and sample {i} "
                f"is {kind_of(row)}."
            )
        if isinstance(row, (str, Sequence, np.ndarray)) and len(row) == 0:
            raise InputError(f"sample {i} is empty: it has no bits to measure. Leave it out.")
    if texts:
        for i, row in zip(index, rows, strict=True):
            check_unicode(row, i)
        return Samples(list(rows), None, source)
    return Samples(None, [id_array(row, i) for i, row in zip(index, rows, strict=True)], source)


def samples_of_rows(
    rows: Iterable[Row],
    source: str,
    columns: Columns,
    messages: bool = False,
    first_row: int | None = None,
    *,
    limit: int | None = None,
) -> Samples:
    """Samples of a file, table or data set: blank and null rows are left out, and padding where a mask tells it."""
    kept: list[Row] = []
    index: list[int] = []
    blank: list[int] = []
    for i, row in enumerate(rows, first_row or 0):
        if is_blank(row.cell) and is_blank(row.prompt):
            blank.append(i)
            continue
        kept.append(row)
        index.append(i)
        if len(kept) == limit:
            break
    if not kept:
        raise InputError(f"{source} holds no sample ({len(blank)} blank rows).")
    labels = (
        None if columns.groups is None else tuple(label_of(row.group, i) for i, row in zip(index, kept, strict=True))
    )
    are_texts = source.lower().endswith(_TEXT_TABLES)
    about: dict[str, Any] = {
        "rows": None if first_row is None else np.array(index, dtype=np.int64),
        "row_ids": row_ids_of(kept, index, columns, are_texts=are_texts),
        "kept": kept_of(kept, columns, source, are_texts=are_texts),
    }
    if messages:
        read = [conversation_of(row.cell, i) for i, row in zip(index, kept, strict=True)]
        samples = _from_list([one.answers for one in read], source, None, index)
        told = [one.told for one in read]
        blank_skipped = tuple(blank)
        return replace(
            samples, blank_skipped=blank_skipped, groups=labels, conditional="messages", prompts=told, **about
        )
    if columns.prompt_column is not None:
        check_completions(kept, index)
    samples = _from_list([row.cell for row in kept], source, None, index)
    samples = replace(samples, blank_skipped=tuple(blank), groups=labels, **about)
    if samples.ids is not None:
        samples = with_masks(samples, kept)
    return samples if columns.prompt_column is None else with_prompts(samples, [row.prompt for row in kept])
