"""The oracle ladder: memU against ever stronger oracles, and what that says about the strongest."""

import math
import textwrap
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import numpy as np
from jaxtyping import Float64, Shaped

from memorization.coding.joint import JointCode, joint_bits
from memorization.measure.code_lengths import CodeLengths
from memorization.measure.pair import alike, token_count_bits
from memorization.results import Pictured
from memorization.stats.levels import Interval
from memorization.stats.means import difference_interval, mean_interval, spread
from memorization.unintended.control import Control
from memorization.unintended.means import Means, labels_of_both
from memorization.unintended.ngram import (
    TOKENS_READ,
    Tokens,
    best_step,
    best_weights,
    continued_bits,
    copy_bits,
    mixture_bits,
    ngram_bits,
    skip_bits,
)
from memorization.unintended.verdict import TOLERANCE, UNIFORM, Evidence, Step, Verdict, judge

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["COPY", "Ladder", "Rung", "Sets", "build_ladder", "seen_interval"]

Sets = tuple[CodeLengths, CodeLengths]  # of the samples and of the control, under one model
Documents: TypeAlias = Shaped[np.ndarray, " _"] | None  # of each control sample

NGRAM = "n-gram code of the control"
MIXTURE = "best mixture, target included"
_UNIFORM_SHARES = (0.1, 0.5, 0.9)
_PLACES = range(3, 9)
COPY = 0.05  # bits a token, root mean square on the control: from there on two oracles are two


@dataclass(frozen=True, slots=True, eq=False)
class Rung:
    """One oracle of the ladder.

    Attributes:
        name: of the model, or of the built-in code.
        kind: "given" by the caller, "built-in", or a "mixture" of rungs.
        control_bits: ideal bits of each control sample, float64.
        bits: of each sample; None where the target is in the mixture, which has seen the samples.
        n_tokens: that the control has, float.
    """

    name: str
    kind: Literal["given", "built-in", "mixture"]
    control_bits: Float64[np.ndarray, " control"]
    bits: Float64[np.ndarray, " sample"] | None
    n_tokens: float


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
    target_bits: tuple[Float64[np.ndarray, " sample"], Float64[np.ndarray, " control"]]
    joint: JointCode
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

        rows = []
        for rung in self.rungs:
            row = {
                "rung": rung.name,
                "kind": rung.kind,
                "control_bits": float(rung.control_bits.mean()),
                "control_bits_per_token": float(rung.control_bits.sum() / rung.n_tokens),
            }
            memu = net = signed = math.nan
            if rung.bits is not None:
                memu = _memu(self.target_bits[0], rung.bits, self.joint)
                net = memu - _memu(self.target_bits[1], rung.control_bits, self.joint)
                signed = float(np.mean(rung.bits - self.target_bits[0]))
            rows.append({**row, "mean_bits": memu, "net_bits": net, "signed_bits": signed})
        return pd.DataFrame(rows)

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
            [f"Ladder of {len(self.rungs)} oracles, bits a sample", shown, slope, *left_out, *self.lines()]
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
    whole = partial(_whole, counted=counted)
    n_tokens = float(oracles[0][1].n_tokens.sum())
    given = [
        Rung(name, "given", whole(sets[1]), whole(sets[0]), float(sets[1].n_tokens.sum()))
        for name, sets in zip(_names(oracles), oracles, strict=True)
    ]
    documents = samples.documents, control.documents
    built, left_out = _built_in(oracles[0], target, counted, documents)
    tokens = {rung.name: bits for rung, bits in built}
    mixtures, mixed, not_mixed = _mixtures(target, oracles, tokens, counted, documents[1])
    rungs = [*given, *(rung for rung, _ in built), *mixtures]
    target_bits = whole(target[0]), whole(target[1])
    shown = [rung for rung in rungs if rung.bits is not None]
    evidence = _evidence(target, oracles, given, [rung for rung, _ in built], mixed, samples, control)
    verdict, reason = judge(evidence)
    return Ladder(
        rungs=tuple(sorted(rungs, key=lambda rung: -float(rung.control_bits.mean()))),
        target_bits=target_bits,
        joint=joint,
        slope=_slope(
            [float(rung.control_bits.mean()) for rung in shown],
            [_memu(target_bits[0], rung.bits, joint) for rung in shown if rung.bits is not None],
        ),
        bracket=_bracket(evidence, samples, control),
        verdict=verdict,
        reason=reason,
        evidence=evidence,
        settings={
            "n_gram_tokens": min(int(n_tokens), TOKENS_READ) if NGRAM in tokens else 0,
            "left_out": {**left_out, **not_mixed},
        },
    )


def _built_in(
    oracle: Sets, target: Sets, counted: bool, documents: tuple[Documents, Documents]
) -> tuple[list[tuple[Rung, tuple[np.ndarray, np.ndarray]]], dict[str, str]]:
    """The uniform rung and the n-gram rung, each with the bits of its tokens, and what could not be built."""
    vocab_size = _vocab_size(oracle)
    codes = {UNIFORM: tuple(np.full(len(one.token_ids), math.log2(vocab_size)) for one in oracle)}
    left_out = {}
    if len(oracle[1]) > 1:
        tokens = [Tokens(one.token_ids, one.token_offsets, of) for one, of in zip(oracle, documents, strict=True)]
        theirs, ours = ngram_bits(tokens[1], tokens[0], vocab_size)
        codes[NGRAM] = ours, theirs
    else:
        left_out[NGRAM] = "the control is one sample"
    built = []
    for name, bits in codes.items():
        for part, lengths, other in zip(bits, oracle, target, strict=True):
            _charge_first(part, lengths, other)
        ours, theirs = (_sum(part, lengths, counted) for part, lengths in zip(bits, oracle, strict=True))
        built.append((Rung(name, "built-in", theirs, ours, float(oracle[1].n_tokens.sum())), (bits[0], bits[1])))
    return built, left_out


