"""The picture of `Audit`: memU of the records against the control's."""

from typing import TYPE_CHECKING

from memorization.report.memorization import plot_memorization

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from memorization.auditing import Audit

__all__ = ["plot_audit"]


def plot_audit(result: "Audit", ax: "Axes | None" = None) -> "Axes":
    """Histogram of signed memU, bits a record, of the records against the control: `plot_memorization`.

    Args:
        result: what `audit` returns.
        ax: matplotlib Axes to draw on; None makes a figure, reached as `ax.figure`.

    Returns:
        The Axes.
    """
    return plot_memorization(result.memorization, ax, names=("records", "unseen records"))
