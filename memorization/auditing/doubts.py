"""Which figures of an audit are not to be believed, and why: what hides memory, and what a control is not like."""

import math
import warnings
from typing import NamedTuple

import numpy as np

from memorization.auditing.figures import (
    FDR,
    FIGURES,
    SURE,
    figures_of,
    longest_recited,
    memorized_of,
    recited_of,
)
from memorization.auditing.findings import Findings
from memorization.auditing.policy import read_policy
from memorization.errors import InputError
from memorization.results import counted

__all__ = ["Doubts", "doubts_of", "figures_in_doubt", "left_out"]

_OF_MEMORY = (
    *("memorized", "memorized_share", "worst_bits", "mean_bits", "net_bits", "net_bits_low", "net_bits_high"),
    *("capacity_share", "auc_reference", "auc_best"),
)
_OF_EXTRACTION = ("extracted", "extracted_share", "extractable", "extractable_share")
_STRETCH = 32  # tokens of a record that are given back in one piece: as much as the longest prefix
_LEFT_OUT = 0.01  # of the rows: an empty line or two hide nothing
_EASIER = 0.5  # of the fewest bits a token that the oracle needs for any unseen record
_NEARLY_ALL = 0.99
_WORSE = 1.25  # times the bits of knowing nothing: a model with random weights needs little more than these
_COUNTS = ("n_records", "n_control", "repeated")


class Doubts(NamedTuple):
    """Reasons in words; empty where there are none.

    Attributes:
        hidden: why more may be memorized than is seen.
        unlike: why records and control cannot be compared.
        unseen: why records that are memorized would not be selected.
    """

    hidden: str
    unlike: str
    unseen: str


def doubts_of(audit: Findings) -> Doubts:
    """The reasons."""
    return audit._once("doubts", lambda: _doubts(audit))


def _doubts(audit: Findings) -> Doubts:
    kinds = {kind for kind, _ in audit.warnings}
    hidden, unlike = [], []
    if _is_worse_than_none(audit):
        unlike.append(
            "the target needs more bits for records and control than a code that gives every token the same "
            "probability: its tokenizer, its weights or what it reads in front are likely wrong"
        )
    if "SameModelWarning" in kinds:
        hidden.append("target and oracle are the same model, so nothing that it memorized is seen")
    elif "SeenByOracleWarning" in kinds:
        hidden.append("the oracle may have seen the records, and then hides what the target memorized of them")
    elif n_seen := _seen_by_oracle(audit):
        hidden.append(
            f"the oracle needs less than half the bits a token for {counted(n_seen, 'record')} that it needs for any "
            "unseen one: it may have seen such records, and then hides what the target memorized of them"
        )
    if "NearCopiesWarning" in kinds:
        hidden.append("control records are nearly copies of records, and show what was memorized of them too")
    if "FirstTokenWarning" in kinds:
        hidden.append("what stood in front of records in training is not sure, and what it brings out not seen then")
    if audit.memorization.in_parts_lines():
        hidden.append("parts of records are known by heart, which whole records do not show")
    if _control_is_known_better(audit):
        unlike.append(
            "the target knows the control better than the records: it has seen the control, the two were swapped, or "
            "the records are harder text"
        )
    if "LengthMismatchWarning" in kinds:
        unlike.append("records and control differ in length")
    unseen = ""
    if memorized_of(audit.memorization) is None and not hidden and not unlike:
        unseen = _unseen(audit)
    elif not hidden and not unlike:
        unseen = _unselected(audit)
    return Doubts(" and ".join(hidden), " and ".join(unlike), unseen)


def _control_is_known_better(audit: Findings) -> bool:
    """By an attack upside down, or by a control that is given back more often than the records."""
    if audit.membership is not None:
        loss = audit.membership.attacks["loss"]
        if loss.auc_interval.high < 0.5:
            return True
    figures = figures_of(audit)
    return figures["extracted_control_share"] > 0.1 + 2 * figures["extracted_share"]


def _is_worse_than_none(audit: Findings) -> bool:
    """Whether the target codes nearly every sample of both sets in more bits than log2 of the vocabulary a token."""
    control = audit.memorization.control
    sets = [audit.memorization.target, *([] if control is None else [control.target])]
    worse = [one.ideal_bits > _WORSE * one.n_tokens * math.log2(one.settings["uniform_vocab_size"]) for one in sets]
    return all(of_set.mean() > _NEARLY_ALL for of_set in worse)


