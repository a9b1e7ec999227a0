"""The report of an audit as a page (HTML) and as Markdown."""

import base64
import hashlib
import html
import os
import re
import uuid
from functools import lru_cache
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

from memorization.auditing import Audit
from memorization.errors import InputError
from memorization.report.html.charts import charts_of
from memorization.report.html.glossary import GLOSSARY, WARNINGS
from memorization.report.html.hidden import Texts
from memorization.report.html.parts import (
    checks_of,
    duplicates_of,
    extraction_of,
    figures_of,
    membership_of,
    oracle_of,
    spans_of,
)
from memorization.report.html.records import MOST_ROWS, records_of
from memorization.report.html.settings import settings_of
from memorization.report.html.shown import Shown, shown
from memorization.report.html.tokens import STEPS, heat_of
from memorization.results import counted
from memorization.unintended import Memorization

if TYPE_CHECKING:
    from jinja2 import Environment

    from memorization.results import Result

__all__ = ["html_of", "markdown_of", "write_report"]

_MARKDOWN_ROWS = 20
_MARKDOWN_SIGNS = re.compile(r"([\\`*_\[\]|~$#])")
_PARTS = ("membership", "extraction", "rarity", "spans")


def html_of(result: "Result", *, redact: bool = False) -> str:
    """The report as one page of HTML, which loads nothing and needs no script to be read.

    Args:
        result: an `Audit`, or a `Memorization` alone, of which the other parts are "not measured".
        redact: leave out texts, previews, tokens and examples; ids and numbers stay. So it is where the audit was made
            with redact=True.

    Returns:
        The text of the file. Whatever stands in records is text in it: HTML, scripts and control characters are shown.

    Raises:
        InputError: a result of another kind.

    Examples:
        >>> from memorization import UniformModel, unintended_memorization
        >>> found = unintended_memorization(UniformModel(2), UniformModel(4), [[0, 1]], progress=False)
        >>> page = html_of(found)
        >>> page.splitlines()[0], "not measured" in page
        ('<!DOCTYPE html>', True)
    """
    view = _view(_audit_of(result), redact)
    style, script = _source("report.css"), _source("report.js")
    policy = f"default-src 'none'; style-src '{_digest(style)}'; script-src '{_digest(script)}'; base-uri 'none'"
    page = _environment().get_template("report.html.j2")
    return page.render(**view, style=style, script=script, policy=f"{policy}; form-action 'none'")


def markdown_of(result: "Result", *, redact: bool = False) -> str:
    """The report in Markdown, for a pull request or a wiki: the same without pictures and tokens.

    Args:
        result: as for `html_of`.
        redact: as for `html_of`.

    Returns:
        The text of the file; what stands in records is text in it.

    Raises:
        InputError: a result of another kind.

    Examples:
        >>> from memorization import UniformModel, unintended_memorization
        >>> found = unintended_memorization(UniformModel(2), UniformModel(4), [[0, 1]], progress=False)
        >>> markdown_of(found).splitlines()[0]
        '# Memorization audit'
    """
    view = _view(_audit_of(result), redact, pictures=False)
    page = _environment(markdown=True).get_template("report.md.j2")
    return re.sub(r"\n{3,}", "\n\n", page.render(**view, most=_MARKDOWN_ROWS)).strip() + "\n"


def write_report(result: "Result", folder: str | os.PathLike[str], *, redact: bool = False) -> list[Path]:
    """Write report.html and report.md into a folder, in place of those that it holds.

    Args:
        result: as for `html_of`.
        folder: that is there.
        redact: as for `html_of`.

    Returns:
        The two files.

    Raises:
        InputError: a result of another kind, or a folder that cannot be written to.

    Examples:
        >>> import tempfile
        >>> from memorization import UniformModel, unintended_memorization
        >>> found = unintended_memorization(UniformModel(2), UniformModel(4), [[0, 1]], progress=False)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     [path.name for path in write_report(found, folder)]
        ['report.html', 'report.md']
    """
    pages = {"report.html": html_of(result, redact=redact), "report.md": markdown_of(result, redact=redact)}
    return [write_page(Path(folder) / name, text) for name, text in pages.items()]


