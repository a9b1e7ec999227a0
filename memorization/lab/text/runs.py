"""Runs of a sweep over text: models trained on their data sets, then measured, attacked and tried for extraction."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Int64
from torch import Tensor, nn

from memorization.errors import ImpossibleTokenError
from memorization.extraction import extract
from memorization.lab.architectures import ParamCounts
from memorization.lab.builders import Builder
from memorization.lab.cells import Cell, OnSteps, Outcome, Run, measure_each, train_cells
from memorization.lab.engines.engine import Engine
from memorization.lab.engines.runs import run_cells
from memorization.lab.pilot import best_rate
from memorization.lab.store import Store
from memorization.measure.code_lengths import CodeLengths
from memorization.measure.compress import compress_bits
from memorization.measure.opening import OpenModel, open_model
from memorization.membership import (
    f1_and_auc,
    loss_attack,
    min_k_attack,
    min_k_plus_plus_attack,
    token_moments,
    zlib_bits,
)

__all__ = ["ModelSize", "TextData", "runs_of_size", "train_and_measure"]

_PILOT_RATES = (0.04, 0.02, 0.01, 0.005)
_MORE_PILOTS = 3
_PILOT_SHARE = 4  # a pilot takes this part of a run's steps
_PILOT = "pilot"


@dataclass(frozen=True, slots=True)
class ModelSize:
    """One model size: how to build it, and the data sets it is trained on."""

    build: Builder
    identity: str
    params: ParamCounts
    n_samples: tuple[int, ...]
    stacked: bool  # whether vmap runs its models


@dataclass(frozen=True, slots=True, eq=False)
class TextData:
    """What all runs have in common, as plain data and a tokenizer.

    Attributes:
        pool: samples that data sets are drawn from.
        test: samples that no model is trained on.
        vocab_size: tokens there are.
        members: of each seed the pool samples in its order; a data set is the first of them.
        context: the token that stands before each sample.
        prefix_tokens: prefixes for extraction.
        tokenizer: for the texts of samples; None where they came as token ids.
        device: where models are trained and measured.
    """

    pool: Int64[Tensor, "sample position"]
    test: Int64[Tensor, "test position"]
    vocab_size: int
    members: dict[int, Int64[np.ndarray, " member"]]
    context: int
    prefix_tokens: tuple[int, ...]
    tokenizer: Any
    device: str

    def members_of(self, cell: Cell) -> Int64[Tensor, "member position"]:
        """The data set of a run."""
        return self.pool[self.members[cell.seed][: cell.n_samples]]


def runs_of_size(
    data: TextData,
    size: ModelSize,
    store: Store,
    *,
    steps: int,
    batch_size: int,
    peak_lr: Literal["auto"] | float,
    progress: bool,
    engine: Engine,
) -> list[Run]:
    """One model size on all its data sets: read where they were run before, else trained, measured and kept."""

    def cell(n_samples: int, seed: int, rate: float, steps: int, part: str = "run") -> Cell:
        return Cell(size.identity, size.params.total, n_samples, seed, rate, steps, batch_size, part)

    def run(cells: Sequence[Cell], name: str) -> list[Run]:
        return run_cells(
            cells,
            partial(train_and_measure, size.build, size.stacked, data),
            store,
            device=torch.device(data.device),
            logits_a_cell=batch_size * data.pool.shape[1] * data.vocab_size,
            name=f"{size.params.total:,} parameters, {name}",
            progress=progress,
            engine=engine,
        )

    few = max(1, steps // _PILOT_SHARE)
    some = sorted({size.n_samples[len(size.n_samples) // 2], size.n_samples[-1]})  # a middling and the largest data set
    first_seed = next(iter(data.members))

    def saved_bits_at(rates: Sequence[float]) -> dict[float, float | None]:
        cells = [cell(n, first_seed, rate, few, _PILOT) for rate in rates for n in some]
        bits = [(found["peak_lr"], found["bits"]) for found in run(cells, f"pilot, {few} steps")]
        by_rate = {rate: [each for of, each in bits if of == rate] for rate in rates}
        return {rate: None if None in found else -sum(found) for rate, found in by_rate.items()}

    rate = best_rate(_PILOT_RATES, saved_bits_at, widen=_MORE_PILOTS) if peak_lr == "auto" else float(peak_lr)
    cells = [cell(n, seed, rate, steps) for n in size.n_samples[::-1] for seed in data.members]
    runs = run(cells, f"{len(cells)} runs, {steps} steps")
    return [{**found, "n_non_embedding_params": size.params.non_embedding} for found in runs]


def train_and_measure(
    build: Builder, stacked: bool, data: TextData, cells: Sequence[Cell], on_steps: OnSteps
) -> list[Outcome]:
    """Train one stack of cells and measure each model; a pilot is measured by its training. JSON out."""
    models, done = train_cells(
        cells,
        [data.members_of(cell) for cell in cells],
        build=build,
        vocab_size=data.vocab_size,
        context=data.context,
        device=torch.device(data.device),
        stacked=stacked,
        on_steps=on_steps,
    )
    per_token = [bits if math.isfinite(bits) else None for bits in done.bits_per_token.tolist()]
    if cells[0].part == _PILOT:
        return [{"bits": bits} for bits in per_token]
    return measure_each(partial(_measured, data), models, per_token, cells)


def _measured(data: TextData, model: nn.Module, bits_per_token: float | None, cell: Cell) -> dict[str, Any]:
    """Bits of all members and test samples; attacks and extraction on equally many of both; None if it diverged."""
    members = data.members_of(cell)
    n_each = min(len(members), len(data.test))
    test = data.test[:n_each]
    if bits_per_token is None:
        return {"member_bits": None, "failed": f"diverged at a rate of {cell.peak_lr:g}: give a lower peak_lr"}
    try:
        # Opened once for code lengths, moments and extraction.
        with open_model(model, max_length=members.shape[1], progress=False) as opened:
            on_members, on_test = _lengths(data, opened, members), _lengths(data, opened, data.test)
            pair = _head(on_members, n_each), _head(on_test, n_each)
            scores = _scores(data, opened, pair, (members[:n_each], test))
            taken = extract(
                opened,
                members[:n_each],
                test,
                prefix_tokens=data.prefix_tokens,
                first_token=data.context,
                progress=False,
            ).to_pandas()
    except ImpossibleTokenError as error:  # the last update may break a model; or it masks tokens
        return {"member_bits": None, "failed": str(error)}
    values: dict[str, float | None] = {}
    for name, (ours, theirs) in scores.items():
        values[f"f1_{name}"], values[f"auc_{name}"] = f1_and_auc(ours, theirs)
    for row in taken.itertuples():
        values[f"extracted_{row.prefix_tokens}"] = float(row.member_rate)
        values[f"extracted_test_{row.prefix_tokens}"] = float(row.heldout_rate)
    return {
        "member_bits": np.round(on_members.bits, 3).tolist(),
        "test_bits": np.round(on_test.bits, 3).tolist(),
        # For the reference attack, which is of ideal bits as the other attacks.
        "attacked_ideal_bits": [np.round(lengths.ideal_bits, 6).tolist() for lengths in pair],
        **values,
    }


def _lengths(data: TextData, model: OpenModel, ids: Int64[Tensor, "_ position"]) -> CodeLengths:
    return compress_bits(model, ids, first_token=data.context, max_length=ids.shape[1], progress=False)


def _scores(
    data: TextData,
    model: OpenModel,
    pair: tuple[CodeLengths, CodeLengths],
    ids: tuple[Int64[Tensor, "member position"], Int64[Tensor, "member position"]],
) -> dict[str, list[Any]]:
    """Scores of members and of test samples, for each attack that needs no oracle."""
    scores = {
        "loss": [loss_attack(lengths) for lengths in pair],
        "min_k": [min_k_attack(lengths) for lengths in pair],
        "min_k_plus_plus": [
            min_k_plus_plus_attack(lengths, *token_moments(model, lengths, progress=False)) for lengths in pair
        ],
    }
    if data.tokenizer is not None:
        scores["zlib"] = [
            -lengths.ideal_bits / zlib_bits(data.tokenizer.batch_decode(own.tolist()))
            for lengths, own in zip(pair, ids, strict=True)
        ]
    return scores


def _head(lengths: CodeLengths, n_samples: int) -> CodeLengths:
    """Code lengths of the first samples alone, for attacks, which read the model and first token of the settings."""
    n_tokens = int(lengths.token_offsets[n_samples])
    return replace(
        lengths,
        bits=lengths.bits[:n_samples],
        ideal_bits=lengths.ideal_bits[:n_samples],
        n_tokens=lengths.n_tokens[:n_samples],
        n_bytes=lengths.n_bytes[:n_samples],
        token_bits=lengths.token_bits[:n_tokens],
        token_offsets=lengths.token_offsets[: n_samples + 1],
        token_ids=lengths.token_ids[:n_tokens],
        token_greedy=None,  # attacks ask for neither
        about=None,
    )
