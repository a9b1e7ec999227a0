"""The picture of `Ladder`: memU and net memU against the oracles' bits on the control."""

from typing import TYPE_CHECKING, Any

import numpy as np

from memorization.report.style import BLUE, GREY, VERMILION, legend_above, new_axes

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

    from memorization.unintended.ladder import Ladder

__all__ = ["plot_ladder"]

_MARKERS = {"given": ("o", 8), "built-in": ("s", 6), "mixture": ("d", 5)}


def plot_ladder(ladder: "Ladder", ax: "Axes | None" = None) -> "Axes":
    """memU and net memU of each rung against its bits on the control, the bracket, and the verdict.

    Strong oracles stand at the left. Circles are oracles that were given, squares built-in codes, diamonds mixtures.
    The grey line has slope 1 from the oracle of the result: there every bit that an oracle lacks is counted as memory.
    The dotted line stands at the bits of the best mixture with the target in it.

    Args:
        ladder: `Memorization.ladder`.
        ax: matplotlib Axes to draw on; None makes a figure, reached as `ax.figure`.

    Returns:
        The Axes.
    """
    ax = new_axes(ax, (8.0, 4.6))
    table = ladder.to_pandas()
    shown = table[table["mean_bits"].notna()]
    x = shown["control_bits"].to_numpy()
    for column, name, colour in (("mean_bits", "memU", VERMILION), ("net_bits", "net memU", BLUE)):
        ax.plot(x, shown[column], color=colour, linewidth=1.2, alpha=0.6, zorder=2, label=name)
        for kind, (marker, size) in _MARKERS.items():
            rows = shown[shown["kind"] == kind]
            inner = 0 if column == "mean_bits" else 4  # both are seen where they are alike
            style: dict[str, Any] = {"color": colour, "markersize": max(size + 2 - inner, 3), "zorder": 3 + bool(inner)}
            ax.plot(rows["control_bits"], rows[column], marker, **style)
    oracle = shown[(shown["rung"] == ladder.oracle) & (shown["kind"] == "given")].iloc[0]
    through = float(oracle["mean_bits"] - oracle["control_bits"])
    ends = np.array([x.min(), x.max()])
    ax.plot(ends, ends + through, color=GREY, linewidth=1.0, linestyle="--", zorder=1, label="slope 1")
    if ladder.bracket.is_known:
        bracket = f"bracket {ladder.bracket:,.1f}"
        ax.axhspan(*ladder.bracket, color="black", alpha=0.08, linewidth=0, zorder=0, label=bracket)
    for value in table.loc[table["mean_bits"].isna(), "control_bits"]:
        ax.axvline(value, color=GREY, linewidth=1.2, linestyle=":", zorder=1, label="best mixture, target included")
    _name_rungs(ax, shown)
    ax.set_ylim(0, 1.12 * float(shown["mean_bits"].max()))
    ax.set_xlabel("bits of a control sample under the oracle (strong oracles at the left)")
    ax.set_ylabel("bits a sample")
    ax.set_title(f"verdict: {ladder.verdict}", loc="right", fontsize=10)
    legend_above(ax, columns=3)
    return ax


def _name_rungs(ax: "Axes", shown: "pd.DataFrame") -> None:
    """The names of given and built-in rungs below their marks; of those that lie together, one below the other."""
    named = shown[shown["kind"] != "mixture"].sort_values("control_bits")
    near = 0.03 * float(np.ptp(shown["control_bits"]) or 1.0)
    groups: list[list[int]] = []
    for place in range(len(named)):
        x = named["control_bits"].iloc[place]
        if groups and x - named["control_bits"].iloc[groups[-1][0]] < near:
            groups[-1].append(place)
        else:
            groups.append([place])
    for group in groups:
        rows = named.iloc[group]
        lowest = float(rows[["mean_bits", "net_bits"]].min(axis=None))
        ax.annotate(
            "\n".join(rows["rung"]),
            (float(rows["control_bits"].mean()), lowest),
            xytext=(4, -8),
            textcoords="offset points",
            rotation=90,
            ha="left",
            va="top",
            color=GREY,
            fontsize=8,
        )
