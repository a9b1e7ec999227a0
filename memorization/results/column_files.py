"""Columns of parquet files that are read a stretch of rows at a time."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Int64

from memorization.errors import ResultError

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["ColumnFiles"]


class ColumnFiles:
    """The rows of one parquet file, or of several one after the other, of which no more are read than are asked for.

    Row groups are what is read at a time; the last ones are kept, for whoever goes through the rows in order.

    Args:
        files: with the same columns.

    Raises:
        ResultError: a file cannot be read.
    """

    def __init__(self, files: Sequence[Path]) -> None:
        self._groups: list[tuple[Path, int]] = []
        self._stamps: dict[Path, tuple[int, int]] = {}
        rows, self.names = [0], list[str]()
        for path in files:
            self._stamps[path] = _stamp(path)
            with _opened(path) as file:
                self.names = self.names or file.schema_arrow.names
                for k in range(file.metadata.num_row_groups):
                    self._groups.append((path, k))
                    rows.append(file.metadata.row_group(k).num_rows)
        self._edges: Int64[np.ndarray, " edge"] = np.cumsum(np.array(rows, dtype=np.int64))
        self._held: tuple[Any, Any] = (None, None)

    @property
    def n_groups(self) -> int:
        """Row groups of all files."""
        return len(self._groups)

    def __len__(self) -> int:
        return int(self._edges[-1])

    def read(self, names: Sequence[str], start: int = 0, stop: int | None = None) -> dict[str, np.ndarray]:
        """These columns of the rows from `start` up to `stop`."""
        stop = len(self) if stop is None else stop
        parts = [table.slice(a, b - a) for table, a, b in self._tables(names, start, stop)]
        found = {}
        for name in names:
            columns = [part.column(name).to_numpy() for part in parts]
            found[name] = np.concatenate(columns or [np.zeros(0)]) if len(columns) != 1 else columns[0]
        return found

    def frame(self, names: Sequence[str], start: int, stop: int) -> "pd.DataFrame":
        """The same as a table."""
        import pandas as pd
        import pyarrow

        parts = [table.slice(a, b - a) for table, a, b in self._tables(names, start, stop)]
        return pyarrow.concat_tables(parts).to_pandas() if parts else pd.DataFrame(columns=list(names))

    def _tables(self, names: Sequence[str], start: int, stop: int) -> Iterator[tuple[Any, int, int]]:
        """The row groups that hold these rows, each with the part of it that is meant."""
        first = int(np.searchsorted(self._edges, start, side="right")) - 1
        for k in range(first, len(self._groups)):
            low, high = int(self._edges[k]), int(self._edges[k + 1])
            if low >= stop:
                return
            yield self._group(k, tuple(names)), max(start, low) - low, min(stop, high) - low

    def _group(self, k: int, names: tuple[str, ...]) -> Any:
        if self._held[0] != (k, names):
            path, group = self._groups[k]
            if _stamp(path) != self._stamps[path]:
                raise ResultError(f"{path} has been replaced since it was opened: load the result again.")
            with _opened(path) as file:
                try:
                    self._held = (k, names), file.read_row_group(group, columns=list(names))
                except Exception as error:
                    raise ResultError(f"{path} is damaged: {error}.") from error
        return self._held[1]


def _stamp(path: Path) -> tuple[int, int]:
    """What changes with a file."""
    try:
        found = path.stat()
    except OSError as error:
        raise ResultError(f"{path} cannot be read ({error.strerror or error}).") from error
    return found.st_mtime_ns, found.st_size


def _opened(path: Path) -> Any:
    import pyarrow.parquet

    try:
        return pyarrow.parquet.ParquetFile(path)
    except Exception as error:  # pyarrow's own, and the system's
        raise ResultError(f"{path} cannot be read ({error}).") from error
