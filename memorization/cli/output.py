"""Where results go, and what is printed about it."""

import os
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import typer

from memorization.errors import InputError, ResultError, UnfinishedError
from memorization.report.draw import pictures

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from memorization.results import Result
    from memorization.unintended import Memorization

    Saved = TypeVar("Saved", bound=Result)

BAD_INPUT, NOT_WRITTEN, INTERRUPTED = 2, 1, 130
# Of every picture: one to look at, and two that can be enlarged, for papers and for pages.
FORMATS = ("png", "pdf", "svg")
DPI = 200
MOST_MARKS = 2000  # of a line, that vector files hold as shapes
# What an interruption leaves of a command, in words, as far as it has come.
KEPT: "ContextVar[str | Shards]" = ContextVar("kept", default="nothing was written")
# Whether the command may replace a result; of one that has come into its folder meanwhile, nobody has asked.
_MAY_REPLACE: ContextVar[bool] = ContextVar("may_replace", default=True)
# The command line, as it was typed.
TYPED: ContextVar[str] = ContextVar("typed", default="memorization")


def claim(output: Path, overwrite: bool, *, keeps: str | None = None) -> None:
    """Check before measuring that the results can be written.

    Args:
        output: folder of the results.
        overwrite: whether those of an earlier call may be replaced.
        keeps: what is kept as it comes, in words, so that an interrupted command goes on from there.
    """
    from memorization.results import check_free
    from memorization.results.kinds import SETTINGS

    if (output / SETTINGS).exists() and not overwrite:
        raise InputError(f"{output} holds the results of an earlier run: name another --output, or pass --overwrite.")
    check_free(output, overwrite)
    try:
        output.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=output):
            pass
    except OSError as error:
        raise InputError(f"--output {output} cannot be written to: {error.strerror or error}.") from error
    _MAY_REPLACE.set(overwrite)
    if keeps is not None:
        KEPT.set(f"{keeps}, and the same command goes on from there")


def claim_for_shards(output: Path, overwrite: bool) -> None:
    """The same before a command that measures shard by shard into the folder, and may have been stopped as it saved."""
    from memorization.measure.shard_files import is_concluding

    claim(output, overwrite or is_concluding(output))
    KEPT.set(Shards(output))


class Shards:
    """What an interruption leaves of a command that measures shard by shard, in words, when it is asked."""

    def __init__(self, output: Path) -> None:
        self._output = output

    def __str__(self) -> str:
        from memorization.measure.shard_files import UNFINISHED

        if (self._output / UNFINISHED).is_dir():
            return f"shards that are finished are kept in {self._output}, and the same command goes on from there"
        if any(self._output.glob("*")):
            return f"{self._output} holds what it held before, or all of the new result"
        return "nothing was written"


@contextmanager
def only_a_share() -> Iterator[None]:
    """Training of which a shard may do no more than its share: that is what it was asked for, and no error."""
    try:
        yield
    except UnfinishedError as share:
        print(share)
        raise typer.Exit from None


def holds_result(folder: Path) -> bool:
    """Whether a folder holds a saved result."""
    from memorization.results.kinds import SETTINGS

    return (folder / SETTINGS).is_file()


def save(result: "Result", output: Path, *, csv: bool = False) -> None:
    """Write to the output folder; where that fails, to a temporary one, and say so. csv: tables of samples too."""
    KEPT.set(f"{output} holds what it held before, or all of the new result; the same command goes on with --overwrite")
    try:
        result.save(output, overwrite=_MAY_REPLACE.get(), csv=csv)
    except (OSError, ResultError) as error:
        rescue = Path(tempfile.mkdtemp(prefix="memorization-"))
        result.save(rescue, overwrite=True, csv=csv)
        complain(
            f"could not write to {output} ({getattr(error, 'strerror', None) or error}); what was measured is in "
            f"{rescue}"
        )
        raise typer.Exit(NOT_WRITTEN) from error
    KEPT.set(f"the results are in {output}; what comes after them, such as a picture, may be missing")
    print(f"written to {output}")


