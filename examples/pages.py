"""The notebooks as pages of the documentation, with their stored outputs: a hook that mkdocs calls (see mkdocs.yml).

Nothing is run and nothing is fetched. Tables are shown as text, pictures as files beside the page.
"""

import base64
import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mkdocs.config.defaults import MkDocsConfig
    from mkdocs.structure.files import Files

HERE = Path(__file__).resolve().parent
ANSI = re.compile(r"\x1b\[[0-9;]*m")


def on_files(files: "Files", config: "MkDocsConfig") -> "Files":
    """Add examples/NAME.md and its pictures for each notebook of this folder."""
    from mkdocs.structure.files import File

    for notebook in sorted(HERE.glob("*.ipynb")):
        text, pictures = page(notebook)
        files.append(File.generated(config, f"examples/{notebook.stem}.md", content=text))
        for name, content in pictures.items():
            files.append(File.generated(config, f"examples/{name}", content=content))
    return files


def page(notebook: Path) -> tuple[str, dict[str, bytes]]:
    """Markdown of a notebook, and its pictures by file name."""
    pictures: dict[str, bytes] = {}
    parts = []
    for number, cell in enumerate(json.loads(notebook.read_text(encoding="utf-8"))["cells"]):
        source = "".join(cell["source"])
        if cell["cell_type"] == "markdown":
            parts.append(source)
            continue
        parts.append(_fenced(source, "python"))
        for k, (kind, content) in enumerate(_outputs(cell["outputs"])):
            if kind == "image/png":
                name = f"{notebook.stem}-{number}-{k}.png"
                pictures[name] = base64.b64decode(content)
                parts.append(f"![What the code above draws]({name})")
            else:
                parts.append(_fenced(ANSI.sub("", content), "text"))
    parts.insert(
        1,
        f"This page shows `examples/{notebook.name}` of the repository, with the outputs stored in it. The tests run it.",
    )
    return "\n\n".join(parts) + "\n", pictures


def _outputs(outputs: list[Mapping[str, Any]]) -> Iterator[tuple[str, str]]:
    """Kind and content of each output that a page shows: what was printed, then what a cell returned or drew."""
    for output in outputs:
        if output["output_type"] == "stream":
            if output["name"] == "stdout":
                yield "text/plain", "".join(output["text"])
            continue
        data = output.get("data", {})
        kind = next((kind for kind in ("image/png", "text/plain") if kind in data), None)
        if kind is not None:
            yield kind, "".join(data[kind])


def _fenced(content: str, language: str) -> str:
    """A block of code, in a fence that is longer than any run of backticks in it."""
    fence = "`" * max(3, 1 + max(map(len, re.findall(r"`+", content)), default=0))
    return f"{fence}{language}\n{content.rstrip()}\n{fence}"
