"""The README and the documentation: every Python block runs, every command exists, what is printed is what is shown.

Words always are, and numbers within 20 %: each of them where nothing is trained, and most of a page's where models are,
since another processor's kernels make other weights.

    python tests/test_docs.py FOLDER [PAGE ...]

runs `memorization quickstart` in FOLDER, which is made, and writes what the blocks really print into the pages.
"""

import ast
import contextlib
import importlib.util
import io
import json
import os
import re
import shlex
import shutil
import sys
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import typer

from memorization.cli import app, main
from memorization.cli.words import OLD_OPTIONS
from memorization.errors import NotConvergedWarning, WeakOracleWarning

if TYPE_CHECKING:
    from memorization.lab.quickstart import Quickstart

ROOT = Path(__file__).resolve().parents[1]
PAGES = [
    *(ROOT / f"{name}.md" for name in ("README", "CHANGELOG", "CONTRIBUTING")),
    *sorted((ROOT / "docs").rglob("*.md")),
]
# A fence, perhaps marked in the line before as not to be run, with the reason.
FENCE = re.compile(
    r"^(?:<!-- not run: (?P<reason>[^\n]+?) -->\n)?```(?P<language>\w*)\n(?P<body>.*?)^```$", re.MULTILINE | re.DOTALL
)
NUMBER = re.compile(r"[-+−]?\d+(?:,\d{3})*(?:\.\d+)?(?:e[-+]?\d+)?")
# A block that trains, or reads what `memorization quickstart` has trained. So does a block that uses names of one.
TRAINS = re.compile(
    r"\b(train|train_stack|backward|capacity_bits_per_param|compare_capacities|text_sweep|canary_dose_response)\("
    r"|\bquickstart\b|\bmemorization (capacity|text-sweep)\b"
)
REUSED = re.compile(r"^(target|oracle): trained in an earlier run with the same settings, reused\n", re.MULTILINE)
# Of what a builder's models compute, to the last digits: another processor has another.
DIGEST = re.compile(r"\b(?=[a-f]*\d)[0-9a-f]{12}\b")
TOLERANCE, MOST = 0.2, 0.75
POLICY_BROKEN = 3  # the exit code of a measurement that is whole, and that --fail-on does not let pass
# The pages are what users run, and types are not executed where they do.
pytestmark = pytest.mark.usefixtures("no_type_checker")
# Commands that are not the library's, by their first word, and why the pages' test does not run them.
ELSEWHERE = {
    "pip": "installs packages",
    "make": "CI runs the targets of the Makefile",
    "jupyter": "the tests run the notebooks",
    "python": "a script of examples/ or benchmarks/: minutes",
    "pytest": "a test of its own",
}
# Examples of docstrings that are not doctests.
NOT_DOCTESTS = {"memorization/lab/quickstart.py": "trains for half a minute; test_quickstart.py runs the same"}


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


def words_of(command: str) -> list[str]:
    """Words of a command that may go over several lines."""
    return shlex.split(command.replace("\\\n", " "), comments=True)


def run_python(body: str, namespace: dict[str, Any]) -> str:
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(io.StringIO()), warnings.catch_warnings():
        warnings.simplefilter("ignore", NotConvergedWarning)  # what is trained for a page is trained for seconds
        warnings.simplefilter("ignore", WeakOracleWarning)  # a page shows a weak oracle, and prints the verdict
        exec(compile(body, "<documentation>", "exec"), namespace)
    return printed.getvalue()


@cache
def run_command(command: str) -> str:
    """What a `memorization` command prints. A mistake prints on stderr, which is shown then."""
    printed, complained = io.StringIO(), io.StringIO()
    code: Any = 0
    with (
        contextlib.redirect_stdout(printed),
        contextlib.redirect_stderr(complained),
        pytest.MonkeyPatch.context() as patch,
    ):
        patch.setattr("memorization.lab.quickstart.command_line", lambda: "memorization")  # as where it is installed
        try:
            main(words_of(command)[1:])
        except SystemExit as end:
            code = end.code
    message = [line for line in complained.getvalue().splitlines() if line.startswith("memorization:")]
    refused = code not in (None, 0, POLICY_BROKEN)
    return "\n".join([*message, ""]) if refused else REUSED.sub("", printed.getvalue())


