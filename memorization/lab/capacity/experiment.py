"""`capacity_bits_per_param`: an architecture trained on uniform random tokens until it holds no more."""

import math
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Literal, get_args

from memorization.capacity import Capacity, Convention, Estimator, information_ceiling_bits
from memorization.errors import InputError
from memorization.integers import check_integer, check_integers
from memorization.lab.builders import Builder, list_of_builders
from memorization.lab.capacity.outcome import converged, result_of
from memorization.lab.capacity.runs import (
    FIRST_STEPS,
    TRAINING_IN_WORDS,
    TWO_RATES,
    Grid,
    Protocol,
    Round,
    first_steps,
    pilot,
    train_round,
)
from memorization.lab.capacity.sizes import PRECISIONS, Size, size_of
from memorization.lab.cells import device_of, experiment
from memorization.lab.engines.chosen import EngineLike, engine_of
from memorization.lab.engines.runs import each_share, until_finished
from memorization.lab.options import check_positive
from memorization.lab.store import Store
from memorization.measure.opening import DeviceLike

__all__ = ["capacity_bits_per_param"]

# Data-set sizes of the grid, in multiples of that capacity.
MULTIPLES = (0.5, 1.0, 2.0, 4.0, 8.0)
# Layers and width: bits per parameter in float32 and bfloat16 (the same table; 2,048 tokens, 64 a sample, 1.3e11
# trained).
PAPER_ROWS = {
    (1, 32): (4.23, 3.93), (1, 64): (3.92, 3.74), (1, 128): (3.65, 3.61), (1, 256): (3.12, 2.88),
    (2, 32): (4.16, 3.56), (2, 64): (4.08, 3.94), (2, 128): (3.99, 3.89), (2, 256): (4.01, 3.66),
    (4, 32): (3.92, 3.37), (4, 64): (3.98, 3.39), (4, 128): (3.78, 3.53), (4, 256): (3.68, 3.51),
    (8, 32): (3.02, 2.86), (8, 64): (3.83, 3.19), (8, 128): (3.89, 3.49), (8, 256): (3.96, 3.65),
}  # fmt: skip
LAST_STEPS, QUICK_STEPS = 24_000, 12_000  # without a number of steps and a budget; of a first answer


