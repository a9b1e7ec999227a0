"""Code lengths of samples and control under a target and one or several oracles, at once or shard by shard."""

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from memorization.measure.code_lengths import CodeLengths
from memorization.measure.in_shards import Scan, Scored, identity_of
from memorization.measure.opening import OpenModel, UniformModel, open_model
from memorization.measure.pair import Pair, load_tokenizers, measure_pair, tokenize_for
from memorization.measure.passes import check_windows
from memorization.measure.shard_files import ShardRun
from memorization.measure.shared import Sharing, score_shards
from memorization.results import Result
from memorization.samples import Samples

__all__ = ["Measured", "Models"]

Measured = list[list[Pair]]  # for each oracle the pair of the samples and the pair of the control
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

    def pairs(self, sets: Sequence[Samples]) -> Measured:
        """Code lengths of samples that are in memory."""
        measured = [
            measure_pair(
                self.target, self.oracles[0], sets, tokenizers=self.tokenizers, revisions=self.revisions, **self.how
            )
        ]
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
        result_of: Callable[[Measured], Result],
        *,
        overwrite: bool,
        sharing: Sharing,
    ) -> None:
        """The same of samples that need not fit into memory, kept in the folder as they come, then the result.

        A few of them, evenly spread, decide what stands in front of all.
        """
        roles = {"target": self.target} | {
            "oracle" if not k else f"oracle {k + 1}": one for k, one in enumerate(self.oracles)
        }
        options = {name: self.how[name] for name in ("first_token", *_OF_SCORING, "dtype", "on_lossy_text")}
        run = ShardRun(folder, identity_of(roles, scans, options), overwrite=overwrite)
        settings = run.known("decided.json")
        if settings is None:
            first = self.pairs([scan.spread() for scan in scans[:1]])
            decided = [first[0][0][0], *(pairs[0][1] for pairs in first)]
            settings = run.once("decided.json", {role: one.settings for role, one in zip(roles, decided, strict=True)})
        tokenizers = self._tokenizers(roles)
        windows = dict(zip(_OF_SCORING, check_windows(*(self.how[name] for name in _OF_SCORING)), strict=True))
        scored = []
        for role, model in roles.items():

            def in_tokens(shard: Samples, opened: OpenModel, role: str = role) -> Samples:
                return tokenize_for(tokenizers, shard, self.how["on_lossy_text"])[role]

            opening = self._opening(role, model, tokenizers)
            scored.append(Scored(role, model, opening, settings[role], windows, in_tokens))

        def concluded(lengths: list[list[CodeLengths]]) -> Result:
            target, *oracles = lengths
            return result_of([list(zip(target, oracle, strict=True)) for oracle in oracles])

        score_shards(run, scans, scored, concluded, sharing=sharing, progress=bool(self.how["progress"]))

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
