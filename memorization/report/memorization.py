"""The picture of `Memorization`: memU of the samples against the control's."""

from typing import TYPE_CHECKING

import numpy as np

from memorization.report.style import BLUE, GREY, VERMILION, bin_edges, legend_above, new_axes

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from memorization.unintended import Memorization

__all__ = ["plot_memorization"]


def plot_memorization(
    result: "Memorization", ax: "Axes | None" = None, *, names: tuple[str, str] = ("samples", "control samples")
) -> "Axes":
    """Histogram of signed memU, bits a sample, of the samples against the control.

    Each tick below the histogram is one sample. The shaded side is what clipping sets to 0. The legend gives the mean
    of memU as reported and of signed memU; the dotted line stands at the largest control sample, with the share of
    samples above it.

    Args:
        result: what `unintended_memorization` returns, with or without a control.
        ax: matplotlib Axes to draw on; None makes a figure, reached as `ax.figure`.
        names: what the legend calls the samples and the control.

    Returns:
        The Axes.
    """
    ax = new_axes(ax, (8.0, 4.2))
    groups = [(names[0], result.bits, result.signed_bits, VERMILION)]
    if result.control is not None:
        groups.append((names[1], result.control.bits, result.control.signed_bits, BLUE))
    edges = bin_edges([np.asarray(signed) for _, _, signed, _ in groups], within=(0.0, 0.0))
    counts = [np.histogram(signed, edges)[0] for _, _, signed, _ in groups]
    top = max(int(count.max()) for count in counts)
    for row, (count, (name, bits, signed, colour)) in enumerate(zip(counts, groups, strict=True)):
        means = f"mean memU {bits.mean():.1f}, signed {signed.mean():+.1f} bits".replace("-", "\N{MINUS SIGN}")
        label = f"{name} (n = {len(signed):,}): {means}"
        bars = np.where(count > 0, count, np.nan)
        ax.stairs(bars, edges, fill=True, color=colour, alpha=0.35, zorder=2, label=label)
        ax.stairs(bars, edges, color=colour, linewidth=1.3, zorder=3)
        height = -top * (0.045 + 0.055 * row)
        ax.plot(signed, np.full(len(signed), height), "|", color=colour, markersize=7, markeredgewidth=0.9, alpha=0.8)
    room = 1.3 * top
    ax.set_ylim(-top * (0.03 + 0.06 * len(groups)), room)
    margin = 0.015 * (edges[-1] - edges[0])
    ax.set_xlim(edges[0] - margin, edges[-1] + margin)
    ax.axhline(0, color=GREY, linewidth=0.8, zorder=1)
    ax.axvline(0, color=GREY, linewidth=0.8, zorder=1)
    if edges[0] < 0 and result.settings["joint"] == "max":
        ax.axvspan(edges[0] - margin, 0, color="black", alpha=0.05, linewidth=0, zorder=0)
        ax.text(0, 0.99 * room, "clipped: memU = 0 ", color=GREY, fontsize=9, ha="right", va="top")
    if result.control is not None:
        largest = float(result.control.signed_bits.max())
        share = f"{np.mean(result.signed_bits > largest):.0%}".replace("%", " %")
        # The words go to the side that has more room.
        side = "left" if largest < (edges[0] + edges[-1]) / 2 else "right"
        ax.axvline(largest, ymax=0.9, color=BLUE, linewidth=1.4, linestyle=":", zorder=4)
        words = f" {share} of {names[0]} above all {names[1]} "
        ax.text(largest, 0.9 * room, words, color=BLUE, fontsize=9, ha=side, va="top")
    ax.set_xlabel("signed memU = H(x | oracle) − H(x | target), bits a sample")
    ax.set_ylabel("number of samples")
    ax.locator_params(axis="y", integer=True, nbins=6)
    ax.set_yticks([tick for tick in ax.get_yticks() if 0 <= tick <= room])
    legend_above(ax)
    return ax
