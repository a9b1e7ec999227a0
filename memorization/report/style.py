"""What pictures share: colours that everybody can tell apart, axes, ticks, and legends that cover no data."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float64

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis

__all__ = ["ABOVE", "BLUE", "COLOURS", "GREY", "VERMILION", "bin_edges", "legend_above", "new_axes", "plain_ticks"]

# Okabe and Ito's palette: told apart with any colour vision, and in grey print by lightness.
VERMILION, BLUE, GREY = "#D55E00", "#0072B2", "#6B6B6B"
COLOURS = (VERMILION, BLUE, "#009E73", "#CC79A7", "#E69F00")
# A legend that stands on the axes.
ABOVE: dict[str, Any] = {
    "loc": "lower left",
    "bbox_to_anchor": (0, 1.01),
    "frameon": False,
    "borderaxespad": 0,
    "fontsize": 9,
}


def new_axes(ax: "Axes | None", inches: tuple[float, float]) -> "Axes":
    """The given axes, or new ones of this size, without the frame at the top and at the right."""
    if ax is None:
        import matplotlib.pyplot as plt  # so that a notebook shows the picture

        ax = plt.subplots(figsize=inches, layout="constrained")[1]
    ax.spines[["top", "right"]].set_visible(False)
    return ax


def legend_above(ax: "Axes", columns: int = 1) -> None:
    """A legend above the axes covers no data; short lines fit narrow axes."""
    ax.legend(**ABOVE, ncols=columns)


def plain_ticks(axis: "Axis", low: float, high: float) -> None:
    """Ticks of a logarithmic axis with plain numbers: powers of ten, with numbers between them where these are few."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

    powers = 10.0 ** np.arange(np.floor(np.log10(low)), np.ceil(np.log10(high)) + 1)
    for between in ((1.0,), (1.0, 3.0), (1.0, 2.0, 5.0), (1.0, 1.5, 2.0, 3.0, 5.0, 7.0)):
        ticks = np.outer(powers, between)
        if np.sum((ticks >= low) & (ticks <= high)) >= 4:  # enough to read the scale from
            break
    axis.set_major_locator(LogLocator(subs=between))
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(FuncFormatter(lambda number, _: f"{number:,.10g}"))


def bin_edges(
    groups: Sequence[Float64[np.ndarray, "_"]], within: tuple[float, float] | None = None
) -> Float64[np.ndarray, " edge"]:
    """Edges of equal bins that cover all groups (and the interval `within`), one edge at 0 where 0 lies inside."""
    values = np.concatenate([*groups, np.array(within or ())])
    low, high = float(values.min()), float(values.max())
    span = high - low
    # Freedman and Diaconis' width suits one group; two that lie far apart would need hundreds of such bins.
    widths = [2 * float(np.subtract(*np.quantile(group, [0.75, 0.25]))) / len(group) ** (1 / 3) for group in groups]
    width = min(max(min(widths), span / 60), span / 10) or 1.0
    return width * np.arange(np.floor(low / width), np.ceil(high / width) + 1.5)
