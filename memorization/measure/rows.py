"""`CodeLengths` by rows: those of a part of the samples, and their means by a column that was kept."""

import hashlib
import math
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeVar, cast

import numpy as np
from jaxtyping import Float64, Int64

from memorization.integers import edges_of
from memorization.results import About
from memorization.results.rows import Rows, column_of
from memorization.stats.means import mean_interval

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["TOKEN_FIELDS", "RowsOfLengths", "in_pieces", "part_of_record", "places_by", "sets_by"]

TOKEN_FIELDS = ("token_bits", "token_ids", "token_bytes", "token_greedy")  # of `CodeLengths`, with an entry a token

Lengths = TypeVar("Lengths", bound="RowsOfLengths")


class RowsOfLengths(Rows):
    """Parts of code lengths, and their means by a column."""

    __slots__ = ()

    bits: Float64[np.ndarray, " sample"]
    n_tokens: Int64[np.ndarray, " sample"]
    token_bits: Float64[np.ndarray, " token"]
    token_offsets: Int64[np.ndarray, " edge"]
    settings: dict[str, Any]
    about: About | None

    @property
    def index(self) -> Int64[np.ndarray, " sample"]:
        """Position of each sample in the input."""
        raise NotImplementedError

    def by(self, column: str) -> "pd.DataFrame":
        """Mean code lengths of the samples by a column that was kept, those with the fewest bits a token first.

        Args:
            column: kept by `read_samples(..., keep=[...])`.

        Returns:
            One row a value of the column, one of which may be missing: the value, n (samples), mean_bits (bits a
            sample), low and high (its 95 % interval, NaN for one sample), bits_per_token.

        Raises:
            InputError: no such column was kept.

        Examples:
            >>> from memorization import UniformModel, compress_bits, read_samples
            >>> rows = [{"input_ids": [1, 2], "source": "a"}, {"input_ids": [3], "source": "b"}]
            >>> lengths = compress_bits(UniformModel(256), read_samples(rows, keep=["source"]))
            >>> lengths.by("source")[["source", "n"]].values.tolist()
            [['a', 1], ['b', 1]]
        """
        import pandas as pd

        rows = []
        for value, places in places_by(self, None, column):
            low, high = mean_interval(self.bits[places])
            n_tokens = int(self.n_tokens[places].sum())
            rows.append(
                {
                    column: value,
                    "n": len(places),
                    "mean_bits": float(self.bits[places].mean()),
                    "low": low,
                    "high": high,
                    "bits_per_token": float(self.bits[places].sum()) / n_tokens if n_tokens else math.nan,
                }
            )
        return pd.DataFrame(rows).sort_values("bits_per_token", kind="stable", ignore_index=True)

    def pieces(self: Lengths) -> Iterator[Lengths]:
        """The samples in consecutive parts of about 65,536 tokens, whose tokens are in memory one part at a time.

        Code lengths that are in memory already are one piece.

        Examples:
            >>> from memorization import UniformModel, compress_bits
            >>> [len(piece) for piece in compress_bits(UniformModel(256), [[1, 2, 3], [4]]).pieces()]
            [2]
        """
        yield self

    def _ranges(self) -> Iterator[tuple[int, int]]:
        """First and last + 1 sample of each of the `pieces`."""
        yield 0, len(self)

    def _window(self: Lengths, low: int, high: int) -> Lengths:
        """The samples from place `low` up to `high`, with the record of all, for what needs their numbers alone."""
        if (low, high) == (0, len(self)):
            return self
        edges, record = self.token_offsets[low : high + 1], {**self.settings["samples"], "rows": self.index[low:high]}
        changed: dict[str, Any] = {"settings": {**self.settings, "samples": record}, "token_offsets": edges - edges[0]}
        changed |= {name: getattr(self, name)[low:high] for name in ("bits", "ideal_bits", "n_tokens", "n_bytes")}
        for name in TOKEN_FIELDS:
            values = getattr(self, name)
            changed[name] = None if values is None else values[edges[0] : edges[-1]]
        return self._changed(**changed, about=self._about_at(range(low, high)))

    def _about_at(self, places: range | Int64[np.ndarray, " some"]) -> About | None:
        """What stands beside the samples at these places."""
        return None if self.about is None else self.about.take(places)

    def _of_places(self: Lengths, places: Int64[np.ndarray, " kept"]) -> Lengths:
        n_tokens = self.n_tokens[places]
        edges = edges_of(n_tokens)
        changed: dict[str, Any] = {"token_offsets": edges}
        changed |= {name: getattr(self, name)[places] for name in ("bits", "ideal_bits", "n_tokens", "n_bytes")}
        record = part_of_record(self.settings["samples"], places, self.index)
        changed["settings"] = {**self.settings, "samples": record}
        return self._changed(**changed, **self._beside(places, edges))

    def _beside(self, places: Int64[np.ndarray, " kept"], edges: Int64[np.ndarray, " edge"]) -> dict[str, Any]:
        """Of these samples, whose tokens end at these edges, what has an entry a token; and what stands beside them."""
        tokens = np.repeat(self.token_offsets[:-1][places] - edges[:-1], np.diff(edges)) + np.arange(edges[-1])
        found: dict[str, Any] = {"about": None if self.about is None else self.about.take(places)}
        for name in TOKEN_FIELDS:
            values = getattr(self, name)
            found[name] = None if values is None else values[tokens]
        return found

    def _changed(self: Lengths, **fields: Any) -> Lengths:
        """The same with other fields."""
        return cast(Lengths, replace(cast(Any, self), **fields))


