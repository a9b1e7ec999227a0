"""Texts, token ids, files and data sets to Samples: what is measured, in the order in which it came, with its bytes and fingerprint."""

import csv
import hashlib
import json
import os
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

import numpy as np
from jaxtyping import Int64

from memorization.errors import InputError, LossyTextError, MeasurementWarning
from memorization.integers import check_integer

if TYPE_CHECKING:
    from typing import TypeAlias

    import torch

    class _Dataset(Protocol):
        @property
        def column_names(self) -> Any: ...

    SamplesLike: TypeAlias = (
        "Samples | str | os.PathLike[str] | Sequence[Any] | np.ndarray[Any, Any] | torch.Tensor | _Dataset"
    )
else:
    SamplesLike = Any  # what else comes is refused by `read_samples`, in words

FILE_KINDS = (".txt", ".jsonl", ".csv", ".parquet")
_LONGEST_NAME = 255  # of a file, on most systems
_SOME = 80  # characters of a text that an error message quotes


@dataclass(frozen=True, eq=False)
class Samples:
    """Samples as texts, as token ids, or (after `tokenize`) as both. What is computed from them is computed once.

    Attributes:
        texts: one str a sample; None where the samples came as ids.
        ids: one int64 array a sample; None until texts have been tokenized.
        source: what the samples were read from, for the record.
        blank_skipped: positions in the input of the blank and null rows, which were left out.
        lossy_skipped: positions in the input of the texts left out because they do not survive the tokenizer.
    """

    texts: list[str] | None
    ids: list[np.ndarray] | None
    source: str
    blank_skipped: tuple[int, ...] = ()
    lossy_skipped: tuple[int, ...] = ()

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
                f"none of the {len(self)} texts survives the tokenizer: decode(encode(text)) is not the text"
            )
        if len(keep) == len(self):
            return self
        return replace(
            self,
            texts=None if self.texts is None else [self.texts[k] for k in keep],
            ids=None if self.ids is None else [self.ids[k] for k in keep],
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
            blank_skipped=tuple(i for i in self.blank_skipped if i < last),
            lossy_skipped=tuple(i for i in self.lossy_skipped if i < last),
        )

    def tokenize(self, tokenizer: Any, *, on_lossy_text: Literal["raise", "skip"] = "raise") -> "Samples":
        """Token ids of the texts, no special tokens added; samples that came as ids are returned as they are.

        Raises:
            LossyTextError: decode(encode(text)) is not the text, byte for byte, and `on_lossy_text` is "raise".
            InputError: no text survives.
        """
        if on_lossy_text not in ("raise", "skip"):
            raise InputError(f'on_lossy_text must be "raise" or "skip"; it is {on_lossy_text!r}')
        if self.texts is None:
            return self
        rows = tokenizer(self.texts, add_special_tokens=False, return_attention_mask=False, verbose=False)["input_ids"]
        lossy = [i for i, row in enumerate(rows) if not row or _decode(tokenizer, row) != self.texts[i]]
        if lossy and on_lossy_text == "raise":
            first = lossy[0]
            raise LossyTextError(
                f"{len(lossy)} of {len(rows)} texts do not survive the tokenizer {type(tokenizer).__name__}: sample "
                f"{self.index[first]} is {_quote(self.texts[first])}, and decode(encode(it)) is "
                f"{_quote(_decode(tokenizer, rows[first]))}. Bits would be those of another text. Pass "
                'on_lossy_text="skip" to leave such samples out (they are counted), or hand over the token ids.'
            )
        whole = replace(self, ids=[np.asarray(row, dtype=np.int64) for row in rows])
        return whole.leave_out(self.index[lossy].tolist())


def positions_measured(n_samples: int, record: Mapping[str, Any]) -> Int64[np.ndarray, " sample"]:
    """Positions in the input of the samples of a measurement with this record (`Samples.record`)."""
    return positions_kept(n_samples, [*record.get("blank_skipped", ()), *record["lossy_skipped"]])


def positions_kept(n_samples: int, skipped: Sequence[int]) -> Int64[np.ndarray, " sample"]:
    """Positions in the input of the samples that are left, where those at `skipped` were left out."""
    return np.delete(np.arange(n_samples + len(skipped), dtype=np.int64), np.asarray(skipped, dtype=np.int64))


