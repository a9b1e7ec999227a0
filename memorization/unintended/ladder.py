"""The oracle ladder: memU against ever stronger oracles, and what that says about the strongest."""

import math
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from memorization.coding.joint import JointCode
from memorization.measure.agreement import alike
from memorization.results import Pictured, counted
from memorization.stats.levels import Interval
from memorization.stats.means import difference_interval, mean_interval, spread
from memorization.unintended.control import Control
from memorization.unintended.joint import is_mixed
from memorization.unintended.means import Means, labels_of_both
from memorization.unintended.ngram import TOKENS_READ, best_step, continued_bits
from memorization.unintended.rungs import NGRAM, BuiltIn, Documents, Maker, Rung, Sets, cross_fitted, same_tokens
from memorization.unintended.verdict import TOLERANCE, Evidence, Step, Verdict, judge

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["COPY", "Ladder", "Rung", "Sets", "build_ladder", "seen_interval"]

COPY = 0.05  # bits a token, root mean square on the control: from there on two oracles are two


@dataclass(frozen=True, slots=True, eq=False)
class Ladder(Pictured):
    """memU by oracles of different strength, the bracket that it lies in, and a verdict on the oracle.

    Bits here are ideal ones (-log2 p), a sample; the bracket is of coded ones, as in the result.

    Attributes:
        rungs: from the weakest on the control to the strongest.
        slope: of mean memU over the rungs' bits on the control, a least-squares line through all rungs: 1 where every
            bit that an oracle lacks is counted as memory; NaN of rungs that are all alike.
        bracket: of mean net memU in bits a sample: from the lower end of net memU's interval less what the oracle may
            lack (5 % of net memU, or what the best mixture may save, if that is more), to the upper end of the interval
            of memU or of the gap, whichever is less.
        verdict: "validated", "cannot tell" or "weak".
        reason: why, in sentences.
        evidence: the figures that the verdict went by.
        oracle: name of the rung that the result is measured against.
        settings: tokens that the n-gram code has read, and the rungs that could not be built, with the reason.
    """

    rungs: tuple[Rung, ...]
    slope: float
    bracket: Interval
    verdict: Verdict
    reason: str
    evidence: Evidence
    settings: dict[str, Any]

    @property
    def oracle(self) -> str:
        """Name of the oracle that the result is measured against."""
        return self.evidence.oracle

    def to_pandas(self) -> "pd.DataFrame":
        """One row a rung, the weakest on the control first.

        Columns: rung, kind, control_bits (a sample) and control_bits_per_token, and in bits a sample mean_bits (memU),
        net_bits and signed_bits, NaN where the rung has seen the samples.
        """
        import pandas as pd

        return pd.DataFrame(
            {
                "rung": rung.name,
                "kind": rung.kind,
                "control_bits": float(rung.control_bits.mean()),
                "control_bits_per_token": float(rung.control_bits.sum() / rung.n_tokens),
                "mean_bits": rung.mean_bits,
                "net_bits": rung.net_bits,
                "signed_bits": rung.signed_bits,
            }
            for rung in self.rungs
        )

    def lines(self) -> list[str]:
        """Bracket and verdict as lines of a result's table."""
        verdict = f"{self.verdict}: {self.reason}"
        return [
            f"  bracket      {self.bracket:,.2f} bits a sample: net memU, should the oracle lack no more than "
            f"{100 * TOLERANCE:.0f} % of it, and not have seen the samples",
            *textwrap.wrap(verdict, 120, initial_indent="  verdict      ", subsequent_indent=15 * " "),
        ]

    def __repr__(self) -> str:
        table = self.to_pandas().drop(columns="control_bits_per_token")
        shown = table.to_string(index=False, float_format=lambda value: f"{value:,.1f}", na_rep="")
        left_out = [f"  left out     {name}: {why}" for name, why in self.settings["left_out"].items()]
        slope = f"  slope        {self.slope:.2f} bits of memU a bit that the oracle needs more on the control"
        return "\n".join(
            [f"Ladder of {counted(len(self.rungs), 'oracle')}, bits a sample", shown, slope, *left_out, *self.lines()]
        )