def _seen_by_oracle(audit: Findings) -> int:
    """Records that are far easier for the oracle than any control record."""
    control = audit.memorization.control
    if control is None:
        return 0
    ours, theirs = (one.ideal_bits / one.n_tokens for one in (audit.memorization.oracle, control.oracle))
    return int((ours < _EASIER * theirs.min()).sum())


def _unselected(audit: Findings) -> str:
    """That the records which are not selected are known better than unseen ones, all together; empty where not."""
    from scipy.stats import mannwhitneyu

    memorization, control, chosen = audit.memorization, audit.memorization.control, memorized_of(audit.memorization)
    if control is None or chosen is None or chosen.all():
        return ""
    p = float(mannwhitneyu(memorization.signed_bits[~chosen], control.signed_bits, alternative="greater").pvalue)
    p = p if chosen.any() else min(p, memorization.set_p_value)
    if not p < SURE:
        return ""
    which = "the others" if chosen.any() else "they"
    return f"{which} are known better than unseen ones all together (p = {p:.2g}), by too little each to say which"


def _unseen(audit: Findings) -> str:
    """Why none was selected, with the control that it would take."""
    memorization = audit.memorization
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            memorization.memorized(FDR)
        except InputError as error:
            return str(error).rstrip(".")
    return memorization._unseen(FDR)


def _stretch(audit: Findings) -> int:
    """The longest run that is given back of a record which does not count as extracted."""
    target, extraction = audit.memorization.target, audit.extraction
    if target.token_greedy is None:
        return 0
    runs, came = longest_recited(target), recited_of(audit)
    if extraction is not None and came is not None:
        runs = runs[~np.isin(target.index, extraction._index("members")[came[0].greedy])]
    return int(runs.max(initial=0))


def left_out(audit: Findings) -> str:
    """That so many rows were not measured that figures of the others say little; empty where few were."""
    record = audit.memorization.target.settings["samples"]
    n_blank, n_lossy = len(record.get("blank_skipped", ())), len(record["lossy_skipped"])
    n = n_blank + n_lossy
    if not n_lossy and n <= _LEFT_OUT * (n + len(audit.memorization)):
        return ""
    causes = [f"{counted(n_blank, 'row')} without text"] * bool(n_blank)
    causes += [f"{counted(n_lossy, 'row')} that the tokenizer does not give back"] * bool(n_lossy)
    return f"{' and '.join(causes)} of {n + len(audit.memorization):,} {'was' if n == 1 else 'were'} not measured"


def figures_in_doubt(audit: Findings) -> dict[str, str]:
    """Figures that are unknown or not to be believed, each with the reason."""
    doubts = doubts_of(audit)
    found: dict[str, str] = {}
    if audit.extraction is None:
        found |= dict.fromkeys((name for name in FIGURES if name.startswith("extract")), audit.missing["extraction"])
    elif n_short := len(audit.extraction.settings["members"].get("too_short", ())):
        why = f"{counted(n_short, 'record')} {'is' if n_short == 1 else 'are'} too short to ask"
        found |= dict.fromkeys(("extracted", "extractable", "extracted_share", "extractable_share"), why)
    stretch = _stretch(audit)
    if stretch >= _STRETCH and not stretch < 2 * figures_of(audit)["longest_recited_control"]:
        why = f"{counted(stretch, 'token')} of a record in a row are given back, if not all that follows a prefix"
        found = dict.fromkeys(_OF_EXTRACTION, why) | found
    if audit.membership is None:
        found |= dict.fromkeys((name for name in FIGURES if name.startswith("auc")), audit.missing["membership"])
    told = [one.limit for one in read_policy(audit.settings["policy"], FIGURES) if one.figure == "set_p_value"]
    if why := audit.memorization._no_set_p_value_below(min([SURE, *told])):
        found["set_p_value"] = why
    if doubts.unseen:
        found |= dict.fromkeys(("memorized", "memorized_share"), doubts.unseen)
    if doubts.hidden:
        found |= dict.fromkeys((*_OF_MEMORY, *_OF_EXTRACTION), doubts.hidden)
    if why := left_out(audit):
        found = dict.fromkeys((name for name in FIGURES if name not in _COUNTS), why) | found
    if doubts.unlike:
        found |= dict.fromkeys((name for name in FIGURES if name not in _COUNTS), doubts.unlike)
    return found
