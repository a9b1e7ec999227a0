"""The README and the documentation: every Python block runs, every command exists, printed outputs have the shape shown.

    python tests/test_docs.py FOLDER [PAGE ...]

runs `memorization quickstart` in FOLDER, which is made, and writes what the blocks really print into the pages.
"""

import contextlib
import io
import os
import re
import shlex
import sys
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import typer

from memorization.cli import app, main
from memorization.errors import NotConvergedWarning

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
# A fence, perhaps marked in the line before as not to be run, with the reason.
FENCE = re.compile(
    r"^(?:<!-- not run: (?P<reason>[^\n]+?) -->\n)?```(?P<language>\w*)\n(?P<body>.*?)^```$", re.MULTILINE | re.DOTALL
)
NUMBER = re.compile(r"[-+−]?\d+(?:,\d{3})*(?:\.\d+)?(?:e[-+]?\d+)?")
VARIES = {"doctor"}  # versions and devices are the machine's


@dataclass(frozen=True)
class Block:
    """A fenced block of a page, and the `text` block that shows its output, if that is what comes next."""

    language: str
    body: str
    reason: str | None
    output: str | None
    output_span: tuple[int, int] | None


def blocks(page: str) -> list[Block]:
    fences = list(FENCE.finditer(page))
    found = []
    for fence, after in zip(fences, [*fences, None][1:], strict=True):
        follows = after is not None and after["language"] == "text" and not page[fence.end() : after.start()].strip()
        found.append(
            Block(
                fence["language"],
                fence["body"],
                fence["reason"],
                after["body"] if follows and after is not None else None,
                after.span("body") if follows and after is not None else None,
            )
        )
    return found


def console(body: str) -> list[tuple[str, str]]:
    """Commands of a console block, as they stand there, each with the output shown below it."""
    return re.findall(r"^\$ ((?:.*\\\n)*.*)\n((?:(?!\$ ).*\n)*)", body, re.MULTILINE)


def words_of(command: str) -> list[str]:
    """Words of a command that may go over several lines."""
    return shlex.split(command.replace("\\\n", " "), comments=True)


def run_python(body: str, namespace: dict[str, Any]) -> str:
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(io.StringIO()), warnings.catch_warnings():
        warnings.simplefilter("ignore", NotConvergedWarning)  # what is trained for a page is trained for seconds
        exec(compile(body, "<documentation>", "exec"), namespace)
    return printed.getvalue()


@cache
def run_command(command: str) -> str:
    """What a `memorization` command prints. A mistake prints on stderr, which is shown then."""
    printed, complained = io.StringIO(), io.StringIO()
    failed = False
    with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(complained):
        try:
            main(words_of(command)[1:])
        except SystemExit as end:
            failed = bool(end.code)
    message = [line for line in complained.getvalue().splitlines() if line.startswith("memorization:")]
    return "\n".join([*message, ""]) if failed else printed.getvalue()


def skeleton(output: str) -> str:
    """An output without its numbers and its spacing."""
    return " ".join(NUMBER.sub("#", output).split())


def commands(page: str) -> Iterator[list[str]]:
    for block in blocks(page):
        if block.language == "console":
            lines = [command for command, _ in console(block.body)]
        elif block.language == "sh":
            lines = block.body.replace("\\\n", " ").splitlines()
        else:
            continue
        yield from filter(None, map(words_of, lines))


