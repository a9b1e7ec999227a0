"""Canaries measured in a model that was trained on them; and models trained on them and measured."""

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Int64
from torch import Tensor, nn

from memorization.errors import DivergedError, ImpossibleTokenError, InputError, ModelError
from memorization.extraction import extract
from memorization.integers import check_integer, check_integers
from memorization.lab.builders import Builder, known_builder
from memorization.lab.canaries.checks import check_canaries, different_counts, repetitions_of, token_rows
from memorization.lab.canaries.making import insert_canaries, make_canaries
from memorization.lab.canaries.result import DoseResponse, assemble, warn_of_faults
from memorization.lab.cells import Cell, OnSteps, Outcome, device_of, experiment, measure_each, stackable, train_cells
from memorization.lab.engines.chosen import EngineLike, engine_of
from memorization.lab.engines.runs import run_cells, until_finished, versions_of
from memorization.lab.options import check_positive
from memorization.lab.store import Store
from memorization.measure.code_lengths import CodeLengths
from memorization.measure.opening import DeviceLike, DTypeLike, ModelLike, UniformModel, open_model
from memorization.results import describe_model, versions
from memorization.stats.arrays import ArrayLike
from memorization.unintended import unintended_memorization

__all__ = ["DoseResponse", "canary_dose_response", "dose_response"]


def dose_response(
    target: ModelLike,
    canaries: ArrayLike,
    repetitions: ArrayLike,
    *,
    vocab_size: int,
    first_token: str | int = "auto",
    batch_size: int | Literal["auto"] = "auto",
    device: DeviceLike | None = None,
    dtype: DTypeLike | None = None,
    progress: bool = True,
) -> DoseResponse:
    """memU, in bits, of canaries in a model that you have trained on them, against the number of repetitions.

    The oracle is exact: canaries were drawn uniformly, so H(x | oracle) is n log2 V, and all that the target codes them
    below that it has memorized.

    Args:
        target: the trained model, as `compress_bits` takes it.
        canaries: int64 (canary, position), as `make_canaries` gave them; no two are equal.
        repetitions: how often each canary stands in the training set, one number a canary. 0 for those that the model
            was not trained on, the control; at least two canaries of each number.
        vocab_size: what the canaries were drawn from, [0, vocab_size). The model's vocabulary may be larger.
        first_token: what stood before each sample in training, as for `compress_bits`. With "uniform" and "skip", the
            first token carries no information.
        batch_size: samples a forward pass.
        device: where to measure.
        dtype: of the weights of a model that is loaded here.
        progress: a bar on stderr.

    Returns:
        memU a canary, whether greedy decoding writes its second half out and how probable that half is; means and
        shares a count; and the trend.

    Raises:
        InputError: canaries with ids outside the vocabulary, equal ones, too few of a count, negative counts.
        ModelError: as for `compress_bits`, or a model with a vocabulary smaller than vocab_size.

    Warns:
        MeasurementWarning: the control is memorized: it was trained on, or not drawn uniformly from [0, vocab_size); or
            memU is above the information of a canary: the measurement is at fault.

    Guarantees:
        memU of a canary is at most n log2 V, and 1 bit for the rounding of the coder. Whatever the model, a control
        canary has a signed memU of k bits or more with probability 2^-k at most (ideal bits), so its memU is 1.44 bits
        at most in expectation. ideal_signed_bits is at most the canary's exposure.
        A second half with a probability above 1/2 is always written out by greedy decoding; less does not rule it out.

    Examples:
        >>> canaries = make_canaries(4, seq_len=16, vocab_size=256)
        >>> nothing = dose_response(UniformModel(256), canaries, [0, 0, 1, 1], vocab_size=256, first_token=0)
        >>> nothing.information_bits, nothing.to_pandas()["mean_bits"].tolist(), nothing.trend_p_value
        (128.0, [0.0, 0.0], 1.0)

    Source:
        memU: Morris et al., arXiv:2505.24832, section 2.3. Canaries and exposure: Carlini et al., arXiv:1802.08232.
    """
    vocab_size = check_integer("vocab_size", vocab_size, at_least=2)
    ids = token_rows("canaries", canaries, vocab_size)
    times = repetitions_of(repetitions, len(ids))
    check_canaries(ids, times)
    columns, facts = _measure(
        target,
        ids,
        vocab_size,
        first_token=first_token,
        batch_size=batch_size,
        device=device,
        dtype=dtype,
        progress=progress,
    )
    settings = {**facts, "n_training_samples": None, "training": None, "seeds": None}
    return _result([{"repetitions": times, **columns}], settings)


