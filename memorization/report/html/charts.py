"""The pictures of the report, narrow enough for a telephone: text keeps its size there."""

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from memorization.extraction import Extraction
from memorization.report.html.svg import svg_of
from memorization.report.membership import plot_membership_audit
from memorization.report.style import BLUE, GREY, VERMILION, bin_edges, legend_above, new_axes, plain_ticks
from memorization.results import counted

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from memorization.auditing import Audit

__all__ = ["charts_of"]

_INCHES = (4.7, 3.1)
_MOST_MARKS = 150  # of a set, below the histogram: each is an element of the page
_LINES: tuple[Any, ...] = ("-", (0, (5, 1.5)), (0, (1, 1)), (0, (5, 1, 1, 1)), (0, (3, 1, 1, 1, 1, 1)))
_TRIES = tuple(10**k for k in range(7))


def charts_of(audit: "Audit") -> dict[str, str]:
    """SVG of each picture that there is something to draw for: distribution, roc, tries."""
    found = {"distribution": _drawn("distribution", _DISTRIBUTION, lambda ax: _distribution(audit, ax))}
    if audit.membership is not None and audit.membership.attacks:
        found["roc"] = _drawn("roc", _ROC, lambda ax: _roc(audit, ax), (4.7, 4.6))
    extraction = audit.extraction
    if extraction is not None and extraction.settings["prefix_tokens"] and extraction.member_bits is not None:
        found["tries"] = _drawn("tries", _OF_TRIES, lambda ax: _tries(extraction, ax))
    return found


_DISTRIBUTION = "Histogram of signed memU: records and control records. The figures stand in the table beside it."
_ROC = "Share of records found against share of unseen records wrongly accused, a line an attack."
_OF_TRIES = "Share of records that come out at least once in so many sampled tries, records and control records."


def _drawn(name: str, told: str, draw: "Callable[[Axes], None]", inches: tuple[float, float] = _INCHES) -> str:
    import matplotlib as mpl
    from matplotlib.figure import Figure

    with mpl.rc_context(mpl.rcParamsDefault), mpl.rc_context({"font.size": 9, "path.simplify_threshold": 0.5}):
        figure = Figure(figsize=inches, layout="constrained")
        draw(new_axes(figure.subplots(), inches))
        return svg_of(figure, name, told)


def _distribution(audit: "Audit", ax: "Axes") -> None:
    """Shares of records, not numbers: records and control need not be equally many."""
    memorization, control = audit.memorization, audit.memorization.control
    groups: list[Any] = [("records", np.asarray(memorization.signed_bits), VERMILION, "-")]
    if control is not None:
        groups.append(("control", np.asarray(control.signed_bits), BLUE, (0, (3, 1))))
    edges = bin_edges([signed for _, signed, _, _ in groups], within=(0.0, 0.0))
    shares = [100 * np.histogram(signed, edges)[0] / len(signed) for _, signed, _, _ in groups]
    top = max(float(share.max()) for share in shares)
    for row, (share, (name, signed, colour, line)) in enumerate(zip(shares, groups, strict=True)):
        bars = np.where(share > 0, share, np.nan)
        ax.stairs(bars, edges, fill=True, color=colour, alpha=0.3)
        ax.stairs(bars, edges, color=colour, linewidth=1.4, linestyle=line, label=f"{name} (n = {len(signed):,})")
        # Single records far out are too few for a bar that can be seen.
        ends = np.sort(signed)[np.unique(np.linspace(0, len(signed) - 1, min(len(signed), _MOST_MARKS)).astype(int))]
        height = -top * (0.05 + 0.06 * row)
        ax.vlines(ends, height - 0.02 * top, height + 0.02 * top, color=colour, linewidth=0.8)
    ax.axhline(0, color=GREY, linewidth=0.8)
    ax.axvline(0, color=GREY, linewidth=0.8, linestyle=":")
    ax.set_ylim(-top * (0.04 + 0.06 * len(groups)), 1.08 * top)
    ax.set_yticks([tick for tick in ax.get_yticks() if 0 <= tick <= 1.08 * top])
    ax.set_xlabel("signed memU, bits a record")
    ax.set_ylabel("% of the records")
    legend_above(ax, 2)


def _roc(audit: "Audit", ax: "Axes") -> None:
    assert audit.membership is not None
    plot_membership_audit(audit.membership, ax)
    for line, style in zip(ax.lines[:-1], _LINES * len(ax.lines), strict=False):  # the last is chance
        line.set_linestyle(style)
    ax.set_xlabel("unseen records wrongly accused (FPR)")
    ax.set_ylabel("records found (TPR)")
    legend_above(ax, 2)


def _tries(extraction: Extraction, ax: "Axes") -> None:
    prefix = extraction.settings["prefix_tokens"][-1]
    rates = [extraction.rate(prefix, n) for n in _TRIES]
    sets: list[Any] = [("records", [one.member_rate for one in rates], VERMILION, "o", "-")]
    if not math.isnan(rates[0].heldout_rate):
        sets.append(("control", [one.heldout_rate for one in rates], BLUE, "s", (0, (3, 1))))
    for name, share, colour, marker, line in sets:
        ax.plot(
            _TRIES,
            100 * np.array(share),
            color=colour,
            marker=marker,
            linestyle=line,
            markersize=4,
            label=name,
            clip_on=False,
        )
    ax.set_xscale("log")
    plain_ticks(ax.xaxis, 1.0, 1e6)
    ax.set_xticks([1, 100, 10_000, 1_000_000])
    ax.set_ylim(0, 100)
    ax.set_xlabel(
        f"sampled tries, from the first {counted(prefix, 'token')}" if prefix else "sampled tries, from the prompt"
    )
    ax.set_ylabel("% of the records that come out")
    legend_above(ax, 2)
