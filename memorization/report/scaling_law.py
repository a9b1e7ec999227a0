"""The picture of `MIScalingLaw`: F1 against the ratio of data and capacity."""

from typing import TYPE_CHECKING

import numpy as np

from memorization.report.style import BLUE, GREY, VERMILION, legend_above, new_axes

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from memorization.scaling_law import MIScalingLaw

__all__ = ["plot_scaling_law"]


def plot_scaling_law(law: "MIScalingLaw", ax: "Axes | None" = None) -> "Axes":
    """F1 of membership inference against the law's ratio, with the points it was fitted to and the line of chance.

    Args:
        law: what `fit_mi_scaling_law` or `MIScalingLaw.published` returns.
        ax: matplotlib Axes to draw on; None makes a figure, reached as `ax.figure`.

    Returns:
        The Axes.
    """
    ax = new_axes(ax, (7.0, 4.2))
    if law.points is None:
        # From where the sigmoid is flat to where it is flat again, as far as a ratio goes.
        highest = max(-law.c3 + 8 / abs(law.c2), 8 / abs(law.c2))
        ratio = np.geomspace(highest / 1000, highest, 300)
    else:
        data, capacity = law.points["dataset_size"].to_numpy(), law.points["capacity"].to_numpy()
        measured = data / capacity if law.covariate == "data/capacity" else capacity / data
        label = f"{len(measured)} trained models"
        ax.plot(measured, law.points["f1"], "o", color=BLUE, markersize=5, zorder=3, label=label)
        ratio = np.geomspace(measured.min(), measured.max(), 300)
    sizes = (np.ones(300), ratio) if law.covariate == "data/capacity" else (ratio, np.ones(300))
    constants = f"c1 = {law.c1:.3g}, c2 = {law.c2:.3g}, c3 = {law.c3:.3g}".replace("-", "\N{MINUS SIGN}")
    ax.plot(ratio, law.predict(*sizes), color=VERMILION, linewidth=1.6, zorder=2, label=f"law: {constants}")
    ax.axhline(0.5, color=GREY, linewidth=1.0, linestyle=":", zorder=1, label="chance")
    ax.set_xscale("log")
    low, high = ax.get_ylim()
    ax.set_ylim(min(0.45, low), max(1.03, high))
    ax.set_xlabel(law.ratio_in_words)
    ax.set_ylabel("F1 of membership inference")
    legend_above(ax)
    return ax
