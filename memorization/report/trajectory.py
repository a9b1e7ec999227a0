"""The pictures of `Trajectory`: memU against the step, and memU of each sample by step."""

from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from jaxtyping import Float64

from memorization.errors import InputError
from memorization.report.style import BLUE, GREY, VERMILION, legend_above, new_axes
from memorization.results import counted

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from memorization.tracking import Trajectory

__all__ = ["plot_trajectory"]

_NAMED = 40  # samples that get a name of their own in the heat map
_LABELS = 12  # ticks that fit on an axis of names
_LETTERS = 24  # of the name of a sample


def plot_trajectory(
    result: "Trajectory", ax: "Axes | None" = None, *, against: Literal["steps", "samples"] = "steps"
) -> "Axes":
    """Mean memU of samples and control at each step, with 95 % intervals; or memU of each sample, as a heat map.

    Where the step of a checkpoint is not known, checkpoints stand side by side by their names.

    Args:
        result: what `track` returns, or `MemorizationCallback.result`.
        ax: matplotlib Axes to draw on; None makes a figure, reached as `ax.figure`.
        against: "steps", or "samples": a row a sample, those with the most memU at the last checkpoint on top.

    Returns:
        The Axes.

    Raises:
        InputError: another word for `against`.
    """
    if against == "samples":
        return _heat_map(result, ax)
    if against != "steps":
        raise InputError(f'against must be "steps" or "samples"; it is {against!r}.')
    ax = new_axes(ax, (8.0, 4.2))
    at = _places(result)
    table = result.to_pandas()
    sets = [("", VERMILION, f"samples (n = {len(result.index):,})")]
    if result.has_control:
        sets.append(("control_", BLUE, f"control samples (n = {len(result.control_index):,})"))
    for prefix, colour, name in sets:
        mean, low, high = (table[prefix + one].to_numpy(np.float64) for one in ("mean_bits", "low", "high"))
        _line(ax, at, mean, (low, high), colour, name)
    ax.axhline(0, color=GREY, linewidth=0.8, zorder=1)
    ax.set_ylabel("memU, bits a sample")
    _label_steps(ax, result, at)
    legend_above(ax, columns=2)
    return ax


def _line(
    ax: "Axes",
    at: Float64[np.ndarray, " checkpoint"],
    mean: Float64[np.ndarray, " checkpoint"],
    ends: tuple[Float64[np.ndarray, " checkpoint"], Float64[np.ndarray, " checkpoint"]],
    colour: str,
    name: str,
) -> None:
    low, high = ends
    known = np.isfinite(low) & np.isfinite(high)
    label = f"{name}: mean" + (", 95 % interval" if known.any() else "")
    ax.plot(at, mean, "o-", color=colour, linewidth=1.6, markersize=5, zorder=4, label=label)
    if known.any():
        ax.fill_between(at, low, high, where=known, color=colour, alpha=0.18, linewidth=0, zorder=2)
        ax.vlines(at[known], low[known], high[known], color=colour, linewidth=1.4, zorder=3)


def _heat_map(result: "Trajectory", ax: "Axes | None") -> "Axes":
    order = np.argsort(-result.bits[-1], kind="stable")
    values = result.bits[:, order].T
    n, k = values.shape
    ax = new_axes(ax, (8.0, float(np.clip(1.6 + 0.16 * n, 3.2, 7.5))))
    # From 0, so that what is not memorized looks alike in every picture.
    image = ax.imshow(
        values, aspect="auto", cmap="inferno_r", vmin=min(0.0, float(values.min())), interpolation="nearest"
    )
    bar: Any = ax.figure.colorbar(image, ax=ax, pad=0.02)
    bar.set_label("memU, bits")
    bar.outline.set_visible(False)
    _label_steps(ax, result, np.arange(k, dtype=np.float64), by_place=True)
    if n <= _NAMED:
        ax.set_yticks(range(n), [_name(result, int(place)) for place in order], fontsize=7)
        ax.set_ylabel("sample")
    else:
        ax.set_ylabel(f"{counted(n, 'sample')}, by memU at the last checkpoint")
        ax.set_yticks([0, n - 1], ["most", "least"])
    ax.spines[["left", "bottom"]].set_visible(False)
    return ax


def _name(result: "Trajectory", place: int) -> str:
    ids = None if result.about is None else result.about.row_ids
    name = str(int(result.index[place]) if ids is None else ids[place])
    printable = "".join(one if one.isprintable() else "?" for one in name).replace("$", r"\$")
    return printable if len(printable) <= _LETTERS else f"{printable[: _LETTERS - 1]}…"


def _places(result: "Trajectory") -> Float64[np.ndarray, " checkpoint"]:
    """Where checkpoints stand: at their steps, or side by side where one is not known."""
    if np.isnan(result.steps).any():
        return np.arange(len(result), dtype=np.float64)
    return np.asarray(result.steps)


def _label_steps(
    ax: "Axes", result: "Trajectory", at: Float64[np.ndarray, " checkpoint"], *, by_place: bool = False
) -> None:
    named = bool(np.isnan(result.steps).any())
    ax.set_xlabel("checkpoint" if named else "training step")
    shown = np.unique(np.linspace(0, len(at) - 1, min(len(at), _LABELS)).round().astype(int))
    if named:
        ax.set_xticks(at[shown], [result.names[k] for k in shown], rotation=20, ha="right")
    elif by_place:
        ax.set_xticks(at[shown], [f"{result.steps[k]:,.0f}" for k in shown])
    else:
        ax.xaxis.set_major_formatter(lambda value, _: f"{value:,.10g}")
        ax.locator_params(axis="x", integer=True)
