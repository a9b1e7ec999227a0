"""`track`: memU at each checkpoint of a run, against an oracle that is run once."""

import hashlib
import math
import os
import uuid
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal, TypeAlias

import numpy as np

from memorization.coding.joint import JointCode
from memorization.errors import InputError, MeasurementWarning, ModelError, SameModelWarning, warn
from memorization.measure.batches import check_batch_size
from memorization.measure.code_lengths import CodeLengths
from memorization.measure.opening import DeviceLike, DTypeLike, ModelLike, UniformModel
from memorization.measure.pair import Pair
from memorization.measure.tokenizers import TokenizerLike, tokenizer_record
from memorization.measure.weights import weight_digests
from memorization.progress import log
from memorization.samples import GroupsLike, Samples, SamplesLike, check_disjoint, groups_of_both, read_samples
from memorization.tracking.checkpoints import Checkpoint, RunLike, files_of, find_checkpoints
from memorization.tracking.kept import Kept
from memorization.tracking.passes import first_pairs, oracle_given, pairs_like
from memorization.tracking.reading import Reading, read, told, warn_once
from memorization.tracking.result import Trajectory, trajectory_of
from memorization.unintended import Memorization
from memorization.unintended.measure import memorization_of

__all__ = ["OracleLike", "pairs_of", "read_sets", "track"]

# An oracle, or what was measured under it.
OracleLike: TypeAlias = ModelLike | CodeLengths | Sequence[CodeLengths] | Memorization


def track(
    run: RunLike,
    oracle: OracleLike,
    samples: SamplesLike,
    control: SamplesLike | None = None,
    *,
    output: str | os.PathLike[str] | None = None,
    overwrite: bool = False,
    joint: JointCode = "max",
    target_tokenizer: TokenizerLike | None = None,
    oracle_tokenizer: TokenizerLike | None = None,
    oracle_revision: str | None = None,
    first_token: str | int = "auto",
    max_length: int | None = None,
    stride: int | None = None,
    batch_size: int | Literal["auto"] = "auto",
    max_batch_tokens: int | None = None,
    device: DeviceLike | None = None,
    dtype: DTypeLike | None = None,
    trust_remote_code: bool = False,
    text_column: str = "text",
    limit: int | None = None,
    groups: GroupsLike | tuple[GroupsLike, GroupsLike] | None = None,
    on_lossy_text: Literal["raise", "skip"] = "raise",
    progress: bool = True,
    allow_pickle: bool = False,
) -> Trajectory:
    """memU of samples, in bits, at each checkpoint of a training run: when was what memorized?

    The oracle is run once, and its code lengths serve for every checkpoint. What stands before a sample, and what its
    first token costs, is decided at the first checkpoint measured and holds for all. Checkpoints are measured in the
    order of their steps, one in memory at a time.

    Args:
        run: the output folder of a transformers Trainer, which holds folders checkpoint-N; a glob of folders, such as
            "runs/step_*"; or a list of folders and names on the hub. The step is what trainer_state.json says, else
            the number at the end of checkpoint-N, step-N and the like. Where not all are known, the order is yours.
        oracle: as for `unintended_memorization`, one model; or what was measured under it: `CodeLengths` of the
            samples, a pair (samples, control) of these, or a `Memorization`, as an object or a folder. Mostly the
            model that was fine-tuned.
        samples: as for `compress_bits`; mostly what the run is trained on.
        control: samples drawn like them that neither the run nor the oracle has seen. Without a control nothing tells
            memorization from generalization.
        output: a folder that keeps the measurement of each checkpoint, a `Memorization` in checkpoints/NAME, as soon as
            it is there. The same call goes on from there: it measures what is new, and what has other weight files.
            The trajectory itself is written by its `save`.
        overwrite: what `output` holds of other samples or options is measured anew. Else it is refused.
        joint: as for `unintended_memorization`, as are all that follow.
        target_tokenizer: of all checkpoints; None is each one's own.
        oracle_tokenizer: None is the oracle's own.
        oracle_revision: of an oracle on the hub.
        first_token: one rule for all models.
        max_length: inputs a window holds.
        stride: new tokens of each window after the first.
        batch_size: samples a forward pass.
        max_batch_tokens: tokens a forward pass, padding counted, at most.
        device: where to measure.
        dtype: of the weights of models loaded here.
        trust_remote_code: run code that a checkpoint brings.
        text_column: column of a file or data set.
        limit: only the first so many samples, and control samples.
        groups: which document each sample is of.
        on_lossy_text: "raise" or "skip" texts that a tokenizer does not give back.
        progress: bars on stderr, named after the checkpoints.
        allow_pickle: load pickled weights, which can run code.

    Returns:
        A row a checkpoint, and a number a sample and checkpoint. A checkpoint whose folder vanishes meanwhile is named
        in settings["missing"]; one that was measured into `output` earlier and has vanished since is kept.

    Raises:
        InputError: as for `unintended_memorization`; no checkpoint is found; checkpoints of different tokenizers.
        ModelError: as for `compress_bits`; every checkpoint has vanished.

    Warns:
        What the measurements warn of: each kind of warning once, with the last checkpoint it holds for.
        `Trajectory.settings` has all. SameModelWarning: a checkpoint is the oracle; it is left out.

    Examples:
        >>> import tempfile
        >>> from memorization import UniformModel, track
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     track(folder, UniformModel(16), [[1, 2, 3]])
        Traceback (most recent call last):
            ...
        memorization.errors.InputError: ... holds no checkpoint: looked for folders checkpoint-N in it; it is empty.

    Source: Morris et al., arXiv:2505.24832, section 2.3, at each checkpoint.
    """
    if joint not in ("max", "mixture", "switch"):
        raise InputError(f'joint must be "max", "mixture" or "switch"; it is {joint!r}.')
    checkpoints, left_out = _without_oracle(find_checkpoints(run), oracle)
    sets = read_sets(samples, control, text_column, limit, groups)
    given = oracle_given(oracle, has_control=control is not None)
    how: dict[str, Any] = {
        "device": device,
        "dtype": dtype,
        "trust_remote_code": trust_remote_code,
        "allow_pickle": allow_pickle,
    }
    asked: dict[str, Any] = {
        "first_token": first_token,
        "max_length": max_length,
        "stride": stride,
        "on_lossy_text": on_lossy_text,
    }
    tokenizers: dict[str, Any] = {"target_tokenizer": target_tokenizer, "oracle_tokenizer": oracle_tokenizer}
    question = {
        "samples": _record(sets[0]),
        "control": None if control is None else _record(sets[1]),
        "oracle": _identity(oracle, given, oracle_revision),
        "joint": joint,
        "dtype": None if dtype is None else str(dtype).removeprefix("torch."),
        **asked,
        **{name: _named(one) for name, one in tokenizers.items()},
    }
    kept = Kept(output, question, overwrite)
    points = _Points(kept, sets, joint)
    points.take_kept(checkpoints)
    for checkpoint in checkpoints:
        if checkpoint.name in points.readings:
            continue
        source, common = checkpoint.source, how | {"batch_size": check_batch_size(batch_size, max_batch_tokens)}
        if points.first is None:
            own = {"oracle_revision": oracle_revision, "progress": progress, "given": given} | tokenizers | asked
            work = partial(first_pairs, source, None if given else oracle, sets, **own, **common)
        else:
            bar = progress and checkpoint.name
            work = partial(
                pairs_like, source, sets, pairs_of(points.first), tokenizer=target_tokenizer, progress=bar, **common
            )
        points.measure(checkpoint, work)
    return points.trajectory(checkpoints, [one.name for one in left_out])


