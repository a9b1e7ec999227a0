"""What is shipped: the files of sdist and wheel, the dependencies that are declared, and the papers that go with it."""

import ast
import importlib.util
import re
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer
from packaging.requirements import Requirement
from typer.testing import CliRunner

import memorization
from memorization.cli import app

tomllib = pytest.importorskip("tomllib")  # of Python 3.11

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
SOURCES = sorted((ROOT / "memorization").rglob("*.py"))
# Packages by what is imported of them, where the names differ.
IMPORTED_AS = {"scikit-learn": "sklearn", "lm-eval": "lm_eval"}
# Brought by what is declared, and read through it: transformers has both, in the versions that it wants.
THROUGH_OTHERS = {"huggingface_hub": "transformers", "safetensors": "transformers"}
# Packages of extras that are run, or found by others, and so imported nowhere.
RUN = {"mkdocs", "mkdocs-material", "mkdocstrings", "ruff", "mypy", "pre-commit", "nbmake", "ipykernel", "pytest-xdist"}
RUN |= {"beartype", "hatchling", "psutil"}  # named to jaxtyping, run by the tests below, asked by pytest-xdist
OF_DATA = {".xz", ".md", ".typed", ".j2", ".css", ".js"}


def names(requirements: list[str]) -> set[str]:
    return {IMPORTED_AS.get(name, name) for one in requirements if (name := Requirement(one).name)}


def third_party(file: Path) -> Iterator[tuple[str, bool]]:
    """Packages that a file imports, and whether that is done when the file itself is imported."""
    tree = ast.parse(file.read_text(encoding="utf-8"))
    at_once = {id(node) for node in tree.body}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and not node.level:
            found = [node.module or ""]
        else:
            continue
        for name in {one.split(".")[0] for one in found} - {"memorization", *sys.stdlib_module_names}:
            yield name, id(node) in at_once


def test_everything_that_is_imported_is_declared() -> None:
    needed = names(PROJECT["dependencies"])
    extras = set().union(
        *(names(PROJECT["optional-dependencies"][extra]) for extra in ("audit", "fast", "peft", "ray"))
    )
    found = set()
    for file in SOURCES:
        for name, at_once in third_party(file):
            found.add(THROUGH_OTHERS.get(name, name))
            compiled = "compiled" in file.parts  # imported by engines alone, when numba is there
            if name not in needed and THROUGH_OTHERS.get(name) not in needed:
                assert name in extras | {"datasets"}, f"{file} imports {name}, which nothing declares"
                assert not at_once or compiled, f"{file} imports {name} of an extra when it is imported itself"
    assert needed <= found, f"declared and not imported: {needed - found}"
    assert extras <= found, f"extras that nothing uses: {extras - found}"


def test_extras_are_used() -> None:
    code = [
        file for place in ("memorization", "tests", "examples", "benchmarks") for file in (ROOT / place).rglob("*.py")
    ]
    words = set(re.findall(r"\w+", " ".join(file.read_text(encoding="utf-8") for file in code)))
    for extra, requirements in PROJECT["optional-dependencies"].items():
        asked = {Requirement(one).name for one in requirements} - RUN
        unused = {name for name in asked if IMPORTED_AS.get(name, name).replace("-", "_") not in words}
        assert not unused, f"the extra {extra} brings {unused}, which nothing imports"


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if importlib.util.find_spec("hatchling") is None:
        pytest.skip("hatchling is not installed")
    folder = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "hatchling", "build", "-d", str(folder)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return folder


def tracked() -> set[str]:
    """Files of the checkout that a clone has, or that are new and not ignored."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    if done.returncode:
        pytest.skip("not a git checkout")
    return {name for name in done.stdout.splitlines() if (ROOT / name).is_file()}


def test_the_wheel_holds_the_package_and_nothing_else(built: Path) -> None:
    (wheel,) = built.glob("*.whl")
    held = set(zipfile.ZipFile(wheel).namelist())
    info = f"lm_memorization-{memorization.__version__}.dist-info"
    meta = {f"{info}/{name}" for name in ("METADATA", "WHEEL", "RECORD", "entry_points.txt", "licenses/LICENSE")}
    package = {name for name in tracked() if name.startswith("memorization/")}
    assert {"memorization/py.typed", "memorization/data/addresses_1790_1829.txt.xz"} <= package
    assert held == package | meta
    assert {Path(name).suffix for name in package} <= {".py", *OF_DATA}


def test_the_sdist_is_the_checkout(built: Path) -> None:
    (sdist,) = built.glob("*.tar.gz")
    with tarfile.open(sdist) as content:
        held = {name.split("/", 1)[1] for name in content.getnames()}
    folders = ("memorization/", "tests/", "docs/", "examples/", "benchmarks/", ".ci/")
    alone = {"CHANGELOG.md", "CITATION.cff", "CONTRIBUTING.md", "LICENSE", "Makefile", "README.md", "SECURITY.md"}
    alone |= {"constraints.txt", "mkdocs.yml", "pyproject.toml", ".gitignore"}
    assert held == {name for name in tracked() if name.startswith(folders) or name in alone} | {"PKG-INFO"}


def test_the_build_backend_is_pinned() -> None:
    pins = (ROOT / "constraints.txt").read_text(encoding="utf-8")
    assert re.search(r"^hatchling==", pins, re.MULTILINE)


def test_one_version_everywhere() -> None:
    cited = re.search(r"^version: (\S+)$", (ROOT / "CITATION.cff").read_text(encoding="utf-8"), re.MULTILINE)
    assert cited is not None
    assert cited[1] == PROJECT["version"] == memorization.__version__


def test_actions_are_pinned_by_commit() -> None:
    used = []
    for file in (ROOT / ".github" / "workflows").glob("*.yml"):
        used += re.findall(r"uses: *(\S+)(.*)", file.read_text(encoding="utf-8"))
    assert used
    for action, comment in used:
        assert re.fullmatch(r"[\w-]+/[\w-]+@[0-9a-f]{40}", action), action
        assert re.search(r"# v\d+\.\d+\.\d+$", comment), f"{action}: which release is that?"


def test_security_names_each_switch() -> None:
    told = (ROOT / "SECURITY.md").read_text(encoding="utf-8")
    for word in ("allow_pickle=True", "--allow-pickle", "trust_remote_code=True", "--trust-remote-code", "--redact"):
        assert word in told


@pytest.mark.parametrize("option", ["-h", "--help"])
def test_help_has_both_names(option: str) -> None:
    done = CliRunner().invoke(app, [option])
    assert done.exit_code == 0
    assert "--install-completion" in done.output
    assert CliRunner().invoke(app, ["measure", option]).exit_code == 0


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("memorization mea", {"measure"}),
        ("memorization measure --joi", {"--joint"}),
        ("memorization measure --joint s", {"switch"}),
        ("memorization mi-law f", {"fit"}),
    ],
)
def test_the_shell_completes(words: str, expected: set[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COMP_WORDS", words)
    monkeypatch.setenv("COMP_CWORD", str(len(words.split()) - 1))
    monkeypatch.setenv("_MEMORIZATION_COMPLETE", "complete_bash")
    done = CliRunner().invoke(app, [], prog_name="memorization")
    assert done.exit_code == 0
    assert set(done.output.split()) == expected


def test_completion_is_installed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    completion = pytest.importorskip("typer.completion")
    shell, file = completion.install(shell="bash", prog_name="memorization", complete_var="_MEMORIZATION_COMPLETE")
    assert shell == "bash"
    assert "_MEMORIZATION_COMPLETE=complete_bash" in file.read_text(encoding="utf-8")
    assert isinstance(typer.main.get_command(app).params, list)