def canary_dose_response(
    build_model: Builder,
    background: ArrayLike,
    *,
    vocab_size: int,
    repetitions: Sequence[int] = (1, 2, 5, 10, 20, 50, 100),
    n_canaries: int = 16,
    seeds: Sequence[int] = (0, 1),
    epochs: int | float = 1,
    batch_size: int = 32,
    peak_lr: float = 0.01,
    device: DeviceLike | None = None,
    store: str | Path | None = None,
    engine: EngineLike = "local",
    shard: str | None = None,
    progress: bool = True,
) -> DoseResponse:
    """Train models on a background with canaries, and measure in bits how much of each they hold, by repetitions.

    Each seed draws canaries of its own, n_canaries for each count and as many for the control, which is not trained on.
    Its model reads token 0 and then a sample, and is trained on the shuffled rows by `train_stack`, the models of all
    seeds side by side. With epochs=1 a canary is seen `repetitions` times (some once more, where rows have to fill up
    the last batch).

    Args:
        build_model: called with (vocab_size, seq_len), returns a module that maps int64 ids (sample, position) to
            logits, without dropout; for example a `memorization.lab.architectures.Architecture`.
        background: int64 token ids (sample, position), text or random; canaries have its length.
        vocab_size: V; ids lie in [0, V), and canaries are drawn from it.
        repetitions: the counts, different positive integers.
        n_canaries: for each count, at least 2.
        seeds: one training for each; weights, canaries and the order of samples are drawn from separate streams of a
            seed.
        epochs: passes over the training set.
        batch_size: samples a step.
        peak_lr: learning rate at the end of the warm-up.
        device: torch device; None: a GPU if there is one.
        store: folder or fsspec URL that keeps each finished seed: made again, the call trains only what is missing.
        engine: where models are trained, as for `capacity_bits_per_param`.
        shard: "k/n", to train only every n-th seed, as for `capacity_bits_per_param`.
        progress: a bar on stderr.

    Returns:
        As for `dose_response`, a count's canaries of all seeds together. Intervals are over canaries, those of one
        training taken for independent: they say how sure the mean is for these models, not what other trainings would
        give.

    Raises:
        InputError: options that cannot be used, or background ids outside the vocabulary.
        ModelError: a model that has the wrong output.
        DivergedError: a model diverges.
        ResultError: the store belongs to another experiment.
        UnfinishedError: a shard has trained its seeds, and nobody is at work on the others.

    Warns:
        MeasurementWarning: as for `dose_response`.

    Guarantees:
        Those of `dose_response`. torch's global generator is left as it was. A finished seed is never trained again
        with the same store. A seed's result does not depend on the others, up to the rounding of a stack.

    Examples:
        Two steps teach nothing, so nothing is memorized.

        >>> from memorization.lab.architectures import Architecture
        >>> from memorization.lab.random_tokens import random_tokens
        >>> result = canary_dose_response(
        ...     Architecture("gpt2", width=4),
        ...     random_tokens(60, seq_len=8, vocab_size=16, seed=0),
        ...     vocab_size=16,
        ...     repetitions=[1],
        ...     n_canaries=4,
        ...     seeds=[0],
        ...     peak_lr=1e-5,
        ...     progress=False,
        ... )
        >>> result.information_bits, bool(result.to_pandas()["mean_bits"].max() < 1.5)
        (32.0, True)

    Source:
        Carlini et al., arXiv:1802.08232, for canaries in a training set; the measurement is that of Morris et al.,
        arXiv:2505.24832.
    """
    vocab_size, counts = check_integer("vocab_size", vocab_size, at_least=2), different_counts(repetitions)
    rows = token_rows("background", background, vocab_size)
    n_canaries = check_integer("n_canaries", n_canaries, at_least=2)
    seeds, batch_size = check_integers("seeds", seeds), check_integer("batch_size", batch_size)
    epochs, peak_lr = check_positive("epochs", epochs), check_positive("peak_lr", peak_lr)
    times = np.repeat([0, *counts], n_canaries)
    runs_by = engine_of(engine, shard)
    place = device_of(device)
    hidden = Hidden(rows, times, vocab_size, str(place))
    for seed in seeds:
        check_canaries(hidden.canaries(seed), times)
    known = known_builder(build_model, vocab_size, hidden.seq_len)
    n_rows = len(rows) + int(times.sum())
    steps = math.ceil(epochs * n_rows / batch_size)
    facts: dict[str, Any] = {
        "seq_len": hidden.seq_len,
        "vocab_size": vocab_size,
        "repetitions": counts,
        "n_canaries": n_canaries,
        "background_sha256": hashlib.sha256(rows.numpy().astype("<i8").tobytes()).hexdigest(),
    }
    kept = Store(store, experiment("memU of canaries", place, **facts))
    train = partial(
        run_cells,
        [Cell(known.identity, known.params.total, n_rows, seed, peak_lr, steps, batch_size) for seed in seeds],
        partial(train_and_measure, build_model, stackable(build_model, vocab_size, hidden.seq_len, place), hidden),
        kept,
        device=place,
        logits_a_cell=batch_size * hidden.seq_len * vocab_size,
        name=f"{len(seeds)} models, {steps} steps",
        progress=progress,
        engine=runs_by,
    )
    runs = until_finished(train, kept)
    for run in runs:
        if run["diverged_at"] is not None:
            raise DivergedError(
                f"training with seed {run['seed']} diverged at step {run['diverged_at']} of {steps} with "
                f"peak_lr={peak_lr:g}; give a lower peak_lr, such as {peak_lr / 4:g}."
            )
    training = {
        "model": known.identity,
        "epochs": epochs,
        "steps": steps,
        "batch_size": batch_size,
        "peak_lr": peak_lr,
    }
    settings = {
        **runs[0]["facts"],
        "model": known.name,
        "n_training_samples": n_rows,
        "training": training,
        "seeds": seeds,
        "background_sha256": facts["background_sha256"],
        "versions": versions_of(runs),
    }
    return _result([{"repetitions": times, **run["columns"]} for run in runs], settings)