def read_sets(
    samples: SamplesLike, control: SamplesLike | None, text_column: str, limit: int | None, groups: Any
) -> list[Samples]:
    """Samples, and control where there is one, checked to have nothing in common."""
    of = (groups, None) if control is None else groups_of_both(groups)
    sets = [read_samples(samples, text_column=text_column, limit=limit, groups=of[0])]
    if control is not None:
        sets.append(read_samples(control, text_column=text_column, limit=limit, groups=of[1]))
        check_disjoint(*sets)
    return sets


def pairs_of(found: Memorization) -> list[Pair]:
    """The code lengths of a measurement, whose rules and oracle hold for all that follow."""
    pairs = [(found.target, found.oracle)]
    return pairs if found.control is None else [*pairs, (found.control.target, found.control.oracle)]


@dataclass(slots=True)
class _Points:
    """What has been measured so far."""

    kept: Kept
    sets: list[Samples]
    joint: JointCode
    readings: dict[str, Reading] = field(default_factory=dict)
    said: dict[str, list[tuple[str, str]]] = field(default_factory=dict)
    files: dict[str, dict[str, str] | None] = field(default_factory=dict)
    missing: list[str] = field(default_factory=list)
    gone: list[str] = field(default_factory=list)
    first: Memorization | None = None

    def take_kept(self, checkpoints: Sequence[Checkpoint]) -> None:
        """What an earlier call has measured: of checkpoints that have not changed, and of those that are gone."""
        for checkpoint in checkpoints:
            files = self.files[checkpoint.name] = files_of(checkpoint.source)
            hit = self.kept.find(checkpoint, files)
            if hit is not None:
                self._add(checkpoint, *hit)
        for checkpoint, found, said in self.kept.gone(list(checkpoints)):
            if self._add(checkpoint, found, said):
                self.gone.append(checkpoint.name)
        if self.readings:
            log.info("track: %d checkpoints are measured already", len(self.readings))

    def measure(self, checkpoint: Checkpoint, work: Callable[[], list[Pair]]) -> None:
        """Measure a checkpoint and keep the result; one that has vanished, or is vanishing, is noted."""
        files = self.files[checkpoint.name]
        try:
            with warnings.catch_warnings(record=True) as said:
                warnings.simplefilter("always")
                pairs = work()
                documents = [
                    part.as_measured(pair[0].settings["samples"]).groups
                    for part, pair in zip(self.sets, pairs, strict=True)
                ]
                found = memorization_of(pairs, joint=self.joint, groups=documents)
        except Exception:
            if checkpoint.is_gone or (files is not None and files_of(checkpoint.source) != files):
                self.missing.append(checkpoint.name)
                return
            raise
        kinds = told(said)
        self._add(checkpoint, found, kinds)
        self.kept.keep(checkpoint, files, found, kinds)

    def _add(self, checkpoint: Checkpoint, found: Memorization, said: list[tuple[str, str]]) -> bool:
        """Take a measurement in, unless another oracle's lengths are in it than in the others."""
        if self.first is None:
            self.first = found
        elif not np.array_equal(found.oracle.token_bits, self.first.oracle.token_bits):
            return False
        self.readings[checkpoint.name] = read(found, checkpoint.name, checkpoint.step)
        self.said[checkpoint.name] = said
        return True

    def trajectory(self, checkpoints: Sequence[Checkpoint], left_out: list[str]) -> Trajectory:
        """The result, and the warnings of all checkpoints."""
        if self.first is None:
            raise ModelError(
                f"every checkpoint vanished before it could be measured ({', '.join(self.missing)}). Does a training "
                "run that goes on delete them (save_total_limit)? Keep them, or measure while it trains: "
                "MemorizationCallback."
            )
        if self.missing:
            warn(f"{', '.join(self.missing)} vanished before being measured; all others were.", MeasurementWarning)
        order = [one.name for one in checkpoints if one.name in self.readings]
        names = [*(name for name in self.gone if name in self.readings), *order]
        if not any(math.isnan(self.readings[name].step) for name in names):
            names.sort(key=lambda name: self.readings[name].step)
        said = {name: self.said[name] for name in names}
        warn_once(said)
        more = {
            "warnings": said,
            "weights": {name: self.files.get(name) for name in names},
            "missing": self.missing,
            "gone": self.gone,
            "left_out": left_out,
        }
        # Of these samples, not of those that came when the first checkpoint was measured: with the same texts, they may
        # have other ids and columns.
        about = self.sets[0].as_measured(self.first.target.settings["samples"]).about
        return trajectory_of([self.readings[name] for name in names], self.first, about, more)


