"""Runs of a sweep over text: a model trained on its data set, many at once, then measured, attacked and asked for its members."""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Int64
from torch import Tensor, nn

from memorization.errors import ImpossibleTokenError, ModelError
from memorization.extraction import extract
from memorization.lab.architectures import ParamCounts
from memorization.lab.builders import Builder, build_seeded, stream
from memorization.lab.engines.local import counted, n_workers, side_by_side, stacks_of
from memorization.lab.stack import train_stack
from memorization.lab.store import Store
from memorization.measure.code_lengths import CodeLengths, compress_bits
from memorization.membership import (
    f1_and_auc,
    loss_attack,
    min_k_attack,
    min_k_plus_plus_attack,
    token_moments,
    zlib_bits,
)
from memorization.progress import progress_bar

__all__ = ["ModelSize", "TextRuns"]

_PILOT_RATES = (0.04, 0.02, 0.01, 0.005)
_MORE_PILOTS = 3
_PILOT_SHARE = 4  # a pilot takes this part of a run's steps

Cell = dict[str, Any]


@dataclass(frozen=True, slots=True)
class ModelSize:
    """One model size: how to build it, and the data sets it is trained on."""

    build: Builder
    identity: str
    params: ParamCounts
    n_samples: tuple[int, ...]


class TextRuns:
    """Runs cells, many at once; knows what has been run before."""

    def __init__(
        self,
        pool: Int64[Tensor, "sample position"],
        test: Int64[Tensor, "test position"],
        vocab_size: int,
        members: dict[int, Int64[np.ndarray, " member"]],
        context: int,
        prefix_tokens: tuple[int, ...],
        tokenizer: Any,
        device: torch.device,
        store: Store,
        progress: bool,
    ) -> None:
        self._pool, self._test, self._vocab_size, self._members = pool, test, vocab_size, members
        self._context, self._prefix_tokens, self._tokenizer = context, prefix_tokens, tokenizer
        self._device, self._store, self._progress = device, store, progress

    def runs(
        self, size: ModelSize, steps: int, batch_size: int, peak_lr: Literal["auto"] | float
    ) -> list[dict[str, Any]]:
        """One model size on all its data sets: read where they were run before, else trained, measured and kept."""
        rate = self._pilot(size, max(1, steps // _PILOT_SHARE), batch_size) if peak_lr == "auto" else float(peak_lr)
        cells = [
            self._cell(size, n, seed, rate, steps, batch_size) for n in size.n_samples[::-1] for seed in self._members
        ]
        self._train_all(size, cells, f"{len(cells)} runs, {steps} steps", self._measure)
        return [
            {**cell, "n_non_embedding_params": size.params.non_embedding, **(self._store.get(cell) or {})}
            for cell in cells
        ]

    def _pilot(self, size: ModelSize, steps: int, batch_size: int) -> float:
        """The rate that codes most of a middling and of the largest data set, in a few steps; the range is widened at its ends."""
        some = sorted({size.n_samples[len(size.n_samples) // 2], size.n_samples[-1]})
        seed = next(iter(self._members))
        bits: dict[float, float] = {}
        rates = list(_PILOT_RATES)
        for _ in range(1 + _MORE_PILOTS):
            grid = [rate for rate in rates if rate not in bits]
            cells = [
                {**self._cell(size, n, seed, rate, steps, batch_size), "pilot": True} for rate in grid for n in some
            ]
            self._train_all(
                size, cells, f"pilot, {steps} steps", lambda _, bits_per_token, __: {"bits": bits_per_token}
            )
            for rate in grid:
                found = [(self._store.get(cell) or {})["bits"] for cell in cells if cell["peak_lr"] == rate]
                bits[rate] = math.inf if None in found else sum(found)
            best = min(bits, key=lambda rate: bits[rate])
            if bits[best] == math.inf:
                rates = [min(bits) / 2, min(bits) / 4]
            elif best in (min(bits), max(bits)):
                rates = [best / 2 if best == min(bits) else best * 2]
            else:
                break
        if bits[best] == math.inf:
            raise ModelError(
                f"training diverged at every rate from {max(bits):g} to {min(bits):g}; check the model's loss"
            )
        return best

    def _train_all(
        self,
        size: ModelSize,
        cells: list[Cell],
        name: str,
        result: Callable[[nn.Module, float | None, Cell], dict[str, Any]],
    ) -> None:
        """Train the cells that the store has no result of, and keep what `result` makes of model, bits per token and cell."""
        new = [cell for cell in cells if self._store.get(cell) is None]
        total, label = sum(cell["steps"] for cell in new), f"{size.params.total:,} parameters, {name}"
        with progress_bar(total, label, unit="step", shown=self._progress) as bar:

            def train(stack: list[Cell], check: Callable[[], None]) -> tuple[list[nn.Module], list[float]]:
                models = [
                    build_seeded(size.build, self._vocab_size, self._pool.shape[1], cell["seed"]).to(self._device)
                    for cell in stack
                ]
                done = train_stack(
                    models,
                    [self._pool[self._members[cell["seed"]][: cell["n_samples"]]] for cell in stack],
                    context=self._context,
                    steps=stack[0]["steps"],
                    batch_size=stack[0]["batch_size"],
                    peak_lrs=[cell["peak_lr"] for cell in stack],
                    seeds=[stream("order", cell["seed"]) for cell in stack],
                    on_steps=counted(bar, check, len(stack)),
                )
                return models, done.bits_per_token.tolist()

            logits = cells[0]["batch_size"] * self._pool.shape[1] * self._vocab_size
            stacks = stacks_of(new, logits, self._device)
            for stack, (models, bits), seconds in side_by_side(stacks, train, n_workers(self._device)):
                for cell, model, per_token in zip(stack, models, bits, strict=True):
                    finite = per_token if math.isfinite(per_token) else None
                    self._store.put(cell, {**result(model, finite, cell), "seconds": seconds / len(stack)})

    def _cell(self, size: ModelSize, n_samples: int, seed: int, peak_lr: float, steps: int, batch_size: int) -> Cell:
        return {
            "model": size.identity,
            "n_params": size.params.total,
            "n_samples": n_samples,
            "seed": seed,
            "peak_lr": peak_lr,
            "steps": steps,
            "batch_size": batch_size,
        }

    def _measure(self, model: nn.Module, bits_per_token: float | None, cell: Cell) -> dict[str, Any]:
        """Bits of all members and test samples; attacks and extraction on as many of one as of the other. None: it diverged."""
        rows = self._members[cell["seed"]][: cell["n_samples"]]
        n_each = min(len(rows), len(self._test))
        members, test = self._pool[rows], self._test[:n_each]
        if bits_per_token is None:
            return {"member_bits": None, "failed": f"diverged at a rate of {cell['peak_lr']:g}: give a lower peak_lr"}
        try:
            on_members, on_test = self._lengths(model, members), self._lengths(model, self._test)
        except ImpossibleTokenError as error:  # the last update may break a model; or it masks tokens
            return {"member_bits": None, "failed": str(error)}
        pair = _head(on_members, n_each), _head(on_test, n_each)
        scores = self._scores(model, pair, (members[:n_each], test))
        values: dict[str, float | None] = {}
        for name, (ours, theirs) in scores.items():
            values[f"f1_{name}"], values[f"auc_{name}"] = f1_and_auc(ours, theirs)
        taken = extract(
            model,
            members[:n_each],
            test,
            prefix_tokens=self._prefix_tokens,
            first_token=self._context,
            progress=False,
        ).to_pandas()
        for row in taken.itertuples():
            values[f"extracted_{row.prefix_tokens}"] = float(row.member_rate)
            values[f"extracted_test_{row.prefix_tokens}"] = float(row.heldout_rate)
        return {
            "member_bits": np.round(on_members.bits, 3).tolist(),
            "test_bits": np.round(on_test.bits, 3).tolist(),
            **values,
        }

    def _lengths(self, model: nn.Module, ids: Int64[Tensor, "_ position"]) -> CodeLengths:
        return compress_bits(model, ids, first_token=self._context, max_length=ids.shape[1], progress=False)

    def _scores(
        self,
        model: nn.Module,
        pair: tuple[CodeLengths, CodeLengths],
        ids: tuple[Int64[Tensor, "member position"], Int64[Tensor, "member position"]],
    ) -> dict[str, list[Any]]:
        """Of each attack that needs no oracle the scores of members and of test samples."""
        scores = {
            "loss": [loss_attack(lengths) for lengths in pair],
            "min_k": [min_k_attack(lengths) for lengths in pair],
            "min_k_plus_plus": [
                min_k_plus_plus_attack(lengths, *token_moments(model, lengths, progress=False)) for lengths in pair
            ],
        }
        if self._tokenizer is not None:
            scores["zlib"] = [
                -lengths.ideal_bits / zlib_bits(self._tokenizer.batch_decode(own.tolist()))
                for lengths, own in zip(pair, ids, strict=True)
            ]
        return scores


def _head(lengths: CodeLengths, n_samples: int) -> CodeLengths:
    """The first samples of code lengths, for attacks, which read tokens and not settings."""
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
    )
