"""Pictures of results: each function draws on one matplotlib Axes and returns it."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float64

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis

    from memorization.capacity import Capacity
    from memorization.extraction import Extraction
    from memorization.lab.quickstart import Quickstart
    from memorization.measure.code_lengths import CodeLengths
    from memorization.membership import Membership, MembershipAudit
    from memorization.scaling_law import MIScalingLaw
    from memorization.unintended import Memorization

__all__ = [
    "plot_capacity",
    "plot_code_lengths",
    "plot_extraction",
    "plot_membership",
    "plot_membership_audit",
    "plot_memorization",
    "plot_quickstart",
    "plot_scaling_law",
    "plot_token_bits",
]

# Okabe and Ito's palette: told apart with any colour vision, and in grey print by lightness.
_VERMILION, _BLUE, _GREY = "#D55E00", "#0072B2", "#6B6B6B"
_ATTACKS = (_VERMILION, _BLUE, "#009E73", "#CC79A7", "#E69F00")


def plot_memorization(
    result: "Memorization", ax: "Axes | None" = None, *, names: tuple[str, str] = ("samples", "control samples")
) -> "Axes":
    """Histogram of signed memU, bits a sample, of the samples against the control.

    Each tick below the histogram is one sample. The shaded side is what clipping sets to 0. The legend gives the mean
    of memU as reported and of signed memU; the dotted line stands at the largest control sample, with the share of
    samples above it.

    Args:
        result: what `unintended_memorization` returns, with or without a control.
        ax: matplotlib Axes to draw on; None makes a figure, reached as `ax.figure`.
        names: what the legend calls the samples and the control.

    Returns:
        The Axes.
    """
    ax = _axes(ax, (8.0, 4.2))
    groups = [(names[0], result.bits, result.signed_bits, _VERMILION)]
    if result.control is not None:
        groups.append((names[1], result.control.bits, result.control.signed_bits, _BLUE))
    edges = _edges([np.asarray(signed) for _, _, signed, _ in groups], within=(0.0, 0.0))
    counts = [np.histogram(signed, edges)[0] for _, _, signed, _ in groups]
    top = max(int(count.max()) for count in counts)
    for row, (count, (name, bits, signed, colour)) in enumerate(zip(counts, groups, strict=True)):
        means = f"mean memU {bits.mean():.1f}, signed {signed.mean():+.1f} bits".replace("-", "\N{MINUS SIGN}")
        label = f"{name} (n = {len(signed):,}): {means}"
        bars = np.where(count > 0, count, np.nan)
        ax.stairs(bars, edges, fill=True, color=colour, alpha=0.35, zorder=2, label=label)
        ax.stairs(bars, edges, color=colour, linewidth=1.3, zorder=3)
        height = -top * (0.045 + 0.055 * row)
        ax.plot(signed, np.full(len(signed), height), "|", color=colour, markersize=7, markeredgewidth=0.9, alpha=0.8)
    room = 1.3 * top
    ax.set_ylim(-top * (0.03 + 0.06 * len(groups)), room)
    margin = 0.015 * (edges[-1] - edges[0])
    ax.set_xlim(edges[0] - margin, edges[-1] + margin)
    ax.axhline(0, color=_GREY, linewidth=0.8, zorder=1)
    ax.axvline(0, color=_GREY, linewidth=0.8, zorder=1)
    if edges[0] < 0 and result.settings["joint"] == "max":
        ax.axvspan(edges[0] - margin, 0, color="black", alpha=0.05, linewidth=0, zorder=0)
        ax.text(0, 0.99 * room, "clipped: memU = 0 ", color=_GREY, fontsize=9, ha="right", va="top")
    if result.control is not None:
        largest = float(result.control.signed_bits.max())
        share = f"{np.mean(result.signed_bits > largest):.0%}".replace("%", " %")
        # The words go to the side that has more room.
        side = "left" if largest < (edges[0] + edges[-1]) / 2 else "right"
        ax.axvline(largest, ymax=0.9, color=_BLUE, linewidth=1.4, linestyle=":", zorder=4)
        words = f" {share} of {names[0]} above all {names[1]} "
        ax.text(largest, 0.9 * room, words, color=_BLUE, fontsize=9, ha=side, va="top")
    ax.set_xlabel("signed memU = H(x | oracle) − H(x | target), bits a sample")
    ax.set_ylabel("samples in a bin")
    ax.locator_params(axis="y", integer=True, nbins=6)
    ax.set_yticks([tick for tick in ax.get_yticks() if 0 <= tick <= room])
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
    ax.hist(per_token, bins=_edges([per_token]).tolist(), color=_BLUE, alpha=0.8, edgecolor="white", linewidth=0.5)
    ax.axvline(
        code_lengths.bits_per_token,
        color=_VERMILION,
        linestyle="--",
        label=f"all tokens: {code_lengths.bits_per_token:.3f} bits per token",
    )
    ax.set_xlabel("code length, bits per token (one value a sample)")
    ax.set_ylabel("samples in a bin")
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
    for bits, marker, colour, name in ((high, "o", _BLUE, "oracle"), (low, "s", _VERMILION, "target")):
        label = f"{name}: {bits.sum():.1f} bits"
        ax.plot(position, bits, marker, color=colour, markersize=5, zorder=3, clip_on=False, label=label)
    for where, colour, verb in ((saved, "#B5B5B5", "saves"), (~saved, _VERMILION, "loses")):
        difference = float(np.abs(high - low)[where].sum())
        if difference >= 0.05:  # what the legend would not print as 0.0
            label = f"the target {verb} {difference:.1f} bits"
            ax.vlines(position[where], low[where], high[where], color=colour, alpha=0.8, lw=2.5, zorder=2, label=label)
    if tokens is None:
        ax.set_xlabel("coded token")
    else:
        ax.set_xticks(position, [_visible(token) for token in tokens], rotation=90, fontsize=8, parse_math=False)
        ax.set_xlabel("token (· is a space)")
    ax.set_xlim(-0.8, len(low) - 0.2)
    ax.set_ylim(bottom=0)
    ax.set_ylabel("ideal bits per token")
    ax.grid(axis="y", color="#E5E5E5", zorder=0)
    _legend_above(ax, 2)
    return ax


def plot_capacity(result: "Capacity", ax: "Axes | None" = None) -> "Axes":
    """Memorized bits against data-set size, one line a model size, with the information ceiling of the data.

    A dot is a run, the line their mean, the dotted line the size's capacity. Where a size was trained for several numbers of steps, these
    are the runs of most steps; a faint line is the mean of those of fewer. Where rows were maxima already: capacity against parameters,
    with the fitted line. Bits that are not positive have no place on the logarithmic axes.

    Args:
        result: what `fit_capacity` or the lab returns.
        ax: matplotlib Axes to draw on; None makes a figure, reached as `ax.figure`.

    Returns:
        The Axes.
    """
    ax = _axes(ax, (8.0, 5.0))
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
        _plain_ticks(axis, *limits)
    return ax


def _plain_ticks(axis: "Axis", low: float, high: float) -> None:
    """Ticks of a logarithmic axis with plain numbers: powers of ten, with numbers between them where these are few."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

    powers = 10.0 ** np.arange(np.floor(np.log10(low)), np.ceil(np.log10(high)) + 1)
    for between in ((1.0,), (1.0, 3.0), (1.0, 2.0, 5.0), (1.0, 1.5, 2.0, 3.0, 5.0, 7.0)):
        ticks = np.outer(powers, between)
        if np.sum((ticks >= low) & (ticks <= high)) >= 4:  # enough to read the scale from
            break
    axis.set_major_locator(LogLocator(subs=between))
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(FuncFormatter(lambda number, _: f"{number:,.10g}"))


