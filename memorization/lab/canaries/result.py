"""The result of canaries: memU of each, and how it rises with repetitions in the training set."""

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from memorization.errors import MeasurementWarning, warn
from memorization.results import Result, Saved, describe_first_token
from memorization.stats.means import mean_interval
from memorization.stats.ranks import PERMUTATIONS, permutation_trend
from memorization.stats.significance import p_of_e_values, q_of_e_values

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["DoseResponse", "assemble", "warn_of_faults"]

COLUMNS = ("run", "canary", "repetitions", "bits", "signed_bits", "ideal_signed_bits", "second_half_bits")
_SLACK_BITS = 1.0  # the range coder's rounding, at most
_CHANCE = 1e-3  # of a warning about a control that nothing is wrong with
_LIKELY_BITS = 1.0  # probability 1/2: no other continuation is likelier, so greedy decoding writes it out


@dataclass(frozen=True, slots=True, eq=False)
class DoseResponse(Result):
    """memU of canaries, in bits, against how often each stands in the training set.

    A saved folder holds canaries.parquet (a row a canary), dose_response.parquet (a row a count) and settings.json.

    Attributes:
        canaries: one row a canary: run (of the training, from 0), canary (its place in that run), repetitions (0: the
            control), bits (memU, coded, never below 0), signed_bits (the same not clipped), ideal_signed_bits (from
            -log2 p), second_half_bits (ideal code length of the second half of its tokens, given the first),
            second_half_probability (2^-second_half_bits), prefix_needed (the fewest leading tokens after which greedy
            decoding writes out all the others), greedy (1 where it does so after the first half, else 0). These two are
            NaN where an earlier version measured, which did not look. p_value (2^-ideal_signed_bits, at most 1: the
            oracle of uniform draws is exact) and q_value (the lowest false discovery rate at which e-BH selects it).
        information_bits: that each canary has, n log2 V for n tokens: the ceiling of memU.
        trend: Spearman's rank correlation of repetitions and signed_bits over all canaries, the control counted as 0;
            NaN where all signed_bits are equal.
        trend_p_value: one-sided, for "memU does not rise": permutations of the canaries within a run, 0.0001 being the
            least there is.
        settings: what was decided, by the caller or for the caller.

    Examples:
        >>> from memorization import UniformModel
        >>> from memorization.lab.canaries import dose_response, make_canaries
        >>> found = dose_response(UniformModel(16), make_canaries(4, 8, 16), [0, 0, 1, 1], vocab_size=16, first_token=0)
        >>> found.information_bits, found.to_pandas()["mean_bits"].tolist()
        (32.0, [0.0, 0.0])
    """

    canaries: "pd.DataFrame"
    information_bits: float
    trend: float
    trend_p_value: float
    settings: dict[str, Any]

    @property
    def max_excess_bits(self) -> float:
        """The most bits by which a canary's signed_bits exceed its information; above 1 the measurement is at fault."""
        return float(self.canaries["signed_bits"].max()) - self.information_bits

    def to_pandas(self) -> "pd.DataFrame":
        """One row a number of repetitions, ascending; 0 is the control.

        Columns: repetitions; n_canaries (of all runs together); mean_bits (memU) with low and high, its 95 % interval;
        mean_signed_bits; information_share (mean_bits / information_bits); by_heart_bits (memU of a model that knows
        its whole training set by heart: information_bits - log2(training samples / repetitions), which is what it costs
        to say which sample; NaN where the training set is not known); information_bits.

        Three are about the second half of a canary after its first half: greedy_share (of canaries whose second half
        greedy decoding writes out; NaN where an earlier version measured one of them); likely_share (of those whose
        second half has a probability of at least 1/2); median_tries (how many continuations must be drawn from the
        model, in the mean, until one is the second half: 1 / probability, of the median canary; inf beyond 1,024 bits).
        A probability of 1/2 is sufficient for greedy decoding, and not necessary: each token need only be likelier than
        any other single token. recited_share is the old name of likely_share.
        """
        return self._once("table", self._by_repetitions).copy()

    def _by_repetitions(self) -> "pd.DataFrame":
        import pandas as pd

        rows = []
        for repetitions, group in self.canaries.groupby("repetitions"):
            bits, rest = (group[name].to_numpy(np.float64) for name in ("bits", "second_half_bits"))
            likely_share = float((rest <= _LIKELY_BITS).mean())
            low, high = mean_interval(bits)
            with np.errstate(over="ignore"):  # beyond 1,024 bits
                median_tries = float(np.exp2(np.median(rest)))
            rows.append(
                {
                    "repetitions": repetitions,
                    "n_canaries": len(group),
                    "mean_bits": float(bits.mean()),
                    "low": low,
                    "high": high,
                    "mean_signed_bits": float(group["signed_bits"].mean()),
                    "information_share": float(bits.mean()) / self.information_bits,
                    "greedy_share": float(group["greedy"].mean(skipna=False)),
                    "likely_share": likely_share,
                    "median_tries": median_tries,
                    "recited_share": likely_share,
                    "by_heart_bits": self._by_heart_bits(int(repetitions)),
                    "information_bits": self.information_bits,
                }
            )
        return pd.DataFrame(rows)

    def _by_heart_bits(self, repetitions: int) -> float:
        n_training_samples = self.settings["n_training_samples"]
        if n_training_samples is None or repetitions == 0:
            return math.nan
        return max(0.0, self.information_bits - math.log2(n_training_samples / repetitions))

    def _tables(self) -> "dict[str, pd.DataFrame]":
        return {"canaries": self.canaries, "dose_response": self.to_pandas()}

    def _facts(self) -> dict[str, Any]:
        return self.settings

    @classmethod
    def _from_saved(cls, saved: Saved) -> "DoseResponse":
        """Means and the trend are computed again from the canaries."""
        settings = saved.need("n_canaries", "information_bits", "n_training_samples", "first_token", "model", "seq_len")
        canaries = saved.table("canaries", COLUMNS, optional=("prefix_needed",))
        if len(canaries) != settings["n_canaries"]:
            raise saved.damaged(f"canaries.parquet has {len(canaries)} rows for {settings['n_canaries']} canaries")
        return assemble(canaries, settings)

    def __len__(self) -> int:
        return len(self.canaries)

    def __repr__(self) -> str:
        settings, table = self.settings, self.to_pandas()
        n_runs = self.canaries["run"].nunique()
        trained = f" in {n_runs} training{'s' * (n_runs > 1)}" if settings["training"] else ""
        lines = [
            f"DoseResponse of {len(self):,} canaries{trained}: {settings['seq_len']} of {settings['vocab_size']:,} "
            f"tokens, {self.information_bits:,.1f} bits of information each",
            "  repetitions  canaries    memU [95 % interval], bits    signed  of all   "
            "greedy  p >= 1/2     tries  by heart",
        ]
        for row in table.itertuples():
            span = "[unknown]" if math.isnan(row.low) else f"[{row.low:,.1f}, {row.high:,.1f}]"
            by_heart = "-" if math.isnan(row.by_heart_bits) else f"{row.by_heart_bits:,.1f}"
            greedy = "-" if math.isnan(row.greedy_share) else f"{100 * row.greedy_share:.0f} %"
            name = "0, control" if row.repetitions == 0 else f"{row.repetitions:,}"
            lines.append(
                f"  {name:>11}{row.n_canaries:>10,}{row.mean_bits:>11,.1f} {span:<19}{row.mean_signed_bits:>9,.1f}"
                f"{100 * row.information_share:>6.0f} %{greedy:>9}{100 * row.likely_share:>8.0f} %"
                f"{row.median_tries:>10.2g}{by_heart:>10}"
            )
        if table["greedy_share"].isna().any():
            lines.append("  greedy       unknown: an earlier version measured, which did not look; measure again")
        rises = "unknown: all canaries cost the same" if math.isnan(self.trend) else f"{self.trend:+.2f}"
        least = "<= " if self.trend_p_value <= 1 / (1 + PERMUTATIONS) else "= "
        lines.append(
            f"  trend        rank correlation {rises} of repetitions and signed memU, p {least}{self.trend_p_value:.2g}"
        )
        if table["repetitions"].iloc[0] > 0:
            lines.append("  control      none: measure canaries with 0 repetitions, too")
        lines.append(f"  ceiling      {-self.max_excess_bits:,.1f} bits above the most memorized canary")
        if settings["training"]:
            training = settings["training"]
            lines.append(
                f"  training     {training['steps']:,} steps of {training['batch_size']} samples (epochs: "
                f"{training['epochs']:g}), peak_lr {training['peak_lr']:g}; {settings['n_training_samples']:,} "
                "samples, canaries included"
            )
        lines.append(f"  model        {settings['model']}")
        lines.append(f"  first token  {describe_first_token(settings['first_token'])}")
        return "\n".join(lines)


