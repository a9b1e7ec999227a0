"""The pictures of `Capacity`: bits per parameter against data-set size, and against the steps of training."""

from typing import TYPE_CHECKING, Literal

import numpy as np
from jaxtyping import Float64

from memorization.errors import InputError
from memorization.report.style import BLUE, GREY, VERMILION, new_axes, plain_ticks

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from memorization.capacity import Capacity

__all__ = ["plot_capacity"]


def plot_capacity(
    result: "Capacity", ax: "Axes | None" = None, *, against: Literal["samples", "steps"] = "samples"
) -> "Axes":
    """Bits per parameter against data-set size, one line a model size, with the information in the data and the 3.6.

    A dot is a run, the line their mean, the dotted line the size's capacity. Where a size was trained for several
    numbers of steps, these are the runs of most steps; a faint line is the mean of those of fewer. Where rows were
    maxima already: capacity against parameters, with the fitted line, on logarithmic axes.

    Against the steps: what each size held after each round, its data sets as faint lines, and where its rounds fit one
    law, where that law leads and its 99 % interval.

    Args:
        result: what `fit_capacity` or the lab returns.
        ax: matplotlib Axes to draw on; None makes a figure, reached as `ax.figure`.
        against: what lies on x.

    Returns:
        The Axes.

    Raises:
        InputError: against the steps, of a result that does not know them.
    """
    if against not in ("samples", "steps"):
        raise InputError(f'against must be "samples" or "steps"; it is {against!r}.')
    if against == "steps" and result.curve["steps"].isna().any():
        raise InputError("this capacity does not know the steps of its runs: draw it against the samples.")
    ax = new_axes(ax, (8.0, 5.0))
    sizes_only = against == "samples" and bool(result.curve["n_samples"].isna().all())
    ax.set(xscale="log", yscale="log" if sizes_only else "linear")
    draw = _draw_rounds if against == "steps" else _draw_sizes if sizes_only else _draw_curves
    draw(result, ax)
    level = f"{100 * result.settings.get('interval_level', 0.95):g} %"
    low, high = result.interval
    error = "error unknown" if np.isnan(result.stderr) else f"{level} interval {low:.2f} to {high:.2f}"
    title = f"{result.bits_per_param:.2f} bits per parameter ({result.estimator}; {error})"
    if result.converged is False:
        title += f"\n{result.convergence}"
    ax.set_title(title, loc="left", fontsize=11, fontweight="bold")
    ax.legend(loc="center left", bbox_to_anchor=(1.01, 0.5), frameon=False, fontsize=9)
    plain_ticks(ax.xaxis, *ax.get_xlim())
    if sizes_only:
        plain_ticks(ax.yaxis, *ax.get_ylim())
    return ax


def _draw_rounds(result: "Capacity", ax: "Axes") -> None:
    from matplotlib import colormaps

    from memorization.capacity import EXPECTED_BITS_PER_PARAM, MORE_STEPS, longer, series

    colours = colormaps["viridis"](np.linspace(0.0, 0.85, len(result.n_params)))
    curve = result.curve.assign(held=result.curve["memorized_bits"] / result.curve["n_params"])
    faint, dashed, band = (
        iter((words,)) for words in ("one data set", "by the law of the rounds", "its 99 % interval")
    )
    refused = False
    for colour, n_params in list(zip(colours, result.n_params.tolist(), strict=True))[::-1]:
        of_size = curve[curve["n_params"] == n_params]
        means = of_size.groupby(["steps", "n_samples"])["held"].mean().unstack()
        for n_samples in means:
            ax.plot(means.index, means[n_samples], color=colour, linewidth=0.8, alpha=0.35, label=next(faint, None))
        best = means.max(axis=1)
        ax.plot(
            best.index,
            best,
            "o-",
            color=colour,
            markersize=5,
            linewidth=1.6,
            zorder=3,
            label=f"{n_params:,} parameters",
        )
        if result.seq_len is None or result.vocab_size is None:
            continue
        steps, bits = series(result.curve, n_params, result.seq_len, result.vocab_size, result.convention)
        times = np.geomspace(1.0, MORE_STEPS, 60)
        found: Float64[np.ndarray, "time end"] = np.array([longer(steps, bits, float(each)) for each in times])
        if np.isfinite(found).all():
            middle, low, high = best.iloc[-1] * (1 + found.T)
            ax.plot(times * steps[-1], middle, "--", color=colour, linewidth=1.2, label=next(dashed, None))
            ax.fill_between(times * steps[-1], low, high, color=colour, alpha=0.12, linewidth=0, label=next(band, None))
        else:
            refused = True
    if refused:
        ax.plot([], [], " ", label="no extrapolation: the rounds fit too many laws")
    ax.axhline(EXPECTED_BITS_PER_PARAM, color=VERMILION, linewidth=1.0, zorder=1, label="3.6, as published for GPT-2")
    ax.set_ylim(min(0.0, ax.get_ylim()[0]))
    ax.set_xlabel("steps of training")
    ax.set_ylabel(f"memorized bits per parameter ({result.convention} convention)")


