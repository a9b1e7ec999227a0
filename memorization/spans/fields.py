"""Figures of all spans of one name: memU with its interval, beside the same of the control."""

import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float64, Int64

from memorization.coding.joint import JointCode, joint_bits
from memorization.results import About, ReadOnly
from memorization.stats.levels import Interval
from memorization.stats.means import difference_interval, mean_interval

__all__ = ["Field", "Spans", "field_of"]


@dataclass(frozen=True, slots=True, eq=False)
class Spans(ReadOnly):
    """Spans of texts in the order of the texts, and what they cost each model, in ideal bits.

    Attributes:
        index: position in the input of the sample that each stands in, int64.
        names: of each; "rest" is what stands in no span of its text.
        start: its first character, int64; -1 of a rest, which may lie in pieces.
        end: the character after its last, int64; -1 of a rest.
        n_bytes: UTF-8 bytes, of a rest those that are coded, int64.
        target_bits: under the target, given all that stands before, float64; NaN where a byte of it is not coded.
        oracle_bits: under the oracle, float64.
        on_edges: whether it begins and ends where tokens of the target do. Else a token is split by its bytes, and 2 to
            the minus target_bits is no probability. True of a rest.
        unit: the same number for spans of one document, or of equal samples: what is independent, int64.
        about: how the sample of each begins, its id and the columns that were kept; None of an earlier version.
    """

    index: Int64[np.ndarray, " span"]
    names: list[str]
    start: Int64[np.ndarray, " span"]
    end: Int64[np.ndarray, " span"]
    n_bytes: Int64[np.ndarray, " span"]
    target_bits: Float64[np.ndarray, " span"]
    oracle_bits: Float64[np.ndarray, " span"]
    on_edges: Bool[np.ndarray, " span"]
    unit: Int64[np.ndarray, " span"]
    about: About | None = None

    @property
    def signed_bits(self) -> Float64[np.ndarray, " span"]:
        """Bits that the target saves over the oracle on each span; over the parts of a text they add up to its own."""
        return np.asarray(self.oracle_bits - self.target_bits)

    def bits(self, joint: JointCode) -> Float64[np.ndarray, " span"]:
        """memU in bits of each span by itself, by the code `joint`: H(x | oracle) - H(x | oracle, target)."""
        return np.asarray(self.oracle_bits - joint_bits(self.target_bits, self.oracle_bits, joint))

    def of(self, name: str) -> Bool[np.ndarray, " span"]:
        """Which spans have this name and are coded."""
        return np.asarray([one == name for one in self.names], dtype=np.bool_) & np.isfinite(self.target_bits)

    def __len__(self) -> int:
        return len(self.names)


@dataclass(frozen=True, slots=True, eq=False)
class Field(ReadOnly):
    """All spans of one name: means in bits a span, with 95 % intervals; NaN where there is no span, or no control.

    Attributes:
        name: of the spans.
        n_spans: how many there are.
        n_samples: samples in which they stand.
        n_split: of the spans, those that do not begin and end where tokens of the target do.
        mean_bytes: UTF-8 bytes a span.
        target_bits: mean, under the target.
        oracle_bits: mean, under the oracle.
        signed_bits: mean of what the target saves over the oracle.
        bits: mean memU.
        interval: of `bits`. Spans of one sample, or document, are not independent, and count so.
        control_n_spans: spans of this name in the control.
        control_bits: mean memU of these.
        control_interval: of control_bits.
        net_bits: mean memU over the control's: 0 in expectation where nothing was memorized.
        net_interval: of net_bits.
        log2_p: log2 of the probability of each span given all that stands before it, minus its target_bits; none of the
            rest, which lies in pieces.
        control_log2_p: the same of the control's.
    """

    name: str
    n_spans: int
    n_samples: int
    n_split: int
    mean_bytes: float
    target_bits: float
    oracle_bits: float
    signed_bits: float
    bits: float
    interval: Interval
    control_n_spans: int
    control_bits: float
    control_interval: Interval
    net_bits: float
    net_interval: Interval
    log2_p: Float64[np.ndarray, " span"]
    control_log2_p: Float64[np.ndarray, " control"]

    @property
    def bits_per_byte(self) -> float:
        """memU in bits a byte, over all spans."""
        return self.bits / self.mean_bytes

    def extractable(self, tries: int) -> float:
        """Share of spans with at most log2(tries) bits: samples drawn so often from the target hold each once or more.

        In the mean, that is, each given all that stands before it. See `n_split`.
        """
        return _share(self.log2_p, tries)

    def control_extractable(self, tries: int) -> float:
        """The same share of the control's spans, within so many `tries`."""
        return _share(self.control_log2_p, tries)


def _share(log2_p: np.ndarray, tries: int) -> float:
    return float(np.mean(log2_p >= -math.log2(tries))) if len(log2_p) else math.nan


def field_of(name: str, ours: Spans, theirs: Spans | None, joint: JointCode) -> Field:
    """The figures of all spans of one name."""
    chosen = ours.of(name)
    log2_p = -ours.target_bits[chosen & (ours.start >= 0)]
    bits, unit = ours.bits(joint)[chosen], ours.unit[chosen]
    if theirs is None:
        control_bits, control_log2_p, control_unit = np.zeros(0), np.zeros(0), np.zeros(0, dtype=np.int64)
    else:
        other = theirs.of(name)
        control_bits, control_log2_p, control_unit = (
            theirs.bits(joint)[other],
            -theirs.target_bits[other & (theirs.start >= 0)],
            theirs.unit[other],
        )
    return Field(
        name=name,
        n_spans=int(chosen.sum()),
        n_samples=len(np.unique(ours.index[chosen])),
        n_split=int((~ours.on_edges[chosen]).sum()),
        mean_bytes=_mean(ours.n_bytes[chosen].astype(np.float64)),
        target_bits=_mean(ours.target_bits[chosen]),
        oracle_bits=_mean(ours.oracle_bits[chosen]),
        signed_bits=_mean(ours.signed_bits[chosen]),
        bits=_mean(bits),
        interval=_interval(bits, unit),
        control_n_spans=len(control_bits),
        control_bits=_mean(control_bits),
        control_interval=_interval(control_bits, control_unit),
        net_bits=_mean(bits) - _mean(control_bits),
        net_interval=difference_interval(bits, control_bits, groups=(unit, control_unit)),
        log2_p=log2_p,
        control_log2_p=control_log2_p,
    )


def _mean(values: np.ndarray) -> float:
    return float(values.mean()) if len(values) else math.nan


def _interval(bits: np.ndarray, unit: np.ndarray) -> Interval:
    """Of mean memU, which is nowhere below 0 where no span is."""
    low, high = mean_interval(bits, groups=unit)
    return Interval(max(low, 0.0) if len(bits) and bits.min() >= 0 and not math.isnan(low) else low, high)
