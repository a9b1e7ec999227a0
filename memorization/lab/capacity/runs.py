"""Train all cells of a capacity measurement for one number of steps after another, each at its best rate, and measure them."""

import hashlib
import math
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor, nn
from tqdm import tqdm

from memorization.capacity import Capacity, Convention, Estimator, fit_capacity
from memorization.errors import ImpossibleTokenError, InputError, ModelError
from memorization.lab.builders import build_seeded, stream
from memorization.lab.capacity.sizes import Size
from memorization.lab.engines.local import counted, n_workers, side_by_side, stacks_of
from memorization.lab.random_tokens import random_tokens
from memorization.lab.stack import train_stack
from memorization.lab.store import Store
from memorization.measure.code_lengths import compress_bits
from memorization.progress import progress_bar

__all__ = ["PRECISIONS", "Lab", "Round"]

FIRST_STEPS, LEAST_STEPS = 750, 90
# Rates of the pilot, each twice the next: the best of small GPT-2 style models fall from 0.1 to 0.01 as they grow.
_PILOT_RATES = tuple(0.32 / 2**halvings for halvings in range(8))
_MORE_PILOTS, _COLDER = 4, 3
PRECISIONS = {
    "float32": (torch.float32, None),
    "bfloat16": (torch.bfloat16, None),
    "autocast": (torch.float32, torch.bfloat16),
}

Cell = dict[str, Any]  # what determines a training run
Run = dict[str, Any]  # a cell and what came of it
_Trained = tuple[list[nn.Module], list[Tensor], list[int]]  # models of a stack, their data, where each diverged


@dataclass(frozen=True, slots=True)
class Round:
    """All model sizes, trained for one number of steps."""

    steps: int
    best_lrs: tuple[float, ...]  # of each model size
    seconds: float
    capacity: Capacity


