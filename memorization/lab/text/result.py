"""The result of a sweep over text: a row for each run, bits of each member, and what follows from them."""

import tempfile
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast, get_args

import numpy as np
from jaxtyping import Int64

from memorization.errors import InputError, NotIdentifiedWarning
from memorization.measure.tokenizers import load_tokenizer
from memorization.results import Result, Saved
from memorization.scaling_law import Covariate, MIScalingLaw, fit_mi_scaling_law

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from memorization.rarity import Rarity

__all__ = ["ENDS", "MEANS", "SAMPLE_COLUMNS", "WITH_INTERVAL", "TextSweep", "cell_columns"]

ATTACKS = ("loss", "reference", "zlib", "min_k", "min_k_plus_plus")
SAMPLE_COLUMNS = (
    *("n_params", "n_samples", "seed", "sample", "document"),
    *("target_bits", "oracle_bits", "oracle_seen_bits"),
)
# Columns with an interval of whole documents: of means over test samples, and of the attacks of most interest.
MEANS = ("test_bits_per_token", "test_memu_signed_bits_a_sample")
WITH_INTERVAL = ("loss", "reference")
ENDS = ("low", "high")
_STUCK, _STUCK_USED = (
    0.995,
    2,
)  # F1 from which it is stuck at 1 and tells nothing of the law; so many such data sets are used
_AT_PEAK = (
    *("n_samples", "data_per_capacity", "uniform_data_per_capacity"),
    *("data_bits_per_param", "data_bits_per_non_embedding_param"),
)
_TOKENIZER = "tokenizer"
_CAPACITIES = Literal["parameters", "memorized"]


def cell_columns(settings: dict[str, Any], *, all_of_them: bool = True) -> list[str]:
    """Columns of `TextSweep.cells`: all of them, or those that every version has saved."""
    prefixes = settings["prefix_tokens"]
    more = [
        *("n_attacked", "gap_bits", "member_sd_bits", "test_sd_bits"),
        *(f"{name}_{end}" for name in MEANS for end in ENDS),
        *(f"{metric}_{attack}_{end}" for attack in WITH_INTERVAL for metric in ("f1", "auc") for end in ENDS),
    ]
    return [
        *("n_params", "n_non_embedding_params", "n_samples", "seed", "steps", "peak_lr"),
        *("train_bits_per_token", "test_bits_per_token", "data_bits", "capacity_bits", "data_per_capacity"),
        *("memu_bits", "memu_signed_bits", "memu_seen_bits", "memu_seen_signed_bits"),
        *("test_memu_bits_a_sample", "test_memu_signed_bits_a_sample"),
        *(f"{metric}_{attack}" for attack in ATTACKS for metric in ("f1", "auc")),
        *(f"{name}_{prefix}" for prefix in prefixes for name in ("extracted", "extracted_test")),
        *(more if all_of_them else ()),
        "seconds",
    ]


