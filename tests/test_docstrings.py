"""Every public name says what it takes, in which units, what it returns and raises, shows an example, and names its source.

Public is what `memorization.__all__` has and what the pages of the reference list. Examples run as doctests.
"""

import ast
import dataclasses
import importlib
import inspect
import re
import textwrap
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import memorization

API = Path(__file__).resolve().parents[1] / "docs" / "api"
SECTION = re.compile(
    r"^(Args|Attributes|Returns|Raises|Examples?|Source|Sources|Guarantees|Requirements):", re.MULTILINE
)
LISTED = re.compile(r"^::: *(\S+)((?:\n(?: .*)?)*)", re.MULTILINE)  # with its options, which are indented
# Functions that implement nothing of a paper, and what they do instead.
NO_SOURCE = {
    **dict.fromkeys(
        (
            "read_samples",
            "scan_samples",
            "open_model",
            "load",
            "documents_of",
            "grouped_documents_of",
            "byte_level_bpe",
        ),
        "reads and opens",
    ),
    **dict.fromkeys(("with_end_of_text", "token_edges", "byte_bits", "check_k_percent"), "counts what is there"),
    **dict.fromkeys(("split_documents", "folds_of", "make_canaries", "insert_canaries", "random_tokens"), "draws"),
    **dict.fromkeys(("solve_width", "count_params", "quantize_weights", "train"), "builds and trains"),
    **dict.fromkeys(
        (
            "extraction_of",
            "f1_and_auc",
            "f1_and_auc_intervals",
            "f1_of_gap",
            "zlib_bits",
            "token_moments",
        ),
        "a part of another",
    ),
    "addresses": "the text of the package, whose source its page has",
    **dict.fromkeys(("read_policy", "check_policy"), "what a user asks for"),
    **dict.fromkeys(("html_of", "markdown_of", "write_report"), "shows what others measured"),
    "decompress": "the inverse of compress, which names them",
    "measure_spans": "memU of parts is this library's own",
    "spans_of": "memU of parts is this library's own",
    "run_quickstart": "a demonstration",
    "warn": "Python's warnings",
}
# What an example would take, where there is none.
NO_EXAMPLE = {
    "Audit": "what the example of audit gives",
    "run_quickstart": "a minute and a half of training",
    "Quickstart": "a minute and a half of training",
    "TextSweep": "training, which the example of text_sweep does",
    "warn": "a caller outside the library",
}
SUMMARY = 120  # characters


def named(path: str) -> Any:
    """What a dotted path leads to."""
    parts = path.split(".")
    for end in range(len(parts), 0, -1):
        try:
            found: Any = importlib.import_module(".".join(parts[:end]))
        except ImportError:
            continue
        for name in parts[end:]:
            found = getattr(found, name)
        return found
    raise AssertionError(f"{path} leads nowhere")


def is_own(value: Any) -> bool:
    return (inspect.isfunction(value) or inspect.isclass(value)) and value.__module__.startswith("memorization")


def doc_of(value: Any) -> str:
    return inspect.cleandoc(value.__doc__ or "")


def public() -> dict[str, Any]:
    """Functions and classes by their names."""
    paths = [f"memorization.{name}" for name in memorization.__all__]
    for page in sorted(API.glob("*.md")):
        for path, options in LISTED.findall(page.read_text(encoding="utf-8")):
            listed = re.search(r"^ +members:(?: *\[(?P<flat>.*)\]|(?P<long>(?:\n +- .*)+))", options, re.MULTILINE)
            names = re.findall(r"\w+", listed["flat"] or listed["long"]) if listed else []
            paths += [f"{path}.{name}" for name in names] if isinstance(named(path), ModuleType) and names else [path]
    found = {}
    for value in map(named, paths):
        if isinstance(value, ModuleType):
            names = getattr(value, "__all__", [name for name in vars(value) if not name.startswith("_")])
            values = [one for one in (getattr(value, name) for name in names) if is_own(one)]
            values = [one for one in values if one.__module__.startswith(value.__name__)]
        else:
            values = [value]
        found |= {f"{one.__module__}.{one.__qualname__}": one for one in values if is_own(one)}
    return {path: value for path, value in found.items() if not doc_of(value).startswith("The old name of ")}


