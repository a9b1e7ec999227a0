"""Capacity of an architecture: train it on uniform random tokens, which hold nothing to generalize from, to saturation."""

import dataclasses
import hashlib
import inspect
import itertools
import math
import re
import statistics
import sys
import time
import warnings
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from jaxtyping import Int
from torch import Tensor, nn
from tqdm import tqdm

from memorization.capacity import Capacity, Convention, Estimator, fit_capacity, information_ceiling_bits
from memorization.compression import compress_bits
from memorization.errors import ImpossibleTokenError, InputError, ModelError, NotConvergedWarning
from memorization.lab.architectures import ParamCounts, count_params
from memorization.lab.stack import train_stack
from memorization.lab.sweep import Store

__all__ = ["capacity_bits_per_param", "random_tokens"]

Builder = Callable[[int, int], nn.Module]

# Bits per parameter that GPT-2 style models hold (arXiv:2505.24832, table 1): where to look for the plateau.
EXPECTED_BITS_PER_PARAM = 3.6
# Data-set sizes of the grid, in multiples of that capacity.
MULTIPLES = (0.5, 1.0, 2.0, 4.0, 8.0)
# Layers and width: bits per parameter in float32 and bfloat16 (the same table; 2,048 tokens, 64 a sample, 1.3e11 trained).
PAPER_ROWS = {
    (1, 32): (4.23, 3.93), (1, 64): (3.92, 3.74), (1, 128): (3.65, 3.61), (1, 256): (3.12, 2.88),
    (2, 32): (4.16, 3.56), (2, 64): (4.08, 3.94), (2, 128): (3.99, 3.89), (2, 256): (4.01, 3.66),
    (4, 32): (3.92, 3.37), (4, 64): (3.98, 3.39), (4, 128): (3.78, 3.53), (4, 256): (3.68, 3.51),
    (8, 32): (3.02, 2.86), (8, 64): (3.83, 3.19), (8, 128): (3.89, 3.49), (8, 256): (3.96, 3.65),
}  # fmt: skip
FIRST_STEPS, LEAST_STEPS = 750, 90
# A set that holds less than this many times the capacity may be what limits a model.
PLATEAU_INFORMATION = 1.25
CONVERGED_GAIN = 0.01
# Rates of the pilot, each twice the next: the best of small GPT-2 style models fall from 0.1 to 0.01 as they grow.
_PILOT_RATES = tuple(0.32 / 2**halvings for halvings in range(8))
_MORE_PILOTS, _COLDER = 4, 3
_PRECISIONS = {
    "float32": (torch.float32, None),
    "bfloat16": (torch.bfloat16, None),
    "autocast": (torch.float32, torch.bfloat16),
}
# Logits of a whole stack, in numbers: beyond this a CPU waits for its memory, and a GPU has none left.
_STACK_LOGITS = {"cpu": 2**21, "cuda": 2**28}


@dataclass(frozen=True, slots=True)
class _Size:
    """One model size: how to build it, and what it is trained on."""

    build: Builder
    identity: str
    params: ParamCounts
    n_samples: tuple[int, ...]
    batch_size: int


_Cell = dict[str, Any]  # what determines a training run
_Run = dict[str, Any]  # a cell and what came of it


@dataclass(frozen=True, slots=True)
class _Round:
    """All model sizes, trained for one number of steps."""

    steps: int
    runs: list[_Run]  # every run, of both rates
    kept: list[_Run]  # of each data-set size those of the better rate
    best_lrs: tuple[float, ...]  # of each model size
    seconds: float
    capacity: Capacity


