"""The rungs of the oracle ladder: the oracles given, codes that need no further model, and mixtures of all these."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, TypeAlias

import numpy as np
from jaxtyping import Float64, Shaped

from memorization.coding.joint import JointCode, joint_bits
from memorization.measure import agreement
from memorization.measure.code_lengths import CodeLengths
from memorization.measure.pair import token_count_bits
from memorization.measure.rows import in_pieces
from memorization.unintended.joint import names_of, tokens_for
from memorization.unintended.ngram import (
    TOKENS_READ,
    NGramCode,
    Tokens,
    best_weights,
    copy_bits,
    folds_of,
    mixture_bits,
    skip_bits,
)
from memorization.unintended.verdict import UNIFORM

__all__ = ["NGRAM", "BuiltIn", "Documents", "Maker", "Rung", "Sets", "cross_fitted", "same_tokens"]

Sets = tuple[CodeLengths, CodeLengths]  # of the samples and of the control, under one model
Documents: TypeAlias = Shaped[np.ndarray, " _"] | None  # of each control sample
Kind: TypeAlias = Literal["given", "built-in", "mixture"]
# Bits of the tokens of some of the samples, of which code lengths are given, under codes by their names.
OfSamples: TypeAlias = Callable[[slice, CodeLengths], Mapping[str, np.ndarray]]

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
    kind: Kind
    control_bits: Float64[np.ndarray, " control"]
    bits: Float64[np.ndarray, " sample"] | None
    n_tokens: float
    mean_bits: float
    net_bits: float
    signed_bits: float


class BuiltIn:
    """The codes that need no further model: a uniform one, and an n-gram code of a control of several samples.

    Attributes:
        of_control: bits of the control's tokens under each.
    """

    def __init__(self, oracle: Sets, target: Sets, documents: tuple[Documents, Documents]) -> None:
        self._vocab_size = _vocab_size(oracle)
        self._first = [_first_bits(*both) for both in zip(oracle, target, strict=True)]
        control = oracle[1]
        uniform = np.full(len(control.token_ids), math.log2(self._vocab_size))
        self.of_control, self._ngram = {UNIFORM: self._charged(uniform, control, 1)}, None
        if len(control) > 1:
            tokens = Tokens(control.token_ids, control.token_offsets, documents[1])
            self._ngram = NGramCode(tokens, self._vocab_size)
            self._fold = folds_of(documents[0], len(oracle[0]), self._ngram.n_folds)
            self.of_control[NGRAM] = self._charged(self._ngram.of_control, control, 1)

    def of_samples(self, part: slice, piece: CodeLengths) -> dict[str, np.ndarray]:
        """Bits of the tokens of some samples under each."""
        ids = piece.token_ids
        codes = {UNIFORM: np.full(len(ids), math.log2(self._vocab_size))}
        if self._ngram is not None:
            fold = np.repeat(self._fold[part], piece.n_tokens)
            codes[NGRAM] = self._ngram.bits(Tokens(ids, piece.token_offsets), fold)
        return {name: self._charged(bits, piece, 0) for name, bits in codes.items()}

    def skipping(self, control: CodeLengths, documents: Documents) -> list[np.ndarray]:
        """Codes of the control by one token further back, and by what comes again: what an n-gram code does not see."""
        tokens = Tokens(control.token_ids, control.token_offsets, documents)
        codes = [skip_bits(tokens, places, self._vocab_size) for places in _PLACES]
        return [self._charged(code, control, 1) for code in (*codes, copy_bits(tokens, self._vocab_size))]

    def _charged(self, bits: np.ndarray, lengths: CodeLengths, k: int) -> np.ndarray:
        first = self._first[k]
        if first is not None:
            bits[lengths.token_offsets[:-1]] = first
        return bits


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
        rungs = []
        for name, sets in zip(_names(oracles), oracles, strict=True):
            of_samples = partial(_of_itself, name)
            rungs += self._rungs({name: "given"}, sets, of_samples, of_samples(slice(None), sets[1]))
        return rungs

    def made(self, oracle: Sets, codes: BuiltIn) -> tuple[list[Rung], list[Rung]]:
        """The uniform rung, with the n-gram rung where there is one; and those of the oracle mixed with them."""

        def with_mixtures(oracle: CodeLengths, built: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
            return {**built, **_mixed(oracle.token_bits, built)}

        def of_samples(part: slice, piece: CodeLengths) -> dict[str, np.ndarray]:
            return with_mixtures(piece, codes.of_samples(part, piece))

        of_control = with_mixtures(oracle[1], codes.of_control)
        kinds: dict[str, Kind] = {name: "built-in" if name in codes.of_control else "mixture" for name in of_control}
        rungs = self._rungs(kinds, oracle, of_samples, of_control)
        return rungs[: len(codes.of_control)], rungs[len(codes.of_control) :]

    def best(self, oracles: Sequence[Sets], codes: BuiltIn, documents: Documents) -> tuple[Rung | None, dict[str, str]]:
        """The best mixture, with the target in it; and what could not be mixed."""
        first, target = oracles[0], self.target
        alike = [same_tokens(sets, first) for sets in oracles]
        left_out = {
            name: "other tokens than the oracle's: in no mixture"
            for name, same in zip(_names(oracles), alike, strict=True)
            if not same
        }
        if not same_tokens(target, first):
            return None, left_out | {MIXTURE: "the target has other tokens than the oracle"}
        mixed = [sets for sets, same in zip(oracles, alike, strict=True) if same]
        codes_of_control = [*(sets[1].token_bits for sets in (*mixed, target)), *codes.of_control.values()]
        if NGRAM in codes.of_control:
            codes_of_control += codes.skipping(first[1], documents)
        bits = cross_fitted(first[1], documents, codes_of_control, best_weights, mixture_bits)
        (best,) = self._rungs({MIXTURE: "mixture"}, first, None, {MIXTURE: bits})
        return best, left_out

    def _rungs(
        self,
        kinds: Mapping[str, Kind],
        like: Sets,
        of_samples: OfSamples | None,
        of_control: Mapping[str, np.ndarray],
    ) -> list[Rung]:
        """Rungs from the bits of the tokens of `like`; None for samples that they have seen."""
        sums = {name: np.empty(len(like[0])) for name in kinds}
        memu, signed = dict.fromkeys(kinds, 0.0), dict.fromkeys(kinds, 0.0)
        for part, (target, lengths) in () if of_samples is None else in_pieces(self.target[0], like[0]):
            assert of_samples is not None
            for name, bits in of_samples(part, lengths).items():
                sums[name][part], saved, over = self._compared(bits, lengths, target)
                memu[name], signed[name] = memu[name] + saved.sum(), signed[name] + over.sum()
        rungs, n = [], len(like[0]) if of_samples else math.nan
        for name, kind in kinds.items():
            control_bits, saved, _ = self._compared(of_control[name], like[1], self.target[1])
            mean, ours = float(memu[name] / n), sums[name] if of_samples else None
            net, n_tokens = mean - float(saved.mean()), float(like[1].n_tokens.sum())
            rungs.append(Rung(name, kind, control_bits, ours, n_tokens, mean, net, float(signed[name] / n)))
        return rungs

    def _compared(
        self, bits: np.ndarray, lengths: CodeLengths, target: CodeLengths
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Bits of each sample by those of its tokens, what the joint code saves of them, and what the target does."""
        own = self._counted(target.ideal_bits, target)
        sums = self._counted(np.add.reduceat(bits, lengths.token_offsets[:-1]), lengths)
        joint = joint_bits(own, sums, self.joint, tokens_for(self.joint, target, lengths, bits))
        return sums, sums - joint, sums - own

    def _counted(self, bits: Float64[np.ndarray, " sample"], lengths: CodeLengths) -> Float64[np.ndarray, " sample"]:
        return bits + token_count_bits(lengths) if self.counted else bits