def runs_here(block: Block) -> bool:
    """Whether the pages' test runs a block: all Python and all of the library's commands, unless a reason is given."""
    own = block.language == "sh" and words_of(block.body)[0] == "memorization"
    return block.reason is None and (block.language == "python" or own)


def run_commands(block: Block) -> str:
    """What the commands of a block print. One whose output is not shown must succeed."""
    lines = block.body.replace("\\\n", " ").splitlines()
    printed = [run_command(line) for line in lines if words_of(line)]
    for output in printed if block.output is None else ():
        assert not output.startswith("memorization:"), output
    return "".join(printed)


def skeleton(output: str) -> str:
    """An output without its numbers and its spacing."""
    return " ".join(NUMBER.sub("#", output).split())


def same_number(printed: str, shown: str) -> bool:
    """Integers are the same; other numbers are within 20 %, or the last digit shown is off by one."""
    mine, theirs = (number.replace(",", "").replace("−", "-") for number in (printed, shown))
    mantissa, _, exponent = theirs.partition("e")
    if "." not in mantissa and not exponent:
        return float(mine) == float(theirs)
    last_digit = 10.0 ** (int(exponent or 0) - len(mantissa.partition(".")[2]))
    return abs(float(mine) - float(theirs)) <= max(TOLERANCE * abs(float(theirs)), 1.01 * last_digit)


@dataclass
class Comparison:
    """Outputs of a page against what it shows."""

    trained_names: set[str] = field(default_factory=set)
    trained_numbers: list[bool] = field(default_factory=list)

    def trains(self, body: str) -> bool:
        """Whether a Python block trains models or uses what an earlier block made with them."""
        nodes = list(ast.walk(ast.parse(body)))
        names = [node for node in nodes if isinstance(node, ast.Name)]
        made = {node.id for node in names if isinstance(node.ctx, ast.Store)}
        made |= {node.name for node in nodes if isinstance(node, ast.FunctionDef | ast.ClassDef)}
        used = {node.id for node in names if isinstance(node.ctx, ast.Load)}
        found = bool(TRAINS.search(body)) or bool(used & self.trained_names)
        self.trained_names = self.trained_names | made if found else self.trained_names - made
        return found

    def check(self, printed: str, shown: str, *, trained: bool, source: str) -> None:
        printed, shown = DIGEST.sub("(digest)", printed), DIGEST.sub("(digest)", shown)
        assert skeleton(printed) == skeleton(shown), source
        pairs = list(zip(NUMBER.findall(printed), NUMBER.findall(shown), strict=True))
        if trained:
            self.trained_numbers += [same_number(*pair) for pair in pairs]
        else:
            assert not [pair for pair in pairs if not same_number(*pair)], source

    def finish(self) -> None:
        """Seldom is a figure of a model exact: a p-value may be ten times as large, and other samples come first."""
        assert sum(self.trained_numbers) >= MOST * len(self.trained_numbers), self.trained_numbers


def commands(page: str) -> Iterator[list[str]]:
    for block in blocks(page):
        lines = block.body.replace("\\\n", " ").splitlines()
        if block.language == "yaml":  # a workflow's own keys are not ours to check
            lines = [line.strip() for line in lines if line.strip().startswith("memorization ")]
        if block.language in ("sh", "yaml"):
            yield from filter(None, map(words_of, lines))


def leaves(group: Any) -> Iterator[Any]:
    """The commands of a group and of the groups in it."""
    for command in group.commands.values():
        yield from leaves(command) if hasattr(command, "commands") else [command]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A reader's folder."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def provide_quickstart(text: str, folder: Path, request: pytest.FixtureRequest) -> None:
    """What a reader has after `memorization quickstart`, if a page asks for it."""
    if "quickstart/" in text or "memorization quickstart" in text:
        run: Quickstart = request.getfixturevalue("quickstart_run")[0]
        shutil.copytree(run.target_dir.parent, folder / "quickstart", ignore=shutil.ignore_patterns("again"))
        run_command.cache_clear()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_blocks_run_and_print_what_is_shown(page: Path, folder: Path, request: pytest.FixtureRequest) -> None:
    """Python and commands in the order of the page, in one folder, as a reader runs them."""
    found = [block for block in blocks(page.read_text(encoding="utf-8")) if runs_here(block)]
    provide_quickstart("".join(block.body for block in found), folder, request)
    namespace: dict[str, Any] = {}
    comparison = Comparison()
    for block in found:
        if block.language == "python":
            trained, printed = comparison.trains(block.body), run_python(block.body, namespace)
        else:
            trained, printed = bool(TRAINS.search(block.body)), run_commands(block)
        if block.output is not None:
            comparison.check(printed, block.output, trained=trained, source=block.body)
    comparison.finish()