def capacity_bits_per_param(
    build_model: Builder | Sequence[Builder],
    *,
    vocab_size: int,
    seq_len: int,
    n_samples: Literal["auto"] | Sequence[int] = "auto",
    seeds: Sequence[int] = (0, 1),
    steps: Literal["auto"] | int = "auto",
    dtype: Literal["float32", "bfloat16", "autocast"] = "float32",
    device: str | torch.device | None = None,
    store: str | Path | None = None,
    engine: Literal["local"] = "local",
    progress: bool = True,
    data_multiples: Sequence[int | float] = MULTIPLES,
    budget_seconds: int | float | None = 600,
    peak_lr: Literal["auto"] | float = "auto",
    batch_size: Literal["auto"] | int = "auto",
    estimator: Estimator = "max",
    convention: Convention = "start",
) -> Capacity:
    """Bits that an architecture can hold per parameter: trained on uniform random tokens until it holds no more.

    Random tokens have no structure, so every bit that a model codes them below log2 V bits a token is memorized. Data sets
    of growing size are trained to saturation; what a model holds of them rises with the data, then stays: the plateau is
    its capacity. Models train many at once (`memorization.lab.stack`), each for a number of steps with its learning rate
    decaying to zero; then all of them anew for twice as many steps, until the capacity grows by less than 1 % twice in a
    row or the budget ends. Each cell of the grid runs at the best learning rate of the last round and at half of it; the
    better one counts. Bits are measured by `compress_bits` with id 0 as the token that stands before each sample.

    Args:
        build_model: called with (vocab_size, seq_len), returns a module that maps int64 ids (sample, position) to logits
            (sample, position, vocab_size), with weights drawn from torch's global generator and without dropout; for
            example a `memorization.lab.architectures.Architecture`. A list of them is measured as several model sizes.
        vocab_size: V, at least 2.
        seq_len: S, tokens of a sample.
        n_samples: sizes of the data sets, of every model. "auto": data_multiples.
        seeds: one run for each; weights, data and the order of samples are drawn from separate streams of a seed.
        steps: "auto": 750, doubled until converged; or the last of three rounds (a quarter, half, all of it).
        dtype: "float32"; "bfloat16": weights and arithmetic; "autocast": float32 weights, bfloat16 arithmetic.
        device: torch device; None: a GPU if there is one.
        store: folder or fsspec URL that keeps each finished run: started again, the call goes on where it was. None
            keeps nothing.
        engine: "local": this process.
        progress: a bar on stderr, with the time left of a round.
        data_multiples: sizes of the data sets, in multiples of what 3.6 bits per parameter fill.
        budget_seconds: time allowed for training with steps="auto", also over several calls with one store. What does not
            fit are further rounds, never seeds or rates. None: no limit.
        peak_lr: "auto": found by a short pilot over rates; or the hotter of the two rates of the first round.
        batch_size: samples a step; "auto": a quarter of the set that holds twice the expected capacity.
        estimator: see `fit_capacity`.
        convention: which tokens count: "start" all, "strict" not the first of each sample, "paper" strict x S / (S - 1).

    Returns:
        The capacity, `converged` or not, with `gain_per_doubling` measured over the last round (the largest of the model
        sizes'). Its parameters are the trainable ones: all of them, unless the builder froze some.

    Raises:
        InputError: an option that cannot be; data sets too small for a plateau; a budget too short for one round.
        ModelError: the builder's model has the wrong output, or diverges at every rate.
        ResultError: the store belongs to another experiment.

    Warns:
        NotConvergedWarning: the capacity still grows with the number of steps: it is a lower bound.

    Guarantees:
        torch's global generator is left as it was. A call that was killed and is made again with the same store returns
        what an uninterrupted one would, and repeats no finished run. (Killed in the instant in which the runs of a stack are
        written, up to rounding.)

    Examples:
        >>> from memorization.lab.architectures import Architecture
        >>> capacity = capacity_bits_per_param(
        ...     Architecture("gpt2", width=4),
        ...     vocab_size=16,
        ...     seq_len=8,
        ...     n_samples=[400],
        ...     seeds=[0],
        ...     steps=80,
        ...     peak_lr=0.05,
        ...     progress=False,
        ... )  # doctest: +SKIP
        >>> capacity.converged  # doctest: +SKIP
        False

    Source: arXiv:2505.24832, section 3.1. Differences from the paper: the start token, decaying rates, two rates a run.
    """
    builders = [build_model] if callable(build_model) else list(build_model)
    _check_options(builders, vocab_size, seq_len, seeds, steps, dtype, engine, budget_seconds, peak_lr, batch_size)
    information_ceiling_bits(1, seq_len, vocab_size, convention)  # refuses before training what the fit would after it
    if estimator not in get_args(Estimator):
        raise InputError(f"estimator must be one of {', '.join(get_args(Estimator))}; it is {estimator!r}")
    sizes = [_size(build, vocab_size, seq_len, n_samples, batch_size, data_multiples) for build in builders]
    numbers = [size.params.trainable for size in sizes]
    if len(set(numbers)) < len(numbers):
        raise InputError(
            f"each builder must have a number of parameters of its own, which is what tells model sizes apart; got {numbers}"
        )
    if estimator == "slope" and len(sizes) < 3:
        raise InputError(
            f'estimator "slope" needs 3 model sizes; there are {len(sizes)}: give more builders, or take "mean"'
        )
    place = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    lab = _Lab(sizes, vocab_size, seq_len, tuple(seeds), dtype, place, store, progress)
    budget = budget_seconds if steps == "auto" and budget_seconds is not None else math.inf
    if steps == "auto":
        first = lab.store.once(lab.decision("first_steps"), lambda: lab.first_steps(budget))
        schedule: Iterable[int] = (first * 2**doublings for doublings in itertools.count())
    else:
        schedule = sorted({max(1, steps // 4), max(1, steps // 2), steps})
        first = min(schedule)
    hot = [lab.pilot(size, max(1, first // 3)) if peak_lr == "auto" else float(peak_lr) for size in sizes]
    rounds: list[_Round] = []
    for n_steps in schedule:
        if rounds and lab.seconds + rounds[-1].seconds * n_steps / rounds[-1].steps > budget:
            break
        rounds.append(lab.round(n_steps, rounds[-1].best_lrs if rounds else tuple(hot), estimator, convention))
        if steps == "auto" and _converged(rounds):
            break
    return _result(lab, rounds)


def random_tokens(n_samples: int, seq_len: int, vocab_size: int, seed: int) -> Int[Tensor, "sample position"]:
    """Uniform random token ids, int64, (n_samples, seq_len); a smaller set is the beginning of a larger one.

    Examples:
        >>> bool((random_tokens(2, 4, 16, seed=0) == random_tokens(3, 4, 16, seed=0)[:2]).all())
        True
    """
    generator = torch.Generator().manual_seed(_stream("data", seed))
    return torch.randint(vocab_size, (n_samples, seq_len), generator=generator)


class _Lab:
    """Runs cells, many at once; knows what has been run before."""

    def __init__(
        self,
        sizes: list[_Size],
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
        self._weights, self._autocast = _PRECISIONS[dtype]
        self._progress = progress
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

    def _seconds_a_step(self, size: _Size) -> float:
        """Of one step of all runs of a round."""
        times = []
        for steps in (1, 1, 11):  # the first one also does what only happens once
            cells = [
                self._cell(size, n, seed, 1e-4, steps) for n in size.n_samples for seed in (*self.seeds, *self.seeds)
            ]
            stacks = self._stacks(size, cells)
            begin = time.perf_counter()
            self._train(size, stacks[0])
            times.append(time.perf_counter() - begin)
        return max(times[2] - times[1], 1e-6) / 10 * len(stacks)

    def pilot(self, size: _Size, steps: int) -> float:
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

    def round(self, steps: int, hot: tuple[float, ...], estimator: Estimator, convention: Convention) -> _Round:
        """Train all model sizes, each at its rate and half of it."""
        before, runs, kept, best = self.seconds, [], [], []
        for size, rate in zip(self.sizes, hot, strict=True):
            ran, better = self._both_rates(size, steps, rate)
            runs += ran
            kept += better
            # Over the whole grid, so that one lucky run does not decide.
            totals = {lr: _mean_bits(ran, lr) for lr in sorted({run["peak_lr"] for run in ran}, reverse=True)}
            best.append(max(totals, key=lambda lr: totals[lr]))
        return _Round(steps, runs, kept, tuple(best), self.seconds - before, self._fit(kept, estimator, convention))

    def _both_rates(self, size: _Size, steps: int, rate: float) -> tuple[list[_Run], list[_Run]]:
        """Runs at a rate and half of it, and colder where both diverge; of each data-set size the better."""
        rates = [rate, rate / 2]
        grid = [(n, lr) for lr in rates for n in size.n_samples]
        runs: list[_Run] = []
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

    def run(self, size: _Size, cells: list[_Cell], name: str) -> list[_Run]:
        """The runs of these cells: read where they were run before, else trained, measured and kept."""
        new = [cell for cell in cells if self.store.get(cell) is None]
        label = f"{size.params.trainable:,} parameters, {name}"
        with tqdm(
            total=sum(cell["steps"] for cell in new),
            desc=label,
            unit="step",
            unit_scale=True,
            disable=not (self._progress and new),
            file=sys.stderr,
            mininterval=0.5,
        ) as bar:
            for stack in self._stacks(size, new):
                bar.set_postfix_str(f"{len(stack)} models at once", refresh=False)
                begin = time.perf_counter()
                trained = self._train(size, stack, partial(_advance, bar, len(stack)))
                results = [self._measure(*one, stack[0]["steps"]) for one in zip(*trained, strict=True)]
                seconds = (time.perf_counter() - begin) / len(stack)
                for cell, result in zip(stack, results, strict=True):
                    self.store.put(cell, {**result, "seconds": seconds})
        runs = [{**cell, **(self.store.get(cell) or {})} for cell in cells]
        self.seconds += sum(run["seconds"] for run in runs)
        return runs

    def _cell(self, size: _Size, n_samples: int, seed: int, peak_lr: float, steps: int) -> _Cell:
        return {
            "model": size.identity,
            "n_params": size.params.trainable,
            "n_samples": n_samples,
            "seed": seed,
            "peak_lr": peak_lr,
            "steps": steps,
            "batch_size": size.batch_size,
        }

    def _stacks(self, size: _Size, cells: list[_Cell]) -> list[list[_Cell]]:
        """Cells that are trained at once: of one number of steps, and no more than the device has room for."""
        room = _STACK_LOGITS.get(self.device.type, _STACK_LOGITS["cuda"])
        most = max(1, room // (size.batch_size * self.seq_len * self.vocab_size))
        n_stacks = -(-len(cells) // most)
        return [cells[begin::n_stacks] for begin in range(n_stacks)]

    def _train(
        self, size: _Size, cells: list[_Cell], on_steps: Callable[[int], object] | None = None
    ) -> tuple[list[nn.Module], list[Int[Tensor, "_ position"]], list[int]]:
        """Models of one stack, trained; their data; at which step each diverged, -1 where none did."""
        models = [
            _build(size.build, self.vocab_size, self.seq_len, cell["seed"]).to(self.device, self._weights)
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
            seeds=[_stream("order", cell["seed"]) for cell in cells],
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

    def _fit(self, kept: list[_Run], estimator: Estimator, convention: Convention) -> Capacity:
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


def _advance(bar: "tqdm[Any]", n_models: int, n_steps: int) -> None:
    bar.update(n_models * n_steps)


def _whole(runs: list[_Run], n_samples: int) -> list[list[_Run]]:
    """The runs on this many samples, rate by rate, of the rates at which no seed diverged."""
    here = [run for run in runs if run["n_samples"] == n_samples]
    by_rate = [[run for run in here if run["peak_lr"] == rate] for rate in sorted({run["peak_lr"] for run in here})]
    return [group for group in by_rate if all(run["memorized_bits"] is not None for run in group)]


def _total(runs: list[_Run]) -> float:
    return float(sum(run["memorized_bits"] for run in runs))


def _mean_bits(runs: list[_Run], rate: float) -> float:
    """Of the runs at a rate; a run that diverged holds nothing."""
    return statistics.fmean(run["memorized_bits"] or 0.0 for run in runs if run["peak_lr"] == rate)


def _gains(rounds: list[_Round]) -> list[float]:
    """Growth of capacity from each round to the next, relative to the number of doublings: of the model size that grew most.

    NaN where a size held nothing before, or holds nothing after.
    """
    gains = []
    for before, after in itertools.pairwise(rounds):
        held, holds = before.capacity.capacity_bits, after.capacity.capacity_bits
        some = min(held.min(), holds.min()) > 0
        growth = float((holds / held).max()) if some else math.nan
        gains.append(growth ** (1 / math.log2(after.steps / before.steps)) - 1)
    return gains


def _converged(rounds: list[_Round]) -> bool:
    """Two gains in a row below 1 %: one can be an accident (0.6 %, then 1.8 %, has been seen)."""
    gains = _gains(rounds)
    return len(gains) >= 2 and all(gain < CONVERGED_GAIN for gain in gains[-2:])


def _result(lab: _Lab, rounds: list[_Round]) -> Capacity:
    import pandas as pd

    gains, last = _gains(rounds), rounds[-1]
    curve = pd.concat([one.capacity.curve.assign(steps=one.steps) for one in rounds], ignore_index=True)
    capacity = dataclasses.replace(
        last.capacity,
        curve=curve,
        converged=_converged(rounds),
        gain_per_doubling=gains[-1] if gains else math.nan,
        settings={
            **last.capacity.settings,
            "models": [size.identity for size in lab.sizes],
            "parameters": [dataclasses.asdict(size.params) for size in lab.sizes],
            "seeds": list(lab.seeds),
            "n_samples": [list(size.n_samples) for size in lab.sizes],
            "batch_size": [size.batch_size for size in lab.sizes],
            "dtype": lab.dtype,
            "device": str(lab.device),
            "rounds": [
                {
                    "steps": one.steps,
                    "bits_per_param": one.capacity.bits_per_param,
                    "gain_per_doubling": gain,
                    "best_lrs": list(one.best_lrs),
                    "seconds": one.seconds,
                }
                for one, gain in zip(rounds, [None, *gains], strict=True)
            ],
            "seconds": lab.seconds,
            "tokens_trained_a_run": [last.steps * size.batch_size * lab.seq_len for size in lab.sizes],
        },
    )
    if not capacity.converged:
        warnings.warn(NotConvergedWarning(f"{capacity.convergence}, after {last.steps} steps"), stacklevel=3)
    return capacity


def _size(
    build: Builder,
    vocab_size: int,
    seq_len: int,
    n_samples: Literal["auto"] | Sequence[int],
    batch_size: Literal["auto"] | int,
    data_multiples: Sequence[int | float],
) -> _Size:
    """Build a model once to see what it is; choose its data sets and its batch."""
    model = _build(build, vocab_size, seq_len, seed=0)
    params = count_params(model)
    if params.trainable == 0:
        raise ModelError("the builder's model has no trainable parameter, so it can hold nothing")
    with torch.no_grad():
        output = model(torch.zeros(2, seq_len, dtype=torch.int64))
    shape = tuple(getattr(output, "logits", output).shape)
    if shape != (2, seq_len, vocab_size):
        raise ModelError(
            f"the builder's model must map ids of shape (2, {seq_len}) to logits of shape (2, {seq_len}, {vocab_size}); "
            f"their shape is {shape}"
        )
    expected = EXPECTED_BITS_PER_PARAM * params.trainable
    sample_bits = seq_len * math.log2(vocab_size)
    if n_samples != "auto" and (not n_samples or min(n_samples) < 1):
        raise InputError(f'n_samples must be "auto" or numbers of at least 1; got {list(n_samples)}')
    if not data_multiples or min(data_multiples) <= 0:
        raise InputError(f"data_multiples must be above 0, at least one; got {list(data_multiples)}")
    automatic = sorted({max(1, round(multiple * expected / sample_bits)) for multiple in data_multiples})
    grid = automatic if n_samples == "auto" else sorted(set(n_samples))
    held = float(information_ceiling_bits(grid, seq_len, vocab_size).max())
    if held < PLATEAU_INFORMATION * expected:
        least = math.ceil(PLATEAU_INFORMATION * expected / sample_bits)
        # N (b - log2 N) is largest at N = 2^b / e, where it is N log2 e.
        most = 2 ** min(sample_bits, 500.0) / math.e * math.log2(math.e)
        hopeless = "; no number of samples so short will do: take a larger seq_len"
        longer = "" if most >= PLATEAU_INFORMATION * expected else hopeless
        raise InputError(
            f"n_samples={grid} are too few for a plateau: they hold at most {held:,.0f} bits, and {params.trainable:,} "
            f"parameters are expected to hold {expected:,.0f}; the largest set must have more than {least} samples, "
            f"better {2 * least} and more{longer}"
        )
    batch = max(1, round(expected / sample_bits / 2)) if batch_size == "auto" else batch_size
    return _Size(build, _identity(build, model), params, tuple(grid), batch)


def _build(build: Builder, vocab_size: int, seq_len: int, seed: int) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(_stream("weights", seed))
        return build(vocab_size, seq_len)


def _stream(purpose: str, seed: int) -> int:
    """A seed of its own for each purpose: the same weights must not always meet the same data."""
    return int.from_bytes(hashlib.sha256(f"{purpose} {seed}".encode()).digest()[:7], "big")


def _identity(build: Builder, model: nn.Module) -> str:
    """What tells a builder from another one: its repr if it has one of its own, else its name, source, values and modules."""
    address = r" at 0x[0-9A-Fa-f]+"  # another one in each process
    if not (repr(build).startswith("<") or re.search(address, repr(build))):
        return repr(build)
    function, values = build, list[Any]()
    if isinstance(build, partial):
        function, values = build.func, [build.args, build.keywords]
    if inspect.isfunction(function):
        values += [function.__defaults__, function.__kwdefaults__, inspect.getclosurevars(function).nonlocals]
    try:
        source = inspect.getsource(function)
    except (OSError, TypeError):  # typed at a prompt, or an object
        source = ""
    shapes = [(name, tuple(p.shape), p.requires_grad) for name, p in model.named_parameters()]
    facts = re.sub(address, "", f"{source}\n{values}\n{model}\n{shapes}")
    name = getattr(function, "__qualname__", type(function).__qualname__)
    return f"{name} {hashlib.sha256(facts.encode()).hexdigest()[:12]}"


def _check_options(
    builders: Sequence[Builder],
    vocab_size: int,
    seq_len: int,
    seeds: Sequence[int],
    steps: Any,
    dtype: str,
    engine: str,
    budget_seconds: int | float | None,
    peak_lr: Any,
    batch_size: Any,
) -> None:
    if not builders:
        raise InputError("build_model is an empty list; give one builder for each model size")
    if vocab_size < 2:
        raise InputError(f"vocab_size must be at least 2, or a token carries no bits; it is {vocab_size}")
    if seq_len < 1:
        raise InputError(f"seq_len must be at least 1; it is {seq_len}")
    if not seeds or len(set(seeds)) < len(seeds):
        raise InputError(f"seeds must be different numbers, at least one; got {list(seeds)}")
    if steps != "auto" and steps < 1:
        raise InputError(f'steps must be "auto" or at least 1; got {steps!r}')
    if dtype not in _PRECISIONS:
        raise InputError(f"dtype must be one of {', '.join(_PRECISIONS)}; got {dtype!r}")
    if engine != "local":
        raise InputError(f'engine must be "local", this process; got {engine!r}')
    if budget_seconds is not None and not budget_seconds > 0:
        raise InputError(f"budget_seconds must be above 0, or None for no limit; got {budget_seconds}")
    if peak_lr != "auto" and not 0 < peak_lr < math.inf:
        raise InputError(f'peak_lr must be "auto" or above 0; got {peak_lr}')
    if batch_size != "auto" and batch_size < 1:
        raise InputError(f'batch_size must be "auto" or at least 1; got {batch_size}')