def read_samples(samples: SamplesLike, *, text_column: str = "text", limit: int | None = None) -> Samples:
    """Samples from whatever holds them.

    Args:
        samples: a text, a list of texts, a list of id lists, a 1-D (one sample) or 2-D (a row a sample) integer array
            or tensor, a `datasets.Dataset`, a file, or `Samples` that were read before. A Path is a file; a str is a
            file when it ends in .txt (one sample a line), .jsonl, .csv or .parquet. A flat list of ints is one sample.
        text_column: column of a file or data set; it holds texts, or lists of token ids.
        limit: only the first so many samples.

    Returns:
        The samples in the order in which they came; `Samples` themselves where they came and no limit cuts them.

    Raises:
        InputError: nothing to measure, or something that is neither text nor token ids; it names the place.

    Examples:
        >>> read_samples(["To be", "or not"]).n_bytes.tolist()
        [5, 6]
    """
    limit = None if limit is None else check_integer("limit", limit, besides="None")
    if isinstance(samples, Samples):
        return samples if limit is None else samples.first(limit)
    if isinstance(samples, Path) or (isinstance(samples, str) and samples.lower().endswith(FILE_KINDS)):
        return _from_cells(_read_file(samples, text_column), str(samples), limit)
    if hasattr(samples, "column_names"):
        return _from_cells(_read_dataset(samples, text_column), f"datasets.{type(samples).__name__}", limit)
    if isinstance(samples, str):
        if len(samples) < _LONGEST_NAME and os.path.exists(samples):
            warnings.warn(
                f"{samples!r} is measured as a text of {len(samples.encode())} bytes, though a file or folder has that name. A file of "
                f"samples ends in {', '.join(FILE_KINDS)}, or comes as a Path.",
                MeasurementWarning,
                stacklevel=3,
            )
        return _from_list([samples], "one text", limit)
    if isinstance(samples, (np.ndarray, Sequence)) or _is_tensor(samples):
        return _from_sequence(samples, limit)
    raise InputError(
        "samples must be a text, a list of texts, a list of id lists, an integer array, a datasets.Dataset or a file; "
        f"a {type(samples).__name__} came. Turn it into a list of texts first, such as table['text'].tolist()."
    )


def _from_sequence(samples: Any, limit: int | None) -> Samples:
    if _is_tensor(samples):
        samples = _to_numpy(samples)
    if isinstance(samples, np.ndarray) and samples.dtype.kind not in "OSU":
        if samples.dtype.kind not in "iu" or samples.ndim not in (1, 2):
            raise InputError(
                f"an array of token ids must be 1-D or 2-D and of an integer dtype; this one is {samples.ndim}-D {samples.dtype}"
            )
        if samples.size == 0:
            raise InputError(f"samples is an array of shape {list(samples.shape)}: there is nothing to measure")
        return _from_list(list(np.atleast_2d(samples)), f"array {list(samples.shape)}", limit)
    samples = list(np.atleast_1d(samples)) if isinstance(samples, np.ndarray) else samples
    if len(samples) == 0:
        raise InputError("samples is empty: there is nothing to measure")
    if all(_is_int(x) for x in samples):
        return _from_list([samples], "one list of ids", limit)
    return _from_list(samples, f"list of {len(samples)}", limit)


def _from_list(rows: Sequence[Any], source: str, limit: int | None) -> Samples:
    """Rows of a list: all texts or all token ids, none empty."""
    rows = rows[:limit]
    texts = isinstance(rows[0], str)
    for i, row in enumerate(rows):
        if isinstance(row, str) != texts:
            raise InputError(
                f"samples must be all texts or all token ids; sample 0 is {_kind(rows[0])} and sample {i} is {_kind(row)}"
            )
        if isinstance(row, (str, Sequence, np.ndarray)) and len(row) == 0:
            raise InputError(f"sample {i} is empty: it has no bits to measure. Leave it out.")
    if texts:
        for i, row in enumerate(rows):
            _check_unicode(row, i)
        return Samples(list(rows), None, source)
    return Samples(None, [_id_array(row, i) for i, row in enumerate(rows)], source)


def _from_cells(cells: Iterator[Any], source: str, limit: int | None) -> Samples:
    """Rows of a file or data set: blank and null ones are skipped and counted."""
    rows: list[Any] = []
    blank: list[int] = []
    for i, cell in enumerate(cells):
        if cell is None or (isinstance(cell, float) and cell != cell) or (isinstance(cell, str) and not cell.strip()):
            blank.append(i)
            continue
        rows.append(cell)
        if len(rows) == limit:
            break
    if not rows:
        raise InputError(f"{source} holds no sample ({len(blank)} blank rows)")
    return replace(_from_list(rows, source, None), blank_skipped=tuple(blank))


def _read_file(path: str | Path, column: str) -> Iterator[Any]:
    was_path, path = isinstance(path, Path), Path(path)
    kind = path.suffix.lower()
    if kind not in FILE_KINDS:
        raise InputError(f"{path} must end in one of {', '.join(FILE_KINDS)} to be read as samples")
    try:
        exists = path.is_file()
    except OSError:  # longer than a name may be: a text that happens to end like a file
        exists = False
    if not exists:
        name = _shorten(str(path))
        hint = "" if was_path else f' If this is a text to be measured, pass ["{name}"], a list.'
        raise InputError(f"there is no file {name}.{hint}")
    try:
        if kind == ".parquet":
            yield from _read_parquet(path, column)
            return
        # utf-8-sig: a byte order mark at the start is not part of the first text. newline="": the csv module wants line ends as they are.
        with path.open(encoding="utf-8-sig", newline="" if kind == ".csv" else None) as lines:
            if kind == ".txt":
                yield from (line.removesuffix("\n") for line in lines)
            else:
                yield from (_read_csv if kind == ".csv" else _read_jsonl)(path, lines, column)
    except UnicodeDecodeError as error:
        raise InputError(
            f"{path} is not UTF-8 text (byte {error.start} of a block: {error.reason}); convert it first"
        ) from error


