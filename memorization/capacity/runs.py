"""The columns of runs, checked against each other and against the information in the data."""

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Literal, get_args

import numpy as np
from jaxtyping import Float64, Int64

from memorization.errors import InputError, MeasurementWarning, warn
from memorization.integers import check_integer
from memorization.stats.arrays import ArrayLike

# Bits per parameter that GPT-2 style models hold (arXiv:2505.24832, table 1: 3.51 +- 0.1 in bfloat16, 3.83 in float32;
# slope 3.64).
EXPECTED_BITS_PER_PARAM = 3.6

if TYPE_CHECKING:
    import pandas as pd

Estimator = Literal["max", "plateau", "slope", "slope_origin", "mean"]
Convention = Literal["start", "strict", "paper"]

CURVE = ("n_params", "n_samples", "seed", "steps", "memorized_bits")


def information_ceiling_bits(
    n_samples: ArrayLike, seq_len: int, vocab_size: int, convention: Convention = "start"
) -> Float64[np.ndarray, "*shape"]:
    """The most bits that a model of any size can hold of n_samples distinct uniform random samples.

    A model spends at least the entropy of the samples' empirical distribution on each, log2 N bits for N distinct ones
    (the order of the samples cannot be stored), so of their N S log2 V bits it saves at most N (S log2 V - log2 N).
    Duplicates have less entropy and raise the ceiling. The floor is 0, for more samples than there are different ones.

    Args:
        n_samples: samples of the data set, one or many.
        seq_len: S, tokens of a sample.
        vocab_size: V.
        convention: "start" counts all S tokens. "strict" leaves out each first token and so what it saves at least:
            with H1 the entropy of the empirical first tokens, the ceiling is N ((S - 1) log2 V - log2 N + H1). No data
            are at hand, so H1 is replaced by its bound min(log2 V, log2 N), which makes it the smaller of the `start`
            ceiling and N (S - 1) log2 V. "paper" is strict x S / (S - 1): it may exceed the information there is in the
            samples.

    Returns:
        Bits, float64, in the shape of n_samples.

    Raises:
        InputError: seq_len, vocab_size, convention or n_samples outside their range.

    Examples:
        >>> float(information_ceiling_bits(8, seq_len=4, vocab_size=2))  # 8 x (4 - 3)
        8.0

    Source:
        arXiv:2505.24832, section 3.1; the ceiling is Gibbs' inequality.
    """
    check_protocol(seq_len, vocab_size, convention)
    samples = np.asarray(n_samples, dtype=np.float64)
    if not (np.isfinite(samples).all() and (samples >= 1).all()):
        raise InputError(f"n_samples must be at least 1 everywhere; it is {n_samples!r}.")
    sample_bits = seq_len * math.log2(vocab_size)
    start = np.asarray(samples * np.maximum(sample_bits - np.log2(samples), 0.0))
    if convention == "start":
        return start
    strict = np.minimum(start, samples * (seq_len - 1) * math.log2(vocab_size))
    return np.asarray(strict if convention == "strict" else strict * seq_len / (seq_len - 1))


def check_protocol(seq_len: int | None, vocab_size: int | None, convention: str) -> tuple[int | None, int | None]:
    """The two numbers as int, checked against each other and the convention; None stays None."""
    if convention not in get_args(Convention):
        raise InputError(f"convention must be one of {', '.join(get_args(Convention))}; it is {convention!r}.")
    least = 1 if convention == "start" else 2
    if seq_len is not None:
        seq_len = check_integer("seq_len", seq_len, at_least=None, besides="None")
        if seq_len < least:
            raise InputError(f'seq_len must be at least {least} with convention "{convention}"; it is {seq_len}.')
    if vocab_size is not None:
        vocab_size = check_integer("vocab_size", vocab_size, at_least=2, besides="None")
    return seq_len, vocab_size


def read_runs(
    n_params: ArrayLike,
    memorized_bits: ArrayLike,
    n_samples: ArrayLike | None,
    seed: ArrayLike | None,
    n_non_embedding_params: ArrayLike | None,
) -> dict[str, np.ndarray]:
    """The columns of the runs, checked; float64 with NaN where a column may be missing."""
    runs = {
        "n_params": _whole_column("n_params", n_params, least=1),
        "memorized_bits": _column("memorized_bits", memorized_bits),
    }
    n_runs = len(runs["n_params"])
    optional = {"n_samples": (n_samples, 1), "n_non_embedding_params": (n_non_embedding_params, 0)}
    for name, (values, least) in optional.items():
        missing = np.full(n_runs, np.nan)
        runs[name] = missing if values is None else _whole_column(name, values, least=least).astype(np.float64)
    if seed is not None:
        runs["seed"] = _whole_column("seed", seed, least=None)
    for name, column in runs.items():
        if len(column) != n_runs:
            raise InputError(
                f"all columns hold one entry a run: n_params has {n_runs}, {name} has {len(column)}. "
                "Repeat what is the same for several runs."
            )
    _check_rows(runs)
    return runs


