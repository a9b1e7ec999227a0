"""What the rounds of a capacity measurement come to: how they grew, whether to believe them, and the result."""

import dataclasses
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from memorization.capacity import Capacity, Growth, growth, information_ceiling_bits, series
from memorization.errors import MeasurementWarning, NotConvergedWarning, warn
from memorization.lab.capacity.runs import Grid, Round
from memorization.lab.engines.runs import versions_of
from memorization.results import counted

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["converged", "growth_of", "result_of"]

# The mean of the larger of two standard normal numbers: what the better of two equal rates is too high by, in standard
# errors.
_BETTER_OF_TWO = 1 / math.sqrt(math.pi)
# Sets with less information than this share of the expected capacity must be held whole, up to a thousandth.
_HELD_WHOLE, _WHOLE = 0.6, 0.999


def curve_of(rounds: Sequence[Round]) -> "pd.DataFrame":
    """The runs that count, of all rounds."""
    import pandas as pd

    return pd.concat([one.capacity.curve.assign(steps=one.steps) for one in rounds], ignore_index=True)


def growth_of(rounds: Sequence[Round]) -> Growth:
    """Growth of the model size of which most may still come."""
    last, curve = rounds[-1].capacity, curve_of(rounds)
    assert last.seq_len is not None
    assert last.vocab_size is not None
    each = [
        growth(*series(curve, n_params, last.seq_len, last.vocab_size, last.convention))
        for n_params in last.n_params.tolist()
    ]
    return max(each, key=lambda one: (one.remaining_high, -math.inf if math.isnan(one.gain) else one.gain))


def converged(rounds: Sequence[Round]) -> bool:
    """Whether all that may still come is below 2 % at its upper end, for every model size."""
    return growth_of(rounds).converged


def result_of(grid: Grid, rounds: list[Round], seconds: float, spent: float | None) -> Capacity:
    """The capacity of the last round, with what all of them say of it; `spent`: the budget that ended them."""
    last, grown = rounds[-1], [growth_of(rounds[: index + 1]) for index in range(len(rounds))]
    bias = last.capacity.bias + (_BETTER_OF_TWO * last.capacity.stderr if last.two_rates else 0.0)
    self_test = _self_test(grid, last)
    capacity = dataclasses.replace(
        last.capacity,
        curve=curve_of(rounds),
        converged=grown[-1].converged,
        gain_per_doubling=grown[-1].gain,
        bias=bias,
        settings={
            **last.capacity.settings,
            "models": [size.identity.rsplit(" ", 1)[0] for size in grid.sizes],
            "parameters": [dataclasses.asdict(size.params) for size in grid.sizes],
            "seeds": list(grid.seeds),
            "n_samples": [list(size.n_samples) for size in grid.sizes],
            "batch_size": [size.batch_size for size in grid.sizes],
            "dtype": grid.protocol.dtype,
            "device": grid.protocol.device,
            "compiled": [size.compiled for size in grid.sizes],
            "growth": grown[-1].record(),
            "budget_spent_seconds": spent,
            "held_whole": self_test,
            "rounds": [
                {
                    "steps": one.steps,
                    "bits_per_param": one.capacity.bits_per_param,
                    "gain_per_doubling": None if math.isnan(each.gain) else each.gain,
                    "best_lrs": list(one.best_lrs),
                    "seconds": one.seconds,
                }
                for one, each in zip(rounds, grown, strict=True)
            ],
            "seconds": seconds,
            "tokens_trained_a_run": [last.steps * size.batch_size * grid.protocol.seq_len for size in grid.sizes],
            "versions": versions_of([run for one in rounds for run in one.runs]),
        },
    )
    _warn(capacity, last.steps, self_test)
    return capacity


def _self_test(grid: Grid, last: Round) -> list[dict[str, Any]]:
    """What is held of the sets that are so small that a model must hold them whole."""
    found = []
    for size in grid.sizes:
        for n_samples in size.n_samples:
            ceiling = float(information_ceiling_bits(n_samples, grid.protocol.seq_len, grid.protocol.vocab_size))
            if ceiling < _HELD_WHOLE * size.expected_bits:
                runs = [run for run in last.kept if (run["n_params"], run["n_samples"]) == (size.n_params, n_samples)]
                shares = [run["memorized_bits"] / ceiling for run in runs]
                found.append({"n_params": size.n_params, "n_samples": n_samples, "shares": shares})
    return found


def _warn(capacity: Capacity, steps: int, self_test: Sequence[dict[str, Any]]) -> None:
    short = [one for one in self_test if min(one["shares"]) < _WHOLE]
    if short:
        one = short[0]
        warn(
            f"{one['n_samples']} samples fill about half of the {one['n_params']:,} parameters and should be held "
            f"whole; {100 * min(one['shares']):.1f} % of their information is. Then larger sets are not held as they "
            "could be, either: train for more steps, or look for what keeps the model from it.",
            MeasurementWarning,
        )
    if not capacity.converged:
        warn(NotConvergedWarning(f"{capacity.convergence}, after {counted(steps, 'step')}."))
