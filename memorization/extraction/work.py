"""The work of an extraction: what each model is asked, of samples at once or shard by shard, and the result."""

import os
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from memorization.extraction.decoding import Decoding
from memorization.extraction.in_shards import Asking, Given, given_of
from memorization.extraction.passes import (
    Read,
    TokensGiven,
    asked,
    documents_of,
    examples_of,
    tokenized,
    tokens_given,
    under_oracle,
)
from memorization.extraction.rates import FEWEST_SUFFIX
from memorization.extraction.result import Extraction
from memorization.integers import edges_of
from memorization.measure.batches import BatchSize
from memorization.measure.context import FirstToken, resolve_first_token, warn_of_chat_marker
from memorization.measure.evidence import settle_first_token
from memorization.measure.in_shards import decided, identity_of
from memorization.measure.near_copies import bits_of_hardest, near_copies, warn_of_near_copies_in
from memorization.measure.opening import OpenModel, open_model
from memorization.measure.scans import Scan, check_apart_in_shards
from memorization.measure.shard_files import ShardRun
from memorization.measure.shared import Sharing, score_shards
from memorization.measure.tokenizers import load_tokenizer, tokenizer_record
from memorization.results import About, versions
from memorization.samples import (
    Samples,
    check_apart,
    check_disjoint,
    check_documents,
)

__all__ = ["Work"]

_PAPER_PREFIXES = (8, 16, 32)
_SETS = ("members", "heldout")


