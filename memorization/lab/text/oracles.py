"""Oracles of a pool of samples: one trained on all of it, and others, each asked about samples it has not seen."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float64, Int64
from torch import Tensor

from memorization.errors import DivergedError, InputError
from memorization.lab.builders import Builder, KnownBuilder, stream
from memorization.lab.cells import Cell, OnSteps, Outcome, Run, train_cells
from memorization.lab.engines.engine import Engine
from memorization.lab.engines.runs import run_cells
from memorization.lab.pilot import best_rate
from memorization.lab.store import Store
from memorization.lab.text.split import folds_of
from memorization.measure.compress import compress_bits
from memorization.measure.opening import ModelLike, open_model

__all__ = ["OracleBits", "OracleData", "TrainedOracles", "given_oracle_bits", "train_and_ask"]

SEEN = -1  # the oracle that is trained on the whole pool; others are named after the fold they have not seen
PILOT_RATES = (0.04, 0.02, 0.01, 0.005)
_SEED = 1_000_003  # of weights: none that a target has by default
_PILOT = "pilot of the oracles"
_PILOT_SHARE = 8  # a pilot takes this part of a training's steps


@dataclass(frozen=True, slots=True, eq=False)
class OracleBits:
    """Coded bits of pool samples and test samples.

    Attributes:
        pool: under an oracle that has not seen the sample (a given oracle may have), float64; NaN where not asked for.
        pool_seen: under an oracle trained on the whole pool; NaN for a given oracle.
        test: of test samples, which no oracle here has seen; each under the oracle of one fold.
        pool_ideal: ideal bits of the same samples as pool, for the reference attack.
        test_ideal: ideal bits of the test samples.
        bits_per_token: mean over the test samples.
        record: what the oracles are, for the settings of a result.
    """

    pool: Float64[np.ndarray, " sample"]
    pool_seen: Float64[np.ndarray, " sample"]
    test: Float64[np.ndarray, " test"]
    pool_ideal: Float64[np.ndarray, " sample"]
    test_ideal: Float64[np.ndarray, " test"]
    bits_per_token: float
    record: dict[str, Any]


@dataclass(frozen=True, slots=True, eq=False)
class OracleData:
    """What all oracles have in common, as plain data."""

    pool: Int64[Tensor, "sample position"]
    test: Int64[Tensor, "test position"]
    fold_of: Int64[Tensor, " sample"]  # of each pool sample
    folds: int
    vocab_size: int
    context: int
    device: str

    def asked(self, fold: int) -> Bool[Tensor, " sample"]:
        """The pool samples that an oracle measures: those of the fold it has not seen, or all."""
        return torch.ones(len(self.pool), dtype=torch.bool) if fold == SEEN else self.fold_of == fold

    def seen(self, fold: int) -> Int64[Tensor, "some position"]:
        """The samples that an oracle is trained on."""
        return self.pool if fold == SEEN else self.pool[~self.asked(fold)]


@dataclass(frozen=True, slots=True, eq=False)
class TrainedOracles:
    """Oracles that are made of a pool: cross-fitted in `folds` parts, and one that has seen everything.

    Attributes:
        of: their architecture.
        folds: parts of the pool, of whole documents.
        epochs: passes of each over the samples it is trained on.
        batch_size: samples a step.
        vocab_size: tokens there are.
        context: the token that stands before each sample.
        device: where they train.
        store: keeps what each says of its samples.
        progress: bars on stderr.
        engine: trains them; None: this process.
    """

    of: KnownBuilder
    folds: int
    epochs: int | float
    batch_size: int
    vocab_size: int
    context: int
    device: torch.device
    store: Store
    progress: bool
    engine: Engine | None = None

    def bits(
        self,
        pool: Int64[Tensor, "sample position"],
        test: Int64[Tensor, "test position"],
        document: Int64[np.ndarray, " sample"],
    ) -> OracleBits:
        """Bits of all pool and test samples under the oracles, which are trained unless the store has their answers.

        Args:
            pool: samples that the oracles are trained on.
            test: samples of documents of which the pool has none.
            document: of each pool sample. A sample is asked of an oracle that has seen nothing of its document.
        """
        fold_of = torch.from_numpy(folds_of(document, self.folds))
        data = OracleData(pool, test, fold_of, self.folds, self.vocab_size, self.context, str(self.device))
        rate = self._rate(data)
        oracles = range(SEEN, self.folds)
        cells = [self._cell(len(data.seen(k)), rate, _part(k, self.folds)) for k in oracles]
        runs = self._run(data, cells, f"{len(cells)} oracles, {cells[0].steps} steps")
        broken = [run for run in runs if run["bits"] is None]
        if broken:
            raise DivergedError(
                f"an oracle diverged, at a rate of {rate:g} and in {broken[0]['steps']} steps; give another builder "
                "or batch size."
            )
        whole, *of_folds = runs
        on_pool, on_test = _put_together(data, of_folds, "bits")
        ideal_pool, ideal_test = _put_together(data, of_folds, "ideal_bits")
        seen = np.array(whole["bits"])[: len(pool)]
        facts = ("folds", "epochs", "batch_size")
        record = {"model": self.of.identity, **{name: getattr(self, name) for name in facts}, "peak_lr": rate}
        per_token = float(on_test.mean()) / pool.shape[1]
        return OracleBits(on_pool, seen, on_test, ideal_pool, ideal_test, per_token, record)

    def _rate(self, data: OracleData) -> float:
        """The rate of fewest bits per token in an eighth of the steps."""

        def saved_bits_at(rates: Sequence[float]) -> dict[float, float | None]:
            cells = [self._cell(len(data.pool), rate, _PILOT, _PILOT_SHARE) for rate in rates]
            runs = self._run(data, cells, f"oracle's pilot, {cells[0].steps} steps")
            return {run["peak_lr"]: None if run["bits"] is None else -run["bits"] for run in runs}

        return best_rate(PILOT_RATES, saved_bits_at, widen=0, of="the oracle")

    def _cell(self, n_samples: int, rate: float, part: str, share: int = 1) -> Cell:
        steps = max(1, round(self.epochs * n_samples / self.batch_size / share))
        return Cell(self.of.identity, self.of.params.total, n_samples, _SEED, rate, steps, self.batch_size, part)

    def _run(self, data: OracleData, cells: Sequence[Cell], name: str) -> list[Run]:
        return run_cells(
            cells,
            partial(train_and_ask, self.of.build, data),
            self.store,
            device=self.device,
            logits_a_cell=self.batch_size * data.pool.shape[1] * self.vocab_size,
            name=name,
            progress=self.progress,
            alone=True,
            engine=self.engine,
        )


def _put_together(
    data: OracleData, runs: Sequence[Run], name: str
) -> tuple[Float64[np.ndarray, " sample"], Float64[np.ndarray, " test"]]:
    """Bits of the pool, each fold by its own oracle, and of the test samples, dealt out evenly to all oracles."""
    n_test = len(data.test)
    on_pool, on_test = np.full(len(data.pool), np.nan), np.full(n_test, np.nan)
    for fold, run in enumerate(runs):
        bits = np.array(run[name])
        on_pool[data.asked(fold).numpy()] = bits[: len(bits) - n_test]
        on_test[fold :: data.folds] = bits[len(bits) - n_test :][fold :: data.folds]
    return on_pool, on_test


def _part(fold: int, folds: int) -> str:
    return "oracle that has seen all" if fold == SEEN else f"oracle without fold {fold} of {folds}"


def train_and_ask(build: Builder, data: OracleData, cells: Sequence[Cell], on_steps: OnSteps) -> list[Outcome]:
    """Train one oracle, and measure the samples that it is asked about and the test samples. JSON out."""
    (cell,) = cells
    fold = next((k for k in range(SEEN, data.folds) if _part(k, data.folds) == cell.part), SEEN)
    (model,), done = train_cells(
        cells,
        [data.seen(fold)],
        build=build,
        vocab_size=data.vocab_size,
        context=data.context,
        device=torch.device(data.device),
        stacked=False,
        on_steps=on_steps,
        orders=[stream("oracle order", 0)],
    )
    per_token = float(done.bits_per_token[0])
    if cell.part == _PILOT or not math.isfinite(per_token):
        return [{"bits": per_token if math.isfinite(per_token) else None}]
    rows = torch.cat([data.pool[data.asked(fold)], data.test])
    lengths = compress_bits(model, rows, first_token=data.context, max_length=rows.shape[1], progress=False)
    return [{"bits": np.round(lengths.bits, 3).tolist(), "ideal_bits": np.round(lengths.ideal_bits, 6).tolist()}]


def given_oracle_bits(
    oracle: ModelLike,
    pool: Int64[Tensor, "sample position"],
    test: Int64[Tensor, "test position"],
    asked: Bool[np.ndarray, " sample"],
    *,
    vocab_size: int,
    context: int,
    device: torch.device,
    progress: bool,
) -> OracleBits:
    """Bits under an oracle that the caller has; its logits may be wider than the vocabulary (padded embeddings).

    Raises:
        InputError: its vocabulary is another.
    """
    n_inputs = pool.shape[1]
    with open_model(oracle, device=device, max_length=n_inputs, progress=progress) as opened:
        model = opened.record
        if model["vocab_size"] < vocab_size:
            raise InputError(
                f"the oracle {model['name']} has a vocabulary of {model['vocab_size']} tokens, and the samples one of "
                f"{vocab_size}: they have to be of one tokenizer. Pass the oracle's tokenizer with the texts, or leave "
                "the oracle out to have one trained."
            )
        rows = torch.cat([pool[torch.from_numpy(asked)], test])
        lengths = compress_bits(opened, rows, first_token=context, max_length=n_inputs, progress=progress)
    n_asked, nothing = int(asked.sum()), np.full(len(pool), np.nan)
    on_pool, ideal_pool = nothing.copy(), nothing.copy()
    on_pool[asked], ideal_pool[asked] = lengths.bits[:n_asked], lengths.ideal_bits[:n_asked]
    on_test, ideal_test = lengths.bits[n_asked:], lengths.ideal_bits[n_asked:]
    per_token = float(on_test.mean()) / pool.shape[1]
    record = {"given": model["name"], **model}
    return OracleBits(on_pool, nothing, on_test, ideal_pool, ideal_test, per_token, record)
