"""`fit_capacity`: from runs to a capacity."""

import math
from typing import get_args

import numpy as np

from memorization.capacity.estimators import (
    RULES,
    bias_bits_of_maxima,
    capacity_rule,
    cells_of,
    error_quantile,
    largest_capacity,
    plateau_capacity,
    stderr_over_sizes,
    t_quantile,
    weights_of,
)
from memorization.capacity.result import Capacity
from memorization.capacity.runs import Convention, Estimator, ceiling_of_runs, check_protocol, curve_of, read_runs
from memorization.errors import InputError
from memorization.renamed import renamed_keywords
from memorization.results import versions
from memorization.stats.arrays import ArrayLike
from memorization.stats.levels import Interval, check_level


@renamed_keywords(interval="level")
def fit_capacity(
    n_params: ArrayLike,
    memorized_bits: ArrayLike,
    *,
    n_samples: ArrayLike | None = None,
    seed: ArrayLike | None = None,
    n_non_embedding_params: ArrayLike | None = None,
    seq_len: int | None = None,
    vocab_size: int | None = None,
    estimator: Estimator = "max",
    convention: Convention = "start",
    level: float = 0.95,
) -> Capacity:
    """Bits per parameter from the memorized bits of training runs, one row a run.

    Each model size first gets one capacity. With n_samples=None: the mean of its rows, each a maximum already. For
    `max`: the maximum over data-set sizes of the mean over seeds. Otherwise: the mean over the data-set sizes on the
    plateau, those whose information (`information_ceiling_bits`) is at least 1.25 times the largest mean of memorized
    bits. `slope`, `slope_origin` and `mean` fall back to the maximum for all sizes where one has fewer than two
    data-set sizes on its plateau, or seq_len, vocab_size are not given; settings["capacity_of_size"] says which it was.

    For one model size the error comes from its runs, for several from their scatter. The page on capacity in the
    documentation explains errors and bias, which is not subtracted.

    Args:
        n_params: of each run's model, all embeddings counted; equal numbers are one model size.
        memorized_bits: of each run, over its whole data set, in bits. May be negative.
        n_samples: samples of each run's data set; None where each row is already a maximum over data-set sizes.
        seed: of each run, for the table and to refuse runs given twice; None counts every row as another seed.
        n_non_embedding_params: of each run's model.
        seq_len: tokens of a sample; with vocab_size and n_samples, rows are checked against the information in the
            data.
        vocab_size: tokens to choose from.
        estimator: "max" and "mean" and "plateau" are the mean over model sizes of bits per parameter, of different
            capacities (see above); "slope" the least-squares slope of capacity over parameters, with intercept;
            "slope_origin" through the origin.
        convention: of the given numbers, which are not converted: "start" (all tokens), "strict" (first tokens left
            out), "paper" (strict x S / (S - 1)).
        level: of the interval.

    Returns:
        The estimate with its standard error, interval and bias; NaN where the rows cannot tell.

    Raises:
        InputError: rows or options that cannot be used, or too few model sizes for the estimator.

    Warns:
        MeasurementWarning: a run has more bits than a set of distinct samples lets a model save.

    Guarantees:
        The order of the rows does not matter. Bits times a and parameters times b give the estimate times a / b.

    Examples:
        >>> from memorization.capacity import fit_capacity
        >>> result = fit_capacity([1000, 2000, 4000], [3600, 7200, 14400], estimator="slope")
        >>> round(result.bits_per_param, 6), round(result.exponent()[0], 6)
        (3.6, 1.0)

    Source:
        arXiv:2505.24832, section 3 and table 1, whose 3.51 and 3.83 are `mean` and whose 3.64 is `slope` over the rows
        with d >= 64.
    """
    if estimator not in get_args(Estimator):
        raise InputError(f"estimator must be one of {', '.join(get_args(Estimator))}; it is {estimator!r}.")
    seq_len, vocab_size = check_protocol(seq_len, vocab_size, convention)
    level = check_level(level)
    runs = read_runs(n_params, memorized_bits, n_samples, seed, n_non_embedding_params)
    ceiling_bits = ceiling_of_runs(runs, seq_len, vocab_size, convention)
    sizes, first = np.unique(runs["n_params"], return_index=True)
    if estimator == "slope" and len(sizes) < 3:
        raise InputError(
            f'estimator "slope" needs at least 3 model sizes (line and error); there are {len(sizes)}: take '
            '"slope_origin" or "mean".'
        )
    groups = [cells_of(runs, runs["n_params"] == size, ceiling_bits) for size in sizes]
    rule = capacity_rule(groups, sizes, estimator, seq_len, vocab_size)
    held = [plateau_capacity(cells) if rule == "plateau" else largest_capacity(cells) for cells in groups]
    capacity_bits = np.array([one.bits for one in held])
    params = sizes.astype(np.float64)
    weights = weights_of(params, estimator)
    estimate = float(weights @ capacity_bits)
    if len(sizes) == 1:
        stderr, t = held[0].stderr_bits / float(params[0]), t_quantile(held[0].df, level)
    else:
        stderr = stderr_over_sizes(capacity_bits, params, estimator)
        t = error_quantile(tuple(params.tolist()), estimator, level)
    bias = math.nan if rule == "given" else 0.0
    if rule == "maximum":
        bias = float(weights @ bias_bits_of_maxima(groups, params))
    return Capacity(
        bits_per_param=estimate,
        stderr=stderr,
        interval=Interval(estimate - t * stderr, estimate + t * stderr),
        capacity_bits=capacity_bits,
        n_params=sizes,
        n_non_embedding_params=runs["n_non_embedding_params"][first],
        curve=curve_of(runs),
        converged=None,
        gain_per_doubling=math.nan,
        estimator=estimator,
        convention=convention,
        bias=bias,
        seq_len=seq_len,
        vocab_size=vocab_size,
        settings={"capacity_of_size": RULES[rule], "interval_level": level, "versions": versions()},
    )
