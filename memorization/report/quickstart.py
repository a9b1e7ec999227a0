"""The picture of `Quickstart`: memU of members and held-out samples, and the tokens of one member."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from memorization.report.code_lengths import plot_token_bits
from memorization.report.memorization import plot_memorization

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from memorization.lab.quickstart import Quickstart

__all__ = ["draw_quickstart", "plot_quickstart", "quickstart_figure"]

_TITLE: dict[str, Any] = {"loc": "left", "fontweight": "bold", "pad": 42}


def plot_quickstart(quickstart: "Quickstart", path: Path) -> None:
    """Save the quickstart's picture: memU in bits of members and held-out samples, and the tokens of one member.

    Args:
        quickstart: what `run_quickstart` returns.
        path: file to write; its ending chooses the format (png, pdf, svg).
    """
    import matplotlib.pyplot as plt

    figure = quickstart_figure(quickstart)
    figure.savefig(path, dpi=120)
    plt.close(figure)


def quickstart_figure(quickstart: "Quickstart") -> "Figure":
    """memU in bits of members and held-out samples, and below it the tokens of the most memorized member.

    Args:
        quickstart: what `run_quickstart` returns; its files are read for the text.

    Returns:
        The Figure, with two Axes.
    """
    import matplotlib.pyplot as plt  # so that a notebook shows the picture

    members = quickstart.members
    most = int(np.argmax(members.signed_bits))
    figure = plt.figure(figsize=(13.0, 8.2), layout="constrained")
    above, below = figure.subplots(2, 1)
    draw_quickstart(quickstart, above)
    plot_token_bits(members.target, members.oracle, most, quickstart.token_strings(most), below)
    below.set_title(f"The most memorized sample (memU {members.bits[most]:.1f} bits), token by token", **_TITLE)
    return figure


def draw_quickstart(quickstart: "Quickstart", ax: "Axes | None" = None) -> "Axes":
    """memU in bits of members and held-out samples.

    Args:
        quickstart: what `run_quickstart` returns.
        ax: matplotlib Axes to draw on; None makes a figure, reached as `ax.figure`.

    Returns:
        The Axes.
    """
    ax = plot_memorization(quickstart.members, ax, names=("members", "held-out samples"))
    ax.set_title("Unintended memorization: samples the target was trained on, and samples no model has seen", **_TITLE)
    return ax