def _charge_first(bits: np.ndarray, oracle: CodeLengths, target: CodeLengths) -> None:
    """The first tokens' bits, where target and oracle are charged the same for them, whatever the token is."""
    ours, theirs = (lengths.token_bits[lengths.token_offsets[:-1]] for lengths in (oracle, target))
    if np.ptp(ours) == 0 and np.array_equal(ours, theirs):
        bits[oracle.token_offsets[:-1]] = ours


def _mixtures(
    target: Sets,
    oracles: Sequence[Sets],
    built: dict[str, tuple[np.ndarray, np.ndarray]],
    counted: bool,
    documents: Documents,
) -> tuple[list[Rung], Rung | None, dict[str, str]]:
    """Rungs mixed token by token, the best mixture with the target in it, and what could not be mixed."""
    first = oracles[0]
    n_tokens = float(first[1].n_tokens.sum())
    alike = [sets for sets in oracles if _same_tokens(sets, first)]
    own = first[0].token_bits, first[1].token_bits
    parts = [(f"{share:.0%} uniform", [own, built[UNIFORM]], [1 - share, share]) for share in _UNIFORM_SHARES]
    if NGRAM in built:
        parts.append(("50% n-gram", [own, built[NGRAM]], [0.5, 0.5]))
    rungs = []
    for name, codes, weights in parts:
        ours, theirs = (
            _sum(mixture_bits([code[k] for code in codes], weights), lengths, counted)
            for k, lengths in enumerate(first)
        )
        rungs.append(Rung(f"oracle, {name}".replace("%", " %"), "mixture", theirs, ours, n_tokens))
    left_out = {
        name: "other tokens than the oracle's: in no mixture"
        for name, sets in zip(_names(oracles), oracles, strict=True)
        if not _same_tokens(sets, first)
    }
    if not _same_tokens(target, first):
        left_out[MIXTURE] = "the target has other tokens than the oracle"
        return rungs, None, left_out
    codes_of_control = [*(sets[1].token_bits for sets in (*alike, target)), *(code[1] for code in built.values())]
    if NGRAM in built:
        codes_of_control += _skipping(first, target, documents)
    mixed = _cross_fitted(first[1], documents, codes_of_control, best_weights, mixture_bits)
    best = Rung(MIXTURE, "mixture", _sum(mixed, first[1], counted), None, n_tokens)
    return [*rungs, best], best, left_out


def _skipping(oracle: Sets, target: Sets, documents: Documents) -> list[np.ndarray]:
    """Codes of the control by one token further back, and by what comes again: what an n-gram code does not see."""
    control = oracle[1]
    vocab_size = _vocab_size(oracle)
    tokens = Tokens(control.token_ids, control.token_offsets, documents)
    codes = [*(skip_bits(tokens, places, vocab_size) for places in _PLACES), copy_bits(tokens, vocab_size)]
    for code in codes:
        _charge_first(code, control, target[1])
    return codes


def _vocab_size(sets: Sets) -> int:
    return int(max(sets[0].settings["uniform_vocab_size"], *(one.token_ids.max() + 1 for one in sets)))


def _cross_fitted(
    control: CodeLengths,
    documents: Documents,
    codes: Sequence[np.ndarray],
    fit: Callable[[list[np.ndarray]], Any],
    apply: Callable[[list[np.ndarray], Any], np.ndarray],
) -> np.ndarray:
    """Bits of the control's tokens under what is made of codes, each half of the documents fitted to the other half."""
    tokens = Tokens(control.token_ids, control.token_offsets, documents)
    fold = tokens.folds(2)
    read = np.arange(len(fold)) < TOKENS_READ
    out = np.empty(len(fold))
    for half in (0, 1):
        fitted = read & (fold != half) if tokens.n_documents > 1 else read
        made = fit([code[fitted] for code in codes])
        out[fold == half] = apply([code[fold == half] for code in codes], made)
    return out


def _continued(oracle: Sets, others: Sequence[Sets], names: Sequence[str], documents: Documents) -> Step | None:
    """What the oracle, continued from another one, would save on the control at most; None where there is none."""
    steps, control = [], oracle[1]
    for name, other in zip(names, others, strict=True):
        if _same_tokens(other, oracle):
            codes = [control.token_bits, other[1].token_bits]
            bits = _cross_fitted(control, documents, codes, best_step, continued_bits)
            saved = control.ideal_bits - _sum(bits, control, False)
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


def _memu(target: np.ndarray, oracle: np.ndarray, joint: JointCode) -> float:
    return float(np.mean(oracle - joint_bits(target, oracle, joint)))


def _same_tokens(sets: Sets, others: Sets) -> bool:
    return all(np.array_equal(a.token_ids, b.token_ids) for a, b in zip(sets, others, strict=True))


def _names(oracles: Sequence[Sets]) -> list[str]:
    """The models' names, numbered where several are called the same."""
    names = [str(sets[0].settings["model"]["name"]) for sets in oracles]
    return [
        name if names.count(name) == 1 else f"{name} ({names[: k + 1].count(name)})" for k, name in enumerate(names)
    ]


def _whole(lengths: CodeLengths, counted: bool) -> Float64[np.ndarray, " sample"]:
    return lengths.ideal_bits + token_count_bits(lengths) if counted else lengths.ideal_bits


def _sum(bits: np.ndarray, lengths: CodeLengths, counted: bool) -> Float64[np.ndarray, " sample"]:
    total = np.add.reduceat(bits, lengths.token_offsets[:-1])
    return total + token_count_bits(lengths) if counted else total