@dataclass(frozen=True, slots=True, eq=False)
class Hidden:
    """A background, and how often canaries are hidden in it, as plain data; each seed draws canaries of its own."""

    background: Int64[Tensor, "sample position"]
    times: Int64[np.ndarray, " canary"]
    vocab_size: int
    device: str

    @property
    def seq_len(self) -> int:
        """Tokens of a sample, and of a canary."""
        return self.background.shape[1]

    def canaries(self, seed: int) -> Int64[Tensor, "canary position"]:
        """The canaries of one seed."""
        return make_canaries(len(self.times), self.seq_len, self.vocab_size, seed=seed)


def train_and_measure(
    build: Builder, stacked: bool, hidden: Hidden, cells: Sequence[Cell], on_steps: OnSteps
) -> list[Outcome]:
    """Train one stack of seeds and measure the canaries of each.

    Plain data in, JSON out; the builder comes apart from them.
    """
    canaries = [hidden.canaries(cell.seed) for cell in cells]
    models, done = train_cells(
        cells,
        [insert_canaries(hidden.background, own, hidden.times) for own in canaries],
        build=build,
        vocab_size=hidden.vocab_size,
        context=0,
        device=torch.device(hidden.device),
        stacked=stacked,
        on_steps=on_steps,
    )
    measure = partial(_measured, hidden.vocab_size, cells[0].steps)
    return measure_each(measure, models, canaries, done.diverged_at.tolist())


