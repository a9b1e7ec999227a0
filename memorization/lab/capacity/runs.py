"""The rounds of a capacity measurement: train all cells for more and more steps, at the best rate, and measure them."""

import hashlib
import math
import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor, nn

from memorization.capacity import Capacity, Convention, Estimator, fit_capacity
from memorization.errors import DivergedError, ImpossibleTokenError, InputError
from memorization.lab.builders import Builder
from memorization.lab.capacity.sizes import PRECISIONS, Size
from memorization.lab.cells import Cell, OnSteps, Outcome, Run, measure_each, train_cells, train_cells_compiled
from memorization.lab.engines.engine import Engine
from memorization.lab.engines.local import n_workers, side_by_side, stacks_of
from memorization.lab.engines.runs import each_share, run_cells
from memorization.lab.pilot import best_rate
from memorization.lab.random_tokens import random_tokens
from memorization.lab.soap import LONGEST_SIDE, STEPS_A_BASIS
from memorization.lab.store import Store
from memorization.measure.compress import compress_bits

__all__ = ["Grid", "Protocol", "Round", "first_steps", "pilot", "train_and_measure", "train_round"]

FIRST_STEPS, LEAST_STEPS = 750, 90
WEIGHT_DECAY = 0.05
TRAINING_IN_WORDS = (
    f"SOAP 0.95 0.98, sides to {LONGEST_SIDE}, a basis every {STEPS_A_BASIS} steps; weights lose {WEIGHT_DECAY} of the "
    "rate, by the square of the schedule; 100 steps of warm-up, linear decay to 0, one token before each sample"
)
# Up to so many steps, a round runs two rates. Longer ones take the better of a round before: two rates would cost
# what a doubling of the steps does, and the better of two noisy figures is too high.
TWO_RATES = 3_000
_FALLEN = 0.95  # of the round before: less is a rate that has become too hot
# Rates of the pilot, each twice the next: the best of small GPT-2 style models fall from 0.1 to 0.01 as they grow.
_PILOT_RATES = tuple(0.32 / 2**halvings for halvings in range(8))
_MORE_PILOTS, _COLDER = 4, 3


@dataclass(frozen=True, slots=True)
class Protocol:
    """What all runs have in common, as plain data."""

    vocab_size: int
    seq_len: int
    dtype: str
    device: str


@dataclass(frozen=True, slots=True)
class Grid:
    """What is trained: models of some sizes, each on its data sets, with each seed; and where it is kept."""

    sizes: Sequence[Size]
    seeds: tuple[int, ...]
    protocol: Protocol
    store: Store
    progress: bool
    engine: Engine

    @property
    def device(self) -> torch.device:
        """Where models are trained."""
        return torch.device(self.protocol.device)

    def cell(self, size: Size, n_samples: int, seed: int, peak_lr: float, steps: int) -> Cell:
        """One run."""
        return Cell(size.identity, size.params.trainable, n_samples, seed, peak_lr, steps, size.batch_size)

    def logits_a_cell(self, size: Size) -> int:
        """Numbers in the logits of a step."""
        return size.batch_size * self.protocol.seq_len * self.protocol.vocab_size

    def run(self, size: Size, cells: Sequence[Cell], name: str) -> list[Run]:
        """The runs of these cells: read where they were run before, else trained, measured and kept."""
        return run_cells(
            cells,
            partial(train_and_measure, size.build, size.stacked, size.compiled, self.protocol),
            self.store,
            device=self.device,
            logits_a_cell=self.logits_a_cell(size),
            name=f"{size.params.trainable:,} parameters, {name}",
            progress=self.progress,
            alone=size.compiled,
            engine=self.engine,
        )

    def once(self, name: str, decide: Any) -> Any:
        """A decision about these model sizes, kept in the store, which may hold others."""
        grid = [(size.identity, size.n_samples, size.batch_size) for size in self.sizes]
        digest = hashlib.sha256(repr((grid, self.seeds)).encode()).hexdigest()[:12]
        return self.store.once(f"{name}-{digest}", decide)

    def seconds_a_step(self, size: Size) -> float:
        """Wall seconds of one step of all runs of a round."""
        n_threads, times = n_workers(self.device), list[float]()
        train = partial(_train, size.build, size.stacked, size.compiled, self.protocol, on_steps=None)
        for steps in (1, 1, 11):  # the first one also does what only happens once
            seeds = (*self.seeds, *self.seeds)
            cells = [self.cell(size, n, seed, 1e-4, steps) for n in size.n_samples for seed in seeds]
            stacks = (
                [[cell] for cell in cells] if size.compiled else stacks_of(cells, self.logits_a_cell(size), self.device)
            )
            begin = time.perf_counter()
            for _, done, _ in side_by_side(stacks[:n_threads], train, n_threads):
                if isinstance(done, Exception):
                    raise done
            times.append(time.perf_counter() - begin)
        # What only happens once may scatter by more than ten steps take: never below a tenth of the mean.
        return max((times[2] - times[1]) / 10, times[2] / 110) * max(1.0, len(stacks) / n_threads)


