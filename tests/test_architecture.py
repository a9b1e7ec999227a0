"""The house as design.md plans it: imports point down, heavy packages wait until they are needed, the public names are there."""

import ast
import importlib
import inspect
import json
import math
import re
import subprocess
import sys
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

import memorization

PACKAGE = Path(memorization.__file__).parent

# From the ground up, one name a floor: a module may import what lies lower, and nothing else outside its own package.
# Names stand for packages with all that is in them.
FLOORS = [
    "errors",
    "pictures",  # what draws, handed in by the package
    "renamed",  # names of the last version
    "progress",  # bars and the logger: for whatever takes long
    "integers",  # what counts as one, in an argument
    "stats",
    "results",
    "sharing",  # who does what of a common work
    "samples",
    "coding",
    "scaling_law",
    "capacity",
    "measure",
    "codec",
    "unintended",
    "spans",  # memU of parts of texts
    "membership",
    "rarity",
    "extraction",
    "identifiers",
    "auditing",  # all of these of one checkpoint, for people who decide
    "tracking",  # memU of the checkpoints of a run
    "data",
    "lab",
    "report",
    "memorization",  # the public names
    "cli",
    "__main__",
]
FLOOR = {name: floor for floor, name in enumerate(FLOORS)}

# What `import memorization` must not load: seconds, and hundreds of megabytes, that a measurement may never need.
LATE = ["transformers", "datasets", "pandas", "pyarrow", "scipy.optimize", "scipy.stats", "matplotlib", "ray", "typer"]


def modules() -> dict[str, Path]:
    """Every module of the package by its dotted name."""
    found = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def part_of_the_house(module: str) -> str:
    """The name that a module goes by in FLOORS."""
    return module.split(".")[1] if "." in module else module


def floor_of(module: str) -> int:
    return FLOOR[part_of_the_house(module)]


MODULES = modules()
PLANNED = [module for module in MODULES if part_of_the_house(module) in FLOOR]


def imports(module: str) -> Iterator[tuple[str, list[str]]]:
    """Every import of a module: the dotted name, and the functions and classes around it, outermost first."""

    def visit(node: ast.AST, around: list[str]) -> Iterator[tuple[str, list[str]]]:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.Import):
                yield from ((alias.name, around) for alias in child.names)
            elif isinstance(child, ast.ImportFrom):
                base = absolute(module, child)
                # `from package import name` may name a module of the package.
                yield from (
                    (f"{base}.{alias.name}" if f"{base}.{alias.name}" in MODULES else base, around)
                    for alias in child.names
                )
            elif isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef):
                yield from visit(child, [*around, child.name])
            else:
                yield from visit(child, around)

    yield from visit(ast.parse(MODULES[module].read_text(encoding="utf-8")), [])


def absolute(module: str, node: ast.ImportFrom) -> str:
    """The module that a `from ... import` names, dots resolved."""
    if not node.level:
        return node.module or ""
    is_package = MODULES[module].name == "__init__.py"
    parts = module.split(".")
    base = parts[: len(parts) - node.level + is_package]
    return ".".join([*base, *(node.module or "").split(".")]).rstrip(".")


def own(name: str) -> bool:
    return name.split(".")[0] == "memorization"


def test_every_module_has_a_floor():
    unplanned = [module for module in MODULES if module not in PLANNED]
    assert not unplanned, f"give {unplanned} a floor in FLOORS, and say why in the commit"


@pytest.mark.parametrize("module", PLANNED)
def test_imports_point_down(module):
    upward = [
        f"{module} imports {name}" + (f" in {functions[-1]}()" if functions else "")
        for name, functions in imports(module)
        if own(name) and floor_of(name) > floor_of(module)
    ]
    assert not upward


def test_no_circle_of_files():
    """Imports in functions and those for the type checker counted. A file of a package imports the package's own files by name."""
    below = {
        module: {name for name, _ in imports(module) if own(name) and name != module and name in MODULES}
        for module in MODULES
    }
    TopologicalSorter(below).prepare()  # raises CycleError, naming the modules


def test_two_files_of_the_core_know_transformers_and_two_the_coder():
    importers = {
        package: {module for module in PLANNED for name, _ in imports(module) if name.split(".")[0] == package}
        for package in ("transformers", "constriction")
    }
    assert importers["constriction"] == {"memorization.coding.coder", "memorization.coding.streams"}
    # Models and tokenizers come from transformers one without the other.
    doors = {"memorization.measure.loading", "memorization.measure.tokenizers"}
    assert {m for m in importers["transformers"] if floor_of(m) < FLOOR["lab"]} == doors


@pytest.mark.parametrize("module", [module for module in PLANNED if floor_of(module) <= FLOOR["memorization"]])
def test_heavy_packages_are_imported_late(module):
    """In a function, or for the type checker alone."""
    late = "|".join(re.escape(package) for package in LATE)
    tops = [line for line in MODULES[module].read_text("utf-8").splitlines() if line.startswith(("import ", "from "))]
    assert not [line for line in tops if re.match(rf"(from|import) ({late})\b", line)]


def fresh_process(code: str) -> dict:
    """The JSON that code prints in a new interpreter, which sees none of this process's hooks."""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=PACKAGE.parent)
    return json.loads(done.stdout)