def leaves(group: Any) -> Iterator[Any]:
    """The commands of a group and of the groups in it."""
    for command in group.commands.values():
        yield from leaves(command) if hasattr(command, "commands") else [command]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The folder in which a reader has run `memorization quickstart`, with models that were trained for one step."""
    from memorization.lab import quickstart

    before, place = Path.cwd(), tmp_path_factory.mktemp("reader")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(quickstart, "TARGET", replace(quickstart.TARGET, steps=1))
        patch.setattr(quickstart, "ORACLE", replace(quickstart.ORACLE, steps=1))
        os.chdir(place)
        run_command.cache_clear()
        run_command("memorization quickstart")
        yield place
        os.chdir(before)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_python_blocks_run_and_print_what_is_shown(page: Path, folder: Path) -> None:
    namespace: dict[str, Any] = {}
    for block in blocks(page.read_text(encoding="utf-8")):
        if block.language == "python" and block.reason is None:
            printed = run_python(block.body, namespace)
            if block.output is not None:
                assert skeleton(printed) == skeleton(block.output), block.body


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_console_blocks_print_what_is_shown(page: Path, folder: Path) -> None:
    found, namespace = blocks(page.read_text(encoding="utf-8")), {}
    writes_files = any(".to_csv(" in block.body for block in found)  # which the page's commands read
    for block in found:
        if writes_files and block.language == "python" and block.reason is None:
            run_python(block.body, namespace)
        if block.language != "console" or block.reason is not None:
            continue
        for command, shown in console(block.body):
            words = command.split()
            if words[0] == "memorization" and words[1] not in VARIES:
                assert skeleton(run_command(command)) == skeleton(shown), command


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_commands_exist_and_their_options_parse(page: Path) -> None:
    targets = set(re.findall(r"^([a-z-]+[0-9]*):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    group: Any = typer.main.get_command(app)
    for words in commands(page.read_text(encoding="utf-8")):
        if words[0] == "make":
            assert set(words[1:]) <= targets, words
        elif words[0] == "memorization":
            command, rest = group, words[1:]
            while hasattr(command, "commands"):
                command, rest = command.commands[rest[0]], rest[1:]
            command.make_context(words[1], rest)
        elif words[0] == "python" and words[1].endswith(".py"):
            assert (ROOT / words[1]).is_file(), words


def test_every_option_that_cli_md_names_exists_and_the_other_way_round() -> None:
    group: Any = typer.main.get_command(app)
    exist = {option for command in leaves(group) for found in command.params for option in found.opts}
    page = (ROOT / "docs" / "cli.md").read_text(encoding="utf-8")
    named = set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", page)) - {"--debug", "--help"}
    assert named == {option for option in exist if option.startswith("--")}  # arguments have no dashes


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_fence_is_understood(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    known = {"python", "console", "sh", "text", "bibtex"}
    assert {block.language for block in blocks(text)} <= known
    assert len(re.findall(r"^```", text, re.MULTILINE)) == 2 * len(blocks(text))


def test_the_readme_begins_with_eight_lines_that_assert_something() -> None:
    first = next(block for block in blocks(PAGES[0].read_text(encoding="utf-8")) if block.language == "python")
    lines = [line for line in first.body.splitlines() if line.strip()]
    assert len(lines) == 8
    assert lines[-1].startswith("assert ")


def _write_outputs(page: Path) -> None:
    """Run the blocks of a page for real and put their outputs where the page shows them."""
    text, namespace = page.read_text(encoding="utf-8"), {}
    replacements = []
    for block in blocks(text):
        if block.language == "python" and block.reason is None:
            printed = run_python(block.body, namespace)
            if block.output_span is not None:
                replacements.append((block.output_span, printed.rstrip() + "\n"))
    for fence in FENCE.finditer(text):
        if fence["language"] == "console" and fence["reason"] is None:
            shown = []
            for command, output in console(fence["body"]):
                ours = command.split()[0] == "memorization"
                shown.append(f"$ {command}\n" + (run_command(command).rstrip() + "\n" if ours else output))
            replacements.append((fence.span("body"), "".join(shown)))
    for (start, end), new in sorted(replacements, reverse=True):
        text = text[:start] + new + text[end:]
    page.write_text(text, encoding="utf-8")
    print(f"written: {page}")


if __name__ == "__main__":
    chosen = [Path(name).resolve() for name in sys.argv[2:]] or PAGES
    Path(sys.argv[1]).mkdir(exist_ok=True)
    os.chdir(sys.argv[1])
    run_command("memorization quickstart")
    for written in chosen:
        _write_outputs(written)