def _train(
    build: Builder, stacked: bool, compiled: bool, protocol: Protocol, cells: Sequence[Cell], on_steps: OnSteps | None
) -> tuple[list[nn.Module], list[Int[Tensor, "_ position"]], list[int]]:
    """The models of a stack, their data, and the step at which each diverged, or -1."""
    weights, autocast = PRECISIONS[protocol.dtype]
    data = [random_tokens(cell.n_samples, protocol.seq_len, protocol.vocab_size, cell.seed) for cell in cells]
    if compiled:
        models, alone = train_cells_compiled(
            cells,
            data,
            build=build,
            vocab_size=protocol.vocab_size,
            context=0,
            on_steps=on_steps,
            weight_decay=WEIGHT_DECAY,
        )
        return models, data, [int(each.diverged_at[0]) for each in alone]
    models, done = train_cells(
        cells,
        data,
        build=build,
        vocab_size=protocol.vocab_size,
        context=0,
        device=torch.device(protocol.device),
        stacked=stacked,
        on_steps=on_steps,
        weights=weights,
        autocast=autocast,
        weight_decay=WEIGHT_DECAY,
        soap=True,
    )
    return models, data, done.diverged_at.tolist()


def train_and_measure(
    build: Builder, stacked: bool, compiled: bool, protocol: Protocol, cells: Sequence[Cell], on_steps: OnSteps
) -> list[Outcome]:
    """Train one stack of cells and measure what each model saves on its samples.

    Plain data in, JSON out; the builder comes apart from them.
    """
    models, data, diverged_at = _train(build, stacked, compiled, protocol, cells, on_steps)
    measure = partial(_measured, cells[0].steps, protocol.vocab_size)
    return measure_each(measure, models, data, diverged_at)


def _measured(
    steps: int, vocab_size: int, model: nn.Module, ids: Int[Tensor, "_ position"], diverged_at: int
) -> dict[str, Any]:
    """What a trained model saves on its samples against log2 V a token: on all of them, and without the first ones."""
    if diverged_at >= 0:
        return {"memorized_bits": None, "memorized_bits_strict": None, "diverged_at": diverged_at}
    try:
        lengths = compress_bits(model, ids, first_token=0, max_length=ids.shape[1], progress=False)
    except ImpossibleTokenError:  # training looks before each update, so the last one broke it
        return _measured(steps, vocab_size, model, ids, steps)
    later = lengths.token_bits.reshape(ids.shape)[:, 1:]
    log2_vocab = math.log2(vocab_size)
    return {
        "memorized_bits": ids.numel() * log2_vocab - lengths.total_bits,
        "memorized_bits_strict": float(later.size * log2_vocab - later.sum()),
        "diverged_at": None,
    }


def first_steps(grid: Grid, budget: float) -> int:
    """Steps of the first round: fewer where the budget would not last for it."""
    if math.isinf(budget):
        return FIRST_STEPS
    seconds_a_step = sum(grid.seconds_a_step(size) for size in grid.sizes)
    steps = FIRST_STEPS
    # Half of the budget: the pilot and measuring want time too.
    while steps * seconds_a_step > budget / 2 and steps // 2 >= LEAST_STEPS:
        steps //= 2
    if steps * seconds_a_step > budget:
        n_runs = sum(2 * len(grid.seeds) * len(size.n_samples) for size in grid.sizes)
        raise InputError(
            f"a budget of {budget:.0f} s cannot finish the shortest round: {n_runs} runs of {steps} steps take about "
            f"{steps * seconds_a_step:.0f} s, one run about {steps * seconds_a_step / n_runs:.1f} s; allow more, or "
            "take a smaller model or fewer n_samples."
        )
    return steps


def pilot(grid: Grid, size: Size, steps: int) -> tuple[float, float]:
    """The learning rate at which most is memorized in a few steps, and the seconds that it took to find it."""
    middle = min(size.n_samples, key=lambda n: abs(math.log(n / size.n_samples[-1] * 4)))
    seconds = []

    def saved_bits_at(rates: Sequence[float]) -> dict[float, float | None]:
        cells = [grid.cell(size, middle, grid.seeds[0], rate, steps) for rate in rates]
        runs = grid.run(size, cells, f"pilot, {steps} steps")
        seconds.append(sum(run["seconds"] for run in runs))
        return {run["peak_lr"]: run["memorized_bits"] for run in runs}

    return best_rate(_PILOT_RATES, saved_bits_at, widen=_MORE_PILOTS), sum(seconds)


