"""`MemorizationCallback`: memU of a watch list while a transformers Trainer trains."""

import math
import random
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, Literal, Protocol, runtime_checkable

import numpy as np
import torch

from memorization.coding.joint import JointCode
from memorization.errors import InputError
from memorization.integers import check_integer
from memorization.measure.batches import check_batch_size
from memorization.measure.tokenizers import TokenizerLike
from memorization.samples import GroupsLike, SamplesLike
from memorization.tracking.measure import OracleLike, pairs_of, read_sets
from memorization.tracking.passes import first_pairs, oracle_given, pairs_like
from memorization.tracking.reading import Reading, read, told, warn_once
from memorization.tracking.result import Trajectory, trajectory_of
from memorization.unintended import Memorization
from memorization.unintended.measure import memorization_of

__all__ = ["LOGGED", "MemorizationCallback"]

# What the Trainer logs, by the names of a trajectory's columns; what is unknown is not logged.
LOGGED = ("mean_bits", "net_bits", "control_mean_bits", "n_memorized")
_PREFIX = "memorization/"


@runtime_checkable
class TrainsAndLogs(Protocol):
    """What a transformers Trainer can do, as far as it is needed here."""

    def add_callback(self, callback: Any) -> Any:
        """Tell this callback of what happens."""

    def log(self, logs: dict[str, float]) -> Any:
        """Log these figures."""


