"""The result of `compress_bits`: code lengths of samples, and of each token."""

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from jaxtyping import Bool, Float64, Int64

from memorization.integers import edges_of
from memorization.measure.byte_bits import BYTE_COLUMNS, BitsOfBytes
from memorization.measure.rows import TOKEN_FIELDS, RowsOfLengths
from memorization.results import (
    About,
    Saved,
    about_of,
    counted,
    describe_first_token,
    describe_model,
    with_about,
)
from memorization.results.chunks import Chunks
from memorization.results.column_files import ColumnFiles
from memorization.samples import left_out, positions_measured

if TYPE_CHECKING:
    import pandas as pd


__all__ = ["IN_MEMORY", "MOST_TOKENS", "CodeLengths", "StoredLengths"]

MOST_TOKENS = 1 << 22  # that code lengths hold in memory, at 33 bytes each
_TOKENS_A_PIECE = 1 << 16
_COLUMNS = {
    "token_bits": ("bits",),
    "token_ids": ("token_id",),
    "token_bytes": BYTE_COLUMNS,
    "token_greedy": ("greedy",),
}
_ROWS = 1 << 14  # of a table of samples that are written at a time
IN_MEMORY = ("bits", "ideal_bits", "n_tokens", "n_bytes", "token_offsets", "settings")  # of `StoredLengths`