@dataclass(frozen=True, slots=True, eq=False)
class TextSweep(Result):
    """Models of several sizes on nested data sets of text.

    A saved folder holds cells.parquet, samples.parquet, ids.parquet, tokenizer/ and settings.json. It loads without
    samples.parquet, ids.parquet and tokenizer/, which are large: what they hold is missing then.

    Attributes:
        cells: a row a run. Columns: n_params, n_non_embedding_params, n_samples, seed, steps, peak_lr;
            train_bits_per_token (of all members, after training) and test_bits_per_token; data_bits (of all members,
            under the unseen oracle), capacity_bits, data_per_capacity; memu_bits (sum over members, clipped at 0 a
            sample) and memu_signed_bits under the unseen oracle, memu_seen_bits and memu_seen_signed_bits under the
            oracle that has seen them (NaN for a given oracle); test_memu_bits_a_sample and
            test_memu_signed_bits_a_sample, the same of test samples, which is the null; f1_ and auc_ of each attack
            (zlib: NaN for token ids); of the members and test samples that are attacked, equally many: n_attacked,
            member_sd_bits and test_sd_bits (standard deviations of the ideal bits a sample), gap_bits (mean ideal bits
            a test sample less a member); extracted_P and extracted_test_P for each prefix of P tokens; seconds. _low
            and _high of a column are the ends of its 95 % interval over whole documents. NaN where training diverged.
        samples: a row a member of a run. Columns: n_params, n_samples, seed, sample (row of `ids`), document (a number
            that samples of one document share; -1 where version 0.1.0 saved the result), target_bits, oracle_bits,
            oracle_seen_bits.
        ids: int64 token ids of the samples that were members of any run.
        tokenizer: what made them of texts; None where the documents were token ids.
        settings: what was decided for the caller.
    """

    cells: "pd.DataFrame"
    samples: "pd.DataFrame"
    ids: Int64[np.ndarray, "sample position"]
    tokenizer: Any
    settings: dict[str, Any]

    def to_pandas(self) -> "pd.DataFrame":
        """A row a run: `cells`."""
        return self.cells

    def peaks(self) -> "pd.DataFrame":
        """Where double descent peaks: the data-set size of most test bits, one row for each model size and seed.

        Columns: n_params, seed; n_samples, data_per_capacity, uniform_data_per_capacity (the data at log2 V bits a
        token), data_bits_per_param, data_bits_per_non_embedding_param at the peak, all NaN where the largest test bits
        are at the smallest or the largest data set, which is no peak; rise_bits_per_token, from the smallest data set
        to the peak, and fall_bits_per_token, from there to the largest. The true peak lies between the neighbouring
        data-set sizes.
        """
        import pandas as pd

        rows = []
        for (n_params, seed), runs in self.cells.dropna(subset="test_bits_per_token").groupby(["n_params", "seed"]):
            runs = runs.sort_values("n_samples")
            bits = runs["test_bits_per_token"].to_numpy()
            at = int(np.argmax(bits))
            where = dict.fromkeys(_AT_PEAK, np.nan)
            if 0 < at < len(runs) - 1:
                peak = runs.iloc[at]
                uniform = peak["n_samples"] * self.settings["seq_len"] * np.log2(self.settings["vocab_size"])
                figures = (
                    *(peak["n_samples"], peak["data_per_capacity"], uniform / peak["capacity_bits"]),
                    *(peak["data_bits"] / n_params, peak["data_bits"] / peak["n_non_embedding_params"]),
                )
                where = dict(zip(_AT_PEAK, figures, strict=True))
            changes = {"rise_bits_per_token": bits[at] - bits[0], "fall_bits_per_token": bits[at] - bits[-1]}
            rows.append({"n_params": n_params, "seed": seed, **where, **changes})
        return pd.DataFrame(rows)

    def law(
        self,
        *,
        covariate: Covariate = "data/capacity",
        capacity: _CAPACITIES = "parameters",
        n_params: int | None = None,
    ) -> MIScalingLaw:
        """The membership law of the loss attack's F1, over all runs or those of one model size.

        Of each model size and seed, data sets so small that F1 is stuck at 1 are left out but for the largest two. All
        others weigh the same.

        Args:
            covariate: x of the law, as for `fit_mi_scaling_law`.
            capacity: "parameters", or "memorized": the most memU in bits that the model size shows on any data set
                (mean over seeds), less what as many test samples show.
            n_params: one model size; None: all.

        Returns:
            The fitted law.

        Raises:
            InputError: too few runs, or no such size.

        Warns:
            NotIdentifiedWarning: the runs do not determine the law.
        """
        if capacity not in get_args(_CAPACITIES):
            raise InputError(f'capacity must be "parameters" or "memorized"; it is {capacity!r}.')
        found = self.cells.dropna(subset="f1_loss").sort_values("n_samples", ascending=False)
        if n_params is not None:
            self._check_size(n_params)
            found = found[found["n_params"] == n_params]
        stuck = found["f1_loss"] >= _STUCK
        place = stuck.groupby([found["n_params"], found["seed"]]).cumsum()
        used = found[~stuck | (place <= _STUCK_USED)]
        most = self._most_memorized().groupby("n_params").max()
        return fit_mi_scaling_law(
            used["n_params"] if capacity == "parameters" else used["n_params"].map(most),
            used["n_samples"],
            used["f1_loss"],
            covariate=covariate,
            capacity_unit="parameters" if capacity == "parameters" else "bits of memU at most",
            dataset_unit=f"samples of {self.settings['seq_len']} tokens",
        )

    def _most_memorized(self) -> "pd.Series[float]":
        """memU of all members less memU of equally many test samples, in bits, averaged over seeds."""
        null = self.cells["test_memu_bits_a_sample"] * self.cells["n_samples"]
        by = [self.cells["n_params"], self.cells["n_samples"]]
        return (self.cells["memu_bits"] - null).groupby(by).mean()

    def laws(self) -> "pd.DataFrame":
        """Which membership law fits: by ratio, by capacity, for all sizes together (n_params 0) and each alone.

        Columns: n_params, covariate, capacity, c1, c2, c3, residual (scatter of F1 around the law), identified. Of one
        size alone both capacities are the same law in other units, so there it is parameters only. Rows that cannot be
        fitted are left out.
        """
        import pandas as pd

        sizes = sorted(set(self.cells["n_params"]))
        rows = []
        for n_params, capacity, covariate in [
            *((None, capacity, covariate) for capacity in get_args(_CAPACITIES) for covariate in get_args(Covariate)),
            *((size, "parameters", covariate) for size in sizes for covariate in get_args(Covariate)),
        ]:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", NotIdentifiedWarning)
                try:
                    law = self.law(covariate=covariate, capacity=capacity, n_params=n_params)
                except InputError:
                    continue
            facts = {"n_params": n_params or 0, "covariate": covariate, "capacity": capacity}
            constants = {"c1": law.c1, "c2": law.c2, "c3": law.c3, "residual": law.residual}
            rows.append({**facts, **constants, "identified": "not_identified" not in law.settings})
        return pd.DataFrame(rows)

    def members(self, n_params: int, n_samples: int, seed: int | None = None) -> "pd.DataFrame":
        """memU of each member of one run.

        Columns: sample (row of `ids`), target_bits, oracle_bits, oracle_seen_bits, signed_bits and seen_signed_bits
        (oracle less target).

        Args:
            n_params: parameters of the model.
            n_samples: size of its data set.
            seed: of the run; None: the first.

        Returns:
            One row a member.

        Raises:
            InputError: there is no such run.
        """
        seed = self.settings["seeds"][0] if seed is None else seed
        there = self.samples
        chosen = there[(there["n_params"] == n_params) & (there["n_samples"] == n_samples) & (there["seed"] == seed)]
        if not len(chosen):
            self._check_size(n_params)
            raise InputError(
                f"there are no bits of members of {n_params} parameters on {n_samples} samples with seed {seed}: data "
                f"sets are of {sorted(set(self.cells['n_samples']))} samples, and a result loaded without "
                "samples.parquet has none."
            )
        return chosen.drop(columns=["n_params", "n_samples", "seed"]).assign(
            signed_bits=chosen["oracle_bits"] - chosen["target_bits"],
            seen_signed_bits=chosen["oracle_seen_bits"] - chosen["target_bits"],
        )

    def rarity(self, n_params: int, n_samples: int, seed: int | None = None) -> "Rarity":
        """Which members of a run are memorized: memU under the unseen oracle against rarity and duplicates.

        Intervals and p-values of the correlations are of whole documents.

        Args:
            n_params: as for `members`.
            n_samples: as for `members`.
            seed: as for `members`.

        Returns:
            A row a member, and rank correlations.
        """
        from memorization.rarity import which_samples

        found = self.members(n_params, n_samples, seed)
        ids = self.ids[found["sample"].to_numpy()]
        bits, oracle = found["signed_bits"].to_numpy(), found["oracle_bits"].to_numpy()
        document = found["document"].to_numpy()
        known = None if (document < 0).any() else document  # version 0.1.0 did not save it
        return which_samples(bits, ids, oracle_bits=oracle, tokenizer=self.tokenizer, groups=known)

    @property
    def capacity_in_words(self) -> str:
        """Bits a parameter of each model size."""
        each = [f"{bits / int(n):.3g}" for n, bits in self.settings["capacity_bits"].items()]
        return f"{each[0] if len(set(each)) == 1 else ', '.join(each)} bits x parameters"

    def _check_size(self, n_params: int) -> None:
        sizes = sorted(set(self.cells["n_params"]))
        if n_params not in sizes:
            raise InputError(
                f"there is no model size of {n_params} parameters; there are {', '.join(map(str, sizes))}."
            )

    def _tables(self) -> "dict[str, pd.DataFrame]":
        import pandas as pd

        return {"cells": self.cells, "samples": self.samples, "ids": pd.DataFrame({"ids": list(self.ids)})}

    def _facts(self) -> dict[str, Any]:
        return self.settings

    def _write_more(self, folder: Path) -> None:
        if self.tokenizer is not None:
            self.tokenizer.save_pretrained(folder / _TOKENIZER)

    @classmethod
    def _from_saved(cls, saved: Saved) -> "TextSweep":
        """Without samples.parquet, ids.parquet and tokenizer/, which are large, these are missing and no more."""
        import pandas as pd

        settings = saved.need("prefix_tokens", "seq_len", "vocab_size", "models", "seeds", "oracle", "capacity_bits")
        columns = cell_columns(settings)
        cells = saved.table("cells", cell_columns(settings, all_of_them=False), optional=columns)
        cells = cells.reindex(columns=columns)  # NaN: what earlier versions did not measure
        samples, rows = pd.DataFrame(columns=list(SAMPLE_COLUMNS)), []
        if saved.holds("samples.parquet"):
            written = [name for name in SAMPLE_COLUMNS if name != "document"]
            samples = saved.table("samples", written, optional=("document",))
            samples = samples.reindex(columns=list(SAMPLE_COLUMNS), fill_value=-1)
        if saved.holds("ids.parquet"):
            rows = saved.table("ids", ("ids",))["ids"].to_list()
        ids = np.array(rows, dtype=np.int64).reshape(-1, settings["seq_len"])
        tokenizer = None
        if saved.holds_folder(_TOKENIZER):
            with tempfile.TemporaryDirectory(prefix="memorization-") as copy:
                saved.copy_folder(_TOKENIZER, Path(copy))
                tokenizer = load_tokenizer(copy)
        return cls(cells, samples, ids, tokenizer, settings)

    def plot(self, ax: "Axes | None" = None, **options: Any) -> "Figure":  # type: ignore[override]  # as in 0.1.0
        """Four pictures in one figure: bits per token, memU, F1 and extraction against data-set size.

        Other results draw on one Axes and return it. For one of the four on an Axes of your own, take a function of
        `memorization.report.text_sweep`.

        Args:
            ax: None. Four pictures do not fit on one Axes.
            options: none.

        Returns:
            The Figure.

        Raises:
            InputError: an ax was given.
        """
        return cast("Figure", Result.plot(self, ax, **options))

    def __repr__(self) -> str:
        s = self.settings
        oracle = s["oracle"]
        kind = (
            f"given, {oracle['given']}"
            if "given" in oracle
            else f"{oracle['folds']} cross-fitted, and one that has seen all"
        )
        held_out = ""
        if "n_documents_held_out" in s:  # results of version 0.1.0 held out samples
            held_out = f" of {s['n_documents_held_out']:,} documents held out of {s['n_documents_cut']:,}"
        lines = [
            f"TextSweep of {len(self.cells)} runs: {len(s['models'])} model sizes, {len(s['seeds'])} seeds, "
            f"{s['steps']:,} steps",
            f"  samples      {s['seq_len']} of {s['vocab_size']:,} tokens each; {s['n_pool']:,} in the pool, "
            f"{s['n_test']:,} test samples{held_out}",
            f"  oracle       {kind}: {oracle['bits_per_token']:.3f} bits a token of the test samples",
            f"  capacity     {self.capacity_in_words}, the unit of data/capacity",
            "      n_params  non-emb.  data sets      memU less null, bits/param   F1 (loss)        test bits peak "
            "at data/capacity",
        ]
        peaks = self.peaks()
        for n_params, runs in self.cells.groupby("n_params"):
            f1 = runs.groupby("n_samples")["f1_loss"].mean()
            most = self._most_memorized()[n_params].max() / n_params
            at = peaks[peaks["n_params"] == n_params]["data_per_capacity"]
            where = f"{at.mean():.2f} ({at.min():.2f} to {at.max():.2f})" if at.notna().all() else "no peak inside"
            if at.notna().any() and not at.notna().all():
                where = f"{at.mean():.2f}, in {at.notna().sum()} of {len(at)} seeds"
            sets = f"{runs['n_samples'].min()} to {runs['n_samples'].max()}"
            lines.append(
                f"  {n_params:>12,}{runs['n_non_embedding_params'].iloc[0]:>10,}  {sets:<15}{most:<27.3f}"
                f"{f1.iloc[0]:.3f} to {f1.iloc[-1]:.3f}   {where}"
            )
        return "\n".join(lines)
