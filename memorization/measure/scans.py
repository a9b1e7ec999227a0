"""Sets of samples in shards, read through once: what is in each, and that none is on both sides."""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from jaxtyping import Int64, UInt64

from memorization.errors import InputError
from memorization.measure.code_lengths import CodeLengths
from memorization.samples import Samples, SampleShards
from memorization.samples.disjoint import check_same_kind, overlap_keys
from memorization.samples.groups import check_apart
from memorization.samples.samples import fingerprint_of_texts

__all__ = ["Scan", "check_apart_in_shards", "survey"]

_ASKED = 64  # samples that decide what stands in front, evenly spread: as many as are asked of all at once


@dataclass(slots=True, eq=False)
class Scan:
    """One set of samples in shards, read through once.

    Attributes:
        name: "samples" or "control".
        shards: to be read again.
        digests: of what each shard holds, so that a change is seen and named.
        n_samples: in each shard.
        keys: a number for each sample, the same for equal ones.
        groups: the document of each sample; None where nothing was said of documents.
    """

    name: str
    shards: SampleShards
    digests: list[str] = field(default_factory=list)
    n_samples: list[int] = field(default_factory=list)
    keys: UInt64[np.ndarray, " sample"] = field(default_factory=lambda: np.zeros(0, np.uint64))
    groups: tuple[str, ...] | None = None

    def checked(self) -> Iterator[tuple[int, Samples]]:
        """The shards with their numbers, each compared with what it was.

        Raises:
            InputError: the data set has changed meanwhile.
        """
        k = -1
        for k, shard in enumerate(self.shards):
            if k >= len(self.digests) or _digest(shard) != self.digests[k]:
                raise self._changed(f"from row {shard.index[0]} on")
            yield k, shard
        if k + 1 < len(self.digests):
            raise self._changed(f"it ends after shard {k}")

    def _changed(self, where: str) -> InputError:
        return InputError(
            f"the {self.name} have changed while they were read, {where}: {self.shards.source} is not what it was. "
            "Measure a copy that nobody writes to."
        )

    def spread(self, most: int = _ASKED) -> Samples:
        """A few samples, evenly spread over all."""
        n = sum(self.n_samples)
        places = np.unique(np.linspace(0, n - 1, min(most, n)).round().astype(np.int64))
        return _gathered(self, places)

    def at_once(self) -> Samples:
        """All samples, in memory."""
        return Samples.joined([shard for _, shard in self.checked()])

    def documents(self, lengths: CodeLengths) -> tuple[str, ...] | None:
        """The document of each sample that was measured; None where nothing was said of documents."""
        if self.groups is None or len(self.groups) == len(lengths):
            return self.groups
        rows = np.concatenate([shard.index for _, shard in self.checked()])
        return tuple(np.asarray(self.groups)[np.isin(rows, lengths.index)].tolist())

    def texts_sha256(self, lossy: Sequence[int]) -> str | None:
        """Fingerprint of the texts, without those at these positions."""
        return fingerprint_of_texts(shard.leave_out_of_part(lossy) for _, shard in self.checked())


def survey(name: str, shards: SampleShards) -> Scan:
    """Read a set of samples once: how many there are, and what tells them from others.

    Raises:
        InputError: what cannot be read; two rows with one id.
    """
    scan, keys, ids, groups = Scan(name, shards), [], [], list[str]()
    for shard in shards:
        scan.digests.append(_digest(shard))
        scan.n_samples.append(len(shard))
        keys.append(_numbers(overlap_keys(shard)))
        ids.append(_numbers(shard.row_ids or ()))
        groups += shard.groups or ()
    scan.keys = np.concatenate(keys)
    if len(found := np.concatenate(ids)):
        _check_ids(scan, found)
    if groups:
        scan.groups = tuple(groups)
    return scan


def check_apart_in_shards(samples: Scan, control: Scan) -> None:
    """Refuse a sample, or document, that is on both sides, and texts against ids.

    Raises:
        InputError: naming the first.
    """
    check_same_kind(*(next(iter(scan.shards)) for scan in (samples, control)))
    if samples.groups is not None and control.groups is not None:
        check_apart(samples.groups, control.groups)
    both = np.isin(samples.keys, control.keys)
    if both.any():
        ours = _gathered(samples, np.flatnonzero(both)[:1])
        theirs = _gathered(control, np.flatnonzero(control.keys == samples.keys[both][0])[:1])
        raise InputError(
            f"sample {ours.index[0]} is also control sample {theirs.index[0]} ({int(both.sum())} of {len(both)} "
            "samples are in both). Leave such samples out of both sets: the model has seen them, whatever they are "
            "called."
        )


def _digest(shard: Samples) -> str:
    beside = f"{shard.row_ids} {shard.groups} {shard.kept}"
    told = f"{shard.index.tobytes().hex()} {shard.texts_sha256} {shard.ids_sha256} {beside}"
    return hashlib.sha256(told.encode("utf-8", "backslashreplace")).hexdigest()


def _numbers(values: Sequence[Any]) -> UInt64[np.ndarray, " value"]:
    """A number of 64 bits for each value, the same for equal ones; for others, but for one pair in 10^19."""
    digests = (hashlib.blake2b(repr(value).encode("utf-8", "backslashreplace"), digest_size=8) for value in values)
    return np.frombuffer(b"".join(one.digest() for one in digests), dtype="<u8").astype(np.uint64)


def _check_ids(scan: Scan, ids: UInt64[np.ndarray, " sample"]) -> None:
    _, first, counts = np.unique(ids, return_index=True, return_counts=True)
    if (counts > 1).any():
        places = np.flatnonzero(ids == ids[first[counts > 1].min()])[:2]
        rows = [_gathered(scan, places[k : k + 1]) for k in (0, 1)]
        raise InputError(
            f"rows {rows[0].index[0]} and {rows[1].index[0]} have the same id, {(rows[0].row_ids or ('',))[0]!r} "
            f"({int(counts[counts > 1].sum())} of {len(ids)} rows share theirs): tables that are joined by it would "
            "mix them up. Make the ids unique, or leave id_column out."
        )


def _gathered(scan: Scan, places: Int64[np.ndarray, " some"]) -> Samples:
    """The samples at these places, in memory."""
    parts, begin = [], 0
    for _, shard in scan.checked():
        own = places[(begin <= places) & (places < begin + len(shard))] - begin
        if len(own):
            parts.append(shard.some(own.tolist()))
        begin += len(shard)
    return Samples.joined(parts)