@dataclass(frozen=True, slots=True, eq=False)
class CodeLengths(BitsOfBytes, RowsOfLengths):
    """Code lengths of samples under one model, in bits, in the order of the input.

    A saved folder holds samples.parquet (a row a sample), tokens.parquet (a row a coded token) and settings.json.

    Attributes:
        bits: what the entropy coder spends on each sample, float64.
        ideal_bits: -log2 p of each sample, float64.
        n_tokens: coded tokens of each sample, int64. A context token is not coded.
        n_bytes: UTF-8 bytes of each text, int64; -1 where samples were ids.
        token_bits: ideal bits of every coded token, float64, all samples one after the other.
        token_offsets: sample i owns token_bits[token_offsets[i]:token_offsets[i + 1]], int64 (n_samples + 1).
        settings: everything that was decided, by the caller or for the caller; fingerprints and versions.
        token_ids: the coded tokens, int64, laid out like token_bits.
        token_bytes: first byte of each in its text and byte after its last, int64; None of ids. See `bits_by_byte`.
        token_greedy: whether each is what greedy decoding gives after the true tokens before it, bool; False of a first
            token that the model was not asked for. None where it is not known (saved by an earlier version).
        about: how each sample begins, its id and the columns that were kept; None of what an earlier version saved.

    Examples:
        >>> from memorization import UniformModel, compress_bits
        >>> lengths = compress_bits(UniformModel(256), [[1, 2, 3], [4]])
        >>> lengths.ideal_bits.tolist(), lengths.bits_per_token > 7.9
        ([24.0, 8.0], True)
    """

    bits: Float64[np.ndarray, " sample"]
    ideal_bits: Float64[np.ndarray, " sample"]
    n_tokens: Int64[np.ndarray, " sample"]
    n_bytes: Int64[np.ndarray, " sample"]
    token_bits: Float64[np.ndarray, " token"]
    token_offsets: Int64[np.ndarray, " edge"]
    settings: dict[str, Any]
    token_ids: Int64[np.ndarray, " token"]
    token_bytes: Int64[np.ndarray, "token 2"] | None = None
    token_greedy: Bool[np.ndarray, " token"] | None = None
    about: About | None = None

    @property
    def total_bits(self) -> float:
        """Coded bits of all samples together."""
        return float(self.bits.sum())

    @property
    def bits_per_token(self) -> float:
        """Coded bits per coded token."""
        return self.total_bits / int(self.n_tokens.sum())

    @property
    def bits_per_byte(self) -> float:
        """Coded bits per UTF-8 byte; NaN where samples were ids, or where the first token was left out of the code."""
        if self.settings["first_token"]["rule"] == "skip" or (self.n_bytes < 0).any():
            return math.nan
        return self.total_bits / int(self.n_bytes.sum())

    @property
    def index(self) -> Int64[np.ndarray, " sample"]:
        """Position of each sample in the input, which differs from its place here where samples were skipped."""
        return self._once("index", lambda: positions_measured(len(self), self.settings["samples"]))

    def to_pandas(self) -> "pd.DataFrame":
        """One row a sample: sample (its position in the input), bits, ideal_bits, n_tokens, n_bytes, preview.

        And id behind sample, and the columns that were kept at the end, where `read_samples` was told of them.
        """
        import pandas as pd

        columns = {"bits": self.bits, "ideal_bits": self.ideal_bits, "n_tokens": self.n_tokens, "n_bytes": self.n_bytes}
        return with_about(pd.DataFrame({"sample": self.index, **columns}), self.about)

    def tokens_to_pandas(self) -> "pd.DataFrame":
        """One row a coded token: sample, position (among its coded tokens), token_id, bits, greedy; of texts bytes."""
        import pandas as pd

        sample = np.repeat(self.index, self.n_tokens)
        position = np.arange(len(sample)) - np.repeat(self.token_offsets[:-1], self.n_tokens)
        columns = {"sample": sample, "position": position, "token_id": self.token_ids, "bits": self.token_bits}
        greedy = {} if self.token_greedy is None else {"greedy": self.token_greedy}
        return pd.DataFrame(columns | greedy | self._byte_columns())

    _row_tables: ClassVar[tuple[str, ...]] = ("samples",)

    def _tables(self) -> "dict[str, pd.DataFrame | Chunks]":
        return {"samples": self.to_pandas(), "tokens": self.tokens_to_pandas()}

    def _facts(self) -> dict[str, Any]:
        return self.settings

    @classmethod
    def _from_saved(cls, saved: Saved) -> "CodeLengths":
        samples = saved.table("samples", ("bits", "ideal_bits", "n_tokens", "n_bytes"))
        tokens = saved.columns("tokens")
        n_tokens = samples["n_tokens"].to_numpy(np.int64)
        if int(n_tokens.sum()) != len(tokens):
            raise saved.damaged(f"its samples have {n_tokens.sum()} tokens, tokens.parquet holds {len(tokens)}")
        known = {
            "bits": samples["bits"].to_numpy(np.float64),
            "ideal_bits": samples["ideal_bits"].to_numpy(np.float64),
            "n_tokens": n_tokens,
            "n_bytes": samples["n_bytes"].to_numpy(np.int64),
            "token_offsets": edges_of(n_tokens),
            "settings": saved.need("first_token", "samples", "model"),
        }
        beside = saved.columns("samples")
        stored = StoredLengths(tokens, lambda low, high: about_of(beside, low, high), known)
        in_pieces = tokens.n_groups > 1  # what was in files when it was saved stays there
        return stored if in_pieces or len(tokens) > MOST_TOKENS else stored.in_memory()

    def __len__(self) -> int:
        return len(self.bits)

    def __repr__(self) -> str:
        n_bytes = f", {self.n_bytes.sum():,} bytes" if (self.n_bytes >= 0).all() else ""
        per_byte = "" if math.isnan(self.bits_per_byte) else f", {self.bits_per_byte:.4g} a byte"
        lines = [
            f"CodeLengths of {counted(len(self), 'sample')}, {counted(int(self.n_tokens.sum()), 'token')}{n_bytes}",
            f"  coded        {self.total_bits:,.2f} bits: {self.bits_per_token:.4g} a token{per_byte}",
            f"  ideal        {self.ideal_bits.sum():,.2f} bits (-log2 p)",
            f"  first token  {describe_first_token(self.settings['first_token'], self.settings['samples'])}",
            f"  model        {describe_model(self.settings['model'])}",
            *left_out({"samples": self.settings["samples"]}),
        ]
        return "\n".join(lines)


