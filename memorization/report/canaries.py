"""The picture of `DoseResponse`: memU of canaries against their repetitions in the training set."""

from typing import TYPE_CHECKING, Any

import numpy as np

from memorization.report.style import BLUE, GREY, VERMILION, legend_above, new_axes

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from memorization.lab.canaries.result import DoseResponse

__all__ = ["plot_dose_response"]

_LOWEST = -1.0  # of the ceiling: canaries that cost still more are marked at the edge
_SPREAD = 0.16  # of the distance between counts, over which the dots of one are spread


def plot_dose_response(result: "DoseResponse", ax: "Axes | None" = None) -> "Axes":
    """memU of canaries against repetitions, with its ceiling, n log2 V bits; the control stands apart at the left.

    A dot is a canary, signed: in the shaded part, which clipping sets to 0, lie those that cost the model more than
    uniform (triangles at the edge: far more). A cross in place of a dot is a canary whose second half greedy
    decoding writes out after the first. The line is the mean of memU, clipped, with its 95 % intervals. Where the
    training set is known, a dotted line shows a model that knows all of it by heart, and has to say which sample comes.

    Args:
        result: what `canary_dose_response` or `dose_response` returns.
        ax: matplotlib Axes to draw on; None makes a figure, reached as `ax.figure`.

    Returns:
        The Axes.
    """
    ax = new_axes(ax, (8.0, 4.8))
    table, ceiling = result.to_pandas(), result.information_bits
    counts = table["repetitions"].to_numpy(np.float64)
    seen = counts[counts > 0]
    # As far from the first count as counts are from each other in the mean.
    step = float(np.log(seen[-1] / seen[0])) / (len(seen) - 1) if len(seen) > 1 else np.log(3.0)
    place = {count: np.log(count) if count > 0 else np.log(seen[0]) - 1.3 * step for count in counts}
    control = counts[0] == 0
    _draw_canaries(result, ax, place, step)
    x = np.array([place[count] for count in counts])
    mean, low, high = (table[name].to_numpy(np.float64) for name in ("mean_bits", "low", "high"))
    bars = np.abs(np.stack([mean - low, high - mean]))
    rows = slice(1, None) if control else slice(None)
    style: dict[str, Any] = {"color": VERMILION, "linewidth": 1.8, "markersize": 6, "capsize": 3, "zorder": 4}
    ax.errorbar(x[rows], mean[rows], bars[:, rows], fmt="o-", label="mean memU, 95 % interval", **style)
    if control:
        ax.errorbar(x[:1], mean[:1], bars[:, :1], fmt="o", **style)
        ax.axvline(np.log(seen[0]) - 0.65 * step, color=GREY, linewidth=0.8, linestyle=(0, (1, 3)), zorder=1)
    label = f"information of a canary: {ceiling:,.1f} bits"
    ax.axhline(ceiling, color=GREY, linestyle="--", linewidth=1.4, zorder=3, label=label)
    by_heart = table["by_heart_bits"].to_numpy(np.float64)
    if not np.isnan(by_heart).all():
        label = "training set known by heart"
        ax.plot(x[rows], by_heart[rows], ":", color="black", linewidth=1.4, zorder=3, label=label)
    left, right = x[0] - 0.5 * step, x[-1] + 0.5 * step
    ax.set_xlim(left, right)
    ax.axhline(0, color=GREY, linewidth=0.8, zorder=1)
    bottom = ax.get_ylim()[0]
    if bottom < 0:
        ax.axhspan(bottom, 0, color="black", alpha=0.05, linewidth=0, zorder=0)
        ax.text(right, bottom, "clipped: memU = 0 ", color=GREY, fontsize=9, ha="right", va="bottom")
    ax.set_xticks(x, [f"{count:,.0f}" if count else "0\n(control)" for count in counts])
    ax.set_xlabel("repetitions of a canary in the training set")
    ax.set_ylabel("memU, bits a canary (dots: signed)")
    legend_above(ax, 2)
    return ax


def _draw_canaries(result: "DoseResponse", ax: "Axes", place: dict[float, float], step: float) -> None:
    """Dots, spread sideways so that equal ones do not cover each other."""
    ceiling = result.information_bits
    floor = _LOWEST * ceiling
    alpha = float(np.clip(8 / np.sqrt(len(result)), 0.25, 0.8))
    written = result.canaries["greedy"] == 1  # not where it is unknown
    labels = {".": f"{len(result):,} canaries", "x": f"{written.sum():,} of them: greedy decoding writes them out"}
    for count, group in result.canaries.groupby("repetitions"):
        bits = group["signed_bits"].to_numpy(np.float64)
        # Multiples of the golden ratio modulo 1 fill an interval evenly, however many they are.
        aside = _SPREAD * step * (2 * (np.arange(len(bits)) * 0.618034 % 1) - 1)
        x, inside, out = place[float(count)] + aside, bits >= floor, written[group.index].to_numpy(bool)
        style: dict[str, Any] = {"color": BLUE, "alpha": alpha, "mew": 0, "zorder": 2}
        crosses: dict[str, Any] = style | {"color": "black", "mew": 0.8, "markersize": 4}
        for marker, chosen, how in ((".", ~out & inside, style | {"markersize": 6}), ("x", out & inside, crosses)):
            if chosen.any():
                ax.plot(x[chosen], bits[chosen], marker, label=labels.pop(marker, "_"), **how)
        ax.plot(x[~inside], np.full((~inside).sum(), 0.98 * floor), "v", markersize=5, **style)
    lowest = float(result.canaries["signed_bits"].min())
    ax.set_ylim(min(0.0, max(lowest, floor)) - 0.05 * ceiling, 1.08 * ceiling)
