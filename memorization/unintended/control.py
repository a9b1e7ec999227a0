"""What a control set of unseen samples says about memU: the null, intervals, and when not to believe the number."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float64

from memorization.measure.pair import Pair, ideal_signed_bits
from memorization.results import About, with_about
from memorization.stats.levels import Interval
from memorization.stats.means import difference_interval, mean_interval
from memorization.unintended.joint import joint_of, with_count
from memorization.unintended.means import Means, labels_of, labels_of_both

if TYPE_CHECKING:
    import pandas as pd

    from memorization.measure.code_lengths import CodeLengths

QUANTILES = (0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99)


@dataclass(frozen=True, slots=True, eq=False)
class Control(Means):
    """memU of samples that neither model has seen: what "memorized nothing" looks like with this pair of models.

    Attributes:
        bits: memU of each control sample, from coded lengths, as defined for the samples, float64.
        signed_bits: H(x | oracle) - H(x | target) of each control sample, float64.
        mean: of signed_bits; `mean_signed_bits` is its name in `Memorization`.
        quantiles: of signed_bits, at 1, 5, 25, 50, 75, 95 and 99 %, by their share (0.01 to 0.99).
        net_bits: (mean memU of the samples - mean memU of the control) x number of samples, by one joint code: what
            memU shows beyond what it shows of unseen text. In expectation 0 where nothing was memorized, and with
            joint="max" never more than the oracle's bits of the samples.
        net_interval: 95 % interval of net_bits over both sets; NaN where a set has one sample.
        mean_interval: 95 % interval of `mean`; NaN for one sample.
        gap_bits: the same difference of signed bits: how much better the target predicts its samples than unseen text,
            over what the oracle does. Membership inference lives on it; it grows as the target gets worse on unseen
            text, so it is no amount of memory (up to version 0.1.0 this was net_bits).
        gap_interval: as net_interval.
        target: code lengths of the control under the target.
        oracle: under the oracle.
        groups: the document of each control sample; None where each is on its own.
    """

    bits: Float64[np.ndarray, " control"]
    signed_bits: Float64[np.ndarray, " control"]
    mean: float
    quantiles: dict[float, float]
    net_bits: float
    net_interval: Interval
    mean_interval: Interval
    gap_bits: float
    gap_interval: Interval
    target: "CodeLengths" = field(repr=False)
    oracle: "CodeLengths" = field(repr=False)
    groups: tuple[str, ...] | None = field(default=None, repr=False)

    @property
    def ideal_signed_bits(self) -> Float64[np.ndarray, " control"]:
        """The signed difference of each control sample in bits of -log2 p, as `Memorization.ideal_signed_bits`."""
        return ideal_signed_bits(self.target, self.oracle)

    def to_pandas(self) -> "pd.DataFrame":
        """One row a control sample: sample (its position in the input), memU and what it is made of."""
        import pandas as pd

        columns = {
            "bits": self.bits,
            "signed_bits": self.signed_bits,
            "ideal_signed_bits": self.ideal_signed_bits,
            "target_bits": self.target.bits,
            "oracle_bits": self.oracle.bits,
            "target_n_tokens": self.target.n_tokens,
            "oracle_n_tokens": self.oracle.n_tokens,
            "n_bytes": self.target.n_bytes,
        }
        return with_groups(pd.DataFrame({"sample": self.target.index, **columns}), self.groups, self.about)


def control_of(
    pairs: Sequence[Pair],
    settings: dict[str, Any],
    of_samples: tuple[Float64[np.ndarray, " sample"], Float64[np.ndarray, " sample"]],
    groups: tuple[tuple[str, ...] | None, tuple[str, ...] | None],
) -> Control:
    """The control, by what the samples' bits and signed bits are."""
    sample_bits, sample_signed_bits = of_samples
    pair = pairs[1]
    ours, theirs = (labels_of(one, both[0]) for one, both in zip(groups, pairs, strict=True))
    documents = labels_of_both(ours, theirs, (len(sample_bits), len(pair[0])))
    target_bits, oracle_bits = (with_count(lengths.bits, lengths, settings) for lengths in pair)
    signed_bits = oracle_bits - target_bits
    bits = oracle_bits - joint_of(*pair, settings, "bits")
    n = len(sample_bits)
    return Control(
        bits=bits,
        signed_bits=signed_bits,
        mean=float(signed_bits.mean()),
        quantiles={q: float(np.quantile(signed_bits, q)) for q in QUANTILES},
        net_bits=float(n * (sample_bits.mean() - bits.mean())),
        net_interval=difference_interval(n * sample_bits, n * bits, groups=documents),
        mean_interval=mean_interval(signed_bits, groups=None if documents is None else documents[1]),
        gap_bits=float(n * (sample_signed_bits.mean() - signed_bits.mean())),
        gap_interval=difference_interval(n * sample_signed_bits, n * signed_bits, groups=documents),
        target=pair[0],
        oracle=pair[1],
        groups=groups[1],
    )


def with_groups(table: "pd.DataFrame", groups: tuple[str, ...] | None, about: About | None) -> "pd.DataFrame":
    """The table of samples, with the column group where documents are known, and what is known about each sample."""
    if groups is not None:
        table.insert(1, "group", list(groups))
    return with_about(table, about)
