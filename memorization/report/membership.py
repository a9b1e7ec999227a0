"""Pictures of `Membership` and `MembershipAudit`: members found against non-members mistaken."""

from typing import TYPE_CHECKING

from memorization.report.style import COLOURS, GREY, VERMILION, legend_above, new_axes

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from memorization.membership import Membership, MembershipAudit

__all__ = ["plot_membership", "plot_membership_audit"]


def plot_membership(result: "Membership", ax: "Axes | None" = None) -> "Axes":
    """Share of members found against share of non-members taken for members, at every threshold, both logarithmic.

    Args:
        result: what `membership_metrics` returns.
        ax: matplotlib Axes to draw on; None makes a figure, reached as `ax.figure`.

    Returns:
        The Axes.
    """
    ax = new_axes(ax, (5.2, 5.2))
    found, mistaken = result.roc()
    low, high = result.auc_interval
    label = f"AUC {result.auc:.3f} [{low:.3f}, {high:.3f}]"
    ax.step(mistaken, found, where="post", color=VERMILION, linewidth=1.6, zorder=3, label=label)
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
    ax = new_axes(ax, (5.6, 6.0))
    floor = 1.0
    for colour, (name, attack) in zip(COLOURS, result.attacks.items(), strict=False):
        found, mistaken = attack.roc()
        label = f"{name}: AUC {attack.auc:.3f}"
        ax.step(mistaken, found, where="post", color=colour, linewidth=1.5, zorder=3, label=label)
        floor = min(floor, 0.7 / max(len(attack.member_scores), len(attack.nonmember_scores)))
    _roc_axes(ax, floor)
    return ax


def _roc_axes(ax: "Axes", floor: float) -> None:
    ax.plot([floor, 1], [floor, 1], color=GREY, linewidth=1.0, linestyle=":", zorder=1, label="chance")
    ax.set(xscale="log", yscale="log", xlim=(floor, 1.05), ylim=(floor, 1.05))
    ax.set_xlabel("non-members taken for members (FPR)")
    ax.set_ylabel("members found (TPR)")
    legend_above(ax, 2 if len(ax.lines) > 2 else 1)