def capacity_bits_per_param(
    build_model: Builder | Sequence[Builder],
    *,
    vocab_size: int,
    seq_len: int,
    n_samples: Literal["auto"] | Sequence[int] = "auto",
    seeds: Sequence[int] = (0, 1),
    steps: Literal["auto"] | int = "auto",
    dtype: Literal["float32", "bfloat16", "autocast"] = "float32",
    device: DeviceLike | None = None,
    store: str | Path | None = None,
    engine: EngineLike = "local",
    shard: str | None = None,
    progress: bool = True,
    data_multiples: Sequence[int | float] = MULTIPLES,
    budget_seconds: int | float | None = None,
    peak_lr: Literal["auto"] | float = "auto",
    batch_size: Literal["auto"] | int = "auto",
    estimator: Estimator = "max",
    convention: Convention = "start",
) -> Capacity:
    """Bits per parameter that an architecture can hold, found by training it on uniform random tokens to saturation.

    Random tokens have no structure, so every bit that a model codes them below log2 V bits a token is memorized. What a
    model holds rises with the data, then stays: the plateau is its capacity. All models are trained, then all anew for
    twice as many steps, until nothing more is to come, or 24,000 steps are made, or a budget ends. The page on
    capacity in the documentation describes the protocol, and how to believe a plateau.

    Args:
        build_model: called with (vocab_size, seq_len), returns a module that maps int64 ids (sample, position) to
            logits (sample, position, vocab_size), with weights drawn from torch's global generator and without dropout;
            for example a `memorization.lab.architectures.Architecture`. A list of them is measured as several model
            sizes.
        vocab_size: V, at least 2.
        seq_len: S, tokens of a sample.
        n_samples: sizes of the data sets, of every model. "auto": data_multiples.
        seeds: one run for each; weights, data and the order of samples are drawn from separate streams of a seed.
        steps: "auto": 750, doubled until converged or 24,000 are made, or, with a budget, until it ends; or the last of
            three rounds (a quarter, half, all of it).
        dtype: "float32"; "bfloat16": weights and arithmetic; "autocast": float32 weights, bfloat16 arithmetic.
        device: torch device; None: a GPU if there is one.
        store: folder or fsspec URL that keeps each finished run: started again, the call goes on where it was. Several
            processes may make the same call with one store at the same time, and share the runs. None keeps nothing.
        engine: where runs are made: "local", the cores or the GPU of this machine; "ray", a Ray cluster (extra `ray`);
            or an engine with options, `memorization.lab.engines.ray.RayEngine(address=...)`.
        shard: "k/n", to run only every n-th cell, from the k-th on; the others are waited for while any process is at
            work on the store.
        progress: a bar on stderr, with the time left of a round.
        data_multiples: sizes of the data sets, in multiples of what 3.6 bits per parameter fill.
        budget_seconds: time allowed for training with steps="auto", also over several calls with one store. What does
            not fit are further rounds, never seeds or rates. The figures then depend on how fast the machine is, and
            the result says so first. None: steps alone decide.
        peak_lr: "auto": found by a short pilot over rates; or the hotter of the two rates of the first round.
        batch_size: samples a step; "auto": a quarter of the set that holds four times the expected capacity.
        estimator: see `fit_capacity`.
        convention: which tokens count: "start" all, "strict" not the first of each sample, "paper" strict x S / (S -
            1).

    Returns:
        The capacity, `converged` or not, with `gain_per_doubling` measured over the last round (the largest of the
        model sizes'); settings["growth"] has its standard error and what may still come. Its parameters are the
        trainable ones: all of them, unless the builder froze some.

    Raises:
        InputError: an option that cannot be used; data sets too small for a plateau; a budget too short for one round.
        ModelError: the builder's model has the wrong output, or diverges at every rate.
        ResultError: the store belongs to another experiment.
        UnfinishedError: a shard has done what it could, and nobody is at work on the others.

    Warns:
        NotConvergedWarning: the capacity may still grow by 2 % or more with the number of steps: it is a lower bound.
        MeasurementWarning: a set that the model should hold whole is not held whole.

    Guarantees:
        torch's global generator is left as it was. A call that was killed and is made again with the same store returns
        what an uninterrupted one would, to the last bit where torch has as many threads, and repeats no finished run.
        (Killed in the instant in which the runs of a stack are written, it trains this stack again.)

    Examples:
        Two steps are no training: nothing is held, and the result says that it has not converged.

        >>> import warnings
        >>> from memorization.lab.architectures import Architecture
        >>> build = Architecture("gpt2", width=4)
        >>> with warnings.catch_warnings():
        ...     warnings.simplefilter("ignore")
        ...     capacity = capacity_bits_per_param(
        ...         build, vocab_size=16, seq_len=8, n_samples=[100], steps=2, peak_lr=1e-6, progress=False
        ...     )
        >>> capacity.n_params.tolist(), round(capacity.bits_per_param, 1) + 0.0, capacity.converged
        ([348], 0.0, False)

    Source: arXiv:2505.24832, section 3.1. Differences from the paper: the start token, SOAP with decaying rates,
    two rates in short rounds.
    """
    builders = list_of_builders("build_model", build_model)
    vocab_size, seq_len = check_integer("vocab_size", vocab_size, at_least=2), check_integer("seq_len", seq_len)
    seeds = check_integers("seeds", seeds)
    if steps != "auto":
        steps = check_integer("steps", steps, besides='"auto"')
    if peak_lr != "auto":
        peak_lr = check_positive("peak_lr", peak_lr, besides='"auto"')
    if budget_seconds is not None and budget_seconds != math.inf:
        budget_seconds = check_positive("budget_seconds", budget_seconds, besides="None (no limit)")
    if dtype not in PRECISIONS:
        raise InputError(f"dtype must be one of {', '.join(PRECISIONS)}; got {dtype!r}.")
    information_ceiling_bits(1, seq_len, vocab_size, convention)  # refuses before training what the fit would after it
    if estimator not in get_args(Estimator):
        raise InputError(f"estimator must be one of {', '.join(get_args(Estimator))}; it is {estimator!r}.")
    runs_by = engine_of(engine, shard)
    if budget_seconds is not None and (runs_by.shard.n > 1 or runs_by.name != "local"):
        raise InputError("budget_seconds is of one process on one machine: with an engine or a shard, give steps.")
    place = device_of(device)
    sizes = [
        size_of(build, vocab_size, seq_len, n_samples, batch_size, data_multiples, place, dtype) for build in builders
    ]
    _check_sizes(sizes, estimator)
    kept = Store(
        store,
        experiment(
            "capacity on uniform random tokens",
            place,
            dtype,
            vocab_size=vocab_size,
            seq_len=seq_len,
            training=TRAINING_IN_WORDS,
        ),
    )
    grid = Grid(sizes, tuple(seeds), Protocol(vocab_size, seq_len, dtype, str(place)), kept, progress, runs_by)
    budget = budget_seconds if steps == "auto" and budget_seconds is not None else math.inf
    return until_finished(lambda: _to_saturation(grid, steps, peak_lr, budget, estimator, convention), kept)


