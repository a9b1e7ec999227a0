"""`Samples`: texts or token ids in the order in which they came, with their byte counts and fingerprints."""

import hashlib
import os
import sys
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import islice
from typing import TYPE_CHECKING, Any, Literal, Protocol

import numpy as np
from jaxtyping import Int64

from memorization.errors import InputError, LossyTextError, MeasurementWarning, warn
from memorization.integers import check_integer
from memorization.samples.files import FILE_KINDS, named_as_file, rows_of_file, warn_of_file_names
from memorization.samples.groups import GroupsLike, label_of, labels_of
from memorization.samples.positions import positions_kept
from memorization.samples.round_trip import around, decode, difference, encode, first_difference
from memorization.samples.tables import MASK, Row, check_no_groups, is_blank, rows_of_columns, rows_of_table
from memorization.samples.token_ids import (
    check_labels,
    check_unpadded,
    id_array,
    is_int,
    is_tensor,
    kind_of,
    quote,
    to_numpy,
    without_padding,
)

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
        " | _Dataset | _Table | _Column"
    )
else:
    SamplesLike = Any  # what else comes is refused by `read_samples`, in words

_LONGEST_NAME = 255  # of a file, on most systems


@dataclass(frozen=True, eq=False)
class Samples:
    """Samples as texts, as token ids, or (after `tokenize`) as both. What is computed from them is computed once.

    Attributes:
        texts: one str a sample; None where the samples came as ids.
        ids: one int64 array a sample; None until texts have been tokenized.
        source: what the samples were read from, for the record.
        blank_skipped: positions in the input of the blank and null rows, which were left out.
        lossy_skipped: positions in the input of the texts left out because they do not survive the tokenizer.
        n_padding_removed: ids left out because an attention mask that came with them says that they are padding; None
            where no mask came.
        groups: the document of each sample, by its label; None where nothing was said of documents, and each sample
            counts as one of its own.
    """

    texts: list[str] | None
    ids: list[np.ndarray] | None
    source: str
    blank_skipped: tuple[int, ...] = ()
    lossy_skipped: tuple[int, ...] = ()
    n_padding_removed: int | None = None
    groups: tuple[str, ...] | None = None

    def __len__(self) -> int:
        return len(self.texts if self.texts is not None else self.ids or ())

    @property
    def n_blank_skipped(self) -> int:
        """Blank and null rows left out."""
        return len(self.blank_skipped)

    @cached_property
    def index(self) -> Int64[np.ndarray, " sample"]:
        """Position of each sample in the input: its row, counted from 0, with the rows that were left out."""
        return _read_only(positions_kept(len(self), (*self.blank_skipped, *self.lossy_skipped)))

    @cached_property
    def n_bytes(self) -> Int64[np.ndarray, " sample"]:
        """UTF-8 bytes of each text; -1 where the samples came as ids."""
        if self.texts is None:
            return _read_only(np.full(len(self), -1, dtype=np.int64))
        return _read_only(np.array([len(text.encode()) for text in self.texts], dtype=np.int64))

    @cached_property
    def texts_sha256(self) -> str | None:
        """Fingerprint of the texts and their order; None where the samples came as ids."""
        if self.texts is None:
            return None
        return _sha256(text.encode() for text in self.texts)

    @cached_property
    def ids_sha256(self) -> str | None:
        """Fingerprint of the token ids and their order; None before `tokenize`."""
        return None if self.ids is None else _sha256(ids.astype("<i8").tobytes() for ids in self.ids)

    def record(self) -> dict[str, Any]:
        """Where the samples came from and what they are, for the settings of a result."""
        return {
            "source": self.source,
            "n_samples": len(self),
            "texts_sha256": self.texts_sha256,
            "ids_sha256": self.ids_sha256,
            "n_blank_skipped": self.n_blank_skipped,
            "blank_skipped": list(self.blank_skipped),
            "lossy_skipped": list(self.lossy_skipped),
            "n_padding_removed": self.n_padding_removed,
        }

    def leave_out(self, lossy: Iterable[int]) -> "Samples":
        """All but the samples at these positions of the input, which are recorded as lossy.

        Raises:
            InputError: none would be left.
        """
        dropped = set(lossy) - set(self.lossy_skipped)
        keep = [k for k, i in enumerate(self.index) if int(i) not in dropped]
        if not keep:
            raise InputError(
                f"none of the {len(self)} texts survives the tokenizer: decode(encode(text)) is not the text."
            )
        if len(keep) == len(self):
            return self
        return replace(
            self,
            texts=None if self.texts is None else [self.texts[k] for k in keep],
            ids=None if self.ids is None else [self.ids[k] for k in keep],
            groups=None if self.groups is None else tuple(self.groups[k] for k in keep),
            lossy_skipped=tuple(sorted({*self.lossy_skipped, *dropped})),
        )

    def as_measured(self, record: Mapping[str, Any]) -> "Samples":
        """These samples without the lossy ones that a measurement with this record left out.

        Raises:
            InputError: none would be left.
        """
        lossy = record["lossy_skipped"]
        if "blank_skipped" not in record:  # written by version 0.1.0, which did not count blank rows
            rows = positions_kept(len(self) + len(self.lossy_skipped), self.blank_skipped)
            lossy = [int(rows[i]) for i in lossy if i < len(rows)]
        return self.leave_out(lossy)

    def first(self, n_samples: int) -> "Samples":
        """The first so many of the samples."""
        if n_samples >= len(self):
            return self
        last = int(self.index[n_samples - 1])
        return replace(
            self,
            texts=None if self.texts is None else self.texts[:n_samples],
            ids=None if self.ids is None else self.ids[:n_samples],
            groups=None if self.groups is None else self.groups[:n_samples],
            blank_skipped=tuple(i for i in self.blank_skipped if i < last),
            lossy_skipped=tuple(i for i in self.lossy_skipped if i < last),
        )

    def tokenize(self, tokenizer: Any, *, on_lossy_text: Literal["raise", "skip"] = "raise") -> "Samples":
        """Token ids of the texts, no special tokens added; samples that came as ids are returned as they are.

        Raises:
            LossyTextError: decode(encode(text)) is not the text, byte for byte, or the tokenizer refuses the text, and
                `on_lossy_text` is "raise".
            InputError: no text survives, or ids begin or end with the tokenizer's pad token.
        """
        if on_lossy_text not in ("raise", "skip"):
            raise InputError(f'on_lossy_text must be "raise" or "skip"; it is {on_lossy_text!r}.')
        if self.texts is None:
            if self.n_padding_removed is None:
                check_unpadded(self.ids or (), self.index, tokenizer)
            return self
        rows, failed = encode(tokenizer, self.texts)
        back = [None if k in failed else decode(tokenizer, row) for k, row in enumerate(rows)]
        lossy = [k for k, row in enumerate(rows) if not row or back[k] != self.texts[k]]
        if lossy and on_lossy_text == "raise":
            first = lossy[0]
            text, got = self.texts[first], back[first]
            what = f"the tokenizer refuses it ({failed[first]})" if got is None else difference(text, got)
            raise LossyTextError(
                f"{len(lossy)} of {len(rows)} texts do not survive the tokenizer {type(tokenizer).__name__}: sample "
                f"{self.index[first]} is {quote(text) if got is None else around(text, first_difference(text, got))}, "
                "and "
                f'{what}. Bits would be those of another text. Pass on_lossy_text="skip" to leave such samples out '
                "(they are counted), or hand over the token ids."
            )
        whole = replace(self, ids=[np.asarray(row, dtype=np.int64) for row in rows])
        return whole.leave_out(self.index[lossy].tolist())


