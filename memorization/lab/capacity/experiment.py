"""`capacity_bits_per_param`: an architecture trained on uniform random tokens until it holds no more."""

import dataclasses
import itertools
import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Literal, get_args

from memorization.capacity import Capacity, Convention, Estimator, information_ceiling_bits
from memorization.errors import InputError, NotConvergedWarning, warn
from memorization.integers import check_integer, check_integers
from memorization.lab.builders import Builder, list_of_builders
from memorization.lab.capacity.runs import Grid, Protocol, Round, first_steps, pilot, train_round
from memorization.lab.capacity.sizes import PRECISIONS, Size, size_of
from memorization.lab.cells import device_of, experiment
from memorization.lab.engines.local import versions_of
from memorization.lab.options import check_positive
from memorization.lab.store import Store
from memorization.measure.opening import DeviceLike
from memorization.renamed import renamed_keywords

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
CONVERGED_GAIN = 0.01


@renamed_keywords(engine="")
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
    progress: bool = True,
    data_multiples: Sequence[int | float] = MULTIPLES,
    budget_seconds: int | float | None = 600,
    peak_lr: Literal["auto"] | float = "auto",
    batch_size: Literal["auto"] | int = "auto",
    estimator: Estimator = "max",
    convention: Convention = "start",
) -> Capacity:
    """Bits per parameter that an architecture can hold, found by training it on uniform random tokens to saturation.

    Random tokens have no structure, so every bit that a model codes them below log2 V bits a token is memorized. What a
    model holds rises with the data, then stays: the plateau is its capacity. All models are trained, then all anew for
    twice as many steps, until the capacity grows by less than 1 % twice in a row or the budget ends. The page on
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
        steps: "auto": 750, doubled until converged; or the last of three rounds (a quarter, half, all of it).
        dtype: "float32"; "bfloat16": weights and arithmetic; "autocast": float32 weights, bfloat16 arithmetic.
        device: torch device; None: a GPU if there is one.
        store: folder or fsspec URL that keeps each finished run: started again, the call goes on where it was. None
            keeps nothing.
        progress: a bar on stderr, with the time left of a round.
        data_multiples: sizes of the data sets, in multiples of what 3.6 bits per parameter fill.
        budget_seconds: time allowed for training with steps="auto", also over several calls with one store. What does
            not fit are further rounds, never seeds or rates. None: no limit.
        peak_lr: "auto": found by a short pilot over rates; or the hotter of the two rates of the first round.
        batch_size: samples a step; "auto": a quarter of the set that holds twice the expected capacity.
        estimator: see `fit_capacity`.
        convention: which tokens count: "start" all, "strict" not the first of each sample, "paper" strict x S / (S -
            1).

    Returns:
        The capacity, `converged` or not, with `gain_per_doubling` measured over the last round (the largest of the
        model sizes'). Its parameters are the trainable ones: all of them, unless the builder froze some.

    Raises:
        InputError: an option that cannot be used; data sets too small for a plateau; a budget too short for one round.
        ModelError: the builder's model has the wrong output, or diverges at every rate.
        ResultError: the store belongs to another experiment.

    Warns:
        NotConvergedWarning: the capacity still grows with the number of steps: it is a lower bound.

    Guarantees:
        torch's global generator is left as it was. A call that was killed and is made again with the same store returns
        what an uninterrupted one would, and repeats no finished run. (Killed in the instant in which the runs of a
        stack are written, up to rounding.)

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

    Source: arXiv:2505.24832, section 3.1. Differences from the paper: the start token, decaying rates, two rates a run.
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
    place = device_of(device)
    sizes = [
        size_of(build, vocab_size, seq_len, n_samples, batch_size, data_multiples, place, dtype) for build in builders
    ]
    _check_sizes(sizes, estimator)
    kept = Store(
        store,
        experiment("capacity on uniform random tokens", place, dtype, vocab_size=vocab_size, seq_len=seq_len),
    )
    grid = Grid(sizes, tuple(seeds), Protocol(vocab_size, seq_len, dtype, str(place)), kept, progress)
    budget = budget_seconds if steps == "auto" and budget_seconds is not None else math.inf
    if steps == "auto":
        first = grid.once("first_steps", lambda: first_steps(grid, budget))
        schedule: Iterable[int] = (first * 2**doublings for doublings in itertools.count())
    else:
        schedule = sorted({max(1, steps // 4), max(1, steps // 2), steps})
        first = min(schedule)
    pilots = [pilot(grid, size, max(1, first // 3)) if peak_lr == "auto" else (float(peak_lr), 0.0) for size in sizes]
    hot, seconds = tuple(rate for rate, _ in pilots), sum(taken for _, taken in pilots)
    rounds: list[Round] = []
    for n_steps in schedule:
        if rounds and seconds + rounds[-1].seconds * n_steps / rounds[-1].steps > budget:
            break
        rounds.append(train_round(grid, n_steps, rounds[-1].best_lrs if rounds else hot, estimator, convention))
        seconds += rounds[-1].seconds
        if steps == "auto" and _converged(rounds):
            break
    return _result(grid, rounds, seconds)


def _gains(rounds: list[Round]) -> list[float]:
    """Growth of capacity from round to round per doubling of the steps, of the model size that grew most.

    NaN where a size held nothing before, or holds nothing after.
    """
    gains = []
    for before, after in itertools.pairwise(rounds):
        held, holds = before.capacity.capacity_bits, after.capacity.capacity_bits
        some = min(held.min(), holds.min()) > 0
        growth = float((holds / held).max()) if some else math.nan
        gains.append(growth ** (1 / math.log2(after.steps / before.steps)) - 1)
    return gains


def _converged(rounds: list[Round]) -> bool:
    """Two gains in a row below 1 %: one can be an accident (0.6 %, then 1.8 %, has been seen)."""
    gains = _gains(rounds)
    return len(gains) >= 2 and all(gain < CONVERGED_GAIN for gain in gains[-2:])


def _result(grid: Grid, rounds: list[Round], seconds: float) -> Capacity:
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
            "models": [size.identity.rsplit(" ", 1)[0] for size in grid.sizes],
            "parameters": [dataclasses.asdict(size.params) for size in grid.sizes],
            "seeds": list(grid.seeds),
            "n_samples": [list(size.n_samples) for size in grid.sizes],
            "batch_size": [size.batch_size for size in grid.sizes],
            "dtype": grid.protocol.dtype,
            "device": grid.protocol.device,
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
            "seconds": seconds,
            "tokens_trained_a_run": [last.steps * size.batch_size * grid.protocol.seq_len for size in grid.sizes],
            "versions": versions_of([run for one in rounds for run in one.runs]),
        },
    )
    if not capacity.converged:
        warn(NotConvergedWarning(f"{capacity.convergence}, after {last.steps} steps."))
    return capacity


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
