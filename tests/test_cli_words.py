"""The command line's words: one name for one thing, old names, help that says what it says, errors, Ctrl-C, progress."""

import ast
import json
import logging
import math
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

import memorization
from memorization import CodeLengths, cli
from memorization.cli.words import OLD_OPTIONS, Command, in_options
from memorization.lab import quickstart
from memorization.membership import MembershipAudit
from memorization.progress import Bar, progress_bar

PACKAGE = Path(memorization.__file__).parent
TEXTS = ["The house met again.", "How many bits does it take?", "Fellow citizens of the senate:"]
UNSEEN = ["The next day the senate met.", "What nobody has written before.", "It may give it back once."]


def commands() -> dict[str, Any]:
    """Every command by the words that call it."""
    group: Any = typer.main.get_command(cli.app)
    found: dict[str, Any] = {}
    for name, command in group.commands.items():
        found |= {f"{name} {inner}": each for inner, each in getattr(command, "commands", {}).items()} or {
            name: command
        }
    return found


COMMANDS = commands()


def run(*arguments: object) -> int:
    """Exit code of a command line."""
    with pytest.raises(SystemExit) as stop:
        cli.main([str(argument) for argument in arguments])
    return int(stop.value.code or 0)


@pytest.fixture
def data(tmp_path) -> Path:
    path = tmp_path / "data.txt"
    path.write_text("\n".join(TEXTS) + "\n")
    return path


@pytest.fixture
def control(tmp_path) -> Path:
    path = tmp_path / "control.txt"
    path.write_text("\n".join(UNSEEN) + "\n")
    return path


# --- one vocabulary


def test_the_same_thing_has_the_same_option_in_every_command():
    options = {name: {param.opts[0] for param in command.params} for name, command in COMMANDS.items()}
    for name in ("measure", "bits", "attack", "extract"):
        assert {"--target", "--data", "--output", "--overwrite", "--quiet", "--limit", "--device"} <= options[name]
        assert {"--target-tokenizer", "--target-revision", "--text-column", "--first-token"} <= options[name]
    for name in ("measure", "attack", "extract"):
        assert "--control" in options[name]
    for name in ("measure", "attack", "text-sweep"):
        assert "--oracle" in options[name]
    every = set().union(*options.values())
    assert not every & {"--model", "--members", "--nonmembers", "--heldout", "--samples", "--revision"}
    assert {option for option in every if not option.startswith("--")} == {"folder"}  # nothing else by position


def test_an_option_of_several_commands_is_of_one_type():
    kinds: dict[str, set[tuple[bool, bool]]] = {}
    for command in COMMANDS.values():
        for param in command.params:
            kinds.setdefault(param.opts[0], set()).add((getattr(param, "is_flag", False), param.name == "steps"))
    assert not [option for option, kind in kinds.items() if len(kind) > 1]


@pytest.mark.parametrize(
    ("command", "old", "new"), [(command, *names) for command, all_ in OLD_OPTIONS.items() for names in all_.items()]
)
def test_old_names_stand_for_options_that_exist_and_show_nowhere(command, old, new, capsys):
    assert new in {param.opts[0] for param in COMMANDS[command].params}
    assert run(command, "--help") == 0
    assert not re.search(rf"{old}\b", capsys.readouterr().out)


def test_old_names_work_and_say_the_new_ones(model_folder, data, control, tmp_path, capsys):
    old = ["--target", model_folder, "--members", data, f"--nonmembers={control}", "--quiet"]
    assert run("attack", *old, "--output", tmp_path / "old") == 0
    errors = capsys.readouterr().err.splitlines()
    assert "memorization: --members is now --data; the old name goes with the next version." in errors
    assert "memorization: --nonmembers is now --control; the old name goes with the next version." in errors
    new = ["--target", model_folder, "--data", data, "--control", control, "--quiet"]
    assert run("attack", *new, "--output", tmp_path / "new") == 0
    assert "old name" not in capsys.readouterr().err
    scores = [MembershipAudit.load(tmp_path / which).attacks["loss"].member_scores for which in ("old", "new")]
    assert scores[0].tolist() == scores[1].tolist()


def test_bits_takes_its_old_names(model_folder, data, capsys):
    assert run("bits", "--model", model_folder, "--tokenizer", model_folder, "--data", data, "--quiet") == 0
    assert capsys.readouterr().err.count("the old name goes with the next version") == 2


