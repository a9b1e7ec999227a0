"""Oracles for samples of a pool: one trained on all of it, and others that each have not seen the samples they are asked about."""

import hashlib
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float64, Int64
from torch import Tensor, nn
from tqdm import tqdm

from memorization.compression import compress_bits
from memorization.errors import InputError, ModelError
from memorization.lab.side_by_side import counted, n_workers, side_by_side
from memorization.lab.sizes import Builder, build_seeded, stream
from memorization.lab.stack import train_stack
from memorization.lab.sweep import Store

__all__ = ["OracleBits", "TrainedOracles", "given_oracle_bits"]

SEEN = -1  # the oracle that is trained on the whole pool; others are named after the fold they have not seen
PILOT_RATES = (0.04, 0.02, 0.01, 0.005)
_SEED = 1_000_003  # of weights: none that a target has by default
_PILOT_SHARE = 8  # a pilot takes this part of a training's steps


@dataclass(frozen=True, slots=True, eq=False)
class OracleBits:
    """Coded bits of pool samples and test samples.

    Attributes:
        pool: under an oracle that has not seen the sample (a given oracle may have), float64; NaN where not asked for.
        pool_seen: under an oracle trained on the whole pool; NaN for a given oracle.
        test: of test samples, which no oracle here has seen; each under the oracle of one fold.
        bits_per_token: mean over the test samples.
    """

    pool: Float64[np.ndarray, " sample"]
    pool_seen: Float64[np.ndarray, " sample"]
    test: Float64[np.ndarray, " test"]
    bits_per_token: float


