"""The result of a capacity measurement: the estimate with its error, its runs, and whether to believe it."""

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float64, Int64

from memorization.capacity.estimators import slope_weights, t_quantile
from memorization.capacity.growth import MORE_STEPS
from memorization.capacity.runs import CURVE, Convention, Estimator
from memorization.results import Result, Saved, counted, number
from memorization.stats.levels import Interval

if TYPE_CHECKING:
    import pandas as pd

_FIGURES = ("bits_per_param", "stderr", "gain_per_doubling", "bias")
_FACTS = ("converged", "estimator", "convention", "seq_len", "vocab_size", "settings")
_SIZES = ("n_params", "n_non_embedding_params", "capacity_bits")


@dataclass(frozen=True, slots=True, eq=False)
class Capacity(Result):
    """Bits per parameter that models of one kind can hold, with what the number was computed from.

    A saved folder holds capacity.parquet (a row a model size), curve.parquet (a row a run) and settings.json (the
    rest).

    Attributes:
        bits_per_param: the estimate, in bits per parameter, all embeddings counted.
        stderr: its standard error; NaN where one run a size cannot tell.
        interval: its lower and upper end, at the level that settings["interval_level"] holds; NaN with stderr.
        capacity_bits: of each model size, in bits: what settings["capacity_of_size"] says.
        n_params: of each model size, ascending.
        n_non_embedding_params: of each model size; NaN where not given.
        curve: one row a run: n_params, n_samples, seed, steps, memorized_bits; missing where not given.
        converged: whether training longer would not raise the bits; None where nobody knows, as after `fit_capacity`.
        gain_per_doubling: relative growth of bits per parameter over the last doubling of training steps; NaN where
            unknown.
        estimator: "max", "plateau", "slope", "slope_origin" or "mean"; see `fit_capacity`.
        convention: which tokens' bits were counted: "start", "strict" or "paper"; see `information_ceiling_bits`.
        bias: bits per parameter by which taking maxima over noisy means overstates the estimate, by simulation; not
            subtracted. 0 where no maximum was taken, NaN where one was and the noise is unknown.
        seq_len: tokens of a sample; None where not given.
        vocab_size: None where not given.
        settings: what was decided for the caller.

    Examples:
        >>> from memorization import fit_capacity
        >>> found = fit_capacity([1_000, 2_000, 4_000], [3_600.0, 7_200.0, 14_400.0])
        >>> round(found.bits_per_param, 6), len(found.to_pandas())
        (3.6, 3)
    """

    bits_per_param: float
    stderr: float
    interval: Interval
    capacity_bits: Float64[np.ndarray, " size"]
    n_params: Int64[np.ndarray, " size"]
    n_non_embedding_params: Float64[np.ndarray, " size"]
    curve: "pd.DataFrame"
    converged: bool | None
    gain_per_doubling: float
    estimator: Estimator
    convention: Convention
    bias: float = math.nan
    seq_len: int | None = None
    vocab_size: int | None = None
    settings: dict[str, Any] = field(default_factory=dict)

    @property
    def scatter(self) -> float:
        """Standard deviation of bits per parameter between model sizes, relative to their mean; NaN for one size."""
        ratios = self.capacity_bits / self.n_params
        return float(ratios.std(ddof=1) / ratios.mean()) if len(ratios) > 1 else math.nan

    def exponent(self) -> tuple[float, Interval]:
        """Exponent b of capacity = a x parameters^b, with its t interval, by least squares of the logarithms.

        1 where every parameter holds the same number of bits. NaN for fewer than three model sizes, or a capacity that
        is not positive.
        """
        if len(self.n_params) < 3 or self.capacity_bits.min() <= 0:
            return math.nan, Interval.unknown()
        log_params, log_bits = np.log(self.n_params), np.log(self.capacity_bits)
        weights = slope_weights(log_params)
        exponent = float(weights @ log_bits)
        residuals = log_bits - log_bits.mean() - exponent * (log_params - log_params.mean())
        df = len(log_bits) - 2
        stderr = math.sqrt(residuals @ residuals / df * (weights @ weights))
        half = t_quantile(df, self.settings.get("interval_level", 0.95)) * stderr
        return exponent, Interval(exponent - half, exponent + half)

    def to_pandas(self) -> "pd.DataFrame":
        """One row a model size: both parameter counts, capacity in bits, and bits per parameter of each count."""
        import pandas as pd

        rest = np.where(self.n_non_embedding_params > 0, self.n_non_embedding_params, np.nan)
        return pd.DataFrame(
            {
                "n_params": self.n_params,
                "n_non_embedding_params": self.n_non_embedding_params,
                "capacity_bits": self.capacity_bits,
                "bits_per_param": self.capacity_bits / self.n_params,
                "bits_per_non_embedding_param": self.capacity_bits / rest,
            }
        )

    def _tables(self) -> "dict[str, pd.DataFrame]":
        return {"capacity": self.to_pandas(), "curve": self.curve}

    def _facts(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in (*_FIGURES, "interval", *_FACTS)}

    @classmethod
    def _from_saved(cls, saved: Saved) -> "Capacity":
        facts = saved.need(*_FIGURES, *_FACTS, "interval")
        sizes, curve = saved.table("capacity", _SIZES), saved.table("curve", CURVE)
        if set(sizes["n_params"]) != set(curve["n_params"]):
            raise saved.damaged("its tables hold different model sizes")
        return cls(
            interval=Interval(*map(number, facts["interval"])),
            capacity_bits=sizes["capacity_bits"].to_numpy(np.float64),
            n_params=sizes["n_params"].to_numpy(np.int64),
            n_non_embedding_params=sizes["n_non_embedding_params"].to_numpy(np.float64),
            curve=curve,
            # mypy takes them for all fields
            **{name: number(facts[name]) for name in _FIGURES},  # type: ignore[arg-type]
            **{name: facts[name] for name in _FACTS},
        )

    def __repr__(self) -> str:
        level = f"{100 * self.settings.get('interval_level', 0.95):g} % interval"
        known = f"{self.stderr:.2g}; {level} {self.interval:.4g}"
        if self.converged is False:
            known += f", of the figure {self._after}, not of the capacity"
        sizes = self.to_pandas()
        spent = self.settings.get("budget_spent_seconds")
        lines = []
        if spent is not None:
            lines.append(f"Cut short by a budget of {spent:,.0f} s: a faster machine would have trained for longer")
        least = f"at least {self.bits_per_param:.4g}" if self.converged is False else f"{self.bits_per_param:.4g}"
        after = f" {self._after}" if self.converged is False else ""
        lines += [
            f"Capacity {least} bits per parameter{after} ({counted(len(sizes), 'model size')}, "
            f"{counted(len(self.curve), 'run')})",
            f"  estimator    {self.estimator}; a size's capacity is "
            f"{self.settings.get('capacity_of_size', 'not recorded')}",
            f"  convention   {self.convention}",
            f"  stderr       {'unknown: too few runs to tell' if math.isnan(self.stderr) else known}",
        ]
        if self.bias != 0 or self.estimator == "max":
            bias = "unknown" if math.isnan(self.bias) else f"{self.bias:+.2g} bits per parameter, not subtracted"
            lines.append(f"  bias         {bias}: what a maximum over noisy means is too high by")
        lines += [f"  convergence  {self.convergence}", *self._extrapolation()]
        if "rounds" in self.settings:
            rounds = [f"{counted(one['steps'], 'step')} {one['bits_per_param']:.2f}" for one in self.settings["rounds"]]
            lines.append(f"  rounds       {', '.join(rounds)} bits per parameter")
        exponent, ends = self.exponent()
        if not math.isnan(exponent):
            lines.append(f"  exponent     {exponent:.3f} {ends:.3f} of capacity in parameters")
        lines.append(
            f"{'n_params':>14}{'non-embedding':>15}{'capacity_bits':>15}{'bits/param':>12}{'bits/non-emb.':>15}"
        )
        for n_params, rest, bits, per_param, per_rest in sizes.itertuples(index=False):
            known_rest = ("unknown", "unknown") if math.isnan(rest) else (f"{rest:,.0f}", f"{per_rest:.3f}")
            lines.append(f"{n_params:>14,}{known_rest[0]:>15}{bits:>15,.0f}{per_param:>12.3f}{known_rest[1]:>15}")
        return "\n".join(lines)

    @property
    def convergence(self) -> str:
        """Whether longer training would raise the bits, as far as known, in words."""
        gain, error = self.gain_per_doubling, self.settings.get("growth", {}).get("gain_stderr")
        known = "" if error is None else f" \N{PLUS-MINUS SIGN} {100 * error:.1f}"
        growth = "" if math.isnan(gain) else f" {100 * gain:.1f}{known} % per doubling of steps"
        if self.converged is None:
            return "unknown: an undertrained model looks like one of low capacity"
        high = self.settings.get("growth", {}).get("remaining_high")
        rest = "" if high is None else f"; {MORE_STEPS:,} times the steps would bring at most {100 * high:.1f} %"
        if self.converged:
            return f"converged:{growth}{rest}" if growth else "converged"
        if not growth:
            return "lower bound: training had not converged"
        return f"lower bound: memorized bits still grow{growth}{rest}"

    @property
    def _after(self) -> str:
        """The steps of the last round, in words."""
        rounds = self.settings.get("rounds")
        return f"after {counted(rounds[-1]['steps'], 'step')}" if rounds else "after so many steps"

    def _extrapolation(self) -> list[str]:
        """Where training without end would lead, by the law of the rounds, and how that law did before."""
        growth = self.settings.get("growth")
        if growth is None or self.converged or len(self.settings["rounds"]) < 3:
            return []
        if growth["remaining"] is None:
            return ["  extrapolated refused: the rounds fit too many laws"]
        low, high = (self.bits_per_param * (1 + growth[name]) for name in ("remaining", "remaining_high"))
        line = f"  extrapolated {low:.3g} bits per parameter at {MORE_STEPS:,} times the steps, at most {high:.3g}"
        if growth["expected"] is None:
            return [line]
        came, expected, error = (100 * growth[name] for name in ("gain", "expected", "expected_stderr"))
        plus_minus = "\N{PLUS-MINUS SIGN}"
        back_test = f"the rounds before expected {expected:+.1f} {plus_minus} {error:.1f} % of the last, which brought"
        return [line, f"  back-test    {back_test} {came:+.1f} %"]