def test_a_value_that_looks_like_an_old_name_stays(model_folder, data, capsys):
    assert run("bits", "--target", model_folder, "--data", data, "--text-column", "--model", "--quiet") == 0
    assert "is now" not in capsys.readouterr().err


def test_the_position_of_the_runs_works_and_says_the_option(tmp_path, capsys):
    assert run("mi-law", "fit", tmp_path / "missing.csv", "--output", tmp_path / "law") == 2
    errors = capsys.readouterr().err
    assert f"write --runs before {tmp_path / 'missing.csv'}" in errors
    assert "missing.csv cannot be read as a CSV file" in errors


@pytest.mark.parametrize("second", ["--data", "--members"])
def test_an_option_that_takes_one_value_is_refused_a_second_one(model_folder, data, control, second, capsys):
    arguments = ["--target", model_folder, "--data", data, "--control", control, "--output", "out"]
    assert run("attack", *arguments, second, control) == 2
    assert "--data was given twice, and attack takes one. Leave one out." in capsys.readouterr().err


# --- start: help, version and errors of the parser need nothing but the parser

HEAVY = {"torch", "transformers", "pandas", "scipy", "datasets", "matplotlib", "pyarrow", "numpy", "jaxtyping"}
ALL_CALLS = """
import contextlib, io, json, sys
from memorization.cli import main
heavy, loaded = set(json.loads(sys.argv[1])), {}
for call in json.loads(sys.argv[2]):
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        try:
            main(call)
        except SystemExit as stop:
            loaded[" ".join(call)] = [stop.code, sorted(heavy & set(sys.modules))]
print(json.dumps(loaded))
"""


def loaded_by(calls: list[list[str]], modules: set[str]) -> dict[str, list[Any]]:
    """Exit code of each call, and those of the modules that are there after it; all in one fresh process."""
    command = [sys.executable, "-c", ALL_CALLS, json.dumps(sorted(modules)), json.dumps(calls)]
    return json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def test_help_version_and_errors_of_the_parser_load_nothing_heavy():
    calls, wrong = [["--help"], ["--version"], ["mi-law", "--help"]], [[], ["nonsense"], ["mi-law"], ["--nonsense"]]
    for name, command in COMMANDS.items():
        calls += [[*name.split(), "--help"]]
        wrong += [[*name.split(), "--nonsense"]]
        wrong += [name.split()] if any(param.required for param in command.params) else []
    # What converts values is loaded where values are converted, and takes as long as the parser.
    loaded = loaded_by([*calls, *wrong], {*HEAVY, "pydantic"})
    assert loaded == {" ".join(call): [2 if call in wrong else 0, []] for call in [*calls, *wrong]}
    assert len(loaded) > 3 * len(COMMANDS)


def test_values_that_the_parser_refuses_load_nothing_heavy():
    calls = []
    for name, command in COMMANDS.items():
        given = [word for param in command.params if param.required for word in (*param.opts[:1], "1")]
        given = [word for word in given if word != "folder"]  # by position
        bad = [param.opts[0] for param in command.params if param.type_descriptor.annotation in (int, int | None)]
        calls += [[*name.split(), *given, option, "many"] for option in bad[:1]]
    loaded = loaded_by(calls, HEAVY)
    assert len(loaded) > len(COMMANDS) / 2
    assert loaded == {" ".join(call): [2, []] for call in calls}


MOST_OF_THE_PARSER = 3  # times what importing the parser costs; with numpy it is 4, with torch 30


@pytest.mark.parametrize("arguments", [["--help"], ["measure", "--help"], ["bits"]])
def test_the_start_costs_little_more_than_the_parser(arguments):
    """CPU seconds of fresh processes in turn, the least of up to five of each."""
    calls = [["-c", "import typer"], ["-m", "memorization", *arguments]]
    least = [math.inf, math.inf]
    for _ in range(5):
        for which, call in enumerate(calls):
            before = os.times()
            subprocess.run([sys.executable, *call], capture_output=True)
            after = os.times()
            used = after.children_user - before.children_user + after.children_system - before.children_system
            least[which] = min(least[which], used)
        print(f"import typer {least[0]:.2f} s, memorization {' '.join(arguments)} {least[1]:.2f} s")
        if least[1] <= MOST_OF_THE_PARSER * least[0]:
            break
    assert least[1] <= MOST_OF_THE_PARSER * least[0]


