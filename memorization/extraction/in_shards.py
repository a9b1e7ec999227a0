"""Extraction from samples in shards: what the models give back of each, kept as it comes."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from jaxtyping import Int64, UInt64

from memorization.errors import InputError
from memorization.extraction.decoding import Decoding
from memorization.extraction.passes import Read, TokensGiven, read_as, tokenized, tokens_given, without_short
from memorization.extraction.rates import SETS
from memorization.measure.batches import BatchSize
from memorization.measure.context import FirstToken
from memorization.measure.in_shards import check_same_model, each_kind_once
from memorization.measure.opening import OpenModel
from memorization.measure.scans import Scan
from memorization.measure.shard_files import ShardRun
from memorization.samples import Samples

__all__ = ["Asking", "Given", "given_of"]

_NAMES = {"samples": "members", "control": "heldout"}  # of a set of samples here, by its name among shards


@dataclass(frozen=True, slots=True, eq=False)
class Given:
    """What a model gave back of all shards of a set.

    Attributes:
        tokens: of each token of the samples that are long enough.
        keys: a number for the tokens of each of these samples, the same for equal ones.
    """

    tokens: TokensGiven
    keys: UInt64[np.ndarray, " sample"]


@dataclass(frozen=True, slots=True)
class Asking:
    """How a model is asked what it gives back.

    Attributes:
        role: of the model: "target", "oracle".
        model: as `open_model` takes it.
        opening: the other arguments of `open_model`.
        settings: its record, its tokenizer's, and the first token that was decided.
        least: tokens of a sample that is long enough.
        enough: as `read_as` takes it.
        decoding: how it is asked.
        batches: samples and tokens a forward pass.
        on_lossy_text: "raise" or "skip".
    """

    role: str
    model: Any
    opening: Mapping[str, Any]
    settings: Mapping[str, Any]
    least: int
    enough: int | None
    decoding: Decoding
    batches: BatchSize
    on_lossy_text: Literal["raise", "skip"]

    def check(self, opened: OpenModel) -> None:
        """Refuse another model, or another tokenizer, than the run was begun with."""
        check_same_model(self.role, opened, self.settings)

    def measure(
        self, run: ShardRun, of: str, k: int, shard: Samples, opened: OpenModel, said: set[type[Warning]]
    ) -> None:
        """Ask for a shard, and keep what came."""
        import pandas as pd

        which = _NAMES[of.split("/")[0]]
        first = FirstToken.from_record(self.settings["first_token"])
        with each_kind_once(said):
            samples = tokenized(opened, shard, first, self.on_lossy_text, which)
            part = read_as(opened, samples, first, which, self.enough)
            n_tokens = np.array([len(ids) for ids in part.sequences.coded])
            part = without_short(part, part.samples.index[n_tokens < self.least].tolist())
            given = TokensGiven(np.zeros(0, dtype=bool), np.zeros(0))
            if len(part.samples.index):
                given = tokens_given(opened, part, which, self.decoding, self.batches, False)
        tables = {
            "samples": pd.DataFrame({"sample": part.samples.index, "key": _keys(part)}),
            "tokens": pd.DataFrame({"correct": given.correct, "bits": given.bits}),
        }
        run.put_tables(of, k, tables, {})

    def whole(self, run: ShardRun, scan: Scan) -> Given:
        """What was given back of all shards."""
        of, n = f"{scan.name}/{self.role}", len(scan.digests)
        tokens = run.columns(of, n, "tokens", ["correct", "bits"])
        keys = run.columns(of, n, "samples", ["key"])["key"]
        given = TokensGiven(tokens["correct"].astype(bool), tokens["bits"].astype(np.float64))
        return Given(given, keys.astype(np.uint64))


def given_of(found: Given, part: Read, which: str, model: str) -> TokensGiven:
    """What was given back of these samples, after checking that they are the ones that were asked.

    Raises:
        InputError: a model has other tokens.
    """
    if not np.array_equal(found.keys, _keys(part)):
        raise InputError(
            f"the oracle {model} cuts the {SETS[which]} into other tokens than the target, or takes other lengths: a "
            "suffix is then another one. Give an oracle with the target's tokenizer."
        )
    return found.tokens


def _keys(part: Read) -> UInt64[np.ndarray, " sample"]:
    coded: list[Int64[np.ndarray, " _"]] = part.sequences.coded
    digests = (hashlib.blake2b(np.asarray(ids, dtype=np.int64).tobytes(), digest_size=8).digest() for ids in coded)
    return np.frombuffer(b"".join(digests), dtype="<u8").astype(np.uint64)
