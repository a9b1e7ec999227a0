"""The work of an audit: what is asked of the models, and the parts that come from what was measured."""

import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np

from memorization.auditing.result import Audit, texts_of
from memorization.coding.joint import JointCode
from memorization.errors import InputError, MeasurementWarning, UnequalSetsWarning, warn
from memorization.extraction.passes import TokensGiven, examples_of
from memorization.extraction.stored import FEWEST_TOKENS, PREFIXES, extraction_of
from memorization.measure.code_lengths import CodeLengths, tokenize
from memorization.measure.context import FirstToken, Sequences, sequences_of
from memorization.measure.opening import OpenModel
from memorization.measure.pair import Pair
from memorization.measure.scans import Scan, check_apart_in_shards
from memorization.measure.shared import Sharing
from memorization.membership import MembershipAudit
from memorization.membership.measured import attacks_on, scores_of
from memorization.rarity import Rarity, which_samples
from memorization.results import versions
from memorization.samples import Samples, SampleShards, check_disjoint
from memorization.spans import spans_of
from memorization.spans.finding import SpansLike
from memorization.unintended import Memorization
from memorization.unintended.measure import memorization_of
from memorization.unintended.pairs import Models

__all__ = ["Asked", "Parts", "Spans", "Work"]

_K_PERCENT = 20.0  # of min_k
_N_TEXTS = 50  # records that are kept in full


def _attacks(
    lengths: list[CodeLengths], memorization: Memorization, sets: list[Samples], level: float, seed: int
) -> MembershipAudit:
    fewest = min(map(len, lengths))
    if fewest < 2:
        raise InputError(f"attacks rank samples against control samples, at least two of each; there is {fewest}")
    scores = [scores_of(part, own, k_percent=_K_PERCENT) for part, own in zip(lengths, sets, strict=True)]
    documents = [own.as_measured(part.settings["samples"]).groups for part, own in zip(lengths, sets, strict=True)]
    with warnings.catch_warnings():  # of F1 on equally many, which is no figure of an audit
        warnings.simplefilter("ignore", UnequalSetsWarning)
        return attacks_on(lengths, memorization, scores, documents, sets, k_percent=_K_PERCENT, level=level, seed=seed)


def _rarity(memorization: Memorization, samples: Samples, tokenizer: Any, redact: bool) -> Rarity:
    found = which_samples(memorization, samples, tokenizer=tokenizer)
    none = [""] * len(found.previews)
    return replace(found, previews=none, about=samples.about) if redact else found


@dataclass(frozen=True, slots=True)
class Spans:
    """Which parts of the texts are measured apart."""

    wanted: SpansLike
    sources: list[Any]
    text_column: str
    limit: int | None

    def of(self, memorization: Memorization, sets: list[Samples]) -> Any:
        """The spans of what was measured. What was read in shards is in memory by now."""
        ours, theirs = (
            own if isinstance(source, SampleShards) else source for source, own in zip(self.sources, sets, strict=True)
        )
        return spans_of(memorization, ours, self.wanted, control=theirs, text_column=self.text_column, limit=self.limit)


@contextmanager
def _listening() -> Iterator[list[warnings.WarningMessage]]:
    """All warnings that are given meanwhile; they are given on to the caller afterwards, each once."""
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        yield said
    for kind, told in dict.fromkeys((one.category, str(one.message)) for one in said):
        warn(told, kind)


@dataclass(slots=True)
class Asked:
    """What else is asked of the target while it is open."""

    on_lossy_text: Literal["raise", "skip"]
    tokenizer: Any = None
    examples: list[dict[str, Any]] = field(default_factory=list)

    def of(self, model: OpenModel, lengths: CodeLengths, samples: Samples) -> None:
        """The tokenizer, and how the target goes on from the first tokens of the records that come out most easily."""
        self.tokenizer, self.examples = model.tokenizer, []
        first = FirstToken.from_record(lengths.settings["first_token"])
        keep = np.flatnonzero(lengths.n_tokens >= FEWEST_TOKENS).tolist()
        if first.rule == "skip" or not keep or lengths.token_greedy is None:
            return
        read = tokenize(samples, model.tokenizer, on_lossy_text=self.on_lossy_text).as_measured(
            lengths.settings["samples"]
        )
        whole = sequences_of(read, first)
        own = Sequences(*([part[k] for k in keep] for part in whole))
        tokens = np.repeat(lengths.n_tokens >= FEWEST_TOKENS, lengths.n_tokens)
        given = TokensGiven(lengths.token_greedy[tokens], lengths.token_bits[tokens])
        self.examples = examples_of(model, own, lengths.index[keep], given, PREFIXES[0], None)


