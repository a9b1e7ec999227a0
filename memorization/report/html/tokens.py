"""The tokens of the most memorized records, with their bits: what the heat map shows."""

from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from memorization.errors import InputError
from memorization.measure.byte_bits import shared_pieces
from memorization.measure.pair import differ_in_tokens
from memorization.report.html.hidden import Texts
from memorization.report.html.shown import figure
from memorization.results import counted

if TYPE_CHECKING:
    from memorization.auditing import Audit

__all__ = ["STEPS", "Heat", "heat_of"]

MOST_RECORDS, MOST_TOKENS = 10, 300
# Bits at which a colour begins: a step about twice the last, as a bit halves a probability.
STEPS = (0.25, 1.0, 2.0, 4.0, 8.0, 12.0)


@dataclass(frozen=True, slots=True)
class Heat:
    """One record, token by token.

    Attributes:
        name: what it is called.
        bits: its memU, in bits.
        facts: more of it, in words.
        tokens: of each token piece, target, oracle and memu (in bits, as text), and their classes.
        more: what is left out, in words; empty where nothing is.
    """

    name: str
    bits: str
    facts: list[str]
    tokens: list[dict[str, Any]]
    more: str


def heat_of(audit: "Audit", texts: Texts) -> list[Heat]:
    """The records with most signed memU, the first first."""
    kept = {int(row.sample): row for row in audit.texts.itertuples()} if not texts.hide else {}
    order = np.argsort(-audit.memorization.signed_bits, kind="stable")[:MOST_RECORDS]
    return [_of_record(audit, int(k), texts, kept) for k in order]


def _of_record(audit: "Audit", k: int, texts: Texts, kept: dict[int, Any]) -> Heat:
    memorization = audit.memorization
    target = memorization.target
    row = kept.get(int(target.index[k]))
    pieces, ours, theirs = _pieces(audit, k, row)
    tokens = []
    for place, (piece, one, other) in enumerate(
        zip(pieces[:MOST_TOKENS], ours[:MOST_TOKENS].tolist(), theirs[:MOST_TOKENS].tolist(), strict=True)
    ):
        memu = other - one
        told = {"target": figure(one), "oracle": figure(other), "memu": _signed(memu)}
        tokens.append(
            {
                "place": place + 1,
                "piece": texts.piece(piece),
                **told,
                "classes": f"t{_step(one)} o{_step(other)} m{'n' if memu < 0 else ''}{_step(abs(memu))}",
            }
        )
    n = len(pieces)
    return Heat(
        name=audit.name_of(k),
        bits=figure(float(memorization.bits[k])),
        facts=[
            f"target {figure(float(target.bits[k]))} bits",
            f"oracle {figure(float(memorization.oracle.bits[k]))} bits",
            counted(n, "token"),
        ],
        tokens=tokens,
        more=f"The first {MOST_TOKENS:,} of {counted(n, 'token')}." if n > MOST_TOKENS else "",
    )


def _pieces(audit: "Audit", k: int, row: Any) -> tuple[list[str], np.ndarray, np.ndarray]:
    """Pieces of a record with the target's and the oracle's bits; NaN where those of the oracle are not known."""
    target, oracle = (one._window(k, k + 1) for one in (audit.memorization.target, audit.memorization.oracle))
    ids, ours = target.token_ids, target.token_bits
    pieces = [str(piece) for piece in row.pieces] if row is not None else []
    if len(pieces) != len(ids):
        pieces = [f"#{number}" for number in ids]
    if not differ_in_tokens(target, oracle):
        return pieces, ours, oracle.token_bits
    try:
        ours_shared, theirs, edges = shared_pieces(target, oracle, 0)
    except InputError:
        return pieces, ours, np.full(len(ids), np.nan)
    encoded = b"" if row is None else row.text.encode()
    if len(encoded) != edges[-1]:
        encoded = b""
    shared = [encoded[a:b].decode(errors="replace") for a, b in pairwise(edges)]
    return shared if encoded else [f"#{i}" for i in range(len(shared))], ours_shared, theirs


def _signed(bits: float) -> str:
    told = figure(bits)
    return f"+{told}" if bits > 0 and float(f"{bits:.1f}") else told


def _step(bits: float) -> str:
    return "x" if np.isnan(bits) else str(int(np.searchsorted(STEPS, bits, side="right")))