def assemble(canaries: "pd.DataFrame", settings: dict[str, Any]) -> DoseResponse:
    """The result, from a row for each measured canary and from the settings.

    Whether greedy decoding writes a canary out is unknown where no prefix_needed came.

    Canaries are drawn alike, so where training did nothing to them, those of one model can change places. Those of two
    models cannot, so the trend's permutations stay within runs: what a model does to all of its canaries is no
    evidence.
    """
    known = canaries["prefix_needed"] if "prefix_needed" in canaries else np.full(len(canaries), math.nan)
    needed = np.asarray(known, dtype=np.float64)
    seq_len = settings["seq_len"]
    canaries = canaries[list(COLUMNS)].assign(
        second_half_probability=np.exp2(-canaries["second_half_bits"]),
        prefix_needed=needed,
        greedy=np.where(np.isnan(needed), math.nan, needed <= seq_len - seq_len // 2),
        p_value=p_of_e_values(canaries["ideal_signed_bits"].to_numpy(np.float64)),
        q_value=q_of_e_values(canaries["ideal_signed_bits"].to_numpy(np.float64)),
    )
    trend, p_value = permutation_trend(*(canaries[name].to_numpy() for name in ("repetitions", "signed_bits", "run")))
    return DoseResponse(canaries, settings["information_bits"], trend, p_value, settings)


def warn_of_faults(result: DoseResponse) -> None:
    """Warn where canaries show more memorization than is possible.

    Warns:
        MeasurementWarning: memU above a canary's information, or a control that is memorized.
    """
    if result.max_excess_bits > _SLACK_BITS:
        warn(
            f"a canary's memU is {result.max_excess_bits:.2f} bits above all the information it has "
            f"({result.information_bits:.1f} bits): the measurement is at fault, whatever the model. Please report it.",
            MeasurementWarning,
        )
    control = result.canaries[result.canaries["repetitions"] == 0]
    if len(control):
        most = control.loc[control["ideal_signed_bits"].idxmax()]
        # A code below n log2 V by k bits fits a share 2^-k of all strings at most (Kraft), and the control is drawn
        # from all.
        if most["ideal_signed_bits"] > math.log2(len(control) / _CHANCE):
            warn(
                f"control canary {most['canary']:.0f} is coded {most['ideal_signed_bits']:.1f} bits below uniform, "
                f"which happens to one of {len(control)} unseen canaries with probability "
                f"{len(control) * 2 ** -most['ideal_signed_bits']:.1g} at most: either the model was trained on it, "
                "or it was not drawn uniformly from [0, vocab_size).",
                MeasurementWarning,
            )
