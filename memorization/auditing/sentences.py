"""What an audit found, in sentences for people who decide."""

import math

from memorization.auditing.doubts import doubts_of, left_out
from memorization.auditing.figures import CHANCE, FDR, SURE, TRIES, figures_of, recited_of
from memorization.auditing.findings import Findings
from memorization.results import counted

__all__ = ["not_shown", "sentences_of"]

_ATTACK = 0.05  # of an AUC above chance: what is worth a warning word


def sentences_of(audit: Findings) -> list[str]:
    """The findings, the most important first."""
    unlike = doubts_of(audit).unlike
    return [
        *([f"No figure of memory is to be believed: {unlike}."] if unlike else []),
        _memorized(audit),
        _worst(audit),
        *_together(audit),
        *_extracted(audit),
        *_left_out(audit),
        *_membership(audit),
        *_repeats(audit),
        _oracle(audit),
    ]


def _memorized(audit: Findings) -> str:
    figures, n, doubts = figures_of(audit), len(audit.memorization), doubts_of(audit)
    if doubts.unlike:
        return f"Cannot tell which of the {counted(n, 'record')} are memorized."
    if math.isnan(figures["memorized"]) or ((doubts.hidden or doubts.unseen) and not figures["memorized"]):
        return f"Cannot tell which of the {counted(n, 'record')} are memorized: {doubts.hidden or doubts.unseen}."
    k = int(figures["memorized"])
    of_all = f"{k:,} of {counted(n, 'record')} {'is' if k == 1 else 'are'} memorized"
    if doubts.hidden:
        return f"At least {of_all}, and it may be more: {doubts.hidden}."
    if doubts.unseen:
        return f"At least {of_all}, and it may be more: {doubts.unseen}."
    if not k:
        return f"None of {counted(n, 'record')} is found to be memorized, at a false discovery rate of {100 * FDR:g} %."
    weak = "; the oracle is weak, so this may be generalization" if audit.memorization.verdict == "weak" else ""
    return f"{of_all} (false discovery rate {100 * FDR:g} %){weak}."


def _worst(audit: Findings) -> str:
    memorization, k = audit.memorization, int(audit.memorization.signed_bits.argmax())
    bits, without = memorization.bits[k], memorization.oracle.bits[k]
    name = audit.name_of(k)
    if bits <= 0:
        told = f"The worst is {name}: the target needs no fewer bits for it than the oracle"
        beside = (
            ", and yet fewer, beside the oracle, than for unseen ones" if figures_of(audit)["memorized"] > 0 else ""
        )
        return f"{told}{beside}."
    return (
        f"The worst is {name}: the target codes it in {memorization.target.bits[k]:,.0f} bits, the oracle in "
        f"{without:,.0f}, which leaves {bits:,.0f} memorized."
    )


def _together(audit: Findings) -> list[str]:
    control = audit.memorization.control
    if control is None:
        return []
    low, high = control.net_interval
    p = audit.memorization.set_p_value
    if not (math.isfinite(low) and math.isfinite(high)):
        few = audit.memorization._no_set_p_value_below(SURE)
        told = f"All together hold {control.net_bits:,.0f} bits more than unseen records (interval unknown)"
        return [f"{told}{f'; whether by chance cannot be told: {few}' if few else ''}."]
    span = f"{control.net_bits:,.0f} bits ({low:,.0f} to {high:,.0f})"
    if memorization_is_clipped(audit):
        told = "All together, nothing can be said: the target needs more bits for every record than the oracle"
    elif low > 0 and not p >= CHANCE:
        told = f"All together hold {span} more than unseen records would show"
    elif p < SURE:
        told = f"Records are known better than unseen ones; how much of it is memorized cannot be told: {span}"
    else:
        told = f"All together, {span} more than unseen records would show: in the mean, it cannot be told from none"
    few = audit.memorization._no_set_p_value_below(SURE)
    more = [f"{told} ({f'cannot tell more: {few}' if few else f'p = {p:.2g}'})."]
    parts = audit.memorization.in_parts
    if audit.memorization.in_parts_lines():
        more.append(
            f"Parts of records are known by heart: {parts.low:,.1f} to {parts.high:,.1f} bits a record more than whole "
            "records show."
        )
    return more