def settled(result: "Saved", output: Path, *, csv: bool) -> "Saved":
    """A result that was measured into the output folder: written again where tables are wanted as .csv, too."""
    if csv:
        result.save(output, overwrite=True, csv=True)
        result = type(result).load(output)
    KEPT.set(f"the results are in {output}; what comes after them, such as a picture, may be missing")
    print(f"written to {output}")
    return result


@contextmanager
def readers_may_leave() -> Iterator[None]:
    """Whoever reads standard output, such as `head`, may close it: what is measured is written all the same."""
    whole = sys.stdout
    sys.stdout = _Patient(whole)
    try:
        yield
    finally:
        sys.stdout = whole


class _Patient:
    """A stream that is silent once nobody reads it."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        try:
            n = self._stream.write(text)
            self._stream.flush()
        except BrokenPipeError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), self._stream.fileno())
            n = len(text)
        return int(n)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def complain(message: str) -> None:
    """A line on standard error."""
    print(f"memorization: {message}", file=sys.stderr)


def draw(result: "Result", output: Path, formats: Sequence[str] = FORMATS, named: str | None = None) -> None:
    """Write every picture of a result into a folder; one that there is nothing for is a line on standard error.

    Args:
        result: of any kind that has pictures.
        output: a folder that is there.
        formats: of png, pdf and svg.
        named: name of the first picture in place of its own; others are called `named`-NAME.
    """
    drawn = pictures(result)
    first = next(iter(drawn))
    for name, picture in drawn.items():
        if named is not None:
            name = named if name == first else f"{named}-{name}"
        try:
            figure = picture()
        except InputError as error:
            complain(f"no picture {name}: {error}")
            continue
        save_picture(figure, output / name, formats)


def save_picture(drawn: "Figure | Axes", path: Path, formats: Sequence[str] = FORMATS) -> None:
    """Write a picture in these formats, say where, and close it.

    Args:
        drawn: a figure, or one of its axes.
        path: of the picture, without the ending of a format or with one.
        formats: of png, pdf and svg.
    """
    import matplotlib.pyplot as plt

    stem = path.with_suffix("") if path.suffix.lower().removeprefix(".") in FORMATS else path
    files = {one: stem.with_name(f"{stem.name}.{one}") for one in formats}
    figure: Any = getattr(drawn, "figure", None) or drawn
    for line in (line for ax in figure.axes for line in ax.lines):
        if len(line.get_xdata()) > MOST_MARKS:  # 10,000 samples would make a file of megabytes that viewers draw slowly
            line.set_rasterized(True)
    # Text stays text, to be searched, copied and edited; and the same picture is the same file.
    with plt.rc_context({"svg.fonttype": "none", "svg.hashsalt": "memorization", "pdf.fonttype": 42}):
        for one, file in files.items():
            undated = {"svg": {"Date": None}, "pdf": {"CreationDate": None}}.get(one)
            figure.savefig(file, dpi=DPI, metadata=undated)
    plt.close(figure)
    others = " and ".join(f".{one}" for one in formats[1:])
    print(f"picture: {files[formats[0]]}" + (f", also as {others}" if others else ""))


def most_memorized(result: "Memorization", n_shown: int = 5) -> str:
    """The samples with most memU, a line each."""
    from memorization.results import quoted, visible

    rows = []
    for row in result.top(n_shown).to_dict("records"):
        named = f", id {visible(row['id'], 40)}" if "id" in row else ""
        named += f", {row['copies']} equal ones" if row["copies"] > 1 else ""
        shown = f"  {quoted(row['preview'])}" if row.get("preview") else ""
        bits = f"{row['target_bits']:>9.2f} under the target, {row['oracle_bits']:>9.2f} under the oracle"
        rows.append(f"    sample {row['sample']:>7}{named}: memU {row['bits']:>9.2f} bits; {bits}{shown}")
    return "\n".join(["  most memorized (sample: its row in the data, counted from 0)", *rows])