def in_pieces(*sets: Lengths) -> Iterator[tuple[slice, tuple[Lengths, ...]]]:
    """The same samples under several models, some consecutive ones at a time, so that no more of their tokens is read.

    Returns:
        Which samples, and of each set these alone.
    """
    for low, high in max((list(one._ranges()) for one in sets), key=len):
        yield slice(low, high), tuple(one._window(low, high) for one in sets)


def places_by(
    lengths: RowsOfLengths, groups: tuple[str, ...] | None, name: str
) -> list[tuple[Any, Int64[np.ndarray, " member"]]]:
    """`sets_by` of a kept column, or of the documents as `group`.

    Raises:
        InputError: no column of this name was kept.
    """
    found: dict[Any, list[np.ndarray]] = {}
    for low, high in lengths._row_ranges():
        about = lengths._about_at(range(low, high))
        for value, places in sets_by(column_of(about, None if groups is None else groups[low:high], name)):
            found.setdefault(value, []).append(low + places)
    return [(value, np.concatenate(parts)) for value, parts in found.items()]


def sets_by(cells: tuple[Any, ...]) -> list[tuple[Any, Int64[np.ndarray, " member"]]]:
    """Where each value of a column stands, in the order in which they come first.

    Examples:
        >>> [(value, places.tolist()) for value, places in sets_by(("a", None, "a"))]
        [('a', [0, 2]), (None, [1])]
    """
    places: dict[Any, list[int]] = {}
    for place, cell in enumerate(cells):
        places.setdefault(cell, []).append(place)
    return [(value, np.array(found, dtype=np.int64)) for value, found in places.items()]


def part_of_record(
    record: Mapping[str, Any], places: Int64[np.ndarray, " kept"], index: Int64[np.ndarray, " sample"]
) -> dict[str, Any]:
    """The record of a part of the samples: which rows of the input they are, and of what they are a part."""
    whole = record.get("part_of") or {name: record[name] for name in ("n_samples", "texts_sha256", "ids_sha256")}
    rows = index[places]
    part: dict[str, Any] = {
        **record,
        "n_samples": len(places),
        "blank_skipped": [],
        "n_blank_skipped": 0,
        "lossy_skipped": [],
        "n_padding_removed": None,
        "rows": rows.tolist(),
        "part_of": whole,
    }
    for name in ("texts_sha256", "ids_sha256"):
        told = None if whole[name] is None else f"{whole[name]}, rows {rows.tolist()}"
        part[name] = None if told is None else hashlib.sha256(told.encode()).hexdigest()
    given = record.get("conditional")
    if given is not None:
        all_prompted = given["n_samples_prompted"] == record["n_samples"]
        part["conditional"] = {
            **given,
            "n_tokens_read": None,  # not known of each
            "n_samples_prompted": len(places) if all_prompted else min(given["n_samples_prompted"], len(places) - 1),
            "prompts": [given["prompts"][int(place)] for place in places],
        }
    return part