class MemorizationCallback:
    """memU of a watch list of samples against a fixed oracle, in bits, while a transformers Trainer trains.

    The oracle is run once, at the start. The model is measured before the first step, then every so many steps or at
    each save, and at the end. The Trainer logs "memorization/mean_bits" (memU a sample), and with a control
    "memorization/net_bits" (memU over the control's, in all), "memorization/control_mean_bits" and
    "memorization/n_memorized" (at a false discovery rate of 5 %; left out where it cannot be told).

    Two ways to hand it in: `Trainer(..., callbacks=[callback])` writes into `trainer.state.log_history`; what else the
    Trainer reports to, such as TensorBoard, gets it by `MemorizationCallback(...).add_to(trainer)`.

    Args:
        oracle: as for `track`: a model, a folder, or saved code lengths. Mostly the folder of the model that is
            fine-tuned.
        samples: the watch list, as for `compress_bits`: a few hundred of the training data.
        control: samples like them that neither model sees. Without a control nothing tells memorization from
            generalization.
        every: steps between two measurements; None measures at each save.
        tokenizer: of the model that is trained; None is the Trainer's `processing_class`.
        oracle_tokenizer: None is the oracle's own.
        joint: as for `unintended_memorization`, as are all that follow.
        first_token: one rule for both models, decided at the start.
        max_length: inputs a window holds.
        stride: new tokens of each window after the first.
        batch_size: samples a forward pass.
        max_batch_tokens: tokens a forward pass, padding counted, at most.
        text_column: column of a file or data set.
        limit: only the first so many samples, and control samples.
        groups: which document each sample is of.
        trust_remote_code: run code that an oracle brings.
        allow_pickle: load pickled weights of an oracle, which can run code.

    Raises:
        InputError: an option or samples that cannot be used; while training, a model whose weights are spread over
            processes (FSDP, DeepSpeed ZeRO-3).

    Guarantees:
        The training goes on as without it: modes, weights, gradients, devices and random states are as they were. Only
        the main process measures.

    Examples:
        >>> from memorization import MemorizationCallback, UniformModel
        >>> watch = MemorizationCallback(UniformModel(256), [[1, 2, 3]], every=100)
        >>> watch.result
        Traceback (most recent call last):
            ...
        memorization.errors.InputError: no checkpoint has been measured, so there is no trajectory.
    """

    def __init__(
        self,
        oracle: OracleLike,
        samples: SamplesLike,
        control: SamplesLike | None = None,
        *,
        every: int | None = None,
        tokenizer: TokenizerLike | None = None,
        oracle_tokenizer: TokenizerLike | None = None,
        joint: JointCode = "max",
        first_token: str | int = "auto",
        max_length: int | None = None,
        stride: int | None = None,
        batch_size: int | Literal["auto"] = "auto",
        max_batch_tokens: int | None = None,
        text_column: str = "text",
        limit: int | None = None,
        groups: GroupsLike | tuple[GroupsLike, GroupsLike] | None = None,
        trust_remote_code: bool = False,
        allow_pickle: bool = False,
    ) -> None:
        if joint not in ("max", "mixture", "switch"):
            raise InputError(f'joint must be "max", "mixture" or "switch"; it is {joint!r}.')
        self.every = None if every is None else check_integer("every", every, besides="None")
        self._sets = read_sets(samples, control, text_column, limit, groups)
        self._given = oracle_given(oracle, has_control=control is not None)
        self._oracle = None if self._given else oracle
        self._joint, self._tokenizer = joint, tokenizer
        self._batch_size = check_batch_size(batch_size, max_batch_tokens)
        self._at_first: dict[str, Any] = {
            "oracle_tokenizer": oracle_tokenizer,
            "first_token": first_token,
            "max_length": max_length,
            "stride": stride,
            "trust_remote_code": trust_remote_code,
            "allow_pickle": allow_pickle,
        }
        self._log: Any = None
        self._first: Memorization | None = None
        self._readings: dict[int, Reading] = {}
        self._said: dict[int, list[tuple[str, str]]] = {}

    def add_to(self, trainer: TrainsAndLogs) -> "MemorizationCallback":
        """Add this callback to a Trainer, and log by the Trainer's own `log`, which tells all that it reports to.

        Args:
            trainer: of transformers, or one that is derived from it.

        Returns:
            The callback itself.
        """
        trainer.add_callback(self)
        self._log = trainer.log
        return self

    @property
    def result(self) -> Trajectory:
        """What has been measured up to now, as a `Trajectory`: it can be saved, loaded and drawn.

        Raises:
            InputError: nothing has been measured yet.
        """
        steps = sorted(self._readings)
        said = {self._readings[step].name: self._said[step] for step in steps}
        more = {"warnings": said, "weights": {}, "missing": [], "gone": [], "left_out": []}
        return trajectory_of([self._readings[step] for step in steps], self._first, None, more)

    def _on_train_begin(self, args: Any, state: Any, control: Any, model: Any = None, **others: Any) -> None:
        """Measure oracle and model; of an earlier training, only what this one goes on from is kept."""
        _check_whole(args)
        self._readings = {step: one for step, one in self._readings.items() if step <= state.global_step}
        if state.global_step == 0:
            self._readings, self._first = {}, None
        self._measure(state, control, model, others)

    def _on_step_end(self, args: Any, state: Any, control: Any, model: Any = None, **others: Any) -> None:
        """Measure every so many steps."""
        if self.every is not None and state.global_step % self.every == 0:
            self._measure(state, control, model, others)

    def _on_save(self, args: Any, state: Any, control: Any, model: Any = None, **others: Any) -> None:
        """Measure what was saved."""
        if self.every is None:
            self._measure(state, control, model, others)

    def _on_train_end(self, args: Any, state: Any, control: Any, model: Any = None, **others: Any) -> None:
        """Measure the last step, and warn of what the measurements warned of."""
        self._measure(state, control, model, others)
        if self._readings:
            warn_once({self._readings[step].name: self._said[step] for step in sorted(self._readings)})

    def __getattr__(self, name: str) -> Any:
        if name.startswith("on_"):  # an event; most are nothing to it, those of other versions among them
            return getattr(self, f"_{name}", _nothing)
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    def _measure(self, state: Any, control: Any, model: Any, others: dict[str, Any]) -> None:
        step = int(state.global_step)
        if step in self._readings or not state.is_world_process_zero:
            return
        tokenizer = self._tokenizer or others.get("processing_class") or others.get("tokenizer")
        how: dict[str, Any] = {"batch_size": self._batch_size, "progress": False}
        with _untouched(), warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            if self._first is None:
                own = {**self._at_first, **how, "target_tokenizer": tokenizer, "given": self._given}
                work = partial(first_pairs, model, self._oracle, self._sets, **own)
            else:
                work = partial(pairs_like, model, self._sets, pairs_of(self._first), tokenizer=tokenizer, **how)
            pairs = work()
            documents = [
                part.as_measured(pair[0].settings["samples"]).groups
                for part, pair in zip(self._sets, pairs, strict=True)
            ]
            found = memorization_of(pairs, joint=self._joint, groups=documents)
            reading = read(found, f"checkpoint-{step}", float(step))
        kinds = told(said)
        if self._first is None:
            self._first = found
            # Before the first step the model is the oracle, if that is what it was made of.
            kinds = [pair for pair in kinds if pair[0] != "SameModelWarning"]
        self._readings[step], self._said[step] = reading, kinds
        self._tell(state, control, reading)

    def _tell(self, state: Any, control: Any, reading: Reading) -> None:
        """Log what was measured."""
        logs = {f"{_PREFIX}{name}": float(reading.row[name]) for name in LOGGED if not math.isnan(reading.row[name])}
        if self._log is None:
            epoch = {} if state.epoch is None else {"epoch": state.epoch}
            state.log_history.append({**logs, **epoch, "step": state.global_step})
            return
        due = control.should_log
        self._log(logs)
        control.should_log = due  # what the Trainer wants to log of this step itself is still to come


def _nothing(*_: Any, **__: Any) -> None:
    """An event that is let pass."""


def _check_whole(args: Any) -> None:
    """Refuse a training in which no process has the whole model."""
    deepspeed = getattr(args, "hf_deepspeed_config", None)
    spread = "FSDP" if getattr(args, "fsdp", None) else "DeepSpeed ZeRO-3" if deepspeed and deepspeed.is_zero3() else ""
    if spread:
        raise InputError(
            f"MemorizationCallback needs the whole model in one process, and {spread} spreads it over all. Save "
            "checkpoints, and measure them with track."
        )


@contextmanager
def _untouched() -> Iterator[None]:
    """Random states are as they were after the block."""
    states = torch.get_rng_state(), random.getstate(), np.random.get_state()  # noqa: NPY002  # that of whoever trains
    on_gpus = torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else None
    try:
        yield
    finally:
        torch.set_rng_state(states[0])
        random.setstate(states[1])
        np.random.set_state(states[2])  # noqa: NPY002
        if on_gpus is not None:
            torch.cuda.set_rng_state_all(on_gpus)