# --- help, version, completion


@pytest.mark.parametrize("name", COMMANDS)
@pytest.mark.parametrize("asked", ["--help", "-h"])
def test_help_shows_every_option_its_whole_text_and_its_default(name, asked, capsys):
    assert run(*name.split(), asked) == 0
    shown = " ".join(capsys.readouterr().out.split())
    command = COMMANDS[name]
    assert " ".join(command.help.split()) in shown
    for param in command.params:
        assert " ".join(param.help.split()) in shown, param.name
        assert (param.opts[0] if param.opts[0].startswith("--") else param.opts[0].upper()) in shown
        if getattr(param, "is_flag", False):
            assert f"{param.opts[0]} <" not in shown  # a flag takes no value
        elif param.default is not None and not param.required:
            assert f"[default: {param.default}" in shown, param.name
        elif param.required:
            assert "[required]" in shown
    assert "<bool>" not in shown


@pytest.mark.parametrize("asked", [["--help"], ["-h"], ["mi-law", "-h"]])
def test_lists_of_commands_cut_nothing_short(asked, capsys):
    assert run(*asked) == 0
    shown = " ".join(capsys.readouterr().out.split())
    for name, command in COMMANDS.items():
        if name.startswith("mi-law ") == (asked[0] == "mi-law"):
            assert " ".join(command.help.split()) in shown
    assert "..." not in shown.replace("[ARGS]...", "")


def test_defaults_that_a_command_finds_are_in_its_help():
    """None as a default means that the help says what happens, or that the option is for what is else not done."""
    silent = {
        *("--control", "--target-revision", "--oracle-revision", "--limit", "--paper-row", "--steps", "--tokenizer"),
        *("--oracle", "--capacity", "--measured", "--target"),
    }
    for command in COMMANDS.values():
        for param in command.params:
            if param.default is None and not param.required and not getattr(param, "is_flag", False):
                assert "[default: " in param.help or param.opts[0] in silent, param.opts[0]


def test_without_a_command_the_help_is_shown_and_the_exit_code_is_2(capsys):
    assert run() == 2
    assert "Commands:" in capsys.readouterr().err


def test_version(capsys):
    assert run("--version") == 0
    assert capsys.readouterr().out == f"lm-memorization {memorization.__version__}\n"


def complete(line: str) -> list[str]:
    """What bash is offered after a line."""
    words = line.split(" ")
    asked = {
        "_MEMORIZATION_COMPLETE": "complete_bash",
        "COMP_WORDS": line,
        "COMP_CWORD": str(len(words) - 1),
    }
    done = subprocess.run(
        [sys.executable, "-m", "memorization.cli"], env={**os.environ, **asked}, capture_output=True, text=True
    )
    return done.stdout.split()


def test_the_shell_completes_commands_options_and_values():
    assert "text-sweep" in complete("memorization te")
    assert {"--target", "--target-tokenizer"} <= set(complete("memorization bits --tar"))
    assert complete("memorization capacity --arch m") == ["moe", "mamba", "mlp"]


def test_the_script_for_completion_is_printed():
    done = subprocess.run(
        [sys.executable, "-m", "memorization.cli", "--show-completion"],
        env={**os.environ, "SHELL": "/bin/bash", "_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION": ""},
        capture_output=True,
        text=True,
    )
    assert "_MEMORIZATION_COMPLETE" in done.stdout or "not supported" in done.stderr.lower()


