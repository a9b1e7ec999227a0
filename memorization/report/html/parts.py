"""The parts of an audit as rows of tables: figures, oracle, membership, extraction, duplicates, spans."""

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from memorization.auditing import FIGURES
from memorization.extraction.decoding import tries
from memorization.report.html.hidden import Texts
from memorization.report.html.shown import UNKNOWN, figure, p_value
from memorization.results import counted
from memorization.stats.levels import with_interval

if TYPE_CHECKING:
    from memorization.auditing import Audit
    from memorization.extraction import Extraction
    from memorization.rarity import Rarity
    from memorization.spans import SpanMemorization

__all__ = ["checks_of", "duplicates_of", "extraction_of", "figures_of", "membership_of", "oracle_of", "spans_of"]

_CLOSED = {"passed": "✓", "failed": "✗", "cannot tell": "?"}
_MOST_EXAMPLES, _MOST_REPEATED = 10, 10
_SHOWN_TRIES = (1, 100, 10_000)
_WHOLE = ("n_records", "n_control", "memorized", "extracted", "extractable", "repeated")


def checks_of(audit: "Audit", texts: Texts) -> list[dict[str, str]]:
    """Conditions of the policy: sign, outcome, condition and why."""
    return [
        {
            "sign": _CLOSED[one.outcome],
            "outcome": one.outcome,
            "condition": one.condition,
            "why": texts.sentence(one.why),
        }
        for one in audit.checks
    ]


def figures_of(audit: "Audit", texts: Texts) -> list[dict[str, str]]:
    """Every figure: name, value, what it is, and why it may be wrong."""
    bounds = audit.doubts()
    return [
        {
            "name": name,
            "value": _figure(name, value),
            "told": FIGURES.get(name, ""),
            "bound": texts.sentence(bounds[name]) if name in bounds else "",
        }
        for name, value in audit.figures().items()
    ]


def _figure(name: str, value: float) -> str:
    if math.isnan(value):
        return UNKNOWN
    if name == "set_p_value":
        return p_value(value)
    return figure(value, 0 if name in _WHOLE else 1 if "bits" in name else 4)


def oracle_of(audit: "Audit", texts: Texts) -> dict[str, Any] | None:
    """Verdict, reason, bracket and the oracles by strength; None without a control."""
    ladder = audit.memorization.ladder
    if ladder is None:
        return None
    rows = [
        (row.rung, row.kind, figure(row.control_bits_per_token, 3), figure(row.mean_bits), figure(row.net_bits))
        for row in ladder.to_pandas().itertuples()
    ]
    return {
        "verdict": ladder.verdict,
        "reason": texts.sentence(ladder.reason),
        "bracket": f"{figure(ladder.bracket.low)} and {figure(ladder.bracket.high)}",
        "rows": rows,
    }


def membership_of(audit: "Audit") -> dict[str, Any] | None:
    """A row an attack, and what word counts alone tell; None where there were no attacks."""
    found = audit.membership
    if found is None:
        return None
    rows = [
        (
            name,
            with_interval(one.auc, one.auc_interval, ".3f"),
            p_value(one.auc_p_value),
            with_interval(one.f1, one.f1_interval, ".3f"),
            UNKNOWN if math.isnan(one.tpr[0.01]) else with_interval(one.tpr[0.01], one.tpr_interval[0.01], ".3f"),
        )
        for name, one in found.attacks.items()
    ]
    words = found.bag_of_words
    if words is None:
        split = (
            f"Whether word counts alone tell them apart was not checked: {found.settings.get('why_no_bag_of_words')}."
        )
    else:
        leaks = "the two sets are not drawn alike, and attacks may find this" if words.leaks else "no sign of a leak"
        area = with_interval(words.auc, words.auc_interval, ".3f")
        split = f"Word counts alone tell them apart with AUC {area}: {leaks}."
    return {"rows": rows, "split": split}


