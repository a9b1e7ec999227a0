"""Where results go, and what is said of it."""

import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import typer

from memorization.errors import InputError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

BAD_INPUT, NOT_WRITTEN, INTERRUPTED = 2, 1, 130


@runtime_checkable
class Result(Protocol):
    """Whatever can write itself into a folder."""

    def save(self, folder: Path) -> None:
        """Write it."""


def claim(output: Path, overwrite: bool) -> None:
    """Find out before measuring whether the results can be written."""
    if (output / "settings.json").exists() and not overwrite:
        raise InputError(f"{output} holds the results of an earlier run: name another --output, or pass --overwrite")
    try:
        output.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=output):
            pass
    except OSError as error:
        raise InputError(f"--output {output} cannot be written to: {error.strerror or error}") from error


def save(result: Result, output: Path) -> None:
    """Write to the output folder; where that fails, to a temporary one, and say so."""
    try:
        result.save(output)
    except OSError as error:
        rescue = Path(tempfile.mkdtemp(prefix="memorization-"))
        result.save(rescue)
        complain(f"could not write to {output} ({error.strerror or error}); what was measured is in {rescue}")
        raise typer.Exit(NOT_WRITTEN) from error
    print(f"written to {output}")


def complain(message: str) -> None:
    """A line on standard error."""
    print(f"memorization: {message}", file=sys.stderr)


def save_picture(figure: "Figure | Any", path: Path) -> None:
    """Write a picture, say where, and let it go."""
    import matplotlib.pyplot as plt

    figure.savefig(path, dpi=150)
    plt.close(figure)
    print(f"picture: {path}")
