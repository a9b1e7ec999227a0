"""The command line's own words: old names of options, errors that speak of options, what Ctrl-C leaves behind."""

import logging
import os
import re
import shlex
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup

from memorization.cli.output import INTERRUPTED, KEPT, complain
from memorization.errors import InputError, MeasurementWarning, ModelError, ResultError

__all__ = ["ARGUMENTS", "OLD_OPTIONS", "OLD_POSITIONS", "Command", "Group", "in_options"]

# Options of version 0.1.0 by command, and what each is called now. They go with the next version.
OLD_OPTIONS = {
    "bits": {"--model": "--target", "--tokenizer": "--target-tokenizer", "--revision": "--target-revision"},
    "attack": {"--members": "--data", "--nonmembers": "--control"},
    "extract": {
        "--model": "--target",
        "--heldout": "--control",
        "--tokenizer": "--target-tokenizer",
        "--revision": "--target-revision",
    },
}
OLD_POSITIONS = {"fit": "--runs"}
# Arguments that no parameter of a command is named after, and the option that sets them there.
_OF_SAVING = {"overwrite": "--overwrite"}  # of the command that saves a damaged result again
ARGUMENTS = {
    "show": _OF_SAVING,
    "plot": _OF_SAVING,
}
# Words of plain English as well: options only where a value follows at once.
_PLAIN_WORDS = ("samples", "target", "oracle", "model", "control", "output", "data", "runs", "law", "params", "tokens")
# What --quiet tells the libraries below us, which read it when they are loaded.
_QUIET = {
    "TQDM_DISABLE": "1",
    "TRANSFORMERS_VERBOSITY": "error",
    "HF_HUB_VERBOSITY": "error",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
}


class Group(TyperGroup):
    """A group of commands, whose own flags need no conversion: that alone would double the time that help takes."""

    def get_params(self, ctx: Any) -> list[Any]:
        """As they are, but that a flag which was not given is False already, where None would be converted."""
        params = super().get_params(ctx)
        for param in params:
            if getattr(param, "is_flag", False) and param.default is None:
                param.default = False
        return params


class Command(TyperCommand):
    """A command that takes options by their old names, and whose errors name options in place of Python's arguments."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Old names are replaced, with a sentence about it; an option that takes one value is refused a second one."""
        if ctx.resilient_parsing:
            return super().parse_args(ctx, args)
        args = self._with_todays_names(args)
        self._refuse_missing(ctx, args)
        return super().parse_args(ctx, args)

    def invoke(self, ctx: Any) -> Any:
        """Run the command: errors and warnings in its own words, and one line where the user interrupts it."""
        quiet, kept = bool(ctx.params.get("quiet")), KEPT.set("nothing was written")
        try:
            with _libraries_silent(quiet), self._warnings(quiet):
                return super().invoke(ctx)
        except (InputError, ModelError, ResultError) as error:
            error.args = (self.in_own_words(str(error)), *error.args[1:])
            raise
        except KeyboardInterrupt:
            complain(f"interrupted: {KEPT.get()}.")
            raise typer.Exit(INTERRUPTED) from None
        finally:
            KEPT.reset(kept)

    def in_own_words(self, message: str) -> str:
        """A message of the library, with this command's options in place of arguments."""
        own = {param.name: param.opts[0] for param in self.params if param.name and param.opts[0].startswith("--")}
        flags = {param.opts[0] for param in self.params if getattr(param, "is_flag", False)}
        return in_options(message, {**ARGUMENTS.get(self.name or "", {}), **own}, flags)

    @contextmanager
    def _warnings(self, quiet: bool) -> Iterator[None]:
        """Warnings as lines on standard error; --quiet leaves those of the measurement."""
        with warnings.catch_warnings():
            if quiet:
                warnings.simplefilter("ignore")
            warnings.simplefilter("always", MeasurementWarning)
            warnings.showwarning = lambda message, *_, **__: complain(f"warning: {self.in_own_words(str(message))}")
            yield

    def _refuse_missing(self, ctx: Any, args: list[str]) -> None:
        """The parser's own error, before it loads what converts values: that takes longer than all the rest."""
        typed, _, _ = self.make_parser(ctx).parse_args(args=list(args))
        for param in self.params if "help" not in typed else ():
            if param.required and typed.get(param.name) is None:
                kind = param.param_type_name
                ctx.fail(f"Missing {kind} '{param.opts[0] if kind == 'option' else param.metavar}'.")

    def _with_todays_names(self, args: Sequence[str]) -> list[str]:
        """The words typed, with today's names of options."""
        old, position = OLD_OPTIONS.get(self.name or "", {}), OLD_POSITIONS.get(self.name or "")
        of_name = {name: param for param in self.params for name in param.opts}
        words, given, rest = list[str](), set[str](), list(args)
        while rest:
            typed, equals, value = rest.pop(0).partition("=")
            if position is not None and not typed.startswith("-"):
                complain(f"write {position} before {typed}; without it, this goes with the next version.")
                rest.insert(0, f"{position}={typed}{equals}{value}")
                continue
            name = old.get(typed, typed)
            if name != typed:
                complain(f"{typed} is now {name}; the old name goes with the next version.")
            words.append(f"{name}{equals}{value}")
            param: Any = of_name.get(name)
            if param is None or getattr(param, "is_flag", False):
                continue
            if name in given and not param.multiple:
                raise InputError(f"{name} was given twice, and {self.name} takes one. Leave one out.")
            given.add(name)
            if not equals:
                words += [rest.pop(0)] if rest else []
        return words


def in_options(message: str, options: Mapping[str, str], flags: set[str]) -> str:
    """A message with each of Python's arguments replaced by its option: `max_length=8` by `--max-length 8`.

    What stands in quotes is the user's own, and stays.

    Args:
        message: an error or a warning.
        options: option of each argument.
        flags: options that take no value.
    """

    def with_value(found: re.Match[str]) -> str:
        option, value = options[found["name"]], found["value"]
        if option in flags or value in (None, "True"):
            return option
        bare = value.strip("\"'")
        return f"{option} {bare if bare == shlex.quote(bare) else value}"

    def alone(found: re.Match[str]) -> str:
        return options[found["name"]]

    any_of, long, short = (
        "|".join(sorted(map(re.escape, names), key=len, reverse=True)) or "(?!)"
        for names in (
            options,
            [name for name in options if "_" in name],
            [name for name in options if "_" not in name and name not in _PLAIN_WORDS],
        )
    )
    before, after = r"(?<![\w./\\'\"-])", r"(?![\w/\\'\"=(]|\.\w)"
    value = r"\"[^\"]*\"|'[^']*'|\[[^\]]*\]|[\w.:+-]*\w"
    message = re.sub(rf"`(?P<name>{any_of})`", alone, message)
    message = re.sub(rf"{before}(?P<name>{any_of})=(?P<value>{value})?", with_value, message)
    message = re.sub(rf"{before}(?P<name>{long}){after}", alone, message)
    message = re.sub(rf"(?:^|(?<=[.:;] ))(?P<name>{short})(?= must )", alone, message)
    return re.sub(r"(--[\w-]+ must be )None or ", r"\1", message)  # no option is None: one leaves it out


@contextmanager
def _libraries_silent(quiet: bool) -> Iterator[None]:
    """Other libraries stay silent below an error while the block runs, unless the user's environment says otherwise."""
    if not quiet:
        yield
        return
    added = {name: value for name, value in _QUIET.items() if name not in os.environ}
    logged = logging.root.manager.disable
    os.environ.update(added)
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(logged)
        for name in added:
            os.environ.pop(name, None)
