"""The command line: parse, call one public function, print and write."""

import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import typer

from memorization.cli import lab, law, models
from memorization.cli.output import BAD_INPUT, INTERRUPTED, NOT_WRITTEN, complain
from memorization.errors import InputError, MeasurementWarning, ModelError, ResultError

app = typer.Typer(
    help="Say in exact bits what a language model knows about a text, and what of that it merely memorized.",
    epilog="--debug, anywhere on the line, shows the traceback of an error.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
mi_law = typer.Typer(
    help="How well membership can be inferred from the sizes of data set and model: the scaling law of its F1.",
    no_args_is_help=True,
)
mi_law.command("fit")(law.fit)
mi_law.command("predict")(law.predict)
app.command()(models.measure)
app.command()(models.bits)
app.command()(models.attack)
app.command()(models.extract)
app.command()(lab.capacity)
app.command()(lab.text_sweep)
app.add_typer(mi_law, name="mi-law")
app.command()(lab.quickstart)
app.command()(lab.doctor)


@contextmanager
def _readable_errors(debug: bool) -> Iterator[None]:
    """One line and an exit code in place of a traceback."""
    try:
        yield
    except (InputError, ModelError, ResultError) as error:
        if debug:
            raise
        complain(str(error))
        sys.exit(BAD_INPUT)
    except KeyboardInterrupt:
        complain("interrupted")
        sys.exit(INTERRUPTED)
    except Exception as error:
        if debug:
            raise
        complain(f"{type(error).__name__}: {error} (unexpected: run again with --debug, and report it)")
        sys.exit(NOT_WRITTEN)


def main(arguments: list[str] | None = None) -> None:
    """Run the command line; the arguments are the process's own where none are given."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    debug = "--debug" in arguments
    with _readable_errors(debug), warnings.catch_warnings():
        warnings.simplefilter("always", MeasurementWarning)
        warnings.showwarning = lambda message, *_, **__: complain(f"warning: {message}")
        app([argument for argument in arguments if argument != "--debug"], prog_name="memorization")