# --- errors


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--targte", "x"], r"No such option: --targte.*`memorization bits --help` lists the options\."),
        (["--limit", "many"], r"Invalid value for '--limit': .*"),
        (["--limit"], r"Option '--limit' requires an argument\..*"),
        (["--limit", "0"], r"--limit must be .*at least 1; .*0.*"),
        (["--batch-size", "0"], r"--batch-size must be .*"),
        (["--batch-size", "many"], r"--batch-size must be auto or a number; it is 'many'\."),
        (["--stride", "0"], r"--stride must .*"),
        (["--max-length", "100000"], r"--max-length 100000 is more than .*"),
        (["--first-token", "nothing-like-it"], r"--first-token .*nothing-like-it.* is neither .*"),
        (["--dtype", "float17"], r"--dtype must be .*"),
        (["--device", "cuda:77"], r"--device cuda:77 cannot be used here.*"),
    ],
)
def test_errors_name_the_option(options, message, model_folder, data, capsys, monkeypatch):
    monkeypatch.setattr("jaxtyping.config.jaxtyping_disable", True)  # as where the library is used
    assert run("bits", "--target", model_folder, "--data", data, "--quiet", *options) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert re.fullmatch(f"memorization: {message}\n", captured.err), captured.err


def test_numbers_of_samples_are_no_multiples(tmp_path, capsys):
    """--multiple says how large data sets are beside the capacity; the error speaks of their samples."""
    model = ["--arch", "mlp", "--layers", "1", "--width", "4", "--vocab-size", "16", "--seq-len", "4"]
    assert run("capacity", *model, "--multiple", "0.1", "--output", tmp_path / "out", "--quiet") == 2
    said = capsys.readouterr().err
    assert re.search(r"data sets of \d+ samples are too few for a plateau: .* more: pass larger --multiple\.", said)


def test_a_missing_option_is_named(capsys):
    assert run("bits") == 2
    assert "Missing option '--target'" in capsys.readouterr().err


def test_the_column_is_named_by_its_option(model_folder, tmp_path, capsys):
    (tmp_path / "data.csv").write_text("txt\nThe house met.\n")
    assert run("bits", "--target", model_folder, "--data", tmp_path / "data.csv") == 2
    errors = capsys.readouterr().err
    assert "--text-column" in errors
    assert "text_column" not in errors


def test_a_control_beside_saved_code_lengths_is_refused_in_the_words_of_the_command(
    model_folder, data, control, tmp_path, capsys
):
    saved = tmp_path / "saved"
    assert run("bits", "--target", model_folder, "--data", data, "--output", saved, "--quiet") == 0
    arguments = ["--target", model_folder, "--oracle", saved, "--data", data, "--output", tmp_path / "out"]
    assert run("measure", *arguments, "--control", control) == 2
    assert "--control is measured under both models, and --oracle came as saved code lengths" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("message", "translated"),
    [
        ("Name the column with text_column.", "Name the column with --text-column."),
        ("pass allow_pickle=True.", "pass --allow-pickle."),
        ('Pass on_lossy_text="skip" to leave', "Pass --skip-lossy to leave"),
        ('try dtype="float32".', "try --dtype float32."),
        ('Pass first_token="<|endoftext|>", or', 'Pass --first-token "<|endoftext|>", or'),
        ("max_length=128 is more", "--max-length 128 is more"),
        ("stride must lie in [1, max_length] = [1, 8]", "--stride must lie in [1, --max-length] = [1, 8]"),
        ("limit must be at least 1", "--limit must be at least 1"),
        ("limit must be None or an integer", "--limit must be an integer"),
        ("as `tokenizer`, or", "as --target-tokenizer, or"),
        ("it has no column 'text_column'", "it has no column 'text_column'"),
        ("there is no file a/text_column.csv", "there is no file a/text_column.csv"),
        ("there is no file text_column.csv", "there is no file text_column.csv"),
        ("the model must be causal; the limit is 8", "the model must be causal; the limit is 8"),
        ("my_text_column and text_columns", "my_text_column and text_columns"),
    ],
)
def test_arguments_are_put_into_options(message, translated):
    assert COMMANDS["bits"].in_own_words(message) == translated


# Modules whose errors a command can raise, by command.
READING = ("files.py", "samples.py", "measure/", "coding/")
REACHED = {
    "bits": READING,
    "measure": (*READING, "unintended/"),
    "attack": (*READING, "membership/"),
    "extract": (*READING, "extraction/"),
    "capacity": ("lab/capacity/", "lab/stack.py", "lab/store.py", "capacity/"),
    "text-sweep": ("lab/text/", "lab/stack.py", "lab/store.py"),
    "mi-law fit": ("scaling_law/",),
}
# Arguments of Python's own that no command can set: what their messages say cannot come up there.
PYTHONS_OWN = {
    *("baseline", "store", "progress", "k_percent", "seed", "interval", "level", "n_params", "ids", "weights"),
    *("builders", "build_oracle", "budget_seconds", "context"),
}