IMPORT_COST = """
import json, sys, time
start = time.process_time()
import memorization
seconds, loaded = time.process_time() - start, sorted(sys.modules)
start = time.process_time()
import numpy
print(json.dumps({"numpy_seconds": time.process_time() - start, "seconds": seconds, "loaded": loaded}))
"""


def test_import_costs_less_than_numpy_and_loads_nothing_heavy():
    """CPU seconds of the two in one process, so that a busy machine adds little; best of up to five processes."""
    ratio = math.inf
    for _ in range(5):
        run = fresh_process(IMPORT_COST)
        assert not {"torch", "numpy", "jaxtyping", "importlib.metadata", *LATE} & set(run["loaded"])
        ratio = min(ratio, run["seconds"] / run["numpy_seconds"])
        print(f"import memorization {run['seconds']:.3f} s, import numpy {run['numpy_seconds']:.3f} s")
        if ratio <= 1:
            break
    assert ratio <= 1


def test_public_names():
    assert memorization.__all__ == sorted(memorization.__all__)
    assert len(set(memorization.__all__)) == len(memorization.__all__)
    for name in memorization.__all__:
        member = getattr(memorization, name)
        assert inspect.isclass(member) or inspect.isfunction(member) or inspect.ismodule(member)
        home = member.__name__ if inspect.ismodule(member) else member.__module__
        assert home.startswith("memorization.")
        assert member.__doc__
    assert isinstance(memorization.__version__, str)


def test_type_checkers_see_the_names_that_are_found_when_first_used():
    """The imports for the type checker give the same objects, from the same places."""
    body = ast.parse(MODULES["memorization"].read_text(encoding="utf-8")).body
    typed = next(node for node in body if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING")
    seen = {}
    for node in typed.body:
        assert isinstance(node, ast.ImportFrom)
        for alias in node.names:
            home = importlib.import_module(node.module)
            seen[alias.asname or alias.name] = getattr(home, alias.name)
    assert seen == {name: getattr(memorization, name) for name in memorization.__all__}


def test_every_function_that_the_readme_lists_is_reachable_and_dir_shows_what_is_public():
    found = fresh_process(
        "import json, re, memorization\n"
        "from pathlib import Path\n"
        "first = dir(memorization)\n"
        "table = Path('README.md').read_text('utf-8').split('[start:functions]')[1].split('[end:functions]')[0]\n"
        "listed = re.findall(r'^\\| `(\\w+)\\(', table, re.M)\n"
        "missing = [name for name in listed if not hasattr(memorization, name)]\n"
        "print(json.dumps([first, dir(memorization), listed, missing, memorization.__all__]))"
    )
    first, after, listed, missing, public = found
    assert first == after == public
    assert len(listed) > 10
    assert not missing


def test_packages_are_reachable_from_the_root_as_in_0_1_0():
    assert fresh_process("import json, memorization; print(json.dumps(memorization.capacity.fit_capacity.__name__))")
    assert not hasattr(memorization, "no_such_thing")


def test_star_import_gives_the_public_names():
    namespace: dict[str, object] = {}
    exec("from memorization import *", namespace)
    assert set(namespace) - {"__builtins__"} == set(memorization.__all__)


@pytest.mark.parametrize("module", [m for m in MODULES if not m.endswith("__main__")])
def test_every_module_imports_and_says_what_it_is_for(module):
    assert importlib.import_module(module).__doc__


MOST_LINES_A_FILE, MOST_LINES_A_FUNCTION = 400, 60
# Functions that are longer with their docstrings, because those explain every argument. What they do keeps the limit.
EXPLAINED = {
    "identifiers",
    "attack",
    "audit",
    "audit_identifiers",
    "audit_membership",
    "bag_of_words_auc",
    "bits",
    "canary_dose_response",
    "capacity",
    "capacity_bits_per_param",
    "compare_capacities",
    "compress",
    "compress_bits",
    "decompress",
    "dose_response",
    "extract",
    "fit_capacity",
    "fit_mi_scaling_law",
    "fixed_length",
    "measure",
    "measure_pair",
    "measure_spans",
    "spans",
    "membership_metrics",
    "open_model",
    "rarity",
    "read_samples",
    "read_windows",
    "run_quickstart",
    "text_sweep",
    "token_moments",
    "track",
    "train",
    "train_stack",
    "unintended_memorization",
    "which_samples",
}
# What is longer even so, and why.
LONG = {
    "memorization.lab.text.experiment.text_sweep": "twenty arguments are checked and written into the experiment's record",
    "memorization.membership.audit.audit_membership": "one model or two are measured, each call with all of its keywords",
}


@pytest.mark.parametrize("module", MODULES)
def test_files_and_functions_can_be_read_at_once(module):
    text = MODULES[module].read_text(encoding="utf-8")
    assert len(text.splitlines()) <= MOST_LINES_A_FILE or module in LONG
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef):
            name, end = f"{module}.{node.name}", node.end_lineno or node.lineno
            whole = end - node.lineno + 1
            first = node.body[ast.get_docstring(node, clean=False) is not None :][:1]
            code = end - first[0].lineno + 1 if first else 0
            assert whole <= MOST_LINES_A_FUNCTION or node.name in EXPLAINED, f"{name} has {whole} lines"
            assert code <= MOST_LINES_A_FUNCTION or name in LONG, f"{name} has {code} lines of code"