def _measured(
    vocab_size: int, steps: int, model: nn.Module, canaries: Int64[Tensor, "canary position"], diverged_at: int
) -> dict[str, Any]:
    """What a store keeps of a trained model."""
    if diverged_at >= 0:
        return {"columns": None, "facts": None, "diverged_at": diverged_at}
    try:
        columns, facts = _measure(model, canaries, vocab_size, first_token=0, progress=False)
    except ImpossibleTokenError:  # training looks before each update, so the last one may break it
        return _measured(vocab_size, steps, model, canaries, steps)
    return {"columns": {name: values.tolist() for name, values in columns.items()}, "facts": facts, "diverged_at": None}


def _measure(
    target: ModelLike,
    canaries: Int64[Tensor, "canary position"],
    vocab_size: int,
    *,
    first_token: str | int,
    batch_size: int | Literal["auto"] = "auto",
    device: DeviceLike | None = None,
    dtype: DTypeLike | None = None,
    progress: bool,
) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """The columns of the canaries' table, and what their measurement was."""
    n_canaries, seq_len = canaries.shape
    options: dict[str, Any] = {"batch_size": batch_size, "progress": progress}
    with open_model(target, device=device, dtype=dtype, max_length=seq_len, progress=progress) as opened:
        oracle = UniformModel(vocab_size)
        measured = unintended_memorization(
            opened, oracle, canaries, first_token=first_token, max_length=seq_len, **options
        )
        _check_measured(measured.target, vocab_size)
        rule = measured.target.settings["first_token"]
        context = rule["rule"] if rule["id"] is None else rule["id"]
        prefix = seq_len - seq_len // 2
        greedy = extract(opened, canaries, prefix_tokens=[prefix], first_token=context, **options)
    token_bits = measured.target.token_bits.reshape(n_canaries, -1)
    columns = {
        "bits": measured.bits,
        "signed_bits": measured.signed_bits,
        "ideal_signed_bits": measured.ideal_signed_bits,
        "second_half_bits": token_bits[:, -(seq_len // 2) :].sum(axis=1),
        "prefix_needed": greedy.prefix_needed.astype(np.float64),
    }
    # A first token that is coded uniformly, or not at all, costs both models the same.
    n_coded = seq_len - (rule["rule"] in ("uniform", "skip"))
    facts: dict[str, Any] = {
        "seq_len": seq_len,
        "vocab_size": vocab_size,
        "information_bits": n_coded * math.log2(vocab_size),
        "first_token": rule,
        "model": describe_model(measured.target.settings["model"]),
        "versions": versions(),
    }
    return columns, facts


def _check_measured(lengths: CodeLengths, vocab_size: int) -> None:
    """Refuse a model that lacks ids that canaries are drawn from, and a canary that lost its first token."""
    record, rule = lengths.settings["model"], lengths.settings["first_token"]
    if record["vocab_size"] < vocab_size:
        raise ModelError(
            f"{record['name']} has logits for {record['vocab_size']} tokens, and vocab_size={vocab_size}: canaries "
            "that were drawn from so many would hold ids that the model does not know. Pass the vocab_size that they "
            "were drawn from."
        )
    short = np.flatnonzero(lengths.n_tokens < lengths.n_tokens.max())
    if len(short):
        raise InputError(
            f"canary {short[0]} begins with the BOS, which is taken for its context, so it has a token less than "
            f"others; pass the id as first_token={rule['id']}, which codes it."
        )


def _result(runs: list[dict[str, Any]], settings: dict[str, Any]) -> DoseResponse:
    import pandas as pd

    tables = []
    for run, columns in enumerate(runs):
        columns = {name: np.asarray(values) for name, values in columns.items()}
        tables.append(pd.DataFrame({"run": run, "canary": np.arange(len(columns["repetitions"])), **columns}))
    canaries = pd.concat(tables, ignore_index=True)
    result = assemble(canaries, {**settings, "n_canaries": len(canaries)})
    warn_of_faults(result)
    return result
