"""The command that writes the report of a saved audit again."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from memorization.cli.results import Folder
from memorization.errors import InputError

if TYPE_CHECKING:
    from memorization.results import Result

_ENDINGS = (".html", ".htm")


def report(
    folder: Folder,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            help="The page, a file that ends in .html; its Markdown goes beside it.  [default: report.html in the "
            "result's folder]",
        ),
    ] = None,
    redact: Annotated[
        bool, typer.Option("--redact", help="Leave out texts, tokens and examples; ids and numbers stay.")
    ] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the file of --output.")] = False,
) -> None:
    """Write the report of a saved audit, or of a saved measurement alone, again: report.html and report.md."""
    from memorization import load

    if folder.is_file():
        raise InputError(f"{folder} is a file: name the folder that holds the saved audit, such as {folder.parent}.")
    if output is not None and output.suffix.lower() not in _ENDINGS:
        raise InputError(f"--output must end in .html; it is {output}. Its Markdown goes beside it.")
    page = folder / "report.html" if output is None else output
    text = page.with_suffix(".md")
    for path in (page, text) if output is not None and not overwrite else ():
        if path.exists():
            raise InputError(f"{path} is there already: name another --output, or pass --overwrite.")
    result = load(folder)
    try:
        page.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"--output {page} cannot be written to: {error.strerror or error}.") from error
    write(result, page, redact=redact)


def write(result: "Result", page: Path, *, redact: bool = False) -> None:
    """Write the report of a result as a page and, beside it, as Markdown, and say where."""
    from memorization.report.html import html_of, markdown_of
    from memorization.report.html.page import write_page

    text = page.with_suffix(".md")
    pages = {page: html_of(result, redact=redact), text: markdown_of(result, redact=redact)}
    for path, content in pages.items():
        write_page(path, content)
    print(f"report: {page}, also as {text.name}")
