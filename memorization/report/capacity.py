"""The picture of `Capacity`: memorized bits against data-set size."""

from typing import TYPE_CHECKING

import numpy as np

from memorization.report.style import BLUE, GREY, VERMILION, new_axes, plain_ticks

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from memorization.capacity import Capacity

__all__ = ["plot_capacity"]


def plot_capacity(result: "Capacity", ax: "Axes | None" = None) -> "Axes":
    """Memorized bits against data-set size, one line a model size, with the information ceiling of the data.

    A dot is a run, the line their mean, the dotted line the size's capacity. Where a size was trained for several
    numbers of steps, these are the runs of most steps; a faint line is the mean of those of fewer. Where rows were
    maxima already: capacity against parameters, with the fitted line. Bits that are not positive have no place on the
    logarithmic axes.

    Args:
        result: what `fit_capacity` or the lab returns.
        ax: matplotlib Axes to draw on; None makes a figure, reached as `ax.figure`.

    Returns:
        The Axes.
    """
    ax = new_axes(ax, (8.0, 5.0))
    ax.set(xscale="log", yscale="log")
    if result.curve["n_samples"].isna().all():
        _draw_sizes(result, ax)
    else:
        _draw_curves(result, ax)
    level = f"{100 * result.settings.get('interval_level', 0.95):g} %"
    low, high = result.interval
    error = "error unknown" if np.isnan(result.stderr) else f"{level} interval {low:.2f} to {high:.2f}"
    title = f"{result.bits_per_param:.2f} bits per parameter ({result.estimator}; {error})"
    if result.converged is False:
        title += f"\n{result.convergence}"
    ax.set_title(title, loc="left", fontsize=11, fontweight="bold")
    ax.legend(loc="center left", bbox_to_anchor=(1.01, 0.5), frameon=False, fontsize=9)
    for axis, limits in ((ax.xaxis, ax.get_xlim()), (ax.yaxis, ax.get_ylim())):
        plain_ticks(axis, *limits)
    return ax


def _draw_curves(result: "Capacity", ax: "Axes") -> None:
    from matplotlib import colormaps

    from memorization.capacity import information_ceiling_bits

    # Sizes are ordered, so their colours are: viridis reads the same with any colour vision; its yellow end is too
    # light for lines.
    colours = colormaps["viridis"](np.linspace(0.0, 0.85, len(result.n_params)))
    curve = result.curve.assign(steps=result.curve["steps"].fillna(0))
    # The largest first: so the legend has the order of the lines.
    for colour, n_params, bits in list(zip(colours, result.n_params, result.capacity_bits, strict=True))[::-1]:
        of_size = curve[curve["n_params"] == n_params]
        last = of_size["steps"].max()
        for _, shorter in of_size[of_size["steps"] < last].groupby("steps"):
            means = shorter.groupby("n_samples")["memorized_bits"].mean()
            ax.plot(means.index.to_numpy(np.float64), means, color=colour, linewidth=0.8, alpha=0.35, zorder=2)
        runs = of_size[of_size["steps"] == last]
        mean = runs.groupby("n_samples")["memorized_bits"].mean()
        samples = mean.index.to_numpy(np.float64)
        label = f"{n_params:,} parameters: {bits / n_params:.2f} bits each"
        ax.plot(samples, mean, "o-", color=colour, markersize=5, linewidth=1.6, zorder=3, label=label)
        seeds = runs["n_samples"].to_numpy(np.float64)
        ax.plot(seeds, runs["memorized_bits"], ".", color=colour, markersize=5, alpha=0.45, zorder=2)
        ax.plot(samples[[0, -1]], [bits, bits], ":", color=colour, linewidth=1.2, zorder=2)
    ax.set_ylim(ax.get_ylim())  # before the ceiling, which rises far above
    if result.seq_len is not None and result.vocab_size is not None:
        every = curve["n_samples"].to_numpy(np.float64)
        samples = np.geomspace(every.min(), every.max(), 200)
        ceiling = information_ceiling_bits(samples, result.seq_len, result.vocab_size, result.convention)
        ax.plot(samples, ceiling, "--", color=GREY, linewidth=1.4, zorder=1, label="all there is to memorize")
    ax.set_xlabel("data-set size, samples")
    ax.set_ylabel(f"memorized bits ({result.convention} convention)")


def _draw_sizes(result: "Capacity", ax: "Axes") -> None:
    params, bits = result.n_params.astype(np.float64), result.capacity_bits
    ax.plot(params, bits, "o", color=BLUE, markersize=6, zorder=3, label="model sizes")
    through = bits.mean() - result.bits_per_param * params.mean() if result.estimator == "slope" else 0.0
    x = np.geomspace(params.min(), params.max(), 200)
    label = f"{result.bits_per_param:.2f} bits x parameters" + (
        f" {through:+,.0f} bits".replace("-", "\N{MINUS SIGN}") if through else ""
    )
    ax.plot(x, through + result.bits_per_param * x, color=VERMILION, linewidth=1.4, zorder=2, label=label)
    ax.set_xlabel("parameters")
    ax.set_ylabel(f"capacity, bits ({result.convention} convention)")