def extraction_of(extraction: "Extraction | None", names: dict[int, str], texts: Texts) -> dict[str, Any] | None:
    """Rates by prefix and by tries, and examples; None where it was not measured."""
    if extraction is None or not extraction.settings["prefix_tokens"]:
        return None
    asked: list[tuple[int, int | None]] = [(prefix, None) for prefix in extraction.settings["prefix_tokens"]]
    if extraction.member_bits is not None:
        asked += [(extraction.settings["prefix_tokens"][-1], n) for n in _SHOWN_TRIES]
    rows = []
    for prefix, n in asked:
        rate = extraction.rate(prefix, n)
        how = "greedy" if n is None else f"{n:,} sampled {'try' if n == 1 else 'tries'}"
        unseen = UNKNOWN if math.isnan(rate.heldout_rate) else _share(rate.heldout_rate, rate.heldout_interval)
        rows.append((counted(prefix, "token"), how, _share(rate.member_rate, rate.member_interval), unseen))
    examples = [_example(one, names, texts) for one in extraction.settings.get("examples", ())[:_MOST_EXAMPLES]]
    return {"rows": rows, "examples": examples}


def _share(rate: float, interval: tuple[float, float]) -> str:
    return f"{100 * rate:.1f} % [{100 * interval[0]:.1f}, {100 * interval[1]:.1f}]"


def _example(one: dict[str, Any], names: dict[int, str], texts: Texts) -> dict[str, Any]:
    bits = math.inf if one["log2_probability"] is None else -float(one["log2_probability"])  # null was -inf
    prefix, suffix, greedy = (_joined(one[key]) for key in ("prefix", "suffix", "greedy"))
    same = 0
    if suffix is not None and greedy is not None:
        n = min(len(suffix), len(greedy))
        same = next((k for k in range(n) if suffix[k] != greedy[k]), n)
    return {
        "name": names.get(int(one["sample"]), f"record {one['sample']} (counted from 0)"),
        "prefix": texts.whole(prefix),
        "suffix": texts.whole(suffix),
        "right": texts.whole((greedy or "")[:same]) if greedy is not None else "",
        "wrong": "" if texts.hide or greedy is None else texts.whole(greedy[same:]),
        "asked": greedy is not None,
        "exact": greedy is not None and greedy == suffix,
        "bits": figure(bits),
        "tries": _many(float(tries(np.array([bits]))[0])),
    }


def _many(n: float) -> str:
    """A number of tries; of a huge one its power of ten."""
    return f"{n:,.0f}" if n < 1e9 else f"10^{math.log10(n):.0f}" if math.isfinite(n) else "endless"


def _joined(text: Any) -> str | None:
    return text if text is None or isinstance(text, str) else " ".join(str(one) for one in text)


def duplicates_of(rarity: "Rarity | None", names: dict[int, str], texts: Texts) -> dict[str, Any] | None:
    """How many records are repeated, the most repeated ones, and what memU ranks with; None where it is unknown."""
    if rarity is None:
        return None
    copied = rarity.to_pandas().query("near_duplicates > 1").nlargest(_MOST_REPEATED, "near_duplicates")
    rows = [
        (
            names.get(int(row.sample), str(row.sample)),
            str(row.exact_duplicates),
            str(row.near_duplicates),
            figure(row.signed_bits),
            texts.preview(row.preview),
        )
        for row in copied.itertuples()
    ]
    correlations = []
    for row in rarity.correlations.itertuples(index=False):
        of, other, rho, low, high, p, _, reason = row
        told = f"unknown: {texts.sentence(reason)}" if reason else with_interval(rho, (low, high), "+.2f")
        correlations.append((_called(of), _called(other), told, "" if reason else p_value(p)))
    return {
        "exact": f"{int((rarity.exact_duplicates > 1).sum()):,}",
        "near": f"{int((rarity.near_duplicates > rarity.exact_duplicates).sum()):,}",
        "rows": rows,
        "correlations": correlations,
    }


def _called(column: str) -> str:
    """What a correlation is of."""
    return column.replace("signed_bits", "memU").replace("tfidf_bits", "TF-IDF").replace("_", " ")


def spans_of(spans: "SpanMemorization | None") -> list[tuple[str, ...]] | None:
    """A row a named part; None where none were asked for."""
    if spans is None:
        return None
    return [
        (
            one.name,
            f"{one.n_spans:,}",
            figure(one.target_bits),
            figure(one.oracle_bits),
            with_interval(one.bits, one.interval, ",.1f"),
            figure(one.control_bits) if one.control_n_spans else "none",
            with_interval(one.net_bits, one.net_interval, ",.1f") if one.control_n_spans else UNKNOWN,
            UNKNOWN if math.isnan(one.extractable(1000)) else f"{100 * one.extractable(1000):.1f} %",
        )
        for one in spans.fields.values()
    ]
