"""The picture of `CapacityComparison`: bits per parameter, an architecture a line."""

from typing import TYPE_CHECKING

import numpy as np

from memorization.report.style import BLUE, GREY, VERMILION, new_axes
from memorization.results import counted

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from memorization.capacity import CapacityComparison

__all__ = ["plot_capacity_comparison"]


def plot_capacity_comparison(result: "CapacityComparison", ax: "Axes | None" = None) -> "Axes":
    """Bits per parameter with intervals between seeds, the best architecture at the top, and the 3.6 of the paper.

    A hollow point is a lower bound: longer training would raise it.

    Args:
        result: what `compare_capacities` returns.
        ax: matplotlib Axes to draw on; None makes a figure, reached as `ax.figure`.

    Returns:
        The Axes.
    """
    from memorization.capacity import EXPECTED_BITS_PER_PARAM

    table = result.to_pandas().sort_values("bits_per_param")
    ax = new_axes(ax, (8.0, 1.6 + 0.42 * len(table)))
    unlabelled = {True: "converged, interval between seeds", False: "lower bound, interval between seeds"}
    for place, row in enumerate(table.itertuples()):
        middle = row.bits_per_param
        known = np.isfinite([row.low, row.high]).all()
        ax.errorbar(
            middle,
            place,
            xerr=[[middle - row.low], [row.high - middle]] if known else None,
            fmt="o",
            color=BLUE,
            markersize=7,
            markerfacecolor=BLUE if row.converged else "white",
            capsize=3,
            label=unlabelled.pop(bool(row.converged), None),
        )
        ax.annotate(f"{middle:.2f}", (middle, place), (0, 7), textcoords="offset points", ha="center", fontsize=9)
    ax.axvline(EXPECTED_BITS_PER_PARAM, color=VERMILION, linewidth=1.0, zorder=1, label="3.6, published for GPT-2")
    ax.set_yticks(range(len(table)), [_label(row.name, row.n_params) for row in table.itertuples()])
    ax.set_ylim(-0.6, len(table) - 0.3)
    ends = table[["low", "high"]].to_numpy(np.float64)
    scatter = ends[np.isfinite(ends)]
    middle = table["bits_per_param"].to_numpy(np.float64)
    low = max(float(np.min(middle)) - 1.0, float(np.min([*scatter, *middle])))  # two seeds have intervals without end
    high = min(float(np.max(middle)) + 1.0, float(np.max([*scatter, *middle])))
    ax.set_xlim(min(low, 0.0) if low < 0 else low - 0.15, max(high, EXPECTED_BITS_PER_PARAM) + 0.15)
    steps = sorted(set(table["steps"].dropna().tolist()))
    after = f" after {counted(steps[0], 'step')}" if len(steps) == 1 else ""
    ax.set_xlabel(f"memorized bits per parameter{after}")
    ax.grid(axis="y", color=GREY, alpha=0.15)
    ax.legend(loc="lower left", bbox_to_anchor=(0, 1.01), ncols=3, frameon=False, borderaxespad=0, fontsize=9)
    return ax


def _label(name: str, n_params: int) -> str:
    size = f"{n_params:,} parameters"
    return name if size in name else f"{name}\n{size}"
