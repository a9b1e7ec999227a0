"""Code lengths of samples and control under a target and one or several oracles, at once or shard by shard."""

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from memorization.measure.code_lengths import CodeLengths
from memorization.measure.in_shards import Beside, Scored, decided, identity_of
from memorization.measure.opening import OpenModel, UniformModel, open_model
from memorization.measure.pair import Pair, load_tokenizers, measure_pair, tokenize_for
from memorization.measure.passes import check_windows
from memorization.measure.scans import Scan
from memorization.measure.shard_files import ShardRun
from memorization.measure.shared import Sharing, score_shards
from memorization.results import Result
from memorization.samples import Samples

__all__ = ["Columns", "Measured", "Models"]

Measured = list[list[Pair]]  # for each oracle the pair of the samples and the pair of the control
WithTarget = Callable[[OpenModel, list[CodeLengths]], None]
Columns = dict[str, Any]  # arrays with an entry a sample
_OF_SCORING = ("max_length", "stride", "batch_size")


@dataclass(frozen=True, slots=True)
class Models:
    """What is measured with what.

    Attributes:
        target: model, or code lengths of the first set.
        oracles: the same.
        tokenizers: of the target, and of the oracles; None is a model's own.
        revisions: of the target, and of the oracles.
        how: the other arguments of `measure_pair`.
    """

    target: Any
    oracles: Sequence[Any]
    tokenizers: tuple[Any, Any]
    revisions: tuple[str | None, str | None]
    how: Mapping[str, Any]

    def pairs(self, sets: Sequence[Samples], *, with_target: WithTarget | None = None) -> Measured:
        """Code lengths of samples that are in memory; `with_target` is called with the target, while it is open."""
        named: dict[str, Any] = {"tokenizers": self.tokenizers, "revisions": self.revisions, "with_target": with_target}
        measured = [measure_pair(self.target, self.oracles[0], sets, **named, **self.how)]
        for other in self.oracles[1:]:
            with self._opened(other) as opened:
                pairs: list[Pair] = []
                for pair, part in zip(measured[0], sets, strict=True):
                    like = pairs[0][1] if pairs else None  # what stands in front of the samples does so in the control
                    none = (None, None)
                    pairs += measure_pair(
                        pair[0], opened, [part], tokenizers=none, revisions=none, oracle_as=like, **self.how
                    )
            measured.append(pairs)
        return measured

    def pairs_in_shards(
        self,
        scans: Sequence[Scan],
        folder: Path,
        result_of: Callable[[Measured, list[Columns]], Result],
        *,
        overwrite: bool,
        sharing: Sharing,
        beside: Beside | None = None,
        further: Mapping[str, Any] | None = None,
    ) -> None:
        """The same of samples that need not fit into memory, kept in the folder as they come, then the result.

        A few of them, evenly spread, decide what stands in front of all.

        Args:
            scans: samples, and control.
            folder: of the result.
            result_of: what is saved there, from what was measured, and from the columns beside it of each set.
            overwrite: whether an unfinished run of something else may be thrown away.
            sharing: who measures.
            beside: what is asked of the target while it is open.
            further: what else determines that, by name.
        """
        roles = {"target": self.target} | {
            "oracle" if not k else f"oracle {k + 1}": one for k, one in enumerate(self.oracles)
        }
        options = {name: self.how[name] for name in ("first_token", *_OF_SCORING, "dtype", "on_lossy_text")}
        run = ShardRun(folder, identity_of(roles, scans, options | dict(further or {})), overwrite=overwrite)

        def decide() -> dict[str, Any]:
            first = self.pairs([scan.spread() for scan in scans[:1]])
            lengths = [first[0][0][0], *(pairs[0][1] for pairs in first)]
            return {role: one.settings for role, one in zip(roles, lengths, strict=True)}

        settings = decided(run, decide)
        tokenizers = self._tokenizers(roles)
        windows = dict(zip(_OF_SCORING, check_windows(*(self.how[name] for name in _OF_SCORING)), strict=True))
        scored = []
        for role, model in roles.items():

            def in_tokens(shard: Samples, opened: OpenModel, role: str = role) -> Samples:
                return tokenize_for(tokenizers, shard, self.how["on_lossy_text"])[role]

            opening = self._opening(role, model, tokenizers)
            asked = beside if role == "target" else None
            scored.append(Scored(role, model, opening, settings[role], windows, in_tokens, asked))

        def concluded(lengths: list[list[CodeLengths]]) -> Result:
            target, *oracles = lengths
            columns = [run.beside(f"{scan.name}/target", len(scan.digests)) for scan in scans]
            return result_of([list(zip(target, oracle, strict=True)) for oracle in oracles], columns)

        score_shards(run, scans, scored, concluded, sharing=sharing, progress=bool(self.how["progress"]))

    @contextmanager
    def open_target(self) -> Iterator[OpenModel]:
        """The target once more, as it is opened to be measured."""
        roles = {"target": self.target, "oracle": self.oracles[0]}
        with open_model(self.target, **self._opening("target", self.target, self._tokenizers(roles))) as opened:
            yield opened

    def _tokenizers(self, roles: Mapping[str, Any]) -> dict[str, Any]:
        tokenizers: dict[str, Any] = {}
        for role, model in roles.items():
            if role == "target":
                continue
            pair = {"target": self.target, "oracle": model}
            revisions = dict(zip(pair, self.revisions, strict=True))
            found = load_tokenizers(pair, self.tokenizers, revisions, self.how["trust_remote_code"])
            tokenizers |= {"target": tokenizers.get("target", found["target"]), role: found["oracle"]}
        return tokenizers

    def _opening(self, role: str, model: Any, tokenizers: Mapping[str, Any]) -> dict[str, Any]:
        any_named = any(isinstance(one, (str, os.PathLike)) for one in (self.target, *self.oracles))
        named = isinstance(model, (str, os.PathLike))
        names = ("device", "trust_remote_code", "allow_pickle", "max_length", "progress")
        return {name: self.how[name] for name in names} | {
            "tokenizer": tokenizers[role],
            "dtype": self.how["dtype"] if named or not any_named else None,
            "revision": self.revisions[0 if role == "target" else 1] if named else None,
        }

    @contextmanager
    def _opened(self, model: Any) -> Iterator[Any]:
        """A further oracle, loaded once for samples and control."""
        if isinstance(model, CodeLengths):
            yield model
            return
        own = self.tokenizers[1]
        if own is None and isinstance(model, UniformModel):  # it has the target's tokens, as beside a live target
            own = self._tokenizers({"oracle": model})["oracle"]
        names = ("device", "dtype", "trust_remote_code", "allow_pickle", "max_length", "progress")
        how = {name: self.how[name] for name in names}
        with open_model(model, tokenizer=own, revision=self.revisions[1], **how) as opened:
            yield opened