@dataclass(frozen=True, slots=True)
class Work:
    """What is asked of what.

    Attributes:
        models: the target, and an oracle.
        tokenizers: of both, as they came.
        revision: of the target.
        opening: how both are opened.
        first_token: as it came.
        on_lossy_text: "raise" or "skip".
        prefixes: None where the samples decide.
        suffix: tokens behind a prefix; None is all.
        by_prompts: whether samples have prompts.
        decoding: greedy decoding and sampling.
        batches: samples and tokens a forward pass.
        level: of the intervals.
        by_documents: whether documents were named.
    """

    models: Mapping[str, Any]
    tokenizers: tuple[Any, Any]
    revision: str | None
    opening: Mapping[str, Any]
    first_token: str | int
    on_lossy_text: Literal["raise", "skip"]
    prefixes: tuple[int, ...] | None
    suffix: int | None
    by_prompts: bool
    decoding: Decoding
    batches: BatchSize
    level: float
    by_documents: bool

    def at_once(self, raw: Mapping[str, Samples]) -> Extraction:
        """The result of samples that are in memory."""
        if "heldout" in raw:
            check_disjoint(raw["members"], raw["heldout"])
        return self._of(raw, _fewest_inputs(raw.values()), None, {})

    def in_shards(self, scans: Sequence[Scan], folder: Path, overwrite: bool, sharing: Sharing) -> None:
        """The same of samples that are read shard by shard, saved in the folder."""
        if len(scans) > 1:
            check_apart_in_shards(*scans)
        most = _fewest_inputs(shard for scan in scans for _, shard in scan.checked())
        options: dict[str, Any] = {
            "first_token": self.first_token,
            "prefix_tokens": self.prefixes,
            "suffix_tokens": self.suffix,
        }
        options |= {"decoding": self.decoding, "on_lossy_text": self.on_lossy_text, "dtype": self.opening["dtype"]}
        options |= {"batch_size": self.batches, "level": self.level}
        run = ShardRun(folder, identity_of(self.models, scans, options), overwrite=overwrite)

        def decide() -> dict[str, Any]:
            some, found = scans[0].spread(), {}
            for role in self.models:
                with self._opened(role, most) as opened:
                    first = resolve_first_token(self.first_token, opened.tokenizer)
                    part = tokenized(opened, some, first, self.on_lossy_text, "members")
                    first = self._settled(first, opened, part, role)
                    own = {"model": opened.record, "tokenizer": tokenizer_record(opened.tokenizer)}
                    found[role] = {**own, "first_token": first.record()}
            return found

        settings = decided(run, decide)
        asked = [
            Asking(
                role,
                model,
                self._how_opened(role, most),
                settings[role],
                self._least,
                self.suffix and self._least,
                self.decoding,
                self.batches,
                self.on_lossy_text,
            )
            for role, model in self.models.items()
        ]

        def concluded(measured: list[list[Given]]) -> Extraction:
            given = {role: dict(zip(_SETS, sets, strict=False)) for role, sets in zip(settings, measured, strict=True)}
            raw = {which: scan.at_once() for which, scan in zip(_SETS, scans, strict=False)}
            return self._of(raw, most, settings, given)

        score_shards(run, scans, asked, concluded, sharing=sharing, progress=bool(self.opening["progress"]))

    def _of(
        self,
        raw: Mapping[str, Samples],
        most: int | None,
        decided_before: Mapping[str, Any] | None,
        given: Mapping[str, Mapping[str, Given]],
    ) -> Extraction:
        """The result, of what was given back in shards, or is asked now."""
        progress = self.opening["progress"]
        with self._opened("target", most) as opened:
            first = resolve_first_token(self.first_token, opened.tokenizer)
            parts = {which: tokenized(opened, part, first, self.on_lossy_text, which) for which, part in raw.items()}
            if decided_before is None:
                first = self._settled(first, opened, parts["members"], "target")
            else:
                first = FirstToken.from_record(decided_before["target"]["first_token"])
            read = {which: asked(opened, part, first, which, self._least, self.suffix) for which, part in parts.items()}
            n_tokens = {which: np.array([len(ids) for ids in part.sequences.coded]) for which, part in read.items()}
            longest = min(int(of.min()) for of in n_tokens.values()) - self._fewest_suffix
            used = self.prefixes or tuple(prefix for prefix in self._auto if prefix <= longest)
            found = {
                which: given_of(given["target"][which], part, which, opened.record["name"])
                if given
                else tokens_given(opened, part, which, self.decoding, self.batches, progress and which)
                for which, part in read.items()
            }
            settings = self._settings(opened, read, first, used) | {
                "examples": examples_of(
                    opened,
                    read["members"].sequences,
                    read["members"].samples.index,
                    found["members"],
                    (used or self._auto[:1])[0],
                    self.suffix,
                ),
            }
        told: dict[str, TokensGiven] = {}
        if "oracle" in given and decided_before is not None:
            settings["oracle"] = decided_before["oracle"]["model"]
            name = settings["oracle"]["name"]
            told = {which: given_of(given["oracle"][which], part, which, name) for which, part in read.items()}
        elif "oracle" in self.models:
            with self._opened("oracle", most) as opened:
                settings["oracle"] = opened.record
                how = (self.first_token, self.suffix and self._least, self.decoding, self.on_lossy_text)
                told = under_oracle(opened, raw, read, *how, self.batches, progress)
        if "heldout" in read:
            _warn_of_near_copies(read, found["heldout"].bits)
        abouts = {which: part.samples.about for which, part in read.items()}
        return _assembled(found, told, _documents(read), n_tokens, abouts, settings)

    def _settings(
        self, opened: OpenModel, read: Mapping[str, Read], first: FirstToken, used: tuple[int, ...]
    ) -> dict[str, Any]:
        return {
            "prefix_tokens": list(used),
            "prefix_tokens_left_out": [one for one in self.prefixes or self._auto if one not in used],
            "suffix_tokens": self.suffix,
            "interval_level": self.level,
            "decoding": asdict(self.decoding),
            "first_token": first.record(),
            **self.batches.record(),
            "n_cut": {which: part.n_cut for which, part in read.items()},
            "members": _record(read["members"]),
            "heldout": _record(read["heldout"]) if "heldout" in read else None,
            "groups": self.by_documents,
            "model": opened.record,
            "oracle": None,
            "tokenizer": tokenizer_record(opened.tokenizer),
            "versions": versions(),
        }

    @property
    def _auto(self) -> tuple[int, ...]:
        return (0, *_PAPER_PREFIXES) if self.by_prompts else _PAPER_PREFIXES

    @property
    def _fewest_suffix(self) -> int:
        # Behind a prompt, one is enough.
        return self.suffix or (1 if self.prefixes or not self._auto[0] else FEWEST_SUFFIX)

    @property
    def _least(self) -> int:
        """Tokens of a sample that is long enough."""
        return (self.prefixes or self._auto[:1])[-1] + self._fewest_suffix

    def _settled(self, first: FirstToken, opened: OpenModel, samples: Samples, role: str) -> FirstToken:
        how: dict[str, Any] = {"max_length": opened.max_length, "stride": None, "batch_size": self.batches}
        first = settle_first_token(first, opened, samples, **how)
        if role == "target":
            warn_of_chat_marker(first, opened.tokenizer, samples)
        return first

    def _opened(self, role: str, most: int | None) -> AbstractContextManager[OpenModel]:
        return open_model(self.models[role], **self._how_opened(role, most))

    def _how_opened(self, role: str, most: int | None) -> dict[str, Any]:
        target, (own, of_oracle) = self.models["target"], self.tokenizers
        how = {**self.opening, "max_length": most}
        if role == "target":
            return how | {"tokenizer": own, "revision": self.revision}
        if of_oracle is not None or isinstance(self.models["oracle"], (str, os.PathLike)):
            return how | {"tokenizer": of_oracle}
        if own is None and isinstance(target, OpenModel):
            return how | {"tokenizer": target.tokenizer}
        named = target if own is None and isinstance(target, (str, os.PathLike)) else own
        trust = self.opening["trust_remote_code"]
        return how | {
            "tokenizer": load_tokenizer(named, required=False, revision=self.revision, trust_remote_code=trust)
        }


