"""The picture of `Rarity`: which samples are memorized."""

import math
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Bool, Float64

from memorization.report.style import BLUE, GREY, VERMILION, legend_above, new_axes
from memorization.results import counted

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from memorization.rarity import Rarity

__all__ = ["plot_rarity"]

_MOST_DOTS = 4_000  # more of them cover each other
_FEWEST_FOR_MEDIAN = 20  # below that a line through medians has the shape of chance


def plot_rarity(result: "Rarity", ax: "Axes | None" = None) -> "Axes":
    """memU against TF-IDF, a dot a sample, with those that have duplicates marked, and a running median.

    memU is in bits a sample, or in bits a token where the lengths of the samples vary. Of more than 4,000 samples the
    density is drawn, and dots only of those that have duplicates.

    Args:
        result: what `rarity` returns.
        ax: matplotlib Axes to draw on; None makes a figure, reached as `ax.figure`.

    Returns:
        The Axes.
    """
    from matplotlib.colors import LinearSegmentedColormap

    ax = new_axes(ax, (7.5, 4.8))
    of, what = ("signed_bits_per_token", "token") if result.lengths_vary else ("signed_bits", "sample")
    tfidf, memu = result.tfidf_bits, getattr(result, of)
    copied = result.exact_duplicates > 1
    near = ~copied & (result.near_duplicates > result.exact_duplicates)
    plain = ~copied & ~near
    if len(memu) > _MOST_DOTS:
        colours = LinearSegmentedColormap.from_list(
            "densities", ["#CFE3F1", BLUE, "#00263E"]
        )  # white would be no sample
        ax.hexbin(tfidf, memu, gridsize=(60, 35), bins="log", cmap=colours, mincnt=1, linewidths=0.2, zorder=1)
        ax.plot([], [], "h", color=BLUE, markersize=8, label=f"{counted(len(memu), 'sample')}; darker: more of them")
    elif plain.any():
        label = f"{plain.sum():,} without duplicates"
        ax.plot(
            tfidf[plain], memu[plain], ".", color=BLUE, alpha=_alpha(plain), mew=0, markersize=7, zorder=2, label=label
        )
    for chosen, marker, filling, name in (
        (near, "D", "none", "near duplicates only"),
        (copied, "o", VERMILION, "exact duplicates"),
    ):
        if chosen.any():
            ax.plot(
                tfidf[chosen],
                memu[chosen],
                marker,
                color=VERMILION,
                markerfacecolor=filling,
                markersize=5,
                alpha=_alpha(chosen),
                zorder=3,
                label=f"{chosen.sum():,} with {name}",
            )
    if len(memu) >= _FEWEST_FOR_MEDIAN:
        label = f"running median; {_rho(result, of)}"
        ax.plot(*_running_median(tfidf, memu), color="white", linewidth=4.0, zorder=4)
        ax.plot(*_running_median(tfidf, memu), color="black", linewidth=1.8, zorder=5, label=label)
    ax.margins(0.02, 0.05)
    if memu.min() <= 0 <= memu.max():  # far from all dots the line would only press them together
        ax.axhline(0, color=GREY, linewidth=0.8, zorder=0)
    ax.set_xlabel("rarity of its tokens in the training set (TF-IDF), bits a token")
    ax.set_ylabel(f"signed memU, bits a {what}")
    legend_above(ax, 2)
    return ax


def _rho(result: "Rarity", of: str) -> str:
    """The rank correlation that the picture shows, in words."""
    table = result.correlations
    row = table[(table["of"] == of) & (table["with"] == "tfidf_bits")].iloc[0]
    if math.isnan(row["rho"]):
        return "rank correlation unknown"
    ends = "" if math.isnan(row["low"]) else f" [{row['low']:+.2f}, {row['high']:+.2f}]"
    return f"rank correlation {row['rho']:+.2f}{ends}".replace("-", "\N{MINUS SIGN}")


def _alpha(chosen: Bool[np.ndarray, " sample"]) -> float:
    return float(np.clip(10 / math.sqrt(chosen.sum()), 0.25, 0.85))


def _running_median(
    x: Float64[np.ndarray, " sample"], y: Float64[np.ndarray, " sample"]
) -> tuple[Float64[np.ndarray, " place"], Float64[np.ndarray, " place"]]:
    """Medians of x and of y over a tenth of the samples at a time, in the order of x."""
    order = np.argsort(x, kind="stable")
    window = max(10, len(x) // 10)
    starts = np.unique(np.linspace(0, len(x) - window, 60).astype(int))
    places = [order[start : start + window] for start in starts]
    return np.array([np.median(x[place]) for place in places]), np.array([np.median(y[place]) for place in places])
