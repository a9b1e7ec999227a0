"""Code lengths of any number of samples: shard by shard, kept as they finish, and gone on with after a stop."""

import hashlib
import os
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np
from jaxtyping import Int64, Shaped, UInt64

from memorization import errors
from memorization.errors import InputError, ResultError, warn
from memorization.measure.batches import BatchSize
from memorization.measure.code_lengths import CodeLengths, measure
from memorization.measure.context import FirstToken
from memorization.measure.opening import OpenModel, open_model
from memorization.measure.shard_files import ShardRun
from memorization.measure.tokenizers import tokenizer_record
from memorization.measure.weights import weight_digests
from memorization.progress import Bar, progress_bar
from memorization.results import versions
from memorization.samples import Samples, SampleShards
from memorization.samples.disjoint import check_same_kind, overlap_keys
from memorization.samples.groups import check_apart
from memorization.samples.samples import fingerprint_of_ids, fingerprint_of_texts
from memorization.sharing.shard import Shard

__all__ = [
    "Beside",
    "Scan",
    "Scored",
    "check_apart_in_shards",
    "decided",
    "identity_of",
    "measure_share",
    "missing",
    "survey",
    "whole",
]

_ASKED = 64  # samples that decide what stands in front, evenly spread: as many as are asked of all at once
_WAIT_SECONDS = 1.0
Beside: TypeAlias = Callable[[OpenModel, CodeLengths, Samples], Mapping[str, Shaped[np.ndarray, " sample"]]]


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


@dataclass(frozen=True, slots=True)
class Scored:
    """How the samples are scored under one model.

    Attributes:
        role: of the model: "model", "target", "oracle".
        model: as `open_model` takes it.
        opening: the other arguments of `open_model`.
        settings: of code lengths of a few samples: what was decided for all of them.
        options: of `measure`.
        tokenize: samples in this model's tokens, without those that another model's tokenizer loses.
        beside: what else is asked of each sample while the model is open: columns by name, kept with its bits.
    """

    role: str
    model: Any
    opening: Mapping[str, Any]
    settings: Mapping[str, Any]
    options: Mapping[str, Any]
    tokenize: Callable[[Samples, OpenModel], Samples]
    beside: Beside | None = None


def decided(run: ShardRun, decide: Callable[[], Any]) -> Any:
    """What was decided for all samples by a few, once for a run; its warnings are given again when the run goes on."""
    found = run.known("decided.json")
    if found is None:
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            settings = decide()
        told = [(one.category.__name__, str(one.message)) for one in said]
        found = run.once("decided.json", {"settings": settings, "warnings": told})
    for kind, message in found["warnings"]:
        warn(message, getattr(errors, kind, UserWarning))
    return found["settings"]


def identity_of(models: Mapping[str, Any], scans: Sequence[Scan], how: Mapping[str, Any]) -> dict[str, Any]:
    """What determines the numbers of a run, by names that a message can use.

    Weights in files count by all that the files hold; those of a model in memory are compared when it is opened.
    """
    found: dict[str, Any] = {}
    for role, model in models.items():
        digests = weight_digests(model)
        named = isinstance(model, (str, os.PathLike))
        found[f"the {role}"] = digests or (str(model) if named else type(model).__name__)
    found |= {f"the {scan.name}": scan.digests for scan in scans}
    for name, value in how.items():
        options = value.record() if isinstance(value, BatchSize) else {name: value}
        found |= {option: one if one is None else str(one) for option, one in options.items()}
    used = versions()
    return found | {f"the version of {name}": used.get(name) for name in ("lm-memorization", "torch", "transformers")}


def missing(run: ShardRun, scans: Sequence[Scan], scored: Scored) -> list[tuple[str, int]]:
    """The shards that are not finished under one model: the set, and the number."""
    return [
        (scan.name, k)
        for scan in scans
        for k in range(len(scan.digests))
        if not run.is_done(f"{scan.name}/{scored.role}", k)
    ]


def measure_share(run: ShardRun, scans: Sequence[Scan], scored: Scored, share: Shard, *, progress: bool) -> None:
    """Measure a share of all shards under one model.

    Shards that are finished already are not measured again. Processes that share the folder share the work.

    Raises:
        ResultError: the model is another one than the finished shards were measured with.
    """
    own = set(share.of([(scan.name, k) for scan in scans for k in range(len(scan.digests))]))
    left = own & set(missing(run, scans, scored))
    if not left:
        return
    n_samples = {(scan.name, k): n for scan in scans for k, n in enumerate(scan.n_samples)}
    total = sum(n_samples[each] for each in own)
    with (
        open_model(scored.model, **scored.opening) as opened,
        progress_bar(total, scored.role, unit="sample", shown=progress, delay=1) as bar,
        run.kept(),
    ):
        _check_same_model(opened, scored)
        bar.update(total - sum(n_samples[each] for each in left))
        while _score_some(run, scans, scored, opened, own, bar):
            time.sleep(_WAIT_SECONDS)