@dataclass(frozen=True, slots=True)
class Round:
    """All model sizes, trained for one number of steps."""

    steps: int
    best_lrs: tuple[float, ...]  # of each model size
    runs: list[Run]
    kept: list[Run]  # of each data set, those that count
    two_rates: bool  # those that count are the better of two rates
    capacity: Capacity

    @property
    def seconds(self) -> float:
        """Seconds of all runs of a round, one after another on all cores."""
        return float(sum(run["seconds"] for run in self.runs))


def train_round(
    grid: Grid, steps: int, hot: Sequence[float], before: Round | None, estimator: Estimator, convention: Convention
) -> Round:
    """Train all model sizes: each at its rate and, in short rounds, at half of it."""
    two = steps <= TWO_RATES

    def of_size(size: Size, rate: float) -> tuple[list[Run], list[Run], float]:
        """All runs of a size, those that count, and the best rate."""
        earlier = before.kept if before is not None and not two else []
        least = {
            n: _FALLEN * _total([run for run in earlier if (run["n_params"], run["n_samples"]) == (size.n_params, n)])
            for n in size.n_samples
        }
        runs, better = _at_rates(grid, size, steps, (rate, rate / 2) if two else (rate,), least if earlier else {})
        # Over the whole grid, so that one lucky run does not decide.
        totals = {lr: _mean_bits(runs, lr) for lr in sorted({run["peak_lr"] for run in runs}, reverse=True)}
        return runs, better, max(totals, key=lambda lr: totals[lr]) if two else rate

    found = each_share(partial(of_size, size, rate) for size, rate in zip(grid.sizes, hot, strict=True))
    all_runs = [run for runs, _, _ in found for run in runs]
    kept = [run for _, better, _ in found for run in better]
    best = tuple(rate for _, _, rate in found)
    return Round(steps, best, all_runs, kept, two, _fit(grid, kept, estimator, convention))


def _at_rates(
    grid: Grid, size: Size, steps: int, rates: Sequence[float], least: Mapping[int, float]
) -> tuple[list[Run], list[Run]]:
    """Runs at these rates, and colder where all diverge or hold less than `least`; of each data-set size the better."""
    wanted = [(n, lr) for lr in rates for n in size.n_samples]
    runs: list[Run] = []
    for colder in range(1 + _COLDER):
        cells = [grid.cell(size, n, seed, lr, steps) for n, lr in wanted for seed in grid.seeds]
        runs += grid.run(size, cells, f"{steps:,} steps")
        failed = [n for n in size.n_samples if not _whole(runs, n)]
        fallen = [
            n for n in size.n_samples if n not in failed and max(map(_total, _whole(runs, n))) < least.get(n, -math.inf)
        ]
        again = failed + fallen * (colder == 0)
        if not again:
            break
        wanted = [(n, min(rates) / 2 ** (colder + 1)) for n in again]
    if failed:
        coldest = min(run["peak_lr"] for run in runs)
        raise DivergedError(
            f"training on {failed[0]} samples diverged at every learning rate from {rates[0]:g} to {coldest:g}, in "
            f"{steps} steps; give a lower peak_lr, or check the model's loss."
        )
    return runs, [run for n in size.n_samples for run in max(_whole(runs, n), key=_total)]


def _fit(grid: Grid, kept: list[Run], estimator: Estimator, convention: Convention) -> Capacity:
    seq_len, vocab_size = grid.protocol.seq_len, grid.protocol.vocab_size
    embedded = {size.params.trainable: size.params.non_embedding for size in grid.sizes}
    frozen = any(size.params.trainable < size.params.total for size in grid.sizes)
    scale = seq_len / (seq_len - 1) if convention == "paper" else 1.0
    column = "memorized_bits" if convention == "start" else "memorized_bits_strict"
    n_params = [run["n_params"] for run in kept]
    return fit_capacity(
        n_params,
        [scale * run[column] for run in kept],
        n_samples=[run["n_samples"] for run in kept],
        seed=[run["seed"] for run in kept],
        n_non_embedding_params=None if frozen else [embedded[n] for n in n_params],
        seq_len=seq_len,
        vocab_size=vocab_size,
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
    """Mean memorized bits of the runs at a rate; a run that diverged counts as 0."""
    return statistics.fmean(run["memorized_bits"] or 0.0 for run in runs if run["peak_lr"] == rate)
