"""Pictures of a sweep over text: what training on more and more of it does to models of several sizes."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from memorization.errors import InputError, NotIdentifiedWarning
from memorization.report.style import ABOVE, GREY, new_axes, plain_ticks
from memorization.results import counted

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

    from memorization.lab.text.result import TextSweep
    from memorization.scaling_law import Covariate


def plot_text_sweep(sweep: "TextSweep", ax: "Axes | None" = None) -> "Figure":
    """Bits per token, memU, F1 and extraction in one figure of four Axes, which is returned.

    Args:
        sweep: what `text_sweep` returns.
        ax: None. Four pictures do not fit on one Axes; the functions below draw one each.

    Returns:
        The Figure.

    Raises:
        InputError: an ax was given.
    """
    if ax is not None:
        raise InputError(
            "a sweep has four pictures, which do not fit on one Axes: draw one of them with plot_bits_per_token, "
            "plot_memu, plot_f1 or plot_extraction_rates of memorization.report.text_sweep, each of which takes ax."
        )
    import matplotlib.pyplot as plt  # so that a notebook shows the picture

    figure, axes = plt.subplots(2, 2, figsize=(13.0, 10.5), layout="constrained")
    drawn: list[tuple[Callable[..., Any], str]] = [
        (plot_bits_per_token, "Bits per token of members and of test samples"),
        (plot_memu, "Unintended memorization of the members"),
        (plot_f1, "Membership inference by a loss threshold"),
        (plot_extraction_rates, "Extraction of members and of test samples"),
    ]
    for ax, (draw, title) in zip(axes.flat, drawn, strict=True):
        draw(sweep, ax, sizes=False)
        ax.set_title(title, loc="left", fontweight="bold", pad=38)  # above a legend of two rows
    figure.legend(handles=_size_handles(sweep), loc="outside upper left", ncols=6, frameon=False)
    return figure


def plot_bits_per_token(sweep: "TextSweep", ax: "Axes | None" = None, *, sizes: bool = True) -> "Axes":
    """Bits per token of members (dashed) and test samples (solid) against data/capacity, with a line at ratio 1.

    Lines are means over seeds, bands reach from the lowest to the highest seed.

    Args:
        sweep: what `text_sweep` returns.
        ax: matplotlib Axes to draw on; None makes a figure, reached as `ax.figure`.
        sizes: whether the legend says which colour is which model size.

    Returns:
        The Axes.
    """
    ax = new_axes(ax, (8.0, 5.0))
    for _, runs, colour in _sizes(sweep):
        _band(ax, runs, "data_per_capacity", "test_bits_per_token", colour, "-")
        _band(ax, runs, "data_per_capacity", "train_bits_per_token", colour, "--")
    ax.axvline(1.0, color=GREY, linewidth=1.0, linestyle=":", zorder=1)
    ax.text(1.0, 0.02, " data = capacity", color=GREY, fontsize=9, transform=ax.get_xaxis_transform(), va="bottom")
    oracle = sweep.settings["oracle"]["bits_per_token"]
    ax.axhline(oracle, color=GREY, linewidth=1.0, zorder=1)
    ax.set(xscale="log", yscale="log")
    plain_ticks(ax.xaxis, *ax.get_xlim())
    plain_ticks(ax.yaxis, *ax.get_ylim())
    ax.set_xlabel(f"data, bits under the oracle / capacity,\n{sweep.capacity_in_words}")
    ax.set_ylabel("bits per token")
    lines = {"test samples": "-", "members": "--"}
    thin = _grey("-", f"oracle on test samples: {oracle:.2f}", linewidth=1.0)
    _legend(ax, sweep if sizes else None, lines, [thin])
    return ax


def plot_memu(sweep: "TextSweep", ax: "Axes | None" = None, *, sizes: bool = True) -> "Axes":
    """memU of all members, bits per parameter, against data-set size: unseen oracle, and (dashed) the seen one.

    Dotted: what as many test samples show, of which nothing was memorized. Where it is no longer small, the oracle is
    too weak.

    Args:
        sweep: what `text_sweep` returns.
        ax: matplotlib Axes to draw on; None makes a figure, reached as `ax.figure`.
        sizes: whether the legend says which colour is which model size.

    Returns:
        The Axes.
    """
    ax = new_axes(ax, (8.0, 5.0))
    lines = {"oracle that has not seen them": "-", "oracle that has": "--", "equally many test samples": ":"}
    if sweep.cells["memu_seen_bits"].isna().all():
        del lines["oracle that has"]
    for n_params, runs, colour in _sizes(sweep):
        scaled = runs.assign(unseen=runs["memu_bits"] / n_params, seen=runs["memu_seen_bits"] / n_params)
        scaled["null"] = runs["test_memu_bits_a_sample"] * runs["n_samples"] / n_params
        _band(ax, scaled, "n_samples", "unseen", colour, "-")
        if scaled["seen"].notna().any():
            _band(ax, scaled, "n_samples", "seen", colour, "--")
        _band(ax, scaled, "n_samples", "null", colour, ":")
    ax.set(xscale="log", ylim=(0, None))
    plain_ticks(ax.xaxis, *ax.get_xlim())
    ax.set_xlabel("data-set size, samples")
    ax.set_ylabel("memU of all members, bits per parameter")
    _legend(ax, sweep if sizes else None, lines)
    return ax


def plot_f1(sweep: "TextSweep", ax: "Axes | None" = None, *, sizes: bool = True) -> "Axes":
    """F1 of the loss threshold against samples per parameter, one colour a model size, with the fitted laws.

    Args:
        sweep: what `text_sweep` returns.
        ax: matplotlib Axes to draw on; None makes a figure, reached as `ax.figure`.
        sizes: whether the legend says which colour is which model size.

    Returns:
        The Axes.
    """
    import warnings

    ax = new_axes(ax, (8.0, 5.0))
    for n_params, runs, colour in _sizes(sweep):
        ratio = runs["n_samples"] / n_params
        ax.plot(ratio, runs["f1_loss"], "o", color=colour, markersize=5, zorder=3)
    ratios = sweep.cells["n_samples"] / sweep.cells["n_params"]
    ratio = np.geomspace(ratios.min(), ratios.max(), 300)
    styles: dict[Covariate, str] = {"capacity/data": "-", "data/capacity": "--"}
    laws = []
    for covariate, style in styles.items():
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", NotIdentifiedWarning)
            try:
                law = sweep.law(covariate=covariate)
            except InputError:
                continue
        doubt = ", not identified" if "not_identified" in law.settings else ""
        label = f"law in {covariate}: scatter {law.residual:.3f}{doubt}"
        x = ratio if covariate == "data/capacity" else 1 / ratio
        laws += ax.plot(ratio, law.curve(x), style, color="black", linewidth=1.3, zorder=2, label=label)
    ax.axhline(0.5, color=GREY, linewidth=1.0, linestyle=":", zorder=1)
    ax.set(xscale="log", ylim=(0.45, 1.03))
    plain_ticks(ax.xaxis, *ax.get_xlim())
    ax.set_xlabel(f"samples of {sweep.settings['seq_len']} tokens / parameters")
    ax.set_ylabel("F1 of the loss threshold")
    _legend(ax, sweep if sizes else None, {}, laws, columns=1)
    return ax


def plot_extraction_rates(sweep: "TextSweep", ax: "Axes | None" = None, *, sizes: bool = True) -> "Axes":
    """Share of members (solid) and test samples (dashed) that the longest prefix extracts, against data-set size.

    Args:
        sweep: what `text_sweep` returns.
        ax: matplotlib Axes to draw on; None makes a figure, reached as `ax.figure`.
        sizes: whether the legend says which colour is which model size.

    Returns:
        The Axes.
    """
    from matplotlib.ticker import NullLocator

    ax = new_axes(ax, (8.0, 5.0))
    prefix = max(sweep.settings["prefix_tokens"])
    for _, runs, colour in _sizes(sweep):
        _band(ax, runs, "n_samples", f"extracted_{prefix}", colour, "-")
        _band(ax, runs, "n_samples", f"extracted_test_{prefix}", colour, "--")
    # Linear below one test sample, where a rate of 0 has its place.
    ax.set_xscale("log")
    least = 1 / sweep.settings["n_test"]
    ax.set_yscale("symlog", linthresh=least, linscale=0.5)
    ax.set_ylim(-0.2 * least, 1.3)
    ticks = [0.0, *(tick for tick in (0.001, 0.01, 0.1, 1.0) if tick > least)]
    ax.set_yticks(ticks, [f"{100 * tick:g} %" for tick in ticks])
    ax.yaxis.set_minor_locator(NullLocator())
    plain_ticks(ax.xaxis, *ax.get_xlim())
    ax.set_xlabel("data-set size, samples")
    ax.set_ylabel(f"share extracted from {counted(prefix, 'token')}")
    _legend(ax, sweep if sizes else None, {"members": "-", "test samples": "--"})
    return ax


def _sizes(sweep: "TextSweep") -> "list[tuple[int, pd.DataFrame, Any]]":
    """Model sizes, their runs and their colours: the largest first, as the lines lie."""
    from matplotlib import colormaps

    cells = sweep.cells.dropna(subset="test_bits_per_token")
    sizes = sorted(set(cells["n_params"]))
    # Sizes are ordered, so their colours are: viridis reads the same with any colour vision; its yellow end is too
    # light for lines.
    colours = colormaps["viridis"](np.linspace(0.0, 0.85, len(sizes)))
    return [(size, cells[cells["n_params"] == size], colour) for size, colour in zip(sizes, colours, strict=True)][::-1]


def _band(ax: "Axes", runs: "pd.DataFrame", x: str, y: str, colour: Any, style: str) -> None:
    """Mean over seeds as a line, and from the lowest to the highest seed as a band."""
    table = runs.groupby("n_samples").agg(x=(x, "mean"), mean=(y, "mean"), low=(y, "min"), high=(y, "max"))
    marker = "o" if style == "-" else ""
    how: dict[str, Any] = {"color": colour, "markersize": 4, "linewidth": 1.5, "zorder": 3}
    ax.plot(table["x"], table["mean"], style, marker=marker, **how)
    ax.fill_between(table["x"], table["low"], table["high"], color=colour, alpha=0.18, linewidth=0, zorder=2)


def _grey(style: Any, label: str, **how: Any) -> "Line2D":
    """A line of the legend that stands for lines of every colour."""
    from matplotlib.lines import Line2D

    return Line2D([], [], color=GREY, linestyle=style, label=label, **{"linewidth": 1.5, "markersize": 4, **how})


def _size_handles(sweep: "TextSweep") -> "list[Line2D]":
    """A line of the legend for each model size, the smallest first."""
    from matplotlib.lines import Line2D

    return [
        Line2D([], [], color=colour, marker="o", markersize=5, linewidth=1.5, label=f"{size:,} parameters")
        for size, _, colour in reversed(_sizes(sweep))
    ]


def _legend(
    ax: "Axes", sweep: "TextSweep | None", lines: dict[str, str], more: "Sequence[Line2D]" = (), columns: int = 3
) -> None:
    """A legend above the axes: what each style of line is, once, and above it, of a sweep, what each colour is."""
    from matplotlib.lines import Line2D

    styles = [_grey(style, label, marker="o" if style == "-" else "") for label, style in lines.items()] + [*more]
    colours = [] if sweep is None else _size_handles(sweep)
    rows = [row[k : k + columns] for row in (colours, styles) for k in range(0, len(row), columns)]
    if rows:
        width = max(map(len, rows))
        blank = Line2D([], [], linestyle="", label=" ")
        grid = [row + [blank] * (width - len(row)) for row in rows]
        # A legend is filled column by column.
        ax.legend(handles=[row[k] for k in range(width) for row in grid], **ABOVE, ncols=width)
