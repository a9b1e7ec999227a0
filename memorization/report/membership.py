"""Pictures of `Membership` and `MembershipAudit`: members found against non-members mistaken."""

from collections.abc import Sequence
from itertools import cycle
from typing import TYPE_CHECKING

import numpy as np

from memorization.report.style import COLOURS, GREY, VERMILION, legend_above, new_axes, plain_ticks

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from memorization.membership import Membership, MembershipAudit

__all__ = ["plot_membership", "plot_membership_audit"]

# Found without a mistake, from which on a logarithmic axis would press the lines together at its top.
_MOST_OF_LOG = 0.1


def plot_membership(result: "Membership", ax: "Axes | None" = None) -> "Axes":
    """Share of members found against share of non-members taken for members, at every threshold.

    The axis of non-members is logarithmic; that of members too, unless a tenth of them is found without a mistake.

    Args:
        result: what `membership_metrics` returns.
        ax: matplotlib Axes to draw on; None makes a figure, reached as `ax.figure`.

    Returns:
        The Axes.
    """
    ax = new_axes(ax, (5.2, 5.2))
    low, high = result.auc_interval
    _draw_lines(ax, {f"AUC {result.auc:.3f} [{low:.3f}, {high:.3f}]": result}, (VERMILION,))
    return ax


def plot_membership_audit(result: "MembershipAudit", ax: "Axes | None" = None) -> "Axes":
    """Share of members found against share of non-members taken for members, a line an attack.

    The axis of non-members is logarithmic; that of members too, unless a tenth of them is found without a mistake.
    Lines are thinner from attack to attack, so that equal ones are all seen.

    Args:
        result: what `audit_membership` returns.
        ax: matplotlib Axes to draw on; None makes a figure, reached as `ax.figure`.

    Returns:
        The Axes.
    """
    ax = new_axes(ax, (5.6, 6.0))
    _draw_lines(ax, {f"{name}: AUC {attack.auc:.3f}": attack for name, attack in result.attacks.items()}, COLOURS)
    return ax


def _draw_lines(ax: "Axes", attacks: "dict[str, Membership]", colours: Sequence[str]) -> None:
    # One sample of either kind is the least that such axes can show.
    floor = min(0.7 / max(len(one.member_scores), len(one.nonmember_scores)) for one in attacks.values())
    widths = np.linspace(1.4 + 0.6 * (len(attacks) - 1), 1.4, len(attacks))
    found_at_once = 0.0
    for colour, width, (label, attack) in zip(cycle(colours), widths, attacks.items(), strict=False):
        found, mistaken = attack.roc()
        # What is found without a mistake is known down to the left edge, where a logarithmic axis has no 0.
        ax.step(np.maximum(mistaken, floor), found, where="post", color=colour, linewidth=width, zorder=3, label=label)
        found_at_once = max(found_at_once, float(found[mistaken == 0].max(initial=0.0)))
    chance = np.geomspace(floor, 1, 200)
    ax.plot(chance, chance, color=GREY, linewidth=1.0, linestyle=":", zorder=1, label="chance")
    ax.set(xscale="log", xlim=(floor, 1.05), ylim=(0, 1.02))
    if found_at_once < _MOST_OF_LOG:
        ax.set(yscale="log", ylim=(floor, 1.05))
        plain_ticks(ax.yaxis, floor, 1.05)
    plain_ticks(ax.xaxis, floor, 1.05)
    ax.set_xlabel("non-members taken for members (FPR)")
    ax.set_ylabel("members found (TPR)")
    legend_above(ax, 2 if len(ax.lines) > 2 else 1)