def write_page(path: Path, text: str) -> Path:
    """Write a file that appears whole or not at all.

    Raises:
        InputError: it cannot be written.
    """
    temporary = path.with_name(f".{path.name}-{uuid.uuid4().hex}.tmp")
    try:
        temporary.write_text(text, encoding="utf-8", newline="\n")
        temporary.replace(path)
    except OSError as error:
        raise InputError(f"the report {path} cannot be written: {error.strerror or error}.") from error
    finally:
        temporary.unlink(missing_ok=True)
    return path


def _audit_of(result: Any) -> Audit:
    """An audit as it is; a Memorization, or that of a quickstart, as one of which nothing else was measured."""
    if isinstance(result, Audit):
        return result
    found = getattr(result, "members", result)
    if not isinstance(found, Memorization):
        raise InputError(
            f"a report is of an Audit, or of a Memorization; a {type(result).__name__} came. Make one with "
            "`memorization audit`."
        )
    import pandas as pd

    return Audit(
        memorization=found,
        membership=None,
        extraction=None,
        rarity=None,
        spans=None,
        texts=pd.DataFrame({"sample": [], "text": [], "pieces": []}),
        settings={
            "policy": [],
            "missing": dict.fromkeys(_PARTS, "not measured"),
            "warnings": [],
            "redacted": False,
            "versions": found.target.settings["versions"],
        },
    )


def _view(audit: Audit, redact: bool, *, pictures: bool = True) -> dict[str, Any]:
    """What the templates show."""
    texts = Texts(redact or audit.redacted)
    memorization, control = audit.memorization, audit.memorization.control
    names = {int(sample): audit.name_of(k) for k, sample in enumerate(memorization.target.index.tolist())}
    records = records_of(audit, texts)
    shown_rows = records.rows[:MOST_ROWS]
    n_control = 0 if control is None else len(control.bits)
    return {
        "target": str(memorization.target.settings["model"]["name"]),
        "oracle_name": str(memorization.oracle.settings["model"]["name"]),
        "sets": f"{counted(len(memorization), 'record')}, {counted(n_control, 'control record')}",
        "date": str(audit.settings.get("date") or ""),
        "hidden": texts.hide,
        "sentences": [texts.sentence(one) for one in audit.sentences()],
        "not_shown": [texts.sentence(one) for one in audit.not_shown()],
        "passed": audit.passed,
        "checks": checks_of(audit, texts),
        "figures": figures_of(audit, texts),
        "oracle": oracle_of(audit, texts),
        "charts": charts_of(audit) if pictures else {},
        "heats": heat_of(audit, texts) if pictures else [],
        "steps": STEPS,
        "columns": records.columns,
        "rows": [records.cells(row) for row in shown_rows],
        "n_rows": len(records.rows),
        "data": {
            "most": MOST_ROWS,
            "kinds": [column.kind for column in records.columns],
            "rows": records.rows,
        }
        if pictures
        else {},
        "membership": membership_of(audit),
        "extraction": extraction_of(audit.extraction, names, texts),
        "duplicates": duplicates_of(audit.rarity, names, texts),
        "spans": spans_of(audit.spans),
        "missing": {name: texts.sentence(why) for name, why in audit.missing.items()},
        "warnings": [(WARNINGS.get(kind, kind), texts.sentence(told)) for kind, told in audit.warnings],
        "settings": settings_of(audit, texts),
        "glossary": GLOSSARY,
    }


@lru_cache(maxsize=2)
def _environment(*, markdown: bool = False) -> "Environment":
    """Templates that escape all that they show, and write out what cannot be seen."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("memorization.report.html"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_for_markdown if markdown else _for_html,
    )
    environment.policies["json.dumps_kwargs"] = {"separators": (",", ":")}
    return environment


def _for_html(value: Any) -> Any:
    return shown(value) if _is_raw(value) else value


def _for_markdown(value: Any) -> Any:
    """Text on one line of which Markdown takes no sign for its own."""
    from markupsafe import Markup

    if not isinstance(value, str) or hasattr(value, "__html__"):
        return value
    line = " ".join((shown(value) if _is_raw(value) else value).split())
    return Markup(html.escape(_MARKDOWN_SIGNS.sub(r"\\\1", line), quote=False))


def _is_raw(value: Any) -> bool:
    return isinstance(value, str) and not isinstance(value, Shown) and not hasattr(value, "__html__")


def _source(name: str) -> str:
    return (resources.files("memorization.report.html") / "templates" / name).read_text(encoding="utf-8")


def _digest(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