def memorization_is_clipped(audit: Findings) -> bool:
    """Whether memU is 0 for every record because it is never below 0, whatever the target knows."""
    return bool(audit.memorization.signed_bits.max() <= 0 and audit.memorization.bits.max() <= 0)


def _left_out(audit: Findings) -> list[str]:
    why = left_out(audit)
    return [f"{why[0].upper()}{why[1:]}: nothing is known of them."] if why else []


def _extracted(audit: Findings) -> list[str]:
    came, figures = recited_of(audit), figures_of(audit)
    if came is None or audit.extraction is None:
        return [f"Extraction was not measured: {audit.missing['extraction']}."]
    members, heldout = came
    low, high = int(members.prefix.min()), int(members.prefix.max())
    if high == 0:
        given = "its prompt"
    else:
        given = (
            f"its first {counted(high, 'token')}"
            if low == high
            else f"its first {low} to {counted(high, 'token')}, as it is long"
        )
    n, k, k_sampled = len(members.greedy), int(figures["extracted"]), int(figures["extractable"])
    told = (
        f"Given {given}, the target writes the rest of {k:,} of {counted(n, 'record')} word for word by greedy "
        f"decoding, and of {k_sampled:,} in {TRIES:,} sampled tries (probability 1/2)"
    )
    if len(heldout.greedy):
        told += (
            f"; of unseen records {100 * figures['extracted_control_share']:.3g} % and "
            f"{100 * figures['extractable_control_share']:.3g} %"
        )
    n_short = len(audit.extraction.settings["members"].get("too_short", ()))
    if n_short:
        told += f". {counted(n_short, 'record')} {'is' if n_short == 1 else 'are'} too short to ask"
    return [f"{told}."]


def _membership(audit: Findings) -> list[str]:
    if audit.membership is None:
        return [f"Membership attacks were not measured: {audit.missing['membership']}."]
    attacks = audit.membership.attacks
    name = max(attacks, key=lambda one: attacks[one].auc)
    best = attacks[name]
    low, high = best.auc_interval
    told = f"The best attack ({name}) tells records from unseen ones with AUC {best.auc:.3f} ({low:.3f} to {high:.3f})"
    if low > 0.5 + _ATTACK:
        told += ": who was in the data can be inferred"
    words = audit.membership.bag_of_words
    if words is not None and words.auc_interval.low > 0.5:
        told += f"; but word counts alone reach {words.auc:.3f}, so the two sets are not drawn alike"
    return [f"{told}; 0.5 is chance."]


def _repeats(audit: Findings) -> list[str]:
    n = int(figures_of(audit)["repeated"])
    if not n:
        return []
    return [f"{counted(n, 'record')} {'stands' if n == 1 else 'stand'} in the data more than once."]


def _oracle(audit: Findings) -> str:
    ladder = audit.memorization.ladder
    if ladder is None:
        return "Nothing says whether the oracle is strong enough: there is no control."
    hidden = [told for kind, told in audit.warnings if kind in ("SameModelWarning", "SeenByOracleWarning")]
    if hidden:
        return f"The oracle hides memory: {hidden[0]}"
    told = {
        "validated": "The oracle is strong enough",
        "cannot tell": "Whether the oracle is strong enough cannot be told",
        "weak": "The oracle is too weak, so part of this is generalization",
    }[ladder.verdict]
    return f"{told}: {ladder.reason}{'' if ladder.reason.endswith('.') else '.'}"


def not_shown(audit: Findings) -> list[str]:
    """What an audit of this kind does not show."""
    told = [
        "What is memorized of other data than these records.",
        "What other prompts, decodings or attacks would bring out: extraction was asked with each record's own first "
        "tokens.",
        "That no part of a record is known by heart: what is found is of whole records, and of parts in the mean.",
        "That a record is safe because it is not selected: what stands in many places, or what the oracle knows too, "
        "is not counted as memorized.",
    ]
    record = audit.memorization.target.settings["samples"]
    n_left_out = len(record.get("blank_skipped", ())) + len(record["lossy_skipped"])
    if n_left_out:
        told.append(f"{counted(n_left_out, 'row')} of the data: without text, or not given back by the tokenizer.")
    if audit.memorization.verdict != "validated":
        told.append("That the oracle is the best model of such text: a better one would leave less to be memorized.")
    told += [f"{name}: {why}." for name, why in audit.missing.items()]
    return told