def messages(path: Path) -> Iterator[tuple[int, str]]:
    """The messages that a file raises or warns of, values as {}."""

    def text(node: ast.AST) -> str:
        if isinstance(node, ast.Constant):
            return node.value if isinstance(node.value, str) else ""
        if isinstance(node, ast.JoinedStr):
            return "".join(text(part) if isinstance(part, ast.Constant) else "7" for part in node.values)
        if isinstance(node, ast.BinOp):
            return text(node.left) + text(node.right)
        return ""

    inner: set[int] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call):
            name = getattr(node.func, "id", getattr(node.func, "attr", ""))
            if name.endswith(("Error", "Warning")) or name == "warn":
                for argument in node.args:
                    inner |= {id(each) for each in ast.walk(argument)} - {id(argument)}
                    yield node.lineno, text(argument)


@pytest.mark.parametrize("command", REACHED)
def test_no_message_that_reaches_a_command_names_an_argument_of_python(command):
    """Neither `name=` nor a name with an underscore is left of any argument that the command sets."""
    found = []
    own = {param.name for param in COMMANDS[command].params}
    verbs = {name for each in COMMANDS.values() for name in (param.name for param in each.params)} - {"capacity_of"}
    for path in sorted(PACKAGE.rglob("*.py")):
        relative = path.relative_to(PACKAGE).as_posix()
        if not relative.startswith(REACHED[command]):
            continue
        for line, message in messages(path):
            said = COMMANDS[command].in_own_words(message)
            said = re.sub(r"'[^']*'|\w+\([^)]*\)", "", said)  # what is quoted, and calls, which are for Python
            left = set(re.findall(r"(?<![\w-])([a-z_]+)=", said)) & (own | verbs)
            left |= {name for name in re.findall(r"(?<![\w./-])([a-z]+_[a-z_]+)\b", said) if name in own}
            found += [f"{relative}:{line}: {name} in {said!r}" for name in sorted(left & own)]
    assert not found, "\n".join(found)


# --- Ctrl-C

CHILD = """
import signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)
from memorization.cli import main
main(sys.argv[1:])
"""


def interrupt(arguments: list[object], ready: Any, at_most: float = 120.0) -> tuple[int, str]:
    """Exit code and last line on standard error of a command that gets a SIGINT once it is ready."""
    started = time.monotonic()
    with subprocess.Popen(
        [sys.executable, "-c", CHILD, *map(str, arguments)], stderr=subprocess.PIPE, stdout=subprocess.DEVNULL
    ) as process:
        try:
            while not ready() and process.poll() is None and time.monotonic() - started < at_most:
                time.sleep(0.05)
            assert process.poll() is None, process.communicate()[1].decode()
            process.send_signal(signal.SIGINT)
            errors = process.communicate(timeout=60)[1].decode()
        finally:
            process.kill()
    assert "Traceback" not in errors
    return process.returncode, errors.replace("\r", "\n").strip().splitlines()[-1]


@pytest.mark.skipif(os.name != "posix", reason="sends SIGINT")
def test_ctrl_c_in_capacity_says_what_is_kept(tmp_path):
    output = tmp_path / "out"
    small = ["--vocab-size", 16, "--seq-len", 8, "--width", 2, "--peak-lr", 0.05, "--multiple", 2, "--device", "cpu"]
    arguments = ["capacity", "--output", output, *small, "--steps", 2000]
    cells = output / "runs" / "cells"  # made when the first run is finished
    code, last = interrupt([*arguments, "--quiet"], lambda: cells.exists() and any(cells.iterdir()))
    assert code == 130
    assert last == (
        f"memorization: interrupted: finished runs are kept in {output / 'runs'}, and the same command goes on from there."
    )
    assert any(cells.iterdir())
    assert not (output / "settings.json").exists()


@pytest.mark.skipif(os.name != "posix", reason="sends SIGINT")
def test_ctrl_c_in_a_measurement_says_that_nothing_was_written(model_folder, tmp_path):
    long, output = tmp_path / "long.txt", tmp_path / "out"
    long.write_text("".join(f"How many bits does it take to write {i}?\n" for i in range(200_000)))
    arguments = ["bits", "--target", model_folder, "--data", long, "--output", output, "--batch-size", 1]
    code, last = interrupt(arguments, lambda: output.exists())
    assert (code, last) == (130, "memorization: interrupted: nothing was written.")
    assert not list(output.iterdir())