def read_samples(
    samples: SamplesLike, *, text_column: str = "text", limit: int | None = None, groups: GroupsLike | None = None
) -> Samples:
    """Samples from whatever holds them.

    Args:
        samples: a text, a list of texts, a list of id lists, a 1-D (one sample) or 2-D (a row a sample) integer array
            or tensor, a `datasets.Dataset`, a file, or `Samples` that were read before. A Path is a file; a str is a
            file when it ends in .txt (one sample a line), .jsonl, .csv or .parquet. A flat list of ints is one sample.
        text_column: column of a file or data set; it holds texts, or lists of token ids.
        limit: only the first so many samples.
        groups: which document each sample is of: a column of the file or data set, or a label for each row of the
            input. Samples of one document are no independent draws. None: what `Samples` carry already.

    Returns:
        The samples in the order in which they came; `Samples` themselves where they came and no limit cuts them.

    Raises:
        InputError: nothing to measure, or something that is neither text nor token ids; it names the place.

    Examples:
        >>> read_samples(["To be", "or not"]).n_bytes.tolist()
        [5, 6]
        >>> read_samples(["To be", "or not", "Call me"], groups=[1, 1, 2]).groups
        ('1', '1', '2')
    """
    limit = None if limit is None else min(check_integer("limit", limit, besides="None"), sys.maxsize)
    if not isinstance(text_column, Hashable):
        raise InputError(f"text_column must be the name of one column; it is {text_column!r}.")
    column = groups if isinstance(groups, str) else None
    read = _read(samples, text_column, limit, column)
    if groups is None or column is not None:
        return read
    rows = read.index
    n_rows = len(read) + len(read.blank_skipped) + len(read.lossy_skipped)
    labels = labels_of(groups, n_rows, at_least=limit is not None)
    return replace(read, groups=tuple(labels[i] for i in rows))