def build_ladder(
    target: Sets, oracles: Sequence[Sets], samples: Means, control: Control, *, joint: JointCode, counted: bool
) -> Ladder:
    """The ladder of a result with a control.

    Args:
        target: code lengths of samples and control.
        oracles: the same under each oracle given, the one of the result first.
        samples: memU of the samples.
        control: memU of the control.
        joint: as in the result.
        counted: whether code lengths are given the token count, tokenizers being two.
    """
    maker = Maker(target, joint, counted)
    documents = samples.documents, control.documents
    given = maker.given(oracles)
    codes = BuiltIn(oracles[0], target, documents)
    built, mixtures = maker.made(oracles[0], codes)
    mixed, not_mixed = maker.best(oracles, codes, documents[1])
    mixtures += [] if mixed is None else [mixed]
    left_out = {} if NGRAM in codes.of_control else {NGRAM: "the control is one sample"}
    rungs = sorted([*given, *built, *mixtures], key=lambda rung: -float(rung.control_bits.mean()))
    shown = [rung for rung in rungs if rung.bits is not None]
    evidence = _evidence(target, oracles, given, built, mixed, samples, control)
    verdict, reason = judge(evidence)
    n_tokens = int(oracles[0][1].n_tokens.sum())
    return Ladder(
        rungs=tuple(rungs),
        slope=_slope([float(rung.control_bits.mean()) for rung in shown], [rung.mean_bits for rung in shown]),
        bracket=_bracket(evidence, samples, control),
        verdict=verdict,
        reason=reason,
        evidence=evidence,
        settings={
            "n_gram_tokens": min(n_tokens, TOKENS_READ) if NGRAM in codes.of_control else 0,
            "left_out": {**left_out, **not_mixed},
        },
    )


def _continued(oracle: Sets, others: Sequence[Sets], names: Sequence[str], documents: Documents) -> Step | None:
    """What the oracle, continued from another one, would save on the control at most; None where there is none."""
    steps, control = [], oracle[1]
    for name, other in zip(names, others, strict=True):
        if same_tokens(other, oracle):
            codes = [control.token_bits, other[1].token_bits]
            bits = cross_fitted(control, documents, codes, best_step, continued_bits)
            saved = control.ideal_bits - np.add.reduceat(bits, control.token_offsets[:-1])
            steps.append(_step(f"line from {name} through the oracle", saved, documents))
    return max(steps, key=lambda step: step.mean, default=None)


def _evidence(
    target: Sets,
    oracles: Sequence[Sets],
    given: list[Rung],
    built: list[Rung],
    mixed: Rung | None,
    samples: Means,
    control: Control,
) -> Evidence:
    best, n, of = given[0], len(samples.bits), control.documents
    copies = [alike(sets, oracles[0], COPY) or alike(sets, target, COPY) for sets in oracles[1:]]
    if copies and is_mixed(
        oracles[0][0]
    ):  # of which the best one is most of the mixture, and no oracle of another kind
        copies[int(np.argmin([rung.control_bits.mean() for rung in given[1:]]))] = True
    others = [rung for rung, copy in zip(given[1:], copies, strict=True) if not copy]
    other_sets = [sets for sets, copy in zip(oracles[1:], copies, strict=True) if not copy]
    second = min(others, key=lambda rung: float(rung.control_bits.mean()), default=None)
    low, high = control.net_interval
    return Evidence(
        oracle=best.name,
        n_samples=samples.n_independent,
        n_control=control.n_independent,
        unit=control.unit,
        net=control.net_bits / n,
        net_interval=Interval(low / n, high / n),
        gap=Interval(control.gap_interval.low / n, control.gap_interval.high / n),
        spreads=(spread(samples.bits, samples.documents), spread(control.bits, of)),
        target=_step("target", control.signed_bits, of),
        over_built_in=tuple(_step(rung.name, rung.control_bits - best.control_bits, of) for rung in built),
        last_step=None if second is None else _step(second.name, second.control_bits - best.control_bits, of),
        continued=_continued(oracles[0], other_sets, [rung.name for rung in others], of),
        mixture=None if mixed is None else _step(mixed.name, best.control_bits - mixed.control_bits, of),
        seen=seen_interval(oracles[0], samples, control),
        copies=tuple(rung.name for rung, copy in zip(given[1:], copies, strict=True) if copy),
    )


def _bracket(found: Evidence, samples: Means, control: Control) -> Interval:
    n, low = len(samples.bits), found.net_interval.low
    if math.isnan(low):
        return Interval.unknown()
    lacking = TOLERANCE * found.net
    if found.mixture is not None:
        lacking = max(lacking, found.mixture.interval.high)  # of NaN: the first
    upper = control.gap_interval.high / n if control.gap_bits / n < samples.mean_bits else samples.interval.high
    return Interval(max(0.0, low - lacking), max(upper, 0.0))


def _step(name: str, saved: np.ndarray, documents: Documents) -> Step:
    interval = mean_interval(saved, groups=documents)
    return Step(name, float(saved.mean()), interval, spread(saved, documents))


def seen_interval(oracle: Sets, samples: Means, control: Control, level: float = 0.95) -> Interval:
    """Bits a token of the oracle on the samples less those on the control."""
    groups = labels_of_both(samples.documents, control.documents, (len(samples.bits), len(control.bits)))
    return difference_interval(*(sets.ideal_bits / sets.n_tokens for sets in oracle), level=level, groups=groups)


def _slope(x: list[float], y: list[float]) -> float:
    return float(np.polyfit(x, y, 1)[0]) if np.ptp(x) > 0 else math.nan