def test_an_interruption_while_results_are_written_says_so(model_folder, data, tmp_path, monkeypatch, capsys):
    def save(_: object, folder: Path, **__: object) -> None:
        (folder / ".tokens.parquet-waiting").touch()
        raise KeyboardInterrupt

    monkeypatch.setattr(CodeLengths, "save", save)
    output = tmp_path / "out"
    assert run("bits", "--target", model_folder, "--data", data, "--output", output, "--quiet") == 130
    assert f"interrupted: {output} holds what it held before, or all of the new result" in capsys.readouterr().err


# --- progress


def test_quiet_leaves_nothing_on_stderr(model_folder, data):
    done = subprocess.run(
        [sys.executable, "-m", "memorization.cli", "bits", "--target", model_folder, "--data", data, "--quiet"],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0
    assert done.stderr == ""


def test_bars_are_named_and_estimate_nothing_at_the_start(capsys):
    with progress_bar(1000, "target", unit="tok") as bar:
        bar.update(1)
        bar.refresh()
        early = capsys.readouterr().err.split("\r")[-1]
    assert early.startswith("target:")
    assert "<" not in early  # no end
    assert "tok/s" not in early
    bar = Bar(total=1000, unit="tok", file=sys.stderr)
    bar.start_t -= 1000  # loading, compiling
    for _ in range(3):
        bar.update(100)
    bar.first = (time.monotonic() - 10, 100)
    bar.refresh()
    assert "20.0tok/s" in capsys.readouterr().err.split("\r")[-1].replace("20.00", "20.0")
    bar.close()


@pytest.mark.parametrize(("value", "shown"), [("1", False), ("true", False), ("0", True), ("", True), (None, True)])
def test_tqdm_disable_is_honoured(value, shown, capsys, monkeypatch):
    monkeypatch.delenv("TQDM_DISABLE", raising=False)
    if value is not None:
        monkeypatch.setenv("TQDM_DISABLE", value)
    with progress_bar(3, "oracle", unit="tok") as bar:
        bar.update(3)
    assert bool(capsys.readouterr().err) == shown


def test_the_logger_hears_of_what_was_done(caplog):
    with (
        caplog.at_level(logging.INFO, logger="memorization"),
        progress_bar(3, "oracle", unit="tok", shown=False) as bar,
    ):
        bar.update(3)
    assert re.fullmatch(r"oracle: 3 tok in \d+\.\d s", caplog.records[-1].getMessage())


def test_a_library_that_nobody_asked_is_silent():
    silent = logging.getLogger("memorization").handlers
    assert any(isinstance(handler, logging.NullHandler) for handler in silent)


# --- the command that repeats a quickstart


def test_the_printed_command_works_as_printed(tmp_path, monkeypatch):
    inside, outside = tmp_path / "bin", tmp_path / "other"
    for folder in (inside, outside):
        folder.mkdir()
        script = folder / "memorization"
        script.write_text("#!/bin/sh\n")
        script.chmod(0o755)
    monkeypatch.setattr(sys, "argv", [str(inside / "memorization"), "quickstart"])
    monkeypatch.setenv("PATH", str(inside))
    assert quickstart.command_line() == "memorization"
    for elsewhere in (str(outside), str(tmp_path / "empty")):  # another installation's, or none
        monkeypatch.setenv("PATH", elsewhere)
        assert quickstart.command_line() == str(inside / "memorization")
    monkeypatch.setattr(sys, "argv", ["notebook.py"])
    monkeypatch.setattr(sys, "executable", str(inside / "python"))
    assert quickstart.command_line() == str(inside / "memorization")
    monkeypatch.setattr(sys, "executable", str(tmp_path / "my python"))
    assert quickstart.command_line() == f"'{tmp_path / 'my python'}' -m memorization.cli"


def test_in_options_leaves_what_is_no_argument():
    assert in_options("nothing to say", {}, set()) == "nothing to say"
    assert isinstance(COMMANDS["doctor"], Command)
