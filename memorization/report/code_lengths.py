"""Pictures of `CodeLengths`: bits per token of the samples, and token by token under two models."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from memorization.errors import InputError
from memorization.measure.byte_bits import shared_pieces
from memorization.report.style import BLUE, VERMILION, bin_edges, legend_above, new_axes

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from memorization.measure.code_lengths import CodeLengths
    from memorization.unintended.rows import TokenBits

__all__ = ["plot_code_lengths", "plot_token_bits", "plot_tokens"]


def plot_code_lengths(code_lengths: "CodeLengths", ax: "Axes | None" = None) -> "Axes":
    """Histogram of bits per token, one value a sample, with the mean over all tokens as a dashed line.

    Args:
        code_lengths: what `compress_bits` returns. Samples without a coded token are left out.
        ax: matplotlib Axes to draw on; None makes a figure, reached as `ax.figure`.

    Returns:
        The Axes.
    """
    ax = new_axes(ax, (7.0, 3.6))
    coded = np.asarray(code_lengths.n_tokens) > 0
    per_token = np.asarray(code_lengths.bits)[coded] / np.asarray(code_lengths.n_tokens)[coded]
    ax.hist(per_token, bins=bin_edges([per_token]).tolist(), color=BLUE, alpha=0.8, edgecolor="white", linewidth=0.5)
    ax.axvline(
        code_lengths.bits_per_token,
        color=VERMILION,
        linestyle="--",
        label=f"all tokens: {code_lengths.bits_per_token:.3f} bits per token",
    )
    ax.set_xlabel("code length, bits per token (one value a sample)")
    ax.set_ylabel("number of samples")
    legend_above(ax)
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
        oracle: code lengths of the same samples under the oracle. Where its tokens are others, what lies between places
            where both have an edge counts as one.
        sample: index of the sample.
        tokens: text of each coded token, or of each piece of text, for the x-axis; None numbers them, or says which
            byte a piece begins with.
        ax: matplotlib Axes to draw on; None makes a figure, reached as `ax.figure`.

    Returns:
        The Axes.

    Raises:
        InputError: the two code the sample in different tokens, of which it is not known which bytes they cover; or
            `tokens` has another number of strings.
    """
    ours, theirs = (lengths._window(sample, sample + 1) for lengths in (target, oracle))
    low, high = ours.token_bits, theirs.token_bits
    unit, begins = "coded tokens", None
    if not np.array_equal(ours.token_ids, theirs.token_ids):
        low, high, begins = shared_pieces(ours, theirs, 0)
        unit = "pieces of text that both cut out"
    if tokens is not None and len(tokens) != len(low):
        raise InputError(f"sample {sample} has {len(low)} {unit}; tokens holds {len(tokens)} strings.")
    ax = new_axes(ax, (max(5.0, 0.19 * len(low) + 1.2), 3.8))
    position = np.arange(len(low))
    saved = high >= low
    for bits, marker, colour, name in ((high, "o", BLUE, "oracle"), (low, "s", VERMILION, "target")):
        label = f"{name}: {bits.sum():.1f} bits"
        ax.plot(position, bits, marker, color=colour, markersize=5, zorder=3, clip_on=False, label=label)
    for where, colour, verb in ((saved, "#B5B5B5", "saves"), (~saved, VERMILION, "loses")):
        difference = float(np.abs(high - low)[where].sum())
        if difference >= 0.05:  # what the legend would not print as 0.0
            label = f"the target {verb} {difference:.1f} bits"
            ax.vlines(position[where], low[where], high[where], color=colour, alpha=0.8, lw=2.5, zorder=2, label=label)
    if tokens is None:
        ax.set_xlabel("coded token" if begins is None else "piece of text that both cut out, by its first byte")
        if begins is not None:
            ax.set_xticks(position, [str(byte) for byte in begins[:-1]], rotation=90, fontsize=8)
    else:
        ax.set_xticks(position, [_visible(token) for token in tokens], rotation=90, fontsize=8, parse_math=False)
        ax.set_xlabel("token (· is a space)")
    ax.set_xlim(-0.8, len(low) - 0.2)
    ax.set_ylim(bottom=0)
    ax.set_ylabel("ideal bits per token" if begins is None else "ideal bits per piece")
    ax.grid(axis="y", color="#E5E5E5", zorder=0)
    legend_above(ax, 2)
    return ax


def plot_tokens(sample: "TokenBits", ax: "Axes | None" = None) -> "Axes":
    """`plot_token_bits` of one sample of a `Memorization`, which the title names.

    Args:
        sample: what `Memorization.plot_tokens` draws.
        ax: matplotlib Axes to draw on; None makes a figure, reached as `ax.figure`.

    Returns:
        The Axes.

    Raises:
        InputError: as for `plot_token_bits`.
    """
    ax = plot_token_bits(sample.target, sample.oracle, sample.place, sample.tokens, ax)
    ax.set_xlabel(f"{ax.get_xlabel()}; {sample.title}", parse_math=False)
    return ax


def _visible(token: str) -> str:
    """A token as one line in which spaces can be seen."""
    return token.replace(" ", "·").replace("\n", "\\n").replace("\t", "\\t")
