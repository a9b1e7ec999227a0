"""`scan_samples`: a data set of any size in shards, read one after the other and as often as it takes."""

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from memorization.errors import InputError
from memorization.samples.files import named_as_file, rows_of_file
from memorization.samples.groups import GroupsLike
from memorization.samples.reading import SamplesLike, columns_of, read_samples, samples_of_rows
from memorization.samples.samples import Samples
from memorization.samples.tables import Columns, Row, is_blank, rows_of_dataset, rows_of_dicts

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["SampleShards", "scan_samples"]

# A shard ends with whichever comes first. So many samples are measured in seconds to minutes: what a kill can lose.
SAMPLES_A_SHARD = 1024
CHARACTERS_A_SHARD = 1 << 18
_IDS_AS_CHARACTERS = 4
_FOLDER_KINDS = (".parquet", ".jsonl", ".jsonl.gz")


class SampleShards:
    """A data set whose samples are read a shard at a time, anew for each pass; made by `scan_samples`.

    Iterating gives `Samples`: at most 1,024 of them, and of texts together no more than 262,144 characters unless one
    alone is longer. Positions are those of the whole input.

    Attributes:
        source: what is read, for the record.
    """

    def __init__(self, source: str, open_shards: Callable[[], Iterator[Samples]]) -> None:
        self.source = source
        self._open = open_shards

    def __iter__(self) -> Iterator[Samples]:
        first: Samples | None = None
        for shard in self._open():
            first = first or shard
            if (shard.texts is None) != (first.texts is None):
                raise InputError(
                    f"samples must be all texts or all token ids; sample {first.index[0]} and sample {shard.index[0]} "
                    "differ in that."
                )
            yield shard
        if first is None:
            raise InputError(f"{self.source} holds no sample.")

    def only(self) -> Samples:
        """All samples, where they are one shard."""
        (whole,) = self
        return replace(whole, rows=None)

    def first(self) -> Samples:
        """The first shard; where that is all, as samples that were read at once."""
        shards = iter(self)
        first = next(shards)
        return replace(first, rows=None) if next(shards, None) is None else first

    def hidden(self) -> "SampleShards":
        """The same, of which no result or message shows a text."""
        return SampleShards(self.source, lambda: (replace(shard, hidden=True) for shard in self))

    def __repr__(self) -> str:
        return f"SampleShards of {self.source}"


def scan_samples(
    samples: "SamplesLike | SampleShards | Iterable[Any]",
    *,
    text_column: str = "text",
    limit: int | None = None,
    groups: GroupsLike | None = None,
    prompt_column: str | None = None,
    messages: bool = False,
    id_column: str | None = None,
    keep: Sequence[str] = (),
) -> SampleShards:
    """Samples that need not fit into memory: what `read_samples` reads, shard by shard.

    Files and data sets (`datasets.Dataset`, and those that stream) are read again for each pass over them, and never
    held. Everything else is in memory already, and is cut.

    Args:
        samples: as `read_samples` takes them; a folder of .parquet, .jsonl or .jsonl.gz files, read in the order of
            their names; or an iterable of rows or texts that gives the same ones each time it is begun.
        text_column: this and all that follow are as for `read_samples`.
        limit: only the first so many samples.
        groups: which document each sample is of: a column. Labels are for samples that are in memory.
        prompt_column: column of what stands before each sample.
        messages: samples are conversations.
        id_column: column with an id of each row.
        keep: columns that every table of samples gets as well.

    Returns:
        The shards, to be iterated.

    Raises:
        InputError: as `read_samples`, when the place is read; an iterator, which can be read only once.

    Examples:
        >>> from memorization import scan_samples
        >>> [len(shard) for shard in scan_samples([f"sample {i}" for i in range(2500)])]
        [1024, 1024, 452]
    """
    if isinstance(samples, SampleShards):
        return samples
    how: dict[str, Any] = {"limit": limit, "prompt_column": prompt_column, "messages": messages}
    how |= {"text_column": text_column, "groups": groups, "id_column": id_column, "keep": keep}
    rows = None if groups is not None and not isinstance(groups, str) else _rows_of(samples)
    if rows is None:
        whole = read_samples(cast(SamplesLike, samples), **how)
        return SampleShards(whole.source, lambda: _cut(whole))
    columns = columns_of(text_column, groups, prompt_column, messages, id_column, keep)
    source = str(samples) if isinstance(samples, (str, os.PathLike)) else type(samples).__name__

    def shards() -> Iterator[Samples]:
        for first_row, part in _parts(rows(columns), limit):
            yield samples_of_rows(part, source, columns, messages, first_row)

    return SampleShards(source, shards)


