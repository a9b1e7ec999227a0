"""The rungs of the oracle ladder: the oracles given, codes that need no further model, and mixtures of all these."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import numpy as np
from jaxtyping import Float64, Shaped

from memorization.coding.joint import JointCode, joint_bits
from memorization.measure.code_lengths import CodeLengths
from memorization.measure.pair import token_count_bits
from memorization.unintended.joint import names_of, tokens_for
from memorization.unintended.ngram import (
    TOKENS_READ,
    Tokens,
    best_weights,
    copy_bits,
    mixture_bits,
    ngram_bits,
    skip_bits,
)
from memorization.unintended.verdict import UNIFORM

__all__ = ["NGRAM", "Documents", "Maker", "Rung", "Sets", "cross_fitted", "same_tokens"]

Sets = tuple[CodeLengths, CodeLengths]  # of the samples and of the control, under one model
Documents: TypeAlias = Shaped[np.ndarray, " _"] | None  # of each control sample
Codes: TypeAlias = tuple[np.ndarray, np.ndarray]  # bits of the tokens of the samples and of the control

NGRAM = "n-gram code of the control"
MIXTURE = "best mixture, target included"
_UNIFORM_SHARES = (0.1, 0.5, 0.9)
_PLACES = range(3, 9)


@dataclass(frozen=True, slots=True, eq=False)
class Rung:
    """One oracle of the ladder.

    Attributes:
        name: of the model, or of the built-in code.
        kind: "given" by the caller, "built-in", or a "mixture" of rungs.
        control_bits: ideal bits of each control sample, float64.
        bits: of each sample; None where the target is in the mixture, which has seen the samples.
        n_tokens: that the control has, float.
        mean_bits: mean memU against this oracle, in bits a sample; NaN where it has seen the samples.
        net_bits: the same over the control's.
        signed_bits: mean bits of the samples over the target's.
    """

    name: str
    kind: Literal["given", "built-in", "mixture"]
    control_bits: Float64[np.ndarray, " control"]
    bits: Float64[np.ndarray, " sample"] | None
    n_tokens: float
    mean_bits: float
    net_bits: float
    signed_bits: float


@dataclass(frozen=True, slots=True, eq=False)
class Maker:
    """Makes rungs to stand beside one target.

    Attributes:
        target: code lengths of samples and control.
        joint: the joint code of the result.
        counted: whether code lengths are given the token count, tokenizers being two.
    """

    target: Sets
    joint: JointCode
    counted: bool

    def given(self, oracles: Sequence[Sets]) -> list[Rung]:
        """A rung for each oracle."""
        return [
            self._rung(name, "given", sets, (sets[0].token_bits, sets[1].token_bits))
            for name, sets in zip(_names(oracles), oracles, strict=True)
        ]

    def built_in(
        self, oracle: Sets, documents: tuple[Documents, Documents]
    ) -> tuple[list[Rung], dict[str, Codes], dict[str, str]]:
        """The uniform rung and the n-gram rung, the bits of the tokens under each, and what could not be built."""
        vocab_size = _vocab_size(oracle)
        codes = {UNIFORM: tuple(np.full(len(one.token_ids), math.log2(vocab_size)) for one in oracle)}
        left_out = {}
        if len(oracle[1]) > 1:
            tokens = [Tokens(one.token_ids, one.token_offsets, of) for one, of in zip(oracle, documents, strict=True)]
            theirs, ours = ngram_bits(tokens[1], tokens[0], vocab_size)
            codes[NGRAM] = ours, theirs
        else:
            left_out[NGRAM] = "the control is one sample"
        built: dict[str, Codes] = {}
        for name, (ours, theirs) in codes.items():
            for part, lengths, other in zip((ours, theirs), oracle, self.target, strict=True):
                _charge_first(part, lengths, other)
            built[name] = ours, theirs
        return [self._rung(name, "built-in", oracle, bits) for name, bits in built.items()], built, left_out

    def mixtures(
        self, oracles: Sequence[Sets], built: dict[str, Codes], documents: Documents
    ) -> tuple[list[Rung], Rung | None, dict[str, str]]:
        """Rungs mixed token by token, the best mixture with the target in it, and what could not be mixed."""
        first, target = oracles[0], self.target
        alike = [sets for sets in oracles if same_tokens(sets, first)]
        own = first[0].token_bits, first[1].token_bits
        parts = [(f"{share:.0%} uniform", [own, built[UNIFORM]], [1 - share, share]) for share in _UNIFORM_SHARES]
        if NGRAM in built:
            parts.append(("50% n-gram", [own, built[NGRAM]], [0.5, 0.5]))
        rungs = []
        for name, codes, weights in parts:
            ours, theirs = (mixture_bits([code[k] for code in codes], weights) for k in (0, 1))
            rungs.append(self._rung(f"oracle, {name}".replace("%", " %"), "mixture", first, (ours, theirs)))
        left_out = {
            name: "other tokens than the oracle's: in no mixture"
            for name, sets in zip(_names(oracles), oracles, strict=True)
            if not same_tokens(sets, first)
        }
        if not same_tokens(target, first):
            left_out[MIXTURE] = "the target has other tokens than the oracle"
            return rungs, None, left_out
        codes_of_control = [*(sets[1].token_bits for sets in (*alike, target)), *(code[1] for code in built.values())]
        if NGRAM in built:
            codes_of_control += _skipping(first, target, documents)
        mixed = cross_fitted(first[1], documents, codes_of_control, best_weights, mixture_bits)
        best = self._rung(MIXTURE, "mixture", first, (None, mixed))
        return [*rungs, best], best, left_out

    def _counted(self, bits: Float64[np.ndarray, " sample"], lengths: CodeLengths) -> Float64[np.ndarray, " sample"]:
        return bits + token_count_bits(lengths) if self.counted else bits

    def _rung(
        self,
        name: str,
        kind: Literal["given", "built-in", "mixture"],
        like: Sets,
        tokens: tuple[np.ndarray | None, np.ndarray],
    ) -> Rung:
        """A rung from the bits of the tokens of `like`; None for samples that it has seen."""
        sums: list[np.ndarray] = []
        memu, signed = [math.nan, math.nan], [math.nan, math.nan]
        for k, (bits, lengths, target) in enumerate(zip(tokens, like, self.target, strict=True)):
            if bits is None:
                continue
            own = self._counted(target.ideal_bits, target)
            sums.append(self._counted(np.add.reduceat(bits, lengths.token_offsets[:-1]), lengths))
            joint = joint_bits(own, sums[-1], self.joint, tokens_for(self.joint, target, lengths, bits))
            memu[k], signed[k] = float(np.mean(sums[-1] - joint)), float(np.mean(sums[-1] - own))
        n_tokens, ours = float(like[1].n_tokens.sum()), None if tokens[0] is None else sums[0]
        return Rung(name, kind, sums[-1], ours, n_tokens, memu[0], memu[0] - memu[1], signed[0])


def _charge_first(bits: np.ndarray, oracle: CodeLengths, target: CodeLengths) -> None:
    """The first tokens' bits, where target and oracle are charged the same for them, whatever the token is."""
    ours, theirs = (lengths.token_bits[lengths.token_offsets[:-1]] for lengths in (oracle, target))
    if np.ptp(ours) == 0 and np.array_equal(ours, theirs):
        bits[oracle.token_offsets[:-1]] = ours


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


def cross_fitted(
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


def same_tokens(sets: Sets, others: Sets) -> bool:
    """Whether two models cut samples and control into the same tokens."""
    return all(np.array_equal(a.token_ids, b.token_ids) for a, b in zip(sets, others, strict=True))


def _names(oracles: Sequence[Sets]) -> list[str]:
    return names_of([sets[0].settings["model"] for sets in oracles])