def _to_saturation(
    grid: Grid,
    steps: Literal["auto"] | int,
    peak_lr: Literal["auto"] | float,
    budget: float,
    estimator: Estimator,
    convention: Convention,
) -> Capacity:
    """Pilots, then rounds of more and more steps, and what they come to."""
    first = grid.once("first_steps", lambda: first_steps(grid, budget)) if steps == "auto" else max(1, steps // 4)
    brief = min(first, FIRST_STEPS)
    pilots = (
        each_share(partial(pilot, grid, size, brief) for size in grid.sizes)
        if peak_lr == "auto"
        else [(float(peak_lr), 0.0) for _ in grid.sizes]
    )
    hot, seconds = tuple(rate for rate, _ in pilots), sum(taken for _, taken in pilots)
    if first > TWO_RATES:
        short = train_round(grid, TWO_RATES, hot, None, estimator, convention)
        hot, seconds = short.best_lrs, seconds + short.seconds
    rounds: list[Round] = []
    cut_short = False
    for n_steps in _schedule(first, steps, budget):
        if rounds and seconds + rounds[-1].seconds * n_steps / rounds[-1].steps > budget:
            cut_short = True
            break
        before = rounds[-1] if rounds else None
        rounds.append(train_round(grid, n_steps, before.best_lrs if before else hot, before, estimator, convention))
        seconds += rounds[-1].seconds
        if steps == "auto" and converged(rounds):
            break
    return result_of(grid, rounds, seconds, budget if cut_short else None)


def _schedule(first: int, steps: Literal["auto"] | int, budget: float) -> Iterator[int]:
    """Steps of each round."""
    if steps != "auto":
        yield from sorted({first, max(1, steps // 2), steps})
        return
    while math.isfinite(budget) or first <= LAST_STEPS:
        yield first
        first *= 2


def _check_sizes(sizes: Sequence[Size], estimator: Estimator) -> None:
    numbers = [size.params.trainable for size in sizes]
    if len(set(numbers)) < len(numbers):
        raise InputError(
            "each builder must have a number of parameters of its own, which is what tells model sizes apart; got "
            f"{numbers}."
        )
    if estimator == "slope" and len(sizes) < 3:
        raise InputError(
            f'estimator "slope" needs 3 model sizes; there are {len(sizes)}: give more builders, or take "mean".'
        )