def _score_some(
    run: ShardRun, scans: Sequence[Scan], scored: Scored, opened: OpenModel, own: set[tuple[str, int]], bar: Bar
) -> bool:
    """Measure each shard that nobody else is at; whether others are still at some."""
    claims, others = run.claims(), False
    said: set[type[Warning]] = set()
    for scan in scans:
        of = f"{scan.name}/{scored.role}"
        for k, shard in scan.checked():
            if (scan.name, k) not in own or run.is_done(of, k):
                continue
            with claims.hold(f"{of} {k}") as mine:
                if run.is_gone():  # another has put the result together
                    return False
                if not mine:
                    others = True
                elif not run.is_done(of, k):
                    in_tokens = scored.tokenize(shard, opened)
                    lengths = _measured(in_tokens, scored, opened, said)
                    beside = {} if scored.beside is None else scored.beside(opened, lengths, shard)
                    run.put(of, k, in_tokens, lengths, beside)
                    bar.update(len(shard))
    return others


def _measured(samples: Samples, scored: Scored, opened: OpenModel, said: set[type[Warning]]) -> CodeLengths:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        lengths = measure(
            opened,
            samples,
            FirstToken.from_record(scored.settings["first_token"]),
            uniform_vocab_size=scored.settings["uniform_vocab_size"],
            progress=False,
            **scored.options,
        )
    for one in caught:  # each kind once, not for every shard
        if one.category not in said:
            said.add(one.category)
            warn(str(one.message), one.category)
    return lengths


def _check_same_model(opened: OpenModel, scored: Scored) -> None:
    """Refuse another model, or another tokenizer, than the run was begun with."""
    settings, tokenizer = scored.settings, tokenizer_record(opened.tokenizer)
    others = []
    if settings["model"]["fingerprint"] != opened.record["fingerprint"]:
        others.append("other weights")
    if (settings["tokenizer"] or {}).get("vocab_sha256") != (tokenizer or {}).get("vocab_sha256"):
        others.append("another tokenizer")
    if others:
        raise ResultError(
            f"the {scored.role} ({opened.record['name']}) is not the model that the finished shards were measured "
            f"with: it has {' and '.join(others)}. Name another folder, or throw the run away with "
            "overwrite=True."
        )


def whole(run: ShardRun, scan: Scan, scored: Scored) -> CodeLengths:
    """The code lengths of all shards as one result."""
    of, n = f"{scan.name}/{scored.role}", len(scan.n_samples)
    records = run.records(of, n)
    parts = [one["samples"] for one in records]
    lossy = [row for one in parts for row in one["lossy_skipped"]]
    given = parts[0]["conditional"]
    ids = lambda: run.read_of(of, n, "read_ids")  # noqa: E731
    counted = (lambda: run.read_of(of, n, "counted")) if given else None
    blank = [row for one in parts for row in one["blank_skipped"]]
    record = {
        **parts[0],
        "n_samples": sum(one["n_samples"] for one in parts),
        "texts_sha256": scan.texts_sha256(lossy),
        "ids_sha256": fingerprint_of_ids(ids, counted, given and given["by"]),
        "n_blank_skipped": len(blank),
        "blank_skipped": blank,
        "lossy_skipped": lossy,
        "n_padding_removed": _sum([one["n_padding_removed"] for one in parts]),
    }
    if given:
        record["conditional"] = {
            "by": given["by"],
            "n_tokens_read": sum(one["conditional"]["n_tokens_read"] for one in parts),
            "n_samples_prompted": sum(one["conditional"]["n_samples_prompted"] for one in parts),
            "prompts": list(run.read_of(of, n, "prompt_key")),
        }
    passes = _joined_passes([one["passes"] for one in records])
    return run.lengths(of, n, {**scored.settings, **passes, "samples": record})


def _sum(numbers: list[int | None]) -> int | None:
    known = [one for one in numbers if one is not None]
    return sum(known) if known else None


def _joined_passes(passes: list[dict[str, Any]]) -> dict[str, Any]:
    kinds = ("any", "equal lengths", "one at a time")
    batches = [one["batches"] for one in passes]
    return {
        "batches": {name: sum(one[name] for one in batches) for name in batches[0]},
        "largest_batch": max(one["largest_batch"] for one in passes),
        "batching": max((one["batching"] for one in passes), key=kinds.index),
    }