def _draw_curves(result: "Capacity", ax: "Axes") -> None:
    from matplotlib import colormaps

    from memorization.capacity import information_ceiling_bits

    # Sizes are ordered, so their colours are: viridis reads the same with any colour vision; its yellow end is too light for lines.
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
        ax.plot(samples, ceiling, "--", color=_GREY, linewidth=1.4, zorder=1, label="all there is to memorize")
    ax.set_xlabel("data-set size, samples")
    ax.set_ylabel(f"memorized bits ({result.convention} convention)")


def _draw_sizes(result: "Capacity", ax: "Axes") -> None:
    params, bits = result.n_params.astype(np.float64), result.capacity_bits
    ax.plot(params, bits, "o", color=_BLUE, markersize=6, zorder=3, label="model sizes")
    through = bits.mean() - result.bits_per_param * params.mean() if result.estimator == "slope" else 0.0
    x = np.geomspace(params.min(), params.max(), 200)
    label = f"{result.bits_per_param:.2f} bits x parameters" + (
        f" {through:+,.0f} bits".replace("-", "\N{MINUS SIGN}") if through else ""
    )
    ax.plot(x, through + result.bits_per_param * x, color=_VERMILION, linewidth=1.4, zorder=2, label=label)
    ax.set_xlabel("parameters")
    ax.set_ylabel(f"capacity, bits ({result.convention} convention)")


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
    title: dict[str, Any] = {"loc": "left", "fontweight": "bold", "pad": 42}
    plot_memorization(members, above, names=("members", "held-out samples"))
    above.set_title(
        "Unintended memorization: samples the target was trained on, and samples no model has seen", **title
    )
    plot_token_bits(members.target, members.oracle, most, quickstart.token_strings(most), below)
    below.set_title(f"The most memorized sample (memU {members.bits[most]:.1f} bits), token by token", **title)
    figure.savefig(path, dpi=120)