def _read(samples: SamplesLike, text_column: str, limit: int | None, groups: str | None) -> Samples:
    """Samples, and the labels of their documents where a column holds them."""
    if isinstance(samples, Samples):
        check_no_groups("Samples that were read before", groups)
        return samples if limit is None else samples.first(limit)
    if named_as_file(samples):
        return _from_rows(rows_of_file(samples, text_column, groups), str(samples), limit, groups)
    if isinstance(samples, str):
        check_no_groups("one text", groups)
        if len(samples) < _LONGEST_NAME and os.path.exists(samples):
            warn(
                f"{samples!r} is measured as a text of {len(samples.encode())} bytes, though a file or folder has that "
                f"name. A file of samples ends in {', '.join(FILE_KINDS)}, or comes as a Path.",
                MeasurementWarning,
            )
        return _from_list([samples], "one text", limit)
    kind = type(samples)
    if (rows := rows_of_table(samples, text_column, groups)) is not None:
        return _from_rows(rows, f"{kind.__module__.split('.')[0]}.{kind.__name__}", limit, groups)
    if isinstance(samples, Mapping):
        rows = rows_of_columns(samples, text_column, groups)
        return _from_rows(rows, f"columns of a {kind.__name__}", limit, groups)
    check_no_groups("a list or an array, which has no columns", groups)
    if isinstance(samples, (bytes, bytearray, memoryview)):
        raise InputError(
            f"{kind.__name__} came, and which text they are depends on their encoding: pass .decode('utf-8')."
        )
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
        return _from_rows(rows_of_columns(columns, "input_ids"), f"masked array {list(samples.shape)}", limit)
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
            _check_unicode(row, i)
        return Samples(list(rows), None, source)
    return Samples(None, [id_array(row, i) for i, row in zip(index, rows, strict=True)], source)


def _from_rows(rows: Iterator[Row], source: str, limit: int | None, groups: str | None = None) -> Samples:
    """Samples of a file, table or data set: blank and null rows are left out, and padding where a mask tells it."""
    kept: list[Row] = []
    index: list[int] = []
    blank: list[int] = []
    for i, row in enumerate(rows):
        if is_blank(row.cell):
            blank.append(i)
            continue
        kept.append(row)
        index.append(i)
        if len(kept) == limit:
            break
    if not kept:
        raise InputError(f"{source} holds no sample ({len(blank)} blank rows).")
    samples = _from_list([row.cell for row in kept], source, None, index)
    labels = None if groups is None else tuple(label_of(row.group, i) for i, row in zip(index, kept, strict=True))
    samples = replace(samples, blank_skipped=tuple(blank), groups=labels)
    if samples.ids is None:
        return samples
    masks = [row.mask for row in kept]
    for ids, row, i in zip(samples.ids, kept, index, strict=True):
        if row.mask is None and any(mask is not None for mask in masks):
            raise InputError(f"sample {i} has no attention mask, and others have one: each row needs its own, or none.")
        if row.mask is None and row.labels is not None:
            check_labels(ids, row.labels, i)
    if masks[0] is None:
        return samples
    whole = [without_padding(ids, mask, i) for ids, mask, i in zip(samples.ids, masks, index, strict=True)]
    n_removed = sum(map(len, samples.ids)) - sum(map(len, whole))
    return replace(samples, ids=whole, n_padding_removed=n_removed)


def _check_unicode(text: str, i: int) -> None:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise InputError(
            f"sample {i} is not valid Unicode: character {error.start} is the lone surrogate {text[error.start]!r}."
        ) from error


def _read_only(array: np.ndarray) -> np.ndarray:
    array.flags.writeable = False
    return array


def _sha256(parts: Iterator[bytes]) -> str:
    digest = hashlib.sha256()
    for part in parts:
        digest.update(len(part).to_bytes(8, "little"))
        digest.update(part)
    return digest.hexdigest()