@dataclass(slots=True)
class Parts:
    """Parts of an audit, and why some of them are wanting."""

    asked: Asked
    redact: bool
    level: float
    seed: int
    found: dict[str, Any] = field(default_factory=dict)
    missing: dict[str, str] = field(default_factory=dict)
    texts: Any = None

    @property
    def memorization(self) -> Memorization:
        """The part that is never wanting."""
        return cast(Memorization, self.found["memorization"])

    def work_out(self, pairs: list[Pair], sets: list[Samples], joint: JointCode) -> None:
        """All parts that come from what was measured, but for spans."""
        measured = [part.as_measured(pair[0].settings["samples"]) for part, pair in zip(sets, pairs, strict=True)]
        memorization = memorization_of(pairs, joint=joint, groups=[part.groups for part in measured])
        self.found["memorization"] = memorization
        lengths, tokenizer = [pair[0] for pair in pairs], self.asked.tokenizer
        examples = [] if self.redact else self.asked.examples
        self._add("membership", lambda: _attacks(lengths, memorization, sets, self.level, self.seed))
        self._add("extraction", lambda: extraction_of(memorization, level=self.level, examples=examples))
        self._add("rarity", lambda: _rarity(memorization, sets[0], tokenizer, self.redact))
        decode = None if tokenizer is None else tokenizer.decode
        self.texts = texts_of(memorization, measured[0].texts, decode, 0 if self.redact else _N_TEXTS)

    def _add(self, name: str, work: Callable[[], Any]) -> None:
        try:
            self.found[name] = work()
        except InputError as error:
            self.missing[name] = str(error).rstrip(".")

    def audit(self, settings: dict[str, Any]) -> Audit:
        """The result."""
        return Audit(
            memorization=self.memorization,
            membership=self.found.get("membership"),
            extraction=self.found.get("extraction"),
            rarity=self.found.get("rarity"),
            spans=self.found.get("spans"),
            texts=self.texts,
            settings={
                "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
                **settings,
                "missing": self.missing,
                "versions": versions(),
            },
        )


@dataclass(slots=True)
class Work:
    """What is audited with what."""

    models: Models
    asked: Asked
    parts: Parts
    joint: JointCode
    spans: Spans | None = None

    def at_once(self, sets: list[Samples], settings: dict[str, Any]) -> Audit:
        """The audit of samples that are in memory."""
        sets = [replace(part, hidden=self.parts.redact) for part in sets]
        check_disjoint(*sets)
        with _listening() as said:
            ask = lambda opened, lengths: self.asked.of(opened, lengths[0], sets[0])  # noqa: E731
            (pairs,) = self.models.pairs(sets, with_target=ask)
            return self._found(pairs, sets, settings, said)

    def in_shards(
        self, scans: list[Scan], folder: Path, overwrite: bool, sharing: Sharing, settings: dict[str, Any]
    ) -> None:
        """The same of samples that are measured shard by shard, saved in the folder."""
        check_apart_in_shards(*scans)
        options = {"joint": self.joint, "level": self.parts.level, "seed": self.parts.seed}
        options |= {"redact": self.parts.redact}  # shards hold how texts begin
        with _listening() as said:

            def concluded(measured: Any, _: Any) -> Audit:
                sets = [scan.at_once() for scan in scans]
                with self.models.open_target() as opened:
                    self.asked.of(opened, measured[0][0][0], sets[0])
                return self._found(measured[0], sets, settings, said)

            how: dict[str, Any] = {"overwrite": overwrite, "sharing": sharing, "further": options}
            self.models.pairs_in_shards(scans, folder, concluded, **how)

    def _found(
        self,
        pairs: list[Pair],
        sets: list[Samples],
        settings: dict[str, Any],
        said: Sequence[warnings.WarningMessage],
    ) -> Audit:
        self.parts.work_out(pairs, sets, self.joint)
        if self.spans is not None:
            self.parts.found["spans"] = self.spans.of(self.parts.memorization, sets)
        return self.parts.audit({**settings, "warnings": _told(said)})


def _told(said: Sequence[warnings.WarningMessage]) -> list[tuple[str, str]]:
    """Warnings of the measurement, each once."""
    kept = [(one.category.__name__, str(one.message)) for one in said if issubclass(one.category, MeasurementWarning)]
    return list(dict.fromkeys(kept))