def _of_itself(name: str, _: slice, lengths: CodeLengths) -> dict[str, np.ndarray]:
    return {name: lengths.token_bits}


def _mixed(oracle: np.ndarray, built: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The oracle's bits of tokens mixed with those of built-in codes."""
    parts = {f"oracle, {share:.0%} uniform": (built[UNIFORM], share) for share in _UNIFORM_SHARES}
    if NGRAM in built:
        parts["oracle, 50% n-gram"] = built[NGRAM], 0.5
    return {
        name.replace("%", " %"): mixture_bits([oracle, other], [1 - share, share])
        for name, (other, share) in parts.items()
    }


def _first_bits(oracle: CodeLengths, target: CodeLengths) -> float | None:
    """Bits of each first token, where target and oracle are charged the same for it, whatever the token is."""
    charge: float | None = None
    for _, (ours, theirs) in in_pieces(oracle, target):
        bits, others = (lengths.token_bits[lengths.token_offsets[:-1]] for lengths in (ours, theirs))
        charge = float(bits[0]) if charge is None else charge
        if (bits != charge).any() or not np.array_equal(bits, others):
            return None
    return charge


def _vocab_size(sets: Sets) -> int:
    largest = (int(piece.token_ids.max()) for one in sets for _, (piece,) in in_pieces(one))
    return max(int(sets[0].settings["uniform_vocab_size"]), *(one + 1 for one in largest))


def cross_fitted(
    control: CodeLengths,
    documents: Documents,
    codes: Sequence[np.ndarray],
    fit: Callable[[list[np.ndarray]], Any],
    apply: Callable[[list[np.ndarray], Any], np.ndarray],
) -> np.ndarray:
    """Bits of the control's tokens under what is made of codes, each half of the documents fitted to the other half."""
    of_samples = folds_of(documents, len(control), 2)
    fold, several = np.repeat(of_samples, control.n_tokens), bool(of_samples.any())
    read = np.arange(len(fold)) < TOKENS_READ
    out = np.empty(len(fold))
    for half in (0, 1):
        fitted = read & (fold != half) if several else read
        made = fit([code[fitted] for code in codes])
        out[fold == half] = apply([code[fold == half] for code in codes], made)
    return out


def same_tokens(sets: Sets, others: Sets) -> bool:
    """Whether two models cut samples and control into the same tokens."""
    return all(agreement.same_tokens(a, b) for a, b in zip(sets, others, strict=True))


def _names(oracles: Sequence[Sets]) -> list[str]:
    return names_of([sets[0].settings["model"] for sets in oracles])