def _axes(ax: "Axes | None", inches: tuple[float, float]) -> "Axes":
    if ax is None:
        import matplotlib.pyplot as plt  # so that a notebook shows the picture

        ax = plt.subplots(figsize=inches, layout="constrained")[1]
    ax.spines[["top", "right"]].set_visible(False)
    return ax


def _legend_above(ax: "Axes", columns: int = 1) -> None:
    """A legend above the axes covers no data; short lines fit narrow axes."""
    ax.legend(loc="lower left", bbox_to_anchor=(0, 1.01), ncols=columns, frameon=False, borderaxespad=0, fontsize=9)


def _edges(
    groups: Sequence[Float64[np.ndarray, " value"]], within: tuple[float, float] | None = None
) -> Float64[np.ndarray, " edge"]:
    """Edges of equal bins that cover all groups (and the interval `within`), one edge at 0 where 0 lies inside."""
    values = np.concatenate([*groups, np.array(within or ())])
    low, high = float(values.min()), float(values.max())
    span = high - low
    # Freedman and Diaconis' width suits one group; two that lie far apart would need hundreds of such bins.
    widths = [2 * float(np.subtract(*np.quantile(group, [0.75, 0.25]))) / len(group) ** (1 / 3) for group in groups]
    width = min(max(min(widths), span / 60), span / 10) or 1.0
    return width * np.arange(np.floor(low / width), np.ceil(high / width) + 1.5)


def _token_bits(lengths: "CodeLengths", sample: int) -> Float64[np.ndarray, " token"]:
    start, end = lengths.token_offsets[sample], lengths.token_offsets[sample + 1]
    return np.asarray(lengths.token_bits[start:end])


def _visible(token: str) -> str:
    """A token as one line in which spaces can be seen."""
    return token.replace(" ", "·").replace("\n", "\\n").replace("\t", "\\t")


def plot_scaling_law(law: "MIScalingLaw", ax: "Axes | None" = None) -> "Axes":
    """F1 of membership inference against the law's ratio, with the points it was fitted to and the line of chance.

    Args:
        law: what `fit_mi_scaling_law` or `MIScalingLaw.published` returns.
        ax: matplotlib Axes to draw on; None makes a figure, reached as `ax.figure`.

    Returns:
        The Axes.
    """
    ax = _axes(ax, (7.0, 4.2))
    if law.points is None:
        # From where the sigmoid is flat to where it is flat again, as far as a ratio goes.
        highest = max(-law.c3 + 8 / abs(law.c2), 8 / abs(law.c2))
        ratio = np.geomspace(highest / 1000, highest, 300)
    else:
        data, capacity = law.points["dataset_size"].to_numpy(), law.points["capacity"].to_numpy()
        measured = data / capacity if law.covariate == "data/capacity" else capacity / data
        label = f"{len(measured)} trained models"
        ax.plot(measured, law.points["f1"], "o", color=_BLUE, markersize=5, zorder=3, label=label)
        ratio = np.geomspace(measured.min(), measured.max(), 300)
    sizes = (np.ones(300), ratio) if law.covariate == "data/capacity" else (ratio, np.ones(300))
    constants = f"c1 = {law.c1:.3g}, c2 = {law.c2:.3g}, c3 = {law.c3:.3g}".replace("-", "\N{MINUS SIGN}")
    ax.plot(ratio, law.predict(*sizes), color=_VERMILION, linewidth=1.6, zorder=2, label=f"law: {constants}")
    ax.axhline(0.5, color=_GREY, linewidth=1.0, linestyle=":", zorder=1, label="chance")
    ax.set_xscale("log")
    low, high = ax.get_ylim()
    ax.set_ylim(min(0.45, low), max(1.03, high))
    ax.set_xlabel(law.ratio_in_words)
    ax.set_ylabel("F1 of membership inference")
    _legend_above(ax)
    return ax


