"""The picture of `MIScalingLaw`: F1 against the ratio of data and capacity, under the ceiling of every attack."""

import math
from typing import TYPE_CHECKING

import numpy as np

from memorization.report.style import BLUE, GREY, VERMILION, legend_above, new_axes
from memorization.results import counted
from memorization.scaling_law.ceiling import attack_ceiling

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from memorization.scaling_law import MIScalingLaw

__all__ = ["plot_scaling_law"]


def plot_scaling_law(law: "MIScalingLaw", ax: "Axes | None" = None, *, bits_per_param: float = 3.6) -> "Axes":
    """F1 of membership inference against the law's ratio, with its points, the line of chance and the ceiling.

    The law is drawn dotted where it has no points. The ceiling, `attack_ceiling`, is drawn where the data are counted
    in samples and the capacity in bits or parameters.

    Args:
        law: what `fit_mi_scaling_law` or `MIScalingLaw.published` returns.
        ax: matplotlib Axes to draw on; None makes a figure, reached as `ax.figure`.
        bits_per_param: that the ceiling takes a parameter to hold.

    Returns:
        The Axes.
    """
    ax = new_axes(ax, (7.0, 4.2))
    low, high = law.ratios
    if law.points is not None:
        data, capacity = law.points["dataset_size"].to_numpy(), law.points["capacity"].to_numpy()
        measured = data / capacity if law.covariate == "data/capacity" else capacity / data
        label = counted(len(measured), "trained model")
        ax.plot(measured, law.points["f1"], "o", color=BLUE, markersize=5, zorder=3, label=label)
        ratio = np.geomspace(low, high, 300)
    else:
        ratio = np.geomspace(*_whole_fall(law), 300)
    constants = ", ".join(f"{name} = {value:.3g}" for name, value in law.constants.items())
    label = f"{'' if law.form == 'logistic' else law.form + ' '}law: {constants}".replace("-", "\N{MINUS SIGN}")
    f1, inside = law.curve(ratio), (ratio >= low) & (ratio <= high) if low < high else np.ones(300, bool)
    ax.plot(ratio, np.where(inside, f1, math.nan), color=VERMILION, linewidth=1.6, zorder=2, label=label)
    if not inside.all():
        ax.plot(ratio, np.where(inside, math.nan, f1), ":", color=VERMILION, linewidth=1.6, zorder=2, label="no points")
    bits = {"bits": 1.0, "parameters": bits_per_param}.get(law.capacity_unit)
    if bits is not None and law.dataset_unit.startswith("samples"):
        data_per_capacity = ratio if law.covariate == "data/capacity" else 1 / ratio
        taken = "" if law.capacity_unit == "bits" else f" at {bits:g} bits a parameter"
        ceiling = attack_ceiling(bits, data_per_capacity)
        ax.plot(ratio, ceiling, "--", color=GREY, linewidth=1.3, zorder=1, label=f"ceiling of any attack{taken}")
    ax.axhline(0.5, color=GREY, linewidth=1.0, linestyle=":", zorder=1, label="chance")
    ax.set_xscale("log")
    bottom, top = ax.get_ylim()
    ax.set_ylim(min(0.45, bottom), max(1.03, top))
    ax.set_xlabel(law.ratio_in_words)
    ax.set_ylabel("F1 of membership inference")
    legend_above(ax)
    return ax


def _whole_fall(law: "MIScalingLaw") -> tuple[float, float]:
    """From where F1 is flat to where it is flat again, as far as a ratio goes."""
    if law.form == "logistic":
        highest = max(-law.c3 + 8 / abs(law.c2), 8 / abs(law.c2))
        return highest / 1000, highest
    decades = math.exp(5 / abs(law.k))
    return law.r0 / decades, law.r0 * decades
