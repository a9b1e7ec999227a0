"""The pictures of `Extraction`: rates against prefix length, and against the number of tries."""

from typing import TYPE_CHECKING, Literal

import numpy as np

from memorization.errors import InputError
from memorization.report.style import BLUE, GREY, VERMILION, legend_above, new_axes, plain_ticks
from memorization.results import counted

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from memorization.extraction import Extraction

__all__ = ["plot_extraction"]


def plot_extraction(
    result: "Extraction", ax: "Axes | None" = None, *, against: Literal["prefix", "tries"] = "prefix"
) -> "Axes":
    """Share of members and of held-out samples extracted, against prefix length, on a logarithmic axis.

    A bar is the interval. A rate of 0 has no place on the axis: an open triangle hangs at the upper end of its
    interval, which is what is known of it.

    Args:
        result: what `extract` returns.
        ax: matplotlib Axes to draw on; None makes a figure, reached as `ax.figure`.
        against: "prefix", for greedy decoding; or "tries": how often one samples after the shortest prefix reported,
            for probabilities of 0.1, 0.5 and 0.9 that it comes out.

    Returns:
        The Axes.

    Raises:
        InputError: anything else; or a result of version 0.1.0, which knows no probabilities.
    """
    if against not in ("prefix", "tries"):
        raise InputError(f'against must be "prefix" or "tries"; it is {against!r}.')
    if against == "tries":
        return _against_tries(result, ax)
    ax = new_axes(ax, (6.4, 4.4))
    table = result.to_pandas()
    n_each = {"member": int(table["n_members"].iloc[0]), "heldout": int(table["n_heldout"].iloc[0])}
    # Half of what one sample of the larger set amounts to: every rate but 0 lies above.
    floor = 0.5 / max(n_each.values())
    for which, name, colour, aside in (
        ("member", "members", VERMILION, 1.02),
        ("heldout", "held-out samples", BLUE, 1 / 1.02),
    ):
        if not n_each[which]:
            continue
        # A little aside, so that bars do not cover each other.
        prefix, rate = table["prefix_tokens"].to_numpy(np.float64) * aside, table[f"{which}_rate"].to_numpy()
        low, high = table[f"{which}_low"].to_numpy(), table[f"{which}_high"].to_numpy()
        some, none = rate > 0, rate == 0
        label = f"{name} (n = {n_each[which]:,})"
        ax.plot(prefix[some], rate[some], "o-", color=colour, markersize=6, linewidth=1.4, zorder=3, label=label)
        ax.vlines(prefix[some], np.maximum(low[some], floor), high[some], color=colour, linewidth=1.4, zorder=2)
        ax.plot(prefix[none], high[none], "v", color=colour, markersize=8, markerfacecolor="white", zorder=3)
        ax.vlines(prefix[none], floor, high[none], color=colour, linewidth=1.0, linestyle=":", zorder=2)
    if (table[["member_rate", "heldout_rate"]] == 0).any(axis=None):
        label = "none extracted: upper end of the interval"
        ax.plot([], [], "v", color=GREY, markersize=8, markerfacecolor="white", label=label)
    prefixes = table["prefix_tokens"].tolist()
    ax.set(xscale="log", yscale="log", xlim=(prefixes[0] / 1.3, prefixes[-1] * 1.3), ylim=(floor, 1.3))
    ax.set_xticks(prefixes, [str(prefix) for prefix in prefixes])
    ax.set_xticks([], minor=True)
    plain_ticks(ax.yaxis, floor, 1.3)
    ax.set_xlabel("prefix, tokens")
    rest = result.settings["suffix_tokens"]
    ax.set_ylabel("share extracted" + ("" if rest is None else f" ({counted(rest, 'token')})"))
    legend_above(ax, 2)
    return ax


def _against_tries(result: "Extraction", ax: "Axes | None") -> "Axes":
    table = result.tries_to_pandas()
    if not len(table):
        raise InputError("there is nothing to draw: the result has no prefix, or was saved by an earlier version.")
    ax = new_axes(ax, (6.4, 4.4))
    prefix = result.settings["prefix_tokens"][0]
    table = table[table["prefix_tokens"] == prefix]
    for which, name, colour in (("member", "members", VERMILION), ("heldout", "held-out samples", BLUE)):
        if not len(result.heldout_offsets) > 1 and which == "heldout":
            continue
        for p, line in ((0.1, ":"), (0.5, "-"), (0.9, "--")):
            own = table[table["p"] == p]
            label = name if p == 0.5 else None
            ax.plot(own["n_tries"], own[f"{which}_rate"], line, color=colour, linewidth=1.4, label=label)
            if p == 0.5:
                ends = own[f"{which}_low"], own[f"{which}_high"]
                ax.fill_between(own["n_tries"], *ends, color=colour, alpha=0.15, linewidth=0)
    if "beyond_oracle" in table:
        own = table[table["p"] == 0.5]
        ax.plot(own["n_tries"], own["beyond_oracle"], "x", color="black", label="members that the oracle does not give")
    for p, line in ((0.1, ":"), (0.9, "--")):
        ax.plot([], [], line, color=GREY, label=f"with probability {p:g}")
    ax.set(xscale="log", ylim=(-0.02, 1.02))
    ax.set_xlabel("tries" if prefix else "tries, from the prompt alone")
    ax.set_ylabel(f"share extracted from {counted(prefix, 'token')}" if prefix else "share extracted")
    legend_above(ax, 2)
    return ax
