"""The command line: parse, call one public function, print and write."""

import shlex
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Annotated, Any

import typer

from memorization.cli import (
    attacks,
    audit,
    capacity,
    codec,
    identifiers,
    lab,
    law,
    models,
    report,
    results,
    spans,
    track,
)
from memorization.cli.output import BAD_INPUT, INTERRUPTED, NOT_WRITTEN, TYPED, complain, readers_may_leave
from memorization.cli.words import Command, Group
from memorization.errors import InputError, ModelError, NotSavedError, ResultError


def _say_version(asked: bool) -> bool:
    if asked:
        from memorization import __version__

        print(f"lm-memorization {__version__}")
        raise typer.Exit
    return asked


def _memorization(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version.", is_eager=True, callback=_say_version)
    ] = False,
) -> None:
    """Measure texts under a language model in exact bits, and estimate what of them it merely memorized."""


def _mi_law() -> None:
    """How well membership can be inferred from the sizes of data set and model: the scaling law of its F1."""


def _group(callback: Callable[..., None], **options: Any) -> typer.Typer:
    """A group of commands, with help in plain text: markup would drop a default in square brackets as a style."""
    group = typer.Typer(
        cls=Group,
        rich_markup_mode=None,
        context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120},
        no_args_is_help=True,
        **options,
    )
    group.callback(short_help=callback.__doc__)(callback)
    return group


def _add(group: typer.Typer, *commands: Callable[..., None]) -> None:
    for command in commands:
        group.command(cls=Command, short_help=command.__doc__)(command)  # or the list of commands would cut it short


app = _group(
    _memorization,
    epilog="--debug, anywhere on the line, shows the traceback of an error.",
    pretty_exceptions_enable=False,
)
mi_law = _group(_mi_law)
_add(mi_law, law.fit, law.predict)
_add(app, audit.audit, models.measure, models.bits, attacks.attack, attacks.extract, identifiers.identifiers)
_add(app, track.track, spans.spans, capacity.capacity, lab.text_sweep)
_add(app, results.rarity, results.show, results.plot, report.report)
_add(app, codec.compress, codec.decompress)
app.add_typer(mi_law, name="mi-law")
_add(app, lab.quickstart, lab.doctor)


@contextmanager
def _readable_errors(debug: bool) -> Iterator[None]:
    """One line and an exit code in place of a traceback."""
    try:
        yield
    except (InputError, ModelError, ResultError) as error:
        if debug:
            raise
        complain(str(error))
        sys.exit(NOT_WRITTEN if isinstance(error, NotSavedError) else BAD_INPUT)
    except KeyboardInterrupt:
        complain("interrupted: nothing was written.")
        sys.exit(INTERRUPTED)
    except Exception as error:
        if type(error).__name__ == "NoArgsIsHelpError":  # the parser's own, which typer does not export
            print(error.ctx.get_help(), file=sys.stderr)  # type: ignore[attr-defined]
            sys.exit(BAD_INPUT)
        if hasattr(error, "format_message"):  # of the parser: the options themselves are wrong
            complain(_usage_error(error))
            sys.exit(BAD_INPUT)
        if debug:
            raise
        complain(f"{type(error).__name__}: {error} (unexpected: run again with --debug, and report it)")
        sys.exit(NOT_WRITTEN)


def _usage_error(error: Any) -> str:
    """What the parser says, in one line, and where the options are listed."""
    said = " ".join(error.format_message().split())
    command = error.ctx.command_path if getattr(error, "ctx", None) is not None else "memorization"
    return f"{said}{'' if said.endswith(('.', '?')) else '.'} `{command} --help` lists the options."


def main(arguments: list[str] | None = None) -> None:
    """Run the command line; the arguments are the process's own where none are given."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    debug = "--debug" in arguments
    with _readable_errors(debug), readers_may_leave():
        typed = [argument for argument in arguments if argument != "--debug"]
        TYPED.set(shlex.join(["memorization", *typed]))
        code = app(typed, prog_name="memorization", standalone_mode=False)
    sys.exit(code if isinstance(code, int) else 0)