def _without_oracle(checkpoints: list[Checkpoint], oracle: Any) -> tuple[list[Checkpoint], list[Checkpoint]]:
    """The checkpoints that are not the oracle, and those that are."""
    if not isinstance(oracle, (str, os.PathLike)):
        return checkpoints, []
    place = os.path.realpath(os.path.expanduser(str(oracle)))
    weights = weight_digests(place)
    same = [
        one
        for one in checkpoints
        if place == one.place or one.source == str(oracle) or (weights and weight_digests(one.place) == weights)
    ]
    if not same:
        return checkpoints, []
    names = ", ".join(one.name for one in same)
    if len(same) == len(checkpoints):
        raise InputError(
            f"the oracle ({oracle}) is the only checkpoint ({names}), or has its weights: memU against itself is 0. "
            "Name an oracle that has not seen the samples."
        )
    warn(
        f"{names} is the oracle ({oracle}), or has its weights, and is left out: memU against itself is 0. If it has "
        "been trained on the samples, what it has memorized of them is missing in memU of all others: take the model "
        "from before the training.",
        SameModelWarning,
    )
    return [one for one in checkpoints if one not in same], same


def _record(samples: Samples) -> dict[str, Any]:
    """What tells samples apart, wherever they came from."""
    record = samples.record() | {"source": None, "groups": None}
    if samples.groups is not None:
        record["groups"] = hashlib.sha256(repr(samples.groups).encode()).hexdigest()
    return record


def _identity(oracle: Any, given: Sequence[CodeLengths] | None, revision: str | None) -> Any:
    """What tells oracles apart; of a model in memory nothing does, so that a later call measures anew."""
    if given:
        return [hashlib.sha256(one.token_bits.tobytes()).hexdigest() for one in given]
    if isinstance(oracle, (str, os.PathLike)):
        return files_of(os.path.expanduser(str(oracle))) or [str(oracle), revision]
    return repr(oracle) if isinstance(oracle, UniformModel) else f"in memory, {uuid.uuid4().hex}"


def _named(tokenizer: Any) -> Any:
    if tokenizer is None or isinstance(tokenizer, (str, os.PathLike)):
        return None if tokenizer is None else str(tokenizer)
    record = tokenizer_record(tokenizer)
    return record and record["vocab_sha256"]
