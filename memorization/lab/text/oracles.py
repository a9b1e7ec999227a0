"""Oracles for samples of a pool: one trained on all of it, and others that each have not seen the samples they are asked about."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float64, Int64
from torch import Tensor, nn

from memorization.errors import InputError, ModelError
from memorization.lab.builders import Builder, build_seeded, stream
from memorization.lab.engines.local import counted, n_workers, side_by_side
from memorization.lab.stack import train_stack
from memorization.lab.store import Store
from memorization.measure.code_lengths import compress_bits
from memorization.progress import progress_bar

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
        record: what the oracles are, for the settings of a result.
    """

    pool: Float64[np.ndarray, " sample"]
    pool_seen: Float64[np.ndarray, " sample"]
    test: Float64[np.ndarray, " test"]
    bits_per_token: float
    record: dict[str, Any]


@dataclass(frozen=True, slots=True, eq=False)
class TrainedOracles:
    """Oracles that are made of a pool: cross-fitted in `folds` parts, and one that has seen everything.

    Attributes:
        build: their architecture.
        identity: what tells it from another one.
        folds: parts of the pool; sample i belongs to part i modulo folds.
        epochs: passes of each over the samples it is trained on.
        batch_size: samples a step.
        vocab_size: tokens there are.
        context: the token that stands before each sample.
        device: where they train.
        store: keeps what each says of its samples.
        progress: bars on stderr.
    """

    build: Builder
    identity: str
    folds: int
    epochs: int | float
    batch_size: int
    vocab_size: int
    context: int
    device: torch.device
    store: Store
    progress: bool

    def bits(self, pool: Int64[Tensor, "sample position"], test: Int64[Tensor, "test position"]) -> OracleBits:
        """Train the oracles, unless the store has what they say, and measure all samples of the pool and the test samples."""
        rate = self._rate(pool)
        fold = np.arange(len(pool)) % self.folds
        oracles = range(SEEN, self.folds)
        asked = {k: np.full(len(pool), True) if k == SEEN else fold == k for k in oracles}
        sets = {k: pool if k == SEEN else pool[torch.from_numpy(fold != k)] for k in oracles}
        cells = {
            k: {**self._cell(len(sets[k]), rate), "unseen_fold": None if k == SEEN else k, "folds": self.folds}
            for k in oracles
        }
        new = [k for k in oracles if self.store.get(cells[k]) is None]
        total = sum(cells[k]["steps"] for k in new)
        with progress_bar(
            total, f"{len(new)} oracles, {cells[SEEN]['steps']} steps", unit="step", shown=self.progress
        ) as bar:

            def train(k: int, check: Callable[[], None]) -> nn.Module:
                model, bits = self._train(sets[k], cells[k]["steps"], rate, counted(bar, check))
                if not np.isfinite(bits):
                    raise ModelError(
                        f"an oracle diverged, at a rate of {rate:g} and in {cells[k]['steps']} steps; give another builder or batch size"
                    )
                return model

            for k, model, seconds in side_by_side(new, train, n_workers(self.device)):
                rows = torch.cat([pool[torch.from_numpy(asked[k])], test])
                lengths = compress_bits(model, rows, first_token=self.context, max_length=rows.shape[1], progress=False)
                self.store.put(cells[k], {"bits": np.round(lengths.bits, 3).tolist(), "seconds": seconds})
        by_pool = {SEEN: np.full(len(pool), np.nan), 0: np.full(len(pool), np.nan)}
        on_test = np.full(len(test), np.nan)
        for k in oracles:
            bits = np.array((self.store.get(cells[k]) or {})["bits"])
            by_pool[min(k, 0)][asked[k]] = bits[: len(bits) - len(test)]
            if (
                k != SEEN
            ):  # as many test samples for each fold's oracle as it has of the pool: the same mixture of oracles
                on_test[k :: self.folds] = bits[len(bits) - len(test) :][k :: self.folds]
        facts = ("folds", "epochs", "batch_size")
        record = {"model": self.identity, **{name: getattr(self, name) for name in facts}, "peak_lr": rate}
        return OracleBits(by_pool[0], by_pool[SEEN], on_test, float(on_test.mean()) / pool.shape[1], record)

    def _cell(self, n_samples: int, rate: float, share: int = 1) -> dict[str, Any]:
        steps = max(1, round(self.epochs * n_samples / self.batch_size / share))
        return {"oracle": self.identity, "steps": steps, "batch_size": self.batch_size, "peak_lr": rate}

    def _rate(self, pool: Int64[Tensor, "sample position"]) -> float:
        """The rate of fewest bits per token in an eighth of the steps."""
        cells = {rate: {**self._cell(len(pool), rate, _PILOT_SHARE), "pilot": True} for rate in PILOT_RATES}
        new = [rate for rate in PILOT_RATES if self.store.get(cells[rate]) is None]
        steps = cells[PILOT_RATES[0]]["steps"]
        with progress_bar(steps * len(new), f"oracle's pilot, {steps} steps", unit="step", shown=self.progress) as bar:

            def train(rate: float, check: Callable[[], None]) -> float:
                return self._train(pool, steps, rate, counted(bar, check))[1]

            for rate, bits, _ in side_by_side(new, train, n_workers(self.device)):
                self.store.put(cells[rate], {"bits": bits if np.isfinite(bits) else None})
        found = {rate: (self.store.get(cells[rate]) or {})["bits"] for rate in PILOT_RATES}
        finite = {rate: bits for rate, bits in found.items() if bits is not None}
        if not finite:
            raise ModelError(
                f"the oracle diverged at every rate of {PILOT_RATES}; check its loss, or give another builder"
            )
        return min(finite, key=lambda rate: finite[rate])

    def _train(
        self, seen: Int64[Tensor, "some position"], steps: int, rate: float, on_steps: Callable[[int], object]
    ) -> tuple[nn.Module, float]:
        """An oracle of these samples, and its bits per token at the end; NaN where it diverged."""
        model = build_seeded(self.build, self.vocab_size, seen.shape[1], _SEED).to(self.device)
        done = train_stack(
            [model],
            [seen],
            context=self.context,
            steps=steps,
            batch_size=self.batch_size,
            peak_lrs=[rate],
            seeds=[stream("oracle order", 0)],
            on_steps=on_steps,
        )
        return model, float(done.bits_per_token[0])


def given_oracle_bits(
    oracle: Any,
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

    def lengths_of(rows: Int64[Tensor, "some position"]) -> Any:
        return compress_bits(
            oracle, rows, first_token=context, max_length=rows.shape[1], device=device, progress=progress
        )

    # One sample first: many would take long, and fail then.
    model = lengths_of(torch.full((1, pool.shape[1]), context)).settings["model"]
    if model["vocab_size"] < vocab_size:
        raise InputError(
            f"the oracle {model['name']} has a vocabulary of {model['vocab_size']} tokens, and the samples one of {vocab_size}: they have "
            "to be of one tokenizer. Pass the oracle's tokenizer with the texts, or leave the oracle out to have one trained"
        )
    lengths = lengths_of(torch.cat([pool[torch.from_numpy(asked)], test]))
    bits = np.full(len(pool), np.nan)
    bits[asked] = lengths.bits[: int(asked.sum())]
    on_test = lengths.bits[int(asked.sum()) :]
    per_token = float(on_test.mean()) / pool.shape[1]
    return OracleBits(bits, np.full(len(pool), np.nan), on_test, per_token, {"given": model["name"], **model})