class Lab:
    """Runs cells, many at once; knows what has been run before."""

    def __init__(
        self,
        sizes: list[Size],
        vocab_size: int,
        seq_len: int,
        seeds: tuple[int, ...],
        dtype: str,
        device: torch.device,
        store: str | Path | None,
        progress: bool,
    ) -> None:
        self.sizes, self.vocab_size, self.seq_len, self.seeds = sizes, vocab_size, seq_len, seeds
        self.dtype, self.device = dtype, device
        self.seconds = 0.0
        self._weights, self._autocast = PRECISIONS[dtype]
        self._progress = progress
        self._n_threads = n_workers(device)
        self.store = Store(
            store,
            {
                "measures": "capacity on uniform random tokens",
                "vocab_size": vocab_size,
                "seq_len": seq_len,
                "dtype": dtype,
                "training": "AdamW 0.9 0.99, 100 steps of warm-up, linear decay to 0, token 0 before each sample",
            },
        )

    def decision(self, name: str) -> str:
        """What a decision about these model sizes is called in the store, which may hold others."""
        grid = [(size.identity, size.n_samples, size.batch_size) for size in self.sizes]
        return f"{name}-{hashlib.sha256(repr((grid, self.seeds)).encode()).hexdigest()[:12]}"

    def first_steps(self, budget: float) -> int:
        """Steps of the first round: fewer where the budget would not last for it."""
        if math.isinf(budget):
            return FIRST_STEPS
        seconds_a_step = sum(self._seconds_a_step(size) for size in self.sizes)
        steps = FIRST_STEPS
        # Half of the budget: the pilot and measuring want time too.
        while steps * seconds_a_step > budget / 2 and steps // 2 >= LEAST_STEPS:
            steps //= 2
        if steps * seconds_a_step > budget:
            n_runs = sum(2 * len(self.seeds) * len(size.n_samples) for size in self.sizes)
            raise InputError(
                f"a budget of {budget:.0f} s cannot finish the shortest round: {n_runs} runs of {steps} steps take about "
                f"{steps * seconds_a_step:.0f} s, one run about {steps * seconds_a_step / n_runs:.1f} s; allow more, or "
                "take a smaller model or fewer n_samples"
            )
        return steps

    def _seconds_a_step(self, size: Size) -> float:
        """Of one step of all runs of a round."""
        times = []
        for steps in (1, 1, 11):  # the first one also does what only happens once
            cells = [
                self._cell(size, n, seed, 1e-4, steps) for n in size.n_samples for seed in (*self.seeds, *self.seeds)
            ]
            stacks = self._stacks(size, cells)
            begin = time.perf_counter()
            for _ in self._train_all(size, stacks[: self._n_threads], tqdm(disable=True)):
                pass
            times.append(time.perf_counter() - begin)
        return max(times[2] - times[1], 1e-6) / 10 * max(1.0, len(stacks) / self._n_threads)

    def pilot(self, size: Size, steps: int) -> float:
        """The learning rate at which most is memorized in a few steps, of a range that is widened until the best lies inside."""
        middle = min(size.n_samples, key=lambda n: abs(math.log(n / size.n_samples[-1] * 4)))
        rates = list(_PILOT_RATES)
        bits: dict[float, float] = {}
        for _ in range(1 + _MORE_PILOTS):
            cells = [self._cell(size, middle, self.seeds[0], rate, steps) for rate in rates if rate not in bits]
            for run in self.run(size, cells, f"pilot, {steps} steps"):
                bits[run["peak_lr"]] = -math.inf if run["memorized_bits"] is None else run["memorized_bits"]
            best = max(bits, key=lambda rate: bits[rate])
            if bits[best] == -math.inf:
                rates = [min(bits) / 2, min(bits) / 4]
            elif best in (min(bits), max(bits)):
                rates = [best / 2 if best == min(bits) else best * 2]
            else:
                break
        if bits[best] == -math.inf:
            raise ModelError(
                f"training diverged at every learning rate from {max(bits):g} to {min(bits):g}; check the model's loss"
            )
        return best

    def round(self, steps: int, hot: tuple[float, ...], estimator: Estimator, convention: Convention) -> Round:
        """Train all model sizes, each at its rate and half of it."""
        before, kept, best = self.seconds, [], []
        for size, rate in zip(self.sizes, hot, strict=True):
            ran, better = self._both_rates(size, steps, rate)
            kept += better
            # Over the whole grid, so that one lucky run does not decide.
            totals = {lr: _mean_bits(ran, lr) for lr in sorted({run["peak_lr"] for run in ran}, reverse=True)}
            best.append(max(totals, key=lambda lr: totals[lr]))
        return Round(steps, tuple(best), self.seconds - before, self._fit(kept, estimator, convention))

    def _both_rates(self, size: Size, steps: int, rate: float) -> tuple[list[Run], list[Run]]:
        """Runs at a rate and half of it, and colder where both diverge; of each data-set size the better."""
        rates = [rate, rate / 2]
        grid = [(n, lr) for lr in rates for n in size.n_samples]
        runs: list[Run] = []
        for colder in range(1 + _COLDER):
            cells = [self._cell(size, n, seed, lr, steps) for n, lr in grid for seed in self.seeds]
            runs += self.run(size, cells, f"{steps} steps")
            failed = [n for n in size.n_samples if not _whole(runs, n)]
            if not failed:
                break
            grid = [(n, rate / 2 ** (colder + 2)) for n in failed]
        if failed:
            coldest = min(run["peak_lr"] for run in runs)
            raise ModelError(
                f"training on {failed[0]} samples diverged at every learning rate from {rate:g} to {coldest:g}, in {steps} "
                "steps; give a lower peak_lr, or check the model's loss"
            )
        return runs, [run for n in size.n_samples for run in max(_whole(runs, n), key=_total)]

    def run(self, size: Size, cells: list[Cell], name: str) -> list[Run]:
        """The runs of these cells: read where they were run before, else trained, measured and kept."""
        new = [cell for cell in cells if self.store.get(cell) is None]
        label = f"{size.params.trainable:,} parameters, {name}"
        total = sum(cell["steps"] for cell in new)
        with progress_bar(total, label, unit="step", shown=self._progress) as bar:
            stacks = self._stacks(size, new)
            bar.set_postfix_str(f"{max(map(len, stacks), default=0)} models at once", refresh=False)
            for stack, trained, seconds in self._train_all(size, stacks, bar):
                begin = time.perf_counter()
                results = [self._measure(*one, stack[0]["steps"]) for one in zip(*trained, strict=True)]
                seconds += time.perf_counter() - begin
                for cell, result in zip(stack, results, strict=True):
                    self.store.put(cell, {**result, "seconds": seconds / len(stack)})
        runs = [{**cell, **(self.store.get(cell) or {})} for cell in cells]
        self.seconds += sum(run["seconds"] for run in runs)
        return runs

    def _cell(self, size: Size, n_samples: int, seed: int, peak_lr: float, steps: int) -> Cell:
        return {
            "model": size.identity,
            "n_params": size.params.trainable,
            "n_samples": n_samples,
            "seed": seed,
            "peak_lr": peak_lr,
            "steps": steps,
            "batch_size": size.batch_size,
        }

    def _stacks(self, size: Size, cells: list[Cell]) -> list[list[Cell]]:
        """Cells that are trained at once: of one number of steps, and no more than the device has room for."""
        return stacks_of(cells, size.batch_size * self.seq_len * self.vocab_size, self.device)

    def _train_all(
        self, size: Size, stacks: list[list[Cell]], bar: "tqdm[Any]"
    ) -> Iterator[tuple[list[Cell], "_Trained", float]]:
        """Stacks as they are finished, and the seconds each took of the time there is: several at once on a CPU."""

        def train(stack: list[Cell], check: Callable[[], None]) -> "_Trained":
            return self._train(size, stack, counted(bar, check, len(stack)))

        yield from side_by_side(stacks, train, self._n_threads)

    def _train(self, size: Size, cells: list[Cell], on_steps: Callable[[int], object] | None = None) -> "_Trained":
        """Models of one stack, trained; their data; at which step each diverged, -1 where none did."""
        models = [
            build_seeded(size.build, self.vocab_size, self.seq_len, cell["seed"]).to(self.device, self._weights)
            for cell in cells
        ]
        data = [random_tokens(cell["n_samples"], self.seq_len, self.vocab_size, cell["seed"]) for cell in cells]
        done = train_stack(
            models,
            data,
            context=0,
            steps=cells[0]["steps"],
            batch_size=size.batch_size,
            peak_lrs=[cell["peak_lr"] for cell in cells],
            seeds=[stream("order", cell["seed"]) for cell in cells],
            autocast=self._autocast,
            on_steps=on_steps,
        )
        return models, data, done.diverged_at.tolist()

    def _measure(
        self, model: nn.Module, ids: Int[Tensor, "_ position"], diverged_at: int, steps: int
    ) -> dict[str, Any]:
        """What a trained model saves on its samples against log2 V a token: on all of them, and without the first ones."""
        if diverged_at >= 0:
            return {"memorized_bits": None, "memorized_bits_strict": None, "diverged_at": diverged_at}
        try:
            lengths = compress_bits(model, ids, first_token=0, max_length=self.seq_len, progress=False)
        except ImpossibleTokenError:  # training looks before each update, so the last one broke it
            return self._measure(model, ids, steps, steps)
        later = lengths.token_bits.reshape(ids.shape)[:, 1:]
        log2_vocab = math.log2(self.vocab_size)
        return {
            "memorized_bits": ids.numel() * log2_vocab - lengths.total_bits,
            "memorized_bits_strict": float(later.size * log2_vocab - later.sum()),
            "diverged_at": None,
        }

    def _fit(self, kept: list[Run], estimator: Estimator, convention: Convention) -> Capacity:
        embedded = {size.params.trainable: size.params.non_embedding for size in self.sizes}
        frozen = any(size.params.trainable < size.params.total for size in self.sizes)
        scale = self.seq_len / (self.seq_len - 1) if convention == "paper" else 1.0
        column = "memorized_bits" if convention == "start" else "memorized_bits_strict"
        n_params = [run["n_params"] for run in kept]
        return fit_capacity(
            n_params,
            [scale * run[column] for run in kept],
            n_samples=[run["n_samples"] for run in kept],
            seed=[run["seed"] for run in kept],
            n_non_embedding_params=None if frozen else [embedded[n] for n in n_params],
            seq_len=self.seq_len,
            vocab_size=self.vocab_size,
            estimator=estimator,
            convention=convention,
        )


def _whole(runs: list[Run], n_samples: int) -> list[list[Run]]:
    """The runs on this many samples, rate by rate, of the rates at which no seed diverged."""
    here = [run for run in runs if run["n_samples"] == n_samples]
    by_rate = [[run for run in here if run["peak_lr"] == rate] for rate in sorted({run["peak_lr"] for run in here})]
    return [group for group in by_rate if all(run["memorized_bits"] is not None for run in group)]


def _total(runs: list[Run]) -> float:
    return float(sum(run["memorized_bits"] for run in runs))


def _mean_bits(runs: list[Run], rate: float) -> float:
    """Of the runs at a rate; a run that diverged holds nothing."""
    return statistics.fmean(run["memorized_bits"] or 0.0 for run in runs if run["peak_lr"] == rate)
