"""Where results go, and what is printed about it."""

import sys
import tempfile
from contextvars import ContextVar
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from memorization.errors import InputError, ResultError
from memorization.results import Result, check_free

if TYPE_CHECKING:
    from matplotlib.figure import Figure

BAD_INPUT, NOT_WRITTEN, INTERRUPTED = 2, 1, 130
# What an interruption leaves of a command, in words, as far as it has come.
KEPT: ContextVar[str] = ContextVar("kept", default="nothing was written")


def claim(output: Path, overwrite: bool, *, keeps_runs: bool = False) -> None:
    """Check before measuring that the results can be written.

    Args:
        output: folder of the results.
        overwrite: whether those of an earlier call may be replaced.
        keeps_runs: whether finished runs go into the folder's runs/ at once, and an interrupted command goes on from
            there.
    """
    if (output / "settings.json").exists() and not overwrite:
        raise InputError(f"{output} holds the results of an earlier run: name another --output, or pass --overwrite.")
    check_free(output, overwrite)
    try:
        output.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=output):
            pass
    except OSError as error:
        raise InputError(f"--output {output} cannot be written to: {error.strerror or error}.") from error
    if keeps_runs:
        KEPT.set(f"finished runs are kept in {output / 'runs'}, and the same command goes on from there")


def save(result: Result, output: Path) -> None:
    """Write to the output folder; where that fails, to a temporary one, and say so."""
    KEPT.set(f"{output} holds what it held before, or all of the new result; the same command goes on with --overwrite")
    try:
        result.save(output, overwrite=True)  # `claim` has refused what is not to be replaced
    except (OSError, ResultError) as error:
        rescue = Path(tempfile.mkdtemp(prefix="memorization-"))
        result.save(rescue, overwrite=True)
        complain(
            f"could not write to {output} ({getattr(error, 'strerror', None) or error}); what was measured is in "
            f"{rescue}"
        )
        raise typer.Exit(NOT_WRITTEN) from error
    KEPT.set(f"the results are in {output}; what comes after them, such as a picture, may be missing")
    print(f"written to {output}")


def complain(message: str) -> None:
    """A line on standard error."""
    print(f"memorization: {message}", file=sys.stderr)


def save_picture(figure: "Figure | Any", path: Path, also: str | None = None) -> None:
    """Write a picture, also in another format, say where, and close it."""
    import matplotlib.pyplot as plt

    figure.savefig(path, dpi=150)
    if also is not None:
        figure.savefig(path.with_suffix(f".{also}"))
    plt.close(figure)
    print(f"picture: {path}" + (f", also as .{also}" if also else ""))