@dataclass(frozen=True, slots=True)
class TrainedOracles:
    """How the oracles are made: cross-fitted in `folds` parts, and one that has seen everything.

    Attributes:
        build: their architecture.
        identity: what tells it from another one.
        folds: parts of the pool; sample i belongs to part i modulo folds.
        epochs: passes over an oracle's samples.
        batch_size: samples a step.
    """

    build: Builder
    identity: str
    folds: int
    epochs: int | float
    batch_size: int

    def bits(
        self,
        pool: Int64[Tensor, "sample position"],
        test: Int64[Tensor, "test position"],
        asked: Bool[np.ndarray, " sample"],
        vocab_size: int,
        device: torch.device,
        store: Store,
        progress: bool,
    ) -> OracleBits:
        """Train the oracles, unless the store has what they say, and measure the pool samples asked for and all test samples."""
        rate = self._rate(pool, vocab_size, device, store, progress)
        steps = max(1, round(self.epochs * len(pool) / self.batch_size))
        fold = np.arange(len(pool)) % self.folds
        held = {k: asked if k == SEEN else asked & (fold == k) for k in range(SEEN, self.folds)}
        cells: dict[int, dict[str, Any]] = {
            k: {
                "oracle": self.identity,
                "unseen_fold": None if k == SEEN else k,
                "folds": self.folds,
                "steps": steps,
                "batch_size": self.batch_size,
                "peak_lr": rate,
                "asked_sha256": hashlib.sha256(np.flatnonzero(held[k]).astype("<i8").tobytes()).hexdigest(),
            }
            for k in held
        }
        new = [k for k in held if store.get(cells[k]) is None]
        names = f"{len(new)} oracles, {steps} steps"
        with tqdm(
            total=steps * len(new), desc=names, unit="step", disable=not (progress and new), file=sys.stderr
        ) as bar:

            def train(k: int, check: Callable[[], None]) -> nn.Module:
                seen = pool if k == SEEN else pool[torch.from_numpy(fold != k)]
                model, bits = self._train(seen, vocab_size, steps, rate, device, counted(bar, check))
                if not np.isfinite(bits):
                    raise ModelError(
                        f"an oracle diverged, at a rate of {rate:g} and in {steps} steps; give another builder or batch size"
                    )
                return model

            for k, model, seconds in side_by_side(new, train, n_workers(device)):
                asked_of = torch.cat([pool[torch.from_numpy(held[k])], test])
                lengths = compress_bits(model, asked_of, first_token=0, max_length=pool.shape[1], progress=False)
                store.put(cells[k], {"bits": np.round(lengths.bits, 3).tolist(), "seconds": seconds})
        return self._gather(cells, held, len(test), pool.shape[1], store)

    def _gather(
        self,
        cells: dict[int, dict[str, Any]],
        held: dict[int, Bool[np.ndarray, " sample"]],
        n_test: int,
        seq_len: int,
        store: Store,
    ) -> OracleBits:
        by_pool = {SEEN: np.full(len(held[SEEN]), np.nan), 0: np.full(len(held[SEEN]), np.nan)}
        test = np.full(n_test, np.nan)
        for k, cell in cells.items():
            bits = np.array((store.get(cell) or {})["bits"])
            by_pool[min(k, 0)][held[k]] = bits[: len(bits) - n_test]
            if (
                k != SEEN
            ):  # as many test samples for each fold's oracle as it has of the pool: the same mixture of oracles
                test[k :: self.folds] = bits[len(bits) - n_test :][k :: self.folds]
        return OracleBits(by_pool[0], by_pool[SEEN], test, float(test.mean()) / seq_len)

    def _train(
        self,
        seen: Int64[Tensor, "sample position"],
        vocab_size: int,
        steps: int,
        rate: float,
        device: torch.device,
        on_steps: Callable[[int], object],
    ) -> tuple[nn.Module, float]:
        """An oracle of these samples, and its bits per token at the end; NaN where it diverged."""
        model = build_seeded(self.build, vocab_size, seen.shape[1], _SEED).to(device)
        done = train_stack(
            [model],
            [seen],
            context=0,
            steps=steps,
            batch_size=self.batch_size,
            peak_lrs=[rate],
            seeds=[stream("oracle order", 0)],
            on_steps=on_steps,
        )
        return model, float(done.bits_per_token[0])

    def _rate(
        self,
        pool: Int64[Tensor, "sample position"],
        vocab_size: int,
        device: torch.device,
        store: Store,
        progress: bool,
    ) -> float:
        """The rate of fewest bits per token in an eighth of the steps, decided once."""
        steps = max(1, round(self.epochs * len(pool) / self.batch_size / _PILOT_SHARE))

        def decide() -> float:
            name = f"oracle's pilot, {steps} steps"
            with tqdm(
                total=steps * len(PILOT_RATES), desc=name, unit="step", disable=not progress, file=sys.stderr
            ) as bar:

                def train(rate: float, check: Callable[[], None]) -> float:
                    return self._train(pool, vocab_size, steps, rate, device, counted(bar, check))[1]

                bits = {rate: b for rate, b, _ in side_by_side(PILOT_RATES, train, n_workers(device))}
            finite = {rate: b for rate, b in bits.items() if np.isfinite(b)}
            if not finite:
                raise ModelError(
                    f"the oracle diverged at every rate of {PILOT_RATES}; check its loss, or give another builder"
                )
            return min(finite, key=lambda rate: finite[rate])

        return float(store.once("oracle-rate", decide))


def given_oracle_bits(
    oracle: Any,
    pool: Int64[Tensor, "sample position"],
    test: Int64[Tensor, "test position"],
    asked: Bool[np.ndarray, " sample"],
    vocab_size: int,
    progress: bool,
) -> OracleBits:
    """Bits under an oracle that the caller has.

    Raises:
        InputError: its vocabulary is another.
    """
    rows = torch.cat([pool[torch.from_numpy(asked)], test])
    lengths = compress_bits(oracle, rows, first_token=0, max_length=pool.shape[1], progress=progress)
    width = lengths.settings["model"]["vocab_size"]
    if width != vocab_size:
        raise InputError(
            f"the oracle {lengths.settings['model']['name']} has a vocabulary of {width} tokens, and the samples one of {vocab_size}: "
            "they have to be of one tokenizer. Pass the oracle's tokenizer, or leave the oracle out to have one trained"
        )
    bits = np.full(len(pool), np.nan)
    bits[asked] = lengths.bits[: int(asked.sum())]
    on_test = lengths.bits[int(asked.sum()) :]
    return OracleBits(bits, np.full(len(pool), np.nan), on_test, float(on_test.mean()) / pool.shape[1])
