"""The figures of an audit by name, and which of them may be too low."""

import math
import warnings
from typing import Any

import numpy as np
from jaxtyping import Int64

from memorization.auditing.findings import Findings
from memorization.errors import InputError, NothingSelectedWarning
from memorization.extraction.decoding import least_bits
from memorization.extraction.stored import Recited, recited
from memorization.measure.code_lengths import CodeLengths
from memorization.unintended import Memorization

__all__ = ["CHANCE", "FDR", "FIGURES", "SURE", "TRIES", "figures_of", "longest_recited", "memorized_of", "recited_of"]

FDR = 0.05
CHANCE = 0.05  # a p-value: from here on nothing is told from chance
SURE = 0.01
TRIES = 10_000
_ATTACKS = ("loss", "reference", "zlib", "min_k")
# Each figure in words, for help texts, reports and the docs.
FIGURES = {
    "n_records": "records measured",
    "n_control": "unseen records measured beside them",
    "memorized": f"records memorized, at a false discovery rate of {100 * FDR:g} %",
    "memorized_share": "their share, from 0 to 1",
    "worst_bits": "memU of the record with most of it, bits",
    "mean_bits": "memU of a record, mean, bits",
    "net_bits": "memU of all records over what the control shows, bits",
    "net_bits_low": "its 95 % interval, lower end",
    "net_bits_high": "and upper end",
    "set_p_value": "p-value that records are known no better than unseen ones",
    "capacity_share": "net memU over 3.6 bits a parameter of the target",
    "extracted": "records given back word for word by greedy decoding, from 8, 16 or 32 tokens, as they are long",
    "extracted_share": "their share of the records that are long enough",
    "extracted_control_share": "the same share of the control, which is generalization",
    "extractable": f"records that come out in {TRIES:,} sampled tries with probability 1/2, from the same prefixes",
    "extractable_share": "their share of the records that are long enough",
    "extractable_control_share": "the same share of the control",
    "longest_recited": "tokens in a row of a record, each the one that greedy decoding gives after the true ones",
    "longest_recited_control": "the same of the control, which is generalization",
    **{f"auc_{name}": f"AUC of the {name} attack, 0.5 is chance" for name in _ATTACKS},
    "auc_best": "the highest of them",
    "repeated": "records that stand in the data more than once",
}


def figures_of(audit: Findings) -> dict[str, float]:
    """Every figure of `FIGURES`; NaN where it is unknown."""
    return audit._once("figures", lambda: _figures(audit))


def _figures(audit: Findings) -> dict[str, float]:
    memorization, control = audit.memorization, audit.memorization.control
    unlike = any(kind == "LengthMismatchWarning" for kind, _ in audit.warnings)
    chosen = None if unlike else memorized_of(memorization)
    found: dict[str, Any] = dict.fromkeys(FIGURES, math.nan)
    found |= {
        "n_records": len(memorization),
        "memorized": math.nan if chosen is None else chosen.sum(),
        "memorized_share": math.nan if chosen is None else chosen.mean(),
        "worst_bits": memorization.bits.max(),
        "mean_bits": memorization.mean_bits,
        "set_p_value": memorization.set_p_value,
        "capacity_share": memorization.capacity_share,
        "repeated": _repeated(memorization),
    }
    if control is not None:
        low, high = control.net_interval
        if low > 0 and not memorization.set_p_value < CHANCE:  # of a control of zeros, an interval knows too little
            low = math.nan
        found |= {"n_control": len(control.bits), "net_bits": control.net_bits}
        found |= {"net_bits_low": low, "net_bits_high": high}
    for name, lengths in (("", memorization.target), ("_control", None if control is None else control.target)):
        if lengths is not None and lengths.token_greedy is not None:
            found[f"longest_recited{name}"] = longest_recited(lengths).max(initial=0)
    came = recited_of(audit)
    if came is not None:
        found |= _of_extraction(*came)
    if audit.membership is not None:
        areas = {name: one.auc for name, one in audit.membership.attacks.items()}
        found |= {f"auc_{name}": areas.get(name, math.nan) for name in _ATTACKS}
        found["auc_best"] = max(areas.values())
    return {name: float(value) for name, value in found.items()}


def longest_recited(lengths: CodeLengths) -> Int64[np.ndarray, " sample"]:
    """Of each sample the longest run of tokens that greedy decoding gives."""
    longest = [np.zeros(0, dtype=np.int64)]
    for piece in lengths.pieces():
        greedy = piece.token_greedy
        assert greedy is not None
        places = np.arange(len(greedy))
        begins = np.repeat(piece.token_offsets[:-1], piece.n_tokens) - 1
        before = np.maximum(np.maximum.accumulate(np.where(greedy, -1, places)), begins)
        longest.append(np.maximum.reduceat(places - before, piece.token_offsets[:-1]))
    return np.concatenate(longest)


def recited_of(audit: Findings) -> tuple[Recited, Recited] | None:
    """What comes out of records and control; None where it was not measured."""
    extraction = audit.extraction
    return None if extraction is None else audit._once("recited", lambda: recited(extraction))


def _of_extraction(members: Recited, heldout: Recited) -> dict[str, float]:
    most = least_bits(TRIES, 0.5)
    found: dict[str, float] = {}
    for name, of in (("", members), ("_control", heldout)):
        for kind, out in (("extracted", of.greedy), ("extractable", of.bits <= most)):
            found[f"{kind}{name}_share"] = float(out.mean()) if len(out) else math.nan
    found["extracted"] = float(members.greedy.sum())
    found["extractable"] = float((members.bits <= most).sum())
    return found


def memorized_of(memorization: Memorization) -> np.ndarray | None:
    """Which records are selected as memorized; None where none are and few would be seen."""
    try:
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            chosen = memorization.memorized(FDR)
    except InputError:
        return None
    unseen = any(issubclass(one.category, NothingSelectedWarning) for one in said)
    return None if unseen and not chosen.any() else chosen


def _repeated(memorization: Memorization) -> int:
    """Records that have an equal one, the first of each among them."""
    labels = memorization.documents if memorization.groups is None else None
    if labels is None:
        return int(memorization.settings["n_repeated"])
    _, which, counts = np.unique(labels, return_inverse=True, return_counts=True)
    return int((counts[which] > 1).sum())