def _rows_of(samples: Any) -> Callable[[Columns], Iterator[Row]] | None:
    """What begins to read the rows of a place; None for what is in memory."""
    if isinstance(samples, (str, os.PathLike)) and Path(samples).is_dir():
        files = _files_of(Path(samples))
        return lambda columns: (row for file in files for row in rows_of_file(file, columns))
    if named_as_file(samples):
        return lambda columns: rows_of_file(samples, columns)
    if hasattr(samples, "column_names") and not hasattr(samples, "schema"):
        return lambda columns: rows_of_dataset(samples, columns)
    if isinstance(samples, Iterator) and not hasattr(samples, "read"):
        raise InputError(
            f"a {type(samples).__name__} came, which can be read once, and samples are read again for each model, and "
            "to go on where a run was stopped: write them to a .jsonl file, or pass an object whose __iter__ begins "
            "anew each time, such as datasets.IterableDataset.from_generator(function)."
        )
    is_known = isinstance(samples, (str, Sequence, Mapping, Samples, np.ndarray)) or hasattr(samples, "__array__")
    if not is_known and hasattr(samples, "__iter__") and type(samples).__module__.split(".")[0] not in _TABLES:
        return lambda columns: _rows_of_iterable(samples, columns)
    return None


_TABLES = ("pandas", "polars", "pyarrow", "torch", "transformers", "_io", "io")


def _rows_of_iterable(samples: Any, columns: Columns) -> Iterator[Row]:
    """Rows that somebody else's object gives: mappings by the names of columns, or samples themselves."""
    for one in samples:
        if isinstance(one, Mapping):
            yield from rows_of_dicts([one], columns) or ()
        else:
            yield Row(one)


def _files_of(folder: Path) -> list[Path]:
    files = sorted(path for path in folder.iterdir() if path.name.lower().endswith(_FOLDER_KINDS))
    if not files:
        raise InputError(f"{folder} is a folder without a {', '.join(_FOLDER_KINDS)} file: there is nothing to read.")
    return files


def _parts(rows: Iterator[Row], limit: int | None) -> Iterator[tuple[int, list[Row]]]:
    """Rows of one shard after the other, with the position of the first; blank rows go with what stands before them."""
    first_row, part, n_samples, n_characters, n_left = 0, list[Row](), 0, 0, limit
    for row in rows:
        blank = is_blank(row.cell) and is_blank(row.prompt)
        size = 0 if blank else _size(row)
        full = n_samples == SAMPLES_A_SHARD or (n_samples > 0 and n_characters + size > CHARACTERS_A_SHARD)
        if full and not blank:
            yield first_row, part
            first_row, part, n_samples, n_characters = first_row + len(part), [], 0, 0
        part.append(row)
        if blank:
            continue
        n_samples, n_characters = n_samples + 1, n_characters + size
        n_left = None if n_left is None else n_left - 1
        if n_left == 0:
            break
    if part:
        yield first_row, part


def _size(row: Row) -> int:
    cells = [cell for cell in (row.cell, row.prompt) if hasattr(cell, "__len__")]
    return sum(len(cell) if isinstance(cell, str) else _IDS_AS_CHARACTERS * len(cell) for cell in cells)


def _cut(whole: Samples) -> Iterator[Samples]:
    """Shards of samples that are in memory."""
    sizes = [len(text) for text in whole.texts] if whole.texts is not None else []
    sizes = sizes or [_IDS_AS_CHARACTERS * len(ids) for ids in whole.ids or ()]
    edges, n_characters = [0], 0
    for k, size in enumerate(sizes):
        if k - edges[-1] == SAMPLES_A_SHARD or (k > edges[-1] and n_characters + size > CHARACTERS_A_SHARD):
            edges.append(k)
            n_characters = 0
        n_characters += size
    edges.append(len(sizes))
    return (whole.part(a, b) for a, b in pairwise(edges))
