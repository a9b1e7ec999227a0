"""The picture of `IdentifierAudit`: memU of identifiers beside fresh draws, and what chance allows."""

import math
from typing import TYPE_CHECKING

import numpy as np

from memorization.errors import InputError
from memorization.report.style import BLUE, GREY, VERMILION, legend_above, new_axes

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from memorization.identifiers import IdentifierAudit

__all__ = ["plot_identifiers"]

_FDR = 0.05
_BINS = 50


def plot_identifiers(result: "IdentifierAudit", ax: "Axes | None" = None) -> "Axes":
    """How many identifiers have how many bits memorized, beside fresh draws in the same places, on a logarithmic axis.

    The dashed curve is n times 2 to the power of minus the bits: no more of n unseen strings are expected to have so
    many bits or more, whatever the model. The vertical line is where selection at FDR 5 % begins.

    Args:
        result: what `audit_identifiers` returns.
        ax: matplotlib Axes to draw on; None makes a figure, reached as `ax.figure`.

    Returns:
        The Axes.

    Raises:
        InputError: of no identifier the bits are known.
    """
    own = result.signed_bits[np.isfinite(result.signed_bits)]
    if not len(own):
        raise InputError("there is nothing to draw: of no identifier the bits are known.")
    ax = new_axes(ax, (7.0, 4.4))
    draws = result.draw_signed_bits[np.isfinite(result.draw_signed_bits)]
    low, high = (float(end(draws, initial=least)) for end, least in ((np.min, -5.0), (np.max, 5.0)))
    low, high = min(low, float(own.min())), max(high, float(own.max()))
    width = (high - low) / _BINS
    edges = [width * k for k in range(math.floor(low / width), math.ceil(high / width) + 1)]  # one of them at 0
    if len(draws):
        # As many as there are identifiers, however many draws each has.
        weights = np.full(len(draws), len(own) / len(draws))
        label = f"fresh draws, which no model has seen ({len(draws):,}, scaled)"
        ax.hist(draws, edges, weights=weights, color=BLUE, alpha=0.55, label=label, zorder=2)
    ax.hist(own, edges, color=VERMILION, alpha=0.6, label=f"identifiers ({len(own):,})", zorder=3)
    ax.set_yscale("log")
    bits = np.linspace(0, max(edges[-1], 1.0), 400)
    bound = len(own) * np.exp2(-bits)
    seen = bound >= 0.5 / len(own)
    label = "at most so many of unseen strings have that many bits or more"
    ax.plot(bits[seen], bound[seen], "--", color=GREY, linewidth=1.4, label=label, zorder=4)
    chosen = result.memorized(_FDR)
    if chosen.any():
        least = float(result.signed_bits[chosen].min())
        label = f"{int(chosen.sum()):,} memorized at FDR {100 * _FDR:g} %, to the right"
        ax.axvline(least, color=GREY, linewidth=1.2, linestyle=":", label=label, zorder=4)
    ax.set_xlim(edges[0] - width / 2, edges[-1] + width / 2)
    ax.set_ylim(0.5, 2 * len(own))
    ax.set_xlabel("memU (signed), bits an identifier")
    ax.set_ylabel("identifiers")
    legend_above(ax)
    return ax