PUBLIC = public()


def members() -> Iterator[tuple[str, Any]]:
    """Public methods and properties that a public class has of itself or of another class of the library."""
    for path, cls in PUBLIC.items():
        if not inspect.isclass(cls):
            continue
        for name in dir(cls):
            own = inspect.getattr_static(cls, name)
            own = own.fget if isinstance(own, property) else getattr(own, "__func__", own)
            if not name.startswith("_") and inspect.isfunction(own) and own.__module__.startswith("memorization"):
                yield f"{path}.{name}", own


FUNCTIONS = {path: value for path, value in PUBLIC.items() if inspect.isfunction(value)}
CLASSES = {path: value for path, value in PUBLIC.items() if inspect.isclass(value)}
MEMBERS = dict(members())
CALLED = FUNCTIONS | MEMBERS


def section(doc: str, *names: str) -> str:
    """The text of the first of these sections that a docstring has."""
    heads = [*SECTION.finditer(doc)]
    for head, after in zip(heads, [*heads, None][1:], strict=True):
        if head[1] in names:
            return doc[head.end() : after.start() if after else None]
    return ""


@pytest.mark.parametrize("path", [*PUBLIC, *MEMBERS])
def test_the_first_line_is_a_sentence(path):
    doc = doc_of((PUBLIC | MEMBERS)[path])
    first = doc.split("\n")[0]
    assert len(first) <= SUMMARY
    assert re.search(r"[.?:]$", first), first


@pytest.mark.parametrize("path", CALLED)
def test_every_parameter_is_explained(path):
    value = CALLED[path]
    doc = doc_of(value)
    told = section(doc, "Args")
    names = [name for name in inspect.signature(value).parameters if name not in ("self", "cls")]
    missing = [name for name in names if not re.search(rf"^ +\*{{0,2}}{name}( \(.*\))?: \S", told, re.MULTILINE)]
    if path in MEMBERS and not told:  # a method of a line or two may say it there
        missing = [name for name in names if not re.search(rf"\b{name}\b", doc)]
    assert not missing


@pytest.mark.parametrize("path", [path for path, value in CLASSES.items() if dataclasses.is_dataclass(value)])
def test_every_field_is_explained(path):
    told = section(doc_of(CLASSES[path]), "Attributes", "Args")
    names = [field.name for field in dataclasses.fields(CLASSES[path]) if not field.name.startswith("_")]
    assert not [name for name in names if not re.search(rf"^ +{name}( \(.*\))?: \S", told, re.MULTILINE)]


@cache
def tree_of(value: Any) -> ast.FunctionDef:
    (found,) = ast.parse(textwrap.dedent(inspect.getsource(inspect.unwrap(value)))).body
    assert isinstance(found, ast.FunctionDef)
    return found


@pytest.mark.parametrize("path", CALLED)
def test_what_comes_back_is_explained(path):
    """In Returns; a method of a line or two says it there."""
    value = CALLED[path]
    doc = doc_of(value)
    if inspect.unwrap(value).__annotations__.get("return") not in (None, "None"):
        said = re.search(r"\breturns?\b", doc.split("\n\n")[0]) or (path in MEMBERS and not section(doc, "Args"))
        assert section(doc, "Returns").strip() or said


