"""The code lengths of two models as one, H(x | oracle, target), and those of several oracles as one."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
from jaxtyping import Float64

from memorization.coding.joint import JointCode, MixedCode, TokenBits, joint_bits, mixed_token_bits
from memorization.errors import InputError
from memorization.integers import edges_of
from memorization.measure.agreement import same_tokens
from memorization.measure.byte_bits import shared_pieces
from memorization.measure.code_lengths import CodeLengths
from memorization.measure.fingerprint import same_model
from memorization.measure.pair import token_count_bits
from memorization.measure.result import IN_MEMORY, StoredLengths
from memorization.measure.rows import in_pieces

__all__ = ["as_one", "holds", "is_mixed", "joint_of", "names_of", "tokens_for", "with_count"]

_MIXED = "MixedOracles"


def with_count(
    bits: Float64[np.ndarray, " sample"], lengths: CodeLengths, settings: dict[str, Any]
) -> Float64[np.ndarray, " sample"]:
    """Code lengths, with two tokenizers plus the code of the token count: Elias gamma, 2 floor(log2 n) + 1 bits."""
    return bits + token_count_bits(lengths) if settings["token_count_code"] else bits


def joint_of(
    target: CodeLengths, oracle: CodeLengths, settings: dict[str, Any], which: Literal["bits", "ideal_bits"]
) -> Float64[np.ndarray, " sample"]:
    """The joint code length of each sample, coded or ideal, by the settings of a result."""
    whole = [with_count(getattr(lengths, which), lengths, settings) for lengths in (target, oracle)]
    code: JointCode = settings["joint"]
    if code != "switch":
        return joint_bits(whole[0], whole[1], code)
    parts = [
        joint_bits(whole[0][part], whole[1][part], code, tokens_for(code, a, b, b.token_bits))
        for part, (a, b) in in_pieces(target, oracle)
    ]
    return np.concatenate(parts)


def tokens_for(
    joint: JointCode, target: CodeLengths, oracle: CodeLengths, oracle_token_bits: Float64[np.ndarray, " token"]
) -> TokenBits | None:
    """What `joint_bits` needs of the tokens: nothing but for a switch.

    Where the models cut a text into different tokens, what lies between places where both have an edge counts as one.

    Raises:
        InputError: it is not known which bytes the tokens cover.
    """
    if joint != "switch":
        return None
    if np.array_equal(target.token_ids, oracle.token_ids):
        return target.token_bits, oracle_token_bits, target.token_offsets
    theirs = oracle._changed(token_bits=oracle_token_bits)
    pieces = [shared_pieces(target, theirs, i) for i in range(len(target))]
    ours, others = (np.concatenate([piece[k] for piece in pieces]) for k in (0, 1))
    return ours, others, edges_of([len(piece[0]) for piece in pieces])


def as_one(oracles: Sequence[CodeLengths], code: MixedCode) -> CodeLengths:
    """Code lengths of the same tokens under a Bayesian mixture of k oracles: at most log2 k bits above the best.

    Raises:
        InputError: the oracles have different tokens.
    """
    first = oracles[0]
    for other in oracles[1:]:
        if not same_tokens(first, other):
            names = [lengths.settings["model"]["name"] for lengths in (first, other)]
            raise InputError(
                f'the oracles {names[0]} and {names[1]} cut the samples into different tokens, and combine="{code}" '
                'mixes them token by token: give oracles of one tokenizer, or combine="best".'
            )
    ideal, coded = np.empty(len(first)), np.empty(len(first))
    for part, pieces in in_pieces(*oracles):
        offsets = pieces[0].token_offsets
        for sums, bits in ((ideal, [one.token_bits for one in pieces]), (coded, [_with_excess(one) for one in pieces])):
            sums[part] = np.add.reduceat(mixed_token_bits(bits, offsets, code), offsets[:-1])
    record = _record_of_all([one.settings["model"] for one in oracles], code)
    changed = {"bits": coded, "ideal_bits": ideal, "settings": {**first.settings, "model": record}}
    if isinstance(first, StoredLengths):
        return _Mixed(oracles, code, {name: getattr(first, name) for name in IN_MEMORY} | changed)
    return first._changed(token_bits=_mixed_bits(oracles, code), **changed)


def _mixed_bits(oracles: Sequence[CodeLengths], code: MixedCode) -> Float64[np.ndarray, " token"]:
    return mixed_token_bits([one.token_bits for one in oracles], oracles[0].token_offsets, code)


class _Mixed(StoredLengths):
    """Stored code lengths under several oracles as one, whose tokens' bits are mixed when they are asked for."""

    __slots__ = ("_code", "_oracles")

    _code: MixedCode
    _oracles: Sequence[CodeLengths]

    def __init__(self, oracles: Sequence[CodeLengths], code: MixedCode, known: Mapping[str, Any]) -> None:
        first = oracles[0]
        assert isinstance(first, StoredLengths)
        super().__init__(first._tokens, first._about, known)
        object.__setattr__(self, "_code", code)
        object.__setattr__(self, "_oracles", oracles)

    def _read(self, field: str, low: int = 0, high: int | None = None) -> Any:
        if field != "token_bits":
            return super()._read(field, low, high)
        ends = low, len(self) if high is None else high
        return _mixed_bits([one._window(*ends) for one in self._oracles], self._code)


def names_of(records: Sequence[dict[str, Any]]) -> list[str]:
    """The models' names, numbered where several are called the same."""
    names = [str(record["name"]) for record in records]
    return [
        name if names.count(name) == 1 else f"{name} ({names[: k + 1].count(name)})" for k, name in enumerate(names)
    ]


def is_mixed(oracle: CodeLengths) -> bool:
    """Whether code lengths are those of several oracles as one."""
    return bool(oracle.settings["model"]["class"] == _MIXED)


def holds(oracle: dict[str, Any], target: dict[str, Any]) -> bool:
    """Whether a model is a member of a mixture, or of a mixture in it, by their records."""
    members = oracle.get("members") or ()
    return any(same_model(target, member) or holds(member, target) for member in members)


def _with_excess(lengths: CodeLengths) -> Float64[np.ndarray, " token"]:
    """Bits of the tokens, what the coder spends beside with the first of each sample."""
    bits = lengths.token_bits.copy()
    bits[lengths.token_offsets[:-1]] += lengths.bits - lengths.ideal_bits
    return bits


def _record_of_all(records: Sequence[dict[str, Any]], code: MixedCode) -> dict[str, Any]:
    told = json.dumps([[one["fingerprint"], one.get("probe")] for one in records], default=str)
    return {
        **dict.fromkeys(records[0]),
        "name": f"{code} of {', '.join(names_of(records))}",
        "class": _MIXED,
        "fingerprint": f"{code} {hashlib.sha256(told.encode()).hexdigest()}",
        "vocab_size": records[0].get("vocab_size"),
        "members": list(records),
    }
