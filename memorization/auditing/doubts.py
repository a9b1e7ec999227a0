"""Which figures of an audit are not to be believed, and why: what hides memory, and what a control is not like."""

import warnings
from typing import NamedTuple

from memorization.auditing.figures import FDR, FIGURES, SURE, figures_of, memorized_of
from memorization.auditing.findings import Findings
from memorization.auditing.policy import read_policy
from memorization.errors import InputError
from memorization.results import counted

__all__ = ["Doubts", "doubts_of", "figures_in_doubt"]

_OF_MEMORY = (
    *("memorized", "memorized_share", "worst_bits", "mean_bits", "net_bits", "net_bits_low", "net_bits_high"),
    *("capacity_share", "auc_reference", "auc_best"),
)
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
    if "SameModelWarning" in kinds:
        hidden.append("target and oracle are the same model, so nothing that it memorized is seen")
    elif "SeenByOracleWarning" in kinds:
        hidden.append("the oracle may have seen the records, and then hides what the target memorized of them")
    if audit.memorization.in_parts_lines():
        hidden.append("parts of records are known by heart, which whole records do not show")
    if _control_is_known_better(audit):
        unlike.append(
            "the target knows the control better than the records: it has seen the control, or the two were swapped"
        )
    if "LengthMismatchWarning" in kinds:
        unlike.append("records and control differ in length")
    unseen = ""
    if memorized_of(audit.memorization) is None and not hidden and not unlike:
        unseen = _unseen(audit)
    return Doubts(" and ".join(hidden), " and ".join(unlike), unseen)


def _control_is_known_better(audit: Findings) -> bool:
    """By an attack upside down, or by a control that is given back more often than the records."""
    if audit.membership is not None:
        loss = audit.membership.attacks["loss"]
        if loss.auc_interval.high < 0.5:
            return True
    figures = figures_of(audit)
    return figures["extracted_control_share"] > 0.1 + 2 * figures["extracted_share"]


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


def figures_in_doubt(audit: Findings) -> dict[str, str]:
    """Figures that are unknown or not to be believed, each with the reason."""
    doubts = doubts_of(audit)
    found: dict[str, str] = {}
    if audit.extraction is None:
        found |= dict.fromkeys((name for name in FIGURES if name.startswith("extract")), audit.missing["extraction"])
    elif n_short := len(audit.extraction.settings["members"].get("too_short", ())):
        why = f"{counted(n_short, 'record')} {'is' if n_short == 1 else 'are'} too short to ask"
        found |= dict.fromkeys(("extracted", "extractable", "extracted_share", "extractable_share"), why)
    if audit.membership is None:
        found |= dict.fromkeys((name for name in FIGURES if name.startswith("auc")), audit.missing["membership"])
    told = [one.limit for one in read_policy(audit.settings["policy"], FIGURES) if one.figure == "set_p_value"]
    if why := audit.memorization._no_set_p_value_below(min([SURE, *told])):
        found["set_p_value"] = why
    if doubts.unseen:
        found |= dict.fromkeys(("memorized", "memorized_share"), doubts.unseen)
    if doubts.hidden:
        found |= dict.fromkeys(_OF_MEMORY, doubts.hidden)
    if doubts.unlike:
        found |= dict.fromkeys((name for name in FIGURES if name not in _COUNTS), doubts.unlike)
    return found