def _column(name: str, values: ArrayLike) -> Float64[np.ndarray, " run"]:
    try:
        given = np.asarray(values)
        column = given.astype(np.float64)
    except (TypeError, ValueError) as error:
        raise InputError(f"{name} must be a flat array of numbers, one a run: {error}.") from error
    strange = [value for value in given.ravel().tolist() if isinstance(value, bool | str | bytes)]
    if strange:
        raise InputError(f"{name} must be numbers; {strange[0]!r} is none ({len(strange)} such).")
    if column.ndim != 1:
        raise InputError(f"{name} must be a flat array, one entry a run; its shape is {list(column.shape)}.")
    if not len(column):
        raise InputError(f"{name} is empty: there are no runs to fit.")
    wrong = np.flatnonzero(~np.isfinite(column))
    if len(wrong):
        raise InputError(
            f"{name} must be finite; row {wrong[0]} is {column[wrong[0]]} ({len(wrong)} such). Leave failed runs out."
        )
    return column


def _whole_column(name: str, values: ArrayLike, *, least: int | None) -> Int64[np.ndarray, " run"]:
    column = _column(name, values)
    wrong = np.flatnonzero((column != np.floor(column)) | (column < (-np.inf if least is None else least)))
    if len(wrong):
        bound = "" if least is None else f" of at least {least}"
        raise InputError(f"{name} must be whole numbers{bound}; row {wrong[0]} is {column[wrong[0]]:g}.")
    # Not by way of float64, which rounds what is above 2^53, as seeds may be.
    return np.asarray(values).astype(np.int64)


def _check_rows(runs: "Mapping[str, np.ndarray]") -> None:
    params, rest = runs["n_params"], runs["n_non_embedding_params"]
    wrong = np.flatnonzero(rest > params)
    if len(wrong):
        row = wrong[0]
        raise InputError(
            f"n_params counts all parameters, so n_non_embedding_params cannot exceed it; row {row} has "
            f"{rest[row]:,.0f} of {params[row]:,}."
        )
    _, first, size = np.unique(params, return_index=True, return_inverse=True)
    wrong = np.flatnonzero(rest != rest[first][size]) if not np.isnan(rest).any() else wrong
    if len(wrong):
        row, other = wrong[0], first[size[wrong[0]]]
        raise InputError(
            f"rows {other} and {row} both have {params[row]:,} parameters, but {rest[other]:,.0f} and "
            f"{rest[row]:,.0f} of them non-embedding: equal n_params are taken for one model size. Fit one "
            "kind of model at a time."
        )
    if "seed" in runs:
        seen: dict[tuple[float, ...], int] = {}
        for row, run in enumerate(zip(params, runs["n_samples"], runs["seed"], strict=True)):
            key = tuple(-1 if value != value else value for value in run)
            if seen.setdefault(key, row) != row:
                raise InputError(
                    f"rows {seen[key]} and {row} are the same run: {run[0]:,} parameters, "
                    f"{'' if key[1] < 0 else f'{run[1]:,.0f} samples, '}seed {run[2]}. Twice counted it would make "
                    "the error look smaller."
                )


def ceiling_of_runs(
    runs: "Mapping[str, np.ndarray]", seq_len: int | None, vocab_size: int | None, convention: Convention
) -> Float64[np.ndarray, " run"]:
    """Information in the data set of each run, NaN where unknown; refuses a run with more bits than its data."""
    n_samples, bits = runs["n_samples"], runs["memorized_bits"]
    if seq_len is None or vocab_size is None or np.isnan(n_samples).any():
        return np.full(len(bits), np.nan)
    counted = seq_len - 1 if convention == "strict" else seq_len
    wrong = np.flatnonzero(bits > n_samples * counted * math.log2(vocab_size) * (1 + 1e-6))  # 1e-6: float32 sums
    if len(wrong):
        row = wrong[0]
        all_bits = n_samples[row] * counted * math.log2(vocab_size)
        raise InputError(
            f"row {row} ({runs['n_params'][row]:,} parameters) has memorized {bits[row]:,.1f} bits, but "
            f"{n_samples[row]:,.0f} samples of {counted} counted tokens have {all_bits:,.1f} in all (vocab_size "
            f"{vocab_size:,}). Are these bits, of this data set, and is "
            f'convention "{convention}" theirs?'
        )
    ceiling_bits = information_ceiling_bits(n_samples, seq_len, vocab_size, convention)
    above = np.flatnonzero(bits > 1.001 * ceiling_bits)
    if len(above):
        row = above[0]
        warn(
            f"row {row} ({runs['n_params'][row]:,} parameters) has memorized {bits[row]:,.1f} bits; "
            f"{n_samples[row]:,.0f} distinct samples let a model save {ceiling_bits[row]:,.1f} ({len(above)} such "
            "rows). Do samples repeat, does their order reach the model, or are seq_len, vocab_size or convention "
            "others?",
            MeasurementWarning,
        )
    return ceiling_bits


def curve_of(runs: "Mapping[str, np.ndarray]") -> "pd.DataFrame":
    """The runs as the table that a Capacity carries."""
    import pandas as pd

    n_runs = len(runs["n_params"])
    unknown = pd.array([pd.NA] * n_runs, dtype="Int64")
    known = not np.isnan(runs["n_samples"]).any()
    columns = {
        "n_params": runs["n_params"],
        "n_samples": pd.array(runs["n_samples"].astype(np.int64), dtype="Int64") if known else unknown,
        "seed": pd.array(runs["seed"], dtype="Int64") if "seed" in runs else unknown,
        "steps": unknown,
        "memorized_bits": runs["memorized_bits"],
    }
    return pd.DataFrame({name: columns[name] for name in CURVE})
