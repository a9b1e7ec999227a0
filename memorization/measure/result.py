"""The result of `compress_bits`: code lengths of samples, and of each token."""

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from jaxtyping import Bool, Float64, Int64

from memorization.integers import edges_of
from memorization.measure.byte_bits import BYTE_COLUMNS, BitsOfBytes, saved_bytes
from memorization.measure.rows import RowsOfLengths
from memorization.results import (
    About,
    Saved,
    counted,
    describe_first_token,
    describe_model,
    with_about,
)
from memorization.samples import left_out, positions_measured

if TYPE_CHECKING:
    import pandas as pd


__all__ = ["CodeLengths"]


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
        return positions_measured(len(self), self.settings["samples"])

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

    def _tables(self) -> "dict[str, pd.DataFrame]":
        return {"samples": self.to_pandas(), "tokens": self.tokens_to_pandas()}

    def _facts(self) -> dict[str, Any]:
        return self.settings

    @classmethod
    def _from_saved(cls, saved: Saved) -> "CodeLengths":
        samples = saved.table("samples", ("bits", "ideal_bits", "n_tokens", "n_bytes"))
        tokens = saved.table("tokens", ("token_id", "bits"), optional=(*BYTE_COLUMNS, "greedy"))
        n_tokens = samples["n_tokens"].to_numpy(np.int64)
        if int(n_tokens.sum()) != len(tokens):
            raise saved.damaged(f"its samples have {n_tokens.sum()} tokens, tokens.parquet holds {len(tokens)}")
        return cls(
            bits=samples["bits"].to_numpy(np.float64),
            ideal_bits=samples["ideal_bits"].to_numpy(np.float64),
            n_tokens=n_tokens,
            n_bytes=samples["n_bytes"].to_numpy(np.int64),
            token_bits=tokens["bits"].to_numpy(np.float64),
            token_offsets=edges_of(n_tokens),
            settings=saved.need("first_token", "samples", "model"),
            token_ids=tokens["token_id"].to_numpy(np.int64),
            token_bytes=saved_bytes(tokens),
            token_greedy=tokens["greedy"].to_numpy(bool) if "greedy" in tokens else None,
            about=saved.about("samples"),
        )

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