def raised(node: ast.AST) -> Iterator[str]:
    """Errors that a function raises itself."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.FunctionDef | ast.Lambda | ast.ClassDef):
            continue
        if isinstance(child, ast.Raise) and child.exc is not None:
            exc = child.exc.func if isinstance(child.exc, ast.Call) else child.exc
            if isinstance(exc, ast.Name) and exc.id.endswith("Error"):
                yield exc.id
        yield from raised(child)


@pytest.mark.parametrize("path", CALLED)
def test_what_is_raised_is_explained(path):
    value = CALLED[path]
    told = section(doc_of(value), "Raises")
    assert not [name for name in sorted({*raised(tree_of(value))}) if name not in told]


@pytest.mark.parametrize("path", CALLED)
def test_units_of_bits_are_told(path):
    name = path.rsplit(".", 1)[1]
    if re.search(r"(^|_)bits(_|$)", name):
        assert re.search(r"\b[Bb]its?\b", doc_of(CALLED[path]))


@pytest.mark.parametrize(
    "path", [*FUNCTIONS, *(path for path in CLASSES if issubclass(CLASSES[path], memorization.Result))]
)
def test_there_is_an_example_that_runs(path):
    """The pictures have theirs on the pages that show them, and tests/test_show.py draws each."""
    name = path.rsplit(".", 1)[1]
    runs = ">>> " in section(doc_of(PUBLIC[path]), "Example", "Examples")
    assert runs != (name in NO_EXAMPLE or name.startswith("plot_")), "an example, or a reason in NO_EXAMPLE"


@pytest.mark.parametrize("path", FUNCTIONS)
def test_the_source_is_named(path):
    """By the functions; what they return is described where they are."""
    name = path.rsplit(".", 1)[1]
    named_there = bool(section(doc_of(FUNCTIONS[path]), "Source", "Sources").strip())
    assert named_there != (name in NO_SOURCE or name.startswith("plot_")), "named, or with a reason in NO_SOURCE"


# Signatures that say Any where no alias of a type could say more, and why.
_JSON = "nested records of JSON, read by key"
_TOKENIZER = "an object of transformers, tokenizers or tiktoken, of which only what is called is needed"
ANY = {
    "settings": _JSON,  # of every result
    "OpenModel.record": _JSON,
    "as_measured.record": _JSON,
    "record.return": _JSON,
    "summary.return": _JSON,
    **dict.fromkeys(("get.cell", "get.return", "put.cell", "put.result", "once.decide", "once.return"), _JSON),
    **dict.fromkeys(("OpenModel.tokenizer", "TextSweep.tokenizer", "FixedLength.tokenizer"), _TOKENIZER),
    **dict.fromkeys(("token_edges.tokenizer", "tokenize.tokenizer"), _TOKENIZER),
    "scan_samples.samples": "what read_samples takes, or any iterable of rows",
    "Deduplicated.samples": "of the kind that came: texts, lists or an array",
    **dict.fromkeys(("Samples.row_ids", "Samples.kept"), "cells of the user's own columns"),
    "plot_tokens.tokenizer": _TOKENIZER,
    "check_k_percent.k_percent": "whatever came, which it refuses or takes",
    "plot.options": "each picture has its own, which its function names and checks",
    "compare_capacities.options": "those of capacity_bits_per_param, which names and checks them",
}


def annotated(tree: ast.FunctionDef | ast.ClassDef) -> Iterator[tuple[str, ast.expr]]:
    """Parameters, what comes back, and fields, as the source has them: aliases of types that are Any at run time too."""
    if isinstance(tree, ast.ClassDef):
        for node in tree.body:
            if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
                yield node.target.id, node.annotation
        return
    arguments = tree.args
    every = [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs, arguments.vararg, arguments.kwarg]
    yield from ((one.arg, one.annotation) for one in every if one is not None and one.annotation is not None)
    if tree.returns is not None:
        yield "return", tree.returns


def say_any(path: str, value: Any) -> list[str]:
    (tree,) = ast.parse(textwrap.dedent(inspect.getsource(inspect.unwrap(value)))).body
    assert isinstance(tree, ast.FunctionDef | ast.ClassDef)
    return [
        f"{path.rsplit('.', 1)[1]}.{name}"
        for name, annotation in annotated(tree)
        if not name.startswith("_") and re.search(r"\bAny\b", ast.unparse(annotation))
    ]


@pytest.mark.parametrize("path", [*PUBLIC, *MEMBERS])
def test_no_signature_says_any_where_a_type_could(path):
    assert not [
        one for one in say_any(path, (PUBLIC | MEMBERS)[path]) if one not in ANY and one.split(".")[1] not in ANY
    ]


def test_what_is_explained_is_there():
    found = {one for path, value in (PUBLIC | MEMBERS).items() for one in say_any(path, value)}
    assert set(ANY) <= found | {one.split(".")[1] for one in found}
    names = {path.rsplit(".", 1)[1] for path in PUBLIC}
    assert set(NO_SOURCE) | set(NO_EXAMPLE) <= names