def _read_jsonl(path: Path, lines: Any, column: str) -> Iterator[Any]:
    for number, line in enumerate(lines, 1):
        if not line.strip():
            yield None
            continue
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            raise InputError(f"{path}, line {number} is not JSON ({error}); .jsonl holds one object a line") from error
        if not isinstance(row, dict) or column not in row:
            had = f"it has {', '.join(row) or 'none'}" if isinstance(row, dict) else f"it is a {type(row).__name__}"
            raise InputError(
                f"{path}, line {number} has no column {column!r}: {had}. Name the column with text_column."
            )
        yield row[column]


def _read_csv(path: Path, lines: Any, column: str) -> Iterator[Any]:
    # By default cells of over 131,072 characters are refused. The limit is a C long, which has 32 bits on Windows.
    before = csv.field_size_limit(2**31 - 1)
    try:
        rows = csv.reader(lines)
        names = next(rows, [])
        _check_column(path, column, names)
        place = names.index(column)
        for row in rows:
            yield row[place] if place < len(row) else None
    finally:
        csv.field_size_limit(before)


def _read_parquet(path: Path, column: str) -> Iterator[Any]:
    import pyarrow
    import pyarrow.parquet

    try:
        file = pyarrow.parquet.ParquetFile(path)
    except (pyarrow.ArrowInvalid, OSError) as error:
        raise InputError(f"{path} is not a parquet file: {error}") from error
    _check_column(path, column, file.schema_arrow.names)
    for batch in file.iter_batches(columns=[column]):
        yield from batch.column(0).to_pylist()


def _read_dataset(dataset: Any, column: str) -> Iterator[Any]:
    names = dataset.column_names
    if isinstance(names, dict):
        raise InputError(
            f"a DatasetDict came, with splits {', '.join(names)}: pass one of them, such as data[{next(iter(names))!r}]"
        )
    if names is not None:  # a streamed data set may not know its columns
        _check_column("the data set", column, names)
        dataset = dataset.select_columns([column])
    for row in dataset:
        yield row[column]


def _check_column(where: object, column: str, names: Sequence[str]) -> None:
    if column not in names:
        raise InputError(
            f"{where} has no column {column!r}: it has {', '.join(names) or 'none'}. Name the column with text_column."
        )


def _id_array(row: Any, i: int) -> np.ndarray:
    if _is_tensor(row):
        row = _to_numpy(row)
    if not isinstance(row, (Sequence, np.ndarray)):
        raise InputError(f"sample {i} must be a text or a list of token ids; it is {_kind(row)}")
    if not isinstance(row, np.ndarray):
        for j, x in enumerate(row):
            if not _is_int(x):
                raise InputError(f"token ids must be integers; sample {i} has {_kind(x)} at position {j}")
    array = np.asarray(row)
    if array.ndim != 1 or array.dtype.kind not in "iu" or not len(array):
        raise InputError(
            f"sample {i} must be a flat list of at least one token id; it is a {array.dtype} array of shape {list(array.shape)}"
        )
    return array.astype(np.int64)


def _check_unicode(text: str, i: int) -> None:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise InputError(
            f"sample {i} is not valid Unicode: character {error.start} is the lone surrogate {text[error.start]!r}"
        ) from error


def _read_only(array: np.ndarray) -> np.ndarray:
    array.flags.writeable = False
    return array


def _decode(tokenizer: Any, ids: Sequence[int]) -> str:
    text: str = tokenizer.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False)
    return text


def _sha256(parts: Iterator[bytes]) -> str:
    digest = hashlib.sha256()
    for part in parts:
        digest.update(len(part).to_bytes(8, "little"))
        digest.update(part)
    return digest.hexdigest()


def _is_int(x: Any) -> bool:
    return isinstance(x, (int, np.integer)) and not isinstance(x, (bool, np.bool_))


def _is_tensor(x: Any) -> bool:
    return hasattr(x, "detach") and hasattr(x, "cpu")


def _to_numpy(tensor: Any) -> np.ndarray:
    tensor = tensor.detach().cpu()
    array: np.ndarray = (tensor.float() if tensor.is_floating_point() else tensor).numpy()  # numpy has no bfloat16
    return array


def _kind(x: Any) -> str:
    return f"{type(x).__name__} {_quote(str(x))}"


def _quote(text: str) -> str:
    return repr(_shorten(text))


def _shorten(text: str) -> str:
    return text if len(text) <= _SOME else text[:_SOME] + "..."
