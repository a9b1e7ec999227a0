"""Pictures of results: each function draws on one matplotlib Axes and returns it; pyplot is never loaded."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float64

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from memorization.compression import CodeLengths
    from memorization.lab.quickstart import Quickstart
    from memorization.unintended import Memorization

__all__ = ["plot_code_lengths", "plot_memorization", "plot_quickstart", "plot_token_bits"]

# Okabe and Ito's palette: told apart with any colour vision, and in grey print by lightness.
_VERMILION, _BLUE, _GREY = "#D55E00", "#0072B2", "#6B6B6B"


def plot_memorization(result: "Memorization", ax: "Axes | None" = None) -> "Axes":
    """Histogram of signed memU, bits a sample, of the samples against the control.

    Each tick below the histogram is one sample. The shaded side is what clipping sets to 0. The legend gives the mean
    of memU as reported and of signed memU; the dotted line stands at the largest control sample, with the share of
    samples above it.

    Args:
        result: what `unintended_memorization` returns, with or without a control.
        ax: matplotlib Axes to draw on; None makes a figure, reached as `ax.figure`.

    Returns:
        The Axes.
    """
    ax = _axes(ax, (7.0, 4.2))
    groups = [("samples", result.bits, result.signed_bits, _VERMILION)]
    if result.control is not None:
        groups.append(("control", result.control.bits, result.control.signed_bits, _BLUE))
    everything = np.concatenate([np.asarray(signed) for _, _, signed, _ in groups] + [np.zeros(1)])
    edges = _edges(everything, 48)
    top = 1
    for row, (name, clipped, signed, colour) in enumerate(groups):
        label = f"{name} (n = {len(signed)}): mean memU {clipped.mean():.1f}, signed {signed.mean():+.1f} bits"
        counts, _, _ = ax.hist(
            signed,
            bins=edges.tolist(),
            color=colour,
            alpha=0.75,
            edgecolor="white",
            linewidth=0.5,
            label=label,
            zorder=2,
        )
        top = max(top, int(np.max(counts)))
        height = -0.035 - 0.045 * row
        ax.plot(
            signed,
            np.full(len(signed), height),
            "|",
            transform=ax.get_xaxis_transform(),
            color=colour,
            markersize=7,
            alpha=0.7,
            clip_on=False,
        )
    left = min(edges[0], 0.0)
    if left < 0:
        ax.axvspan(left, 0, color="#000000", alpha=0.06, linewidth=0, zorder=0)
        ax.text(0.01, 0.03, "signed < 0:\nmemU = 0", transform=ax.transAxes, color=_GREY, fontsize=8, va="bottom")
    ax.axvline(0, color=_GREY, linewidth=1, zorder=1)
    if result.control is not None:
        largest = float(np.max(result.control.signed_bits))
        share = float(np.mean(np.asarray(result.signed_bits) > largest))
        ax.axvline(largest, color=_BLUE, linewidth=1.2, linestyle=":", zorder=3)
        ax.annotate(
            f" {share:.0%} of samples lie above\n the largest control sample",
            (largest, 0.97),
            xycoords=ax.get_xaxis_transform(),
            fontsize=8,
            va="top",
            color=_BLUE,
        )
    ax.set_xlim(edges[0], edges[-1])
    ax.set_ylim(0, top * 1.05)
    ax.set_xlabel("signed memU = H(x | oracle) - H(x | target), bits a sample", labelpad=10)
    ax.set_ylabel("samples")
    ax.tick_params(axis="x", pad=14)
    _legend_above(ax)
    return ax


def plot_code_lengths(code_lengths: "CodeLengths", ax: "Axes | None" = None) -> "Axes":
    """Histogram of bits per token, one value a sample, with the mean over all tokens as a dashed line.

    Args:
        code_lengths: what `compress_bits` returns. Samples without a coded token are left out.
        ax: matplotlib Axes to draw on; None makes a figure, reached as `ax.figure`.

    Returns:
        The Axes.
    """
    ax = _axes(ax, (7.0, 3.6))
    coded = np.asarray(code_lengths.n_tokens) > 0
    per_token = np.asarray(code_lengths.bits)[coded] / np.asarray(code_lengths.n_tokens)[coded]
    ax.hist(per_token, bins=_edges(per_token, 40).tolist(), color=_BLUE, alpha=0.8, edgecolor="white", linewidth=0.5)
    ax.axvline(
        code_lengths.bits_per_token,
        color=_VERMILION,
        linestyle="--",
        label=f"all tokens: {code_lengths.bits_per_token:.3f} bits per token",
    )
    ax.set_xlabel("code length, bits per token (one value a sample)")
    ax.set_ylabel("samples")
    _legend_above(ax)
    return ax


def plot_token_bits(
    target: "CodeLengths",
    oracle: "CodeLengths",
    sample: int,
    tokens: Sequence[str] | None = None,
    ax: "Axes | None" = None,
) -> "Axes":
    """Ideal bits of each token of one sample under target and oracle; the line between is what the target saves.

    Args:
        target: code lengths of the samples under the target.
        oracle: code lengths of the same samples and tokens under the oracle.
        sample: index of the sample.
        tokens: text of each coded token, for the x-axis; None numbers them.
        ax: matplotlib Axes to draw on; None makes a figure, reached as `ax.figure`.

    Returns:
        The Axes.

    Raises:
        ValueError: the two code the sample in different numbers of tokens, or `tokens` has another number of strings.
    """
    low, high = _token_bits(target, sample), _token_bits(oracle, sample)
    if len(low) != len(high):
        raise ValueError(
            f"sample {sample} has {len(low)} coded tokens under the target and {len(high)} under the oracle; "
            "a comparison by token needs one tokenizer"
        )
    if tokens is not None and len(tokens) != len(low):
        raise ValueError(f"sample {sample} has {len(low)} coded tokens; tokens holds {len(tokens)} strings")
    ax = _axes(ax, (max(5.0, 0.19 * len(low) + 1.2), 3.8))
    position = np.arange(len(low))
    saved = high >= low
    ax.vlines(position[saved], low[saved], high[saved], color="#BBBBBB", linewidth=2.5, zorder=1)
    ax.vlines(position[~saved], high[~saved], low[~saved], color=_VERMILION, alpha=0.45, linewidth=2.5, zorder=1)
    ax.plot(position, high, "o", color=_BLUE, markersize=5, label=f"oracle: {high.sum():.1f} bits", zorder=2)
    ax.plot(
        position,
        low,
        "s",
        color=_VERMILION,
        markersize=4.5,
        label=f"target: {low.sum():.1f} bits",
        zorder=3,
        clip_on=False,
    )
    if tokens is None:
        ax.set_xlabel("coded token")
    else:
        ax.set_xticks(position, [_visible(token) for token in tokens], rotation=90, fontsize=8, parse_math=False)
        ax.set_xlabel("token (· is a space)")
    ax.set_xlim(-0.8, len(low) - 0.2)
    ax.set_ylim(bottom=0)
    ax.set_ylabel("ideal bits per token")
    ax.grid(axis="y", color="#E5E5E5", zorder=0)
    _legend_above(ax)
    return ax


def plot_quickstart(quickstart: "Quickstart", path: Path) -> None:
    """Save the quickstart's picture: memU in bits of members and held-out samples, and the tokens of one member.

    Args:
        quickstart: what `run_quickstart` returns.
        path: file to write; its ending chooses the format (png, pdf, svg).
    """
    from matplotlib.figure import Figure

    members = quickstart.members
    most = int(np.argmax(members.signed_bits))
    figure = Figure(figsize=(13.0, 8.2), layout="constrained")
    above, below = figure.subplots(2, 1)
    plot_memorization(members, above)
    above.set_title(
        "Unintended memorization: the target's training samples against held-out text",
        loc="left",
        fontweight="bold",
        pad=28,
    )
    plot_token_bits(members.target, members.oracle, most, quickstart.token_strings(most), below)
    below.set_title(
        f"The most memorized sample ({members.bits[most]:.1f} bits), token by token",
        loc="left",
        fontweight="bold",
        pad=28,
    )
    figure.savefig(path, dpi=120)


def _axes(ax: "Axes | None", inches: tuple[float, float]) -> "Axes":
    if ax is None:
        from matplotlib.figure import Figure

        ax = Figure(figsize=inches, layout="constrained").add_subplot()
    ax.spines[["top", "right"]].set_visible(False)
    return ax


def _legend_above(ax: "Axes") -> None:
    """A legend above the axes covers no data."""
    ax.legend(
        loc="lower left", bbox_to_anchor=(0, 1), ncols=2, frameon=False, borderaxespad=0.2, borderpad=0, fontsize=9
    )


def _edges(values: Float64[np.ndarray, " value"], bins: int) -> Float64[np.ndarray, " edge"]:
    """Edges of equal bins that cover the values, one of them exactly at 0 when 0 lies inside."""
    low, high = float(values.min()), float(values.max())
    width = (high - low) / bins or 1.0
    return width * np.arange(np.floor(low / width), np.ceil(high / width) + 1.5)


def _token_bits(lengths: "CodeLengths", sample: int) -> Float64[np.ndarray, " token"]:
    start, end = lengths.token_offsets[sample], lengths.token_offsets[sample + 1]
    return np.asarray(lengths.token_bits[start:end])


def _visible(token: str) -> str:
    """A token as one line in which spaces can be seen."""
    return token.replace(" ", "·").replace("\n", "\\n").replace("\t", "\\t")