def _draw_curves(result: "Capacity", ax: "Axes") -> None:
    from matplotlib import colormaps

    from memorization.capacity import EXPECTED_BITS_PER_PARAM, information_ceiling_bits

    # Sizes are ordered, so their colours are: viridis reads the same with any colour vision; its yellow end is too
    # light for lines.
    colours = colormaps["viridis"](np.linspace(0.0, 0.85, len(result.n_params)))
    curve = result.curve.assign(
        steps=result.curve["steps"].fillna(0), held=result.curve["memorized_bits"] / result.curve["n_params"]
    )
    once = iter(("one run", "capacity of a size"))
    faint = iter(("after fewer steps",))
    # The largest first: so the legend has the order of the lines.
    for colour, n_params, bits in list(zip(colours, result.n_params, result.capacity_bits, strict=True))[::-1]:
        of_size = curve[curve["n_params"] == n_params]
        last = of_size["steps"].max()
        runs = of_size[of_size["steps"] == last]
        mean = runs.groupby("n_samples")["held"].mean()
        samples = mean.index.to_numpy(np.float64)
        label = f"{n_params:,} parameters: {bits / n_params:.2f} bits each"
        ax.plot(samples, mean, "o-", color=colour, markersize=5, linewidth=1.6, zorder=3, label=label)
        seeds, style = runs["n_samples"].to_numpy(np.float64), {"color": colour, "zorder": 2}
        ax.plot(seeds, runs["held"], ".", markersize=5, alpha=0.45, label=next(once, None), **style)
        ends = samples[[0, -1]] * (1 if len(samples) > 1 else np.array([0.8, 1.25]))
        ax.plot(ends, [bits / n_params] * 2, ":", linewidth=1.2, label=next(once, None), **style)
        for _, shorter in of_size[of_size["steps"] < last].groupby("steps"):
            means = shorter.groupby("n_samples")["held"].mean()
            label_once = next(faint, None)
            ax.plot(means.index.to_numpy(np.float64), means, linewidth=0.8, alpha=0.35, label=label_once, **style)
    ax.axhline(EXPECTED_BITS_PER_PARAM, color=VERMILION, linewidth=1.0, zorder=1, label="3.6, as published for GPT-2")
    low, high = ax.get_ylim()
    ax.set_ylim(min(0.0, low), high)  # before the information in the data, which rises far above
    if result.seq_len is not None and result.vocab_size is not None:
        label_of = iter(("all there is to memorize",))
        for n_params in result.n_params.tolist():
            every = curve.loc[curve["n_params"] == n_params, "n_samples"].to_numpy(np.float64)
            samples = np.geomspace(every.min(), every.max(), 200)
            ceiling = information_ceiling_bits(samples, result.seq_len, result.vocab_size, result.convention) / n_params
            ax.plot(samples, ceiling, "--", color=GREY, linewidth=1.4, zorder=1, label=next(label_of, None))
    ax.set_xlabel("data-set size, samples")
    ax.set_ylabel(f"memorized bits per parameter ({result.convention} convention)")


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