def plot_membership(result: "Membership", ax: "Axes | None" = None) -> "Axes":
    """Share of members found against share of non-members taken for members, at every threshold, both logarithmic.

    Args:
        result: what `membership_metrics` returns.
        ax: matplotlib Axes to draw on; None makes a figure, reached as `ax.figure`.

    Returns:
        The Axes.
    """
    ax = _axes(ax, (5.2, 5.2))
    found, mistaken = result.roc()
    low, high = result.auc_interval
    label = f"AUC {result.auc:.3f} [{low:.3f}, {high:.3f}]"
    ax.step(mistaken, found, where="post", color=_VERMILION, linewidth=1.6, zorder=3, label=label)
    # One sample of either kind is the least that such axes can show.
    _roc_axes(ax, 0.7 / max(len(result.member_scores), len(result.nonmember_scores)))
    return ax


def plot_membership_audit(result: "MembershipAudit", ax: "Axes | None" = None) -> "Axes":
    """Share of members found against share of non-members taken for members, a line an attack, both logarithmic.

    Args:
        result: what `audit_membership` returns.
        ax: matplotlib Axes to draw on; None makes a figure, reached as `ax.figure`.

    Returns:
        The Axes.
    """
    ax = _axes(ax, (5.6, 6.0))
    floor = 1.0
    for colour, (name, attack) in zip(_ATTACKS, result.attacks.items(), strict=False):
        found, mistaken = attack.roc()
        label = f"{name}: AUC {attack.auc:.3f}"
        ax.step(mistaken, found, where="post", color=colour, linewidth=1.5, zorder=3, label=label)
        floor = min(floor, 0.7 / max(len(attack.member_scores), len(attack.nonmember_scores)))
    _roc_axes(ax, floor)
    return ax


def _roc_axes(ax: "Axes", floor: float) -> None:
    ax.plot([floor, 1], [floor, 1], color=_GREY, linewidth=1.0, linestyle=":", zorder=1, label="chance")
    ax.set(xscale="log", yscale="log", xlim=(floor, 1.05), ylim=(floor, 1.05))
    ax.set_xlabel("non-members taken for members (FPR)")
    ax.set_ylabel("members found (TPR)")
    _legend_above(ax, 2 if len(ax.lines) > 2 else 1)


def plot_extraction(result: "Extraction", ax: "Axes | None" = None) -> "Axes":
    """Share of members and of held-out samples extracted, against prefix length, on a logarithmic axis.

    A bar is the interval. A rate of 0 has no place on the axis: an open triangle hangs at the upper end of its interval, which is what
    is known of it.

    Args:
        result: what `extract` returns.
        ax: matplotlib Axes to draw on; None makes a figure, reached as `ax.figure`.

    Returns:
        The Axes.
    """
    ax = _axes(ax, (6.4, 4.4))
    table = result.to_pandas()
    n_each = {"member": int(table["n_members"].iloc[0]), "heldout": int(table["n_heldout"].iloc[0])}
    # Half of what one sample of the larger set amounts to: every rate but 0 lies above.
    floor = 0.5 / max(n_each.values())
    for which, name, colour, aside in (
        ("member", "members", _VERMILION, 1.02),
        ("heldout", "held-out samples", _BLUE, 1 / 1.02),
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
        ax.plot([], [], "v", color=_GREY, markersize=8, markerfacecolor="white", label=label)
    prefixes = table["prefix_tokens"].tolist()
    ax.set(xscale="log", yscale="log", xlim=(prefixes[0] / 1.3, prefixes[-1] * 1.3), ylim=(floor, 1.3))
    ax.set_xticks(prefixes, [str(prefix) for prefix in prefixes])
    ax.set_xticks([], minor=True)
    _plain_ticks(ax.yaxis, floor, 1.3)
    ax.set_xlabel("prefix, tokens")
    rest = result.settings["suffix_tokens"]
    ax.set_ylabel("share extracted" + ("" if rest is None else f" ({rest} tokens)"))
    _legend_above(ax, 2)
    return ax