def _warn_of_near_copies(read: Mapping[str, Read], heldout_bits: np.ndarray) -> None:
    ours, theirs = (
        (np.concatenate(part.sequences.coded), edges_of([len(ids) for ids in part.sequences.coded]))
        for part in (read["members"], read["heldout"])
    )
    found = near_copies(lambda: [ours], theirs, bits_per_token=bits_of_hardest(heldout_bits, theirs[1]))
    warn_of_near_copies_in(read["heldout"].samples.index, found)


def _record(part: Read) -> dict[str, Any]:
    return {**part.samples.record(), "too_short": list(part.samples.too_short)}


def _documents(read: Mapping[str, Read]) -> dict[str, tuple[str, ...] | None]:
    """What `documents_of` says of each set, none of them on both sides."""
    ours, theirs = (read[which].samples if which in read else None for which in ("members", "heldout"))
    assert ours is not None
    if ours.groups is not None:
        check_documents(ours.groups, "samples")
        if theirs is not None and theirs.groups is not None:
            check_documents(theirs.groups, "control samples")
            check_apart(ours.groups, theirs.groups)
    return {which: documents_of(part) for which, part in read.items()}


def _assembled(
    found: Mapping[str, TokensGiven],
    by_oracle: Mapping[str, TokensGiven],
    documents: Mapping[str, tuple[str, ...] | None],
    n_tokens: Mapping[str, np.ndarray],
    abouts: Mapping[str, About],
    settings: dict[str, Any],
) -> Extraction:
    nothing = TokensGiven(np.zeros(0, dtype=bool), np.zeros(0))
    members, heldout = found["members"], found.get("heldout", nothing)
    return Extraction(
        member_correct=members.correct,
        member_offsets=edges_of(n_tokens["members"]),
        heldout_correct=heldout.correct,
        heldout_offsets=edges_of(n_tokens.get("heldout", np.zeros(0, dtype=np.int64))),
        member_bits=members.bits,
        heldout_bits=heldout.bits,
        member_oracle_bits=by_oracle["members"].bits if by_oracle else None,
        heldout_oracle_bits=by_oracle.get("heldout", nothing).bits if by_oracle else None,
        member_groups=documents["members"],
        heldout_groups=documents.get("heldout"),
        member_about=abouts["members"],
        heldout_about=abouts.get("heldout"),
        settings=settings,
    )


def _fewest_inputs(samples: Iterable[Samples]) -> int | None:
    """Inputs that the model must take in any case, for its check: it may take no more. None where texts do not tell."""
    lengths = [len(ids) for part in samples for ids in part.ids or ()]
    return max(1, max(lengths) - 1) if lengths else None