class StoredLengths(CodeLengths):
    """`CodeLengths` whose tokens are in files: the same numbers by the same names, read when they are asked for.

    A field with an entry a token is read whole, each time. `pieces` goes through them in order; parts and rows read
    their own alone.

    Args:
        tokens: the columns of tokens.parquet.
        about: reads what stands beside the samples.
        known: the other fields of `CodeLengths`, by name.
    """

    __slots__ = ("_about", "_tokens")

    _about: "Callable[[int, int], About | None]"
    _tokens: ColumnFiles

    def __init__(
        self,
        tokens: ColumnFiles,
        about: "Callable[[int, int], About | None]",
        known: Mapping[str, Any],
    ) -> None:
        object.__setattr__(self, "_tokens", tokens)
        object.__setattr__(self, "_about", about)
        for name in IN_MEMORY:
            value = known[name]
            if isinstance(value, np.ndarray):
                value = value.view()
                value.flags.writeable = False
            object.__setattr__(self, name, value)

    @property
    def token_bits(self) -> Float64[np.ndarray, " token"]:  # type: ignore[override]
        """Ideal bits of every coded token."""
        return self._read("token_bits")

    @property
    def token_ids(self) -> Int64[np.ndarray, " token"]:
        """The coded tokens."""
        return self._read("token_ids")

    @property
    def token_bytes(self) -> Int64[np.ndarray, "token 2"] | None:  # type: ignore[override]
        """First byte of each in its text and byte after its last."""
        return self._read("token_bytes")

    @property
    def token_greedy(self) -> Bool[np.ndarray, " token"] | None:
        """Whether each is what greedy decoding gives."""
        return self._read("token_greedy")

    @property
    def about(self) -> About | None:  # type: ignore[override]
        """What stands beside all samples."""
        return self._about(0, len(self))

    def in_memory(self) -> CodeLengths:
        """The same with all tokens in memory."""
        return CodeLengths(**{one.name: getattr(self, one.name) for one in fields(self)})

    def pieces(self) -> Iterator[CodeLengths]:  # type: ignore[override]
        """The samples in consecutive parts, whose tokens are in memory one part at a time."""
        return (self._of_places(np.arange(*ends)) for ends in self._ranges())

    def _ranges(self) -> Iterator[tuple[int, int]]:
        edges, low = self.token_offsets, 0
        while low < len(self):
            limit = int(edges[low]) + _TOKENS_A_PIECE
            high = max(low + 1, int(np.searchsorted(edges, limit, side="right")) - 1)
            yield low, high
            low = high

    def _window(self, low: int, high: int) -> CodeLengths:  # type: ignore[override]
        return _Window(self, low, high)

    def _of_places(self, places: Int64[np.ndarray, " kept"]) -> CodeLengths:  # type: ignore[override]
        order = np.argsort(places, kind="stable")
        found = super()._of_places(places[order])
        in_order = bool((np.diff(order) == 1).all())
        return found if in_order else found._of_places(np.argsort(order, kind="stable"))

    def _beside(self, places: Int64[np.ndarray, " kept"], edges: Int64[np.ndarray, " edge"]) -> dict[str, Any]:
        """The same of samples in their order: each stretch of them is read whole, and cut."""
        parts = [
            self._cut(places[(low <= places) & (places < high)], low, high) for low, high in self._stretches(places)
        ]
        abouts = [part.pop("about") for part in parts]
        about = None if None in abouts else About.joined(abouts, [len(one) for one in abouts])
        if len(parts) == 1:
            return {"about": about, **parts[0]}
        joined = {name: [part[name] for part in parts] for name in TOKEN_FIELDS}
        return {"about": about} | {
            name: None if values[0] is None else np.concatenate(values) for name, values in joined.items()
        }

    def _cut(self, places: Int64[np.ndarray, " kept"], low: int, high: int) -> dict[str, Any]:
        fields = {name: self._read(name, low, high) for name in TOKEN_FIELDS}
        about = self._about(low, high)
        if high - low == len(places):
            return {"about": about, **fields}
        starts = self.token_offsets[places] - self.token_offsets[low]
        edges = edges_of(self.n_tokens[places])
        tokens = np.repeat(starts - edges[:-1], np.diff(edges)) + np.arange(edges[-1])
        cut = {name: None if values is None else values[tokens] for name, values in fields.items()}
        return {"about": None if about is None else about.take(places - low), **cut}

    def _stretches(self, places: Int64[np.ndarray, " kept"]) -> Iterator[tuple[int, int]]:
        """First and last + 1 sample of each stretch with some of these places that is read at once."""
        ends, k = self.token_offsets[places + 1], 0
        while k < len(places):
            limit = int(self.token_offsets[places[k]]) + _TOKENS_A_PIECE
            after = max(k + 1, int(np.searchsorted(ends, limit, side="right")))
            yield int(places[k]), int(places[after - 1]) + 1
            k = after

    def _read(self, field: str, low: int = 0, high: int | None = None) -> Any:
        """A field of the tokens of the samples from `low` up to `high`."""
        names = _COLUMNS[field]
        if not set(names) <= set(self._tokens.names):
            return None
        start, stop = int(self.token_offsets[low]), int(self.token_offsets[len(self) if high is None else high])
        found = self._tokens.read(names, start, stop)
        return found[names[0]] if len(names) == 1 else np.stack([found[name] for name in names], axis=1)

    def _changed(self, **changed: Any) -> CodeLengths:  # type: ignore[override]
        if not {*TOKEN_FIELDS} & {*changed}:
            about, known = self._about, {name: getattr(self, name) for name in IN_MEMORY}
            if "about" in changed:
                whole = changed.pop("about")
                about = lambda low, high: None if whole is None else whole.take(range(low, high))  # noqa: E731
            return StoredLengths(self._tokens, about, known | changed)
        names = [one.name for one in fields(self) if one.name not in changed]
        return CodeLengths(**{name: getattr(self, name) for name in names}, **changed)

    def _tables(self) -> "dict[str, pd.DataFrame | Chunks]":
        return {
            "samples": self._table(),
            "tokens": Chunks(lambda: (self._window(*ends).tokens_to_pandas() for ends in self._ranges()), alike=True),
        }

    @property
    def _in_files(self) -> bool:
        return True

    def _row_ranges(self) -> list[tuple[int, int]]:
        return [(low, min(low + _ROWS, len(self))) for low in range(0, len(self), _ROWS)]

    def _about_at(self, places: range | Int64[np.ndarray, " some"]) -> About | None:
        if isinstance(places, range):
            return self._about(places.start, places.stop)
        order, parts = np.sort(places), list[About | None]()
        for low, high in self._row_ranges():
            own = order[(low <= order) & (order < high)]
            found = self._about(int(own[0]), int(own[-1]) + 1) if len(own) else About(())
            parts.append(None if found is None else found.take(own - own[:1]))
        if None in parts:
            return None
        about = About.joined(parts, [len(part) for part in parts if part is not None])
        return None if about is None else about.take(np.argsort(np.argsort(places, kind="stable"), kind="stable"))

    def _rows(self, low: int, high: int) -> "pd.DataFrame":
        """These rows of `to_pandas`."""
        import pandas as pd

        names = ("bits", "ideal_bits", "n_tokens", "n_bytes")
        columns = {"sample": self.index[low:high]} | {name: getattr(self, name)[low:high] for name in names}
        return with_about(pd.DataFrame(columns), self._about(low, high))


class _Window(StoredLengths):
    """Some consecutive samples, with the record of all: a field of their tokens is read once, when it is asked for."""

    __slots__ = ("_low", "_whole")

    _low: int
    _whole: StoredLengths

    def __init__(self, whole: StoredLengths, low: int, high: int) -> None:
        edges, settings = whole.token_offsets[low : high + 1], whole.settings
        known = {name: getattr(whole, name)[low:high] for name in ("bits", "ideal_bits", "n_tokens", "n_bytes")}
        known["settings"] = {**settings, "samples": {**settings["samples"], "rows": whole.index[low:high]}}
        known["token_offsets"] = edges - edges[0]
        about = whole._about
        super().__init__(whole._tokens, lambda first, end: about(low + first, low + end), known)
        object.__setattr__(self, "_low", low)
        object.__setattr__(self, "_whole", whole)

    def _read(self, field: str, low: int = 0, high: int | None = None) -> Any:
        if (low, high) != (0, None):
            return self._whole._read(field, self._low + low, self._low + (len(self) if high is None else high))
        return self._once(field, lambda: self._whole._read(field, self._low, self._low + len(self)))
