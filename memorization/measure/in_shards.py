"""Code lengths of any number of samples: shard by shard, kept as they finish, and gone on with after a stop."""

import os
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias, runtime_checkable

import numpy as np
from jaxtyping import Shaped

from memorization import errors
from memorization.errors import ResultError, warn
from memorization.measure.batches import BatchSize
from memorization.measure.code_lengths import CodeLengths, measure
from memorization.measure.context import FirstToken
from memorization.measure.opening import OpenModel, open_model
from memorization.measure.scans import Scan
from memorization.measure.shard_files import ShardRun
from memorization.measure.tokenizers import tokenizer_record
from memorization.measure.weights import weight_digests
from memorization.progress import Bar, progress_bar
from memorization.results import versions
from memorization.samples import Samples
from memorization.samples.samples import fingerprint_of_ids
from memorization.sharing.shard import Shard

__all__ = [
    "Beside",
    "Scored",
    "Scoring",
    "check_same_model",
    "decided",
    "each_kind_once",
    "identity_of",
    "measure_share",
    "missing",
]

_WAIT_SECONDS = 1.0
Beside: TypeAlias = Callable[[OpenModel, CodeLengths, Samples], Mapping[str, Shaped[np.ndarray, " sample"]]]


@runtime_checkable
class Scoring(Protocol):
    """What is asked of the samples under one model, a shard at a time."""

    @property
    def role(self) -> str:
        """Of the model."""

    @property
    def model(self) -> Any:
        """As `open_model` takes it."""

    @property
    def opening(self) -> Mapping[str, Any]:
        """The other arguments of `open_model`."""

    def check(self, opened: OpenModel) -> None:
        """Refuse another model than the run was begun with."""

    def measure(
        self, run: ShardRun, of: str, k: int, shard: Samples, opened: OpenModel, said: set[type[Warning]]
    ) -> None:
        """Measure a shard, and keep it."""

    def whole(self, run: ShardRun, scan: Scan) -> Any:
        """What was measured of all shards."""


@dataclass(frozen=True, slots=True)
class Scored:
    """How code lengths are measured under one model.

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

    def check(self, opened: OpenModel) -> None:
        """Refuse another model, or another tokenizer, than the run was begun with.

        Raises:
            ResultError: it says which.
        """
        check_same_model(self.role, opened, self.settings)

    def measure(
        self, run: ShardRun, of: str, k: int, shard: Samples, opened: OpenModel, said: set[type[Warning]]
    ) -> None:
        """Measure a shard, and keep it."""
        in_tokens = self.tokenize(shard, opened)
        with each_kind_once(said):
            lengths = measure(
                opened,
                in_tokens,
                FirstToken.from_record(self.settings["first_token"]),
                uniform_vocab_size=self.settings["uniform_vocab_size"],
                progress=False,
                **self.options,
            )
        beside = {} if self.beside is None else self.beside(opened, lengths, shard)
        run.put(of, k, in_tokens, lengths, beside)

    def whole(self, run: ShardRun, scan: Scan) -> CodeLengths:
        """The code lengths of all shards as one result."""
        return _whole(run, scan, self)


@contextmanager
def each_kind_once(said: set[type[Warning]]) -> Iterator[None]:
    """Warnings of a shard are given once a kind, and not for every shard."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        yield
    for one in caught:
        if one.category not in said:
            said.add(one.category)
            warn(str(one.message), one.category)


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


def missing(run: ShardRun, scans: Sequence[Scan], scored: Scoring) -> list[tuple[str, int]]:
    """The shards that are not finished under one model: the set, and the number."""
    return [
        (scan.name, k)
        for scan in scans
        for k in range(len(scan.digests))
        if not run.is_done(f"{scan.name}/{scored.role}", k)
    ]


def measure_share(run: ShardRun, scans: Sequence[Scan], scored: Scoring, share: Shard, *, progress: bool) -> None:
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
        scored.check(opened)
        bar.update(total - sum(n_samples[each] for each in left))
        while _score_some(run, scans, scored, opened, own, bar):
            time.sleep(_WAIT_SECONDS)


def _score_some(
    run: ShardRun, scans: Sequence[Scan], scored: Scoring, opened: OpenModel, own: set[tuple[str, int]], bar: Bar
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
                    scored.measure(run, of, k, shard, opened, said)
                    bar.update(len(shard))
    return others


def check_same_model(role: str, opened: OpenModel, settings: Mapping[str, Any]) -> None:
    """Refuse another model, or another tokenizer, than these settings name.

    Raises:
        ResultError: it says which.
    """
    tokenizer = tokenizer_record(opened.tokenizer)
    others = []
    if settings["model"]["fingerprint"] != opened.record["fingerprint"]:
        others.append("other weights")
    if (settings["tokenizer"] or {}).get("vocab_sha256") != (tokenizer or {}).get("vocab_sha256"):
        others.append("another tokenizer")
    if others:
        raise ResultError(
            f"the {role} ({opened.record['name']}) is not the model that the finished shards were measured "
            f"with: it has {' and '.join(others)}. Name another folder, or throw the run away with "
            "overwrite=True."
        )


def _whole(run: ShardRun, scan: Scan, scored: Scored) -> CodeLengths:
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
