"""The picture of `SpanMemorization`: memU of each field of the samples against the control's."""

from typing import TYPE_CHECKING

import numpy as np

from memorization.errors import InputError
from memorization.report.style import BLUE, GREY, VERMILION, legend_above, new_axes

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from memorization.spans import SpanMemorization

__all__ = ["plot_spans"]

_HEIGHT = 0.36  # of a bar; a field has two
_SHOWN = 400  # spans of a field that get a tick


def plot_spans(result: "SpanMemorization", ax: "Axes | None" = None, *, per_byte: bool = False) -> "Axes":
    """Mean memU of each field as a bar with its 95 % interval, samples above control; each tick is a span.

    Args:
        result: what `measure_spans` returns.
        ax: matplotlib Axes to draw on; None makes a figure, reached as `ax.figure`.
        per_byte: bits a byte, in which a short secret and a long text compare; else bits a span.

    Returns:
        The Axes.

    Raises:
        InputError: no span is coded.
    """
    fields = [one for one in result.fields.values() if one.n_spans]
    if not fields:
        raise InputError("there is nothing to draw: no span is coded.")
    ax = new_axes(ax, (8.0, 1.6 + 0.8 * len(fields)))
    joint = result.settings["joint"]
    sets = [(result.spans, VERMILION, "samples", -0.5), (result.control, BLUE, "control", 0.5)]
    for spans, colour, label, side in sets:
        if spans is None:
            continue
        name: str | None = f"{label}: mean memU, 95 % interval"
        bits = spans.bits(joint) / (spans.n_bytes if per_byte else 1)
        for row, one in enumerate(fields):
            values = bits[spans.of(one.name)]
            if not len(values):
                continue
            mean, (low, high) = (one.bits, one.interval) if side < 0 else (one.control_bits, one.control_interval)
            scale = one.mean_bytes if side < 0 else float(spans.n_bytes[spans.of(one.name)].mean())
            mean, low, high = (value / (scale if per_byte else 1.0) for value in (mean, low, high))
            at = row + side * _HEIGHT
            ax.barh(at, mean, _HEIGHT, color=colour, alpha=0.45, zorder=2, label=name)
            name = None  # once in the legend
            shown = values[:: max(1, len(values) // _SHOWN)]
            ax.plot(shown, np.full(len(shown), at), "|", color=colour, markersize=9, alpha=0.5, zorder=3)
            if low == low:
                ax.plot([low, high], [at, at], color="black", linewidth=1.6, zorder=4)
    ax.set_yticks(
        range(len(fields)), [f"{one.name}\n{one.n_spans:,} spans, {one.mean_bytes:.3g} bytes" for one in fields]
    )
    ax.set_ylim(len(fields) - 0.4, -0.6)
    ax.axvline(0, color=GREY, linewidth=0.8, zorder=1)
    ax.set_xlabel(f"memU, bits a {'byte' if per_byte else 'span'}")
    legend_above(ax, columns=2)
    return ax