def test_what_is_not_run_has_a_reason() -> None:
    """The whole list: `pytest -s -k not_run_has_a_reason tests/test_docs.py`."""
    for page in PAGES:
        for block in blocks(page.read_text(encoding="utf-8")):
            if block.language in ("python", "sh") and not runs_here(block):
                first = block.body.partition("\n")[0]
                reason = block.reason or ELSEWHERE.get(words_of(first)[0])
                assert reason, f"{page.relative_to(ROOT)}: {first}"
                print(f"{page.relative_to(ROOT)}: {first}\n    not run: {reason}")
    fenced = {
        str(source.relative_to(ROOT))
        for source in (ROOT / "memorization").rglob("*.py")
        if re.search(r"^ *```|doctest: \+SKIP", source.read_text(encoding="utf-8"), re.MULTILINE)
    }
    assert fenced == set(NOT_DOCTESTS)  # all other examples of docstrings are doctests
    for name, reason in NOT_DOCTESTS.items():
        print(f"{name}: the example of its docstring\n    not run: {reason}")


@pytest.mark.parametrize(
    ("printed", "shown", "same"),
    [
        ("0.93", "0.90", True),
        ("1.1", "0.9", False),
        ("64", "65", False),  # whole numbers are counted, not measured
        ("1,024", "1,024", True),
        ("0.02", "0.01", True),  # the last digit
        ("0.03", "0.01", False),
        ("-0.4", "0.4", False),
        ("3e-07", "2e-07", True),
        ("3e-07", "3e-06", False),
    ],
)
def test_numbers_are_compared(printed: str, shown: str, same: bool) -> None:
    assert same_number(printed, shown) == same


def test_what_a_trained_model_printed_is_known() -> None:
    comparison = Comparison()
    assert not comparison.trains("x = 1")
    assert comparison.trains("bits = text_sweep(x).bits")
    assert comparison.trains("print(bits)")
    assert comparison.trains("def again():\n    return bits")
    assert comparison.trains("print(again())")
    assert not comparison.trains("bits = 3")
    assert not comparison.trains("print(bits)")


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
    exist = {option for command in [group, *leaves(group)] for found in command.params for option in found.opts}
    page = (ROOT / "docs" / "cli.md").read_text(encoding="utf-8")
    named = set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", page)) - {"--debug", "--help"}
    old = {name for names in OLD_OPTIONS.values() for name in names}
    assert named == {option for option in exist | old if option.startswith("--")}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_fence_is_understood(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    known = {"python", "sh", "text", "bibtex", "yaml"}  # a console block would be copied with its prompts and outputs
    assert {block.language for block in blocks(text)} <= known
    assert len(re.findall(r"^```", text, re.MULTILINE)) == 2 * len(blocks(text))


def test_every_notebook_is_a_page_with_its_outputs() -> None:
    spec = importlib.util.spec_from_file_location("pages", ROOT / "examples" / "pages.py")
    assert spec is not None
    assert spec.loader is not None
    pages = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(pages)
    navigation = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    for notebook in sorted((ROOT / "examples").glob("*.ipynb")):
        assert f": examples/{notebook.stem}.md\n" in navigation
        text, pictures = pages.page(notebook)
        cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
        code = ["".join(cell["source"]).rstrip() for cell in cells if cell["cell_type"] == "code"]
        shown = blocks(text)
        assert [block.body.rstrip() for block in shown if block.language == "python"] == code
        assert sum(block.output is not None for block in shown) > 2
        drawn = [
            output for cell in cells for output in cell.get("outputs", ()) if "image/png" in output.get("data", ())
        ]
        assert len(pictures) == len(drawn) > 0
        assert set(re.findall(r"\]\((\S+\.png)\)", text)) == set(pictures)
        assert all(content.startswith(b"\x89PNG") for content in pictures.values())


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
        elif runs_here(block):
            printed = run_commands(block)
        else:
            continue
        if block.output_span is not None:
            replacements.append((block.output_span, printed.rstrip() + "\n"))
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
